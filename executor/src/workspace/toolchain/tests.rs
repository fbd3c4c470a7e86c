//! Toolchains over a made-up machine, and one over the machine that the test runs on.

use super::*;
use maestro_cas::StoreOptions;
use maestro_core::DigestFunction;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A machine with merged `/usr`, three packages and a group of alternatives.
struct Machine {
    folder: tempfile::TempDir,
}

const STATUS: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1

Package: tool
Status: install ok installed
Architecture: amd64
Version: 2.0-1
Depends: lib (>= 1)

Package: lib
Status: install ok installed
Architecture: amd64
Version: 3

Package: other
Status: install ok installed
Architecture: all
Version: 4
";

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a temp dir") };
        machine.write("var/lib/dpkg/status", STATUS);
        let tool = "/.\n/bin\n/bin/tool\n/usr/bin/gone\n/usr/bin/setuid\n\
            /etc/tool.conf\n/usr/share/doc/tool/README\n/usr/lib/p/x.pyc\n/usr/bin/abs\n";
        machine.write("var/lib/dpkg/info/tool.list", tool);
        machine.write("var/lib/dpkg/info/lib:amd64.list", "/usr\n/usr/lib\n/lib/lib.so.1\n");
        machine.write("var/lib/dpkg/info/other.list", "/usr/bin/other\n");
        let group = "auto\n/usr/bin/t\nt.1\n/usr/share/man/t.1\n\n\
            /usr/bin/tool\n5\n\n/usr/bin/other\n10\n\n\n";
        machine.write("var/lib/dpkg/alternatives/t", group);
        for path in ["usr/bin/tool", "usr/bin/setuid", "usr/bin/other"] {
            machine.write(path, path);
            machine.chmod(path, 0o755);
        }
        machine.chmod("usr/bin/setuid", 0o4755);
        for path in ["usr/lib/lib.so.1", "usr/share/doc/tool/README", "usr/lib/p/x.pyc"] {
            machine.write(path, path);
        }
        for (link, target) in [
            ("bin", "usr/bin"),
            ("lib", "usr/lib"),
            ("usr/bin/abs", "/lib/lib.so.1"),
            ("usr/bin/t", "/etc/alternatives/t"),
            ("etc/alternatives/t", "/usr/bin/other"),
        ] {
            let link = machine.path(link);
            fs::create_dir_all(link.parent().expect("has one")).expect("writable");
            symlink(target, link).expect("writable");
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("writable");
        fs::write(path, text).expect("writable");
    }

    fn chmod(&self, path: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(path), mode).expect("ours");
    }

    fn store(&self) -> Store {
        let root = self.folder.path().join("cache");
        Store::open(StoreOptions { root, function: DigestFunction::Blake3 }).expect("opens")
    }

    fn toolchains(&self) -> Toolchains {
        let paths = DpkgPaths { root: self.path(""), admin: self.path("var/lib/dpkg") };
        Toolchains::new(self.store(), paths)
    }

    /// The tree as lines: path, then `*` if executable or the text of a link.
    fn tree(&self, root: &Digest) -> Vec<String> {
        let entries = self.store().tree_files(root).expect("in the store");
        let line = |entry: maestro_cas::TreeEntry| match entry.node {
            Node::File { executable: true, .. } => format!("{} *", entry.path),
            Node::File { .. } => entry.path.to_string(),
            Node::Symlink { target } => format!("{} -> {target}", entry.path),
            Node::Tree { .. } => format!("{}/", entry.path),
        };
        entries.into_iter().map(line).collect()
    }
}

fn declaration(packages: &[&str]) -> Toolchain {
    Toolchain {
        name: "test".to_owned(),
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        exclude: Vec::new(),
        exclude_paths: Vec::new(),
    }
}

