//! With and without a daemon builds come to the same, whatever is edited and whatever becomes of
//! the daemon.

#[allow(dead_code)] // what is evaluated stands in the table, too, for the test of edits
mod edits {
    pub mod fixture;
    pub mod rows;
}

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use edits::fixture::{self, Call, Step};
use edits::rows;
use maestro_tests::{Run, Workspace, executed, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest time that anything here may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What a client logs where the daemon knew what changed.
const ANSWERED: &str = "the daemon answered";

/// What a build came to.
#[derive(Debug, PartialEq, Eq)]
struct Built {
    code: i32,
    /// The labels of the actions that ran, sorted.
    ran: Vec<String>,
    /// Outputs with their digests.
    outputs: BTreeMap<String, String>,
}

fn build_by(ws: &Workspace, call: &Call, daemon: &str) -> (Run, Built) {
    let events = ws.outside().join("events.jsonl");
    let mut command = ws.command();
    command.args([call.command, call.pattern, "--output=json", daemon, "--events"]).arg(&events);
    command.args(&call.flags).envs(call.env.iter().copied()).env("MAESTRO_LOG", "maestro=debug");
    let run = Run::of(command.output().expect("the binary can be started"));
    let ran = executed(&events);
    std::fs::remove_file(&events).expect("events were written");
    let mut outputs = BTreeMap::new();
    if run.code == 0 {
        let summary = run.json();
        for target in summary["targets"].as_array().expect("targets") {
            for file in target["outputs"].as_array().expect("outputs") {
                outputs.insert(file["path"].to_string(), file["digest"].to_string());
            }
        }
    }
    let code = run.code;
    (run, Built { code, ran, outputs })
}

/// Builds until the daemon knows the request, so that it is what is tested from then on.
fn until_told(ws: &Workspace, call: &Call) {
    let mut last = String::new();
    let told = poll(LIMIT, || {
        last = build_by(ws, call, "--daemon").0.stderr;
        last.contains(ANSWERED)
    });
    assert!(told, "the daemon never knows:\n{last}");
}

fn status(ws: &Workspace) -> Value {
    ws.run(&["daemon", "status", "--output=json"]).json()
}

fn pid(ws: &Workspace) -> Pid {
    let status = status(ws);
    let pid = status["pid"].as_i64().unwrap_or_else(|| panic!("no daemon runs: {status}"));
    Pid::from_raw(i32::try_from(pid).expect("a process")).expect("a process")
}

fn has_ended(pid: Pid) -> bool {
    poll(LIMIT, || rustix::process::test_kill_process(pid).is_err())
}

fn stop(ws: &Workspace) {
    ws.fails(0, &["daemon", "stop"]);
}

/// The only socket below the cache.
fn socket(ws: &Workspace) -> PathBuf {
    let states = std::fs::read_dir(ws.cache.join("workspaces")).expect("a state");
    let mut sockets = states.map(|state| state.expect("readable").path().join("daemon/socket"));
    sockets.find(|socket| socket.exists()).expect("a daemon listens")
}

/// A workspace with one action that reads one file.
fn small() -> Workspace {
    let ws = Workspace::new();
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
         genrule(name = \"a\", srcs = [\"a.txt\"], outs = [\"a.out\"], cmd = \"cat $(SRCS) > $@\")\n",
    );
    ws.write("a.txt", "one\n");
    ws
}

fn output(ws: &Workspace) -> String {
    ws.read("maestro-out/shared/a.out")
}

/// Edits that the table of edits does not have: those that a watch could miss.
fn sly(ws: &Workspace) -> Vec<(&'static str, Vec<Step>)> {
    use Step::{Age, Remove, Rename, Write};
    let python = |script: &str, file: &str| {
        let status = Command::new("python3").args(["-c", script]).arg(ws.root.join(file)).status();
        assert!(status.is_ok_and(|status| status.success()), "{script}");
    };
    python(
        "import mmap,sys\n\
         with open(sys.argv[1],'r+b') as f:\n m=mmap.mmap(f.fileno(),0); m[0:1]=b'M'; m.close()",
        "app/one.c",
    );
    python("import os,sys\nos.link(sys.argv[1], sys.argv[1]+'.link')", "app/two.c");
    vec![
        ("a map, and a hard link", vec![]),
        ("through the hard link", vec![Write("app/two.c.link", "by another name\n")]),
        ("the link goes", vec![Remove("app/two.c.link")]),
        ("touched", vec![Age("app/one.c", 50)]),
        (
            "folders change places",
            vec![Rename("data", "t"), Rename("app", "data"), Rename("t", "app")],
        ),
        ("and again", vec![Rename("data", "t"), Rename("app", "data"), Rename("t", "app")]),
        ("all of it anew", vec![Rename("app", "old"), Remove("old"), Rename("spare", "app")]),
        ("outputs move", vec![Rename("maestro-out", "moved-out"), Remove("moved-out")]),
        (
            "an output is a folder",
            vec![
                Remove("maestro-out/shared/app/one.o"),
                Write("maestro-out/shared/app/one.o/x", "x\n"),
            ],
        ),
    ]
}

/// Takes the same steps in both workspaces and compares the builds.
fn compare(with: &Workspace, without: &Workspace, name: &str, call: &Call) {
    let (run, built) = build_by(with, call, "--daemon");
    let (plain, expect) = build_by(without, call, "--no-daemon");
    assert!(!plain.stderr.contains(ANSWERED), "{name}: nobody was asked");
    assert_eq!(built, expect, "{name}:\n{}\n{}", run.stderr, plain.stderr);
    if built.code == 0 {
        until_told(with, call);
        let (again, built) = build_by(with, call, "--daemon");
        assert_eq!(built.ran, Vec::<String>::new(), "{name}: nothing is left:\n{}", again.stderr);
        assert_eq!(built.outputs, expect.outputs, "{name}: the second build");
    }
}

#[test]
fn builds_come_to_the_same_with_and_without() {
    let (with, without) = (Workspace::new(), Workspace::new());
    let mut call = Call::default();
    for ws in [&with, &without] {
        fixture::write(ws);
    }
    compare(&with, &without, "at first", &call);
    for row in rows::rows() {
        for ws in [&with, &without] {
            for step in &row.steps {
                step.take(ws, &mut call);
            }
        }
        compare(&with, &without, row.name, &call);
    }
    for ws in [&with, &without] {
        maestro_tests::copy_tree(&ws.root.join("app"), &ws.root.join("spare"));
        std::fs::rename(ws.root.join("spare/maestro.star"), ws.root.join("spare/off"))
            .expect("writable");
    }
    compare(&with, &without, "a folder more", &call);
    let steps = [sly(&with), sly(&without)];
    for (index, (name, _)) in steps[0].iter().enumerate() {
        for (ws, steps) in [&with, &without].into_iter().zip(&steps) {
            if *name == "all of it anew" {
                std::fs::rename(ws.root.join("spare/off"), ws.root.join("spare/maestro.star"))
                    .expect("writable");
            }
            for step in &steps[index].1 {
                step.take(ws, &mut call);
            }
        }
        compare(&with, &without, name, &call);
    }
    stop(&with);
}

#[test]
fn what_is_edited_while_a_build_runs_is_built_by_the_next() {
    let ws = small();
    let star = ws.read("maestro.star").replace("cat $(SRCS) > $@", "cat $(SRCS) > $@; sleep 1");
    ws.write("maestro.star", star);
    until_told(&ws, &Call::default());
    ws.write("a.txt", "two\n");
    let events = ws.outside().join("running.jsonl");
    let events_flag = format!("--events={}", events.display());
    let mut build = ws.spawn(&["build", "//...", "--daemon", &events_flag]);
    let started = || std::fs::read_to_string(&events).is_ok_and(|t| t.contains("action-started"));
    assert!(poll(LIMIT, started), "the action starts");
    ws.write("a.txt", "three\n");
    let mut stderr = String::new();
    build.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    build.wait().expect("it ends");
    let built = build_by(&ws, &Call::default(), "--daemon").1;
    assert_eq!(built.ran, ["//:a"], "after:\n{stderr}");
    assert_eq!(output(&ws), "three\n");
    stop(&ws);
}

#[test]
fn a_daemon_that_is_killed_or_hangs_costs_time_alone() {
    let ws = small();
    until_told(&ws, &Call::default());
    let first = pid(&ws);
    ws.write("a.txt", "two\n");
    kill_process(first, Signal::KILL).expect("ours");
    assert!(has_ended(first));
    let (run, built) = build_by(&ws, &Call::default(), "--daemon");
    assert_eq!(built.ran, ["//:a"], "{}", run.stderr);
    assert_eq!(output(&ws), "two\n");
    until_told(&ws, &Call::default());
    let second = pid(&ws);
    assert_ne!(first, second, "another one was started");

    kill_process(second, Signal::STOP).expect("ours");
    ws.write("a.txt", "three\n");
    let (run, built) = build_by(&ws, &Call::default(), "--daemon");
    assert_eq!(built.ran, ["//:a"]);
    assert!(run.stderr.contains("note: the daemon does not answer"), "{}", run.stderr);
    assert_eq!(output(&ws), "three\n");
    let said = ws.fails(0, &["daemon", "stop"]);
    assert_eq!(said, "the daemon has ended\n");
    assert!(has_ended(second), "one that hangs is killed");
    assert_eq!(ws.run(&["daemon", "status"]).code, 1);
}

#[test]
fn a_workspace_has_one_daemon() {
    let ws = small();
    assert_eq!(ws.fails(0, &["daemon", "stop"]), "no daemon runs for this workspace\n");
    ws.fails(0, &["daemon", "--detach"]);
    let first = pid(&ws);
    let error = ws.fails(3, &["daemon"]);
    let expect = format!("already runs for this workspace (process {first})");
    assert!(error.contains(&expect), "{error}");
    let error = ws.fails(3, &["daemon", "--detach"]);
    assert!(error.contains(&expect), "{error}");
    until_told(&ws, &Call::default());
    assert_eq!(pid(&ws), first);
    let text = ws.run(&["daemon", "status"]).stdout;
    for part in ["process", "requests          1", "folders watched", "memory"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert_eq!(ws.run(&["test", "//...", "--daemon"]).code, 2, "there is no test");
    stop(&ws);
    assert!(has_ended(first));
}

#[test]
fn it_ends_when_nobody_asks_and_when_its_state_is_gone() {
    let ws = small();
    let run = ws.run(&["daemon", "--idle-timeout", "1"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    assert!(run.stderr.contains("nobody asked for 1 s"), "{}", run.stderr);
    until_told(&ws, &Call::default());
    let daemon = pid(&ws);
    ws.fails(0, &["clean", "--expunge"]);
    assert!(has_ended(daemon), "its folder is gone");
    until_told(&ws, &Call::default());
    stop(&ws);
}

#[test]
fn another_build_of_maestro_has_its_own() {
    let ws = small();
    until_told(&ws, &Call::default());
    let first = pid(&ws);
    let other = |args: &[&str]| {
        let mut command = Command::new(ws.reachable_bin());
        command.current_dir(&ws.root).env("MAESTRO_CACHE", &ws.cache).env_remove("CI");
        Run::of(command.args(args).output().expect("the binary can be started"))
    };
    let run = other(&["build", "//...", "--daemon"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(has_ended(first), "it was replaced");
    let second = pid(&ws);
    assert_ne!(first, second);
    until_told(&ws, &Call::default());
    assert_ne!(second, pid(&ws), "and replaced again");
    stop(&ws);
}

#[test]
fn garbage_on_the_socket_troubles_nobody() {
    let ws = small();
    until_told(&ws, &Call::default());
    let daemon = pid(&ws);
    let silent = UnixStream::connect(socket(&ws)).expect("it listens");
    let garbage: [&[u8]; 5] =
        [b"", b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[255; 64], b"\x09\0\0\0nonsense"];
    for bytes in garbage {
        let mut stream = UnixStream::connect(socket(&ws)).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        // It answers, or hangs up, perhaps on what it did not read.
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{bytes:?}");
        }
    }
    until_told(&ws, &Call::default());
    assert_eq!(pid(&ws), daemon, "it is still the same");
    drop(silent);
    stop(&ws);
}

#[test]
fn the_configuration_may_ask_for_it() {
    let ws = small();
    ws.write("maestro.toml", "daemon = true\n");
    ws.ok(&["build", "//..."]);
    let daemon = pid(&ws);
    stop(&ws);
    assert!(has_ended(daemon));
    ws.ok(&["build", "//...", "--no-daemon"]);
    assert_eq!(ws.run(&["daemon", "status"]).code, 1, "no daemon was started");
}
