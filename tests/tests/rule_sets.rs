//! Rule sets of a repository's own, end to end: what the documents promise to who writes rules.

use maestro_tests::Workspace;

/// A workspace with a rule file, a package that uses it, and further files.
fn workspace(rules: &str, package: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("tools/maestro.star", "");
    ws.write("tools/defs.star", format!("visibility([\"//...\"])\n{rules}"));
    ws.write("app/maestro.star", package);
    ws
}

/// The paths of the outputs of a summary's targets, without the output folder.
fn outputs(summary: &serde_json::Value) -> Vec<String> {
    let targets = summary["targets"].as_array().expect("targets");
    let files = targets.iter().flat_map(|t| t["outputs"].as_array().expect("outputs"));
    let path = |file: &serde_json::Value| file["path"].as_str().expect("a path").to_owned();
    let mut out: Vec<String> =
        files.map(path).map(|p| p.replace("maestro-out/shared/", "")).collect();
    out.sort();
    out
}

#[test]
fn groups_of_outputs_are_made_where_they_are_asked_for() {
    let rules = "
def _impl(ctx):
    made = {}
    for group in [\"main\", \"docs\", \"check\"]:
        made[group] = ctx.actions.declare_file(ctx.label.name + \".\" + group)
        ctx.actions.write(made[group], group)
    return [
        DefaultInfo(files = depset([made[\"main\"]])),
        OutputGroupInfo(docs = depset([made[\"docs\"]]), _validation = depset([made[\"check\"]])),
    ]
thing = rule(implementation = _impl)
";
    let ws = workspace(rules, "load(\"//tools:defs.star\", \"thing\")\nthing(name = \"t\")\n");
    let check = |flags: &[&str], expect: &[&str]| {
        let mut args = vec!["build", "//app:t"];
        args.extend(flags);
        assert_eq!(outputs(&ws.ok(&args)), expect, "{flags:?}");
    };
    check(&[], &["app/t.check", "app/t.main"]);
    check(&["--output-groups=docs"], &["app/t.check", "app/t.docs"]);
    check(&["--output-groups=+docs,-_validation"], &["app/t.docs", "app/t.main"]);
    check(&[], &["app/t.check", "app/t.main"]);
    let error = ws.fails(2, &["build", "//app:t", "--output-groups=dosc"]);
    assert!(error.contains("no requested target has an output group `dosc`"), "{error}");
    assert!(error.contains("they have `default`, `_validation`, `docs`"), "{error}");
}

#[test]
fn a_program_finds_its_runfiles_by_folder_and_by_manifest() {
    let script = "#!/bin/bash
set -eu
while read -r name place; do
  if [ \"$name\" = main/app/data.txt ]; then found=$place; fi
done < \"$RUNFILES_MANIFEST_FILE\"
echo \"$(cat \"$RUNFILES_DIR/main/app/data.txt\") $(cat \"$found\") $*\"
echo \"$(cat \"$RUNFILES_DIR/extra/link\")\"
[ \"$BUILD_WORKSPACE_DIRECTORY\" = \"$BUILD_WORKING_DIRECTORY\" ]
";
    let rules = "
def _impl(ctx):
    program = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.copy(output = program, source = ctx.file.script, executable = True)
    runfiles = ctx.runfiles(files = ctx.files.data, root_symlinks = {\"extra/link\": ctx.files.data[0]})
    return [DefaultInfo(executable = program, runfiles = runfiles)]
program = rule(implementation = _impl, executable = True, attrs = {
    \"script\": attr.label(allow_single_file = True),
    \"data\": attr.label_list(allow_files = True),
})
";
    let package = "load(\"//tools:defs.star\", \"program\")
program(name = \"p\", script = \"p.sh\", data = [\"data.txt\"], args = [\"first\"])
";
    let ws = workspace(rules, package);
    ws.write("app/p.sh", script);
    ws.write("app/data.txt", "data");
    let run = ws.run(&["run", "//app:p", "--", "second third"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "data data first second third\ndata\n"));
}

#[test]
fn the_macro_of_the_documentation_works() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/concepts/macros.md");
    let text = std::fs::read_to_string(page).expect("the page can be read");
    let block = |start: &str| {
        let (_, rest) = text.split_once(start).expect("the block is there");
        rest.split("```").next().expect("a block ends").to_owned()
    };
    let ws = Workspace::new();
    ws.write("tools/maestro.star", "exports_files([\"style.css\"])\n");
    ws.write("tools/style.css", "style\n");
    ws.write("tools/page.star", block("# tools/page.star\n"));
    ws.write("app/maestro.star", block("```python\nload(\"//tools:page.star\""));
    let call = ws.read("app/maestro.star");
    ws.write("app/maestro.star", format!("load(\"//tools:page.star\"{call}"));
    ws.write("app/start.txt", "text\n");
    assert_eq!(outputs(&ws.ok(&["build", "//app:start"])), ["app/start.html"]);
    assert_eq!(ws.read("maestro-out/shared/app/start.html"), "text\nstyle\n");
    // An edit of the macro is seen, and one that changes nothing that is declared runs nothing.
    let body = ws.read("tools/page.star");
    ws.write("tools/page.star", body.replace("[src, _style]", "[_style, src]"));
    assert_eq!(ws.ok(&["build", "//app:start"])["actions"]["executed"], 1);
    assert_eq!(ws.read("maestro-out/shared/app/start.html"), "style\ntext\n");
    ws.write("tools/page.star", body.replace("[src, _style]", "[_style] + [src]"));
    assert_eq!(ws.ok(&["build", "//app:start"])["actions"]["executed"], 0);
    let error = ws.fails(2, &["build", "//app:start", "//app:begin"]);
    assert!(error.contains("//app:begin"), "{error}");
    let run = ws.run(&["query", "//app:start_html", "--output=build"]);
    assert!(run.stdout.contains("generator_function = \"page\""), "{}", run.stdout);
    let docs = ws.run(&["docs", "tools/page.star"]);
    assert!(docs.stdout.contains("A page with the style of the house."), "{}", docs.stdout);
}
