//! Tests of results.

use super::*;
use crate::fixture::{Fixture, key, overwrite, result};
use std::fs;

#[test]
fn results_round_trip_and_are_forgotten() {
    let fixture = Fixture::new();
    let (store, key) = (&fixture.store, key("k"));
    assert_eq!(store.action_result(&key).expect("asked"), None);
    let blob = store.put_bytes(b"x").expect("stored");
    let tree = fixture.tree(&[("a/f", "1"), ("e", "/")]);
    let result = result(&[blob], Some(tree));
    store.put_action_result(&key, &result).expect("stored");
    assert_eq!(fixture.reopen().action_result(&key).expect("asked"), Some(result));
    store.forget_action_result(&key).expect("forgotten");
    store.forget_action_result(&key).expect("forgotten already");
    assert_eq!(store.action_result(&key).expect("asked"), None);
}

#[test]
fn a_result_that_names_what_is_not_there_is_not_stored() {
    let fixture = Fixture::new();
    let absent = fixture.store.function().digest(b"absent");
    for result in [result(&[absent], None), result(&[], Some(absent))] {
        let error = fixture.store.put_action_result(&key("k"), &result).expect_err("refused");
        assert!(matches!(error, StoreError::Missing { digest } if digest == absent));
    }
    assert_eq!(fixture.store.action_result(&key("k")).expect("asked"), None);
}

/// Whatever happens to a result's file or to a blob that it names: a miss, never a panic.
#[test]
fn a_result_that_is_not_usable_is_a_miss() {
    let check = |what: &str, damage: &dyn Fn(&Fixture)| {
        let fixture = Fixture::new();
        let key = key("k");
        let blob = fixture.store.put_bytes(b"blob").expect("stored");
        let tree = fixture.tree(&[("a/f", "in tree"), ("a/g", "other")]);
        let result = result(&[blob], Some(tree));
        fixture.store.put_action_result(&key, &result).expect("stored");
        damage(&fixture);
        for store in [&fixture.store, &fixture.reopen()] {
            assert_eq!(store.action_result(&key).expect("asked"), None, "{what}");
        }
        assert!(!fixture.path(&layout::result_path(&key)).exists(), "{what}");
        assert!(fixture.store.verify(false).expect("verified").is_clean(), "{what}");
        // The action runs again.
        fixture.store.put_bytes(b"blob").expect("stored");
        fixture.tree(&[("a/f", "in tree"), ("a/g", "other")]);
        fixture.store.put_action_result(&key, &result).expect("stored");
        assert_eq!(fixture.store.action_result(&key).expect("asked"), Some(result), "{what}");
    };
    let blob_path = |fixture: &Fixture, text: &str| {
        fixture.blob(&fixture.store.function().digest(text.as_bytes()))
    };
    let result_path = |fixture: &Fixture| fixture.path(&layout::result_path(&key("k")));
    check("blob deleted", &|f| fs::remove_file(blob_path(f, "blob")).expect("removed"));
    check("blob damaged", &|f| overwrite(&blob_path(f, "blob"), b"BLOB"));
    check("file of tree deleted", &|f| {
        fs::remove_file(blob_path(f, "in tree")).expect("removed");
    });
    check("file of tree damaged", &|f| overwrite(&blob_path(f, "other"), b"OTHER"));
    check("directory of tree deleted", &|f| {
        let tree = f.tree(&[("a/f", "in tree"), ("a/g", "other")]);
        let root = f.store.directory(&tree).expect("read");
        fs::remove_file(f.blob(&root.directories[0].digest)).expect("removed");
    });
    for cut in [0, 1, 8, 20, 40, 41, 60] {
        check("result cut", &|f| {
            let bytes = fs::read(result_path(f)).expect("read");
            fs::write(result_path(f), &bytes[..cut]).expect("written");
        });
    }
    check("result with a bit flipped", &|f| {
        let mut bytes = fs::read(result_path(f)).expect("read");
        bytes[50] ^= 1;
        fs::write(result_path(f), &bytes).expect("written");
    });
    check("result of another key", &|f| {
        let blob = f.store.put_bytes(b"blob").expect("stored");
        f.store.put_action_result(&key("other"), &result(&[blob], None)).expect("stored");
        fs::copy(f.path(&layout::result_path(&key("other"))), result_path(f)).expect("copied");
    });
    check("a folder in its place", &|f| {
        fs::remove_file(result_path(f)).expect("removed");
        fs::create_dir(result_path(f)).expect("made");
    });
}
