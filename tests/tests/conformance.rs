//! `maestro conformance`: how our own server does, and another one of the world.
//!
//! What each line comes to is golden, in `golden/conformance`; a line that changes its verdict is a
//! change of behaviour, here or there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use maestro_tests::cache_server::Server;
use maestro_tests::worker::Worker;
use maestro_tests::{maestro_bin, poll};
use serde_json::Value;

fn conformance(arguments: &[&str]) -> Output {
    let mut command = Command::new(maestro_bin());
    command.arg("conformance").args(arguments).output().expect("the binary can be started")
}

fn report(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = conformance(&[arguments, &["--report=json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {said}")))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value}"))
}

/// One line for each check, compared with a golden file or written to it.
fn golden(name: &str, report: &Value) {
    let path = golden_folder().join(name);
    let checks = report["checks"].as_array().expect("checks");
    let line = |check: &Value| {
        let [id, verdict, title] = ["id", "verdict", "title"].map(|field| text(check, field));
        format!("{id} {verdict} {title}\n")
    };
    same(&path, &checks.iter().map(line).collect::<String>(), report);
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/conformance")
}

/// Compares with a file, or writes it where `MAESTRO_BLESS` is set.
fn same(path: &Path, got: &str, report: &Value) {
    if std::env::var_os("MAESTRO_BLESS").is_some() {
        std::fs::write(path, got).expect("a file can be written");
    }
    let want = std::fs::read_to_string(path).unwrap_or_default();
    let path = path.display();
    assert_eq!(got, want, "`{path}` differs; `cargo xtask bless` writes it\n{report:#}");
}

/// The verdicts of a golden file, with id and title.
fn verdicts(name: &str) -> Vec<(String, String, String)> {
    let lines = std::fs::read_to_string(golden_folder().join(name)).expect("a golden file");
    let words = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let mut next = || words.next().expect("id, verdict and title");
        (next(), next(), next())
    };
    lines.lines().map(words).collect()
}

/// The table of docs/conformance.md: lines by servers.
fn table() -> String {
    let [ours, casd, grid] = ["maestro.txt", "buildbox-casd.txt", "buildgrid.txt"].map(verdicts);
    let mut table = String::from(
        "| line | says | Maestro | buildbox-casd | BuildGrid |\n|---|---|---|---|---|\n",
    );
    for (ours, (casd, grid)) in ours.iter().zip(casd.iter().zip(&grid)) {
        assert_eq!((&ours.0, &ours.0), (&casd.0, &grid.0), "the same lines in the same order");
        let (id, verdict, title) = ours;
        table.push_str(&format!("| {id} | {title} | {verdict} | {} | {} |\n", casd.1, grid.1));
    }
    table
}

#[test]
fn servers_are_judged_as_they_were() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(&data.path().join("server"), &[]);
    let worker = data.path().join("worker");
    let _worker = Worker::start(server.address(), &worker, "worker", &[]);
    let endpoint = format!("grpc://{}", server.address());
    let (code, ours) = report(&[&endpoint]);
    golden("maestro.txt", &ours);
    assert_eq!((code, &ours["counts"]["failed"]), (Some(0), &Value::from(0)), "{ours:#}");
    assert_eq!((text(&ours, "endpoint"), &ours["version"]), (endpoint.as_str(), &Value::from(1)));
    assert_eq!(ours["digest_functions"], serde_json::json!(["sha256", "blake3"]));
    let casd = Casd::start();
    let (code, other) = report(&[&format!("grpc://{}", casd.address)]);
    golden("buildbox-casd.txt", &other);
    assert_eq!(code, Some(1), "{other:#}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let old = std::fs::read_to_string(&page).expect("the page");
    let (head, rest) = old.split_once("| line |").expect("a table");
    let (_, tail) = rest.split_once("\n\n").expect("something behind it");
    same(&page, &format!("{head}{}\n{tail}", table()), &ours);
    for check in ours["checks"].as_array().expect("checks") {
        let (id, verdict, detail) =
            (text(check, "id"), text(check, "verdict"), text(check, "detail"));
        assert_eq!(verdict == "passed", detail.is_empty(), "{check}");
        let said = old.contains(&format!("\n- **{id}**: "));
        assert_eq!(verdict == "policy", said, "{id}: docs/conformance.md says why");
    }
}

#[test]
fn an_instance_and_a_token_are_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "0123456789abcdef a/b read-write\n").expect("a file can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).expect("our file");
    let flag = format!("--tokens={}", tokens.display());
    let server = Server::start(&folder.path().join("data"), &[&flag]);
    let endpoint = format!("grpc://{}", server.address());
    let header = "--remote-header=Authorization=Bearer 0123456789abcdef";
    let output = conformance(&[&endpoint, "--instance=a/b", header, "--only=C07,K"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("  C07  passed") && said.contains("  K03  passed"), "{said}");
    let counts = "4 passed, 0 policy, 0 not-offered, 0 failed";
    let end = format!("\n{counts}; REAPI 2.0 to 2.12 with sha256 and blake3\n");
    assert!(said.ends_with(&end), "{said}");
    let stranger = conformance(&[&endpoint, "--instance=a/b"]);
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert_eq!(stranger.status.code(), Some(3), "{said}");
    assert!(said.contains("does not answer `GetCapabilities`"), "{said}");
    assert!(said.contains("this server needs a token"), "{said}");
}

#[test]
fn what_cannot_be_checked_says_why() {
    let check = |arguments: &[&str], code: i32, expect: &str| {
        let output = conformance(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expect) && output.stdout.is_empty(), "{arguments:?}: {said}");
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = format!("grpc://{}", listener.local_addr().expect("an address"));
    drop(listener);
    check(&[&gone], 3, &format!("cannot reach `{gone}`"));
    check(&["http://127.0.0.1:1"], 2, "is not `grpc://HOST:PORT` or `grpcs://HOST:PORT`");
    check(&[&gone, "--instance=a//b"], 2, "cannot stand in an instance name");
    check(&[&gone, "--only=C01,X99"], 2, "`X99` is not the id of a line");
    check(&[&gone, "--remote-header=x"], 2, "is not `--remote-header=NAME=VALUE`");
}

/// buildbox-casd, with a folder of its own.
struct Casd {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Casd {
    fn start() -> Self {
        let programs = std::env::var_os("MAESTRO_BUILDBOX").map(std::path::PathBuf::from);
        let programs = programs.expect("`MAESTRO_BUILDBOX` is set; `cargo xtask test` sets it");
        let folder = tempfile::tempdir().expect("a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(programs.clone()).chain(std::env::split_paths(&path)),
        );
        let runner = format!("--buildbox-run={}", programs.join("buildbox-run").display());
        // It says nowhere which port it took, so it is told one that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let mount = |path: &str| format!("--runner-arg=--bind-mount={path}:{path}");
        let child = Command::new(programs.join("buildbox-casd"))
            .arg(format!("--bind={address}"))
            .arg(runner)
            .args(["/usr", "/bin", "/lib", "/lib64"].map(mount))
            .args(["--jobs=2", "--quota-high=1G"])
            .arg(folder.path().join("cache"))
            .env("PATH", path.expect("a folder of `PATH` has no colon"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("buildbox-casd can be started");
        let casd = Self { child, address, _folder: folder };
        let up = || std::net::TcpStream::connect(&casd.address).is_ok();
        assert!(poll(Duration::from_secs(30), up), "buildbox-casd does not listen");
        casd
    }
}

impl Drop for Casd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
