//! What users get wrong in build files, names and the lock: each is refused before anything runs,
//! with exit code 2 where the text is wrong and 1 where a step cannot go on, the place, and advice.

use maestro_tests::{Workspace, golden_workspace};

const RULES: &str = "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")\n";

/// A workspace whose root package says `text`.
fn package(text: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.star", format!("{RULES}{text}"));
    ws
}

/// Expects the exit code and every part in standard error.
fn check(ws: &Workspace, code: i32, args: &[&str], parts: &[&str]) {
    let error = ws.fails(code, args);
    for part in parts {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn syntax_errors_show_the_place() {
    let ws = package("genrule(name = \"x\",, cmd = \"\")\n");
    let place = "maestro.star:2:20";
    check(&ws, 2, &["build", "//:x"], &["error[MAE0100]", place, "2 | genrule(", "^"]);
    assert!(!ws.root.join("maestro-out").exists());
}

#[test]
fn type_errors_show_the_place_and_what_was_expected() {
    for (text, parts) in [
        (
            "genrule(name = \"x\", outs = \"y\", cmd = \"\")\n",
            &["maestro.star:2:1", "`outs`", "hint: write `outs = [\"y\"]`"][..],
        ),
        ("genrule(name = \"x\", outs = [\"y\"], cmd = 1 + \"a\")\n", &["maestro.star:2:", "int"]),
        ("genrule(name = \"x\", out = [\"y\"], cmd = \"\")\n", &["did you mean `outs`?"]),
        ("genrul(name = \"x\")\n", &["error[MAE0101]", "maestro.star:2:1", "`genrul`"]),
    ] {
        check(&package(text), 2, &["build", "//:x"], parts);
    }
}

#[test]
fn every_broken_package_is_reported_at_once() {
    let ws = Workspace::new();
    ws.write("a/maestro.star", "x = (\n");
    ws.write("b/maestro.star", "y = nothing\n");
    let parts = ["a/maestro.star:", "b/maestro.star:1:5", "2 problems in the build files"];
    check(&ws, 2, &["build", "//..."], &parts);
}

#[test]
fn cycles_among_targets_show_the_whole_way() {
    let ws = package(
        "genrule(name = \"a\", srcs = [\":b\"], outs = [\"a.txt\"], cmd = \"cp $< $@\")\n\
         genrule(name = \"b\", srcs = [\":c\"], outs = [\"b.txt\"], cmd = \"cp $< $@\")\n\
         genrule(name = \"c\", srcs = [\":a\"], outs = [\"c.txt\"], cmd = \"cp $< $@\")\n",
    );
    check(&ws, 2, &["build", "//:a"], &["cycle", "//:a", "//:b", "//:c", "maestro.star:2:1"]);
}

#[test]
fn cycles_among_build_files_show_the_whole_way() {
    let ws = Workspace::new();
    ws.write("maestro.star", "load(\":a.star\", \"a\")\n");
    ws.write("a.star", "load(\":b.star\", \"b\")\na = b\n");
    ws.write("b.star", "load(\":a.star\", \"a\")\nb = a\n");
    check(&ws, 2, &["build", "//..."], &["cycle", "a.star", "b.star"]);
}

#[test]
fn what_does_not_exist_is_compared_with_what_does() {
    let ws = package(
        "genrule(name = \"x\", srcs = [\"grpah.cc\"], outs = [\"y\"], cmd = \"cp $< $@\")\n\
         filegroup(name = \"ok\", srcs = [\"graph.cc\"])\n\
         filegroup(name = \"far\", srcs = [\":okk\"])\n",
    );
    ws.write("graph.cc", "");
    ws.write("lib/maestro.star", "");
    check(&ws, 2, &["build", "//:x"], &["grpah.cc", "graph.cc", "did you mean"]);
    check(&ws, 2, &["build", "//:far"], &["did you mean `:ok`?"]);
    check(&ws, 2, &["build", "//lip:x"], &["did you mean `//lib`?"]);
    check(&ws, 2, &["build", "//:okk"], &["`:ok`"]);
    check(&ws, 2, &["build", "//a//b"], &["//a//b"]);
    check(&ws, 2, &["build", "//../x:y"], &["//../x:y"]);
}

#[test]
fn a_source_that_vanishes_after_loading_is_named() {
    let ws = Workspace::new();
    ws.write_graph(&serde_json::json!({
        "actions": [maestro_tests::shell("//t:a", "cp grpah.cc out/a", &["grpah.cc"], &["out/a"])],
    }));
    ws.write("graph.cc", "");
    check(
        &ws,
        2,
        &["exec", "graph.json"],
        &["`grpah.cc` does not exist", "did you mean `graph.cc`?"],
    );
}

#[test]
fn names_that_no_tree_can_have_are_refused_where_a_glob_finds_them() {
    use std::os::unix::ffi::OsStrExt;
    for (name, shown) in [(&b"bad\xff.txt"[..], "bad\\xff.txt"), (b"bad\n.txt", "bad\\n.txt")] {
        let ws = package("filegroup(name = \"x\", srcs = glob([\"data/**\"]))\n");
        ws.write("data/good.txt", "");
        let path = ws.root.join("data").join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(path, "").expect("the file system takes it");
        check(&ws, 2, &["build", "//:x"], &[shown, "data"]);
    }
}

#[test]
fn sources_that_lead_out_of_the_workspace_are_refused() {
    let ws = package("genrule(name = \"x\", srcs = [\"l\"], outs = [\"y\"], cmd = \"cp $< $@\")\n");
    ws.write("../secret", "");
    std::os::unix::fs::symlink("../secret", ws.root.join("l")).expect("a link can be made");
    check(&ws, 2, &["build", "//:x"], &["`l`", "workspace", "hint:"]);
    assert!(!ws.root.join("maestro-out").exists());
}

#[test]
fn an_events_file_that_cannot_be_made_is_named() {
    let ws = package("");
    check(&ws, 3, &["build", "//...", "--events=no/such/events"], &["`no/such/events`"]);
}

#[test]
fn project_files_are_checked() {
    let ws = package("");
    for (text, parts) in [
        ("job = 4\n", &["job", "maestro.toml"][..]),
        ("jobs = \"many\"\n", &["jobs", "maestro.toml"]),
        ("jobs = [\n", &["maestro.toml"]),
    ] {
        ws.write("maestro.toml", text);
        check(&ws, 2, &["build", "//..."], parts);
    }
}

#[test]
fn unpinned_downloads_do_not_load() {
    let ws = Workspace::new();
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:http.star\", \"http_file\")\n\
         http_file(name = \"x\", urls = [\"https://docs.example.com/x\"], sha256 = \"\")\n",
    );
    check(&ws, 2, &["build", "//:x"], &["sha256", "maestro.star:2:1"]);
}

// --- too much

#[test]
fn build_files_that_never_end_or_take_all_memory_are_stopped_with_their_place() {
    let check_text =
        |text: &str, parts: &[&str]| check(&package(text), 2, &["build", "//..."], parts);
    check_text(
        "def f(n):\n    return g(n)\ndef g(n):\n    return f(n + 1)\nf(0)\n",
        &["error[MAE0103]: calls nest too deeply", "maestro.star:"],
    );
    let place = "maestro.star:2:5";
    check_text("x = \"x\" * 1000000000\n", &["error[MAE0103]: 1 bytes times 1000000000", place]);
    // No step shows the size beforehand here: the allocator refuses.
    let parts = ["error[MAE0103]: one step of `maestro.star` asks for", "the limit is 1073741824"];
    check_text("x = \"\".join([\"x\" * 10000000] * 1000)\n", &parts);
    check_text("x = list(range(1000000000))\n", &["error[MAE0103]: a range of 1000000000 numbers"]);
    check_text("x = (\"x\" * 1000000).replace(\"x\", \"y\" * 1000000)\n", &parts);
    let rules = "visibility([\"//...\"])\ndef _impl(ctx):\n    \"\".join([\"x\" * 10000000] * 1000)\n\
                 r = rule(implementation = _impl)\n";
    let ws = package("load(\":defs.star\", \"r\")\nr(name = \"x\")\n");
    ws.write("defs.star", rules);
    check(&ws, 2, &["build", "//:x"], &["error[MAE0103]: one step of `defs.star` asks for"]);
}

// --- names

/// The targets that a pattern names, in the order of the query.
fn query(ws: &Workspace, expression: &str) -> Vec<String> {
    let run = ws.run(&["query", expression]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn names_that_differ_only_in_case_are_different_names() {
    let ws = package(
        "genrule(name = \"a\", srcs = [\"in.txt\", \"IN.txt\"], outs = [\"o.txt\"], cmd = \"cat $(SRCS) > $@\")\n\
         genrule(name = \"A\", outs = [\"O.txt\"], cmd = \"echo A > $@\")\n",
    );
    ws.write("in.txt", "small\n");
    ws.write("IN.txt", "LARGE\n");
    ws.ok(&["build", "//..."]);
    assert_eq!(ws.read("maestro-out/shared/o.txt"), "small\nLARGE\n");
    assert_eq!(ws.read("maestro-out/shared/O.txt"), "A\n");
}

#[test]
fn names_in_two_unicode_forms_are_different_names_and_told_apart() {
    // One letter, and a letter with an accent of its own.
    let (composed, decomposed) = ("caf\u{e9}.txt", "cafe\u{301}.txt");
    let ws = package("filegroup(name = \"x\", srcs = glob([\"*.txt\"]))\n");
    ws.write(composed, "1");
    ws.write(decomposed, "2");
    assert_eq!(query(&ws, "deps(//:x)").iter().filter(|l| l.contains("caf")).count(), 2);
    let ws = package(&format!("filegroup(name = \"x\", srcs = [\"{composed}\"])\n"));
    ws.write(decomposed, "2");
    check(&ws, 2, &["build", "//:x"], &["there is no target or file", "cafe\\u{301}.txt"]);
}

// --- things that change under a build

const COPY: &str = "genrule(name = \"x\", srcs = [\"f\"], outs = [\"o\"], cmd = \"cp $< $@\")\n";
const COPIED: &str = "maestro-out/shared/o";

#[test]
fn a_file_that_becomes_a_folder_and_back_is_noticed() {
    let ws = package(COPY);
    ws.write("f", "file");
    ws.ok(&["build", "//:x"]);
    std::fs::remove_file(ws.root.join("f")).expect("there");
    ws.write("f/inner", "");
    check(&ws, 2, &["build", "//:x"], &["`//:f` is a folder, not a file or target"]);
    std::fs::remove_dir_all(ws.root.join("f")).expect("there");
    ws.write("f", "file again");
    ws.ok(&["build", "//:x"]);
    assert_eq!(ws.read(COPIED), "file again");
    // The same at the place of an output.
    std::fs::remove_file(ws.root.join(COPIED)).expect("there");
    ws.write(&format!("{COPIED}/mine"), "");
    ws.ok(&["build", "//:x"]);
    assert_eq!(ws.read(COPIED), "file again");
}

#[test]
fn a_clock_that_goes_backwards_hides_no_edit() {
    use std::time::{Duration, SystemTime};
    let ws = package(COPY);
    let edit = |text: &str, time: SystemTime| {
        ws.write("f", text);
        let file = std::fs::File::options().write(true).open(ws.root.join("f")).expect("there");
        file.set_modified(time).expect("it can be set");
        ws.ok(&["build", "//:x"]);
        assert_eq!(ws.read(COPIED), text);
    };
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 60 * 60);
    edit("one", now + 365 * day);
    edit("two", now - 365 * day);
    edit("six", now - 365 * day);
    edit("ten", SystemTime::UNIX_EPOCH);
    edit("old", now);
}

#[test]
fn inodes_that_change_cost_a_look_and_no_more() {
    let ws = package(COPY);
    ws.write("f", "text");
    ws.ok(&["build", "//:x"]);
    // As on file systems that number files anew: another inode, the same bytes.
    std::fs::copy(ws.root.join("f"), ws.root.join("g")).expect("it can be copied");
    std::fs::rename(ws.root.join("g"), ws.root.join("f")).expect("it can be moved");
    let summary = ws.ok(&["build", "//:x"]);
    assert_eq!(summary["actions"]["executed"], 0);
    assert_eq!(ws.read(COPIED), "text");
}

#[test]
fn whatever_lies_damaged_in_the_state_is_made_anew() {
    let ws = package(COPY);
    ws.write("f", "text");
    ws.ok(&["build", "//:x"]);
    let folder = ws.cache.join("workspaces");
    let files: Vec<_> = maestro_tests::files_below(&folder);
    assert!(files.len() >= 3, "{files:?}");
    let state = std::fs::read_dir(&folder).expect("there").next().expect("one").expect("readable");
    for (name, bytes) in files {
        let name = name.file_name().expect("a file").to_owned();
        let Some(path) = find(&state.path(), &name) else { continue };
        for keep in [0, 1, 7, bytes.len() / 3, bytes.len().saturating_sub(1)] {
            std::fs::write(&path, &bytes[..keep.min(bytes.len())]).expect("writable");
            let summary = ws.ok(&["build", "//:x"]);
            assert_eq!(summary["actions"]["executed"], 0, "{name:?} cut to {keep} bytes");
            ws.write("f", format!("text {keep} {name:?}"));
            ws.ok(&["build", "//:x"]);
            assert_eq!(ws.read(COPIED), format!("text {keep} {name:?}"));
            ws.write("f", "text");
            ws.ok(&["build", "//:x"]);
        }
        let noise: Vec<u8> = (0..4096_u32).map(|n| (n * 131 % 251) as u8).collect();
        std::fs::write(&path, noise).expect("writable");
        ws.ok(&["build", "//:x"]);
        assert_eq!(ws.read(COPIED), "text");
    }
}

/// The file of this name below a folder.
fn find(folder: &std::path::Path, name: &std::ffi::OsStr) -> Option<std::path::PathBuf> {
    let mut stack = vec![folder.to_owned()];
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            match path.is_dir() {
                true => stack.push(path),
                false if path.file_name() == Some(name) => return Some(path),
                false => {}
            }
        }
    }
    None
}

