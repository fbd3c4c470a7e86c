//! What became of tests: their verdicts, as events, files and for the snapshot.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use maestro_core::event::{Event, EventSink, Outcome, TestStatus};
use maestro_core::graph::{ActionSet, Plan};
use maestro_core::{ActionGraph, ActionId, ArtifactId, Digest, Label, Node};
use maestro_executor::engine::outputs::WrittenFile;
use maestro_executor::engine::{FailedAction, FinishedAction, Report};
use serde::{Deserialize, Serialize};

use crate::args::{TestFlags, TestOutput};
use crate::increment::{Known, Work};
use crate::invocation::{Invocation, Wanted};
use crate::test_logs::{Place, read, write};
use crate::testing::{TestRun, junit};

/// The verdict of one test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestVerdict {
    /// The test.
    pub label: Label,
    /// The worst of its results.
    pub status: TestStatus,
    /// One for each run of each shard.
    pub results: Vec<TestResult>,
}

/// The verdict of one run of one shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestResult {
    /// Which run, from 1.
    pub run: u32,
    /// Which shard, from 1.
    pub shard: u32,
    /// How it ended.
    pub status: TestStatus,
    /// Whether it was not run now.
    pub cached: bool,
    /// How long it ran.
    pub duration_ms: u64,
    /// The number of its action.
    pub action: u32,
    /// What it wrote to standard output and error, in the store.
    pub logs: Vec<Digest>,
    /// The report that it wrote.
    pub report: Option<Digest>,
    /// The coverage that it wrote.
    pub coverage: Option<Digest>,
    /// Where its log is.
    pub log_path: Option<String>,
    /// Where its report is.
    pub xml_path: Option<String>,
    /// Where its coverage is.
    pub coverage_path: Option<String>,
}

impl TestResult {
    fn passed(&self) -> bool {
        matches!(self.status, TestStatus::Passed | TestStatus::Flaky)
    }

    /// Whether one of its files is no longer as it was written.
    fn lost_file(&self, changed: &HashSet<&str>) -> bool {
        let Self { log_path, xml_path, coverage_path, .. } = self;
        let mut paths = [log_path, xml_path, coverage_path].into_iter().flatten();
        paths.any(|path| changed.contains(path.as_str()))
    }
}

/// The name of a test's coverage, as an output and among its logs.
pub const COVERAGE_FILE: &str = "coverage.dat";

/// How bad a status is: the worst of several counts.
fn severity(status: TestStatus) -> u8 {
    match status {
        TestStatus::Passed => 0,
        TestStatus::Flaky => 1,
        TestStatus::NotBuilt => 2,
        TestStatus::Timeout => 3,
        TestStatus::Failed => 4,
    }
}

impl TestVerdict {
    /// What is known of a run that did not have to be looked at.
    fn as_known(&self, run: TestRun) -> Option<TestResult> {
        let same = |result: &&TestResult| result.run == run.run && result.shard == run.shard;
        let result = self.results.iter().find(same)?.clone();
        Some(TestResult { cached: true, ..result })
    }

    /// The verdict as events, those of its results first; `cached` says that nothing ran now.
    pub fn events(&self, cached: bool) -> Vec<Event> {
        let label = || self.label.clone();
        let result = |result: &TestResult| Event::TestResult {
            label: label(),
            run: result.run,
            shard: result.shard,
            status: result.status,
            cached: cached || result.cached,
            duration_ms: result.duration_ms,
            log_path: result.log_path.clone(),
            xml_path: result.xml_path.clone(),
        };
        let mut out: Vec<Event> = self.results.iter().map(result).collect();
        let worst = self.results.iter().rev().max_by_key(|result| severity(result.status));
        out.push(Event::TestFinished {
            label: label(),
            status: self.status,
            cached: cached || self.results.iter().all(|result| result.cached),
            duration_ms: self.results.iter().map(|result| result.duration_ms).sum(),
            runs: self.results.iter().map(|result| result.run).max().unwrap_or(0),
            shards: self.results.iter().map(|result| result.shard).max().unwrap_or(0),
            log_path: worst.and_then(|result| result.log_path.clone()),
        });
        out
    }
}

