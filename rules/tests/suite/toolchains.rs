//! Transitions, the execution configuration, and toolchains found by type.

use maestro_core::TargetPattern;
use maestro_rules::{
    ConfigurationRequest, HostMachine, LoadOptions, Loaded, load, resolve_toolchains,
};

use crate::workspace::{Memory, actions, patterns, render};

fn request(params: &[(&str, &str)], platform: Option<&str>) -> ConfigurationRequest {
    ConfigurationRequest {
        params: params.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        platform: platform.map(str::to_owned),
        host: HostMachine { os: "linux".to_owned(), cpu: "x86_64".to_owned() },
        ..ConfigurationRequest::default()
    }
}

fn try_load(
    files: &[(&str, &str)],
    names: &[&str],
    configuration: ConfigurationRequest,
) -> Result<Loaded, String> {
    let host = Memory::new(files);
    let options = LoadOptions { configuration, ..LoadOptions::new(&host, patterns(names), 2) };
    load(options).map_err(|errors| render(&errors))
}

/// The lines that files of a workspace are written with, each as `folder content`; the folder is
/// `shared`, or `other` where a configuration has one of its own.
fn written(files: &[(&str, &str)], names: &[&str], what: ConfigurationRequest) -> Vec<String> {
    let loaded = try_load(files, names, what).unwrap_or_else(|errors| panic!("{errors}"));
    let text = actions(&loaded.graph);
    let mut lines = Vec::new();
    let mut content = "";
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("\"content\":\"") {
            content = rest.split('"').next().unwrap_or_default();
        }
        if let Some(output) = line.trim_start().strip_prefix("out: maestro-out/") {
            let folder = if output.starts_with("shared/") { "shared" } else { "other" };
            lines.push(format!("{folder} {}", content.replace("\\n", "")));
        }
    }
    lines
}

const DEFS: &str = r#"
def _write_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    parts = [ctx.attr.text]
    parts += [d.label.name for d in ctx.attr.deps] + [d.label.name for d in ctx.attr.tools]
    ctx.actions.write(output = out, content = " ".join(parts))
    return DefaultInfo(files = depset([out]))

write = rule(implementation = _write_impl, attrs = {
    "text": attr.string(), "deps": attr.label_list(), "tools": attr.label_list(cfg = "exec"),
})

def _to_opt(settings, attr):
    return {"//:mode": "opt"}

to_opt = transition(implementation = _to_opt, inputs = [], outputs = ["//:mode"])

def _more(settings, attr):
    return {"//:level": settings["//:level"] + attr.step}

more = transition(implementation = _more, inputs = ["//:level"], outputs = ["//:level"])

def _both(settings, attr):
    return {"fast": {"//:mode": "opt"}, "slow": {"//:mode": "dbg"}}

both = transition(implementation = _both, inputs = [], outputs = ["//:mode"])

def _arm(settings, attr):
    return {"//command_line_option:platforms": "//:arm"}

arm = transition(implementation = _arm, inputs = [], outputs = ["//command_line_option:platforms"])

def _through_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    split = ["%s=%s" % (key, target.label.name) for key, target in sorted(ctx.split_attr.dep.items())]
    ctx.actions.write(output = out, content = "%d %s" % (len(ctx.attr.dep), " ".join(split)))
    files = [f for d in ctx.attr.dep for f in d.files.to_list()]
    return DefaultInfo(files = depset([out] + files))

through_opt = rule(implementation = _through_impl, attrs = {"dep": attr.label(cfg = to_opt)})
through_both = rule(implementation = _through_impl, attrs = {"dep": attr.label(cfg = both)})
through_arm = rule(implementation = _through_impl, attrs = {"dep": attr.label(cfg = arm)})
through_more = rule(implementation = _through_impl, attrs = {
    "dep": attr.label(cfg = more), "step": attr.int(default = 1),
})
always_opt = rule(implementation = _write_impl, cfg = to_opt, attrs = {
    "text": attr.string(), "deps": attr.label_list(), "tools": attr.label_list(cfg = "exec"),
})
"#;

