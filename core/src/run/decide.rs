//! From commands to events: every rule about what may happen to a run.
//!
//! [`decide`] looks at the state and answers with the events that the command means, or with a
//! [`Refusal`]. It changes nothing; the events count once they are in the journal.

use super::approval::{Approval, GateState, Principal};
use super::command::{Command, Refusal};
use super::event::{Event, Ruling, Success};
use super::failure::{Failure, FailureClass};
use super::plan::{FarSide, Gate, Repeat, StepIndex, StepKind, StepPlan};
use super::state::{Phase, RunState, RunStatus, TaskState, TaskStatus};
use super::task::{TaskId, idempotency_key};
use super::{Amount, Notice, RunCreated};
use crate::digest::DigestFunction;
use crate::limits::{RUN_OUTPUTS_BYTES_MAX, RUN_REOPENS_MAX, RUN_REQUEST_BYTES_MAX};

type Decision = Result<Vec<Event>, Refusal>;

/// The first event of a new run.
pub fn create(created: RunCreated) -> Decision {
    created.plan.check()?;
    Ok(vec![Event::RunCreated(Box::new(created))])
}

/// The events that a command means for a run that exists.
pub fn decide(state: &RunState, command: Command, now_ms: u64) -> Decision {
    match command {
        Command::Own { owner, take_over } => Ok(vec![Event::Owned { owner, took_over: take_over }]),
        Command::Reopen { from, inputs, by, reason } => {
            may_reopen(state, from, inputs.keys())?;
            Ok(vec![Event::RunReopened { from, inputs, by, reason }])
        }
        Command::Dismiss { by, reason } => dismiss(state, by, reason),
        _ if state.ended.is_some() => Err(Refusal::Ended),
        Command::Ruled { rulings, then } => ruled(state, rulings, then, now_ms),
        Command::Expand { step, items } => {
            due(state, step)?;
            if let Repeat::ForEach { max } = plan(state, step)?.repeat {
                too_many("items", items.len() as u64, u64::from(max))?;
            }
            Ok(vec![Event::StepExpanded { step, items }])
        }
        Command::Skip { step } => due(state, step).map(|()| vec![Event::StepSkipped { step }]),
        Command::FailStep { step, failure } => {
            due(state, step).map(|()| vec![Event::StepFailed { step, failure }])
        }
        Command::Begin { task, reserve } => begin(state, task, reserve, now_ms),
        Command::Tell { notices } => Ok(tell(state, notices)),
        Command::Succeed { task, success, done } => succeed(state, task, success, done, now_ms),
        Command::Fail { task, failure, spent } => fail(state, task, failure, spent, now_ms),
        Command::Intend { task, request, past, decision } => {
            let events = intend(state, task, request, &past, now_ms)?;
            Ok(events.into_iter().map(|event| with_decision(event, &decision)).collect())
        }
        Command::VoidStale { task, request } => {
            let stale = stale_approval(state, task.step, &request, now_ms);
            let void = |(task, why)| Event::ApprovalVoided { task, why };
            Ok(stale.map(void).into_iter().collect())
        }
        Command::WantApprovals { task, approvals, failure } => {
            want_approvals(state, task, approvals, failure, now_ms)
        }
        Command::Unsettle { task, failure } => unsettle(state, task, failure, now_ms),
        Command::Park { task, why } => {
            intended(state, task, "be parked")?;
            Ok(vec![Event::EffectParked { task, why }])
        }
        Command::Resolve { task, resolution, by, reason } => match status(state, task)? {
            TaskStatus::Parked { .. } => {
                Ok(vec![Event::EffectResolved { task, resolution, by, reason }])
            }
            _ => Err(wrong_state(state, task, "be resolved")),
        },
        Command::Ask { task, request } => {
            can_begin(state, task, now_ms, "ask")?;
            gate_of(state, task)?;
            Ok(vec![Event::ApprovalAsked { task, request }])
        }
        Command::Approve { task, subject, by, reason } => {
            approve(state, task, &subject, Approval { by, reason, at_ms: now_ms })
        }
        Command::Reject { task, by, reason } => reject(state, task, &by, &reason),
        Command::Revoke { task, by, reason } => revoke(state, task, by, reason),
        Command::Expire { task } => expire(state, task, now_ms),
        Command::Cancel { by, reason } => match state.cancelled {
            Some(_) => Ok(Vec::new()),
            None => Ok(vec![Event::CancelAsked { by, reason }]),
        },
        Command::End => match state.end_status() {
            Some(status) => Ok(vec![Event::RunEnded { status }]),
            None => Err(Refusal::NotEnded),
        },
    }
}

