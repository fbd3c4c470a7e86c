//! Tests of collection.

use super::*;
use crate::fixture::{Fixture, key, result};
use std::fs;

const ALL: GcOptions = GcOptions { bytes_max: Some(0), age_ms_max: None };

/// Sets when a file was last used, in seconds before now.
fn used(fixture: &Fixture, path: &str, seconds_ago: i64) {
    let times = rustix::fs::Timestamps {
        last_access: rustix::time::Timespec {
            tv_sec: clock::now_ns() / 1_000_000_000 - seconds_ago,
            tv_nsec: 0,
        },
        last_modification: rustix::time::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    };
    let fd = fixture.store.inner.layout.fd();
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(fd, path, &times, flags).expect("set");
}

fn age_all(fixture: &Fixture, seconds_ago: i64) {
    let layout = &fixture.store.inner.layout;
    fixture.store.inner.log.flush(layout);
    for segment in crate::access_log::segments(layout).expect("listed") {
        layout.unlink(&segment).expect("removed");
    }
    let files = [scan::blobs(layout, ""), scan::results(layout)];
    for found in files.into_iter().flat_map(|listing| listing.expect("listed").files) {
        used(fixture, &found.path, seconds_ago);
    }
}

/// A result with one blob of a hundred bytes, last used so long ago.
fn entry(fixture: &Fixture, name: &str, seconds_ago: i64) -> Digest {
    let blob = fixture.store.put_bytes(format!("{name:100}").as_bytes()).expect("stored");
    let result = result(&[blob], None);
    fixture.store.put_action_result(&key(name), &result).expect("stored");
    used(fixture, &layout::blob_path(&blob, Form::Plain), 9_000);
    used(fixture, &layout::result_path(&key(name)), seconds_ago);
    blob
}

fn forget_log(fixture: &Fixture) {
    let layout = &fixture.store.inner.layout;
    fixture.store.inner.log.flush(layout);
    for segment in crate::access_log::segments(layout).expect("listed") {
        layout.unlink(&segment).expect("removed");
    }
}

#[test]
fn an_empty_store_is_fine() {
    let report = Fixture::new().store.gc(ALL).expect("collected");
    assert_eq!(report, GcReport::default());
}

#[test]
fn what_was_used_longest_ago_goes_first_and_results_keep_their_blobs() {
    let fixture = Fixture::new();
    let old = entry(&fixture, "old", 300);
    let middle = entry(&fixture, "middle", 200);
    let young = entry(&fixture, "young", 100);
    forget_log(&fixture);
    let fixture = fixture.restart();
    let options = GcOptions { bytes_max: Some(500), age_ms_max: None };
    let report = fixture.store.gc(options).expect("collected");
    assert_eq!((report.results_removed, report.blobs_removed, report.spared), (1, 1, 0));
    let is_there = |digest: &Digest| fixture.blob(digest).exists();
    assert_eq!([&old, &middle, &young].map(is_there), [false, true, true]);
    let hit = |name: &str| fixture.store.action_result(&key(name)).expect("asked").is_some();
    assert_eq!(["old", "middle", "young"].map(hit), [false, true, true]);
    assert_eq!(fixture.store.stats().expect("counted").results, 2);
    assert!(fixture.store.verify(false).expect("verified").is_clean());
}

#[test]
fn age_is_a_bound_of_its_own() {
    let fixture = Fixture::new();
    let old = entry(&fixture, "old", 300);
    let young = entry(&fixture, "young", 100);
    forget_log(&fixture);
    let fixture = fixture.restart();
    let options = GcOptions { bytes_max: None, age_ms_max: Some(200_000) };
    fixture.store.gc(options).expect("collected");
    assert_eq!([&old, &young].map(|blob| fixture.blob(blob).exists()), [false, true]);
    let report = fixture.store.gc(GcOptions::default()).expect("collected");
    assert_eq!((report.blobs_removed, report.blobs_kept), (0, 1));
}

#[test]
fn all_goes_where_nothing_may_stay() {
    let fixture = Fixture::new();
    let blob = entry(&fixture, "a", 100);
    let tree = fixture.tree(&[("x/tool", "#!1"), ("y", "2")]);
    let path = fixture.store.tree_dir(&tree).expect("laid out");
    fixture.store.put_action_result(&key("t"), &result(&[blob], Some(tree))).expect("stored");
    forget_log(&fixture);
    age_all(&fixture, 50);
    let tree_path = layout::tree_path(&tree);
    used(&fixture, &tree_path, 50);
    let fixture = fixture.restart();
    let report = fixture.store.gc(ALL).expect("collected");
    assert_eq!((report.results_kept, report.blobs_kept, report.trees_removed), (0, 0, 1));
    assert!(!path.exists());
    let stats = fixture.store.stats().expect("counted");
    assert_eq!((stats.blobs, stats.results, stats.trees), (0, 0, 0));
    assert_eq!(fs::read_dir(fixture.path(TRASH)).expect("listed").count(), 0);
}

