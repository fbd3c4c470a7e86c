//! Fills in what a step leaves out: defaults of its kind, and those of the project.
//!
//! What is bound to another step is found by [`super::order`], since it depends on what stands
//! above. Steps that run after a failure are bound to nothing: what they work on must be named.

use super::definitions::{FieldDefinition, FieldRule, Presence};
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
            Presence::Project(key) => match defaults.get(key) {
                Some(value) => put(step, field.name, value.clone(), report),
                None => unknown.push((field.name, key)),
            },
            Presence::Required => {
                let message = format!("`{}` needs `{}`", step.uses.name(), field.name);
                let hint = format!("`{}` is {}", field.name, field.kind.describe());
                report.error(Code::PipelineMissing, step.id.span, message).hint(hint);
            }
            Presence::Default(json) => {
                let value = serde_json::from_str(json).unwrap_or(Value::Null);
                put(step, field.name, value, report);
            }
            Presence::Optional
            | Presence::ProjectIfAny(_)
            | Presence::Bound(_)
            | Presence::BoundIfAny(_) => {}
        }
    }
    let holding = holding(step);
    for field in left_out(step) {
        let excluded = || holding.iter().any(|rule| rule.excludes.contains(&field.name));
        if let Presence::ProjectIfAny(key) = field.presence
            && let Some(value) = defaults.get(key).filter(|_| !excluded())
        {
            put(step, field.name, value.clone(), report);
        }
    }
    ruled(step, &holding, &mut unknown, report);
    note_missing(step, &unknown, report);
    let left = unknown.into_iter();
    missing.extend(left.map(|(field, key)| Missing { step: step.id.value.clone(), field, key }));
}

/// The rules between its fields that hold for a step, as far as its values are known.
fn holding(step: &Step) -> Vec<&'static FieldRule> {
    let Uses::Step(definition) = &step.uses else { return Vec::new() };
    let is = |field: &str, values: &[&str]| {
        let known = step.argument(field).and_then(Expr::known);
        known.is_some_and(|known| values.contains(&known.to_string().as_str()))
    };
    let holds = |rule: &&FieldRule| rule.when.iter().all(|(field, values)| is(field, values));
    definition.rules.iter().filter(holds).collect()
}

/// Tells of fields that rules ask for and that are not there, and of those that mean nothing.
fn ruled(
    step: &Step,
    holding: &[&'static FieldRule],
    unknown: &mut Vec<(&'static str, &'static str)>,
    report: &mut Report,
) {
    let uses = step.uses.name();
    for rule in holding {
        let when = rule.when.iter().map(|(field, _)| {
            let value = step.argument(field).and_then(Expr::known).unwrap_or_default();
            format!("`{field}` is `{}`", value.as_str().map_or(value.to_string(), str::to_owned))
        });
        let when = when.collect::<Vec<_>>().join(" and ");
        for field in left_out(step).into_iter().filter(|field| rule.needs.contains(&field.name)) {
            match field.presence {
                Presence::ProjectIfAny(key) => unknown.push((field.name, key)),
                _ => {
                    let message = format!("`{uses}` needs `{}` where {when}", field.name);
                    let hint = format!("`{}` is {}", field.name, field.kind.describe());
                    report.error(Code::PipelineMissing, step.id.span, message).hint(hint);
                }
            }
        }
        for (name, _) in &step.with {
            if rule.excludes.contains(&name.value.as_str()) {
                let message = format!("`{}` of `{uses}` means nothing where {when}", name.value);
                report.error(Code::PipelineField, name.span, message).hint("leave it out");
            }
        }
    }
}

fn put(step: &mut Step, field: &str, value: Value, report: &mut Report) {
    let span = step.id.span;
    report.shared.insert(span);
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
