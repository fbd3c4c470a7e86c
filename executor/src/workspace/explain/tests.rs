//! Explanations by the build log of one workspace.

use super::*;
use crate::workspace::build_log::tests::action;
use crate::workspace::build_log::{BuildLog, Entry};

/// Builds of actions given as (identity, inputs as (path, content), content made).
type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

fn check(builds: &[&[Step<'_>]], expect: &[&str]) {
    let folder = tempfile::tempdir().expect("a temp dir");
    let open = || BuildLog::open(folder.path()).expect("absent is no error");
    for (number, build) in builds.iter().enumerate() {
        let entries = build
            .iter()
            .map(|(id, inputs, made)| action(id, &number.to_string(), inputs, made))
            .map(Entry::Action);
        open().append(entries).expect("writable");
    }
    let log = open();
    let records: Vec<ActionRecord> = log.records().collect();
    let all = actions_below(&records, &[Label::new("", "p", "t").expect("valid")]);
    let found = explain(&log, &records, &of_last_build(&log, &all), None);
    let lines: Vec<String> = found.iter().map(Explanation::render).collect();
    assert_eq!(lines, expect);
}

const O: &str = "maestro-out/shared/k/graph.o";
const LIB: &str = "maestro-out/shared/k/lib.a";
const BIN: &str = "maestro-out/shared/bin";

#[test]
fn changes_are_followed_to_the_edit() {
    let first: &[Step<'_>] = &[
        (O, &[("k/graph.cc", "1"), ("k/graph.h", "1")], "o1"),
        ("maestro-out/shared/other.o", &[("other.cc", "1")], "oo"),
        (LIB, &[(O, "o1")], "a1"),
        (BIN, &[(LIB, "a1"), ("maestro-out/shared/other.o", "oo")], "b1"),
    ];
    let second: &[Step<'_>] = &[
        (O, &[("k/graph.cc", "2"), ("k/graph.h", "1")], "o2"),
        ("maestro-out/shared/other.o", &[("other.cc", "1")], "oo"),
        (LIB, &[(O, "o2")], "a2"),
        (BIN, &[(LIB, "a2"), ("maestro-out/shared/other.o", "oo")], "b2"),
    ];
    check(
        &[first, second],
        &[
            "k/graph.o  CppCompile re-ran: k/graph.cc changed",
            "k/lib.a  CppCompile re-ran: k/graph.cc changed (through k/graph.o)",
            "bin  CppCompile re-ran: k/graph.cc changed (through k/graph.o … k/lib.a)",
        ],
    );
    check(
        &[first],
        &[
            "k/graph.o  CppCompile ran for the first time",
            "other.o  CppCompile ran for the first time",
            "k/lib.a  CppCompile ran for the first time",
            "bin  CppCompile ran for the first time",
        ],
    );
}

#[test]
fn early_cutoff_ends_the_list() {
    check(
        &[
            &[(O, &[("a.cc", "1")], "o"), (BIN, &[(O, "o")], "b")],
            &[(O, &[("a.cc", "2")], "o"), (BIN, &[(O, "o")], "b")],
        ],
        &["k/graph.o  CppCompile re-ran: a.cc changed"],
    );
}

#[test]
fn inputs_that_come_and_go_are_told_apart() {
    check(
        &[
            &[(O, &[], "o"), (BIN, &[("gone.txt", "1")], "b")],
            &[(BIN, &[("new.txt", "1"), (O, "o")], "b2")],
        ],
        &["bin  CppCompile re-ran: gone.txt was removed, k/graph.o is a new input, \
           new.txt was added"],
    );
}

#[test]
fn other_bytes_from_the_same_key_are_named() {
    check(
        &[
            &[(O, &[("a.cc", "1")], "o"), (BIN, &[(O, "o")], "b")],
            &[(O, &[("a.cc", "1")], "o!"), (BIN, &[(O, "o!")], "b!")],
        ],
        &[
            "k/graph.o  CppCompile re-ran: nothing that it reads changed",
            "bin  CppCompile re-ran: k/graph.o was made again with other bytes \
             (through k/graph.o)",
        ],
    );
}

#[test]
fn chains_of_any_length_are_followed() {
    let name = |n: usize| format!("maestro-out/shared/{n}");
    let folder = tempfile::tempdir().expect("a temp dir");
    let open = || BuildLog::open(folder.path()).expect("absent is no error");
    for round in ["0", "1"] {
        let record = |n: usize| {
            let above = if n == 0 { "src".to_owned() } else { name(n - 1) };
            Entry::Action(action(&name(n), round, &[(&above, round)], round))
        };
        open().append((0..2000).map(record)).expect("writable");
    }
    let log = open();
    let records: Vec<ActionRecord> = log.records().collect();
    let last = records.last().expect("there are records");
    assert_eq!(last.identity, name(1999));
    let last = explain(&log, &records, &[last], None);
    let line = "1999  CppCompile re-ran: src changed (through 0 … 1998)";
    assert_eq!(last.iter().map(Explanation::render).collect::<Vec<_>>(), [line]);
}

#[test]
fn names_move_no_terminal() {
    check(
        &[&[(O, &[("a\x1b[2Jb\nc", "1")], "o")], &[(O, &[("a\x1b[2Jb\nc", "2")], "o")]],
        &["k/graph.o  CppCompile re-ran: a\\u{1b}[2Jb\\nc changed"],
    );
}
