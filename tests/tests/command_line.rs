//! What the command line promises to people and scripts: help, usage errors, `run`, events,
//! traces, and an end in order on Ctrl-C.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use maestro_tests::{Run, Workspace, poll, shell};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

fn shell_package() -> Workspace {
    let ws = Workspace::new();
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:basics.star\", \"genrule\", \"sh_binary\", \"sh_test\")\n\
         genrule(name = \"text\", outs = [\"text.txt\"], cmd = \"echo text > $@\")\n\
         sh_binary(name = \"hello\", srcs = [\"hello.sh\"])\n\
         sh_test(name = \"good_test\", srcs = [\"good.sh\"])\n\
         sh_test(name = \"bad_test\", srcs = [\"bad.sh\"])\n",
    );
    ws.write("hello.sh", "#!/bin/sh\necho \"hello from $1 and $2\"\nexit 5\n");
    ws.write("good.sh", "#!/bin/sh\nexit 0\n");
    ws.write("bad.sh", "#!/bin/sh\necho said by the test\nexit 1\n");
    ws
}

/// Compares with a golden file, or writes it where `MAESTRO_BLESS` is set.
fn golden(name: &str, got: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/cli");
    let path = folder.join(name);
    if std::env::var_os("MAESTRO_BLESS").is_some() {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(&path, got).expect("a file can be written");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(got, want, "`{}` differs; `cargo xtask bless` writes it", path.display());
}

const COMMANDS: [&str; 21] = [
    "build",
    "test",
    "run",
    "query",
    "cquery",
    "aquery",
    "explain",
    "profile",
    "docs",
    "fmt",
    "lint",
    "template",
    "lock",
    "clean",
    "cache",
    "serve",
    "conformance",
    "policy",
    "doctor",
    "provenance",
    "exec",
];

#[test]
fn help_is_as_documented() {
    let ws = Workspace::new();
    let mut text = String::new();
    for command in std::iter::once(None).chain(COMMANDS.into_iter().map(Some)) {
        let args: Vec<&str> = command.into_iter().chain(["--help"]).collect();
        let run = ws.run(&args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        text.push_str(&format!("$ maestro {}\n{}\n", args.join(" "), run.stdout));
    }
    golden("help.txt", &text);
}

#[test]
fn a_reader_that_has_read_enough_is_no_bug() {
    let ws = shell_package();
    let mut child = ws.spawn(&["build", "//:text", "--output", "json"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(141));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("internal error"));
}

#[test]
fn usage_errors_are_as_documented() {
    let ws = shell_package();
    let mut text = String::new();
    for args in [
        &[][..],
        &["biuld", "//..."],
        &["build"],
        &["build", "//...", "--sandbox=maybe"],
        &["build", "//...", "--jobs=0"],
        &["build", "//...", "--locked", "--stale-records=allow"],
        &["lock"],
        &["lock", "--update", "--check"],
        &["lock", "--update"],
        &["cache", "gc", "--max-size=much"],
        &["run", "//..."],
        &["run", "//:text"],
        &["test", "//:text"],
        &["query", "dpes(//...)"],
        &["query"],
        &["query", "//:text", "--output=labels"],
        &["query", "//:text", "--label-kind", "--output=graph"],
        &["cquery", "siblings(//:text)"],
        &["aquery", "//:text", "--output=graph"],
        &["build", "//...", "--output=graph"],
        &["build", "//:"],
    ] {
        let run = ws.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}:\n{}", run.stderr);
        let (cache, root) = (ws.cache.display().to_string(), ws.root.display().to_string());
        let stderr = run.stderr.replace(&cache, "$CACHE").replace(&root, "$WORKSPACE");
        text.push_str(&format!("$ maestro {}\n{stderr}\n", args.join(" ")));
    }
    golden("usage.txt", &text);
}

#[test]
fn no_workspace_is_an_input_error_with_advice() {
    let ws = Workspace::new();
    let run = ws.command().args(["build", "//..."]).current_dir(ws.outside()).output();
    let run = Run::of(run.expect("the binary starts"));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("hint:") && run.stderr.contains("maestro.toml"), "{}", run.stderr);
}

