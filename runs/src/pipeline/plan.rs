//! From a checked pipeline to the plan of a run.

use std::collections::BTreeMap;

use maestro_core::ActionClass;
use maestro_core::quantity::duration_ms;
use maestro_core::run::{
    Cap, FailureClass, FarSide, Gate, Plan, Repeat, Retry, StepIndex, StepKind, StepPlan, Trigger,
};
use maestro_rules::pipeline::definitions::{EVIDENCE, FarSide as Declared, GATE};
use maestro_rules::pipeline::expression::{ExprKind, Function, Operator};
use maestro_rules::pipeline::template::{
    self, Approval, Budget, FailureClass as Named, Repeat as Repeated, Resources, Step, Uses,
};
use maestro_rules::pipeline::{EvalError, Expr, Pipeline, Scope, StepId, eval};
use serde_json::Value;

use super::{CompileError, Compiled, List, Origin, RunContext};

/// What a step of `uses: //label` uses.
pub const BUILD: &str = "build";
/// How long people are waited for where nothing is said, in milliseconds.
const EXPIRES_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long a query of a command can be trusted, in milliseconds: as long as the run's author lets
/// it stand. A command has no memory of its own that could end.
const QUERY_WINDOW_MS: u64 = u64::MAX;

struct Compiler<'a> {
    pipeline: &'a Pipeline,
    scope: Scope,
    steps: Vec<StepPlan>,
    origins: Vec<Origin>,
    /// Where each step of the template stands in the plan.
    places: Vec<StepIndex>,
}

pub(super) fn compile(
    pipeline: &Pipeline,
    params: &BTreeMap<String, Value>,
    context: &RunContext,
) -> Result<Compiled, CompileError> {
    let scope = Scope {
        params: Value::Object(params.clone().into_iter().collect()),
        git: context.git(),
        event: context.event.clone(),
        run: context.run.clone(),
        changed_files: context.changed_files.clone(),
        ..Scope::default()
    };
    for given in pipeline.given_early() {
        if let Err(error @ EvalError::Param { .. }) = eval(given, &scope) {
            let place = pipeline.sources.location(error.span()).to_string();
            return Err(CompileError::Unknown { place, what: error.to_string() });
        }
    }
    let (steps, origins, places) = (Vec::new(), Vec::new(), Vec::new());
    let mut compiler = Compiler { pipeline, scope, steps, origins, places };
    compiler.flow()?;
    compiler.called()?;
    let Compiler { steps, origins, .. } = compiler;
    let template = &pipeline.template;
    let plan = Plan {
        template: template.name.value.clone(),
        steps,
        cap: cap(&template.budget),
        keep_going: false,
        timeout_ms: template.timeout_ms,
    };
    Ok(Compiled::new(plan, origins))
}

