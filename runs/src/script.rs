//! What a template means to a run: its expressions, evaluated over the fold.

use std::collections::BTreeMap;

use maestro_core::run::event::{Item, Success};
use maestro_core::run::{ApprovalRequest, Failure, RunState, StepIndex, TaskId};
use serde_json::Value;

/// What evaluating a step gave, once its turn had come.
#[derive(Clone, Debug, PartialEq)]
pub enum Expansion {
    /// Its condition does not hold.
    Skip,
    /// Its tasks.
    Items(Vec<Item>),
}

/// The environment that a step acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Neither the step nor the run names one.
    Nowhere,
    /// This one.
    Named(String),
    /// One that cannot be told yet.
    Unknown,
}

/// The template of a run: evaluates its expressions over the fold. Pure.
pub trait Script: Send + Sync {
    /// Condition and items of a step whose turn has come.
    fn expand(&self, state: &RunState, step: StepIndex) -> Result<Expansion, Failure>;

    /// The inputs of a task: what the template says, and what people have put in its place.
    fn inputs(&self, state: &RunState, task: TaskId) -> Result<Value, Failure>;

    /// Where a step acts, as far as it can be told now: its own `env`, else that of the run.
    fn place(&self, state: &RunState, step: StepIndex) -> Place;

    /// Completes what a task gave with the outputs that the template declares, and says whether the
    /// condition of its `until` holds; `true` where there is none.
    fn finish(
        &self,
        state: &RunState,
        task: TaskId,
        success: Success,
    ) -> Result<(Success, bool), Failure>;

    /// What a gate asks people to agree to. `requests` has the requests of the effects behind it
    /// that can be rendered now.
    fn approval(
        &self,
        state: &RunState,
        task: TaskId,
        requests: &BTreeMap<StepIndex, String>,
        now_ms: u64,
    ) -> ApprovalRequest;
}
