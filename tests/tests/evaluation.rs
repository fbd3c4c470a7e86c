//! Evaluation with memory, through the binary: an edit of build files runs what it affects, and
//! leaves what a build without memory would.

use maestro_tests::{Workspace, executed};

const BASICS: &str = "load(\"@maestro//rules:basics.star\", \"genrule\")\n";

fn app(command: &str) -> String {
    format!(
        "{BASICS}genrule(name = \"app\", srcs = [\"//lib\"], outs = [\"app.out\"], \
         cmd = \"{command} $(SRCS) > $@\")\n"
    )
}

fn lib(rest: &str) -> String {
    format!(
        "{BASICS}genrule(name = \"lib\", srcs = glob([\"*.txt\"]), outs = [\"lib.out\"], \
         cmd = \"cat $(SRCS) > $@\", visibility = [\"public\"])\n{rest}"
    )
}

/// Builds everything; says which actions ran, and what `app` holds then.
fn build(ws: &Workspace) -> (Vec<String>, String) {
    let events = ws.outside().join("events.jsonl");
    let events_text = events.to_str().expect("a temporary path is text");
    ws.ok(&["build", "//...", "--events", events_text]);
    let ran = executed(&events);
    std::fs::remove_file(&events).expect("events were written");
    (ran, ws.read("maestro-out/shared/app/app.out"))
}

#[test]
fn edits_of_build_files_run_what_they_affect() {
    let ws = Workspace::new();
    ws.write("app/maestro.star", app("cat"));
    ws.write("lib/maestro.star", lib(""));
    ws.write("lib/a.txt", "a\n");
    assert_eq!(build(&ws), (vec!["//app:app".into(), "//lib:lib".into()], "a\n".into()));
    let check = |ran: &[&str], holds: &str| {
        let (mut now, text) = build(&ws);
        now.sort_unstable();
        assert_eq!(now, ran);
        assert_eq!(text, holds);
        assert_eq!(build(&ws), (Vec::new(), text), "nothing is left to do");
    };
    check(&[], "a\n");
    ws.write("lib/maestro.star", format!("# a comment\n{}", lib("")));
    check(&[], "a\n");
    ws.write("app/maestro.star", app("sort"));
    check(&["//app:app"], "a\n");
    ws.write("lib/b.txt", "b\n");
    check(&["//app:app", "//lib:lib"], "a\nb\n");
    ws.write("lib/a.txt", "c\n");
    check(&["//app:app", "//lib:lib"], "b\nc\n");
    std::fs::remove_file(ws.root.join("lib/b.txt")).expect("it is there");
    check(&["//app:app", "//lib:lib"], "c\n");
    let more = "genrule(name = \"more\", outs = [\"more.out\"], cmd = \"echo more > $@\")\n";
    ws.write("lib/maestro.star", lib(more));
    check(&["//lib:more"], "c\n");
    assert_eq!(ws.read("maestro-out/shared/lib/more.out"), "more\n");
    // What a name stands for is read without being depended on: everything is evaluated.
    let alias = |actual: &str| {
        let seen = "visibility = [\"public\"]";
        format!("{more}alias(name = \"also\", actual = \":{actual}\", {seen})\n")
    };
    ws.write("app/maestro.star", app("sort").replace("//lib", "//lib:also"));
    let public = |text: String| text.replace("\"more\",", "\"more\", visibility = [\"public\"],");
    ws.write("lib/maestro.star", public(lib(&alias("lib"))));
    build(&ws);
    ws.write("lib/maestro.star", public(lib(&alias("more"))));
    check(&["//app:app"], "more\n");
    ws.write("app/maestro.star", app("sort"));
    ws.write("lib/maestro.star", lib(more));
    check(&[], "c\n");
    // A mistake ends the build; once it is mended, all is as it was.
    ws.write("app/maestro.star", "genrule(");
    ws.fails(2, &["build", "//..."]);
    ws.write("app/maestro.star", app("sort"));
    check(&[], "c\n");
}