/// Writes the files that flags ask for: the reports of all tests in one, and their coverage.
pub fn write_merged(flags: &TestFlags, workspace: &Path, verdicts: &[TestVerdict]) -> Result<()> {
    if let Some(path) = &flags.junit {
        write_junit(workspace, path, verdicts)?;
    }
    if let Some(path) = &flags.coverage {
        write_coverage(workspace, path, verdicts)?;
    }
    Ok(())
}

fn write_junit(workspace: &Path, path: &Path, verdicts: &[TestVerdict]) -> Result<()> {
    let mut suites = String::new();
    for verdict in verdicts {
        for result in &verdict.results {
            let text = result.xml_path.as_ref();
            let text = text.and_then(|path| std::fs::read_to_string(workspace.join(path)).ok());
            // What was not built has no report, and is told all the same.
            let made = || {
                let TestResult { status, duration_ms, .. } = *result;
                let run = junit::Run { label: &verdict.label, status, duration_ms, log: "" };
                junit::suites(&junit::report(&run))
            };
            suites
                .push_str(&text.and_then(|t| junit::suites(&t)).or_else(made).unwrap_or_default());
        }
    }
    write_news(path, &junit::document(&suites))
}

/// Traces in the form of lcov are merged by standing one after the other.
fn write_coverage(workspace: &Path, path: &Path, verdicts: &[TestVerdict]) -> Result<()> {
    let mut all = String::new();
    for result in verdicts.iter().flat_map(|verdict| &verdict.results) {
        let Some(part) = &result.coverage_path else { continue };
        let text = std::fs::read_to_string(workspace.join(part))
            .with_context(|| format!("cannot read `{part}`"))?;
        all.push_str(&text);
        if !text.is_empty() && !text.ends_with('\n') {
            all.push('\n');
        }
    }
    if all.is_empty() {
        eprintln!("warning: no test wrote to COVERAGE_OUTPUT_FILE");
    }
    write_news(path, &all)
}

/// Writes a file unless it has that text: `--watch` would take it for an edit.
fn write_news(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Shows the logs of tests that passed, where flags ask for them; those of failures are shown as
/// they happen.
pub fn show_logs(
    flags: &TestFlags,
    workspace: &Path,
    verdicts: &[TestVerdict],
    events: &dyn EventSink,
) {
    if flags.test_output != TestOutput::All {
        return;
    }
    for verdict in verdicts {
        for result in verdict.results.iter().filter(|result| result.passed()) {
            let Some(path) = &result.log_path else { continue };
            let Ok(bytes) = std::fs::read(workspace.join(path)) else { continue };
            if !bytes.is_empty() {
                events.emit(Event::ActionLog {
                    action: result.action,
                    label: verdict.label.clone(),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                    truncated: false,
                });
            }
        }
    }
}

/// What the engine says of the actions of tests.
struct Ends<'r> {
    graph: &'r ActionGraph,
    finished: HashMap<ActionId, &'r FinishedAction>,
    failed: HashMap<ActionId, &'r FailedAction>,
    planned: ActionSet,
}

impl Ends<'_> {
    /// Whether a run is as an earlier build left it: nobody looked at it, or its inputs turned out
    /// to be the same and no key was made.
    fn holds(&self, action: ActionId) -> bool {
        let unkeyed = |done: &&FinishedAction| done.key.is_none();
        !self.planned.contains(action) || self.finished.get(&action).is_some_and(unkeyed)
    }

    /// How a run ended, without its files.
    fn result(&self, run: TestRun) -> TestResult {
        let done = self.finished.get(&run.action);
        let failed = self.failed.get(&run.action);
        let (status, logs) = match (done, failed) {
            (Some(done), _) if done.flaky => (TestStatus::Flaky, done.logs.clone()),
            (Some(done), _) => (TestStatus::Passed, done.logs.clone()),
            (None, Some(failed)) => failed.error.test_status(),
            (None, None) => (TestStatus::NotBuilt, Vec::new()),
        };
        let duration_ms = match (done, failed) {
            (Some(done), _) => done.end_ms - done.start_ms,
            (None, Some(failed)) => failed.duration_ms,
            (None, None) => 0,
        };
        TestResult {
            run: run.run,
            shard: run.shard,
            status,
            cached: done.is_some_and(|done| done.outcome != Outcome::Executed),
            duration_ms,
            action: u32::try_from(run.action.index()).unwrap_or(u32::MAX),
            logs,
            report: self.output(run.action, "test.xml"),
            coverage: self.output(run.action, COVERAGE_FILE),
            log_path: None,
            xml_path: None,
            coverage_path: None,
        }
    }

    /// A file that a run made, whether it passed or not.
    fn output(&self, action: ActionId, name: &str) -> Option<Digest> {
        if let Some(done) = self.finished.get(&action) {
            return done.outputs.iter().find_map(|(id, node)| match node {
                Node::File { digest, .. } if self.is_named(*id, name) => Some(*digest),
                _ => None,
            });
        }
        let kept = self.failed.get(&action)?.error.kept_files();
        let named = |path: &str| path.rsplit('/').next() == Some(name);
        kept.iter().find(|file| named(&file.path)).map(|file| file.digest)
    }

    fn is_named(&self, id: ArtifactId, name: &str) -> bool {
        self.graph.artifact(id).path.name() == name
    }
}

