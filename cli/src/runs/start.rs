//! From a template to a run, and from a stored run back to what drives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use maestro_core::event::Severity;
use maestro_core::policy::{self, Policy as _};
use maestro_core::run::{
    Command, Owner, Principal, Ruling, RunCreated, RunId, RunState, RunStatus, request_digest,
};
use maestro_deliver::{holds_credentials, without_credentials};
use maestro_rules::pipeline::{self, Defaults, Given, Pipeline};
use maestro_runs::driver::{self, Driver, DriverOptions, Tools};
use maestro_runs::journal;
use maestro_runs::pipeline::{Compiled, Group, PipelineScript, RunContext, compile};
use maestro_runs::policy::denial;
use maestro_runs::{Checkpoints, Lease, LeaseError, Seat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::Asker;
use super::registry::registry;
use super::source::{self, GitSource};
use super::state::{State, failure};
use super::{SystemClock, identity};
use crate::budget;
use crate::config::{self, Config, PROJECT_FILE};
use crate::exit::Failure;
use crate::pipelines;

/// Most branches and tags that policies are told of.
const REFS_COUNT: &str = "--count=1000";
/// How often it is looked whether a place of a group is free.
const SEAT_LOOK: Duration = Duration::from_millis(200);

/// The text of a template with all that it includes, as it is stored with a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source {
    /// The file, below the workspace.
    file: String,
    /// Its text.
    text: String,
    /// The texts of files that it includes, by their paths.
    includes: BTreeMap<String, String>,
    /// The project's defaults.
    defaults: BTreeMap<String, Value>,
    /// The workspace.
    workspace: PathBuf,
    /// What it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git: Option<GitSource>,
    /// The steps that are wanted, with what they wait for; empty for the whole of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<String>,
}

/// What a user asked for beside the template.
pub struct Wishes<'a> {
    /// `NAME=VALUE`, as typed.
    pub params: &'a [String],
    /// `5usd`.
    pub budget: Option<&'a str>,
    /// Steps that need nothing of a failed one start.
    pub keep_going: bool,
    /// What the workspace is a copy of.
    pub git: Option<GitSource>,
    /// The steps that are wanted; empty for all.
    pub steps: &'a [String],
}

/// What the first event of a run says, for a template that a user names.
pub fn create(
    config: &Config,
    template: &str,
    wishes: &Wishes<'_>,
    initiator: Principal,
) -> Result<RunCreated> {
    // In a copy of a repository a path is one of that copy.
    let inside = config.workspace.join(template);
    let template = match inside.to_str() {
        Some(inside) if wishes.git.is_some() && Path::new(inside).is_file() => inside,
        _ => template,
    };
    let found = pipelines::resolve(config, template)?;
    let mut source = Source {
        text: pipelines::read(&found.path, &found.name)?,
        file: found.name,
        includes: BTreeMap::new(),
        defaults: pipelines::defaults(config)?,
        workspace: config.workspace.clone(),
        git: wishes.git.clone(),
        steps: wishes.steps.to_vec(),
    };
    let pipeline = check(&mut source, true, &|path| pipelines::included(config, path))?;
    if let Some(missing) = pipeline.missing.first() {
        let (step, field, key) = (&missing.step, missing.field, missing.key);
        return Err(Failure::input(format!("step `{step}` does not say its `{field}`"))
            .hint(format!("give it in `with`, or `{key}` in `[defaults]` of `{PROJECT_FILE}`"))
            .into());
    }
    let given = wishes.params.iter().map(|text| given(text)).collect::<Result<Vec<_>>>()?;
    let params = pipeline.template.bind(&given).map_err(|errors| {
        errors.iter().for_each(|error| eprintln!("{error}\n"));
        Failure::input(format!("{} of the params cannot be used", errors.len()))
    })?;
    let params: BTreeMap<String, Value> = serde_json::from_value(params)?;
    without_passwords(&pipeline, &params)?;
    let run = new_id(&pipeline.template.name.value)?;
    let context = context(config, &run, &pipeline, &initiator);
    let mut plan = compiled(&source, &pipeline, &params, &context)?.plan;
    if let Some(budget) = wishes.budget {
        plan.cap.usd_micros =
            Some(maestro_core::quantity::usd_micros(budget).ok_or_else(|| {
                Failure::input(format!("`{budget}` is no amount of money"))
                    .hint("write `5usd` or `0.25`")
            })?);
    }
    plan.keep_going = wishes.keep_going;
    Ok(RunCreated {
        run,
        plan,
        template_digest: request_digest(&serde_json::to_string(&source)?),
        source: serde_json::to_value(&source)?,
        params,
        context: serde_json::to_value(&context)?,
        initiator,
        policy: None,
        replay_of: None,
    })
}

