//! What end-to-end tests share: a workspace in a temporary folder, the binary, its answers.
//!
//! Tests of the binary take it from `MAESTRO_BIN`, which `cargo xtask test` sets.

pub mod cache_server;
pub mod file_server;
pub mod guide;
pub mod scene;
pub mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
///
/// # Panics
/// Where `MAESTRO_BIN` is not set: end-to-end tests without a binary would prove nothing.
pub fn maestro_bin() -> PathBuf {
    let bin = std::env::var_os("MAESTRO_BIN").expect(
        "MAESTRO_BIN must name the binary under test; `cargo xtask test` builds it and sets this",
    );
    PathBuf::from(bin)
}

/// A workspace and a cache of its own.
pub struct Workspace {
    dir: TempDir,
    /// The workspace's root.
    pub root: PathBuf,
    /// `$CACHE`.
    pub cache: PathBuf,
    env: BTreeMap<String, String>,
}

/// The end of a run of the binary.
#[derive(Debug)]
pub struct Run {
    /// The exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// An empty workspace below `parent`.
    pub fn new_in(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).expect("a temporary folder can be made");
        // The sandbox's user must be able to reach the cache when tests run as root.
        open_for_all(dir.path());
        let root = dir.path().join("ws");
        std::fs::create_dir(&root).expect("a folder can be made");
        let cache = dir.path().join("cache");
        let workspace = Self { dir, root, cache, env: BTreeMap::new() };
        workspace.write("maestro.toml", "");
        workspace
    }

    /// The folder that holds workspace and cache.
    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Uses another cache.
    pub fn with_cache(mut self, cache: &Path) -> Self {
        self.cache = cache.to_owned();
        self
    }

    /// Sets an environment variable for every run.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Those variables.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Writes a file and the folders above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().expect("not the root"))
            .expect("a folder can be made");
        std::fs::write(&path, content).expect("a file can be written");
    }

    /// Reads a file of the workspace.
    pub fn read(&self, path: &str) -> String {
        let path = self.root.join(path);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("cannot read `{}`: {e}", path.display()))
    }

    /// The command with everything but its arguments set.
    pub fn command(&self) -> Command {
        let mut command = Command::new(maestro_bin());
        command
            .current_dir(&self.root)
            .env_remove("CI")
            .env_remove("MAESTRO_LOG")
            .env("MAESTRO_CACHE", &self.cache)
            .envs(&self.env)
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command().args(args).output().expect("the binary can be started"))
    }

    /// Starts the binary.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command()
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started")
    }

    /// Runs and expects success; returns the JSON object that ends standard output.
    pub fn ok(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--output=json");
        let run = self.run(&all);
        assert_eq!(run.code, 0, "`maestro {}` failed:\n{}", args.join(" "), run.stderr);
        run.json()
    }

    /// Runs and expects this exit code; returns standard error.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(
            run.code,
            code,
            "`maestro {}` ended otherwise:\n{}\n{}",
            args.join(" "),
            run.stdout,
            run.stderr
        );
        run.stderr
    }

    /// Writes a graph file and runs it; see docs/design/exec-graph.md.
    pub fn write_graph(&self, graph: &Value) {
        let mut graph = graph.clone();
        if graph.get("toolchains").is_none() {
            graph["toolchains"] = serde_json::json!({"base": base_toolchain()});
        }
        self.write("graph.json", serde_json::to_vec_pretty(&graph).expect("JSON can be written"));
    }

    /// Runs `graph.json` and returns (executed labels in order, summary).
    pub fn exec(&self) -> (Vec<String>, Value) {
        let events = self.outside().join("events.jsonl");
        let events_arg = format!("--events={}", events.display());
        let summary = self.ok(&["exec", "graph.json", &events_arg]);
        (executed(&events), summary)
    }
}

/// The user that [`Workspace::command_as_user`] runs as where the tests run as root.
const USER: &str = "12345";

