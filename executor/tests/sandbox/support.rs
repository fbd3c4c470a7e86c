//! A small world for tests of the sandbox: a store, a toolchain of this machine's files, a runner.
//!
//! The toolchain is copied from the host: a shell, the usual tools, and perl, whose `syscall` lets
//! a script try any system call. One world serves a whole test process, as one does in a build.

#![allow(dead_code, unreachable_pub)] // Each test file uses a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use maestro_cas::{Store, StoreOptions};
use maestro_core::depset::Order;
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, Arg, ArtifactId, ArtifactKind, Digest, DigestFunction,
    ExecutionHints, How, Item, Label, Node, Output, RelPath, Target,
};
use maestro_executor::command::{CommandOptions, CommandRunner};
use maestro_executor::runner::{Cancel, Job, Outcome, RunError, Runner, ToolchainMount};

/// Set for a copy of a test program that runs as a normal user, to its scratch folder.
const AS_USER: &str = "MAESTRO_SANDBOX_TEST_AS_USER";
/// The user that tests run as besides root: `nobody`.
const NORMAL_USER: u32 = 65_534;
/// Where the toolchain lies below the cache.
const TOOLCHAIN: &str = "toolchain-of-tests";

/// Everything that one test process shares.
pub struct World {
    dir: PathBuf,
    pub store: Store,
    pub runner: CommandRunner,
    pub unconfined: CommandRunner,
    toolchain: ToolchainMount,
    slots: Mutex<BTreeSet<u32>>,
    slots_made: AtomicU32,
}

/// An action under construction.
pub struct Try<'a> {
    world: &'a World,
    script: String,
    inputs: Vec<(String, Input)>,
    outputs: Vec<(String, ArtifactKind)>,
    env: Vec<(String, String)>,
    timeout_ms: u64,
    test: bool,
    cancel: Cancel,
    unconfined: bool,
    argv: Option<Vec<String>>,
}

enum Input {
    File(Vec<u8>, bool),
    Node(Node),
}

/// The one world of this process.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

/// Runs all tests of this program again as a normal user, if this process is root's.
pub fn again_as_normal_user() {
    if std::env::var_os(AS_USER).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: these tests already run as a normal user");
        return;
    }
    // Programs below root's home cannot be reached by others, so they move.
    let dir = tempfile::tempdir().expect("a folder");
    let own = |path: &Path| {
        std::os::unix::fs::chown(path, Some(NORMAL_USER), Some(NORMAL_USER)).expect("root may");
    };
    own(dir.path());
    let program = dir.path().join("tests");
    let this = std::env::current_exe().expect("a program");
    fs::copy(this, &program).expect("a copy");
    fs::copy(server_program(), dir.path().join("server")).expect("a copy");
    let output = Command::new(&program)
        .args(["--test-threads=2", "--skip", "as_a_normal_user"])
        .env(AS_USER, dir.path())
        .env("TMPDIR", dir.path())
        .uid(NORMAL_USER)
        .gid(NORMAL_USER)
        .current_dir("/")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let erred = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as a normal user:\n{said}\n{erred}");
    assert!(!said.contains("running 0 tests"), "{said}");
}

