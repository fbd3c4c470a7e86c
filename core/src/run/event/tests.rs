//! The stored form of every event, as each version wrote it.

use serde_json::json;

use super::*;
use crate::digest::DigestFunction;
use crate::policy::{DecisionPoint, Reason, Verdict};
use crate::run::fixture::{effect, gate, person, plan, work};
use crate::run::{FailureClass, FarSide, Guarded};

/// What version 1 wrote, one event a line. Never changed; a further version gets its own file.
const VERSION_1: &str = include_str!("../golden/v1.jsonl");

const STEP: StepIndex = StepIndex(1);
const TASK: TaskId = TaskId { step: STEP, item: 2, round: 3 };
const SPENT: Amount = Amount { usd_micros: 7, tokens: 8 };

fn bob() -> Principal {
    person("bob", &["release-manager"])
}

fn reason() -> String {
    "because".into()
}

fn slow_down() -> Failure {
    Failure {
        hints: vec!["wait".into()],
        log: Some("ab/2".into()),
        retry_after_ms: Some(5),
        ..Failure::new(FailureClass::RateLimit, "slow down")
    }
}

/// One event of each sort with every field set.
fn samples() -> Vec<Event> {
    let dismissed = Event::RunDismissed { by: bob(), reason: reason() };
    let notice = Notice { about: "shop/2026-11".into(), message: reason() };
    let others =
        vec![Event::PolicyDecided(Box::new(ruling())), dismissed, Event::BudgetNoticed(notice)];
    [samples_of_runs(), samples_of_tasks(), samples_of_effects(), samples_of_people(), others]
        .concat()
}

fn ruling() -> Ruling {
    let digest = |text: &str| DigestFunction::Sha256.digest(text.as_bytes());
    let decision = Decision {
        point: DecisionPoint::Approval,
        verdict: Verdict::Deny { reasons: vec![Reason::new("missing_role", "no manager")] },
        policy: digest("policy"),
        input: digest("input"),
    };
    Ruling { task: Some(TASK), by: Some(bob()), decision }
}

fn samples_of_runs() -> Vec<Event> {
    let steps =
        vec![work("build", &[]), gate("ok", &[0], 2), effect("pay", &[1], FarSide::Unknown)];
    let created = RunCreated {
        run: RunId::new("r1").expect("a run id"),
        plan: plan(steps),
        source: json!({"text": "steps: []"}),
        template_digest: "ef".into(),
        params: [("env".to_owned(), json!("staging"))].into(),
        context: json!({"git": {"sha": "01"}}),
        initiator: bob(),
        policy: Some("23".into()),
        replay_of: Some(RunId::new("r0").expect("a run id")),
    };
    let owner = Owner { host: "h".into(), pid: 9, principal: bob() };
    vec![
        Event::RunCreated(Box::new(created)),
        Event::Owned { owner, took_over: true },
        Event::CancelAsked { by: bob(), reason: reason() },
        Event::RunEnded { status: RunStatus::Failed },
        Event::RunReopened {
            from: Some(STEP),
            inputs: [("pay".to_owned(), json!({"env": "prod"}))].into(),
            by: bob(),
            reason: reason(),
        },
    ]
}

fn samples_of_tasks() -> Vec<Event> {
    let (step, task, spent) = (STEP, TASK, SPENT);
    let item = Item { label: "linux".into(), value: json!({"os": "linux"}) };
    let success = Success {
        outputs: [("n".to_owned(), json!({"deep": [1, 2.5, null]}))].into(),
        artifacts: [("image".to_owned(), "cd/3".to_owned())].into(),
        spent,
        cached: true,
    };
    vec![
        Event::StepExpanded { step, items: vec![item] },
        Event::StepSkipped { step },
        Event::StepFailed { step, failure: slow_down() },
        Event::TaskBegan { task, reserved: Some(spent) },
        Event::TaskSucceeded { task, success, again_at_ms: Some(4) },
        Event::TaskFailed { task, failure: slow_down(), spent, retry_at_ms: Some(5) },
    ]
}

fn samples_of_effects() -> Vec<Event> {
    let task = TASK;
    let applied = Resolution::Applied([("id".to_owned(), json!(1))].into());
    let resolved =
        |resolution| Event::EffectResolved { task, resolution, by: bob(), reason: reason() };
    vec![
        Event::EffectIntended {
            task,
            generation: 6,
            key: "67".into(),
            request: "{\"pay\":5}".into(),
            decision: Some(json!({"allow": true})),
        },
        Event::EffectUnsettled { task, failure: slow_down(), retry_at_ms: 7 },
        Event::EffectParked { task, why: reason() },
        resolved(applied),
        resolved(Resolution::Redo),
        resolved(Resolution::GiveUp),
    ]
}

fn samples_of_people() -> Vec<Event> {
    let task = TASK;
    let request = ApprovalRequest {
        subject: "s".into(),
        guarded: vec![Guarded { step: STEP, request: Some("45".into()) }],
        summary: vec!["pay 5".into()],
        asked_at_ms: 1,
        expires_at_ms: 2,
    };
    let approval = Approval { by: bob(), reason: reason(), at_ms: 3 };
    vec![
        Event::ApprovalAsked { task, request },
        Event::ApprovalGiven { task, approval },
        Event::ApprovalRevoked { task, by: bob(), reason: reason() },
        Event::ApprovalVoided { task, why: reason() },
        Event::ApprovalsWanted { task, approvals: 2, why: reason() },
    ]
}

#[test]
fn version_1_is_written_and_read_as_ever() {
    let written: Vec<String> =
        samples().iter().map(|event| event.encode().expect("encodes")).collect();
    let golden: Vec<&str> = VERSION_1.lines().collect();
    assert_eq!(written, golden, "the stored form changed: it needs a new version");
    for (line, event) in golden.iter().zip(samples()) {
        assert_eq!(Event::decode(1, line).expect("decodes"), event);
    }
    let kinds = |line: &&str| {
        let json: Value = serde_json::from_str(line).expect("JSON");
        json["type"].as_str().expect("a type").to_owned()
    };
    let kinds: std::collections::BTreeSet<String> = golden.iter().map(kinds).collect();
    assert_eq!(kinds.len(), 23, "every sort of event has a line: {kinds:?}");
}

#[test]
fn newer_and_damaged_events_are_refused() {
    let line = VERSION_1.lines().next().expect("a line");
    assert!(matches!(Event::decode(2, line), Err(EventError::Newer(2))));
    assert!(matches!(Event::decode(0, line), Err(EventError::Damaged { version: 0, .. })));
    for end in 0..line.len() {
        let cut = Event::decode(1, &line[..end]);
        assert!(matches!(cut, Err(EventError::Damaged { version: 1, .. })), "cut at {end}");
    }
}
