//! Maestro's own builds on workers: `--remote-executor`.

use std::path::Path;
use std::time::Duration;

use maestro_core::DigestFunction;
use maestro_tests::cache_server::Server;
use maestro_tests::worker::Worker;
use maestro_tests::{Workspace, poll};
use serde_json::Value;

/// Steps that make a file, a tree of it, and a file of that; some that are slow, one that fails.
const RULES: &str = r#"
def _step(ctx):
    tools = [ctx.attr.toolchain[ToolchainInfo].toolchain]
    part = ctx.actions.declare_file(ctx.label.name + ".part")
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    ctx.actions.run_shell(
        outputs = [part],
        inputs = [ctx.file.src],
        command = ctx.attr.first + "; cat $1 $1 > $2",
        arguments = [ctx.file.src.path, part.path],
        mnemonic = "Part",
        toolchains = tools,
    )
    ctx.actions.run_shell(
        outputs = [tree],
        inputs = [part],
        command = "mkdir -p $2/a; cp $1 $2/a/copy; ln -s a/copy $2/link; : > $2/empty; " +
                  "printf '#!/bin/sh\n' > $2/run; chmod +x $2/run",
        arguments = [part.path, tree.path],
        mnemonic = "Tree",
        toolchains = tools,
    )
    ctx.actions.run_shell(
        outputs = [out],
        inputs = [tree],
        command = "cat $1/link > $2; test -x $1/run",
        arguments = [tree.path, out.path],
        mnemonic = "Out",
        toolchains = tools,
    )
    return [DefaultInfo(files = depset([out])), OutputGroupInfo(tree = depset([tree]))]

step = rule(
    implementation = _step,
    attrs = {
        "src": attr.label(allow_single_file = True),
        "first": attr.string(default = "true"),
        "toolchain": attr.label(
            default = "@maestro//toolchains:base",
            providers = [ToolchainInfo],
        ),
    },
)
"#;

const BUILD: &str = r#"load("//:rules.star", "step")

step(name = "c", src = "src.txt")
step(name = "forgets", src = "src.txt", first = "echo forgot >&2; exit 0")
step(name = "bad", src = "src.txt", first = "echo said so >&2; exit 7")
[step(name = "slow%d" % n, src = "src.txt", first = "sleep 2; : %d" % n) for n in range(6)]
"#;

const PART: &str = "a source\na source\n";

fn home() -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", "");
    ws.write("rules.star", RULES);
    ws.write("p/maestro.star", BUILD);
    ws.write("p/src.txt", "a source\n");
    ws
}

fn url(address: &str) -> String {
    format!("--remote-executor=grpc://{address}")
}

/// Counts of a build: executed, cached, from the remote cache.
fn build(ws: &Workspace, flags: &[&str]) -> [u64; 3] {
    let summary = ws.ok(&[&["build", "//p:c"], flags].concat());
    let count = |name: &str| Value::as_u64(&summary["actions"][name]).unwrap_or(0);
    ["executed", "cached", "remote"].map(count)
}

/// Whether a cache has a blob of this content.
fn has(cache: &Path, content: &str) -> bool {
    let name = DigestFunction::Blake3.digest(content.as_bytes()).hex();
    let folder = cache.join("cas").join(&name[..2]);
    folder.join(&name).exists() || folder.join(format!("{name}.x")).exists()
}

#[test]
fn actions_run_on_workers_and_only_what_is_asked_for_comes_back() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&data.path().join("server"), &[]);
    // A worker that has nothing of its machine: toolchains come with the actions.
    let folder = data.path().join("worker");
    let _worker = Worker::start(server.address(), &folder, "worker", &["--no-host"]);
    let (first, second, flag) = (home(), home(), url(server.address()));
    assert_eq!(build(&first, &[&flag]), [3, 0, 0]);
    assert_eq!(first.read("maestro-out/shared/p/c.out"), PART);
    let made_there = DigestFunction::Blake3.digest(PART.as_bytes());
    assert!(has(&folder.join("blake3"), PART), "`{made_there}` was made there");
    assert_eq!(build(&second, &[&flag]), [0, 0, 3]);

    let tree = home();
    assert_eq!(build(&tree, &[&flag, "--output-groups=tree"])[0], 0);
    let root = tree.root.join("maestro-out/shared/p/c.tree");
    assert_eq!(std::fs::read_link(root.join("link")).expect("a link"), Path::new("a/copy"));
    let mode = std::fs::metadata(root.join("run")).expect("a file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);

    let stderr = first.fails(1, &["build", "//p:bad", &flag]);
    assert!(stderr.contains("exited with code 7"), "{stderr}");
    assert!(stderr.contains("said so"), "{stderr}");

    // Twice, since the server has the result by then: it is none that this action can have.
    for _ in 0..2 {
        let stderr = first.fails(1, &["build", "//p:forgets", &flag]);
        assert!(stderr.contains("declared outputs were not made"), "{stderr}");
        assert!(stderr.contains("forgot"), "{stderr}");
    }
    let stderr = first.fails(1, &["build", "//p:forgets"]);
    assert!(stderr.contains("declared outputs were not made"), "{stderr}");

    // What others say goes without a cache of theirs.
    server.kill();
    let third = home();
    let run = third.run(&["build", "//p:c", &flag]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("the build goes on without it").count(), 1, "{}", run.stderr);
    assert_eq!(third.read("maestro-out/shared/p/c.out"), PART);
}

#[test]
fn a_build_outlives_workers_and_the_server() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&data.path().join("server"), &[]);
    let address = server.address().to_owned();
    let folder = |name: &str| data.path().join(name);
    let start = |name: &str| Worker::start(&address, &folder(name), name, &[]);
    let (dies, _stays) = (start("dies"), start("stays"));
    let ws = home();
    let flag = url(&address);
    let targets: Vec<String> = (0..6).map(|n| format!("//p:slow{n}")).collect();
    std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            let targets = targets.iter().map(String::as_str);
            let arguments: Vec<&str> =
                ["build", flag.as_str(), "--remote-required"].into_iter().chain(targets).collect();
            ws.run(&arguments)
        });
        let begun = || has(&folder("dies").join("blake3"), "a source\n");
        assert!(poll(Duration::from_secs(60), begun), "nothing comes to the worker");
        std::thread::sleep(Duration::from_millis(700));
        dies.kill();
        std::thread::sleep(Duration::from_millis(500));
        server.kill();
        let _server = Server::start_at(&data.path().join("server"), &address);
        let run = build.join().expect("a thread");
        assert_eq!(run.code, 0, "{}", run.stderr);
    });
    for n in 0..6 {
        assert_eq!(ws.read(&format!("maestro-out/shared/p/slow{n}.out")), PART);
    }
}

#[test]
fn a_server_without_workers_is_told_of_once() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(data.path(), &[]);
    let (ws, flag) = (home(), url(server.address()));
    let run = ws.run(&["build", "//p:c", &flag]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let told = "no worker is connected; they run here";
    assert_eq!(run.stderr.matches(told).count(), 1, "{}", run.stderr);
    assert_eq!(ws.read("maestro-out/shared/p/c.out"), PART);
}
