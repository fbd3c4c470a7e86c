//! What a run costs beyond its steps: real templates, policies and journal, and steps that do
//! nothing.
//!
//! | arguments | what runs |
//! |---|---|
//! | `chain N` | one run of N steps, each after the other |
//! | `many R N` | R such runs at once in one process |
//! | `foreach N` | one step over N items |
//!
//! The journal lies in the folder that `LOAD_STATE` names, else in one that goes away.
//! Prints one JSON object. `cargo xtask bench runs` calls it and writes the page about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use maestro_core::policy::{Decision, Input, Policy};
use maestro_core::run::event::Success;
use maestro_core::run::{Amount, Owner, Principal, Ruling, RunCreated, RunId, RunState, RunStatus};
use maestro_core::tenant::{TenantCaps, TenantName};
use maestro_executor::step::{Registry, Stop, WorkFailure, Worker};
use maestro_policy::{BUILTIN, Policies, Shipped, Sources};
use maestro_rules::pipeline::{self, Defaults};
use maestro_runs::NoCheckpoints;
use maestro_runs::driver::{self, Clock, Driver, DriverOptions, Tools};
use maestro_runs::journal::sqlite::SqliteJournal;
use maestro_runs::journal::{self, Append, Journal, JournalError, RunSummary};
use maestro_runs::ledger::SqliteLedger;
use maestro_runs::pipeline::{PipelineScript, RunContext, compile};
use maestro_runs::policy::Project;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A step that is done at once.
struct Nothing;

#[async_trait]
impl Worker for Nothing {
    async fn run(&self, _: &Value, _: Amount, _: &Stop) -> Result<Success, WorkFailure> {
        Ok(Success::default())
    }
}

struct RealClock;

impl Clock for RealClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long something took, all calls together.
#[derive(Default)]
struct Spent(AtomicU64);

