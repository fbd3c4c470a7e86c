//! What a run asks of policy, and what it does with the answer.
//!
//! A question is all that a policy may know at its decision point, taken from the fold, the
//! template and the project; nothing here decides, acts, or reads a clock. Where a fact is not
//! known, the question says what is safe to believe: an environment without a class is production,
//! an answer that nobody attested is unattested, a scan that did not come to counts has failed.
//!
//! The answers are [`Ruling`]s of the journal. They are made by the policies of the day, so a run
//! that goes on after its policies were changed is asked by the new ones, and the journal names the
//! digests of both.

mod facts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use maestro_core::policy::{self, Decision, EgressHost, Environment, Input};
use maestro_core::run::{Failure, FailureClass, Principal, RunState, StepIndex, TaskId};
use maestro_executor::step::Reach;
use serde::Deserialize;
use serde_json::Value;

use crate::script::{Place, Script};

/// How much depends on an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Anything may break.
    Development,
    /// It looks like production.
    Staging,
    /// Users depend on it.
    Production,
}

/// What a project says about itself, for policies.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// The classes of its environments.
    pub environments: BTreeMap<String, Tier>,
}

impl Project {
    /// The class of an environment: what the project says, else what the name itself does. Every
    /// other one is production.
    pub fn tier(&self, name: &str) -> Tier {
        match (self.environments.get(name), name) {
            (Some(tier), _) => *tier,
            (None, "development" | "dev") => Tier::Development,
            (None, "staging") => Tier::Staging,
            (None, _) => Tier::Production,
        }
    }

    fn environment(&self, place: Place) -> Environment {
        let name = match place {
            Place::Nowhere => return Environment::None {},
            Place::Named(name) => name,
            Place::Unknown => return Environment::Production { name: "not known yet".to_owned() },
        };
        match self.tier(&name) {
            Tier::Development => Environment::Development { name },
            Tier::Staging => Environment::Staging { name },
            Tier::Production => Environment::Production { name },
        }
    }
}

/// An effect that is about to be sent, or sent again.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Which.
    pub task: TaskId,
    /// The inputs of its step.
    pub inputs: &'a Value,
    /// The exact request.
    pub request: &'a str,
    /// When its approvals have to hold, in milliseconds since 1970: when it was intended.
    pub approved_ms: u64,
}

/// What somebody says at a gate.
#[derive(Clone, Debug)]
pub struct AtGate<'a> {
    /// Which gate.
    pub task: TaskId,
    /// Who.
    pub by: &'a Principal,
    /// What.
    pub request: policy::ApprovalRequest,
    /// The digest of what they were shown.
    pub subject: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// The questions of one run at one time.
#[derive(Clone, Copy)]
pub struct Questions<'a> {
    /// The run.
    pub state: &'a RunState,
    /// Its template.
    pub script: &'a dyn Script,
    /// Its project.
    pub project: &'a Project,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
}

