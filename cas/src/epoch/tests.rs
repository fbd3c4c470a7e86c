//! Tests of epochs. An unclean stop is staged by an epoch file of another boot.

use super::*;
use crate::fixture::{Fixture, key, overwrite, result};
use std::fs;

fn epochs(fixture: &Fixture) -> usize {
    fs::read_dir(fixture.path(EPOCHS)).expect("listed").count()
}

/// Leaves an epoch as a machine does that stopped.
fn stop_uncleanly(fixture: &Fixture, start_ns: i64) {
    let path = fixture.path(&format!("{EPOCHS}/{start_ns}.anotherboot.1.0"));
    fs::write(path, "").expect("written");
}

/// Damages a blob as a machine does that stopped: the right size and time over wrong bytes.
fn tear(fixture: &Fixture, digest: &maestro_core::Digest) {
    let path = fixture.blob(digest);
    overwrite(&path, &vec![0; digest.size as usize]);
    let file = fs::File::open(path).expect("opened");
    crate::blob::seal_file(&file, crate::layout::Form::Plain).expect("sealed");
}

#[test]
fn an_epoch_begins_with_the_first_write_and_ends_when_sealed() {
    let fixture = Fixture::new();
    assert_eq!((epochs(&fixture), fixture.store.was_written()), (0, false));
    fixture.store.seal_epoch().expect("nothing to do");
    let digest = fixture.store.put_bytes(b"x").expect("stored");
    assert_eq!((epochs(&fixture), fixture.store.was_written()), (1, true));
    fixture.store.seal_epoch().expect("sealed");
    assert_eq!((epochs(&fixture), fixture.store.was_written()), (0, true));
    assert!(fixture.reopen().contains(&digest));
    fixture.store.put_bytes(b"y").expect("stored");
    assert_eq!(epochs(&fixture), 1);
}

#[test]
fn finding_a_blob_is_no_write() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"x").expect("stored");
    let other = fixture.reopen();
    other.put_bytes(b"x").expect("there already");
    assert!(!other.was_written());
}

#[test]
fn a_killed_process_leaves_nothing_to_check_and_the_next_seal_covers_it() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"x").expect("stored");
    // Without a seal, as a killed process leaves it.
    let fixture = fixture.restart();
    assert_eq!(epochs(&fixture), 1);
    assert!(!fixture.path(SUSPECT).exists());
    assert!(fixture.store.contains(&digest));
    fixture.store.put_bytes(b"y").expect("stored");
    fixture.store.seal_epoch().expect("sealed");
    assert_eq!(epochs(&fixture), 0);
}

#[test]
fn a_young_epoch_is_left_to_the_next_process_and_an_old_one_sealed() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"x").expect("stored");
    fixture.store.leave_epoch().expect("left");
    let fixture = fixture.restart();
    assert_eq!(epochs(&fixture), 1);
    let other = fixture.reopen();
    fixture.store.put_bytes(b"y").expect("stored");
    assert_eq!(epochs(&fixture), 1, "it goes on");
    other.put_bytes(b"z").expect("stored");
    assert_eq!(epochs(&fixture), 2, "it has an owner");
    fixture.store.seal_epoch().expect("sealed");
    other.seal_epoch().expect("sealed");

    let leave = |name: String, text: &str| {
        fs::write(fixture.path(&format!("{EPOCHS}/{name}")), text).expect("written");
    };
    let old = clock::now_ns() - (EPOCH_AGE_MS + 1) * 1_000_000;
    leave(format!("{old}.{}.1.0", boot_id()), "");
    fixture.store.put_bytes(b"a").expect("stored");
    assert_eq!(epochs(&fixture), 2, "what may not be durable is not gone on with");
    fixture.store.seal_epoch().expect("sealed");
    leave(format!("{old}.{}.1.0", boot_id()), "x");
    fixture.store.put_bytes(b"b").expect("stored");
    assert_eq!(epochs(&fixture), 1);
    fixture.store.leave_epoch().expect("sealed");
    assert_eq!(epochs(&fixture), 0);
}

