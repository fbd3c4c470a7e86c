//! Drivers over a real journal, with work and effects that a test can watch.

mod budget;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use maestro_core::policy::{self as rules, Decision, Input, Policy, Reason};
use maestro_core::run::event::{Item, Success};
use maestro_core::run::*;
use maestro_core::tenant::TenantCaps;
use maestro_core::{ActionClass, DigestFunction};
use maestro_executor::step::{Effect, Found, Reach, Reply, Stop, WorkFailure, Worker};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::checkpoint::NoCheckpoints;
use crate::journal::sqlite::SqliteJournal;
use crate::script::{Expansion, Place};

struct RealClock;
impl Clock for RealClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        since.as_millis() as u64
    }
}

/// Two items for each `foreach`; conditions hold; `until` holds in the second round.
struct Plain;
impl Script for Plain {
    fn expand(&self, state: &RunState, step: StepIndex) -> Result<Expansion, Failure> {
        let item = |n: u32| Item { label: n.to_string(), value: n.into() };
        Ok(match state.plan().steps[step.index()].repeat {
            Repeat::ForEach { .. } => Expansion::Items(vec![item(0), item(1)]),
            _ => Expansion::Items(vec![Item::only()]),
        })
    }
    fn inputs(&self, state: &RunState, task: TaskId) -> Result<Value, Failure> {
        Ok(json!({"name": state.name(task)}))
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
        state: &RunState,
        task: TaskId,
        requests: &BTreeMap<StepIndex, String>,
        now_ms: u64,
    ) -> ApprovalRequest {
        let guard = |(step, request): (&StepIndex, &String)| Guarded {
            step: *step,
            request: Some(request_digest(request)),
        };
        ApprovalRequest {
            subject: format!("subject of {}", state.name(task)),
            guarded: requests.iter().map(guard).collect(),
            summary: Vec::new(),
            asked_at_ms: now_ms,
            expires_at_ms: now_ms + 60_000,
        }
    }
}

/// What the world has seen, and how it answers.
#[derive(Default)]
struct World {
    worked: Mutex<Vec<String>>,
    applied: Mutex<Vec<String>>,
    keys: Mutex<BTreeSet<String>>,
    /// Names whose first answer is lost.
    lossy: Mutex<BTreeSet<String>>,
    /// Names that fail so many times.
    failing: Mutex<BTreeMap<String, u32>>,
    /// Names that wait until they are cancelled.
    hanging: BTreeSet<String>,
    /// Names that panic.
    panicking: BTreeSet<String>,
    /// It knows of no request that it was sent.
    forgets: bool,
}

type Deny = Box<dyn Fn(&Input) -> Vec<Reason> + Send + Sync>;

/// A policy that a test writes, and what it was asked.
#[derive(Default)]
struct Rules {
    asked: Mutex<Vec<Input>>,
    deny: Option<Deny>,
}

impl Policy for Rules {
    fn decide(&self, input: &Input) -> Decision {
        self.asked.lock().expect("unpoisoned").push(input.clone());
        let reasons = self.deny.as_ref().map(|deny| deny(input)).unwrap_or_default();
        let verdict = match reasons.is_empty() {
            true => rules::Verdict::Allow,
            false => rules::Verdict::Deny { reasons },
        };
        let (point, input) = (input.point(), input.digest().expect("a digest"));
        Decision { point, verdict, policy: DigestFunction::Sha256.digest(b"rules"), input }
    }
}

fn name(inputs: &Value) -> String {
    inputs["name"].as_str().expect("a name").to_owned()
}

#[async_trait]
impl Worker for World {
    async fn run(&self, inputs: &Value, _: Amount, cancel: &Stop) -> Result<Success, WorkFailure> {
        let name = name(inputs);
        self.worked.lock().expect("unpoisoned").push(name.clone());
        assert!(!self.panicking.contains(&name), "as it was told");
        if self.hanging.contains(&name) {
            cancel.cancelled().await;
            return Err(Failure::new(FailureClass::Cancelled, "stopped").into());
        }
        if let Some(left) = self.failing.lock().expect("unpoisoned").get_mut(&name)
            && *left > 0
        {
            *left -= 1;
            return Err(Failure::new(FailureClass::Infrastructure, "it broke").into());
        }
        Ok(Success::default())
    }
}

