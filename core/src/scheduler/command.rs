//! What clients, workers and the clock tell the scheduler.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::requirements::{Offer, Requirements};
use super::{LeaseId, OperationId, WorkerId};
use crate::digest::Digest;

/// Something that happened. What names an operation, a worker or a lease that is not known (any
/// more) changes nothing.
#[derive(Clone, Debug)]
pub enum Command {
    /// A client wants an action to be run, and waits for it.
    Submit(Submission),
    /// A client waits for an operation once more.
    Attach(OperationId),
    /// A client no longer waits for an operation: it may come back, for `ABANDONED_MS`.
    Detach(OperationId),
    /// A client gives an operation up.
    Cancel(OperationId),
    /// A worker is there, for the first time or after its connection was lost.
    Join {
        /// Who.
        worker: WorkerId,
        /// What it has.
        offer: Offer,
        /// The models that it has loaded.
        models: BTreeSet<String>,
        /// The leases that it holds from before.
        holds: BTreeSet<LeaseId>,
    },
    /// A worker is alive.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// The leases that it holds, also those whose end it has reported in vain so far.
        holds: BTreeSet<LeaseId>,
        /// The models that it has loaded.
        models: BTreeSet<String>,
    },
    /// A worker wants no more work, and ends when it has none.
    Drain(WorkerId),
    /// A worker has ended.
    Leave(WorkerId),
    /// A worker has done with a lease.
    Finished {
        /// Who.
        worker: WorkerId,
        /// What it was about.
        lease: LeaseId,
        /// How it went.
        outcome: Outcome,
    },
    /// Time has passed. Comes at least every `HEARTBEAT_MS`.
    Tick,
}

/// An action that a client wants to be run.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The operation that the client waits for.
    pub operation: OperationId,
    /// Who pays.
    pub tenant: Arc<str>,
    /// The build that it is part of.
    pub invocation: Arc<str>,
    /// What is to be run.
    pub action: Action,
    /// What it needs.
    pub requirements: Requirements,
    /// What is lower comes sooner.
    pub priority: i32,
    /// How long the action may run, in milliseconds.
    pub timeout_ms: u64,
    /// Whether a run of the same action, for whomever, will do.
    pub merge: bool,
}

/// An action of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// Name of the instance.
    pub instance: Arc<str>,
    /// Digest of the Action message.
    pub digest: Digest,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a result, good or bad: it will not be tried again.
    Result,
    /// The worker could not do its part; another may.
    Fault,
}