#[test]
fn an_edit_while_a_build_runs_is_built_by_the_next() {
    let ws = package(
        "genrule(name = \"slow\", srcs = [\"f\"], outs = [\"s\"], cmd = \"cp $< $@; sleep 1\")\n\
         genrule(name = \"x\", srcs = [\":slow\", \"f\"], outs = [\"o\"], cmd = \"cat $(SRCS) > $@\")\n",
    );
    ws.write("f", "one\n");
    let events = ws.outside().join("events.jsonl");
    let build = ws.spawn(&["build", "//:x", &format!("--events={}", events.display())]);
    let started = maestro_tests::poll(std::time::Duration::from_secs(60), || {
        std::fs::read_to_string(&events).is_ok_and(|text| text.contains("action-started"))
    });
    assert!(started, "no action was started");
    ws.write("f", "two\n");
    let first = maestro_tests::Run::of(build.wait_with_output().expect("it ends"));
    assert_eq!(first.code, 0, "{}", first.stderr);
    // Either state of the file, never a mixture.
    let text = ws.read(COPIED);
    assert!(["one\none\n", "two\ntwo\n"].contains(&text.as_str()), "{text}");
    ws.ok(&["build", "//:x"]);
    assert_eq!(ws.read(COPIED), "two\ntwo\n");
}