/// What policy said, with what was done on it.
fn ruled(
    state: &RunState,
    rulings: Vec<Ruling>,
    then: Option<Box<Command>>,
    now_ms: u64,
) -> Decision {
    let events = then.map_or(Ok(Vec::new()), |then| decide(state, *then, now_ms))?;
    let told = rulings.into_iter().map(|ruling| Event::PolicyDecided(Box::new(ruling)));
    Ok(told.chain(events).collect())
}

// ---- work

fn begin(state: &RunState, task: TaskId, reserve: Option<Amount>, now_ms: u64) -> Decision {
    can_begin(state, task, now_ms, "begin")?;
    let step = plan(state, task.step)?;
    if let Some(amount) = reserve {
        let caps = (state.plan().cap, step.cap);
        if let Err(exceeded) = state.ledger.room(task.step, amount, caps) {
            let failure = Failure::new(FailureClass::Budget, exceeded.message());
            return fail(state, task, failure, Amount::ZERO, now_ms);
        }
    }
    Ok(vec![Event::TaskBegan { task, reserved: reserve }])
}

fn tell(state: &RunState, notices: Vec<Notice>) -> Vec<Event> {
    let news = notices.into_iter().filter(|notice| !state.ledger.has_told(notice));
    news.map(Event::BudgetNoticed).collect()
}

fn succeed(state: &RunState, task: TaskId, success: Success, done: bool, now_ms: u64) -> Decision {
    match status(state, task)? {
        TaskStatus::Running | TaskStatus::Intended(_) => {}
        _ => return Err(wrong_state(state, task, "succeed")),
    }
    let bytes = serde_json::to_vec(&success.outputs).map_or(0, |json| json.len());
    if bytes > RUN_OUTPUTS_BYTES_MAX {
        let message = format!(
            "its outputs have {bytes} bytes, and at most {RUN_OUTPUTS_BYTES_MAX} stand in a journal"
        );
        let hints = vec!["hand over large data as an artifact".to_owned()];
        let failure = Failure { hints, ..Failure::new(FailureClass::User, message) };
        return fail(state, task, failure, success.spent, now_ms);
    }
    let again_at_ms = match plan(state, task.step)?.repeat {
        Repeat::Until { every_ms, .. } if !done => Some(now_ms.saturating_add(every_ms)),
        _ => None,
    };
    let rounds = match plan(state, task.step)?.repeat {
        Repeat::Until { max, .. } => max,
        Repeat::Once | Repeat::ForEach { .. } => u32::MAX,
    };
    if again_at_ms.is_some() && task.round.saturating_add(1) >= rounds {
        let message = format!("its condition did not hold within {rounds} rounds");
        let failure = Failure::new(FailureClass::User, message);
        return Ok(vec![Event::TaskFailed {
            task,
            failure,
            spent: success.spent,
            retry_at_ms: None,
        }]);
    }
    Ok(vec![Event::TaskSucceeded { task, success, again_at_ms }])
}

fn fail(state: &RunState, task: TaskId, failure: Failure, spent: Amount, now_ms: u64) -> Decision {
    let tried = match status(state, task)? {
        TaskStatus::Running | TaskStatus::Intended(_) => attempt(state, task),
        TaskStatus::Ready | TaskStatus::Backoff { .. } => attempt(state, task).saturating_add(1),
        _ => return Err(wrong_state(state, task, "fail")),
    };
    let retry = &plan(state, task.step)?.retry;
    let next = retry.next_at((&state.created.run, task, tried), &failure, now_ms);
    let retry_at_ms = next.filter(|_| state.cancelled.is_none());
    Ok(vec![Event::TaskFailed { task, failure, spent, retry_at_ms }])
}

// ---- effects

