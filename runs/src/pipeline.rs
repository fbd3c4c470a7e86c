//! Pipelines as runs: a checked template becomes a plan, and answers for its expressions.
//!
//! | in the template | in the plan |
//! |---|---|
//! | a step, a label in `uses` | work, an effect or a gate, as its definition says |
//! | `approval` of a step | a gate of its own before it, called `STEP.approval` |
//! | `foreach`, `matrix` | tasks of one step, listed when its turn comes |
//! | `until` | rounds of one task |
//! | `on_failure`, `on_cancel` | steps that are called when the flow has ended |
//!
//! The plan is stored with the run, and so is the text of the template: another process compiles
//! it again to evaluate expressions. What it compiles to must be the stored plan; if a later
//! version of Maestro reads the text otherwise, the run is refused rather than changed.

mod part;
mod plan;
mod scope;
mod script;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use maestro_core::run::{Plan, PlanError, StepIndex};
use maestro_rules::pipeline::template::Step;
use maestro_rules::pipeline::{GIT_FIELDS, Pipeline, StepId};
use serde_json::{Map, Value};

pub use part::PartError;
pub use plan::{BUILD, unkept};
pub use script::{Group, PipelineScript};

/// What a run knows of the world from its beginning to its end.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunContext {
    /// The commit: `sha`, `branch`, …
    pub git: Value,
    /// What began the run: `name`, `payload`, …
    pub event: Value,
    /// The run: `id`, `template`, `actor`.
    pub run: Value,
    /// Files that the commit changes, below the workspace.
    pub changed_files: Vec<String>,
}

impl RunContext {
    /// The commit as expressions see it: what there is none of is an empty text.
    fn git(&self) -> Value {
        let mut fields: Map<String, Value> =
            GIT_FIELDS.iter().map(|name| ((*name).to_owned(), "".into())).collect();
        fields.extend(self.git.as_object().cloned().unwrap_or_default());
        Value::Object(fields)
    }
}

/// A template that cannot be made a plan.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Something must be known before the run and is not, or it is not allowed.
    #[error("{place}: {what}")]
    Unknown {
        /// Where, as `file:line:column`.
        place: String,
        /// What.
        what: String,
    },
    /// The plan is not one.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A plan, and which step of the template each of its steps is.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the run does.
    pub plan: Plan,
    pub(crate) origins: Vec<Origin>,
    /// The steps by their names.
    names: HashMap<String, StepIndex>,
}

/// Where a step of a plan comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A step of the flow.
    Step(StepId),
    /// The gate before a step that asks for approval.
    ApprovalOf(StepId),
    /// A step that a failure or cancellation calls: whose, which list, which place.
    Called { of: Option<StepId>, list: List, place: usize },
}

/// A list of steps that are called when the flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    OnFailure,
    OnCancel,
}

impl Origin {
    /// The step of the template.
    pub(crate) fn step<'a>(&self, pipeline: &'a Pipeline) -> Option<&'a Step> {
        let template = &pipeline.template;
        match self {
            Self::Step(id) | Self::ApprovalOf(id) => pipeline.step(*id),
            Self::Called { of: None, list: List::OnFailure, place } => {
                template.on_failure.get(*place)
            }
            Self::Called { of: None, list: List::OnCancel, place } => {
                template.on_cancel.get(*place)
            }
            Self::Called { of: Some(id), list, place } => {
                let step = pipeline.step(*id)?;
                match list {
                    List::OnFailure => step.on_failure.get(*place),
                    List::OnCancel => step.on_cancel.get(*place),
                }
            }
        }
    }
}

/// Makes a plan of a pipeline.
///
/// `params` are bound; `context` is what gates and limits may be computed from.
pub fn compile(
    pipeline: &Pipeline,
    params: &BTreeMap<String, Value>,
    context: &RunContext,
) -> Result<Compiled, CompileError> {
    let compiled = plan::compile(pipeline, params, context)?;
    compiled.plan.check()?;
    Ok(compiled)
}

impl Compiled {
    fn new(plan: Plan, origins: Vec<Origin>) -> Self {
        let names = plan.indexed().map(|(index, step)| (step.id.clone(), index)).collect();
        Self { plan, origins, names }
    }

    fn find(&self, name: &str) -> Option<StepIndex> {
        self.names.get(name).copied()
    }

    pub(crate) fn origin(&self, step: StepIndex) -> Option<&Origin> {
        self.origins.get(step.index())
    }
}
