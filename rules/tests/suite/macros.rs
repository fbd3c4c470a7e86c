//! Macros with a schema: what they are given, what they may declare, what is said of mistakes.

use crate::workspace::{Memory, actions, errors_of, load_memory, render};

const DEFS: &str = r#"
def _write_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(out, ctx.attr.text + " " + str([str(d.label) for d in ctx.attr.deps]))
    return DefaultInfo(files = depset([out]))

write = rule(implementation = _write_impl, attrs = {
    "text": attr.string(default = "nothing"),
    "deps": attr.label_list(allow_files = True),
    "level": attr.int(default = 3),
})

def _pair_impl(name, visibility, text, dep, _tool, tags):
    write(name = name, visibility = visibility, text = text, deps = [dep], tags = tags or [])
    write(name = name + "_tool", deps = [_tool], text = str(visibility))

pair = macro(
    implementation = _pair_impl,
    doc = "Two of them.",
    attrs = {
        "text": attr.string(mandatory = True, doc = "What is written."),
        "dep": attr.label(),
        "_tool": attr.label(default = "//tools:tool"),
    },
    inherit_attrs = "common",
)
"#;

const TAIL: &str = r#"
def _wrap_impl(name, visibility, **kwargs):
    write(name = name, visibility = visibility, **kwargs)

wrap = macro(implementation = _wrap_impl, inherit_attrs = write, attrs = {"level": None})
outer = macro(implementation = lambda name, visibility, **kwargs: wrap(name = name + ".inner", **kwargs), inherit_attrs = wrap)
bad_name = macro(implementation = lambda name, visibility: write(name = "other"))
bad_inner = macro(implementation = lambda name, visibility: wrap(name = name + "inner"))
bad_glob = macro(implementation = lambda name, visibility: native.glob(["*"], allow_empty = True))
"#;

/// `pair` without the attributes that its implementation does not take.
fn defs() -> String {
    let all = ["testonly", "deprecation", "target_compatible_with"];
    let dropped: String = all.iter().map(|n| format!("        \"{n}\": None,\n")).collect();
    DEFS.replace("        \"_tool\": attr", &format!("{dropped}        \"_tool\": attr")) + TAIL
}

fn files(defs: &str, package: &str) -> Memory {
    let package = format!(
        "load(\"//tools:defs.star\", \"pair\", \"wrap\", \"outer\", \"bad_name\", \"bad_inner\", \"bad_glob\")\n{package}"
    );
    let tools = "load(\":defs.star\", \"write\")\nwrite(name = \"tool\", visibility = [\"//visibility:public\"])\n";
    let defs = format!("visibility([\"//...\"])\n{defs}");
    Memory::new(&[
        ("tools/defs.star", &defs),
        ("tools/maestro.star", tools),
        ("app/maestro.star", &package),
        ("app/x.txt", ""),
        (
            "user/maestro.star",
            "load(\"//tools:defs.star\", \"wrap\")\nwrap(name = \"u\", deps = [\"//app:p_tool\"])\n",
        ),
    ])
}

/// What the targets of the package write, by their names.
fn written(package: &str) -> Vec<String> {
    let defs = defs();
    let host = files(&defs, package);
    let loaded = load_memory(&host, &["//app:all"]);
    let loaded = loaded.unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let mut out = Vec::new();
    let mut content = "";
    let text = actions(&loaded.graph);
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("\"content\":\"") {
            content = rest.split("\",\"").next().unwrap_or_default();
        }
        if let Some(path) = line.trim_start().strip_prefix("out: maestro-out/shared/app/") {
            out.push(format!("{path} {}", content.replace("\\\"", "'")));
        }
    }
    out.sort();
    out
}

#[test]
fn a_macro_gets_checked_values_with_labels_resolved() {
    assert_eq!(
        written("pair(name = \"p\", text = \"hello\", dep = \"x.txt\")\n"),
        ["p.txt hello ['//app:x.txt']", "p_tool.txt ['//visibility:private'] ['//tools:tool']",]
    );
    // The visibility of the package is that of what the macro shows, and of nothing else.
    let shown = "package(default_visibility = [\"//visibility:public\"])
pair(name = \"p\", text = select({\"//conditions:default\": \"chosen\"}), dep = \":x.txt\")\n";
    assert_eq!(written(shown)[1], "p_tool.txt ['//visibility:public'] ['//tools:tool']");
    assert_eq!(written(shown)[0], "p.txt chosen ['//app:x.txt']");
    let text = errors_of(&files(&defs(), shown), &["//user:u"]);
    assert!(text.contains("`//app:p_tool` is not visible to `//user:u`"), "{text}");
}

#[test]
fn attributes_are_inherited_and_macros_nest() {
    assert_eq!(
        written("wrap(name = \"w\", deps = [\"x.txt\"])\n"),
        ["w.txt nothing ['//app:x.txt']"]
    );
    assert_eq!(written("outer(name = \"o\", text = \"deep\")\n"), ["o.inner.txt deep []"]);
}

#[test]
fn mistakes_are_told() {
    let check = |package: &str, expect: &str| {
        let text = errors_of(&files(&defs(), package), &["//app:all"]);
        assert!(text.contains(expect), "{package}: {expect:?} is not in:\n{text}");
    };
    check("pair(name = \"p\")\n", "macro `pair` `p`: attribute `text` is missing");
    check("pair(name = \"p\", text = \"\")\n", "tools/defs.star:15:5\n");
    check("pair(name = \"p\", text = 1)\n", "attribute `text` must be a string, not a `int`: 1");
    check("pair(name = \"p\", txt = \"\")\n", "macro `pair` `p`: it has no attribute `txt`");
    check("pair(name = \"p\", txt = \"\")\n", "did you mean `text`?");
    check("wrap(name = \"p\", level = 1)\n", "it has no attribute `level`");
    check("pair(\"p\")\n", "`pair` takes named arguments only");
    check("pair(text = \"\")\n", "attribute `name` of `pair` must be a string");
    check("bad_name(name = \"p\")\n", "macro `bad_name` was called as `p`, and declares `other`");
    check(
        "bad_inner(name = \"p\")\n",
        "macro `bad_inner` was called as `p`, and declares `pinner`",
    );
    check("bad_glob(name = \"p\")\n", "`glob` cannot be called in macro `bad_glob`");
    check("x = macro(implementation = len)\n", "a package file cannot define a macro");
}

#[test]
fn wrong_definitions_are_refused() {
    let check = |definition: &str, expect: &str| {
        let defs = format!("{}\nx = {definition}\n", defs());
        let text = errors_of(&files(&defs, ""), &["//app:all"]);
        assert!(text.contains(expect), "{definition}: {expect:?} is not in:\n{text}");
    };
    check("macro(implementation = 1)", "`implementation` must be a function");
    check(
        "macro(implementation = _pair_impl, inherit_attrs = 1)",
        "`inherit_attrs` must be a rule",
    );
    check(
        "macro(implementation = _pair_impl, attrs = {\"name\": attr.string()})",
        "has the attribute `name` already",
    );
    check("macro(implementation = _pair_impl, attrs = {\"a\": 1})", "`attrs[\"a\"]` must be");
}

#[test]
fn targets_know_the_macro() {
    let defs = defs();
    let host = files(&defs, "pair(name = \"p\", text = \"\", dep = \"nothing\")\n");
    let text = errors_of(&host, &["//app:p"]);
    assert!(text.contains(" --> app/maestro.star:2:1\n"), "{text}");
    assert!(text.contains("in macro `pair`"), "{text}");
}