// --- the lock

const PLAN: &str = "//intelgraph:test_plan";

/// Where the recorded answer of [`PLAN`] stands.
fn plan_file(ws: &Workspace) -> String {
    let lock = ws.read("maestro.lock");
    let (_, block) = lock.split_once(PLAN).expect("the plan is recorded");
    let (_, rest) = block.split_once("content_file = \"").expect("as text");
    rest.split_once('"').expect("a text").0.to_owned()
}

#[test]
fn a_lock_that_was_edited_by_hand_is_refused_with_its_line() {
    for (from, to, parts) in [
        ("version = 1", "version = 99", &["maestro.lock", "99"][..]),
        ("sample = 0", "sample = \"0\"", &["maestro.lock:", "invalid type"]),
        ("kind = \"llm\"", "knid = \"llm\"", &["maestro.lock", "knid"]),
        ("[[record]]", "<<<<<<< HEAD\n[[record]]", &["maestro.lock"]),
        ("maestro.lock.d/", "../../etc/", &["maestro.lock"]),
    ] {
        let ws = golden_workspace();
        let text = ws.read("maestro.lock");
        assert!(text.contains(from), "the lock no longer has `{from}`");
        ws.write("maestro.lock", text.replacen(from, to, 1));
        check(&ws, 2, &["build", PLAN], parts);
    }
}

