//! Questions about runs of small plans.

use std::collections::BTreeMap;

use maestro_core::ActionClass;
use maestro_core::policy::{
    ApprovalState, Budget, CheckKind, CheckOutcome, Findings, RecordState, Scan,
};
use maestro_core::run::*;
use serde_json::{Value, json};

use super::{Project, Tier, facts};

fn step(id: &str, uses: &str, after: &[u32], kind: StepKind) -> StepPlan {
    let after = after.iter().copied().map(StepIndex).collect();
    StepPlan { after, retry: Retry::never(), ..StepPlan::new(id, uses, kind) }
}

fn work(id: &str, uses: &str, after: &[u32]) -> StepPlan {
    step(id, uses, after, StepKind::Work(ActionClass::Pure))
}

fn person(name: &str) -> Principal {
    Principal { name: name.into(), issuer: "local".into(), roles: vec!["b".into(), "a".into()] }
}

struct Bench(RunState);

impl Bench {
    fn new(steps: Vec<StepPlan>) -> Self {
        let (cap, keep_going) = (Cap::default(), true);
        let plan = Plan { template: "t".into(), steps, cap, keep_going, timeout_ms: None };
        let created = RunCreated {
            run: RunId::new("r1").expect("a run id"),
            plan,
            source: Value::Null,
            template_digest: "0f".repeat(32),
            params: BTreeMap::from([
                ("env".to_owned(), json!("prod")),
                ("count".to_owned(), json!(3)),
                ("dry".to_owned(), json!(true)),
                ("names".to_owned(), json!(["a", 1])),
                ("rate".to_owned(), json!(0.5)),
            ]),
            context: Value::Null,
            initiator: person("ann"),
            policy: None,
            replay_of: None,
        };
        let event = Event::RunCreated(Box::new(created));
        let mut bench = Self(
            RunState::begin(&Entry { sequence: 1, epoch: 0, at_ms: 1, event }).expect("begins"),
        );
        let steps: Vec<StepIndex> = bench.0.plan().indexed().map(|(index, _)| index).collect();
        bench.expand(&steps);
        bench
    }

    fn expand(&mut self, steps: &[StepIndex]) {
        for step in steps {
            if self.0.steps[step.index()].phase == Phase::Due {
                self.act(Command::Expand { step: *step, items: vec![Item::only()] });
            }
        }
    }

    fn act(&mut self, command: Command) {
        for event in decide(&self.0, command, 1_000).expect("allowed") {
            let sequence = self.0.sequence + 1;
            let entry = Entry { sequence, epoch: self.0.epoch, at_ms: 1_000, event };
            self.0.apply(&entry).expect("applies");
        }
    }

    fn task(&self, id: &str) -> TaskId {
        TaskId::first(self.0.plan().find(id).expect("a step"))
    }

    fn end(&mut self, id: &str, outputs: Option<Value>) {
        let task = self.task(id);
        self.act(Command::Begin { task, reserve: None });
        match outputs {
            Some(outputs) => {
                let outputs = serde_json::from_value(outputs).expect("an object");
                let success = Success { outputs, ..Success::default() };
                self.act(Command::Succeed { task, success, done: true });
            }
            None => {
                let failure = Failure::new(FailureClass::User, "it broke");
                self.act(Command::Fail { task, failure, spent: Amount::ZERO });
            }
        }
        let steps: Vec<StepIndex> = self.0.plan().indexed().map(|(index, _)| index).collect();
        self.expand(&steps);
    }

    fn before(&self, id: &str) -> std::collections::BTreeSet<StepIndex> {
        facts::before(self.0.plan(), self.task(id).step)
    }
}

#[test]
fn checks_are_all_those_above_an_effect_with_their_outcomes() {
    let mut tolerated = work("lint", "test", &[0]);
    tolerated.continue_on_error = true;
    let effect = step("push", "registry.push", &[1, 2], StepKind::Effect(FarSide::Idempotent));
    let mut bench = Bench::new(vec![
        work("unit", "test", &[]),
        tolerated,
        step("plan", "llm.plan", &[0], StepKind::Work(ActionClass::Recorded)),
        effect,
        work("other", "test", &[]),
    ]);
    bench.end("unit", Some(json!({})));
    bench.end("lint", None);
    bench.end("plan", Some(json!({})));
    let before = bench.before("push");
    let checks = facts::checks(&bench.0, &before);
    let told: Vec<_> = checks.iter().map(|c| (c.step.as_str(), c.kind, c.outcome)).collect();
    assert_eq!(
        told,
        [
            ("unit", CheckKind::Test, CheckOutcome::Passed),
            ("lint", CheckKind::Test, CheckOutcome::Tolerated),
        ]
    );
    let records = facts::records(&bench.0, &before);
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].step.as_str(), records[0].state), ("plan", RecordState::Unattested));
}

