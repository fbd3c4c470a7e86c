//! `maestro clean`: removes outputs; the cache keeps what they were made of.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_executor::runner::Cancel;
use maestro_executor::workspace;
use maestro_executor::workspace::lock::{WaitOptions, WorkspaceLock};

use crate::args::{CleanArgs, Global};
use crate::config::Config;
use crate::exit::{Failure, chain};

/// Runs the command.
pub fn clean(global: &Global, args: &CleanArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let state = workspace::state_dir(&config.cache, &config.workspace)?;
    let wait = WaitOptions { timeout: None, cancel: Cancel::default() };
    let _lock = WorkspaceLock::acquire(&state, "clean", &wait, |holder| {
        eprintln!("waiting for {holder}, which builds this workspace");
    })
    .map_err(|e| Failure::new(e.kind(), chain(&e)))?;
    remove(&config.workspace.join("maestro-out"))?;
    if args.expunge {
        remove(&state)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", dir.display()))
        }
        _ => Ok(()),
    }
}