#[test]
fn run_becomes_the_program() {
    let ws = shell_package();
    let run = ws.run(&["run", "//:hello", "--", "one", "--two"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (5, "hello from one and --two\n"),
        "{}",
        run.stderr
    );
}

#[test]
fn tests_have_verdicts_and_logs() {
    let ws = shell_package();
    let run = ws.run(&["test", "//..."]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    for part in ["//:good_test", "PASSED", "//:bad_test", "FAILED", "said by the test"] {
        assert!(run.stderr.contains(part), "no `{part}` in:\n{}", run.stderr);
    }
    let again = ws.run(&["test", "//:good_test"]);
    assert!(again.stderr.contains("(cached)"), "{}", again.stderr);
}

#[test]
fn events_and_trace_are_json_and_agree_with_the_summary() {
    let ws = shell_package();
    let (events, trace) = (ws.outside().join("events"), ws.outside().join("trace"));
    let flags = [format!("--events={}", events.display()), format!("--trace={}", trace.display())];
    let args = ["build", "//:text", "//:hello", flags[0].as_str(), flags[1].as_str()];
    let summary = ws.ok(&args);
    let text = std::fs::read_to_string(&events).expect("events were written");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let name = |event: Option<&Value>| event.map(|event| event["event"].clone());
    assert_eq!(name(lines.first()), Some(json!("invocation-started")));
    assert_eq!(name(lines.last()), Some(json!("invocation-finished")));
    assert_eq!(lines[0]["invocation_id"], summary["invocation_id"]);
    let finished: Vec<&Value> =
        lines.iter().filter(|event| event["event"] == "action-finished").collect();
    assert_eq!(json!(finished.len()), summary["actions"]["total"]);
    let trace = std::fs::read(&trace).expect("a trace was written");
    let trace: Vec<Value> = serde_json::from_slice(&trace).expect("the trace is a JSON array");
    for event in finished {
        let label = event["label"].as_str().expect("a text");
        let span = trace.iter().find(|span| {
            span["ph"] == "X" && span["name"].as_str().is_some_and(|name| name.ends_with(label))
        });
        let span = span.unwrap_or_else(|| panic!("no span of `{label}` in {trace:?}"));
        assert!(span["ts"].is_u64() && span["dur"].as_u64() > Some(0), "{span}");
    }
    assert_eq!(lines.last().map(|event| event["success"].clone()), Some(json!(true)));
    // A build that has nothing to do writes both, too.
    ws.ok(&args);
    let text = std::fs::read_to_string(&events).expect("events were written");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn the_summary_has_every_promised_field() {
    let ws = shell_package();
    let summary = ws.ok(&["build", "//:text"]);
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let expect = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let wanted: BTreeSet<String> = expect(&[
        "success",
        "targets",
        "actions",
        "critical_path_ms",
        "wall_ms",
        "cost_usd_micros",
        "saved_usd_micros",
        "invocation_id",
    ]);
    assert_eq!(keys(&summary), wanted);
    let wanted: BTreeSet<String> =
        expect(&["total", "executed", "cached", "remote", "locked", "failed", "skipped"]);
    assert_eq!(keys(&summary["actions"]), wanted);
    let target = &summary["targets"][0];
    assert_eq!(keys(target), expect(&["label", "outputs"]));
    assert_eq!(keys(&target["outputs"][0]), expect(&["path", "digest", "size"]));
    assert_eq!((&target["label"], &target["outputs"][0]["size"]), (&json!("//:text"), &json!(5)));
}

/// All living processes below `root` in the tree of processes.
fn descendants(root: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let parent = after.split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = BTreeSet::from([root]);
    while parents.iter().any(|(pid, parent)| found.contains(parent) && found.insert(*pid)) {}
    found
}

#[test]
fn an_interrupt_ends_everything_and_exits_with_130() {
    for signal in [Signal::INT, Signal::TERM] {
        let ws = Workspace::new();
        let sleep = "sleep 1000 & sleep 1000";
        ws.write_graph(&json!({"actions": [
            shell("//t:half", "echo half > out/half; sleep 1000", &[], &["out/half"]),
            shell("//t:slow", sleep, &[], &["out/slow"]),
        ]}));
        let mut child = ws.spawn(&["exec", "graph.json", "--jobs=2"]);
        let pid = Pid::from_child(&child);
        let sleeping = || {
            let named = |pid: &u32| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n")
            };
            descendants(child.id()).iter().filter(|pid| named(pid)).count() == 3
        };
        assert!(poll(Duration::from_secs(60), sleeping), "the actions never began");
        let all = descendants(child.id());
        rustix::process::kill_process(pid, signal).expect("our child");
        let over = poll(Duration::from_secs(20), || child.try_wait().expect("ours").is_some());
        if !over {
            child.kill().expect("our child");
        }
        let run = Run::of(child.wait_with_output().expect("it ended"));
        assert!(over, "it does not end on {signal:?}:\n{}", run.stderr);
        assert_eq!(run.code, 130, "{}", run.stderr);
        assert!(run.stderr.contains("cancelled"), "{}", run.stderr);
        let gone = || all.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        assert!(poll(Duration::from_secs(10), gone), "processes are left of {all:?}");
        assert!(!ws.root.join("out").exists(), "nothing half-written is left");
        assert_eq!(ws.run(&["cache", "verify"]).code, 0);
    }
}
