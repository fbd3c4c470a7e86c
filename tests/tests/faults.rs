//! What goes wrong in the world: damage, full disks, killed processes, two at once.
//! After each, the build recovers or says clearly why not, and `cache verify` is clean.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maestro_tests::{Workspace, executed, poll, shell};
use serde_json::json;

/// How long the output of `//t:a` is: the source, 24 digits and the end of the line.
const UNSTABLE_BYTES: usize = 26;

/// `//t:a` makes a random number, `//t:b` copies it, `//t:c` copies that.
fn unstable_chain() -> Workspace {
    let ws = Workspace::new();
    let random = "cat a.txt > out/a; head -c 18 /dev/urandom | base64 >> out/a";
    ws.write("a.txt", "1");
    ws.write("c.txt", "1");
    ws.write_graph(&json!({
        "actions": [
            shell("//t:a", random, &["a.txt"], &["out/a"]),
            shell("//t:b", "cp out/a out/b", &["out/a"], &["out/b"]),
            shell("//t:c", "cat out/b c.txt > out/c", &["out/b", "c.txt"], &["out/c"]),
        ],
        "requested": ["out/c"],
    }));
    ws
}

/// Every blob of a cache.
fn blobs(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(cache.join("cas")).expect("there is a store") {
        let folder = folder.expect("readable").path();
        if folder.is_dir() {
            let entries = std::fs::read_dir(folder).expect("readable");
            found.extend(entries.map(|entry| entry.expect("readable").path()));
        }
    }
    found.sort();
    found
}

/// Blobs whose content the predicate picks.
fn blobs_where(cache: &Path, pick: impl Fn(&[u8]) -> bool) -> Vec<PathBuf> {
    let all = blobs(cache).into_iter();
    all.filter(|path| std::fs::read(path).is_ok_and(|bytes| pick(&bytes))).collect()
}

fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    std::fs::write(path, bytes).expect("ours");
}

fn verify_clean(ws: &Workspace) {
    let run = ws.run(&["cache", "verify"]);
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
}

#[test]
fn lost_blobs_are_made_again_even_where_the_producer_varies() {
    let ws = unstable_chain();
    assert_eq!(ws.exec().0, ["//t:a", "//t:b", "//t:c"]);
    let first = ws.read("out/c");
    // The results stay, the bytes that they name go: `c` must run and finds no input.
    let is_number = |bytes: &[u8]| bytes.len() == UNSTABLE_BYTES && bytes.starts_with(b"1");
    for blob in blobs_where(&ws.cache, is_number) {
        std::fs::remove_file(blob).expect("ours");
    }
    ws.write("c.txt", "2");
    let (ran, _) = ws.exec();
    assert_eq!(ran, ["//t:a", "//t:b", "//t:c"]);
    let second = ws.read("out/c");
    assert_ne!(first, second);
    let middle =
        blobs_where(&ws.cache, |bytes| is_number(bytes) && second.as_bytes().starts_with(bytes));
    assert!(!middle.is_empty(), "what `c` was made of is in the store");
    // The result of the former `b` names what was deleted. No build asks for it any more, and it
    // would be a miss if one did; maintenance finds it.
    let run = ws.run(&["cache", "verify"]);
    assert_eq!((run.code, run.stdout.matches("lacks blob").count()), (1, 1), "{}", run.stdout);
    assert!(!run.stdout.contains("damaged:"), "{}", run.stdout);
    assert_eq!(ws.run(&["cache", "verify", "--repair"]).code, 0);
    verify_clean(&ws);
    assert!(ws.exec().0.is_empty(), "nothing that is of use was taken away");
}

