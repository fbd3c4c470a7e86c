//! The workspace as evaluation sees it, with a record of everything that it saw.
//!
//! Every answer becomes an observation: the evaluation's result is valid as long as all
//! observations still hold. Answers about what stands at a path and what is in a folder are kept,
//! so that one evaluation never sees two states of the same thing.
//! Signatures are taken before content is read. What changes in between makes the observation
//! wrong, so that it is noticed the next time; it cannot make a stale answer look current.
//! `maestro-out`, `.git` and folders that are workspaces of their own are invisible in listings.
//! Files of other repositories stand at `external/NAME/…`; observations name them by the absolute
//! path of their folder, and there are none for repositories that a digest pins.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maestro_cas::{StatSignature, StoreError};
use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::{DigestFunction, Node, RelPath, limits};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::facts::{Content, Fact, Listing, file_type, now_ns};
use super::listing::{listing_digest, open_folder, read_listing, type_code};
use super::mounts::{Located, Mount, Mounts, TreeMount};

const SHARDS: usize = 32;

/// What tells that a folder is a workspace of its own.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Files that only a workspace's root has; a subfolder with one of them is not listed.
    pub workspace_markers: Vec<String>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { workspace_markers: vec!["maestro.lock".to_owned()] }
    }
}

/// A [`Host`] over the folder of a workspace. All methods may be called from many threads.
#[derive(Debug)]
pub struct WorkspaceHost {
    root: OwnedFd,
    options: HostOptions,
    mounts: Arc<Mounts>,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// What stands at a path; the path of the root is empty.
    stats: HashMap<String, Option<FileType>>,
    listings: HashMap<String, (Option<Listing>, Vec<DirEntry>)>,
    contents: HashMap<String, Content>,
}

