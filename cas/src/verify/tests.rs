//! Tests of checks, and of an index that is lost or damaged.

use super::*;
use crate::fixture::{Fixture, key, overwrite, result};
use std::fs;

fn filled() -> (Fixture, Digest, Digest) {
    let fixture = Fixture::new();
    let blob = fixture.store.put_bytes(b"blob").expect("stored");
    let tree = fixture.tree(&[("a/f", "in tree"), ("t", "#!tool")]);
    fixture.store.put_action_result(&key("k"), &result(&[blob], Some(tree))).expect("stored");
    (fixture, blob, tree)
}

#[test]
fn a_sound_store_is_clean_and_counted() {
    let (fixture, _, _) = filled();
    let source = fixture.store.put_bytes(b"a source").expect("stored");
    fixture
        .store
        .link_into(&source, true, std::os::fd::AsFd::as_fd(&fixture.outside()), "x")
        .expect("linked");
    let report = fixture.store.verify(false).expect("verified");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.blobs, report.results, report.unnamed), (7, 1, 1));
    let stats = fixture.store.stats().expect("counted");
    assert_eq!((stats.blobs, stats.results, stats.quarantined, stats.leases), (6, 1, 0, 0));
    let again = fixture.store.verify(false).expect("verified");
    assert_eq!(again.index_updates, 0, "the index is up to date");
}

#[test]
fn every_kind_of_damage_is_reported_and_repaired() {
    let (fixture, blob, _) = filled();
    let lone = fixture.store.put_bytes(b"lone").expect("stored");
    fixture.store.put_action_result(&key("l"), &result(&[lone], None)).expect("stored");
    let cut = fixture.store.put_bytes(b"cut").expect("stored");
    fixture.store.put_action_result(&key("c"), &result(&[cut], None)).expect("stored");
    fixture.store.stats().expect("the index knows all of it");
    overwrite(&fixture.blob(&blob), b"BLOB");
    let file = File::open(fixture.blob(&blob)).expect("opened");
    blob::seal_file(&file, Form::Plain).expect("time put back");
    fs::remove_file(fixture.blob(&lone)).expect("removed");
    fs::write(fixture.path(&layout::result_path(&key("c"))), "short").expect("written");
    fs::write(fixture.path("cas/00/junk").as_path(), "").unwrap_or_else(|_| {
        fs::create_dir(fixture.path("cas/00")).expect("made");
        fs::write(fixture.path("cas/00/junk"), "").expect("written");
    });
    let report = fixture.store.verify(false).expect("verified");
    assert!(!report.is_clean() && !report.repaired);
    let names = |report: &VerifyReport| {
        report.damaged.iter().map(|d| (d.path.clone(), d.results.clone())).collect::<Vec<_>>()
    };
    let expect = [
        (layout::blob_path(&blob, Form::Plain), vec![key("k").0.hex()]),
        (layout::result_path(&key("c")), vec![key("c").0.hex()]),
    ];
    assert_eq!(names(&report), expect);
    let mut dangling: Vec<&str> = report.dangling.iter().map(|d| d.key.as_str()).collect();
    dangling.sort_unstable();
    let mut keys = [key("k").0.hex(), key("l").0.hex()];
    keys.sort_unstable();
    assert_eq!(dangling, keys);
    assert_eq!(report.strange, ["cas/00/junk"]);
    // Looking changed nothing.
    assert_eq!(fixture.store.verify(false).expect("verified").damaged, report.damaged);
    assert!(fixture.store.verify(true).expect("repaired").repaired);
    let report = fixture.store.verify(false).expect("verified");
    assert!(report.is_clean(), "{report:?}");
    assert!(fixture.store.action_result(&key("k")).expect("asked").is_none());
}

/// Whatever is done to RocksDB's files: nothing is lost, and collection still knows all.
#[test]
fn the_index_can_be_lost_in_any_way() {
    let check = |what: &str, damage: &dyn Fn(&std::path::Path)| {
        let (fixture, blob, _) = filled();
        let before = fixture.store.stats().expect("counted");
        damage(&fixture.path("index"));
        assert_eq!(fixture.store.stats().expect(what).blobs, before.blobs, "{what}");
        assert!(fixture.store.verify(false).expect(what).is_clean(), "{what}");
        assert!(fixture.store.action_result(&key("k")).expect("asked").is_some(), "{what}");
        assert!(fixture.store.contains(&blob), "{what}");
        fixture.store.gc(crate::GcOptions::default()).expect(what);
        assert_eq!(fixture.store.stats().expect(what).results, before.results, "{what}");
    };
    check("removed", &|index| fs::remove_dir_all(index).expect("removed"));
    check("replaced by a file", &|index| {
        fs::remove_dir_all(index).expect("removed");
        fs::write(index, "x").expect("written");
    });
    let each = |index: &std::path::Path, act: &dyn Fn(&std::path::Path)| {
        for entry in fs::read_dir(index).expect("listed") {
            act(&entry.expect("listed").path());
        }
    };
    check("all truncated", &|index| each(index, &|path| fs::write(path, "").expect("written")));
    check("all halved", &|index| {
        each(index, &|path| {
            let bytes = fs::read(path).expect("read");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
        });
    });
    check("all overwritten", &|index| {
        each(index, &|path| {
            let length = fs::read(path).expect("read").len();
            fs::write(path, vec![0xa5; length]).expect("written");
        });
    });
    for name in ["CURRENT", "MANIFEST", ".log", ".sst", "IDENTITY", "OPTIONS"] {
        check(name, &|index| {
            each(index, &|path| {
                if path.to_string_lossy().contains(name) {
                    fs::remove_file(path).expect("removed");
                }
            });
        });
    }
}

#[test]
fn everyday_use_opens_no_database() {
    let (fixture, blob, tree) = filled();
    let _lease = fixture.store.lease().expect("taken");
    fixture.store.action_result(&key("k")).expect("asked");
    fixture.store.read(&blob).expect("read");
    fixture.store.tree_dir(&tree).expect("laid out");
    fixture.store.seal_epoch().expect("sealed");
    assert!(!fixture.path("index").exists());
}