#[test]
fn an_edited_answer_is_refused_until_it_is_accepted() {
    let ws = golden_workspace();
    let file = plan_file(&ws);
    let text = ws.read(&file);
    assert!(text.contains("\"unit\""), "{text}");
    ws.write(&file, text.replacen("\"unit\"", "\"both\"", 1));
    let error = ws.run(&["build", PLAN]);
    assert_ne!(error.code, 0, "{}", error.stderr);
    let advice = format!("maestro lock accept {PLAN}");
    assert!(error.stderr.contains(&file) && error.stderr.contains(&advice), "{}", error.stderr);
    assert_eq!(ws.run(&["lock", "accept", PLAN]).code, 0);
    ws.ok(&["build", PLAN]);
    assert!(ws.read("maestro.lock").contains("edited = true"));
}

#[test]
fn an_answer_that_does_not_fit_its_schema_is_not_accepted() {
    let ws = golden_workspace();
    let file = plan_file(&ws);
    let text = ws.read(&file);
    ws.write(&file, text.replacen("\"unit\"", "\"none\"", 1));
    // Whoever accepts the bytes does not thereby accept that they break the schema.
    ws.run(&["lock", "accept", PLAN]);
    let run = ws.run(&["build", PLAN]);
    assert_ne!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("schema"), "{}", run.stderr);
    assert!(!ws.root.join("maestro-out/shared/intelgraph/test_plan.json").exists());
}

#[test]
fn a_record_whose_schema_changed_is_stale() {
    let ws = golden_workspace();
    let rules = ws.read("intelgraph/answers.star");
    assert!(rules.contains("\"medium\", "), "{rules}");
    ws.write("intelgraph/answers.star", rules.replacen("\"medium\", ", "", 1));
    check(&ws, 1, &["build", PLAN], &[PLAN, "maestro lock --update"]);
    // The old answer may be taken on request, but only where it fits the new schema.
    ws.write("intelgraph/answers.star", rules.replace("\"high\", ", ""));
    let run = ws.run(&["build", PLAN, "--stale-records=allow"]);
    assert_ne!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("schema"), "{}", run.stderr);
}
