//! Facts that were seen on disk, in a form that can be checked again very quickly.
//!
//! A [`FactTable`] groups facts by folder, so that checking opens each folder once and asks for
//! names below it; it is stored with rkyv and checked in place, by two threads.
//! A content fact holds as long as the stat signature of the file is the same and the signature
//! was not *racy* when it was taken; a racy one is settled by hashing. A listing fact whose
//! signature changed is settled by listing again, since unrelated temporary files come and go.
//! Invariant: a check writes nothing.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use maestro_cas::StatSignature;
use maestro_core::host::FileType;
use maestro_core::{Digest, DigestFunction, limits};
use rkyv::rancor;
use rustix::fs::{AtFlags, Mode, OFlags, statat};

use super::listing::{listing_digest, open_folder, read_listing, to_core, type_code};

/// Threads that check one table.
const THREADS: usize = 2;
/// Tables smaller than this are checked by the calling thread alone.
const PARALLEL_FACTS_MIN: usize = 256;
/// Folders with fewer facts than this are not opened.
const OPEN_FOLDER_FACTS_MIN: usize = 2;

/// One thing that was seen at a path. Links are followed except by [`Fact::Link`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Content {
    /// What stat said.
    pub signature: Signature,
    /// Whether the file could change without changing its signature when it was hashed.
    pub racy: bool,
    /// What it held.
    pub digest: PlainDigest,
}

/// A folder as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Listing {
    /// What stat said.
    pub signature: Signature,
    /// Whether an entry could come or go without changing the signature.
    pub racy: bool,
    /// The digest of the entries.
    pub digest: PlainDigest,
}

/// A [`StatSignature`] that can be stored with rkyv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// A [`Digest`] that can be stored with rkyv.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PlainDigest {
    sha256: bool,
    hash: [u8; 32],
    size: u64,
}

/// Facts about paths below one base folder, grouped by folder.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct FactTable {
    folders: Vec<FolderFacts>,
}

/// Facts about the entries of one folder.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FolderFacts {
    path: String,
    entries: Vec<(String, Fact)>,
}

impl Content {
    /// A file that was hashed at `hashed_at_ns`, in nanoseconds since 1970.
    pub fn new(signature: &StatSignature, hashed_at_ns: i64, digest: Digest) -> Self {
        let racy = signature.is_racy(hashed_at_ns);
        Self { signature: signature.into(), racy, digest: digest.into() }
    }
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
    /// except that a [`Fact::Type`] gives way to any fact that says more.
    pub fn new(facts: impl IntoIterator<Item = (String, Fact)>) -> Self {
        let mut sorted = std::collections::BTreeMap::new();
        for (path, fact) in facts {
            let (folder, name) = match path.rsplit_once('/') {
                Some((folder, name)) => (folder.to_owned(), name.to_owned()),
                None => (String::new(), path),
            };
            // A listing stands beside what is known of the folder as an entry of its parent.
            let key = match fact {
                Fact::Listing(_) => (join(&folder, &name), String::new()),
                _ => (folder, name),
            };
            let weaker = matches!(fact, Fact::Type(_)) && sorted.contains_key(&key);
            if !weaker {
                sorted.insert(key, fact);
            }
        }
        let mut folders: Vec<FolderFacts> = Vec::new();
        for ((path, name), fact) in sorted {
            match folders.last_mut() {
                Some(folder) if folder.path == path => folder.entries.push((name, fact)),
                _ => folders.push(FolderFacts { path, entries: vec![(name, fact)] }),
            }
        }
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

/// `folder/name`, where either may be empty.
fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", _) => name.to_owned(),
        (_, "") => folder.to_owned(),
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
                    let ArchivedContent { signature, racy, digest } = content;
                    let (signature, digest) = (signature.plain(), digest.plain());
                    let content = Content { signature, racy: *racy, digest };
                    Some((join(&folder.path, &entry.0), content))
                }
                _ => None,
            })
        })
    }

    /// The first path below `base` at which something else is found than before, if any.
    pub fn first_change(&self, base: &Path) -> io::Result<Option<String>> {
        let base = rustix::fs::open(
            base,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let folders = self.folders.as_slice();
        let total: usize = folders.iter().map(|folder| folder.entries.len()).sum();
        let stop = AtomicBool::new(false);
        if total < PARALLEL_FACTS_MIN {
            return Ok(check_folders(base.as_fd(), folders, &stop));
        }
        let (left, right) = split_evenly(folders, total / THREADS);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| check_folders(base.as_fd(), right, &stop));
            let first = check_folders(base.as_fd(), left, &stop);
            let second = other.join().expect("checking facts does not panic");
            Ok(first.or(second))
        })
    }
}

fn split_evenly(
    folders: &[ArchivedFolderFacts],
    half: usize,
) -> (&[ArchivedFolderFacts], &[ArchivedFolderFacts]) {
    let mut seen = 0;
    let middle = folders.iter().position(|folder| {
        seen += folder.entries.len();
        seen > half
    });
    // The folder that crosses the middle goes to the left, unless it is the only one there.
    folders.split_at(middle.map_or(folders.len(), |index| index + 1).min(folders.len()))
}

