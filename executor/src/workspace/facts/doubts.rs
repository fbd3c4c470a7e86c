//! Which facts may no longer hold, as long as the kernel tells what happens in their folders.
//!
//! Invariant: a fact that is in no doubt was found to hold after the watch of its folder was set,
//! and nothing that the kernel told since concerns it. So a look costs what happened, not what is
//! known.
//!
//! | what stands in the way | what is done |
//! |---|---|
//! | a link on the way to a fact, a hard link with a name elsewhere, a file mounted over | looked at every time |
//! | a file system whose changes come from elsewhere; too many watches; no permission | its facts are looked at every time |
//! | a folder that goes, comes or moves, anywhere above a fact | everything below is watched anew and looked at |
//! | the kernel lost events; the base itself is another folder | the same for everything |
//!
//! What the kernel does not tell is said in `docs/design/daemon.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::scan::{Verdict, open_path, verdict};
use super::{ArchivedFact, ArchivedFactTable, Difference, join};
use crate::workspace::watches::{Seen, WatchId, Watches};

/// Facts that are known, by folder and name.
pub(in crate::workspace) trait Known {
    /// The folders that facts lie in. One may come twice.
    fn folders(&self) -> Vec<&str>;

    /// The names of the facts of a folder. One may come twice.
    fn names(&self, folder: &str) -> Vec<&str>;

    /// One fact.
    fn fact(&self, folder: &str, name: &str) -> Option<&ArchivedFact>;
}

/// The facts of one table and the doubts about them.
#[derive(Debug)]
pub(in crate::workspace) struct Doubts {
    base: PathBuf,
    /// Device and inode of the base, as it was when it was watched.
    base_id: Option<(u64, u64)>,
    watches: Watches<Arc<str>>,
    /// Every folder that facts lie in, and the folders above those: up to the base, or up to the
    /// root of all where a path is absolute.
    folders: BTreeMap<Arc<str>, Folder>,
    /// Whether the kernel sees every change of a file system, by device.
    told_by_device: HashMap<u64, bool>,
    hindrance: Option<Hindrance>,
}

/// Why the kernel does not tell what happens in a folder, where somebody could mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The user has too many watches.
    Watches,
    /// The file system of this folder is changed by others, too.
    FileSystem(PathBuf),
}

#[derive(Debug, Default)]
struct Folder {
    state: State,
    doubt: Doubt,
    /// Names that are looked at every time.
    always: BTreeSet<String>,
}

/// How it is known what happens in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It is not: nobody looked yet.
    #[default]
    New,
    /// The kernel tells. With the number of the mount, where the kernel has such numbers.
    Watched(WatchId, u64),
    /// It is not there, and the kernel tells when it comes.
    Missing,
    /// The kernel does not tell.
    Untold,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    Some(BTreeSet<String>),
    All,
}

impl Folder {
    fn wants_look(&self) -> bool {
        self.state == State::New || self.doubt != Doubt::None || !self.always.is_empty()
    }
}

impl Doubts {
    /// Doubts about everything that is known below `base`.
    pub(in crate::workspace) fn new(base: &Path, known: &dyn Known) -> io::Result<Self> {
        let mut doubts = Self {
            base: base.to_owned(),
            base_id: None,
            watches: Watches::new()?,
            folders: BTreeMap::new(),
            told_by_device: HashMap::new(),
            hindrance: None,
        };
        doubts.replace(known);
        Ok(doubts)
    }

    /// How many folders are watched.
    pub(in crate::workspace) fn watched(&self) -> usize {
        self.watches.len()
    }

    /// How many folders should be watched and cannot be.
    pub(in crate::workspace) fn untold(&self) -> usize {
        self.folders.values().filter(|folder| folder.state == State::Untold).count()
    }

    /// What stands in the way of watching all folders, if anything does.
    pub(in crate::workspace) fn hindrance(&self) -> Option<&Hindrance> {
        self.hindrance.as_ref()
    }

    /// Whether something happened that was not taken note of.
    pub(in crate::workspace) fn has_news(&self) -> io::Result<bool> {
        self.watches.wait(0)
    }

