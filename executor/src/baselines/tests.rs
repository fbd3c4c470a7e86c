//! Writing and reading back, with what a cache may do in between.

use maestro_cas::StoreOptions;
use maestro_core::key::{InputPart, KeyParts, TOOLCHAINS_FILE, explain};
use maestro_core::merkle::{Node, merkle};
use maestro_core::wire::{Action, Command};
use maestro_core::{Change, RelPath};

use super::*;

const FUNCTION: DigestFunction = DigestFunction::Blake3;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("cache");
        let store = Store::open(StoreOptions { root, function: FUNCTION }).expect("a store");
        Self { _dir: dir, store }
    }

    /// An action over some files, a tree and toolchains, with its messages in the store.
    fn prepared(&self, argument: &str, files: &[(&str, &str)], toolchains: &[&str]) -> Prepared {
        let digest = |text: &str| FUNCTION.digest(text.as_bytes());
        let path = |path: &str| RelPath::new(path).expect("valid");
        let file = |text: &str| Node::File { digest: digest(text), executable: false };
        let mut entries: Vec<(RelPath, Node)> =
            files.iter().map(|(name, text)| (path(name), file(text))).collect();
        entries.push((path("out/tree"), Node::Tree { root: digest("a tree") }));
        entries.push((path("link"), Node::Symlink { target: "a/b".into() }));
        let list: String = toolchains.iter().map(|name| format!("{}\n", digest(name))).collect();
        if !list.is_empty() {
            self.store.put_bytes(list.as_bytes()).expect("stored");
            entries.push((path(TOOLCHAINS_FILE), file(&list)));
        }
        let tree = merkle(FUNCTION, entries).expect("no clash");
        let platform = vec![("os".to_owned(), "linux".to_owned())];
        let command = Command {
            arguments: vec!["cc".into(), argument.into()],
            environment_variables: vec![("A".into(), "b".into())],
            output_paths: vec!["out/o".into()],
            platform: platform.clone(),
        };
        let action = Action {
            command_digest: self.store.put_bytes(&command.encode()).expect("stored"),
            input_root_digest: tree.root,
            timeout_ms: Some(1500),
            do_not_cache: false,
            salt: b"{\"class\":\"pure\"}".to_vec(),
            platform,
        };
        let key = ActionKey(self.store.put_bytes(&action.encode()).expect("stored"));
        let named = toolchains.iter().map(|name| ((*name).to_owned(), digest(name))).collect();
        let inputs = tree.entries.iter().map(|(path, node)| {
            let part = match node.clone() {
                Node::File { digest, executable } => InputPart::File { digest, executable },
                Node::Symlink { target } => InputPart::Symlink(target),
                Node::Tree { root } => InputPart::Tree(root),
            };
            (path.to_string(), part)
        });
        let command_digest = action.command_digest;
        let parts = KeyParts::of_messages(command, action, inputs.collect(), named);
        Prepared { key, command: command_digest, parts, tree, blobs: Vec::new() }
    }

    fn run(&self, number: u64, prepared: &[&Prepared]) {
        let build = Build { invocation_id: format!("build-{number}"), started_unix_ms: number };
        let writer = Writer::new(&self.store, &build);
        for prepared in prepared {
            writer.note(identity(), prepared, 1);
        }
        writer.finish().expect("stored");
    }

    fn entries(&self) -> Vec<Entry> {
        Baselines::new(&self.store).entries(&identity()).expect("readable")
    }

    fn changes(&self, entry: &Entry, now: &Prepared) -> Option<Vec<Change>> {
        let old = Baselines::new(&self.store).parts(entry, &now.parts)?;
        Some(explain(&old, &now.parts))
    }
}

fn identity() -> Identity {
    Identity { mnemonic: "Compile".into(), path: "out/o".into() }
}

#[test]
fn what_a_key_was_made_of_comes_back() {
    let fixture = Fixture::new();
    let files = [("a/b", "1"), ("a/c/d", "2"), ("e", "")];
    for (argument, files, toolchains) in
        [("-O1", &files[..], &["cc", "sh"][..]), ("-O2", &files[..1], &[]), ("", &[], &["cc"])]
    {
        let prepared = fixture.prepared(argument, files, toolchains);
        fixture.run(1, &[&prepared]);
        let last = fixture.entries().pop().expect("an entry");
        assert_eq!((last.key, last.unix_ms), (prepared.key, 2));
        assert_eq!(fixture.changes(&last, &prepared), Some(Vec::new()), "{argument}");
    }
}

