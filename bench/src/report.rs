//! The page of results, in Markdown.

use std::fmt::Write as _;

use crate::measure::{Figure, Scenario, Size};
use crate::tool::Kind;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    /// Facts about machine and programs.
    pub(crate) machine: Vec<(&'static str, String)>,
    /// The seed of the graphs.
    pub(crate) seed: u64,
    /// Median time of `maestro --version`, in milliseconds.
    pub(crate) start_ms: f64,
    /// Figures by size.
    pub(crate) sizes: Vec<Size>,
}

/// The size that the goals speak of.
const GOAL_SIZE: usize = 10_000;

const METHOD: &str = "\
## Method

Graphs are generated from a seed: packages of fifty actions, each with a source file of its own, often one shared in its package, and up to two outputs of earlier actions.
Each action is `/bin/sh -c` around `sha256sum` of its inputs.
Maestro and Bazel get the same rule in Starlark, ninja the same command line; each has a workspace of its own.
All run 2 jobs. Maestro and Bazel sandbox each action, ninja does not.
Tools take turns within each run. Figures are medians of wall time, start of the program included; in brackets the fastest and the slowest.

| scenario | before it |
|---|---|
| cold | no outputs, no cache: former ones are moved away, since ext4 searches long for an inode after large removals; Bazel's server runs already, which is to its advantage |
| null | nothing changed; five in each run |
| edit | one source file changed, with consequences for about one percent of the actions |
| restore | outputs cleaned, caches full; ninja has no cache |

A run counts only if Maestro reports exactly the number of actions that the graph says must run, and all outputs are there.
";

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let mut text = String::from(
        "# Performance\n\n\
         Written by `cargo xtask bench`; do not edit.\n\
         Absolute times are those of one machine; the ratios are what counts.\n\
         Where the time goes, and what the figures are worth: \
         [performance notes](design/performance-notes.md).\n\n",
    );
    text.push_str("| | |\n|---|---|\n");
    for (what, value) in &results.machine {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    let _ = writeln!(text, "| seed | {} |\n", results.seed);
    text.push_str(&goals(results));
    for size in &results.sizes {
        text.push_str(&table(size));
    }
    text.push_str(METHOD);
    text
}

fn table(size: &Size) -> String {
    let mut text = format!("## {} actions\n\n", size.actions);
    let _ = writeln!(text, "The edit affects {} actions.\n", size.affected);
    text.push_str("| scenario | Maestro | ninja | Bazel | to ninja | to Bazel |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for scenario in [Scenario::Cold, Scenario::Null, Scenario::Edit, Scenario::Restore] {
        let cell = |kind| find(size, kind, scenario).map_or_else(|| "–".to_owned(), time);
        let against = |kind| {
            ratio(size, scenario, kind)
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×"))
        };
        let name = format!("{scenario:?}").to_lowercase();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            cell(Kind::Maestro),
            cell(Kind::Ninja),
            cell(Kind::Bazel),
            against(Kind::Ninja),
            against(Kind::Bazel)
        );
    }
    text.push('\n');
    text
}

/// What was to be reached, and whether it was.
fn goals(results: &Results) -> String {
    let size = results.sizes.iter().find(|size| size.actions == GOAL_SIZE);
    let of = |scenario, kind| size.and_then(|size| ratio(size, scenario, kind));
    let rows = [
        (
            "cold build of 10,000, to unsandboxed ninja",
            "up to 1.50×",
            1.5,
            of(Scenario::Cold, Kind::Ninja),
        ),
        (
            "cold build of 10,000, to Bazel",
            "up to 0.33×",
            1.0 / 3.0,
            of(Scenario::Cold, Kind::Bazel),
        ),
        (
            "restore of 10,000 outputs, to Bazel's disk cache",
            "up to 0.10×",
            0.1,
            of(Scenario::Restore, Kind::Bazel),
        ),
        ("null build of 10,000, to ninja", "up to 1.50×", 1.5, of(Scenario::Null, Kind::Ninja)),
    ];
    let mut text =
        String::from("## Goals\n\n| measure | goal | here | reached |\n|---|---|---|---|\n");
    for (measure, goal, bound, found) in rows {
        let (here, reached) = match found {
            Some(found) => (format!("{found:.2}×"), verdict(found <= bound)),
            None => ("not measured".to_owned(), "–"),
        };
        let _ = writeln!(text, "| {measure} | {goal} | {here} | {reached} |");
    }
    let start = results.start_ms;
    let reached = verdict(start <= 15.0);
    let _ = writeln!(text, "| `maestro --version` | up to 15 ms | {start:.1} ms | {reached} |\n");
    text
}

fn verdict(reached: bool) -> &'static str {
    if reached { "yes" } else { "**no**" }
}

fn find(size: &Size, kind: Kind, scenario: Scenario) -> Option<&Figure> {
    size.figures.iter().find(|figure| (figure.kind, figure.scenario) == (kind, scenario))
}

/// Maestro's time as a multiple of another tool's.
fn ratio(size: &Size, scenario: Scenario, kind: Kind) -> Option<f64> {
    let ours = find(size, Kind::Maestro, scenario)?.median_ms;
    let theirs = find(size, kind, scenario)?.median_ms;
    (theirs > 0.0).then(|| ours / theirs)
}

fn time(figure: &Figure) -> String {
    let (low, high) = figure.range_ms;
    let median = human(figure.median_ms);
    if figure.builds == 1 { median } else { format!("{median} ({}–{})", human(low), human(high)) }
}

fn human(ms: f64) -> String {
    if ms < 1_000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_verdicts_are_in_the_page() {
        let figure = |kind, scenario, median_ms| Figure {
            kind,
            scenario,
            median_ms,
            range_ms: (median_ms, median_ms),
            builds: 1,
        };
        let figures = vec![
            figure(Kind::Maestro, Scenario::Cold, 3_000.0),
            figure(Kind::Ninja, Scenario::Cold, 2_500.0),
            figure(Kind::Bazel, Scenario::Cold, 4_000.0),
            figure(Kind::Maestro, Scenario::Restore, 500.0),
        ];
        let size = Size { actions: GOAL_SIZE, affected: 100, figures };
        let results = Results {
            machine: vec![("system", "x".into())],
            seed: 1,
            start_ms: 20.0,
            sizes: vec![size],
        };
        let page = page(&results);
        for line in [
            "| cold | 3.00 s | 2.50 s | 4.00 s | 1.20× | 0.75× |",
            "| restore | 500 ms | – | – | – | – |",
            "| cold build of 10,000, to unsandboxed ninja | up to 1.50× | 1.20× | yes |",
            "| cold build of 10,000, to Bazel | up to 0.33× | 0.75× | **no** |",
            "| null build of 10,000, to ninja | up to 1.50× | not measured | – |",
            "| `maestro --version` | up to 15 ms | 20.0 ms | **no** |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