/// The plan of a template, or of the part that is wanted.
fn compiled(
    source: &Source,
    pipeline: &Pipeline,
    params: &BTreeMap<String, Value>,
    context: &RunContext,
) -> Result<Compiled> {
    let whole = compile(pipeline, params, context);
    let whole = whole.map_err(|error| Failure::input(error.to_string()))?;
    if source.steps.is_empty() {
        return Ok(whole);
    }
    let name = &pipeline.template.name.value;
    let part = whole.part(&source.steps).map_err(|error| {
        Failure::input(error.to_string()).hint(format!("`maestro run --template {name}` does it"))
    });
    Ok(part?)
}

/// Refuses URLs with credentials in them: template and params stand in the journal as they are.
fn without_passwords(pipeline: &Pipeline, params: &BTreeMap<String, Value>) -> Result<()> {
    let refuse = |what: String| {
        Failure::input(format!("{what} is a URL with credentials in it"))
            .hint("take them out, and name a secret in `auth` or `secret`")
    };
    if let Some((name, _)) = params.iter().find(|(_, value)| holds_credentials_at_all(value)) {
        return Err(refuse(format!("param `{name}`")).into());
    }
    let template = &pipeline.template;
    let flow = pipeline.steps().iter();
    let called = flow.clone().flat_map(|step| step.on_failure.iter().chain(&step.on_cancel));
    let last = template.on_failure.iter().chain(&template.on_cancel);
    for step in flow.clone().chain(called).chain(last) {
        for (name, value) in &step.with {
            if value.known().is_some_and(|value| holds_credentials_at_all(&value)) {
                let place = pipeline.sources.location(name.span);
                return Err(refuse(format!("{place}: `{}`", name.value)).into());
            }
        }
    }
    Ok(())
}

/// Whether a URL with credentials stands anywhere in a value.
pub fn holds_credentials_at_all(value: &Value) -> bool {
    match value {
        Value::String(text) => holds_credentials(text),
        Value::Array(items) => items.iter().any(holds_credentials_at_all),
        Value::Object(fields) => fields.values().any(holds_credentials_at_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The same once more, as a new run of whoever types.
pub fn replay(state: &RunState, initiator: Principal) -> Result<RunCreated> {
    let old = &state.created;
    let run = new_id(&old.plan.template)?;
    let mut context: RunContext = serde_json::from_value(old.context.clone())?;
    context.run = json!({
        "id": run.as_str(), "template": old.plan.template, "actor": initiator.name,
    });
    let context = serde_json::to_value(context)?;
    let mut source: Source = serde_json::from_value(old.source.clone())?;
    if let Some(git) = &source.git {
        // A copy of its own, since the other run may still be at work in its.
        source.workspace = source.workspace.with_file_name(run.as_str());
        git.restore(&source.workspace)?;
    }
    let source = serde_json::to_value(source)?;
    let replay_of = Some(old.run.clone());
    Ok(RunCreated { run, initiator, context, source, replay_of, ..old.clone() })
}

/// Loads a template, and keeps the files that it includes. Warnings are told once, when a run
/// begins.
fn check(
    source: &mut Source,
    warn: bool,
    read: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Pipeline> {
    let seen = std::cell::RefCell::new(BTreeMap::new());
    let includes = |path: &str| {
        let text = read(path)?;
        seen.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    };
    let defaults: Defaults = source.defaults.clone();
    let checked = pipeline::load(&source.file, &source.text, &includes, &defaults);
    source.includes = seen.into_inner();
    for finding in &checked.findings {
        let severity = finding.diagnostic.severity;
        if severity == Severity::Error || (warn && severity == Severity::Warning) {
            eprintln!("{}\n", finding.diagnostic);
        }
    }
    checked.pipeline.ok_or_else(|| {
        Failure::input(format!("`{}` is no pipeline that can run", source.file))
            .hint("the errors above say where and why")
            .into()
    })
}

fn given(text: &str) -> Result<(String, Given)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), Given::Text(value.to_owned())))
        }
        _ => {
            Err(Failure::input(format!("`{text}` sets no param")).hint("write `NAME=VALUE`").into())
        }
    }
}

/// `TEMPLATE-TIME-RANDOM`, where time sorts and random tells apart.
fn new_id(template: &str) -> Result<RunId> {
    const NAME_BYTES: usize = 30;
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = template.chars().map(word).take(NAME_BYTES).collect();
    let name = name.trim_matches('-');
    let id = uuid::Uuid::now_v7().simple().to_string();
    let (time, random) = (&id[..11], &id[24..]);
    let text = if name.is_empty() {
        format!("{time}-{random}")
    } else {
        format!("{name}-{time}-{random}")
    };
    Ok(RunId::new(&text)?)
}