    /// Readable when something happened.
    pub(in crate::workspace) fn queue(&self) -> BorrowedFd<'_> {
        self.watches.as_fd()
    }

    /// Doubts everything of what is known now, and forgets what no longer is. Watches stay.
    pub(in crate::workspace) fn replace(&mut self, known: &dyn Known) {
        let mut former = std::mem::take(&mut self.folders);
        for folder in known.folders() {
            self.add_folder(folder, &mut former).doubt = Doubt::All;
        }
        for folder in former.into_values() {
            if let State::Watched(id, _) = folder.state {
                self.watches.remove(id);
            }
        }
    }

    /// Doubts one fact, which may be new.
    pub(in crate::workspace) fn doubt(&mut self, folder: &str, name: &str) {
        let folder = self.add_folder(folder, &mut BTreeMap::new());
        match &mut folder.doubt {
            Doubt::All => {}
            Doubt::Some(names) => drop(names.insert(name.to_owned())),
            Doubt::None => folder.doubt = Doubt::Some(BTreeSet::from([name.to_owned()])),
        }
    }

    /// Doubts everything, and trusts no watch that was set.
    pub(in crate::workspace) fn doubt_all(&mut self) -> io::Result<()> {
        self.watches = Watches::new()?;
        for folder in self.folders.values_mut() {
            *folder = Folder { doubt: Doubt::All, ..Folder::default() };
        }
        Ok(())
    }

    /// Takes note of what happened since the last time.
    pub(in crate::workspace) fn drain(&mut self, known: &dyn Known) -> io::Result<()> {
        let Self { base, watches, folders, .. } = self;
        let (mut lost, mut linked, mut ended) = (false, false, Vec::new());
        watches.drain(|seen| match seen {
            Seen::Lost => lost = true,
            Seen::Folder(key) => renew(folders, key, &mut ended),
            Seen::Entry { key, name, listed } => {
                linked |= listed && is_linked(&base.join(&**key).join(name));
                let known_name = name.to_str();
                let below = known_name.map(|name| join(key, name));
                if let Some(below) = below.filter(|below| folders.contains_key(below.as_str())) {
                    renew(folders, &below, &mut ended);
                }
                let names = known_name.into_iter().chain(listed.then_some(""));
                for name in names.filter(|name| known.fact(key, name).is_some()) {
                    let Some(folder) = folders.get_mut(key) else { continue };
                    match &mut folder.doubt {
                        Doubt::All => {}
                        Doubt::Some(names) => drop(names.insert(name.to_owned())),
                        none => *none = Doubt::Some(BTreeSet::from([name.to_owned()])),
                    }
                }
            }
        })?;
        for id in ended {
            self.watches.remove(id);
        }
        if linked {
            // Which file has a further name now, nobody tells.
            self.folders.values_mut().for_each(|folder| folder.doubt = Doubt::All);
        }
        if lost { self.doubt_all() } else { Ok(()) }
    }

    /// The facts that do not hold, sorted: what is in doubt is looked at, the rest is as it was.
    pub(in crate::workspace) fn look(&mut self, known: &dyn Known) -> io::Result<Vec<Difference>> {
        self.drain(known)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = rustix::fs::open(&self.base, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&base)?;
        let id = (stat.st_dev, stat.st_ino);
        if self.base_id != Some(id) {
            self.doubt_all()?;
            self.base_id = Some(id);
        }
        let doubted = self.folders.iter().filter(|(_, folder)| folder.wants_look());
        let doubted: Vec<Arc<str>> = doubted.map(|(path, _)| path.clone()).collect();
        let mut found = Vec::new();
        // A folder comes before those in it, so that each finds the one above it watched.
        for path in &doubted {
            self.look_at(base.as_fd(), path, known, &mut found);
        }
        found.sort();
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    fn look_at(
        &mut self,
        base: BorrowedFd<'_>,
        path: &Arc<str>,
        known: &dyn Known,
        found: &mut Vec<Difference>,
    ) {
        let Some(mut folder) = self.folders.remove(path) else { return };
        if folder.state == State::New {
            folder.state = self.watch(path);
        }
        let names: BTreeSet<&str> = match &folder.doubt {
            Doubt::All => known.names(path).into_iter().collect(),
            Doubt::Some(names) => names.iter().chain(&folder.always).map(String::as_str).collect(),
            Doubt::None => folder.always.iter().map(String::as_str).collect(),
        };
        let open = (!path.is_empty() && !names.is_empty()).then(|| open_path(base, path));
        let (mut differ, mut always) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            let Some(fact) = known.fact(path, name) else { continue };
            if let (State::Watched(_, mount), false) = (folder.state, name.is_empty()) {
                let at =
                    open.as_ref().and_then(|open| open.as_ref().ok()).map_or(base, AsFd::as_fd);
                if may_change_untold(at, name, mount, fact) {
                    always.insert(name.to_owned());
                }
            }
            let verdict = verdict(base, open.as_ref(), path, name, fact);
            if verdict != Verdict::Holds {
                let content_only = verdict == Verdict::OtherContent;
                found.push(Difference { path: join(path, name), content_only });
                differ.insert(name.to_owned());
            }
        }
        folder.always = always;
        folder.doubt = match folder.state {
            State::New | State::Untold => Doubt::All,
            _ if differ.is_empty() => Doubt::None,
            _ => Doubt::Some(differ),
        };
        self.folders.insert(path.clone(), folder);
    }

    /// Watches a folder whose parent was looked at.
    fn watch(&mut self, path: &Arc<str>) -> State {
        let above = parent(path).and_then(|parent| self.folders.get(parent));
        let above = above.map_or(State::New, |folder| folder.state);
        if matches!(above, State::Missing | State::Untold) {
            return above;
        }
        let full = self.base.join(&**path);
        let id = match self.watches.add(&full, path.clone()) {
            Ok(Some(id)) => id,
            Err(Errno::NOENT) => return State::Missing,
            Err(Errno::NOTDIR) if !full.is_symlink() => return State::Missing,
            Err(Errno::NOSPC) => {
                self.hindrance = Some(Hindrance::Watches);
                return State::Untold;
            }
            Ok(None) | Err(_) => return State::Untold,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let Ok(stat) = rustix::fs::statx(rustix::fs::CWD, &full, flags, StatxFlags::MNT_ID) else {
            return State::New; // it is gone again, and the kernel told
        };
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let told = self.told_by_device.entry(device);
        if !*told.or_insert_with(|| is_told(&full)) {
            self.watches.remove(id);
            self.hindrance.get_or_insert(Hindrance::FileSystem(full));
            return State::Untold;
        }
        State::Watched(id, stat.stx_mnt_id)
    }

    fn add_folder(&mut self, path: &str, former: &mut BTreeMap<Arc<str>, Folder>) -> &mut Folder {
        let mut at = Some(path);
        while let Some(folder) = at.filter(|folder| !self.folders.contains_key(*folder)) {
            let (key, value) =
                former.remove_entry(folder).unwrap_or_else(|| (folder.into(), Folder::default()));
            self.folders.insert(key, value);
            at = parent(folder);
        }
        self.folders.entry(path.into()).or_default()
    }
}

