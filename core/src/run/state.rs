//! What is known of a run: the fold over its journal.
//!
//! [`RunState`] holds more than the journal says only in so far as it follows: a step whose
//! predecessors have ended has its turn, a step after a failed one is skipped. The transitions
//! are in `apply.rs`, each sort of state in one enum here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::approval::{GateState, Principal};
use super::budget::{Amount, Ledger};
use super::event::{Item, Owner, RunCreated, Success};
use super::failure::Failure;
use super::plan::{Plan, StepIndex, StepKind, StepPlan};
use super::task::TaskId;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// Something runs or can run.
    Running,
    /// Nothing runs until people approve, or a time comes.
    Waiting,
    /// Nothing runs until a person says whether an effect arrived.
    Parked,
    /// Somebody cancelled it, and something still runs.
    Cancelling,
    /// Ended well.
    Succeeded,
    /// Ended with a failed step.
    Failed,
    /// Ended because somebody cancelled it.
    Cancelled,
}

impl RunStatus {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How a step or task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It gave what it should.
    Succeeded,
    /// It failed for good.
    Failed,
    /// Its condition did not hold.
    Skipped,
    /// Something before it, or elsewhere in the run, failed.
    NotReached,
    /// The run was cancelled.
    Cancelled,
}

impl Verdict {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotReached => "not reached",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Steps before it have not ended, or its trigger has not come.
    #[default]
    Waiting,
    /// Its turn has come: condition and items are to be evaluated.
    Due,
    /// It has tasks.
    Open,
    /// All its tasks have ended.
    Ended(Verdict),
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// Its items, once it is open.
    pub items: Vec<Item>,
    /// Why it failed without having tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How many of the steps that it waits for have not ended.
    pub(super) waits: u32,
    /// How many of its items have not ended.
    pub(super) open: u32,
    /// The worst end of its items so far.
    pub(super) worst: Option<Verdict>,
}

impl StepState {
    /// How it ended, if it has.
    pub fn verdict(&self) -> Option<Verdict> {
        match self.phase {
            Phase::Ended(verdict) => Some(verdict),
            Phase::Waiting | Phase::Due | Phase::Open => None,
        }
    }
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskStatus {
    /// It can begin.
    Ready,
    /// It can begin at a time: after a failure, or between rounds.
    Backoff {
        /// In milliseconds since 1970.
        until_ms: u64,
    },
    /// A gate before it asks again.
    Held,
    /// Pure or recorded work is under way.
    Running,
    /// The request of an effect may have been sent.
    Intended(Box<Intent>),
    /// A gate waits for people.
    Asked,
    /// A person has to find out whether an effect arrived.
    Parked {
        /// What may have been sent.
        intent: Box<Intent>,
        /// Why a person.
        why: String,
    },
    /// It has ended.
    Ended(Verdict),
}

impl TaskStatus {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Backoff { .. } => "waiting for its next attempt",
            Self::Held => "held by a gate",
            Self::Running => "running",
            Self::Intended(_) => "being sent",
            Self::Asked => "waiting for approval",
            Self::Parked { .. } => "parked",
            Self::Ended(verdict) => verdict.name(),
        }
    }
}

/// A request that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Which generation.
    pub generation: u32,
    /// The idempotency key.
    pub key: String,
    /// The exact request.
    pub request: String,
    /// When it was journalled, in milliseconds since 1970.
    pub at_ms: u64,
    /// The present owner journalled it, and has not said that the outcome is unknown.
    pub fresh: bool,
    /// Where the outcome is unknown, when it is asked or sent again.
    pub retry_at_ms: u64,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// Where it stands.
    pub status: TaskStatus,
    /// The attempt that is under way or was the last; 0 before the first.
    pub attempt: u32,
    /// When its first attempt began, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Success>,
    /// Why its last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What all its attempts cost.
    #[serde(default)]
    pub spent: Amount,
}

impl TaskState {
    pub(super) fn new(status: TaskStatus) -> Self {
        Self {
            status,
            attempt: 0,
            began_ms: None,
            ended_ms: None,
            success: None,
            failure: None,
            spent: Amount::ZERO,
        }
    }
}

/// Who asked to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who.
    pub by: Principal,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// An entry does not follow from those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {sequence} of the journal does not follow from those before it: {why}")]
pub struct ApplyError {
    /// Its place.
    pub sequence: u64,
    /// What does not fit.
    pub why: String,
}

