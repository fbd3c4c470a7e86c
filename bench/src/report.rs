//! The page of results, in Markdown.

use std::fmt::Write as _;

use crate::loading::Loading;
use crate::measure::{Figure, Scenario, Size};
use crate::project::Project;
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
    /// What build files cost, if that was measured.
    pub(crate) loading: Option<Loading>,
    /// A real project, if one was built.
    pub(crate) project: Option<Project>,
}

/// One line of the table of goals.
struct Goal {
    measure: String,
    goal: String,
    /// What was found; `None` where it was not measured.
    here: Option<String>,
    reached: bool,
}

impl Goal {
    /// A ratio that is to be at most `bound`.
    fn ratio(measure: impl Into<String>, bound: f64, found: Option<f64>) -> Self {
        Self {
            measure: measure.into(),
            goal: format!("up to {bound:.2}×"),
            here: found.map(|found| format!("{found:.2}×")),
            reached: found.is_some_and(|found| found <= bound),
        }
    }

    /// A time that is to be at most `bound` milliseconds.
    fn time(measure: impl Into<String>, bound: f64, found: Option<f64>) -> Self {
        Self {
            measure: measure.into(),
            goal: format!("up to {}", human(bound)),
            here: found.map(human),
            reached: found.is_some_and(|found| found <= bound),
        }
    }

    fn line(&self) -> String {
        let Self { measure, goal, here, reached } = self;
        match here {
            Some(here) => format!("| {measure} | {goal} | {here} | {} |", verdict(*reached)),
            None => format!("| {measure} | {goal} | not measured | – |"),
        }
    }
}

const METHOD: &str = "\
## Method

Graphs are generated from a seed: packages of fifty actions, each with a source file of its own, often one shared in its package, and up to two outputs of earlier actions.
Each action is `/bin/sh -c` around `sha256sum` of its inputs.
Maestro and Bazel get the same rule in Starlark, ninja the same command line; each has a workspace of its own.
All run 2 jobs. Maestro and Bazel sandbox each action, ninja does not.
Each writes what it writes for people, into a file; none lists its targets, as Maestro would with `--output json`.
Tools take turns within each run. Figures are medians of wall time, start of the program included; in brackets the fastest and the slowest.

| scenario | before it |
|---|---|
| cold | no outputs, no cache: former ones are moved away, since ext4 searches long for an inode after large removals; Bazel's server runs already, which is to its advantage |
| null | nothing changed; five in each run |
| daemon | nothing changed, as the daemon knows; two hundred in each run, after ten that are not counted |
| edit | one source file changed, with consequences for about one percent of the actions |
| leaf | one source file changed, with consequences for about three actions; three in each run |
| package | a comment added to one build file, without consequences; three in each run |
| restore | outputs cleaned, caches full; ninja has no cache |

A run counts only if Maestro reports exactly the number of actions that the graph says must run, and all outputs are there.

Memory is the high-water mark of Maestro's own process in a cold build, its children left out, less that of a build of one action.
Loading is `maestro aquery` with a pattern that matches no action, and `bazel build --nobuild` with a server that was just started; both read and analyze everything.
The workspace that was built before the query has targets without actions, so that its build costs nothing.
The real project is SQLite and Lua as Debian ships their sources, compiled file by file with the same command lines; Maestro's cache holds the compiler and nothing else.
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
    if let Some(loading) = &results.loading {
        text.push_str(&loading_table(loading));
    }
    if let Some(Project { actions, maestro_ms, ninja_ms }) = &results.project {
        let (ours, theirs) = (human(*maestro_ms), human(*ninja_ms));
        let _ = writeln!(
            text,
            "## SQLite and Lua\n\n{actions} steps, cold: Maestro {ours}, ninja {theirs}.\n"
        );
    }
    text.push_str(METHOD);
    text
}

