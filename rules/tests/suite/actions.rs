//! Actions that implementations declare, over the native core alone.

use crate::workspace::{
    Memory, actions, describe, errors_of, load_memory, loaded, render, requested,
};

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
    assert_eq!((&*x.rule, x.location.as_str()), ("x", "p/maestro.star:2:1"));
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
    let action = *test.actions.first().expect("one shard");
    let spec = graph.action(action);
    assert_eq!((spec.timeout_ms, spec.hints.test), (Some(60_000), true));
    let text = describe(graph, action);
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

#[test]
fn what_bazel_says_about_machines_is_taken_or_refused() {
    let check = |arguments: &str, expect: Result<(u32, u64), &str>| {
        let rules = format!(
            "
def _res(system, inputs):
    return {{\"cpu\": 2 + inputs, \"memory\": 100.0}}
def _impl(ctx):
    out = ctx.actions.declare_file(\"out\")
    ctx.actions.run(outputs = [out], inputs = depset(ctx.files.srcs), executable = \"/bin/tool\", {arguments})
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl, attrs = {{\"srcs\": attr.label_list(allow_files = True)}})
"
        );
        let package = "load(\":defs.star\", \"x\")\nx(name = \"x\", srcs = [\"a.txt\"])\n";
        let host = Memory::new(&[("defs.star", &rules), ("maestro.star", package), ("a.txt", "")]);
        match (load_memory(&host, &["//:x"]), expect) {
            (Ok(loaded), Ok(expect)) => {
                let hints = &loaded.graph.action(maestro_core::ActionId::from_index(0)).hints;
                assert_eq!((hints.cpu_millis, hints.memory_bytes), expect, "{arguments}");
            }
            (Err(errors), Err(expect)) => {
                let got = render(&errors);
                assert!(got.contains(expect), "{arguments}: {got}");
            }
            (got, _) => panic!("{arguments}: {got:?}"),
        }
    };
    check(
        "execution_requirements = {\"cpu:4\": \"\", \"no-remote\": \"1\"}",
        Ok((4000, 256 << 20)),
    );
    check("resource_set = _res", Ok((3000, 100 << 20)));
    check("use_default_shell_env = False, toolchain = None", Ok((1000, 256 << 20)));
    check("use_default_shell_env = True", Err("hint: leave `use_default_shell_env` out"));
    check("execution_requirements = {\"no-sandbox\": \"1\"}", Err("a way around the sandbox"));
    check("execution_requirements = {\"no-remot\": \"1\"}", Err("did you mean `no-remote`?"));
    check("resource_set = lambda s, n: {\"gpu\": 1}", Err("knows no resource \"gpu\""));
    check("resource_set = lambda s, n: {\"cpu\": -1}", Err("numbers must be positive"));
}

#[test]
fn programs_are_given_as_files_targets_or_files_to_run() {
    let rules = "
def _tool(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(out, \"\", is_executable = True)
    runfiles = ctx.runfiles(files = ctx.files.data, symlinks = {\"s/l\": ctx.files.data[0]}, root_symlinks = {\"r\": ctx.files.data[0]})
    return [DefaultInfo(executable = out, runfiles = runfiles.merge(ctx.runfiles()))]
tool = rule(implementation = _tool, executable = True, attrs = {\"data\": attr.label_list(allow_files = True)})
def _impl(ctx):
    target = ctx.attr.tool
    forms = [ctx.executable.tool, target, target.files_to_run, target[DefaultInfo].files_to_run]
    outs = []
    for i in range(len(forms)):
        out = ctx.actions.declare_file(\"out%d\" % i)
        ctx.actions.run(outputs = [out], executable = forms[i])
        outs.append(out)
    out = ctx.actions.declare_file(\"shell\")
    ctx.actions.run_shell(outputs = [out], tools = [target.files_to_run], command = \"x\")
    ctx.actions.do_nothing(mnemonic = \"Extra\", inputs = depset(outs))
    if len(ctx.attr.plain[DefaultInfo].default_runfiles.files.to_list()) != 0:
        fail(\"a source has no runfiles\")
    return [DefaultInfo(files = depset(outs + [out]))]
x = rule(implementation = _impl, attrs = {
    \"tool\": attr.label(executable = True, cfg = \"exec\"),
    \"plain\": attr.label(allow_single_file = True, default = \"//p:a.txt\"),
})
";
    let package = "load(\":defs.star\", \"tool\", \"x\")
tool(name = \"t\", data = [\"a.txt\"])
x(name = \"x\", tool = \":t\")
exports_files([\"a.txt\"])
";
    let loaded = with_rules(rules, package);
    let text = actions(&loaded.graph);
    let runs: Vec<&str> = text.lines().filter(|line| line.starts_with("Action: ")).collect();
    assert_eq!(runs.len(), 5, "{text}");
    let inputs = text.matches("/p/t maestro-out/").count();
    assert_eq!(inputs, 5, "each sees the program and its runfiles:\n{text}");
    for entry in ["main/p/a.txt", "main/s/l", "\"r\"", "main/p/t"] {
        assert!(text.contains(entry), "no {entry} in:\n{text}");
    }
}

#[test]
fn groups_of_outputs_are_named_by_a_provider() {
    let rules = "
def _impl(ctx):
    files = [ctx.actions.declare_file(n) for n in [\"x.o\", \"x.html\", \"x.pdf\"]]
    for file in files:
        ctx.actions.write(file, \"\")
    return [DefaultInfo(files = depset(files[:1])), OutputGroupInfo(docs = depset(files[1:]), one = files[:1])]
x = rule(implementation = _impl)
def _user(ctx):
    info = ctx.attr.dep[OutputGroupInfo]
    out = ctx.actions.declare_file(\"names\")
    if \"docs\" not in info or \"other\" in info:
        fail(\"wrong groups\")
    ctx.actions.write(out, \" \".join([f.basename for f in info.docs.to_list() + info[\"docs\"].to_list()]))
    return [DefaultInfo(files = depset([out]))]
user = rule(implementation = _user, attrs = {\"dep\": attr.label()})
";
    let package = "load(\":defs.star\", \"x\", \"user\")
load(\"@maestro//rules:basics.star\", \"filegroup\")
x(name = \"y\")
user(name = \"u\", dep = \":y\")
filegroup(name = \"x\", srcs = [\":y\", \":u\"], output_group = \"docs\")
";
    let files = [("p/defs.star", rules), ("p/maestro.star", package)];
    let loaded = loaded(&files, &["//p:x", "//p:y", "//p:u"]);
    let graph = &loaded.graph;
    let paths = |ids: &[maestro_core::ArtifactId]| -> Vec<String> {
        ids.iter().map(|id| graph.artifact(*id).path.name().to_owned()).collect()
    };
    let [x, y, _] = loaded.requested.as_slice() else { panic!("three targets") };
    assert_eq!(paths(&graph.target(*x).files), ["x.html", "x.pdf"]);
    let y = graph.target(*y);
    assert_eq!(paths(&y.files), ["x.o"]);
    let groups: Vec<(String, Vec<String>)> =
        y.groups.iter().map(|(name, ids)| (name.clone(), paths(ids))).collect();
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let expect =
        [("docs".to_owned(), text(&["x.html", "x.pdf"])), ("one".to_owned(), text(&["x.o"]))];
    assert_eq!(groups, expect);
    assert!(actions(graph).contains("\"content\":\"x.html x.pdf x.html x.pdf\""));
}

#[test]
fn templates_take_what_is_computed() {
    let rules = "
def _impl(ctx):
    out = ctx.actions.declare_file(\"out\")
    computed = ctx.actions.template_dict()
    computed.add(\"A\", \"1\").add_joined(\"B\", depset(ctx.files.srcs), join_with = \",\", map_each = lambda f: f.basename, format_joined = \"<%s>\")
    computed.add_joined(\"C\", [\"x\", \"x\", \"-\"], join_with = \"\", uniquify = True, map_each = lambda s: None if s == \"-\" else [s, \"z\"])
    ctx.actions.expand_template(template = ctx.files.srcs[0], output = out, substitutions = {\"A\": \"0\", \"D\": \"4\"}, computed_substitutions = computed)
    return [DefaultInfo(files = depset([out]))]
x = rule(implementation = _impl, attrs = {\"srcs\": attr.label_list(allow_files = True)})
";
    let package = "load(\":defs.star\", \"x\")\nx(name = \"x\", srcs = [\"a.txt\", \"b.txt\"])\n";
    let text = actions(&with_rules(rules, package).graph);
    let expect = r#"{"A":"1","B":"<a.txt,b.txt>","C":"xz","D":"4"}"#;
    assert!(text.contains(expect), "{text}");
}
