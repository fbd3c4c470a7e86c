//! What became of tests: their verdicts, as events, files and for the snapshot.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use maestro_core::event::{Event, EventSink, Outcome, TestStatus};
use maestro_core::graph::{ActionSet, Plan};
use maestro_core::{ActionId, ArtifactId, Digest, Label, Node};
use maestro_executor::engine::{FailedAction, FinishedAction, Report};
use serde::{Deserialize, Serialize};

use crate::args::TestFlags;
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
    /// Where its log is.
    pub log_path: Option<String>,
    /// Where its report is.
    pub xml_path: Option<String>,
}

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

/// Writes the reports of all tests into one file.
pub fn write_junit(workspace: &Path, path: &Path, verdicts: &[TestVerdict]) -> Result<()> {
    let mut suites = String::new();
    for verdict in verdicts {
        for result in &verdict.results {
            let text = result.xml_path.as_ref();
            let text = text.and_then(|path| std::fs::read_to_string(workspace.join(path)).ok());
            // Whoever removed a report finds the verdict all the same.
            let made = || {
                let TestResult { status, duration_ms, .. } = *result;
                let run = junit::Run { label: &verdict.label, status, duration_ms, log: "" };
                junit::suites(&junit::report(&run))
            };
            suites
                .push_str(&text.and_then(|t| junit::suites(&t)).or_else(made).unwrap_or_default());
        }
    }
    std::fs::write(path, junit::document(&suites))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// What the engine says of the actions of tests.
struct Ends<'r> {
    finished: HashMap<ActionId, &'r FinishedAction>,
    failed: HashMap<ActionId, &'r FailedAction>,
    planned: ActionSet,
}

impl Invocation {
    /// What became of the tests among what was wanted, told as events.
    pub(crate) fn test_verdicts(
        &self,
        work: &Work,
        wanted: &[Wanted],
        report: &Report,
        plan: &Plan,
    ) -> Vec<TestVerdict> {
        if self.request.tests.is_none() {
            return Vec::new();
        }
        let before: HashMap<Label, TestVerdict> =
            work.known.as_ref().map(Known::verdicts).unwrap_or_default();
        let ends = Ends {
            finished: report.finished.iter().map(|f| (f.action, f)).collect(),
            failed: report.failed.iter().map(|f| (f.action, f)).collect(),
            planned: plan.order.iter().copied().collect(),
        };
        let mut verdicts = Vec::new();
        for want in wanted {
            let known = before.get(&want.label);
            let result = |run: &TestRun| match ends.planned.contains(run.action) {
                true => Some(self.test_result(want, *run, &ends)),
                false => known.and_then(|verdict| verdict.as_known(*run)),
            };
            let results: Vec<TestResult> = want.runs.iter().filter_map(result).collect();
            let worst = results.iter().map(|result| result.status).max_by_key(|s| severity(*s));
            let Some(status) = worst else { continue };
            let verdict = TestVerdict { label: want.label.clone(), status, results };
            verdict.events(false).into_iter().for_each(|event| self.events.emit(event));
            verdicts.push(verdict);
        }
        verdicts
    }

    fn test_result(&self, want: &Wanted, run: TestRun, ends: &Ends<'_>) -> TestResult {
        let done = ends.finished.get(&run.action);
        let (status, logs, own) = match (done, ends.failed.get(&run.action)) {
            (Some(done), _) => {
                let status = if done.flaky { TestStatus::Flaky } else { TestStatus::Passed };
                (status, done.logs.clone(), file_of(&done.outputs))
            }
            (None, Some(failed)) => {
                let (status, logs) = failed.error.test_status();
                (status, logs, failed.error.test_report())
            }
            (None, None) => (TestStatus::NotBuilt, Vec::new(), None),
        };
        let duration_ms = done.map_or(0, |done| done.end_ms - done.start_ms);
        let passed = matches!(status, TestStatus::Passed | TestStatus::Flaky);
        let log = read(&self.store, &logs);
        if passed && self.shows_log(true) && !log.is_empty() {
            self.show_test_log(want, run.action, log.clone());
        }
        let own = own.map(|digest| read(&self.store, &[digest]));
        let xml = own.filter(|text| junit::suites(text).is_some()).unwrap_or_else(|| {
            junit::report(&junit::Run { label: &want.label, status, duration_ms, log: &log })
        });
        let variant = self.request.tests.as_ref().and_then(TestFlags::variant_folder);
        let place = Place::new(&want.label, run, &want.runs, variant);
        let file = |name: &str, text: &str| match status {
            TestStatus::NotBuilt => None,
            _ => write(&self.config, &place, name, text),
        };
        TestResult {
            run: run.run,
            shard: run.shard,
            status,
            cached: done.is_some_and(|done| done.outcome != Outcome::Executed),
            duration_ms,
            log_path: file("test.log", &log),
            xml_path: file("test.xml", &xml),
        }
    }
}

/// The report among the outputs of a test: the only file; the other output is a tree.
fn file_of(outputs: &[(ArtifactId, Node)]) -> Option<Digest> {
    outputs.iter().find_map(|(_, node)| match node {
        Node::File { digest, .. } => Some(*digest),
        Node::Tree { .. } | Node::Symlink { .. } => None,
    })
}
