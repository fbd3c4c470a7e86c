//! `maestro profile FILE`: where the time of a build went.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::args::{Global, OutputFormat, ProfileArgs};
use crate::exit::{Failure, chain};
use crate::profile::analysis::{Analysis, analyze, percent, time};
use crate::profile::{page, read};

/// Actions of the critical path that the text shows.
const SHOWN_MAX: usize = 20;

/// Runs the command.
pub fn profile(global: &Global, args: &ProfileArgs) -> Result<ExitCode> {
    let shown = args.file.display();
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("cannot read `{shown}`"))?;
    let build = read::read(&text).map_err(|error| {
        Failure::input(format!("`{shown}` is no profile: {}", chain(&error)))
            .hint("`maestro build --trace FILE …` writes one, `--events FILE` another")
    })?;
    let analysis = analyze(&build);
    if let Some(path) = &args.html {
        std::fs::write(path, page::render(&build, &analysis))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        eprintln!("written to `{}`", path.display());
    }
    match global.output {
        OutputFormat::Json => println!("{}", serde_json::to_string(&analysis)?),
        _ => print!("{}", text_of(&analysis)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(analysis: &Analysis) -> String {
    let run_ms = analysis.wall_ms.saturating_sub(analysis.analyzed_ms);
    let mut out = format!(
        "maestro {}\n\n\
         wall time       {:>10}   of it {} until analysis ended\n\
         critical path   {:>10}   {} % of the time after analysis\n\
         work            {:>10}   {:.1} actions at once, at most {}\n\
         waiting         {:>10}   ready, without a slot\n\
         actions         {:>10}   ran, {} reused\n",
        analysis.request,
        time(analysis.wall_ms),
        time(analysis.analyzed_ms),
        time(analysis.critical_path_ms),
        percent(analysis.critical_path_ms, run_ms),
        time(analysis.work_ms),
        analysis.parallelism,
        analysis.parallelism_max,
        time(analysis.waiting_ms),
        analysis.ran,
        analysis.reused,
    );
    if !analysis.critical_path.is_empty() {
        out.push_str("\ncritical path         took     waited\n");
    }
    let hidden = analysis.critical_path.len().saturating_sub(SHOWN_MAX);
    for link in analysis.critical_path.iter().skip(hidden) {
        out.push_str(&format!(
            "{:>25} {:>10}   {} {}\n",
            time(link.duration_ms),
            time(link.waited_ms),
            link.mnemonic,
            link.label
        ));
    }
    if hidden > 0 {
        out.push_str(&format!("  after {hidden} more\n"));
    }
    if !analysis.slowest.is_empty() {
        out.push_str("\nslowest actions       took      slack\n");
    }
    for slow in &analysis.slowest {
        out.push_str(&format!(
            "{:>25} {:>10}   {} {}\n",
            time(slow.duration_ms),
            time(slow.slack_ms),
            slow.mnemonic,
            slow.label
        ));
    }
    if !analysis.kinds.is_empty() {
        out.push_str("\nkinds             together    longest        ran     reused\n");
    }
    for kind in &analysis.kinds {
        out.push_str(&format!(
            "{:>25} {:>10} {:>10} {:>10}   {}\n",
            time(kind.total_ms),
            time(kind.longest_ms),
            kind.ran,
            kind.reused,
            kind.mnemonic
        ));
    }
    for line in &analysis.advice {
        out.push_str(&format!("\nhint: {line}"));
    }
    if !analysis.advice.is_empty() {
        out.push('\n');
    }
    out
}
