//! `maestro lock`: the record of the outside world: `--update`, `--check`, `--prune`, `accept`.
//!
//! Whatever the patterns name, only recorded actions and what those need are looked at; nothing
//! is compiled.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use maestro_cas::{Store, StoreOptions};
use maestro_core::run::Cap;
use maestro_core::{
    ActionClass, ActionGraph, ArtifactId, Digest, DigestFunction, Label, TargetPattern,
};
use maestro_executor::ledger::Ledger;
use maestro_executor::records::{
    CheckOptions, CheckReport, Record, UpdateOptions, Updater, accept, promote, prune,
};
use maestro_llm::steps::RECORD;
use maestro_llm::{LlmClient, LlmOptions, Price};
use maestro_runs::NoCheckpoints;

use crate::args::{Global, LockArgs, LockCommand};
use crate::budget::project_name;
use crate::commands::runs;
use crate::config::{self, Config, cache_dir, non_empty};
use crate::exit::{Failure, chain};
use crate::increment::Work;
use crate::invocation::{Invocation, Request, Wanted};
use crate::pipelines;
use crate::runs::state;

/// Records older than this are reported by `--check`, in days.
const AGE_DAYS_MAX: u32 = 365;
/// First pause before a call is tried again.
const BACKOFF: Duration = Duration::from_millis(500);

/// Runs the command.
pub fn lock(global: &Global, args: &LockArgs) -> Result<ExitCode> {
    match (&args.command, args.update, args.check, args.prune) {
        (Some(LockCommand::Accept { label }), ..) => accept_edit(global, label),
        (None, true, ..) if args.from_run.is_some() => promote_run(global, args),
        (None, true, ..) => update(global, args),
        (None, _, true, _) => check(global, args),
        (None, _, _, true) => prune_orphans(global, args),
        (None, ..) => Err(Failure::input("say what to do with the lock")
            .hint("`maestro lock --check` looks, `--update` makes live calls, `--prune` cleans up")
            .into()),
    }
}

fn patterns(args: &LockArgs) -> Vec<String> {
    if args.patterns.is_empty() { vec!["//...".to_owned()] } else { args.patterns.clone() }
}

fn start(global: &Global, args: &LockArgs, locked: bool) -> Result<Invocation> {
    let mut options = args.options.clone();
    options.locked = locked;
    options.keep_going = true;
    let request = Request::plain("lock", patterns(args), options);
    Invocation::start(global, request)
}

/// The outputs of the recorded actions that the requested targets need.
fn recorded(graph: &ActionGraph, targets: &[maestro_core::TargetId]) -> Result<Vec<Wanted>> {
    let mut requested: Vec<ArtifactId> = Vec::new();
    for id in targets {
        requested.extend(&graph.target(*id).files);
    }
    let plan = graph.plan(&requested).map_err(|e| Failure::input(e.to_string()))?;
    let actions = plan.order.iter().map(|action| graph.action(*action));
    let recorded = actions.filter(|spec| spec.class == ActionClass::Recorded).map(|spec| Wanted {
        label: graph.target(spec.owner).label.clone(),
        aspect: graph.target(spec.owner).aspect.as_deref().map(str::to_owned),
        target: spec.owner,
        artifacts: spec.outputs.iter().map(|output| output.artifact).collect(),
        runs: Vec::new(),
    });
    Ok(recorded.collect())
}

