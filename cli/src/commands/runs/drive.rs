//! `maestro run --template` and `--resume`: this process, or one that it starts, drives a run.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use maestro_core::run::{RunCreated, RunId, RunState};
use maestro_runs::Checkpoints;
use maestro_runs::driver::{self, Driver};
use maestro_runs::journal;

use super::backup;
use super::{Follower, PRINT, on_runtime, show};
use crate::args::runs::PipelineArgs;
use crate::args::{BuildOptions, Global, RunArgs, SandboxChoice, StaleRecords};
use crate::config::{Config, cache_dir};
use crate::exit::Failure;
use crate::runs::source::{self, GitSource};
use crate::runs::start::{self, Wishes};
use crate::runs::state::{State, failure};
use crate::runs::{SystemClock, checkpoints};

/// `maestro run --template` and `--resume`.
pub fn run(global: &Global, all: &RunArgs) -> Result<ExitCode> {
    let args = &all.pipeline;
    refuse_flags_of_labels(all)?;
    let (params, keep_going) = (&all.options.configuration.params, all.options.keep_going);
    let points = checkpoints::from_environment()?;
    on_runtime(async {
        let state = State::open(points.clone())?;
        let loaded = match (&args.template, &args.resume) {
            (Some(template), _) => {
                let (config, git) = workspace(global, &state, args)?;
                let budget = args.budget.as_deref();
                let wishes = Wishes { params, budget, keep_going, git, steps: &[] };
                let begun = match start::create(&config, template, &wishes, state.principal()?) {
                    Ok(created) => begin(&state, created).await,
                    Err(error) => Err(error),
                };
                if begun.is_err() && wishes.git.is_some() {
                    source::discard(&config.workspace)?;
                }
                begun?
            }
            (None, Some(name)) => {
                let run = state.find(name).await?;
                journal::load(&*state.journal, &run).await.map_err(failure)?
            }
            (None, None) => {
                return Err(
                    Failure::input("`run` takes a label, `--template` or `--resume`").into()
                );
            }
        };
        if args.detach {
            return detach(global, &state, &loaded.created.run);
        }
        drive(global, &state, loaded, points, (args.take_over, args.no_wait)).await
    })
}

/// The workspace of a new run, and what it is a copy of.
fn workspace(
    global: &Global,
    state: &State,
    args: &PipelineArgs,
) -> Result<(Config, Option<GitSource>)> {
    let Some(url) = &args.source else { return Ok((Config::load(global)?, None)) };
    // A path of this machine stays the same wherever it is fetched from.
    let url = match Path::new(url).is_dir() {
        true => std::path::absolute(url)?.to_string_lossy().into_owned(),
        false => url.clone(),
    };
    let (git, folder) = source::fetch(state, &url, args.r#ref.as_deref())?;
    eprintln!("fetched {} at {}", git.url, git.commit);
    let global = Global { workspace: Some(folder), ..global.clone() };
    Ok((Config::load(&global)?, Some(git)))
}

/// Flags of `run LABEL` that say nothing about a pipeline; none is passed over in silence.
fn refuse_flags_of_labels(args: &RunArgs) -> Result<()> {
    let resumed = args.pipeline.resume.is_some();
    let given = [
        ("--daemon", args.daemon.flag().is_some()),
        ("ARG", !args.arguments.is_empty()),
        ("--param", resumed && !args.options.configuration.params.is_empty()),
        ("--keep-going", resumed && args.options.keep_going),
    ];
    let given = given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag);
    match given.or_else(|| flag_of_targets(&args.options)) {
        None => Ok(()),
        Some(flag) => {
            let with = if resumed { "--resume" } else { "--template" };
            Err(Failure::input(format!("`{flag}` has no meaning with `{with}`"))
                .hint("a run takes `--param` and `--keep-going` when it begins")
                .into())
        }
    }
}

/// A flag that was given and says how targets are built, not steps of pipelines.
pub fn flag_of_targets(options: &BuildOptions) -> Option<&'static str> {
    let configuration = &options.configuration;
    let given = [
        ("--jobs", options.jobs.is_some()),
        ("--locked", options.locked),
        ("--sandbox", options.sandbox != SandboxChoice::Hermetic),
        ("--stale-records", options.stale_records != StaleRecords::Deny),
        ("--offline", options.offline),
        ("--events", options.events.is_some()),
        ("--trace", options.trace.is_some()),
        ("--platform", configuration.platform.is_some()),
        ("--config", !configuration.profiles.is_empty()),
        ("--aspects", !configuration.aspects.is_empty()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
}

pub(super) async fn begin(state: &State, created: RunCreated) -> Result<RunState> {
    let now_ms = driver::Clock::now_ms(&SystemClock);
    let (created, ruling) = start::permitted(created, now_ms)?;
    backup::when_due(state).await;
    let begun = driver::begin(&*state.journal, created, vec![ruling], now_ms).await;
    begun.map_err(start::drive_failure)
}

/// Has another process drive the run, which goes on when this one ends.
pub(super) fn detach(global: &Global, state: &State, run: &RunId) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let logs = state.folder.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make `{}`", logs.display()))?;
    let path = logs.join(format!("{run}.log"));
    let log = std::fs::File::create(&path)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = std::process::Command::new(program);
    command
        .args(["run", "--resume", run.as_str()])
        .arg("--cache")
        .arg(cache_dir(global)?)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    command.spawn().context("cannot start a process for the run")?;
    println!("{run}");
    eprintln!("hint: maestro watch {run}");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn drive(
    global: &Global,
    state: &State,
    loaded: RunState,
    points: Arc<dyn Checkpoints>,
    (take_over, no_wait): (bool, bool),
) -> Result<ExitCode> {
    let run = loaded.created.run.clone();
    // A run that just began is told from its beginning.
    let seen = if loaded.owner.is_none() { 0 } else { loaded.sequence };
    if loaded.ended.is_some() {
        return show(global, &loaded);
    }
    let cache = cache_dir(global)?;
    let (driver, _locks) = start::own(state, loaded, &cache, points, (take_over, no_wait)).await?;
    let ended = tokio::select! {
        ended = drive_with_lines(Follower::new(state, &run, seen), driver) => ended?,
        interrupted = interrupted(state, &run) => interrupted?,
    };
    start::discard(&ended)?;
    show(global, &ended)
}

/// Drives a run and prints its events as they come.
pub async fn drive_with_lines(mut follower: Follower<'_>, driver: Driver) -> Result<RunState> {
    let driving = driver.drive();
    tokio::pin!(driving);
    loop {
        tokio::select! {
            ended = &mut driving => {
                follower.print().await?;
                return ended.map_err(start::drive_failure);
            }
            () = tokio::time::sleep(PRINT) => follower.print().await?,
        }
    }
}

/// Waits for Ctrl-C, or for being asked to end.
pub async fn signalled() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle signals")?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The first Ctrl-C leaves the run as it is: it goes on when it is resumed.
async fn interrupted(state: &State, run: &RunId) -> Result<RunState> {
    signalled().await?;
    eprintln!("left where it is; what was under way is settled when it goes on");
    eprintln!("hint: maestro run --resume {run}");
    eprintln!("hint: maestro cancel {run}");
    journal::load(&*state.journal, run).await.map_err(failure)
}
