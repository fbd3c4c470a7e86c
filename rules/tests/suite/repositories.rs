//! Other repositories: what labels, loads, globs and visibility mean inside and across them.

use crate::workspace::{Memory, errors_of, load_memory, loaded, render, requested};

const BASICS: &str = "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")\n";
const PUBLIC: &str = "package(default_visibility = [\"//visibility:public\"])\n";

/// A workspace whose root package says `root`, with repository `@dep` made of `files`.
fn with_dep<'a>(root: &'a str, files: &[(&'a str, &'a str)]) -> Memory {
    let root = format!("{BASICS}{root}");
    let mut all = vec![("maestro.star".to_owned(), root)];
    all.extend(files.iter().map(|(p, t)| (format!("external/dep/{p}"), format!("{BASICS}{t}"))));
    let all: Vec<(&str, &str)> = all.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    Memory::new(&all)
}

#[test]
fn labels_inside_a_repository_are_its_own() {
    let root = "filegroup(name = \"x\", srcs = [\"@dep//lib\", \"@dep\"])\n";
    let package = format!(
        "{PUBLIC}filegroup(name = \"lib\", srcs = [\"//:f.txt\", \":g.txt\"] + glob([\"*.c\"]))\n"
    );
    let top = format!(
        "{PUBLIC}exports_files([\"f.txt\"])\nfilegroup(name = \"dep\", srcs = [\"f.txt\"])\n"
    );
    let host = with_dep(
        root,
        &[
            ("maestro.star", &top),
            ("lib/maestro.star", &package),
            ("f.txt", ""),
            ("lib/g.txt", ""),
            ("lib/a.c", ""),
        ],
    );
    let loaded = load_memory(&host, &["//:x"]).unwrap_or_else(|e| panic!("{}", render(&e)));
    let target = loaded.graph.target(loaded.requested[0]);
    let mut paths: Vec<&str> =
        target.files.iter().map(|id| loaded.graph.artifact(*id).path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["external/dep/f.txt", "external/dep/lib/a.c", "external/dep/lib/g.txt"]);
}

#[test]
fn outputs_of_a_repository_stand_below_its_name() {
    let root =
        "genrule(name = \"x\", srcs = [\"@dep//:made\"], outs = [\"o\"], cmd = \"cp $< $@\")\n";
    let top = format!("{PUBLIC}genrule(name = \"made\", outs = [\"m.txt\"], cmd = \"echo >$@\")\n");
    let host = with_dep(root, &[("maestro.star", &top)]);
    let loaded = load_memory(&host, &["@dep//..."]).unwrap_or_else(|e| panic!("{}", render(&e)));
    assert_eq!(requested(&loaded), ["@dep//:made"]);
    let target = loaded.graph.target(loaded.requested[0]);
    let path = &loaded.graph.artifact(target.files[0]).path;
    assert_eq!(path.as_str(), "maestro-out/shared/external/dep/m.txt");
}

#[test]
fn rules_of_a_repository_bring_their_own_defaults() {
    let rules = "visibility([\"public\"])\n\
                 def _impl(ctx):\n    return [DefaultInfo(files = depset([ctx.file._tool]))]\n\
                 r = rule(implementation = _impl, attrs = {\n    \
                 \"_tool\": attr.label(default = \"//:tool.sh\", allow_single_file = True)})\n";
    let files = [
        ("maestro.star", "load(\"@dep//:r.star\", \"r\")\nr(name = \"x\")\n"),
        ("external/dep/maestro.star", "exports_files([\"tool.sh\"])\n"),
        ("external/dep/r.star", rules),
        ("external/dep/tool.sh", ""),
    ];
    let loaded = loaded(&files, &["//:x"]);
    let target = loaded.graph.target(loaded.requested[0]);
    let path = &loaded.graph.artifact(target.files[0]).path;
    assert_eq!(path.as_str(), "external/dep/tool.sh");
}

fn starts(host: &Memory, expect: &str) {
    let got = errors_of(host, &["//:all"]);
    assert!(got.starts_with(expect), "{got}");
}

#[test]
fn what_cannot_be_used_says_why_and_where() {
    let top = "filegroup(name = \"mine\")\n";
    let use_of = |label: &str| format!("filegroup(name = \"x\", srcs = [\"{label}\"])\n");
    let check = |label: &str, expect: &str| {
        let root = use_of(label);
        let files = [("maestro.star", top), ("f.txt", ""), ("sub/maestro.star", "")];
        let got = errors_of(&with_dep(&root, &files), &["//:all"]);
        assert!(got.contains(expect) && got.contains(" --> maestro.star:2:1"), "{label}: {got}");
    };
    check(
        "@dpe//:x",
        "error[MAE0133]: target `//:x`, attribute `srcs`: there is no repository `@dpe`",
    );
    check("@dep//:mine", "`@dep//:mine` is not visible to `//:x`");
    check("@dep//:f.txt", "the file `@dep//:f.txt` exists, but its package does not export it");
    check("@dep//:f.tx", "there is no target or file `@dep//:f.tx`");
    check("@dep//sbu:x", "did you mean `@dep//sub`?");
    check("@dep//:sub/x", "`@dep//:sub/x` reaches into package `@dep//sub`");
}

#[test]
fn a_repository_that_needs_an_unknown_one_is_named() {
    let root = "filegroup(name = \"x\", srcs = [\"@dep//:y\"])\n";
    let top = format!("{PUBLIC}filegroup(name = \"y\", srcs = [\"@far//:z\"])\n");
    starts(
        &with_dep(root, &[("maestro.star", &top)]),
        "error[MAE0133]: target `@dep//:y`, attribute `srcs`: there is no repository `@far`, which \
         `@dep` uses",
    );
    let host = with_dep("load(\"@dep//:a.star\", \"a\")\n", &[("maestro.star", "")]);
    let got = errors_of(&host, &["//:all"]);
    assert!(got.starts_with("error[MAE0104]: there is no file `@dep//:a.star`"), "{got}");
    let text = "load(\"@far//:a.star\", \"a\")\n";
    starts(
        &Memory::new(&[("maestro.star", text)]),
        "error[MAE0133]: there is no repository `@far`",
    );
}

#[test]
fn files_of_a_repository_decide_who_loads_them() {
    let files = [
        ("maestro.star", "load(\"@dep//:a.star\", \"a\")\n"),
        ("external/dep/maestro.star", ""),
        ("external/dep/a.star", "a = 1\n"),
    ];
    starts(&Memory::new(&files), "error[MAE0106]: `@dep//:a.star` may not be loaded by");
}

#[test]
fn a_folder_of_the_workspace_is_not_mistaken_for_a_repository() {
    let files = [("maestro.star", ""), ("external/dep/maestro.star", "")];
    let got = errors_of(&Memory::new(&files), &["//..."]);
    let expect = "error[MAE0133]: `external/dep` is where the files of repository `@dep` stand";
    assert!(got.starts_with(expect), "{got}");
}