/// Everything at a path and below is watched anew, and in doubt.
fn renew(folders: &mut BTreeMap<Arc<str>, Folder>, path: &str, ended: &mut Vec<WatchId>) {
    let all = path.is_empty();
    let prefix = if path == "/" { path.to_owned() } else { format!("{path}/") };
    let from = if all { "" } else { prefix.as_str() };
    let below = folders.range_mut::<str, _>((Bound::Included(from), Bound::Unbounded));
    let below = below.take_while(|(other, _)| all || other.starts_with(&prefix));
    for (_, folder) in below {
        end(folder, ended);
    }
    if let Some(folder) = folders.get_mut(path) {
        end(folder, ended);
    }
}

fn end(folder: &mut Folder, ended: &mut Vec<WatchId>) {
    let former = std::mem::replace(folder, Folder { doubt: Doubt::All, ..Folder::default() });
    if let State::Watched(id, _) = former.state {
        ended.push(id);
    }
}

/// The folder above; absolute paths end at the root, others at the base.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some(("", "")) => None,
        Some(("", _)) => Some("/"),
        Some((parent, _)) => Some(parent),
        None => (!path.is_empty()).then_some(""),
    }
}

/// Whether an entry of a watched folder may change without a word of the kernel.
fn may_change_untold(at: BorrowedFd<'_>, name: &str, mount: u64, fact: &ArchivedFact) -> bool {
    let wanted = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::MNT_ID;
    let Ok(stat) = rustix::fs::statx(at, name, AtFlags::SYMLINK_NOFOLLOW, wanted) else {
        return false; // nothing is there, and the kernel tells when something comes
    };
    match rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) {
        rustix::fs::FileType::Symlink => !matches!(fact, ArchivedFact::Link { .. }),
        rustix::fs::FileType::RegularFile => stat.stx_nlink > 1 || stat.stx_mnt_id != mount,
        _ => false,
    }
}

/// Whether a file has several names.
fn is_linked(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.nlink() > 1)
}

/// Whether the kernel sees every change of the file system at a path: those it keeps on disks or
/// in memory itself. What others write to a network file system, it does not hear of.
fn is_told(path: &Path) -> bool {
    /// `btrfs`, `ext`, `f2fs`, `overlay`, `ramfs`, `tmpfs`, `xfs`, `zfs`, `bcachefs`; the numbers
    /// of `statfs(2)`.
    const TOLD: [u32; 9] = [
        0x9123_683E,
        0xEF53,
        0xF2F5_2010,
        0x794C_7630,
        0x8584_58F6,
        0x0102_1994,
        0x5846_5342,
        0x2FC1_2FC1,
        0xCA45_1A4E,
    ];
    // The number has 32 bits, whatever the width of the field.
    rustix::fs::statfs(path).is_ok_and(|statfs| TOLD.contains(&(statfs.f_type as u32)))
}

impl Known for ArchivedFactTable {
    fn folders(&self) -> Vec<&str> {
        self.folders.iter().map(|folder| folder.path.as_str()).collect()
    }

    fn names(&self, folder: &str) -> Vec<&str> {
        let entries = self.folder(folder).map(|folder| folder.entries.as_slice());
        entries.unwrap_or_default().iter().map(|entry| entry.0.as_str()).collect()
    }

    fn fact(&self, folder: &str, name: &str) -> Option<&ArchivedFact> {
        let entries = self.folder(folder)?.entries.as_slice();
        let at = entries.binary_search_by(|entry| entry.0.as_str().cmp(name)).ok()?;
        Some(&entries.get(at)?.1)
    }
}

#[cfg(test)]
mod tests;