fn context(config: &Config, run: &RunId, pipeline: &Pipeline, initiator: &Principal) -> RunContext {
    let template = &pipeline.template.name.value;
    let (git, changed_files) = commit(&config.workspace);
    RunContext {
        git,
        event: json!({"name": "manual"}),
        run: json!({"id": run.as_str(), "template": template, "actor": initiator.name}),
        changed_files,
    }
}

/// The commit of the workspace, and the files that it changes; empty where it is in no repository.
fn commit(workspace: &Path) -> (Value, Vec<String>) {
    let ask = |arguments: &[&str]| git(workspace, arguments);
    let mut git = serde_json::Map::new();
    for (name, arguments) in [
        ("sha", &["rev-parse", "HEAD"][..]),
        ("short_sha", &["rev-parse", "--short", "HEAD"]),
        ("branch", &["rev-parse", "--abbrev-ref", "HEAD"]),
        ("tag", &["describe", "--tags", "--exact-match", "HEAD"]),
        ("base", &["rev-parse", "--verify", "--quiet", "HEAD^"]),
        ("message", &["log", "-1", "--format=%B"]),
        ("author", &["log", "-1", "--format=%an <%ae>"]),
        ("repository", &["config", "--get", "remote.origin.url"]),
    ] {
        if let Some(found) = ask(arguments) {
            // What the journal keeps holds no password, whatever the repository's URL does.
            let found = if name == "repository" { without_credentials(&found) } else { found };
            git.insert(name.to_owned(), found.into());
        }
    }
    let against_parent = ["diff", "--name-only", "--relative", "-z", "HEAD^", "HEAD"];
    let files = ask(&against_parent).or_else(|| ask(&["ls-files", "-z"])).unwrap_or_default();
    let files = files.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (Value::Object(git), files)
}

/// What git says in a workspace; `None` where it fails. It runs no program that the repository
/// names.
fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments)
        .current_dir(workspace)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end_matches('\n').to_owned())
}

