//! What drivers and people ask of a run, and why they may be refused.

use std::collections::BTreeMap;

use serde_json::Value;

use super::approval::{ApprovalRequest, Principal};
use super::budget::{Amount, Notice};
use super::event::{Item, Owner, Resolution, Ruling, Success};
use super::failure::Failure;
use super::plan::{PlanError, StepIndex};
use super::task::TaskId;

/// A wish. The driver's commands report what it did for [`Work`](super::Work); others are people's.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Makes a process its driver.
    Own {
        /// Who.
        owner: Owner,
        /// The owner before has not let go.
        take_over: bool,
    },
    /// The tasks of a step whose turn has come.
    Expand {
        /// Which.
        step: StepIndex,
        /// Its items.
        items: Vec<Item>,
    },
    /// Its condition does not hold.
    Skip {
        /// Which.
        step: StepIndex,
    },
    /// It could not be evaluated.
    FailStep {
        /// Which.
        step: StepIndex,
        /// Why.
        failure: Failure,
    },
    /// Begins an attempt of pure or recorded work.
    Begin {
        /// Which.
        task: TaskId,
        /// The most that it can cost.
        reserve: Option<Amount>,
    },
    /// Tells people about a budget that many runs share; what they were told is not told again.
    Tell {
        /// What.
        notices: Vec<Notice>,
    },
    /// A task, or the effect that it is, succeeded.
    Succeed {
        /// Which.
        task: TaskId,
        /// What it gave.
        success: Success,
        /// The condition of its `until` holds; `true` where there is none.
        done: bool,
    },
    /// A task failed; of an effect: the far side certainly did nothing.
    Fail {
        /// Which.
        task: TaskId,
        /// Why.
        failure: Failure,
        /// What it cost.
        spent: Amount,
    },
    /// Policy was asked; both are journalled at once, or neither.
    Ruled {
        /// What it said.
        rulings: Vec<Ruling>,
        /// What was done on it; nothing where somebody was only refused.
        then: Option<Box<Command>>,
    },
    /// An effect is about to be sent.
    Intend {
        /// Which.
        task: TaskId,
        /// The exact request.
        request: String,
        /// Gates, scans and signatures before it that failed or were skipped, and that policy lets
        /// it pass all the same.
        past: Vec<StepIndex>,
        /// The policy decision.
        decision: Option<Value>,
    },
    /// Policy lets an effect pass once more people have approved: the gate before it asks them.
    WantApprovals {
        /// Which effect.
        task: TaskId,
        /// How many in all.
        approvals: u32,
        /// Why policy does not let it pass now.
        failure: Failure,
    },
    /// The approvals that an effect waited for may hold no more for its request.
    VoidStale {
        /// Which effect.
        task: TaskId,
        /// The exact request.
        request: String,
    },
    /// Whether an effect arrived is not known.
    Unsettle {
        /// Which.
        task: TaskId,
        /// What went wrong.
        failure: Failure,
    },
    /// Only a person can find out whether an effect arrived.
    Park {
        /// Which.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// A person found out.
    Resolve {
        /// Which.
        task: TaskId,
        /// What they decided.
        resolution: Resolution,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// A gate is to ask people.
    Ask {
        /// Which.
        task: TaskId,
        /// What.
        request: ApprovalRequest,
    },
    /// Somebody agrees.
    Approve {
        /// To which gate.
        task: TaskId,
        /// To what, as they saw it.
        subject: String,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// Somebody refuses.
    Reject {
        /// Which gate.
        task: TaskId,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// Somebody takes their approval back.
    Revoke {
        /// From which gate.
        task: TaskId,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// The time of a gate has passed.
    Expire {
        /// Which.
        task: TaskId,
    },
    /// Stops the run.
    Cancel {
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// All steps have ended.
    End,
    /// Goes on after the end.
    Reopen {
        /// From this step on; without it, with what did not succeed.
        from: Option<StepIndex>,
        /// Inputs that replace those of the template, by the id of the step.
        inputs: BTreeMap<String, Value>,
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
    /// Takes a run that failed off the dead-letter queue.
    Dismiss {
        /// Who.
        by: Principal,
        /// Why.
        reason: String,
    },
}

/// Why a command is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There is no such run, or it exists already.
    #[error("{0}")]
    Run(String),
    /// The plan of a new run is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// The run has not ended.
    #[error("the run has not ended")]
    NotEnded,
    /// There is no such step or task.
    #[error("there is no {0}")]
    Unknown(String),
    /// The task is in another state.
    #[error("`{task}` is {is}, so it cannot {wanted}")]
    State {
        /// Which.
        task: String,
        /// Its state.
        is: &'static str,
        /// What was asked.
        wanted: &'static str,
    },
    /// A bound is passed.
    #[error("{what}: {count}, and at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: String,
        /// How many.
        count: u64,
        /// The bound.
        max: u64,
    },
    /// Whoever started a run does not approve it.
    #[error("`{0}` started the run, and whoever starts a run does not approve it")]
    Initiator(String),
    /// Whoever decides what a run does does not approve it.
    #[error("`{0}` replaced inputs of the run, and whoever does that does not approve it")]
    Author(String),
    /// The principal has none of the roles.
    #[error("`{who}` has none of the roles {}", roles.join(", "))]
    Role {
        /// Who.
        who: String,
        /// Which are needed.
        roles: Vec<String>,
    },
    /// One principal counts once.
    #[error("`{0}` has approved already, and each person counts once")]
    ApprovedAlready(String),
    /// There is nothing to take back.
    #[error("`{0}` has not approved")]
    NotApproved(String),
    /// What is approved is not what was shown.
    #[error("what waits for approval is `{is}`, and `{given}` was approved")]
    ApprovalChanged {
        /// The present subject.
        is: String,
        /// The one that was given.
        given: String,
    },
    /// The time to approve is over.
    #[error("the time to approve ended")]
    Expired,
    /// Something was done on this approval.
    #[error("`{0}` was started on this approval, so it cannot be taken back")]
    TooLate(String),
}