#[test]
fn a_seal_leaves_the_epochs_of_living_processes_alone() {
    let fixture = Fixture::new();
    let other = fixture.reopen();
    fixture.store.put_bytes(b"x").expect("stored");
    other.put_bytes(b"y").expect("stored");
    other.seal_epoch().expect("sealed");
    assert_eq!(epochs(&fixture), 1);
}

#[test]
fn after_an_unclean_stop_torn_blobs_are_missing_and_sound_ones_stay() {
    let fixture = Fixture::new();
    let sound = fixture.store.put_bytes(b"sound").expect("stored");
    let torn = fixture.store.put_bytes(b"torn").expect("stored");
    let tree = fixture.tree(&[("f", "in tree")]);
    fixture.store.tree_dir(&tree).expect("laid out");
    let [good, bad] = [key("good"), key("bad")];
    fixture.store.put_action_result(&good, &result(&[sound], Some(tree))).expect("stored");
    fixture.store.put_action_result(&bad, &result(&[torn], None)).expect("stored");
    fixture.store.seal_epoch().expect("sealed");
    tear(&fixture, &torn);
    stop_uncleanly(&fixture, clock::now_ns() - 60_000_000_000);
    let fixture = fixture.restart();
    assert_eq!(epochs(&fixture), 0);
    assert_eq!(
        fs::read_dir(fixture.path("trees"))
            .expect("listed")
            .flat_map(|head| { fs::read_dir(head.expect("listed").path()).expect("listed") })
            .count(),
        0,
        "young trees are gone"
    );
    assert!(fixture.store.stats().expect("counted").suspects >= 2);
    assert!(!fixture.store.contains(&torn));
    assert!(fixture.store.action_result(&good).expect("asked").is_some());
    assert!(fixture.store.action_result(&bad).expect("asked").is_none());
    assert!(fixture.blob(&sound).exists(), "it is back in its place");
    fixture.store.tree_dir(&tree).expect("laid out anew");
    assert!(fixture.store.verify(false).expect("verified").is_clean());
    assert!(!fixture.path(SUSPECT).exists(), "all suspects are settled");
}

#[test]
fn blobs_from_before_the_epoch_are_not_suspected() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"old").expect("stored");
    fixture.store.seal_epoch().expect("sealed");
    stop_uncleanly(&fixture, clock::now_ns() + MARGIN_NS + 1_000_000_000);
    let fixture = fixture.restart();
    assert_eq!(fixture.store.stats().expect("counted").suspects, 0);
}

#[test]
fn an_epoch_of_an_unreadable_name_suspects_everything() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"x").expect("stored");
    fixture.store.seal_epoch().expect("sealed");
    fs::write(fixture.path("epochs/garbage"), "").expect("written");
    let fixture = fixture.restart();
    assert_eq!((epochs(&fixture), fixture.blob(&digest).exists()), (0, false));
    assert_eq!(fixture.store.read(&digest).expect("hashed and back"), b"x");
}

#[test]
fn where_the_boot_is_not_known_dead_epochs_are_unclean() {
    let fixture = Fixture::new();
    fixture.store.put_bytes(b"x").expect("stored");
    let layout = &fixture.store.inner.layout;
    assert!(unclean(layout, UNKNOWN_BOOT).expect("asked").is_empty(), "its owner lives");
    assert!(unclean(layout, &boot_id()).expect("asked").is_empty());
    let fixture = fixture.restart();
    let layout = &fixture.store.inner.layout;
    assert_eq!(unclean(layout, UNKNOWN_BOOT).expect("asked").len(), 1);
    assert!(unclean(layout, &boot_id()).expect("asked").is_empty());
}

#[test]
fn seals_and_writes_of_many_threads_do_not_wait_for_each_other_forever() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (store, dir) = (fixture.store.clone(), fixture.outside());
            scope.spawn(move || {
                use std::os::fd::AsFd as _;
                for n in 0..50 {
                    let text = format!("{worker} {n}");
                    let digest = store.put_bytes(text.as_bytes()).expect("stored");
                    store.link_into(&digest, true, dir.as_fd(), &text).expect("linked");
                }
            });
        }
        for _ in 0..10 {
            fixture.store.seal_epoch().expect("sealed");
        }
    });
    fixture.store.seal_epoch().expect("sealed");
    assert_eq!(epochs(&fixture), 0);
}
