//! Outputs of every shape, honest and hostile, in layers that the tests build by hand.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use maestro_cas::StoreOptions;
use maestro_core::{Digest, DigestFunction, Node};
use rustix::fs::IFlags;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("cache");
        let store = Store::open(StoreOptions { root, function: DigestFunction::Blake3 });
        fs::create_dir(dir.path().join("up")).expect("a folder");
        Self { dir, store: store.expect("a store") }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.dir.path().join("up")
    }

    fn collect(&self, outputs: &[(&str, ArtifactKind)]) -> Result<Collected, OutputError> {
        let wanted: Vec<Wanted> = outputs
            .iter()
            .map(|(path, kind)| {
                let (path, optional) = match path.strip_prefix('?') {
                    Some(path) => (path, true),
                    None => (*path, false),
                };
                Wanted { path: RelPath::new(path).expect("valid"), kind: Some(*kind), optional }
            })
            .collect();
        let layer = fs::File::open(self.layer()).expect("a folder");
        collect(&self.store, layer.as_fd(), &wanted)
    }
}

use ArtifactKind::{File as F, Tree as T};

/// Builds a layer, collects, and compares the message of the error.
fn check_error(build: impl Fn(&Path), outputs: &[(&str, ArtifactKind)], expect: &str) {
    let fixture = Fixture::new();
    build(&fixture.layer());
    let error = fixture.collect(outputs).expect_err(expect);
    assert_eq!(error.to_string(), expect);
}

#[test]
fn files_and_trees_are_stored() {
    let fixture = Fixture::new();
    let up = fixture.layer();
    fs::create_dir_all(up.join("o/tree/empty")).expect("folders");
    fs::create_dir_all(up.join("o/tree/sub")).expect("folders");
    fs::write(up.join("o/file"), "text").expect("a file");
    fs::write(up.join("o/tree/sub/tool"), "tool").expect("a file");
    fs::set_permissions(up.join("o/tree/sub/tool"), fs::Permissions::from_mode(0o4755))
        .expect("own file");
    symlink("sub/tool", up.join("o/tree/link")).expect("a link");
    symlink("../link", up.join("o/tree/sub/back")).expect("a link");
    let collected =
        fixture.collect(&[("o/tree", T), ("o/file", F), ("?o/left-out", F)]).expect("all there");
    let [file] = collected.files.as_slice() else { panic!("{collected:?}") };
    assert_eq!((file.path.as_str(), file.is_executable), ("o/file", false));
    assert_eq!(fixture.store.read(&file.digest).expect("stored"), b"text");
    let [tree] = collected.directories.as_slice() else { panic!("{collected:?}") };
    let entries = fixture.store.tree_files(&tree.root_directory_digest).expect("stored");
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["empty", "link", "sub/back", "sub/tool"]);
    let tool = entries.last().expect("four entries");
    assert!(matches!(tool.node, Node::File { executable: true, .. }), "{tool:?}");
}

#[test]
fn what_is_missing_is_listed() {
    let nothing = |_: &Path| {};
    check_error(nothing, &[("a", F)], "declared outputs were not made: `a`");
    check_error(
        |up| fs::write(up.join("b"), "").expect("a file"),
        &[("a/x", F), ("b", F), ("c", T)],
        "declared outputs were not made: `a/x`, `c`",
    );
    // A file where a folder on the way should be is no output below it.
    check_error(
        |up| fs::write(up.join("a"), "").expect("a file"),
        &[("a/x", F)],
        "declared outputs were not made: `a/x`",
    );
}

#[test]
fn kinds_must_be_as_declared() {
    check_error(
        |up| fs::create_dir(up.join("a")).expect("a folder"),
        &[("a", F)],
        "output `a` is declared as a file but is a folder",
    );
    check_error(
        |up| fs::write(up.join("a"), "").expect("a file"),
        &[("a", T)],
        "output `a` is declared as a folder but is a file",
    );
    check_error(
        |up| make_fifo(&up.join("a")),
        &[("a", F)],
        "output `a` is declared as a file but is a named pipe",
    );
}

