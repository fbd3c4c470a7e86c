//! `ctx.actions.map_directory`, end to end: a tree's content decides which actions there are.

use std::path::Path;
use std::time::Duration;

use maestro_tests::{Workspace, poll};
use serde_json::Value;

/// Splits a list of `PATH TEXT` lines into the tree `NAME.src`.
const SPLIT: &str = r#"
def split(ctx):
    src = ctx.actions.declare_directory(ctx.label.name + ".src")
    ctx.actions.run_shell(
        outputs = [src],
        inputs = [ctx.file.list],
        command = """
mkdir "$2"
while read -r path text; do
  case $path in */*) mkdir -p "$2/${path%/*}";; esac
  case $text in "-> "*) ln -s "${text#-> }" "$2/$path";; *) echo "$text" > "$2/$path";; esac
done < "$1"
""",
        arguments = [ctx.file.list.path, src.path],
        mnemonic = "Split",
        toolchains = [ctx.attr.toolchain[ToolchainInfo].toolchain],
    )
    return src
"#;

/// Makes every letter of every file large.
const UPPER: &str = r#"
# Makes every letter of every file large.
def _impl(ctx):
    src = split(ctx)
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.map_directory(
        input_directory = src,
        output_directory = out,
        executable = "/bin/sh",
        arguments = ["-c", ctx.attr.command, "upper", "%{input}", "%{output}"],
        mnemonic = "Upper",
        toolchains = [ctx.attr.toolchain[ToolchainInfo].toolchain],
        MORE
    )
    return [DefaultInfo(files = depset([out]))]

upper = rule(
    implementation = _impl,
    attrs = {
        "list": attr.label(allow_single_file = True),
        "command": attr.string(default = "tr a-z A-Z < \"$1\" > \"$2\""),
        "toolchain": attr.label(
            default = "@maestro//toolchains:base",
            providers = [ToolchainInfo],
        ),
    },
)
"#;

/// A workspace with the target `//p:up`; `more` are further arguments of `map_directory`.
fn workspace(more: &str, attributes: &str, list: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("tools/maestro.star", "");
    let rules = format!("visibility([\"//...\"])\n{SPLIT}{}", UPPER.replace("MORE", more));
    ws.write("tools/defs.star", rules);
    let target = format!("upper(name = \"up\", list = \"list.txt\", {attributes})");
    ws.write("p/maestro.star", format!("load(\"//tools:defs.star\", \"upper\")\n{target}\n"));
    ws.write("p/list.txt", list);
    ws
}

fn build(ws: &Workspace, flags: &[&str]) -> (i32, String, Vec<Value>) {
    let events = ws.outside().join("events.jsonl");
    let events_flag = format!("--events={}", events.display());
    let mut args = vec!["build", "//p:up", &events_flag];
    args.extend(flags);
    let run = ws.run(&args);
    (run.code, run.stderr, all_events(&events))
}

