//! Builds of more targets than a report names: what they come to is then told from what the last
//! build came to, and must be what a build without memory says.

use maestro_tests::{Run, Workspace};

/// More than a report names.
const TARGETS: usize = 14;

fn rule(name: &str, outs: &str, text: &str) -> String {
    format!(
        "genrule(name = \"{name}\", outs = [{outs}], cmd = \"for f in $(OUTS); do echo {text} > $$f; done\")\n"
    )
}

fn package(extra: &str) -> String {
    let own = (0..TARGETS).map(|number| {
        let name = format!("t{number}");
        rule(&name, &format!("\"{name}.out\""), &name)
    });
    let load = "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")\n";
    format!("{load}{}{extra}", own.collect::<String>())
}

fn build(ws: &Workspace) -> Run {
    let run = ws.run(&["build", "//...", "--sandbox=none"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

/// How many targets and actions a run speaks of, and how many were executed.
fn counts(run: &Run) -> String {
    let line = run.stderr.lines().find(|line| line.contains(" targets, "));
    let line = line.unwrap_or_else(|| panic!("no summary in {:?}", run.stderr));
    let (_, counts) = line.split_once(": ").expect("it names the counts");
    counts.split(',').take(2).collect::<Vec<_>>().join(",")
}

/// All files below `maestro-out`, with their content.
fn outputs(ws: &Workspace) -> Vec<String> {
    let out = ws.root.join("maestro-out");
    let mut found = Vec::new();
    let mut folders = vec![out];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.file_type().expect("known").is_dir() {
                true => folders.push(entry.path()),
                false => {
                    let text = std::fs::read_to_string(entry.path()).expect("text");
                    found.push(format!("{}: {}", entry.file_name().display(), text.trim()));
                }
            }
        }
    }
    found.sort_unstable();
    found
}

/// Builds, edits the build file, and builds again; `gone` are outputs that stay from before.
fn check(before: &str, after: &str, executed: usize, targets: usize, gone: &[&str]) {
    let (ws, plain) = (Workspace::new(), Workspace::new());
    ws.write("maestro.star", package(before));
    build(&ws);
    ws.write("maestro.star", package(after));
    let edited = build(&ws);
    plain.write("maestro.star", package(after));
    build(&plain);
    let mut expect = outputs(&plain);
    expect.extend(gone.iter().map(|line| (*line).to_owned()));
    expect.sort_unstable();
    assert_eq!(outputs(&ws), expect, "{before:?} to {after:?}");
    let actions = counts(&build(&plain));
    let actions = actions.split(", ").nth(1).expect("actions").split(':').next().unwrap_or("");
    let expect = format!("{targets} targets, {actions}: {executed} executed");
    assert_eq!(counts(&edited), expect, "{before:?} to {after:?}");
    let again = build(&ws);
    assert!(again.stderr.starts_with("up to date"), "{}", again.stderr);
    // An output that is lost is written again, so the request still asks for it.
    let lost = outputs(&plain);
    std::fs::remove_dir_all(ws.root.join("maestro-out")).expect("it is there");
    build(&ws);
    assert_eq!(outputs(&ws), lost, "{before:?} to {after:?}, all outputs lost");
}

#[test]
fn edits_of_one_target_among_many_come_to_what_a_build_without_memory_would() {
    let one = rule("x", "\"x1\"", "a");
    let two = rule("x", "\"x1\", \"x2\"", "a");
    check("", "# a comment\n", 0, TARGETS, &[]);
    check(&one, &rule("x", "\"x1\"", "b"), 1, TARGETS + 1, &[]);
    check(&one, &two, 1, TARGETS + 1, &[]);
    check(&two, &one, 1, TARGETS + 1, &["x2: a"]);
    check(&one, &rule("x", "\"y\"", "a"), 1, TARGETS + 1, &["x1: a"]);
    check("", &one, 1, TARGETS + 1, &[]);
    check(&one, "", 0, TARGETS, &["x1: a"]);
}

#[test]
fn what_one_target_wants_no_more_another_may_still_want() {
    let made = rule("x", "\"x1\", \"x2\"", "a");
    let group = |srcs: &str| format!("{made}filegroup(name = \"g\", srcs = [{srcs}])\n");
    check(&group("\":x1\", \":x2\""), &group("\":x1\""), 0, TARGETS + 2, &[]);
    check(&group("\":x1\""), &group("\":x1\", \":x2\""), 0, TARGETS + 2, &[]);
}