#[test]
fn special_files_in_trees_are_refused() {
    let tree = |up: &Path| {
        fs::create_dir(up.join("t")).expect("a folder");
        up.join("t/x")
    };
    check_error(
        |up| make_fifo(&tree(up)),
        &[("t", T)],
        "`t/x` is a named pipe, which an output cannot be",
    );
    check_error(
        |up| {
            let path = tree(up);
            std::os::unix::net::UnixListener::bind(path).expect("a socket");
        },
        &[("t", T)],
        "`t/x` is a socket, which an output cannot be",
    );
}

#[test]
fn links_stay_in_their_tree() {
    let check = |target: &str, why: &str| {
        check_error(
            |up| {
                fs::create_dir_all(up.join("t/d")).expect("folders");
                symlink(target, up.join("t/d/l")).expect("a link");
            },
            &[("t", T)],
            &format!("the link `t/d/l` points to `{target}`, {why}"),
        );
    };
    check("/etc/passwd", "which is absolute");
    check("../../x", "which is outside of the output");
    check("..//./../x", "which is outside of the output");
    // `d -> ../` first, then `d/..`: lexically inside, for the kernel outside.
    check("s/../q", "which goes up after a name");
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.layer().join("t/d")).expect("folders");
    symlink("../d/x", fixture.layer().join("t/d/l")).expect("a link");
    fixture.collect(&[("t", T)]).expect("going up to the root of the tree is inside");
}

#[test]
fn an_output_is_no_link_and_lies_behind_none() {
    check_error(
        |up| symlink("/etc/passwd", up.join("a")).expect("a link"),
        &[("a", F)],
        "the link `a` points to `/etc/passwd`, and a declared output must not be a link itself",
    );
    check_error(
        |up| symlink("/etc", up.join("a")).expect("a link"),
        &[("a", T)],
        "the link `a` points to `/etc`, and a declared output must not be a link itself",
    );
    check_error(
        |up| symlink("/etc", up.join("d")).expect("a link"),
        &[("d/passwd", F)],
        "a folder on the way to output `d/passwd` is a link",
    );
    check_error(
        |up| {
            fs::create_dir(up.join("real")).expect("a folder");
            fs::write(up.join("real/x"), "").expect("a file");
            symlink("real", up.join("d")).expect("a link");
        },
        &[("d/x", F)],
        "a folder on the way to output `d/x` is a link",
    );
}

#[test]
fn odd_names_are_refused() {
    let check = |name: &[u8], shown: &str, why: &str| {
        check_error(
            |up| {
                fs::create_dir(up.join("t")).expect("a folder");
                fs::write(up.join("t").join(OsStr::from_bytes(name)), "").expect("a file");
            },
            &[("t", T)],
            &format!("the name `{shown}` in `t` {why}"),
        );
    };
    check(b"a\nb", "a\\nb", "has a control character");
    check(b"a\xffb", "a\\xffb", "is not UTF-8");
    check(b"\x7f", "\\x7f", "has a control character");
}

#[test]
fn hard_links_become_files_of_their_own() {
    let fixture = Fixture::new();
    let up = fixture.layer();
    fs::write(up.join("a"), "same").expect("a file");
    fs::hard_link(up.join("a"), up.join("b")).expect("a link");
    let collected = fixture.collect(&[("a", F), ("b", F)]).expect("both there");
    let digests: Vec<Digest> = collected.files.iter().map(|file| file.digest).collect();
    let expect = DigestFunction::Blake3.digest(b"same");
    assert_eq!(digests, [expect, expect]);
    assert_eq!(fixture.store.read(&expect).expect("stored"), b"same");
    // The layer's inode is not the store's: nobody can change a blob through a name left here.
    if let Ok(left) = fs::metadata(up.join("b")) {
        let blob = fixture.store.open_blob(&expect).expect("stored").metadata().expect("open");
        assert_ne!(left.ino(), blob.ino());
    }
}

