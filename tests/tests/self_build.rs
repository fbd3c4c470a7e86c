//! Maestro builds and tests its own core: the build files at the root of the repository, the rules
//! of Rust, and crates out of what cargo has downloaded.
//!
//! Nothing is installed here: where the toolchain or a crate is missing, the failure says how to
//! get it. All tests share one cache, in which the crates are compiled once.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use maestro_tests::{Workspace, copy_tree, executed};

/// What of the repository the core is built from.
const FILES: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "maestro.star",
    "core/Cargo.toml",
    "core/maestro.star",
    "third_party/crates.star",
    "third_party/maestro.star",
];
const FOLDERS: [&str; 2] = ["core/src", "core/tests"];

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package lies in the repository").to_owned()
}

/// A cache that outlives the tests of this process only.
fn shared_cache() -> &'static Path {
    static CACHE: OnceLock<tempfile::TempDir> = OnceLock::new();
    CACHE.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}

/// The part of the repository that builds the core, in a workspace of its own.
fn own_core() -> Workspace {
    let ws = Workspace::new();
    let root = repository();
    let copy = |path: &Path| {
        let name = path.strip_prefix(&root).expect("below the root");
        ws.write(name.to_str().expect("UTF-8"), std::fs::read(path).expect("it can be read"));
    };
    for file in FILES {
        copy(&root.join(file));
    }
    for folder in FOLDERS {
        copy_tree(&root.join(folder), &ws.root.join(folder));
    }
    ws
}

#[test]
fn the_core_has_a_library_and_a_test_for_each_file_of_tests() {
    let run = own_core().run(&["query", "//core/...", "--label-kind"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let expect = [
        "cargo_library rule //core:core",
        "cargo_test rule //core:graph_test",
        "cargo_test rule //core:key_test",
        "cargo_test rule //core:scheduler_test",
        "cargo_test rule //core:stored_graph_test",
        "cargo_test rule //core:unit_test",
    ];
    assert_eq!(lines, expect);
}

#[test]
fn a_crate_that_cargo_has_not_downloaded_stops_the_build_with_the_command_that_brings_it() {
    let ws = own_core().with_env("CARGO_HOME", "/nonexistent");
    let error = ws.fails(2, &["build", "//:cargo"]);
    assert!(error.contains("cargo fetch --locked"), "{error}");
}

#[test]
fn the_core_passes_its_tests_and_an_edit_compiles_the_core_alone() {
    let ws = own_core().with_cache(&shared_cache().join("cache"));
    let run = ws.run(&["test", "//core/..."]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("PASSED").count(), 5, "{}", run.stderr);
    let again = ws.ok(&["test", "//core/..."]);
    assert_eq!(again["actions"]["executed"], 0, "{again}");

    let source = ws.read("core/src/failure.rs");
    ws.write("core/src/failure.rs", format!("{source}\n// An edit that changes no behaviour.\n"));
    let events = ws.outside().join("events.jsonl");
    ws.ok(&["build", "//core:core", &format!("--events={}", events.display())]);
    assert_eq!(executed(&events), ["//core:core"]);
}