#[async_trait]
impl Effect for World {
    fn render(&self, inputs: &Value) -> Result<String, Failure> {
        Ok(inputs.to_string())
    }
    fn reach(&self, inputs: &Value) -> Result<Reach, Failure> {
        let hosts = [(format!("{}.example", name(inputs)), 443)];
        Ok(Reach { hosts: hosts.into(), secrets: ["token".to_owned()].into() })
    }
    async fn send(&self, request: &str, key: &str, _: &Stop) -> Reply {
        let request: Value = serde_json::from_str(request).expect("as rendered");
        let name = name(&request);
        assert!(!self.panicking.contains(&name), "as it was told");
        if self.keys.lock().expect("unpoisoned").insert(key.to_owned()) {
            self.applied.lock().expect("unpoisoned").push(name.clone());
        }
        match self.lossy.lock().expect("unpoisoned").remove(&name) {
            true => Reply::Unclear(Failure::new(FailureClass::Infrastructure, "connection reset")),
            false => Reply::Done(Success::default()),
        }
    }
    async fn find(&self, _: &str, key: &str, _: &Stop) -> Found {
        match !self.forgets && self.keys.lock().expect("unpoisoned").contains(key) {
            true => Found::Done(Success::default()),
            false => Found::NotDone,
        }
    }
}

fn step(id: &str, after: &[u32], kind: StepKind) -> StepPlan {
    let uses = if matches!(kind, StepKind::Effect(_)) { "effect" } else { "work" };
    StepPlan {
        after: after.iter().copied().map(StepIndex).collect(),
        retry: Retry { backoff_ms: 1, ..Retry::default() },
        ..StepPlan::new(id, uses, kind)
    }
}

fn work(id: &str, after: &[u32]) -> StepPlan {
    step(id, after, StepKind::Work(ActionClass::Pure))
}

fn person(name: &str) -> Principal {
    Principal { name: name.into(), issuer: "local".into(), roles: vec!["release-manager".into()] }
}

struct Bench {
    _folder: TempDir,
    tools: Tools,
    world: Arc<World>,
}

impl Bench {
    fn new(world: World) -> Self {
        let folder = TempDir::new().expect("a folder");
        let checkpoints = Arc::new(NoCheckpoints);
        let journal = SqliteJournal::open(&folder.path().join("runs.db"), checkpoints.clone());
        let world = Arc::new(world);
        let registry =
            Registry::default().worker("work", world.clone()).effect("effect", world.clone());
        let tools = Tools {
            journal: Arc::new(journal.expect("opens")),
            registry,
            policy: Arc::new(Rules::default()),
            project: Arc::default(),
            ledger: Arc::new(budget::ledger(folder.path(), TenantCaps::default())),
            clock: Arc::new(RealClock),
            checkpoints,
        };
        Self { _folder: folder, tools, world }
    }

    async fn begin(&self, steps: Vec<StepPlan>) -> RunState {
        let plan = Plan {
            template: "t".into(),
            steps,
            cap: Cap::default(),
            keep_going: false,
            timeout_ms: None,
        };
        let created = RunCreated {
            run: RunId::new("r1").expect("a run id"),
            plan,
            source: Value::Null,
            template_digest: String::new(),
            params: BTreeMap::new(),
            context: Value::Null,
            initiator: person("ann"),
            policy: None,
            replay_of: None,
        };
        begin(&*self.tools.journal, created, Vec::new(), 1).await.expect("begins")
    }

