//! Queries over a small workspace: what each function means, what mistakes are told, and every
//! form of an answer.

use maestro_rules::{
    EdgeFilter, OutputOptions, QueryAnswer, QueryForm, QueryOptions, QueryOrder, query,
};

use crate::workspace::{Memory, render};

fn workspace() -> Memory {
    Memory::new(&[
        ("lib/defs.star", "load(\":more.star\", \"more\")\nall = more\n"),
        ("lib/more.star", "more = []\n"),
        (
            "lib/maestro.star",
            "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")
load(\":defs.star\", \"all\")
genrule(name = \"made\", srcs = [\"in.txt\"], outs = [\"made.txt\"], cmd = \"cp $< $@\", visibility = [\"//visibility:public\"])
filegroup(name = \"group\", srcs = [\":made.txt\"] + all, visibility = [\"//app:__pkg__\"])
exports_files([\"spare.txt\"])
",
        ),
        ("lib/in.txt", ""),
        ("lib/spare.txt", ""),
        (
            "app/maestro.star",
            "load(\"@maestro//rules:basics.star\", \"filegroup\", \"sh_test\")
filegroup(name = \"app\", srcs = [\"//lib:group\"])
sh_test(name = \"app_test\", size = \"small\", srcs = [\"test.sh\"], data = [\":app\"], env = {\"A\": \"1\"})
filegroup(name = \"hidden\", tags = [\"manual\", \"slow\"], testonly = True)
",
        ),
        ("app/test.sh", ""),
        (
            "broken/maestro.star",
            "load(\"@maestro//rules:basics.star\", \"filegroup\")
filegroup(name = \"a\", srcs = [\"//lib:nothing\"])
filegroup(name = \"b\", srcs = [\":c\"])
filegroup(name = \"c\", srcs = [\":b\"])
",
        ),
    ])
}

fn answer(expression: &str) -> Result<QueryAnswer, String> {
    let host = workspace();
    let options = QueryOptions {
        universe: vec!["//app/...".to_owned(), "//lib/...".to_owned()],
        edges: EdgeFilter { implicit: false },
        ..QueryOptions::new(&host, expression, 2)
    };
    query(options).map_err(|errors| render(&errors))
}

/// The labels of an answer, or its errors, one a line.
fn check(expression: &str, expect: &[&str]) {
    let got = match answer(expression) {
        Ok(answer) => answer.labels().map(ToString::to_string).collect::<Vec<_>>(),
        Err(errors) => vec![errors],
    };
    assert_eq!(got, expect, "{expression}");
}

fn written(expression: &str, options: &OutputOptions) -> String {
    let answer = answer(expression).unwrap_or_else(|errors| panic!("{expression}: {errors}"));
    let mut out = Vec::new();
    answer.write(options, &mut out).expect("memory does not fail");
    String::from_utf8(out).unwrap_or_else(|error| format!("{:?}", error.as_bytes()))
}

/// An answer in a form with Bazel's defaults.
fn form(expression: &str, form: QueryForm, expect: &str) {
    assert_eq!(written(expression, &OutputOptions::new(form)), expect, "{expression}");
}

const APP: [&str; 3] = ["//app:app", "//app:app_test", "//app:hidden"];

#[test]
fn patterns_name_targets() {
    check("//app:hidden", &["//app:hidden"]);
    check("//app:all", &APP);
    check("//app", &["//app:app"]);
    check("app:app", &["//app:app"]);
    check("//lib:made.txt", &["//lib:made.txt"]);
    check("lib/in.txt", &["//lib:in.txt"]);
    check("\"//app:all\"", &APP);
    check("//app/... + //lib/...", &[&APP[..], &["//lib:group", "//lib:made"]].concat());
    let files = ["//lib:in.txt", "//lib:made", "//lib:made.txt", "//lib:maestro.star"];
    let mut all = vec!["//lib:group"];
    all.extend(files);
    all.push("//lib:spare.txt");
    all.sort_unstable();
    for pattern in ["//lib:*", "//lib:all-targets", "//lib/...:*"] {
        check(pattern, &all);
    }
    check("@maestro//rules:basics.star", &["@maestro//rules:basics.star"]);
}

#[test]
fn sets_combine() {
    check("//app/... - //app:hidden", &["//app:app", "//app:app_test"]);
    check("//app/... except //app:hidden - app:app", &["//app:app_test"]);
    check("//app/... ^ set(//lib:made //app:hidden)", &["//app:hidden"]);
    check("//app/... intersect (//app:app union //lib:made)", &["//app:app"]);
    check("set()", &[]);
    check("let x = //app/... in $x - filter(\"hidden|test\", $x)", &["//app:app"]);
    check("let x = //lib:made in let y = deps($x) in $y - $x", &["//lib:in.txt"]);
    check("let x = //app in (let x = //lib:made in $x) + $x", &["//app:app", "//lib:made"]);
}

#[test]
fn dependencies_both_ways() {
    let down = ["//app:app", "//lib:group", "//lib:in.txt", "//lib:made", "//lib:made.txt"];
    check("deps(//app:app)", &down);
    check("deps(//app:app, 0)", &down[..1]);
    check("deps(//app:app, 1)", &down[..2]);
    check("deps(//app:app, 2) - deps(//app:app, 1)", &["//lib:made.txt"]);
    let up = [
        "//app:app",
        "//app:app_test",
        "//lib:group",
        "//lib:in.txt",
        "//lib:made",
        "//lib:made.txt",
    ];
    check("rdeps(//app/..., //lib:in.txt)", &up);
    check("rdeps(//app/..., //lib:group, 1)", &["//app:app", "//lib:group"]);
    check("rdeps(//lib/..., //app:app)", &[]);
    check("allrdeps(//lib:group)", &["//app:app", "//app:app_test", "//lib:group"]);
    check("same_pkg_direct_rdeps(//lib:made.txt)", &["//lib:group"]);
    check("same_pkg_direct_rdeps(//lib:group)", &[]);
    check(
        "allpaths(//app:app_test, //lib:made)",
        &["//app:app", "//app:app_test", "//lib:group", "//lib:made", "//lib:made.txt"],
    );
    check("allpaths(//lib:made, //app:app)", &[]);
    check(
        "somepath(//app:app_test + //app:app, //lib:made + //lib:group)",
        &["//app:app", "//lib:group"],
    );
    check("somepath(//lib:made, //app:app)", &[]);
}

#[test]
fn filters_look_at_kinds_and_attributes() {
    check("kind(genrule, //lib/...)", &["//lib:made"]);
    check("kind(\"source file\", deps(//app:app))", &["//lib:in.txt"]);
    check("kind(\"^generated\", deps(//app:app))", &["//lib:made.txt"]);
    check("filter(\"//app:a\", //app/...)", &["//app:app", "//app:app_test"]);
    check("attr(tags, slow, //app/...)", &["//app:hidden"]);
    check("attr(tags, \"^\\[manual, slow\\]$\", //app/...)", &["//app:hidden"]);
    check("attr(testonly, 1, //app/...)", &["//app:hidden"]);
    check("attr(env, \"A=1\", //app/...)", &["//app:app_test"]);
    check("attr(srcs, \"//lib:made.txt\", //lib/...)", &["//lib:group"]);
    check("attr(visibility, public, //lib/...)", &["//lib:made"]);
    check("attr(nonsense, \"\", //lib/...)", &[]);
    check("labels(srcs, //lib/...)", &["//lib:in.txt", "//lib:made.txt"]);
    check("labels(outs, //lib/...)", &["//lib:made.txt"]);
    check("tests(//app/...)", &["//app:app_test"]);
    check(
        "visible(//app:app, //lib:*)",
        &["//lib:group", "//lib:made", "//lib:made.txt", "//lib:spare.txt"],
    );
    check("visible(//app:app + //broken:a, //lib:all)", &["//lib:made"]);
    check("some(//app/...)", &["//app:app"]);
    check("some(//app/..., 2)", &["//app:app", "//app:app_test"]);
}

#[test]
fn packages_have_files_and_members() {
    check(
        "siblings(//app:app)",
        &["//app:app", "//app:app_test", "//app:hidden", "//app:maestro.star", "//app:test.sh"],
    );
    check("kind(filegroup, siblings(//lib:in.txt))", &["//lib:group"]);
    check(
        "deps(siblings(//lib:made) ^ //lib:group)",
        &["//lib:group", "//lib:in.txt", "//lib:made", "//lib:made.txt"],
    );
    check(
        "buildfiles(//lib:made)",
        &[
            "//lib:defs.star",
            "//lib:maestro.star",
            "//lib:more.star",
            "@maestro//rules:basics.star",
        ],
    );
    check(
        "loadfiles(//lib:made) - @maestro//rules:basics.star",
        &["//lib:defs.star", "//lib:more.star"],
    );
}

#[test]
fn only_what_is_walked_must_be_right() {
    check("//broken:a", &["//broken:a"]);
    check("kind(filegroup, //broken/...)", &["//broken:a", "//broken:b", "//broken:c"]);
    check("deps(//broken:b)", &["//broken:b", "//broken:c"]);
    check(
        "deps(//broken:a, 0)",
        &[
            "error[MAE0121]: target `//broken:a`, attribute `srcs`: there is no target or file `//lib:nothing`\n --> broken/maestro.star:2:1\n  |\n2 | filegroup(name = \"a\", srcs = [\"//lib:nothing\"])\n  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ],
    );
}

#[test]
fn mistakes() {
    check(
        "depz(//app:app)",
        &[
            "error[MAE0140]: the query is malformed at column 1: there is no function `depz`\nhint: did you mean `deps`?\nhint: functions: allpaths, allrdeps, attr, buildfiles, deps, filter, kind, labels, loadfiles, rdeps, same_pkg_direct_rdeps, siblings, some, somepath, tests, visible",
        ],
    );
    check(
        "rdeps(//app:app)",
        &[
            "error[MAE0140]: the query is malformed at column 16: `)` stands where `,` is expected\nhint: it is called as `rdeps(within, of[, depth])`",
        ],
    );
    check(
        "config(//app, target)",
        &[
            "error[MAE0140]: the query is malformed at column 1: `query` has no function `config`\nhint: use `maestro cquery` or `maestro aquery`",
        ],
    );
    check(
        "let here = //app in deps($her)",
        &[
            "error[MAE0140]: the query is malformed at column 26: there is no variable `$her`\nhint: did you mean `here`?\nhint: variables are bound by `let x = … in f($x)`",
        ],
    );
    check(
        "//app:ap",
        &["error[MAE0121]: there is no target or file `//app:ap`\nhint: did you mean `:app`?"],
    );
    check(
        "//ap:all + //lib:al",
        &[
            "error[MAE0120]: there is no package `//ap`\nhint: did you mean `//app`?\n\nerror[MAE0121]: there is no target or file `//lib:al`",
        ],
    );
    check(
        "kind(\"(\", //app/...)",
        &[
            "error[MAE0140]: the query is malformed at column 6: `(` is no regular expression\nhint: unclosed group",
        ],
    );
}

#[test]
fn lines() {
    form(
        "deps(//lib:group)",
        QueryForm::LabelKind,
        "filegroup rule //lib:group\nsource file //lib:in.txt\ngenrule rule //lib:made\ngenerated file //lib:made.txt\n",
    );
    form(
        "deps(//lib:group)",
        QueryForm::Location,
        "lib/maestro.star:4:1: filegroup rule //lib:group
lib/in.txt:1:1: source file //lib:in.txt
lib/maestro.star:3:1: genrule rule //lib:made
lib/maestro.star:3:1: generated file //lib:made.txt
",
    );
    form(
        "deps(//app:app) + @maestro//rules:cc.star",
        QueryForm::Package,
        "@maestro//rules\napp\nlib\n",
    );
    let null = OutputOptions { null: true, ..OutputOptions::new(QueryForm::Label) };
    assert_eq!(written("//app:app + //lib:made", &null), "//app:app\0//lib:made\0");
}

#[test]
fn orders() {
    let deps = OutputOptions { order: QueryOrder::Deps, ..OutputOptions::new(QueryForm::Label) };
    assert_eq!(
        written("deps(//app:app)", &deps),
        "//app:app\n//lib:group\n//lib:made.txt\n//lib:made\n//lib:in.txt\n"
    );
    assert_eq!(written("deps(//broken:c)", &deps), "//broken:b\n//broken:c\n");
    let path = "somepath(//app:app_test, //lib:in.txt)";
    form(
        path,
        QueryForm::Label,
        "//app:app_test\n//app:app\n//lib:group\n//lib:made.txt\n//lib:made\n//lib:in.txt\n",
    );
    let sorted = OutputOptions { order: QueryOrder::Label, ..OutputOptions::new(QueryForm::Label) };
    assert!(written(path, &sorted).starts_with("//app:app\n"));
    let all = "deps(//app:app) + //lib:group";
    let far = "0 //app:app\n1 //lib:group\n2 //lib:made.txt\n3 //lib:made\n4 //lib:in.txt\n";
    form(all, QueryForm::MaxRank, far);
    form(all, QueryForm::MinRank, far);
    form("deps(//broken:c)", QueryForm::MaxRank, "0 //broken:b\n1 //broken:c\n");
}

#[test]
fn declarations() {
    form(
        "//app:app_test + //app:hidden + //lib:made.txt + //lib:made + //lib:in.txt",
        QueryForm::Build,
        "# app/maestro.star:3:1
sh_test(
  name = \"app_test\",
  srcs = [\"//app:test.sh\"],
  data = [\"//app:app\"],
  env = {\"A\": \"1\"},
  size = \"small\",
)

# app/maestro.star:4:1
filegroup(
  name = \"hidden\",
  tags = [\"manual\", \"slow\"],
  testonly = True,
)

# lib/maestro.star:3:1
genrule(
  name = \"made\",
  srcs = [\"//lib:in.txt\"],
  outs = [\"//lib:made.txt\"],
  cmd = \"cp $< $@\",
  visibility = [\"//visibility:public\"],
)

",
    );
}

#[test]
fn every_branch_of_a_select_counts() {
    let host = Memory::new(&[
        (
            "maestro.star",
            r#"load("@maestro//rules:basics.star", "filegroup")
config_setting(name = "debug", constraint_values = ["@maestro//platforms/os:linux"])
filegroup(name = "x", srcs = ["a.c"] + select({":debug": ["b.c"], "//conditions:default": ["c.c"]}))
"#,
        ),
        ("a.c", ""),
        ("b.c", ""),
        ("c.c", ""),
    ]);
    let check = |expression: &str, form: QueryForm, expect: &str| {
        let answer = query(QueryOptions::new(&host, expression, 1));
        let answer = answer.unwrap_or_else(|errors| panic!("{}", render(&errors)));
        let mut out = Vec::new();
        answer.write(&OutputOptions::new(form), &mut out).expect("memory does not fail");
        assert_eq!(String::from_utf8_lossy(&out), expect, "{expression}");
    };
    let deps = "//:a.c\n//:b.c\n//:c.c\n//:debug\n//:x\n";
    check("deps(//:x, 1)", QueryForm::Label, deps);
    check("attr(srcs, b.c, //:x) + attr(srcs, \"//:c\", //:x)", QueryForm::Label, "//:x\n");
    check(
        "//:x",
        QueryForm::Build,
        "# maestro.star:3:1
filegroup(
  name = \"x\",
  srcs = [\"//:a.c\"] + select({\"//:debug\": [\"//:b.c\"], \"//conditions:default\": [\"//:c.c\"]}),
)

",
    );
    let answer = query(QueryOptions::new(&host, "//:x", 1)).expect("an answer");
    let mut out = Vec::new();
    let form = OutputOptions::new(QueryForm::StreamedJsonProto);
    answer.write(&form, &mut out).expect("memory does not fail");
    let srcs = r#"{"name":"srcs","type":"SELECTOR_LIST","explicitlySpecified":true,"selectorList":{"type":"LABEL_LIST","elements":[{"entries":[{"label":"//conditions:default","stringListValue":["//:a.c"]}],"hasDefaultValue":true},{"entries":[{"label":"//:debug","stringListValue":["//:b.c"]},{"label":"//conditions:default","stringListValue":["//:c.c"]}],"hasDefaultValue":true}]}}"#;
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains(srcs), "{text}");
}

#[test]
fn graphs() {
    form(
        "deps(//app:app) + //app:app_test + //app:hidden - //lib:made",
        QueryForm::Graph,
        "digraph mygraph {
  node [shape=box];
  \"//app:app\"
  \"//app:app\" -> \"//lib:group\"
  \"//app:app_test\"
  \"//app:app_test\" -> \"//app:app\"
  \"//app:hidden\\n//lib:in.txt\"
  \"//lib:group\"
  \"//lib:group\" -> \"//lib:made.txt\"
  \"//lib:made.txt\"
}
",
    );
    let plain = OutputOptions { factored: false, ..OutputOptions::new(QueryForm::Graph) };
    assert_eq!(
        written("//app:hidden + //lib:in.txt", &plain),
        "digraph mygraph {\n  node [shape=box];\n  \"//app:hidden\"\n  \"//lib:in.txt\"\n}\n"
    );
    let short = OutputOptions { node_limit: 16, ..OutputOptions::new(QueryForm::Graph) };
    assert_eq!(
        written("//app:hidden + //lib:in.txt", &short),
        "digraph mygraph {\n  node [shape=box];\n  \"//app:hidden\\n...and 1 more items\"\n}\n"
    );
}

#[test]
fn json() {
    form(
        "//lib:made + //lib:in.txt",
        QueryForm::Json,
        r#"[{"label":"//lib:in.txt","kind":"source file","location":null,"deps":[]},{"label":"//lib:made","kind":"genrule rule","location":"lib/maestro.star:3:1","deps":["//lib:in.txt","@maestro//toolchains:base_type"]}]
"#,
    );
    form(
        "deps(//lib:made.txt) - //lib:made",
        QueryForm::Jsonl,
        r#"{"label":"//lib:in.txt","kind":"source file","location":null,"deps":[]}
{"label":"//lib:made.txt","kind":"generated file","location":"lib/maestro.star:3:1","deps":["//lib:made"]}
"#,
    );
}

#[test]
fn messages() {
    form(
        "//lib:made.txt + //lib:spare.txt",
        QueryForm::StreamedJsonProto,
        r#"{"type":"GENERATED_FILE","generatedFile":{"name":"//lib:made.txt","generatingRule":"//lib:made","location":"lib/maestro.star:3:1"}}
{"type":"SOURCE_FILE","sourceFile":{"name":"//lib:spare.txt","location":"lib/spare.txt:1:1","visibilityLabel":["//visibility:public"]}}
"#,
    );
    let form = OutputOptions::new(QueryForm::StreamedJsonProto);
    let rule = written("deps(//app:app_test, 0)", &form);
    let mut rule: serde_json::Value = serde_json::from_str(&rule).expect("JSON");
    if let Some(attributes) = rule["rule"]["attribute"].as_array_mut() {
        attributes.retain(|attribute| attribute["explicitlySpecified"] == true);
    }
    let expect = r#"{"type": "RULE", "rule": {
        "name": "//app:app_test", "ruleClass": "sh_test", "location": "app/maestro.star:3:1",
        "attribute": [
            {"name": "srcs", "type": "LABEL_LIST", "explicitlySpecified": true,
                "stringListValue": ["//app:test.sh"]},
            {"name": "data", "type": "LABEL_LIST", "explicitlySpecified": true,
                "stringListValue": ["//app:app"]},
            {"name": "name", "type": "STRING", "explicitlySpecified": true,
                "stringValue": "app_test"},
            {"name": "env", "type": "STRING_DICT", "explicitlySpecified": true,
                "stringDictValue": [{"key": "A", "value": "1"}]},
            {"name": "size", "type": "STRING", "explicitlySpecified": true,
                "stringValue": "small"}
        ],
        "ruleInput": ["//app:app", "//app:test.sh"]
    }}"#;
    let expect: serde_json::Value = serde_json::from_str(expect).expect("JSON");
    let text = |value: &serde_json::Value| serde_json::to_string_pretty(value).expect("JSON");
    assert_eq!(text(&rule), text(&expect));
    let one = written("//lib:made.txt", &OutputOptions::new(QueryForm::JsonProto));
    assert_eq!(
        one,
        r#"{"target":[{"type":"GENERATED_FILE","generatedFile":{"name":"//lib:made.txt","generatingRule":"//lib:made","location":"lib/maestro.star:3:1"}}]}
"#
    );
    let bytes = |form| written("//lib:made.txt", &OutputOptions::new(form)).into_bytes();
    let mut target = b"\x08\x03\x22".to_vec();
    target.push(50);
    target.extend(b"\x0a\x0e//lib:made.txt\x12\x0a//lib:made\x1a\x14lib/maestro.star:3:1");
    assert_eq!(bytes(QueryForm::StreamedProto), [&[54], &target[..]].concat());
    assert_eq!(bytes(QueryForm::Proto), [&[0x0a, 54], &target[..]].concat());
}

#[test]
fn a_long_chain_is_no_problem() {
    let lines = |i: usize| format!("filegroup(name = \"t{i}\", srcs = [\":t{}\"])\n", i + 1);
    let chain: String = (0..20_000).map(lines).collect();
    let text = format!(
        "load(\"@maestro//rules:basics.star\", \"filegroup\")\n{chain}filegroup(name = \"t20000\")\n"
    );
    let host = Memory::new(&[("maestro.star", &text)]);
    let options = |expression| QueryOptions::new(&host, expression, 2);
    for (expression, count) in [
        ("deps(//:t0)", 20_001),
        ("rdeps(//:t5, //:t20000)", 19_996),
        ("allrdeps(//:t20)", 21),
        ("somepath(//:t0, //:t20000)", 20_001),
        ("allpaths(//:t10, //:t19)", 10),
    ] {
        let answer =
            query(options(expression)).unwrap_or_else(|errors| panic!("{}", render(&errors)));
        assert_eq!(answer.labels().count(), count, "{expression}");
        let mut out = Vec::new();
        let form = OutputOptions::new(QueryForm::MaxRank);
        answer.write(&form, &mut out).expect("memory does not fail");
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), count, "{expression}");
    }
}