#[test]
fn toolchains_are_named_as_they_are_now() {
    let fixture = Fixture::new();
    fixture.run(1, &[&fixture.prepared("", &[], &["cc", "sh"])]);
    let now = fixture.prepared("", &[], &["newer cc", "sh"]);
    let changes = fixture.changes(&fixture.entries()[0], &now).expect("readable");
    let [Change::Toolchain { name, old: Some(_), new: Some(_) }] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(name, "newer cc");
}

#[test]
fn the_last_few_runs_are_kept_and_at_most_two_of_a_key() {
    let fixture = Fixture::new();
    let [same, other] = ["same", "other"].map(|text| fixture.prepared(text, &[], &[]));
    for number in 10..14 {
        fixture.run(number, &[&same]);
    }
    fixture.run(14, &[&other]);
    let times = |fixture: &Fixture| -> Vec<u64> {
        fixture.entries().iter().map(|entry| entry.unix_ms).collect()
    };
    assert_eq!(times(&fixture), [13, 14, 15]);
    for number in 20..30 {
        fixture.run(number, &[&fixture.prepared(&number.to_string(), &[], &[])]);
    }
    assert_eq!(times(&fixture), (23..31).collect::<Vec<u64>>());
}

#[test]
fn what_is_gone_or_makes_no_sense_is_not_there() {
    let fixture = Fixture::new();
    let prepared = fixture.prepared("x", &[("a/b", "1")], &[]);
    fixture.run(1, &[&prepared]);
    let entry = fixture.entries().pop().expect("an entry");
    // A pack that is no tree, and one without the root.
    for bytes in [&b"\xff\xff"[..], b""] {
        let inputs = fixture.store.put_bytes(bytes).expect("stored");
        let odd = Entry { inputs, ..entry.clone() };
        assert_eq!(fixture.changes(&odd, &prepared), None);
    }
    let key = identity().record_key(FUNCTION);
    let file = |path: &str| OutputFile {
        path: path.to_owned(),
        digest: entry.inputs,
        is_executable: false,
    };
    for paths in [
        &["a", "1/b", "x/b/action", "1/\x1b[2J/action"][..],
        &["1/b/action", "1/b/command", "2/b/inputs", "1/b/else"],
    ] {
        let output_files = paths.iter().map(|path| file(path)).collect();
        let worker = SCHEME.to_owned();
        let record = ActionResult { output_files, worker, ..ActionResult::default() };
        fixture.store.put_action_result(&key, &record).expect("stored");
        assert_eq!(fixture.entries(), [], "{paths:?}");
    }
    fixture.run(2, &[&prepared]);
    assert_eq!(fixture.entries().len(), 1, "an odd record is replaced");
}

#[test]
fn a_run_that_lost_a_blob_makes_way_and_the_others_stay() {
    let fixture = Fixture::new();
    let runs = ["a", "b", "c"].map(|text| fixture.prepared(text, &[("f", text)], &[]));
    let [first, second, third] = &runs;
    fixture.run(1, &[first]);
    fixture.run(2, &[second]);
    let hex = first.key.0.hex();
    let (shard, _) = hex.split_at(2);
    let blob = fixture.store.root().join("cas").join(shard).join(&hex);
    std::fs::remove_file(blob).expect("it was stored");
    fixture.run(3, &[third]);
    let keys: Vec<ActionKey> = fixture.entries().iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [second.key, third.key]);
}

#[test]
fn every_batch_is_stored() {
    let fixture = Fixture::new();
    let prepared = fixture.prepared("x", &[("a/b", "1")], &[]);
    let build = Build { invocation_id: "build".into(), started_unix_ms: 1 };
    let writer = Writer::new(&fixture.store, &build);
    let count = limits::BASELINE_PACK_ACTIONS * 2 + 1;
    let identity = |number: usize| Identity { path: format!("out/{number}"), ..identity() };
    for number in 0..count {
        writer.note(identity(number), &prepared, 1);
    }
    writer.finish().expect("stored");
    let baselines = Baselines::new(&fixture.store);
    for number in 0..count {
        let entries = baselines.entries(&identity(number)).expect("readable");
        assert_eq!(entries.len(), 1, "{number}");
    }
}

#[test]
fn enormous_inputs_are_left_out() {
    let fixture = Fixture::new();
    let mut prepared = fixture.prepared("x", &[], &[]);
    let bytes = vec![0; limits::BASELINE_ACTION_BYTES_MAX + 1];
    prepared.tree.directories.push((FUNCTION.digest(&bytes), bytes));
    fixture.run(1, &[&prepared]);
    assert_eq!(fixture.entries(), []);
}
