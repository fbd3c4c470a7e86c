//! What does not load, and what is said about it.

use serde_json::json;

use super::{errors, sources, told};
use crate::{Policies, SourceFile, Sources};

/// An effect policy with one rule.
fn rule(body: &str) -> String {
    format!(
        "package maestro.effect.x\n\ndeny contains {{\"code\": \"c\", \"msg\": \"m\"}} if {{\n{body}\n}}\n"
    )
}

#[test]
fn paths_into_the_input_are_checked() {
    let check = |body: &str, expect: &[&str]| {
        assert_eq!(errors(&rule(body)), expect, "{body}");
    };
    check("input.scan.state == \"failed\"", &[]);
    check("input[\"scan\"].state == \"failed\"", &[]);
    check("input.run.params.anything == 3", &[]);
    check("input.scan.findings[_] > 0", &[]);
    check("input.artifacts[0].name == \"x\"", &[]);
    check("some i; input.checks[i].outcome == \"failed\"; input.checks[i].kind == \"scan\"", &[]);
    check(
        "input.scna.state == \"done\"",
        &["MAE0703 4:7 `input` has no field `scna` at the decision point `effect`"],
    );
    check(
        "input[\"scna\"]",
        &["MAE0703 4:8 `input` has no field `scna` at the decision point `effect`"],
    );
    check(
        "some check in input.checks; check.result == \"x\"",
        &["MAE0703 4:35 `check` has no field `result` at the decision point `effect`"],
    );
    check(
        "check.result == \"x\"; some check in input.checks",
        &["MAE0703 4:7 `check` has no field `result` at the decision point `effect`"],
    );
    check(
        "every a in input.approvals { a.principal.nmae == \"x\" }",
        &["MAE0703 4:42 `a.principal` has no field `nmae` at the decision point `effect`"],
    );
    check(
        "who := input.initiator; found := {r | r := who.role}; count(found) > 0",
        &["MAE0703 4:48 `who` has no field `role` at the decision point `effect`"],
    );
    check("input.run.id.x", &["MAE0703 4:14 `input.run.id` is a text and has no field `x`"]);
    check(
        "object.get(input, [\"scan\", \"findigns\"], {}).high > 0",
        &["MAE0703 4:29 `object` has no field `findigns` at the decision point `effect`"],
    );
    check(
        "walk(input.scann, [_, value]); value == 1",
        &["MAE0703 4:12 `input` has no field `scann` at the decision point `effect`"],
    );
    check(
        "[first, _] := [input.scan, 1]; first.stat == \"done\"",
        &["MAE0703 4:38 `first` has no field `stat` at the decision point `effect`"],
    );
}

#[test]
fn words_that_a_fact_never_is_are_found() {
    let check = |body: &str, expect: &[&str]| assert_eq!(errors(&rule(body)), expect, "{body}");
    check("input.scan.state != \"done\"", &[]);
    check("input.scan.state in {\"stale\", \"not_run\"}", &[]);
    check("input.scan.state == \"clean\"", &["MAE0703 4:22 `input.scan.state` is never `clean`"]);
    check("\"clean\" != input.scan.state", &["MAE0703 4:2 `input.scan.state` is never `clean`"]);
    check("input.scan.state = \"clean\"", &["MAE0703 4:21 `input.scan.state` is never `clean`"]);
    check(
        "input.step.class in [\"pure\", \"impure\"]",
        &["MAE0703 4:31 `input.step.class` is never `impure`"],
    );
    check("state := input.scan.state; state == \"ok\"", &["MAE0703 4:38 `state` is never `ok`"]);
    check("input.run.id == \"anything\"", &[]);
}

#[test]
fn rules_functions_and_libraries_are_followed() {
    let check = |text: &str, expect: &[&str]| assert_eq!(errors(text), expect, "{text}");
    check(
        "package maestro.effect\nscan := input.scan\nhigh(s) := s.findings.hihg\n\
         deny contains \"x\" if high(scan) > 0\ndeny contains \"y\" if scan.state == \"failed\"\n",
        &["MAE0703 3:23 `s.findings` has no field `hihg` at the decision point `effect`"],
    );
    let library = "package lib\nis_bad if input.scan.statte == \"failed\"\n";
    let policy = "package maestro.effect\nimport data.lib\ndeny contains \"x\" if lib.is_bad\n";
    assert_eq!(
        told(Policies::load(&sources(&[library, policy])).map(drop)),
        ["MAE0703 2:22 `input.scan` has no field `statte` at the decision point `effect`"]
    );
    // At another decision point the input is another one.
    let library = "package lib\nis_bad if input.scan.state == \"failed\"\n";
    let policy = "package maestro.approval\nimport data.lib\ndeny contains \"x\" if lib.is_bad\n";
    assert_eq!(
        told(Policies::load(&sources(&[library, policy])).map(drop)),
        ["MAE0703 2:17 `input` has no field `scan` at the decision point `approval`"]
    );
    check(
        "package maestro.effect\nimport input.scan as s\ndeny contains \"x\" if s.stat == \"done\"\n",
        &["MAE0703 3:24 `s` has no field `stat` at the decision point `effect`"],
    );
}

