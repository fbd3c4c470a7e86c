//! `cargo xtask bench`: sets up what is compared, builds Maestro as it is shipped, measures.
//!
//! The measuring itself is the crate in bench/, which knows nothing of this repository.

mod runs;

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::machine::{self, Purpose};
use crate::process;
use crate::project::Project;

/// Runs the benchmarks; `arguments` go to the harness.
pub(crate) fn run(project: &Project, arguments: &[String]) -> Result<ExitCode> {
    machine::install(Purpose::Everything)?;
    if arguments.first().is_some_and(|argument| argument == "runs") {
        runs::run(project)?;
        return Ok(ExitCode::SUCCESS);
    }
    let harness = project.build_release("maestro-bench", "maestro-bench")?;
    let mut command = Command::new(harness);
    command.current_dir(&project.root);
    if !arguments.iter().any(|argument| argument == "--maestro") {
        let maestro = project.build_release("maestro-cli", "maestro")?;
        command.arg("--maestro").arg(&maestro);
    }
    if !arguments.iter().any(|argument| argument == "--out") {
        command.args(["--out", "docs/performance.md"]);
    }
    process::run(command.args(arguments))?;
    Ok(ExitCode::SUCCESS)
}
