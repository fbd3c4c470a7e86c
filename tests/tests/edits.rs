//! A table of edits, through the binary: which actions each one runs and what it evaluates, that
//! nothing is left to do after it, and that a build without memory comes to the same outputs.

mod edits {
    pub mod fixture;
    pub mod rows;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use edits::fixture::{self, Call};
use edits::rows::{self, Evaluated, Row};
use maestro_tests::{Run, Workspace, executed};
use serde_json::Value;

/// What a build came to.
struct Built {
    run: Run,
    /// The labels of the actions that ran, sorted.
    ran: Vec<String>,
    evaluated: Evaluated,
}

fn names(event: &Value, field: &str) -> Vec<String> {
    let names = event[field].as_array().expect("a list of names");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

fn evaluated(events: &Path) -> Evaluated {
    let text = std::fs::read_to_string(events).expect("events were written");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let events: Vec<Value> = lines.collect();
    let find = |name: &str| events.iter().find(|event| event["event"] == name);
    match (find("reevaluated"), find("analyzed")) {
        (Some(event), _) => Evaluated::These(names(event, "packages"), names(event, "targets")),
        (None, Some(_)) => Evaluated::All,
        (None, None) => Evaluated::Nothing,
    }
}

fn command(ws: &Workspace, root: &Path, call: &Call) -> Command {
    let mut command = ws.command();
    command.current_dir(root).args([call.command, call.pattern]);
    command.args(&call.flags).envs(call.env.iter().copied());
    command
}

fn build(ws: &Workspace, root: &Path, call: &Call) -> Built {
    let events = ws.outside().join("events.jsonl");
    let mut command = command(ws, root, call);
    command.arg("--output=json").arg("--events").arg(&events);
    let run = Run::of(command.output().expect("the binary can be started"));
    let (ran, evaluated) = (executed(&events), evaluated(&events));
    std::fs::remove_file(&events).expect("events were written");
    Built { run, ran, evaluated }
}

/// The digest of every output.
fn digests(run: &Run) -> BTreeMap<String, String> {
    let summary = run.json();
    let targets = summary["targets"].as_array().expect("targets");
    let files = targets.iter().flat_map(|target| target["outputs"].as_array().expect("outputs"));
    files.map(|file| (file["path"].to_string(), file["digest"].to_string())).collect()
}

/// What is built where nothing is remembered: in a copy of the workspace, with the same cache.
fn forgetful(ws: &Workspace, row: &str, call: &Call) -> BTreeMap<String, String> {
    let copy = tempfile::tempdir_in(ws.outside()).expect("a folder can be made");
    let root = copy.path().join("ws");
    let status = Command::new("cp").arg("-a").arg(&ws.root).arg(&root).status();
    assert!(status.is_ok_and(|status| status.success()), "`cp` failed");
    if root.join("maestro-out").exists() {
        std::fs::remove_dir_all(root.join("maestro-out")).expect("it can be removed");
    }
    let built = build(ws, &root, call);
    assert_eq!(built.run.code, 0, "{row}: without memory:\n{}", built.run.stderr);
    assert_eq!(built.ran, Vec::<String>::new(), "{row}: without memory, keys are the same");
    assert_eq!(built.evaluated, Evaluated::All, "{row}: nothing is remembered");
    digests(&built.run)
}

fn check(ws: &Workspace, row: &Row, call: &mut Call) {
    for step in &row.steps {
        step.take(ws, call);
    }
    let name = row.name;
    let built = build(ws, &ws.root, call);
    let failed = built.run.code != 0;
    assert_eq!(failed, row.fails.is_some(), "{name}:\n{}", built.run.stderr);
    assert_eq!(built.ran, row.ran, "{name}: what ran");
    assert_eq!(built.evaluated, row.evaluated, "{name}: what was evaluated");
    if let Some(message) = row.fails {
        assert!(built.run.stderr.contains(message), "{name}:\n{}", built.run.stderr);
        return;
    }
    let again = build(ws, &ws.root, call);
    assert_eq!(again.ran, Vec::<String>::new(), "{name}: nothing is left to do");
    assert_eq!(again.evaluated, Evaluated::Nothing, "{name}: nothing is left to evaluate");
    let text = Run::of(command(ws, &ws.root, call).output().expect("it runs"));
    assert!(text.stderr.contains("up to date"), "{name}:\n{}{}", text.stdout, text.stderr);
    let expect = digests(&built.run);
    assert_eq!(digests(&again.run), expect, "{name}: the second build");
    assert_eq!(forgetful(ws, name, call), expect, "{name}: a build without memory");
}

#[test]
fn edits_run_what_they_affect_and_leave_what_a_build_without_memory_would() {
    let ws = Workspace::new();
    fixture::write(&ws);
    let mut call = Call::default();
    let first = build(&ws, &ws.root, &call);
    assert_eq!(first.run.code, 0, "{}", first.run.stderr);
    assert_eq!(first.evaluated, Evaluated::All);
    for row in rows::rows() {
        check(&ws, &row, &mut call);
    }
}
