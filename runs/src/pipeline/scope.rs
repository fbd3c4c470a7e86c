//! What the expressions of one step see: only the steps that they name, so that a step of a long
//! pipeline costs no more than one of a short one.

use std::collections::{BTreeSet, HashMap};

use maestro_core::run::{Repeat, RunState, TaskId, Verdict};
use maestro_rules::pipeline::template::Step;
use maestro_rules::pipeline::{Expr, Outcome, Pipeline, Scope};
use serde_json::{Map, Value, json};

use super::{Compiled, RunContext};

/// What a scope is made of besides the fold.
pub(super) struct Known<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) compiled: &'a Compiled,
    pub(super) context: &'a RunContext,
}

/// The scope of `expressions` as they stand at a step; without the item of a task.
pub(super) fn of_step<'a>(
    state: &RunState,
    known: &Known<'_>,
    expressions: impl Iterator<Item = &'a Expr>,
) -> Scope {
    let names: BTreeSet<&str> =
        expressions.flat_map(|expr| expr.steps()).map(|name| name.value.as_str()).collect();
    let mut steps = HashMap::new();
    for name in names {
        if let Some(found) = of(state, known, name) {
            steps.insert(name.to_owned(), found);
        }
    }
    let context = known.context;
    Scope {
        params: Value::Object(state.created.params.clone().into_iter().collect()),
        git: context.git(),
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

/// A step that has ended, as expressions see it: `status` and `outputs`. Of a step with several
/// tasks each output is a list in order of the items, with nothing for a task that gave none.
fn of(state: &RunState, known: &Known<'_>, name: &str) -> Option<Value> {
    let index = known.compiled.find(name)?;
    let (plan, step_state) = state.step(index)?;
    let status = match step_state.verdict()? {
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::Skipped | Verdict::NotReached => "skipped",
        Verdict::Cancelled => "cancelled",
    };
    let all = state.successes(index);
    let outputs: Map<String, Value> = match plan.repeat {
        Repeat::ForEach { .. } => {
            let step = known.compiled.origin(index)?.step(known.pipeline)?;
            let of_kind = step.uses.outputs().iter().map(|output| output.name);
            let declared = step.outputs.iter().map(|output| output.name.value.as_str());
            let each = |name: &str| {
                let values = all.iter().map(|success| success.as_ref()?.outputs.get(name).cloned());
                (name.to_owned(), values.map(Option::unwrap_or_default).collect())
            };
            of_kind.chain(declared).map(each).collect()
        }
        Repeat::Once | Repeat::Until { .. } => {
            let last = all.into_iter().next().flatten();
            last.into_iter().flat_map(|success| success.outputs.clone()).collect()
        }
    };
    Some(json!({"status": status, "outputs": outputs}))
}