#[test]
fn an_edit_after_a_build_that_started_over_is_noticed() {
    let ws = Workspace::new();
    let package = |command: &str| {
        let text = format!(
            "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
             genrule(name = \"a\", srcs = [\"a.txt\"], outs = [\"a.out\"], cmd = \"{command}\")\n\
             genrule(name = \"b\", srcs = [\"b.txt\", \":a\"], outs = [\"b.out\"], \
             cmd = \"cat $(SRCS) > $@\")\n"
        );
        ws.write("maestro.star", &text);
    };
    let executed = || ws.ok(&["build", "//:b"])["actions"]["executed"].as_u64();
    package("cat $(SRCS) > $@");
    ws.write("a.txt", "what is lost\n");
    ws.write("b.txt", "1\n");
    assert_eq!(executed(), Some(2));
    for blob in blobs_where(&ws.cache, |bytes| bytes == b"what is lost\n") {
        std::fs::remove_file(blob).expect("ours");
    }
    ws.write("b.txt", "2\n");
    executed();
    assert_eq!(ws.read("maestro-out/shared/b.out"), "2\nwhat is lost\n");
    package("cat $(SRCS) > $@; echo edited >> $@");
    assert_eq!(executed(), Some(2));
    assert_eq!(ws.read("maestro-out/shared/b.out"), "2\nwhat is lost\nedited\n");
    assert_eq!(executed(), Some(0));
}

/// What is done to a blob while a build that needs it runs.
fn harm_while_building(harm: impl Fn(&Path)) {
    let ws = Workspace::new();
    ws.write("a.txt", "1");
    let random = "cat a.txt > out/a; head -c 18 /dev/urandom | base64 >> out/a";
    // `b` holds the build up until the blob that `a` made is harmed; `c` needs both.
    let wait = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.1; done; wc -c < out/a > out/b";
    ws.write_graph(&json!({
        "actions": [
            shell("//t:a", random, &["a.txt"], &["out/a"]),
            shell("//t:b", wait, &["out/a"], &["out/b"]),
            shell("//t:c", "cat out/a out/b > out/c", &["out/a", "out/b"], &["out/c"]),
        ],
        "requested": ["out/c"],
    }));
    let events = ws.outside().join("events.jsonl");
    let child = ws.spawn(&["exec", "graph.json", &format!("--events={}", events.display())]);
    let begun = || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        text.contains("\"action-started\"") && text.contains("//t:b")
    };
    assert!(poll(Duration::from_secs(60), begun), "`b` never began");
    let is_number = |bytes: &[u8]| bytes.len() == UNSTABLE_BYTES && bytes.starts_with(b"1");
    let made = blobs_where(&ws.cache, is_number);
    assert!(!made.is_empty());
    made.iter().for_each(|blob| harm(blob));
    let run = maestro_tests::Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    // `a` ran again and made something else, so `b` ran again too, on the same bytes as `c`.
    let ran = executed(&events);
    assert_eq!(ran, ["//t:a", "//t:a", "//t:b", "//t:b", "//t:c"]);
    let text = ws.read("out/c");
    assert!(text.starts_with('1') && text.ends_with("\n26\n"), "{text}");
    let number = text.strip_suffix("26\n").unwrap_or_default().as_bytes().to_vec();
    assert_eq!(blobs_where(&ws.cache, |bytes| bytes == number).len(), 1);
    assert!(ws.exec().0.is_empty());
    ws.ok(&["cache", "verify", "--repair"]); // the first result of `b` names what is gone
    verify_clean(&ws);
}

#[test]
fn blobs_that_vanish_during_a_build_are_made_again() {
    harm_while_building(|blob| std::fs::remove_file(blob).expect("ours"));
}

#[test]
fn blobs_that_are_damaged_during_a_build_are_made_again() {
    harm_while_building(|blob| overwrite(blob, &[b'x'; UNSTABLE_BYTES]));
}

#[test]
fn damaged_blobs_are_found_and_replaced() {
    let ws = Workspace::new();
    ws.write("a.txt", "hello\n");
    ws.write_graph(&json!({
        "actions": [shell("//t:a", "sha256sum a.txt > out/a", &["a.txt"], &["out/a"])],
    }));
    ws.exec();
    let expect = ws.read("out/a");
    for blob in blobs_where(&ws.cache, |bytes| bytes == expect.as_bytes()) {
        overwrite(&blob, &vec![b'x'; expect.len()]);
    }
    let run = ws.run(&["cache", "verify"]);
    assert_eq!(run.code, 1, "damage is found: {}", run.stdout);
    assert_eq!(ws.run(&["cache", "verify", "--repair"]).code, 0);
    std::fs::remove_file(ws.root.join("out/a")).expect("ours");
    assert_eq!(ws.exec().0, ["//t:a"]);
    assert_eq!(ws.read("out/a"), expect);
    verify_clean(&ws);
}

