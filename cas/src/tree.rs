//! Directory messages and the trees that they make: read, listed, checked, and laid out on disk.
//!
//! A tree that is laid out is a read-only folder of hard links, built in scratch and moved to its
//! place by one rename, and shared by all processes. Every folder in it has the constant
//! time of blobs, so that a name that is added or removed shows; every file in it is a blob's own
//! inode or a copy with the same mode and time, so that a write to it shows. Both are looked at
//! once per process; a tree that was touched is laid out anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use maestro_core::wire::Directory;
use maestro_core::{Digest, Node, limits};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::error::StoreError;
use crate::layout::{self, Form, Layout, TRASH};
use crate::store::{Inner, Store};
use crate::{blob, clock, remove};

/// Directory messages that are kept decoded, in entries of all of them together.
const CACHED_ENTRIES_MAX: usize = 1_000_000;
/// Files of a laid-out tree count as used today where their access time is older than this.
const DAY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;

/// One path of a tree. Folders stand here only where they are empty, as [`Node::Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// The path below the root of the tree.
    pub path: String,
    /// What stands there.
    pub node: Node,
}

/// Directories in memory; the oldest leave first.
#[derive(Debug, Default)]
pub(crate) struct DirectoryCache {
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    by_digest: HashMap<Digest, Arc<Directory>>,
    order: VecDeque<Digest>,
    entries: usize,
    checked: HashSet<Digest>,
}

impl Store {
    /// A directory message, decoded.
    pub fn directory(&self, digest: &Digest) -> Result<Arc<Directory>, StoreError> {
        if let Some(directory) = self.inner.directories.get(digest) {
            return Ok(directory);
        }
        let limit = limits::MESSAGE_BYTES_MAX;
        if digest.size > limit {
            let what = "a directory message";
            return Err(StoreError::TooLarge { what, size: digest.size, limit });
        }
        let bytes = self.read(digest)?;
        let directory = Directory::decode(digest.function, &bytes)
            .map_err(|source| StoreError::Decode { digest: *digest, source })?;
        let directory = Arc::new(directory);
        self.inner.directories.insert(*digest, &directory);
        Ok(directory)
    }

    /// Every file, link and empty folder of a tree, sorted segment by segment.
    pub fn tree_files(&self, root: &Digest) -> Result<Vec<TreeEntry>, StoreError> {
        let mut entries = Vec::new();
        self.walk(root, &mut |path, node| {
            let node = match node {
                Visit::File { digest, executable } => Node::File { digest, executable },
                Visit::Symlink { target } => Node::Symlink { target: target.to_owned() },
                Visit::Directory { digest, is_empty } => {
                    // The root of an empty tree is no entry of it.
                    if !is_empty || path.is_empty() {
                        return Ok(());
                    }
                    Node::Tree { root: digest }
                }
            };
            entries.push(TreeEntry { path: path.to_owned(), node });
            Ok(())
        })?;
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        entries.sort_by(|a, b| a.path.bytes().map(rank).cmp(b.path.bytes().map(rank)));
        Ok(entries)
    }

    /// A folder that holds the tree, read-only by convention: laid out once, then shared.
    pub fn tree_dir(&self, root: &Digest) -> Result<PathBuf, StoreError> {
        let layout = &self.inner.layout;
        let path = layout::tree_path(root);
        if self.inner.directories.was_checked(root) && layout.stat(&path)?.is_some() {
            return Ok(layout.absolute(&path));
        }
        if layout.stat(&path)?.is_some() {
            if self.check_tree(root, &path)? {
                self.inner.directories.set_checked(root);
                return Ok(layout.absolute(&path));
            }
            tracing::warn!(tree = path, "tree was touched and is laid out anew");
            discard(layout, &path)?;
        }
        self.build_tree(root, &path)?;
        self.inner.directories.set_checked(root);
        Ok(layout.absolute(&path))
    }

