//! The transitions of a run: the only place where its state changes.
//!
//! [`RunState::apply`] takes one entry of the journal. What follows from it without anybody's
//! doing follows at once: a step whose predecessors have ended gets its turn, and may be skipped,
//! whereupon those that wait for it get theirs (`turns.rs`); a gate that opens lets pass what it
//! held (`gates.rs`).

use super::approval::GateState;
use super::event::{Entry, Event, Item, Resolution, RunCreated, Success};
use super::failure::{Failure, FailureClass};
use super::plan::StepKind;
use super::state::{
    ApplyError, Cancellation, Edges, Intent, RunState, Sets, StepState, TaskState, TaskStatus,
    Verdict,
};
use super::task::TaskId;
use super::turns::Turns;

type Applied = Result<(), String>;

impl RunState {
    /// The state after the first entry of a journal.
    pub fn begin(entry: &Entry) -> Result<Self, ApplyError> {
        let Event::RunCreated(created) = &entry.event else {
            return Err(wrong(entry, "a journal begins with `run-created`"));
        };
        created.plan.check().map_err(|e| wrong(entry, &e.to_string()))?;
        if entry.sequence != 1 {
            return Err(wrong(entry, "a journal begins with number 1"));
        }
        let mut state = Self::empty(created, entry);
        state.index();
        state.count();
        let mut turns = state.steps_without_predecessors();
        state.take_turns(&mut turns);
        Ok(state)
    }

    fn empty(created: &RunCreated, entry: &Entry) -> Self {
        let steps = created.plan.steps.len();
        Self {
            created: created.clone(),
            created_ms: entry.at_ms,
            started_ms: entry.at_ms,
            sequence: entry.sequence,
            epoch: entry.epoch,
            updated_ms: entry.at_ms,
            owner: None,
            steps: vec![StepState::default(); steps],
            tasks: Default::default(),
            ledger: Default::default(),
            gates: Default::default(),
            inputs: Default::default(),
            cancelled: None,
            ended: None,
            reopened: 0,
            dismissed: false,
            authors: Vec::new(),
            generations: Default::default(),
            failed: false,
            flow_open: 0,
            left: 0,
            sets: Sets::default(),
            edges: Edges::default(),
        }
    }

    /// Computes what is not stored, after the state was read from a snapshot.
    pub fn index(&mut self) {
        self.edges = Edges::of(self.plan());
    }

