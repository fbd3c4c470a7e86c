//! What a look by doubts finds is what a look at everything finds, whatever was done before.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use maestro_cas::StatSignature;
use maestro_core::DigestFunction;
use rkyv::rancor;

use super::*;
use crate::workspace::facts::{Content, Fact, FactTable, Listing, to_archive};
use crate::workspace::listing::{listing_digest, open_folder, read_listing};

/// A tree, the facts about it, and the doubts about those.
struct Fixture {
    temp: tempfile::TempDir,
    bytes: rkyv::util::AlignedVec,
    doubts: Doubts,
}

fn content(root: &Path, path: &str) -> (String, Fact) {
    let signature = StatSignature::of_stat(&rustix::fs::stat(root.join(path)).expect("there"));
    let digest = DigestFunction::Blake3.digest(&fs::read(root.join(path)).expect("readable"));
    (path.to_owned(), Fact::Content(Content::new(&signature, i64::MAX, digest)))
}

fn listing(root: &Path, path: &str) -> (String, Fact) {
    let stat = rustix::fs::stat(root.join(path)).expect("there");
    let text = root.join(path).to_str().expect("UTF-8").to_owned();
    let open = open_folder(rustix::fs::CWD, &text).expect("there");
    let digest = listing_digest(&read_listing(open).expect("readable")).into();
    let signature = (&StatSignature::of_stat(&stat)).into();
    (path.to_owned(), Fact::Listing(Listing { signature, racy: false, digest }))
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temp dir");
        let root = temp.path().join("root");
        for folder in ["", "a", "a/b", "a-b", "elsewhere", "elsewhere/in"] {
            fs::create_dir(root.join(folder)).expect("writable");
        }
        for file in ["top", "a/one", "a/two", "a/b/deep", "a-b/other", "elsewhere/in/f", "hard"] {
            fs::write(root.join(file), file).expect("writable");
        }
        fs::hard_link(root.join("hard"), temp.path().join("outside")).expect("writable");
        symlink("elsewhere/in", root.join("way")).expect("writable");
        symlink("top", root.join("a/link")).expect("writable");
        symlink("../elsewhere/in/f", root.join("a/through")).expect("writable");
        let mut facts: Vec<(String, Fact)> = Vec::new();
        let files =
            ["top", "a/one", "a/two", "a/b/deep", "a-b/other", "hard", "way/f", "a/through"];
        facts.extend(files.map(|path| content(&root, path)));
        facts.extend(["", "a", "a/b"].map(|path| listing(&root, path)));
        facts.extend([
            ("a/link".to_owned(), Fact::Link { target: "top".to_owned() }),
            ("a/absent".to_owned(), Fact::Absent),
            ("gone/x".to_owned(), Fact::Absent),
            ("gone/below/y".to_owned(), Fact::Absent),
            ("top/not-a-folder".to_owned(), Fact::Absent),
        ]);
        let bytes = to_archive(&FactTable::new(facts));
        let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
        let doubts = Doubts::new(&root, table).expect("a queue");
        Self { temp, bytes, doubts }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join("root").join(path)
    }

    /// What a look by doubts says, which is what a look at everything says.
    fn look(&mut self, after: &str) -> Vec<String> {
        let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&self.bytes).expect("valid");
        let root = self.temp.path().join("root");
        let all = table.differences(&root, &|_, _| false).expect("the root is there");
        let found = self.doubts.look(table).expect("the root is there");
        assert_eq!(found, all, "{after}");
        found.into_iter().map(|difference| difference.path).collect()
    }

    /// The folders that would be looked at although nothing happens.
    fn restless(&self) -> Vec<&str> {
        let folders = self.doubts.folders.iter();
        folders.filter(|(_, folder)| folder.wants_look()).map(|(path, _)| &**path).collect()
    }
}

#[test]
fn a_look_finds_what_a_look_at_everything_finds() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.look("nothing"), Vec::<String>::new());
    // A hard link, a link to a file, and a folder behind a link.
    assert_eq!(fixture.restless(), ["", "a", "way"]);

    let edit = |fixture: &mut Fixture, name: &str, edit: &dyn Fn(&Fixture), expect: &[&str]| {
        edit(fixture);
        assert_eq!(fixture.look(name), expect, "{name}");
        fixture.look(name);
    };
    let write = |path: &'static str| move |f: &Fixture| fs::write(f.at(path), "new").expect("done");
    edit(&mut fixture, "content", &write("a/b/deep"), &["a/b/deep"]);
    edit(&mut fixture, "another", &write("a-b/other"), &["a-b/other", "a/b/deep"]);
    edit(
        &mut fixture,
        "a new file",
        &write("a/absent"),
        &["a", "a-b/other", "a/absent", "a/b/deep"],
    );
    let remove = |path: &'static str| move |f: &Fixture| fs::remove_file(f.at(path)).expect("done");
    edit(&mut fixture, "and no more", &remove("a/absent"), &["a-b/other", "a/b/deep"]);
    edit(
        &mut fixture,
        "through a link",
        &write("elsewhere/in/f"),
        &["a-b/other", "a/b/deep", "a/through", "way/f"],
    );
    let outside = |f: &Fixture| fs::write(f.temp.path().join("outside"), "new").expect("done");
    edit(
        &mut fixture,
        "through a hard link",
        &outside,
        &["a-b/other", "a/b/deep", "a/through", "hard", "way/f"],
    );
}

