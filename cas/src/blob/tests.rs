//! Tests of blobs.

use super::*;
use crate::fixture::{Fixture, overwrite};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

#[test]
fn blobs_round_trip_in_both_functions() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    for bytes in [&b""[..], b"x", &vec![7; 3 << 20]] {
        let digest = store.put_bytes(bytes).expect("stored");
        assert_eq!(store.read(&digest).expect("read"), bytes);
        let sha256 = DigestFunction::Sha256.digest(bytes);
        assert_eq!(store.contains(&sha256), bytes.is_empty());
        store.put_known(&sha256, bytes).expect("stored");
        assert!(store.contains(&sha256));
        assert_eq!(store.read(&sha256).expect("read"), bytes);
    }
    let absent = DigestFunction::Blake3.digest(b"absent");
    assert!(!store.contains(&absent));
    assert!(matches!(store.read(&absent), Err(StoreError::Missing { digest }) if digest == absent));
    assert_eq!(fixture.temps(), 0);
}

#[test]
fn a_blob_has_a_constant_mode_and_time_whatever_the_umask() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"x").expect("stored");
    let metadata = fs::metadata(fixture.blob(&digest)).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o444);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (MTIME_S, 0));
}

#[test]
fn the_empty_blob_needs_no_file() {
    let fixture = Fixture::new();
    let empty = DigestFunction::Blake3.digest(b"");
    assert!(fixture.store.contains(&empty));
    let mut bytes = Vec::new();
    fixture.store.open_blob(&empty).expect("opened").read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, b"");
}

/// What may be done to a blob's file behind the store's back, and whether the content survives.
#[test]
fn a_touched_blob_is_hashed_before_it_is_used() {
    let check = |what: &str, damage: fn(&std::path::Path), survives: bool| {
        let fixture = Fixture::new();
        let digest = fixture.store.put_bytes(b"content").expect("stored");
        damage(&fixture.blob(&digest));
        assert_eq!(fixture.store.contains(&digest), survives, "{what}");
        let quarantined = fs::read_dir(fixture.path("quarantine")).expect("listed").count();
        let is_file_left = fixture.blob(&digest).exists();
        assert_eq!(is_file_left, survives, "{what}");
        if !survives {
            assert!(matches!(fixture.store.read(&digest), Err(StoreError::Missing { .. })));
            assert!(quarantined <= 1, "{what}");
        }
        assert_eq!(fixture.store.put_bytes(b"content").expect("stored again"), digest);
        assert_eq!(fixture.store.read(&digest).expect("read"), b"content", "{what}");
        assert!(fixture.store.verify(false).expect("verified").is_clean(), "{what}");
    };
    check("same length", |path| overwrite(path, b"CONTENT"), false);
    check("longer", |path| overwrite(path, b"content and more"), false);
    check("truncated", |path| overwrite(path, b""), false);
    check("same bytes", |path| overwrite(path, b"content"), true);
    check("deleted", |path| fs::remove_file(path).expect("removed"), false);
    let chmod = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o4777)).expect("set");
    };
    check("mode changed", chmod, true);
    let folder = |path: &std::path::Path| {
        fs::remove_file(path).expect("removed");
        fs::create_dir(path).expect("made");
    };
    check("a folder in its place", folder, false);
    let link = |path: &std::path::Path| {
        fs::remove_file(path).expect("removed");
        std::os::unix::fs::symlink("/etc/hostname", path).expect("linked");
    };
    check("a link in its place", link, false);
}

#[test]
fn damage_that_hides_its_time_is_found_by_reading() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"content").expect("stored");
    overwrite(&fixture.blob(&digest), b"CONTENT");
    let file = fs::File::open(fixture.blob(&digest)).expect("opened");
    seal_file(&file, Form::Plain).expect("time put back");
    let error = fixture.store.read(&digest).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { ref quarantine, .. } if quarantine.exists()));
    assert!(!fixture.store.contains(&digest));
}

