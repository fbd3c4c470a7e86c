//! Maestro as the client of a remote cache: what one home leaves, another finds.

use std::path::Path;
use std::time::Duration;

use maestro_core::DigestFunction;
use maestro_tests::cache_server::Server;
use maestro_tests::{Workspace, poll};
use serde_json::Value;

/// Three steps in a row over one source, a tree among them, and something to say.
const RULES: &str = r#"
def _chain(ctx):
    tools = [ctx.attr.toolchain[ToolchainInfo].toolchain]
    part = ctx.actions.declare_file(ctx.label.name + ".part")
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    ctx.actions.run_shell(
        outputs = [part],
        inputs = [ctx.file.src],
        command = "cat $1 $1 > $2; echo made the part; echo more >&2",
        arguments = [ctx.file.src.path, part.path],
        mnemonic = "Part",
        toolchains = tools,
    )
    ctx.actions.run_shell(
        outputs = [tree],
        inputs = [part],
        command = "mkdir -p $2/a/b; cp $1 $2/a/b/copy; ln -s b/copy $2/a/link; " +
                  "printf '#!/bin/sh\n' > $2/run; chmod +x $2/run; : > $2/a/empty",
        arguments = [part.path, tree.path],
        mnemonic = "Tree",
        toolchains = tools,
    )
    ctx.actions.run_shell(
        outputs = [out],
        inputs = [tree, ctx.file.last],
        command = "cat $1/a/b/copy $2 > $3; test -x $1/run",
        arguments = [tree.path, ctx.file.last.path, out.path],
        mnemonic = "Out",
        toolchains = tools,
    )
    return [DefaultInfo(files = depset([out])), OutputGroupInfo(tree = depset([tree]))]

chain = rule(
    implementation = _chain,
    attrs = {
        "src": attr.label(allow_single_file = True),
        "last": attr.label(allow_single_file = True),
        "toolchain": attr.label(
            default = "@maestro//toolchains:base",
            providers = [ToolchainInfo],
        ),
    },
)
"#;

const BUILD: &str = r#"load("//:rules.star", "chain")

chain(name = "c", src = "src.txt", last = "last.txt")
"#;

fn home() -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", "");
    ws.write("rules.star", RULES);
    ws.write("p/maestro.star", BUILD);
    ws.write("p/src.txt", "a source\n");
    ws.write("p/last.txt", "the last\n");
    ws
}

/// A server and its folder.
fn server(flags: &[&str]) -> (Server, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a folder");
    (Server::start(data.path(), flags), data)
}

fn url(server: &Server) -> String {
    format!("--remote-cache=grpc://{}", server.address())
}

/// Counts of a build: executed, cached, from the remote cache.
fn counts(summary: &Value) -> [u64; 3] {
    ["executed", "cached", "remote"].map(|name| summary["actions"][name].as_u64().unwrap_or(0))
}

fn build(ws: &Workspace, flags: &[&str]) -> [u64; 3] {
    counts(&ws.ok(&[&["build", "//p:c"], flags].concat()))
}

/// Whether a cache has a blob of this content.
fn has(cache: &Path, content: &str) -> bool {
    let name = DigestFunction::Blake3.digest(content.as_bytes()).hex();
    let folder = cache.join("cas").join(&name[..2]);
    folder.join(&name).exists() || folder.join(format!("{name}.x")).exists()
}