/// The fold over a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// What the run was made from.
    pub created: RunCreated,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it began or a person last had it go on, in milliseconds since 1970.
    pub started_ms: u64,
    /// The number of the last entry.
    pub sequence: u64,
    /// The present epoch; 0 before the first owner.
    pub epoch: u64,
    /// The time of the last entry, in milliseconds since 1970.
    pub updated_ms: u64,
    /// The last owner.
    pub owner: Option<Owner>,
    /// The steps, as in the plan.
    pub steps: Vec<StepState>,
    /// The tasks that exist.
    pub tasks: BTreeMap<TaskId, TaskState>,
    /// What has been spent.
    pub ledger: Ledger,
    /// The gates that have asked.
    pub gates: BTreeMap<TaskId, GateState>,
    /// Inputs that a person has replaced, by the id of the step.
    pub inputs: BTreeMap<String, Value>,
    /// Who cancelled it.
    pub cancelled: Option<Cancellation>,
    /// How it ended.
    pub ended: Option<RunStatus>,
    /// How often a person has had it go on after its end.
    pub reopened: u32,
    /// Who has replaced inputs: they have started what the run does since.
    #[serde(default)]
    pub authors: Vec<Principal>,
    /// Somebody took it off the dead-letter queue since it failed.
    #[serde(default)]
    pub dismissed: bool,
    pub(super) generations: BTreeMap<TaskId, u32>,
    pub(super) failed: bool,
    pub(super) flow_open: u32,
    pub(super) left: u32,
    pub(super) sets: Sets,
    #[serde(skip)]
    pub(super) edges: Edges,
}

/// The tasks by what they wait for; together they are what [`TaskStatus`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sets {
    pub due: BTreeSet<StepIndex>,
    pub ready: BTreeSet<TaskId>,
    pub timed: BTreeSet<(u64, TaskId)>,
    pub held: BTreeSet<TaskId>,
    pub running: BTreeSet<TaskId>,
    pub intended: BTreeSet<TaskId>,
    pub asked: BTreeSet<TaskId>,
    pub parked: BTreeSet<TaskId>,
}

/// What follows from the plan: computed once, never stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Edges {
    /// Who waits for each step.
    pub dependents: Vec<Vec<StepIndex>>,
    /// The gates and evidence that come before each step, at any distance.
    pub guards: Vec<Vec<StepIndex>>,
}

impl RunState {
    /// What it does.
    pub fn plan(&self) -> &Plan {
        &self.created.plan
    }

    /// How it stands.
    pub fn status(&self) -> RunStatus {
        if let Some(ended) = self.ended {
            return ended;
        }
        let sets = &self.sets;
        let busy = !(sets.due.is_empty()
            && sets.ready.is_empty()
            && sets.running.is_empty()
            && sets.intended.is_empty());
        match (busy, self.cancelled.is_some()) {
            (true, true) => RunStatus::Cancelling,
            (true, false) => RunStatus::Running,
            _ if !sets.parked.is_empty() => RunStatus::Parked,
            _ if !sets.asked.is_empty() || !sets.timed.is_empty() => RunStatus::Waiting,
            _ => RunStatus::Running,
        }
    }

    /// A step's plan and state.
    pub fn step(&self, step: StepIndex) -> Option<(&StepPlan, &StepState)> {
        Some((self.plan().step(step)?, self.steps.get(step.index())?))
    }

    /// What people call a task: `deploy`, `test[linux,3.11]`, `poll#2`.
    pub fn name(&self, task: TaskId) -> String {
        let Some((plan, state)) = self.step(task.step) else {
            return String::from(task);
        };
        let label = state.items.get(task.item as usize).map_or("", |item| &item.label);
        let item = if label.is_empty() { String::new() } else { format!("[{label}]") };
        let round = if task.round > 0 { format!("#{}", task.round + 1) } else { String::new() };
        format!("{}{item}{round}", plan.id)
    }

    /// Whether a step has failed that fails the run.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The generation in which an effect is or would be done.
    pub fn generation(&self, task: TaskId) -> u32 {
        self.generations.get(&task).copied().unwrap_or(0)
    }

    /// The tasks of one step, in order.
    pub fn tasks_of(&self, step: StepIndex) -> impl Iterator<Item = (TaskId, &TaskState)> {
        let end = TaskId { step, item: u32::MAX, round: u32::MAX };
        self.tasks.range(TaskId::first(step)..=end).map(|(id, task)| (*id, task))
    }

