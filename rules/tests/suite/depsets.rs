//! Depsets: their orders, and that neither size nor depth is a problem.

use crate::workspace::{Memory, actions, errors_of, loaded};

/// What an implementation with this body writes into its file `out`.
fn written(body: &str) -> String {
    let rules = format!(
        "Info = provider(fields = [\"x\"])
def _impl(ctx):
    out = ctx.actions.declare_file(\"out\")
{body}
    ctx.actions.write(out, text)
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl)
"
    );
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\")\n";
    let loaded = loaded(&[("defs.star", &rules), ("maestro.star", package)], &["//:x"]);
    let text = actions(&loaded.graph);
    let (_, text) = text.split_once("\"content\":\"").expect("a content");
    text.split_once("\",\"executable\"").expect("an end").0.to_owned()
}

#[test]
fn orders_are_those_of_bazel() {
    let check = |order: &str, expect: &str| {
        let body = format!(
            "    d = depset([\"d\"], order = \"{order}\")
    b = depset([\"b\"], transitive = [d], order = \"{order}\")
    c = depset([\"c\"], transitive = [d], order = \"{order}\")
    text = \" \".join(depset([\"a\", \"d2\"], transitive = [b, c], order = \"{order}\").to_list())"
        );
        assert_eq!(written(&body), expect, "{order}");
    };
    check("default", "d b c a d2");
    check("postorder", "d b c a d2");
    check("preorder", "a d2 b d c");
    check("topological", "a d2 b c d");
}

#[test]
fn chains_of_a_hundred_thousand_keep_their_order() {
    let check = |order: &str, expect: &str| {
        let body = format!(
            "    s = depset(order = \"{order}\")
    for i in range(100000):
        s = depset([str(i)], transitive = [s], order = \"{order}\")
    l = s.to_list()
    text = \" \".join([str(len(l)), l[0], l[1], l[199], l[200], l[99999]])"
        );
        assert_eq!(written(&body), expect, "{order}");
    };
    check("postorder", "100000 0 1 199 200 99999");
    check("preorder", "100000 99999 99998 99800 99799 0");
    check("topological", "100000 99999 99998 99800 99799 0");
}

#[test]
fn deep_sets_hold_any_value_and_are_shared() {
    let body = "    shared = depset([\"s\"])
    s = depset([struct(n = -1)])
    side = depset([1])
    for i in range(1000):
        s = depset([struct(n = i)], transitive = [s])
        side = depset([i], transitive = [side, shared] if i % 2 else [shared, side])
    top = depset(transitive = [s, depset([struct(n = 3), struct(n = 2000)], transitive = [s])])
    l = top.to_list()
    text = \"%d %d %d %d\" % (len(l), l[0].n, l[-1].n, len(side.to_list()))";
    assert_eq!(written(body), "1002 -1 2000 1001");
}

#[test]
fn wide_sets_of_a_hundred_thousand_are_flattened_once() {
    let body = "    parts = [depset([str(i), str(i + 1)]) for i in range(100000)]
    all = depset(transitive = parts + parts)
    text = str(len(all.to_list()))";
    assert_eq!(written(body), "100001");
}

#[test]
fn sets_made_while_files_are_loaded_may_be_deep() {
    let rules = "
def _make():
    s = depset()
    for i in range(50000):
        s = depset([i], transitive = [s])
    return s
DEEP = _make()
top = depset([-1])
for i in range(20000):
    top = depset([i], transitive = [top])
TOP = top
def _impl(ctx):
    out = ctx.actions.declare_file(\"out\")
    both = depset(transitive = [DEEP, TOP])
    for i in range(1000):
        both = depset([\"x%d\" % i], transitive = [both])
    ctx.actions.write(out, str(len(both.to_list())))
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl)
";
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\")\n";
    let loaded = loaded(&[("defs.star", rules), ("maestro.star", package)], &["//:x"]);
    assert!(actions(&loaded.graph).contains("\"content\":\"51001\""));
}

#[test]
fn a_chain_of_targets_may_pass_a_set_on_for_ever() {
    let rules = "
Info = provider(fields = [\"files\"])
def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(out, \"\")
    below = [d[Info].files for d in ctx.attr.deps]
    return [DefaultInfo(files = depset([out])), Info(files = depset([out], transitive = below))]
link = rule(implementation = _impl, attrs = {\"deps\": attr.label_list()})
def _count(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    files = ctx.attr.dep[Info].files
    args = ctx.actions.args()
    args.add_all(files)
    ctx.actions.run(outputs = [out], inputs = files, executable = \"/bin/tool\", arguments = [args])
    return [DefaultInfo(files = depset([out]))]
count = rule(implementation = _count, attrs = {\"dep\": attr.label()})
";
    let package = "load(\":defs.star\", \"count\", \"link\")
link(name = \"t0\")
[link(name = \"t%d\" % i, deps = [\":t%d\" % (i - 1)]) for i in range(1, 10000)]
count(name = \"x\", dep = \":t9999\")
";
    let loaded = loaded(&[("defs.star", rules), ("maestro.star", package)], &["//:x"]);
    let graph = &loaded.graph;
    let last = maestro_core::ActionId::from_index(graph.action_count() - 1);
    assert_eq!(graph.inputs_of(last).len(), 10_000);
}

#[test]
fn other_values_that_nest_too_deeply_are_refused() {
    let check = |step: &str| {
        let text = format!(
            "P = provider(fields = [\"x\"])\ndef f():\n    x = P(x = 0)\n    for i in range(100000):\n        x = {step}\n    return x\ny = f()\n"
        );
        let host =
            Memory::new(&[("d.star", &text), ("maestro.star", "load(\":d.star\", \"y\")\n")]);
        let got = errors_of(&host, &["//..."]);
        assert!(got.starts_with("error[MAE0103]: variable `y`: values nest deeper"), "{got}");
    };
    check("P(x = x)");
    check("depset([P(x = x)])");
    check("struct(x = depset([1], transitive = [depset([x])]))");
}
