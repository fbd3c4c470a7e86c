//! Evaluates the expressions of a template for its run.

use std::collections::BTreeMap;
use std::sync::Arc;

use maestro_core::record::canonical_json;
use maestro_core::run::event::{Item, Success};
use maestro_core::run::{
    ApprovalRequest, Failure, FailureClass, Guarded, RunState, StepIndex, StepKind, TaskId,
    request_digest,
};
use maestro_rules::pipeline::definitions::FieldKind;
use maestro_rules::pipeline::expression::{ExprKind, Type};
use maestro_rules::pipeline::template::{Output, Repeat, Step, Uses};
use maestro_rules::pipeline::{EvalError, Expr, Pipeline, Scope, eval};
use serde_json::{Map, Value, json};

use super::scope::{self, Known};
use super::{Compiled, Origin, RunContext};
use crate::script::{Expansion, Place, Script};

/// Runs that share it run so many at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they share.
    pub name: String,
    /// How many run at once.
    pub limit: u32,
    /// A new one cancels those that run, rather than waiting for them.
    pub cancel_running: bool,
}

/// The template of a run.
pub struct PipelineScript {
    pipeline: Arc<Pipeline>,
    compiled: Compiled,
    context: RunContext,
}

impl PipelineScript {
    /// The script of a pipeline that was compiled.
    pub fn new(pipeline: Arc<Pipeline>, compiled: Compiled, context: RunContext) -> Self {
        Self { pipeline, compiled, context }
    }

    /// What the run must not run beside, if its template says so.
    pub fn concurrency(&self, state: &RunState) -> Result<Option<Group>, Failure> {
        let Some(declared) = &self.pipeline.template.concurrency else { return Ok(None) };
        let scope = scope::of_step(state, &self.known(), std::iter::once(&declared.group));
        match self.eval(&declared.group, &scope)? {
            Value::String(name) => Ok(Some(Group {
                name,
                limit: declared.limit,
                cancel_running: declared.cancel_running,
            })),
            other => Err(user(format!("the group of `concurrency` is {}", Type::of(&other)))),
        }
    }

    fn known(&self) -> Known<'_> {
        let Self { pipeline, compiled, context } = self;
        Known { pipeline, compiled, context }
    }

    fn step(&self, index: StepIndex) -> Result<&Step, Failure> {
        let origin = self.compiled.origin(index);
        let step = origin.and_then(|origin| origin.step(&self.pipeline));
        step.ok_or_else(|| user("the template has no such step"))
    }

    fn scope(&self, state: &RunState, step: &Step) -> Scope {
        self.scope_of(state, step, |_| true)
    }

    /// The scope of a task. The list that its item is from is not there: each task of a long list
    /// would copy all of it.
    fn task_scope(&self, state: &RunState, task: TaskId, step: &Step) -> Scope {
        let until = matches!(step.repeat, Repeat::Until { .. });
        let scope = self.scope_of(state, step, |key| key != "if" && (key != "repeat" || until));
        scope::of_task(scope, state, task, step)
    }

    fn scope_of(&self, state: &RunState, step: &Step, keys: impl Fn(&str) -> bool) -> Scope {
        let own = step.expressions().filter(|(key, _)| keys(key)).map(|(_, expr)| expr);
        let env = self.pipeline.template.env.iter().map(|(_, expr)| expr);
        scope::of_step(state, &self.known(), own.chain(env))
    }

    fn eval(&self, expr: &Expr, scope: &Scope) -> Result<Value, Failure> {
        eval(expr, scope).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &EvalError) -> Failure {
        let found = self.pipeline.diagnose(error);
        let place = found.location.map(|place| format!("{place}: ")).unwrap_or_default();
        let page = format!("`maestro docs {}` says what it means", found.code);
        Failure { hints: vec![page], ..user(format!("{place}{}", found.message)) }
    }

    fn items(&self, step: &Step, scope: &Scope) -> Result<Vec<Item>, Failure> {
        let instances = step.repeat.instances(scope).map_err(|error| self.failure(&error))?;
        Ok(match &step.repeat {
            Repeat::Once | Repeat::Until { .. } => vec![Item::only()],
            Repeat::Each { .. } => instances.into_iter().map(|one| item(one.item)).collect(),
            Repeat::Matrix { .. } => instances.into_iter().map(|one| item(one.matrix)).collect(),
        })
    }

    /// The outputs that the template declares, taken from what the task gave.
    fn declared(&self, output: &Output, success: &Success) -> Result<Value, Failure> {
        let whole = Value::Object(success.outputs.clone().into_iter().collect());
        let name = &output.name.value;
        let found = output.of(&whole).ok_or_else(|| {
            let place = self.pipeline.sources.location(output.name.span);
            user(format!("{place}: the result has nothing where output `{name}` is taken from"))
        })?;
        let is = Type::of(found);
        if !is.fits(&output.kind) {
            let place = self.pipeline.sources.location(output.name.span);
            return Err(user(format!("{place}: output `{name}` is {}, not {is}", output.kind)));
        }
        Ok(found.clone())
    }
}

