//! Lays an action's inputs out in a folder of scratch: hard links to blobs, folders, links.
//!
//! Files are the store's own inodes, which carry a constant mode and time; the sandbox puts them
//! under an overlay, so that no action can change them. Folders get the same constant time, since
//! archivers record it. Trees with many files are not laid out: the store keeps them as folders,
//! which the sandbox binds. Without a sandbox nothing protects an inode, so blobs are copied.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use maestro_cas::{Store, StoreError};
use maestro_core::{Digest, Node, RelPath, limits};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::scratch::Pool;

/// From how many files on a tree is bound as one mount instead of laid out.
const BOUND_TREE_FILES_MIN: usize = 64;
/// Most trees that are bound in one action; a mount costs as much as one hard link, but lives long.
const BOUND_TREES_MAX: usize = 256;
/// Most tree sizes that are remembered.
const SIZES_MAX: usize = 65_536;
/// The time of every input: that of the store's blobs, 1980-01-01, which every archiver can say.
const INPUT_TIME_S: i64 = 315_532_800;

/// Why the inputs could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// Blobs are gone; all of them are named.
    #[error("{} input blobs are gone", .0.len())]
    Missing(Vec<Digest>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder or link could not be made.
    #[error("cannot make `{}`", .path.display())]
    Io {
        /// The place.
        path: PathBuf,
        /// The failure.
        source: std::io::Error,
    },
}

/// A tree that is bound: the folder that holds it, and its path below the execution root.
pub(super) type BoundTree = (PathBuf, String);

/// Lays inputs out; remembers how large trees are.
#[derive(Debug)]
pub(super) struct Layouter {
    store: Store,
    copy: bool,
    sizes: Mutex<HashMap<Digest, bool>>,
}

impl Layouter {
    /// A layouter for `store` that hard links, or copies if nothing will protect the blobs.
    pub(super) fn new(store: Store, copy: bool) -> Self {
        Self { store, copy, sizes: Mutex::default() }
    }

    /// Fills the empty folder `root`, with folders from `pool`; returns the trees that are left to
    /// be bound, where that is allowed.
    pub(super) fn lay_out(
        &self,
        root: &Path,
        pool: &mut Pool,
        entries: &[(RelPath, Node)],
        binds: bool,
    ) -> Result<Vec<BoundTree>, InputError> {
        let mut work = Work {
            layouter: self,
            binds: binds && !self.copy,
            folders: Folders::open(root, pool)?,
            bound: Vec::new(),
            missing: Vec::new(),
        };
        for (path, node) in entries {
            work.place(path.as_str(), node)?;
        }
        work.folders.leave_all()?;
        if work.missing.is_empty() {
            return Ok(work.bound);
        }
        work.missing.sort_unstable();
        work.missing.dedup();
        Err(InputError::Missing(work.missing))
    }

    fn is_large(&self, root: &Digest) -> Result<bool, StoreError> {
        let known = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(root).copied();
        if let Some(large) = known {
            return Ok(large);
        }
        let large = self.store.tree_files(root)?.len() >= BOUND_TREE_FILES_MIN;
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.len() >= SIZES_MAX {
            sizes.clear();
        }
        sizes.insert(*root, large);
        Ok(large)
    }
}

struct Work<'a> {
    layouter: &'a Layouter,
    binds: bool,
    folders: Folders<'a>,
    bound: Vec<BoundTree>,
    missing: Vec<Digest>,
}

