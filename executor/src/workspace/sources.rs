//! Source files: from a path to a digest, reading only what changed.
//!
//! A file with the stat signature that it had when it was last read is not read again, unless the
//! signature was racy: taken so soon after the file's last change that a further change could hide
//! behind it. What earlier builds saw is asked from [`KnownFiles`], which is the snapshot.
//! A source may be reached through symbolic links as long as they stay inside the workspace.
//! Files of other repositories stand at `external/NAME/…`; pinned ones are known, and no facts.

mod place;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_cas::{StatSignature, Store, StoreError};
use maestro_core::{FailureKind, Node, RelPath};
use rustix::fs::{Mode, OFlags};

use super::facts::{Content, Fact, KnownFiles, now_ns};
use super::mounts::{Located, Mount, Mounts};
use place::{DiskPlace, Place, Root};

/// Independent locks over the table.
const SHARDS: usize = 32;

/// Why a source file has no digest.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("source file `{path}` does not exist{}", suggestion(.similar.as_ref()))]
    Missing {
        /// The path below the workspace.
        path: RelPath,
        /// A file of the same folder with a similar name.
        similar: Option<RelPath>,
    },
    /// A folder stands where a file is expected.
    #[error("`{path}` is a folder, not a source file")]
    Folder {
        /// The path below the workspace.
        path: RelPath,
    },
    /// A socket, pipe or device stands where a file is expected.
    #[error("`{path}` is not a regular file")]
    NotRegular {
        /// The path below the workspace.
        path: RelPath,
    },
    /// A symbolic link on the way is absolute or leads out of the workspace.
    #[error("`{path}` leaves the workspace through a symbolic link")]
    LeavesWorkspace {
        /// The path below the workspace.
        path: RelPath,
    },
    /// Symbolic links on the way lead in a circle.
    #[error("`{path}` is a symbolic link that leads in a circle")]
    LinkLoop {
        /// The path below the workspace.
        path: RelPath,
    },
    /// The file may not be read.
    #[error("no permission to read source file `{path}`")]
    Permission {
        /// The path below the workspace.
        path: RelPath,
    },
    /// The file changed each time it was read.
    #[error("source file `{path}` keeps changing while it is read")]
    Changing {
        /// The path below the workspace.
        path: RelPath,
    },
    /// The system gave another error.
    #[error("cannot read source file `{path}`")]
    Io {
        /// The path below the workspace.
        path: RelPath,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The content could not be stored.
    #[error("cannot store source file `{path}`")]
    Store {
        /// The path below the workspace.
        path: RelPath,
        /// The store's reason.
        #[source]
        source: StoreError,
    },
    /// A repository cannot be had.
    #[error("{message}")]
    Repository {
        /// What happened.
        message: String,
        /// Whose fault it is.
        kind: FailureKind,
        /// What can be done.
        hints: Vec<String>,
    },
    /// The workspace itself could not be opened.
    #[error("cannot open `{}`", .path.display())]
    Workspace {
        /// Its folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Missing { .. }
            | Self::Folder { .. }
            | Self::NotRegular { .. }
            | Self::LinkLoop { .. }
            | Self::LeavesWorkspace { .. } => FailureKind::Input,
            Self::Permission { .. }
            | Self::Changing { .. }
            | Self::Io { .. }
            | Self::Workspace { .. } => FailureKind::Environment,
            Self::Store { source, .. } => source.kind(),
            Self::Repository { kind, .. } => *kind,
        }
    }

    /// What can be done about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::LeavesWorkspace { .. } => vec![
                "copy the file into the workspace, or make the link relative and inside of it"
                    .to_owned(),
            ],
            Self::Folder { path } => {
                vec![format!(
                    "name the files in it, for instance by `glob([\"{}/**\"])`",
                    path.name()
                )]
            }
            Self::Store { source, .. } => source.hint().into_iter().collect(),
            Self::Repository { hints, .. } => hints.clone(),
            _ => Vec::new(),
        }
    }
}