impl WorkspaceHost {
    /// Opens the workspace at `root`.
    pub fn new(root: &Path, options: HostOptions) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let shards = std::array::from_fn(|_| Mutex::default());
        Ok(Self { root, options, mounts: Arc::default(), shards })
    }

    /// The same host with other repositories.
    pub fn with_mounts(mut self, mounts: Arc<Mounts>) -> Self {
        self.mounts = mounts;
        self
    }

    /// All that was seen since the last call, sorted by path.
    pub fn take_observations(&self) -> Vec<(String, Fact)> {
        let mut facts = Vec::new();
        for shard in &self.shards {
            let Shard { stats, listings, contents } =
                std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            facts.extend(stats.into_iter().filter(|(path, _)| !contents.contains_key(path)).map(
                |(path, file_type)| {
                    let fact = file_type
                        .map_or(Fact::Absent, |file_type| Fact::Type(type_code(file_type)));
                    (path, fact)
                },
            ));
            facts.extend(contents.into_iter().map(|(path, seen)| (path, Fact::Content(seen))));
            facts.extend(
                listings
                    .into_iter()
                    .filter_map(|(path, (seen, _))| Some((path, Fact::Listing(seen?)))),
            );
        }
        let named = |(path, fact): (String, Fact)| match self.mounts.opened(&path) {
            None => Some((path, fact)),
            // A tree that a digest pins needs no fact.
            Some(located) => Some((located.absolute()?, fact)),
        };
        let mut facts: Vec<_> = facts.into_iter().filter_map(named).collect();
        facts.extend(self.mounts.facts());
        facts.sort_by(|a, b| a.0.cmp(&b.0));
        facts
    }

    fn shard(&self, path: &str) -> MutexGuard<'_, Shard> {
        let hash =
            path.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
        let shard = self.shards.get((hash >> 3) as usize % SHARDS);
        let shard = shard.expect("the index is taken modulo the number");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stat_text(&self, path: &str) -> Result<Option<FileType>, HostError> {
        if let Some(seen) = self.shard(path).stats.get(path) {
            return Ok(*seen);
        }
        let located = self.mounts.locate(path)?;
        let seen = match self.place(path, located.as_ref()) {
            Place::Tree(tree, inner) => tree.stat(inner).map_err(|e| store_error(path, e))?,
            Place::Disk(root, inner) => {
                match rustix::fs::statat(root, or_dot(inner), AtFlags::empty()) {
                    Ok(stat) => Some(file_type(&stat)),
                    Err(Errno::NOENT | Errno::NOTDIR) => None,
                    Err(error) => return Err(io_error(path, error.into())),
                }
            }
        };
        Ok(*self.shard(path).stats.entry(path.to_owned()).or_insert(seen))
    }

    /// Where a path is looked for.
    fn place<'a>(&'a self, path: &'a str, located: Option<&'a Located<'a>>) -> Place<'a> {
        match located {
            None => Place::Disk(self.root.as_fd(), path),
            Some(Located { mount, inner, .. }) => match mount {
                Mount::Folder(folder) => Place::Disk(folder.fd(), inner),
                Mount::Tree(tree) => Place::Tree(tree, inner),
            },
        }
    }

    /// Reads a small file on disk.
    fn read_disk(
        &self,
        root: BorrowedFd<'_>,
        inner: &str,
        text: &str,
    ) -> Result<Vec<u8>, HostError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let seen_at_ns = now_ns();
        let file = rustix::fs::openat2(root, inner, flags, Mode::empty(), resolve)
            .map_err(|error| io_error(text, link_error(error)))?;
        let mut file = File::from(file);
        let stat = rustix::fs::fstat(&file).map_err(|error| io_error(text, error.into()))?;
        let signature = StatSignature::of_stat(&stat);
        check_size(text, signature.size)?;
        let mut bytes = Vec::with_capacity(signature.size as usize);
        let mut bounded = (&mut file).take(limits::BUILD_FILE_BYTES_MAX + 1);
        bounded.read_to_end(&mut bytes).map_err(|error| io_error(text, error))?;
        check_size(text, bytes.len() as u64)?;
        let digest = DigestFunction::Blake3.digest(&bytes);
        let content = Content::new(&signature, seen_at_ns, digest).evaluated();
        self.shard(text).contents.insert(text.to_owned(), content);
        Ok(bytes)
    }

    /// Lists a folder that exists.
    fn list_open(&self, path: &str, folder: OwnedFd) -> Result<Seen, HostError> {
        let fail = |error: io::Error| io_error(path, error);
        let seen_at_ns = now_ns();
        let stat = rustix::fs::fstat(&folder).map_err(|error| fail(error.into()))?;
        let signature = StatSignature::of_stat(&stat);
        let entries = read_listing(folder.as_fd()).map_err(fail)?;
        let listing = Listing {
            signature: (&signature).into(),
            racy: signature.is_racy(seen_at_ns),
            digest: listing_digest(&entries).into(),
        };
        Ok((Some(listing), entries))
    }

    /// Drops subfolders that are workspaces of their own.
    fn without_nested(
        &self,
        path: &str,
        entries: Vec<DirEntry>,
    ) -> Result<Vec<DirEntry>, HostError> {
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut nested = false;
            if entry.file_type == FileType::Directory && entry.valid {
                for marker in &self.options.workspace_markers {
                    let name = &entry.name;
                    let marker = match path {
                        "" => format!("{name}/{marker}"),
                        _ => format!("{path}/{name}/{marker}"),
                    };
                    nested |= self.stat_text(&marker)?.is_some();
                }
            }
            if !nested {
                kept.push(entry);
            }
        }
        Ok(kept)
    }
}

/// What was seen of a folder: the fact to be checked later, and the entries.
type Seen = (Option<Listing>, Vec<DirEntry>);

