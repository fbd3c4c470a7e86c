//! Facts hold, or are found not to.

use super::*;
use crate::workspace::listing::{listing_digest, open_folder, read_listing, type_code};
use std::fs;

/// Facts about a small tree, as they are now and not racy.
fn facts_of(root: &Path) -> Vec<(String, Fact)> {
    let signature =
        |path: &str| StatSignature::of_stat(&rustix::fs::stat(root.join(path)).expect("there"));
    let file = |path: &str| {
        let bytes = fs::read(root.join(path)).expect("readable");
        let digest = DigestFunction::Blake3.digest(&bytes);
        (path.to_owned(), Fact::Content(Content::new(&signature(path), i64::MAX, digest)))
    };
    let folder = |path: &str| {
        let at = rustix::fs::CWD;
        let open = open_folder(at, root.join(path).to_str().expect("UTF-8")).expect("there");
        let listing = Listing {
            signature: (&signature(path)).into(),
            racy: false,
            digest: listing_digest(&read_listing(open).expect("readable")).into(),
        };
        (path.to_owned(), Fact::Listing(listing))
    };
    vec![
        file("a"),
        file("d/b"),
        file("d/c"),
        folder(""),
        folder("d"),
        ("d/absent".to_owned(), Fact::Absent),
        ("d".to_owned(), Fact::Type(type_code(FileType::Directory))),
        ("gone/x".to_owned(), Fact::Absent),
        ("gone/y".to_owned(), Fact::Absent),
        ("link".to_owned(), Fact::Link { target: "a".to_owned() }),
    ]
}

fn changed(root: &Path, table: &FactTable) -> Option<String> {
    let bytes = to_archive(table);
    let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
    table.first_change(root).expect("the root is there")
}

fn check(edit: impl FnOnce(&Path), expect: Option<&str>) {
    let folder = tempfile::tempdir().expect("a temp dir");
    let root = folder.path();
    fs::create_dir(root.join("d")).expect("writable");
    for path in ["a", "d/b", "d/c"] {
        fs::write(root.join(path), path).expect("writable");
    }
    std::os::unix::fs::symlink("a", root.join("link")).expect("writable");
    let table = FactTable::new(facts_of(root));
    assert_eq!(changed(root, &table), None);
    edit(root);
    assert_eq!(changed(root, &table).as_deref(), expect);
}

#[test]
fn every_kind_of_change_is_found() {
    check(|_| {}, None);
    check(|root| fs::write(root.join("a"), "other").expect("writable"), Some("a"));
    check(|root| fs::remove_file(root.join("d/c")).expect("there"), Some("d"));
    check(|root| fs::write(root.join("d/absent"), "").expect("writable"), Some("d"));
    check(|root| fs::create_dir_all(root.join("gone/y")).expect("writable"), Some(""));
    check(|root| fs::remove_dir_all(root.join("d")).expect("there"), Some(""));
    check(
        |root| {
            fs::remove_file(root.join("link")).expect("there");
            std::os::unix::fs::symlink("d/b", root.join("link")).expect("writable");
        },
        Some("link"),
    );
}

#[test]
fn what_comes_and_goes_again_or_is_ours_changes_nothing() {
    check(
        |root| {
            fs::write(root.join("d/tmp"), "").expect("writable");
            fs::remove_file(root.join("d/tmp")).expect("there");
            fs::create_dir(root.join("maestro-out")).expect("writable");
        },
        None,
    );
}

#[test]
fn a_rewrite_with_the_old_time_stamp_is_found() {
    check(
        |root| {
            let path = root.join("d/b");
            let before = fs::metadata(&path).expect("there").modified().expect("has one");
            fs::write(&path, "D/B").expect("writable");
            let file = fs::File::options().write(true).open(&path).expect("there");
            file.set_modified(before).expect("writable");
        },
        Some("d/b"),
    );
}