fn suggestion(similar: Option<&RelPath>) -> String {
    similar.map(|path| format!("; did you mean `{path}`?")).unwrap_or_default()
}

/// The digests of the source files of one workspace. All methods may be called from many threads.
#[derive(Debug)]
pub struct Sources {
    root: OwnedFd,
    root_path: PathBuf,
    mounts: Arc<Mounts>,
    known: Option<Arc<dyn KnownFiles>>,
    shards: [Mutex<HashMap<RelPath, Content>>; SHARDS],
}

impl Sources {
    /// The sources of the workspace at `root`, with what earlier builds saw of them.
    pub fn open(root: &Path, known: Option<Arc<dyn KnownFiles>>) -> Result<Self, SourceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| {
            SourceError::Workspace { path: root.to_owned(), source: error.into() }
        })?;
        Ok(Self {
            root: root_fd,
            root_path: root.to_owned(),
            mounts: Arc::default(),
            known,
            shards: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// The same table with other repositories.
    pub fn with_mounts(mut self, mounts: Arc<Mounts>) -> Self {
        self.mounts = mounts;
        self
    }

    /// The content of a source file, which is in the store when this returns for the first time.
    ///
    /// A blob that was removed from the store since then is not noticed: see [`Sources::ensure`].
    pub fn digest(&self, path: &RelPath, store: &Store) -> Result<Node, SourceError> {
        let place = match self.place(path)? {
            Place::Disk(place) => place,
            Place::Known(node) => return Ok(node),
        };
        if let Some(signature) = place.stat(path)?
            && let Some(node) = self.remembered(path, &place, &signature)
        {
            return Ok(node);
        }
        self.read(path, &place, store)
    }

    /// Like [`Sources::digest`], and reads the file again where its blob is gone.
    pub fn ensure(&self, path: &RelPath, store: &Store) -> Result<Node, SourceError> {
        match self.digest(path, store)? {
            Node::File { digest, .. } if !store.contains(&digest) => match self.place(path)? {
                Place::Disk(place) => self.read(path, &place, store),
                Place::Known(node) => {
                    if let Some(Located { name, .. }) = self.mounts.opened(path.as_str()) {
                        self.mounts.restore(name)?;
                    }
                    Ok(node)
                }
            },
            node => Ok(node),
        }
    }

    /// Looks at many files ahead of time with `threads` threads. Errors come up again, with their
    /// message, where the file is asked for.
    pub fn prefetch(&self, paths: &[RelPath], store: &Store, threads: usize) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            while let Some(path) =
                paths.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                let _ = self.digest(path, store);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(paths.len()) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// What was seen of each file that was asked for, as facts for a snapshot.
    pub fn facts(&self) -> Vec<(String, Fact)> {
        let mut facts = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let named = |path: &RelPath| {
                let located = self.mounts.opened(path.as_str());
                located.and_then(|located| located.absolute()).unwrap_or_else(|| path.to_string())
            };
            let seen = shard.iter().map(|(path, content)| (named(path), content.clone()));
            facts.extend(seen.map(|(path, content)| (path, Fact::Content(content))));
        }
        facts
    }

    /// Where a path is looked for, or what is known of it by the digest of its repository.
    fn place<'a>(&'a self, path: &'a RelPath) -> Result<Place<'a>, SourceError> {
        let Some(Located { mount, inner, .. }) = self.mounts.locate(path.as_str())? else {
            return Ok(Place::Disk(DiskPlace {
                root: Root::Workspace(self.root.as_fd()),
                inner: path.as_str(),
                absolute: self.root_path.join(path.as_str()),
            }));
        };
        match mount {
            Mount::Folder(folder) => {
                let absolute = folder.absolute(inner).into();
                Ok(Place::Disk(DiskPlace { root: Root::Repository(folder), inner, absolute }))
            }
            Mount::Tree(tree) => match tree.find(inner) {
                Ok(Some(node @ Node::File { .. })) => Ok(Place::Known(node)),
                Ok(Some(_)) => Err(SourceError::Folder { path: path.clone() }),
                Ok(None) => Err(SourceError::Missing { path: path.clone(), similar: None }),
                Err(source) => Err(SourceError::Store { path: path.clone(), source }),
            },
        }
    }

    fn remembered(
        &self,
        path: &RelPath,
        place: &DiskPlace<'_>,
        signature: &StatSignature,
    ) -> Option<Node> {
        let mut shard = self.shard(path).lock().unwrap_or_else(PoisonError::into_inner);
        let content = match shard.get(path) {
            Some(content) => content.clone(),
            None => self.known.as_ref()?.content(place.fact_path(path))?,
        };
        if content.racy || content.stat_signature() != *signature {
            return None;
        }
        let node = node_of(&content);
        shard.entry(path.clone()).or_insert(content);
        Some(node)
    }

    /// Reads the file into the store and remembers it.
    fn read(
        &self,
        path: &RelPath,
        place: &DiskPlace<'_>,
        store: &Store,
    ) -> Result<Node, SourceError> {
        place.check_kind(path)?;
        let hashed_at_ns = now_ns();
        let ingested =
            store.ingest_source(&place.absolute).map_err(|error| read_error(path, error))?;
        let content = Content::new(&ingested.signature, hashed_at_ns, ingested.digest);
        let node = Node::File { digest: ingested.digest, executable: ingested.executable };
        let mut shard = self.shard(path).lock().unwrap_or_else(PoisonError::into_inner);
        shard.insert(path.clone(), content);
        Ok(node)
    }

    fn shard(&self, path: &RelPath) -> &Mutex<HashMap<RelPath, Content>> {
        self.shards.get(shard_index(path)).expect("the index is taken modulo the number")
    }
}

