//! What implementations learn of platforms: `ctx.target_platform_has_constraint`, and what the
//! targets of the language tell of themselves.

use maestro_rules::{ConfigurationRequest, HostMachine, LoadOptions, load};

use crate::memory::session::Session;
use crate::workspace::{Memory, actions, describe, patterns, render};

const DEFS: &str = r#"
Value = platform_common.ConstraintValueInfo

def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    has = [v.label.name for v in ctx.attr.values if ctx.target_platform_has_constraint(v[Value])]
    ctx.actions.write(out, "has: " + " ".join(has))
    return DefaultInfo(files = depset([out]))

asks = rule(implementation = _impl, attrs = {
    "values": attr.label_list(default = [
        "@maestro//platforms/os:linux",
        "@maestro//platforms/cpu:aarch64",
        "@maestro//platforms:host_cpu",
        "//:musl",
        "//:other",
    ]),
})

def _tells_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    value, setting, platform = ctx.attr.value[Value], ctx.attr.setting, ctx.attr.platform
    setting = setting[platform_common.ConstraintSettingInfo]
    texts = [value.label, value.constraint.label, setting.label, setting.default_constraint_value]
    texts.append(platform[platform_common.PlatformInfo].label)
    ctx.actions.write(out, " ".join([str(text) for text in texts]))
    return DefaultInfo(files = depset([out]))

tells = rule(implementation = _tells_impl, attrs = {
    "value": attr.label(providers = [Value]),
    "setting": attr.label(),
    "platform": attr.label(providers = [platform_common.PlatformInfo]),
})

def _look_impl(target, ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".look")
    own = ctx.target_platform_has_constraint(ctx.attr._musl[Value])
    rules = [ctx.target_platform_has_constraint(v[Value]) for v in ctx.rule.attr.values]
    ctx.actions.write(out, "looks: %s %s" % (own, rules))
    return OutputGroupInfo(default = depset([out]))

look = aspect(implementation = _look_impl, attrs = {"_musl": attr.label(default = "//:musl")})
"#;

const PACKAGE: &str = r#"load(":defs.star", "asks", "tells")
constraint_setting(name = "libc", default_constraint_value = ":glibc")
constraint_value(name = "glibc", constraint_setting = ":libc")
constraint_value(name = "musl", constraint_setting = ":libc")
alias(name = "other", actual = ":glibc")
platform(
    name = "arm",
    constraint_values = ["@maestro//platforms/os:linux", "@maestro//platforms/cpu:aarch64", ":musl"],
)
asks(name = "x")
tells(name = "t", value = ":musl", setting = ":libc", platform = ":arm")
"#;

const FILES: &[(&str, &str)] = &[("maestro.star", PACKAGE), ("defs.star", DEFS)];

fn answer(
    files: &[(&str, &str)],
    label: &str,
    platform: Option<&str>,
    aspects: &[&str],
) -> Result<String, String> {
    let configuration = ConfigurationRequest {
        platform: platform.map(str::to_owned),
        host: HostMachine { os: "linux".to_owned(), cpu: "x86_64".to_owned() },
        aspects: aspects.iter().map(|text| (*text).to_owned()).collect(),
        ..ConfigurationRequest::default()
    };
    let host = Memory::new(files);
    let options = LoadOptions { configuration, ..LoadOptions::new(&host, patterns(&[label]), 1) };
    let loaded = load(options).map_err(|errors| render(&errors))?;
    Ok(actions(&loaded.graph))
}

#[test]
fn a_rule_asks_what_its_platform_has() {
    let check = |label: &str, platform: Option<&str>, aspects: &[&str], expect: &str| {
        let text =
            answer(FILES, label, platform, aspects).unwrap_or_else(|error| panic!("{error}"));
        assert!(text.contains(expect), "{text}\nhas not: {expect}");
    };
    check("//:x", None, &[], "\"has: linux host_cpu glibc\"");
    check("//:x", Some("//:arm"), &[], "\"has: linux aarch64 musl\"");
    check("//:t", None, &[], "\"//:musl //:libc //:libc //:glibc //:arm\"");
    let look = ["//:defs.star%look"];
    check("//:x", None, &look, "\"looks: False [True, False, True, False, True]\"");
    check("//:x", Some("//:arm"), &look, "\"looks: True [True, True, False, True, False]\"");
}

#[test]
fn what_cannot_be_told_is_refused() {
    let check = |from: &str, to: &str, expect: &[&str]| {
        let defs = DEFS.replacen(from, to, 1);
        assert_ne!(defs, DEFS, "{from}");
        let files = [("maestro.star", PACKAGE), ("defs.star", &*defs)];
        let error = answer(&files, "//:x", None, &[]).expect_err("it is wrong");
        for part in expect {
            assert!(error.contains(part), "{error}\nhas not: {part}");
        }
    };
    let hint = "name it in an attribute without `cfg`";
    let unknown = "`//:x` does not depend on `@maestro//platforms/os:linux` as it is built itself";
    check("        \"//:other\",\n    ])", "    ], cfg = \"exec\")", &["MAE0125", unknown, hint]);
    let other = "`//:x` does not depend on `//:gone` as it is built itself";
    check("(v[Value])", "(Value(label = Label(\"//:gone\")))", &[other, hint]);
    let kind = "`constraint_value` must be a `ConstraintValueInfo`";
    check("(v[Value])", "(v)", &[kind, "pass `target[platform_common.ConstraintValueInfo]`"]);
    check("(v[Value])", "(\"linux\")", &[kind]);
    check("(v[Value])", "(Value(label = \"//:musl\"))", &[kind]);
}

#[test]
fn an_answer_is_as_fresh_as_its_target() {
    let mut session = Session::new(FILES, &["//:x"]);
    let mut check = |path: &str, text: String, expect: &str| {
        // The session compares with a build that remembers nothing.
        let built = session.edit(&[(path, Some(&text))]).unwrap_or_else(|error| panic!("{error}"));
        let graph = &built.loaded.graph;
        let text: Vec<String> = graph.live_actions().map(|id| describe(graph, id)).collect();
        assert!(text.concat().contains(expect), "{text:?}");
    };
    // The same packages are needed, in another order.
    let other = |text: &str| {
        let values = format!(
            "asks(name = \"x\", values = [\":{text}\", \"@maestro//platforms/cpu:aarch64\", \
             \"@maestro//platforms:host_cpu\", \"@maestro//platforms/os:linux\"])"
        );
        PACKAGE.replace("asks(name = \"x\")", &values)
    };
    check("maestro.star", other("glibc"), "\"has: glibc host_cpu\"");
    check("defs.star", DEFS.replace("has: ", "it has: "), "\"it has: glibc host_cpu\"");
    check("maestro.star", other("musl"), "\"it has: host_cpu\"");
    let default = other("musl").replace("= \":glibc\")", "= \":musl\")");
    check("maestro.star", default, "\"it has: musl host_cpu\"");
}
