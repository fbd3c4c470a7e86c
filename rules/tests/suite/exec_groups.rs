//! Execution groups: where the actions of each run, what they find there, and what is refused.

use maestro_rules::{
    ActionFacts, ConfigurationRequest, HostMachine, LoadOptions, QueryOptions, aquery, load,
    resolve_toolchains,
};

use crate::workspace::{Memory, keys, loaded, patterns, render};

/// Two machines; a kit that fits both, and a linker that runs on the big one only.
const PACKAGE: &str = r#"
load(":defs.star", "kit", "made")
constraint_setting(name = "size")
constraint_value(name = "big", constraint_setting = ":size")
constraint_value(name = "small", constraint_setting = ":size")
platform(name = "near", constraint_values = [":small"], exec_properties = {"pool": "near"})
platform(name = "base", exec_properties = {"pool": "base", "region": "north", "gone": "yes"})
platform(
    name = "far",
    parents = [":base"],
    constraint_values = [":big"],
    exec_properties = {"pool": "far", "gone": ""},
)
toolchain_type(name = "kit_type")
toolchain_type(name = "link_type")
kit(name = "plain", text = "plain")
kit(name = "heavy", text = "heavy")
kit(name = "tool", text = "tool")
toolchain(name = "kits", toolchain = ":plain", toolchain_type = ":kit_type")
toolchain(
    name = "links",
    toolchain = ":heavy",
    toolchain_type = ":link_type",
    exec_compatible_with = [":big"],
)
made(name = "x")
"#;

const DEFS: &str = r#"
def _kit_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    where = "here"
    ctx.actions.run_shell(outputs = [out], command = "echo " + where, mnemonic = "Kit")
    return [DefaultInfo(files = depset([out])), ToolchainInfo(text = ctx.attr.text)]

kit = rule(implementation = _kit_impl, attrs = {"text": attr.string()})

def _made_impl(ctx):
    compiled = ctx.actions.declare_file(ctx.label.name + ".o")
    kit = ctx.toolchains["//:kit_type"].text
    ctx.actions.run_shell(outputs = [compiled], command = kit, mnemonic = "Compile")
    linked = ctx.actions.declare_file(ctx.label.name + ".bin")
    group = ctx.exec_groups["link"]
    if "//:kit_type" in group.toolchains or "strip" in ctx.exec_groups:
        fail("a group sees what it names")
    ctx.actions.run_shell(
        outputs = [linked],
        inputs = [compiled] + ctx.files._tool,
        command = group.toolchains["//:link_type"].text,
        exec_group = "link",
        mnemonic = "Link",
    )
    text = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(text, "native")
    return DefaultInfo(files = depset([linked, text]))

made = rule(
    implementation = _made_impl,
    attrs = {"_tool": attr.label(default = "//:tool", cfg = config.exec("link"))},
    toolchains = ["//:kit_type"],
    exec_groups = {"link": exec_group(toolchains = ["//:link_type"])},
)
"#;

fn configuration() -> ConfigurationRequest {
    ConfigurationRequest {
        host: HostMachine { os: "linux".to_owned(), cpu: "x86_64".to_owned() },
        toolchains: vec!["//:all".to_owned()],
        execution_platforms: vec!["//:near".to_owned(), "//:far".to_owned()],
        ..ConfigurationRequest::default()
    }
}

