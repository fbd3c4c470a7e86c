//! The state machine of a durable run: a pipeline that acts on the world, and survives anything.
//!
//! This module decides and never acts: it reads no clock, calls nobody, and is not async.
//! A run is an append-only list of [`Event`]s, its *journal*; everything else that is known about
//! a run is a fold over them, [`RunState`].
//!
//! ```text
//!            ┌────────────── journal (runs/) ◄─────────────┐
//!            │ events                                       │ append
//!            ▼                                              │
//!   RunState::apply ──► RunState ──► agenda: Work ──► driver does it ──► Command ──► decide
//!                          ▲                          (runs/)                          │
//!                          └───────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`RunState::agenda`] says what is to be done now. It depends on the fold alone, so a process
//!   that dies at any line, and another one that reads the journal, want the same things.
//! - A driver does it and reports with a [`Command`]; so does a person who approves or cancels.
//! - [`decide`] turns a command into events or refuses it. It never changes the state.
//! - [`RunState::apply`] is the only function that changes the state, and never refuses: what is in
//!   the journal has happened. An event that contradicts the state is an [`ApplyError`], which
//!   means that the journal was damaged or written by another program.
//!
//! # What happens at a crash
//!
//! | class of the step | between "began" and its end | what the next owner does |
//! |---|---|---|
//! | pure, recorded | nothing outside has happened that matters | runs it again, from the cache where it got there; a reservation without an end counts as spent |
//! | effect, before its intent | nothing was sent | renders the request anew |
//! | effect, after its intent | the request may have been sent | sends *those bytes* again with the same key, as its [`FarSide`] allows; or parks it for a person |
//! | gate | approvals are events | asks nobody twice |
//!
//! # Words
//!
//! A *step* is what the template declares. A *task* is one run of a step: `foreach` gives a step
//! a task for each item, `until` one for each round. An *attempt* is one try of a task.
//! The *generation* of an effect grows when a person has it done once more, and only then;
//! the idempotency key of an effect is a hash of run, task and generation ([`idempotency_key`]).
//!
//! # Example
//!
//! A chain `build → deploy`, killed after the intent of `deploy` was written:
//!
//! ```text
//! 1 run-created    2 owned (epoch 1)    3 task-began build    4 task-succeeded build
//! 5 effect-intended deploy, key k       †
//! 6 owned (epoch 2)                     the fold puts deploy on the agenda: Send, not first
//!                                       driver: PUT … Idempotency-Key: k → 200
//! 7 task-succeeded deploy               8 run-ended succeeded
//! ```

pub mod agenda;
mod apply;
pub mod approval;
pub mod budget;
pub mod command;
mod decide;
pub mod event;
pub mod failure;
#[cfg(test)]
mod fixture;
mod gates;
pub mod plan;
pub mod state;
pub mod task;
#[cfg(test)]
mod tests;
mod turns;

pub use agenda::{Agenda, Work};
pub use approval::{Approval, ApprovalRequest, GateState, Guarded, Principal};
pub use budget::{Amount, Cap, Ledger, Notice, Spending};
pub use command::{Command, Refusal};
pub use decide::{create, decide, request_digest, stale_approval};
pub use event::{Entry, Event, EventError, Item, Owner, Resolution, Ruling, RunCreated, Success};
pub use failure::{Failure, FailureClass, Retry};
pub use plan::{FarSide, Gate, Plan, PlanError, Repeat, StepIndex, StepKind, StepPlan, Trigger};
pub use state::{
    ApplyError, Intent, Phase, RunState, RunStatus, StepState, TaskState, TaskStatus, Verdict,
};
pub use task::{RunId, TaskId, idempotency_key};