#[test]
fn the_input_cannot_be_hidden_or_replaced() {
    let check = |text: &str, code: &str| {
        let found = errors(&format!("package maestro.effect\n{text}\n"));
        assert!(found.iter().any(|error| error.starts_with(code)), "{text}: {found:?}");
    };
    check("f(input) := input.x\ndeny contains \"x\" if f({\"x\": 1}) == 1", "MAE0709 2:3");
    check("deny contains \"x\" if { some input in [{\"x\": 1}]; input.x == 1 }", "MAE0709 2:");
    check("deny contains \"x\" if { every data in [1] { data == 1 } }", "MAE0709 2:");
    check("deny contains \"x\" if { input.run.id == \"y\" with input as {} }", "MAE0709 2:");
    check("deny contains \"x\" if { count(data.l) > 0 with data.l as [] }", "MAE0709 2:");
}

#[test]
fn functions_that_ask_the_world_are_not_there() {
    let check = |call: &str, message: &str| {
        let found = errors(&rule(call));
        assert!(found.iter().any(|e| e.contains("MAE0707") && e.contains(message)), "{found:?}");
    };
    check("http.send({\"url\": \"x\"}).status_code == 200", "no function `http.send`");
    check("time.now_ns() > 0", "no function `time.now_ns`");
    check("rand.intn(\"x\", 2) == 1", "no function `rand.intn`");
    check("uuid.rfc4122(\"x\") == \"\"", "no function `uuid.rfc4122`");
    check("opa.runtime().env.HOME == \"\"", "no function `opa.runtime`");
    check("count(numbers.range(1, 1000000000000)) > 0", "no function `numbers.range`");
    check("startwith(input.run.id, \"x\")", "no function `startwith`");
    assert_eq!(errors(&rule("time.parse_rfc3339_ns(input.now) > 0")), [""; 0]);
    assert_eq!(errors(&rule("semver.compare(input.run.id, \"1.0.0\") < 0")), [""; 0]);
}

#[test]
fn a_policy_that_can_deny_nothing_does_not_load() {
    let check = |text: &str, loads: bool| {
        let found = errors(text);
        let refused = found.iter().any(|e| e.starts_with("MAE0705") || e.starts_with("MAE0706"));
        assert_eq!((found.is_empty(), refused), (loads, !loads), "{text}: {found:?}");
    };
    let effect = |rest: &str| format!("package maestro.effect.x\n{rest}\n");
    let bad = "input.scan.state == \"failed\"";
    check(&effect(&format!("deny contains \"x\" if {bad}")), true);
    check(&effect("deny contains \"frozen\""), true);
    check(&effect(&format!("default allow := false\nallow if not is_bad\nis_bad if {bad}")), true);
    check(&effect(&format!("default allow := true\nallow := false if {bad}")), true);
    check(&effect("default allow := false"), true);
    check(&effect(""), false);
    check(&effect("default allow := true"), false);
    check(&effect("allow := true"), false);
    check(&effect("allow if true"), false);
    check(&effect(&format!("default allow := true\nallow if {bad}")), false);
    check(&effect("deny contains \"x\" if false"), false);
    check(&effect(&format!("deny contains \"x\" if {{ {bad}; not true }}")), false);
    check(&effect(&format!("denied contains \"x\" if {bad}")), false);
    check(&effect(&format!("violation contains \"x\" if {bad}")), false);
    check(&effect(&format!("deny if {bad}")), false);
    check(&effect("deny := {\"x\"}"), false);
    check(&effect(&format!("deny(x) := x if {bad}")), false);
    check(&effect(&format!("allow contains \"x\" if {bad}")), false);
    check(&effect("allow := \"yes\" if input.effect.publishes"), false);
    check("package lib\nis_bad if 1 == 1\n", false);
    check("package policies\ndeny contains \"x\" if input.x == 1\n", false);
}