#[test]
fn results_cut_anywhere_are_misses() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [shell("//t:a", "echo fixed > out/a", &[], &["out/a"])],
    }));
    ws.exec();
    let mut results = Vec::new();
    for folder in std::fs::read_dir(ws.cache.join("ac")).expect("there are results") {
        let entries = std::fs::read_dir(folder.expect("readable").path()).expect("readable");
        results.extend(entries.map(|entry| entry.expect("readable").path()));
    }
    // Beside the result lies the record that leads to it from the action's name.
    let names_output = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("readable");
        bytes.windows(5).any(|window| window == b"out/a")
    };
    results.retain(names_output);
    assert_eq!(results.len(), 1);
    let whole = std::fs::read(&results[0]).expect("readable");
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        overwrite(&results[0], &whole[..cut]);
        assert_eq!(ws.exec().0, ["//t:a"], "cut at {cut}");
    }
}

#[test]
fn the_index_may_be_cut_or_deleted() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [shell("//t:a", "echo fixed > out/a", &[], &["out/a"])],
    }));
    ws.exec();
    ws.ok(&["cache", "stats"]);
    let index = ws.cache.join("index");
    let files: Vec<PathBuf> = std::fs::read_dir(&index)
        .expect("there is an index")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file())
        .collect();
    assert!(files.len() > 2);
    for file in files {
        if file.exists() {
            let half = std::fs::metadata(&file).expect("readable").len() / 2;
            let file = std::fs::OpenOptions::new().write(true).open(&file).expect("ours");
            file.set_len(half).expect("ours");
        }
        ws.ok(&["cache", "stats"]);
        verify_clean(&ws);
        assert!(ws.exec().0.is_empty());
    }
    std::fs::remove_dir_all(&index).expect("ours");
    verify_clean(&ws);
    assert!(ws.exec().0.is_empty());
}

#[test]
fn a_source_that_changes_while_its_action_runs_is_not_mixed_up() {
    let ws = Workspace::new();
    ws.write("a.txt", "first\n");
    // The action waits for a sign from outside; it sees its input as it was when it began.
    let script = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.1; done; cat a.txt > out/a";
    ws.write_graph(&json!({"actions": [shell("//t:a", script, &["a.txt"], &["out/a"])]}));
    let path = ws.root.join("a.txt");
    let modified = std::fs::metadata(&path).and_then(|m| m.modified()).expect("readable");
    let events = ws.outside().join("events.jsonl");
    let child = ws.spawn(&["exec", "graph.json", "--events", &events.to_string_lossy()]);
    let started = || {
        let events = std::fs::read_to_string(&events).unwrap_or_default();
        events.contains("\"event\":\"action-started\"")
    };
    assert!(poll(Duration::from_secs(60), started), "the action never starts");
    ws.write("a.txt", "other\n");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_modified(modified))
        .expect("ours");
    let run = maestro_tests::Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(ws.read("out/a"), "first\n");
    assert_eq!(ws.exec().0, ["//t:a"], "the edit is seen although the mtime was put back");
    assert_eq!(ws.read("out/a"), "other\n");
}

#[test]
fn odd_names_are_refused_with_their_folder() {
    use std::os::unix::ffi::OsStrExt;
    for (script, expect) in [
        ("mkdir out/t; echo > \"out/t/new\nline\"", "new\\nline"),
        ("mkdir out/t; echo > \"$(printf 'out/t/bad\\377')\"", "bad\\xff"),
        ("mkdir out/t; ln -s /etc/passwd out/t/link", "/etc/passwd"),
        ("mkdir out/t; ln -s ../../x out/t/link", "../../x"),
        ("mkdir out/t; mkfifo out/t/pipe", "pipe"),
    ] {
        let ws = Workspace::new();
        ws.write_graph(&json!({"actions": [{
            "label": "//t:odd",
            "command": ["/bin/sh", "-c", script],
            "outputs": [{"path": "out/t", "kind": "tree"}],
            "toolchains": ["base"],
        }]}));
        let error = ws.fails(1, &["exec", "graph.json"]);
        assert!(error.contains(expect), "no `{expect}` in:\n{error}");
    }
    let ws = Workspace::new();
    let name = std::ffi::OsStr::from_bytes(b"p\xff");
    std::fs::write(ws.root.join(name), "x").expect("the file system takes it");
    ws.write_graph(&json!({
        "actions": [shell("//t:ok", "echo > out/x", &[], &["out/x"])],
    }));
    ws.exec();
}

