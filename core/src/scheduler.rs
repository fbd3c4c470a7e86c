//! Which worker runs which action, and who waits for it: the scheduler of remote execution.
//!
//! A state machine that does no IO and reads no clock. [`Scheduler::apply`] takes a [`Command`] and
//! the time, changes the state, and answers with [`Decision`]s; whoever calls it tells clients and
//! workers. The same commands give the same decisions.
//!
//! # Who is who
//!
//! ```text
//! client ── operation ─┐
//! client ── operation ─┼─ execution ── lease ── worker
//! client ── operation ─┘
//! ```
//!
//! An **operation** is what one client waits for. An **execution** is one action that is to be run;
//! operations that ask for the same action share it. A **lease** is one attempt of an execution on
//! a worker, and its id is the fencing token: what a worker says of a lease that is no longer alive
//! counts for nothing, so that two attempts never give two results.
//!
//! # An execution
//!
//! | state | goes to | when |
//! |---|---|---|
//! | queued | leased | a worker has room, and nobody has a better right |
//! | queued | ended | the last operation leaves; no worker offers what it needs for too long |
//! | leased | ended | the worker reports a result; the last operation leaves; it overran |
//! | leased | queued | the worker is lost, leaves, or reports a fault of its own |
//! | leased | ended | as above, for the last time that is tried |
//!
//! # Order
//!
//! Tenants take turns, then priorities, then invocations, then age. The tenant that uses the
//! smallest share of the workers now goes first, where its share is that of the resource of which
//! it uses most; between equals, the one that was served least recently. Within a tenant a lower
//! priority goes first, whoever asks, because clients give one priority to a whole build. Then
//! invocations share like tenants.
//!
//! An operation that shares an execution stands in the queue in its own right. Whichever operation
//! is reached first starts the execution, for all of them, and the execution is charged to it.
//!
//! # Cost
//!
//! Executions with equal requirements form a **class**. A class is *open* while some worker may
//! have room for it, and closed once one was sought in vain; it opens again when a worker that
//! could run it gets room. So an execution that cannot be placed costs nothing until something
//! changes, however many are queued.
//!
//! An execution that is large, or choosy, could wait for ever while small ones take each bit of
//! room. When it has the best right, is passed over, and has waited for `RESERVE_AFTER_MS`, a
//! worker is *reserved* for its class and takes nothing else.
//!
//! # Example
//!
//! Two workers with two cores each. Tenant `a` submits three actions of one core: they run on the
//! first worker (two) and the second (one), because the fullest that has room is taken. Tenant `b`
//! submits two of one core: one runs, one waits. When one of `a` ends, that of `b` starts, even if
//! `a` had submitted more before. If the first worker is not heard of for `LEASE_MS`, its
//! executions are queued again, at the place that their age gives them.
//!
//! # What is not here
//!
//! The state does not outlive the process: a client whose operation is unknown after a restart
//! submits it again, as REAPI has it. Results, logs and blobs pass by; [`Scheduler::held`] says
//! whose inputs have to stay.

mod check;
mod command;
mod decision;
mod placing;
mod queue;
mod reasons;
mod requirements;
mod room;
mod state;
mod upkeep;
mod workers;

#[cfg(test)]
mod tests;

pub use command::{Action, Command, Outcome, Submission};
pub use decision::{Assignment, Decision, Ending, Stage};
pub use reasons::Rejection;
pub use requirements::{Demand, Gpu, Lack, Offer, Requirements};
pub use state::{Load, Scheduler};

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// What one client waits for. The caller chooses it, and never twice.
    OperationId
}
id! {
    /// An action that is to be run, for one operation or several.
    ExecutionId
}
id! {
    /// A process that runs actions. The caller chooses it, and never twice.
    WorkerId
}
id! {
    /// One attempt of an execution on a worker; never used twice, also not after a restart.
    LeaseId
}
