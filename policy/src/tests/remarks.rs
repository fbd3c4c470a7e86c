//! What `lint` says about policies that load.

use super::sources;
use crate::{Code, lint};

fn found(text: &str) -> Vec<(Code, u32)> {
    let findings = lint(&sources(&[&format!("package maestro.effect\n{text}\n")]));
    findings.iter().map(|f| (f.code, f.place.as_ref().map_or(0, |place| place.line))).collect()
}

#[test]
fn states_of_facts_that_nobody_looks_at_are_found() {
    let check = |text: &str, expect: &[(Code, u32)]| assert_eq!(found(text), expect, "{text}");
    let head = "deny contains {\"code\": \"c\", \"msg\": \"m\"} if";
    // The classic: nobody scanned, so nothing was found, so it goes.
    check(&format!("{head} input.scan.findings.high > 0"), &[(Code::Uncovered, 2)]);
    check(
        &format!("{head} {{ input.scan.state == \"done\"; input.scan.findings.high > 0 }}"),
        &[(Code::Uncovered, 2)],
    );
    check(
        &format!("{head} input.scan.findings.high > 0\n{head} input.scan.state != \"done\""),
        &[],
    );
    check(
        &format!("{head} input.scan.findings.high > 0\n{head} not input.scan.state == \"done\""),
        &[],
    );
    check(
        &format!(
            "{head} input.scan.findings.high > 0\n\
             {head} input.scan.state in {{\"not_run\", \"failed\"}}"
        ),
        &[],
    );
    check(
        &format!("{head} input.scan.findings.high > 0\n{head} input.scan.state == \"failed\""),
        &[(Code::Uncovered, 2)],
    );
    // Where `allow` reads it, an undefined field denies.
    check("default allow := false\nallow if input.scan.findings.high == 0", &[]);
    // Unless it is behind a `not`, directly or not.
    check(
        "default allow := false\nallow if not input.scan.findings.high > 0",
        &[(Code::Uncovered, 3)],
    );
    check(
        "default allow := false\nallow if not is_bad\nis_bad if input.scan.findings.high > 0",
        &[(Code::Uncovered, 4)],
    );
    check(
        "default allow := false\nallow if { input.scan.state == \"done\"; not is_bad }\n\
         is_bad if input.scan.findings.high > 0",
        &[],
    );
    // A `deny` that asks for what is not there denies.
    check(&format!("{head} not is_good\nis_good if input.scan.findings.high == 0"), &[]);
    check(&format!("{head} object.get(input.scan, \"findings\", {{}}) == {{}}"), &[]);
    // A rule about one kind of environment is about no other.
    check(
        &format!(
            "{head} {{ input.environment.tier == \"production\"; input.environment.name == \"eu\" }}"
        ),
        &[],
    );
    check(&format!("{head} input.environment.name == \"eu\""), &[(Code::Uncovered, 2)]);
}

#[test]
fn what_nothing_uses_is_found() {
    let check = |text: &str, expect: &[(Code, u32)]| assert_eq!(found(text), expect, "{text}");
    let deny =
        "deny contains {\"code\": \"c\", \"msg\": \"m\"} if used\nused if input.effect.publishes";
    check(deny, &[]);
    check(
        &format!("{deny}\ndefault limit := 3\nlimit := 4 if used"),
        &[(Code::Unused, 4), (Code::Unused, 5)],
    );
    check(&format!("import data.lib\n{deny}"), &[(Code::UnusedImport, 2)]);
    check("deny contains \"text\" if input.effect.publishes", &[(Code::NoCode, 2)]);
}

#[test]
fn errors_are_told_as_well() {
    assert_eq!(found("deny contains \"x\" if input.scna"), [(Code::NoCode, 2), (Code::Path, 2)]);
    assert_eq!(found("deny contains \"x\" if {"), [(Code::Syntax, 3)]);
}
