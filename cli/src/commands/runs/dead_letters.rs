//! `maestro runs dlq`: steps that failed for good, or that wait for a person to find out.
//!
//! Nothing is moved anywhere: the queue is what the journals say, so that it cannot differ from
//! them. A letter is one task; what is replayed or dropped is its run.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use maestro_core::limits::RUN_BULK_REOPENS_MAX;
use maestro_core::run::{
    Command, Failure as TaskFailure, FailureClass, RunId, RunState, RunStatus, TaskState,
    TaskStatus, Verdict,
};
use maestro_runs::{Checkpoints, journal};
use serde_json::{Value, json};

use super::{check_inputs, drive, replaced_inputs, wish_for};
use crate::args::runs::{DlqChoice, DlqCommand, DlqFilter};
use crate::args::{Global, OutputFormat};
use crate::exit::Failure;
use crate::runs::state::{State, failure};

/// A task that nobody goes on with.
struct Letter<'a> {
    run: &'a RunState,
    task: String,
    step: &'a str,
    state: &'a TaskState,
    cause: String,
}

/// Runs the command.
pub(super) async fn dlq(
    global: &Global,
    state: &State,
    command: &DlqCommand,
    points: Arc<dyn Checkpoints>,
) -> Result<ExitCode> {
    match command {
        DlqCommand::List(filter) => {
            let class = class(filter)?;
            for run in stuck(state, filter).await? {
                letters(&run).filter(|l| fits(l, filter, class)).for_each(|l| say(global, &l));
            }
        }
        DlqCommand::Show(name) => {
            let run = state.find(&name.run).await?;
            let run = journal::load(&*state.journal, &run).await.map_err(failure)?;
            letters(&run).for_each(|letter| show(global, &letter));
        }
        DlqCommand::Replay { choice, inputs, reason } => {
            let inputs = replaced_inputs(inputs)?;
            return replay(global, state, choice, (inputs, reason), points).await;
        }
        DlqCommand::Drop { choice, reason } => {
            let by = state.principal()?;
            for run in chosen(state, choice).await? {
                let name = &run.created.run;
                let wish =
                    |_: &RunState| Ok(Command::Dismiss { by: by.clone(), reason: reason.clone() });
                wish_for(state, name, wish).await?;
                println!("dropped {name}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs with letters, as far as the journal alone can tell.
async fn stuck(state: &State, filter: &DlqFilter) -> Result<Vec<RunState>> {
    let listed = state.journal.list(filter.limit).await.map_err(failure)?;
    let mut found = Vec::new();
    for summary in listed {
        if matches!(summary.status, RunStatus::Failed | RunStatus::Parked) {
            let run = journal::load(&*state.journal, &summary.run).await.map_err(failure)?;
            let wanted = &run.created.plan.template;
            if filter.template.as_ref().is_none_or(|name| name == wanted) && !run.dismissed {
                found.push(run);
            }
        }
    }
    Ok(found)
}

fn letters(run: &RunState) -> impl Iterator<Item = Letter<'_>> {
    run.tasks.iter().filter_map(|(id, state)| {
        let cause = match (&state.status, &state.failure) {
            (TaskStatus::Parked { why, .. }, _) => why.clone(),
            (TaskStatus::Ended(Verdict::Failed), Some(failure)) => failure.message.clone(),
            _ => return None,
        };
        let step = run.plan().step(id.step).map_or("", |step| step.id.as_str());
        Some(Letter { run, task: run.name(*id), step, state, cause })
    })
}

fn class(filter: &DlqFilter) -> Result<Option<FailureClass>> {
    let Some(name) = &filter.class else { return Ok(None) };
    let found = FailureClass::ALL.into_iter().find(|class| class.name() == name);
    Ok(Some(found.ok_or_else(|| {
        let names: Vec<&str> = FailureClass::ALL.iter().map(|class| class.name()).collect();
        Failure::input(format!("`{name}` is no class of failures"))
            .hint(format!("there is `{}`", names.join("`, `")))
    })?))
}

fn fits(letter: &Letter<'_>, filter: &DlqFilter, class: Option<FailureClass>) -> bool {
    let is = letter.state.failure.as_ref().map(|failure| failure.class);
    filter.step.as_ref().is_none_or(|step| step == letter.step)
        && class.is_none_or(|class| is == Some(class))
}

fn as_json(letter: &Letter<'_>) -> Value {
    json!({
        "run": letter.run.created.run.as_str(),
        "template": letter.run.created.plan.template,
        "step": letter.task,
        "status": letter.state.status.name(),
        "cause": letter.cause,
        "failure": letter.state.failure,
        "attempts": letter.state.attempt,
        "replays": letter.run.reopened,
    })
}

fn say(global: &Global, letter: &Letter<'_>) {
    let Letter { run, task, state, cause, .. } = letter;
    match global.output {
        OutputFormat::Json => println!("{}", as_json(letter)),
        _ => println!("{} {task} {}: {cause}", run.created.run, state.status.name()),
    }
}

fn show(global: &Global, letter: &Letter<'_>) {
    if global.output == OutputFormat::Json {
        return say(global, letter);
    }
    let Letter { run, task, step, state, cause } = letter;
    let name = &run.created.run;
    println!("{task} {}: {cause}", state.status.name());
    println!("  attempts: {}, replays of the run: {}", state.attempt, run.reopened);
    if let Some(TaskFailure { class, hints, .. }) = &state.failure {
        println!("  class: {}", class.name());
        hints.iter().for_each(|hint| println!("  hint: {hint}"));
    }
    match state.status {
        TaskStatus::Parked { .. } => println!(
            "  settle it: maestro runs resolve {name} --step '{task}' --applied|--redo|--give-up"
        ),
        _ => println!("  go on: maestro retry {name}, or with other inputs: --with '{step}={{…}}'"),
    }
}

/// The runs that a user means: by their names, or all with a letter that fits.
async fn chosen(state: &State, choice: &DlqChoice) -> Result<Vec<RunState>> {
    let mut found = Vec::new();
    for name in &choice.runs {
        let run = state.find(name).await?;
        found.push(journal::load(&*state.journal, &run).await.map_err(failure)?);
    }
    if choice.runs.is_empty() {
        let class = class(&choice.filter)?;
        for run in stuck(state, &choice.filter).await? {
            let failed = run.ended == Some(RunStatus::Failed);
            if failed && letters(&run).any(|letter| fits(&letter, &choice.filter, class)) {
                found.push(run);
            }
        }
    }
    Ok(found)
}

async fn replay(
    global: &Global,
    state: &State,
    choice: &DlqChoice,
    (inputs, reason): (BTreeMap<String, Value>, &str),
    points: Arc<dyn Checkpoints>,
) -> Result<ExitCode> {
    let mut last = ExitCode::SUCCESS;
    for run in chosen(state, choice).await? {
        let name: RunId = run.created.run.clone();
        // What fails again and again is no matter of trying.
        if choice.runs.is_empty() && run.reopened >= RUN_BULK_REOPENS_MAX {
            eprintln!("left out {name}: it was replayed {} times", run.reopened);
            eprintln!("hint: `maestro runs dlq replay {name}` replays it all the same");
            continue;
        }
        check_inputs(&run, &inputs)?;
        let by = state.principal()?;
        let wish = |_: &RunState| {
            let (inputs, by, reason) = (inputs.clone(), by.clone(), reason.to_owned());
            Ok(Command::Reopen { from: None, inputs, by, reason })
        };
        let reopened = wish_for(state, &name, wish).await?;
        let code = drive::drive(global, state, reopened, points.clone(), (false, true)).await?;
        if code != ExitCode::SUCCESS {
            last = code;
        }
    }
    Ok(last)
}