    async fn driver(&self, state: RunState) -> Driver {
        let options = DriverOptions {
            leave_when_waiting: true,
            grace: Duration::from_millis(100),
            ..DriverOptions::default()
        };
        let owner = Owner { host: "h".into(), pid: 1, principal: person("ann") };
        let owned =
            Driver::own(self.tools.clone(), Arc::new(Plain), options, state, (owner, false));
        owned.await.expect("owns")
    }

    async fn drive(&self, state: RunState) -> RunState {
        self.driver(state).await.drive().await.expect("drives")
    }

    async fn person(&self, wish: impl Fn(&RunState) -> Result<Command, Refusal>) -> RunState {
        let run = RunId::new("r1").expect("a run id");
        let done = command(&*self.tools.journal, &run, &RealClock, wish).await;
        done.expect("the journal works").expect("it is allowed")
    }

    fn applied(&self) -> Vec<String> {
        self.world.applied.lock().expect("unpoisoned").clone()
    }
}

#[tokio::test]
async fn a_run_is_driven_to_its_end() {
    let bench = Bench::new(World::default());
    let mut many = work("many", &[0]);
    many.repeat = Repeat::ForEach { max: 5 };
    let mut poll = work("poll", &[1]);
    poll.repeat = Repeat::Until { max: 3, every_ms: 5 };
    let send = step("send", &[2], StepKind::Effect(FarSide::Idempotent));
    let state = bench.begin(vec![work("one", &[]), many, poll, send]).await;
    let end = bench.drive(state).await;
    assert_eq!(end.status(), RunStatus::Succeeded);
    let mut worked = bench.world.worked.lock().expect("unpoisoned").clone();
    worked.sort_unstable();
    assert_eq!(worked, ["many[0]", "many[1]", "one", "poll", "poll#2"]);
    assert_eq!(bench.applied(), ["send"]);
    let read = journal::load(&*bench.tools.journal, &end.created.run).await.expect("loads");
    assert_eq!(read, end);
}

#[tokio::test]
async fn failures_of_machines_are_tried_again() {
    let failing = Mutex::new([("flaky".to_owned(), 2), ("dead".to_owned(), 9)].into());
    let bench = Bench::new(World { failing, ..World::default() });
    let state = bench.begin(vec![work("flaky", &[]), work("dead", &[0])]).await;
    let end = bench.drive(state).await;
    assert_eq!(end.status(), RunStatus::Failed);
    let worked = bench.world.worked.lock().expect("unpoisoned").clone();
    assert_eq!(worked, ["flaky", "flaky", "flaky", "dead", "dead", "dead"]);
}

#[tokio::test]
async fn a_lost_answer_is_settled_as_the_far_side_allows() {
    for (far_side, status) in [
        (FarSide::Idempotent, RunStatus::Succeeded),
        (FarSide::Repeatable, RunStatus::Succeeded),
        (FarSide::Conditional, RunStatus::Succeeded),
        (FarSide::Queryable { window_ms: 60_000 }, RunStatus::Succeeded),
        (FarSide::Queryable { window_ms: 0 }, RunStatus::Parked),
        (FarSide::Unknown, RunStatus::Parked),
    ] {
        let lossy = Mutex::new(["send".to_owned()].into());
        let bench = Bench::new(World { lossy, ..World::default() });
        let mut send = step("send", &[], StepKind::Effect(far_side));
        send.retry.backoff_ms = 20;
        let end = bench.drive(bench.begin(vec![send]).await).await;
        assert_eq!(end.status(), status, "{far_side:?}");
        assert_eq!(bench.applied(), ["send"], "{far_side:?}");
    }
}