fn update(global: &Global, args: &LockArgs) -> Result<ExitCode> {
    let mut invocation = start(global, args, false)?;
    let endpoint = args
        .endpoint
        .clone()
        .or_else(|| non_empty("MAESTRO_LLM_ENDPOINT"))
        .or_else(|| invocation.config.project.llm_endpoint.clone())
        .ok_or_else(|| {
            Failure::input("no endpoint is configured that could be asked").hint(
                "name an OpenAI-compatible API with `--endpoint URL`, MAESTRO_LLM_ENDPOINT or \
                 `llm-endpoint` in maestro.toml",
            )
        })?;
    let mut options = LlmOptions::new(endpoint);
    options.api_key = non_empty("MAESTRO_LLM_API_KEY");
    options.backoff = BACKOFF;
    options.price = args.price.as_deref().map(parse_price).transpose()?;
    let client = LlmClient::new(options).map_err(|e| Failure::environment(chain(&e)))?;
    // A step that is named itself is asked again; one that is only needed, where it has no record.
    let mut named = Vec::new();
    for text in &args.patterns {
        let pattern = TargetPattern::parse(text, &invocation.config.package)
            .map_err(|e| Failure::input(e.to_string()))?;
        if matches!(pattern, TargetPattern::Single(_)) {
            named.push(pattern);
        }
    }
    let records = invocation.take_records()?.refreshing(named);
    invocation.records = Arc::new(records);
    let update = UpdateOptions {
        targets: Vec::new(),
        date: jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date(),
        cap: Cap {
            usd_micros: args.budget.as_deref().map(parse_budget).transpose()?,
            ..Cap::default()
        },
        holder: format!("lock {}", uuid::Uuid::now_v7().simple()),
    };
    let ledger = ledger(&invocation.config.workspace)?;
    let updater = Updater::new(invocation.records.clone(), Arc::new(client), ledger, update);
    let updater = Arc::new(updater);
    invocation.live = Some(updater.clone());
    let loaded = invocation.load(&invocation.request.patterns.clone())?;
    let wanted = recorded(&loaded.graph, &loaded.requested)?;
    let built = invocation.build(Work::whole(loaded), wanted)?;
    // What succeeded is kept even where another step failed: live calls cost money.
    let report =
        updater.finish().map_err(|e| Failure::new(e.kind(), chain(&e)).hints(e.hints()))?;
    updater.notices().iter().for_each(|notice| eprintln!("warning: {}", notice.message));
    report.recorded.iter().for_each(say_recorded);
    if report.recorded.is_empty() && built.report.success() {
        eprintln!("nothing to update: every recorded step has its record");
    }
    invocation.conclude(built)
}

/// The ledger of whoever pays for the calls of a workspace.
fn ledger(workspace: &Path) -> Result<Arc<dyn Ledger>> {
    let budget = config::budget(workspace)?;
    let folder = state::folder()?;
    Ok(Arc::new(budget.ledger(&folder, &project_name(workspace), Arc::new(NoCheckpoints))?))
}

/// Writes down what a run has asked, so that others need not.
fn promote_run(global: &Global, args: &LockArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let name = args.from_run.as_deref().unwrap_or_default();
    let run = runs::load(name)?;
    let records: Vec<Digest> = run
        .tasks
        .values()
        .filter_map(|task| task.success.as_ref()?.artifacts.get(RECORD))
        .filter_map(|digest| digest.parse().ok())
        .collect();
    if records.is_empty() {
        eprintln!("nothing to update: the run recorded nothing that the lock does not have");
        return Ok(ExitCode::SUCCESS);
    }
    let options = StoreOptions { root: cache_dir(global)?, function: DigestFunction::Blake3 };
    let report = promote(&config.workspace, &Store::open(options)?, &records);
    let report = report.map_err(|error| {
        Failure::environment(chain(&error))
            .hint(format!("`maestro replay {name}` asks again, in a new run"))
    })?;
    report.recorded.iter().for_each(say_recorded);
    Ok(ExitCode::SUCCESS)
}

fn say_recorded(record: &Record) {
    eprintln!(
        "recorded {} ({}): {} + {} tokens, {}",
        record.label,
        record.step,
        record.prompt_tokens,
        record.completion_tokens,
        crate::console::dollars(record.cost_usd_micros)
    );
}