impl Workspace {
    /// A command of a user who is not root, in the workspace: `program` and its arguments follow.
    /// Everything below [`Self::outside`] belongs to that user from then on.
    pub fn command_as_user(&self) -> Command {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|metadata| {
            use std::os::unix::fs::MetadataExt;
            metadata.uid() == 0
        });
        let mut command = if is_root {
            let owner = format!("{USER}:{USER}");
            let status = Command::new("chown").args(["-R", &owner]).arg(self.outside()).status();
            assert!(status.is_ok_and(|status| status.success()), "`chown` failed");
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={USER}"), &format!("--regid={USER}")]);
            command.args(["--clear-groups", "--"]);
            command
        } else {
            Command::new("env")
        };
        command
            .current_dir(&self.root)
            .env_remove("CI")
            .env_remove("MAESTRO_LOG")
            .env("MAESTRO_CACHE", &self.cache)
            .stdin(Stdio::null());
        command
    }

    /// The binary under test, where every user can reach it.
    pub fn reachable_bin(&self) -> PathBuf {
        let copy = self.outside().join("maestro-bin");
        if !copy.exists() {
            std::fs::copy(maestro_bin(), &copy).expect("the binary can be copied");
        }
        copy
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Run {
    /// The end of a finished process.
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The JSON object on the last line of standard output.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("no JSON ({e}) in:\n{}\n{}", self.stdout, self.stderr))
    }
}

/// A copy of the golden product's workspace, with a cache of its own.
pub fn golden_workspace() -> Workspace {
    let ws = Workspace::new();
    copy_tree(&golden_source(), &ws.root);
    ws
}

/// Where the golden product lies.
pub fn golden_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/intelgraph")
}

/// Makes a cache of npm in `cache` with what the user's has of the golden product's packages, so
/// that another user finds them too.
///
/// # Panics
/// Where npm is not installed.
pub fn npm_downloads(cache: &Path) {
    let asked = Command::new("npm").args(["config", "get", "cache"]).output().expect("npm runs");
    let from = String::from_utf8(asked.stdout).expect("a path");
    let lock = golden_source().join("intelgraph/client/package-lock.json");
    let lock: Value =
        serde_json::from_slice(&std::fs::read(lock).expect("a lock file")).expect("JSON");
    let packages = lock["packages"].as_object().expect("packages");
    for integrity in packages.values().filter_map(|package| package["integrity"].as_str()) {
        let base64 = integrity.strip_prefix("sha512-").expect("a SHA-512");
        let hash = STANDARD.decode(base64).expect("base64");
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("_cacache/content-v2/sha512/{}/{}/{}", &hex[..2], &hex[2..4], &hex[4..]);
        let (from, to) = (Path::new(from.trim()).join(&path), cache.join(&path));
        // Packages of other systems are not there.
        if from.is_file() {
            std::fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
            std::fs::copy(from, to).expect("the file can be copied");
        }
    }
}

/// Copies a folder without what was built in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the entry can be read");
        if entry.file_name() == "maestro-out" {
            continue;
        }
        let (path, dest) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &dest);
        } else {
            std::fs::copy(&path, &dest).expect("the file can be copied");
        }
    }
}

/// Polls until `done` says so or the time is over; tells whether it did.
pub fn poll(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    done()
}

/// A small toolchain: a shell and the core utilities.
pub fn base_toolchain() -> Value {
    serde_json::json!({"packages": ["dash", "coreutils", "grep", "sed"]})
}

/// The labels of executed actions in an events file, sorted.
pub fn executed(events: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(events).expect("events were written");
    let mut labels: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"))
        .filter(|e| e["event"] == "action-finished" && e["outcome"] == "executed")
        .map(|e| e["label"].as_str().expect("a label").to_owned())
        .collect();
    labels.sort();
    labels
}

/// One action of a graph file that runs a shell script.
pub fn shell(label: &str, script: &str, inputs: &[&str], outputs: &[&str]) -> Value {
    serde_json::json!({
        "label": label,
        "command": ["/bin/sh", "-c", script],
        "inputs": inputs,
        "outputs": outputs,
        "toolchains": ["base"],
    })
}

/// The keys of the actions of an events file, sorted; equal actions have equal keys.
pub fn keys(events: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(events).expect("events were written");
    let events = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let finished = events.filter(|event: &Value| event["event"] == "action-finished");
    let mut keys: Vec<String> = finished.map(|event| event["key"].to_string()).collect();
    keys.sort();
    keys
}

/// Every file below `dir` by its path there, sorted, with its bytes.
pub fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(folder) = stack.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() && !path.is_symlink() {
                stack.push(path);
            } else if !path.is_symlink() {
                let bytes = std::fs::read(&path).expect("the file can be read");
                found.push((path.strip_prefix(dir).unwrap_or(&path).to_owned(), bytes));
            }
        }
    }
    found.sort();
    found
}

fn open_for_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).expect("permissions can be set");
}