#[test]
fn a_hard_link_that_is_made_later_is_seen() {
    let mut fixture = Fixture::new();
    fixture.look("nothing");
    fs::hard_link(fixture.at("a/one"), fixture.at("a-b/link")).expect("writable");
    fixture.look("a link");
    fs::write(fixture.at("a-b/link"), "new").expect("writable");
    assert!(fixture.look("through it").contains(&"a/one".to_owned()));
}

/// Does something with a tree where everything holds, and undoes it.
fn there_and_back(name: &str, there: &dyn Fn(&Fixture), expect: &[&str], back: &dyn Fn(&Fixture)) {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.look(name), Vec::<String>::new());
    there(&fixture);
    assert_eq!(fixture.look(name), expect, "{name}");
    back(&fixture);
    assert_eq!(fixture.look(name), Vec::<String>::new(), "{name}: and back");
    assert_eq!(fixture.restless(), ["", "a", "way"], "{name}: nothing is in doubt for good");
    fs::write(fixture.at("a/b/deep"), "new").expect("writable");
    assert_eq!(fixture.look(name), ["a/b/deep"], "{name}: the watches are set again");
}

#[test]
fn folders_come_go_and_move() {
    let rename = |from: &'static str, to: &'static str| {
        move |f: &Fixture| fs::rename(f.at(from), f.at(to)).expect("writable")
    };
    let below_a = ["", "a", "a/b", "a/b/deep", "a/link", "a/one", "a/through", "a/two"];
    there_and_back("a folder moves", &rename("a", "z"), &below_a, &rename("z", "a"));
    there_and_back(
        "one below",
        &rename("a/b", "z"),
        &["", "a", "a/b", "a/b/deep"],
        &rename("z", "a/b"),
    );
    let swap = |f: &Fixture| {
        for (from, to) in [("a", "t"), ("a-b", "a"), ("t", "a-b")] {
            fs::rename(f.at(from), f.at(to)).expect("writable");
        }
    };
    let swapped = ["a", "a-b/other", "a/b", "a/b/deep", "a/link", "a/one", "a/through", "a/two"];
    there_and_back("two change places", &swap, &swapped, &swap);
    let make = |f: &Fixture| {
        fs::create_dir_all(f.at("gone/below")).expect("writable");
        fs::write(f.at("gone/below/y"), "").expect("writable");
    };
    let unmake = |f: &Fixture| fs::remove_dir_all(f.at("gone")).expect("writable");
    there_and_back("a folder comes", &make, &["", "gone/below/y"], &unmake);
    let folder_link = |f: &Fixture| {
        fs::rename(f.at("a/b"), f.temp.path().join("b")).expect("writable");
        symlink("../../b", f.at("a/b")).expect("writable");
    };
    let folder_back = |f: &Fixture| {
        fs::remove_file(f.at("a/b")).expect("writable");
        fs::rename(f.temp.path().join("b"), f.at("a/b")).expect("writable");
    };
    there_and_back("a link in its place", &folder_link, &["a"], &folder_back);
    let move_root = |f: &Fixture| {
        fs::rename(f.at(""), f.temp.path().join("other")).expect("writable");
        fs::create_dir(f.at("")).expect("writable");
    };
    let root_back = |f: &Fixture| {
        fs::remove_dir(f.at("")).expect("writable");
        fs::rename(f.temp.path().join("other"), f.at("")).expect("writable");
    };
    let all = ["", "a", "a-b/other", "a/b", "a/b/deep", "a/link", "a/one", "a/through", "a/two"];
    let all: Vec<&str> = all.into_iter().chain(["hard", "top", "way/f"]).collect();
    there_and_back("another base", &move_root, &all, &root_back);
}

#[test]
fn kinds_and_permissions_change() {
    let mode = |path: &'static str, mode: u32| {
        move |f: &Fixture| {
            fs::set_permissions(f.at(path), fs::Permissions::from_mode(mode)).expect("writable");
        }
    };
    let mut fixture = Fixture::new();
    fixture.look("nothing");
    mode("a/one", 0o755)(&fixture);
    assert_eq!(fixture.look("a bit"), ["a/one"]);
    mode("a", 0o755)(&fixture);
    fixture.look("a folder's bit");
    fs::remove_file(fixture.at("a/link")).expect("writable");
    symlink("elsewhere", fixture.at("a/link")).expect("writable");
    assert_eq!(fixture.look("a link's target"), ["a/link", "a/one"]);
    fs::remove_file(fixture.at("top")).expect("writable");
    fs::create_dir(fixture.at("top")).expect("writable");
    fs::write(fixture.at("top/not-a-folder"), "").expect("writable");
    let expect = ["", "a/link", "a/one", "top", "top/not-a-folder"];
    assert_eq!(fixture.look("a file becomes a folder"), expect);
}

