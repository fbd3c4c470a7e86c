//! Approvals: who counts, for how long, and for what.

use super::{Far, approve, drive};
use crate::digest::DigestFunction;
use crate::policy::{self, Decision, DecisionPoint};
use crate::run::fixture::*;
use crate::run::*;

#[test]
fn a_gate_counts_distinct_people_with_the_role() {
    let steps = vec![gate("ok", &[], 2), effect("deploy", &[0], FarSide::Idempotent)];
    let mut run = Run::new(plan(steps));
    drive(&mut run, &mut Far::default());
    assert_eq!(run.state.status(), RunStatus::Waiting);
    assert_eq!(approve(&mut run, "ok", "ann"), Err(Refusal::Initiator("ann@local".into())));
    let ok = run.task("ok");
    let nobody = Command::Approve {
        task: ok,
        subject: "s".into(),
        by: person("eve", &["viewer"]),
        reason: String::new(),
    };
    assert!(matches!(run.act(nobody), Err(Refusal::Role { .. })));
    let other = Command::Approve {
        task: ok,
        subject: "another".into(),
        by: person("bob", &["release-manager"]),
        reason: String::new(),
    };
    assert!(matches!(run.act(other), Err(Refusal::ApprovalChanged { .. })));
    assert!(approve(&mut run, "ok", "bob").is_ok());
    let twice = approve(&mut run, "ok", "bob");
    assert_eq!(twice, Err(Refusal::ApprovedAlready("bob@local".into())));
    assert_eq!(run.state.status(), RunStatus::Waiting);
    assert!(approve(&mut run, "ok", "cy").is_ok());
    assert!(matches!(approve(&mut run, "ok", "dee"), Err(Refusal::State { .. })));
    let mut far = Far::default();
    drive(&mut run, &mut far);
    assert_eq!((run.state.status(), far.applied), (RunStatus::Succeeded, 1));
}

#[test]
fn approvals_are_taken_back_until_something_was_done_on_them() {
    let steps = vec![
        gate("ok", &[], 1),
        work("pack", &[0]),
        effect("deploy", &[1], FarSide::Idempotent),
        work("after", &[2]),
    ];
    let mut run = Run::new(plan(steps));
    drive(&mut run, &mut Far::default());
    approve(&mut run, "ok", "bob").expect("approved");
    run.succeed("pack");
    let ok = run.task("ok");
    let revoke = Command::Revoke { task: ok, by: person("bob", &[]), reason: "wait".into() };
    let stranger = Command::Revoke { task: ok, by: person("cy", &[]), reason: String::new() };
    assert_eq!(run.act(stranger), Err(Refusal::NotApproved("cy@local".into())));
    run.must(revoke.clone());
    assert_eq!(run.steps(), "ok: open, pack: succeeded, deploy: open, after: waiting");
    assert_eq!(run.work(), []);
    let revoked = |run: &Run| run.state.gates[&ok].revoked.keys().cloned().collect::<Vec<_>>();
    assert_eq!(revoked(&run), ["bob@local"]);
    approve(&mut run, "ok", "bob").expect("approved once more");
    assert_eq!(revoked(&run), [] as [&str; 0]);
    let deploy = run.task("deploy");
    assert_eq!(run.work(), [Work::Send(deploy)]);
    let intend =
        Command::Intend { task: deploy, request: "x".into(), past: vec![], decision: None };
    run.must(intend);
    assert_eq!(run.act(revoke), Err(Refusal::TooLate("deploy".into())));
}

#[test]
fn policy_can_ask_for_more_people_than_the_gate() {
    let steps = vec![gate("ok", &[], 1), effect("deploy", &[0], FarSide::Idempotent)];
    let mut run = Run::new(plan(steps));
    drive(&mut run, &mut Far::default());
    approve(&mut run, "ok", "bob").expect("approved");
    let (ok, deploy) = (run.task("ok"), run.task("deploy"));
    let want = |approvals| {
        let failure = Failure::new(FailureClass::Policy, "two are needed");
        Command::WantApprovals { task: deploy, approvals, failure }
    };
    run.must(want(2));
    assert_eq!(run.steps(), "ok: open, deploy: open");
    assert_eq!((run.work(), run.state.status()), (vec![], RunStatus::Waiting));
    assert_eq!(run.state.gates[&ok].given.len(), 1, "what was approved stays");
    assert_eq!(approve(&mut run, "ok", "bob"), Err(Refusal::ApprovedAlready("bob@local".into())));
    approve(&mut run, "ok", "cy").expect("approved");
    assert_eq!(run.work(), [Work::Send(deploy)]);
    // Where policy does not count all who approved, one more is asked.
    run.must(want(2));
    assert_eq!(run.state.gates[&ok].wanted, 3);
    approve(&mut run, "ok", "di").expect("approved");
    assert_eq!(run.work(), [Work::Send(deploy)]);

    let mut open = Run::new(plan(vec![effect("deploy", &[], FarSide::Idempotent)]));
    let failure = Failure::new(FailureClass::Policy, "two are needed");
    let task = open.task("deploy");
    open.must(Command::WantApprovals { task, approvals: 2, failure });
    assert_eq!(open.steps(), "deploy: failed", "nobody can approve");
}

