//! The workspace of docs/guides/migrate-from-bazel.md: the same sources, described once for Bazel
//! and once for Maestro, give the same output.

use std::path::{Path, PathBuf};
use std::process::Command;

use maestro_tests::{Workspace, copy_tree};

const LOUD: &str = "HELLO, BAZEL (VERSION 7)!\n";

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/migrated")
}

#[test]
fn maestro_builds_and_tests_it() {
    let ws = Workspace::new();
    copy_tree(&source(), &ws.root);
    ws.ok(&["build", "//..."]);
    assert_eq!(ws.read("maestro-out/shared/app/loud.txt"), LOUD);
    let summary = ws.ok(&["test", "//..."]);
    assert_eq!(summary["success"], true);
    let run = ws.run(&["run", "//app:hello", "--", "you"]);
    assert_eq!(run.stdout, "Hello, you (version 7)\n");
}

/// Not run by default: Bazel downloads its own rules before it builds anything, and its launcher of
/// Python programs wants a `python` on the `PATH`.
#[test]
#[ignore = "needs Bazel with its rule repositories, and `python`"]
fn bazel_builds_the_same() {
    let ws = Workspace::new();
    copy_tree(&source(), &ws.root);
    let user_root = format!("--output_user_root={}", ws.outside().join("bazel").display());
    let bazel = |args: &[&str]| {
        let mut command = Command::new("bazel");
        command.current_dir(&ws.root).arg(&user_root).args(args);
        command.output().expect("Bazel is installed")
    };
    let built = bazel(&["build", "//app:loud"]);
    let shutdown = bazel(&["shutdown"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    assert!(shutdown.status.success());
    assert_eq!(ws.read("bazel-bin/app/loud.txt"), LOUD);
}

#[test]
fn the_guide_shows_the_files_that_are_built() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/migrate-from-bazel.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    for file in ["lib/BUILD.bazel", "lib/maestro.star", "tools/shout.star"] {
        let text = std::fs::read_to_string(source().join(file)).expect("the file is there");
        assert!(guide.contains(text.trim_end()), "the guide does not show `{file}` as it is");
    }
}
