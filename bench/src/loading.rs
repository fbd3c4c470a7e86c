//! Loading, analysis and queries: what build files cost before anything runs.

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::emit;
use crate::generator::Graph;
use crate::measure::median;
use crate::tool::{Kind, Tool};

/// How often each figure is taken.
const RUNS: usize = 3;

/// Medians in milliseconds; absent where a tool takes no part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    /// How many targets there are.
    pub(crate) targets: usize,
    /// In how many packages.
    pub(crate) packages: usize,
    /// Maestro reads and analyzes all of them.
    pub(crate) maestro_ms: f64,
    /// Bazel does; its server runs, and knows nothing.
    pub(crate) bazel_ms: Option<f64>,
    /// Maestro reads and analyzes as many targets of one file.
    pub(crate) one_file_ms: f64,
    /// Maestro answers `deps(//...)` in a workspace that it never built.
    pub(crate) first_query_ms: f64,
    /// Maestro answers the same in a workspace that was built once.
    pub(crate) query_ms: f64,
}

/// Takes the figures for a number of targets.
pub(crate) fn measure(options: &Options, targets: usize) -> Result<Loading> {
    let work = options.work.join("loading");
    let graph = Graph::generate(targets, options.seed);
    let tool = |kind, name: &str| Tool::new(kind, &options.maestro, &work.join(name));
    let maestro = tool(Kind::Maestro, "packages");
    emit::workspace(&graph, Kind::Maestro, &maestro.workspace)?;
    let one_file = tool(Kind::Maestro, "one-file");
    emit::one_package(targets, &one_file.workspace)?;
    let bazel = tool(Kind::Bazel, "packages");
    let with_bazel = options.only.contains(&Kind::Bazel);
    if with_bazel {
        emit::workspace(&graph, Kind::Bazel, &bazel.workspace)?;
    }
    let mut times: [Vec<f64>; 5] = Default::default();
    let [packages, alone, first_query, query, bazels] = &mut times;
    for run in 1..=RUNS {
        eprintln!("loading {targets} targets, run {run} of {RUNS}");
        packages.push(maestro.load()?);
        alone.push(one_file.load()?);
        first_query.push(deps_of_all(&maestro, targets)?);
        if with_bazel {
            bazels.push(bazel.load()?);
        }
    }
    if with_bazel {
        bazel.stop()?;
    }
    emit::idle(&maestro.workspace)?;
    maestro.prepare("//...")?;
    for run in 1..=RUNS {
        eprintln!("asking for all dependencies of {targets} targets, run {run} of {RUNS}");
        query.push(deps_of_all(&maestro, targets)?);
    }
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        median(times)
    };
    Ok(Loading {
        targets,
        packages: graph.packages(),
        maestro_ms: middle(packages).context("nothing was timed")?,
        bazel_ms: middle(bazels),
        one_file_ms: middle(alone).context("nothing was timed")?,
        first_query_ms: middle(first_query).context("nothing was timed")?,
        query_ms: middle(query).context("nothing was timed")?,
    })
}

/// Has Maestro name all that there is; in milliseconds.
fn deps_of_all(maestro: &Tool, targets: usize) -> Result<f64> {
    let (ms, lines) = maestro.query("deps(//...)")?;
    if lines <= targets {
        bail!("`deps(//...)` answers {lines} lines for {targets} targets and their sources");
    }
    Ok(ms)
}