fn table(size: &Size) -> String {
    let mut text = format!("## {} actions\n\n", size.actions);
    let _ = writeln!(
        text,
        "The edit affects {} actions, that of the leaf {}.",
        size.affected, size.leaf_affected
    );
    if let Some(kib) = size.kib_per_action {
        let _ = writeln!(text, "Memory: {kib:.2} KiB an action.");
    }
    text.push('\n');
    text.push_str("| scenario | Maestro | ninja | Bazel | to ninja | to Bazel |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for scenario in SCENARIOS {
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

const SCENARIOS: [Scenario; 7] = [
    Scenario::Cold,
    Scenario::Null,
    Scenario::Daemon,
    Scenario::Edit,
    Scenario::Leaf,
    Scenario::Package,
    Scenario::Restore,
];

fn loading_table(loading: &Loading) -> String {
    let Loading { targets, packages, maestro_ms, bazel_ms, one_file_ms, first_query_ms, query_ms } =
        loading;
    let bazel = bazel_ms.map_or_else(|| "–".to_owned(), human);
    let mut text =
        format!("## Loading {targets} targets\n\n| | Maestro | Bazel |\n|---|---|---|\n");
    let row = human(*maestro_ms);
    let _ = writeln!(text, "| load and analyze {packages} packages | {row} | {bazel} |");
    let _ = writeln!(text, "| load and analyze one file | {} | – |", human(*one_file_ms));
    let first = human(*first_query_ms);
    let _ = writeln!(text, "| `query deps(//...)`, never built | {first} | – |");
    let _ = writeln!(text, "| `query deps(//...)`, built before | {} | – |\n", human(*query_ms));
    text
}

/// What was to be reached, and whether it was.
fn goals(results: &Results) -> String {
    let mut goals = Vec::new();
    for actions in [10_000, 100_000] {
        goals.extend(size_goals(results, actions));
    }
    goals.extend(loading_goals(results));
    let project = results.project.map(|project| project.maestro_ms / project.ninja_ms);
    goals.push(Goal::ratio("cold build of SQLite and Lua, to unsandboxed ninja", 1.1, project));
    goals.push(Goal::time("`maestro --version`", 15.0, Some(results.start_ms)));
    let mut text =
        String::from("## Goals\n\n| measure | goal | here | reached |\n|---|---|---|---|\n");
    for goal in &goals {
        let _ = writeln!(text, "{}", goal.line());
    }
    text.push('\n');
    text
}

fn size_goals(results: &Results, actions: usize) -> Vec<Goal> {
    let size = results.sizes.iter().find(|size| size.actions == actions);
    let of = |scenario, kind| size.and_then(|size| ratio(size, scenario, kind));
    let own = |scenario| Some(find(size?, Kind::Maestro, scenario)?.median_ms);
    let grouped = if actions == 10_000 { "10,000" } else { "100,000" };
    let name = |what: &str| what.replace('#', grouped);
    let mut goals = vec![
        Goal::ratio(name("null build of #, to ninja"), 1.0, of(Scenario::Null, Kind::Ninja)),
        Goal::ratio(name("edit of a leaf in #, to ninja"), 1.2, of(Scenario::Leaf, Kind::Ninja)),
    ];
    if actions == 10_000 {
        let (cold, restore) = (Scenario::Cold, Scenario::Restore);
        goals.extend([
            Goal::ratio(name("null build of #, to Bazel"), 0.125, of(Scenario::Null, Kind::Bazel)),
            Goal::ratio(name("cold build of #, to unsandboxed ninja"), 1.5, of(cold, Kind::Ninja)),
            Goal::ratio(name("cold build of #, to Bazel"), 1.0 / 3.0, of(cold, Kind::Bazel)),
            Goal::ratio(
                name("restore of # outputs, to Bazel's disk cache"),
                0.1,
                of(restore, Kind::Bazel),
            ),
        ]);
    } else {
        let more = own(Scenario::Package).zip(own(Scenario::Null)).map(|(edit, null)| edit - null);
        let kib = size.and_then(|size| size.kib_per_action);
        let slowest = size.and_then(|size| find(size, Kind::Maestro, Scenario::Daemon));
        let slowest = slowest.map(|figure| figure.p99_ms);
        let daemon = name("null build of # with the daemon, 99th percentile");
        goals.push(Goal::time(daemon, 20.0, slowest));
        goals.push(Goal::time("edit of one build file of 2,000, beyond a null build", 150.0, more));
        goals.push(Goal {
            measure: name("memory of a cold build of #, for each action"),
            goal: "up to 3 KiB".to_owned(),
            here: kib.map(|kib| format!("{kib:.2} KiB")),
            reached: kib.is_some_and(|kib| kib <= 3.0),
        });
    }
    goals
}

fn loading_goals(results: &Results) -> Vec<Goal> {
    let loading = results.loading.filter(|loading| loading.targets == 100_000);
    let to_bazel = loading.and_then(|l| Some(l.maestro_ms / l.bazel_ms?));
    let one_file = loading.map(|loading| loading.one_file_ms);
    vec![
        Goal::ratio("load and analyze 100,000 targets in 2,000 packages, to Bazel", 0.2, to_bazel),
        Goal::time("load and analyze 100,000 targets in one file", 2_000.0, one_file),
        Goal::time("`query deps` over 100,000 targets", 500.0, loading.map(|l| l.query_ms)),
    ]
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
            p99_ms: median_ms,
            builds: 1,
        };
        let figures = vec![
            figure(Kind::Maestro, Scenario::Cold, 3_000.0),
            figure(Kind::Ninja, Scenario::Cold, 2_500.0),
            figure(Kind::Bazel, Scenario::Cold, 4_000.0),
            figure(Kind::Maestro, Scenario::Restore, 500.0),
        ];
        let size = Size {
            actions: 10_000,
            affected: 100,
            leaf_affected: 3,
            kib_per_action: Some(2.5),
            figures,
        };
        let loading = Loading {
            targets: 100_000,
            packages: 2_000,
            maestro_ms: 2_000.0,
            bazel_ms: Some(20_000.0),
            one_file_ms: 2_500.0,
            first_query_ms: 800.0,
            query_ms: 400.0,
        };
        let results = Results {
            machine: vec![("system", "x".into())],
            seed: 1,
            start_ms: 20.0,
            sizes: vec![size],
            loading: Some(loading),
            project: Some(Project { actions: 150, maestro_ms: 1_200.0, ninja_ms: 1_000.0 }),
        };
        let page = page(&results);
        for line in [
            "| cold | 3.00 s | 2.50 s | 4.00 s | 1.20× | 0.75× |",
            "| restore | 500 ms | – | – | – | – |",
            "| cold build of 10,000, to unsandboxed ninja | up to 1.50× | 1.20× | yes |",
            "| cold build of 10,000, to Bazel | up to 0.33× | 0.75× | **no** |",
            "| null build of 10,000, to ninja | up to 1.00× | not measured | – |",
            "| load and analyze 100,000 targets in 2,000 packages, to Bazel | up to 0.20× | 0.10× | yes |",
            "| load and analyze 100,000 targets in one file | up to 2.00 s | 2.50 s | **no** |",
            "| `query deps` over 100,000 targets | up to 500 ms | 400 ms | yes |",
            "| cold build of SQLite and Lua, to unsandboxed ninja | up to 1.10× | 1.20× | **no** |",
            "| `maestro --version` | up to 15 ms | 20 ms | **no** |",
            "Memory: 2.50 KiB an action.",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