#[test]
fn racy_facts_are_settled_by_content() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let root = folder.path();
    fs::write(root.join("f"), "old").expect("writable");
    let stat = rustix::fs::stat(root.join("f")).expect("there");
    let signature = StatSignature::of_stat(&stat);
    let table = |text: &str, racy| {
        let digest = DigestFunction::Sha256.digest(text.as_bytes()).into();
        let content = Content { signature: (&signature).into(), racy, digest, evaluated: false };
        FactTable::new([("f".to_owned(), Fact::Content(content))])
    };
    assert_eq!(changed(root, &table("old", true)), None);
    assert_eq!(changed(root, &table("new", true)).as_deref(), Some("f"));
    assert_eq!(changed(root, &table("new", false)), None, "a safe signature is believed");
    assert!(Content::new(&signature, now_ns(), DigestFunction::Blake3.digest(b"")).racy);
}

#[test]
fn many_facts_are_checked_by_two_threads_with_the_same_verdict() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let root = folder.path();
    let mut facts = Vec::new();
    for number in 0..1000 {
        let dir = root.join(format!("d{}", number / 10));
        fs::create_dir_all(&dir).expect("writable");
        fs::write(dir.join(number.to_string()), "").expect("writable");
        let path = format!("d{}/{number}", number / 10);
        let stat = rustix::fs::stat(root.join(&path)).expect("there");
        let digest = DigestFunction::Blake3.digest(b"");
        let content = Content::new(&StatSignature::of_stat(&stat), i64::MAX, digest);
        facts.push((path, Fact::Content(content)));
    }
    let mut table = FactTable::new(facts);
    assert_eq!((table.len(), changed(root, &table)), (1000, None));
    for path in ["d0/0", "d50/500", "d99/999"] {
        let (whole, moved) = (root.join(path), root.join("moved"));
        fs::rename(&whole, &moved).expect("there");
        assert_eq!(changed(root, &table).as_deref(), Some(path));
        put_pipe(root, path);
        assert_eq!(changed(root, &table).as_deref(), Some(path), "a pipe does not block");
        fs::remove_file(&whole).expect("there");
        fs::rename(&moved, &whole).expect("there");
        // Renaming changed the time stamp of the inode, so the facts must be seen anew.
        let stat = rustix::fs::stat(&whole).expect("there");
        let digest = DigestFunction::Blake3.digest(b"");
        let fact = Content::new(&StatSignature::of_stat(&stat), i64::MAX, digest);
        let facts = table.iter().map(|(path, fact)| (path, fact.clone()));
        table = FactTable::new(facts.chain([(path.to_owned(), Fact::Content(fact))]));
        assert_eq!(changed(root, &table), None);
    }
}

fn put_pipe(root: &Path, path: &str) {
    let folder = fs::File::open(root).expect("there");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(&folder, path, rustix::fs::FileType::Fifo, mode, 0).expect("writable");
}

#[test]
fn all_differences_are_told_with_their_kind() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let root = folder.path();
    fs::create_dir(root.join("d")).expect("writable");
    for path in ["a", "d/b", "d/c", "d/eval"] {
        fs::write(root.join(path), path).expect("writable");
    }
    std::os::unix::fs::symlink("a", root.join("link")).expect("writable");
    let mut facts = facts_of(root);
    facts.retain(|(_, fact)| matches!(fact, Fact::Content(_)));
    let stat = rustix::fs::stat(root.join("d/eval")).expect("there");
    let digest = DigestFunction::Blake3.digest(b"d/eval");
    let evaluated = Content::new(&StatSignature::of_stat(&stat), i64::MAX, digest).evaluated();
    facts.push(("d/eval".to_owned(), Fact::Content(evaluated)));
    let bytes = to_archive(&FactTable::new(facts));
    let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
    for path in ["a", "d/c", "d/eval"] {
        fs::write(root.join(path), "other").expect("writable");
    }
    fs::remove_file(root.join("d/b")).expect("there");
    fs::create_dir(root.join("d/b")).expect("writable");
    let found = table.differences(root, &|folder, name| (folder, name) == ("d", "c"));
    let found: Vec<(String, bool)> = found
        .expect("the root is there")
        .into_iter()
        .map(|difference| (difference.path, difference.content_only))
        .collect();
    let expect = [("a", true), ("d/b", false), ("d/eval", false)];
    assert_eq!(found, expect.map(|(path, only)| (path.to_owned(), only)));
    assert_eq!(table.content("d/c").map(|content| content.digest.size), Some(3));
    assert_eq!((table.content("d/x"), table.content("x/y")), (None, None));
}