#[test]
fn a_living_lease_spares_what_its_build_uses() {
    let fixture = Fixture::new();
    let used_blob = entry(&fixture, "used", 300);
    let idle_blob = entry(&fixture, "idle", 300);
    let source = fixture.store.put_bytes(b"a source").expect("stored");
    forget_log(&fixture);
    age_all(&fixture, 300);
    let fixture = fixture.restart();
    let build = fixture.reopen();
    let lease = build.lease().expect("taken");
    assert!(build.action_result(&key("used")).expect("asked").is_some());
    assert!(build.contains(&source));
    let written = build.put_bytes(b"written").expect("stored");
    fixture.store.gc(ALL).expect("collected");
    let is_there = |digest: &Digest| fixture.blob(digest).exists();
    assert_eq!(
        [&used_blob, &source, &written, &idle_blob].map(is_there),
        [true, true, true, false]
    );
    assert!(build.action_result(&key("used")).expect("asked").is_some());
    assert!(build.action_result(&key("idle")).expect("asked").is_none());
    drop(lease);
    assert_eq!(scan::names(&fixture.store.inner.layout, layout::LEASES).expect("listed").len(), 0);
}

#[test]
fn spared_bytes_are_counted_and_dead_leases_are_not() {
    let fixture = Fixture::new();
    fs::write(fixture.path("leases/1-1-0"), "").expect("a lease without an owner");
    let _lease = fixture.store.lease().expect("taken");
    let blob = fixture.store.put_bytes(b"x").expect("stored");
    let report = fixture.store.gc(ALL).expect("collected");
    assert_eq!((report.blobs_kept, report.spared), (1, 1));
    assert!(fixture.store.contains(&blob));
    assert!(!fixture.path("leases/1-1-0").exists());
}

#[test]
fn a_use_between_the_look_and_the_removal_is_seen() {
    let fixture = Fixture::new();
    let blob = fixture.store.put_bytes(b"x").expect("stored");
    let (layout, path) = (&fixture.store.inner.layout, layout::blob_path(&blob, Form::Plain));
    let threshold_ns = clock::now_ns() - 10_000_000_000;
    used(&fixture, &path, 100);
    // In trash already when the build's renewal came just before.
    let trash = format!("{TRASH}/{}", path.replace('/', "!"));
    layout.rename(&path, &trash).expect("moved");
    used(&fixture, &trash, 0);
    restore_trash(layout).expect("restored");
    assert!(!remove_unused(layout, &path, threshold_ns).expect("asked"));
    assert!(fixture.store.contains(&blob));
    used(&fixture, &path, 100);
    assert!(remove_unused(layout, &path, threshold_ns).expect("asked"));
    assert!(!fixture.store.contains(&blob));
}

#[test]
fn what_a_killed_collection_had_in_hand_comes_back() {
    let fixture = Fixture::new();
    let blob = entry(&fixture, "a", 0);
    let layout = &fixture.store.inner.layout;
    for path in [layout::blob_path(&blob, Form::Plain), layout::result_path(&key("a"))] {
        layout.rename(&path, &format!("{TRASH}/{}", path.replace('/', "!"))).expect("moved");
    }
    assert!(!fixture.store.contains(&blob));
    assert!(fixture.store.verify(false).expect("verified").is_clean());
    assert!(fixture.store.contains(&blob));
    assert!(fixture.store.action_result(&key("a")).expect("asked").is_none());
}

#[test]
fn maintenance_waits_a_bounded_time_for_other_maintenance() {
    let limits = crate::Limits { maintenance_wait_ms: 20, ..crate::Limits::default() };
    let fixture = Fixture::with(limits);
    let lock = fixture.reopen().maintenance().expect("taken");
    let error = fixture.store.gc(ALL).expect_err("held");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    drop(lock);
    fixture.store.gc(ALL).expect("free");
}

#[test]
fn old_damaged_files_and_dead_scratch_go() {
    let fixture = Fixture::new();
    let old = clock::now_ns() - QUARANTINE_NS - 1;
    fs::write(fixture.path(&format!("quarantine/{old}-x")), "").expect("written");
    fs::write(fixture.path(&format!("quarantine/{}-y", clock::now_ns())), "").expect("written");
    fs::create_dir_all(fixture.path("scratch/1-2-0/layer/deep")).expect("made");
    let mine = fixture.store.scratch_dir();
    fixture.store.gc(GcOptions::default()).expect("collected");
    assert_eq!(fs::read_dir(fixture.path("quarantine")).expect("listed").count(), 1);
    assert!(!fixture.path("scratch/1-2-0").exists());
    assert!(mine.exists());
    drop(fixture.store);
    assert!(!mine.exists(), "the own one goes with the store");
}