#[test]
fn a_policy_in_a_file_of_tests_is_an_error() {
    let policy = "package maestro.effect\ndeny contains \"x\" if input.effect.publishes\n";
    let check = |test: &str, expect: &[&str]| {
        let module = SourceFile::new("smoke_test.rego", test);
        let sources = sources(&[policy]).with([module]);
        assert_eq!(told(Policies::load(&sources).map(drop)), expect, "{test}");
        let linted = crate::lint(&sources);
        assert_eq!(linted.iter().any(crate::Finding::is_error), !expect.is_empty(), "{test}");
    };
    check(
        "package maestro.effect_test\nimport data.maestro.effect\ntest_x if true\n",
        &["MAE0704 1:9 there is no decision point `maestro.effect_test`"],
    );
    check("package maestro.effect.smoke_test\ntest_x if true\n", &[]);
    check("package lib_test\ndeny contains \"x\" if true\ntest_x if true\n", &[]);
    let told = |name: &str| {
        format!("MAE0705 2:1 `smoke_test.rego` is a file of tests, so its `{name}` is never asked")
    };
    check(
        "package maestro.effect\ndeny contains \"y\" if input.run.id == \"\"\n",
        &[&told("deny")],
    );
    check("package maestro.effect.smoke\nallow if input.run.id == \"\"\n", &[&told("allow")]);
    check("package maestro.effect\ndeny contains", &["MAE0701 2:14 expecting expression"]);
}

#[test]
fn a_policy_has_a_decision_point() {
    let found = errors("package maestro.efect\ndeny contains \"x\" if input.x == 1\n");
    assert_eq!(found.first().map(|e| &e[..8]), Some("MAE0704 "), "{found:?}");
    let LoadErrorHint(hints) = hints("package maestro.efect\ndeny contains \"x\"\n");
    assert!(hints.contains("did you mean `effect`?"), "{hints}");
}

/// The advice of all errors.
struct LoadErrorHint(String);

fn hints(text: &str) -> LoadErrorHint {
    let error = Policies::load(&sources(&[text])).map(drop).expect_err("it is wrong");
    LoadErrorHint(error.0.iter().flat_map(|finding| finding.hints.clone()).collect())
}

#[test]
fn syntax_errors_have_a_place_and_v0_is_recognized() {
    let found =
        errors("package maestro.effect\ndeny contains \"x\" if {\n  input.scan.state ==\n}\n");
    assert_eq!(found.first().map(|e| &e[..10]), Some("MAE0701 4:"), "{found:?}");
    let LoadErrorHint(hints) = hints("package maestro.effect\ndeny[msg] { msg := \"x\" }\n");
    assert!(hints.contains("Rego v0"), "{hints}");
    let found = errors("package maestro.effect\ndeny contains \"x\" if { y == 1 }\n");
    assert_eq!(found.len(), 1, "an unbound variable: {found:?}");
}

#[test]
fn data_that_no_file_has_is_an_error() {
    let text = "package maestro.effect\ndeny contains \"x\" if input.scan.findings.high > data.limits.hihg\n\
                deny contains \"y\" if input.scan.state != \"done\"\n";
    let mut with_data = sources(&[text]);
    with_data.data.insert("limits".into(), json!({"high": 3}));
    let found = told(Policies::load(&with_data).map(drop));
    assert_eq!(found, ["MAE0708 2:49 there is no `data.limits.hihg`"]);
    with_data.data.insert("limits".into(), json!({"hihg": 3}));
    assert!(Policies::load(&with_data).is_ok());
}

#[test]
fn rules_do_not_recurse() {
    let check = |rest: &str| {
        let found = errors(&format!("package maestro.effect\ndeny contains \"x\" if p\n{rest}\n"));
        assert!(found.iter().any(|e| e.starts_with("MAE0710")), "{rest}: {found:?}");
    };
    check("p if q\nq if p");
    check("p if f(1) == 1\nf(x) := f(x + 1)");
    let chain: String = (0..100).map(|n| format!("p{n} if p{}\n", n + 1)).collect();
    check(&format!("p if p0\n{chain}p100 := true"));
}

#[test]
fn the_digest_is_that_of_what_decides() {
    let one = "package maestro.effect.a\ndeny contains \"x\" if input.effect.publishes\n";
    let two = "package maestro.effect.b\ndeny contains \"x\" if input.effect.publishes\n";
    let digest = |sources: &Sources| Policies::load(sources).expect("it loads").digest();
    let both = digest(&sources(&[one, two]));
    assert_eq!(both, digest(&sources(&[two, one])), "order and names do not matter");
    assert_ne!(both, digest(&sources(&[one])));
    let tests = SourceFile::new("a_test.rego", "package t\ntest_x if true\n");
    assert_eq!(both, digest(&sources(&[one, two]).with([tests])), "tests do not decide");
    let mut with_data = sources(&[one, two]);
    with_data.data.insert("x".into(), json!(1));
    assert_ne!(both, digest(&with_data));
}
