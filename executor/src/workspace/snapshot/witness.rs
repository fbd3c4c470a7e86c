//! What changed since a snapshot, said by a process that stays: it keeps the snapshot read, and
//! looks only at what the kernel says that something happened to.
//!
//! It comes to what [`Snapshot::check`] comes to, and writes as little. What it cannot know, since
//! only the process that builds does, are values of environment variables and parameters: of a
//! snapshot with such values there is no witness.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use maestro_cas::StatSignature;

use super::{
    Changes, Head, Snapshot, SnapshotError, SnapshotName, SnapshotToolchain, signature_of,
};
pub use crate::workspace::facts::doubts::Hindrance;
use crate::workspace::facts::doubts::{Doubts, Known};
use crate::workspace::facts::{ArchivedFact, ArchivedFactTable, join, split};
use crate::workspace::toolchain::ToolchainList;

/// Changes whenever something is mounted or unmounted where this process sees it.
const MOUNTS: &str = "/proc/self/mountinfo";

/// A snapshot and what happened to the files that it depends on.
#[derive(Debug)]
pub struct Witness {
    snapshot: Snapshot,
    /// An archive of the head's facts.
    newer: AlignedVec,
    doubts: Doubts,
    trees: Vec<Tree>,
    mounts: std::fs::File,
}

/// How many folders a witness looks after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    /// The kernel tells what happens in them.
    pub watched: usize,
    /// It does not, so that their facts are looked at every time.
    pub untold: usize,
}

/// A toolchain that the snapshot depends on.
#[derive(Debug)]
struct Tree {
    toolchain: SnapshotToolchain,
    /// Its list with the list's signature, where there is one that belongs to the toolchain.
    list: Option<(StatSignature, ToolchainList)>,
    doubts: Doubts,
}

/// The facts of a snapshot: those of its generation, under those of its head.
struct Layers<'s> {
    head: &'s Head,
    table: &'s ArchivedFactTable,
    newer: &'s ArchivedFactTable,
}

impl Witness {
    /// Reads a snapshot of the workspace at `root`; `None` where there is none that can be used.
    /// Nothing is watched before the first look.
    pub fn open(name: &SnapshotName<'_>, root: &Path) -> Result<Option<Self>, SnapshotError> {
        let Some(snapshot) = open_snapshot(name, None)? else { return Ok(None) };
        let newer = snapshot.head.newer_facts();
        let doubts = Doubts::new(root, &Layers::of(&snapshot, &newer));
        let doubts = doubts.map_err(SnapshotError::at(root))?;
        let mounts = std::fs::File::open(MOUNTS).map_err(SnapshotError::at(Path::new(MOUNTS)))?;
        let mut witness = Self { snapshot, newer, doubts, trees: Vec::new(), mounts };
        witness.open_trees()?;
        Ok(Some(witness))
    }

    /// Reads the snapshot again if another one lies there now. What did not change between the two
    /// is not looked at again. `false` where there is none any more.
    pub fn refresh(&mut self, name: &SnapshotName<'_>) -> Result<bool, SnapshotError> {
        if name.identity().as_ref() == Some(self.snapshot.identity()) {
            return Ok(true);
        }
        let Some(snapshot) = open_snapshot(name, Some(&self.snapshot))? else {
            return Ok(false);
        };
        self.drain()?;
        let newer = snapshot.head.newer_facts();
        let former = std::mem::replace(&mut self.snapshot, snapshot);
        self.newer = newer;
        if former.head.generation == self.snapshot.head.generation {
            for head in [&former.head, &self.snapshot.head] {
                for path in head.facts.keys() {
                    let (folder, name) = split(path);
                    self.doubts.doubt(folder, name);
                }
                for path in head.listings.keys() {
                    self.doubts.doubt(path, "");
                }
            }
        } else {
            self.doubts.replace(&Layers::of(&self.snapshot, &self.newer));
        }
        if former.head.toolchains != self.snapshot.head.toolchains {
            self.open_trees()?;
        }
        Ok(true)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many folders are looked after.
    pub fn folders(&self) -> Folders {
        let doubts = || std::iter::once(&self.doubts).chain(self.trees.iter().map(|t| &t.doubts));
        Folders {
            watched: doubts().map(Doubts::watched).sum(),
            untold: doubts().map(Doubts::untold).sum(),
        }
    }

    /// What stands in the way of watching all folders, if anything does.
    pub fn hindrance(&self) -> Option<Hindrance> {
        let trees = self.trees.iter().map(|tree| &tree.doubts);
        std::iter::once(&self.doubts).chain(trees).find_map(|doubts| doubts.hindrance()).cloned()
    }

    /// Readable when something happened that [`Self::drain`] takes note of.
    pub fn queues(&self) -> Vec<BorrowedFd<'_>> {
        let trees = self.trees.iter().map(|tree| tree.doubts.queue());
        std::iter::once(self.doubts.queue()).chain(trees).collect()
    }

    /// Takes note of what happened, so that the kernel's queue stays short.
    pub fn drain(&mut self) -> Result<(), SnapshotError> {
        self.drain_all().map_err(|source| SnapshotError::at(&self.snapshot.folder)(source))
    }

