//! The process that is killed: drives one run of a small release, from wherever it is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use maestro_core::policy::{self, Decision, Input, Policy};
use maestro_core::run::event::{Item, Success};
use maestro_core::run::*;
use maestro_core::tenant::{TenantCaps, TenantName};
use maestro_core::{ActionClass, DigestFunction};
use maestro_executor::step::{Effect, Registry, Reply, Stop, WorkFailure, Worker};
use maestro_runs::driver::{self, Clock, Tools};
use maestro_runs::journal::sqlite::SqliteJournal;
use maestro_runs::journal::{self, JournalError};
use maestro_runs::ledger::SqliteLedger;
use maestro_runs::*;
use serde_json::{Value, json};

use super::far_side;

/// The process that decides whether this one goes on.
pub struct Judge(Mutex<UnixStream>);

impl Checkpoints for Judge {
    fn reached(&self, point: Point, what: &str) {
        let mut stream = self.0.lock().expect("unpoisoned");
        let line = format!("{} {what}\n", point.name());
        let asked = stream.write_all(line.as_bytes());
        let heard = asked.and_then(|()| stream.read_exact(&mut [0]));
        if heard.is_err() {
            // The judge is gone, and so is the reason to go on.
            std::process::exit(9);
        }
    }
}

struct RealClock;

impl Clock for RealClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::try_from(since.as_millis()).expect("before the year 500,000,000")
    }
}

struct Template;

impl Script for Template {
    fn expand(&self, _: &RunState, _: StepIndex) -> Result<Expansion, Failure> {
        let item = |label: &str| Item { label: label.into(), value: label.into() };
        Ok(Expansion::Items(vec![item("linux"), item("mac")]))
    }
    fn inputs(&self, state: &RunState, task: TaskId) -> Result<Value, Failure> {
        Ok(json!({"task": state.name(task)}))
    }
    fn place(&self, _: &RunState, _: StepIndex) -> Place {
        Place::Nowhere
    }
    fn finish(
        &self,
        _: &RunState,
        task: TaskId,
        success: Success,
    ) -> Result<(Success, bool), Failure> {
        Ok((success, task.round == 1))
    }
    fn approval(
        &self,
        _: &RunState,
        _: TaskId,
        requests: &BTreeMap<StepIndex, String>,
        now_ms: u64,
    ) -> ApprovalRequest {
        let guard = |(step, request): (&StepIndex, &String)| Guarded {
            step: *step,
            request: Some(request_digest(request)),
        };
        ApprovalRequest {
            subject: "release".into(),
            guarded: requests.iter().map(guard).collect(),
            summary: Vec::new(),
            asked_at_ms: now_ms,
            expires_at_ms: now_ms + 600_000,
        }
    }
}

/// The policy of those who have none.
struct AllowAll;

impl Policy for AllowAll {
    fn decide(&self, input: &Input) -> Decision {
        let policy = DigestFunction::Sha256.digest(b"");
        let (point, input) = (input.point(), input.digest().expect("a digest"));
        Decision { point, verdict: policy::Verdict::Allow, policy, input }
    }
}

/// What a build reserves.
pub const BOUND: Amount = Amount { usd_micros: 10, tokens: 5 };
/// What it costs.
pub const COST: Amount = Amount { usd_micros: 3, tokens: 2 };
/// What all builds of a run may cost, if none of them is killed: build, two tests, two rounds.
pub const BUILDS: u64 = 5;

struct Build;

#[async_trait]
impl Worker for Build {
    fn costs(&self) -> bool {
        true
    }
    async fn bound(&self, _: &Value) -> Result<Option<Amount>, Failure> {
        Ok(Some(BOUND))
    }
    async fn run(&self, _: &Value, _: Amount, _: &Stop) -> Result<Success, WorkFailure> {
        Ok(Success { spent: COST, ..Success::default() })
    }
}

/// The ledger of a folder.
pub fn ledger(folder: &Path, checkpoints: Arc<dyn Checkpoints>) -> SqliteLedger {
    let tenant = TenantName::new("release").expect("a name");
    let owner = (tenant, TenantCaps::default());
    SqliteLedger::new(&folder.join("budget.db"), owner, Arc::new(RealClock), checkpoints)
}

struct Post {
    port: u16,
}

#[async_trait]
impl Effect for Post {
    fn render(&self, inputs: &Value) -> Result<String, Failure> {
        Ok(inputs["task"].as_str().expect("a name").to_owned())
    }
    async fn send(&self, request: &str, key: &str, _: &Stop) -> Reply {
        match far_side::send(self.port, key, request) {
            Some(()) => Reply::Done(Success::default()),
            None => Reply::Unclear(Failure::new(FailureClass::Infrastructure, "no answer")),
        }
    }
}