fn all_events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("events were written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The titles of commands that were started, sorted: `Upper maestro-out/…/a.txt`.
fn started(events: &[Value]) -> Vec<String> {
    let started = events.iter().filter(|e| e["event"] == "action-started");
    let title = |e: &Value| match e["progress"].as_str() {
        Some("") | None => e["mnemonic"].as_str().expect("a word").to_owned(),
        Some(text) => text.replace("maestro-out/shared/p/up.src/", ""),
    };
    let mut titles: Vec<String> = started.map(title).collect();
    titles.sort();
    titles
}

/// The files of `maestro-out/shared/p/up` with what is in them, as `PATH=TEXT`.
fn made(ws: &Workspace) -> Vec<String> {
    let root = ws.root.join("maestro-out/shared/p/up");
    let mut files: Vec<String> = maestro_tests::files_below(&root)
        .into_iter()
        .map(|(path, bytes)| {
            format!("{}={}", path.display(), String::from_utf8_lossy(&bytes).trim_end())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn an_edit_of_one_file_runs_one_part() {
    let ws = workspace("", "", "a.txt alpha\nd/b.txt beta\nc.txt gamma\n");
    let check = |list: &str, expect: &[&str], files: &[&str]| {
        ws.write("p/list.txt", list);
        let (code, error, events) = build(&ws, &[]);
        assert_eq!((code, started(&events)), (0, strings(expect)), "{error}");
        assert_eq!(made(&ws), files);
    };
    let three = ["a.txt=ALPHA", "c.txt=GAMMA", "d/b.txt=BETA"];
    let first = ["Split", "Upper", "Upper a.txt", "Upper c.txt", "Upper d/b.txt"];
    check("a.txt alpha\nd/b.txt beta\nc.txt gamma\n", &first, &three);
    let run = ws.run(&["build", "//p:up"]);
    assert!(run.stderr.contains("up to date: 1 target, 5 actions"), "{}", run.stderr);
    // One file is edited.
    let edited = ["a.txt=ALPHA", "c.txt=GAMMA", "d/b.txt=OTHER"];
    check(
        "a.txt alpha\nd/b.txt other\nc.txt gamma\n",
        &["Split", "Upper", "Upper d/b.txt"],
        &edited,
    );
    let told = ws.run(&["explain", "//p:up"]).stdout;
    let expect = "\
p/up.src  Split re-ran: p/list.txt:2 changed
p/up/d/b.txt  Upper re-ran: p/list.txt:2 changed (through p/up.src/d/b.txt)
p/up  Upper re-ran: p/list.txt:2 changed (through p/up.src/d/b.txt … p/up/d/b.txt)
";
    assert_eq!(told, expect);
    // The order of lines changes nothing in the tree: not even the map is looked at.
    check("c.txt gamma\nd/b.txt other\na.txt alpha\n", &["Split"], &edited);
    // One is renamed: it is at another path, which its command sees.
    let renamed = ["a.txt=ALPHA", "d/b.txt=OTHER", "e.txt=GAMMA"];
    check(
        "e.txt gamma\nd/b.txt other\na.txt alpha\n",
        &["Split", "Upper", "Upper e.txt"],
        &renamed,
    );
    // One goes, and its output with it; the others are not run.
    check("e.txt gamma\na.txt alpha\n", &["Split", "Upper"], &["a.txt=ALPHA", "e.txt=GAMMA"]);
    // What was there before comes out of the cache, all of it.
    check("a.txt alpha\nd/b.txt beta\nc.txt gamma\n", &[], &three);
    check("", &["Split", "Upper"], &[]);
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn parts_that_nobody_looked_at_are_counted() {
    let ws = workspace("", "", "a alpha\nb beta\n");
    let two = "upper(name = \"second\", list = \"other.txt\")\n";
    ws.write("p/maestro.star", format!("{}{two}", ws.read("p/maestro.star")));
    ws.write("p/other.txt", "c gamma\n");
    let check = |expect: &str| {
        let run = ws.run(&["build", "//p:all"]);
        assert!(run.stderr.contains(expect), "no {expect} in {}", run.stderr);
    };
    check("7 actions: 7 executed in");
    check("7 actions: 0 executed, 7 cached in");
    ws.write("p/other.txt", "c changed\n");
    check("7 actions: 3 executed, 4 cached in");
    ws.write("p/other.txt", "d more\ne more\n");
    check("8 actions: 4 executed, 4 cached in");
    ws.write("p/list.txt", "");
    check("6 actions: 2 executed, 4 cached in");
    ws.write("p/maestro.star", ws.read("p/maestro.star").replace(two, ""));
    check("2 actions: 0 executed, 2 cached in");
}

#[test]
fn a_map_in_another_workspace_comes_from_the_cache() {
    let list = "a.txt alpha\nb.txt beta\n";
    let first = workspace("", "", list);
    let (code, error, _) = build(&first, &[]);
    assert_eq!(code, 0, "{error}");
    let second = workspace("", "", list).with_cache(&first.outside().join("cache"));
    let (code, error, events) = build(&second, &[]);
    assert_eq!((code, started(&events)), (0, vec![]), "{error}");
    assert_eq!(made(&second), ["a.txt=ALPHA", "b.txt=BETA"]);
    let provenance = |ws: &Workspace| -> Vec<String> {
        let text = ws.run(&["provenance", "//p:up"]).stdout;
        let value: Value = serde_json::from_str(&text).expect("a statement");
        let text = value.to_string();
        text.match_indices("\"Upper\"").map(|(_, word)| word.to_owned()).collect()
    };
    assert_eq!(provenance(&first).len(), 3, "two parts and the map");
    assert_eq!(provenance(&second), provenance(&first), "the same, from the cache");
}

#[test]
fn failures_name_their_file_and_keep_the_rest() {
    let command =
        "grep -q FAIL \\\"$1\\\" && { echo bad words; exit 3; }; cp \\\"$1\\\" \\\"$2\\\"";
    let attributes = format!("command = \"{command}\"");
    let ws = workspace("", &attributes, "a.txt FAIL\nb.txt fine\nc.txt FAIL\n");
    for jobs in ["--jobs=1", "--jobs=4"] {
        let (code, error, events) = build(&ws, &["--keep-going", jobs]);
        assert_eq!(code, 1, "{error}");
        for file in ["a", "c"] {
            let line = format!(
                "error: Upper of //p:up: for `maestro-out/shared/p/up.src/{file}.txt`: the command exited with code 3"
            );
            assert!(error.contains(&line), "{error}");
        }
        assert_eq!(error.matches("\nbad words").count(), 2, "{error}");
        let whole = "error: Upper of //p:up: 2 of 3 files in `maestro-out/shared/p/up.src` failed";
        assert!(error.contains(whole), "{error}");
        assert!(error.contains("3 failed"), "{error}");
        let finished = events.iter().rfind(|e| e["event"] == "invocation-finished");
        let counts = &finished.expect("it ended")["actions"];
        assert_eq!((&counts["total"], &counts["failed"]), (&Value::from(5), &Value::from(3)));
    }
    // One job: nothing begins after the first failure.
    ws.write("p/list.txt", "a.txt FAIL\nb.txt new\nc.txt FAIL\n");
    let (code, error, events) = build(&ws, &["--jobs=1"]);
    assert_eq!((code, started(&events)), (1, strings(&["Split", "Upper a.txt"])), "{error}");
    assert!(error.contains("1 of 3 files"), "{error}");
    // What was fine is not run again.
    ws.write("p/list.txt", "a.txt ok\nb.txt fine\nc.txt ok\n");
    let (code, error, events) = build(&ws, &["--jobs=1"]);
    let expect = ["Split", "Upper", "Upper a.txt", "Upper c.txt"];
    assert_eq!((code, started(&events)), (0, strings(&expect)), "{error}");
}

#[test]
fn odd_names_are_names() {
    let names =
        ["-rf", "%{stem}", "a b".replace(' ', "\u{a0}").as_str(), "$(x)", "'q\"", "ü.é", "%s"]
            .map(str::to_owned);
    let list: String = names.iter().map(|name| format!("{name} text\n")).collect();
    let ws = workspace("", "", &list);
    let (code, error, _) = build(&ws, &[]);
    assert_eq!(code, 0, "{error}");
    let mut expect: Vec<String> = names.iter().map(|name| format!("{name}=TEXT")).collect();
    expect.sort();
    assert_eq!(made(&ws), expect);
}

#[test]
fn templates_name_outputs_and_choose_files() {
    let more = "outputs = [\"%{stem}.up\", \"all/%{basename}\"], suffixes = [\".txt\"],";
    let command = "tr a-z A-Z < $1 > $2; cp $1 maestro-out/shared/p/up/all/";
    let list = "d/a.txt one\nb.txt two\nc.md three\nl.txt -> d/a.txt\n";
    let ws = workspace(more, &format!("command = \"{command}\""), list);
    let (code, error, events) = build(&ws, &[]);
    assert_eq!(code, 0, "{error}");
    let expect =
        ["all/a.txt=one", "all/b.txt=two", "all/l.txt=one", "b.up=TWO", "d/a.up=ONE", "l.up=ONE"];
    assert_eq!(made(&ws), expect);
    assert_eq!(started(&events).len(), 5);
    // Two files with one output are an error before anything runs.
    ws.write("p/list.txt", "d/a.txt one\ne/a.txt two\n");
    let (code, error, events) = build(&ws, &[]);
    assert_eq!((code, started(&events)), (1, strings(&["Split"])), "{error}");
    let clash = "`d/a.txt` and `e/a.txt` of `maestro-out/shared/p/up.src` both make \
                 `maestro-out/shared/p/up/all/a.txt`";
    assert!(error.contains(clash), "{error}");
    assert!(error.contains("hint: `%{tree_relative_path}` in `outputs`"), "{error}");
}

#[test]
fn a_part_sees_its_file_alone_unless_the_rule_says_otherwise() {
    let command = "command = \"cat maestro-out/shared/p/up.src/* > $2\"";
    let ws = workspace("", command, "a a\nb b\n");
    build(&ws, &[]);
    assert_eq!(made(&ws), ["a=a", "b=b"]);
    let ws = workspace("additional_inputs = [src],", command, "a a\nb b\n");
    build(&ws, &[]);
    assert_eq!(made(&ws), ["a=a\nb", "b=a\nb"]);
    ws.write("p/list.txt", "a a\nb c\n");
    let (_, error, events) = build(&ws, &[]);
    assert_eq!(started(&events), ["Split", "Upper", "Upper a", "Upper b"], "{error}");
}

#[test]
fn what_a_rule_says_wrongly_is_told_at_once() {
    let check = |more: &str, expect: &[&str]| {
        let ws = workspace(more, "", "a a\n");
        let error = ws.fails(2, &["build", "//p:up"]);
        for text in expect.iter().chain(&["error[MAE0131]", "tools/defs.star:"]) {
            assert!(error.contains(text), "no {text} in {error}");
        }
    };
    let unknown = "`outputs` has the unknown placeholder `%{stemm}`";
    check("outputs = [\"%{stemm}\"],", &[unknown, "did you mean `stem`?"]);
    check("outputs = [\"%{input}\"],", &["unknown placeholder `%{input}`", "`%{basename}`"]);
    check("outputs = [],", &["`outputs` names nothing"]);
    check("env = {\"A B\": \"\"},", &["`A B` is no name of a variable"]);
    let ws = workspace("", "", "a a\n");
    let rules = ws.read("tools/defs.star");
    ws.write(
        "tools/defs.star",
        rules.replace("input_directory = src", "input_directory = ctx.file.list"),
    );
    let error = ws.fails(2, &["build", "//p:up"]);
    assert!(
        error.contains("`input_directory` must be a tree, which `p/list.txt` is not"),
        "{error}"
    );
}

#[test]
fn an_edit_of_the_rule_runs_what_it_concerns() {
    let ws = workspace("", "", "a alpha\nb beta\n");
    build(&ws, &[]);
    let check = |old: &str, new: &str, expect: &[&str], files: &[&str]| {
        ws.write("tools/defs.star", ws.read("tools/defs.star").replace(old, new));
        let (code, error, events) = build(&ws, &[]);
        assert_eq!((code, started(&events)), (0, strings(expect)), "{error}");
        assert_eq!(made(&ws), files);
    };
    check("# Makes", "# Comment", &[], &["a=ALPHA", "b=BETA"]);
    let swapped = ["a=alpha", "b=beta"];
    check("tr a-z A-Z", "tr A-Z a-z", &["Upper", "Upper a", "Upper b"], &swapped);
    // The command is the same, its output at another place.
    let moved = ["Upper", "Upper a", "Upper b"];
    let outputs = "mnemonic = \"Upper\", outputs = [\"%{stem}.x\"]";
    check("mnemonic = \"Upper\"", outputs, &moved, &["a.x=alpha", "b.x=beta"]);
    // A word for people is no part of a key: everything is found.
    check("mnemonic = \"Upper\"", "mnemonic = \"Other\"", &[], &["a.x=alpha", "b.x=beta"]);
}

#[test]
fn a_tree_that_was_left_out_is_an_error() {
    let ws = workspace("", "", "a a\n");
    let rules = ws.read("tools/defs.star").replace(
        "outputs = [src],",
        "outputs = [ctx.actions.declare_file(\"log\")], optional_outputs = [src],",
    );
    ws.write(
        "tools/defs.star",
        rules.replace("mkdir \"$2\"", "echo > maestro-out/shared/p/log; exit 0"),
    );
    let (code, error, _) = build(&ws, &[]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("input `maestro-out/shared/p/up.src` does not exist"), "{error}");
}

#[test]
fn a_part_that_takes_too_long_is_ended() {
    let ws = workspace("timeout = 1,", "command = \"sleep 600\"", "a a\n");
    let (code, error, _) = build(&ws, &[]);
    assert_eq!(code, 1, "{error}");
    let line = "for `maestro-out/shared/p/up.src/a`: timed out after 1000 ms";
    assert!(error.contains(line), "{error}");
}

#[test]
fn a_lost_blob_is_made_again() {
    let ws = workspace("", "", "a alpha\nb beta\n");
    build(&ws, &[]);
    // Everything that was made is lost, and the outputs on disk with it.
    let store = ws.outside().join("cache/cas");
    for (path, bytes) in maestro_tests::files_below(&store) {
        if bytes == b"ALPHA\n" || bytes == b"alpha\n" {
            std::fs::remove_file(store.join(path)).expect("a blob");
        }
    }
    std::fs::remove_dir_all(ws.root.join("maestro-out")).expect("outputs");
    let (code, error, events) = build(&ws, &[]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(made(&ws), ["a=ALPHA", "b=BETA"]);
    assert!(!started(&events).contains(&"Upper b".to_owned()), "{:?}", started(&events));
}

#[test]
fn an_interrupt_ends_all_parts() {
    let list: String = (0..8).map(|n| format!("f{n} x\n")).collect();
    let ws = workspace("", "command = \"echo begun; sleep 600\"", &list);
    let events = ws.outside().join("events.jsonl");
    let mut child =
        ws.spawn(&["build", "//p:up", "--jobs=4", &format!("--events={}", events.display())]);
    let begun = || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        text.matches("\"progress\":\"Upper").count() >= 4
    };
    assert!(poll(Duration::from_secs(60), begun), "four parts run");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    let ended = poll(Duration::from_secs(30), || child.try_wait().expect("a child").is_some());
    if !ended {
        child.kill().expect("our child");
    }
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert_eq!(started(&all_events(&events)).len(), 5, "none begins after the interrupt");
}

#[test]
fn a_thousand_files_are_a_thousand_parts() {
    let files = |edited: usize| -> String {
        let text = |n: usize| if n == edited { "other" } else { "same" };
        (0..1_000).map(|n| format!("d{}/f{n} {} {n}\n", n % 100, text(n))).collect()
    };
    let ws = workspace("", "command = \"cp $1 $2\"", &files(0));
    let (code, error, _) = build(&ws, &["--sandbox=none"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("1002 actions: 1002 executed"), "{error}");
    ws.write("p/list.txt", files(77));
    let (code, error, events) = build(&ws, &["--sandbox=none"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(started(&events), ["Split", "Upper", "Upper d0/f0", "Upper d77/f77"]);
}
