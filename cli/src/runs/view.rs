//! Runs as people see them: a tree of steps, and a line for each event.

use std::fmt::Write as _;

use maestro_core::run::budget::usd;
use maestro_core::run::{
    Amount, Entry, Event, Phase, Ruling, RunState, RunStatus, StepIndex, StepKind, TaskId,
    TaskState, TaskStatus,
};
use maestro_runs::policy::denial;
use serde_json::{Value, json};

use crate::exit::DENIED;

/// Most tasks of one step that are listed.
const TASKS_SHOWN: usize = 20;

/// The exit code of a command that saw a run in this state.
///
/// | code | the run |
/// |---|---|
/// | 0 | succeeded |
/// | 1 | failed |
/// | 10 | has not ended: it runs, or waits for people or a time |
/// | 11 | is parked: a person must say what became of an effect |
/// | 12 | was denied: by a person, a policy or a budget |
/// | 13 | was cancelled |
pub fn exit_code(state: &RunState) -> u8 {
    use maestro_core::run::FailureClass::{Budget, Policy};
    let denied = || {
        let failures = state.tasks.values().filter_map(|task| task.failure.as_ref());
        let mut classes = failures.map(|failure| failure.class);
        classes.any(|class| matches!(class, Budget | Policy))
    };
    match state.status() {
        RunStatus::Succeeded => 0,
        RunStatus::Failed if denied() => DENIED,
        RunStatus::Failed => 1,
        RunStatus::Waiting | RunStatus::Running | RunStatus::Cancelling => 10,
        RunStatus::Parked => 11,
        RunStatus::Cancelled => 13,
    }
}

/// A run with its steps.
pub fn tree(state: &RunState) -> String {
    let mut out = String::new();
    let created = &state.created;
    let _ = writeln!(out, "{}  {}", created.run, state.status().name());
    let _ = writeln!(out, "template {}, begun by {}", created.plan.template, created.initiator);
    if let Some(cancelled) = &state.cancelled {
        let _ = writeln!(out, "cancelled by {}{}", cancelled.by, because(&cancelled.reason));
    }
    let spent = state.ledger.run();
    if spent.settled != Amount::ZERO || created.plan.cap.usd_micros.is_some() {
        let cap = created.plan.cap.usd_micros.map(|cap| format!(" of {} USD", usd(cap)));
        let _ = writeln!(
            out,
            "spent {} USD{}, {} tokens",
            usd(spent.settled.usd_micros),
            cap.unwrap_or_default(),
            spent.settled.tokens
        );
        if created.plan.cap.is_softly_passed(spent.settled) {
            let _ = writeln!(out, "warning: the soft budget is passed");
        }
    }
    for (index, _) in created.plan.indexed() {
        step(&mut out, state, index);
    }
    out
}

fn step(out: &mut String, state: &RunState, index: StepIndex) {
    let Some((plan, step)) = state.step(index) else { return };
    let tasks: Vec<(TaskId, &TaskState)> = state.tasks_of(index).collect();
    let word = match step.phase {
        Phase::Waiting => "waiting".to_owned(),
        Phase::Due => "due".to_owned(),
        Phase::Open if tasks.len() == 1 => tasks[0].1.status.name().to_owned(),
        Phase::Open => {
            let ended = |task: &TaskState| matches!(task.status, TaskStatus::Ended(_));
            let ended = tasks.iter().filter(|(_, task)| ended(task)).count();
            format!("{ended} of {} tasks ended", tasks.len())
        }
        Phase::Ended(verdict) => verdict.name().to_owned(),
    };
    let took = tasks.iter().filter_map(|(_, task)| Some(task.ended_ms? - task.began_ms?)).max();
    let took = took.map(|ms| format!("  {ms} ms")).unwrap_or_default();
    let cached = tasks.iter().any(|(_, task)| task.success.as_ref().is_some_and(|s| s.cached));
    let cached = if cached { "  cached" } else { "" };
    let _ = writeln!(out, "  {:<24} {:<18} {word}{took}{cached}", plan.id, plan.uses);
    if let Some(failure) = &step.failure {
        let _ = writeln!(out, "      {}", failure.message);
    }
    if tasks.len() > 1 {
        for (id, task) in tasks.iter().take(TASKS_SHOWN) {
            let _ = writeln!(out, "      {:<20} {}", state.name(*id), task.status.name());
        }
        let more = tasks.len().saturating_sub(TASKS_SHOWN);
        if more > 0 {
            let _ = writeln!(out, "      and {more} more");
        }
    }
    for (id, task) in tasks.into_iter().filter(|(_, task)| says_something(task)).take(TASKS_SHOWN) {
        detail(out, state, id, task);
    }
}