impl Compiler<'_> {
    fn flow(&mut self) -> Result<(), CompileError> {
        let pipeline = self.pipeline;
        for (id, step) in pipeline.indexed() {
            if let Some(approval) = &step.approval {
                let mut gate = self.approval(step, approval);
                gate.approves = u32::try_from(self.steps.len() + 1).ok().map(StepIndex);
                self.push(gate, Origin::ApprovalOf(id));
            }
            let plan = self.step(step, Trigger::Flow)?;
            let index = self.push(plan, Origin::Step(id));
            self.places.push(index);
        }
        for edge in &pipeline.edges {
            if let (Some(from), Some(to)) = (self.place(edge.from), self.place(edge.to)) {
                self.after(to, from);
                // The gate of a step waits for what the step waits for.
                if let Some(gate) = self.gate_of(to) {
                    self.after(gate, from);
                }
            }
        }
        for step in self.places.clone() {
            if let Some(gate) = self.gate_of(step) {
                self.after(step, gate);
            }
        }
        Ok(())
    }

    /// The gate that stands before a step that asks for approval.
    fn gate_of(&self, step: StepIndex) -> Option<StepIndex> {
        let gate = step.0.checked_sub(1).map(StepIndex)?;
        let is_gate = matches!(self.origins.get(gate.index()), Some(Origin::ApprovalOf(_)));
        is_gate.then_some(gate)
    }

    /// The steps of `on_failure` and `on_cancel`, each list in its order.
    fn called(&mut self) -> Result<(), CompileError> {
        let pipeline = self.pipeline;
        for (id, step) in pipeline.indexed() {
            let Some(index) = self.place(id) else { continue };
            let failed = Trigger::OnFailure(Some(index));
            self.list(&step.on_failure, failed, (Some(id), List::OnFailure))?;
            let cancelled = Trigger::OnCancelOf(index);
            self.list(&step.on_cancel, cancelled, (Some(id), List::OnCancel))?;
        }
        let template = &pipeline.template;
        let failed = Trigger::OnFailure(None);
        self.list(&template.on_failure, failed, (None, List::OnFailure))?;
        self.list(&template.on_cancel, Trigger::OnCancel, (None, List::OnCancel))
    }

    fn list(
        &mut self,
        steps: &[Step],
        trigger: Trigger,
        (of, list): (Option<StepId>, List),
    ) -> Result<(), CompileError> {
        let mut before = None;
        for (place, step) in steps.iter().enumerate() {
            let plan = StepPlan { after: Vec::from_iter(before), ..self.step(step, trigger)? };
            before = Some(self.push(plan, Origin::Called { of, list, place }));
        }
        Ok(())
    }

    fn push(&mut self, plan: StepPlan, origin: Origin) -> StepIndex {
        let index = StepIndex(u32::try_from(self.steps.len()).unwrap_or(u32::MAX));
        self.steps.push(plan);
        self.origins.push(origin);
        index
    }

    fn place(&self, id: StepId) -> Option<StepIndex> {
        self.places.get(id.index()).copied()
    }

    /// Each pair comes once, since each edge of a pipeline does.
    fn after(&mut self, step: StepIndex, before: StepIndex) {
        if let Some(plan) = self.steps.get_mut(step.index()) {
            plan.after.push(before);
        }
    }

    fn step(&self, step: &Step, trigger: Trigger) -> Result<StepPlan, CompileError> {
        if let Some(key) = unkept(step) {
            let what = format!("this Maestro does not see to `{key}` of a step yet");
            return Err(self.unknown(step, &what));
        }
        let uses = match &step.uses {
            Uses::Step(definition) => definition.name,
            Uses::Target(_) => BUILD,
        };
        let mut plan = StepPlan::new(&step.id.value, uses, self.kind(step)?);
        plan.trigger = trigger;
        plan.conditional = step.condition.is_some();
        plan.even_after_failure = step.condition.as_ref().is_some_and(asks_for_failures);
        (plan.repeat, plan.parallel) = self.repeat(step)?;
        plan.retry = step.retry.as_ref().map_or_else(Retry::default, retry);
        plan.timeout_ms = step.timeout_ms;
        plan.continue_on_error = step.continue_on_error;
        plan.cap = cap(&step.budget);
        plan.evidence = EVIDENCE.contains(&plan.uses.as_str());
        Ok(plan)
    }

    fn kind(&self, step: &Step) -> Result<StepKind, CompileError> {
        let Uses::Step(definition) = &step.uses else {
            return Ok(StepKind::Work(ActionClass::Pure));
        };
        if definition.name == GATE {
            return self.gate(step).map(StepKind::Gate);
        }
        let literal = |name| step.argument(name).and_then(Expr::known);
        Ok(match definition.far_side {
            None => StepKind::Work(definition.class),
            Some(_) if literal("repeatable") == Some(Value::Bool(true)) => {
                StepKind::Effect(FarSide::Repeatable)
            }
            Some(Declared::Opaque) if step.argument("query").is_some() => {
                StepKind::Effect(FarSide::Queryable { window_ms: QUERY_WINDOW_MS })
            }
            Some(declared) => StepKind::Effect(far_side(declared)),
        })
    }

    fn gate(&self, step: &Step) -> Result<Gate, CompileError> {
        let value = |name: &str| match step.argument(name) {
            Some(expr) => eval(expr, &self.scope).map(Some).map_err(|error| {
                let what = format!("`{name}` of a gate must be known when the run begins: {error}");
                self.unknown(step, &what)
            }),
            None => Ok(None),
        };
        let approvals = value("approvals")?.and_then(|count| count.as_u64()).unwrap_or(1);
        let roles = value("roles")?.unwrap_or_default();
        let roles = roles.as_array().into_iter().flatten();
        let expires_ms = match value("expires")? {
            Some(Value::String(text)) => duration_ms(&text),
            Some(Value::Number(seconds)) => seconds.as_u64().and_then(|s| s.checked_mul(1000)),
            _ => Some(EXPIRES_MS_DEFAULT),
        };
        Ok(Gate {
            approvals: u32::try_from(approvals).unwrap_or(u32::MAX),
            roles: roles.filter_map(|role| Some(role.as_str()?.to_owned())).collect(),
            expires_ms: expires_ms.ok_or_else(|| self.unknown(step, "`expires` is no time"))?,
        })
    }

    fn approval(&self, step: &Step, approval: &Approval) -> StepPlan {
        let gate = Gate {
            approvals: approval.count,
            roles: approval.roles.iter().map(|role| role.value.clone()).collect(),
            expires_ms: approval.expires_ms,
        };
        let id = format!("{}.approval", step.id.value);
        let mut plan = StepPlan::new(&id, GATE, StepKind::Gate(gate));
        // Nobody is asked about what will not be done.
        let listed = matches!(step.repeat, Repeated::Each { .. } | Repeated::Matrix { .. });
        plan.conditional = step.condition.is_some() || listed;
        plan.even_after_failure = step.condition.as_ref().is_some_and(asks_for_failures);
        plan
    }

    fn repeat(&self, step: &Step) -> Result<(Repeat, u32), CompileError> {
        let most = |max: u64| {
            u32::try_from(max).map_err(|_| self.unknown(step, "`max` is larger than allowed"))
        };
        Ok(match &step.repeat {
            Repeated::Once => (Repeat::Once, 0),
            Repeated::Each { max, parallel, .. } => {
                (Repeat::ForEach { max: most(*max)? }, *parallel)
            }
            Repeated::Matrix { parallel, .. } => {
                let max = maestro_core::limits::RUN_TASKS_MAX;
                (Repeat::ForEach { max }, *parallel)
            }
            Repeated::Until { max, delay_ms, .. } => {
                (Repeat::Until { max: most(*max)?, every_ms: *delay_ms }, 0)
            }
        })
    }

    fn unknown(&self, step: &Step, what: &str) -> CompileError {
        let place = self.pipeline.sources.location(step.id.span).to_string();
        CompileError::Unknown { place, what: format!("step `{}`: {what}", step.id.value) }
    }
}

