//! Packages of npm: the client's cache first, then the registry that it is configured to use.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maestro_executor::runner::RunError;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::{Client, Server, ok, status};

fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(bytes)))
}

fn request(package: &str, bytes: &[u8]) -> Value {
    json!({"urls": [format!("npm:{package}")], "integrity": integrity(bytes)})
}

/// A client whose npm says that it is configured like this.
fn client(folder: &Path, config: &Value) -> Client {
    let text = folder.join("npm.txt");
    let script = format!("#!/bin/sh\ncat <<'END'\n{config}\nEND\n");
    std::fs::write(&text, script).expect("a file can be written");
    let program = folder.join("npm");
    // Written by another process, since a file that is open here cannot be run by other threads.
    let status = Command::new("install").args(["-m", "755"]).args([&text, &program]).status();
    assert!(status.expect("install runs").success());
    let mut client = Client::new();
    client.options.npm.program = program;
    client.options.npm.folder = Some(folder.to_owned());
    client
}

/// Where npm keeps a file.
fn cached(cache: &Path, bytes: &[u8]) -> PathBuf {
    let hex: String = Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    cache.join("_cacache/content-v2/sha512").join(&hex[..2]).join(&hex[2..4]).join(&hex[4..])
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder can be made");
    std::fs::write(path, bytes).expect("a file can be written");
}

#[test]
fn packages_come_from_the_configured_registry() {
    let server = Server::start(&[
        ("/npm/a/-/a-1.0.0.tgz", vec![ok(b"a")]),
        ("/acme/@acme/b/-/b-2.0.0.tgz", vec![ok(b"b")]),
    ]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = client(
        folder.path(),
        &json!({"registry": server.url("/npm/"), "@acme:registry": server.url("/acme")}),
    );
    client.check(request("a/1.0.0", b"a"), b"a");
    client.check(request("@acme/b/2.0.0", b"b"), b"b");
    assert_eq!(server.requests(), ["/npm/a/-/a-1.0.0.tgz", "/acme/@acme/b/-/b-2.0.0.tgz"]);
}

#[test]
fn what_npm_has_downloaded_is_not_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    put(&cached(&cache, b"a"), b"a");
    let config = json!({"registry": "http://127.0.0.1:1/", "cache": cache});
    let mut client = client(folder.path(), &config);
    client.options.offline = true;
    client.check(request("a/1.0.0", b"a"), b"a");
    let error = client.check_fails(
        request("b/1.0.0", b"b"),
        "`npm:b/1.0.0` is not in the cache, and downloads are switched off",
    );
    assert!(matches!(error, RunError::Refused { .. }), "{error:?}");
}

#[test]
fn a_damaged_file_of_the_cache_is_downloaded_again() {
    let server = Server::start(&[("/a/-/a-1.0.0.tgz", vec![ok(b"a")])]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    put(&cached(&cache, b"a"), b"damaged");
    let client = client(folder.path(), &json!({"registry": server.url("/"), "cache": cache}));
    client.check(request("a/1.0.0", b"a"), b"a");
    assert_eq!(server.requests(), ["/a/-/a-1.0.0.tgz"]);
}

#[test]
fn another_file_than_the_pinned_one_is_refused() {
    let server = Server::start(&[("/a/-/a-1.0.0.tgz", vec![ok(b"evil")])]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = client(folder.path(), &json!({"registry": server.url("/")}));
    client.check_fails(
        request("a/1.0.0", b"a"),
        &format!(
            "`{}`: the file has the SHA-512 {}, pinned is {}",
            server.url("/a/-/a-1.0.0.tgz"),
            integrity(b"evil"),
            integrity(b"a"),
        ),
    );
}

#[test]
fn a_registry_that_is_down_is_the_machines_fault() {
    let server = Server::start(&[("/a/-/a-1.0.0.tgz", vec![status("502 Bad Gateway", "")])]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = client(folder.path(), &json!({"registry": server.url("/")}));
    let url = server.url("/a/-/a-1.0.0.tgz");
    let error = client.check_fails(
        request("a/1.0.0", b"a"),
        &format!("`{url}`: the server answered 502 Bad Gateway"),
    );
    assert!(matches!(error, RunError::Machine { .. }), "{error:?}");
}

#[test]
fn without_npm_nobody_knows_the_registry() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut client = Client::new();
    client.options.npm.program = folder.path().join("no-such-npm");
    let error = client.fetch(request("a/1.0.0", b"a")).expect_err("there is no npm");
    assert!(error.to_string().contains("no-such-npm`, which does this download"), "{error}");
    assert_eq!(error.hints(), ["install npm; its configuration says where packages are"]);
}
