//! Fills in what a step leaves out: defaults of its kind, and those of the project.
//!
//! What is bound to another step is found by [`super::order`], since it depends on what stands
//! above. Steps that run after a failure are bound to nothing: what they work on must be named.

use super::definitions::{FieldDefinition, Presence};
use super::expression::{Expr, Value};
use super::report::Report;
use super::source::Spanned;
use super::template::{Step, Template, Uses};
use super::{Defaults, Missing};
use crate::error::Code;

/// Fills in the fields of all steps that need nothing but defaults; tells what nobody said.
pub(crate) fn complete(
    template: &mut Template,
    defaults: &Defaults,
    report: &mut Report,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    let Template { steps, on_failure, on_cancel, .. } = template;
    for step in steps.iter_mut() {
        fill(step, defaults, &mut missing, report);
        for handler in step.on_failure.iter_mut().chain(&mut step.on_cancel) {
            fill(handler, defaults, &mut missing, report);
            unbound(handler, report);
        }
    }
    for handler in on_failure.iter_mut().chain(on_cancel) {
        fill(handler, defaults, &mut missing, report);
        unbound(handler, report);
    }
    missing
}

/// Fields that a step leaves out.
pub(crate) fn left_out(step: &Step) -> Vec<&'static FieldDefinition> {
    match &step.uses {
        Uses::Step(definition) => {
            let fields = definition.fields.iter();
            fields.filter(|field| step.argument(field.name).is_none()).collect()
        }
        Uses::Target(_) => Vec::new(),
    }
}

fn fill(step: &mut Step, defaults: &Defaults, missing: &mut Vec<Missing>, report: &mut Report) {
    let mut unknown = Vec::new();
    for field in left_out(step) {
        match field.presence {
            Presence::Project(key) | Presence::ProjectIfAny(key) => match defaults.get(key) {
                Some(value) => put(step, field.name, value.clone()),
                None if matches!(field.presence, Presence::Project(_)) => {
                    missing.push(Missing { step: step.id.value.clone(), field: field.name, key });
                    unknown.push((field.name, key));
                }
                None => {}
            },
            Presence::Required => {
                let message = format!("`{}` needs `{}`", step.uses.name(), field.name);
                let hint = format!("`{}` is {}", field.name, field.kind.describe());
                report.error(Code::PipelineMissing, step.id.span, message).hint(hint);
            }
            Presence::Default(json) => {
                let value = serde_json::from_str(json).unwrap_or(Value::Null);
                put(step, field.name, value);
            }
            Presence::Optional | Presence::Bound(_) | Presence::BoundIfAny(_) => {}
        }
    }
    note_missing(step, &unknown, report);
}

fn put(step: &mut Step, field: &str, value: Value) {
    let span = step.id.span;
    step.with.push((Spanned::new(field.to_owned(), span), Expr::literal(value, span)));
}

fn note_missing(step: &Step, unknown: &[(&str, &str)], report: &mut Report) {
    if unknown.is_empty() {
        return;
    }
    let fields: Vec<&str> = unknown.iter().map(|(field, _)| *field).collect();
    let message = format!(
        "step `{}` leaves `{}` to the project's defaults, which do not say it",
        step.id.value,
        fields.join("`, `")
    );
    let draft = report.note(Code::PipelineDefault, step.id.span, message);
    for (_, key) in unknown {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        draft.hint(format!(
            "`{name} = …` in `[defaults.{table}]` of `maestro.toml` says it for all"
        ));
    }
}

/// Tells of a step that runs after a failure and does not say what it works on.
fn unbound(step: &Step, report: &mut Report) {
    for field in left_out(step) {
        if matches!(field.presence, Presence::Bound(_)) {
            let message = format!("`{}` of step `{}` must be named", field.name, step.id.value);
            report
                .error(Code::PipelineBinding, step.id.span, message)
                .hint("a step that runs after a failure is bound to nothing")
                .hint(format!("such as `{}: ${{{{ steps.build.outputs.image }}}}`", field.name));
        }
    }
}