impl Host for WorkspaceHost {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        self.stat_text(path.as_str())
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        let text = path.as_str();
        // A pipe would block the open forever, so the type is asked for first.
        match self.stat_text(text)? {
            None => return Ok(None),
            Some(FileType::File) => {}
            Some(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                return Err(io_error(text, error));
            }
        }
        let located = self.mounts.locate(text)?;
        match self.place(text, located.as_ref()) {
            Place::Disk(root, inner) => self.read_disk(root, inner, text).map(Some),
            Place::Tree(tree, inner) => {
                let found = tree.find(inner).map_err(|error| store_error(text, error))?;
                let Some(Node::File { digest, .. }) = found else { return Ok(None) };
                check_size(text, digest.size)?;
                tree.read(&digest).map(Some).map_err(|error| store_error(text, error))
            }
        }
    }

    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        let path = dir.map_or("", RelPath::as_str);
        if let Some((_, entries)) = self.shard(path).listings.get(path) {
            return Ok(entries.clone());
        }
        let located = self.mounts.locate(path)?;
        let (listing, entries) = match self.place(path, located.as_ref()) {
            Place::Tree(tree, inner) => {
                (None, tree.list(inner).map_err(|error| store_error(path, error))?)
            }
            Place::Disk(root, inner) => match open_folder(root, inner) {
                Ok(folder) => self.list_open(path, folder)?,
                Err(error) if is_absent(&error) => {
                    // What stands there instead, if anything, is the observation.
                    self.stat_text(path)?;
                    (None, Vec::new())
                }
                Err(error) => return Err(io_error(path, error)),
            },
        };
        let entries = self.without_nested(path, entries)?;
        let mut shard = self.shard(path);
        let seen = shard.listings.entry(path.to_owned()).or_insert((listing, entries));
        Ok(seen.1.clone())
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        self.mounts.open(name, from)
    }
}

/// Where a path is looked for: below a folder of this machine, or in a tree of the store.
enum Place<'a> {
    Disk(BorrowedFd<'a>, &'a str),
    Tree(&'a TreeMount, &'a str),
}

fn check_size(path: &str, size: u64) -> Result<(), HostError> {
    let limit = limits::BUILD_FILE_BYTES_MAX;
    if size > limit {
        return Err(HostError::TooLarge { path: path.to_owned(), size, limit });
    }
    Ok(())
}

fn store_error(path: &str, error: StoreError) -> HostError {
    io_error(path, io::Error::other(error))
}

