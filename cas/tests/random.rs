//! Random interleavings of writes, lookups, damage, collections and checks on two stores.
//!
//! The invariant: whatever came before, what a lookup returns can be read and is right, and what
//! it does not return can be stored again. The model is only the list of what was stored.

use std::os::fd::AsFd as _;

use maestro_cas::{GcOptions, Store, StoreError, StoreOptions};
use maestro_core::wire::{ActionResult, OutputDirectory, OutputFile};
use maestro_core::{ActionKey, Digest, DigestFunction, Node, RelPath};
use proptest::prelude::*;

const NAMES: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// Stores blob and tree of a name, and the result that names them.
    Run(u8),
    /// Looks the result up and reads all that it names.
    Look(u8),
    /// Links, copies or lays out what a name stands for, if it is there.
    Use(u8),
    Collect {
        bytes_max: u64,
    },
    Delete(u8),
    Damage {
        name: u8,
        length: usize,
    },
    CutResult {
        name: u8,
        length: usize,
    },
    LoseIndex,
    Restart,
    Verify {
        repair: bool,
    },
    Lease,
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES;
    prop_oneof![
        4 => name().prop_map(Step::Run),
        4 => name().prop_map(Step::Look),
        2 => name().prop_map(Step::Use),
        2 => prop_oneof![Just(0), 100u64..3000].prop_map(|bytes_max| Step::Collect { bytes_max }),
        1 => name().prop_map(Step::Delete),
        1 => (name(), 0..40usize).prop_map(|(name, length)| Step::Damage { name, length }),
        1 => (name(), 0..200usize).prop_map(|(name, length)| Step::CutResult { name, length }),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(|repair| Step::Verify { repair }),
        1 => Just(Step::Lease),
        1 => Just(Step::Seal),
    ]
}

struct World {
    dir: tempfile::TempDir,
    stores: [Store; 2],
    leases: Vec<maestro_cas::Lease>,
    count: u32,
}

fn content(name: u8) -> Vec<u8> {
    format!("content of {name} ").repeat(3).into_bytes()
}

fn key(name: u8) -> ActionKey {
    ActionKey(DigestFunction::Blake3.digest(&[name]))
}

fn file_of(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("cas/{}/{hex}", hex.get(..2).expect("hex"))
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let stores = [Self::open(&dir), Self::open(&dir)];
        Self { dir, stores, leases: Vec::new(), count: 0 }
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        let root = dir.path().join("cache");
        Store::open(StoreOptions { root, function: DigestFunction::Blake3 }).expect("opens")
    }

    /// The two stores take turns.
    fn store(&mut self) -> Store {
        self.count += 1;
        self.stores[self.count as usize % 2].clone()
    }

    fn run(&mut self, name: u8) -> ActionResult {
        let store = self.store();
        let digest = store.put_bytes(&content(name)).expect("stored");
        let path = RelPath::new("d/f").expect("a path");
        let node = Node::File { digest, executable: name.is_multiple_of(2) };
        let tree = maestro_core::merkle::merkle(DigestFunction::Blake3, vec![(path, node)]);
        let tree = tree.expect("no clash");
        for (digest, bytes) in &tree.directories {
            store.put_known(digest, bytes).expect("stored");
        }
        let output = OutputFile { path: "out/f".into(), digest, is_executable: false };
        let root_directory_digest = tree.root;
        let result = ActionResult {
            output_files: vec![output],
            output_directories: vec![OutputDirectory { path: "t".into(), root_directory_digest }],
            worker: "local".into(),
            ..ActionResult::default()
        };
        store.put_action_result(&key(name), &result).expect("stored");
        result
    }

    fn look(&mut self, name: u8) {
        let store = self.store();
        let result = match store.action_result(&key(name)).expect("looked up") {
            Some(result) => result,
            None => {
                let made = self.run(name);
                let found = self.store().action_result(&key(name)).expect("looked up");
                assert_eq!(found.as_ref(), Some(&made), "what was just stored is a hit");
                made
            }
        };
        for file in &result.output_files {
            assert_eq!(store.read(&file.digest).expect("a hit can be read"), content(name));
        }
        for tree in &result.output_directories {
            let entries = store.tree_files(&tree.root_directory_digest).expect("listed");
            assert_eq!(entries.len(), 1);
        }
    }

    fn make_use(&mut self, name: u8) {
        let (store, digest) = (self.store(), DigestFunction::Blake3.digest(&content(name)));
        let outside = self.dir.path().join(format!("outside-{}", self.count));
        std::fs::create_dir(&outside).expect("made");
        let dir = std::fs::File::open(&outside).expect("opened");
        let linked = store.link_into(&digest, name.is_multiple_of(2), dir.as_fd(), "link");
        let copied = store.copy_out(&digest, false, &outside.join("copy"));
        for (file, done) in [("link", linked), ("copy", copied)] {
            match done {
                Ok(()) => {
                    let bytes = std::fs::read(outside.join(file)).expect("read");
                    assert_eq!(bytes, content(name));
                }
                Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn write(&self, relative: &str, act: impl FnOnce(&mut Vec<u8>)) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join("cache").join(relative);
        let Ok(mut bytes) = std::fs::read(&path) else { return };
        act(&mut bytes);
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, mode).expect("set");
        std::fs::write(&path, bytes).expect("written");
    }

    fn apply(&mut self, step: &Step) {
        let store = self.store();
        match step {
            Step::Run(name) => drop(self.run(*name)),
            Step::Look(name) => self.look(*name),
            Step::Use(name) => self.make_use(*name),
            Step::Collect { bytes_max } => {
                let options = GcOptions { bytes_max: Some(*bytes_max), age_ms_max: None };
                store.gc(options).expect("collected");
            }
            Step::Delete(name) => {
                let file = file_of(&DigestFunction::Blake3.digest(&content(*name)));
                let _ = std::fs::remove_file(self.dir.path().join("cache").join(file));
            }
            Step::Damage { name, length } => {
                let file = file_of(&DigestFunction::Blake3.digest(&content(*name)));
                self.write(&file, |bytes| {
                    bytes.truncate(*length);
                    bytes.push(b'!');
                });
            }
            Step::CutResult { name, length } => {
                let hex = key(*name).0.hex();
                let file = format!("ac/{}/{hex}", hex.get(..2).expect("hex"));
                self.write(&file, |bytes| bytes.truncate(*length));
            }
            Step::LoseIndex => {
                let _ = std::fs::remove_dir_all(self.dir.path().join("cache/index"));
            }
            Step::Restart => {
                self.leases.clear();
                self.stores = [Self::open(&self.dir), Self::open(&self.dir)];
            }
            Step::Verify { repair } => drop(store.verify(*repair).expect("verified")),
            Step::Lease => self.leases.push(store.lease().expect("taken")),
            Step::Seal => store.seal_epoch().expect("sealed"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_hit_is_usable_after_any_interleaving(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        for name in 0..NAMES {
            world.look(name);
        }
        world.store().verify(true).expect("repaired");
        for name in 0..NAMES {
            world.look(name);
        }
        let report = world.store().verify(false).expect("verified");
        prop_assert!(report.is_clean(), "{:?}", report);
    }
}