#[test]
fn what_policy_said_is_journalled_with_what_came_of_it_or_not_at_all() {
    let decision = Decision {
        point: DecisionPoint::Effect,
        verdict: policy::Verdict::Allow,
        policy: DigestFunction::Sha256.digest(b"policy"),
        input: DigestFunction::Sha256.digest(b"input"),
    };
    let mut run = Run::new(plan(vec![effect("deploy", &[], FarSide::Idempotent)]));
    let task = run.task("deploy");
    let ruled = |then: Option<Command>| {
        let rulings = vec![Ruling { task: Some(task), by: None, decision: decision.clone() }];
        Command::Ruled { rulings, then: then.map(Box::new) }
    };
    let intend = Command::Intend { task, request: "x".into(), past: vec![], decision: None };
    let events = run.must(ruled(Some(intend.clone())));
    assert!(
        matches!(events[..], [Event::PolicyDecided(_), Event::EffectIntended { .. }]),
        "{events:?}"
    );
    let before = run.state.sequence;
    assert!(matches!(run.act(ruled(Some(intend))), Err(Refusal::State { .. })));
    assert_eq!(run.state.sequence, before);
    let events = run.must(ruled(None));
    assert!(matches!(events[..], [Event::PolicyDecided(_)]), "{events:?}");
}

#[test]
fn what_was_approved_is_what_is_sent() {
    let steps = vec![gate("ok", &[], 1), effect("deploy", &[0], FarSide::Idempotent)];
    let ask = |run: &mut Run, request: &str| {
        let (task, deploy) = (run.task("ok"), run.task("deploy"));
        let request = Some(request_digest(request));
        let request = ApprovalRequest {
            subject: "s".into(),
            guarded: vec![Guarded { step: deploy.step, request }],
            summary: Vec::new(),
            asked_at_ms: run.now_ms,
            expires_at_ms: run.now_ms + 1_000,
        };
        run.must(Command::Ask { task, request });
        approve(run, "ok", "bob").expect("approved");
        deploy
    };
    let intend = |task, request: &str| Command::Intend {
        task,
        request: request.into(),
        past: Vec::new(),
        decision: None,
    };
    let mut run = Run::new(plan(steps));
    let deploy = ask(&mut run, "image 1");
    let events = run.must(intend(deploy, "image 2"));
    assert!(matches!(events[..], [Event::ApprovalVoided { .. }]), "{events:?}");
    assert_eq!(run.work(), [Work::Ask(run.task("ok"))]);
    ask(&mut run, "image 2");
    run.now_ms += 5_000;
    let events = run.must(intend(deploy, "image 2"));
    assert!(matches!(events[..], [Event::ApprovalVoided { .. }]), "it expired: {events:?}");
    ask(&mut run, "image 2");
    let events = run.must(intend(deploy, "image 2"));
    assert!(matches!(events[..], [Event::EffectIntended { .. }]), "{events:?}");
}

#[test]
fn a_rejected_or_expired_gate_fails_the_run() {
    let steps = || vec![gate("ok", &[], 1), effect("deploy", &[0], FarSide::Idempotent)];
    let mut run = Run::new(plan(steps()));
    drive(&mut run, &mut Far::default());
    let by = person("bob", &["release-manager"]);
    let task = run.task("ok");
    run.must(Command::Reject { task, by, reason: "not today".into() });
    drive(&mut run, &mut Far::default());
    assert_eq!(run.steps(), "ok: failed, deploy: not reached");
    let failure = run.state.tasks[&task].failure.clone().expect("a failure");
    assert_eq!(failure.message, "bob@local rejected it: not today");

    let mut run = Run::new(plan(steps()));
    drive(&mut run, &mut Far::default());
    run.now_ms += 2_000;
    assert_eq!(approve(&mut run, "ok", "bob"), Err(Refusal::Expired));
    drive(&mut run, &mut Far::default());
    assert_eq!(run.state.status(), RunStatus::Failed);
}

#[test]
fn an_effect_does_not_pass_a_broken_scan_unless_policy_lets_it() {
    for let_pass in [false, true] {
        let mut scan = work("scan", &[]);
        (scan.evidence, scan.continue_on_error, scan.retry) = (true, true, Retry::never());
        let steps = vec![scan, effect("push", &[0], FarSide::Idempotent)];
        let mut run = Run::new(plan(steps));
        run.fail("scan", FailureClass::User);
        let push = run.task("push");
        let past = if let_pass { vec![StepIndex(0)] } else { Vec::new() };
        run.must(Command::Intend { task: push, request: "x".into(), past, decision: None });
        let expected = if let_pass { "open" } else { "failed" };
        assert_eq!(run.steps(), format!("scan: failed, push: {expected}"));
    }
}