fn intend(
    state: &RunState,
    task: TaskId,
    request: String,
    past: &[StepIndex],
    now_ms: u64,
) -> Decision {
    can_begin(state, task, now_ms, "be sent")?;
    let step = plan(state, task.step)?;
    if !matches!(step.kind, StepKind::Effect(_)) {
        return Err(wrong_state(state, task, "be sent, being no effect"));
    }
    if request.len() > RUN_REQUEST_BYTES_MAX {
        let message = format!(
            "its request has {} bytes, and at most {RUN_REQUEST_BYTES_MAX} stand in a journal",
            request.len()
        );
        let failure = Failure::new(FailureClass::User, message);
        return fail(state, task, failure, Amount::ZERO, now_ms);
    }
    let broken = state.broken_guards(task.step);
    if let Some(guard) = broken.iter().find(|guard| !past.contains(guard)) {
        let (plan, state) = (plan(state, *guard)?, state.steps.get(guard.index()));
        let end = state.and_then(|s| s.verdict()).map_or("open", |verdict| verdict.name());
        let message = format!("`{}` before it is {end}, and policy does not let it pass", plan.id);
        let failure = Failure::new(FailureClass::Policy, message);
        return Ok(vec![Event::TaskFailed {
            task,
            failure,
            spent: Amount::ZERO,
            retry_at_ms: None,
        }]);
    }
    if let Some((gate, why)) = stale_approval(state, task.step, &request, now_ms) {
        return Ok(vec![Event::ApprovalVoided { task: gate, why }]);
    }
    let generation = state.generation(task);
    let key = idempotency_key(&state.created.run, &step.id, task, generation);
    Ok(vec![Event::EffectIntended { task, generation, key, request, decision: None }])
}

fn with_decision(event: Event, decision: &Option<serde_json::Value>) -> Event {
    match event {
        Event::EffectIntended { task, generation, key, request, .. } => {
            let decision = decision.clone();
            Event::EffectIntended { task, generation, key, request, decision }
        }
        other => other,
    }
}

/// The gate closest before the effect asks again; without one, nobody can approve.
fn want_approvals(
    state: &RunState,
    task: TaskId,
    approvals: u32,
    mut failure: Failure,
    now_ms: u64,
) -> Decision {
    can_begin(state, task, now_ms, "wait for approvals")?;
    let mut gates = asked_gates(state, task.step).into_iter().rev();
    let Some((gate, asked)) = gates.find(|(_, asked)| asked.open) else {
        failure.hints.push("put a `gate.approval` above it, where people approve".to_owned());
        return fail(state, task, failure, Amount::ZERO, now_ms);
    };
    // What policy counts may be fewer than those who approved here.
    let approvals = approvals.max(asked.count().saturating_add(1));
    Ok(vec![Event::ApprovalsWanted { task: gate, approvals, why: failure.message }])
}

/// A gate before a step whose approvals no longer hold for this request, and why.
pub fn stale_approval(
    state: &RunState,
    step: StepIndex,
    request: &str,
    now_ms: u64,
) -> Option<(TaskId, String)> {
    let digest = request_digest(request);
    // One that is not open let nothing pass, so there is nothing to void.
    let mut open = asked_gates(state, step).into_iter().filter(|(_, asked)| asked.open);
    open.find_map(|(gate, asked)| {
        if now_ms > asked.request.expires_at_ms {
            Some((gate, "the approval expired before the effect began".to_owned()))
        } else if changed(asked, step, &digest) {
            let id = state.plan().step(step).map_or("", |plan| &plan.id);
            Some((gate, format!("the request of `{id}` is not the one that was approved")))
        } else {
            None
        }
    })
}

/// The digest by which a gate names the request of an effect: SHA-256, in hexadecimal digits.
pub fn request_digest(request: &str) -> String {
    DigestFunction::Sha256.digest(request.as_bytes()).hex()
}

/// Whether a gate was asked about another request of this step. A step with several tasks, or one
/// whose request was not known yet, is approved as a step.
fn changed(gate: &GateState, step: StepIndex, digest: &str) -> bool {
    let mut requests = gate.request.guarded.iter().filter(|guarded| guarded.step == step);
    let mut known = requests.by_ref().filter_map(|guarded| guarded.request.as_deref()).peekable();
    known.peek().is_some() && known.all(|request| request != digest)
}

fn asked_gates(state: &RunState, step: StepIndex) -> Vec<(TaskId, &GateState)> {
    let tasks = state.guards(step).iter().map(|guard| TaskId::first(*guard));
    tasks.filter_map(|task| Some((task, state.gates.get(&task)?))).collect()
}