impl Questions<'_> {
    /// Whether the run may start.
    pub fn run_start(&self, source: policy::Source) -> Input {
        let created = &self.state.created;
        let steps = created.plan.indexed().map(|(step, _)| step);
        Input::RunStart(policy::RunStartInput {
            now: facts::time(self.now_ms),
            run: self.run(),
            initiator: facts::principal(&created.initiator),
            trigger: policy::Trigger::Manual {},
            source,
            environment: self.gravest(steps),
            budget: facts::budget(&created.plan.cap),
        })
    }

    /// Whether a step may start.
    pub fn step_start(&self, task: TaskId, inputs: &Value, reach: Reach) -> Input {
        let created = &self.state.created;
        let cap = created.plan.step(task.step).map(|step| step.cap).unwrap_or_default();
        let cap = if cap == Default::default() { created.plan.cap } else { cap };
        let egress = reach.hosts.into_iter().map(|(host, port)| EgressHost { host, port });
        Input::StepStart(policy::StepStartInput {
            now: facts::time(self.now_ms),
            run: self.run(),
            initiator: facts::principal(&created.initiator),
            step: facts::step(self.state, task),
            environment: self.environment(task.step, Some(inputs)),
            egress: egress.collect(),
            secrets: reach.secrets.into_iter().collect(),
            budget: facts::budget(&cap),
        })
    }

    /// Whether an effect may be sent.
    pub fn effect(&self, sending: Sending<'_>) -> Input {
        let Sending { task, inputs, request, approved_ms } = sending;
        let mut before = facts::before(self.state.plan(), task.step);
        before.retain(|step| !self.state.is_moot(*step, task.step));
        Input::Effect(policy::EffectInput {
            now: facts::time(self.now_ms),
            run: self.run(),
            initiator: facts::principal(&self.state.created.initiator),
            step: facts::step(self.state, task),
            effect: facts::effect(self.state, task, request),
            environment: self.environment(task.step, Some(inputs)),
            checks: facts::checks(self.state, &before),
            scan: facts::scan(self.state, &before),
            // No step of this version hands over an artifact, or a document about one, by digest.
            artifacts: Vec::new(),
            evidence: Vec::new(),
            records: facts::records(self.state, &before),
            approvals: facts::approvals(self.state, &before, approved_ms),
        })
    }

    /// Whether what somebody says at a gate counts.
    pub fn approval(&self, at: &AtGate<'_>) -> Input {
        let behind = self.state.effects_behind(at.task.step);
        let gate = at.task.step;
        Input::Approval(policy::ApprovalInput {
            now: facts::time(self.now_ms),
            run: self.run(),
            initiator: facts::principal(&self.state.created.initiator),
            gate: facts::gate(self.state, at.task),
            approver: facts::principal(at.by),
            request: at.request,
            reason: at.reason.to_owned(),
            subject: facts::hash(at.subject),
            environment: self.gravest(behind.into_iter()),
            evidence: Vec::new(),
            approvals: facts::approvals(self.state, &[gate].into(), self.now_ms),
        })
    }

    fn run(&self) -> policy::Run {
        facts::run(&self.state.created, &self.project.name)
    }

    /// Where a step goes: what its inputs say where they are known, else what its template does.
    /// Inputs that a person has replaced cannot make a step less grave than its template.
    fn environment(&self, step: StepIndex, inputs: Option<&Value>) -> Environment {
        let id = self.state.plan().step(step).map_or("", |plan| plan.id.as_str());
        let inputs = inputs.or_else(|| self.state.inputs.get(id));
        let named = inputs.and_then(|inputs| inputs.get("env")).and_then(Value::as_str);
        let of = |place| self.project.environment(place);
        let of_template = || of(self.script.place(self.state, step));
        match named.map(|name| of(Place::Named(name.to_owned()))) {
            None => of_template(),
            Some(named) if self.state.inputs.contains_key(id) => {
                gravest([named, of_template()].into_iter())
            }
            Some(named) => named,
        }
    }

    /// The environment of some steps on which most depends.
    fn gravest(&self, steps: impl Iterator<Item = StepIndex>) -> Environment {
        gravest(steps.map(|step| self.environment(step, None)))
    }
}

/// The environment on which most depends.
fn gravest(all: impl Iterator<Item = Environment>) -> Environment {
    let rank = |environment: &Environment| match environment {
        Environment::None {} => None,
        Environment::Development { .. } => Some(Tier::Development),
        Environment::Staging { .. } => Some(Tier::Staging),
        Environment::Production { .. } => Some(Tier::Production),
    };
    all.max_by_key(rank).unwrap_or(Environment::None {})
}

/// Most reasons that a message gives; all of them stand in the journal.
const REASONS_TOLD: usize = 5;

/// The failure that a denial is.
pub fn denial(decision: &Decision) -> Failure {
    let reasons = decision.reasons();
    let told = reasons.iter().take(REASONS_TOLD);
    let mut told: Vec<String> =
        told.map(|reason| format!("{} ({})", reason.message, reason.code)).collect();
    if reasons.len() > REASONS_TOLD {
        told.push(format!("and {} more reasons", reasons.len() - REASONS_TOLD));
    }
    Failure::new(FailureClass::Policy, format!("policy denies it: {}", told.join("; ")))
}
