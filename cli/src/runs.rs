//! Pipelines at run time, wired: where their state lies, who does what, how they are shown.
//!
//! The rules of a run are in `maestro_core::run`, its driver in `maestro_runs`; here are the
//! folder of the state, the identity of whoever types, the steps that this binary can do, and the
//! text that people see.

pub mod build;
pub mod checkpoints;
pub mod command;
pub mod identity;
pub mod models;
pub mod policy;
pub mod registry;
pub mod secrets;
pub mod source;
pub mod start;
pub mod state;
pub mod view;

use std::time::{SystemTime, UNIX_EPOCH};

use maestro_runs::driver::Clock;

/// The clock of this machine.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
