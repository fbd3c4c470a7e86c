//! Commands about `.star` files as texts: `fmt`, `lint` and `docs`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
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

#[test]
fn lint_names_findings_and_mends_some() {
    let ws = Workspace::new();
    ws.write("a/maestro.star", "load(\":b.star\", \"b\", \"c\")\n\nb(name = \"x\")\n");
    ws.write("a/b.star", "\"\"\"Doc.\"\"\"\n\ndef b(name):\n    pass\n");
    let text = ws.run(&["lint"]);
    assert_eq!(text.code, 1);
    let want = "warning[MAE0517]: function `b` has no docstring\n --> a/b.star:3:5\n";
    assert!(text.stdout.starts_with(want), "{}", text.stdout);

    let run = ws.run(&["lint", "//a/...", "--output", "json"]);
    let found = json_of(&run);
    let codes: Vec<&str> = found["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| finding["code"].as_str().expect("a code"))
        .collect();
    assert_eq!(codes, ["MAE0517", "MAE0503", "MAE0501"], "{found}");
    assert_eq!(found["findings"][2]["line"], 1);

    let sarif = json_of(&ws.run(&["lint", "//a", "--sarif"]));
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][2]["ruleId"], "MAE0501");
    let place = &sarif["runs"][0]["results"][2]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a/maestro.star");

    let fixed = json_of(&ws.run(&["lint", "--fix", "a/maestro.star", "--output", "json"]));
    assert_eq!(fixed, json!({"findings": [], "fixed": ["a/maestro.star"]}));
    assert_eq!(ws.read("a/maestro.star"), "load(\":b.star\", \"b\")\n\nb(name = \"x\")\n");

    ws.write("c.star", "x = (\n");
    let broken = ws.run(&["lint", "c.star"]);
    assert_eq!(broken.code, 2);
    assert!(broken.stderr.contains("error[MAE0100]"), "{}", broken.stderr);
    assert_eq!(ws.run(&["lint", "//none/..."]).code, 2);
}

#[test]
fn the_rule_library_has_no_findings() {
    let ws = Workspace::new();
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/library");
    let run = ws.run(&["--workspace", library, "lint"]);
    assert_eq!(run.code, 0, "`maestro --workspace rules/library lint` finds\n{}", run.stdout);
}

/// What `maestro docs` prints.
fn printed(ws: &Workspace, what: &str) -> String {
    let run = ws.run(&["docs", what]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
}

/// Every generated page, by its path below `docs`.
fn pages(ws: &Workspace) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = BTreeMap::new();
    let mut index =
        "# The rule library\n\nMade from the files in `rules/library/` by `cargo xtask \
                     bless`.\n\n| file | what is in it |\n|---|---|\n"
            .to_owned();
    let folder = std::fs::read_dir(root.join("rules/library")).expect("the library");
    let mut names: Vec<String> = folder
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".star") && name != "rules.star")
        .collect();
    names.sort();
    for name in names {
        let file = format!("@maestro//rules:{name}");
        let page = printed(ws, &file);
        let stem = name.trim_end_matches(".star");
        let summary = page.lines().nth(2).unwrap_or_default();
        index.push_str(&format!("| [`{file}`]({stem}.md) | {summary} |\n"));
        pages.insert(format!("reference/library/{stem}.md"), page);
    }
    pages.insert("reference/library/README.md".to_owned(), index);
    pages.insert("reference/language.md".to_owned(), printed(ws, "language"));
    pages.insert("reference/steps.md".to_owned(), printed(ws, "steps"));
    let schema = ws.run(&["template", "schema"]).stdout;
    pages.insert("reference/pipeline.schema.json".to_owned(), schema);
    let mut index =
        "# Error codes\n\nMade from `rules/src/error.rs`, `rules/src/lint.rs` and \
                     `policy/src/error.rs` by `cargo xtask bless`.\n\n| code | meaning |\n|---|---|\n"
            .to_owned();
    let unknown = ws.run(&["docs", "MAE"]);
    let codes = unknown.stderr.lines().find_map(|line| line.strip_prefix("hint: the codes are "));
    for code in codes.expect("a list of codes").split(", ") {
        let page = printed(ws, code);
        let title = page.lines().next().unwrap_or_default();
        let title = title.trim_start_matches(&format!("# {code}: ")).to_owned();
        index.push_str(&format!("| [{code}]({code}.md) | {title} |\n"));
        pages.insert(format!("errors/{code}.md"), page);
    }
    pages.insert("errors/README.md".to_owned(), index);
    pages
}

#[test]
fn the_generated_pages_are_fresh() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut stale = Vec::new();
    for (path, page) in pages(&Workspace::new()) {
        let file = docs.join(&path);
        if std::env::var_os("MAESTRO_BLESS").is_some() {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(&file, &page).expect("a page");
        }
        if std::fs::read_to_string(&file).unwrap_or_default() != page {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "`cargo xtask bless` makes anew {stale:?}");
}

#[test]
fn docs_describes_files_of_the_workspace() {
    let ws = Workspace::new();
    ws.write(
        "a/b.star",
        "\"\"\"Doc.\"\"\"\n\nP = provider(\"Tells.\", fields = {\"x\": \"An x.\"})\n",
    );
    let want = "# `//a:b.star`\n\nDoc.\n\n## `P`\n\nTells.\n\n| field | meaning |\n|---|---|\n| `x` | An x. |\n";
    ws.write("a/maestro.star", "");
    assert_eq!(printed(&ws, "a/b.star"), want);
    let data = json_of(&ws.run(&["docs", "//a:b.star", "--output", "json"]));
    assert_eq!(data["providers"][0]["fields"][0], json!({"name": "x", "doc": "An x."}));
    for (what, message) in [
        ("//a:none.star", "error[MAE0104]: there is no file `a/none.star`"),
        ("//a:maestro.star", "error[MAE0104]: `a/maestro.star` declares targets"),
        ("//a:b", "error: `//a:b` names no `.star` file"),
    ] {
        let run = ws.run(&["docs", what]);
        assert_eq!(run.code, 2);
        assert!(run.stderr.starts_with(message), "{}", run.stderr);
    }
}
