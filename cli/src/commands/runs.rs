//! The commands about runs: begin, watch, approve, cancel, go on.
//!
//! All but those that drive a run only read its journal or append one wish to it, so they work
//! from any terminal, while the run lives or after its process died.

mod backup;
mod dead_letters;
mod drive;

pub use drive::{drive_with_lines, flag_of_targets, run, signalled};

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use maestro_core::run::{
    Command, Event, Principal, Refusal, Resolution, RunId, RunState, TaskId, TaskStatus,
};
use maestro_rules::pipeline::definitions::definition;
use maestro_runs::driver;
use maestro_runs::journal;

use crate::args::runs::{
    ApprovalArgs, CancelArgs, LogsArgs, ReplayArgs, RetryArgs, RunName, RunsCommand, StatusArgs,
};
use crate::args::{Global, OutputFormat};
use crate::exit::Failure;
use crate::runs::policy::Asker;
use crate::runs::start;
use crate::runs::state::{State, failure};
use crate::runs::{SystemClock, checkpoints, view};

/// How often a watcher looks whether there is news.
const PRINT: Duration = Duration::from_millis(100);
/// Events that are read at once.
const EVENTS: usize = 1000;

/// Prints what a journal gains.
pub struct Follower<'a> {
    state: &'a State,
    run: &'a RunId,
    seen: u64,
    /// What is left out: all but one step, or what is said of the run itself.
    step: Option<&'a str>,
    steps_only: bool,
    to: Lines,
}

/// Where lines go, and in which form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// They are news beside what the command is for.
    Stderr,
    /// They are what the command is for.
    Stdout,
    /// The same as JSON, every event of the journal.
    Json,
}

impl<'a> Follower<'a> {
    fn new(state: &'a State, run: &'a RunId, seen: u64) -> Self {
        Self { state, run, seen, step: None, steps_only: false, to: Lines::Stderr }
    }

    /// One for a run that nobody knows by its name.
    pub fn of_steps(state: &'a State, run: &'a RunId) -> Self {
        Self { steps_only: true, ..Self::new(state, run, 0) }
    }

    async fn print(&mut self) -> Result<()> {
        loop {
            let entries = self.state.journal.read(self.run, self.seen, EVENTS).await;
            let entries = entries.map_err(failure)?;
            let Some(last) = entries.last() else { return Ok(()) };
            self.seen = last.sequence;
            if self.to == Lines::Json {
                entries.iter().for_each(|entry| println!("{}", view::entry_json(entry)));
                continue;
            }
            // Names of tasks need the fold as it is after them; it is read once per batch.
            let loaded = journal::load(&*self.state.journal, self.run).await;
            let fold = loaded.map_err(failure)?;
            for entry in &entries {
                let of_run = matches!(
                    entry.event,
                    Event::RunCreated(_) | Event::Owned { .. } | Event::RunEnded { .. }
                );
                if of_run && self.steps_only {
                    continue;
                }
                let Some(line) = view::line(&fold, entry) else { continue };
                let of_step = |step: &str| {
                    line.strip_prefix(step).is_some_and(|rest| rest.starts_with([':', '[', '#']))
                };
                match self.to {
                    _ if !self.step.is_none_or(of_step) => {}
                    Lines::Stderr => eprintln!("{line}"),
                    Lines::Stdout | Lines::Json => println!("{line}"),
                }
            }
        }
    }
}

fn show(global: &Global, state: &RunState) -> Result<ExitCode> {
    match global.output {
        OutputFormat::Json => println!("{}", view::json(state)),
        _ => print!("{}", view::tree(state)),
    }
    Ok(ExitCode::from(view::exit_code(state)))
}

/// `maestro status`.
pub fn status(global: &Global, args: &StatusArgs) -> Result<ExitCode> {
    with_state(async |state| {
        let run = match &args.run {
            Some(name) => state.find(name).await?,
            None => state.last().await?,
        };
        show(global, &journal::load(&*state.journal, &run).await.map_err(failure)?)
    })
}

