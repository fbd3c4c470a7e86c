//! A remote cache that lies, forgets, breaks off or stands still: builds end well all the same.
//!
//! The server is one of this test, so that it can do what no good server does. A first home fills
//! it while it behaves; what a second home then makes of it is what is tested.

#[path = "remote_hostile/server.rs"]
mod server;

use std::time::{Duration, Instant};

use maestro_tests::{Run, Workspace};
use server::{HostileServer, Mischief};

const RULES: &str = r#"
def _pair(ctx):
    tools = [ctx.attr.toolchain[ToolchainInfo].toolchain]
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    ctx.actions.run_shell(
        outputs = [tree],
        inputs = [ctx.file.src],
        command = "mkdir -p $2/a/b; cp $1 $2/a/b/large; echo small > $2/small",
        arguments = [ctx.file.src.path, tree.path],
        toolchains = tools,
    )
    ctx.actions.run_shell(
        outputs = [out],
        inputs = [tree],
        command = "cat $1/a/b/large $1/small > $2",
        arguments = [tree.path, out.path],
        toolchains = tools,
    )
    return [DefaultInfo(files = depset([out])), OutputGroupInfo(tree = depset([tree]))]

pair = rule(
    implementation = _pair,
    attrs = {
        "src": attr.label(allow_single_file = True),
        "toolchain": attr.label(
            default = "@maestro//toolchains:base",
            providers = [ToolchainInfo],
        ),
    },
)
"#;

const BUILD: &str = "load(\"//:rules.star\", \"pair\")\n\npair(name = \"c\", src = \"src.txt\")\n";

fn home() -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", "");
    ws.write("rules.star", RULES);
    ws.write("p/maestro.star", BUILD);
    let lines: Vec<String> = (0..200_000).map(|n| format!("line {n}")).collect();
    ws.write("p/src.txt", lines.join("\n"));
    ws
}

fn build(ws: &Workspace, server: &HostileServer) -> Run {
    let url = format!("--remote-cache=grpc://{}", server.address());
    let flags = ["--remote-timeout=2", "--output-groups=+tree", "--output=json"];
    ws.run(&[&["build", "//p:c", &url], &flags[..]].concat())
}

/// What a second home makes of a server that was filled by a first: how many actions it runs after
/// it has seen which blobs are not to be had, and what it says.
fn check(mischief: Mischief, executed: u64, says: &str) {
    let server = HostileServer::start();
    let first = build(&home(), &server);
    assert_eq!(first.code, 0, "{}", first.stderr);
    server.begin(mischief);
    let second = home();
    let started = Instant::now();
    let run = build(&second, &server);
    assert_eq!(run.code, 0, "{mischief:?}: {}", run.stderr);
    assert_eq!(run.json()["actions"]["executed"], executed, "{mischief:?}: {}", run.stderr);
    let expect = format!("{}small\n", second.read("p/src.txt"));
    assert!(second.read("maestro-out/shared/p/c.out") == expect, "{mischief:?}");
    let large = second.read("maestro-out/shared/p/c.tree/a/b/large");
    assert!(large == second.read("p/src.txt"), "{mischief:?}");
    let warnings: Vec<&str> =
        run.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    match says {
        "" => assert_eq!(warnings, [""; 0], "{mischief:?}"),
        says => {
            assert_eq!(warnings.len(), 1, "{mischief:?}: {}", run.stderr);
            assert!(run.stderr.contains(says), "{mischief:?}: {}", run.stderr);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{mischief:?} holds the build up");
}

#[test]
fn a_good_server_is_believed() {
    check(Mischief::None, 0, "");
}

#[test]
fn other_bytes_count_as_missing() {
    check(Mischief::OtherBytes, 1, "");
}

#[test]
fn more_bytes_than_announced_are_refused() {
    check(Mischief::MoreBytes, 1, "");
}

#[test]
fn frames_that_unpack_to_too_much_are_refused() {
    check(Mischief::Bomb, 1, "");
}

#[test]
fn results_without_blobs_are_made_again() {
    check(Mischief::NoBlobs, 1, "");
}

#[test]
fn results_that_could_not_be_made_here_are_misses() {
    check(Mischief::Failed, 2, "");
    check(Mischief::Links, 2, "");
    check(Mischief::BadDigests, 2, "");
    check(Mischief::OtherOutputs, 2, "");
}

#[test]
fn directories_that_are_not_canonical_are_misses() {
    check(Mischief::OddDirectories, 1, "");
}

#[test]
fn streams_that_break_off_go_on() {
    check(Mischief::CutStreams, 0, "");
}

#[test]
fn calls_that_fail_once_are_made_again() {
    check(Mischief::BusyOnce, 0, "");
}

#[test]
fn a_server_that_stands_still_is_left_alone() {
    check(Mischief::StandsStill, 2, "does not answer");
}

#[test]
fn a_server_without_our_digests_is_not_used() {
    check(Mischief::OtherFunction, 2, "does not know the digest function");
}