    fn drain_all(&mut self) -> io::Result<()> {
        let Self { snapshot, newer, doubts, trees, .. } = self;
        if doubts.has_news()? {
            doubts.drain(&Layers::of(snapshot, newer))?;
        }
        for Tree { list, doubts, .. } in trees {
            if doubts.has_news()?
                && let Some((_, list)) = list
            {
                doubts.drain(list.table())?;
            }
        }
        Ok(())
    }

    /// Finds out what is no longer as it was, after everything that happened before this call.
    pub fn look(&mut self) -> Result<Changes, SnapshotError> {
        self.look_at_all().map_err(|source| SnapshotError::at(&self.snapshot.folder)(source))
    }

    fn look_at_all(&mut self) -> io::Result<Changes> {
        if self.is_mounted_anew()? {
            self.doubts.doubt_all()?;
            self.trees.iter_mut().try_for_each(|tree| tree.doubts.doubt_all())?;
        }
        let mut changes = Changes::default();
        let differences = self.doubts.look(&Layers::of(&self.snapshot, &self.newer))?;
        changes.sort_in(differences);
        for tree in &mut self.trees {
            changes.toolchains.extend(tree.change()?);
        }
        Ok(changes)
    }

    /// Whether something was mounted or unmounted since the last time.
    fn is_mounted_anew(&self) -> io::Result<bool> {
        let mut mounts = [PollFd::new(&self.mounts, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut mounts, Some(&now))?;
        Ok(mounts.iter().any(|mounts| mounts.revents().intersects(PollFlags::PRI)))
    }

    fn open_trees(&mut self) -> Result<(), SnapshotError> {
        self.trees.clear();
        for toolchain in &self.snapshot.head.toolchains {
            let tree = Tree::open(toolchain.clone()).map_err(SnapshotError::at(&toolchain.list))?;
            self.trees.push(tree);
        }
        Ok(())
    }
}

impl Tree {
    fn open(toolchain: SnapshotToolchain) -> io::Result<Self> {
        let list = read_list(&toolchain)?;
        let table: &dyn Known = match &list {
            Some((_, list)) => list.table(),
            None => &Nothing,
        };
        let doubts = Doubts::new(Path::new("/"), table)?;
        Ok(Self { toolchain, list, doubts })
    }

    /// What of it is no longer as it was.
    fn change(&mut self) -> io::Result<Option<String>> {
        let path = &self.toolchain.list;
        if signature_of(path) != self.list.as_ref().map(|(signature, _)| *signature) {
            *self = Self::open(self.toolchain.clone())?;
        }
        let Some((_, list)) = &self.list else {
            return Ok(Some(self.toolchain.list.display().to_string()));
        };
        Ok(self.doubts.look(list.table())?.into_iter().next().map(|difference| difference.path))
    }
}

fn read_list(toolchain: &SnapshotToolchain) -> io::Result<Option<(StatSignature, ToolchainList)>> {
    let Some(signature) = signature_of(&toolchain.list) else { return Ok(None) };
    let list = ToolchainList::open(&toolchain.list)?;
    Ok(list.filter(|list| list.root() == toolchain.root).map(|list| (signature, list)))
}

fn open_snapshot(
    name: &SnapshotName<'_>,
    former: Option<&Snapshot>,
) -> Result<Option<Snapshot>, SnapshotError> {
    let snapshot = Snapshot::open_after(name, former)?;
    Ok(snapshot.filter(|snapshot| snapshot.head.env.is_empty() && snapshot.head.params.is_empty()))
}

/// No fact at all.
struct Nothing;

impl Known for Nothing {
    fn folders(&self) -> Vec<&str> {
        Vec::new()
    }

    fn names(&self, _folder: &str) -> Vec<&str> {
        Vec::new()
    }

    fn fact(&self, _folder: &str, _name: &str) -> Option<&ArchivedFact> {
        None
    }
}

impl<'s> Layers<'s> {
    fn of(snapshot: &'s Snapshot, newer: &'s AlignedVec) -> Self {
        let newer = rkyv::access::<ArchivedFactTable, rancor::Error>(newer)
            .expect("what was just made is well formed");
        Self { head: &snapshot.head, table: snapshot.table(), newer }
    }

    /// Whether the head knows better than the generation, also that there is no fact any more.
    fn is_replaced(&self, folder: &str, name: &str) -> bool {
        match name {
            "" => self.head.listings.contains_key(folder),
            _ => self.head.facts.contains_key(&join(folder, name)),
        }
    }
}

impl Known for Layers<'_> {
    fn folders(&self) -> Vec<&str> {
        let mut folders = self.table.folders();
        folders.extend(self.newer.folders());
        folders
    }

    fn names(&self, folder: &str) -> Vec<&str> {
        let mut names = self.table.names(folder);
        names.extend(self.newer.names(folder));
        names
    }

    fn fact(&self, folder: &str, name: &str) -> Option<&ArchivedFact> {
        let layer = if self.is_replaced(folder, name) { self.newer } else { self.table };
        layer.fact(folder, name)
    }
}