impl Script for PipelineScript {
    fn expand(&self, state: &RunState, index: StepIndex) -> Result<Expansion, Failure> {
        let step = self.step(index)?;
        let scope = self.scope(state, step);
        if let Some(condition) = &step.condition
            && self.eval(condition, &scope)? != Value::Bool(true)
        {
            return Ok(Expansion::Skip);
        }
        let items = self.items(step, &scope)?;
        Ok(match self.compiled.origin(index) {
            Some(Origin::ApprovalOf(_)) if items.is_empty() => Expansion::Skip,
            // One gate for all of them.
            Some(Origin::ApprovalOf(_)) => Expansion::Items(vec![Item::only()]),
            _ => Expansion::Items(items),
        })
    }

    fn inputs(&self, state: &RunState, task: TaskId) -> Result<Value, Failure> {
        let step = self.step(task.step)?;
        let scope = self.task_scope(state, task, step);
        let mut inputs = Map::new();
        let replaced = state.plan().step(task.step).and_then(|plan| state.inputs.get(&plan.id));
        let replaced = replaced.and_then(Value::as_object);
        let kept = |name: &str| replaced.is_none_or(|own| !own.contains_key(name));
        for (name, expr) in step.with.iter().filter(|(name, _)| kept(&name.value)) {
            let value = self.eval(expr, &scope)?;
            let value =
                if takes_steps(step, &name.value) { with_names(expr, value) } else { value };
            inputs.insert(name.value.clone(), value);
        }
        if matches!(&step.uses, Uses::Step(kind) if kind.name.starts_with("llm.")) {
            let label = format!("//:{}.{}", state.plan().template, step.id.value);
            inputs.insert("$label".into(), label.into());
            inputs.insert("$task".into(), state.name(task).into());
            inputs.insert("$run".into(), state.created.run.as_str().into());
        }
        let tells = matches!(&step.uses, Uses::Step(kind) if kind.name == "notify.webhook");
        if tells && inputs.get("body").is_none_or(Value::is_null) {
            inputs.insert("body".into(), summary(state, step));
        }
        if let Uses::Target(label) = &step.uses {
            inputs.insert("label".into(), label.to_string().into());
        }
        let env = self.pipeline.template.env.iter().chain(&step.env);
        let env = env.map(|(name, expr)| Ok((name.value.clone(), self.eval(expr, &scope)?)));
        let env: Map<String, Value> = env.collect::<Result<_, Failure>>()?;
        let takes_env = matches!(&step.uses, Uses::Step(kind) if kind.name == "run.command");
        if takes_env && !env.is_empty() {
            inputs.insert("$env".into(), Value::Object(env));
        }
        inputs.extend(replaced.cloned().into_iter().flatten());
        Ok(Value::Object(inputs))
    }

    fn place(&self, state: &RunState, index: StepIndex) -> Place {
        let Ok(step) = self.step(index) else { return Place::Unknown };
        match step.argument("env") {
            Some(env) => match self.eval(env, &self.scope(state, step)) {
                Ok(Value::String(name)) => Place::Named(name),
                _ => Place::Unknown,
            },
            None => match state.created.params.get("env") {
                Some(Value::String(name)) => Place::Named(name.clone()),
                _ => Place::Nowhere,
            },
        }
    }

    fn finish(
        &self,
        state: &RunState,
        task: TaskId,
        mut success: Success,
    ) -> Result<(Success, bool), Failure> {
        let step = self.step(task.step)?;
        for output in &step.outputs {
            let value = self.declared(output, &success)?;
            success.outputs.insert(output.name.value.clone(), value);
        }
        let Repeat::Until { condition, .. } = &step.repeat else {
            return Ok((success, true));
        };
        let mut scope = self.task_scope(state, task, step);
        let outputs: Map<String, Value> = success.outputs.clone().into_iter().collect();
        let own = json!({"status": "succeeded", "outputs": outputs});
        scope.steps.insert(step.id.value.clone(), own);
        let done = self.eval(condition, &scope)? == Value::Bool(true);
        Ok((success, done))
    }