    /// Visits a tree, each folder before what is in it.
    pub(crate) fn walk(
        &self,
        root: &Digest,
        visit: &mut dyn FnMut(&str, Visit<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut stack = vec![(String::new(), *root, 0usize)];
        let mut count = 0usize;
        while let Some((path, digest, depth)) = stack.pop() {
            let directory = self.directory(&digest)?;
            let Directory { files, directories, symlinks } = directory.as_ref();
            let is_empty = files.is_empty() && directories.is_empty() && symlinks.is_empty();
            visit(&path, Visit::Directory { digest, is_empty })?;
            count += 1 + files.len() + symlinks.len();
            bound("a tree in entries", count, limits::TREE_ENTRIES_MAX)?;
            bound("a tree in depth", depth, limits::TREE_DEPTH_MAX)?;
            let join = |name: &str| match path.as_str() {
                "" => name.to_owned(),
                path => format!("{path}/{name}"),
            };
            for file in files {
                let node = Visit::File { digest: file.digest, executable: file.is_executable };
                visit(&join(&file.name), node)?;
            }
            for link in symlinks {
                visit(&join(&link.name), Visit::Symlink { target: &link.target })?;
            }
            for below in directories.iter().rev() {
                stack.push((join(&below.name), below.digest, depth + 1));
            }
        }
        Ok(())
    }

    /// Whether a laid-out tree is as it was built. Renews its access time, and that of its files
    /// once a day.
    fn check_tree(&self, root: &Digest, path: &str) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let Some(top) = inner.layout.open_dir(path)? else { return Ok(false) };
        if !inner.touch(path)? {
            return Ok(false);
        }
        let stale_ns = clock::now_ns() - DAY_NS;
        let mut is_sound = true;
        self.walk(root, &mut |below, node| {
            if is_sound {
                is_sound = check_entry(top.as_fd(), below, &node, stale_ns)
                    .map_err(|errno| inner.layout.error(&format!("{path}/{below}"), errno))?;
            }
            Ok(())
        })?;
        Ok(is_sound)
    }

    fn build_tree(&self, root: &Digest, path: &str) -> Result<(), StoreError> {
        let inner = &self.inner;
        let (name, temps) = inner.scratch()?.temp_dir()?;
        let built = self.fill_tree(root, temps.as_fd(), &name).and_then(|()| {
            let _writing = inner.epochs.enter(&inner.layout)?;
            match inner.layout.rename_from(temps.as_fd(), name.as_str(), path) {
                // Another process was first: its tree is as good.
                Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
                Err(errno) => Err(inner.layout.error(path, errno)),
            }
        });
        // Nothing is left where it was moved; what cannot be removed goes with the scratch folder.
        let _ = remove::remove_tree(temps.as_fd(), OsStr::new(&name));
        built
    }

    /// Lays a tree out below the folder `name` of `temps`.
    fn fill_tree(
        &self,
        root: &Digest,
        temps: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), StoreError> {
        let fail = |errno: Errno| StoreError::io(name, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(temps, name, flags, Mode::empty()).map_err(fail)?;
        let mut folders: Vec<String> = Vec::new();
        // Files come right after their folder, so that one open folder is enough.
        let mut current: Option<OwnedFd> = None;
        self.walk(root, &mut |below, node| {
            let leaf = below.rsplit('/').next().unwrap_or(below);
            let dir = current.as_ref().map_or(top.as_fd(), |fd| fd.as_fd());
            match node {
                Visit::Directory { .. } if below.is_empty() => Ok(()),
                Visit::Directory { .. } => {
                    let mode = Mode::from_raw_mode(0o755);
                    rustix::fs::mkdirat(&top, below, mode).map_err(fail)?;
                    folders.push(below.to_owned());
                    let opened = rustix::fs::openat(&top, below, flags, Mode::empty());
                    current = Some(opened.map_err(fail)?);
                    Ok(())
                }
                Visit::File { digest, executable } => {
                    self.link_into(&digest, executable, dir, leaf)
                }
                Visit::Symlink { target } => {
                    rustix::fs::symlinkat(target, dir, leaf).map_err(fail)?;
                    rustix::fs::utimensat(dir, leaf, &constant(), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(fail)
                }
            }
        })?;
        folders.push(String::from("."));
        for folder in folders.iter().rev() {
            let sealed = rustix::fs::utimensat(&top, folder, &constant(), AtFlags::empty())
                .and_then(|()| {
                    let mode = Mode::from_raw_mode(FOLDER_MODE);
                    rustix::fs::chmodat(&top, folder, mode, AtFlags::empty())
                });
            sealed.map_err(fail)?;
        }
        Ok(())
    }
}

/// The mode of folders in laid-out trees: the usual one, since actions see it and copy it.
/// Sandboxes bind the trees read-only.
const FOLDER_MODE: u32 = 0o755;

/// What [`Store::walk`] comes by.
pub(crate) enum Visit<'a> {
    Directory { digest: Digest, is_empty: bool },
    File { digest: Digest, executable: bool },
    Symlink { target: &'a str },
}

/// Moves a laid-out tree out of sight and removes it.
pub(crate) fn discard(layout: &Layout, path: &str) -> Result<(), StoreError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = format!("tree-{}-{}-{name}", clock::now_ns(), std::process::id());
    let trash = format!("{TRASH}/{name}");
    match layout.rename(path, &trash) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        other => other?,
    }
    let Some(folder) = layout.open_dir(TRASH)? else { return Ok(()) };
    remove::remove_tree(folder.as_fd(), OsStr::new(&name))
        .map_err(|errno| layout.error(&trash, errno))
}