/// The first key of a step that this Maestro would not see to. A step that runs without what it
/// asks for is not the step that its author wrote, so that it is refused.
pub fn unkept(step: &Step) -> Option<&'static str> {
    let asked = [
        ("concurrency", step.concurrency.is_some()),
        ("secrets", !step.secrets.is_empty()),
        ("egress", !step.egress.is_empty()),
        ("resources", step.resources != Resources::default()),
    ];
    asked.into_iter().find(|(_, asked)| *asked).map(|(key, _)| key)
}

fn far_side(declared: Declared) -> FarSide {
    match declared {
        Declared::Idempotent => FarSide::Idempotent,
        Declared::Conditional => FarSide::Conditional,
        Declared::Queryable => FarSide::Queryable { window_ms: QUERY_WINDOW_MS },
        Declared::Repeatable => FarSide::Repeatable,
        Declared::Opaque => FarSide::Unknown,
    }
}

/// Whether a condition can hold after a failure because it asks for one: `failure()`, `always()`,
/// and `success()` where it is denied or compared.
fn asks_for_failures(condition: &Expr) -> bool {
    match &condition.kind {
        ExprKind::Binary(Operator::And | Operator::Or, left, right) => {
            asks_for_failures(left) || asks_for_failures(right)
        }
        ExprKind::Call(Function::Success, _) => false,
        _ => {
            let mut found = false;
            condition.walk(&mut |part| {
                let ExprKind::Call(function, _) = part.kind else { return };
                let asks = [Function::Success, Function::Failure, Function::Always];
                found |= asks.contains(&function);
            });
            found
        }
    }
}

fn retry(retry: &template::Retry) -> Retry {
    Retry {
        attempts_max: retry.max.saturating_add(1),
        on: retry.on.iter().map(|class| failure_class(*class)).collect(),
        backoff_ms: retry.backoff_ms,
        backoff_ms_max: retry.backoff_ms_max,
        jitter: retry.jitter,
    }
}

fn failure_class(class: Named) -> FailureClass {
    match class {
        Named::User => FailureClass::User,
        Named::Infrastructure => FailureClass::Infrastructure,
        Named::RateLimit => FailureClass::RateLimit,
        Named::Budget => FailureClass::Budget,
        Named::Policy => FailureClass::Policy,
        Named::Timeout => FailureClass::Timeout,
        Named::Cancelled => FailureClass::Cancelled,
    }
}

fn cap(budget: &Budget) -> Cap {
    let Budget { usd_micros, tokens, soft_usd_micros, soft_tokens } = *budget;
    Cap { usd_micros, tokens, soft_usd_micros, soft_tokens }
}
