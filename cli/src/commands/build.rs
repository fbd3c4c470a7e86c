//! `maestro build` and `maestro test`.

mod steps;

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::ActionGraph;
use maestro_core::graph::TargetId;

use crate::args::{BuildArgs, Global, OutputFormat, TestArgs, TestFlags};
use crate::config::Config;
use crate::exit::Failure;
use crate::increment::Known;
use crate::invocation::{Invocation, Request, Wanted};
use crate::null_build::{Look, look, report_done};
use crate::output_groups::OutputGroups;
use crate::request::{Goal, count};

/// Builds targets.
pub fn build(global: &Global, args: &BuildArgs) -> Result<ExitCode> {
    once_or_watching(global, args, || run(global, args, "build", None))
}

/// Builds targets and runs the tests among them.
pub fn test(global: &Global, args: &TestArgs) -> Result<ExitCode> {
    args.flags.check()?;
    let build = &args.build;
    once_or_watching(global, build, || run(global, build, "test", Some(args.flags.clone())))
}

fn once_or_watching(
    global: &Global,
    args: &BuildArgs,
    build: impl Fn() -> Result<ExitCode>,
) -> Result<ExitCode> {
    if args.watch { crate::watch::run(global, build) } else { build() }
}

fn run(
    global: &Global,
    args: &BuildArgs,
    command: &'static str,
    tests: Option<TestFlags>,
) -> Result<ExitCode> {
    let config = Config::load(global)?.with_daemon(args.daemon);
    let request = request(&config, args, command, tests)?;
    let flags = request.tests.clone();
    let memory = match look(&config, &request, global.output == OutputFormat::Json) {
        Look::Done(remembered) => return report_done(global, &config, &request, &remembered),
        Look::ToDo(memory) => memory,
    };
    if flags.is_none()
        && let Some(steps) = steps::named(&config, &args.patterns)?
    {
        return steps.build(global, &config, args);
    }
    let invocation = Invocation::start_over(global, config, request, memory)?;
    let mut work = invocation.work()?;
    let groups = OutputGroups::parse(&args.output_groups);
    groups.check(&work.graph, &work.requested)?;
    // Of many targets nobody is told one by one, and the last build knows what they come to.
    let named = flags.is_some() || invocation.names_targets(work.requested.len());
    let goal = |known: &Known| known.goal(&work.graph, &work.requested, &groups);
    if !named && let Some(goal) = work.known.as_ref().and_then(goal) {
        let built = invocation.build(work, goal)?;
        return invocation.conclude(built);
    }
    if flags.is_none() && !invocation.names_targets(count(&work.graph, &work.requested)) {
        let goal = Goal::of_many(&work.graph, &work.requested, &groups);
        let built = invocation.build(work, goal)?;
        return invocation.conclude(built);
    }
    let mut all: Vec<Wanted> = Vec::new();
    for id in &work.requested {
        if flags.as_ref().is_none_or(|flags| flags.selects(work.graph.target(*id))) {
            all.push(wanted(&mut work.graph, *id, flags.as_ref(), &groups)?);
        }
    }
    if flags.is_some() && all.iter().all(|want| want.runs.is_empty()) {
        return Err(no_test(&work.graph, &work.requested).into());
    }
    let built = invocation.build(work, all)?;
    invocation.conclude(built)
}

/// What `build` or `test` is asked for.
pub fn request(
    config: &Config,
    args: &BuildArgs,
    command: &'static str,
    tests: Option<TestFlags>,
) -> Result<Request> {
    let patterns = args.patterns.clone();
    let options = crate::profiles::options(config, &args.options)?;
    let output_groups = args.output_groups.clone();
    Ok(Request { tests, output_groups, ..Request::plain(command, patterns, options) })
}

fn no_test(graph: &ActionGraph, requested: &[TargetId]) -> Failure {
    if requested.iter().any(|id| graph.target(*id).test.is_some()) {
        return Failure::input("the filters leave out every test")
            .hint("they are `--test-tag-filters` and `--test-size-filters`");
    }
    Failure::input("the patterns name no test")
        .hint("`maestro query 'kind(\".*_test\", //...)'` lists tests")
}

/// What `build` or `test` makes of a target; variants of tests are added to the graph.
pub fn wanted(
    graph: &mut ActionGraph,
    id: TargetId,
    tests: Option<&TestFlags>,
    groups: &OutputGroups,
) -> Result<Wanted, Failure> {
    let runs = match tests {
        Some(flags) => flags.runs(graph, id)?,
        None => Vec::new(),
    };
    let target = graph.target(id);
    let mut artifacts = groups.artifacts(target);
    let outputs = runs.iter().flat_map(|run| graph.action(run.action).outputs);
    artifacts.extend(outputs.map(|output| output.artifact));
    let aspect = target.aspect.as_deref().map(str::to_owned);
    Ok(Wanted { label: target.label.clone(), aspect, target: id, artifacts, runs })
}
