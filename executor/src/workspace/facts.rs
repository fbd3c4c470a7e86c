//! Facts that were seen on disk, in a form that can be checked again very quickly.
//!
//! A [`FactTable`] groups facts by folder, so that checking opens each folder once and asks for
//! names below it; it is stored with rkyv and checked in place, by two threads.
//! A content fact holds as long as the stat signature of the file is the same and the signature
//! was not *racy* when it was taken; a racy one is settled by hashing. A listing fact whose
//! signature changed is settled by listing again, since unrelated temporary files come and go.
//! Invariant: a check writes nothing.

pub(in crate::workspace) mod doubts;
mod scan;

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use maestro_cas::StatSignature;
use maestro_core::host::FileType;
use maestro_core::{Digest, DigestFunction, limits};
use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze, rancor};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::scan::Scan;
use super::listing::to_core;

/// One thing that was seen at a path. Links are followed except by [`Fact::Link`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub enum Fact {
    /// Nothing was there.
    Absent,
    /// Something of a certain type was there.
    Type(u8),
    /// A regular file with certain content.
    Content(Content),
    /// A symbolic link with a certain text.
    Link {
        /// The text.
        target: String,
    },
    /// A folder with certain entries.
    Listing(Listing),
}

/// A regular file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Content {
    /// What stat said.
    pub signature: Signature,
    /// Whether the file could change without changing its signature when it was hashed.
    pub racy: bool,
    /// What it held.
    pub digest: PlainDigest,
    /// Whether build files were evaluated with this content; else only its digest was used.
    pub evaluated: bool,
}

/// A folder as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Listing {
    /// What stat said.
    pub signature: Signature,
    /// Whether an entry could come or go without changing the signature.
    pub racy: bool,
    /// The digest of the entries.
    pub digest: PlainDigest,
}

/// A [`StatSignature`] that can be stored with rkyv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// A [`Digest`] that can be stored with rkyv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct PlainDigest {
    sha256: bool,
    hash: [u8; 32],
    size: u64,
}

/// Facts about paths below one base folder, grouped by folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Freeze, Thaw)]
pub struct FactTable {
    folders: Vec<FolderFacts>,
}

/// Facts about the entries of one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Archive, Freeze, Thaw)]
pub struct FolderFacts {
    path: String,
    entries: Vec<(String, Fact)>,
}

impl Content {
    /// A file that was hashed at `hashed_at_ns`, in nanoseconds since 1970.
    pub fn new(signature: &StatSignature, hashed_at_ns: i64, digest: Digest) -> Self {
        let racy = signature.is_racy(hashed_at_ns);
        Self { signature: signature.into(), racy, digest: digest.into(), evaluated: false }
    }

    /// The same, read for an evaluation.
    pub fn evaluated(self) -> Self {
        Self { evaluated: true, ..self }
    }

    /// A file that Maestro wrote, as it looked right after.
    pub fn written(signature: &StatSignature, digest: Digest) -> Self {
        // A file of another size was changed since it was written; hashing it will tell.
        let racy = signature.size != digest.size || is_racy_output(signature, now_ns());
        Self { signature: signature.into(), racy, digest: digest.into(), evaluated: false }
    }

    /// The stat signature.
    pub fn stat_signature(&self) -> StatSignature {
        self.signature.into()
    }
}

/// What an earlier build saw of regular files.
pub trait KnownFiles: fmt::Debug + Send + Sync {
    /// What was seen at a path.
    fn content(&self, path: &str) -> Option<Content>;
}

/// A fact that no longer holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The path below the base.
    pub path: String,
    /// Whether it is still a regular file, of which nothing but the content was of interest and is
    /// another (or may be: only its signature is known to differ).
    pub content_only: bool,
}

impl From<&StatSignature> for Signature {
    fn from(signature: &StatSignature) -> Self {
        let StatSignature { device, inode, size, mode, mtime_ns, ctime_ns } = *signature;
        Self { device, inode, size, mode, mtime_ns, ctime_ns }
    }
}

impl From<Signature> for StatSignature {
    fn from(signature: Signature) -> Self {
        let Signature { device, inode, size, mode, mtime_ns, ctime_ns } = signature;
        Self { device, inode, size, mode, mtime_ns, ctime_ns }
    }
}

impl From<Digest> for PlainDigest {
    fn from(digest: Digest) -> Self {
        let Digest { function, hash, size } = digest;
        Self { sha256: function == DigestFunction::Sha256, hash, size }
    }
}

