//! What is wrong with the steps of a template taken together: their number and their names.

use std::collections::HashMap;

use maestro_core::limits::{RUN_GUARDS_MAX, RUN_STEPS_MAX};

use crate::error::Code;
use crate::pipeline::definitions::{EVIDENCE, GATE};
use crate::pipeline::limits::STEPS_MAX;
use crate::pipeline::report::Report;
use crate::pipeline::source::{Span, Spanned};
use crate::pipeline::template::{Step, Template};

/// Tells of more than a run takes: gates of steps and steps that are called count as well.
pub(super) fn bounds(template: &Template, report: &mut Report) {
    if template.steps.len() > STEPS_MAX {
        return;
    }
    let (mut steps, mut guards) = (0, 0);
    for step in template.all_steps() {
        let approval = usize::from(step.approval.is_some());
        (steps, guards) = (steps + 1 + approval, guards + usize::from(is_guard(step)) + approval);
        if guards > RUN_GUARDS_MAX {
            let message = format!("a run has up to {RUN_GUARDS_MAX} gates, scans and signatures");
            report
                .error(Code::PipelineLimit, step.id.span, message)
                .hint("one gate can guard many effects");
            return;
        }
        if steps > RUN_STEPS_MAX {
            let message = format!(
                "a run has up to {RUN_STEPS_MAX} steps, with their gates and the steps that they call"
            );
            report
                .error(Code::PipelineLimit, step.id.span, message)
                .hint("steps that differ in a value only are one, with `foreach`");
            return;
        }
    }
}

/// Whether the effects behind a step rely on it.
pub(super) fn is_guard(step: &Step) -> bool {
    let uses = step.uses.name();
    uses == GATE || EVIDENCE.contains(&uses.as_str())
}

/// Tells of names that two steps have.
pub(super) fn duplicates(template: &Template, report: &mut Report) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let handlers = |step: &'_ Step| -> Vec<Spanned<String>> {
        step.on_failure.iter().chain(&step.on_cancel).map(|handler| handler.id.clone()).collect()
    };
    let inner: Vec<Spanned<String>> = template.steps.iter().flat_map(handlers).collect();
    let ends = template.on_failure.iter().chain(&template.on_cancel).map(|step| &step.id);
    for id in template.steps.iter().map(|step| &step.id).chain(ends).chain(&inner) {
        if let Some(first) = seen.insert(&id.value, id.span) {
            report
                .error(
                    Code::PipelineDuplicate,
                    id.span,
                    format!("two steps are called `{}`", id.value),
                )
                .see(first, "the other stands here");
            seen.insert(&id.value, first);
        }
    }
}
