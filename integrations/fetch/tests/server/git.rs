//! Commits of Git repositories, by the real client.

use std::path::Path;
use std::process::Command;

use maestro_executor::runner::RunError;
use serde_json::{Value, json};

use super::{Client, hex};

fn git(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "tar.umask=0022"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_DATE", "2020-01-01T00:00:00Z")
        .env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository with two commits; gives the first, and its archive.
fn repository(folder: &Path) -> (String, Vec<u8>) {
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(folder.join("a.txt"), "one").expect("a file can be written");
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "one"]);
    let commit = String::from_utf8(git(folder, &["rev-parse", "HEAD"])).expect("hex");
    std::fs::write(folder.join("a.txt"), "two").expect("a file can be written");
    git(folder, &["commit", "--quiet", "-am", "two"]);
    let commit = commit.trim().to_owned();
    let archive = git(folder, &["archive", "--format=tar", &commit]);
    (commit, archive)
}

fn request(folder: &Path, commit: &str, sha256: &str) -> Value {
    let url = format!("git+file://{}#{commit}", folder.display());
    json!({"urls": [url], "sha256": sha256})
}

#[test]
fn a_commit_is_an_archive_with_a_digest_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (commit, archive) = repository(folder.path());
    let client = Client::new();
    client.check(request(folder.path(), &commit, &hex(&archive)), &archive);
    let other = hex(b"other");
    let error = client.fetch(request(folder.path(), &commit, &other)).expect_err("another digest");
    let text = error.to_string();
    assert!(text.contains(&hex(&archive)) && text.contains(&other), "{text}");
    let left = std::fs::read_dir(client.store.scratch_dir()).expect("readable").count();
    assert_eq!(left, 0, "no temporary folder stays");
}

#[test]
fn what_the_repository_does_not_have_is_said_by_git() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    repository(folder.path());
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let client = Client::new();
    let error = client.fetch(request(folder.path(), commit, &hex(b""))).expect_err("no commit");
    assert!(error.to_string().starts_with("git cannot get `git+file://"), "{error}");
    assert!(matches!(error, RunError::Machine { .. }), "{error:?}");
    let nowhere = folder.path().join("nowhere");
    let error = client.fetch(request(&nowhere, commit, &hex(b""))).expect_err("no repository");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn servers_are_not_asked_offline() {
    let mut client = Client::new();
    client.options.offline = true;
    let url = "git+https://127.0.0.1:1/a.git#0123456789abcdef0123456789abcdef01234567";
    client.check_fails(
        json!({"urls": [url], "sha256": hex(b"")}),
        &format!("`{url}` is not in the cache, and downloads are switched off"),
    );
}