fn parse_price(text: &str) -> Result<Price> {
    Ok(Price::parse(text).ok_or_else(|| {
        Failure::input(format!("`{text}` is not a price"))
            .hint("write micro-dollars per million tokens of input and output: `--price IN,OUT`")
    })?)
}

/// Reads `5usd` or `0.25usd`.
fn parse_budget(text: &str) -> Result<u64> {
    let micros = text
        .strip_suffix("usd")
        .and_then(|digits| digits.parse::<f64>().ok())
        .and_then(maestro_llm::price::micros);
    Ok(micros.ok_or_else(|| {
        Failure::input(format!("`{text}` is not a budget")).hint("write it as `--budget 5usd`")
    })?)
}

fn check(global: &Global, args: &LockArgs) -> Result<ExitCode> {
    let invocation = start(global, args, true)?;
    let report = look(&invocation, args)?;
    for asked in &report.stale {
        println!("stale     {} ({})", asked.label, asked.step);
    }
    for record in &report.orphaned {
        println!("orphaned  {} ({})", record.label, record.step);
    }
    for (record, days) in &report.aged {
        println!("aged      {} ({}): {days} days", record.label, record.step);
    }
    if report.is_clean() {
        println!("the lock answers every recorded step");
        return Ok(ExitCode::SUCCESS);
    }
    if !report.stale.is_empty() {
        eprintln!("hint: `maestro lock --update` asks for what is stale");
    }
    if !report.orphaned.is_empty() {
        eprintln!("hint: `maestro lock --prune` drops what is orphaned");
    }
    Ok(ExitCode::from(1))
}

/// Looks every recorded step up and judges the lock.
fn look(invocation: &Invocation, args: &LockArgs) -> Result<CheckReport> {
    let loaded = invocation.load(&patterns(args))?;
    let wanted = recorded(&loaded.graph, &loaded.requested)?;
    let built = invocation.build(Work::whole(loaded), wanted)?;
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let complete = args.patterns.is_empty() || args.patterns.iter().any(|p| p == "//...");
    // A step that was not reached asked for nothing; then nothing may be called an orphan.
    let complete = complete && built.report.failed.iter().all(|f| f.error.is_record_miss());
    let steps = pipelines::step_labels(&invocation.config)?;
    let complete = complete && steps.is_some();
    let options = CheckOptions { today, age_days_max: Some(AGE_DAYS_MAX), complete };
    let mut report = invocation.records.check(options);
    // What runs ask is not asked here.
    let steps = steps.unwrap_or_default();
    report.orphaned.retain(|record| !steps.contains(&record.label));
    Ok(report)
}

fn prune_orphans(global: &Global, args: &LockArgs) -> Result<ExitCode> {
    if !args.patterns.is_empty() {
        return Err(Failure::input("`lock --prune` takes no patterns")
            .hint("an entry is an orphan only if no target of the whole workspace uses it")
            .into());
    }
    let invocation = start(global, args, true)?;
    let report = look(&invocation, args)?;
    let root = invocation.config.workspace.clone();
    let written = prune(&root, &report.orphaned)
        .map_err(|e| Failure::new(e.kind(), chain(&e)).hints(e.hints()))?;
    for record in &report.orphaned {
        println!("dropped {} ({})", record.label, record.step);
    }
    for file in &written.removed {
        println!("removed {file}");
    }
    Ok(ExitCode::SUCCESS)
}

fn accept_edit(global: &Global, label: &str) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let label =
        Label::parse(label, "", &config.package).map_err(|e| Failure::input(e.to_string()))?;
    let accepted = accept(&config.workspace, &label).map_err(|e| Failure::input(chain(&e)))?;
    if accepted.is_empty() {
        println!("nothing to accept: the answers of {label} are as recorded");
    }
    for one in &accepted {
        let marked = if one.record.edited { "marked as edited" } else { "as recorded again" };
        println!("accepted {} ({}): {marked}", one.record.label, one.record.step);
    }
    Ok(ExitCode::SUCCESS)
}