#[test]
fn a_scan_that_did_not_count_has_failed() {
    let counts = json!({"critical": 0, "high": 2, "medium": 3, "low": 4, "total": 9});
    let check = |outputs: Option<Value>, expect: &dyn Fn(&Scan) -> bool| {
        let mut scan = work("scan", "security.scan", &[]);
        scan.continue_on_error = true;
        let effect = step("push", "x", &[0], StepKind::Effect(FarSide::Idempotent));
        let mut bench = Bench::new(vec![scan, effect]);
        bench.end("scan", outputs.clone());
        let scan = facts::scan(&bench.0, &bench.before("push"));
        assert!(expect(&scan), "{outputs:?}: {scan:?}");
    };
    let found = Findings { critical: 0, high: 2, medium: 3, low: 4 };
    check(Some(counts), &|scan| matches!(scan, Scan::Done { findings, .. } if *findings == found));
    check(Some(json!({"total": 0})), &|scan| matches!(scan, Scan::Failed { .. }));
    check(None, &|scan| matches!(scan, Scan::Failed { message } if message == "it broke"));
    let alone = Bench::new(vec![step("push", "x", &[], StepKind::Effect(FarSide::Idempotent))]);
    assert_eq!(facts::scan(&alone.0, &alone.before("push")), Scan::NotRun {});
}

#[test]
fn approvals_hold_until_they_expire_or_are_taken_back() {
    let gate = Gate { approvals: 2, roles: Vec::new(), expires_ms: 60_000 };
    let mut bench = Bench::new(vec![
        step("ok", "gate.approval", &[], StepKind::Gate(gate)),
        step("push", "x", &[0], StepKind::Effect(FarSide::Idempotent)),
    ]);
    let task = bench.task("ok");
    let request = ApprovalRequest {
        subject: "s".into(),
        guarded: Vec::new(),
        summary: Vec::new(),
        asked_at_ms: 1_000,
        expires_at_ms: 61_000,
    };
    bench.act(Command::Ask { task, request });
    for name in ["bob", "cy"] {
        let (subject, reason) = ("s".to_owned(), String::new());
        bench.act(Command::Approve { task, subject, by: person(name), reason });
    }
    bench.act(Command::Revoke { task, by: person("cy"), reason: String::new() });
    let told = |at_ms| {
        let approvals = facts::approvals(&bench.0, &bench.before("push"), at_ms);
        approvals.into_iter().map(|a| (a.principal.id, a.state)).collect::<Vec<_>>()
    };
    let (bob, cy) = ("bob@local".to_owned(), "cy@local".to_owned());
    let revoked = (cy, ApprovalState::Revoked);
    assert_eq!(told(61_000), [(bob.clone(), ApprovalState::Granted), revoked.clone()]);
    assert_eq!(told(61_001), [(bob, ApprovalState::Expired), revoked]);
}

#[test]
fn a_run_is_told_in_the_words_of_policies() {
    let bench = Bench::new(vec![work("a", "test", &[])]);
    let run = json!(facts::run(&bench.0.created, &Project::default().name));
    let params =
        json!({"env": "prod", "count": 3, "dry": true, "names": ["a", "1"], "rate": "0.5"});
    assert_eq!(run["params"], params);
    assert_eq!(run["template_digest"], json!(format!("sha256:{}/0", "0f".repeat(32))));
    let ann = json!(facts::principal(&bench.0.created.initiator));
    let local = json!({"kind": "local", "user": "ann"});
    assert_eq!(ann, json!({"id": "ann@local", "identity": local, "roles": ["a", "b"]}));
    let stranger = Principal { issuer: "https://id.example".into(), ..person("eve") };
    assert_eq!(json!(facts::principal(&stranger))["identity"]["kind"], json!("oidc"));
    let budget = facts::budget(&Cap { usd_micros: Some(5), ..Cap::default() });
    assert_eq!(budget, Budget::Limited { micro_usd: 5, tokens: (1 << 53) - 1 });
    assert_eq!(facts::budget(&Cap::default()), Budget::Unlimited {});
}

#[test]
fn environments_that_nobody_classified_are_production() {
    let environments = [("eu".to_owned(), Tier::Staging), ("dev".to_owned(), Tier::Production)];
    let project = Project { name: String::new(), environments: environments.into() };
    let check = |name: &str, tier: Tier| assert_eq!(project.tier(name), tier, "{name}");
    check("eu", Tier::Staging);
    check("dev", Tier::Production);
    check("staging", Tier::Staging);
    check("development", Tier::Development);
    check("prod", Tier::Production);
    check("Staging", Tier::Production);
    check("", Tier::Production);
}