impl Work<'_> {
    fn place(&mut self, path: &str, node: &Node) -> Result<(), InputError> {
        match self.try_place(path, node) {
            // Go on, so that all that is gone is made again in one go.
            Err(InputError::Store(StoreError::Missing { digest }))
            | Err(InputError::Store(StoreError::Corrupt { digest, .. })) => {
                self.missing.push(digest);
                Ok(())
            }
            other => other,
        }
    }

    fn try_place(&mut self, path: &str, node: &Node) -> Result<(), InputError> {
        let store = &self.layouter.store;
        match node {
            Node::File { digest, executable } => {
                if self.layouter.copy {
                    let path = self.folders.root_path.join(path);
                    return Ok(store.copy_out(digest, *executable, &path)?);
                }
                let (folder, name) = self.folders.enter_parent(path)?;
                Ok(store.link_into(digest, *executable, folder, name)?)
            }
            Node::Symlink { target } => {
                let (folder, name) = self.folders.enter_parent(path)?;
                let made = rustix::fs::symlinkat(target.as_str(), folder, name);
                made.map_err(|errno| self.folders.error(path, errno))
            }
            Node::Tree { root } => self.place_tree(path, root),
        }
    }

    fn place_tree(&mut self, path: &str, root: &Digest) -> Result<(), InputError> {
        let layouter = self.layouter;
        self.folders.enter(path)?;
        let bindable = self.binds && self.bound.len() < BOUND_TREES_MAX;
        if bindable && layouter.is_large(root)? {
            self.bound.push((layouter.store.tree_dir(root)?, path.to_owned()));
            return Ok(());
        }
        for entry in layouter.store.tree_files(root)? {
            let below = format!("{path}/{}", entry.path);
            match &entry.node {
                // In a listing of a tree, folders stand only where they are empty.
                Node::Tree { .. } => self.folders.enter(&below)?,
                node => self.place(&below, node)?,
            }
        }
        Ok(())
    }
}

/// The folders from the root to where we are. Entries come sorted, so each is entered once.
struct Folders<'a> {
    pool: &'a mut Pool,
    root_path: PathBuf,
    root: OwnedFd,
    open: Vec<(String, OwnedFd)>,
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Folders<'a> {
    fn open(path: &Path, pool: &'a mut Pool) -> Result<Self, InputError> {
        let root = rustix::fs::open(path, FOLDER, Mode::empty())
            .map_err(|errno| InputError::Io { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { pool, root_path: path.to_owned(), root, open: Vec::new() })
    }

    /// Enters the folder above `path`; returns it with the last segment.
    fn enter_parent<'p>(&mut self, path: &'p str) -> Result<(BorrowedFd<'_>, &'p str), InputError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.enter(parent)?;
        Ok((self.current(), name))
    }

    /// Goes to the folder `path`, leaving and making folders as needed.
    fn enter(&mut self, path: &str) -> Result<(), InputError> {
        while let Some((open, _)) = self.open.last() {
            let below = path.strip_prefix(open.as_str());
            if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                break;
            }
            self.leave()?;
        }
        let done = self.open.last().map_or(0, |(open, _)| open.len());
        let rest = path.get(done..).unwrap_or_default();
        let mut at = path.get(..done).unwrap_or_default().to_owned();
        for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
            if self.open.len() >= limits::TREE_DEPTH_MAX {
                return Err(self.error(path, Errno::NAMETOOLONG));
            }
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(segment);
            let parent = self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let folder = self
                .pool
                .place(parent, segment)
                .and_then(|()| rustix::fs::openat(parent, segment, FOLDER, Mode::empty()))
                .map_err(|errno| self.error(&at, errno))?;
            self.open.push((at.clone(), folder));
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<(), InputError> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        set_input_time(self.root.as_fd()).map_err(|errno| self.error("", errno))
    }

    /// Leaves the innermost folder, in which nothing is made any more.
    fn leave(&mut self) -> Result<(), InputError> {
        let Some((path, folder)) = self.open.pop() else { return Ok(()) };
        set_input_time(folder.as_fd()).map_err(|errno| self.error(&path, errno))
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, folder)| folder.as_fd())
    }

    fn error(&self, path: &str, errno: Errno) -> InputError {
        InputError::Io { path: self.root_path.join(path), source: errno.into() }
    }
}

