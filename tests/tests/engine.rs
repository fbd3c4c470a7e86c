//! The engine through `maestro exec`: what runs, what is reused, what is refused.
//! Each test asserts exactly which actions ran.

use maestro_tests::{Workspace, shell};
use serde_json::json;

/// `//t:a` hashes `a.txt`, `//t:b` takes its first byte, `//t:c` copies that.
fn chain() -> Workspace {
    let ws = Workspace::new();
    ws.write("a.txt", "hello\n");
    ws.write_graph(&json!({
        "actions": [
            shell("//t:a", "sha256sum a.txt > out/a", &["a.txt"], &["out/a"]),
            shell("//t:b", "wc -l < out/a > out/b", &["out/a"], &["out/b"]),
            shell("//t:c", "cat out/b out/b > out/c", &["out/b"], &["out/c"]),
        ],
        "requested": ["out/c"],
    }));
    ws
}

#[test]
fn cold_then_cached_then_early_cutoff() {
    let ws = chain();
    assert_eq!(ws.exec().0, ["//t:a", "//t:b", "//t:c"]);
    assert_eq!(ws.read("out/c"), "1\n1\n");
    let (ran, summary) = ws.exec();
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(summary["actions"]["cached"], 3);
    // The hash changes, the number of lines does not: `c` keeps its key.
    ws.write("a.txt", "other\n");
    assert_eq!(ws.exec().0, ["//t:a", "//t:b"]);
    ws.write("a.txt", "hello\n");
    assert!(ws.exec().0.is_empty(), "an edit taken back finds the old results");
}

#[test]
fn only_requested_outputs_are_written() {
    let ws = chain();
    ws.exec();
    assert!(ws.root.join("out/c").exists());
    assert!(!ws.root.join("out/a").exists());
    ws.write("out/c", "edited by hand");
    ws.exec();
    assert_eq!(ws.read("out/c"), "1\n1\n", "an edited output is put right");
}

#[test]
fn failures_are_not_cached_and_show_everything() {
    let ws = Workspace::new();
    let script = "echo to-stdout; echo to-stderr >&2; exit 7";
    ws.write_graph(&json!({"actions": [shell("//t:bad", script, &[], &["out/x"])]}));
    for _ in 0..2 {
        let error = ws.fails(1, &["exec", "graph.json"]);
        for part in ["//t:bad", "7", "to-stdout", "to-stderr", "full log:", "/bin/sh"] {
            assert!(error.contains(part), "no `{part}` in:\n{error}");
        }
    }
}

#[test]
fn a_declared_output_that_is_not_made_fails_even_with_exit_0() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [shell("//t:bad", "echo x > out/near", &[], &["out/wanted"])],
    }));
    let error = ws.fails(1, &["exec", "graph.json"]);
    assert!(error.contains("out/wanted") && error.contains("out/near"), "{error}");
}

#[test]
fn an_undeclared_input_does_not_exist_and_is_named() {
    let ws = Workspace::new();
    ws.write("p/secret.h", "x");
    ws.write_graph(&json!({
        "actions": [shell("//t:bad", "cat p/secret.h > out/x", &[], &["out/x"])],
    }));
    let error = ws.fails(1, &["exec", "graph.json"]);
    assert!(error.contains("hint:") && error.contains("p/secret.h"), "{error}");
}

#[test]
fn after_a_failure_independent_work_goes_on_only_if_asked() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [
            shell("//t:bad", "exit 1", &[], &["out/bad"]),
            shell("//t:after", "cat out/bad > out/after", &["out/bad"], &["out/after"]),
            shell("//t:good", "echo > out/good", &[], &["out/good"]),
        ],
    }));
    let run = ws.run(&["exec", "graph.json", "--keep-going", "--output=json"]);
    assert_eq!(run.code, 1);
    let actions = &run.json()["actions"];
    assert_eq!((&actions["executed"], &actions["failed"]), (&json!(1), &json!(1)));
    assert_eq!(actions["skipped"], 1);
    assert!(ws.root.join("out/good").exists());
}

#[test]
fn cycles_and_clashes_are_refused_before_anything_runs() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [
            shell("//t:x", "cat out/y > out/x", &["out/y"], &["out/x"]),
            shell("//t:y", "cat out/x > out/y", &["out/x"], &["out/y"]),
        ],
    }));
    let error = ws.fails(2, &["exec", "graph.json"]);
    assert!(error.contains("cycle") && error.contains("//t:x") && error.contains("//t:y"));
    ws.write_graph(&json!({
        "actions": [
            shell("//t:x", "true", &[], &["out/x"]),
            shell("//t:y", "true", &[], &["out/x"]),
        ],
    }));
    assert!(ws.fails(2, &["exec", "graph.json"]).contains("out/x"));
}

#[test]
fn odd_graph_files_are_explained() {
    let ws = Workspace::new();
    for (text, expect) in [
        ("{", "line 1"),
        (r#"{"actions": [{"label": "x"}]}"#, "outputs"),
        (r#"{"actions": [], "acton": 1}"#, "acton"),
        (r#"{"actions": [{"label": "//a:b", "outputs": ["../x"], "command": ["x"]}]}"#, "../x"),
        (r#"{"actions": [{"label": "//a:b", "outputs": ["x"]}]}"#, "command"),
    ] {
        ws.write("graph.json", text);
        let error = ws.fails(2, &["exec", "graph.json"]);
        assert!(error.contains(expect), "no `{expect}` in:\n{error}");
    }
}

#[test]
fn timeouts_end_the_whole_process_tree() {
    let ws = Workspace::new();
    let mut action = shell("//t:slow", "sleep 1000 & sleep 1000", &[], &["out/x"]);
    action["timeout_ms"] = json!(300);
    ws.write_graph(&json!({"actions": [action]}));
    let error = ws.fails(1, &["exec", "graph.json"]);
    assert!(error.contains("timed out") && error.contains("300"), "{error}");
}

#[test]
fn trees_and_native_steps_compose() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [
            {
                "label": "//t:tree",
                "command": ["/bin/sh", "-c", "mkdir -p out/t/a/b out/t/empty && echo 1 > out/t/a/b/f && ln -s b/f out/t/a/l && chmod +x out/t/a/b/f"],
                "outputs": [{"path": "out/t", "kind": "tree"}],
                "toolchains": ["base"],
            },
            {
                "label": "//t:tar",
                "native": {"kind": "tar", "semantics": 1,
                           "request": {"entries": [{"path": "x", "from": "out/t"}]}},
                "inputs": ["out/t"],
                "outputs": ["out/t.tar"],
            },
        ],
    }));
    ws.exec();
    assert_eq!(ws.read("out/t/a/l"), "1\n");
    assert!(ws.root.join("out/t/empty").is_dir());
    let list = std::process::Command::new("tar")
        .args(["tf", "out/t.tar"])
        .current_dir(&ws.root)
        .output()
        .expect("tar runs");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("x/a/b/f") && list.contains("x/empty"), "{list}");
}
