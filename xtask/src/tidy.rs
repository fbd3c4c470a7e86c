//! The rules of the house that a machine can check; docs/STYLE.md gives their reasons.
//!
//! Each finding says where, what, and how to mend it.
//! The checks are plain functions over the text of the files, so that each is tested on text.
//! Existing exceptions to the size limits stand in `xtask/ratchet.txt` and may only shrink.

mod edges;
mod golden;
mod links;
mod naming;
mod quiet;
mod rust;
mod size;
pub(crate) mod tree;

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::process;
use crate::project::Project;

/// A place where a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// The path below the root.
    file: String,
    /// The line, from 1.
    line: usize,
    /// What is wrong.
    message: String,
    /// How to mend it.
    mend: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, message, mend } = self;
        write!(f, "{file}:{line}: {message}\n  hint: {mend}")
    }
}

/// Checks everything and prints what was found.
pub(crate) fn run(project: &Project) -> Result<ExitCode> {
    let findings = check(&project.root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let formatted = process::succeeds(&mut formatting(&project.root));
    if !formatted {
        eprintln!("the code is not formatted\n  hint: run `cargo fmt --all`");
    }
    if findings.is_empty() && formatted {
        eprintln!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} findings", findings.len() + usize::from(!formatted));
    Ok(ExitCode::FAILURE)
}

/// All findings but those of rustfmt, in the order of files and lines.
fn check(root: &Path) -> Result<Vec<Finding>> {
    let files = tree::read(root)?;
    let mut findings = edges::check(root, &files)?;
    findings.extend(size::check(&files)?);
    findings.extend(naming::check(&files));
    findings.extend(quiet::check(&files));
    findings.extend(links::check(root, &files));
    findings.extend(golden::check(root)?);
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn formatting(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["fmt", "--all", "--", "--check"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let project = Project::find().expect("the test runs in the repository");
        let findings = check(&project.root).expect("the repository can be read");
        let text: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "{} findings:\n{}", text.len(), text.join("\n"));
    }

    #[test]
    fn the_repository_is_formatted() {
        let project = Project::find().expect("the test runs in the repository");
        let output = process::output(&mut formatting(&project.root));
        assert!(output.is_ok(), "run `cargo fmt --all`: {:#}", output.expect_err("not ok"));
    }
}
