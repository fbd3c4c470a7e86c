//! Memory between builds: what is evaluated again after an edit, exactly, and that the result is
//! what it would be without memory.

mod random;
pub(crate) mod session;

use std::collections::BTreeSet;

use maestro_rules::{ChangedPaths, Reevaluated};

use self::session::{Session, assert_same};

/// What a rule file is made of: a library that hands on its sources, and what it needs.
pub(crate) const RULES: &str = r#"
visibility(["//..."])
Info = provider(fields = ["files"])

def _lib(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    below = [dep[Info].files for dep in ctx.attr.deps]
    files = depset(ctx.files.srcs, transitive = below)
    ctx.actions.run_shell(outputs = [out], inputs = files, command = "cat > " + out.path + ctx.attr.flag)
    return [DefaultInfo(files = depset([out])), Info(files = files)]

lib = rule(_lib, attrs = {
    "srcs": attr.label_list(allow_files = True),
    "deps": attr.label_list(providers = [Info]),
    "flag": attr.string(),
})
"#;

const WORKSPACE: &[(&str, &str)] = &[
    ("build/maestro.star", ""),
    ("build/rules.star", RULES),
    ("build/names.star", "visibility([\"//...\"])\nprint('names')\nFLAG = ' a'\n"),
    (
        "app/maestro.star",
        "load(\"//build:rules.star\", \"lib\")\nload(\"//build:names.star\", \"FLAG\")\n\
         lib(name = \"app\", srcs = [\"a.txt\"], deps = [\"//lib\"], flag = FLAG)\n",
    ),
    ("app/a.txt", ""),
    (
        "lib/maestro.star",
        "load(\"//build:rules.star\", \"lib\")\n\
         lib(name = \"lib\", srcs = glob([\"*.txt\"]), visibility = [\"//app\"])\n",
    ),
    ("lib/l.txt", ""),
    ("other/maestro.star", "load(\"//build:rules.star\", \"lib\")\nlib(name = \"other\")\n"),
];

/// What is evaluated and analyzed after an edit of [`WORKSPACE`].
fn check(edits: &[(&str, Option<&str>)], files: &[&str], packages: &[&str], targets: &[&str]) {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    let warm = session.edit(edits).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warm.reevaluated.packages, packages, "packages after {edits:?}");
    assert_eq!(warm.reevaluated.files, files, "files after {edits:?}");
    assert_eq!(warm.reevaluated.targets, targets, "targets after {edits:?}");
    // What was remembered of that build is as good as what was remembered of the first.
    let again = session.edit(&[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(again.reevaluated, Reevaluated::default(), "after {edits:?} and nothing");
}

#[test]
fn nothing_is_evaluated_where_nothing_that_was_seen_has_changed() {
    let rules = "build/rules.star";
    check(&[], &[], &[], &[]);
    check(&[("app/a.txt", Some("new"))], &[], &[], &[]);
    check(&[("app/unused.txt", Some("new"))], &[], &[], &[]);
    check(&[(rules, Some(RULES))], &[], &[], &[]);
    check(&[("elsewhere/readme.md", Some(""))], &[], &[], &[]);
}

#[test]
fn an_edit_of_a_package_evaluates_it_and_what_it_loads() {
    let rules = "build/rules.star";
    let other = |text: &str| format!("load(\"//build:rules.star\", \"lib\")\n{text}\n");
    let check_other = |text: &str, targets: &[&str]| {
        let text = other(text);
        let edits = [("other/maestro.star", Some(text.as_str()))];
        check(&edits, &[rules, "other/maestro.star"], &["//other"], targets);
    };
    // A comment, a place, a name, an attribute, a target more, a target less.
    check_other("# nothing\nlib(name = \"other\")", &[]);
    check_other("\n\n\nlib(name = \"other\")", &[]);
    check_other("lib(name = \"o\")", &["//other:o"]);
    check_other("lib(name = \"other\", flag = \"x\")", &["//other:other"]);
    check_other("lib(name = \"other\")\nlib(name = \"more\")", &["//other:more"]);
    check_other("", &[]);
    check_other("lib(name = \"other\", tags = [\"manual\"])", &[]);
    check_other(
        "lib(name = \"other\", deps = [\":o\"])\nlib(name = \"o\")",
        &["//other:o", "//other:other"],
    );
    // What it prints is said, and said again.
    check_other("print(\"hello\")\nlib(name = \"other\")", &[]);
}

#[test]
fn values_that_stay_the_same_stop_an_edit() {
    let rules = "build/rules.star";
    let lib = |text: &str| format!("load(\"//build:rules.star\", \"lib\")\n{text}\n");
    let check_lib = |text: &str, targets: &[&str]| {
        let text = lib(text);
        let edits = [("lib/maestro.star", Some(text.as_str()))];
        check(&edits, &[rules, "lib/maestro.star"], &["//lib"], targets);
    };
    let files = |rest: &str| {
        format!("lib(name = \"lib\", srcs = glob([\"*.txt\"]), visibility = [\"//app\"]{rest})")
    };
    // The command changes, but nothing that dependents see.
    check_lib(&files(", flag = \" x\""), &["//lib:lib"]);
    // Who may use it changes, and it still may be used.
    let public = "lib(name = \"lib\", srcs = glob([\"*.txt\"]), visibility = [\"public\"])";
    check_lib(public, &["//lib:lib"]);
    // Its sources change, and dependents hand them on.
    check_lib("lib(name = \"lib\", visibility = [\"//app\"])", &["//app:app", "//lib:lib"]);
    // It is deprecated: that is said of those who use it.
    check_lib(&files(", deprecation = \"old\""), &["//app:app", "//lib:lib"]);
    // A member of its glob comes, goes, or is renamed.
    let members = |edits: &[(&str, Option<&str>)]| {
        let targets = ["//app:app", "//lib:lib"];
        check(edits, &[rules, "lib/maestro.star"], &["//lib"], &targets);
    };
    members(&[("lib/m.txt", Some(""))]);
    members(&[("lib/l.txt", None), ("lib/k.txt", Some(""))]);
    members(&[("lib/l.txt", Some("x")), ("lib/m.txt", Some(""))]);
    // A file that no pattern matches is looked at, and changes nothing.
    check(&[("lib/m.md", Some(""))], &[rules, "lib/maestro.star"], &["//lib"], &[]);
}

#[test]
fn an_edit_of_a_loaded_file_evaluates_those_who_load_it() {
    let rules = "build/rules.star";
    let names = "build/names.star";
    let all_files = ["app/maestro.star", names, rules, "lib/maestro.star", "other/maestro.star"];
    let all_packages = ["//app", "//lib", "//other"];
    let all_targets = ["//app:app", "//lib:lib", "//other:other"];
    check(
        &[(names, Some("visibility([\"//...\"])\nFLAG = ' b'\n"))],
        &["app/maestro.star", names, rules],
        &["//app"],
        &["//app:app"],
    );
    check(
        &[(names, Some("visibility([\"//...\"])\n# comment\nFLAG = ' a'\n"))],
        &["app/maestro.star", names, rules],
        &["//app"],
        &[],
    );
    // The code of a rule counts as a whole.
    let commented = format!("{RULES}\n# comment\n");
    check(&[(rules, Some(&commented))], &all_files, &all_packages, &all_targets);
    let extended = RULES.replace(".out\"", ".o\"");
    check(&[(rules, Some(&extended))], &all_files, &all_packages, &all_targets);
    // A file that was loaded by one comes to be loaded by another.
    let other = "load(\"//build:rules.star\", \"lib\")\nload(\"//build:names.star\", \"FLAG\")\n\
                 lib(name = \"other\", flag = FLAG)\n";
    check(
        &[("other/maestro.star", Some(other))],
        &[names, rules, "other/maestro.star"],
        &["//other"],
        &["//other:other"],
    );
}

#[test]
fn packages_come_and_go() {
    let rules = "build/rules.star";
    let new = "load(\"//build:rules.star\", \"lib\")\nlib(name = \"n\", deps = [\"//other\"])\n";
    let other =
        "load(\"//build:rules.star\", \"lib\")\nlib(name = \"other\", visibility = [\"public\"])\n";
    check(
        &[("new/maestro.star", Some(new)), ("other/maestro.star", Some(other))],
        &[rules, "new/maestro.star", "other/maestro.star"],
        &["//new", "//other"],
        &["//new:n", "//other:other"],
    );
    check(&[("other/maestro.star", None)], &[], &[], &[]);
    // A folder that a glob looked into becomes a package.
    check(
        &[("lib/sub/maestro.star", Some(""))],
        &[rules, "lib/maestro.star", "lib/sub/maestro.star"],
        &["//lib", "//lib/sub"],
        &[],
    );
}

#[test]
fn errors_are_the_same_with_memory() {
    let check = |edits: &[(&str, Option<&str>)], expect: &str| {
        let mut session = Session::new(WORKSPACE, &["//..."]);
        let error = session.edit(edits).expect_err("it is wrong");
        assert!(error.contains(expect), "{error}");
        let undone: Vec<(&str, Option<&str>)> = edits
            .iter()
            .map(|(path, _)| (*path, WORKSPACE.iter().find(|f| f.0 == *path).map(|f| f.1)))
            .collect();
        session.edit(&undone).expect("all is as it was");
    };
    check(&[("lib/maestro.star", Some("lib("))], "MAE0100");
    check(&[("lib/maestro.star", None)], "there is no package `//lib`");
    check(&[("app/a.txt", None)], "there is no target or file `//app:a.txt`");
    check(&[("build/rules.star", None)], "there is no file `build/rules.star`");
    // The target that is refused was not evaluated; the error shows its line all the same.
    let private = "load(\"//build:rules.star\", \"lib\")\nlib(name = \"lib\")\n";
    check(&[("lib/maestro.star", Some(private))], "3 | lib(name = \"app\", srcs");
    check(&[("app/sub/maestro.star", Some("fail('no')"))], "no");
}

#[test]
fn damaged_memory_is_no_memory() {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    session.edit(&[("lib/m.txt", Some(""))]).expect("it loads");
    let (base, delta) = (session.base.clone(), session.delta.clone().expect("a delta"));
    let changed = ChangedPaths::These(BTreeSet::new());
    let cold = session.cold().expect("it loads");
    let check = |base: &[u8], delta: &[u8]| {
        let warm = session.warm(base, Some(delta), &changed).expect("it loads");
        assert_same(&warm, &cold);
    };
    check(&base, &delta);
    for length in (0..base.len()).step_by(7) {
        check(&base[..length], &delta);
    }
    for length in (0..delta.len()).step_by(7) {
        check(&base, &delta[..length]);
    }
}

#[test]
fn unknown_changes_are_found() {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    session.set("lib/m.txt", Some(""));
    let warm = session.warm(&session.base, None, &ChangedPaths::Unknown).expect("it loads");
    assert_eq!(warm.reevaluated.packages, ["//lib"]);
    assert_same(&warm, &session.cold().expect("it loads"));
}
