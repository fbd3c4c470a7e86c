//! `maestro explain [LABEL …]`: why actions ran again the last time.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::Label;
use maestro_executor::workspace;
use maestro_executor::workspace::explain::lines::with_lines;
use maestro_executor::workspace::explain::{actions_below, explain as explain_actions};

use crate::args::{ExplainArgs, Global, OutputFormat};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::open_store;

/// Runs the command.
pub fn explain(global: &Global, args: &ExplainArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
    let log = crate::memory::open_log(&state_dir)?;
    let identities: Vec<String> = if args.labels.is_empty() {
        log.identities().into_iter().map(str::to_owned).collect()
    } else {
        let labels = args.labels.iter().map(|text| {
            Label::parse(text, "", &config.package).map_err(|e| Failure::input(e.to_string()))
        });
        let labels = labels.collect::<Result<Vec<_>, _>>()?;
        let found = actions_below(&log, &labels);
        if found.is_empty() {
            let asked = args.labels.join(" ");
            return Err(Failure::input(format!("nothing is known of {asked}"))
                .hint(format!("`maestro build {asked}` builds it"))
                .into());
        }
        found
    };
    let mut explanations = explain_actions(&log, &identities);
    // What a source said before lies in the store, as an input of the build that read it.
    if let Ok(store) = open_store(&config) {
        with_lines(&mut explanations, |digest| store.read(digest).ok());
    }
    if global.output == OutputFormat::Json {
        println!("{}", serde_json::to_string(&explanations)?);
        return Ok(ExitCode::SUCCESS);
    }
    for explanation in &explanations {
        println!("{}", explanation.render());
    }
    Ok(ExitCode::SUCCESS)
}
