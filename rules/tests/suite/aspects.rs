//! Aspects: where they are put, what they see, and what is said where they are wrong.

use maestro_rules::{
    ActionFacts, ConfigurationRequest, EdgeFilter, LoadOptions, Loaded, QueryOptions, aquery,
    cquery, load, query,
};

use crate::memory::session::Session;
use crate::workspace::{Memory, patterns, render};

/// Rules with sources and dependencies, and an aspect that writes what it has seen.
const DEFS: &str = r#"
NodeInfo = provider(fields = ["name"])

def _node_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".node")
    ctx.actions.write(out, ctx.label.name)
    return [DefaultInfo(files = depset([out])), NodeInfo(name = ctx.label.name)]

node = rule(implementation = _node_impl, provides = [NodeInfo], attrs = {
    "deps": attr.label_list(allow_files = True),
    "more": attr.label_list(),
    "one": attr.label(),
    "licence": attr.string(default = "none"),
})

def _plain_impl(ctx):
    return []

plain = rule(implementation = _plain_impl, attrs = {"deps": attr.label_list()})

SeenInfo = provider(fields = ["lines"])

def _seen_impl(target, ctx):
    lines = [ctx.rule.kind + " " + ctx.label.name + " " + getattr(ctx.rule.attr, "licence", "-")]
    below = [d[SeenInfo].lines for d in ctx.rule.attr.deps if SeenInfo in d]
    lines = depset(lines, transitive = below)
    out = ctx.actions.declare_file(ctx.label.name + ".seen")
    ctx.actions.write(out, "\n".join(lines.to_list()))
    return [SeenInfo(lines = lines), OutputGroupInfo(seen = depset([out]))]

seen = aspect(
    implementation = _seen_impl,
    attr_aspects = ["deps"],
    provides = [SeenInfo],
    doc = "Writes what it sees.",
)

nodes_only = aspect(
    implementation = _seen_impl,
    attr_aspects = ["deps"],
    required_providers = [NodeInfo],
)
"#;

const GRAPH: &str = r#"load("//:defs.star", "node", "plain")
node(name = "top", deps = [":left", ":right", "file.txt"], licence = "MIT")
node(name = "left", deps = [":bottom"])
node(name = "right", deps = [":bottom"], more = [":aside"])
node(name = "bottom", licence = "BSD")
node(name = "aside")
plain(name = "plain", deps = [":bottom"])
node(name = "above", deps = [":plain"])
alias(name = "other", actual = ":top")
node(name = "by_alias", deps = [":other"])
"#;

fn options<'a>(host: &'a Memory, names: &[&str], aspects: &[&str]) -> LoadOptions<'a> {
    let aspects = aspects.iter().map(|name| (*name).to_owned()).collect();
    let configuration = ConfigurationRequest { aspects, ..ConfigurationRequest::default() };
    LoadOptions { configuration, ..LoadOptions::new(host, patterns(names), 2) }
}

fn files<'t>(defs: &'t str, package: &'t str) -> [(&'t str, &'t str); 3] {
    [("defs.star", defs), ("maestro.star", package), ("file.txt", "")]
}

