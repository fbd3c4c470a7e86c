//! `maestro explain [LABEL …]`: why actions ran again the last time, or why they ran at all.

mod lookup;

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::Label;
use maestro_executor::baselines::Baselines;
use maestro_executor::workspace;
use maestro_executor::workspace::build_log::ActionRecord;
use maestro_executor::workspace::explain::lines::with_lines;
use maestro_executor::workspace::explain::trees::with_files;
use maestro_executor::workspace::explain::{
    Explanation, actions_below, explain as explain_actions, explain_not_cached, of_last_build,
};

use self::lookup::{LookedUp, look_up};
use crate::args::{ExplainArgs, Global, OutputFormat};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::open_store;

/// Runs the command.
pub fn explain(global: &Global, args: &ExplainArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
    let log = crate::memory::open_log(&state_dir)?;
    let mut records: Vec<ActionRecord> = log.records().collect();
    let mut wanted = wanted(&config, args, &records)?;
    let store = open_store(&config)?;
    let baselines = Baselines::new(&store);
    let mut explanations = match (args.why_not_cached, wanted.is_empty()) {
        (true, true) if !args.labels.is_empty() => {
            let LookedUp { records: found, waiting } = look_up(global, &args.labels)?;
            let plural = if waiting == 1 { "" } else { "s" };
            eprintln!("nothing was built; {waiting} further action{plural} would wait for these");
            records = found;
            wanted = records.iter().collect();
            explain_not_cached(&records, &wanted, baselines)
        }
        (true, _) => explain_not_cached(&records, &of_last_build(&log, &wanted), baselines),
        (false, true) if !args.labels.is_empty() => return Err(unknown(args).into()),
        (false, _) => {
            let changed = of_last_build(&log, &wanted);
            explain_actions(&log, &records, &changed, Some(baselines))
        }
    };
    // What a source said before lies in the store, as an input of the build that read it.
    with_lines(&mut explanations, |digest| store.read(digest).ok());
    with_files(&mut explanations, |digest| store.directory(digest).ok());
    print(&explanations, args.json || global.output == OutputFormat::Json)?;
    if explanations.is_empty() && args.why_not_cached {
        eprintln!("all that was looked at was cached");
    }
    Ok(ExitCode::SUCCESS)
}

/// The actions that are asked about, as far as they were built here.
fn wanted<'r>(
    config: &Config,
    args: &ExplainArgs,
    records: &'r [ActionRecord],
) -> Result<Vec<&'r ActionRecord>> {
    if args.labels.is_empty() {
        return Ok(records.iter().collect());
    }
    let labels = args.labels.iter().map(|text| {
        Label::parse(text, "", &config.package).map_err(|e| Failure::input(e.to_string()))
    });
    Ok(actions_below(records, &labels.collect::<Result<Vec<_>, _>>()?))
}

fn unknown(args: &ExplainArgs) -> Failure {
    let asked = args.labels.join(" ");
    Failure::input(format!("nothing is known of {asked}"))
        .hint(format!("`maestro build {asked}` builds it"))
        .hint(format!("`maestro explain --why-not-cached {asked}` says what a build would run"))
}

fn print(explanations: &[Explanation], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(explanations)?);
        return Ok(());
    }
    for explanation in explanations {
        println!("{}", explanation.render());
    }
    Ok(())
}