fn or_dot(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn link_error(error: Errno) -> io::Error {
    match error {
        Errno::XDEV => io::Error::other("a symbolic link leads out of the workspace"),
        error => error.into(),
    }
}

fn io_error(path: &str, source: io::Error) -> HostError {
    let path = if path.is_empty() { "." } else { path };
    HostError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::facts::{ArchivedFactTable, FactTable, to_archive};
    use rkyv::rancor;
    use std::fs;

    fn workspace() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temp dir");
        for (path, text) in [
            ("maestro.star", "root"),
            ("pkg/maestro.star", "pkg"),
            ("pkg/a.cc", ""),
            ("nested/maestro.lock", ""),
            ("nested/x.cc", ""),
            ("maestro-out/o", ""),
            (".git/HEAD", ""),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        folder
    }

    fn open(root: &Path) -> WorkspaceHost {
        WorkspaceHost::new(root, HostOptions::default()).expect("the root is there")
    }

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).expect("valid")
    }

    #[test]
    fn answers_and_hides_what_is_not_of_this_workspace() {
        let folder = workspace();
        let host = open(folder.path());
        let names = |dir: Option<&str>| {
            let entries = host.list(dir.map(rel).as_ref()).expect("readable");
            entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["maestro.star", "pkg"]);
        assert_eq!(names(Some("pkg")), ["a.cc", "maestro.star"]);
        assert_eq!(names(Some("zz")), Vec::<String>::new());
        assert_eq!(names(Some("pkg/a.cc")), Vec::<String>::new());
        let read = |path: &str| host.read(&rel(path)).expect("readable");
        assert_eq!(read("pkg/maestro.star").as_deref(), Some(b"pkg".as_slice()));
        assert_eq!(read("pkg/none"), None);
        let stat = |path: &str| host.stat(&rel(path)).expect("readable");
        assert_eq!(stat("pkg"), Some(FileType::Directory));
        assert_eq!(stat("pkg/a.cc"), Some(FileType::File));
        assert_eq!(stat("pkg/a.cc/x"), None);
    }

    #[test]
    fn refuses_what_is_no_small_file_of_the_workspace() {
        let folder = workspace();
        let root = folder.path();
        let large = fs::File::create(root.join("large")).expect("writable");
        large.set_len(limits::BUILD_FILE_BYTES_MAX + 1).expect("writable");
        std::os::unix::fs::symlink("/usr/bin/env", root.join("out")).expect("writable");
        let fifo = rustix::fs::FileType::Fifo;
        let dir = fs::File::open(root).expect("there");
        rustix::fs::mknodat(dir, "pipe", fifo, Mode::from_raw_mode(0o600), 0).expect("writable");
        let host = open(root);
        let check = |path: &str, expect: &str| {
            let error = host.read(&rel(path)).expect_err("refused");
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = source.map_or(error.to_string(), |source| format!("{error}: {source}"));
            assert_eq!(text, expect);
        };
        check("large", "`large` has 4194305 bytes, the limit is 4194304");
        check("out", "cannot read `out`: a symbolic link leads out of the workspace");
        check("pipe", "cannot read `pipe`: it is not a regular file");
        check("pkg", "cannot read `pkg`: it is not a regular file");
    }

    /// What must be noticed after an evaluation that looked at everything.
    fn check(edit: impl FnOnce(&Path), expect: Option<&str>) {
        let folder = workspace();
        let root = folder.path();
        let host = open(root);
        host.list(None).expect("readable");
        host.list(Some(&rel("pkg"))).expect("readable");
        host.list(Some(&rel("later"))).expect("absent is no error");
        host.read(&rel("pkg/maestro.star")).expect("readable");
        host.stat(&rel("pkg/a.cc")).expect("readable");
        host.stat(&rel("pkg/sub/maestro.star")).expect("readable");
        let table = FactTable::new(host.take_observations());
        assert!(host.take_observations().is_empty());
        edit(root);
        let bytes = to_archive(&table);
        let archived = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
        let changed = archived.first_change(root).expect("the root is there");
        assert_eq!(changed.as_deref(), expect);
    }

    #[test]
    fn observations_notice_what_matters_and_nothing_else() {
        let write = |root: &Path, path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("writable");
            fs::write(path, "new").expect("writable");
        };
        check(|_| {}, None);
        check(|root| write(root, "pkg/maestro.star"), Some("pkg/maestro.star"));
        check(|root| write(root, "pkg/new.cc"), Some("pkg"));
        check(|root| write(root, "pkg/sub/maestro.star"), Some("pkg"));
        check(|root| write(root, "later/x"), Some(""));
        check(|root| write(root, "pkg/maestro.lock"), Some("pkg"));
        check(
            |root| fs::remove_file(root.join("nested/maestro.lock")).expect("there"),
            Some("nested/maestro.lock"),
        );
        check(|root| write(root, "pkg/a.cc"), None);
        check(|root| write(root, "maestro-out/p"), None);
        check(|root| write(root, "nested/y.cc"), None);
    }

    #[test]
    fn one_evaluation_sees_one_state() {
        let folder = workspace();
        let host = open(folder.path());
        let before = host.list(Some(&rel("pkg"))).expect("readable");
        assert_eq!(host.stat(&rel("pkg/b.cc")).expect("readable"), None);
        fs::write(folder.path().join("pkg/b.cc"), "").expect("writable");
        assert_eq!(host.list(Some(&rel("pkg"))).expect("readable"), before);
        assert_eq!(host.stat(&rel("pkg/b.cc")).expect("readable"), None);
    }
}
