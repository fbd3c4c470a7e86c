//! Tests of trees.

use super::*;
use crate::fixture::{Fixture, overwrite};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

const ENTRIES: [(&str, &str); 7] = [
    ("a-b", "1"),
    ("a/empty", "/"),
    ("a/link", "->../a-b"),
    ("a/x/deep", "2"),
    ("a/x/tool", "#!3"),
    ("b/none", ""),
    ("z", "1"),
];

#[test]
fn trees_are_listed_in_order() {
    let fixture = Fixture::new();
    let root = fixture.tree(&ENTRIES);
    let entries = fixture.store.tree_files(&root).expect("listed");
    let shape = |entry: &TreeEntry| match &entry.node {
        Node::File { executable: true, .. } => format!("{}*", entry.path),
        Node::File { .. } => entry.path.clone(),
        Node::Symlink { target } => format!("{}->{target}", entry.path),
        Node::Tree { .. } => format!("{}/", entry.path),
    };
    let shapes: Vec<String> = entries.iter().map(shape).collect();
    let expect = ["a/empty/", "a/link->../a-b", "a/x/deep", "a/x/tool*", "a-b", "b/none", "z"];
    assert_eq!(shapes, expect);
    let empty = fixture.store.tree_files(&DirectoryCache::empty_root()).expect("listed");
    assert_eq!(empty, []);
}

impl DirectoryCache {
    fn empty_root() -> Digest {
        maestro_core::DigestFunction::Blake3.digest(b"")
    }
}

#[test]
fn what_is_no_directory_message_is_an_error() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_bytes(b"\x0a\xff not a message").expect("stored");
    let error = fixture.store.directory(&digest).expect_err("refused");
    assert!(matches!(error, StoreError::Decode { digest: d, .. } if d == digest));
    let absent = fixture.store.function().digest(b"absent");
    let error = fixture.store.tree_dir(&absent).expect_err("missing");
    assert!(matches!(error, StoreError::Missing { digest } if digest == absent));
    assert_eq!(fixture.temps(), 0);
}

fn check_content(path: &std::path::Path) {
    let read = |name: &str| fs::read_to_string(path.join(name)).expect("read");
    assert_eq!(
        (read("a-b"), read("a/x/tool"), read("b/none")),
        ("1".into(), "#!3".into(), "".into())
    );
    assert_eq!(fs::read_link(path.join("a/link")).expect("a link").to_str(), Some("../a-b"));
    assert!(path.join("a/empty").is_dir());
    for name in [".", "a", "a/empty", "a/x/deep", "b"] {
        let time = fs::symlink_metadata(path.join(name)).expect("there").mtime();
        assert_eq!(time, blob::MTIME_S, "{name}");
    }
}

#[test]
fn trees_are_laid_out_once_and_shared() {
    let fixture = Fixture::new();
    let root = fixture.tree(&ENTRIES);
    let path = fixture.store.tree_dir(&root).expect("laid out");
    check_content(&path);
    let inode = fs::metadata(&path).expect("there").ino();
    let again = fixture.reopen().tree_dir(&root).expect("there already");
    assert_eq!((again.clone(), fs::metadata(again).expect("there").ino()), (path, inode));
    let empty = fixture.store.tree_dir(&DirectoryCache::empty_root()).expect("laid out");
    assert_eq!(fs::read_dir(empty).expect("listed").count(), 0);
}

#[test]
fn a_touched_tree_is_laid_out_anew() {
    let check = |what: &str, touch: fn(&std::path::Path)| {
        let fixture = Fixture::new();
        let root = fixture.tree(&ENTRIES);
        touch(&fixture.store.tree_dir(&root).expect("laid out"));
        let store = fixture.reopen();
        // A write reaches the blob itself, which is then missing and made again.
        if let Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) = store.tree_dir(&root)
        {
            fixture.tree(&ENTRIES);
        }
        let path = store.tree_dir(&root).expect("laid out anew");
        check_content(&path);
        assert!(store.verify(false).expect("verified").is_clean(), "{what}");
    };
    check("a file removed", |path| fs::remove_file(path.join("a/x/deep")).expect("removed"));
    check("a file added", |path| fs::write(path.join("a/empty/new"), "").expect("written"));
    check("a folder removed", |path| fs::remove_dir(path.join("a/empty")).expect("removed"));
    check("a file written to", |path| overwrite(&path.join("a-b"), b"2"));
    check("all of it removed", |path| fs::remove_dir_all(path).expect("removed"));
}

#[test]
fn many_lay_out_the_same_tree_at_once() {
    let fixture = Fixture::new();
    let root = fixture.tree(&ENTRIES);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let store = fixture.reopen();
            scope.spawn(move || check_content(&store.tree_dir(&root).expect("laid out")));
        }
    });
    assert_eq!(fixture.temps(), 0);
}

#[test]
fn a_tree_that_names_itself_deeper_and_deeper_is_bounded() {
    let fixture = Fixture::new();
    let mut digest = fixture.tree(&[("f", "x")]);
    for _ in 0..limits::TREE_DEPTH_MAX + 1 {
        let name = "d".to_owned();
        let directories = vec![maestro_core::wire::DirectoryNode { name, digest }];
        let message = Directory { directories, ..Directory::default() };
        digest = fixture.store.put_bytes(&message.encode()).expect("stored");
    }
    let error = fixture.store.tree_files(&digest).expect_err("too deep");
    assert!(matches!(error, StoreError::TooLarge { .. }));
}