/// The sources of a run that begins now.
fn source(workspace: &Path) -> policy::Source {
    let clean =
        git(workspace, &["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    let commit = git(workspace, &["rev-parse", "HEAD"]).filter(|_| clean);
    let Some(commit) = commit else { return policy::Source::Dirty {} };
    let list = ["for-each-ref", "--contains", "HEAD", REFS_COUNT, "--format=%(refname:short)"];
    let listed = git(workspace, &list).unwrap_or_default();
    let mut refs: Vec<String> = listed.lines().map(str::to_owned).collect();
    refs.sort();
    policy::Source::Commit { commit, refs }
}

/// Asks policy whether a run may start; one that may not leaves no trace.
pub fn permitted(mut created: RunCreated, now_ms: u64) -> Result<(RunCreated, Ruling)> {
    let state = driver::proposed(created.clone(), now_ms).map_err(drive_failure)?;
    let asker = Asker::of(&state)?;
    let question = asker.questions(&state).run_start(source(&asker.workspace));
    let decision = asker.policies.decide(&question);
    if !decision.is_allowed() {
        return Err(Failure::denied(denial(&decision)).into());
    }
    created.policy = Some(decision.policy.to_string());
    Ok((created, Ruling { task: None, by: None, decision }))
}

/// The template of a stored run, compiled again; refused if it has become another one.
pub(super) fn script(state: &RunState) -> Result<(PipelineScript, PathBuf)> {
    let source: Source = serde_json::from_value(state.created.source.clone())?;
    let (mut again, stored) = (source.clone(), source.includes);
    let read = |path: &str| stored.get(path).cloned().ok_or_else(|| "it was not stored".to_owned());
    let pipeline = check(&mut again, false, &read)?;
    let context: RunContext = serde_json::from_value(state.created.context.clone())?;
    let compiled = compiled(&again, &pipeline, &state.created.params, &context)?;
    let (mut ours, theirs) = (compiled.plan.clone(), state.plan());
    (ours.cap, ours.keep_going) = (theirs.cap, theirs.keep_going);
    if ours != *theirs {
        return Err(Failure::input(format!(
            "this Maestro reads the template of run `{}` otherwise than the one that began it",
            state.created.run
        ))
        .hint("resume it with the version that began it, or `maestro replay` it")
        .into());
    }
    Ok((PipelineScript::new(Arc::new(pipeline), compiled, context), source.workspace))
}

/// The name of the project of a run: that of its repository, where it is a copy of a commit, else
/// that of its workspace.
pub(super) fn project_name(run: &RunState) -> Result<String> {
    let source: Source = serde_json::from_value(run.created.source.clone())?;
    let folder = source.git.map_or(source.workspace, |git| PathBuf::from(git.url));
    let name = budget::project_name(&folder);
    Ok(name.strip_suffix(".git").unwrap_or(&name).to_owned())
}

/// Makes sure that the workspace of a run is there, where it is a copy of a commit.
fn restore(run: &RunState) -> Result<()> {
    let source: Source = serde_json::from_value(run.created.source.clone())?;
    source.git.map_or(Ok(()), |git| git.restore(&source.workspace))
}

/// Removes the workspace of a run that has succeeded, where it is a copy of a commit.
pub fn discard(run: &RunState) -> Result<()> {
    let source: Source = serde_json::from_value(run.created.source.clone())?;
    if source.git.is_none() || run.status() != RunStatus::Succeeded {
        return Ok(());
    }
    source::discard(&source.workspace)
}

/// What a process holds while it drives a run.
pub struct Locks {
    _lease: Lease,
    _seat: Option<Seat>,
}

/// A driver of a run, and the locks that it needs.
pub async fn own(
    state: &State,
    run: RunState,
    cache: &Path,
    checkpoints: Arc<dyn Checkpoints>,
    (take_over, leave_when_waiting): (bool, bool),
) -> Result<(Driver, Locks)> {
    restore(&run)?;
    let asker = Asker::of(&run)?;
    let principal = state.principal()?;
    let owner = Owner { host: identity::host(), pid: std::process::id(), principal };
    let name = run.created.run.clone();
    let lease = Lease::take(&state.leases(), &name, &owner, take_over);
    let lease = lease.map_err(|error| lease_failure(&error, &name))?;
    let group =
        asker.script.concurrency(&run).map_err(|failure| Failure::input(failure.message))?;
    let (seat, run) = match group {
        Some(group) => take_seat(state, run, &group).await?,
        None => (None, run),
    };
    let budget = config::budget(&asker.workspace)?;
    let tools = Tools {
        journal: state.journal.clone(),
        registry: registry(run.plan(), &asker.workspace, cache)?,
        policy: asker.policies,
        ledger: Arc::new(budget.ledger(&state.folder, &asker.project.name, checkpoints.clone())?),
        project: asker.project,
        clock: Arc::new(SystemClock),
        checkpoints,
    };
    let options = DriverOptions { leave_when_waiting, ..DriverOptions::default() };
    let owned = (owner, lease.took_over());
    let driver = Driver::own(tools, asker.script, options, run, owned).await;
    Ok((driver.map_err(drive_failure)?, Locks { _lease: lease, _seat: seat }))
}

fn lease_failure(error: &LeaseError, run: &RunId) -> Failure {
    match error {
        LeaseError::Held { .. } => Failure::input(error.to_string())
            .hint(format!("`maestro watch {run}` shows what it does"))
            .hint(format!("if that process is stopped: `maestro run --resume {run} --take-over`")),
        LeaseError::File { .. } => Failure::environment(error.to_string()),
    }
}

/// Waits for a place in the group of a run, having cancelled those who have one if the group says
/// so. A run that is cancelled meanwhile waits no longer.
async fn take_seat(
    state: &State,
    mut run: RunState,
    group: &Group,
) -> Result<(Option<Seat>, RunState)> {
    let name = run.created.run.clone();
    let mut told = Vec::new();
    loop {
        let place = (group.name.as_str(), group.limit);
        let taken = Seat::take(&state.leases(), place, &name);
        let holders = match taken.map_err(|error| lease_failure(&error, &name))? {
            Ok(seat) => return Ok((Some(seat), run)),
            Err(_) if run.cancelled.is_some() => return Ok((None, run)),
            Err(holders) => holders,
        };
        if holders != told {
            eprintln!("waiting for {}, in group `{}`", holders.join(", "), group.name);
            if group.cancel_running {
                cancel_all(state, &holders, &run).await?;
            }
            told = holders;
        }
        tokio::time::sleep(SEAT_LOOK).await;
        run = journal::catch_up(&*state.journal, run).await.map_err(failure)?;
    }
}

async fn cancel_all(state: &State, holders: &[String], for_run: &RunState) -> Result<()> {
    for holder in holders.iter().filter_map(|name| RunId::new(name).ok()) {
        let wish = |_: &RunState| {
            let by = for_run.created.initiator.clone();
            let reason = format!("`{}` takes its place", for_run.created.run);
            Ok(Command::Cancel { by, reason })
        };
        let cancelled = driver::command(&*state.journal, &holder, &SystemClock, wish).await;
        // One that ended meanwhile gives its place up by itself.
        let _ = cancelled.map_err(failure)?;
    }
    Ok(())
}

/// An error of a driver, with whose fault it is.
pub fn drive_failure(error: maestro_runs::DriveError) -> anyhow::Error {
    match error {
        maestro_runs::DriveError::Journal(error) => failure(error),
        maestro_runs::DriveError::Ledger(error) => budget::failure(&error).into(),
        other => Failure::new(maestro_core::FailureKind::Internal, other.to_string()).into(),
    }
}