fn with_aspects(defs: &str, package: &str, names: &[&str], aspects: &[&str]) -> Loaded {
    let host = Memory::new(&files(defs, package));
    load(options(&host, names, aspects)).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

/// The errors of a workspace with other definitions and one more package text.
fn errors(defs: &str, package: &str, names: &[&str], aspects: &[&str]) -> String {
    let (defs, package) = (format!("{DEFS}{defs}"), format!("{GRAPH}{package}"));
    let host = Memory::new(&files(&defs, &package));
    match load(options(&host, names, aspects)) {
        Ok(_) => panic!("it loads"),
        Err(errors) => render(&errors),
    }
}

/// The targets on which aspects ran, in their order.
fn ran(loaded: &Loaded) -> Vec<String> {
    let targets = loaded.graph.targets().map(|(_, target)| target);
    let on = targets.filter_map(|target| Some((&target.label, target.aspect.as_ref()?)));
    on.map(|(label, aspect)| {
        format!("{} {}", aspect.rsplit('%').next().unwrap_or_default(), label.name)
    })
    .collect()
}

#[test]
fn an_aspect_goes_along_its_attributes_and_sees_each_target_once() {
    let check = |names: &[&str], aspect: &str, expect: &[&str]| {
        let loaded = with_aspects(DEFS, GRAPH, names, &[aspect]);
        assert_eq!(ran(&loaded), expect, "{names:?} {aspect}");
    };
    let seen = "//:defs.star%seen";
    // Both ways lead to `bottom`, which is looked at once; `more` is no way, files are passed over.
    check(&["//:top"], seen, &["seen bottom", "seen left", "seen right", "seen top"]);
    check(&["//:left", "//:right"], seen, &["seen bottom", "seen left", "seen right"]);
    // A rule that does not promise what an aspect needs ends the way.
    check(&["//:above"], "//:defs.star%nodes_only", &["nodes_only above"]);
    check(&["//:above"], seen, &["seen bottom", "seen plain", "seen above"]);
    check(
        &["//:by_alias"],
        seen,
        &["seen bottom", "seen left", "seen right", "seen top", "seen by_alias"],
    );
    check(&["//:file.txt"], seen, &[]);
}

#[test]
fn what_an_aspect_makes_is_requested_with_the_target_it_is_on() {
    let loaded = with_aspects(DEFS, GRAPH, &["//:left", "//:other"], &["//:defs.star%seen"]);
    let text = |id: &maestro_core::TargetId| {
        let target = loaded.graph.target(*id);
        let path = |id: &maestro_core::ArtifactId| loaded.graph.artifact(*id).path.to_string();
        let groups: Vec<String> =
            target.groups.iter().flat_map(|(_, files)| files).map(path).collect();
        format!("{} {} {groups:?}", target.label, target.aspect.is_some())
    };
    let all: Vec<String> = loaded.requested.iter().map(text).collect();
    assert_eq!(
        all,
        [
            "//:left false []",
            "//:left true [\"maestro-out/shared/left.seen\"]",
            "//:top false []",
            "//:top true [\"maestro-out/shared/top.seen\"]",
        ]
    );
}

/// A rule that attaches aspects, and writes what it sees of its dependencies.
const ATTACH: &str = r#"
def _first_impl(target, ctx):
    return [FirstInfo(text = ctx.attr.flavor + ":" + target[NodeInfo].name)]

FirstInfo = provider(fields = ["text"])
SecondInfo = provider(fields = ["text"])

first = aspect(implementation = _first_impl, provides = [FirstInfo], attr_aspects = ["deps"], attrs = {
    "flavor": attr.string(values = ["sweet", "sour"], default = "sweet"),
})

def _second_impl(target, ctx):
    own = target[FirstInfo].text if FirstInfo in target else "nothing"
    below = [d[FirstInfo].text if FirstInfo in d else "-" for d in ctx.rule.attr.deps]
    return [SecondInfo(text = own + str(below))]

second = aspect(implementation = _second_impl, attr_aspects = ["deps"],
                required_aspect_providers = [FirstInfo])
blind = aspect(implementation = _second_impl, attr_aspects = ["deps"])
needy = aspect(implementation = _second_impl, attr_aspects = ["deps"], requires = [first])

def _report_impl(ctx):
    texts = []
    for d in ctx.attr.deps:
        texts.append(d[SecondInfo].text + " " + str(FirstInfo in d))
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(out, ";".join(texts))
    return DefaultInfo(files = depset([out]))

def _report(aspects):
    return rule(implementation = _report_impl, attrs = {
        "deps": attr.label_list(aspects = aspects),
        "flavor": attr.string(default = "sweet"),
    })

both = _report([first, second])
unseen = _report([first, blind])
other_order = _report([second, first])
with_needs = _report([needy])
"#;

#[test]
fn aspects_see_what_those_before_them_found_out_where_they_ask_for_it() {
    let check = |rule: &str, flavor: &str, expect: &str| {
        let defs = format!("{DEFS}{ATTACH}");
        let package = format!(
            "{GRAPH}load(\"//:defs.star\", \"{rule}\")\n{rule}(name = \"r\", deps = [\":left\"]{flavor})\n"
        );
        let loaded = with_aspects(&defs, &package, &["//:r"], &[]);
        let text = crate::workspace::actions(&loaded.graph);
        assert!(text.contains(&format!("\"content\":{expect:?}")), "{rule}: {text}");
    };
    check("both", "", r#"sweet:left["sweet:bottom"] True"#);
    check("both", ", flavor = \"sour\"", r#"sour:left["sour:bottom"] True"#);
    check("unseen", "", r#"nothing["-"] True"#);
    check("other_order", "", r#"nothing["-"] True"#);
    check("with_needs", "", r#"sweet:left["sweet:bottom"] True"#);
}

#[test]
fn a_target_without_aspects_does_not_show_what_they_found_out() {
    let defs = format!(
        "{DEFS}{ATTACH}
def _look_impl(ctx):
    if FirstInfo in ctx.attr.dep:
        fail(\"seen\")
look = rule(implementation = _look_impl, attrs = {{\"dep\": attr.label()}})
"
    );
    let package = format!(
        "{GRAPH}load(\"//:defs.star\", \"both\", \"look\")
both(name = \"r\", deps = [\":left\"])
look(name = \"l\", dep = \":left\")
"
    );
    let loaded = with_aspects(&defs, &package, &["//:r", "//:l"], &[]);
    assert_eq!(loaded.requested.len(), 2);
}

#[test]
fn errors_name_the_aspect_and_the_way_to_it() {
    let check = |defs: &str, package: &str, names: &[&str], aspect: &str, expect: &[&str]| {
        let aspects: &[&str] = if aspect.is_empty() { &[] } else { &[aspect] };
        let text = errors(defs, package, names, aspects);
        for expect in expect {
            assert!(text.contains(expect), "{expect:?} is not in:\n{text}");
        }
    };
    let picky = "
def _picky_impl(target, ctx):
    if ctx.rule.attr.licence == \"BSD\":
        fail(\"no BSD here\")
    return []
picky = aspect(implementation = _picky_impl, attr_aspects = [\"deps\"])
";
    check(
        picky,
        "",
        &["//:top"],
        "//:defs.star%picky",
        &[
            "error[MAE0102]: no BSD here",
            "from what was asked for, with `--aspects`",
            "from maestro.star:2:1 in `//:top`, by `deps`",
            "from maestro.star:3:1 in `//:left`, by `deps`",
            "from maestro.star:5:1 in aspect `//:defs.star%picky` on `//:bottom`",
        ],
    );
    let attached = format!(
        "{picky}holder = rule(implementation = _plain_impl, attrs = {{\"needs\": attr.label_list(aspects = [picky])}})\n"
    );
    check(
        &attached,
        "load(\"//:defs.star\", \"holder\")\nholder(name = \"h\", needs = [\":left\"])\n",
        &["//:h"],
        "",
        &["maestro.star:12:1 in `//:h`, by `needs`", "in `//:left`, by `deps`"],
    );
    let returns = "
def _returns_impl(target, ctx):
    return [NodeInfo(name = \"other\")]
returns = aspect(implementation = _returns_impl, attr_aspects = [\"deps\"])
def _default_impl(target, ctx):
    return [DefaultInfo()]
default = aspect(implementation = _default_impl)
holder = rule(implementation = _plain_impl, attrs = {\"needs\": attr.label_list(aspects = [returns])})
";
    check(
        returns,
        "load(\"//:defs.star\", \"holder\")\nholder(name = \"h\", needs = [\":bottom\"])\n",
        &["//:h"],
        "",
        &["its rule and `//:defs.star%returns` both give `NodeInfo` to `//:bottom`"],
    );
    check(
        returns,
        "",
        &["//:bottom"],
        "//:defs.star%default",
        &["the implementation of `default` returned `DefaultInfo`"],
    );
    check("", "", &["//:top"], "//:defs.star%sen", &["MAE0160", "defines no aspect `sen`", "seen"]);
    check("", "", &["//:top"], "//:dfs.star%seen", &["there is no file `dfs.star`"]);
    check("", "", &["//:top"], "//:defs.star", &["names no aspect", "//package:file.star%name"]);
    check("", "", &["//:top"], "//:defs.star%node", &["defines no aspect `node`"]);
}

#[test]
fn wrong_definitions_are_refused() {
    let check = |definition: &str, expect: &str| {
        let defs = format!("def _i(target, ctx):\n    return []\nx = {definition}\n");
        let text = errors(&defs, "", &["//:top"], &["//:defs.star%x"]);
        assert!(text.contains(expect), "{definition}: {expect:?} is not in:\n{text}");
    };
    check("aspect(implementation = 1)", "`implementation` must be a function");
    check("aspect(_i, attr_aspects = [\"*\", \"deps\"])", "stands for every attribute already");
    check("aspect(_i, attrs = {\"a\": attr.string()})", "takes any value");
    check("aspect(_i, attrs = {\"a\": attr.label()})", "is a label, which a target cannot hand on");
    check("aspect(_i, requires = [_i])", "`requires` must be a list of aspects");
    check(
        "rule(_i, attrs = {\"a\": attr.label(aspects = [aspect(_i)])})",
        "assigned to a variable",
    );
    check(
        "aspect(_i, attrs = {\"_a\": attr.label(default = \"//:nothing\")})",
        "aspect `//:defs.star%x`, attribute `_a`: there is no target or file `//:nothing`",
    );
    check(
        "aspect(_i, attrs = {\"a\": attr.bool(mandatory = True)})",
        "`//:defs.star%x` needs a value for `a`",
    );
}

#[test]
fn two_that_declare_one_output_are_both_named() {
    let defs = "
def _out_impl(target, ctx):
    ctx.actions.write(ctx.actions.declare_file(ctx.label.name + \".out\"), \"\")
    return []
one = aspect(implementation = _out_impl)
two = aspect(implementation = _out_impl)
node_too = aspect(implementation = lambda target, ctx: [] if ctx.actions.declare_file(ctx.label.name + \".node\") else [])
";
    let text = errors(defs, "", &["//:top"], &["//:defs.star%one", "//:defs.star%two"]);
    assert!(text.contains("top.out"), "{text}");
    assert!(text.contains("`//:top` (aspect `//:defs.star%one`)"), "{text}");
    assert!(text.contains("`//:top` (aspect `//:defs.star%two`)"), "{text}");
    let text = errors(defs, "", &["//:top"], &["//:defs.star%node_too"]);
    assert!(text.contains("both `//:top` and `//:top` (aspect `//:defs.star%node_too`)"), "{text}");
}

#[test]
fn cycles_through_aspects_are_found() {
    let defs = "
loop = aspect(implementation = _seen_impl, attr_aspects = [\"deps\"], attrs = {
    \"_tool\": attr.label(default = \"//:tool\"),
})
tool = rule(implementation = _plain_impl, attrs = {\"deps\": attr.label_list(aspects = [loop])})
";
    let package = "load(\"//:defs.star\", \"tool\")\ntool(name = \"tool\", deps = [\":bottom\"])\n";
    let text = errors(defs, package, &["//:top"], &["//:defs.star%loop"]);
    assert!(text.contains("MAE0123"), "{text}");
    assert!(text.contains("aspect `//:defs.star%loop` on `//:bottom`"), "{text}");
}

#[test]
fn aquery_shows_the_actions_of_aspects() {
    let host = Memory::new(&files(DEFS, GRAPH));
    let mut options = QueryOptions::new(&host, "//:left", 1);
    options.configuration.aspects = vec!["//:defs.star%seen".to_owned()];
    let answer = aquery(options).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let facts = answer.facts().unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let line = |facts: &ActionFacts| (facts.outputs.concat(), facts.aspect.clone());
    let lines: Vec<_> = facts.iter().map(line).collect();
    let seen = Some("//:defs.star%seen".to_owned());
    assert_eq!(
        lines,
        [
            ("maestro-out/shared/left.node".to_owned(), None),
            ("maestro-out/shared/left.seen".to_owned(), seen),
        ]
    );
}

/// Aspects with dependencies of their own: `checked` attaches one that requires another.
const NEEDY: &str = r#"
def _needy_impl(target, ctx):
    return []

first = aspect(
    implementation = _needy_impl,
    attr_aspects = ["deps"],
    attrs = {"_low": attr.label(default = "//:low_tool")},
)

needy = aspect(
    implementation = _needy_impl,
    attr_aspects = ["deps"],
    requires = [first],
    attrs = {"_tool": attr.label(default = "//:tool", cfg = "exec")},
)

checked = rule(implementation = _plain_impl, attrs = {"deps": attr.label_list(aspects = [needy])})
"#;

const NEEDY_GRAPH: &str = r#"load("//:defs.star", "checked", "plain")
plain(name = "low_tool")
plain(name = "behind")
plain(name = "tool", deps = [":behind"])
plain(name = "leaf")
plain(name = "mid", deps = [":leaf"])
checked(name = "top", deps = [":mid"])
checked(name = "idle")
"#;

#[test]
fn queries_follow_what_aspects_need() {
    let files = [("maestro.star", NEEDY_GRAPH), ("defs.star", &*format!("{DEFS}{NEEDY}"))];
    let host = Memory::new(&files);
    let check = |expression: &str, aspects: &[&str], implicit: bool, expect: [&str; 2]| {
        let mut options = QueryOptions::new(&host, expression, 1);
        options.edges = EdgeFilter { implicit };
        options.configuration.aspects = aspects.iter().map(|text| (*text).to_owned()).collect();
        let answers = [query(options.clone()), cquery(options)].map(|answer| {
            let answer = answer.unwrap_or_else(|errors| panic!("{}", render(&errors)));
            let labels: Vec<String> = answer.labels().map(ToString::to_string).collect();
            labels.join(" ").replace("//:", "")
        });
        assert_eq!(answers, expect, "{expression} {aspects:?} {implicit}");
    };
    let same = |text| [text, text];
    check("deps(//:top)", &[], true, same("behind leaf low_tool mid tool top"));
    check("deps(//:top)", &[], false, same("leaf mid top"));
    check("deps(//:top, 1)", &[], true, same("low_tool mid tool top"));
    check("deps(//:mid)", &[], true, same("leaf mid"));
    check("deps(//:idle)", &[], true, same("idle"));
    check("rdeps(//:all, //:behind)", &[], true, same("behind tool top"));
    check("somepath(//:top, //:low_tool)", &[], true, same("low_tool top"));
    // What is asked for with the request is on configured targets only.
    let needy = ["//:defs.star%needy"];
    check("deps(//:leaf)", &needy, true, ["leaf", "behind leaf low_tool tool"]);
    check("deps(//:mid)", &needy, true, ["leaf mid", "behind leaf low_tool mid tool"]);
    check("deps(//:leaf)", &needy, false, same("leaf"));
}

#[test]
fn a_query_says_who_attaches_what_is_broken() {
    let needy = NEEDY.replace("//:low_tool", "//:gone");
    let files = [("maestro.star", NEEDY_GRAPH), ("defs.star", &*format!("{DEFS}{needy}"))];
    let host = Memory::new(&files);
    let errors = query(QueryOptions::new(&host, "deps(//:top)", 1)).err().unwrap_or_default();
    let text = render(&errors);
    assert!(text.contains("attribute `deps`: there is no target or file `//:gone`"), "{text}");
    let fine = query(QueryOptions::new(&host, "deps(//:mid)", 1));
    assert!(fine.is_ok());
}

#[test]
fn builds_that_remember_agree_with_those_that_do_not() {
    let defs = format!("{DEFS}{ATTACH}");
    let package = format!(
        "{GRAPH}load(\"//:defs.star\", \"both\")\nboth(name = \"r\", deps = [\":left\"])\n"
    );
    let mut session = Session::new(&files(&defs, &package), &["//:r"]);
    let mut check = |edits: &[(&str, Option<&str>)], expect: &[&str]| {
        // The session compares with a build that remembers nothing.
        let built = session.edit(edits).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(built.reevaluated.targets, expect);
    };
    let all = [
        "//:bottom",
        "//:bottom //:defs.star%first",
        "//:bottom //:defs.star%second",
        "//:left",
        "//:left //:defs.star%first",
        "//:left //:defs.star%second",
        "//:r",
    ];
    // With aspects, an edit of a build file looks at every target.
    check(&[("maestro.star", Some(&package.replace("\"BSD\"", "\"MIT\"")))], &all);
    check(&[("defs.star", Some(&defs.replace("return [FirstInfo", "return [ FirstInfo")))], &all);
    // Without them, the next edit looks at what it concerns, until a rule attaches one again.
    let without = defs
        .replace("deps\": attr.label_list(aspects = aspects)", "deps\": attr.label_list()")
        .replace("d[SecondInfo].text + ", "");
    check(&[("defs.star", Some(&without))], &["//:bottom", "//:left", "//:r"]);
    check(&[("maestro.star", Some(&package.replace("\"BSD\"", "\"GPL\"")))], &["//:bottom"]);
    check(&[("defs.star", Some(&defs))], &all);
}
