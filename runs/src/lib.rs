//! Durable runs: the journal, and the driver that does what the fold says.
//!
//! The rules of a run are in `maestro_core::run`; this crate keeps its events ([`journal`]) and
//! acts on them ([`driver`]). Killing the process at any line and starting again gives the same
//! end (invariant 7 of docs/ARCHITECTURE.md), which `runs/tests/kill.rs` shows by enumeration.
//!
//! Before it acts it asks policy ([`policy`]): at the start of a run and of each step, before an
//! effect is sent, and when somebody speaks at a gate.
//!
//! What calls cost is taken from the ledger of a tenant ([`ledger`]), which many runs share.
//!
//! Where to start reading: [`journal`] says what is durable when, [`driver`] how a run advances,
//! `maestro_executor::step` what a step must implement.

pub mod checkpoint;
mod database;
pub mod driver;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod pipeline;
pub mod policy;
pub mod script;

pub use checkpoint::{Checkpoints, NoCheckpoints, Point};
pub use driver::{DriveError, Driver, DriverOptions};
pub use journal::{Append, Journal, JournalError, RunSummary};
pub use lease::{Lease, LeaseError, Seat};
pub use script::{Expansion, Place, Script};
