//! Takes the figures: which builds, in which order, how often, and whether they did their work.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::emit;
use crate::generator::Graph;
use crate::tool::{Kind, Timing, Tool};

/// Sizes beyond this are measured once: a run takes many minutes.
const SIZE_REPEATED_MAX: usize = 10_000;
/// Null builds in one run: they are short, and vary.
const NULL_BUILDS: usize = 5;
/// Starts of `maestro --version` that are timed.
const STARTS: usize = 21;

/// What is built, starting from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// No cache and no outputs.
    Cold,
    /// Nothing changed.
    Null,
    /// One source file changed.
    Edit,
    /// Outputs were cleaned, the cache has all.
    Restore,
}

/// One figure: the median of several builds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) kind: Kind,
    pub(crate) scenario: Scenario,
    /// Median wall time in milliseconds.
    pub(crate) median_ms: f64,
    /// Fastest and slowest.
    pub(crate) range_ms: (f64, f64),
    /// How many builds.
    pub(crate) builds: usize,
}

/// All figures of one size.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) actions: usize,
    /// Actions that the edit affects.
    pub(crate) affected: usize,
    pub(crate) figures: Vec<Figure>,
}

/// Measures one size with all tools that take part, in turn, so that disturbances hit all alike.
pub(crate) fn size(options: &Options, actions: usize) -> Result<Size> {
    let work = options.work.join(actions.to_string());
    let graph = Graph::generate(actions, options.seed);
    let edited = graph.typical_edit();
    let mut tools = Vec::new();
    for kind in &options.only {
        if *kind == Kind::Bazel && actions > options.bazel_max {
            continue;
        }
        let tool = Tool::new(*kind, &options.maestro, &work);
        emit::workspace(&graph, *kind, &tool.workspace)?;
        tools.push(tool);
    }
    let runs = if actions > SIZE_REPEATED_MAX { 1 } else { options.runs };
    let mut taken = Vec::new();
    let mut measured = Ok(());
    for run in 1..=runs {
        for tool in &tools {
            eprintln!("{actions} actions, run {run} of {runs}: {}", tool.kind.name());
            measured = measured.and_then(|()| once(tool, &graph, edited, run, &mut taken));
        }
    }
    for tool in &tools {
        tool.stop()?;
    }
    measured?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    Ok(Size { actions, affected: graph.affected(edited), figures: figures(&taken) })
}

type Taken = Vec<(Kind, Scenario, f64)>;

/// One run of one tool through all scenarios.
fn once(tool: &Tool, graph: &Graph, edited: usize, run: usize, taken: &mut Taken) -> Result<()> {
    let all = graph.actions.len();
    let mut take = |scenario, timing: Timing, expected: usize| {
        let Timing { ms, executed } = timing;
        if executed.is_some_and(|executed| executed != expected as u64) {
            let name = tool.kind.name();
            bail!("{name} ran {executed:?} actions in {scenario:?}, expected {expected}");
        }
        eprintln!("  {scenario:?}: {ms:.0} ms");
        taken.push((tool.kind, scenario, ms));
        Ok(())
    };
    tool.forget()?;
    take(Scenario::Cold, tool.build()?, all)?;
    for _ in 0..NULL_BUILDS {
        take(Scenario::Null, tool.build()?, 0)?;
    }
    emit::edit(graph, edited, run, &tool.workspace)?;
    take(Scenario::Edit, tool.build()?, graph.affected(edited))?;
    let outputs = tool.outputs()?;
    if outputs != all {
        bail!("{} left {outputs} outputs, expected {all}", tool.kind.name());
    }
    if tool.kind != Kind::Ninja {
        tool.clean()?;
        take(Scenario::Restore, tool.build()?, 0)?;
        let outputs = tool.outputs()?;
        if outputs != all {
            bail!("{} restored {outputs} outputs, expected {all}", tool.kind.name());
        }
    }
    Ok(())
}

/// Medians by tool and scenario.
fn figures(taken: &Taken) -> Vec<Figure> {
    let mut keys: Vec<(Kind, Scenario)> = Vec::new();
    for (kind, scenario, _) in taken {
        if !keys.contains(&(*kind, *scenario)) {
            keys.push((*kind, *scenario));
        }
    }
    let figure = |(kind, scenario)| {
        let of = taken.iter().filter(|(k, s, _)| (*k, *s) == (kind, scenario));
        let mut times: Vec<f64> = of.map(|(_, _, ms)| *ms).collect();
        times.sort_by(f64::total_cmp);
        let range_ms = (*times.first()?, *times.last()?);
        Some(Figure { kind, scenario, median_ms: median(&times)?, range_ms, builds: times.len() })
    };
    keys.into_iter().filter_map(figure).collect()
}

/// The middle of sorted times; of an even number, the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// How long `maestro --version` takes, in milliseconds.
pub(crate) fn start_of_program(maestro: &Path) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let status = Command::new(maestro)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot run `{}`", maestro.display()))?;
        if !status.success() {
            bail!("`maestro --version` failed: {status}");
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    median(&times).context("nothing was timed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_in_the_middle() {
        for (times, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[1.0, 2.0, 9.0], Some(2.0)),
            (&[1.0, 2.0, 4.0, 9.0], Some(3.0)),
        ] {
            assert_eq!(median(times), expected);
        }
    }

    #[test]
    fn figures_are_grouped_by_tool_and_scenario() {
        let taken = vec![
            (Kind::Ninja, Scenario::Cold, 5.0),
            (Kind::Maestro, Scenario::Cold, 9.0),
            (Kind::Ninja, Scenario::Cold, 1.0),
            (Kind::Ninja, Scenario::Cold, 3.0),
        ];
        let found: Vec<_> =
            figures(&taken).iter().map(|f| (f.kind, f.median_ms, f.range_ms, f.builds)).collect();
        assert_eq!(found, [(Kind::Ninja, 3.0, (1.0, 5.0), 3), (Kind::Maestro, 9.0, (9.0, 9.0), 1)]);
    }
}