fn output(fixture: &Fixture, name: &str, bytes: &[u8], mode: u32) -> (File, File) {
    let dir = fixture.outside();
    let path = fixture.dir.path().join("outside").join(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    (dir, File::open(path).expect("opened"))
}

#[test]
fn outputs_are_moved_with_their_exec_bit_and_without_special_bits() {
    let fixture = Fixture::new();
    let (dir, file) = output(&fixture, "tool", b"#!x", 0o6755);
    let inode = file.metadata().expect("status").ino();
    let name = OsStr::new("tool");
    let digest = fixture.store.adopt_file(dir.as_fd(), name, &file).expect("adopted");
    let path = fixture.path(&layout::blob_path(&digest, Form::Executable));
    let metadata = fs::metadata(path).expect("there");
    assert_eq!(metadata.ino(), inode);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o555);
    assert_eq!(fixture.store.read(&digest).expect("read"), b"#!x");
    // The same content as a plain file comes from the executable one.
    fixture.store.link_into(&digest, false, dir.as_fd(), "plain").expect("linked");
    let plain = fs::metadata(fixture.dir.path().join("outside/plain")).expect("there");
    assert_eq!(plain.permissions().mode() & 0o7777, 0o444);
}

#[test]
fn outputs_with_other_links_are_copied() {
    let fixture = Fixture::new();
    let (dir, file) = output(&fixture, "a", b"text", 0o644);
    let outside = fixture.dir.path().join("outside");
    fs::hard_link(outside.join("a"), outside.join("b")).expect("linked");
    let digest = fixture.store.adopt_file(dir.as_fd(), OsStr::new("a"), &file).expect("adopted");
    let stored = fs::metadata(fixture.blob(&digest)).expect("there").ino();
    assert_ne!(stored, file.metadata().expect("status").ino());
    fs::write(outside.join("b"), "changed").expect("written");
    assert_eq!(fixture.store.read(&digest).expect("read"), b"text");
}

#[test]
fn an_output_that_was_swapped_after_it_was_opened_is_not_moved() {
    let fixture = Fixture::new();
    let (dir, file) = output(&fixture, "a", b"first", 0o644);
    let outside = fixture.dir.path().join("outside");
    fs::rename(outside.join("a"), outside.join("old")).expect("renamed");
    fs::write(outside.join("a"), "second").expect("written");
    let digest = fixture.store.adopt_file(dir.as_fd(), OsStr::new("a"), &file).expect("adopted");
    assert_eq!(fixture.store.read(&digest).expect("read"), b"first");
    assert_eq!(fs::read(outside.join("a")).expect("read"), b"second");
}

#[test]
fn streams_are_stored() {
    let fixture = Fixture::new();
    let (_dir, file) = output(&fixture, "big", &vec![9; (2 << 20) + 5], 0o644);
    let digest = fixture.store.put_file(&file).expect("stored");
    assert_eq!(digest, DigestFunction::Blake3.digest(&vec![9; (2 << 20) + 5]));
    assert!(fixture.store.contains(&digest));
    assert_eq!(fixture.temps(), 0);
}

#[test]
fn two_stores_and_many_threads_share_a_folder() {
    let fixture = Fixture::new();
    let stores = [fixture.store.clone(), fixture.reopen()];
    std::thread::scope(|scope| {
        for worker in 0..4usize {
            let store = stores[worker % 2].clone();
            scope.spawn(move || {
                for n in 0..200 {
                    let bytes = format!("blob {}", n % 50);
                    let digest = store.put_bytes(bytes.as_bytes()).expect("stored");
                    assert_eq!(store.read(&digest).expect("read"), bytes.as_bytes());
                }
            });
        }
    });
    assert_eq!(fixture.store.stats().expect("counted").blobs, 50);
    assert!(fixture.store.verify(false).expect("verified").is_clean());
}
