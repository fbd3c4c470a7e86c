//! The guide "Debug a slow build": `explain` names lines, `profile` names the critical path.

use maestro_tests::{Run, Workspace};
use serde_json::{Value, json};

fn json_of(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"))
}

/// Three steps in a row, and one beside them.
fn chain() -> Workspace {
    let ws = Workspace::new();
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
         genrule(name = \"first\", srcs = [\"in.txt\"], outs = [\"1.txt\"], cmd = \"cp $< $@\")\n\
         genrule(name = \"second\", srcs = [\":first\"], outs = [\"2.txt\"], cmd = \"cp $< $@\")\n\
         genrule(name = \"third\", srcs = [\":second\"], outs = [\"3.txt\"], cmd = \"cp $< $@\")\n\
         genrule(name = \"beside\", srcs = [\"other.txt\"], outs = [\"b.txt\"], cmd = \"cp $< $@\")\n",
    );
    ws.write("in.txt", "one\ntwo\nthree\nfour\n");
    ws.write("other.txt", "other\n");
    ws
}

#[test]
fn explain_names_the_lines_of_an_edit_and_the_way_to_each_action() {
    let ws = chain();
    ws.ok(&["build", "//..."]);
    ws.write("in.txt", "one\n2\n3\nfour\n");
    ws.ok(&["build", "//..."]);
    let text = ws.run(&["explain"]).stdout;
    let want = "1.txt  Genrule re-ran: in.txt:2-3 changed\n\
                2.txt  Genrule re-ran: in.txt:2-3 changed (through 1.txt)\n\
                3.txt  Genrule re-ran: in.txt:2-3 changed (through 1.txt … 2.txt)\n";
    assert_eq!(text, want, "the action beside them is not named");
    let found = json_of(&ws.run(&["explain", "//:second", "--output", "json"]));
    assert_eq!(found[1]["label"], "//:second");
    let cause = json!({
        "root": {"kind": "source", "path": "in.txt", "edit": "changed",
            "lines": {"first": 2, "last": 3}},
        "through": ["maestro-out/shared/1.txt"],
    });
    assert_eq!(found[1]["why"], json!({"reason": "changed", "causes": [cause], "more": 0}));
}

#[test]
fn explain_goes_without_lines_where_the_old_text_is_gone() {
    let ws = chain();
    ws.ok(&["build", "//:first"]);
    ws.write("in.txt", "one\n2\n");
    ws.ok(&["build", "//:first"]);
    std::fs::remove_dir_all(ws.cache.join("cas")).expect("the store can be removed");
    let run = ws.run(&["explain"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "1.txt  Genrule re-ran: in.txt changed\n"));
}

#[test]
fn profile_reads_traces_and_events_and_writes_a_page() {
    let ws = chain();
    ws.ok(&["build", "//...", "--trace", "trace.json", "--events", "events.jsonl"]);
    for file in ["trace.json", "events.jsonl"] {
        let found = json_of(&ws.run(&["profile", file, "--output", "json"]));
        assert_eq!((&found["ran"], &found["reused"]), (&json!(4), &json!(0)), "{file}");
        assert_eq!(found["request"], "build //...");
        let path: Vec<&str> = found["critical_path"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|link| link["label"].as_str().expect("a label"))
            .collect();
        assert!(path.ends_with(&["//:second", "//:third"]) || path == ["//:beside"], "{path:?}");
        assert_eq!(found["kinds"][0]["mnemonic"], "Genrule");
    }
    let text = ws.run(&["profile", "trace.json", "--html", "page.html"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stdout.starts_with("maestro build //...\n\nwall time "), "{}", text.stdout);
    assert!(text.stdout.contains("Genrule //:third"), "{}", text.stdout);
    let page = ws.read("page.html");
    assert!(page.starts_with("<!doctype html>") && page.contains("Genrule //:third"));
    assert!(!page.contains("http"), "the page loads nothing");
}

#[test]
fn profile_refuses_other_files() {
    let ws = chain();
    for (file, message) in [
        ("maestro.star", "error: `maestro.star` is no profile: line 1 is no event"),
        ("none.json", "error: cannot read `none.json`"),
    ] {
        let run = ws.run(&["profile", file]);
        assert!(run.stderr.starts_with(message), "{}", run.stderr);
        assert_ne!(run.code, 0);
    }
}
