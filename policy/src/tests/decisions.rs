//! What policies answer, and that nothing but a clear answer is a yes.

use maestro_core::policy::{DecisionPoint, Policy as _, failure};
use serde_json::{Value, json};

use super::{effect_with, sources};
use crate::{Policies, RuleResult};

/// The codes of the reasons that one module gives for an effect.
fn codes(rest: &str, changes: &[(&str, Value)]) -> Vec<String> {
    let text = format!("package maestro.effect\n{rest}\n");
    let policies = Policies::load(&sources(&[&text])).expect(rest);
    let decision = policies.decide(&effect_with(changes));
    assert_eq!(decision.is_allowed(), decision.reasons().is_empty());
    decision.reasons().iter().map(|reason| reason.code.clone()).collect()
}

#[test]
fn reasons_are_objects_or_texts() {
    let check = |rest: &str, expect: &[&str]| assert_eq!(codes(rest, &[]), expect, "{rest}");
    check("deny contains {\"code\": \"c\", \"msg\": \"m\"} if input.effect.publishes", &["c"]);
    check("deny contains \"text\" if input.effect.publishes", &["denied"]);
    check("deny contains {\"msg\": \"m\"} if input.effect.publishes", &["denied"]);
    check("deny contains {\"code\": \"c\"} if input.effect.publishes", &["c"]);
    check("deny contains 7 if input.effect.publishes", &[failure::MALFORMED]);
    check("deny contains {\"why\": 1} if input.effect.publishes", &[failure::MALFORMED]);
    check("deny contains \"x\" if not input.effect.publishes", &[]);
}

#[test]
fn only_true_allows() {
    let check = |rest: &str, expect: &[&str]| assert_eq!(codes(rest, &[]), expect, "{rest}");
    check("allow if input.effect.publishes", &[]);
    check("allow if not input.effect.publishes", &[failure::UNDEFINED]);
    check("default allow := false\nallow if not input.effect.publishes", &[failure::NOT_ALLOWED]);
    check("allow := input.run.id", &[failure::MALFORMED]);
    check("allow := input.run.params.none", &[failure::UNDEFINED]);
    check("allow := 1 == 1 if input.effect.publishes", &[]);
    // A reason is better than none.
    check(
        "default allow := false\nallow if count(deny) == 0\n\
         deny contains {\"code\": \"c\", \"msg\": \"m\"} if input.effect.publishes",
        &["c"],
    );
}

#[test]
fn errors_and_conflicts_deny() {
    let check = |rest: &str, expect: &[&str]| assert_eq!(codes(rest, &[]), expect, "{rest}");
    let error = &[failure::ERROR];
    check("deny contains \"x\" if to_number(input.run.id) > 1", error);
    check("deny contains \"x\" if 1 / count(input.run.params.none) > 1", &[]);
    check(
        "deny contains \"x\" if x == 1\nx := 1 if input.effect.publishes\nx := 2 if input.effect.publishes",
        error,
    );
    check(
        "allow := true if input.effect.publishes\nallow := false if input.effect.publishes",
        error,
    );
}

#[test]
fn every_package_must_agree() {
    let strict = "package maestro.effect.strict\ndefault allow := false\n\
                  allow if not input.effect.publishes\n";
    let lax = "package maestro.effect.lax\nallow if input.effect.publishes\n";
    let policies = Policies::load(&sources(&[strict, lax])).expect("they load");
    let decision = policies.decide(&effect_with(&[]));
    let reasons: Vec<&str> = decision.reasons().iter().map(|r| r.message.as_str()).collect();
    assert_eq!(reasons, ["`maestro.effect.strict` does not allow it"]);
    assert_eq!(decision.policy, policies.digest());
    assert_eq!(decision.input, effect_with(&[]).digest().expect("canonical"));
    assert_eq!(decision, policies.decide(&effect_with(&[])), "it is a function");
}

#[test]
fn a_point_without_a_policy_denies() {
    let policy = "package maestro.approval\ndeny contains \"x\" if input.request == \"approve\"\n";
    let policies = Policies::load(&sources(&[policy])).expect("it loads");
    let decision = policies.decide(&effect_with(&[]));
    assert_eq!(decision.point, DecisionPoint::Effect);
    assert_eq!(decision.reasons().first().map(|r| r.code.as_str()), Some(failure::UNDEFINED));
    let none = Policies::load(&sources(&[])).expect("nothing loads");
    assert!(!none.decide(&effect_with(&[])).is_allowed());
}

#[test]
fn an_explanation_names_the_rules() {
    let text = "package maestro.effect\n\
                deny contains {\"code\": \"a\", \"msg\": \"m\"} if input.effect.publishes\n\
                deny contains {\"code\": \"b\", \"msg\": \"m\"} if not input.effect.publishes\n\
                allow if { print(\"asked\"); input.effect.publishes }\n";
    let policies = Policies::load(&sources(&[text])).expect("it loads");
    let explanation = policies.explain(&effect_with(&[("/effect/generation", json!(2))]));
    let told: Vec<(u32, &str)> = explanation
        .rules
        .iter()
        .map(|rule| {
            let word = match &rule.result {
                RuleResult::Denied(reasons) => reasons[0].code.as_str(),
                RuleResult::Allowed => "allowed",
                RuleResult::Silent => "silent",
                RuleResult::Failed(why) => why,
            };
            (rule.place.line, word)
        })
        .collect();
    assert_eq!(told, [(2, "a"), (3, "silent"), (4, "allowed")]);
    assert_eq!(explanation.prints, ["a.rego:4: asked"]);
    assert!(!explanation.decision.is_allowed());
}