#[test]
fn what_one_home_leaves_another_finds() {
    let (server, _data) = server(&[]);
    let (first, second) = (home(), home());
    assert_eq!(build(&first, &[&url(&server)]), [3, 0, 0]);
    assert_eq!(build(&second, &[&url(&server)]), [0, 0, 3]);
    let out = "maestro-out/shared/p/c.out";
    assert_eq!(first.read(out), second.read(out));
    let part = "a source\na source\n";
    assert!(has(&first.cache, part), "the test knows where blobs are");
    assert!(!has(&second.cache, part), "nobody read it");
    // Nothing ran, so that no toolchain was copied, only hashed.
    let held = |ws: &Workspace| ws.cache.join("trees").read_dir().map_or(0, Iterator::count);
    assert_eq!((held(&first) > 0, held(&second)), (true, 0));

    // The last step runs here, and reads what others made.
    second.write("p/last.txt", "another\n");
    assert_eq!(build(&second, &[&url(&server)]), [1, 2, 0]);
    assert_eq!(second.read(out), format!("{part}another\n"));
    assert!(has(&second.cache, part), "it was read");

    // What it made is there for the first.
    first.write("p/last.txt", "another\n");
    assert_eq!(build(&first, &[&url(&server)]), [0, 2, 1]);
    assert_eq!(first.read(out), second.read(out));

    // Trees come whole, with links, modes and empty files.
    let third = home();
    let flags = [url(&server), "--output-groups=tree".to_owned()];
    assert_eq!(build(&third, &[&flags[0], &flags[1]]), [0, 0, 2]);
    let tree = third.root.join("maestro-out/shared/p/c.tree");
    assert_eq!(std::fs::read_link(tree.join("a/link")).expect("a link"), Path::new("b/copy"));
    assert_eq!(std::fs::read(tree.join("a/empty")).expect("a file"), b"");
    let mode = std::fs::metadata(tree.join("run")).expect("a file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);

    // All of it, for whoever wants to go on without the server.
    let fourth = home();
    assert_eq!(build(&fourth, &[&url(&server), "--remote-download=all"]), [0, 0, 3]);
    assert!(has(&fourth.cache, part));
    server.stop();
    assert_eq!(fourth.run(&["clean"]).code, 0);
    assert_eq!(build(&fourth, &[]), [0, 3, 0]);
}

#[test]
fn a_build_goes_on_without_its_server() {
    let (server, _data) = server(&[]);
    let (first, second) = (home(), home());
    let address = url(&server);
    assert_eq!(build(&first, &[&address]), [3, 0, 0]);
    assert_eq!(build(&second, &[&address]), [0, 0, 3]);
    server.kill();

    // What only the server had is made here.
    second.write("p/last.txt", "another\n");
    let run = second.run(&["build", "//p:c", &address]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let told = run.stderr.matches("does not answer").count();
    assert_eq!(told, 1, "{}", run.stderr);
    assert!(run.stderr.contains("the build goes on without it"), "{}", run.stderr);
    assert_eq!(second.read("maestro-out/shared/p/c.out"), "a source\na source\nanother\n");

    let third = home();
    let stderr = third.fails(3, &["build", "//p:c", &address, "--remote-required"]);
    assert!(stderr.contains("does not answer"), "{stderr}");
    assert!(stderr.contains("--remote-required"), "{stderr}");
}

#[test]
fn a_silent_server_costs_its_timeout_once() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let ws = home();
    let url = format!("--remote-cache=grpc://{address}");
    let started = std::time::Instant::now();
    let run = ws.run(&["build", "//p:c", &url, "--remote-timeout=1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("does not answer").count(), 1, "{}", run.stderr);
    assert!(started.elapsed() < Duration::from_secs(30), "each action waits");
}

#[test]
fn tokens_say_who_may_leave_results() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(
        &tokens,
        "reader-91d7e0c2b85f4a36 * read-only\nwriter-4f1c0a7be2d94d53 * read-write\n",
    )
    .expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).expect("ours");
    let (server, _data) = server(&["--tokens", tokens.to_str().expect("UTF-8")]);
    let token = |token: &str| format!("--remote-header=authorization=Bearer {token}");
    let address = url(&server);

    let reader = home();
    let run = reader.run(&[
        "build",
        "//p:c",
        &address,
        &token("reader-91d7e0c2b85f4a36"),
        "--output=json",
    ]);
    assert_eq!((run.code, run.stderr.contains("warning")), (0, false), "{}", run.stderr);
    assert_eq!(counts(&run.json()), [3, 0, 0]);
    let writer = home();
    assert_eq!(
        build(&writer, &[&address, &token("writer-4f1c0a7be2d94d53"), "--no-remote-upload"]),
        [3, 0, 0]
    );
    let writer = home();
    assert_eq!(
        build(&writer, &[&address, &token("writer-4f1c0a7be2d94d53")]),
        [3, 0, 0],
        "nothing was left before"
    );
    assert_eq!(build(&home(), &[&address, &token("reader-91d7e0c2b85f4a36")]), [0, 0, 3]);

    let stranger = home();
    let run = stranger.run(&["build", "//p:c", &address, &token("s3cret-bb20f4a36b85f")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("refuses a call").count(), 1, "{}", run.stderr);
    assert!(!run.stderr.contains("s3cret-bb20f4a36b85f"), "{}", run.stderr);
}

/// An authority, and pairs that it vouches for, made by openssl: `NAME.pem` and `NAME.key`.
fn certificates(folder: &Path, names: &[&str]) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let mut script = format!(
        "openssl req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \\\n\
         -addext basicConstraints=critical,CA:TRUE\n\
         echo subjectAltName=IP:127.0.0.1 > names\n"
    );
    for name in names {
        script.push_str(&format!(
            "openssl req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr\n\
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\\n\
             -extfile names -out {name}.pem\n"
        ));
    }
    let made = std::process::Command::new("sh").args(["-ec", &script]).current_dir(folder).output();
    let made = made.expect("a shell");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "`openssl` of the package `openssl` is needed: {said}");
}