fn unsettle(state: &RunState, task: TaskId, failure: Failure, now_ms: u64) -> Decision {
    intended(state, task, "be unsettled")?;
    let parked = |why: String| Ok(vec![Event::EffectParked { task, why }]);
    let message = &failure.message;
    if state.cancelled.is_some() && state.far_side(task) == Some(FarSide::Repeatable) {
        // Whether it was done does not matter: doing it again would be harmless, and so is not.
        let failure = Failure { class: FailureClass::Cancelled, ..failure };
        let (spent, retry_at_ms) = (Amount::ZERO, None);
        return Ok(vec![Event::TaskFailed { task, failure, spent, retry_at_ms }]);
    }
    if state.far_side(task) == Some(FarSide::Unknown) {
        return parked(format!("{message}; its far side does not tell whether it was done"));
    }
    let retry = &plan(state, task.step)?.retry;
    let next = retry.next_at((&state.created.run, task, attempt(state, task)), &failure, now_ms);
    match next {
        Some(retry_at_ms) => Ok(vec![Event::EffectUnsettled { task, failure, retry_at_ms }]),
        None => parked(format!("{message}; it was tried {} times", attempt(state, task))),
    }
}

// ---- gates

fn approve(state: &RunState, task: TaskId, subject: &str, approval: Approval) -> Decision {
    let (gate, asked) = asked_gate(state, task, "be approved")?;
    let by = &approval.by;
    if by.is_same_as(&state.created.initiator) {
        return Err(Refusal::Initiator(by.to_string()));
    }
    if state.authors.iter().any(|author| by.is_same_as(author)) {
        return Err(Refusal::Author(by.to_string()));
    }
    has_role(gate, by)?;
    if approval.at_ms > asked.request.expires_at_ms {
        return Err(Refusal::Expired);
    }
    if subject != asked.request.subject {
        let (is, given) = (asked.request.subject.clone(), subject.to_owned());
        return Err(Refusal::ApprovalChanged { is, given });
    }
    if asked.given.contains_key(&by.to_string()) {
        return Err(Refusal::ApprovedAlready(by.to_string()));
    }
    let last = asked.missing(gate) <= 1;
    let mut names: Vec<String> = asked.given.keys().cloned().collect();
    names.push(by.to_string());
    let mut events = vec![Event::ApprovalGiven { task, approval }];
    if last {
        let outputs =
            [("subject".to_owned(), subject.into()), ("approved_by".to_owned(), names.into())];
        let success = Success { outputs: outputs.into(), ..Success::default() };
        events.push(Event::TaskSucceeded { task, success, again_at_ms: None });
    }
    Ok(events)
}

fn reject(state: &RunState, task: TaskId, by: &Principal, reason: &str) -> Decision {
    let (gate, _) = asked_gate(state, task, "be rejected")?;
    has_role(gate, by)?;
    let message = match reason {
        "" => format!("{by} rejected it"),
        reason => format!("{by} rejected it: {reason}"),
    };
    let failure = Failure::new(FailureClass::Policy, message);
    Ok(vec![Event::TaskFailed { task, failure, spent: Amount::ZERO, retry_at_ms: None }])
}

fn revoke(state: &RunState, task: TaskId, by: Principal, reason: String) -> Decision {
    gate_of(state, task)?;
    let asked = state.gates.get(&task).ok_or_else(|| wrong_state(state, task, "be revoked"))?;
    if !asked.given.contains_key(&by.to_string()) {
        return Err(Refusal::NotApproved(by.to_string()));
    }
    let begun = state.tasks.iter().find(|(other, task_state)| {
        let guards = state.edges.guards.get(other.step.index());
        let guarded = guards.is_some_and(|guards| guards.contains(&task.step));
        guarded && state.far_side(**other).is_some() && has_begun(task_state)
    });
    match begun {
        Some((other, _)) if asked.open => Err(Refusal::TooLate(state.name(*other))),
        _ => Ok(vec![Event::ApprovalRevoked { task, by, reason }]),
    }
}

fn has_begun(task: &TaskState) -> bool {
    let untouched =
        matches!(task.status, TaskStatus::Ready | TaskStatus::Held | TaskStatus::Backoff { .. });
    task.attempt > 0 || !untouched
}

fn expire(state: &RunState, task: TaskId, now_ms: u64) -> Decision {
    let (_, asked) = asked_gate(state, task, "expire")?;
    if now_ms < asked.request.expires_at_ms {
        return Err(wrong_state(state, task, "expire before its time"));
    }
    let failure = Failure::new(FailureClass::Timeout, "nobody approved it in time");
    Ok(vec![Event::TaskFailed { task, failure, spent: Amount::ZERO, retry_at_ms: None }])
}

