//! Params, platforms, profiles and toolchains, on the binary.

use maestro_tests::guide::{follow, steps};
use maestro_tests::{Workspace, executed};

/// A tar archive with one file, as `tar` writes it.
fn archive(path: &str, content: &str) -> Vec<u8> {
    let mut builder = Vec::new();
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        for (slot, byte) in header.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    };
    put(0, path.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (slot, byte) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *slot = *byte;
    }
    builder.extend_from_slice(&header);
    builder.extend_from_slice(content.as_bytes());
    builder.resize(builder.len().next_multiple_of(512) + 1024, 0);
    builder
}

#[test]
fn the_guide_about_toolchains_works() {
    let ws = Workspace::new();
    ws.write("tools/greeter-1.tar", archive("bin/greet", "echo \"hello in $1\"\n"));
    ws.write("tools/greeter-2.tar", archive("bin/greet", "echo \"salve in $1\"\n"));
    follow(&ws, &steps("use-toolchains.md"));
    let made = |platform: &str| {
        let summary = ws.ok(&["build", "//app:hello", "--platform", platform]);
        let path = summary["targets"][0]["outputs"][0]["path"].as_str().expect("a path").to_owned();
        ws.read(&path)
    };
    assert_eq!(made("//tools:arm"), "salve in Latin\n");
    assert_eq!(made("//tools:x86"), "hello in English\n");

    let told = |args: &[&str]| {
        let output = ws.command().args(args).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let arm = told(&["doctor", "--toolchains", "//app:hello", "--platform", "//tools:arm"]);
    let expect = [
        "//app:hello, with actions on @maestro//platforms:host",
        "  //tools:greet_type -> //tools:greeter_v2",
        "    //tools:greet_on_arm (tools/maestro.star:19:1) fits, and is taken",
        "    //tools:greet_on_x86 (tools/maestro.star:26:1) builds for `@maestro//platforms/cpu:x86_64`, and the target platform has `@maestro//platforms/cpu:aarch64`",
    ];
    for line in expect {
        assert!(arm.contains(line), "{line}\n{arm}");
    }
}

const PACKAGE: &str = r#"
load("@maestro//rules:params.star", "bool_param", "string_param")
load("@maestro//rules:basics.star", "genrule")

string_param(name = "mode", build_setting_default = "debug", values = ["debug", "release"])
bool_param(name = "tls", build_setting_default = False)
config_setting(name = "release", values = {"mode": "release"})
config_setting(name = "with_tls", values = {"tls": "true"})
platform(name = "win", constraint_values = ["@maestro//platforms/os:windows"])
genrule(name = "plain", outs = ["plain.txt"], cmd = "echo plain > $@")
genrule(
    name = "app",
    srcs = [":plain"] + select({":with_tls": ["tls.txt"], "//conditions:default": []}),
    outs = ["app.txt"],
    cmd = select({":release": "echo release > $@", "//conditions:default": "echo debug > $@"}) + " && cat $(SRCS) >> $@",
)
genrule(name = "service", outs = ["service.txt"], cmd = "echo service > $@", target_compatible_with = ["@maestro//platforms/os:windows"])
"#;

fn workspace() -> Workspace {
    let ws = Workspace::new();
    ws.write(
        "maestro.toml",
        "[config.release]\nparams = { mode = \"release\", tls = true }\n\n[config.plain]\nparams = { tls = false }\n",
    );
    ws.write("maestro.star", PACKAGE);
    ws.write("tls.txt", "tls\n");
    ws
}

/// What a build of `//:app` makes, and what ran for it.
fn app(ws: &Workspace, flags: &[&str]) -> (String, Vec<String>) {
    let events = ws.outside().join("events.jsonl");
    let events_flag = format!("--events={}", events.display());
    let mut args = vec!["build", "//:app", events_flag.as_str()];
    args.extend(flags);
    let summary = ws.ok(&args);
    let path = summary["targets"][0]["outputs"][0]["path"].as_str().expect("a path").to_owned();
    (ws.read(&path), executed(&events))
}

#[test]
fn a_param_rebuilds_what_reads_it_and_nothing_else() {
    let ws = workspace();
    let check = |flags: &[&str], text: &str, ran: &[&str]| {
        let (got, executed) = app(&ws, flags);
        assert_eq!((got.as_str(), executed), (text, ran.iter().map(ToString::to_string).collect()));
    };
    check(&[], "debug\nplain\n", &["//:app", "//:plain"]);
    check(&["--param", "mode=release"], "release\nplain\n", &["//:app"]);
    check(&["--param=//:mode=release", "--param", "tls=yes"], "release\nplain\ntls\n", &["//:app"]);
    // Both ways of saying it are one configuration, and going back finds everything as it was.
    check(&["--config", "release"], "release\nplain\ntls\n", &[]);
    check(&["--config", "release", "--config", "plain"], "release\nplain\n", &[]);
    check(
        &["--config", "release", "--param", "mode=debug", "--param", "tls=no"],
        "debug\nplain\n",
        &[],
    );
    check(&["--param", "mode=debug"], "debug\nplain\n", &[]);
    // An edit of what only one branch names is an edit of that branch's build.
    ws.write("tls.txt", "more tls\n");
    check(&[], "debug\nplain\n", &[]);
    check(&["--config", "release"], "release\nplain\nmore tls\n", &["//:app"]);
}

#[test]
fn flags_that_mean_nothing_say_so() {
    let ws = workspace();
    let check = |args: &[&str], expect: &str| {
        let error = ws.fails(2, args);
        assert!(error.contains(expect), "{args:?}\n{error}");
    };
    check(&["build", "//:app", "--param", "mode"], "`--param mode` has no value");
    check(&["build", "//:app", "--param", "moda=release"], "did you mean `mode`?");
    check(&["build", "//:app", "--param", "mode=relaese"], "did you mean `release`?");
    check(&["build", "//:app", "--config", "relese"], "`maestro.toml` has: plain, release");
    check(&["build", "//:app", "--platform", "//:plain"], "`//:plain` is no platform");
    check(&["build", "//:service"], "MAE0153");
}

#[test]
fn patterns_skip_what_is_for_other_platforms() {
    let ws = workspace();
    let names = |summary: &serde_json::Value| {
        let targets = summary["targets"].as_array().expect("targets").clone();
        targets.iter().any(|target| target["label"] == "//:service")
    };
    assert!(!names(&ws.ok(&["build", "//..."])));
    assert!(names(&ws.ok(&["build", "//...", "--platform", "//:win"])));
}