impl Invocation {
    /// What became of the tests among what was wanted, told as events; with the files that were
    /// written for them.
    pub(crate) fn test_verdicts(
        &self,
        work: &Work,
        wanted: &[Wanted],
        report: &Report,
        plan: &Plan,
    ) -> (Vec<TestVerdict>, Vec<WrittenFile>) {
        let Some(flags) = &self.request.tests else { return (Vec::new(), Vec::new()) };
        let before: HashMap<Label, TestVerdict> =
            work.known.as_ref().map(Known::verdicts).unwrap_or_default();
        let ends = Ends {
            graph: &work.graph,
            finished: report.finished.iter().map(|f| (f.action, f)).collect(),
            failed: report.failed.iter().map(|f| (f.action, f)).collect(),
            planned: plan.order.iter().copied().collect(),
        };
        let changed = self.memory.iter().flat_map(|memory| &memory.changes.outputs);
        let changed: HashSet<&str> = changed.map(String::as_str).collect();
        let (mut verdicts, mut files) = (Vec::new(), Vec::new());
        for want in wanted {
            let mut results = Vec::with_capacity(want.runs.len());
            for run in &want.runs {
                let known = before.get(&want.label).filter(|_| ends.holds(run.action));
                let result = match known.and_then(|verdict| verdict.as_known(*run)) {
                    Some(known) if !known.lost_file(&changed) => known,
                    known => {
                        let mut result = known.unwrap_or_else(|| ends.result(*run));
                        files.extend(self.write_files(want, *run, &mut result));
                        result
                    }
                };
                results.push(result);
            }
            let worst = results.iter().map(|result| result.status).max_by_key(|s| severity(*s));
            let Some(status) = worst else { continue };
            verdicts.push(TestVerdict { label: want.label.clone(), status, results });
        }
        show_logs(flags, &self.config.workspace, &verdicts, &self.events);
        for event in verdicts.iter().flat_map(|verdict| verdict.events(false)) {
            self.events.emit(event);
        }
        (verdicts, files)
    }

    /// Writes log, report and coverage of a run to where people look for them.
    fn write_files(
        &self,
        want: &Wanted,
        run: TestRun,
        result: &mut TestResult,
    ) -> Vec<WrittenFile> {
        if result.status == TestStatus::NotBuilt {
            return Vec::new();
        }
        let log = read(&self.store, &result.logs);
        let own = result.report.map(|digest| read(&self.store, &[digest]));
        let TestResult { status, duration_ms, .. } = *result;
        let xml = own.filter(|text| junit::suites(text).is_some()).unwrap_or_else(|| {
            junit::report(&junit::Run { label: &want.label, status, duration_ms, log: &log })
        });
        let coverage = result.coverage.map(|digest| read(&self.store, &[digest]));
        let variant = self.request.tests.as_ref().and_then(TestFlags::variant_folder);
        let place = Place::new(&want.label, run, &want.runs, variant);
        let mut files = Vec::new();
        let mut file = |name: &str, text: &str| {
            let written = write(&self.config, &place, name, text)?;
            let path = written.path.clone();
            files.push(written);
            Some(path)
        };
        result.log_path = file("test.log", &log);
        result.xml_path = file("test.xml", &xml);
        result.coverage_path = coverage.and_then(|text| file(COVERAGE_FILE, &text));
        files
    }
}
