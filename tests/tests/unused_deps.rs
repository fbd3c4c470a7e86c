//! `maestro lint --deps` on the built binary: what it finds, what it leaves alone, what it mends.

use maestro_tests::Workspace;

const LIB: &str = "load(\"@maestro//rules:cc.star\", \"cc_library\")

package(default_visibility = [\"//visibility:public\"])

cc_library(
    name = \"base\",
    hdrs = [\"base.h\"],
)

cc_library(
    name = \"list\",
    hdrs = [\"list.h\"],
    deps = [\":base\"],
)

cc_library(
    name = \"other\",
    hdrs = [\"other.h\"],
)

cc_library(
    name = \"effect\",
    srcs = [\"other.c\"],
    alwayslink = True,
)

cc_library(
    name = \"over_effect\",
    hdrs = [\"spare.h\"],
    deps = [\":effect\"],
)

alias(
    name = \"also_other\",
    actual = \":other\",
)
";

/// A workspace with one program whose `deps` and source are given.
fn workspace(deps: &str, source: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("lib/maestro.star", LIB);
    ws.write("lib/base.h", "int base(void);\n");
    ws.write("lib/list.h", "#include \"lib/base.h\"\n");
    ws.write("lib/other.h", "int other(void);\n");
    ws.write("lib/other.c", "int effect;\n");
    ws.write("lib/spare.h", "\n");
    ws.write("app/main.c", source);
    ws.write("app/maestro.star", app(deps));
    ws
}

fn app(deps: &str) -> String {
    format!(
        "load(\"@maestro//rules:cc.star\", \"cc_binary\")

cc_binary(
    name = \"app\",
    srcs = [\"main.c\"],
    deps = {deps},
)
"
    )
}

/// The dependencies that are found to be unused, with the lines on which they stand.
fn found(ws: &Workspace) -> Vec<String> {
    let run = ws.run(&["lint", "--deps", "--output=json", "//app"]);
    let json = run.json();
    let findings = json["findings"].as_array().expect("findings");
    assert_eq!(run.code, i32::from(!findings.is_empty()), "{}", run.stderr);
    let finding = |finding: &serde_json::Value| {
        assert_eq!(
            (finding["code"].as_str(), finding["name"].as_str()),
            (Some("MAE0523"), Some("unused-dep"))
        );
        let message = finding["message"].as_str().expect("a message");
        format!("{} {}", finding["line"], message.rsplit('`').nth(1).expect("a label"))
    };
    findings.iter().map(finding).collect()
}

#[test]
fn what_no_file_includes_is_found() {
    let check = |deps: &str, source: &str, expect: &[&str]| {
        assert_eq!(found(&workspace(deps, source)), expect, "{deps} {source}");
    };
    let list = "[\n        \"//lib:list\",\n        \"//lib:other\",\n    ]";
    check(list, "#include \"lib/list.h\"\n", &["8 //lib:other"]);
    check(list, "#include \"lib/list.h\"\n#include \"other.h\"\n", &[]);
    check(list, "", &["7 //lib:list", "8 //lib:other"]);
    // A header that is seen by way of a library uses it, unless its own library is there.
    check("[\"//lib:list\"]", "#include <lib/base.h>\n", &[]);
    check("[\"//lib:list\", \"//lib:base\"]", "#include <lib/base.h>\n", &["6 //lib:list"]);
    check("[\"//lib:also_other\"]", "#include \"lib/other.h\"\n", &[]);
    check("[\"//lib:also_other\"]", "", &["6 //lib:also_other"]);
    // What linking alone needs stays, directly or by way of another.
    check("[\"//lib:effect\", \"//lib:over_effect\"]", "", &[]);
    // Where a macro names the header, nothing can be told.
    check("[\"//lib:other\"]", "#define H \"lib/other.h\"\n#include H\n", &[]);
    check("[\"//lib:other\"]  # keep", "", &[]);
    check("[\"//lib:other\"]  # maestro-lint: disable=unused-dep", "", &[]);
    check("select({\"//conditions:default\": [\"//lib:other\"]})", "", &["3 //lib:other"]);
}

#[test]
fn fix_takes_out_what_stands_in_a_list() {
    let check = |deps: &str, expect: &str| {
        let ws = workspace(deps, "#include \"lib/list.h\"\n");
        let run = ws.run(&["lint", "--deps", "--fix", "//app"]);
        assert_eq!(ws.read("app/maestro.star"), app(expect), "{}", run.stderr);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(found(&ws), [] as [&str; 0]);
    };
    let list = "[\n        \"//lib:list\",\n    ]";
    check("[\"//lib:list\", \"//lib:other\"]", list);
    check(
        "[\n        \"//lib:base\",  # gone\n        \"//lib:list\",\n        \"//lib:other\",\n    ]",
        "[\n        \"//lib:list\",\n    ]",
    );
    check("[\"//lib:other\"] + [\"//lib:list\"]", "[] + [\"//lib:list\"]");
    let ws = workspace("select({\"//conditions:default\": [\"//lib:other\"]})", "");
    let before = ws.read("app/maestro.star");
    assert_eq!(ws.run(&["lint", "--deps", "--fix", "//app"]).code, 1);
    assert_eq!(ws.read("app/maestro.star"), before);
}

#[test]
fn targets_of_macros_are_told_with_the_macro() {
    let ws = workspace("[]", "");
    ws.write(
        "app/defs.star",
        "\"\"\"D.\"\"\"\nload(\"@maestro//rules:cc.star\", \"cc_binary\")\n\ndef app(name, **kwargs):\n    \"\"\"An app.\"\"\"\n    cc_binary(name = name, **kwargs)\n",
    );
    let call = "load(\":defs.star\", \"app\")\n\napp(\n    name = \"app\",\n    srcs = [\"main.c\"],\n    deps = [\"//lib:other\"],\n)\n";
    ws.write("app/maestro.star", call);
    let run = ws.run(&["lint", "--deps", "app/maestro.star"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.contains("no file of `//app:app` includes a header of `//lib:other`"));
    assert!(run.stdout.contains("from app/defs.star:6:5 in macro `app`"), "{}", run.stdout);
    // A package that cannot be evaluated keeps no other finding back.
    ws.write("app/maestro.star", "nothing\n");
    let run = ws.run(&["lint", "--deps", "app/maestro.star"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stdout.contains("MAE0513"), "{}", run.stdout);
    assert!(run.stderr.contains("kept lint from looking at dependencies"), "{}", run.stderr);
}