fn set_input_time(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let time = Timespec { tv_sec: INPUT_TIME_S, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(folder, "", &times, AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use maestro_cas::StoreOptions;
    use maestro_core::{DigestFunction, merkle::merkle};

    use super::*;

    fn check(copy: bool, entries: &[(&str, &str)], expect: &[&str]) {
        let dir = tempfile::tempdir().expect("a folder");
        let function = DigestFunction::Blake3;
        let store = Store::open(StoreOptions { root: dir.path().join("cache"), function })
            .expect("a store");
        let node = |text: &str| match text.strip_prefix("-> ") {
            Some(target) => Node::Symlink { target: target.to_owned() },
            None => {
                let digest = store.put_bytes(text.as_bytes()).expect("stored");
                Node::File { digest, executable: text.starts_with("#!") }
            }
        };
        let entries = entries
            .iter()
            .map(|(path, text)| (RelPath::new(path).expect("valid"), node(text)))
            .collect();
        let tree = merkle(function, entries).expect("no clash");
        let root = dir.path().join("in");
        std::fs::create_dir(&root).expect("a folder");
        let mut pool = Pool::create(&dir.path().join("pool")).expect("a pool");
        let layouter = Layouter::new(store, copy);
        let bound = layouter.lay_out(&root, &mut pool, &tree.entries, true).expect("laid out");
        assert!(bound.is_empty());
        let mut found = Vec::new();
        list(&root, "", &mut found);
        assert_eq!(found, expect);
    }

    fn list(root: &Path, at: &str, out: &mut Vec<String>) {
        let mut names: Vec<_> = std::fs::read_dir(root.join(at))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        for name in names {
            let path = if at.is_empty() { name } else { format!("{at}/{name}") };
            let full = root.join(&path);
            let metadata = full.symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                assert_eq!(metadata.mtime(), INPUT_TIME_S, "{path}");
                out.push(format!("{path}/"));
                list(root, &path, out);
            } else if metadata.is_symlink() {
                let target = full.read_link().expect("a link");
                out.push(format!("{path} -> {}", target.display()));
            } else {
                let mark = if metadata.mode() & 0o100 != 0 { "*" } else { "" };
                out.push(format!("{path}{mark} x{}", metadata.nlink()));
            }
        }
    }

    #[test]
    fn files_are_linked_and_folders_have_a_constant_time() {
        check(
            false,
            &[("b/c/d", "1"), ("a", "#!x"), ("b/e", "-> c/d"), ("b-x/y", "2")],
            &["a* x2", "b/", "b/c/", "b/c/d x2", "b/e -> c/d", "b-x/", "b-x/y x2"],
        );
    }

    #[test]
    fn without_a_sandbox_files_are_copied() {
        check(
            true,
            &[("b/c", "1"), ("b/d", "-> c"), ("a", "#!x")],
            &["a* x1", "b/", "b/c x1", "b/d -> c"],
        );
    }

    #[test]
    fn every_blob_that_is_gone_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let function = DigestFunction::Blake3;
        let store = Store::open(StoreOptions { root: dir.path().join("cache"), function })
            .expect("a store");
        let gone = |text: &str| function.digest(text.as_bytes());
        let path = |text| RelPath::new(text).expect("valid");
        let entries = vec![
            (path("a"), Node::File { digest: gone("a"), executable: false }),
            (path("b"), Node::File { digest: gone("b"), executable: true }),
            (path("c"), Node::Tree { root: gone("c") }),
        ];
        let root = dir.path().join("in");
        std::fs::create_dir(&root).expect("a folder");
        let mut pool = Pool::create(&dir.path().join("pool")).expect("a pool");
        let layouter = Layouter::new(store, false);
        let error = layouter.lay_out(&root, &mut pool, &entries, true).expect_err("gone");
        let InputError::Missing(digests) = error else { panic!("{error}") };
        let mut expect = vec![gone("a"), gone("b"), gone("c")];
        expect.sort_unstable();
        assert_eq!(digests, expect);
    }
}
