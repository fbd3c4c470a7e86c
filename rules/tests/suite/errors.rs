//! Diagnostics: code, sentence, place, advice.

use crate::workspace::{Memory, errors_of, loaded, render};

fn check(files: &[(&str, &str)], patterns: &[&str], expect: &str) {
    let got = errors_of(&Memory::new(files), patterns);
    assert_eq!(got.trim(), expect.trim(), "\n--- got:\n{got}\n---");
}

const GENRULE: &str = "load(\"@maestro//rules:basics.star\", \"genrule\")\n";

fn genrules(body: &str) -> String {
    format!("{GENRULE}{body}")
}

#[test]
fn syntax_errors_have_a_span() {
    check(
        &[("maestro.star", "x = [1,\ny = 2\n")],
        &["//..."],
        "error[MAE0100]: parse error: unexpected symbol '=', expected symbol ']'
 --> maestro.star:2:3
  |
2 | y = 2
  |   ^",
    );
}

#[test]
fn unknown_names_are_found_before_anything_runs() {
    check(
        &[("a/maestro.star", "genrul(name = \"x\")\n")],
        &["//a:x"],
        "error[MAE0101]: variable `genrul` not found
 --> a/maestro.star:1:1
  |
1 | genrul(name = \"x\")
  | ^^^^^^",
    );
}

#[test]
fn attributes_are_checked_where_the_target_is_declared() {
    let target =
        genrules("genrule(\n    name = \"x\",\n    out = [\"y\"],\n    cmd = \"true\",\n)\n");
    check(
        &[("maestro.star", &target)],
        &["//:x"],
        "error[MAE0110]: `genrule` has no attribute `out`
 --> maestro.star:2:1
  |
2 | genrule(
  | ^^^^^^^^
hint: did you mean `outs`?",
    );
    let target = genrules("genrule(name = \"x\", outs = \"y\", cmd = \"true\")\n");
    check(
        &[("maestro.star", &target)],
        &["//:x"],
        "error[MAE0110]: target `x`: attribute `outs` must be a list of names of outputs, not a `string`: \"y\"
 --> maestro.star:2:1
  |
2 | genrule(name = \"x\", outs = \"y\", cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: write `outs = [\"y\"]`",
    );
    let target = genrules("genrule(name = \"x\", outs = [\"y\"])\n");
    check(
        &[("maestro.star", &target)],
        &["//:x"],
        "error[MAE0110]: target `x`: attribute `cmd` of `genrule` is missing
 --> maestro.star:2:1
  |
2 | genrule(name = \"x\", outs = [\"y\"])
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: it is a string: The command",
    );
}

#[test]
fn macros_show_how_the_evaluation_got_there() {
    check(
        &[
            ("maestro.star", "load(\":defs.star\", \"wrap\")\nwrap(\"x\")\n"),
            (
                "defs.star",
                "load(\"@maestro//rules:basics.star\", \"filegroup\")\ndef wrap(name):\n    filegroup(name = name, src = [])\n",
            ),
        ],
        &["//:x"],
        "error[MAE0110]: `filegroup` has no attribute `src`
 --> defs.star:3:5
  |
3 |     filegroup(name = name, src = [])
  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  from maestro.star:2:1 in the file
hint: did you mean `srcs`?",
    );
}

#[test]
fn unknown_targets_packages_and_files() {
    let target =
        genrules("genrule(name = \"x\", srcs = [\"inptu.txt\"], outs = [\"y\"], cmd = \"true\")\n");
    check(
        &[("maestro.star", &target), ("input.txt", "")],
        &["//:x"],
        "error[MAE0121]: target `//:x`, attribute `srcs`: there is no target or file `//:inptu.txt`
 --> maestro.star:2:1
  |
2 | genrule(name = \"x\", srcs = [\"inptu.txt\"], outs = [\"y\"], cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: did you mean `:input.txt`?",
    );
    check(
        &[("app/maestro.star", "")],
        &["//apb:x"],
        "error[MAE0120]: there is no package `//apb`\nhint: did you mean `//app`?",
    );
    check(
        &[("app/main.c", ""), ("maestro.star", "")],
        &["//app:x"],
        "error[MAE0120]: there is no package `//app`
hint: the folder exists, but has no file `app/maestro.star`",
    );
    check(
        &[("app/maestro.star", ""), ("app/src/x.c", "")],
        &["//app:src"],
        "error[MAE0121]: `//app:src` is a folder, not a file or target
hint: list its files with `glob([\"src/**\"])`",
    );
    check(
        &[("app/maestro.star", ""), ("app/src/x.c", ""), ("app/src/maestro.star", "")],
        &["//app:src/x.c"],
        "error[MAE0111]: `//app:src/x.c` reaches into package `//app/src`
hint: did you mean `//app/src:x.c`?",
    );
}

#[test]
fn visibility_is_private_by_default() {
    let lib = genrules("genrule(name = \"l\", outs = [\"l.txt\"], cmd = \"true\")\n");
    let app =
        genrules("genrule(name = \"x\", srcs = [\"//lib:l\"], outs = [\"y\"], cmd = \"true\")\n");
    check(
        &[("lib/maestro.star", &lib), ("app/maestro.star", &app)],
        &["//app:x"],
        "error[MAE0122]: target `//app:x`, attribute `srcs`: `//lib:l` is not visible to `//app:x`
 --> app/maestro.star:2:1
  |
2 | genrule(name = \"x\", srcs = [\"//lib:l\"], outs = [\"y\"], cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: add `visibility = [\"//app:__pkg__\"]` to `//lib:l`",
    );
    let app =
        genrules("genrule(name = \"x\", srcs = [\"//lib:f\"], outs = [\"y\"], cmd = \"true\")\n");
    check(
        &[("lib/maestro.star", ""), ("lib/f", ""), ("app/maestro.star", &app)],
        &["//app:x"],
        "error[MAE0122]: target `//app:x`, attribute `srcs`: the file `//lib:f` exists, but its package does not export it
 --> app/maestro.star:2:1
  |
2 | genrule(name = \"x\", srcs = [\"//lib:f\"], outs = [\"y\"], cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: add `exports_files([\"f\"])` to package `//lib`",
    );
}

#[test]
fn tests_and_deprecated_targets_are_marked() {
    let lib = genrules(
        "genrule(name = \"t\", outs = [\"t.txt\"], cmd = \"true\", testonly = True)
genrule(name = \"old\", outs = [\"old.txt\"], cmd = \"true\", deprecation = \"use `new`\", visibility = [\"//...\"])
",
    );
    let bad = genrules("genrule(name = \"x\", srcs = [\":t\"], outs = [\"y\"], cmd = \"true\")\n");
    let both = format!("{lib}{}", bad.trim_start_matches(GENRULE));
    let got = errors_of(&Memory::new(&[("maestro.star", &both)]), &["//:x"]);
    assert!(got.contains("attribute `srcs`: `//:t` is for tests only"), "{got}");
    let app =
        genrules("genrule(name = \"x\", srcs = [\"//lib:old\"], outs = [\"y\"], cmd = \"true\")\n");
    let files = [("lib/maestro.star", lib.as_str()), ("app/maestro.star", app.as_str())];
    let loaded = loaded(&files, &["//app:x"]);
    let remarks = render(&loaded.remarks);
    assert!(
        remarks.starts_with("warning[MAE0126]: `//app:x` uses `//lib:old`, which is deprecated"),
        "{remarks}"
    );
    assert!(remarks.ends_with("hint: use `new`"), "{remarks}");
}

#[test]
fn load_visibility_cycles_and_missing_files() {
    check(
        &[
            ("app/maestro.star", "load(\"//lib:defs.star\", \"x\")\n"),
            ("lib/defs.star", "x = 1\n"),
        ],
        &["//app:all"],
        "error[MAE0106]: `lib/defs.star` may not be loaded by package `//app`
 --> app/maestro.star:1:6
  |
1 | load(\"//lib:defs.star\", \"x\")
  |      ^^^^^^^^^^^^^^^^^
hint: a file can be loaded by its own package and those below; call `visibility([\"//app\"])` in `lib/defs.star`",
    );
    check(
        &[
            ("maestro.star", "load(\":a.star\", \"a\")\n"),
            ("a.star", "load(\":b.star\", \"b\")\na = b\n"),
            ("b.star", "x = 1\nload(\":a.star\", \"a\")\nb = a\n"),
        ],
        &["//..."],
        "error[MAE0105]: files load each other in a cycle:
  `a.star` loads, at a.star:1:6,
  `b.star` loads, at b.star:2:6,
  `a.star` again
 --> a.star:1:6
  |
1 | load(\":b.star\", \"b\")
  |      ^^^^^^^^^
hint: move what both need into a third file",
    );
    check(
        &[("maestro.star", "load(\":defz.star\", \"a\")\n"), ("defs.star", "a = 1\n")],
        &["//..."],
        "error[MAE0104]: there is no file `defz.star`
 --> maestro.star:1:6
  |
1 | load(\":defz.star\", \"a\")
  |      ^^^^^^^^^^^^
hint: did you mean `defs.star`?",
    );
}

#[test]
fn target_cycles_show_every_step() {
    let text = genrules(
        "genrule(name = \"a\", srcs = [\":b\"], outs = [\"a.txt\"], cmd = \"true\")
genrule(name = \"b\", srcs = [\":c.txt\"], outs = [\"b.txt\"], cmd = \"true\")
genrule(name = \"c\", srcs = [\":a\"], outs = [\"c.txt\"], cmd = \"true\")
genrule(name = \"top\", srcs = [\":a\"], outs = [\"top.txt\"], cmd = \"true\")
",
    );
    check(
        &[("maestro.star", &text)],
        &["//:top"],
        "error[MAE0123]: targets depend on each other in a cycle:
  `//:a` (maestro.star:2:1) needs
  `//:b` (maestro.star:3:1) needs
  `//:c` (maestro.star:4:1) needs
  `//:a` again
 --> maestro.star:2:1
  |
2 | genrule(name = \"a\", srcs = [\":b\"], outs = [\"a.txt\"], cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: split one of them, so that what both need is a target of its own",
    );
}

#[test]
fn names_and_outputs_of_a_package_are_unique() {
    let text = genrules(
        "genrule(name = \"a\", outs = [\"x\"], cmd = \"true\")
genrule(name = \"x\", outs = [\"y\"], cmd = \"true\")
",
    );
    check(
        &[("maestro.star", &text)],
        &["//:a"],
        "error[MAE0107]: `x` is already an output of package `//`
 --> maestro.star:3:1
  |
3 | genrule(name = \"x\", outs = [\"y\"], cmd = \"true\")
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: the first one is declared at maestro.star:2:1",
    );
}

#[test]
fn an_unpinned_download_does_not_load() {
    check(
        &[(
            "maestro.star",
            "load(\"@maestro//rules:http.star\", \"http_file\")\nhttp_file(name = \"x\", urls = [\"https://example.com/x\"])\n",
        )],
        &["//:x"],
        "error[MAE0132]: `https://example.com/x` is not pinned
 --> @maestro//rules:http.star:13:5
   |
13 |     ctx.actions.fetch(
   |     ^^^^^^^^^^^^^^^^^^
  from maestro.star:2:1 in target `//:x`
hint: add `sha256 = \"…\"`, as `sha256sum` prints it for the file that you trust",
    );
}

#[test]
fn implementations_that_return_nonsense() {
    let rules = "
def _impl(ctx):
    return 1
bad = rule(implementation = _impl)
";
    check(
        &[
            ("defs.star", rules),
            ("maestro.star", "load(\":defs.star\", \"bad\")\nbad(name = \"x\")\n"),
        ],
        &["//:x"],
        "error[MAE0130]: the implementation of `bad` returned 1, not a list of providers
 --> maestro.star:2:1
  |
2 | bad(name = \"x\")
  | ^^^^^^^^^^^^^^^",
    );
}

#[test]
fn a_package_file_cannot_define_rules() {
    let text = "def _impl(ctx):\n    pass\nr = rule(implementation = _impl)\n";
    check(
        &[("maestro.star", text)],
        &["//..."],
        "error[MAE0101]: a package file cannot define a rule
 --> maestro.star:3:5
  |
3 | r = rule(implementation = _impl)
  |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: define it in a `.star` file beside it, and `load` it",
    );
}

#[test]
fn every_independent_error_is_reported() {
    let text = genrules(
        "genrule(name = \"a\", srcs = [\"no1\"], outs = [\"a.txt\"], cmd = \"true\")
genrule(name = \"b\", srcs = [\"no2\"], outs = [\"b.txt\"], cmd = \"true\")
",
    );
    let got = errors_of(&Memory::new(&[("maestro.star", &text)]), &["//..."]);
    assert_eq!(got.matches("error[MAE0121]").count(), 2, "{got}");
}

#[test]
fn commands_with_unknown_variables() {
    let text = genrules("genrule(name = \"a\", outs = [\"x\", \"y\"], cmd = \"echo > $@\")\n");
    let got = errors_of(&Memory::new(&[("maestro.star", &text)]), &["//:a"]);
    assert!(
        got.starts_with("error[MAE0110]: attribute `cmd`: variable `$@` is not defined"),
        "{got}"
    );
    assert!(got.contains("from maestro.star:2:1 in target `//:a`"), "{got}");
    assert!(got.ends_with("hint: `$@` needs exactly one output; use `$(OUTS)`"), "{got}");
}