/// The spawn server to start.
pub fn server_program() -> PathBuf {
    match std::env::var_os(AS_USER) {
        Some(dir) => Path::new(&dir).join("server"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_maestro-spawn-server")),
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("maestro-sandbox-").tempdir().expect("a folder");
        // The world lives as long as the process; what it leaves is removed by `at_exit`.
        let dir = dir.keep();
        remove_at_exit(&dir);
        let root = dir.join("cache");
        let store = Store::open(StoreOptions { root, function: DigestFunction::Blake3 });
        let store = store.expect("a store");
        let path = store.root().join(TOOLCHAIN);
        build_toolchain(&path);
        let options = |profile| CommandOptions {
            program: server_program(),
            slots: 2,
            profile,
            host: Vec::new(),
            workspace: None,
        };
        let runner = CommandRunner::new(&store, options(SandboxProfile::Hermetic));
        let unconfined = CommandRunner::new(&store, options(SandboxProfile::None));
        let root = DigestFunction::Blake3.digest(b"toolchain of tests");
        Self {
            dir,
            store,
            runner,
            unconfined,
            toolchain: ToolchainMount { root, path },
            slots: Mutex::default(),
            slots_made: AtomicU32::new(0),
        }
    }

    /// An action that runs a script of the shell.
    pub fn script(&self, script: &str) -> Try<'_> {
        Try {
            world: self,
            script: script.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            env: Vec::new(),
            timeout_ms: 60_000,
            test: false,
            cancel: Cancel::default(),
            unconfined: false,
            argv: None,
        }
    }

    /// A folder of this process outside of everything that actions may see.
    pub fn outside(&self) -> PathBuf {
        let path = self.dir.join("outside");
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// The text of a blob.
    pub fn text(&self, digest: &Digest) -> String {
        String::from_utf8_lossy(&self.store.read(digest).expect("stored")).into_owned()
    }

    fn take_slot(&self) -> u32 {
        let mut free = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop_first().unwrap_or_else(|| self.slots_made.fetch_add(1, Ordering::Relaxed))
    }

    fn give_slot(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(slot);
    }
}

impl Try<'_> {
    pub fn input(mut self, path: &str, text: &str) -> Self {
        self.inputs.push((path.to_owned(), Input::File(text.as_bytes().to_vec(), false)));
        self
    }

    pub fn program(mut self, path: &str, text: &str) -> Self {
        self.inputs.push((path.to_owned(), Input::File(text.as_bytes().to_vec(), true)));
        self
    }

    pub fn node(mut self, path: &str, node: Node) -> Self {
        self.inputs.push((path.to_owned(), Input::Node(node)));
        self
    }

    pub fn file(mut self, path: &str) -> Self {
        self.outputs.push((path.to_owned(), ArtifactKind::File));
        self
    }

    pub fn tree(mut self, path: &str) -> Self {
        self.outputs.push((path.to_owned(), ArtifactKind::Tree));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    pub fn test(mut self) -> Self {
        self.test = true;
        self
    }

    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    pub fn unconfined(mut self) -> Self {
        self.unconfined = true;
        self
    }

    pub fn argv(mut self, argv: &[&str]) -> Self {
        self.argv = Some(argv.iter().map(|text| (*text).to_owned()).collect());
        self
    }

    /// Runs it.
    pub fn run(self) -> Result<Outcome, RunError> {
        let world = self.world;
        let slot = world.take_slot();
        let outcome = self.run_in(slot);
        world.give_slot(slot);
        outcome
    }

    /// Runs it in a given job slot.
    pub fn run_in(self, slot: u32) -> Result<Outcome, RunError> {
        let Self { world, script, inputs, outputs, env, timeout_ms, test, cancel, .. } = self;
        let mut graph = ActionGraph::default();
        let owner = graph.add_target(target());
        let mut known = Known(HashMap::new());
        let mut direct = Vec::new();
        for (path, input) in inputs {
            let id = graph.source(RelPath::new(&path).expect("valid"));
            let node = match input {
                Input::File(bytes, executable) => {
                    let digest = world.store.put_bytes(&bytes).expect("stored");
                    Node::File { digest, executable }
                }
                Input::Node(node) => node,
            };
            known.0.insert(id, node);
            direct.push(Item::Artifact(id));
        }
        let outputs = outputs
            .into_iter()
            .map(|(path, kind)| {
                let path = RelPath::new(&path).expect("valid");
                let artifact = graph.declare_output(path, kind, owner).expect("new");
                Output { artifact, optional: false }
            })
            .collect();
        let argv = self.argv.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), script]);
        let inputs = graph.sets.add(Order::default(), direct, Vec::new());
        let spec = ActionSpec {
            owner,
            mnemonic: "Test".to_owned(),
            progress: String::new(),
            class: ActionClass::Pure,
            how: How::Command {
                argv: argv
                    .iter()
                    .map(|arg| Arg::One(vec![Item::Text(arg.as_str().into())]))
                    .collect(),
            },
            inputs,
            toolchains: Vec::new(),
            outputs,
            env,
            platform: Vec::new(),
            timeout_ms: Some(timeout_ms),
            hints: ExecutionHints { test, ..ExecutionHints::default() },
        };
        let id = graph.add_action(spec).expect("well formed");
        let inputs = graph.inputs_of(id);
        let function = world.store.function();
        let profile = SandboxProfile::default();
        let prepared = prepare(&graph, function, profile, &graph.action(id), &inputs, &known);
        let prepared = prepared.expect("a key");
        for (digest, bytes) in &prepared.blobs {
            world.store.put_known(digest, bytes).expect("stored");
        }
        let runner = if self.unconfined { &world.unconfined } else { &world.runner };
        runner.run(&Job {
            graph: &graph,
            spec: &graph.action(id),
            files: &[],
            prepared: &prepared,
            store: &world.store,
            slot,
            toolchains: std::slice::from_ref(&world.toolchain),
            cancel: &cancel,
        })
    }

    /// Runs it and returns what it wrote to standard output; it must succeed.
    pub fn stdout(self) -> String {
        let world = self.world;
        let outcome = self.run().unwrap_or_else(|error| panic!("{}", world.explain(&error)));
        outcome.result.stdout_digest.map(|digest| world.text(&digest)).unwrap_or_default()
    }

    /// Runs it and returns its files by path; it must succeed.
    pub fn files(self) -> BTreeMap<String, String> {
        let world = self.world;
        let outcome = self.run().unwrap_or_else(|error| panic!("{}", world.explain(&error)));
        let files = outcome.result.output_files.iter();
        files.map(|file| (file.path.clone(), world.text(&file.digest))).collect()
    }

    /// Runs it and returns the message of its failure, with hints; it must fail.
    pub fn failure(self) -> String {
        let world = self.world;
        match self.run() {
            Ok(outcome) => panic!("it succeeded: {outcome:?}"),
            Err(error) => world.explain(&error),
        }
    }
}

