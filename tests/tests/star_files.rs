//! Commands about `.star` files as texts: `fmt`.

use std::io::Write as _;
use std::process::Stdio;

use maestro_tests::{Run, Workspace};
use serde_json::{Value, json};

const UGLY: &str =
    "load('@maestro//rules:basics.star','filegroup')\nfilegroup(srcs=['b','a'],name='x') # why\n";

const NEAT: &str = "load(\"@maestro//rules:basics.star\", \"filegroup\")\n\nfilegroup(\n    name = \"x\",\n    srcs = [\n        \"a\",\n        \"b\",\n    ],\n)  # why\n";

fn json_of(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"))
}

fn with_input(ws: &Workspace, args: &[&str], input: &str) -> Run {
    let mut command = ws.command();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be started");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    Run::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn fmt_writes_what_differs_and_nothing_else() {
    let ws = Workspace::new();
    ws.write("a/maestro.star", UGLY);
    ws.write("neat.star", "X = 1\n");
    ws.write("broken.star", "x = (\n");
    ws.write("maestro-out/gone.star", UGLY);
    ws.write(".hidden/gone.star", UGLY);
    ws.write("inner/maestro.toml", "");
    ws.write("inner/maestro.star", UGLY);

    let check = ws.run(&["fmt", "--check", "--output", "json"]);
    let want = json!({"changed": ["a/maestro.star"], "failed": ["broken.star"], "unchanged": 1,
        "written": false});
    assert_eq!(json_of(&check), want);
    assert_eq!(check.code, 2, "what does not parse counts most");
    assert!(check.stderr.contains(" --> broken.star:2:1"), "{}", check.stderr);
    assert_eq!(ws.read("a/maestro.star"), UGLY);

    let diff = ws.run(&["fmt", "--diff", "a"]);
    assert_eq!(diff.code, 1);
    assert!(diff.stdout.starts_with("--- a/a/maestro.star\n+++ b/a/maestro.star\n@@"));
    assert!(diff.stdout.contains("\n+    name = \"x\",\n"), "{}", diff.stdout);

    let written = ws.run(&["fmt", "a", "neat.star"]);
    assert_eq!((written.code, written.stdout.as_str()), (0, "a/maestro.star\n"));
    assert_eq!(ws.read("a/maestro.star"), NEAT);
    assert_eq!(ws.read("inner/maestro.star"), UGLY, "another workspace");
    assert_eq!(ws.read("maestro-out/gone.star"), UGLY);
    let again = ws.run(&["fmt", "--check", "a", "neat.star"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, ""));
    assert_eq!(ws.run(&["fmt"]).code, 2);
    assert_eq!(ws.read("broken.star"), "x = (\n");
}

#[test]
fn fmt_is_a_filter_for_editors() {
    let ws = Workspace::new();
    let got = with_input(&ws, &["fmt", "-", "--stdin-path", "a/maestro.star"], UGLY);
    assert_eq!((got.code, got.stdout.as_str()), (0, NEAT));
    let library = with_input(&ws, &["fmt", "-"], "f(b=1,a=2)");
    assert_eq!(library.stdout, "f(b = 1, a = 2)\n");
    let broken = with_input(&ws, &["fmt", "-"], "x = ]\n");
    assert_eq!((broken.code, broken.stdout.as_str()), (2, ""));
    assert!(broken.stderr.contains("stdin.star:1:5"), "{}", broken.stderr);
}