fn has_role(gate: &Gate, by: &Principal) -> Result<(), Refusal> {
    let allowed = gate.roles.is_empty() || by.roles.iter().any(|role| gate.roles.contains(role));
    match allowed {
        true => Ok(()),
        false => Err(Refusal::Role { who: by.to_string(), roles: gate.roles.clone() }),
    }
}

// ---- what commands are about

fn dismiss(state: &RunState, by: Principal, reason: String) -> Decision {
    match state.ended {
        None => Err(Refusal::NotEnded),
        Some(RunStatus::Failed) if state.dismissed => Ok(Vec::new()),
        Some(RunStatus::Failed) => Ok(vec![Event::RunDismissed { by, reason }]),
        Some(_) => Err(Refusal::Run("the run did not fail".to_owned())),
    }
}

fn may_reopen<'a>(
    state: &RunState,
    from: Option<StepIndex>,
    mut inputs: impl Iterator<Item = &'a String>,
) -> Result<(), Refusal> {
    if state.ended.is_none() {
        return Err(Refusal::NotEnded);
    }
    if let Some(step) = from {
        plan(state, step)?;
    }
    if let Some(id) = inputs.find(|id| state.plan().find(id).is_none()) {
        return Err(Refusal::Unknown(format!("step `{id}`")));
    }
    let count = u64::from(state.reopened) + 1;
    too_many("times that this run has gone on after its end", count, u64::from(RUN_REOPENS_MAX))
}

fn too_many(what: &str, count: u64, max: u64) -> Result<(), Refusal> {
    match count > max {
        true => Err(Refusal::TooMany { what: what.to_owned(), count, max }),
        false => Ok(()),
    }
}

fn plan(state: &RunState, step: StepIndex) -> Result<&StepPlan, Refusal> {
    let unknown = || Refusal::Unknown(format!("step number {}", step.0));
    state.plan().step(step).ok_or_else(unknown)
}

fn status(state: &RunState, task: TaskId) -> Result<&TaskStatus, Refusal> {
    let unknown = || Refusal::Unknown(format!("task `{}`", String::from(task)));
    Ok(&state.tasks.get(&task).ok_or_else(unknown)?.status)
}

fn attempt(state: &RunState, task: TaskId) -> u32 {
    state.tasks.get(&task).map_or(0, |state| state.attempt)
}

fn wrong_state(state: &RunState, task: TaskId, wanted: &'static str) -> Refusal {
    let is = state.tasks.get(&task).map_or("missing", |state| state.status.name());
    Refusal::State { task: state.name(task), is, wanted }
}

fn due(state: &RunState, step: StepIndex) -> Result<(), Refusal> {
    plan(state, step)?;
    match state.steps.get(step.index()).map(|state| state.phase) {
        Some(Phase::Due) => Ok(()),
        _ => Err(Refusal::Unknown(format!("turn of step number {} now", step.0))),
    }
}

fn can_begin(
    state: &RunState,
    task: TaskId,
    now_ms: u64,
    wanted: &'static str,
) -> Result<(), Refusal> {
    match status(state, task)? {
        TaskStatus::Ready => Ok(()),
        TaskStatus::Backoff { until_ms } if *until_ms <= now_ms => Ok(()),
        _ => Err(wrong_state(state, task, wanted)),
    }
}

fn intended(state: &RunState, task: TaskId, wanted: &'static str) -> Result<(), Refusal> {
    match status(state, task)? {
        TaskStatus::Intended(_) => Ok(()),
        _ => Err(wrong_state(state, task, wanted)),
    }
}

fn gate_of(state: &RunState, task: TaskId) -> Result<&Gate, Refusal> {
    status(state, task)?;
    match &plan(state, task.step)?.kind {
        StepKind::Gate(gate) => Ok(gate),
        _ => Err(Refusal::Unknown(format!("gate `{}`", state.name(task)))),
    }
}

fn asked_gate<'a>(
    state: &'a RunState,
    task: TaskId,
    wanted: &'static str,
) -> Result<(&'a Gate, &'a GateState), Refusal> {
    let gate = gate_of(state, task)?;
    match (status(state, task)?, state.gates.get(&task)) {
        (TaskStatus::Asked, Some(asked)) => Ok((gate, asked)),
        _ => Err(wrong_state(state, task, wanted)),
    }
}
