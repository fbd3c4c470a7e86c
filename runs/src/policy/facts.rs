//! Facts of the fold in the words of policies.

use std::collections::BTreeSet;

use maestro_core::policy::{
    Approval, ApprovalGate, ApprovalState, Budget, Check, CheckKind, CheckOutcome, EffectRequest,
    FarSide, Findings, Identity, ParamValue, Principal, Record, RecordState, Run, Scan, Step,
    StepClass, Timestamp,
};
use maestro_core::run::{
    self, Cap, FarSide as Offers, Plan, RunCreated, RunState, StepIndex, StepKind, StepPlan,
    Success, TaskId, Verdict,
};
use maestro_core::{ActionClass, Digest, DigestFunction};
use serde_json::Value;

/// The issuer of names that nobody vouched for.
const LOCAL: &str = "local";
/// What an amount says where only the other one is limited: the largest number of JSON.
const NO_LIMIT: u64 = (1 << 53) - 1;
/// Effects that tell others, and change nothing that they use.
const TELLS: &[&str] = &["notify.webhook"];
const SCAN: &str = "security.scan";

/// A time of the journal.
pub fn time(at_ms: u64) -> Timestamp {
    Timestamp::from_unix_seconds(at_ms / 1000)
}

/// A hash of the journal, which keeps no sizes. What is no hash is told by its own.
pub fn hash(text: &str) -> Digest {
    let function = DigestFunction::Sha256;
    Digest::from_hex(function, text, 0).unwrap_or_else(|_| function.digest(text.as_bytes()))
}

pub fn principal(of: &run::Principal) -> Principal {
    let identity = match of.issuer.as_str() {
        LOCAL => Identity::Local { user: of.name.clone() },
        issuer => Identity::Oidc { issuer: issuer.to_owned(), subject: of.name.clone() },
    };
    let mut roles = of.roles.clone();
    roles.sort();
    Principal { id: of.to_string(), identity, roles }
}

pub fn run(created: &RunCreated, project: &str) -> Run {
    let params = created.params.iter().map(|(name, value)| (name.clone(), param(value)));
    Run {
        id: created.run.as_str().to_owned(),
        template: created.plan.template.clone(),
        template_digest: hash(&created.template_digest),
        project: project.to_owned(),
        params: params.collect(),
    }
}

/// The value of a param; what is none of the kinds that policies know is its JSON.
fn param(value: &Value) -> ParamValue {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (value, value.as_i64()) {
        (Value::Bool(flag), _) => ParamValue::Bool(*flag),
        (_, Some(number)) => ParamValue::Int(number),
        (Value::Array(items), _) => ParamValue::List(items.iter().map(word).collect()),
        (other, _) => ParamValue::Text(word(other)),
    }
}

pub fn budget(cap: &Cap) -> Budget {
    match (cap.usd_micros, cap.tokens) {
        (None, None) => Budget::Unlimited {},
        (usd, tokens) => Budget::Limited {
            micro_usd: usd.unwrap_or(NO_LIMIT).min(NO_LIMIT),
            tokens: tokens.unwrap_or(NO_LIMIT).min(NO_LIMIT),
        },
    }
}

pub fn step(state: &RunState, task: TaskId) -> Step {
    let plan = state.plan().step(task.step);
    let class = match plan.map(|plan| &plan.kind) {
        Some(StepKind::Work(ActionClass::Pure)) => StepClass::Pure,
        Some(StepKind::Work(ActionClass::Recorded)) => StepClass::Recorded,
        Some(StepKind::Work(ActionClass::Effect) | StepKind::Effect(_) | StepKind::Gate(_))
        | None => StepClass::Effect,
    };
    let uses = plan.map_or_else(String::new, |plan| plan.uses.clone());
    Step { path: state.name(task), uses, class }
}

pub fn effect(state: &RunState, task: TaskId, request: &str) -> EffectRequest {
    let far_side = match state.far_side(task) {
        Some(Offers::Idempotent) => FarSide::Idempotent,
        Some(Offers::Conditional) => FarSide::Conditional,
        Some(Offers::Queryable { .. }) => FarSide::Queryable,
        Some(Offers::Repeatable) => FarSide::Repeatable,
        Some(Offers::Unknown) | None => FarSide::Unknown,
    };
    let uses = state.plan().step(task.step).map_or("", |plan| plan.uses.as_str());
    EffectRequest {
        request: DigestFunction::Sha256.digest(request.as_bytes()),
        // Of a command nobody knows; what may publish is held to what publishing asks for.
        publishes: !TELLS.contains(&uses),
        far_side,
        generation: state.generation(task),
    }
}

/// The steps that come before one, at any distance, in the order of the template.
pub fn before(plan: &Plan, step: StepIndex) -> BTreeSet<StepIndex> {
    let (mut found, mut next) = (BTreeSet::new(), vec![step]);
    while let Some(step) = next.pop() {
        for before in plan.step(step).map_or(&[][..], |plan| &plan.after) {
            if found.insert(*before) {
                next.push(*before);
            }
        }
    }
    found
}

