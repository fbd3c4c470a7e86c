//! `explain` on a machine whose cache knows what others ran, but not these very keys.
//!
//! A machine is a folder of its own, a home of its own, and a checkout of its own in it; what
//! machines share is a cache, or a copy of the part of it that a remote cache would carry.

use std::path::Path;

use maestro_tests::{Workspace, copy_tree, files_below};
use serde_json::json;

const PACKAGE: &str = r#"load("@maestro//rules:basics.star", "genrule")
load("@maestro//rules:toolchain.star", "host_toolchain")
host_toolchain(name = "sh", packages = ["bash", "coreutils"])
genrule(name = "first", srcs = ["in.txt"], outs = ["1.txt"], cmd = "cp $< $@")
genrule(name = "second", srcs = [":first"], outs = ["2.txt"], cmd = "cat $< > $@", env = {"WORD": "w"})
genrule(name = "tooled", outs = ["t.txt"], cmd = "sh $(location tool.sh) > $@", tools = ["tool.sh"])
genrule(name = "globbed", srcs = glob(["g/*"]), outs = ["g.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "own", outs = ["o.txt"], cmd = "echo o > $@", toolchain = ":sh")
"#;

/// A checkout of the project on a machine, with the cache of another where one is given.
fn machine(cache: Option<&Path>) -> Workspace {
    let ws = Workspace::new();
    let ws = match cache {
        Some(cache) => ws.with_cache(cache),
        None => ws,
    };
    let home = ws.outside().join("home");
    std::fs::create_dir(&home).expect("a folder can be made");
    let ws = ws.with_env("HOME", home.to_str().expect("UTF-8"));
    ws.write("maestro.star", PACKAGE);
    ws.write("in.txt", "one\ntwo\nthree\nfour\n");
    ws.write("tool.sh", "echo tool\n");
    ws.write("g/a", "a\n");
    ws
}

fn replace(ws: &Workspace, path: &str, from: &str, to: &str) {
    let text = ws.read(path);
    assert!(text.contains(from), "`{from}` is in `{path}`");
    ws.write(path, text.replace(from, to));
}

/// What `explain` says of the last build, without when and in which build the other run was.
fn lines(ws: &Workspace, args: &[&str]) -> Vec<String> {
    let run = ws.run(&[&["explain"], args].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let line = |line: &str| match line.split_once("; nearest run: ") {
        Some((line, run)) => {
            let (date, id) = run.split_once(" UTC, build ").expect("when, and in which build");
            assert_eq!((date.len(), id.len()), (19, 36), "{run}");
            format!("{line}; nearest")
        }
        None => line.to_owned(),
    };
    run.stdout.lines().map(line).collect()
}

/// Removes the files of a folder of the cache that `goes` says.
fn remove(folder: &Path, goes: impl Fn(&[u8]) -> bool) -> usize {
    let mut removed = 0;
    for (path, bytes) in files_below(folder) {
        if goes(&bytes) {
            std::fs::remove_file(folder.join(path)).expect("the file can be removed");
            removed += 1;
        }
    }
    removed
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What another machine does otherwise: its name, the edit, flags, and what is said of it.
type Difference = (&'static str, fn(&Workspace), &'static [&'static str], &'static [&'static str]);

fn differences() -> [Difference; 8] {
    [
        ("nothing", |_| {}, &[], &[]),
        (
            "a source",
            |ws| ws.write("in.txt", "one\n2\n3\nfour\n"),
            &[],
            &[
                "1.txt  Genrule was not cached: in.txt:2-3 changed; nearest",
                "2.txt  Genrule was not cached: in.txt:2-3 changed (through 1.txt); nearest",
            ],
        ),
        (
            "a variable",
            |ws| replace(ws, "maestro.star", "\"w\"", "\"v\""),
            &[],
            &["2.txt  Genrule was not cached: environment variable WORD changed (`w` to `v`); \
               nearest"],
        ),
        (
            "a command",
            |ws| replace(ws, "maestro.star", "cat $<", "cat -v $<"),
            &[],
            &["2.txt  Genrule was not cached: the command line changed \
               (`cat maestro-out/shared/1.txt > maestro-out/shared/2.txt` to \
               `cat -v maestro-out/shared/1.txt > maestro-out/shared/2.txt`); nearest"],
        ),
        (
            "a tool",
            |ws| ws.write("tool.sh", "echo other\n"),
            &[],
            &["t.txt  Genrule was not cached: tool.sh:1 changed; nearest"],
        ),
        (
            "files of a glob",
            |ws| std::fs::rename(ws.root.join("g/a"), ws.root.join("g/b")).expect("renamed"),
            &[],
            &["g.txt  Genrule was not cached: the command line changed \
               (`cat g/a > maestro-out/shared/g.txt` to `cat g/b > maestro-out/shared/g.txt`), \
               g/a was removed, g/b was added; nearest"],
        ),
        (
            "a toolchain",
            |ws| replace(ws, "maestro.star", "\"coreutils\"]", "\"coreutils\", \"sed\"]"),
            &[],
            &["o.txt  Genrule was not cached: toolchain sh changed in"],
        ),
        (
            "the sandbox",
            |_| {},
            &["--sandbox=none"],
            &["o.txt  Genrule was not cached: its definition changed \
               (`…\":\"pure\",\"sandbox\":\"hermetic/1\"}` to \
               `…\":\"pure\",\"sandbox\":\"none/1\"}`); nearest"],
        ),
    ]
}

#[test]
fn what_differs_from_a_colleagues_run_is_named() {
    let one = machine(None);
    one.ok(&["build", "//..."]);
    for (name, edit, flags, expect) in differences() {
        let two = machine(Some(&one.cache));
        edit(&two);
        let target = if flags.is_empty() { "//..." } else { "//:own" };
        two.ok(&[&["build", target], flags].concat());
        let found = lines(&two, &["--why-not-cached"]);
        assert_eq!(found.len(), expect.len(), "{name}: {found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{name}:\n{found}\n{expect}");
        }
        // Without the flag, what this workspace never saw before is compared in the same way.
        let ran = |line: &&String| !line.contains("its result was cached");
        let plain = lines(&two, &[]);
        assert_eq!(plain.iter().filter(ran).collect::<Vec<_>>(), found.iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_nearest_run_is_chosen_and_of_equals_the_newest() {
    let one = machine(None);
    let build = |ws: &Workspace| -> String {
        let summary = ws.ok(&["build", "//:second"]);
        summary["invocation_id"].as_str().expect("an id").to_owned()
    };
    let first = build(&one);
    one.write("in.txt", "1\n2\n3\nfour\n");
    replace(&one, "maestro.star", "\"w\"", "\"u\"");
    let second = build(&one);
    // As in the second run but for the variable; as in the first but for variable and source.
    let two = machine(Some(&one.cache));
    two.write("in.txt", "1\n2\n3\nfour\n");
    replace(&two, "maestro.star", "\"w\"", "\"v\"");
    let third = build(&two);
    let found = json_of(&two, &["--why-not-cached", "--json"]);
    assert_eq!(found[0]["label"], "//:second");
    assert_eq!(found[0]["baseline"]["invocation_id"], second);
    let change = json!({"kind": "environment", "name": "WORD", "old": "u", "new": "v"});
    let why = json!({"reason": "changed", "causes": [{"root": change, "through": []}], "more": 0});
    assert_eq!(found[0]["why"], why);
    // One difference to the first run, and one to the third.
    let three = machine(Some(&one.cache));
    replace(&three, "maestro.star", "\"w\"", "\"v\"");
    build(&three);
    let found = json_of(&three, &["--why-not-cached", "--output", "json"]);
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found[0]["baseline"]["invocation_id"], third, "and not {first}");
}

fn json_of(ws: &Workspace, args: &[&str]) -> serde_json::Value {
    let run = ws.run(&[&["explain"], args].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("JSON")
}

#[test]
fn a_copy_of_blobs_and_results_is_enough() {
    let one = machine(None);
    one.ok(&["build", "//:second"]);
    let two = machine(None);
    for part in ["ac", "cas"] {
        copy_tree(&one.cache.join(part), &two.cache.join(part));
    }
    two.write("in.txt", "one\ntwo\nthree\n4\n");
    two.ok(&["build", "//:second"]);
    assert_eq!(
        lines(&two, &["//:second", "--why-not-cached"]),
        [
            "1.txt  Genrule was not cached: in.txt:4 changed; nearest",
            "2.txt  Genrule was not cached: in.txt:4 changed (through 1.txt); nearest",
        ]
    );
}

#[test]
fn what_is_gone_from_the_cache_is_told_apart() {
    let one = machine(None);
    one.ok(&["build", "//:second"]);
    let (ac, cas) = (one.cache.join("ac"), one.cache.join("cas"));

    // The old text of the source: its file is named, without lines.
    assert_eq!(remove(&cas, |bytes| bytes == b"one\ntwo\nthree\nfour\n"), 1);
    let two = machine(Some(&one.cache));
    two.write("in.txt", "one\n");
    two.ok(&["build", "//:first"]);
    let expect = "1.txt  Genrule was not cached: in.txt changed; nearest";
    assert_eq!(lines(&two, &["--why-not-cached"]), [expect]);

    // The results: the keys are known still.
    let is_record = |bytes: &[u8]| contains(bytes, "maestro-baselines");
    assert!(remove(&ac, |bytes| !is_record(bytes)) >= 3);
    let three = machine(Some(&one.cache));
    three.ok(&["build", "//:second"]);
    let expect = [
        "1.txt  Genrule was not cached: its result was in the cache, and is gone; nearest",
        "2.txt  Genrule was not cached: its result was in the cache, and is gone; nearest",
    ];
    assert_eq!(lines(&three, &["--why-not-cached"]), expect);
    assert_eq!(lines(&three, &[]), expect);

    // Everything.
    assert!(remove(&ac, |_| true) >= 4);
    let four = machine(Some(&one.cache));
    four.ok(&["build", "//:first"]);
    let expect = "1.txt  Genrule was not cached: no run of it is known to this cache";
    assert_eq!(lines(&four, &["--why-not-cached"]), [expect]);
    assert_eq!(lines(&four, &[]), ["1.txt  Genrule ran for the first time"]);
}

#[test]
fn what_would_run_is_told_before_it_does() {
    let one = machine(None);
    one.ok(&["build", "//:second"]);
    let two = machine(Some(&one.cache));
    let unknown = two.fails(2, &["explain", "//:second"]);
    assert!(unknown.contains("`maestro explain --why-not-cached //:second` says"), "{unknown}");
    let ask = |ws: &Workspace| ws.run(&["explain", "--why-not-cached", "//:second"]);
    assert_eq!(ask(&two).stdout, "", "both would be found");
    two.write("in.txt", "one\ntwo\n3\nfour\n");
    let run = ask(&two);
    assert_eq!(run.stderr, "nothing was built; 1 further action would wait for these\n");
    let expect = ["1.txt  Genrule was not cached: in.txt:3 changed; nearest"];
    assert_eq!(lines(&two, &["--why-not-cached", "//:second"]), expect);
    assert!(!two.root.join("maestro-out").exists());
    two.ok(&["build", "//:second"]);
    assert_eq!(lines(&two, &["--why-not-cached", "//:second"]).len(), 2);
    let gone = machine(Some(&one.cache));
    std::fs::remove_file(gone.root.join("in.txt")).expect("it can be removed");
    let failed = gone.run(&["explain", "--why-not-cached", "//:second"]);
    assert_eq!(failed.code, 2);
    assert!(failed.stderr.contains("in.txt"), "{}", failed.stderr);
}

#[test]
fn damaged_records_are_no_records() {
    let one = machine(None);
    one.ok(&["build", "//:first"]);
    let ac = one.cache.join("ac");
    for (path, bytes) in files_below(&ac) {
        if contains(&bytes, "maestro-baselines") {
            let path = ac.join(path);
            let cut = bytes.len() / 2;
            std::fs::remove_file(&path).expect("it can be removed");
            std::fs::write(&path, &bytes[..cut]).expect("it can be written");
        }
    }
    let two = machine(Some(&one.cache));
    two.write("in.txt", "other\n");
    two.ok(&["build", "//:first"]);
    let expect = "1.txt  Genrule was not cached: no run of it is known to this cache";
    assert_eq!(lines(&two, &["--why-not-cached"]), [expect]);
}

#[test]
fn a_build_that_found_all_says_so() {
    let one = machine(None);
    one.ok(&["build", "//:second"]);
    let two = machine(Some(&one.cache));
    two.ok(&["build", "//:second"]);
    let run = two.run(&["explain", "--why-not-cached"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    assert_eq!(run.stderr, "all that was looked at was cached\n");
    assert_eq!(two.run(&["explain", "--why-not-cached", "--json"]).stdout, "[]\n");
}
