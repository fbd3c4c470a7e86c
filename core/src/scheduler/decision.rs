//! What clients and workers are to be told.

use super::command::Action;
use super::reasons::Rejection;
use super::{ExecutionId, LeaseId, OperationId, WorkerId};

/// Something to tell a client or a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A worker is to run an action.
    Assigned(Assignment),
    /// A worker is to stop what it does for a lease, and to forget it.
    Revoked {
        /// The lease.
        lease: LeaseId,
        /// Who holds it.
        worker: WorkerId,
    },
    /// A worker is not known (any more): it is to stop all that it does, and to join again.
    Dismissed {
        /// Who.
        worker: WorkerId,
    },
    /// A worker that drains has nothing to do any more.
    Drained {
        /// Who.
        worker: WorkerId,
    },
    /// An operation is in another stage. Stages may go back.
    Staged {
        /// The operation.
        operation: OperationId,
        /// Where it is.
        stage: Stage,
    },
    /// An operation has ended. Comes once for each.
    Ended {
        /// The operation.
        operation: OperationId,
        /// Why.
        ending: Ending,
    },
}

/// One attempt of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The fencing token of the attempt.
    pub lease: LeaseId,
    /// Who is to run it.
    pub worker: WorkerId,
    /// The execution.
    pub execution: ExecutionId,
    /// What is to be run.
    pub action: Action,
    /// The devices that it may use, by their places in the worker's offer.
    pub gpus: Vec<u32>,
    /// How many attempts there were before.
    pub attempts_before: u32,
}

/// Where an operation that has not ended is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Executing,
}

/// Why an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The worker gave a result under this lease.
    Result(LeaseId),
    /// Its client gave it up, or did not come back.
    Cancelled,
    /// It cannot be run.
    Rejected(Rejection),
    /// The worker did not stop it when its time was up.
    Overran,
    /// Workers were lost or at fault, as often as is tried.
    Faulted {
        /// Number of attempts.
        attempts: u32,
    },
}