impl From<PlainDigest> for Digest {
    fn from(plain: PlainDigest) -> Self {
        let PlainDigest { sha256, hash, size } = plain;
        let function = if sha256 { DigestFunction::Sha256 } else { DigestFunction::Blake3 };
        Self { function, hash, size }
    }
}

impl FactTable {
    /// Groups facts by folder. An empty path is the base itself; of equal paths the last counts,
    /// except that a [`Fact::Type`] gives way to any fact that says more, and that content which
    /// was evaluated once stays so.
    pub fn new(facts: impl IntoIterator<Item = (String, Fact)>) -> Self {
        let mut all: Vec<(String, Fact)> = facts.into_iter().collect();
        all.sort_by(|a, b| place(a).cmp(&place(b)));
        let mut folders: Vec<FolderFacts> = Vec::new();
        for fact in all {
            let (folder, name) = place(&fact);
            if folders.last().is_none_or(|last| last.path != folder) {
                let path = folder.to_owned();
                folders.push(FolderFacts { path, entries: Vec::new() });
            }
            let entries = &mut folders.last_mut().expect("one was pushed").entries;
            let name = name.to_owned();
            let (_, mut fact) = fact;
            match entries.last_mut().filter(|(last, _)| *last == name) {
                None => entries.push((name, fact)),
                Some(_) if matches!(fact, Fact::Type(_)) => {}
                Some((_, before)) => {
                    if let (Fact::Content(new), Fact::Content(old)) = (&mut fact, &*before) {
                        new.evaluated |= old.evaluated;
                    }
                    *before = fact;
                }
            }
        }
        folders.iter_mut().for_each(|folder| folder.entries.shrink_to_fit());
        Self { folders }
    }

    /// Takes the racy mark from facts that were checked at `checked_at_ns` or later and held, and
    /// whose signature was old by then. Says whether there were any.
    pub(super) fn settle(&mut self, checked_at_ns: i64) -> bool {
        let mut settled = false;
        let entries = self.folders.iter_mut().flat_map(|folder| &mut folder.entries);
        for (_, fact) in entries {
            let (Fact::Content(Content { signature, racy, .. })
            | Fact::Listing(Listing { signature, racy, .. })) = fact
            else {
                continue;
            };
            if *racy && !StatSignature::from(*signature).is_racy(checked_at_ns) {
                *racy = false;
                settled = true;
            }
        }
        settled
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.folders.iter().map(|folder| folder.entries.len()).sum()
    }

    /// Whether there is no fact at all.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// The facts with their paths, grouped by folder.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Fact)> {
        self.folders.iter().flat_map(|FolderFacts { path, entries }| {
            entries.iter().map(|(name, fact)| (join(path, name), fact))
        })
    }
}

/// The folder and the name under which a fact is kept. A listing stands beside what is known of the
/// folder as an entry of its parent.
fn place((path, fact): &(String, Fact)) -> (&str, &str) {
    match fact {
        Fact::Listing(_) => (path, ""),
        _ => split(path),
    }
}

/// Folder and name of a path; what lies beside the base is named by absolute paths.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(pair) => pair,
        None => ("", path),
    }
}

/// `folder/name`, where either may be empty, and the folder the root of all.
pub(super) fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", _) => name.to_owned(),
        (_, "") => folder.to_owned(),
        ("/", _) => format!("/{name}"),
        _ => format!("{folder}/{name}"),
    }
}