/// Stores a file that `change` was done to; says whether the store got its very inode.
fn check_taken(change: impl Fn(&fs::File), moved: bool) {
    let fixture = Fixture::new();
    let path = fixture.layer().join("a");
    fs::write(&path, "text").expect("a file");
    let file = fs::File::options().write(true).open(&path).expect("there");
    change(&file);
    // The blocks of what was written are counted at once.
    file.sync_all().expect("written");
    let inode = file.metadata().expect("open").ino();
    let collected = fixture.collect(&[("a", F)]).expect("there");
    let output = collected.files.first().expect("one file");
    let blob = fixture.store.open_blob(&output.digest).expect("stored");
    let stat = blob.metadata().expect("open");
    assert_eq!(stat.ino() == inode, moved);
    assert_eq!(rustix::fs::flistxattr_query(&blob), Ok(0));
    let flags = rustix::fs::ioctl_getflags(&blob).unwrap_or(IFlags::empty());
    assert!(!flags.contains(IFlags::NODUMP), "{flags:?}");
    assert!(stat.blocks() * 512 >= stat.len(), "{stat:?}");
}

#[test]
fn only_content_and_mode_reach_the_store() {
    check_taken(|_| {}, true);
    let flags = rustix::fs::XattrFlags::empty();
    let attribute = |file: &fs::File| rustix::fs::fsetxattr(file, "user.hidden", b"evil", flags);
    check_taken(|file| attribute(file).expect("supported here"), false);
    let flag = |file: &fs::File| {
        let before = rustix::fs::ioctl_getflags(file)?;
        rustix::fs::ioctl_setflags(file, before | IFlags::NODUMP)
    };
    check_taken(|file| flag(file).expect("supported here"), false);
    check_taken(|file| file.set_len(1 << 20).expect("a hole"), false);
}

#[test]
fn unreadable_outputs_are_read() {
    let fixture = Fixture::new();
    let up = fixture.layer();
    fs::create_dir_all(up.join("t/d")).expect("folders");
    fs::write(up.join("t/d/x"), "x").expect("a file");
    fs::set_permissions(up.join("t/d/x"), fs::Permissions::from_mode(0o000)).expect("own");
    fs::set_permissions(up.join("t/d"), fs::Permissions::from_mode(0o000)).expect("own");
    let collected = fixture.collect(&[("t", T)]).expect("there");
    let tree = collected.directories.first().expect("one tree");
    let entries = fixture.store.tree_files(&tree.root_directory_digest).expect("stored");
    assert_eq!(entries.len(), 1);
}

#[test]
fn depth_is_bounded() {
    let build = |levels: usize| {
        let fixture = Fixture::new();
        let mut at =
            rustix::fs::open(fixture.layer(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .expect("a folder");
        for level in 0..levels {
            let name = if level == 0 { "t" } else { "d" };
            rustix::fs::mkdirat(&at, name, Mode::RWXU).expect("a folder");
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            at = rustix::fs::openat(&at, name, flags, Mode::empty()).expect("a folder");
        }
        fixture
    };
    build(limits::TREE_DEPTH_MAX).collect(&[("t", T)]).expect("deep, but permitted");
    let error = build(limits::TREE_DEPTH_MAX + 10).collect(&[("t", T)]).expect_err("too deep");
    assert_eq!(error.to_string(), "output `t` has folders nested too deeply, the limit is 512");
}

#[test]
fn what_was_made_instead_is_listed() {
    let fixture = Fixture::new();
    let up = fixture.layer();
    fs::create_dir_all(up.join("x/y")).expect("folders");
    fs::write(up.join("x/y/made"), "").expect("a file");
    fs::write(up.join("top"), "").expect("a file");
    let layer = fs::File::open(&up).expect("a folder");
    assert_eq!(list_files(layer.as_fd(), 10), ["top", "x/y/made"]);
    assert_eq!(list_files(layer.as_fd(), 1).len(), 1);
}

fn make_fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RWXU).expect("a pipe");
}
