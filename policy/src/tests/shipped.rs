//! The policies that come with Maestro: their tests pass, and they decide as documented.

use maestro_core::policy::{DecisionPoint, Policy as _};
use serde_json::{Map, Value, json};

use super::{effect_with, person, run};
use crate::{
    BUILTIN, LIBRARY, LIBRARY_DATA, Policies, Shipped, Sources, TestOptions, TestOutcome, lint,
    test,
};

fn data() -> Map<String, Value> {
    serde_json::from_str(LIBRARY_DATA).expect("it is JSON")
}

fn all(with_tests: bool) -> Sources {
    let shipped = || BUILTIN.iter().chain(LIBRARY);
    let sources = Sources { modules: Vec::new(), data: data() };
    let tests = shipped().filter(|_| with_tests).map(Shipped::test_module);
    sources.with(shipped().map(Shipped::module)).with(tests)
}

#[test]
fn their_tests_pass_and_evaluate_every_line() {
    let report = test(&all(true), TestOptions { filter: None, coverage: true }).expect("they load");
    for test in &report.tests {
        assert_eq!(test.outcome, TestOutcome::Passed, "{} at {}", test.name, test.place);
    }
    assert!(report.tests.len() > 30, "{} tests", report.tests.len());
    for file in &report.coverage {
        assert!(file.not_covered.is_empty(), "{}: {:?}", file.file, file.not_covered);
    }
    assert_eq!(report.coverage.len(), BUILTIN.len() + LIBRARY.len());
}

#[test]
fn lint_has_nothing_to_say_about_them() {
    let findings: Vec<String> = lint(&all(true)).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn each_denies_what_it_is_for_and_nothing_else() {
    let policies = Policies::load(&all(false)).expect("they load");
    let check = |changes: &[(&str, Value)], expect: &[&str]| {
        let decision = policies.decide(&effect_with(changes));
        let codes: Vec<&str> = decision.reasons().iter().map(|r| r.code.as_str()).collect();
        assert_eq!(codes, expect, "{changes:?}: {:?}", decision.reasons());
    };
    check(&[], &[]);
    check(&[("/checks/0/outcome", json!("tolerated"))], &["unmet_check"]);
    check(&[("/checks/0/outcome", json!("skipped"))], &["unmet_check"]);
    check(&[("/records/0/state", json!("unattested"))], &["untrusted_record"]);
    check(&[("/records/0/state", json!("stale"))], &["untrusted_record"]);
    check(&[("/scan", json!({"state": "not_run"}))], &["not_scanned"]);
    check(&[("/scan/findings/critical", json!(1))], &["too_many_vulnerabilities"]);
    check(&[("/approvals/1/principal/id", json!("ada"))], &["approvals_missing"]);
    check(&[("/initiator", person("ada", "oidc"))], &["approvals_missing", "initiator_approved"]);
    check(&[("/approvals/0/principal", person("ada", "local"))], &["local_approval"]);
    check(&[("/evidence/0/kind", json!("licenses"))], &["evidence_missing"]);
    check(&[("/artifacts/0/signature", json!({"state": "unsigned"}))], &["unsigned"]);
    check(&[("/approvals", json!([]))], &["approval_missing", "approvals_missing"]);
}

#[test]
fn who_may_approve() {
    let policies = Policies::load(&all(false)).expect("they load");
    let ask = |approver: Value, tier: &str, request: &str| {
        let input = DecisionPoint::Approval
            .read(json!({
                "now": "2026-11-23T12:00:00Z",
                "run": run(),
                "initiator": person("lin", "oidc"),
                "gate": {"name": "go", "required": 2, "roles": ["release-manager"]},
                "approver": approver,
                "request": request,
                "reason": "",
                "subject": super::digest("subject"),
                "environment": {"tier": tier, "name": "e"},
                "evidence": [],
                "approvals": [],
            }))
            .expect("an input");
        let decision = policies.decide(&input);
        decision.reasons().iter().map(|reason| reason.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ask(person("ada", "oidc"), "production", "approve"), [""; 0]);
    assert_eq!(ask(person("lin", "oidc"), "production", "approve"), ["initiator_approves"]);
    assert_eq!(ask(person("ada", "local"), "production", "approve"), ["local_identity"]);
    assert_eq!(ask(person("ada", "local"), "staging", "approve"), [""; 0]);
    assert_eq!(ask(person("lin", "oidc"), "production", "reject"), [""; 0]);
}