fn check_folders(
    base: BorrowedFd<'_>,
    folders: &[ArchivedFolderFacts],
    stop: &AtomicBool,
) -> Option<String> {
    for folder in folders {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(name) = check_folder(base, folder) {
            stop.store(true, Ordering::Relaxed);
            return Some(join(&folder.path, name));
        }
    }
    None
}

/// The first entry that is not as it was.
fn check_folder<'a>(base: BorrowedFd<'_>, facts: &'a ArchivedFolderFacts) -> Option<&'a str> {
    let folder = facts.path.as_str();
    let mut entries = facts.entries.iter();
    let differs = |at: BorrowedFd<'_>, path: &str, fact: &ArchivedFact| {
        // An error means that what was seen before cannot be seen now.
        !holds(at, path, fact).unwrap_or(false)
    };
    if folder.is_empty() || facts.entries.len() < OPEN_FOLDER_FACTS_MIN {
        let changed = entries.find(|e| differs(base, &join(folder, e.0.as_str()), &e.1));
        return changed.map(|e| e.0.as_str());
    }
    match rustix::fs::openat(
        base,
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(open) => {
            let changed = entries.find(|e| differs(open.as_fd(), e.0.as_str(), &e.1));
            changed.map(|e| e.0.as_str())
        }
        Err(_) => {
            let changed = entries.find(|e| !matches!(e.1, ArchivedFact::Absent));
            changed.map(|e| e.0.as_str())
        }
    }
}