fn constant() -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: blob::MTIME_S, tv_nsec: 0 },
    }
}

fn bound(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge { what, size: size as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Whether one entry of a laid-out tree is untouched.
fn check_entry(
    top: BorrowedFd<'_>,
    below: &str,
    node: &Visit<'_>,
    stale_ns: i64,
) -> Result<bool, Errno> {
    let path = if below.is_empty() { "." } else { below };
    let stat = match rustix::fs::statat(top, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        other => other?,
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    match node {
        Visit::Directory { .. } => Ok(kind == FileType::Directory
            && clock::modified_ns(&stat) == blob::MTIME_S * 1_000_000_000),
        Visit::File { digest, executable } => {
            let is_sound = blob::is_untouched(&stat, digest, Form::of(*executable));
            if is_sound && clock::accessed_ns(&stat) < stale_ns {
                let times = Timestamps {
                    last_modification: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                    ..constant()
                };
                rustix::fs::utimensat(top, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(is_sound)
        }
        // A link cannot be changed in place; replacing it changes its folder.
        Visit::Symlink { target } => {
            Ok(kind == FileType::Symlink && stat.st_size as usize == target.len())
        }
    }
}

impl Inner {
    /// Whether every blob of a tree is present.
    pub(crate) fn tree_is_complete(store: &Store, root: &Digest) -> Result<bool, StoreError> {
        let mut is_complete = true;
        let walked = store.walk(root, &mut |_, node| {
            if is_complete {
                let digest = match node {
                    Visit::Directory { digest, .. } | Visit::File { digest, .. } => digest,
                    Visit::Symlink { .. } => return Ok(()),
                };
                is_complete =
                    digest.is_empty_blob() || store.inner.find(&digest, Form::Plain)?.is_some();
            }
            Ok(())
        });
        match walked {
            Ok(()) => Ok(is_complete),
            Err(
                StoreError::Missing { .. } | StoreError::Corrupt { .. } | StoreError::Decode { .. },
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl DirectoryCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, digest: &Digest) -> Option<Arc<Directory>> {
        self.lock().by_digest.get(digest).cloned()
    }

    fn insert(&self, digest: Digest, directory: &Arc<Directory>) {
        let mut state = self.lock();
        if state.by_digest.insert(digest, directory.clone()).is_none() {
            state.order.push_back(digest);
            state.entries += weight(directory);
        }
        while state.entries > CACHED_ENTRIES_MAX {
            let Some(oldest) = state.order.pop_front() else { break };
            if let Some(gone) = state.by_digest.remove(&oldest) {
                state.entries = state.entries.saturating_sub(weight(&gone));
            }
        }
    }

    fn was_checked(&self, root: &Digest) -> bool {
        self.lock().checked.contains(root)
    }

    fn set_checked(&self, root: &Digest) {
        self.lock().checked.insert(*root);
    }
}

fn weight(directory: &Directory) -> usize {
    1 + directory.files.len() + directory.directories.len() + directory.symlinks.len()
}

#[cfg(test)]
mod tests;