impl Spent {
    fn since(&self, begun: Instant) {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Policies, timed.
struct TimedPolicy {
    policies: Policies,
    spent: Arc<Spent>,
}

impl Policy for TimedPolicy {
    fn decide(&self, input: &Input) -> Decision {
        let begun = Instant::now();
        let decision = self.policies.decide(input);
        self.spent.since(begun);
        decision
    }
}

/// A journal, timed.
struct TimedJournal {
    journal: SqliteJournal,
    spent: Arc<Spent>,
}

#[async_trait]
impl Journal for TimedJournal {
    async fn append(&self, append: Append) -> Result<u64, JournalError> {
        let begun = Instant::now();
        let appended = self.journal.append(append).await;
        self.spent.since(begun);
        appended
    }

    async fn read(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<maestro_core::run::Entry>, JournalError> {
        self.journal.read(run, after, limit).await
    }

    async fn last(&self, run: &RunId) -> Result<(u64, u64), JournalError> {
        self.journal.last(run).await
    }

    async fn snapshot(&self, run: &RunId) -> Result<Option<RunState>, JournalError> {
        self.journal.snapshot(run).await
    }

    async fn keep_snapshot(&self, state: &RunState) -> Result<(), JournalError> {
        self.journal.keep_snapshot(state).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<RunSummary>, JournalError> {
        self.journal.list(limit).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.journal.changes()
    }
}

/// `N` steps that do nothing, one after the other, or one over `N` items.
fn template(steps: usize, items: Option<usize>) -> String {
    let mut text = "name: load\nsteps:\n".to_owned();
    for number in 0..steps {
        text.push_str(&format!(
            "  - id: s{number}\n    uses: test\n    with: {{ targets: [\"//a:t{number}\"] }}\n"
        ));
    }
    if let Some(items) = items {
        let list: Vec<String> = (0..items).map(|item| item.to_string()).collect();
        text.push_str(&format!("    foreach: [{}]\n    max: {items}\n", list.join(", ")));
    }
    text
}

/// What all runs of a process share.
struct Bench {
    tools: Tools,
    template: String,
    in_policy: Arc<Spent>,
    in_journal: Arc<Spent>,
}

fn somebody() -> Principal {
    Principal { name: "ann".into(), issuer: "local".into(), roles: Vec::new() }
}

impl Bench {
    fn new(folder: &Path, template: String) -> Self {
        let journal = SqliteJournal::open(&folder.join("runs.db"), Arc::new(NoCheckpoints));
        let sources = Sources::default().with(BUILTIN.iter().map(Shipped::module));
        let policies = Policies::load(&sources).expect("the built-in policies load");
        let (in_policy, in_journal) = (Arc::new(Spent::default()), Arc::new(Spent::default()));
        let journal = journal.expect("an empty folder");
        let payer = (TenantName::new("load").expect("a name"), TenantCaps::default());
        let (clock, nobody) = (Arc::new(RealClock), Arc::new(NoCheckpoints));
        let ledger = SqliteLedger::new(&folder.join("budget.db"), payer, clock, nobody);
        let tools = Tools {
            journal: Arc::new(TimedJournal { journal, spent: in_journal.clone() }),
            registry: Registry::default().worker("test", Arc::new(Nothing)),
            policy: Arc::new(TimedPolicy { policies, spent: in_policy.clone() }),
            project: Arc::new(Project::default()),
            ledger: Arc::new(ledger),
            clock: Arc::new(RealClock),
            checkpoints: Arc::new(NoCheckpoints),
        };
        Self { tools, template, in_policy, in_journal }
    }

    /// Runs the template once, as run `name`.
    async fn run(&self, name: &str) -> RunState {
        let includes = |path: &str| Err(format!("`{path}` is not there"));
        let checked = pipeline::load("load.yaml", &self.template, &includes, &Defaults::new());
        let pipeline = Arc::new(checked.pipeline.expect("a template without errors"));
        let context = RunContext::default();
        let compiled = compile(&pipeline, &BTreeMap::new(), &context).expect("a plan");
        let created = RunCreated {
            run: RunId::new(name).expect("a name"),
            plan: compiled.plan.clone(),
            source: json!(self.template),
            template_digest: String::new(),
            params: BTreeMap::new(),
            context: Value::Null,
            initiator: somebody(),
            policy: None,
            replay_of: None,
        };
        let now_ms = RealClock.now_ms();
        let rulings: Vec<Ruling> = Vec::new();
        let state = driver::begin(&*self.tools.journal, created, rulings, now_ms).await;
        let script = Arc::new(PipelineScript::new(pipeline, compiled, context));
        let owner = Owner { host: "bench".into(), pid: std::process::id(), principal: somebody() };
        let options = DriverOptions::default();
        let state = state.expect("a new run");
        let driver = Driver::own(self.tools.clone(), script, options, state, (owner, false)).await;
        driver.expect("nobody else has it").drive().await.expect("it is driven to its end")
    }
}

/// The peak of this process's memory, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn per_step(spent: Duration, steps: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / steps as f64
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok());
    let (runs, steps, items) = match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("chain"), Some(steps), None) => (1, steps, None),
        (Some("many"), Some(runs), Some(steps)) => (runs, steps, None),
        (Some("foreach"), Some(items), None) => (1, 1, Some(items)),
        _ => panic!("usage: load chain N | many R N | foreach N"),
    };
    let temporary = tempfile::TempDir::new().expect("a folder");
    let kept = std::env::var_os("LOAD_STATE").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    let bench = Arc::new(Bench::new(&folder, template(steps, items)));
    let begun = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for run in 0..runs {
        let bench = bench.clone();
        all.spawn(async move { bench.run(&format!("r{run}")).await.status() });
    }
    while let Some(status) = all.join_next().await {
        assert_eq!(status.expect("no panic"), RunStatus::Succeeded);
    }
    let elapsed = begun.elapsed();
    let tasks = runs * items.unwrap_or(steps);
    let begun = Instant::now();
    let first = RunId::new("r0").expect("a name");
    let state = journal::load(&*bench.tools.journal, &first).await.expect("it is there");
    let loaded = begun.elapsed();
    println!(
        "{}",
        json!({
            "tasks": tasks,
            "seconds": elapsed.as_secs_f64(),
            "tasks_per_second": tasks as f64 / elapsed.as_secs_f64(),
            "micros_per_task": per_step(elapsed, tasks),
            "policy_micros_per_task": bench.in_policy.micros() as f64 / tasks as f64,
            "journal_micros_per_task": bench.in_journal.micros() as f64 / tasks as f64,
            "events": state.sequence,
            "load_milliseconds": loaded.as_secs_f64() * 1e3,
            "memory_bytes": memory(),
        })
    );
}
