//! Several processes on one cache, killed at any time.
//!
//! The test binary starts itself again as a child: the environment variable [`ROLE`] says what
//! the child does, and the child runs only the test named [`CHILD`].

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maestro_cas::{GcOptions, Store, StoreOptions};
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{ActionKey, Digest, DigestFunction};

const ROLE: &str = "MAESTRO_CAS_TEST_ROLE";
const ROOT: &str = "MAESTRO_CAS_TEST_ROOT";
const CHILD: &str = "runs_as_a_child_only";
const ACTIONS: u64 = 64;

fn open(root: &Path) -> Store {
    let options = StoreOptions { root: root.to_owned(), function: DigestFunction::Blake3 };
    Store::open(options).expect("the store opens whatever happened to it")
}

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", CHILD, "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

/// How many children are killed at least, however slow the machine is.
const KILLS_MIN: u32 = 20;

/// What an action makes: a few blobs, some of them shared with other actions.
fn content(action: u64) -> Vec<Vec<u8>> {
    let own = format!("output of {action} ").repeat(200).into_bytes();
    let shared = format!("shared by {} ", action / 4).repeat(50).into_bytes();
    vec![own, shared, b"log".to_vec()]
}

fn key(action: u64) -> ActionKey {
    ActionKey(DigestFunction::Blake3.digest(format!("action {action}").as_bytes()))
}

/// One build: looks each action up, runs those that miss, and reads what it got.
fn build(store: &Store, start: u64) {
    let _lease = store.lease().expect("a lease");
    let mut made: Vec<(u64, Digest)> = Vec::new();
    for action in (0..ACTIONS).map(|n| (n * 7 + start) % ACTIONS) {
        let result = match store.action_result(&key(action)).expect("looked up") {
            Some(result) => result,
            None => run(store, action),
        };
        for (file, bytes) in result.output_files.iter().zip(content(action)) {
            // The lease began before the lookup, so that collection leaves this alone.
            assert_eq!(store.read(&file.digest).expect("a hit is usable"), bytes);
            made.push((action, file.digest));
        }
    }
    for (action, digest) in made {
        assert!(store.contains(&digest), "an output of {action} went during the build");
    }
    store.seal_epoch().expect("sealed");
}

fn run(store: &Store, action: u64) -> ActionResult {
    let output = |(n, bytes): (usize, Vec<u8>)| OutputFile {
        path: format!("out/{n}"),
        digest: store.put_bytes(&bytes).expect("stored"),
        is_executable: false,
    };
    let output_files = content(action).into_iter().enumerate().map(output).collect();
    let worker = "local".to_owned();
    let result = ActionResult { output_files, worker, ..ActionResult::default() };
    store.put_action_result(&key(action), &result).expect("stored");
    result
}

#[test]
fn runs_as_a_child_only() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let root = std::env::var_os(ROOT).expect("set by the parent");
    let seed = u64::from(std::process::id());
    for round in 0.. {
        let store = open(Path::new(&root));
        match role.as_str() {
            "build" => build(&store, seed + round),
            "collect" => {
                let options = GcOptions { bytes_max: Some(40_000), age_ms_max: None };
                match store.gc(options) {
                    Ok(_) | Err(maestro_cas::StoreError::Busy { .. }) => {}
                    Err(error) => panic!("collection failed: {error:?}"),
                }
            }
            "build once" => return build(&store, seed),
            other => panic!("no role `{other}`"),
        }
    }
}

/// Builds and collections run at once and are killed again and again. Each child asserts that
/// its hits are usable; one that fails ends by itself, which the parent sees.
#[test]
fn builds_and_collections_that_are_killed_leave_a_clean_store() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("cache");
    open(&root);
    let roles = ["build", "build", "build", "collect", "collect"];
    let mut children: Vec<Child> = roles.iter().map(|role| spawn(role, &root)).collect();
    let end = Instant::now() + Duration::from_secs(6);
    let mut kills = 0;
    while Instant::now() < end || kills <= KILLS_MIN {
        for (role, child) in roles.iter().zip(&mut children) {
            // The wait between two kills is what is tested, not a wait for something.
            std::thread::sleep(Duration::from_millis(60));
            let early = child.try_wait().expect("asked");
            assert_eq!(early, None, "a child of role `{role}` failed");
            child.kill().expect("killed");
            child.wait().expect("waited");
            *child = spawn(role, &root);
            kills += 1;
        }
    }
    for child in &mut children {
        assert_eq!(child.try_wait().expect("asked"), None, "a child failed");
        child.kill().expect("killed");
        child.wait().expect("waited");
    }
    let store = open(&root);
    store.put_bytes(b"so that there is something to seal").expect("stored");
    build(&store, 0);
    let report = store.verify(false).expect("verified");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.results, ACTIONS);
    let stats = store.stats().expect("counted");
    assert_eq!((stats.quarantined, stats.suspects, stats.leases), (0, 0, 0));
    let scratch = std::fs::read_dir(root.join("scratch")).expect("listed").count();
    assert!(scratch <= 2, "scratch of dead processes stays: {scratch}");
    // Each sealed epoch took those of the dead with it.
    let epochs = std::fs::read_dir(root.join("epochs")).expect("listed").count();
    assert_eq!(epochs, 0);
}

#[test]
fn a_writer_that_is_killed_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("cache");
    for _ in 0..5 {
        let mut child = spawn("build once", &root);
        // Long enough to be in the middle of it; any moment is a test.
        std::thread::sleep(Duration::from_millis(20));
        child.kill().expect("killed");
        child.wait().expect("waited");
        let store = open(&root);
        assert!(store.verify(false).expect("verified").is_clean());
        build(&store, 0);
        assert!(store.verify(false).expect("verified").is_clean());
    }
}