#[test]
fn kill_9_at_any_time_leaves_a_usable_cache() {
    let ws = Workspace::new();
    ws.write("a.txt", "1");
    let actions: Vec<_> = (0..40)
        .map(|i| {
            let (label, out) = (format!("//t:a{i}"), format!("out/{i}"));
            let script = format!("cat a.txt > {out}; seq 2000 >> {out}; echo {i} >> {out}");
            shell(&label, &script, &["a.txt"], &[&out])
        })
        .collect();
    ws.write_graph(&json!({"actions": actions}));
    for round in 0..12u64 {
        ws.write("a.txt", round.to_string());
        let mut child = ws.spawn(&["exec", "graph.json"]);
        let limit = Duration::from_millis(40 + round * 60);
        poll(limit, || child.try_wait().expect("our child").is_some());
        child.kill().expect("our child");
        child.wait().expect("our child");
    }
    let summary = ws.ok(&["exec", "graph.json"]);
    assert_eq!(summary["actions"]["failed"], 0);
    for i in 0..40 {
        let text = ws.read(&format!("out/{i}"));
        assert!(text.starts_with("111\n2\n") && text.ends_with(&format!("\n{i}\n")), "{i}");
    }
    verify_clean(&ws);
}

#[test]
fn two_builds_of_one_workspace_wait_for_each_other() {
    let ws = Workspace::new();
    ws.write_graph(&json!({
        "actions": [shell("//t:slow", "sleep 2; echo > out/x", &[], &["out/x"])],
    }));
    let children: Vec<_> = (0..2).map(|_| ws.spawn(&["exec", "graph.json"])).collect();
    let runs: Vec<maestro_tests::Run> = children
        .into_iter()
        .map(|child| maestro_tests::Run::of(child.wait_with_output().expect("it ends")))
        .collect();
    assert!(runs.iter().all(|run| run.code == 0), "{runs:?}");
    assert!(runs.iter().any(|run| run.stderr.contains("waiting for")), "{runs:?}");
}

#[test]
fn builds_and_gc_share_a_cache_while_being_killed() {
    let shared = tempfile::tempdir().expect("a temporary folder");
    let cache = shared.path().join("cache");
    let make = |name: &str| {
        let ws = Workspace::new().with_cache(&cache);
        ws.write("a.txt", name);
        let actions: Vec<_> = (0..12)
            .map(|i| {
                let out = format!("out/{i}");
                let script = format!("cat a.txt > {out}; echo {i} >> {out}");
                shell(&format!("//t:a{i}"), &script, &["a.txt"], &[&out])
            })
            .collect();
        ws.write_graph(&json!({"actions": actions}));
        ws
    };
    let workspaces = [make("one"), make("two")];
    let deadline = Instant::now() + Duration::from_secs(12);
    let mut round = 0u32;
    while Instant::now() < deadline {
        round += 1;
        let mut children = Vec::new();
        for ws in &workspaces {
            ws.write("a.txt", format!("{round} "));
            children.push(ws.spawn(&["exec", "graph.json"]));
        }
        children.push(workspaces[0].spawn(&["cache", "gc", "--max-size=1M"]));
        children.push(workspaces[1].spawn(&["cache", "gc", "--max-size=1M"]));
        poll(Duration::from_millis(300), || false);
        for child in &mut children {
            let _ = child.kill(); // it may have ended
            child.wait().expect("our child");
        }
    }
    for ws in &workspaces {
        ws.write("a.txt", "last ");
        ws.exec();
        for i in 0..12 {
            assert_eq!(ws.read(&format!("out/{i}")), format!("last {i}\n"));
        }
        verify_clean(ws);
    }
}

#[test]
fn a_hundred_thousand_files_in_one_folder() {
    // In memory where possible: removing so many files from some disks takes minutes.
    let memory = Path::new("/dev/shm");
    let ws = if memory.is_dir() { Workspace::new_in(memory) } else { Workspace::new() };
    ws.write_graph(&json!({"actions": [{
        "label": "//t:many",
        "command": ["/bin/sh", "-c", "mkdir out/t && cd out/t && seq 100000 | split -l 1 -a 5 -"],
        "outputs": [{"path": "out/t", "kind": "tree"}],
        "toolchains": ["base"],
    }], "requested": []}));
    ws.exec();
    let mut graph: serde_json::Value =
        serde_json::from_str(&ws.read("graph.json")).expect("our file");
    graph["requested"] = json!(["out/t"]);
    ws.write_graph(&graph);
    let (_, summary) = ws.exec();
    assert_eq!(summary["targets"][0]["outputs"].as_array().map(Vec::len), Some(100_000));
}
