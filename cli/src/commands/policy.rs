//! `maestro policy`: tests, explains, checks and prints policies.

mod explain;
mod lint;
mod show;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use maestro_core::policy::DecisionPoint;
use maestro_policy::Finding;

use crate::args::{Global, PolicyCommand};
use crate::config::{Config, PROJECT_FILE};
use crate::exit::Failure;
use crate::policies::Chosen;

/// Runs the command.
pub fn policy(global: &Global, command: &PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Test(args) => test::test(global, args),
        PolicyCommand::Explain(args) => explain::explain(global, args),
        PolicyCommand::Lint(args) => lint::lint(global, args),
        PolicyCommand::Show(args) => show::show(global, args),
        PolicyCommand::Schema(args) => show::schema(global, args),
    }
}

/// What the paths name, else what the project file does.
fn chosen(global: &Global, paths: &[PathBuf], must_have: bool) -> Result<Chosen> {
    let config = match (Config::load(global), paths.is_empty()) {
        (Ok(config), _) => Some(config),
        // Policies that are named need no workspace, as in a job that checks nothing else.
        (Err(_), false) if global.workspace.is_none() => None,
        (Err(error), _) => return Err(error),
    };
    let project = config.as_ref().map(|config| &config.project.policy);
    let (root, paths) = match (&config, paths.is_empty()) {
        (Some(config), true) => (config.workspace.as_path(), &config.project.policy.paths[..]),
        _ => (Path::new(""), paths),
    };
    if must_have && paths.is_empty() {
        return Err(Failure::input("there are no policies of your own")
            .hint("name files or folders")
            .hint(format!("or list them in `{PROJECT_FILE}`: [policy] paths = [\"policy\"]"))
            .into());
    }
    Chosen::read(root, paths, project.is_none_or(|policy| policy.default))
}

/// Whether a finding is about a file of the user.
fn is_own(chosen: &Chosen, finding: &Finding) -> bool {
    let file = finding.place.as_ref().map(|place| &place.file);
    file.is_none_or(|file| chosen.own.modules.iter().any(|module| module.name == *file))
}

/// The decision point of a name.
fn point(name: &str) -> Result<DecisionPoint> {
    let names: Vec<&str> = DecisionPoint::ALL.iter().map(|point| point.name()).collect();
    let unknown = || {
        Failure::input(format!("there is no decision point `{name}`"))
            .hint(format!("the points are {}", names.join(", ")))
    };
    Ok(DecisionPoint::parse(name).ok_or_else(unknown)?)
}