#[test]
fn the_tree_has_the_files_of_the_closure_at_their_places() {
    let machine = Machine::new();
    let resolved = machine.toolchains().resolve(&declaration(&["tool"])).expect("installed");
    let expect = [
        "bin -> usr/bin",
        "lib -> usr/lib",
        "usr/bin/abs -> ../lib/lib.so.1",
        "usr/bin/setuid *",
        "usr/bin/t -> tool",
        "usr/bin/tool *",
        "usr/lib/lib.so.1",
    ];
    assert_eq!(machine.tree(&resolved.root), expect);
    let pairs = [("lib", "3"), ("tool", "2.0-1")];
    assert_eq!(resolved.packages, pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
    let mount = machine.toolchains().materialize(&resolved).expect("in the store");
    let mode = fs::metadata(mount.path.join("bin/setuid")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7000, 0, "no setuid bit");
}

#[test]
fn the_hosts_choice_of_an_alternative_wins_where_the_tree_has_it() {
    let machine = Machine::new();
    let both = machine.toolchains().resolve(&declaration(&["tool", "other"])).expect("installed");
    assert!(machine.tree(&both.root).contains(&"usr/bin/t -> other".to_owned()));
    fs::remove_file(machine.path("etc/alternatives/t")).expect("there");
    symlink("/usr/bin/tool", machine.path("etc/alternatives/t")).expect("writable");
    let after = machine.toolchains().resolve(&declaration(&["tool", "other"])).expect("installed");
    assert!(machine.tree(&after.root).contains(&"usr/bin/t -> tool".to_owned()));
    assert_ne!(both.root, after.root);
}

#[test]
fn exclusions_count() {
    let machine = Machine::new();
    let declaration = Toolchain {
        exclude: vec!["lib".to_owned()],
        exclude_paths: vec!["/usr/bin/setuid".to_owned()],
        ..declaration(&["tool"])
    };
    let resolved = machine.toolchains().resolve(&declaration).expect("installed");
    assert_eq!(
        machine.tree(&resolved.root),
        ["bin -> usr/bin", "usr/bin/t -> tool", "usr/bin/tool *"]
    );
}

#[test]
fn all_missing_packages_are_named_at_once() {
    let machine = Machine::new();
    let declaration = declaration(&["zzz", "tool", "aaa"]);
    let toolchains = machine.toolchains();
    assert_eq!(toolchains.missing(&declaration).expect("readable"), ["aaa", "zzz"]);
    let error = toolchains.resolve(&declaration).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "toolchain `test` needs packages that are not installed: aaa, zzz"
    );
    assert_eq!(
        error.hints().first().map(String::as_str),
        Some("run `apt-get install --no-install-recommends aaa zzz`")
    );
}

/// Resolves again after an edit and says whether the list still held and whether the tree moved.
fn check(edit: impl FnOnce(&Machine), holds: bool, same_tree: bool) {
    let machine = Machine::new();
    let declaration = declaration(&["tool"]);
    let before = machine.toolchains().resolve(&declaration).expect("installed");
    edit(&machine);
    let list = ToolchainList::open(before.list_path()).expect("readable").expect("whole");
    assert_eq!(list.root(), before.root);
    assert_eq!(list.first_change().expect("readable").is_none(), holds);
    let after = machine.toolchains().resolve(&declaration).expect("installed");
    assert_eq!(before.root == after.root, same_tree);
    machine.tree(&after.root);
    let list = ToolchainList::open(after.list_path()).expect("readable").expect("whole");
    assert_eq!(list.first_change().expect("readable"), None, "the list is right again");
}

#[test]
fn the_list_notices_what_the_tree_was_made_of() {
    check(|_| {}, true, true);
    check(|machine| machine.write("usr/bin/tool", "new"), false, false);
    check(|machine| machine.write("usr/bin/gone", "it came"), false, false);
    check(|machine| machine.write("usr/bin/other", "not in the tree"), true, true);
    check(
        |machine| {
            let text = format!("{STATUS}\nPackage: unrelated\nStatus: install ok installed\n");
            machine.write("var/lib/dpkg/status", &text);
        },
        false,
        true,
    );
    check(|machine| machine.write("var/lib/dpkg/info/lib:amd64.list", "/usr\n"), false, false);
    check(
        |machine| {
            fs::remove_file(machine.path("usr/bin/abs")).expect("there");
            symlink("tool", machine.path("usr/bin/abs")).expect("writable");
        },
        false,
        false,
    );
}