#[test]
fn connections_are_encrypted_and_both_sides_say_who_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path(), &["server", "client"]);
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let flags = [
        format!("--tls-cert={}", path("server.pem")),
        format!("--tls-key={}", path("server.key")),
        format!("--tls-client-ca={}", path("ca.pem")),
    ];
    let (server, _data) = server(&flags.each_ref().map(String::as_str));
    let url = format!("--remote-cache=grpcs://{}", server.address());
    let ca = format!("--remote-tls-ca={}", path("ca.pem"));
    let cert = format!("--remote-tls-cert={}", path("client.pem"));
    let key = format!("--remote-tls-key={}", path("client.key"));
    assert_eq!(build(&home(), &[&url, &ca, &cert, &key]), [3, 0, 0]);
    assert_eq!(build(&home(), &[&url, &ca, &cert, &key, "--remote-required"]), [0, 0, 3]);

    let refused = |flags: &[&str], code: i32, expect: &str| {
        let command = [&["build", "//p:c", "--remote-required", &url], flags].concat();
        let stderr = home().fails(code, &command);
        assert!(stderr.contains(expect), "{stderr}");
    };
    // How a connection ends without a certificate depends on who is faster.
    refused(&[&ca], 3, "does not answer");
    refused(&[], 3, "UnknownIssuer");
    let no_certificate = format!("--remote-tls-ca={}", path("server.key"));
    refused(&[&no_certificate], 2, "has no part `CERTIFICATE`");
    let nothing = format!("--remote-tls-ca={}", path("nothing.pem"));
    refused(&[&nothing], 3, "cannot read");
}