fn step(id: &str, after: &[u32], uses: &str, kind: StepKind) -> StepPlan {
    StepPlan {
        after: after.iter().copied().map(StepIndex).collect(),
        retry: Retry { backoff_ms: 1, ..Retry::default() },
        ..StepPlan::new(id, uses, kind)
    }
}

/// Build, test on two systems, wait for two rounds, ask, deploy, notify.
fn release(far_side: FarSide) -> Plan {
    let work =
        |id: &str, after: &[u32]| step(id, after, "build", StepKind::Work(ActionClass::Pure));
    let mut test = work("test", &[0]);
    test.repeat = Repeat::ForEach { max: 4 };
    let mut soak = work("soak", &[1]);
    soak.repeat = Repeat::Until { max: 3, every_ms: 1 };
    let gate = Gate { approvals: 1, roles: Vec::new(), expires_ms: 600_000 };
    let steps = vec![
        work("build", &[]),
        test,
        soak,
        step("ok", &[2], "gate", StepKind::Gate(gate)),
        step("deploy", &[3], "post", StepKind::Effect(far_side)),
        step("notify", &[4], "post", StepKind::Effect(far_side)),
    ];
    Plan {
        template: "release".into(),
        steps,
        cap: Cap::default(),
        keep_going: false,
        timeout_ms: None,
    }
}

fn person(name: &str) -> Principal {
    Principal { name: name.into(), issuer: "local".into(), roles: Vec::new() }
}

/// Drives the run of `folder` until it ends or is parked, and prints how it stands.
pub fn main(folder: &Path) {
    let settings = std::fs::read_to_string(folder.join("settings")).expect("settings");
    let (port, far_side) = settings.split_once(' ').expect("two settings");
    let far_side = match far_side {
        "idempotent" => FarSide::Idempotent,
        _ => FarSide::Unknown,
    };
    let judge = UnixStream::connect(folder.join("judge")).expect("a judge");
    let checkpoints: Arc<dyn Checkpoints> = Arc::new(Judge(Mutex::new(judge)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let port = port.parse().expect("a port");
    let status = runtime.block_on(drive(folder, port, far_side, checkpoints));
    std::fs::write(folder.join("status"), status.name()).expect("written");
}

async fn drive(
    folder: &Path,
    port: u16,
    far_side: FarSide,
    checkpoints: Arc<dyn Checkpoints>,
) -> RunStatus {
    let journal = SqliteJournal::open(&folder.join("runs.db"), checkpoints.clone());
    let journal: Arc<dyn Journal> = Arc::new(journal.expect("opens"));
    let run = RunId::new("r1").expect("a run id");
    let state = match journal::load(&*journal, &run).await {
        Ok(state) => state,
        Err(JournalError::Unknown(_)) => {
            let created = RunCreated {
                run: run.clone(),
                plan: release(far_side),
                source: Value::Null,
                template_digest: String::new(),
                params: BTreeMap::new(),
                context: Value::Null,
                initiator: person("ann"),
                policy: None,
                replay_of: None,
            };
            driver::begin(&*journal, created, Vec::new(), RealClock.now_ms()).await.expect("begins")
        }
        Err(other) => panic!("{other}"),
    };
    if state.ended.is_some() {
        return state.status();
    }
    let owner = Owner { host: "here".into(), pid: std::process::id(), principal: person("ann") };
    let lease = Lease::take(&folder.join("leases"), &run, &owner, false).expect("the lease");
    let registry = Registry::default()
        .worker("build", Arc::new(Build))
        .effect("post", Arc::new(Post { port }));
    let tools = Tools {
        journal: journal.clone(),
        registry,
        policy: Arc::new(AllowAll),
        project: Arc::default(),
        ledger: Arc::new(ledger(folder, checkpoints.clone())),
        clock: Arc::new(RealClock),
        checkpoints,
    };
    let options = DriverOptions { leave_when_waiting: true, parallel: 1, ..Default::default() };
    let mut state = state;
    loop {
        let script = Arc::new(Template);
        let owned = (owner.clone(), false);
        let driver = Driver::own(tools.clone(), script, options.clone(), state, owned).await;
        state = driver.expect("owns").drive().await.expect("drives");
        if state.status() != RunStatus::Waiting {
            drop(lease);
            return state.status();
        }
        approve(&*journal, &run).await;
        state = journal::load(&*journal, &run).await.expect("loads");
    }
}

/// Somebody approves whatever waits.
async fn approve(journal: &dyn Journal, run: &RunId) {
    let approved = driver::command(journal, run, &RealClock, |state| {
        let gate = state.gates.iter().find(|(_, gate)| !gate.open);
        let (task, gate) = gate.ok_or(Refusal::NotEnded)?;
        let subject = gate.request.subject.clone();
        Ok(Command::Approve { task: *task, subject, by: person("bob"), reason: String::new() })
    });
    approved.await.expect("the journal works").expect("it may");
}
