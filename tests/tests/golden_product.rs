//! The golden product, built as a user would: every promise of the main job, on the binary.
//!
//! The tests share one cache, so that the product is compiled once; each has a copy of the
//! workspace of its own.

#[path = "../../integrations/deliver/tests/support/caddy.rs"]
mod caddy;
#[path = "golden_product/pipeline.rs"]
mod pipeline;
#[path = "../../integrations/deliver/tests/support/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Once, OnceLock};
use std::time::Duration;

use maestro_tests::{Workspace, copy_tree, executed, golden_workspace, keys, poll};
use serde_json::Value;

/// The cache of all tests of this process; what an earlier one left is removed first.
fn shared_cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-product");
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("ours");
        }
        path
    })
}

fn workspace() -> Workspace {
    golden_workspace().with_cache(shared_cache())
}

/// A copy of the product, whose release is in the cache already.
fn product() -> Workspace {
    // The first test builds and the others wait, rather than compile the same things beside it.
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        workspace().ok(&["build", "//intelgraph:release"]);
    });
    workspace()
}

fn build(ws: &Workspace, label: &str) -> (Vec<String>, Value) {
    let events = ws.outside().join("events.jsonl");
    let summary = ws.ok(&["build", label, &format!("--events={}", events.display())]);
    (executed(&events), summary)
}

fn edit(ws: &Workspace, path: &str, from: &str, to: &str) {
    let text = ws.read(path);
    assert!(text.contains(from), "`{path}` no longer has `{from}`");
    ws.write(path, text.replacen(from, to, 1));
}

#[test]
fn the_release_builds_and_a_second_build_does_nothing() {
    let ws = product();
    let (_, summary) = build(&ws, "//intelgraph:release");
    assert_eq!(summary["success"], true);
    assert!(summary["actions"]["locked"].as_u64() >= Some(2), "{summary}");
    assert_eq!(summary["cost_usd_micros"], 0);
    let second = ws.ok(&["build", "//intelgraph:release"]);
    assert_eq!(second["actions"]["executed"], 0);
    assert_eq!(second["targets"], summary["targets"]);
}

#[test]
fn every_test_of_the_product_passes() {
    let ws = product();
    let run = ws.run(&["test", "//intelgraph/...", "--output=json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.matches("PASSED").count() >= 10, "{}", run.stderr);
    let again = ws.run(&["test", "//intelgraph/..."]);
    assert_eq!(again.code, 0);
    assert!(again.stderr.contains("(cached)"), "{}", again.stderr);
}

#[test]
fn an_edit_in_cpp_runs_what_depends_on_it_and_no_model() {
    let ws = product();
    build(&ws, "//intelgraph:release");
    edit(&ws, "intelgraph/kernel/paths.cc", "\n", "\n// An edit that changes no behaviour.\n");
    let (ran, summary) = build(&ws, "//intelgraph:release");
    assert!(ran.iter().any(|label| label.contains("kernel:paths")), "{ran:?}");
    assert!(!ran.iter().any(|label| label.contains("kernel:text")), "{ran:?}");
    assert!(summary["actions"]["locked"].as_u64() >= Some(2), "{summary}");
    let run = ws.run(&["explain", "//intelgraph:release"]);
    assert!(run.stdout.contains("intelgraph/kernel/paths.cc"), "{}", run.stdout);
    assert!(!run.stdout.contains("text.cc"), "{}", run.stdout);
}

#[test]
fn an_edit_of_the_client_runs_its_own_steps_until_nothing_differs() {
    let ws = product();
    build(&ws, "//intelgraph:release");
    // The bundle has no comments, so that the release stays as it is.
    edit(&ws, "intelgraph/client/src/layout.ts", "// Where", "// An edit. Where");
    let (ran, _) = build(&ws, "//intelgraph:release");
    // For both, the tree that the step sees, and the step.
    let [bundle, client] = ["//intelgraph/client:bundle", "//intelgraph/client:client"];
    assert_eq!(ran, [bundle, bundle, client, client]);
}

#[test]
fn what_was_downloaded_once_needs_no_network_again() {
    let ws = product();
    let alone: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--net"],
        false => &["--user", "--map-current-user", "--net"],
    };
    let run = Command::new("unshare")
        .args(alone)
        .arg(maestro_tests::maestro_bin())
        .args(["build", "//intelgraph:release", "--locked", "--output=json"])
        .current_dir(&ws.root)
        .env("MAESTRO_CACHE", &ws.cache)
        .env("npm_config_cache", ws.outside().join("empty"))
        .output()
        .expect("unshare runs");
    let run = maestro_tests::Run::of(run);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.json()["actions"]["executed"], 0);
}