    fn approval(
        &self,
        state: &RunState,
        task: TaskId,
        requests: &BTreeMap<StepIndex, String>,
        now_ms: u64,
    ) -> ApprovalRequest {
        let plan = state.plan();
        let behind = state.effects_behind(task.step);
        let guarded: Vec<Guarded> = behind
            .iter()
            .map(|step| Guarded {
                step: *step,
                request: requests.get(step).map(|request| request_digest(request)),
            })
            .collect();
        let mut summary = self.message(state, task);
        for step in &behind {
            let id = plan.step(*step).map_or("", |step| step.id.as_str());
            match requests.get(step) {
                Some(request) => summary.push(format!("{id}: {request}")),
                None => summary.push(format!("{id}: not known before the gate opens")),
            }
        }
        let artifacts: BTreeMap<String, &String> = state
            .tasks
            .iter()
            .flat_map(|(id, task)| task.success.iter().map(move |success| (*id, success)))
            .flat_map(|(id, success)| {
                success.artifacts.iter().map(move |(name, digest)| (id, name, digest))
            })
            .map(|(id, name, digest)| (format!("{}.{name}", state.name(id)), digest))
            .collect();
        let subject = json!({
            "run": state.created.run.as_str(),
            "gate": state.name(task),
            "template": state.created.template_digest,
            "params": state.created.params,
            "policy": state.created.policy,
            "guarded": guarded,
            "generations": behind
                .iter()
                .map(|step| state.generation(TaskId::first(*step)))
                .collect::<Vec<_>>(),
            "artifacts": artifacts,
            "evidence": self.evidence(state, task),
        });
        let bytes = canonical_json(&subject).unwrap_or_else(|_| subject.to_string().into_bytes());
        let subject = request_digest(&String::from_utf8_lossy(&bytes));
        let expires_ms = match plan.step(task.step).map(|step| &step.kind) {
            Some(StepKind::Gate(gate)) => gate.expires_ms,
            _ => 0,
        };
        ApprovalRequest {
            subject,
            guarded,
            summary,
            asked_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(expires_ms),
        }
    }
}

impl PipelineScript {
    /// What people are asked, in the template's words.
    fn message(&self, state: &RunState, task: TaskId) -> Vec<String> {
        let Ok(step) = self.step(task.step) else { return Vec::new() };
        let Some(message) = step.argument("message") else { return Vec::new() };
        let scope = self.task_scope(state, task, step);
        match self.eval(message, &scope) {
            Ok(Value::String(text)) => vec![text],
            Ok(other) => vec![other.to_string()],
            Err(failure) => vec![format!("`message` came to nothing: {}", failure.message)],
        }
    }

    /// The digests of how the steps ended that the gate stands behind or names, and of what they
    /// gave: who approves has seen these, and approves nothing else.
    fn evidence(&self, state: &RunState, task: TaskId) -> BTreeMap<String, String> {
        let plan = state.plan();
        let before = plan.step(task.step).into_iter().flat_map(|step| step.after.iter().copied());
        let named = self.step(task.step).ok().into_iter().flat_map(Step::expressions);
        let named = named.flat_map(|(_, expr)| expr.steps());
        let named = named.filter_map(|name| self.compiled.find(&name.value));
        let seen = before.chain(named).filter_map(|index| {
            let (plan, step) = state.step(index)?;
            let seen = json!({"verdict": step.verdict(), "gave": state.successes(index)});
            Some((plan.id.clone(), request_digest(&seen.to_string())))
        });
        seen.collect()
    }
}

/// Whether a field takes steps, rather than values that they gave.
fn takes_steps(step: &Step, field: &str) -> bool {
    let Uses::Step(definition) = &step.uses else { return false };
    definition.field(field).is_some_and(|field| field.kind == FieldKind::Steps)
}

/// Steps with their names beside their outputs.
fn with_names(expr: &Expr, value: Value) -> Value {
    let (ExprKind::List(items), Value::Array(steps)) = (&expr.kind, value) else {
        return Value::Array(Vec::new());
    };
    let named = items.iter().zip(steps).map(|(item, mut step)| {
        if let (Some(name), Value::Object(fields)) = (item.steps().first(), &mut step) {
            fields.insert("step".into(), name.value.clone().into());
        }
        step
    });
    named.collect()
}

/// What a message says of a run where its author says nothing.
fn summary(state: &RunState, step: &Step) -> Value {
    let status = match (&state.cancelled, state.has_failed()) {
        (Some(_), _) => "cancelled",
        (None, true) => "failed",
        (None, false) => "running",
    };
    json!({
        "run": state.created.run.as_str(),
        "template": state.plan().template,
        "step": step.id.value,
        "status": status,
    })
}

fn item(value: Value) -> Item {
    const LABEL_CHARS: usize = 60;
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let label = match &value {
        Value::Object(fields) => fields.values().map(word).collect::<Vec<_>>().join(","),
        other => word(other),
    };
    Item { label: label.chars().take(LABEL_CHARS).collect(), value }
}

fn user(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::User, message)
}
