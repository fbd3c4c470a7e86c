//! Actions that implementations declare, over the native core alone.

use crate::workspace::{Memory, actions, describe, errors_of, loaded, requested};

fn with_rules(rules: &str, package: &str) -> maestro_rules::Loaded {
    loaded(
        &[("p/defs.star", rules), ("p/maestro.star", package), ("p/a.txt", ""), ("p/b.txt", "")],
        &["//p:x"],
    )
}

#[test]
fn args_are_lazy_over_depsets_and_trees() {
    let rules = "
def _impl(ctx):
    tree = ctx.actions.declare_directory(\"tree\")
    ctx.actions.tree(output = tree, entries = [ctx.actions.entry(\"x\", content = \"\")])
    out = ctx.actions.declare_file(\"out\")
    files = depset(ctx.files.srcs)
    args = ctx.actions.args()
    args.add(\"-o\", out)
    args.add(ctx.label, format = \"--label=%s\")
    args.add(7)
    args.add_all(\"--srcs\", files, format_each = \"<%s>\", before_each = \"-s\")
    args.add_all([tree])
    args.add_all([tree], expand_directories = False)
    args.add_joined(\"--joined\", files, join_with = \":\")
    args.add_joined(files, join_with = \",\", format_joined = \"j=%s!\", map_each = lambda f: f.basename)
    args.add_all(\"--none\", [])
    args.add_joined([tree], join_with = \",\", format_joined = \"t=%s\")
    args.add_all([], terminate_with = \"--\")
    args.add_all(depset(), terminate_with = \"--\")
    args.add_all(\"--kept\", [], omit_if_empty = False)
    args.add_all([\"a\", \"b\", \"a\"], uniquify = True, terminate_with = \"--\")
    ctx.actions.run(outputs = [out], inputs = depset([tree], transitive = [files]), executable = \"/bin/tool\",
        arguments = [args, \"last\"], env = {\"K\": \"v\"}, mnemonic = \"Tool\", timeout = 5)
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl, attrs = {\"srcs\": attr.label_list(allow_files = True)})
";
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\", srcs = [\"a.txt\", \"b.txt\"])\n";
    let loaded = with_rules(rules, package);
    assert_eq!(
        actions(&loaded.graph),
        "Tree: tree {\"entries\":[{\"path\":\"x\",\"content\":\"\",\"executable\":false}]}
  in:  
  out: maestro-out/shared/p/tree
Tool: /bin/tool -o maestro-out/shared/p/out --label=//p:x 7 --srcs -s <p/a.txt> -s <p/b.txt> maestro-out/shared/p/tree/x maestro-out/shared/p/tree/y/z maestro-out/shared/p/tree --joined p/a.txt:p/b.txt j=a.txt,b.txt! t=maestro-out/shared/p/tree/x,maestro-out/shared/p/tree/y/z --kept a b -- last
  in:  maestro-out/shared/p/tree p/a.txt p/b.txt
  out: maestro-out/shared/p/out
  env: K=v"
    );
}

#[test]
fn run_shell_write_and_templates() {
    let rules = "
def _impl(ctx):
    out = ctx.actions.declare_file(\"d/out\")
    list = ctx.actions.declare_file(\"list\")
    conf = ctx.actions.declare_file(\"conf\")
    args = ctx.actions.args()
    tree = ctx.actions.declare_directory(\"tree\")
    ctx.actions.tree(output = tree, entries = [ctx.actions.entry(\"x\", content = \"\")])
    args.add_all(\"--srcs\", ctx.files.srcs, before_each = \"-s\")
    args.add_all([tree])
    ctx.actions.write(list, args)
    ctx.actions.expand_template(template = ctx.files.srcs[0], output = conf, substitutions = {\"b\": \"2\", \"a\": \"1\"})
    ctx.actions.run_shell(outputs = [out], inputs = [list, conf], command = \"cat $1 > $2\", arguments = [list.path, out.path])
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl, attrs = {\"srcs\": attr.label_list(allow_files = True)})
";
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\", srcs = [\"a.txt\", \"b.txt\"])\n";
    let loaded = with_rules(rules, package);
    assert_eq!(
        actions(&loaded.graph),
        "Tree: tree {\"entries\":[{\"path\":\"x\",\"content\":\"\",\"executable\":false}]}
  in:  
  out: maestro-out/shared/p/tree
Write: write {\"content\":\"--srcs\\n-s\\np/a.txt\\n-s\\np/b.txt\\nmaestro-out/shared/p/tree/x\\nmaestro-out/shared/p/tree/y/z\\n\",\"executable\":false}
  in:  
  out: maestro-out/shared/p/list
ExpandTemplate: expand-template {\"template\":\"p/a.txt\",\"substitutions\":{\"a\":\"1\",\"b\":\"2\"},\"executable\":false}
  in:  in/p/a.txt
  out: maestro-out/shared/p/conf
Action: /bin/bash -c cat $1 > $2  maestro-out/shared/p/list maestro-out/shared/p/d/out
  in:  maestro-out/shared/p/conf maestro-out/shared/p/list
  out: maestro-out/shared/p/d/out"
    );
}

#[test]
fn a_function_cannot_map_what_is_not_made_yet() {
    let rules = "
def _impl(ctx):
    tree = ctx.actions.declare_directory(\"tree\")
    ctx.actions.args().add_all([tree], map_each = lambda f: f.path)
x = rule(implementation = _impl)
";
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\")\n";
    let host = Memory::new(&[("defs.star", rules), ("maestro.star", package)]);
    let got = errors_of(&host, &["//:x"]);
    let expect = "error[MAE0131]: `map_each` cannot see what is in the tree";
    assert!(got.starts_with(expect), "{got}");
    assert!(got.contains("hint: add the tree by itself with `format_each`"), "{got}");
}

#[test]
fn providers_and_depsets_cross_targets() {
    let rules = "
Info = provider(doc = \"names\", fields = {\"names\": \"all names\"})
def _impl(ctx):
    names = depset([ctx.label.name], transitive = [d[Info].names for d in ctx.attr.deps], order = \"preorder\")
    out = ctx.actions.declare_file(ctx.label.name + \".txt\")
    ctx.actions.write(out, \" \".join(names.to_list()))
    return [DefaultInfo(files = depset([out])), Info(names = names)]
x = rule(implementation = _impl, attrs = {\"deps\": attr.label_list(providers = [Info])}, provides = [Info])
";
    let package = "load(\":defs.star\", \"x\")
x(name = \"x\", deps = [\":y\", \":z\"])
x(name = \"y\", deps = [\":w\"])
x(name = \"z\", deps = [\":w\"])
x(name = \"w\")
";
    let loaded = with_rules(rules, package);
    let text = actions(&loaded.graph);
    assert!(text.contains("\"content\":\"x y w z\""), "{text}");
    let x = loaded.graph.target(*loaded.requested.first().expect("one target"));
    assert_eq!((x.rule.as_str(), x.location.as_str()), ("x", "p/maestro.star:2:1"));
    assert_eq!(x.deps.len(), 2);
}

#[test]
fn patterns_keep_their_order_and_skip_manual_targets() {
    let text = "load(\"@maestro//rules:basics.star\", \"filegroup\")
filegroup(name = \"b\")
filegroup(name = \"a\")
filegroup(name = \"m\", tags = [\"manual\"])
";
    let files = [("maestro.star", text), ("sub/maestro.star", text), ("sub/f", "")];
    let check = |patterns: &[&str], expect: &[&str]| {
        assert_eq!(requested(&loaded(&files, patterns)), expect, "{patterns:?}");
    };
    check(&["//..."], &["//:a", "//:b", "//sub:a", "//sub:b"]);
    check(&["//:b", "//:all"], &["//:b", "//:a"]);
    check(&["//...", "-//sub/..."], &["//:a", "//:b"]);
    check(&["//:m"], &["//:m"]);
    check(&["//sub:f"], &["//sub:f"]);
}

#[test]
fn globs_stop_at_packages_and_outputs() {
    let text = "load(\"@maestro//rules:basics.star\", \"filegroup\")
filegroup(name = \"x\", srcs = glob([\"**/*.c\"], exclude = [\"skip/**\"]))
";
    let loaded = loaded(
        &[
            ("maestro.star", text),
            ("b.c", ""),
            ("a.c", ""),
            ("d/e/f.c", ""),
            ("skip/g.c", ""),
            ("sub/maestro.star", ""),
            ("sub/h.c", ""),
            ("maestro-out/i.c", ""),
            (".git/j.c", ""),
            ("k.h", ""),
        ],
        &["//:x"],
    );
    let x = loaded.graph.target(*loaded.requested.first().expect("one target"));
    let paths: Vec<&str> =
        x.files.iter().map(|id| loaded.graph.artifact(*id).path.as_str()).collect();
    assert_eq!(paths, ["a.c", "b.c", "d/e/f.c"]);
    let host = Memory::new(&[("maestro.star", "x = glob([\"*.c\"])\n")]);
    assert!(
        errors_of(&host, &["//..."]).starts_with("error[MAE0112]: the glob `*.c` matches no file")
    );
}

#[test]
fn an_output_has_one_maker() {
    let rules = "
def _impl(ctx):
    out = ctx.actions.declare_file(\"out\")
    ctx.actions.write(out, \"1\")
    ctx.actions.write(out, \"2\")
x = rule(implementation = _impl)
";
    let host = Memory::new(&[
        ("defs.star", rules),
        ("maestro.star", "load(\":defs.star\", \"x\")\nx(name = \"x\")\n"),
    ]);
    let got = errors_of(&host, &["//:x"]);
    assert!(
        got.starts_with("error[MAE0131]: `maestro-out/shared/out` is an output of both"),
        "{got}"
    );
}

#[test]
fn tests_run_in_their_runfiles() {
    let text = "load(\"@maestro//rules:basics.star\", \"sh_test\", \"sh_binary\", \"genrule\")
sh_binary(name = \"tool\", srcs = [\"tool.sh\"])
sh_test(name = \"x\", srcs = [\"x.sh\"], data = [\"data.txt\"], args = [\"$(rootpath data.txt)\", \"$HOME\"], env = {\"A\": \"b\"}, size = \"small\")
genrule(name = \"g\", outs = [\"g.txt\"], tools = [\":tool\"], cmd = \"$(location :tool) > $@\")
";
    let loaded = loaded(
        &[("p/maestro.star", text), ("p/x.sh", ""), ("p/data.txt", ""), ("p/tool.sh", "")],
        &["//p:x", "//p:g"],
    );
    let graph = &loaded.graph;
    let x = graph.target(*loaded.requested.first().expect("two targets"));
    let test = x.test.as_ref().expect("a test");
    assert_eq!(test.size, "small");
    let spec = graph.action(test.action);
    assert_eq!((spec.timeout_ms, spec.hints.test), (Some(60_000), true));
    let text = describe(graph, test.action);
    let (_, tail) = text.split_once("exec \"$program\" \"$@\"").expect("the script");
    assert_eq!(
        tail,
        " test maestro-out/shared/p/x.runfiles p/x maestro-out/shared/p/x.test/test.xml maestro-out/shared/p/x.test/outputs p/data.txt $HOME
  in:  maestro-out/shared/p/x.runfiles
  out: maestro-out/shared/p/x.test/outputs maestro-out/shared/p/x.test/test.xml
  toolchain: base
  env: A=b"
    );
    let runfiles = graph.producer(x.executable.as_ref().and_then(|e| e.runfiles).expect("a tree"));
    assert_eq!(
        describe(graph, runfiles.expect("made")),
        "Runfiles: tree {\"entries\":[{\"path\":\"main/p/data.txt\",\"from\":\"p/data.txt\"},{\"path\":\"main/p/x\",\"from\":\"maestro-out/shared/p/x\"}]}
  in:  in/maestro-out/shared/p/x in/p/data.txt
  out: maestro-out/shared/p/x.runfiles"
    );
    let g = graph.target(*loaded.requested.get(1).expect("two targets"));
    let made = graph.producer(*g.files.first().expect("a file")).expect("made");
    assert_eq!(
        describe(graph, made),
        "Genrule: /bin/bash -euo pipefail -c maestro-out/shared/p/tool > maestro-out/shared/p/g.txt
  in:  maestro-out/shared/p/tool maestro-out/shared/p/tool.runfiles
  out: maestro-out/shared/p/g.txt
  toolchain: base"
    );
}
