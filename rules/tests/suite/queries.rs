//! Queries over a small workspace.

use maestro_rules::{QueryOptions, query};

use crate::workspace::{Memory, render};

fn workspace() -> Memory {
    Memory::new(&[
        (
            "lib/maestro.star",
            "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")
genrule(name = \"made\", srcs = [\"in.txt\"], outs = [\"made.txt\"], cmd = \"cp $< $@\", visibility = [\"//visibility:public\"])
filegroup(name = \"group\", srcs = [\":made.txt\"], visibility = [\"//visibility:public\"])
",
        ),
        ("lib/in.txt", ""),
        (
            "app/maestro.star",
            "load(\"@maestro//rules:basics.star\", \"filegroup\", \"sh_test\")
filegroup(name = \"app\", srcs = [\"//lib:group\"])
sh_test(name = \"app_test\", srcs = [\"test.sh\"], data = [\":app\"])
filegroup(name = \"hidden\", tags = [\"manual\"])
",
        ),
        ("app/test.sh", ""),
    ])
}

fn check(expression: &str, expect: &[&str]) {
    let host = workspace();
    let options = QueryOptions { host: &host, expression, package: "", threads: 2 };
    let got = match query(options) {
        Ok(targets) => targets.iter().map(|t| t.label.to_string()).collect::<Vec<_>>(),
        Err(errors) => vec![render(&errors)],
    };
    assert_eq!(got, expect, "{expression}");
}

#[test]
fn patterns_and_operators() {
    check("//...", &["//app:app", "//app:app_test", "//lib:group", "//lib:made"]);
    check("//app:hidden", &["//app:hidden"]);
    check("//lib:made.txt", &["//lib:made.txt"]);
    check("//... - //app/...", &["//lib:group", "//lib:made"]);
    check("//... ^ set(//lib:made //app:hidden)", &["//lib:made"]);
    check("kind(\"genrule\", //...) + //app:app", &["//app:app", "//lib:made"]);
    check("tests(//...)", &["//app:app_test"]);
}

#[test]
fn dependencies_both_ways() {
    check(
        "deps(//app:app) except kind(\"host_toolchain\", deps(//app:app))",
        &["//app:app", "//lib:group", "//lib:in.txt", "//lib:made", "//lib:made.txt"],
    );
    check("deps(//app:app, 1)", &["//app:app", "//lib:group"]);
    check(
        "rdeps(//..., //lib:in.txt)",
        &[
            "//app:app",
            "//app:app_test",
            "//lib:group",
            "//lib:in.txt",
            "//lib:made",
            "//lib:made.txt",
        ],
    );
    check("rdeps(//app/..., //lib:group, 1)", &["//app:app", "//lib:group"]);
}

#[test]
fn kinds_and_places() {
    let host = workspace();
    let options =
        QueryOptions { host: &host, expression: "deps(//lib:group)", package: "", threads: 1 };
    let targets = query(options).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let lines: Vec<String> = targets
        .iter()
        .map(|t| format!("{} {} {}", t.kind, t.label, t.location.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        lines,
        [
            "filegroup rule //lib:group lib/maestro.star:3:1",
            "source file //lib:in.txt -",
            "genrule rule //lib:made lib/maestro.star:2:1",
            "generated file //lib:made.txt lib/maestro.star:2:1",
            "host_toolchain rule @maestro//toolchains:base @maestro//toolchains:maestro.star:29:1",
        ]
    );
}

#[test]
fn mistakes() {
    check(
        "depz(//app:app)",
        &[
            "error[MAE0140]: the query is malformed: there is no function `depz`\nhint: did you mean `deps`?\nhint: functions: deps, kind, rdeps, set, tests",
        ],
    );
    check(
        "//app:ap",
        &["error[MAE0121]: there is no target or file `//app:ap`\nhint: did you mean `:app`?"],
    );
    check("kind(\"(\", //...)", &["error[MAE0140]: `(` is no regular expression"]);
}
