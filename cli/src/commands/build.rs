//! `maestro build` and `maestro test`.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::graph::TargetId;
use maestro_core::{ActionGraph, ArtifactId};

use crate::args::{BuildArgs, Global};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::{Invocation, Request, Wanted};
use crate::null_build::{Look, look};
use crate::output_groups::OutputGroups;

/// Builds targets.
pub fn build(global: &Global, args: &BuildArgs) -> Result<ExitCode> {
    once_or_watching(global, args, || run(global, args, "build", false))
}

/// Builds targets and runs the tests among them.
pub fn test(global: &Global, args: &BuildArgs) -> Result<ExitCode> {
    once_or_watching(global, args, || run(global, args, "test", true))
}

fn once_or_watching(
    global: &Global,
    args: &BuildArgs,
    build: impl Fn() -> Result<ExitCode>,
) -> Result<ExitCode> {
    if args.watch { crate::watch::run(global, build) } else { build() }
}

fn run(global: &Global, args: &BuildArgs, command: &'static str, tests: bool) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let patterns = args.patterns.clone();
    let options = crate::profiles::options(&config, &args.options)?;
    let output_groups = args.output_groups.clone();
    let request = Request { command, patterns, options, tests, output_groups, further: Vec::new() };
    let memory = match look(global, &config, &request)? {
        Look::Done(code) => return Ok(code),
        Look::ToDo(memory) => memory,
    };
    let invocation = Invocation::start_over(global, config, request, memory)?;
    let work = invocation.work()?;
    let groups = OutputGroups::parse(&args.output_groups);
    groups.check(&work.graph, &work.requested)?;
    let wanted: Vec<Wanted> =
        work.requested.iter().map(|id| wanted(&work.graph, *id, tests, &groups)).collect();
    if tests && wanted.iter().all(|w| work.graph.target(w.target).test.is_none()) {
        return Err(Failure::input("the patterns name no test")
            .hint("`maestro query 'kind(\".*_test\", //...)'` lists tests")
            .into());
    }
    let built = invocation.build(work, wanted)?;
    invocation.conclude(built)
}

/// What `build` or `test` makes of a target.
pub fn wanted(graph: &ActionGraph, id: TargetId, tests: bool, groups: &OutputGroups) -> Wanted {
    let target = graph.target(id);
    let mut artifacts: Vec<ArtifactId> = groups.artifacts(target);
    if let Some(test) = target.test.as_ref().filter(|_| tests) {
        artifacts.extend(graph.action(test.action).outputs.iter().map(|output| output.artifact));
    }
    let aspect = target.aspect.as_deref().map(str::to_owned);
    let label = target.label.clone();
    Wanted { label, aspect, target: id, artifacts }
}