#[tokio::test]
async fn people_approve_from_elsewhere_while_the_run_is_driven() {
    let bench = Bench::new(World::default());
    let gate = Gate { approvals: 1, roles: Vec::new(), expires_ms: 60_000 };
    let steps = vec![
        step("ok", &[], StepKind::Gate(gate)),
        step("send", &[0], StepKind::Effect(FarSide::Idempotent)),
    ];
    let waiting = bench.drive(bench.begin(steps).await).await;
    assert_eq!(waiting.status(), RunStatus::Waiting);
    let mut driver = bench.driver(waiting).await;
    driver.options.leave_when_waiting = false;
    let driving = tokio::spawn(driver.drive());
    bench
        .person(|state| {
            let task = TaskId::first(StepIndex(0));
            let subject = state.gates[&task].request.subject.clone();
            Ok(Command::Approve { task, subject, by: person("bob"), reason: "fine".into() })
        })
        .await;
    let end = driving.await.expect("no panic").expect("drives");
    assert_eq!((end.status(), bench.applied()), (RunStatus::Succeeded, vec!["send".to_owned()]));
}

#[tokio::test]
async fn cancelling_stops_what_runs() {
    let hanging = BTreeSet::from(["slow".to_owned()]);
    let bench = Bench::new(World { hanging, ..World::default() });
    let state = bench.begin(vec![work("slow", &[]), work("after", &[0])]).await;
    let driving = tokio::spawn(bench.driver(state).await.drive());
    for _ in 0..1_000 {
        if !bench.world.worked.lock().expect("unpoisoned").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.person(|_| Ok(Command::Cancel { by: person("bob"), reason: "stop".into() })).await;
    let end = driving.await.expect("no panic").expect("drives");
    assert_eq!(end.status(), RunStatus::Cancelled);
    assert_eq!(*bench.world.worked.lock().expect("unpoisoned"), ["slow"]);
}

#[tokio::test]
async fn a_driver_that_was_passed_by_sends_nothing() {
    let bench = Bench::new(World::default());
    let steps = vec![step("send", &[], StepKind::Effect(FarSide::Idempotent))];
    let first = bench.driver(bench.begin(steps).await).await;
    let run = RunId::new("r1").expect("a run id");
    let state = journal::load(&*bench.tools.journal, &run).await.expect("loads");
    let second = bench.driver(state).await;
    let error = first.drive().await.expect_err("it is fenced");
    assert!(matches!(error, DriveError::Journal(JournalError::Fenced { .. })), "{error}");
    assert_eq!(bench.applied(), [] as [&str; 0]);
    let end = second.drive().await.expect("drives");
    assert_eq!((end.status(), bench.applied()), (RunStatus::Succeeded, vec!["send".to_owned()]));
}

#[tokio::test]
async fn work_that_takes_too_long_is_stopped() {
    let hanging = BTreeSet::from(["slow".to_owned()]);
    let bench = Bench::new(World { hanging, ..World::default() });
    let mut slow = work("slow", &[]);
    (slow.timeout_ms, slow.retry) = (Some(30), Retry::never());
    let end = bench.drive(bench.begin(vec![slow]).await).await;
    assert_eq!(end.status(), RunStatus::Failed);
    let failure = end.tasks[&TaskId::default()].failure.clone().expect("a failure");
    assert_eq!(failure.class, FailureClass::Timeout, "{failure:?}");
}

#[tokio::test]
async fn a_step_that_nobody_can_run_fails_with_its_name() {
    let bench = Bench::new(World::default());
    let mut scan = work("scan", &[]);
    scan.uses = "security.scan".into();
    let end = bench.drive(bench.begin(vec![scan]).await).await;
    let failure = end.tasks[&TaskId::default()].failure.clone().expect("a failure");
    assert_eq!(failure.message, "this Maestro cannot run steps of `security.scan` yet");
}

#[tokio::test]
async fn a_step_that_panics_does_not_hang_its_run() {
    for (kind, status) in [
        (StepKind::Work(ActionClass::Pure), RunStatus::Failed),
        (StepKind::Effect(FarSide::Idempotent), RunStatus::Parked),
    ] {
        let panicking = BTreeSet::from(["bad".to_owned()]);
        let bench = Bench::new(World { panicking, ..World::default() });
        let end = bench.drive(bench.begin(vec![step("bad", &[], kind)]).await).await;
        assert_eq!(end.status(), status);
    }
}