/// Some steps with their plans and verdicts.
fn ended<'a>(
    state: &'a RunState,
    steps: &'a BTreeSet<StepIndex>,
) -> impl Iterator<Item = (StepIndex, &'a StepPlan, Option<Verdict>)> + 'a {
    let known =
        |step: &StepIndex| state.step(*step).map(|(plan, state)| (*step, plan, state.verdict()));
    steps.iter().filter_map(known)
}

pub fn checks(state: &RunState, before: &BTreeSet<StepIndex>) -> Vec<Check> {
    let check = |(_, plan, verdict): (StepIndex, &StepPlan, Option<Verdict>)| {
        let outcome = match verdict {
            Some(Verdict::Succeeded) => CheckOutcome::Passed,
            Some(Verdict::Failed) if plan.continue_on_error => CheckOutcome::Tolerated,
            Some(Verdict::Failed) => CheckOutcome::Failed,
            Some(Verdict::Skipped | Verdict::NotReached | Verdict::Cancelled) | None => {
                CheckOutcome::Skipped
            }
        };
        Some(Check { step: plan.id.clone(), kind: check_kind(plan)?, outcome })
    };
    ended(state, before).filter_map(check).collect()
}

fn check_kind(plan: &StepPlan) -> Option<CheckKind> {
    match (&plan.kind, plan.uses.as_str()) {
        (StepKind::Gate(_), _) => Some(CheckKind::Gate),
        (_, SCAN) => Some(CheckKind::Scan),
        (_, "supplychain.sign" | "supplychain.attest") => Some(CheckKind::Signature),
        (_, "test") => Some(CheckKind::Test),
        _ => None,
    }
}

/// What all scans came to together: as bad as the worst, as old as the oldest.
pub fn scan(state: &RunState, before: &BTreeSet<StepIndex>) -> Scan {
    let scans = ended(state, before).filter(|(_, plan, _)| plan.uses == SCAN);
    let each = scans.flat_map(|(step, _, verdict)| match verdict {
        Some(Verdict::Succeeded | Verdict::Failed) => {
            state.tasks_of(step).map(|(_, task)| scanned(task)).collect()
        }
        _ => vec![Scan::NotRun {}],
    });
    each.reduce(worse).unwrap_or(Scan::NotRun {})
}

fn scanned(task: &run::TaskState) -> Scan {
    let count = |success: &Success, name: &str| {
        success.outputs.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
    };
    let findings = task.success.as_ref().and_then(|success| {
        Some(Findings {
            critical: count(success, "critical")?,
            high: count(success, "high")?,
            medium: count(success, "medium")?,
            low: count(success, "low")?,
        })
    });
    match (findings, task.ended_ms, &task.failure) {
        (Some(findings), Some(at_ms), None) => Scan::Done { finished_at: time(at_ms), findings },
        (_, _, Some(failure)) => Scan::Failed { message: failure.message.clone() },
        _ => Scan::Failed { message: "it did not count what it found".to_owned() },
    }
}

fn worse(left: Scan, right: Scan) -> Scan {
    match (left, right) {
        (
            Scan::Done { finished_at: earlier, findings: a },
            Scan::Done { finished_at: later, findings: b },
        ) => Scan::Done {
            finished_at: earlier.min(later),
            findings: Findings {
                critical: a.critical.max(b.critical),
                high: a.high.max(b.high),
                medium: a.medium.max(b.medium),
                low: a.low.max(b.low),
            },
        },
        (Scan::Done { .. }, other) | (other, _) => other,
    }
}

/// Answers that went into what is sent. Nobody checks who recorded them yet, so none is attested.
pub fn records(state: &RunState, before: &BTreeSet<StepIndex>) -> Vec<Record> {
    let recorded = ended(state, before).filter(|(_, plan, verdict)| {
        plan.kind == StepKind::Work(ActionClass::Recorded) && *verdict == Some(Verdict::Succeeded)
    });
    let record = |(_, plan, _): (StepIndex, &StepPlan, Option<Verdict>)| Record {
        step: plan.id.clone(),
        state: RecordState::Unattested,
    };
    recorded.map(record).collect()
}

/// What was said at gates, by whom, and what is left of it at a time.
pub fn approvals(state: &RunState, gates: &BTreeSet<StepIndex>, at_ms: u64) -> Vec<Approval> {
    let asked = gates.iter().filter_map(|gate| {
        Some((state.plan().step(*gate)?, state.gates.get(&TaskId::first(*gate))?))
    });
    let said = asked.flat_map(|(plan, gate)| {
        let holds = match at_ms > gate.request.expires_at_ms {
            true => ApprovalState::Expired,
            false => ApprovalState::Granted,
        };
        let given = gate.given.values().map(move |approval| (approval, holds));
        let revoked = gate.revoked.values().map(|gone| (gone, ApprovalState::Revoked));
        given.chain(revoked).map(|(approval, state)| Approval {
            gate: plan.id.clone(),
            principal: principal(&approval.by),
            at: time(approval.at_ms),
            state,
        })
    });
    said.collect()
}

pub fn gate(state: &RunState, task: TaskId) -> ApprovalGate {
    let (required, roles) = match state.plan().step(task.step).map(|plan| &plan.kind) {
        Some(StepKind::Gate(gate)) => {
            let wanted = state.gates.get(&task).map_or(0, |asked| asked.wanted);
            (gate.approvals.max(wanted), gate.roles.clone())
        }
        _ => (u32::MAX, Vec::new()),
    };
    ApprovalGate { name: state.name(task), required, roles }
}