    /// Takes the next entry of the journal.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let owned = matches!(entry.event, Event::Owned { .. });
        if entry.sequence != self.sequence.saturating_add(1) {
            return Err(wrong(entry, &format!("{} came before it", self.sequence)));
        }
        if entry.epoch != self.epoch.saturating_add(u64::from(owned)) {
            return Err(wrong(
                entry,
                &format!("its epoch is {}, after {}", entry.epoch, self.epoch),
            ));
        }
        let mut turns = Turns::new();
        self.take(entry, &mut turns).map_err(|why| wrong(entry, &why))?;
        self.take_turns(&mut turns);
        self.sequence = entry.sequence;
        self.epoch = entry.epoch;
        self.updated_ms = entry.at_ms;
        Ok(())
    }

    fn take(&mut self, entry: &Entry, turns: &mut Turns) -> Applied {
        let at_ms = entry.at_ms;
        match &entry.event {
            Event::RunCreated(_) => return Err("a run is created once".into()),
            Event::Owned { owner, .. } => {
                self.owner = Some(owner.clone());
                self.orphan_work();
            }
            Event::StepExpanded { .. } | Event::StepSkipped { .. } | Event::StepFailed { .. } => {
                self.take_step(&entry.event, turns)?;
            }
            Event::TaskBegan { task, reserved } => {
                self.begin_attempt(*task, at_ms)?;
                self.set(*task, TaskStatus::Running);
                if let Some(amount) = reserved {
                    self.ledger.reserve(*task, *amount);
                }
            }
            Event::TaskSucceeded { task, success, again_at_ms } => {
                self.succeed(*task, success, *again_at_ms, at_ms, turns)?;
            }
            Event::TaskFailed { task, failure, spent, retry_at_ms } => {
                self.ledger.settle(*task, *spent);
                self.task_mut(*task)?.spent.add(*spent);
                self.fail(*task, failure, *retry_at_ms, at_ms, turns)?;
            }
            Event::EffectIntended { .. }
            | Event::EffectUnsettled { .. }
            | Event::EffectParked { .. }
            | Event::EffectResolved { .. } => self.take_effect(entry, turns)?,
            Event::ApprovalAsked { task, request } => {
                self.begin_attempt(*task, at_ms)?;
                self.gates.insert(*task, GateState::new(request.clone()));
                self.set(*task, TaskStatus::Asked);
            }
            Event::ApprovalGiven { task, approval } => self.give(*task, approval)?,
            Event::ApprovalRevoked { task, by, .. } => self.revoke(*task, by)?,
            Event::ApprovalVoided { task, .. } => self.void(*task)?,
            Event::ApprovalsWanted { task, approvals, .. } => self.want(*task, *approvals)?,
            Event::PolicyDecided(_) => {}
            Event::BudgetNoticed(notice) => self.ledger.tell(notice),
            Event::CancelAsked { by, reason } => {
                let (by, reason) = (by.clone(), reason.clone());
                self.cancelled = Some(Cancellation { by, reason, at_ms });
                self.drop_pending(Verdict::Cancelled, turns);
            }
            Event::RunEnded { status } => match self.left {
                0 => self.ended = Some(*status),
                left => return Err(format!("{left} steps have not ended")),
            },
            Event::RunReopened { from, inputs, by, .. } => {
                if from.is_some_and(|step| self.step(step).is_none()) || self.ended.is_none() {
                    return Err("it has no such step, or has not ended".into());
                }
                self.inputs.extend(inputs.clone());
                self.started_ms = at_ms;
                self.dismissed = false;
                if !inputs.is_empty() {
                    self.authors.push(by.clone());
                }
                self.reopen(*from, !inputs.is_empty(), turns);
            }
            Event::RunDismissed { .. } => self.dismissed = true,
        }
        Ok(())
    }

    /// The turn of a step came.
    fn take_step(&mut self, event: &Event, turns: &mut Turns) -> Applied {
        match event {
            Event::StepExpanded { step, items } => {
                self.leave_due(*step)?;
                self.open_step(*step, items.clone(), turns);
            }
            Event::StepSkipped { step } => {
                self.leave_due(*step)?;
                self.end_step(*step, Verdict::Skipped, turns);
            }
            Event::StepFailed { step, failure } => {
                self.leave_due(*step)?;
                self.steps[step.index()].failure = Some(failure.clone());
                self.end_step(*step, Verdict::Failed, turns);
            }
            _ => {}
        }
        Ok(())
    }

    /// Something about a request that may have been sent.
    fn take_effect(&mut self, entry: &Entry, turns: &mut Turns) -> Applied {
        match &entry.event {
            Event::EffectIntended { task, generation, key, request, .. } => {
                self.begin_attempt(*task, entry.at_ms)?;
                self.generations.insert(*task, *generation);
                let intent = Intent {
                    generation: *generation,
                    key: key.clone(),
                    request: request.clone(),
                    at_ms: entry.at_ms,
                    fresh: true,
                    retry_at_ms: 0,
                };
                self.set(*task, TaskStatus::Intended(Box::new(intent)));
            }
            Event::EffectUnsettled { task, failure, retry_at_ms } => {
                let mut intent = self.intent(*task)?;
                (intent.fresh, intent.retry_at_ms) = (false, *retry_at_ms);
                self.set(*task, TaskStatus::Intended(intent));
                let state = self.task_mut(*task)?;
                state.attempt = state.attempt.saturating_add(1);
                state.failure = Some(failure.clone());
            }
            Event::EffectParked { task, why } => {
                let intent = self.intent(*task)?;
                self.set(*task, TaskStatus::Parked { intent, why: why.clone() });
            }
            Event::EffectResolved { task, resolution, .. } => {
                self.resolve(*task, resolution, entry.at_ms, turns)?;
            }
            _ => {}
        }
        Ok(())
    }

    // ---- tasks

    pub(super) fn task_mut(&mut self, task: TaskId) -> Result<&mut TaskState, String> {
        self.tasks.get_mut(&task).ok_or_else(|| format!("there is no task {}", String::from(task)))
    }

    pub(super) fn unexpected(&self, task: TaskId) -> String {
        let status = self.tasks.get(&task).map_or("missing", |state| state.status.name());
        format!("`{}` is {status}", self.name(task))
    }

    /// The one function through which the status of a task changes.
    pub(super) fn set(&mut self, task: TaskId, status: TaskStatus) {
        let Some(state) = self.tasks.get_mut(&task) else { return };
        let old = std::mem::replace(&mut state.status, status);
        self.sets.remove(task, &old);
        self.sets.insert(task, &state.status);
    }

    /// A new attempt of a task that could begin.
    fn begin_attempt(&mut self, task: TaskId, at_ms: u64) -> Applied {
        let unexpected = self.unexpected(task);
        let state = self.task_mut(task)?;
        if !matches!(state.status, TaskStatus::Ready | TaskStatus::Backoff { .. }) {
            return Err(unexpected);
        }
        state.attempt = state.attempt.saturating_add(1);
        state.began_ms.get_or_insert(at_ms);
        Ok(())
    }

    fn intent(&mut self, task: TaskId) -> Result<Box<Intent>, String> {
        let unexpected = self.unexpected(task);
        match &self.task_mut(task)?.status {
            TaskStatus::Intended(intent) => Ok(intent.clone()),
            _ => Err(unexpected),
        }
    }

    fn succeed(
        &mut self,
        task: TaskId,
        success: &Success,
        again_at_ms: Option<u64>,
        at_ms: u64,
        turns: &mut Turns,
    ) -> Applied {
        let unexpected = self.unexpected(task);
        let state = self.task_mut(task)?;
        match state.status {
            TaskStatus::Running | TaskStatus::Intended(_) | TaskStatus::Asked => {}
            _ => return Err(unexpected),
        }
        state.success = Some(success.clone());
        state.failure = None;
        state.ended_ms = Some(at_ms);
        state.spent.add(success.spent);
        self.ledger.settle(task, success.spent);
        self.set(task, TaskStatus::Ended(Verdict::Succeeded));
        if let Some(gate) = self.gates.get_mut(&task) {
            gate.open = true;
        }
        match again_at_ms {
            Some(until_ms) => {
                let next = task.next_round();
                self.tasks.insert(next, TaskState::new(TaskStatus::Ended(Verdict::NotReached)));
                self.set(next, TaskStatus::Backoff { until_ms });
            }
            None => self.end_item(task.step, Verdict::Succeeded, turns),
        }
        self.release_held();
        Ok(())
    }

    fn fail(
        &mut self,
        task: TaskId,
        failure: &Failure,
        retry_at_ms: Option<u64>,
        at_ms: u64,
        turns: &mut Turns,
    ) -> Applied {
        let unexpected = self.unexpected(task);
        let state = self.task_mut(task)?;
        match state.status {
            TaskStatus::Running | TaskStatus::Intended(_) | TaskStatus::Asked => {}
            TaskStatus::Ready | TaskStatus::Backoff { .. } | TaskStatus::Held => {
                state.attempt = state.attempt.saturating_add(1);
            }
            TaskStatus::Parked { .. } | TaskStatus::Ended(_) => return Err(unexpected),
        }
        state.failure = Some(failure.clone());
        state.ended_ms = Some(at_ms);
        match retry_at_ms {
            Some(until_ms) => self.set(task, TaskStatus::Backoff { until_ms }),
            None => {
                let verdict = match failure.class {
                    FailureClass::Cancelled => Verdict::Cancelled,
                    _ => Verdict::Failed,
                };
                self.set(task, TaskStatus::Ended(verdict));
                self.end_item(task.step, verdict, turns);
            }
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        task: TaskId,
        resolution: &Resolution,
        at_ms: u64,
        turns: &mut Turns,
    ) -> Applied {
        let unexpected = self.unexpected(task);
        let state = self.task_mut(task)?;
        if !matches!(state.status, TaskStatus::Parked { .. }) {
            return Err(unexpected);
        }
        state.ended_ms = Some(at_ms);
        match resolution {
            Resolution::Applied(outputs) => {
                state.success = Some(Success { outputs: outputs.clone(), ..Success::default() });
                state.failure = None;
                self.set(task, TaskStatus::Ended(Verdict::Succeeded));
                self.end_item(task.step, Verdict::Succeeded, turns);
            }
            Resolution::GiveUp => {
                let why = "a person gave it up";
                state.failure = Some(Failure::new(FailureClass::User, why));
                self.set(task, TaskStatus::Ended(Verdict::Failed));
                self.end_item(task.step, Verdict::Failed, turns);
            }
            Resolution::Redo => {
                let next = self.generation(task).saturating_add(1);
                self.generations.insert(task, next);
                self.void_guards_of(task.step)?;
                self.make_ready(task);
            }
        }
        Ok(())
    }

    /// Ready, unless a gate before it asks again.
    pub(super) fn make_ready(&mut self, task: TaskId) {
        let effect =
            self.plan().step(task.step).is_some_and(|s| matches!(s.kind, StepKind::Effect(_)));
        let held = effect && !self.closed_gates(task.step).is_empty();
        self.set(task, if held { TaskStatus::Held } else { TaskStatus::Ready });
    }

    /// What was under way when its owner died belongs to nobody: work begins again without having
    /// used an attempt, and requests that may have been sent are to be settled.
    fn orphan_work(&mut self) {
        for task in std::mem::take(&mut self.sets.running) {
            self.ledger.lose(task);
            if let Some(state) = self.tasks.get_mut(&task) {
                state.attempt = state.attempt.saturating_sub(1);
                state.status = TaskStatus::Ready;
                self.sets.ready.insert(task);
            }
        }
        for task in self.sets.intended.clone() {
            if let Some(TaskState { status: TaskStatus::Intended(intent), .. }) =
                self.tasks.get_mut(&task)
            {
                intent.fresh = false;
            }
        }
    }
}

impl Item {
    /// The item of a step that is not repeated.
    pub fn only() -> Self {
        Self { label: String::new(), value: serde_json::Value::Null }
    }
}

fn wrong(entry: &Entry, why: &str) -> ApplyError {
    ApplyError { sequence: entry.sequence, why: why.to_owned() }
}
