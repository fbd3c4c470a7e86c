//! A table of edits, through the binary: which actions each one runs and what it evaluates, that
//! nothing is left to do after it, and that a build without memory comes to the same outputs.

mod edits {
    pub mod fixture;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use edits::fixture::{self, Row};
use maestro_tests::{Run, Workspace, executed};
use serde_json::Value;

/// What a build came to.
struct Built {
    run: Run,
    /// The labels of the actions that ran, sorted.
    ran: Vec<String>,
    /// The packages and the targets that were evaluated, where others were remembered.
    reevaluated: Option<(Vec<String>, Vec<String>)>,
}

fn names(event: &Value, field: &str) -> Vec<String> {
    let names = event[field].as_array().expect("a list of names");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

fn build(ws: &Workspace, root: &Path, flags: &[String]) -> Built {
    let events = ws.outside().join("events.jsonl");
    let mut command = ws.command();
    command.current_dir(root).args(["build", "//...", "--output=json", "--events"]);
    command.arg(&events).args(flags);
    let run = Run::of(command.output().expect("the binary can be started"));
    let text = std::fs::read_to_string(&events).expect("events were written");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let reevaluated = lines.into_iter().find(|event: &Value| event["event"] == "reevaluated");
    let reevaluated = reevaluated.map(|e| (names(&e, "packages"), names(&e, "targets")));
    let ran = executed(&events);
    std::fs::remove_file(&events).expect("events were written");
    Built { run, ran, reevaluated }
}

/// The digest of every output.
fn digests(run: &Run) -> BTreeMap<String, String> {
    let summary = run.json();
    let targets = summary["targets"].as_array().expect("targets");
    let files = targets.iter().flat_map(|target| target["outputs"].as_array().expect("outputs"));
    files.map(|file| (file["path"].to_string(), file["digest"].to_string())).collect()
}

/// What is built where nothing is remembered: in a copy of the workspace, with the same cache.
fn forgetful(ws: &Workspace, row: &str, flags: &[String]) -> BTreeMap<String, String> {
    let copy = tempfile::tempdir_in(ws.outside()).expect("a folder can be made");
    let root = copy.path().join("ws");
    let status = Command::new("cp").arg("-a").arg(&ws.root).arg(&root).status();
    assert!(status.is_ok_and(|status| status.success()), "`cp` failed");
    if root.join("maestro-out").exists() {
        std::fs::remove_dir_all(root.join("maestro-out")).expect("it can be removed");
    }
    let built = build(ws, &root, flags);
    assert_eq!(built.run.code, 0, "{row}: without memory:\n{}", built.run.stderr);
    assert_eq!(built.ran, Vec::<String>::new(), "{row}: without memory, keys are the same");
    assert_eq!(built.reevaluated, None, "{row}: nothing is remembered");
    digests(&built.run)
}

fn check(ws: &Workspace, row: &Row, flags: &mut Vec<String>) {
    for step in &row.steps {
        step.take(ws, flags);
    }
    let name = row.name;
    let built = build(ws, &ws.root, flags);
    if let Some(message) = row.fails {
        assert_ne!(built.run.code, 0, "{name}: it fails");
        assert!(built.run.stderr.contains(message), "{name}:\n{}", built.run.stderr);
        return;
    }
    assert_eq!(built.run.code, 0, "{name}:\n{}", built.run.stderr);
    assert_eq!(built.ran, row.ran, "{name}: what ran");
    if let Some((packages, targets)) = &row.reevaluated {
        let (packages, targets) = (packages.clone(), targets.clone());
        let expect =
            (packages.into_iter().map(String::from), targets.into_iter().map(String::from));
        let expect = Some((expect.0.collect(), expect.1.collect()));
        assert_eq!(built.reevaluated, expect, "{name}: what was evaluated");
    }
    let again = build(ws, &ws.root, flags);
    assert_eq!(again.ran, Vec::<String>::new(), "{name}: nothing is left to do");
    assert!(again.reevaluated.is_none(), "{name}: nothing is left to evaluate");
    let text = ws.command().args(["build", "//..."]).args(&*flags).output().expect("it runs");
    let text = Run::of(text);
    assert!(text.stderr.contains("up to date"), "{name}:\n{}{}", text.stdout, text.stderr);
    let expect = digests(&built.run);
    assert_eq!(digests(&again.run), expect, "{name}: the second build");
    assert_eq!(forgetful(ws, name, flags), expect, "{name}: a build without memory");
}

#[test]
fn edits_run_what_they_affect_and_leave_what_a_build_without_memory_would() {
    let ws = Workspace::new();
    fixture::write(&ws);
    let mut flags = Vec::new();
    let first = build(&ws, &ws.root, &flags);
    assert_eq!(first.run.code, 0, "{}", first.run.stderr);
    for row in fixture::rows() {
        check(&ws, &row, &mut flags);
    }
}