fn says_something(task: &TaskState) -> bool {
    let waits = matches!(task.status, TaskStatus::Asked | TaskStatus::Parked { .. });
    waits || (task.failure.is_some() && task.success.is_none())
}

/// What a person has to know or do about a task.
fn detail(out: &mut String, state: &RunState, id: TaskId, task: &TaskState) {
    let run = &state.created.run;
    if let Some(failure) = task.failure.as_ref().filter(|_| task.success.is_none()) {
        let _ = writeln!(out, "      {}: {}", failure.class.name(), failure.message);
        for hint in &failure.hints {
            let _ = writeln!(out, "      hint: {hint}");
        }
    }
    match (&task.status, state.gates.get(&id)) {
        (TaskStatus::Asked, Some(gate)) => {
            let needed = match state.plan().step(id.step).map(|step| &step.kind) {
                Some(StepKind::Gate(plan)) => plan.approvals.max(gate.wanted),
                _ => 1,
            };
            let _ = writeln!(out, "      {} of {needed} approvals", gate.given.len());
            for approval in gate.given.values() {
                let _ = writeln!(out, "        {}{}", approval.by, because(&approval.reason));
            }
            for line in &gate.request.summary {
                let _ = writeln!(out, "        {line}");
            }
            let _ = writeln!(out, "      subject {}", gate.request.subject);
            let _ = writeln!(out, "      hint: maestro approve {run} --gate {}", state.name(id));
        }
        (TaskStatus::Parked { intent, why }, _) => {
            let _ = writeln!(out, "      {why}");
            let _ = writeln!(out, "      request {}", intent.request);
            let _ = writeln!(out, "      key {}", intent.key);
            let _ = writeln!(
                out,
                "      hint: find out, then: maestro runs resolve {run} --step {} \
                 --applied|--redo|--give-up",
                state.name(id)
            );
        }
        _ => {}
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// One event as a line for people; none for those that say nothing to them.
pub fn line(state: &RunState, entry: &Entry) -> Option<String> {
    let step = |index: &StepIndex| state.plan().step(*index).map_or("", |step| &step.id).to_owned();
    let name = |task: &TaskId| state.name(*task);
    Some(match &entry.event {
        Event::RunCreated(created) => {
            format!(
                "run {} of {} begun by {}",
                created.run, created.plan.template, created.initiator
            )
        }
        Event::Owned { owner, took_over } => {
            let how = if *took_over { "taken over" } else { "driven" };
            format!("{how} by process {} on {}", owner.pid, owner.host)
        }
        Event::StepExpanded { step: index, items } if items.len() != 1 => {
            format!("{}: {} tasks", step(index), items.len())
        }
        Event::StepExpanded { .. } => return None,
        Event::StepSkipped { step: index } => format!("{}: skipped", step(index)),
        Event::StepFailed { step: index, failure } => {
            format!("{}: failed: {}", step(index), failure.message)
        }
        Event::TaskBegan { task, .. } => format!("{}: running", name(task)),
        Event::TaskSucceeded { task, again_at_ms: Some(_), .. } => {
            format!("{}: not yet", name(task))
        }
        Event::TaskSucceeded { task, success, .. } => {
            let cached = if success.cached { " (cached)" } else { "" };
            format!("{}: succeeded{cached}", name(task))
        }
        Event::TaskFailed { task, failure, retry_at_ms, .. } => {
            let next = if retry_at_ms.is_some() { "; it is tried again" } else { "" };
            format!("{}: failed: {}{next}", name(task), failure.message)
        }
        Event::EffectIntended { task, .. } => format!("{}: sending", name(task)),
        Event::EffectUnsettled { task, failure, .. } => {
            format!("{}: outcome unknown: {}; it is asked again", name(task), failure.message)
        }
        Event::EffectParked { task, why } => format!("{}: parked: {why}", name(task)),
        Event::EffectResolved { task, by, reason, .. } => {
            format!("{}: resolved by {by}{}", name(task), because(reason))
        }
        Event::ApprovalAsked { task, .. } => format!(
            "{}: waiting for approval; maestro approve {} --gate {}",
            name(task),
            state.created.run,
            name(task)
        ),
        Event::ApprovalGiven { task, approval } => {
            format!("{}: approved by {}{}", name(task), approval.by, because(&approval.reason))
        }
        Event::ApprovalRevoked { task, by, reason } => {
            format!("{}: approval taken back by {by}{}", name(task), because(reason))
        }
        Event::ApprovalVoided { task, why } => format!("{}: approval void: {why}", name(task)),
        Event::ApprovalsWanted { task, approvals, why } => format!(
            "{}: {approvals} approvals are needed: {why}; maestro approve {} --gate {}",
            name(task),
            state.created.run,
            name(task)
        ),
        Event::PolicyDecided(ruling) => return refused(state, ruling),
        Event::BudgetNoticed(notice) => format!("warning: {}", notice.message),
        Event::CancelAsked { by, reason } => format!("cancelled by {by}{}", because(reason)),
        Event::RunEnded { status } => format!("run {}", status.name()),
        Event::RunDismissed { by, reason } => format!("dismissed, by {by}{}", because(reason)),
        Event::RunReopened { by, reason, .. } => format!("goes on, by {by}{}", because(reason)),
    })
}

/// What policy kept a person from. What it kept a step from, the step says itself.
fn refused(state: &RunState, ruling: &Ruling) -> Option<String> {
    let by = ruling.by.as_ref().filter(|_| !ruling.decision.is_allowed())?;
    let task = ruling.task.map(|task| format!("{}: ", state.name(task))).unwrap_or_default();
    Some(format!("{task}{by} was refused: {}", denial(&ruling.decision).message))
}

/// A line of a journal as JSON, one event under the name of its kind.
pub fn entry_json(entry: &Entry) -> Value {
    let Entry { sequence, epoch, at_ms, event } = entry;
    json!({"sequence": sequence, "epoch": epoch, "at_ms": at_ms, "event": event})
}

/// A run for programs.
pub fn json(state: &RunState) -> Value {
    let steps = state.plan().indexed().filter_map(|(index, plan)| {
        let (_, step) = state.step(index)?;
        let tasks: Vec<Value> = state
            .tasks_of(index)
            .map(|(id, task)| {
                json!({
                    "name": state.name(id),
                    "status": task.status.name(),
                    "attempt": task.attempt,
                    "began_ms": task.began_ms,
                    "ended_ms": task.ended_ms,
                    "cached": task.success.as_ref().is_some_and(|success| success.cached),
                    "outputs": task.success.as_ref().map(|success| &success.outputs),
                    "failure": task.failure,
                    "approval": state.gates.get(&id),
                })
            })
            .collect();
        let verdict = step.verdict().map(|verdict| verdict.name());
        Some(json!({"id": plan.id, "uses": plan.uses, "verdict": verdict, "tasks": tasks}))
    });
    let created = &state.created;
    json!({
        "run": created.run.as_str(),
        "template": created.plan.template,
        "status": state.status().name(),
        "initiator": created.initiator.to_string(),
        "policy": created.policy,
        "params": created.params,
        "created_ms": state.created_ms,
        "updated_ms": state.updated_ms,
        "sequence": state.sequence,
        "spent": state.ledger.run().settled,
        "reserved": state.ledger.run().reserved,
        "cap": state.plan().cap,
        "steps": steps.collect::<Vec<_>>(),
    })
}
