//! What can happen to a run: the events of its journal, and their stored form.
//!
//! The stored form is JSON with a version. Old versions are lifted to the present one when they
//! are read ([`Event::decode`]); a newer one is refused, since what it means is not known.
//! `core/src/run/golden/` holds every event as each version wrote it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::approval::{Approval, ApprovalRequest, Principal};
use super::budget::{Amount, Notice};
use super::failure::Failure;
use super::plan::{Plan, StepIndex};
use super::state::RunStatus;
use super::task::{RunId, TaskId};
use crate::policy::Decision;

/// The version of events that this program writes.
pub const EVENT_VERSION: u32 = 1;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place, counted from 1 without gaps.
    pub sequence: u64,
    /// Which owner wrote it; grows with each new owner.
    pub epoch: u64,
    /// When, in milliseconds since 1970, by the writer's clock.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
}

/// What a run was made from. Never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCreated {
    /// Its name.
    pub run: RunId,
    /// What it does.
    pub plan: Plan,
    /// The template as it was written, with what a driver needs to evaluate it again.
    pub source: Value,
    /// SHA-256 of the template's text.
    pub template_digest: String,
    /// The parameters, complete with defaults; secrets as references.
    pub params: BTreeMap<String, Value>,
    /// What the expressions may know of the world: commit, event, names. Fixed for the whole run.
    #[serde(default)]
    pub context: Value,
    /// Who asked for it.
    pub initiator: Principal,
    /// The digest of the policies that let it begin. Later ones may be others: each decision names
    /// those that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<RunId>,
}

/// The process that drives a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// On whose behalf.
    pub principal: Principal,
}

/// One item of a `foreach` or `matrix`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What people see of it: `linux,3.11`.
    pub label: String,
    /// What expressions see of it.
    pub value: Value,
}

/// What a task gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Success {
    /// Its outputs by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// The digests of what it made, as `HASH/SIZE`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, String>,
    /// What it cost.
    #[serde(default)]
    pub spent: Amount,
    /// It came from the cache.
    #[serde(default)]
    pub cached: bool,
}

/// What a person decided about a parked effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// It was done: the task succeeded with these outputs.
    Applied(BTreeMap<String, Value>),
    /// It was not done, and shall be: a new generation.
    Redo,
    /// It was not done, and shall not be: the task failed.
    GiveUp,
}

/// What policy said before somebody acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// About which task; none where it is about the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Who asked, where it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    /// The answer, with the digests of policies and question.
    pub decision: Decision,
}

