//! What the expressions of one step see: only the steps that they name, so that a step of a long
//! pipeline costs no more than one of a short one.

use std::collections::{BTreeSet, HashMap};

use maestro_core::run::{Repeat, RunState, StepIndex, TaskId, Verdict};
use maestro_rules::pipeline::template::Step;
use maestro_rules::pipeline::{Expr, Outcome, Scope};
use serde_json::{Map, Value, json};

use super::RunContext;

/// The scope of `expressions` as they stand at `step`; without the item of a task.
pub(super) fn of_step<'a>(
    state: &RunState,
    context: &RunContext,
    expressions: impl Iterator<Item = &'a Expr>,
) -> Scope {
    let names: BTreeSet<&str> =
        expressions.flat_map(|expr| expr.steps()).map(|name| name.value.as_str()).collect();
    let mut steps = HashMap::new();
    for name in names {
        if let Some(found) = state.plan().find(name).and_then(|index| of(state, index)) {
            steps.insert(name.to_owned(), found);
        }
    }
    Scope {
        params: Value::Object(state.created.params.clone().into_iter().collect()),
        git: context.git.clone(),
        event: context.event.clone(),
        run: context.run.clone(),
        steps,
        changed_files: context.changed_files.clone(),
        outcome: Outcome { failed: state.has_failed(), cancelled: state.cancelled.is_some() },
        ..Scope::default()
    }
}

/// The same with the item and round of `task`.
pub(super) fn of_task(mut scope: Scope, state: &RunState, task: TaskId, step: &Step) -> Scope {
    let item = state.step(task.step).and_then(|(_, s)| s.items.get(task.item as usize));
    let value = item.map(|item| item.value.clone()).unwrap_or_default();
    match step.repeat {
        maestro_rules::pipeline::template::Repeat::Matrix { .. } => scope.matrix = value,
        _ => scope.item = value,
    }
    scope.index = match state.plan().step(task.step).map(|plan| plan.repeat) {
        Some(Repeat::Until { .. }) => u64::from(task.round),
        _ => u64::from(task.item),
    };
    scope
}

/// A step that has ended, as expressions see it: `status` and `outputs`. Those of a step with
/// several tasks are a list, in order of the items.
fn of(state: &RunState, step: StepIndex) -> Option<Value> {
    let (plan, step_state) = state.step(step)?;
    let status = match step_state.verdict()? {
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::Skipped | Verdict::NotReached => "skipped",
        Verdict::Cancelled => "cancelled",
    };
    let outputs = |success: Option<&maestro_core::run::Success>| {
        let fields: Map<String, Value> = success
            .map(|success| success.outputs.clone().into_iter().collect())
            .unwrap_or_default();
        Value::Object(fields)
    };
    let all = state.successes(step);
    let outputs = match plan.repeat {
        Repeat::ForEach { .. } => Value::Array(all.into_iter().map(outputs).collect()),
        Repeat::Once | Repeat::Until { .. } => outputs(all.into_iter().next().flatten()),
    };
    Some(json!({"status": status, "outputs": outputs}))
}