const PACKAGE: &str = r#"
load("@maestro//rules:params.star", "int_param", "string_param")
load(":defs.star", "always_opt", "through_arm", "through_both", "through_more", "through_opt", "write")
string_param(name = "mode", build_setting_default = "dbg", values = ["dbg", "opt"])
int_param(name = "level", build_setting_default = 1)
config_setting(name = "opt", flag_values = {":mode": "opt"})
config_setting(name = "two", flag_values = {":level": "2"})
config_setting(name = "four", flag_values = {":level": "4"})
platform(name = "arm", constraint_values = ["@maestro//platforms/os:linux", "@maestro//platforms/cpu:aarch64"])
write(name = "leaf", text = select({":opt": "leaf opt", "//conditions:default": "leaf dbg"}))
write(name = "leveled", text = select({":two": "two", ":four": "four", "//conditions:default": "one"}))
write(name = "cpu", text = select({"@maestro//platforms/cpu:aarch64": "arm", "//conditions:default": "x86"}))
write(name = "user", text = "user", deps = [":leaf"])
write(name = "tooled", text = "tooled", tools = [":leaf"])
through_opt(name = "t_opt", dep = ":user")
through_both(name = "t_both", dep = ":leaf")
through_more(name = "t_more", dep = ":leveled")
through_more(name = "t_more3", dep = ":leveled", step = 3)
through_arm(name = "t_arm", dep = ":cpu")
always_opt(name = "fixed", text = select({":opt": "fixed opt", "//conditions:default": "fixed dbg"}), deps = [":leaf"])
write(name = "uses_fixed", text = "uses", deps = [":fixed"])
"#;

const FILES: &[(&str, &str)] = &[("maestro.star", PACKAGE), ("defs.star", DEFS)];

#[test]
fn tools_are_built_for_where_they_run() {
    let check = |name: &str, mode: &str, expect: &[&str]| {
        let got = written(FILES, &[name], request(&[("mode", mode)], None));
        assert_eq!(got, expect, "{name} with {mode}");
    };
    check("//:user", "opt", &["other leaf opt", "other user leaf"]);
    // A tool has every param at its default, so what uses it does not read the param at all.
    check("//:tooled", "opt", &["shared leaf dbg", "shared tooled leaf"]);
    check("//:tooled", "dbg", &["shared leaf dbg", "shared tooled leaf"]);
}

#[test]
fn transitions_lead_elsewhere() {
    let check = |name: &str, params: &[(&str, &str)], expect: &[&str]| {
        let got = written(FILES, &[name], request(params, None));
        assert_eq!(got, expect, "{name} with {params:?}");
    };
    // The transition decides, whatever was set, so what stands above it does not read the param.
    for mode in ["dbg", "opt"] {
        let expect = ["other leaf opt", "other user leaf", "shared 1 0=user"];
        check("//:t_opt", &[("mode", mode)], &expect);
        let expect = ["other leaf opt", "shared leaf dbg", "shared 2 fast=leaf slow=leaf"];
        check("//:t_both", &[("mode", mode)], &expect);
    }
    check("//:t_more", &[], &["other two", "shared 1 0=leveled"]);
    check("//:t_more3", &[], &["other four", "shared 1 0=leveled"]);
    check("//:t_more", &[("level", "3")], &["other four", "other 1 0=leveled"]);
    check("//:t_arm", &[], &["other arm", "shared 1 0=cpu"]);
    let fixed = ["other leaf opt", "other fixed opt leaf", "shared uses fixed"];
    check("//:uses_fixed", &[], &fixed);
    check("//:uses_fixed", &[("mode", "dbg")], &fixed);
    // Asked for in both ways, it is built once.
    check("//:fixed", &[("mode", "opt")], &fixed[..2]);
}