fn facts(files: &[(&str, &str)], expression: &str) -> Vec<ActionFacts> {
    let host = Memory::new(files);
    let mut options = QueryOptions::new(&host, expression, 1);
    options.configuration = configuration();
    let answer = aquery(options).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    answer.facts().unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

/// Each action with what it runs, where, and what is said of that.
fn lines(facts: &[ActionFacts]) -> Vec<String> {
    let line = |facts: &ActionFacts| {
        let properties = facts.execution_properties.iter().map(|(a, b)| format!(" {a}={b}"));
        let command = facts.arguments.get(2).map_or("", String::as_str);
        let (mnemonic, platform) = (&facts.mnemonic, &facts.execution_platform);
        format!("{mnemonic} `{command}` on {platform}{}", properties.collect::<String>())
    };
    facts.iter().map(line).collect()
}

#[test]
fn each_group_has_a_platform_of_its_own() {
    let files = [("maestro.star", PACKAGE), ("defs.star", DEFS)];
    assert_eq!(
        lines(&facts(&files, "//:x")),
        [
            "Compile `plain` on //:near pool=near",
            "Link `heavy` on //:far pool=far region=north",
            "Write `` on @maestro//platforms:host",
        ]
    );

    let host = Memory::new(&files);
    let what = LoadOptions {
        configuration: configuration(),
        ..LoadOptions::new(&host, patterns(&["//:x"]), 1)
    };
    let found = resolve_toolchains(&what).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let found: Vec<(Option<&str>, String)> = found
        .iter()
        .map(|own| (own.group.as_deref(), own.resolution.execution_platform.to_string()))
        .collect();
    assert_eq!(found, [(None, "//:near".to_owned()), (Some("link"), "//:far".to_owned())]);
}

#[test]
fn tools_are_built_for_where_their_group_runs() {
    // The kit runs on what is said of its size: a tool of the group is on the big platform.
    let package = PACKAGE.replace(
        "kit(name = \"tool\", text = \"tool\")",
        "kit(name = \"tool\", text = select({\":big\": \"big tool\", \":small\": \"small tool\"}))",
    );
    let defs = DEFS.replace("\"echo \" + where", "ctx.attr.text");
    let check = |defs: &str, expect: &str| {
        let files = [("maestro.star", &*package), ("defs.star", defs)];
        let host = Memory::new(&files);
        let what = LoadOptions {
            configuration: configuration(),
            ..LoadOptions::new(&host, patterns(&["//:x"]), 1)
        };
        let loaded = load(what).unwrap_or_else(|errors| panic!("{}", render(&errors)));
        let text = crate::workspace::actions(&loaded.graph);
        assert!(text.contains(expect), "{text}");
    };
    check(&defs, "Kit: /bin/bash -c big tool");
    check(&defs.replace("config.exec(\"link\")", "config.exec()"), "Kit: /bin/bash -c small tool");
    check(&defs.replace("config.exec(\"link\")", "\"exec\""), "Kit: /bin/bash -c small tool");
}

#[test]
fn a_rule_says_where_all_its_actions_run() {
    let defs = DEFS.replace(
        "    toolchains = [\"//:kit_type\"],\n",
        "    toolchains = [\"//:kit_type\"],\n    exec_compatible_with = [\"//:big\"],\n",
    );
    let files = [("maestro.star", PACKAGE), ("defs.star", &*defs)];
    let found = lines(&facts(&files, "mnemonic('Compile', //:x)"));
    assert_eq!(found, ["Compile `plain` on //:far pool=far region=north"]);
}

#[test]
fn an_aspect_has_groups_as_well() {
    let defs = format!(
        "{DEFS}{}",
        r#"
def _look_impl(target, ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".look")
    text = ctx.exec_groups["big"].toolchains["//:link_type"].text
    ctx.actions.run_shell(outputs = [out], command = text, exec_group = "big", mnemonic = "Look")
    return OutputGroupInfo(default = depset([out]))

look = aspect(
    implementation = _look_impl,
    exec_groups = {"big": exec_group(toolchains = ["//:link_type"])},
)
"#
    );
    let host = Memory::new(&[("maestro.star", PACKAGE), ("defs.star", &*defs)]);
    let mut options = QueryOptions::new(&host, "mnemonic('Look', //:plain)", 1);
    options.configuration = configuration();
    options.configuration.aspects = vec!["//:defs.star%look".to_owned()];
    let answer = aquery(options).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let found = answer.facts().unwrap_or_else(|errors| panic!("{}", render(&errors)));
    assert_eq!(lines(&found), ["Look `heavy` on //:far pool=far region=north"]);
}

#[test]
fn a_test_runs_in_the_group_of_that_name() {
    let defs = r#"
def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(out, "", is_executable = True)
    return DefaultInfo(executable = out)

GROUPS = {"test": exec_group(exec_compatible_with = ["//:big"])}
big_test = rule(implementation = _impl, test = True, exec_groups = GROUPS)
any_test = rule(implementation = _impl, test = True)
"#;
    let package = PACKAGE.replace("load(\":defs.star\", \"kit\", \"made\")", "").replace(
        "made(name = \"x\")\n",
        "load(\":tests.star\", \"any_test\", \"big_test\")\nload(\":defs.star\", \"kit\")\n\
         any_test(name = \"any\")\nbig_test(name = \"big_one\")\n",
    );
    // Loads stand first.
    let (rest, loads): (Vec<&str>, Vec<&str>) =
        package.lines().partition(|line| !line.starts_with("load("));
    let package = [loads, rest].concat().join("\n");
    let files = [("maestro.star", &*package), ("tests.star", defs), ("defs.star", DEFS)];
    let check = |label: &str, expect: &str| {
        let found = facts(&files, &format!("mnemonic('Test', {label})"));
        let found: Vec<String> = found.iter().map(|f| f.execution_platform.to_string()).collect();
        assert_eq!(found, [expect], "{label}");
    };
    check("//:any", "//:near");
    check("//:big_one", "//:far");
}

#[test]
fn keys_are_as_they_were_without_groups() {
    let defs = |groups: &str, own: &str| {
        format!(
            r#"
def _impl(ctx):
    out = ctx.actions.declare_file("out")
    ctx.actions.run_shell(outputs = [out], command = "true"{own})
    return DefaultInfo(files = depset([out]))

r = rule(implementation = _impl{groups})
"#
        )
    };
    let package = "load(\":r.star\", \"r\")\nr(name = \"x\")\n";
    let key =
        |defs: &str| keys(&loaded(&[("maestro.star", package), ("r.star", defs)], &["//:x"]).graph);
    let groups = ", exec_groups = {\"link\": exec_group()}";
    let plain = key(&defs("", ""));
    assert_eq!(key(&defs(groups, "")), plain);
    assert_eq!(key(&defs(groups, ", exec_group = \"link\"")), plain);
    assert_eq!(plain.len(), 1);
}

/// Loads with one text of the rules replaced, which must fail with an error that has some parts.
fn check_refused(from: &str, to: &str, expect: &[&str]) {
    let replaced = DEFS.replacen(from, to, 1);
    assert_ne!(replaced, DEFS, "{from}");
    let host = Memory::new(&[("maestro.star", PACKAGE), ("defs.star", &*replaced)]);
    let options = LoadOptions {
        configuration: configuration(),
        ..LoadOptions::new(&host, patterns(&["//:x"]), 1)
    };
    let errors = render(&load(options).expect_err("it is wrong"));
    for part in expect {
        assert!(errors.contains(part), "{errors}\nhas not: {part}");
    }
}

#[test]
fn groups_that_nobody_declares_are_refused() {
    let check = check_refused;
    let unknown = "there is no execution group `lnk`";
    check(
        "exec_group = \"link\"",
        "exec_group = \"lnk\"",
        &["MAE0155", unknown, "did you mean `link`?", "defs.star:18:5"],
    );
    check("exec_group = \"link\"", "exec_group = 7", &["`exec_group` must be the name of a group"]);
    check("ctx.exec_groups[\"link\"]", "ctx.exec_groups[\"lnk\"]", &[unknown, "`link`"]);
    check("ctx.exec_groups[\"link\"]", "ctx.exec_groups[7]", &["indexed by names of groups"]);
    check(
        "config.exec(\"link\")",
        "config.exec(\"lnk\")",
        &["attribute `_tool`: there is no execution group `lnk`", "did you mean `link`?"],
    );
    check("config.exec(\"link\")", "config.exec(7)", &["`exec_group` must be the name of a group"]);
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let check = check_refused;
    check(
        "{\"link\": exec_group(",
        "{\"li nk\": exec_group(",
        &["`li nk` is no name of an execution group", "letters, digits and `_`"],
    );
    check(
        "exec_group(toolchains = [\"//:link_type\"])",
        "7",
        &["`exec_groups` must be a dict from names to `exec_group(…)`"],
    );
    check(
        "toolchains = [\"//:link_type\"]",
        "toolchains = [\"//:link_type\", \"//:link_type\"]",
        &["`toolchains` lists `//:link_type` twice"],
    );
    check(
        "toolchains = [\"//:link_type\"]",
        "toolchains = [\"//:link_type\"], exec_compatible_with = [\"//:small\"]",
        &[
            "target `//:x`: execution group `link`: no toolchain of type `//:link_type` fits",
            "runs on `//:big`, and the execution platform has `//:small`",
        ],
    );
    check(
        "toolchains = [\"//:link_type\"]",
        "exec_compatible_with = [\"//:big\", \"//:small\"]",
        &[
            "execution group `link`: no execution platform has all of `exec_compatible_with`",
            "`//:near` has `//:small`, not `//:big`",
            "`//:far` has `//:big`, not `//:small`",
            "execution-platforms",
        ],
    );
    check(
        "toolchains = [\"//:link_type\"]",
        "exec_compatible_with = [\"//:near\"]",
        &["`//:near` is no constraint value, but a `platform`"],
    );
    check(
        "    toolchains = [\"//:kit_type\"],\n",
        "    toolchains = [\"//:kit_type\"],\n    cfg = config.exec(\"link\"),\n",
        &["`cfg` of a rule names the execution group `link`"],
    );
    check(
        "exec_group(toolchains = [\"//:link_type\"])",
        "exec_group(toolchains = [\"//:t%d\" % n for n in range(1001)])",
        &["MAE0103", "1002 types of toolchains are named, in all groups"],
    );
}
