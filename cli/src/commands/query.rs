//! `maestro query EXPRESSION`: asks about targets, without building anything.

use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_executor::workspace::host::{HostOptions, WorkspaceHost};

use crate::args::{Global, OutputFormat, QueryArgs};
use crate::config::{Config, PROJECT_FILE};

/// Runs the command.
pub fn query(global: &Global, args: &QueryArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let markers = HostOptions { workspace_markers: vec![PROJECT_FILE.to_owned()] };
    let host = WorkspaceHost::new(&config.workspace, markers)
        .with_context(|| format!("cannot open `{}`", config.workspace.display()))?;
    let targets = crate::load::query(&config, &host, &args.expression)?;
    if global.output == OutputFormat::Json {
        println!("{}", serde_json::to_string(&targets)?);
        return Ok(ExitCode::SUCCESS);
    }
    for target in &targets {
        if args.label_kind {
            println!("{} {}", target.kind, target.label);
        } else {
            println!("{}", target.label);
        }
    }
    Ok(ExitCode::SUCCESS)
}
