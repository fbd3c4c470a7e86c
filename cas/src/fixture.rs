//! Stores of tests, each in a folder of its own.

use std::path::PathBuf;

use maestro_core::wire::{ActionResult, OutputDirectory, OutputFile};
use maestro_core::{ActionKey, Digest, DigestFunction, Node, RelPath};

use crate::{Limits, Store, StoreOptions};

/// A store and its folder, which is removed in the end.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options =
            StoreOptions { root: dir.path().join("cache"), function: DigestFunction::Blake3 };
        Self { store: Store::open_with(options, limits).expect("opens"), dir }
    }

    /// Another store on the same folder, as another process would have it.
    pub(crate) fn reopen(&self) -> Store {
        let root = self.store.root().to_owned();
        Store::open(StoreOptions { root, function: DigestFunction::Blake3 }).expect("opens")
    }

    /// Ends the store and opens it again.
    pub(crate) fn restart(self) -> Self {
        let root = self.store.root().to_owned();
        drop(self.store);
        let options = StoreOptions { root, function: DigestFunction::Blake3 };
        Self { store: Store::open(options).expect("opens"), dir: self.dir }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.store.root().join(relative)
    }

    /// The file of a blob without execute permission.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.path(&crate::layout::blob_path(digest, crate::layout::Form::Plain))
    }

    /// A folder for users' files.
    pub(crate) fn outside(&self) -> std::fs::File {
        let path = self.dir.path().join("outside");
        std::fs::create_dir_all(&path).expect("made");
        std::fs::File::open(path).expect("opened")
    }

    /// Stores a tree of files and links; a text that begins with `->` is a link, one that is `/`
    /// an empty folder, and one that begins with `#!` is executable.
    pub(crate) fn tree(&self, entries: &[(&str, &str)]) -> Digest {
        let entries = entries.iter().map(|(path, text)| {
            let node = match text.strip_prefix("->") {
                Some(target) => Node::Symlink { target: target.to_owned() },
                None if *text == "/" => Node::Tree { root: DigestFunction::Blake3.digest(b"") },
                None => Node::File {
                    digest: self.store.put_bytes(text.as_bytes()).expect("stored"),
                    executable: text.starts_with("#!"),
                },
            };
            (RelPath::new(path).expect("a path"), node)
        });
        let tree = maestro_core::merkle::merkle(DigestFunction::Blake3, entries.collect());
        let tree = tree.expect("no clash");
        for (digest, bytes) in &tree.directories {
            self.store.put_known(digest, bytes).expect("stored");
        }
        tree.root
    }

    /// How many files lie in scratch.
    pub(crate) fn temps(&self) -> usize {
        let Ok(folders) = std::fs::read_dir(self.path("scratch")) else { return 0 };
        let folders = folders.map(|entry| entry.expect("listed").path().join("temps"));
        folders.filter_map(|temps| std::fs::read_dir(temps).ok()).flatten().count()
    }
}

/// A key that nothing else has.
pub(crate) fn key(text: &str) -> ActionKey {
    ActionKey(DigestFunction::Blake3.digest(text.as_bytes()))
}

/// A result that names a file for each digest, and a tree.
pub(crate) fn result(files: &[Digest], tree: Option<Digest>) -> ActionResult {
    let output = |(n, digest): (usize, &Digest)| OutputFile {
        path: format!("out/{n}"),
        digest: *digest,
        is_executable: false,
    };
    ActionResult {
        output_files: files.iter().enumerate().map(output).collect(),
        output_directories: tree
            .map(|root| OutputDirectory { path: "out/t".into(), root_directory_digest: root })
            .into_iter()
            .collect(),
        worker: "local".into(),
        ..ActionResult::default()
    }
}

/// Overwrites a file in place, as no program should.
pub(crate) fn overwrite(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).expect("there").permissions().mode();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("set");
    std::fs::write(path, bytes).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}