impl ArchivedFactTable {
    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.folders.iter().map(|folder| folder.entries.len()).sum()
    }

    /// Whether there is no fact at all.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Whether a fact must be settled by reading although its signature is the same.
    pub(super) fn has_racy(&self) -> bool {
        self.folders.iter().flat_map(|folder| folder.entries.iter()).any(|entry| match &entry.1 {
            ArchivedFact::Content(content) => content.racy,
            ArchivedFact::Listing(listing) => listing.racy,
            ArchivedFact::Absent | ArchivedFact::Type(_) | ArchivedFact::Link { .. } => false,
        })
    }

    /// The content facts with their paths.
    pub(super) fn contents(&self) -> impl Iterator<Item = (String, Content)> {
        self.folders.iter().flat_map(|folder| {
            folder.entries.iter().filter_map(|entry| match &entry.1 {
                ArchivedFact::Content(content) => {
                    Some((join(&folder.path, &entry.0), content.plain()))
                }
                _ => None,
            })
        })
    }

    /// The first path below `base` at which something else is found than before, if any.
    pub fn first_change(&self, base: &Path) -> io::Result<Option<String>> {
        let scan = Scan { stop: AtomicBool::new(false), first_only: true, passed: &|_, _| false };
        Ok(self.scan(base, &scan)?.into_iter().next().map(|difference| difference.path))
    }

    /// All paths below `base` at which something else is found than before, sorted; what `passed`
    /// names by folder and name is not looked at.
    pub fn differences(
        &self,
        base: &Path,
        passed: &(dyn Fn(&str, &str) -> bool + Sync),
    ) -> io::Result<Vec<Difference>> {
        let scan = Scan { stop: AtomicBool::new(false), first_only: false, passed };
        let mut found = self.scan(base, &scan)?;
        found.sort();
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// The content facts below a path, with their paths.
    pub(super) fn contents_below(&self, path: &str) -> Vec<(String, Content)> {
        let prefix = format!("{path}/");
        let inside = |folder: &str| folder == path || folder.starts_with(&prefix);
        let folders = self.folders.iter().filter(|folder| inside(folder.path.as_str()));
        let entries = folders.flat_map(|folder| {
            let path = folder.path.as_str();
            folder.entries.iter().map(move |entry| join(path, entry.0.as_str()))
        });
        entries.filter_map(|path| Some((path.clone(), self.content(&path)?))).collect()
    }

    fn folder(&self, path: &str) -> Option<&ArchivedFolderFacts> {
        let folders = self.folders.as_slice();
        let at = folders.binary_search_by(|facts| facts.path.as_str().cmp(path)).ok()?;
        folders.get(at)
    }

    /// What was seen of a regular file.
    pub fn content(&self, path: &str) -> Option<Content> {
        let (folder, name) = split(path);
        let entries = self.folder(folder)?.entries.as_slice();
        let at = entries.binary_search_by(|entry| entry.0.as_str().cmp(name)).ok()?;
        match &entries.get(at)?.1 {
            ArchivedFact::Content(content) => Some(content.plain()),
            _ => None,
        }
    }
}

/// What a stat says of the type of a file.
pub(super) fn file_type(stat: &rustix::fs::Stat) -> FileType {
    to_core(rustix::fs::FileType::from_raw_mode(stat.st_mode))
}

/// The digest of a regular file, or `None` where something else stands there.
pub(super) fn hash_file(
    at: impl AsFd,
    path: &str,
    function: DigestFunction,
) -> io::Result<Option<Digest>> {
    // Without NONBLOCK, a pipe that took the file's place would block the check forever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(rustix::fs::openat(at, path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut hasher = function.hasher();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl ArchivedContent {
    fn plain(&self) -> Content {
        let &Self { ref signature, racy, ref digest, evaluated } = self;
        Content { signature: signature.plain(), racy, digest: digest.plain(), evaluated }
    }
}

impl ArchivedSignature {
    fn plain(&self) -> Signature {
        let Self { device, inode, size, mode, mtime_ns, ctime_ns } = self;
        Signature {
            device: device.to_native(),
            inode: inode.to_native(),
            size: size.to_native(),
            mode: mode.to_native(),
            mtime_ns: mtime_ns.to_native(),
            ctime_ns: ctime_ns.to_native(),
        }
    }
}

impl ArchivedPlainDigest {
    /// The same value as a native one.
    pub(super) fn plain(&self) -> PlainDigest {
        PlainDigest { sha256: self.sha256, hash: self.hash, size: self.size.to_native() }
    }
}

/// The time now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether a file that Maestro itself wrote and then looked at can change unnoticed.
///
/// The window is that of the file system's clock and not [`limits::RACY_WINDOW_MS`]: nobody else
/// wrote the file while it was hashed, so only a change within the same tick is hidden. A stamp of
/// whole seconds tells of a coarse clock; then the long window counts.
pub(super) fn is_racy_output(signature: &StatSignature, seen_at_ns: i64) -> bool {
    const TICK_NS: i64 = 50_000_000;
    const SECOND_NS: i64 = 1_000_000_000;
    let coarse = signature.ctime_ns % SECOND_NS == 0;
    let window = if coarse { limits::RACY_WINDOW_MS as i64 * 1_000_000 } else { TICK_NS };
    signature.ctime_ns.saturating_add(window) > seen_at_ns
}

/// Turns a value into bytes that [`rkyv::access`] reads in place.
pub(super) fn to_archive(
    value: &impl for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Error,
        >,
    >,
) -> rkyv::util::AlignedVec {
    rkyv::to_bytes::<rancor::Error>(value).expect("plain data that fits in memory serializes")
}

#[cfg(test)]
mod tests;