#[test]
fn an_edit_of_the_patch_stops_the_build_and_says_how_to_go_on() {
    let ws = product();
    build(&ws, "//intelgraph:release");
    let patch = ws.read("intelgraph/changes.patch");
    ws.write("intelgraph/changes.patch", format!("{patch}\n"));
    let error = ws.fails(1, &["build", "//intelgraph:release"]);
    for part in ["//intelgraph:test_plan", "intelgraph/changes.patch", "maestro lock --update"] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    ws.write("intelgraph/changes.patch", patch);
    assert_eq!(build(&ws, "//intelgraph:release").1["success"], true);
}

#[test]
fn an_answer_to_an_older_input_is_used_on_demand_only_and_marked() {
    let ws = product();
    let patch = ws.read("intelgraph/changes.patch");
    ws.write("intelgraph/changes.patch", format!("{patch}\n"));
    let run = ws.run(&["build", "//intelgraph:test_plan", "--stale-records=allow"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("`//intelgraph:test_plan` is stale"), "{}", run.stderr);
    let run = ws.run(&["provenance", "//intelgraph:test_plan"]);
    assert!(run.stdout.contains("\"stale\": true"), "{}", run.stdout);
    ws.fails(1, &["build", "//intelgraph:test_plan"]);
}

#[test]
fn recorded_steps_depend_on_sources_only() {
    let ws = product();
    let run = ws.run(&["lock", "--check"]);
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    // Another machine: its package database, hence every toolchain's fingerprint, is another.
    let script = "mount -t tmpfs none /var/lib/dpkg && exec \"$0\" lock --check";
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(maestro_tests::maestro_bin())
        .current_dir(&ws.root)
        .env("MAESTRO_CACHE", &ws.cache)
        .output()
        .expect("unshare runs");
    let run = maestro_tests::Run::of(run);
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    let sources = ws.run(&["query", "deps(//intelgraph:test_plan)", "--label-kind"]);
    assert_eq!(sources.code, 0, "{}", sources.stderr);
    for line in sources.stdout.lines() {
        assert!(!line.contains("toolchain"), "a recorded step hangs on {line}");
    }
}

#[test]
fn a_null_build_opens_nothing_but_its_snapshot() {
    let ws = product();
    ws.ok(&["build", "//intelgraph:release"]);
    // Files younger than the racy window are read once more; give the snapshot a second look.
    poll(Duration::from_millis(2500), || false);
    ws.ok(&["build", "//intelgraph:release"]);
    let trace = ws.outside().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-e", "trace=openat,open,openat2,creat", "-o"])
        .arg(&trace)
        .arg(maestro_tests::maestro_bin())
        .args(["build", "//intelgraph:release"])
        .current_dir(&ws.root)
        .env("MAESTRO_CACHE", &ws.cache)
        .env_remove("CI")
        .output()
        .expect("strace is installed: `apt-get install strace`");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let trace = std::fs::read_to_string(&trace).expect("strace wrote it");
    let opened: Vec<&str> = trace.lines().filter(|line| !line.contains("ENOENT")).collect();
    for line in &opened {
        let folder = line.contains("O_DIRECTORY") || line.contains("O_PATH");
        assert!(!line.contains(".star"), "a build file was opened: {line}");
        assert!(!line.contains("/index"), "a database was opened: {line}");
        let source = line.contains(".cc\"") || line.contains(".py\"") || line.contains(".csv\"");
        assert!(folder || !source, "a source was read: {line}");
        let writes = line.contains("O_WRONLY") || line.contains("O_RDWR");
        assert!(!writes || line.contains("/dev/"), "something is written: {line}");
    }
}

/// Unpacks the release's image as the product's README says, into an empty folder.
const UNPACK: &str = r#"
set -eu
mkdir "$2/layout" "$2/root"
tar -xf "$1/maestro-out/shared/intelgraph/release/intelgraph-image.tar" -C "$2/layout"
python3 "$1/layers.py" "$2/layout" >"$2/layers"
while read -r layer; do tar -xzf "$layer" -C "$2/root"; done <"$2/layers"
"#;

#[test]
fn the_image_serves_from_an_empty_folder() {
    let ws = product();
    build(&ws, "//intelgraph:release");
    let unpack = Command::new("sh")
        .args(["-c", UNPACK, "unpack"])
        .args([&ws.root, ws.outside()])
        .output()
        .expect("a shell runs");
    assert!(unpack.status.success(), "{}", String::from_utf8_lossy(&unpack.stderr));
    let root = ws.outside().join("root");
    let log = ws.outside().join("service.log");
    let out = std::fs::File::create(&log).expect("a file can be made");
    // Chroot in namespaces of its own, so that it works for a normal user and leaves no process.
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "chroot"])
        .arg(&root)
        .args(["/usr/bin/python3", "-B", "/app/main.py", "--port", "0"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdout(out.try_clone().expect("a file"))
        .stderr(out)
        .spawn()
        .expect("unshare runs");
    let port = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail = text.lines().next()?.rsplit(':').next()?.to_owned();
        tail.trim_end_matches('/').parse::<u16>().ok()
    };
    let up = poll(Duration::from_secs(60), || port().is_some());
    let answers = port().map(|port| [get(port, "/health"), get(port, "/entities?q=a")]);
    child.kill().expect("our child");
    child.wait().expect("our child");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(up, "the service never said where it listens:\n{text}");
    for answer in answers.into_iter().flatten() {
        assert!(answer.contains(" 200 ") && answer.contains('{'), "{answer}\n{text}");
    }
}

fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text); // what came until the limit is judged
    text
}

#[test]
fn offline_and_locked_from_an_empty_cache() {
    let ws = golden_workspace(); // with a cache of its own
    // Root needs no user namespace for this, and has no user to run actions as in one of its own.
    let alone: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--net"],
        false => &["--user", "--map-current-user", "--net"],
    };
    let run = Command::new("unshare")
        .args(alone)
        .arg(maestro_tests::maestro_bin())
        .args(["build", "//intelgraph:offline", "--locked", "--output=json"])
        .current_dir(&ws.root)
        .env("MAESTRO_CACHE", &ws.cache)
        .output()
        .expect("unshare runs");
    let run = maestro_tests::Run::of(run);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.json()["cost_usd_micros"], 0);
}

/// Makes every build file below `dir` load its rules from `//tools/rules`.
fn use_copied_rules(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            use_copied_rules(&path);
        } else if path.extension().is_some_and(|extension| extension == "star") {
            let text = std::fs::read_to_string(&path).expect("text");
            let text = text.replace("@maestro//rules:", "//tools/rules:");
            std::fs::write(&path, text).expect("ours");
        }
    }
}

#[test]
fn built_in_rules_that_are_copied_give_the_same_keys() {
    let ws = product();
    let events = ws.outside().join("events.jsonl");
    let flag = format!("--events={}", events.display());
    ws.ok(&["test", "//intelgraph/...", &flag]);
    let built_in = keys(&events);
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/library");
    let copy = ws.root.join("tools/rules");
    copy_tree(&library, &copy);
    std::fs::remove_dir_all(copy.join("toolchains")).expect("ours");
    ws.write("tools/rules/maestro.star", "");
    use_copied_rules(&ws.root);
    assert!(ws.read("intelgraph/maestro.star").contains("//tools/rules:llm.star"));
    let summary = ws.ok(&["test", "//intelgraph/...", &flag]);
    assert_eq!(summary["actions"]["executed"], 0);
    assert_eq!(keys(&events), built_in);
}

#[test]
fn provenance_names_sources_toolchains_and_models() {
    let ws = product();
    build(&ws, "//intelgraph:release");
    let run = ws.run(&["provenance", "//intelgraph:release"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let statement = run.stdout;
    for part in [
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
        "intelgraph/kernel/paths.cc",
        "smollm2",
    ] {
        assert!(statement.contains(part), "no `{part}` in:\n{statement}");
    }
}
