//! Tests of links and copies.

use super::*;
use crate::fixture::{Fixture, overwrite};
use crate::store::Limits;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

#[test]
fn links_share_an_inode_with_the_right_mode() {
    let fixture = Fixture::new();
    let dir = fixture.outside();
    let digest = fixture.store.put_bytes(b"#!x").expect("stored");
    for (name, executable, mode) in [("a", false, 0o444), ("b", true, 0o555), ("c", true, 0o555)] {
        fixture.store.link_into(&digest, executable, dir.as_fd(), name).expect("linked");
        let metadata = fs::metadata(fixture.dir.path().join("outside").join(name)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o7777, mode);
        assert_eq!(metadata.mtime(), blob::MTIME_S);
    }
    let inode = |name: &str| {
        fs::metadata(fixture.dir.path().join("outside").join(name)).expect("there").ino()
    };
    assert_ne!(inode("a"), inode("b"));
    assert_eq!(inode("b"), inode("c"));
    assert_eq!(inode("a"), fs::metadata(fixture.blob(&digest)).expect("there").ino());
}

#[test]
fn past_the_link_limit_a_copy_takes_over() {
    let fixture = Fixture::with(Limits { links_max: 4, ..Limits::default() });
    let dir = fixture.outside();
    let digest = fixture.store.put_bytes(b"often").expect("stored");
    let mut inodes = std::collections::HashSet::new();
    for n in 0..20 {
        let name = n.to_string();
        fixture.store.link_into(&digest, false, dir.as_fd(), &name).expect("linked");
        let path = fixture.dir.path().join("outside").join(name);
        assert_eq!(fs::read(&path).expect("read"), b"often");
        inodes.insert(fs::metadata(path).expect("there").ino());
    }
    assert_eq!(inodes.len(), 7);
    assert!(fixture.store.verify(false).expect("verified").is_clean());
}

#[test]
fn a_missing_blob_and_a_missing_folder_are_told_apart() {
    let fixture = Fixture::new();
    let dir = fixture.outside();
    let absent = fixture.store.function().digest(b"absent");
    let error = fixture.store.link_into(&absent, false, dir.as_fd(), "a").expect_err("missing");
    assert!(matches!(error, StoreError::Missing { digest } if digest == absent));
    let digest = fixture.store.put_bytes(b"x").expect("stored");
    let error = fixture.store.link_into(&digest, false, dir.as_fd(), "no/a").expect_err("no");
    assert!(matches!(error, StoreError::Io { .. }));
    fixture.store.link_into(&digest, false, dir.as_fd(), "a").expect("linked");
    let error = fixture.store.link_into(&digest, false, dir.as_fd(), "a").expect_err("there");
    assert!(matches!(error, StoreError::Io { .. }));
}

#[test]
fn the_empty_blob_can_be_linked_and_copied() {
    let fixture = Fixture::new();
    let dir = fixture.outside();
    let empty = fixture.store.function().digest(b"");
    fixture.store.link_into(&empty, true, dir.as_fd(), "e").expect("linked");
    let dest = fixture.dir.path().join("copy");
    fixture.store.copy_out(&empty, false, &dest).expect("copied");
    assert_eq!(fs::read(dest).expect("read"), b"");
}

#[test]
fn other_file_systems_get_copies() {
    let fixture = Fixture::new();
    let shm = tempfile::tempdir_in("/dev/shm").expect("a temporary folder in memory");
    let dir = File::open(shm.path()).expect("opened");
    let digest = fixture.store.put_bytes(b"text").expect("stored");
    fixture.store.link_into(&digest, true, dir.as_fd(), "x").expect("copied");
    let metadata = fs::metadata(shm.path().join("x")).expect("there");
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.mtime()), (0o555, blob::MTIME_S));
    // The other way, an output in memory is copied into the store.
    fs::write(shm.path().join("out"), "made").expect("written");
    let file = File::open(shm.path().join("out")).expect("opened");
    let adopted = fixture.store.adopt_file(dir.as_fd(), "out".as_ref(), &file).expect("adopted");
    assert_eq!(fixture.store.read(&adopted).expect("read"), b"made");
}

#[test]
fn copies_are_the_users_own() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"#!x").expect("stored");
    let dest = fixture.dir.path().join("maestro-out/pkg/tool");
    fixture.store.copy_out(&digest, true, &dest).expect("copied");
    assert_eq!(fs::metadata(&dest).expect("there").permissions().mode() & 0o7777, 0o755);
    fs::write(&dest, "changed").expect("written");
    assert_eq!(fixture.store.read(&digest).expect("read"), b"#!x");
    fixture.store.copy_out(&digest, false, &dest).expect("copied over it");
    assert_eq!(fs::metadata(&dest).expect("there").permissions().mode() & 0o7777, 0o644);
    let entries = fs::read_dir(dest.parent().expect("a folder")).expect("listed").count();
    assert_eq!(entries, 1, "no temporary file stays");
}

#[test]
fn a_damaged_blob_is_not_copied_out() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"content").expect("stored");
    overwrite(&fixture.blob(&digest), b"CONTENT");
    let file = File::open(fixture.blob(&digest)).expect("opened");
    blob::seal_file(&file, Form::Plain).expect("time put back");
    let dest = fixture.dir.path().join("dest");
    let error = fixture.store.copy_out(&digest, false, &dest).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert!(!dest.exists() && !fixture.store.contains(&digest));
    fs::create_dir(&dest).expect("made");
    fixture.store.put_bytes(b"content").expect("stored");
    let error = fixture.store.copy_out(&digest, false, &dest).expect_err("a folder is there");
    assert!(matches!(error, StoreError::Io { ref path, .. } if *path == dest));
}