fn holds(at: BorrowedFd<'_>, path: &str, fact: &ArchivedFact) -> io::Result<bool> {
    let path = if path.is_empty() { "." } else { path };
    match fact {
        ArchivedFact::Absent => match statat(at, path, AtFlags::empty()) {
            Ok(_) => Ok(false),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(true),
            Err(error) => Err(error.into()),
        },
        ArchivedFact::Type(code) => {
            Ok(type_code(file_type(&statat(at, path, AtFlags::empty())?)) == *code)
        }
        ArchivedFact::Content(content) => {
            let now = StatSignature::of_stat(&statat(at, path, AtFlags::empty())?);
            if content.signature.plain() != (&now).into() {
                return Ok(false);
            }
            if !content.racy {
                return Ok(true);
            }
            let digest: Digest = content.digest.plain().into();
            Ok(hash_file(at, path, digest.function)? == Some(digest))
        }
        ArchivedFact::Link { target } => {
            let text = rustix::fs::readlinkat(at, path, Vec::new())?;
            Ok(text.as_bytes() == target.as_bytes())
        }
        ArchivedFact::Listing(listing) => {
            let now = StatSignature::of_stat(&statat(at, path, AtFlags::empty())?);
            if listing.signature.plain() == (&now).into() && !listing.racy {
                return Ok(true);
            }
            let entries = read_listing(open_folder(at, path)?)?;
            Ok(PlainDigest::from(listing_digest(&entries)) == listing.digest.plain())
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
mod tests {
    use super::*;
    use std::fs;

    /// Facts about a small tree, as they are now and not racy.
    fn facts_of(root: &Path) -> Vec<(String, Fact)> {
        let signature =
            |path: &str| StatSignature::of_stat(&rustix::fs::stat(root.join(path)).expect("there"));
        let file = |path: &str| {
            let bytes = fs::read(root.join(path)).expect("readable");
            let digest = DigestFunction::Blake3.digest(&bytes);
            (path.to_owned(), Fact::Content(Content::new(&signature(path), i64::MAX, digest)))
        };
        let folder = |path: &str| {
            let at = rustix::fs::CWD;
            let open = open_folder(at, root.join(path).to_str().expect("UTF-8")).expect("there");
            let listing = Listing {
                signature: (&signature(path)).into(),
                racy: false,
                digest: listing_digest(&read_listing(open).expect("readable")).into(),
            };
            (path.to_owned(), Fact::Listing(listing))
        };
        vec![
            file("a"),
            file("d/b"),
            file("d/c"),
            folder(""),
            folder("d"),
            ("d/absent".to_owned(), Fact::Absent),
            ("d".to_owned(), Fact::Type(type_code(FileType::Directory))),
            ("gone/x".to_owned(), Fact::Absent),
            ("gone/y".to_owned(), Fact::Absent),
            ("link".to_owned(), Fact::Link { target: "a".to_owned() }),
        ]
    }

    fn changed(root: &Path, table: &FactTable) -> Option<String> {
        let bytes = to_archive(table);
        let table = rkyv::access::<ArchivedFactTable, rancor::Error>(&bytes).expect("valid");
        table.first_change(root).expect("the root is there")
    }

    fn check(edit: impl FnOnce(&Path), expect: Option<&str>) {
        let folder = tempfile::tempdir().expect("a temp dir");
        let root = folder.path();
        fs::create_dir(root.join("d")).expect("writable");
        for path in ["a", "d/b", "d/c"] {
            fs::write(root.join(path), path).expect("writable");
        }
        std::os::unix::fs::symlink("a", root.join("link")).expect("writable");
        let table = FactTable::new(facts_of(root));
        assert_eq!(changed(root, &table), None);
        edit(root);
        assert_eq!(changed(root, &table).as_deref(), expect);
    }

    #[test]
    fn every_kind_of_change_is_found() {
        check(|_| {}, None);
        check(|root| fs::write(root.join("a"), "other").expect("writable"), Some("a"));
        check(|root| fs::remove_file(root.join("d/c")).expect("there"), Some("d"));
        check(|root| fs::write(root.join("d/absent"), "").expect("writable"), Some("d"));
        check(|root| fs::create_dir_all(root.join("gone/y")).expect("writable"), Some(""));
        check(|root| fs::remove_dir_all(root.join("d")).expect("there"), Some(""));
        check(
            |root| {
                fs::remove_file(root.join("link")).expect("there");
                std::os::unix::fs::symlink("d/b", root.join("link")).expect("writable");
            },
            Some("link"),
        );
    }

    #[test]
    fn what_comes_and_goes_again_or_is_ours_changes_nothing() {
        check(
            |root| {
                fs::write(root.join("d/tmp"), "").expect("writable");
                fs::remove_file(root.join("d/tmp")).expect("there");
                fs::create_dir(root.join("maestro-out")).expect("writable");
            },
            None,
        );
    }

    #[test]
    fn a_rewrite_with_the_old_time_stamp_is_found() {
        check(
            |root| {
                let path = root.join("d/b");
                let before = fs::metadata(&path).expect("there").modified().expect("has one");
                fs::write(&path, "D/B").expect("writable");
                let file = fs::File::options().write(true).open(&path).expect("there");
                file.set_modified(before).expect("writable");
            },
            Some("d/b"),
        );
    }

    #[test]
    fn racy_facts_are_settled_by_content() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let root = folder.path();
        fs::write(root.join("f"), "old").expect("writable");
        let stat = rustix::fs::stat(root.join("f")).expect("there");
        let signature = StatSignature::of_stat(&stat);
        let table = |text: &str, racy| {
            let digest = DigestFunction::Sha256.digest(text.as_bytes()).into();
            let content = Content { signature: (&signature).into(), racy, digest };
            FactTable::new([("f".to_owned(), Fact::Content(content))])
        };
        assert_eq!(changed(root, &table("old", true)), None);
        assert_eq!(changed(root, &table("new", true)).as_deref(), Some("f"));
        assert_eq!(changed(root, &table("new", false)), None, "a safe signature is believed");
        assert!(Content::new(&signature, now_ns(), DigestFunction::Blake3.digest(b"")).racy);
    }

    #[test]
    fn many_facts_are_checked_by_two_threads_with_the_same_verdict() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let root = folder.path();
        let mut facts = Vec::new();
        for number in 0..1000 {
            let dir = root.join(format!("d{}", number / 10));
            fs::create_dir_all(&dir).expect("writable");
            fs::write(dir.join(number.to_string()), "").expect("writable");
            let path = format!("d{}/{number}", number / 10);
            let stat = rustix::fs::stat(root.join(&path)).expect("there");
            let digest = DigestFunction::Blake3.digest(b"");
            let content = Content::new(&StatSignature::of_stat(&stat), i64::MAX, digest);
            facts.push((path, Fact::Content(content)));
        }
        let mut table = FactTable::new(facts);
        assert_eq!((table.len(), changed(root, &table)), (1000, None));
        for path in ["d0/0", "d50/500", "d99/999"] {
            let (whole, moved) = (root.join(path), root.join("moved"));
            fs::rename(&whole, &moved).expect("there");
            assert_eq!(changed(root, &table).as_deref(), Some(path));
            put_pipe(root, path);
            assert_eq!(changed(root, &table).as_deref(), Some(path), "a pipe does not block");
            fs::remove_file(&whole).expect("there");
            fs::rename(&moved, &whole).expect("there");
            // Renaming changed the time stamp of the inode, so the facts must be seen anew.
            let stat = rustix::fs::stat(&whole).expect("there");
            let digest = DigestFunction::Blake3.digest(b"");
            let fact = Content::new(&StatSignature::of_stat(&stat), i64::MAX, digest);
            let facts = table.iter().map(|(path, fact)| (path, fact.clone()));
            table = FactTable::new(facts.chain([(path.to_owned(), Fact::Content(fact))]));
            assert_eq!(changed(root, &table), None);
        }
    }

    fn put_pipe(root: &Path, path: &str) {
        let folder = fs::File::open(root).expect("there");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&folder, path, rustix::fs::FileType::Fifo, mode, 0).expect("writable");
    }
}
