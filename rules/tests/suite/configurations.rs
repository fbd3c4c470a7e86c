//! Params, platforms and `select`: what is chosen, what is trimmed, and what is refused.

use std::collections::BTreeMap;

use maestro_rules::{ConfigurationRequest, Diagnostic, HostMachine, LoadOptions, Loaded, load};

use crate::workspace::{Memory, actions, keys, patterns, render, requested};

/// What a workspace is built for in a test.
#[derive(Clone, Copy, Default)]
struct For<'a> {
    params: &'a [(&'a str, &'a str)],
    platform: Option<&'a str>,
    short_names: &'a [(&'a str, &'a str)],
}

const LINUX: For<'_> = For { params: &[], platform: None, short_names: &[] };

fn try_load(files: &[(&str, &str)], names: &[&str], what: For<'_>) -> Result<Loaded, String> {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    let configuration = ConfigurationRequest {
        params: owned(what.params),
        platform: what.platform.map(str::to_owned),
        short_names: owned(what.short_names).into_iter().collect::<BTreeMap<_, _>>(),
        host: HostMachine { os: "linux".to_owned(), cpu: "x86_64".to_owned() },
        ..ConfigurationRequest::default()
    };
    let host = Memory::new(files);
    let options = LoadOptions { configuration, ..LoadOptions::new(&host, patterns(names), 2) };
    load(options).map_err(|errors: Vec<Diagnostic>| render(&errors))
}

fn load_for(files: &[(&str, &str)], names: &[&str], what: For<'_>) -> Loaded {
    try_load(files, names, what).unwrap_or_else(|errors| panic!("unexpected errors:\n{errors}"))
}

const PARAMS: &str = r#"
load("@maestro//rules:params.star", "bool_param", "int_param", "string_list_param", "string_param")
load("@maestro//rules:basics.star", "filegroup", "genrule", "write_file")

string_param(name = "mode", build_setting_default = "dbg", values = ["dbg", "opt"])
bool_param(name = "tls", build_setting_default = False)
int_param(name = "level", build_setting_default = 1)
string_list_param(name = "features", build_setting_default = ["a"])
config_setting(name = "opt", values = {"mode": "opt"})
config_setting(name = "with_tls", flag_values = {":tls": "true"})
config_setting(name = "opt_tls", param_values = {":tls": "1", ":mode": "opt"})
config_setting(name = "level_2", flag_values = {":level": "2"})
config_setting(name = "has_b", flag_values = {":features": "b"})
config_setting(name = "linux_opt", flag_values = {":mode": "opt"}, constraint_values = ["@maestro//platforms/os:linux"])
"#;

