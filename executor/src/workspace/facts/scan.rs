//! Looks at the facts of a table, by two threads: which of them no longer hold.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use maestro_cas::StatSignature;
use maestro_core::Digest;
use maestro_core::host::FileType;
use rustix::fs::{AtFlags, Mode, OFlags, statat};

use super::{
    ArchivedFact, ArchivedFactTable, ArchivedFolderFacts, Difference, PlainDigest, file_type,
    hash_file, join,
};
use crate::workspace::listing::{listing_digest, open_folder, read_listing, type_code};

/// Threads that check one table.
const THREADS: usize = 2;
/// Tables smaller than this are checked by the calling thread alone.
const PARALLEL_FACTS_MIN: usize = 256;
/// Folders with fewer facts than this are not opened.
const OPEN_FOLDER_FACTS_MIN: usize = 2;

impl ArchivedFactTable {
    pub(super) fn scan(&self, base: &Path, scan: &Scan<'_>) -> io::Result<Vec<Difference>> {
        let base = rustix::fs::open(
            base,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let folders = self.folders.as_slice();
        let total: usize = folders.iter().map(|folder| folder.entries.len()).sum();
        if total < PARALLEL_FACTS_MIN {
            return Ok(scan.folders(base.as_fd(), folders));
        }
        let (left, right) = split_evenly(folders, total / THREADS);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| scan.folders(base.as_fd(), right));
            let mut found = scan.folders(base.as_fd(), left);
            found.extend(other.join().expect("checking facts does not panic"));
            Ok(found)
        })
    }
}

/// One look at many facts, by several threads.
pub(super) struct Scan<'s> {
    pub(super) stop: AtomicBool,
    pub(super) first_only: bool,
    pub(super) passed: &'s (dyn Fn(&str, &str) -> bool + Sync),
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

impl Scan<'_> {
    fn folders(&self, base: BorrowedFd<'_>, folders: &[ArchivedFolderFacts]) -> Vec<Difference> {
        let mut found = Vec::new();
        for folder in folders {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.folder(base, folder, &mut found);
            if self.first_only && !found.is_empty() {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        found
    }

    /// Finds the entries that are not as they were.
    fn folder(
        &self,
        base: BorrowedFd<'_>,
        facts: &ArchivedFolderFacts,
        found: &mut Vec<Difference>,
    ) {
        let folder = facts.path.as_str();
        let open = (!folder.is_empty() && facts.entries.len() >= OPEN_FOLDER_FACTS_MIN)
            .then(|| open_path(base, folder));
        for entry in facts.entries.iter() {
            let (name, fact) = (entry.0.as_str(), &entry.1);
            if (self.passed)(folder, name) {
                continue;
            }
            let verdict = verdict(base, open.as_ref(), folder, name, fact);
            if verdict != Verdict::Holds {
                let content_only = verdict == Verdict::OtherContent;
                found.push(Difference { path: join(folder, name), content_only });
                if self.first_only {
                    return;
                }
            }
        }
    }
}

/// What a look at one entry of a folder says; `open` is the folder, or why it cannot be opened.
pub(super) fn verdict(
    base: BorrowedFd<'_>,
    open: Option<&io::Result<OwnedFd>>,
    folder: &str,
    name: &str,
    fact: &ArchivedFact,
) -> Verdict {
    match open {
        Some(Ok(open)) => holds(open.as_fd(), name, fact),
        // Where the folder is gone, what was absent in it still is.
        Some(Err(error)) => match (error.kind(), fact) {
            (ErrorKind::NotFound | ErrorKind::NotADirectory, ArchivedFact::Absent) => {
                Verdict::Holds
            }
            _ => Verdict::Other,
        },
        None => holds(base, &join(folder, name), fact),
    }
}

pub(super) fn open_path(base: BorrowedFd<'_>, folder: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(base, folder, flags, Mode::empty())?)
}

/// What a look at one path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The fact holds.
    Holds,
    /// A regular file of which only the digest was of interest has other content, or may have.
    OtherContent,
    /// Anything else.
    Other,
}

/// Whether a fact holds. An error means that what was seen before cannot be seen now.
fn holds(at: BorrowedFd<'_>, path: &str, fact: &ArchivedFact) -> Verdict {
    match (look(at, path, fact), fact) {
        (Ok(true), _) => Verdict::Holds,
        (Ok(false), ArchivedFact::Content(content)) if !content.evaluated => {
            let path = if path.is_empty() { "." } else { path };
            match statat(at, path, AtFlags::empty()) {
                Ok(stat) if file_type(&stat) == FileType::File => Verdict::OtherContent,
                _ => Verdict::Other,
            }
        }
        _ => Verdict::Other,
    }
}

fn look(at: BorrowedFd<'_>, path: &str, fact: &ArchivedFact) -> io::Result<bool> {
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
