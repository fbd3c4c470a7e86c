//! Aspects on the built binary: the page of the concept, and what runs again after an edit.

use std::path::Path;

use maestro_tests::Workspace;
use serde_json::Value;

/// The files of docs/concepts/aspects.md: code blocks that begin with the name of a file.
fn files_of_page() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/concepts/aspects.md");
    let text = std::fs::read_to_string(&page).expect("the page can be read");
    let blocks = text.split("```python\n# ").skip(1);
    let file = |block: &str| {
        let block = block.split("```").next().expect("a block ends");
        let (name, content) = block.split_once('\n').expect("a block has lines");
        (name.to_owned(), content.to_owned())
    };
    blocks.map(file).collect()
}

const LIB: &str = "load(\"//tools:component.star\", \"component\")
component(name = \"core\", version = \"1.2\", licence = \"MIT\", srcs = [\"core.txt\"], visibility = [\"//visibility:public\"])
component(name = \"net\", version = \"0.9\", licence = \"BSD\", srcs = [\"net.txt\"], deps = [\":core\"], visibility = [\"//visibility:public\"])
";
const APP: &str = "load(\"//tools:component.star\", \"component\")
load(\"//tools:checked.star\", \"checked\")
component(name = \"app\", version = \"3\", srcs = [\"app.txt\"], deps = [\"//lib:net\", \"//lib:core\"])
checked(name = \"release\", deps = [\":app\"])
";

fn workspace() -> Workspace {
    let ws = Workspace::new();
    ws.write("tools/maestro.star", "");
    for (name, content) in files_of_page() {
        ws.write(&name, content);
    }
    ws.write("lib/maestro.star", LIB);
    ws.write("app/maestro.star", APP);
    for file in ["lib/core.txt", "lib/net.txt", "app/app.txt"] {
        ws.write(file, file);
    }
    ws
}

/// The outputs of a summary, each with the aspect that it is of.
fn outputs(summary: &Value) -> Vec<String> {
    let targets = summary["targets"].as_array().expect("targets");
    let mut out: Vec<String> = targets
        .iter()
        .flat_map(|target| {
            let aspect = target["aspect"].as_str().unwrap_or("-");
            let aspect = aspect.rsplit('%').next().unwrap_or_default().to_owned();
            let files = target["outputs"].as_array().expect("outputs");
            files.iter().map(move |file| {
                let path = file["path"].as_str().expect("a path");
                format!("{aspect} {}", path.replace("maestro-out/shared/", ""))
            })
        })
        .collect();
    out.sort();
    out
}

fn executed(summary: &Value) -> u64 {
    summary["actions"]["executed"].as_u64().expect("a count")
}

const SBOM: [&str; 4] =
    ["build", "//app", "--aspects=//tools:sbom.star%sbom", "--output-groups=+sbom"];
const LINT: [&str; 3] = ["build", "//app", "--aspects=//tools:lint.star%lint"];

#[test]
fn a_bill_of_materials_lists_what_the_graph_is_made_of() {
    let ws = workspace();
    assert_eq!(outputs(&ws.ok(&SBOM)), ["sbom app/app.sbom.json"]);
    let text = ws.read("maestro-out/shared/app/app.sbom.json");
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    let components = json["components"].as_array().expect("components");
    let lines: Vec<String> = components
        .iter()
        .map(|c| format!("{} {} {}", c["name"], c["version"], c["licence"]).replace('"', ""))
        .collect();
    assert_eq!(lines, ["//lib:core 1.2 MIT", "//lib:net 0.9 BSD", "//app:app 3 unknown"]);
    // Without the group nothing of the aspect is made, and without the aspect there is no group.
    assert_eq!(outputs(&ws.ok(&SBOM[..3])), [] as [&str; 0]);
    let error = ws.fails(2, &["build", "//app", "--output-groups=+sbom"]);
    assert!(error.contains("no requested target has an output group `sbom`"), "{error}");
}

#[test]
fn an_edit_changes_what_it_concerns() {
    let ws = workspace();
    assert_eq!(executed(&ws.ok(&SBOM)), 1);
    assert_eq!(executed(&ws.ok(&SBOM)), 0);
    ws.write("lib/maestro.star", LIB.replace("0.9", "1.0"));
    assert_eq!(executed(&ws.ok(&SBOM)), 1);
    assert!(ws.read("maestro-out/shared/app/app.sbom.json").contains("1.0"));
    let aspect = ws.read("tools/sbom.star");
    ws.write("tools/sbom.star", aspect.replace("\"components\": c", "\"parts\": c"));
    assert_eq!(executed(&ws.ok(&SBOM)), 1);
    assert!(ws.read("maestro-out/shared/app/app.sbom.json").contains("parts"));
    ws.write("lib/core.txt", "other");
    assert_eq!(executed(&ws.ok(&SBOM)), 0);
}

#[test]
fn a_linter_checks_every_target_on_the_way_and_stops_the_build() {
    let ws = workspace();
    let expect = ["lint app/app.lint", "lint lib/core.lint", "lint lib/net.lint"];
    let summary = ws.ok(&LINT);
    assert_eq!((outputs(&summary), executed(&summary)), (expect.map(str::to_owned).into(), 3));
    assert_eq!(executed(&ws.ok(&LINT)), 0);
    ws.write("lib/net.txt", "fine");
    assert_eq!(executed(&ws.ok(&LINT)), 1);
    ws.write("lib/core.txt", "DO-NOT-SHIP later");
    let error = ws.fails(1, &LINT);
    assert!(error.contains("Lint of //lib:core by aspect //tools:lint.star%lint:"), "{error}");
    assert!(error.contains("maestro build //lib:core --aspects=//tools:lint.star%lint"), "{error}");
    assert!(error.contains("lib/core.txt:1:DO-NOT-SHIP later"), "{error}");
    // A rule that attaches the aspect checks without being asked.
    let error = ws.fails(1, &["build", "//app:release"]);
    assert!(error.contains("Lint of //lib:core"), "{error}");
    ws.write("lib/core.txt", "done");
    let expect = ["- app/app.lint", "- lib/core.lint", "- lib/net.lint"];
    assert_eq!(outputs(&ws.ok(&["build", "//app:release"])), expect);
}

#[test]
fn aspects_of_a_profile_and_of_flags_come_together() {
    let ws = workspace();
    ws.write("maestro.toml", "[config.check]\naspects = [\"//tools:lint.star%lint\"]\n");
    let both = ["build", "//app", "--config=check", "--output-groups=+sbom"];
    let sbom = "--aspects=//tools:sbom.star%sbom";
    let expect =
        ["lint app/app.lint", "lint lib/core.lint", "lint lib/net.lint", "sbom app/app.sbom.json"];
    assert_eq!(outputs(&ws.ok(&[&both[..], &[sbom]].concat())), expect);
    let list = "--aspects=//tools:lint.star%lint,//tools:sbom.star%sbom";
    assert_eq!(outputs(&ws.ok(&["build", "//app", list, "--output-groups=+sbom"])), expect);
    let run = ws.run(&["build", "//app", "--config=check"]);
    assert!(run.stderr.contains("//app:app (//tools:lint.star%lint)"), "{}", run.stderr);
    assert!(run.stderr.contains(" 1 target,"), "{}", run.stderr);
}

#[test]
fn aquery_names_the_aspect_of_an_action() {
    let ws = workspace();
    let run = ws.run(&["aquery", "//lib:net", "--aspects=//tools:lint.star%lint"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("action 'Linting //lib:net'\n"), "{}", run.stdout);
    assert!(run.stdout.contains("  AspectDescriptors: [//tools:lint.star%lint]\n"));
    let run = ws.run(&["aquery", "//lib:net", LINT[2], "--output=jsonproto"]);
    let json: Value = serde_json::from_str(&run.stdout).expect("it is JSON");
    assert_eq!(json["aspectDescriptors"][0]["name"], "//tools:lint.star%lint");
    assert_eq!(json["actions"][0]["aspectDescriptorIds"][0], json["aspectDescriptors"][0]["id"]);
}