    /// Whether anything of a step has begun.
    pub fn has_begun(&self, step: StepIndex) -> bool {
        self.tasks_of(step).any(|(_, task)| task.began_ms.is_some())
    }

    /// What the last round of each item of a step gave, in order of the items.
    pub fn successes(&self, step: StepIndex) -> Vec<Option<&Success>> {
        let mut last: BTreeMap<u32, Option<&Success>> = BTreeMap::new();
        for (id, task) in self.tasks_of(step) {
            last.insert(id.item, task.success.as_ref());
        }
        last.into_values().collect()
    }

    /// The effects that come after a gate, at any distance.
    pub fn effects_behind(&self, gate: StepIndex) -> Vec<StepIndex> {
        let plan = self.plan().indexed().zip(&self.edges.guards);
        let behind = plan.filter(|((_, step), guards)| {
            matches!(step.kind, StepKind::Effect(_)) && guards.contains(&gate)
        });
        behind.map(|((index, _), _)| index).collect()
    }

    /// The gates, scans and signatures that come before a step, at any distance.
    pub fn guards(&self, step: StepIndex) -> &[StepIndex] {
        self.edges.guards.get(step.index()).map_or(&[][..], Vec::as_slice)
    }

    /// The gates, scans and signatures before a step that do not stand for it: they failed, were
    /// skipped, or were never reached.
    pub fn broken_guards(&self, step: StepIndex) -> Vec<StepIndex> {
        let verdict = |guard: StepIndex| self.step(guard).and_then(|(_, state)| state.verdict());
        let stands = |guard| verdict(guard).is_none_or(|v| v == Verdict::Succeeded);
        let guards = self.guards(step).iter().copied();
        guards.filter(|guard| !stands(*guard) && !self.is_moot(*guard, step)).collect()
    }

    /// Whether a gate is about another step alone, and was skipped as that one is.
    pub fn is_moot(&self, gate: StepIndex, step: StepIndex) -> bool {
        self.step(gate).is_some_and(|(plan, state)| {
            plan.approves.is_some_and(|own| own != step)
                && state.verdict() == Some(Verdict::Skipped)
        })
    }
}

impl Sets {
    /// Forgets a task that had this status.
    pub fn remove(&mut self, task: TaskId, status: &TaskStatus) {
        match status {
            TaskStatus::Backoff { until_ms } => {
                self.timed.remove(&(*until_ms, task));
            }
            other => {
                if let Some(set) = self.set_of(other) {
                    set.remove(&task);
                }
            }
        }
    }

    /// Notes a task that has this status.
    pub fn insert(&mut self, task: TaskId, status: &TaskStatus) {
        match status {
            TaskStatus::Backoff { until_ms } => {
                self.timed.insert((*until_ms, task));
            }
            other => {
                if let Some(set) = self.set_of(other) {
                    set.insert(task);
                }
            }
        }
    }

    fn set_of(&mut self, status: &TaskStatus) -> Option<&mut BTreeSet<TaskId>> {
        match status {
            TaskStatus::Ready => Some(&mut self.ready),
            TaskStatus::Held => Some(&mut self.held),
            TaskStatus::Running => Some(&mut self.running),
            TaskStatus::Intended(_) => Some(&mut self.intended),
            TaskStatus::Asked => Some(&mut self.asked),
            TaskStatus::Parked { .. } => Some(&mut self.parked),
            TaskStatus::Backoff { .. } | TaskStatus::Ended(_) => None,
        }
    }
}

impl Edges {
    /// Both lists for a plan that was checked.
    pub fn of(plan: &Plan) -> Self {
        let count = plan.steps.len();
        let mut edges =
            Self { dependents: vec![Vec::new(); count], guards: vec![Vec::new(); count] };
        for (index, step) in plan.indexed() {
            for before in &step.after {
                if let Some(dependents) = edges.dependents.get_mut(before.index()) {
                    dependents.push(index);
                }
            }
        }
        for index in plan.order() {
            let Some(step) = plan.step(index) else { continue };
            let mut guards = BTreeSet::new();
            for before in &step.after {
                guards.extend(edges.guards.get(before.index()).into_iter().flatten().copied());
                guards.extend(plan.step(*before).filter(|s| s.is_guard()).map(|_| *before));
            }
            if let Some(place) = edges.guards.get_mut(index.index()) {
                *place = guards.into_iter().collect();
            }
        }
        edges
    }
}
