//! What is to be done now: a function of the fold and the time, and of nothing else.

use super::plan::{FarSide, StepIndex, StepKind};
use super::state::{RunState, RunStatus, TaskStatus};
use super::task::TaskId;

/// One thing to do. Each ends in a [`Command`](super::Command).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Evaluate condition and items of a step: `Expand`, `Skip` or `FailStep`.
    Expand(StepIndex),
    /// Find out about a request that may have been sent, or send it again with the same key:
    /// `Succeed`, `Fail`, `Unsettle` or `Park`.
    Settle(TaskId),
    /// The time of a gate has passed: `Expire`.
    Expire(TaskId),
    /// Run pure or recorded work: `Begin`, then `Succeed` or `Fail`.
    Execute(TaskId),
    /// Render the request of an effect and ask policy: `Intend`, then send it, then `Succeed`,
    /// `Fail`, `Unsettle` or `Park`.
    Send(TaskId),
    /// Compute what a gate asks people to agree to: `Ask`.
    Ask(TaskId),
    /// The time of the whole run has passed: `Cancel`.
    TimeUp,
    /// All steps have ended: `End`.
    End,
}

/// What is to be done, and when to look again though nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agenda {
    /// In order of urgency.
    pub work: Vec<Work>,
    /// The next time at which there is more to do, in milliseconds since 1970.
    pub wake_at_ms: Option<u64>,
}

impl RunState {
    /// What is to be done at `now_ms`, at most `most` things of it.
    ///
    /// `skip` names tasks that the caller is busy with: settling an effect changes nothing in the
    /// journal until it is done. `full` names steps that have as many tasks under way as they may.
    pub fn agenda(
        &self,
        now_ms: u64,
        most: usize,
        skip: impl Fn(TaskId) -> bool,
        full: impl Fn(StepIndex) -> bool,
    ) -> Agenda {
        if self.ended.is_some() {
            return Agenda::default();
        }
        let due = self.sets.due.iter().map(|step| Work::Expand(*step));
        let settle = self.unsettled().filter(|(at, task)| *at <= now_ms && !skip(*task));
        let expire = self.expiries().filter(|(at, _)| *at <= now_ms);
        let timed = self.sets.timed.iter().take_while(|(at, _)| *at <= now_ms);
        let start = self.ready(&full).chain(timed.map(|(_, task)| *task).filter(|t| !full(t.step)));
        let time_up = self.time_up_ms();
        let work = time_up
            .filter(|at| *at <= now_ms)
            .map(|_| Work::TimeUp)
            .into_iter()
            .chain(due)
            .chain(settle.map(|(_, task)| Work::Settle(task)))
            .chain(expire.map(|(_, task)| Work::Expire(task)))
            .chain(start.filter(|task| !skip(*task)).map(|task| self.start_of(task)))
            .chain(self.end_status().map(|_| Work::End));
        let timed = self.sets.timed.range((now_ms.saturating_add(1), TaskId::default())..);
        let later = self.unsettled().chain(self.expiries()).map(|(at, _)| at);
        let later = later.chain(time_up).filter(|at| *at > now_ms);
        let wake_at_ms = timed.map(|(at, _)| *at).take(1).chain(later).min();
        Agenda { work: work.take(most).collect(), wake_at_ms }
    }

    /// How the run ends now that all its steps have.
    pub fn verdict(&self) -> Option<RunStatus> {
        self.end_status()
    }

    /// What the far side of a task's step offers.
    pub fn far_side(&self, task: TaskId) -> Option<FarSide> {
        match self.plan().step(task.step)?.kind {
            StepKind::Effect(far_side) => Some(far_side),
            StepKind::Work(_) | StepKind::Gate(_) => None,
        }
    }

    /// The tasks that can begin, without those of steps that are full: a step of many tasks costs
    /// no more to pass by than one of a single task.
    fn ready<'a>(
        &'a self,
        full: &'a impl Fn(StepIndex) -> bool,
    ) -> impl Iterator<Item = TaskId> + 'a {
        let mut next = TaskId::default();
        std::iter::from_fn(move || {
            loop {
                let task = *self.sets.ready.range(next..).next()?;
                if !full(task.step) {
                    next = TaskId { round: task.round.checked_add(1)?, ..task };
                    return Some(task);
                }
                next = TaskId::first(StepIndex(task.step.0.checked_add(1)?));
            }
        })
    }

    fn start_of(&self, task: TaskId) -> Work {
        match self.plan().step(task.step).map(|step| &step.kind) {
            Some(StepKind::Effect(_)) => Work::Send(task),
            Some(StepKind::Gate(_)) => Work::Ask(task),
            Some(StepKind::Work(_)) | None => Work::Execute(task),
        }
    }

    /// When the whole run is to be cancelled, in milliseconds since 1970.
    fn time_up_ms(&self) -> Option<u64> {
        let timeout_ms = self.plan().timeout_ms.filter(|_| self.cancelled.is_none())?;
        Some(self.started_ms.saturating_add(timeout_ms))
    }

    fn unsettled(&self) -> impl Iterator<Item = (u64, TaskId)> + '_ {
        self.sets.intended.iter().filter_map(|task| match &self.tasks.get(task)?.status {
            TaskStatus::Intended(intent) if !intent.fresh => Some((intent.retry_at_ms, *task)),
            _ => None,
        })
    }

    fn expiries(&self) -> impl Iterator<Item = (u64, TaskId)> + '_ {
        self.sets
            .asked
            .iter()
            .filter_map(|task| Some((self.gates.get(task)?.request.expires_at_ms, *task)))
    }
}