#[test]
fn a_damaged_list_and_lost_blobs_are_made_again() {
    let machine = Machine::new();
    let declaration = declaration(&["tool"]);
    let resolved = machine.toolchains().resolve(&declaration).expect("installed");
    fs::write(resolved.list_path(), "damaged").expect("writable");
    assert_eq!(*machine.toolchains().resolve(&declaration).expect("installed"), *resolved);

    fs::remove_dir_all(machine.folder.path().join("cache/cas")).expect("there");
    let toolchains = machine.toolchains();
    let mount = toolchains.materialize(&resolved).expect("copied again");
    assert_eq!(fs::read(mount.path.join("usr/bin/tool")).expect("there"), b"usr/bin/tool");
    assert_eq!(mount.root, resolved.root);
}

#[test]
fn files_that_nobody_reads_stay_where_they_are() {
    let (here, elsewhere) = (Machine::new(), Machine::new());
    let declaration = declaration(&["tool"]);
    let copied = here.toolchains().resolve(&declaration).expect("installed");
    let toolchains = elsewhere.toolchains().with_copying(Copying::WhenRead);
    let hashed = toolchains.resolve(&declaration).expect("installed");
    assert_eq!(hashed.root, copied.root);
    let tool = DigestFunction::Blake3.digest(b"usr/bin/tool");
    assert!(here.store().contains(&tool) && !elsewhere.store().contains(&tool));
    // A file that changes in between is not taken for what it was.
    let mount = toolchains.materialize(&hashed).expect("copied now");
    assert_eq!(fs::read(mount.path.join("usr/bin/tool")).expect("there"), b"usr/bin/tool");
    assert!(elsewhere.store().contains(&tool));
    let late = Machine::new();
    let toolchains = late.toolchains().with_copying(Copying::WhenRead);
    let hashed = toolchains.resolve(&declaration).expect("installed");
    late.write("usr/bin/tool", "something else");
    let error = toolchains.materialize(&hashed).expect_err("it is not there any more");
    assert!(matches!(error, ToolchainError::Store { .. }), "{error}");
}

#[test]
fn odd_names_are_refused_with_the_name_escaped() {
    let machine = Machine::new();
    let list = machine.path("var/lib/dpkg/info/other.list");
    fs::write(&list, b"/usr/bin/a\xff\n").expect("writable");
    let error = machine.toolchains().resolve(&declaration(&["other"])).expect_err("refused");
    let expect = "package `other` has a file whose name cannot stand in a tree: `/usr/bin/a\\xff`";
    assert_eq!(error.to_string(), expect);
}

#[test]
fn this_machine_has_a_shell_with_its_libraries() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let root = folder.path().join("cache");
    let store = Store::open(StoreOptions { root, function: DigestFunction::Blake3 });
    let toolchains = Toolchains::new(store.expect("opens"), DpkgPaths::default());
    let declaration = declaration(&["bash", "coreutils"]);
    let resolved = toolchains.resolve(&declaration).expect("essential packages are installed");
    let mount = toolchains.materialize(&resolved).expect("in the store");
    for path in ["bin/bash", "bin/sh", "usr/bin/sha256sum", "lib64/ld-linux-x86-64.so.2"] {
        let file = fs::canonicalize(mount.path.join(path)).expect("there");
        assert!(file.starts_with(fs::canonicalize(&mount.path).expect("there")), "{path}");
    }
    let libraries = fs::read_dir(mount.path.join("usr/lib/x86_64-linux-gnu")).expect("there");
    let names: Vec<String> = libraries
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    for name in ["libc.so.6", "libtinfo.so.6"] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
    let list = ToolchainList::open(resolved.list_path()).expect("readable").expect("whole");
    assert_eq!(list.first_change().expect("readable"), None);
}