/// A source file as an input: the owner's bit says whether it may be executed.
fn node_of(content: &Content) -> Node {
    let executable = content.stat_signature().mode & 0o100 != 0;
    Node::File { digest: content.digest.into(), executable }
}

fn read_error(path: &RelPath, error: StoreError) -> SourceError {
    let path = path.clone();
    match error {
        StoreError::SourceChanging { .. } => SourceError::Changing { path },
        source => SourceError::Store { path, source },
    }
}

/// Spreads paths over the shards.
pub(super) fn shard_index(path: &RelPath) -> usize {
    let hash = path.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_cas::StoreOptions;
    use maestro_core::DigestFunction;
    use std::fs;
    use std::time::{Duration, SystemTime};

    struct Fixture {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temp dir");
            fs::create_dir(folder.path().join("ws")).expect("writable");
            let root = folder.path().join("cache");
            let function = DigestFunction::Blake3;
            let store = Store::open(StoreOptions { root, function }).expect("opens");
            Self { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join("ws").join(name)
        }

        /// Writes a file whose time stamps, as far as they can be set, are old.
        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("has one")).expect("writable");
            fs::write(&path, text).expect("writable");
            let file = fs::File::options().write(true).open(&path).expect("there");
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            file.set_modified(old).expect("writable");
        }

        fn open(&self) -> Sources {
            Sources::open(&self.folder.path().join("ws"), None).expect("opens")
        }

        /// Sources that know what others have seen.
        fn open_after(&self, before: &Sources) -> Sources {
            let seen = before.facts().into_iter().filter_map(|(path, fact)| match fact {
                Fact::Content(content) => Some((path, content)),
                _ => None,
            });
            let known: Arc<dyn KnownFiles> = Arc::new(Seen(seen.collect()));
            Sources::open(&self.folder.path().join("ws"), Some(known)).expect("opens")
        }

        fn digest(&self, sources: &Sources, name: &str) -> Result<Node, String> {
            let path = RelPath::new(name).expect("valid");
            sources.digest(&path, &self.store).map_err(|error| error.to_string())
        }
    }

    #[derive(Debug)]
    struct Seen(HashMap<String, Content>);

    impl KnownFiles for Seen {
        fn content(&self, path: &str) -> Option<Content> {
            self.0.get(path).cloned()
        }
    }

    fn file(text: &str) -> Node {
        let digest = DigestFunction::Blake3.digest(text.as_bytes());
        Node::File { digest, executable: false }
    }

    #[test]
    fn content_is_noticed_also_when_the_time_stamp_is_put_back() {
        let fixture = Fixture::new();
        fixture.write("a/f", "one");
        let sources = fixture.open();
        assert_eq!(fixture.digest(&sources, "a/f"), Ok(file("one")));
        fixture.write("a/f", "two");
        assert_eq!(fixture.digest(&sources, "a/f"), Ok(file("two")));
        let digest = DigestFunction::Blake3.digest(b"two");
        assert!(fixture.store.contains(&digest));
        fixture.write("a/f", "six");
        let again = fixture.open_after(&sources);
        assert_eq!(fixture.digest(&again, "a/f"), Ok(file("six")));
    }

    #[test]
    fn what_is_known_is_not_read_again_and_lost_blobs_are() {
        let fixture = Fixture::new();
        fixture.write("f", "text");
        let sources = fixture.open();
        let path = RelPath::new("f").expect("valid");
        fixture.digest(&sources, "f").expect("there");
        // Makes the entry look as if the file had been hashed long after its last change, with
        // a digest that reading would not give.
        let lie = DigestFunction::Blake3.digest(b"a lie");
        {
            let mut shard = sources.shard(&path).lock().expect("not poisoned");
            let content = shard.get_mut(&path).expect("known");
            content.racy = false;
            content.digest = lie.into();
        }
        let again = fixture.open_after(&sources);
        let believed = Node::File { digest: lie, executable: false };
        assert_eq!(fixture.digest(&again, "f"), Ok(believed));
        assert_eq!(again.facts().len(), 1);
        assert_eq!(again.ensure(&path, &fixture.store).expect("there"), file("text"));
        assert_eq!(fixture.digest(&again, "f"), Ok(file("text")));
    }

    #[test]
    fn each_wrong_path_has_its_own_sentence() {
        let fixture = Fixture::new();
        fixture.write("k/graph.cc", "");
        fs::create_dir(fixture.path("dir")).expect("writable");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, fixture.path(name)).expect("writable");
        };
        fixture.write("../outside", "");
        link("../outside", "out");
        link("/usr/bin/env", "abs");
        link("k/graph.cc", "good");
        link("loop", "loop");
        link("dir/nothing", "dangling");
        let state = fs::File::open(fixture.path("")).expect("there");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(state, "pipe", rustix::fs::FileType::Fifo, mode, 0).expect("writable");
        let sources = fixture.open();
        let check = |path: &str, expect: &str| {
            assert_eq!(fixture.digest(&sources, path), Err(expect.to_owned()));
        };
        check("k/grpah.cc", "source file `k/grpah.cc` does not exist; did you mean `k/graph.cc`?");
        check("zzz", "source file `zzz` does not exist");
        check("k/graph.cc/x", "source file `k/graph.cc/x` does not exist");
        check("dangling", "source file `dangling` does not exist");
        check("dir", "`dir` is a folder, not a source file");
        check("pipe", "`pipe` is not a regular file");
        check("loop", "`loop` is a symbolic link that leads in a circle");
        check("out", "`out` leaves the workspace through a symbolic link");
        check("abs", "`abs` leaves the workspace through a symbolic link");
        assert_eq!(fixture.digest(&sources, "good"), Ok(file("")));
    }

    #[test]
    fn many_threads_agree() {
        let fixture = Fixture::new();
        let paths: Vec<RelPath> = (0..200)
            .map(|n| {
                fixture.write(&format!("d{}/{n}", n % 7), &n.to_string());
                RelPath::new(&format!("d{}/{n}", n % 7)).expect("valid")
            })
            .collect();
        let sources = fixture.open();
        sources.prefetch(&paths, &fixture.store, 4);
        assert_eq!(sources.facts().len(), 200);
        for (n, path) in paths.iter().enumerate() {
            assert_eq!(sources.digest(path, &fixture.store).ok(), Some(file(&n.to_string())));
        }
    }
}