#[test]
fn odd_transitions_are_refused() {
    let check = |body: &str, outputs: &str, expect: &str| {
        let defs = format!(
            "def _f(settings, attr):\n    {body}\nf = transition(implementation = _f, inputs = [], outputs = {outputs})
def _impl(ctx):\n    return []\nr = rule(implementation = _impl, attrs = {{\"dep\": attr.label(cfg = f)}})\n"
        );
        let package =
            "load(\"@maestro//rules:params.star\", \"string_param\")\nload(\":defs.star\", \"r\")
string_param(name = \"mode\", build_setting_default = \"a\", values = [\"a\", \"b\"])
r(name = \"x\", dep = \":y\")\nr(name = \"y\")\n";
        let files = [("maestro.star", package), ("defs.star", defs.as_str())];
        let errors = match try_load(&files, &["//:x"], request(&[], None)) {
            Ok(_) => panic!("it loads: {body}"),
            Err(errors) => errors,
        };
        assert!(errors.contains(expect), "{body}\n{errors}");
    };
    let mode = "[\"//:mode\"]";
    check(
        "return {}",
        mode,
        "error[MAE0154]: target `//:x`, attribute `dep`: transition `f`: the implementation returned no value for its output `//:mode`",
    );
    check("return 1", mode, "the implementation returned 1, not one dict");
    check("return {\"//:mode\": 1}", mode, "returned 1 for `//:mode`, which is a text");
    check("return {\"//:mode\": \"c\"}", mode, "param `//:mode` cannot be `c`");
    check(
        "return {\"//:mode\": \"b\", \"//:x\": 1}",
        mode,
        "a value for \"//:x\", which is no output",
    );
    check(
        "return {\"//:mode\": [][0]}",
        mode,
        "transition `f` (defs.star:2:24): index `0` is out of bound",
    );
    check("return {\"//:gone\": 1}", "[\"//:gone\"]", "there is no target or file `//:gone`");
    check("return {}", "[]", "a transition that sets nothing changes nothing");
    check(
        "return {}",
        "[\"//command_line_option:copt\"]",
        "is no option that a transition can see",
    );
}

const TOOL_DEFS: &str = r#"
def _kit_impl(ctx):
    return [DefaultInfo(), ToolchainInfo(name = ctx.attr.text)]
kit = rule(implementation = _kit_impl, attrs = {"text": attr.string()})

def _made_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    kit = ctx.toolchains["//:kit_type"]
    extra = ctx.toolchains[Label("//:extra_type")]
    text = "%s %s %s" % (kit.name, extra, "//:extra_type" in ctx.toolchains)
    ctx.actions.write(output = out, content = text)
    return DefaultInfo(files = depset([out]))
made = rule(
    implementation = _made_impl,
    toolchains = ["//:kit_type", config_common.toolchain_type("//:extra_type", mandatory = False)],
)
"#;

const TOOL_PACKAGE: &str = r#"
load("@maestro//rules:params.star", "bool_param")
load(":defs.star", "kit", "made")
toolchain_type(name = "kit_type")
toolchain_type(name = "extra_type")
bool_param(name = "beta", build_setting_default = False)
config_setting(name = "is_beta", flag_values = {":beta": "true"})
platform(name = "arm", constraint_values = ["@maestro//platforms/os:linux", "@maestro//platforms/cpu:aarch64"])
platform(name = "mac", constraint_values = ["@maestro//platforms/os:macos", "@maestro//platforms/cpu:aarch64"])
kit(name = "kit_x86", text = "x86 kit")
kit(name = "kit_arm", text = "arm kit")
kit(name = "kit_beta", text = "beta kit")
toolchain(name = "a_beta", toolchain = ":kit_beta", toolchain_type = ":kit_type", target_settings = [":is_beta"], target_compatible_with = ["@maestro//platforms/os:linux"])
toolchain(name = "b_x86", toolchain = ":kit_x86", toolchain_type = ":kit_type", target_compatible_with = ["@maestro//platforms/cpu:x86_64"])
toolchain(name = "c_arm", toolchain = ":kit_arm", toolchain_type = ":kit_type", target_compatible_with = ["@maestro//platforms/cpu:aarch64", "@maestro//platforms/os:linux"])
toolchain(name = "d_late", toolchain = ":kit_arm", toolchain_type = ":kit_type", target_compatible_with = ["@maestro//platforms/os:linux"])
made(name = "x")
"#;

const TOOLS: &[(&str, &str)] = &[("maestro.star", TOOL_PACKAGE), ("defs.star", TOOL_DEFS)];

fn registered(params: &[(&str, &str)], platform: Option<&str>) -> ConfigurationRequest {
    ConfigurationRequest { toolchains: vec!["//:all".to_owned()], ..request(params, platform) }
}

#[test]
fn the_first_toolchain_that_fits_is_taken() {
    let check = |params: &[(&str, &str)], platform: Option<&str>, expect: &str| {
        let got = written(TOOLS, &["//:x"], registered(params, platform));
        assert_eq!(got, [expect], "{params:?} {platform:?}");
    };
    check(&[], None, "shared x86 kit None False");
    check(&[], Some("//:arm"), "other arm kit None False");
    check(&[("beta", "true")], None, "other beta kit None False");
    check(&[("beta", "true")], Some("//:arm"), "other beta kit None False");
}

#[test]
fn a_resolution_names_every_candidate() {
    let error = try_load(TOOLS, &["//:x"], registered(&[], Some("//:mac"))).expect_err("none fits");
    assert!(
        error.starts_with(
            "error[MAE0155]: target `//:x`: no toolchain of type `//:kit_type` fits `//:mac`
  `//:a_beta` (maestro.star:13:1) builds for `@maestro//platforms/os:linux`, and the target platform has `@maestro//platforms/os:macos`
  `//:b_x86` (maestro.star:14:1) builds for `@maestro//platforms/cpu:x86_64`, and the target platform has `@maestro//platforms/cpu:aarch64`
  `//:c_arm` (maestro.star:15:1) builds for `@maestro//platforms/os:linux`, and the target platform has `@maestro//platforms/os:macos`"
        ),
        "{error}"
    );
    let error = try_load(TOOLS, &["//:x"], request(&[], None)).expect_err("none is registered");
    assert!(error.contains("none of this type is registered"), "{error}");

    let host = Memory::new(TOOLS);
    let pattern = TargetPattern::parse("//:x", "").expect("a pattern");
    let options = LoadOptions {
        configuration: registered(&[], None),
        ..LoadOptions::new(&host, vec![(false, pattern)], 1)
    };
    let found = resolve_toolchains(&options).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let lines: Vec<String> = found
        .iter()
        .flat_map(|own| &own.resolution.choices)
        .flat_map(|choice| &choice.candidates)
        .map(|(label, _, verdict)| format!("{label} {verdict}"))
        .collect();
    assert_eq!(
        lines,
        [
            "//:a_beta is for `//:is_beta`, which does not hold",
            "//:b_x86 fits, and is taken",
            "//:c_arm builds for `@maestro//platforms/cpu:aarch64`, and the target platform has `@maestro//platforms/cpu:x86_64`",
            "//:d_late fits, but another is registered before it",
        ]
    );
}

#[test]
fn built_in_rules_take_a_registered_toolchain() {
    let files = [
        (
            "maestro.star",
            r#"
load("@maestro//rules:cc.star", "cc_binary")
load("@maestro//rules:toolchain.star", "host_toolchain")
host_toolchain(name = "clang", packages = ["clang"], tools = {"ar": "/usr/bin/llvm-ar", "cc": "/usr/bin/clang", "cxx": "/usr/bin/clang++"})
toolchain(name = "clang_toolchain", toolchain = ":clang", toolchain_type = "@maestro//toolchains:cc_type")
platform(name = "win", constraint_values = ["@maestro//platforms/os:windows"])
cc_binary(name = "x", srcs = ["x.cc"])
"#,
        ),
        ("x.cc", ""),
    ];
    let usual = try_load(&files, &["//:x"], request(&[], None)).expect("it loads");
    assert!(actions(&usual.graph).contains("/usr/bin/g++"));
    let what = ConfigurationRequest {
        toolchains: vec!["//:clang_toolchain".to_owned()],
        ..request(&[], None)
    };
    let other = actions(&try_load(&files, &["//:x"], what).expect("it loads").graph);
    assert!(other.contains("/usr/bin/clang++") && !other.contains("/usr/bin/g++"), "{other}");
    let error = try_load(&files, &["//:x"], request(&[], Some("//:win"))).expect_err("no compiler");
    let expect = "`@maestro//toolchains:cc_toolchain` (@maestro//toolchains:maestro.star:";
    assert!(error.contains("MAE0155") && error.contains(expect), "{error}");
}

#[test]
fn odd_toolchains_are_refused() {
    let check = |more: &str, toolchains: &str, expect: &str| {
        let package = format!("{TOOL_PACKAGE}\n{more}");
        let files = [("maestro.star", package.as_str()), ("defs.star", TOOL_DEFS)];
        let what =
            ConfigurationRequest { toolchains: vec![toolchains.to_owned()], ..request(&[], None) };
        let errors = match try_load(&files, &["//:x"], what) {
            Ok(_) => panic!("it loads: {more} {toolchains}"),
            Err(errors) => errors,
        };
        assert!(errors.contains(expect), "{more} {toolchains}\n{errors}");
    };
    check("", "//:kit_x86", "`//:kit_x86` is registered in `maestro.toml`: it is a `kit`");
    check("", "//:gone", "`//:gone` is registered in `maestro.toml`: there is no target or file");
    check("", "//gone:all", "there is no package `//gone`");
    check("", "//...", "only a label or all targets of one package can be registered");
    let odd = "toolchain(name = \"odd\", toolchain = \":arm\", toolchain_type = \":kit_type\")";
    check(odd, "//:odd", "toolchain `//:arm` does not provide ToolchainInfo");
    let gone = "toolchain(name = \"odd\", toolchain = \":gone\", toolchain_type = \":kit_type\")";
    check(gone, "//:odd", "there is no target or file `//:gone`");
}