/// `maestro logs` and `maestro watch`.
pub fn logs(global: &Global, args: &LogsArgs, follow: bool) -> Result<ExitCode> {
    with_state(async |state| {
        let run = state.find(&args.run.run).await?;
        let to = match global.output {
            OutputFormat::Json if args.step.is_some() => {
                return Err(Failure::input("the journal as JSON has the events of all steps")
                    .hint("leave `--step` out, and pick by `event.task`")
                    .into());
            }
            OutputFormat::Json => Lines::Json,
            _ => Lines::Stdout,
        };
        let mut follower =
            Follower { step: args.step.as_deref(), to, ..Follower::new(&state, &run, 0) };
        loop {
            follower.print().await?;
            let loaded = journal::load(&*state.journal, &run).await.map_err(failure)?;
            if !(args.follow || follow) {
                return Ok(ExitCode::SUCCESS);
            }
            if loaded.ended.is_some() {
                return show(global, &loaded);
            }
            tokio::time::sleep(PRINT).await;
        }
    })
}

/// `maestro cancel`.
pub fn cancel(args: &CancelArgs) -> Result<ExitCode> {
    with_state(async |state| {
        let run = state.find(&args.run.run).await?;
        let (by, reason) = (state.principal()?, args.reason.clone());
        let wish = |_: &RunState| Ok(Command::Cancel { by: by.clone(), reason: reason.clone() });
        let after = wish_for(&state, &run, wish).await?;
        say_who_drives(&state, &after)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What somebody does at a gate.
#[derive(Clone, Copy)]
pub enum AtGate {
    /// Agrees.
    Approve,
    /// Refuses.
    Reject,
    /// Takes back.
    Revoke,
}

/// `maestro approve`, `reject` and `revoke`.
pub fn at_gate(args: &ApprovalArgs, what: AtGate) -> Result<ExitCode> {
    with_state(async |state| {
        let run = state.find(&args.run.run).await?;
        let by = state.principal()?;
        let loaded = journal::load(&*state.journal, &run).await.map_err(failure)?;
        let asker = Asker::of(&loaded)?;
        let denied = Cell::new(None);
        let wish = |now: &RunState| {
            let (command, denial) =
                asker.at_gate(now, gate_command(now, args, what, by.clone())?)?;
            denied.set(denial);
            Ok(command)
        };
        let after = wish_for(&state, &run, wish).await?;
        if let Some(denial) = denied.take() {
            return Err(Failure::denied(denial).into());
        }
        say_who_drives(&state, &after)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn gate_command(
    now: &RunState,
    args: &ApprovalArgs,
    what: AtGate,
    by: Principal,
) -> Result<Command, Refusal> {
    let waits = |task: &TaskId| {
        let status = now.tasks.get(task).map(|task| &task.status);
        matches!(what, AtGate::Revoke) || matches!(status, Some(TaskStatus::Asked))
    };
    let task = match &args.gate {
        Some(gate) => {
            let step = now.plan().find(gate);
            TaskId::first(step.ok_or_else(|| Refusal::Unknown(format!("gate `{gate}`")))?)
        }
        None => {
            let waiting: Vec<TaskId> = now.gates.keys().copied().filter(waits).collect();
            match waiting.as_slice() {
                [one] => *one,
                [] => return Err(Refusal::Unknown("gate that waits".to_owned())),
                several => {
                    let names: Vec<String> = several.iter().map(|task| now.name(*task)).collect();
                    let names = names.join("`, `");
                    return Err(Refusal::Run(format!("several gates wait: `{names}`; name one")));
                }
            }
        }
    };
    let reason = args.reason.clone();
    Ok(match what {
        AtGate::Reject => Command::Reject { task, by, reason },
        AtGate::Revoke => Command::Revoke { task, by, reason },
        AtGate::Approve => {
            let shown = now.gates.get(&task).map(|gate| gate.request.subject.clone());
            let subject = args.subject.clone().or(shown).unwrap_or_default();
            Command::Approve { task, subject, by, reason }
        }
    })
}

/// Reads `STEP={…}`.
fn replaced_inputs(texts: &[String]) -> Result<BTreeMap<String, serde_json::Value>> {
    let mut inputs = BTreeMap::new();
    for text in texts {
        let (step, json) = text.split_once('=').ok_or_else(|| {
            Failure::input(format!("`{text}` replaces no inputs")).hint("write `STEP={…}`")
        })?;
        let value = serde_json::from_str(json).map_err(|error| {
            Failure::input(format!("the inputs of `{step}` are not JSON: {error}"))
        })?;
        if start::holds_credentials_at_all(&value) {
            let message = format!("the inputs of `{step}` hold a URL with credentials in it");
            return Err(Failure::input(message)
                .hint("take them out, and name a secret in `auth` or `secret`")
                .into());
        }
        inputs.insert(step.to_owned(), value);
    }
    Ok(inputs)
}

/// Refuses values for what their steps do not take, or not so.
fn check_inputs(run: &RunState, inputs: &BTreeMap<String, serde_json::Value>) -> Result<()> {
    for (step, values) in inputs {
        let Some(fields) = values.as_object() else {
            return Err(Failure::input(format!("the inputs of `{step}` are no object"))
                .hint(format!("write `{step}={{\"FIELD\": …}}`"))
                .into());
        };
        // Whoever reopens the run refuses steps that there are not.
        let plan = run.plan().find(step).and_then(|index| run.plan().step(index));
        let kind = plan.and_then(|plan| definition(&plan.uses));
        if let Some(why) = kind.and_then(|kind| kind.refuses(fields)) {
            return Err(Failure::input(format!("the inputs of `{step}`: {why}")).into());
        }
    }
    Ok(())
}

/// `maestro retry`.
pub fn retry(global: &Global, args: &RetryArgs) -> Result<ExitCode> {
    let points = checkpoints::from_environment()?;
    let inputs = replaced_inputs(&args.inputs)?;
    on_runtime(async {
        let state = State::open(points.clone())?;
        let run = state.find(&args.run.run).await?;
        let failed = journal::load(&*state.journal, &run).await.map_err(failure)?;
        check_inputs(&failed, &inputs)?;
        let (by, reason) = (state.principal()?, args.reason.clone());
        let wish = |now: &RunState| {
            let unknown = |id: &String| Refusal::Unknown(format!("step `{id}`"));
            let from = args.from.as_ref();
            let from = from.map(|id| now.plan().find(id).ok_or_else(|| unknown(id))).transpose()?;
            let (by, reason) = (by.clone(), reason.clone());
            Ok(Command::Reopen { from, inputs: inputs.clone(), by, reason })
        };
        let reopened = wish_for(&state, &run, wish).await?;
        drive::drive(global, &state, reopened, points, (false, args.no_wait)).await
    })
}

/// `maestro replay`.
pub fn replay(global: &Global, args: &ReplayArgs) -> Result<ExitCode> {
    let points = checkpoints::from_environment()?;
    on_runtime(async {
        let state = State::open(points.clone())?;
        let run = state.find(&args.run.run).await?;
        let old = journal::load(&*state.journal, &run).await.map_err(failure)?;
        let new = drive::begin(&state, start::replay(&old, state.principal()?)?).await?;
        drive::drive(global, &state, new, points, (false, args.no_wait)).await
    })
}

/// `maestro runs …`.
pub fn runs(global: &Global, command: &RunsCommand) -> Result<ExitCode> {
    let points = checkpoints::from_environment()?;
    on_runtime(act(global, command, points))
}

async fn act(
    global: &Global,
    command: &RunsCommand,
    points: std::sync::Arc<dyn maestro_runs::Checkpoints>,
) -> Result<ExitCode> {
    // A journal that is copied or replaced need not be one that can be opened.
    let open = || State::open(points.clone());
    match command {
        RunsCommand::Backup { file } => backup::write(file),
        RunsCommand::Restore { file } => backup::read(file),
        RunsCommand::Dlq(command) => dead_letters::dlq(global, &open()?, command, points).await,
        RunsCommand::List { limit } => list(global, &open()?, *limit).await,
        RunsCommand::Show(RunName { run }) => {
            let state = open()?;
            let run = state.find(run).await?;
            show(global, &journal::load(&*state.journal, &run).await.map_err(failure)?)
        }
        RunsCommand::Resolve { run, step, applied, redo, give_up: _, outputs, reason } => {
            let outputs = match outputs {
                Some(json) => serde_json::from_str(json).map_err(|error| {
                    Failure::input(format!("`--outputs` is no JSON object: {error}"))
                })?,
                None => BTreeMap::new(),
            };
            let state = open()?;
            let resolution = match (applied, redo) {
                (true, _) => Resolution::Applied(outputs),
                (false, true) => Resolution::Redo,
                (false, false) => Resolution::GiveUp,
            };
            let run = state.find(&run.run).await?;
            let by = state.principal()?;
            let wish = |now: &RunState| {
                let task = now.tasks.keys().find(|task| now.name(**task) == *step);
                let task = *task.ok_or_else(|| Refusal::Unknown(format!("step `{step}`")))?;
                let (resolution, by) = (resolution.clone(), by.clone());
                Ok(Command::Resolve { task, resolution, by, reason: reason.clone() })
            };
            let after = wish_for(&state, &run, wish).await?;
            say_who_drives(&state, &after)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(global: &Global, state: &State, limit: usize) -> Result<ExitCode> {
    for run in state.journal.list(limit).await.map_err(failure)? {
        match global.output {
            OutputFormat::Json => println!(
                "{}",
                serde_json::json!({
                    "run": run.run.as_str(), "template": run.template, "status": run.status.name(),
                    "initiator": run.initiator, "created_ms": run.created_ms,
                    "updated_ms": run.updated_ms,
                })
            ),
            _ => println!("{:<48} {:<11} {}", run.run, run.status.name(), run.initiator),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Notes what somebody wishes for a run.
pub async fn wish_for(
    state: &State,
    run: &RunId,
    wish: impl Fn(&RunState) -> Result<Command, Refusal>,
) -> Result<RunState> {
    let done = driver::command(&*state.journal, run, &SystemClock, wish).await.map_err(failure)?;
    done.map_err(|refusal| {
        Failure::input(refusal.to_string())
            .hint(format!("`maestro status {run}` shows the run"))
            .into()
    })
}

/// A wish was noted; whether somebody acts on it now depends on whether the run is driven.
fn say_who_drives(state: &State, run: &RunState) -> Result<()> {
    let name = &run.created.run;
    match maestro_runs::Lease::holder(&state.leases(), name) {
        Ok(Some(_)) => eprintln!("noted; the run goes on"),
        _ if run.ended.is_some() => eprintln!("noted"),
        _ => {
            eprintln!("noted; no process drives the run");
            eprintln!("hint: maestro run --resume {name}");
        }
    }
    Ok(())
}

/// A run as it stands, by its name or the end of it.
pub fn load(name: &str) -> Result<RunState> {
    on_runtime(async {
        let state = State::open(std::sync::Arc::new(maestro_runs::NoCheckpoints))?;
        let run = state.find(name).await?;
        journal::load(&*state.journal, &run).await.map_err(failure)
    })
}

fn with_state<F: Future<Output = Result<ExitCode>>>(
    work: impl FnOnce(State) -> F,
) -> Result<ExitCode> {
    let points = std::sync::Arc::new(maestro_runs::NoCheckpoints);
    on_runtime(async { work(State::open(points)?).await })
}

/// Runs what waits for much at once.
pub fn on_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}