#[test]
fn lost_events_are_made_up_for() {
    let mut fixture = Fixture::new();
    fixture.look("nothing");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux");
    let limit: usize = limit.trim().parse().expect("a number");
    fs::write(fixture.at("a/b/deep"), "before").expect("writable");
    for number in 0..=limit {
        // Two files by turns, since equal events in a row count as one.
        let path = fixture.at(if number % 2 == 0 { "a/one" } else { "a/two" });
        fs::File::options().append(true).open(path).expect("writable");
    }
    fs::write(fixture.at("a-b/other"), "after").expect("writable");
    assert!(fixture.look("an overflow").contains(&"a-b/other".to_owned()));
    fs::write(fixture.at("top"), "after").expect("writable");
    assert!(fixture.look("after an overflow").contains(&"top".to_owned()));
}

#[test]
fn a_file_that_is_mapped_for_writing_is_told_when_it_is_let_go() {
    let mut fixture = Fixture::new();
    fixture.look("nothing");
    let script = "import mmap,sys\n\
        with open(sys.argv[1],'r+b') as f:\n m=mmap.mmap(f.fileno(),0); m[0:1]=b'Z'; m.close()";
    let python = Command::new("python3").args(["-c", script]).arg(fixture.at("a/one")).status();
    assert!(python.is_ok_and(|status| status.success()), "python3 writes through a map");
    assert_eq!(fixture.look("a map"), ["a/one"]);
}

#[test]
fn file_systems_are_told_apart() {
    assert!(is_told(tempfile::tempdir().expect("a temp dir").path()));
    assert!(!is_told(Path::new("/proc")), "not one that is known to tell");
    assert!(!is_told(Path::new("/no/such/folder")));
}

#[test]
fn what_lies_beside_the_base_is_watched_too() {
    let temp = tempfile::tempdir().expect("a temp dir");
    let root = temp.path().join("root");
    fs::create_dir_all(temp.path().join("beside/in")).expect("writable");
    fs::create_dir(&root).expect("writable");
    let file = temp.path().join("beside/in/file");
    fs::write(&file, "text").expect("writable");
    let path = file.to_str().expect("UTF-8").to_owned();
    let facts = [content(Path::new("/"), &path), ("/".to_owned() + "no-such", Fact::Absent)];
    let bytes = to_archive(&FactTable::new(facts));
    let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
    let mut doubts = Doubts::new(&root, table).expect("a queue");
    let mut look = || {
        let found = doubts.look(table).expect("the root is there");
        assert_eq!(found, table.differences(&root, &|_, _| false).expect("the root is there"));
        let restless = doubts.folders.values().filter(|folder| folder.wants_look()).count();
        (found.into_iter().map(|difference| difference.path).collect::<Vec<_>>(), restless)
    };
    assert_eq!(look(), (vec![], 0));
    let (beside, away) = (temp.path().join("beside"), temp.path().join("away"));
    fs::rename(&beside, &away).expect("writable");
    assert_eq!(look().0, std::slice::from_ref(&path), "a folder above moved");
    fs::rename(&away, &beside).expect("writable");
    assert_eq!(look(), (vec![], 0));
    fs::write(&file, "other").expect("writable");
    assert_eq!(look().0, [path]);
}

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Does something to one or two paths; whether it works out does not matter.
fn disturb(root: &Path, numbers: &mut Numbers) -> String {
    const PATHS: [&str; 14] = [
        "top",
        "a",
        "a/one",
        "a/two",
        "a/absent",
        "a/link",
        "a/b",
        "a/b/deep",
        "a-b",
        "a-b/other",
        "gone",
        "gone/x",
        "way",
        "elsewhere/in",
    ];
    let (path, other) = (PATHS[numbers.below(PATHS.len())], PATHS[numbers.below(PATHS.len())]);
    let (at, to) = (root.join(path), root.join(other));
    let what = numbers.below(9);
    let _ = match what {
        0 => fs::write(&at, format!("{}", numbers.below(1_000))),
        1 => fs::File::options().append(true).open(&at).map(drop),
        2 => fs::remove_file(&at),
        3 => fs::remove_dir_all(&at),
        4 => fs::create_dir_all(&at),
        5 | 6 => fs::rename(&at, &to),
        7 => symlink(&to, &at),
        _ => fs::set_permissions(&at, fs::Permissions::from_mode(0o700 + (what as u32 & 1))),
    };
    format!("{what} {path} {other}")
}

#[test]
fn whatever_is_done_a_look_finds_what_a_look_at_everything_finds() {
    for seed in 0..20 {
        let mut fixture = Fixture::new();
        let mut numbers = Numbers(seed);
        let mut done = Vec::new();
        for _ in 0..60 {
            for _ in 0..=numbers.below(4) {
                done.push(disturb(&fixture.at(""), &mut numbers));
            }
            fixture.look(&format!("seed {seed}: {done:#?}"));
        }
    }
}
