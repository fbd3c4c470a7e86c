//! `maestro explain [LABEL …]`: why actions ran again the last time, or why they ran at all.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::Label;
use maestro_executor::baselines::Baselines;
use maestro_executor::workspace;
use maestro_executor::workspace::build_log::ActionRecord;
use maestro_executor::workspace::explain::lines::with_lines;
use maestro_executor::workspace::explain::trees::with_files;
use maestro_executor::workspace::explain::{
    actions_below, explain as explain_actions, explain_not_cached,
};

use crate::args::{ExplainArgs, Global, OutputFormat};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::open_store;

/// Runs the command.
pub fn explain(global: &Global, args: &ExplainArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
    let log = crate::memory::open_log(&state_dir)?;
    let records: Vec<ActionRecord> = log.records().collect();
    let wanted = wanted(&config, args, &records)?;
    let store = open_store(&config)?;
    let baselines = Baselines::new(&store);
    let mut explanations = match args.why_not_cached {
        true => explain_not_cached(&log, &records, &wanted, baselines),
        false => explain_actions(&log, &records, &wanted, Some(baselines)),
    };
    // What a source said before lies in the store, as an input of the build that read it.
    with_lines(&mut explanations, |digest| store.read(digest).ok());
    with_files(&mut explanations, |digest| store.directory(digest).ok());
    if args.json || global.output == OutputFormat::Json {
        println!("{}", serde_json::to_string(&explanations)?);
        return Ok(ExitCode::SUCCESS);
    }
    for explanation in &explanations {
        println!("{}", explanation.render());
    }
    if explanations.is_empty() && args.why_not_cached {
        eprintln!("all that the last build looked at was cached");
    }
    Ok(ExitCode::SUCCESS)
}

/// The actions that are asked about.
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
    let found = actions_below(records, &labels.collect::<Result<Vec<_>, _>>()?);
    if found.is_empty() {
        let asked = args.labels.join(" ");
        return Err(Failure::input(format!("nothing is known of {asked}"))
            .hint(format!("`maestro build {asked}` builds it"))
            .into());
    }
    Ok(found)
}
