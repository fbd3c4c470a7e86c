//! `maestro run LABEL -- ARGS`: builds a target, then becomes its program.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::args::{Global, RunArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::{Invocation, Request};

/// Runs the command.
pub fn run(global: &Global, args: &RunArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let options = crate::profiles::options(&config, &args.options)?;
    let patterns = vec![args.target.clone()];
    let request = Request { command: "run", patterns, options, tests: false };
    let invocation = Invocation::start_with(global, config, request)?;
    let loaded = invocation.load(std::slice::from_ref(&args.target))?;
    let [id] = loaded.requested.as_slice() else {
        return Err(Failure::input(format!(
            "`{}` names {} targets; `run` takes one",
            args.target,
            loaded.requested.len()
        ))
        .into());
    };
    let mut want = super::build::wanted(&loaded.graph, *id, false);
    let Some(executable) = loaded.graph.target(*id).executable.clone() else {
        let target = loaded.graph.target(*id);
        return Err(Failure::input(format!(
            "`{}` cannot be run: rule `{}` makes no program",
            target.label, target.rule
        ))
        .hint(format!("`maestro build {}` builds it", target.label))
        .into());
    };
    want.artifacts.push(executable.file);
    want.artifacts.extend(executable.runfiles);
    let built = invocation.build(&loaded.graph, vec![want])?;
    let program = built.executables.first().cloned().flatten().map(|(_, path)| path);
    let success = built.report.success();
    let code = invocation.conclude(built)?;
    let Some(program) = program.filter(|_| success) else { return Ok(code) };
    let error = Command::new(&program)
        .args(&executable.args)
        .args(&args.arguments)
        .envs(executable.env.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}
