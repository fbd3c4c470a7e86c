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
/// Null builds with the daemon in one run: what counts are the slowest of many.
const DAEMON_BUILDS: usize = 200;
/// Builds before those, while the daemon gets ready.
const DAEMON_BUILDS_BEFORE: usize = 10;
/// Edits of a leaf, and of a build file, in one run.
const SMALL_EDITS: usize = 3;
/// Starts of `maestro --version` that are timed.
const STARTS: usize = 21;

/// What is built, starting from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// No cache and no outputs.
    Cold,
    /// Nothing changed.
    Null,
    /// Nothing changed, as the daemon knows.
    Daemon,
    /// One source file changed, with consequences for one percent of the actions.
    Edit,
    /// One source file changed, with consequences for about three actions.
    Leaf,
    /// One build file changed, without consequences.
    Package,
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
    /// The time that 99 of 100 builds keep.
    pub(crate) p99_ms: f64,
    /// How many builds.
    pub(crate) builds: usize,
}

/// All figures of one size.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) actions: usize,
    /// Actions that the edit affects.
    pub(crate) affected: usize,
    /// Actions that the edit of a leaf affects.
    pub(crate) leaf_affected: usize,
    /// Memory of Maestro's process for each action of a cold build, in KiB; what a build of next
    /// to nothing takes is taken off.
    pub(crate) kib_per_action: Option<f64>,
    pub(crate) figures: Vec<Figure>,
}

/// Measures one size with all tools that take part, in turn, so that disturbances hit all alike.
pub(crate) fn size(options: &Options, actions: usize) -> Result<Size> {
    let work = options.work.join(actions.to_string());
    let graph = Graph::generate(actions, options.seed);
    let edits = Edits { typical: graph.typical_edit(), leaf: graph.leaf_edit() };
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
            measured = measured.and_then(|()| once(tool, &graph, edits, run, &mut taken));
        }
    }
    let peaks = taken.iter().filter_map(|taken| taken.peak_kib);
    let kib_per_action = match (peaks.max(), options.only.contains(&Kind::Maestro)) {
        (Some(peak), true) => {
            let least = peak_of_nothing(options)?;
            Some(peak.saturating_sub(least) as f64 / actions as f64)
        }
        _ => None,
    };
    for tool in &tools {
        tool.stop()?;
    }
    measured?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    Ok(Size {
        actions,
        affected: graph.affected(edits.typical),
        leaf_affected: graph.affected(edits.leaf),
        kib_per_action,
        figures: figures(&taken),
    })
}

/// The largest memory of Maestro's process where there is next to nothing to build, in KiB.
fn peak_of_nothing(options: &Options) -> Result<u64> {
    let tool = Tool::new(Kind::Maestro, &options.maestro, &options.work.join("nothing"));
    emit::empty(&tool.workspace)?;
    tool.build_watched()?.peak_kib.context("the memory of the process was not seen")
}

/// The actions whose sources are edited.
#[derive(Clone, Copy, Debug)]
struct Edits {
    typical: usize,
    leaf: usize,
}

/// One timed build and what it was.
struct Taken {
    kind: Kind,
    scenario: Scenario,
    ms: f64,
    peak_kib: Option<u64>,
}

/// One run of one tool through all scenarios.
fn once(
    tool: &Tool,
    graph: &Graph,
    edits: Edits,
    run: usize,
    taken: &mut Vec<Taken>,
) -> Result<()> {
    let all = graph.actions.len();
    let mut take = |scenario, timing: Timing, expected: usize| {
        let Timing { ms, executed, peak_kib } = timing;
        if executed.is_some_and(|executed| executed != expected as u64) {
            let name = tool.kind.name();
            bail!("{name} ran {executed:?} actions in {scenario:?}, expected {expected}");
        }
        eprintln!("  {scenario:?}: {ms:.0} ms");
        taken.push(Taken { kind: tool.kind, scenario, ms, peak_kib });
        Ok(())
    };
    let mut daemon = Vec::new();
    tool.forget()?;
    take(Scenario::Cold, tool.build_watched()?, all)?;
    for _ in 0..NULL_BUILDS {
        take(Scenario::Null, tool.build()?, 0)?;
    }
    if tool.kind == Kind::Maestro {
        for build in 0..DAEMON_BUILDS_BEFORE + DAEMON_BUILDS {
            let ms = tool.ask_daemon()?;
            if build >= DAEMON_BUILDS_BEFORE {
                daemon.push(ms);
            }
        }
        tool.stop_daemon()?;
    }
    emit::edit(graph, edits.typical, run, &tool.workspace)?;
    take(Scenario::Edit, tool.build()?, graph.affected(edits.typical))?;
    for turn in 0..SMALL_EDITS {
        emit::edit(graph, edits.leaf, run * SMALL_EDITS + turn, &tool.workspace)?;
        take(Scenario::Leaf, tool.build()?, graph.affected(edits.leaf))?;
    }
    if tool.kind != Kind::Ninja {
        for turn in 0..SMALL_EDITS {
            let package = graph.packages() / 2;
            emit::edit_package(package, run * SMALL_EDITS + turn, tool.kind, &tool.workspace)?;
            take(Scenario::Package, tool.build()?, 0)?;
        }
    }
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
    let scenario = Scenario::Daemon;
    let by_daemon = |ms| Taken { kind: tool.kind, scenario, ms, peak_kib: None };
    taken.extend(daemon.into_iter().map(by_daemon));
    Ok(())
}

/// Medians by tool and scenario.
fn figures(taken: &[Taken]) -> Vec<Figure> {
    let mut keys: Vec<(Kind, Scenario)> = Vec::new();
    for one in taken {
        if !keys.contains(&(one.kind, one.scenario)) {
            keys.push((one.kind, one.scenario));
        }
    }
    let figure = |(kind, scenario)| {
        let of = taken.iter().filter(|one| (one.kind, one.scenario) == (kind, scenario));
        let mut times: Vec<f64> = of.map(|one| one.ms).collect();
        times.sort_by(f64::total_cmp);
        let range_ms = (*times.first()?, *times.last()?);
        let (median_ms, p99_ms) = (median(&times)?, percentile(&times, 99)?);
        Some(Figure { kind, scenario, median_ms, range_ms, p99_ms, builds: times.len() })
    };
    keys.into_iter().filter_map(figure).collect()
}

/// The middle of sorted times; of an even number, the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The time that so many of a hundred keep.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied()
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
    fn percentiles_are_times_that_were_taken() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (times, percent, expected) in [
            (&[][..], 99, None),
            (&[3.0], 99, Some(3.0)),
            (&[1.0, 2.0], 50, Some(1.0)),
            (&hundred, 99, Some(99.0)),
            (&hundred, 100, Some(100.0)),
        ] {
            assert_eq!(percentile(times, percent), expected, "{percent} of {times:?}");
        }
    }

    #[test]
    fn figures_are_grouped_by_tool_and_scenario() {
        let one = |kind, ms| Taken { kind, scenario: Scenario::Cold, ms, peak_kib: None };
        let taken = [
            one(Kind::Ninja, 5.0),
            one(Kind::Maestro, 9.0),
            one(Kind::Ninja, 1.0),
            one(Kind::Ninja, 3.0),
        ];
        let found: Vec<_> =
            figures(&taken).iter().map(|f| (f.kind, f.median_ms, f.range_ms, f.builds)).collect();
        assert_eq!(found, [(Kind::Ninja, 3.0, (1.0, 5.0), 3), (Kind::Maestro, 9.0, (9.0, 9.0), 1)]);
    }
}