/// What happened. The JSON form has a field `type` that names the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The first event of every run.
    RunCreated(Box<RunCreated>),
    /// A process drives the run from here on; what was under way belongs to nobody.
    Owned {
        /// Who.
        owner: Owner,
        /// The owner before had not let go.
        took_over: bool,
    },
    /// The turn of a step came, and these are its tasks.
    StepExpanded {
        /// Which.
        step: StepIndex,
        /// Its items; one with an empty label where it is not repeated.
        items: Vec<Item>,
    },
    /// The turn of a step came, and its condition did not hold.
    StepSkipped {
        /// Which.
        step: StepIndex,
    },
    /// The turn of a step came, and it could not be evaluated.
    StepFailed {
        /// Which.
        step: StepIndex,
        /// Why.
        failure: Failure,
    },
    /// An attempt of a pure or recorded task began.
    TaskBegan {
        /// Which.
        task: TaskId,
        /// What it may cost at most, where it costs anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserved: Option<Amount>,
    },
    /// A task gave what it should.
    TaskSucceeded {
        /// Which.
        task: TaskId,
        /// What it gave.
        #[serde(flatten)]
        success: Success,
        /// Its condition does not hold yet: another round, at this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_at_ms: Option<u64>,
    },
    /// An attempt failed.
    TaskFailed {
        /// Which.
        task: TaskId,
        /// Why.
        failure: Failure,
        /// What it cost all the same.
        #[serde(default)]
        spent: Amount,
        /// When it is tried again; absent if it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at_ms: Option<u64>,
    },
    /// Policy was asked. What it let pass or kept from happening are events of their own.
    PolicyDecided(Box<Ruling>),
    /// A budget that many runs share came near its end, or is closed.
    BudgetNoticed(Notice),
    /// From here on the request may have been sent.
    EffectIntended {
        /// Which.
        task: TaskId,
        /// Which generation of it.
        generation: u32,
        /// The idempotency key.
        key: String,
        /// The exact request, a document of the effect's own type.
        request: String,
        /// The policy decision that let it pass.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<Value>,
    },
    /// Whether the request arrived is not known; it is asked or sent again.
    EffectUnsettled {
        /// Which.
        task: TaskId,
        /// What went wrong.
        failure: Failure,
        /// When.
        retry_at_ms: u64,
    },
    /// Whether the request arrived is not known, and a person has to find out.
    EffectParked {
        /// Which.
        task: TaskId,
        /// Why nobody else can.
        why: String,
    },
    /// A person found out.
    EffectResolved {
        /// Which.
        task: TaskId,
        /// What they decided.
        resolution: Resolution,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A gate waits for people.
    ApprovalAsked {
        /// Which.
        task: TaskId,
        /// For what.
        request: ApprovalRequest,
    },
    /// Somebody agreed.
    ApprovalGiven {
        /// To which gate.
        task: TaskId,
        /// Who, why and when.
        approval: Approval,
    },
    /// Somebody took their approval back, before anything was done on it.
    ApprovalRevoked {
        /// From which gate.
        task: TaskId,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// All approvals of a gate count no more; it asks again.
    ApprovalVoided {
        /// Which gate.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// Policy asks for more approvals than the gate did; those that are there stay.
    ApprovalsWanted {
        /// Which gate.
        task: TaskId,
        /// How many in all.
        approvals: u32,
        /// Why.
        why: String,
    },
    /// Nothing new starts, and what runs is to stop.
    CancelAsked {
        /// By whom.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// All steps have ended.
    RunEnded {
        /// How.
        status: RunStatus,
    },
    /// A person had the run go on after its end.
    RunReopened {
        /// This step and all after it run again; without it, only what did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<StepIndex>,
        /// Inputs that replace those of the template, by the id of the step.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        inputs: BTreeMap<String, Value>,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A person took a run that failed off the dead-letter queue; it stays failed.
    RunDismissed {
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
}

/// A stored event that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A later version of Maestro wrote it.
    #[error("the event has version {0}, and this Maestro knows up to {EVENT_VERSION}")]
    Newer(u32),
    /// It is not what that version writes.
    #[error("the event of version {version} is damaged: {why}")]
    Damaged {
        /// Its version.
        version: u32,
        /// The parser's words.
        why: String,
    },
}

impl Event {
    /// Whether it must be on stable storage before anybody acts on it.
    ///
    /// A pure or recorded task can be repeated, so its events may be lost with the last moments
    /// before a crash; a reservation may not, and nothing that concerns people or the world may.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::StepExpanded { .. } | Self::StepSkipped { .. } | Self::StepFailed { .. } => false,
            Self::BudgetNoticed(_) => false,
            Self::TaskBegan { reserved, .. } => reserved.is_some(),
            Self::TaskSucceeded { success, .. } => success.spent != Amount::ZERO,
            Self::TaskFailed { spent, .. } => *spent != Amount::ZERO,
            Self::PolicyDecided(ruling) => !ruling.decision.is_allowed(),
            Self::RunCreated(_)
            | Self::Owned { .. }
            | Self::EffectIntended { .. }
            | Self::EffectUnsettled { .. }
            | Self::EffectParked { .. }
            | Self::EffectResolved { .. }
            | Self::ApprovalAsked { .. }
            | Self::ApprovalGiven { .. }
            | Self::ApprovalRevoked { .. }
            | Self::ApprovalVoided { .. }
            | Self::ApprovalsWanted { .. }
            | Self::CancelAsked { .. }
            | Self::RunEnded { .. }
            | Self::RunReopened { .. }
            | Self::RunDismissed { .. } => true,
        }
    }

    /// The stored form, of version [`EVENT_VERSION`].
    pub fn encode(&self) -> Result<String, EventError> {
        serde_json::to_string(self)
            .map_err(|e| EventError::Damaged { version: EVENT_VERSION, why: e.to_string() })
    }

    /// Reads the stored form of `version`.
    pub fn decode(version: u32, body: &str) -> Result<Self, EventError> {
        match version {
            EVENT_VERSION => serde_json::from_str(body)
                .map_err(|e| EventError::Damaged { version, why: e.to_string() }),
            newer if newer > EVENT_VERSION => Err(EventError::Newer(newer)),
            _ => Err(EventError::Damaged { version, why: "there was no such version".into() }),
        }
    }
}

#[cfg(test)]
mod tests;