/// The lines of a file that `x` writes, in a workspace with the params above.
fn content(declaration: &str, what: For<'_>) -> String {
    let text = format!("{PARAMS}\nwrite_file(name = \"x\", content = {declaration})\n");
    match try_load(&[("maestro.star", &text)], &["//:x"], what) {
        Ok(loaded) => {
            let text = actions(&loaded.graph);
            let line = text.lines().next().unwrap_or_default();
            let content = line.split("\"content\":\"").nth(1).unwrap_or(line);
            content.split('"').next().unwrap_or_default().replace("\\n", " ").trim().to_owned()
        }
        Err(errors) => errors.lines().next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn the_branch_that_holds_is_taken() {
    let check = |declaration: &str, params: &[(&str, &str)], expect: &str| {
        let got = content(declaration, For { params, ..LINUX });
        assert_eq!(got, expect, "{declaration} with {params:?}");
    };
    let simple = r#"select({":opt": ["o"], "//conditions:default": ["d"]})"#;
    check(simple, &[], "d");
    check(simple, &[("//:mode", "opt")], "o");
    check(simple, &[("mode", "opt")], "o");
    check(simple, &[(":mode", "opt")], "o");
    check(simple, &[("mode", "opt"), ("mode", "dbg")], "d");
    let sum = r#"["1"] + select({":opt": ["o"], "//conditions:default": []}) + ["2"]"#;
    check(sum, &[], "1 2");
    check(sum, &[("mode", "opt")], "1 o 2");
    let two = r#"select({":opt": ["o"], "//conditions:default": ["d"]}) + select({":with_tls": ["t"], "//conditions:default": ["n"]})"#;
    check(two, &[("tls", "yes")], "d t");
    check(two, &[("tls", "true"), ("mode", "opt")], "o t");
    let narrow = r#"select({":opt": ["o"], ":opt_tls": ["both"], ":with_tls": ["t"], "//conditions:default": ["d"]})"#;
    check(narrow, &[("tls", "1"), ("mode", "opt")], "both");
    check(narrow, &[("tls", "1")], "t");
    check(narrow, &[("tls", "1"), ("mode", "dbg")], "t");
    let number = r#"select({":level_2": ["two"], "//conditions:default": ["other"]})"#;
    check(number, &[("level", "2")], "two");
    check(number, &[("level", "02")], "two");
    let list = r#"select({":has_b": ["b"], "//conditions:default": ["no b"]})"#;
    check(list, &[], "no b");
    check(list, &[("features", "a,b")], "b");
    // A constraint value is a condition by itself, and so is a mix of both.
    check(
        r#"select({"@maestro//platforms/os:linux": ["l"], "@maestro//platforms/os:macos": ["m"]})"#,
        &[],
        "l",
    );
    check(
        r#"select({":linux_opt": ["lo"], "@maestro//platforms/os:linux": ["l"]})"#,
        &[("mode", "opt")],
        "lo",
    );
    // Several that hold do no harm where they say the same.
    check(r#"select({":opt": ["x"], ":with_tls": ["x"]})"#, &[("tls", "1"), ("mode", "opt")], "x");
    // `None` is the attribute's default.
    check(r#"select({":opt": None, "//conditions:default": ["d"]})"#, &[("mode", "opt")], "");
}

#[test]
fn every_kind_of_sum_and_macros_take_select() {
    let files = [
        (
            "maestro.star",
            r#"
load("@maestro//rules:params.star", "bool_param")
load(":defs.star", "twice", "COMMON", "show")
bool_param(name = "big", build_setting_default = False)
config_setting(name = "is_big", flag_values = {":big": "true"})
twice(name = "x", extra = select({":is_big": ["b"], "//conditions:default": ["s"]}) + COMMON)
show(
    name = "y",
    text = "a-" + select({":is_big": "big", "//conditions:default": "small"}) + "-z",
    pairs = select({":is_big": {"k": "1"}, "//conditions:default": {}}) | {"z": "9"},
    flag = select({":is_big": True, "//conditions:default": False}),
    number = select({":is_big": 7, "//conditions:default": 3}),
    dep = select({":is_big": "a.txt", "//conditions:default": "b.txt"}),
)
"#,
        ),
        (
            "defs.star",
            r#"
load("@maestro//rules:basics.star", "write_file")
COMMON = select({"//:is_big": ["common big"], "//conditions:default": ["common small"]})
def twice(name, extra):
    lines = ["first"]
    lines += extra
    write_file(name = name, content = lines + ["last"])
def _show_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    text = [ctx.attr.text, str(ctx.attr.pairs), str(ctx.attr.flag), str(ctx.attr.number), ctx.file.dep.path]
    ctx.actions.write(output = out, content = "|".join(text))
    return DefaultInfo(files = depset([out]))
show = rule(implementation = _show_impl, attrs = {
    "text": attr.string(), "pairs": attr.string_dict(), "flag": attr.bool(), "number": attr.int(),
    "dep": attr.label(allow_single_file = True),
})
"#,
        ),
        ("a.txt", ""),
        ("b.txt", ""),
    ];
    let check = |big: &str, expect: [&str; 2]| {
        let what = For { params: &[("big", big)], ..LINUX };
        let text = actions(&load_for(&files, &["//:x", "//:y"], what).graph);
        for part in expect {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    };
    check(
        "true",
        [r"first\nb\ncommon big\nlast\n", r#"a-big-z|{\"k\": \"1\", \"z\": \"9\"}|True|7|a.txt"#],
    );
    check(
        "false",
        [r"first\ns\ncommon small\nlast\n", r#"a-small-z|{\"z\": \"9\"}|False|3|b.txt"#],
    );
}

const TRIMMED: &str = r#"
write_file(name = "plain", content = ["p"])
write_file(name = "moded", content = select({":opt": ["o"], "//conditions:default": ["d"]}))
write_file(name = "tlsed", content = select({":with_tls": ["t"], "//conditions:default": ["n"]}))
genrule(name = "top", srcs = [":plain", ":moded"], outs = ["top.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "low", srcs = [":plain"], outs = ["low.txt"], cmd = "cat $(SRCS) > $@")
"#;

/// Output paths and keys of all actions.
fn outputs(params: &[(&str, &str)]) -> BTreeMap<String, String> {
    let text = format!("{PARAMS}{TRIMMED}");
    keys(&load_for(&[("maestro.star", &text)], &["//..."], For { params, ..LINUX }).graph)
}

#[test]
fn a_param_moves_only_what_reads_it() {
    let usual = outputs(&[]);
    assert!(usual.keys().all(|path| path.starts_with("maestro-out/shared/")), "{usual:?}");
    let optimized = outputs(&[("mode", "opt")]);
    let moved = |paths: &BTreeMap<String, String>| {
        let other = |path: &&String| !path.starts_with("maestro-out/shared/");
        let names = paths.keys().filter(other).filter_map(|path| path.rsplit('/').next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut names = moved(&optimized);
    names.sort_unstable();
    assert_eq!(names, ["moded", "top.txt"]);
    // What did not move has the same key, so it is neither run nor looked at again.
    for (path, key) in optimized.iter().filter(|(path, _)| path.contains("/shared/")) {
        assert_eq!(usual.get(path), Some(key), "{path}");
    }
    // Spelling out a default changes nothing at all, nor does a param that nothing reads.
    assert_eq!(outputs(&[("mode", "dbg"), ("tls", "no")]), usual);
    assert_eq!(outputs(&[("level", "9")]), usual);
    // Params that one target does not read do not split it.
    let both = outputs(&[("mode", "opt"), ("tls", "yes")]);
    for (path, key) in optimized.iter().filter(|(path, _)| !path.ends_with("tlsed")) {
        assert_eq!(both.get(path), Some(key), "{path}");
    }
}

#[test]
fn rules_read_params_through_providers() {
    let files = [
        (
            "maestro.star",
            r#"
load("@maestro//rules:params.star", "string_param")
load(":defs.star", "show")
string_param(name = "mode", build_setting_default = "dbg")
show(name = "x", mode = ":mode")
alias(name = "y", actual = ":x")
"#,
        ),
        (
            "defs.star",
            r#"
def _impl(ctx):
    out = ctx.actions.declare_file("out")
    ctx.actions.write(output = out, content = "mode is " + ctx.attr.mode[BuildSettingInfo].value)
    return DefaultInfo(files = depset([out]))
show = rule(implementation = _impl, attrs = {"mode": attr.label(providers = [BuildSettingInfo])})
"#,
        ),
    ];
    let usual = actions(&load_for(&files, &["//:y"], LINUX).graph);
    assert!(usual.contains("mode is dbg") && usual.contains("maestro-out/shared/out"), "{usual}");
    let set = For { params: &[("mode", "anything")], ..LINUX };
    let loaded = load_for(&files, &["//:y", "//:x"], set);
    let other = actions(&loaded.graph);
    assert!(other.contains("mode is anything") && !other.contains("/shared/"), "{other}");
    // Two names of one target are one target.
    assert_eq!(requested(&loaded), ["//:x"]);
}

const PLATFORMS: &str = r#"
load("@maestro//rules:basics.star", "filegroup", "write_file")
platform(name = "win", constraint_values = ["@maestro//platforms/os:windows", "@maestro//platforms/cpu:x86_64"])
platform(name = "win_arm", parents = [":win"], constraint_values = ["@maestro//platforms/cpu:aarch64"])
platform(name = "same", constraint_values = ["@maestro//platforms/os:linux", "@maestro//platforms/cpu:x86_64"])
constraint_setting(name = "libc", default_constraint_value = ":glibc")
constraint_value(name = "glibc", constraint_setting = ":libc")
constraint_value(name = "musl", constraint_setting = ":libc")
platform(name = "small", parents = [":same"], constraint_values = [":musl"])
write_file(name = "os", content = select({"@maestro//platforms/os:windows": ["w"], "@maestro//platforms/os:linux": ["l"]}))
write_file(name = "cpu", content = select({"@maestro//platforms/cpu:aarch64": ["arm"], "//conditions:default": ["x"]}))
write_file(name = "libc_name", content = select({":musl": ["m"], ":glibc": ["g"]}))
write_file(name = "only_win", target_compatible_with = ["@maestro//platforms/os:windows"])
filegroup(name = "needs_win", srcs = [":only_win"])
write_file(name = "never", target_compatible_with = ["@maestro//platforms:incompatible"])
"#;

#[test]
fn platforms_decide_by_constraints() {
    let files = [("maestro.star", PLATFORMS)];
    let check = |platform: Option<&str>, expect: &[(&str, bool)]| {
        let loaded = load_for(&files, &["//..."], For { platform, ..LINUX });
        let text = actions(&loaded.graph);
        for (part, shared) in expect {
            let found = text.split("\nWrite").find(|action| action.contains(part));
            let found = found.unwrap_or_else(|| panic!("{platform:?}: {part} is not in\n{text}"));
            assert_eq!(found.contains("/shared/"), *shared, "{platform:?}: {found}");
        }
    };
    check(None, &[(r#":"l\n""#, true), (r#":"x\n""#, true), (r#":"g\n""#, true)]);
    // A platform that is what the machine is makes the same things in the same places.
    check(Some("//:same"), &[(r#":"l\n""#, true), (r#":"x\n""#, true), (r#":"g\n""#, true)]);
    check(Some("//:win"), &[(r#":"w\n""#, false), (r#":"x\n""#, true), (r#":"g\n""#, true)]);
    check(Some("//:win_arm"), &[(r#":"w\n""#, false), (r#":"arm\n""#, false)]);
    check(Some("//:small"), &[(r#":"m\n""#, false), (r#":"l\n""#, true)]);
}

#[test]
fn what_does_not_fit_the_platform_is_skipped_or_refused() {
    let files = [("maestro.star", PLATFORMS)];
    let names = |platform| {
        let loaded = load_for(&files, &["//..."], For { platform, ..LINUX });
        let all = requested(&loaded);
        let remarks: Vec<String> = loaded.remarks.iter().map(ToString::to_string).collect();
        (all.iter().any(|name| name == "//:needs_win"), remarks.join("\n"))
    };
    let skipped = "info: skipped, not for this platform: `//:needs_win`, `//:never`, `//:only_win`";
    assert_eq!(names(None), (false, skipped.to_owned()));
    let never = "info: skipped, not for this platform: `//:never`";
    assert_eq!(names(Some("//:win")), (true, never.to_owned()));
    let error = try_load(&files, &["//:needs_win"], LINUX).expect_err("it is not for Linux");
    assert_eq!(
        error.lines().take(4).collect::<Vec<_>>().join("\n"),
        "error[MAE0153]: `//:needs_win` cannot be built for `@maestro//platforms:host`
  `//:needs_win` (maestro.star:14:1) needs
  `//:only_win` (maestro.star:13:1) needs
  `@maestro//platforms/os:windows`, but `@maestro//platforms/os:os` is `@maestro//platforms/os:linux`"
    );
}

/// Checks that a declaration beside the params above is refused.
fn check(declaration: &str, params: &[(&str, &str)], expect: &str) {
    let text = format!("{PARAMS}\n{declaration}\n");
    let what = For { params, ..LINUX };
    let errors = match try_load(&[("maestro.star", &text)], &["//..."], what) {
        Ok(_) => panic!("it loads: {declaration}"),
        Err(errors) => errors,
    };
    let lines: Vec<&str> = errors.lines().filter(|line| !line.contains(" | ")).collect();
    let short = lines.join("\n");
    assert!(short.contains(expect), "{declaration}\n{errors}");
}

#[test]
fn errors_say_what_was_looked_at() {
    check(
        r#"write_file(name = "x", content = select({
    ":opt": ["o"],
    ":with_tls": ["t"],
}))"#,
        &[("mode", "opt"), ("tls", "1")],
        "error[MAE0152]: target `//:x`, attribute `content`: several branches of the `select` hold, and none asks for more than all others
  `//:opt` (maestro.star:17:5) needs `//:mode` = `opt`
  `//:with_tls` (maestro.star:18:5) needs `//:tls` = `true`
 --> maestro.star:16:1",
    );
    check(
        r#"write_file(name = "x", content = select({":linux_opt": [], ":with_tls": []}, no_match_error = "say --param tls"))"#,
        &[],
        "error[MAE0151]: target `//:x`, attribute `content`: no branch of the `select` holds: say --param tls
  `//:linux_opt` (maestro.star:14:1) needs `//:mode` = `opt`, which is `dbg`, `@maestro//platforms/os:os` = `@maestro//platforms/os:linux`
  `//:with_tls` (maestro.star:10:1) needs `//:tls` = `true`, which is `false`",
    );
}

#[test]
fn what_a_select_cannot_be_is_refused() {
    check(
        r#"write_file(name = select({":opt": "x"}))"#,
        &[],
        "error[MAE0101]: `name` must be a string, not a `select`",
    );
    check(
        r#"write_file(name = "x", tags = select({":opt": ["x"]}))"#,
        &[],
        "target `x`: attribute `tags` cannot depend on the configuration, so it takes no `select`",
    );
    check(
        r#"genrule(name = "x", outs = select({":opt": ["x"]}), cmd = "")"#,
        &[],
        "target `x`: attribute `outs` cannot depend on the configuration",
    );
    check(
        r#"write_file(name = "x", content = select({":opt": ["x"], "//:opt": []}))"#,
        &[],
        "target `x`: attribute `content`: `//:opt` stands twice in one `select`",
    );
    check(
        r#"write_file(name = "x", content = select({":opt": [1]}))"#,
        &[],
        "every item of attribute `content` must be a string",
    );
    check(
        r#"write_file(name = "x", is_executable = select({":opt": True}) + select({":opt": True}))"#,
        &[],
        "attribute `is_executable` is `True` or `False`, which cannot be added to",
    );
    check(
        r#"write_file(name = "x", content = select({":nothing": []}))"#,
        &[],
        "error[MAE0121]: target `//:x`, attribute `content`: there is no target or file `//:nothing`",
    );
    check(
        r#"write_file(name = "x", content = select({":mode": []}))"#,
        &[],
        "`//:mode` is no condition, but a `string_param`",
    );
}

#[test]
fn odd_params_conditions_and_platforms_are_refused() {
    check(r#"config_setting(name = "x")"#, &[], "it asks for nothing, so it would always hold");
    check(
        r#"config_setting(name = "x", flag_values = {":mode": "opf"})"#,
        &[],
        "condition `//:x` (maestro.star:16:1): param `//:mode` cannot be `opf`",
    );
    check(
        r#"config_setting(name = "x", values = {"modus": "opt"})"#,
        &[],
        "there is no param `modus`",
    );
    check(
        "",
        &[("moda", "opt")],
        "error[MAE0150]: there is no param `moda`\nhint: did you mean `mode`?",
    );
    check(
        "",
        &[("mode", "opf")],
        "error[MAE0150]: param `//:mode` cannot be `opf`\nhint: did you mean `opt`?",
    );
    check("", &[("level", "x")], "param `//:level` cannot be `x`\nhint: it is an integer");
    check("", &[("//:opt", "x")], "`//:opt` is no param, but a `config_setting`");
    check(
        r#"platform(name = "p", constraint_values = ["@maestro//platforms/os:linux", "@maestro//platforms/os:macos"])"#,
        &[],
        "platform `//:p` is both `@maestro//platforms/os:linux` and `@maestro//platforms/os:macos`",
    );
    check(
        r#"platform(name = "p", parents = [":q"])
platform(name = "q", parents = [":p"])"#,
        &[],
        "has more than 100 parents",
    );
}

#[test]
fn short_names_come_from_the_project_file() {
    let files = [
        ("maestro.star", ""),
        (
            "lib/maestro.star",
            r#"
load("@maestro//rules:params.star", "string_param")
load("@maestro//rules:basics.star", "write_file")
string_param(name = "flavour", build_setting_default = "plain", visibility = ["//visibility:public"])
config_setting(name = "sweet", values = {"taste": "sweet"})
write_file(name = "x", content = select({":sweet": ["s"], "//conditions:default": ["p"]}))
"#,
        ),
    ];
    let short_names = &[("taste", "//lib:flavour")][..];
    let params = &[("taste", "sweet")][..];
    let text = actions(&load_for(&files, &["//lib:x"], For { params, short_names, ..LINUX }).graph);
    assert!(text.contains(r#""content":"s\n""#), "{text}");
}