impl World {
    /// An error with its hints and what the action wrote.
    pub fn explain(&self, error: &RunError) -> String {
        let mut out = error.to_string();
        for hint in error.hints() {
            out.push_str(&format!("\nhint: {hint}"));
        }
        if let RunError::Failed { stdout, stderr, .. } | RunError::Timeout { stdout, stderr, .. } =
            error
        {
            for log in [stdout, stderr].into_iter().flatten() {
                out.push_str(&format!("\n{}", self.text(log)));
            }
        }
        out
    }
}

/// The target that all actions belong to.
fn target() -> Target {
    Target {
        label: Label::parse("//p:o", "", "").expect("valid"),
        rule: "test".into(),
        aspect: None,
        location: "maestro.star:1:1".to_owned(),
        deps: Vec::new(),
        files: Vec::new(),
        groups: Vec::new(),
        executable: None,
        test: None,
        tags: Vec::new(),
    }
}

struct Known(HashMap<ArtifactId, Node>);

impl Resolved for Known {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        self.0.get(&artifact).cloned()
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        None
    }
}

const PROGRAMS: &[&str] = &[
    "bash", "cat", "chmod", "cp", "cut", "dash", "date", "env", "grep", "head", "id", "ln", "ls",
    "mkdir", "mkfifo", "mknod", "mount", "mv", "nproc", "perl", "readlink", "rm", "seq", "setsid",
    "sleep", "sort", "stat", "tail", "touch", "tr", "true", "truncate", "umount", "uname",
    "unshare", "wc",
];

/// Copies programs, the libraries that they load, and perl's own modules.
fn build_toolchain(root: &Path) {
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin).expect("a folder");
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let from = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name));
        let from = from.into_iter().find(|path| path.exists());
        let from = from.unwrap_or_else(|| panic!("`{name}` is not installed"));
        fs::copy(&from, bin.join(name)).expect("a copy");
        let listed = Command::new("ldd").arg(&from).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    symlink("dash", bin.join("sh")).expect("a link");
    for library in libraries {
        copy_below(&library, root);
    }
    copy_folder(Path::new("/usr/lib/x86_64-linux-gnu/perl-base"), root);
}

fn copy_below(from: &Path, root: &Path) {
    let path = from.strip_prefix("/").expect("absolute");
    let path = if path.starts_with("usr") { path.to_owned() } else { Path::new("usr").join(path) };
    let to = root.join(path);
    fs::create_dir_all(to.parent().expect("it has one")).expect("a folder");
    fs::copy(from, to).expect("a copy");
}

fn copy_folder(from: &Path, root: &Path) {
    for entry in fs::read_dir(from).expect("perl-base is installed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { copy_folder(&path, root) } else { copy_below(&path, root) }
    }
}

/// Removes `dir` when this process has ended, however it does: a shell waits for its pipe to close.
fn remove_at_exit(dir: &Path) {
    let child = Command::new("/bin/sh")
        .args(["-c", "read -r x; exec rm -rf -- \"$0\""])
        .arg(dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell");
    // Its standard input stays open in this process until the end.
    std::mem::forget(child);
}

/// Numbers of all processes on this machine whose command line contains `mark`.
pub fn processes_with(mark: &str) -> Vec<u32> {
    let numbers = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
        })
        .collect()
}

/// A word that stands in no other process's command line.
pub fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("mark-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Polls until `condition` holds; fails after a generous limit.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
    }
}

/// The inode, mode and size of a file, to see that nobody touched it.
pub fn fingerprint(path: &Path) -> (u64, u32, u64, i64) {
    let metadata = path.metadata().expect("it is there");
    (metadata.ino(), metadata.permissions().mode(), metadata.size(), metadata.mtime_nsec())
}

/// Whether a path ends in a name; for `ls` of what leaked.
pub fn is_named(path: &Path, name: &str) -> bool {
    path.file_name() == Some(OsStr::new(name))
}