#[test]
fn projects_say_where_and_users_what_is_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "s3cret-bb20f4a36b85f * read-write\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).expect("ours");
    let (server, _data) = server(&["--tokens", tokens.to_str().expect("UTF-8")]);
    let cache = format!("cache = \"grpc://{}\"\n", server.address());
    let header = "headers = { authorization = \"Bearer s3cret-bb20f4a36b85f\" }\n";
    let with_user = |project: &str, user: &str| {
        let ws = home();
        ws.write("maestro.toml", project);
        let config = ws.outside().join("config/maestro");
        std::fs::create_dir_all(&config).expect("a folder");
        std::fs::write(config.join("config.toml"), user).expect("written");
        let config = ws.outside().join("config");
        ws.with_env("XDG_CONFIG_HOME", config.to_str().expect("UTF-8"))
    };
    // Both by the user: sent.
    let ws = with_user("", &format!("[remote]\n{cache}{header}"));
    assert_eq!(build(&ws, &["--remote-required"]), [3, 0, 0]);
    // The server by the project: what the user keeps for another is not sent.
    let ws = with_user(&format!("[remote]\n{cache}"), &format!("[remote]\n{header}"));
    let stderr = ws.fails(3, &["build", "//p:c", "--remote-required"]);
    assert!(stderr.contains("refuses a call"), "{stderr}");
    // By the environment, for whatever is built.
    let ws = with_user(&format!("[remote]\n{cache}"), "");
    let ws = ws.with_env("MAESTRO_REMOTE_HEADER", "authorization=Bearer s3cret-bb20f4a36b85f");
    assert_eq!(build(&ws, &["--remote-required"]), [0, 0, 3]);
    // By a profile.
    let ws = with_user(&format!("[config.ci.remote]\n{cache}"), "");
    let ws = ws.with_env("MAESTRO_REMOTE_HEADER", "authorization=Bearer s3cret-bb20f4a36b85f");
    assert_eq!(build(&ws, &[]), [3, 0, 0]);
    ws.write("p/src.txt", "new\n");
    assert_eq!(build(&ws, &["--config=ci"]), [3, 0, 0]);
    assert_eq!(build(&ws, &["--remote-cache=none", "--config=ci"]), [0, 3, 0]);
}

#[test]
fn caches_that_know_sha256_alone_are_used_too() {
    let (server, _data) = server(&[]);
    let with_sha256 = || {
        let ws = home();
        ws.write("maestro.toml", "digest-function = \"sha256\"\n");
        ws
    };
    let (first, second) = (with_sha256(), with_sha256());
    assert_eq!(build(&first, &[&url(&server)]), [3, 0, 0]);
    assert_eq!(build(&second, &[&url(&server)]), [0, 0, 3]);
    let out = "maestro-out/shared/p/c.out";
    assert_eq!(first.read(out), second.read(out));
    assert_eq!(build(&second, &[]), [0, 3, 0], "nothing is left to do");
    // Neither function finds what belongs to the other.
    second.write("maestro.toml", "");
    assert_eq!(build(&second, &[]), [3, 0, 0]);
    assert_eq!(build(&second, &[]), [0, 3, 0]);
}

#[test]
fn results_of_no_sandbox_stay_here() {
    let (server, _data) = server(&[]);
    let ws = home();
    let run = ws.run(&["build", "//p:c", &url(&server), "--sandbox=none"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("are not shared"), "{}", run.stderr);
    let other = home();
    assert_eq!(build(&other, &[&url(&server)]), [3, 0, 0]);
}

#[test]
fn large_blobs_travel_as_streams() {
    let (server, _data) = server(&[]);
    let make = || {
        let ws = home();
        // Some of it compresses and some does not.
        let mut state = 88_172_645_463_325_252_u64;
        let noise = (0..3_000_000).map(|at: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if at.is_multiple_of(3) { state as u8 } else { b'x' }
        });
        ws.write("p/src.txt", noise.collect::<Vec<u8>>());
        ws
    };
    let (first, second) = (make(), make());
    assert_eq!(build(&first, &[&url(&server)]), [3, 0, 0]);
    assert_eq!(build(&second, &[&url(&server)]), [0, 0, 3]);
    let read = |ws: &Workspace| {
        std::fs::read(ws.root.join("maestro-out/shared/p/c.out")).expect("an output")
    };
    let made = read(&first);
    assert_eq!(made.len(), 6_000_009);
    assert!(made == read(&second));
}

#[test]
fn a_server_that_comes_back_in_mid_build_is_used_again() {
    let (server, data) = server(&[]);
    let address = server.address().to_owned();
    let first = home();
    assert_eq!(build(&first, &[&url(&server)]), [3, 0, 0]);
    server.kill();
    // The same port, a moment later: the client tries again meanwhile.
    let second = home();
    let mut child = second.spawn(&["build", "//p:c", &format!("--remote-cache=grpc://{address}")]);
    let back = Server::start_at(data.path(), &address);
    let ended = poll(Duration::from_secs(60), || child.try_wait().expect("ours").is_some());
    assert!(ended);
    assert!(child.wait().expect("ours").success());
    drop(back);
}
