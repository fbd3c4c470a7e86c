//! What became of tests: their verdicts, as events and for the snapshot.

use std::collections::HashMap;

use maestro_core::event::{Event, EventSink, Outcome, TestStatus};
use maestro_core::graph::{ActionSet, Plan};
use maestro_core::{ActionId, Label};
use maestro_executor::engine::{FinishedAction, Report};
use serde::{Deserialize, Serialize};

use crate::increment::{Known, Work};
use crate::invocation::{Invocation, Wanted};

/// The verdict of one test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestVerdict {
    /// The test.
    pub label: Label,
    /// How it ended.
    pub status: TestStatus,
    /// Whether it was not run now.
    pub cached: bool,
    /// How long it ran.
    pub duration_ms: u64,
    /// Where its log is.
    pub log_path: Option<String>,
}

impl TestVerdict {
    /// The verdict as an event.
    pub fn event(&self, cached: bool) -> Event {
        Event::TestFinished {
            label: self.label.clone(),
            status: self.status,
            cached,
            duration_ms: self.duration_ms,
            log_path: self.log_path.clone(),
        }
    }
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
        if !self.request.tests {
            return Vec::new();
        }
        let graph = &work.graph;
        let planned: ActionSet = plan.order.iter().copied().collect();
        let mut known: HashMap<Label, TestVerdict> =
            work.known.as_ref().map(Known::verdicts).unwrap_or_default();
        let finished: HashMap<ActionId, &FinishedAction> =
            report.finished.iter().map(|f| (f.action, f)).collect();
        let failed: HashMap<ActionId, &maestro_executor::engine::FailedAction> =
            report.failed.iter().map(|f| (f.action, f)).collect();
        let mut verdicts = Vec::new();
        for want in wanted {
            let Some(test) = &graph.target(want.target).test else { continue };
            if !planned.contains(test.action) {
                if let Some(verdict) = known.remove(&want.label) {
                    self.events.emit(verdict.event(true));
                    verdicts.push(TestVerdict { cached: true, ..verdict });
                }
                continue;
            }
            let (status, logs) = match (finished.get(&test.action), failed.get(&test.action)) {
                (Some(done), _) => (TestStatus::Passed, done.logs.clone()),
                (None, Some(failed)) => failed.error.test_status(),
                (None, None) => (TestStatus::NotBuilt, Vec::new()),
            };
            let done = finished.get(&test.action);
            let verdict = TestVerdict {
                label: want.label.clone(),
                status,
                cached: done.is_some_and(|done| done.outcome != Outcome::Executed),
                duration_ms: done.map_or(0, |done| done.end_ms - done.start_ms),
                log_path: crate::test_logs::write(&self.config, &self.store, &want.label, &logs),
            };
            self.events.emit(verdict.event(verdict.cached));
            verdicts.push(verdict);
        }
        verdicts
    }
}
