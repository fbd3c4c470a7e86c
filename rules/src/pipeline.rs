//! The front end of pipelines: from YAML to checked steps with an order.
//!
//! ```text
//! text ──document──> nodes ──read──> Template ──order──> edges, bindings ──check──> Pipeline
//! ```
//!
//! [`load`] does all of it. Nothing here runs a step, reads a file, a clock or the environment: the
//! caller gives the text, answers for the files that it includes, and hands in the project's
//! defaults. The same text with the same answers gives the same [`Pipeline`], whose ids are dense
//! and follow the order of the file.
//!
//! A [`Pipeline`] is what a run is made of. For each [`Step`] of it `with` is complete: fields that
//! the file left out hold their defaults or what they are bound to, and whoever runs it evaluates
//! them with [`eval`] in a [`Scope`]. A field that has neither stands in [`Pipeline::missing`], and
//! then the step cannot run.

mod check;
mod complete;
pub mod definitions;
mod dialect;
mod document;
pub mod expression;
mod instances;
mod limits;
mod mask;
mod names;
mod order;
mod params;
mod read;
mod report;
mod schema;
mod show;
mod source;
mod starters;
mod steps_page;
pub mod template;

use std::collections::BTreeMap;

use maestro_core::event::Severity;

pub use check::GIT_FIELDS;
pub use definitions::default_names;
pub use dialect::{Imported, import};
pub use expression::{EvalError, Expr, ExprKind, Outcome, Scope, Type, Value, eval};
pub use instances::Instance;
pub use order::EdgeKind;
pub use params::Given;
pub use read::Includes;
pub use report::{Finding, Fix, apply_fixes};
pub use schema::schema;
pub use show::GraphForm;
pub use source::{Source, Sources, Span, Spanned};
pub use starters::{Question, STARTERS, Starter};
pub use steps_page::steps_page;
pub use template::{Step, Template};

use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};

/// The project's defaults, by names such as `llm.model`.
pub type Defaults = BTreeMap<String, Value>;

/// The number of a step: its place in [`Pipeline::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(u32);

impl StepId {
    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The place in the list of steps.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A step that follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The step that comes first.
    pub from: StepId,
    /// The step that follows.
    pub to: StepId,
    /// Why.
    pub kind: EdgeKind,
}

/// A field that was left out, and what it was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The step that left it out.
    pub step: StepId,
    /// The field.
    pub field: &'static str,
    /// The step that makes what it works on.
    pub maker: StepId,
    /// The output of that step.
    pub output: &'static str,
}

/// A field that nobody said anything about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The step, which may be one that runs after a failure.
    pub step: String,
    /// Its field.
    pub field: &'static str,
    /// The default of the project that would say it.
    pub key: &'static str,
}

/// A pipeline that can run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What it says as a whole; its steps are those below.
    pub template: Template,
    /// What follows what, sorted by the step that follows; free of circles.
    pub edges: Vec<Edge>,
    /// What was bound.
    pub bindings: Vec<Binding>,
    /// What must be said before a run.
    pub missing: Vec<Missing>,
    /// The texts, so that errors of a run can point at them.
    pub sources: Sources,
}

impl Pipeline {
    /// The steps, by their numbers.
    pub fn steps(&self) -> &[Step] {
        &self.template.steps
    }

    /// What includes give to params, as far as it needs nothing of a step: it can be checked
    /// before a run.
    pub fn given_early(&self) -> impl Iterator<Item = &Expr> {
        self.template.given.iter().filter(|value| value.steps().is_empty())
    }

    /// The steps with their numbers.
    pub fn indexed(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.template.steps.iter().enumerate().map(|(at, step)| (StepId::new(at), step))
    }

    /// A step by its number.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.template.steps.get(id.index())
    }

    /// A step by its name.
    pub fn find(&self, name: &str) -> Option<StepId> {
        let at = self.template.steps.iter().position(|step| step.id.value == name);
        at.map(StepId::new)
    }

    /// An error of a running pipeline, at its place.
    pub fn diagnose(&self, error: &EvalError) -> Diagnostic {
        let place = self.sources.location(error.span());
        let line = self.sources.line_of(error.span());
        Diagnostic::in_line(
            RuleError::new(Code::PipelineEvaluation, error.to_string()),
            place,
            line,
        )
    }
}

/// What came of a text.
#[derive(Debug)]
pub struct Checked {
    /// The pipeline; none where there are errors.
    pub pipeline: Option<Pipeline>,
    /// Errors, warnings and notes, in the order of their places.
    pub findings: Vec<Finding>,
    /// The texts that findings point at.
    pub sources: Sources,
}

impl Checked {
    /// Notes the steps that whoever asks cannot run; `cannot` says why not.
    pub fn note_steps(&mut self, cannot: &dyn Fn(&Step) -> Option<String>) {
        let Some(pipeline) = &self.pipeline else { return };
        let mut report = report::Report::default();
        for step in pipeline.template.all_steps() {
            if let Some(why) = cannot(step) {
                let message = format!("step `{}`: {why}", step.id.value);
                report.note(Code::PipelineUnbuilt, step.id.span, message);
            }
        }
        self.findings.extend(report.finish(&self.sources));
    }

    /// Whether something stands in the way of a run.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|found| found.diagnostic.severity == Severity::Error)
    }
}

/// Reads and checks the text of a file that messages call `name`.
///
/// `includes` gives the texts of files that it includes, by their paths below the workspace.
pub fn load(name: &str, text: &str, includes: &Includes<'_>, defaults: &Defaults) -> Checked {
    let mut loader = read::Loader::new(includes);
    let template = loader.load(name, text);
    let read::Loader { sources, mut report, .. } = loader;
    let pipeline = template.and_then(|mut template| {
        let missing = complete::complete(&mut template, defaults, &mut report);
        let names = names::Names::of(&template, &report);
        let found = order::order(&mut template, &names, &mut report);
        check::check(&template, &names, &sources, &mut report);
        order::cycles(&template.steps, &found.edges, &mut report);
        check::skipped_guards(&template.steps, &found.edges, &mut report);
        let order::Ordered { edges, bindings } = found;
        let pipeline = Pipeline { template, edges, bindings, missing, sources: sources.clone() };
        (report.errors() == 0).then_some(pipeline)
    });
    Checked { pipeline, findings: report.finish(&sources), sources }
}

#[cfg(test)]
mod tests;
