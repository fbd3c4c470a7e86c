//! Folders of actions in scratch: used again by the next action, or removed, whatever is in them.
//!
//! A job slot keeps one folder, in which the inputs of its current action are laid out. Emptying
//! it removes names of blobs, which is cheap, and keeps the folders themselves in a pool, from
//! which the next layout takes them: making folders, and freeing the blocks of removed ones, costs
//! more than everything else in a small action.
//! Only folders that no action can write to are used again, so nothing can be hidden in them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;

use crate::sandbox::removal::{open_folder, read_names, remove_tree};

/// How deep inputs may lie for their folders to be used again.
const DEPTH_MAX: usize = 64;
/// Most folders that wait in one pool.
const POOL_MAX: usize = 4_096;

/// The folder of one job slot.
#[derive(Debug)]
pub(super) struct SlotFolder {
    name: String,
    path: PathBuf,
    pool: Pool,
    written: bool,
    has_layer: bool,
}

impl SlotFolder {
    /// Makes the folder `name` in `scratch`, with an empty `in`; `written` if actions will write
    /// to that.
    pub(super) fn create(scratch: &Path, name: String, written: bool) -> io::Result<Self> {
        let path = scratch.join(&name);
        fs::create_dir(&path)?;
        fs::create_dir(path.join("in"))?;
        let pool = Pool::create(&path.join("pool"))?;
        Ok(Self { name, path, pool, written, has_layer: false })
    }

    /// Its name in scratch.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where inputs are laid out.
    pub(super) fn inputs(&self) -> PathBuf {
        self.path.join("in")
    }

    /// The folders that a layout may use.
    pub(super) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Makes the folders of a writable layer on disk.
    pub(super) fn make_layer(&mut self) -> io::Result<PathBuf> {
        self.has_layer = true;
        fs::create_dir(self.path.join("work"))?;
        let up = self.path.join("up");
        fs::create_dir(&up)?;
        Ok(up)
    }

    /// Empties it for the next action. After an error it must not be used again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_layer) {
            remove_tree(&self.path.join("up"))?;
            remove_tree(&self.path.join("work"))?;
        }
        if self.written {
            // What an action could write to is not used again.
            remove_tree(&self.inputs())?;
            return fs::create_dir(self.inputs());
        }
        let inputs = open_folder(CWD, self.inputs().as_os_str())?;
        self.pool.reclaim(inputs.as_fd(), 0)
    }
}

impl Drop for SlotFolder {
    fn drop(&mut self) {
        remove_or_warn(&self.path);
    }
}

/// Empty folders that wait for use.
#[derive(Debug)]
pub(super) struct Pool {
    folder: OwnedFd,
    free: Vec<u64>,
    next: u64,
}

impl Pool {
    /// A pool that keeps its folders in the new folder `path`.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir(path)?;
        let folder = open_folder(CWD, path.as_os_str())?;
        Ok(Self { folder, free: Vec::new(), next: 0 })
    }

    /// Puts an empty folder at `name` in `parent`; something may stand there already.
    pub(super) fn place(&mut self, parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        if let Some(number) = self.free.pop() {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            let from = number.to_string();
            match rustix::fs::renameat_with(&self.folder, &from, parent, name, flags) {
                Ok(()) => return Ok(()),
                Err(_) => self.free.push(number),
            }
        }
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Empties `folder`; what folders are in it come to wait here. Fails where it is very deep.
    fn reclaim(&mut self, folder: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for (name, kind) in read_names(folder)? {
            if kind != FileType::Directory {
                rustix::fs::unlinkat(folder, &*name, AtFlags::empty())?;
                continue;
            }
            let below = open_folder(folder, OsStr::from_bytes(name.as_bytes()))?;
            if depth < DEPTH_MAX {
                self.reclaim(below.as_fd(), depth + 1)?;
            } else {
                return Err(io::Error::from_raw_os_error(Errno::NAMETOOLONG.raw_os_error()));
            }
            if self.free.len() < POOL_MAX {
                let number = self.next;
                self.next += 1;
                rustix::fs::renameat(folder, &*name, &self.folder, number.to_string())?;
                self.free.push(number);
            } else {
                rustix::fs::unlinkat(folder, &*name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }
}

/// Removes a folder and everything in it, following no link; a failure is only logged.
fn remove_or_warn(path: &Path) {
    if let Err(error) = remove_tree(path) {
        let path = path.display();
        tracing::warn!(%path, %error, "a folder in scratch could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn folders_are_used_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut slot = SlotFolder::create(dir.path(), "s0".to_owned(), false).expect("a folder");
        let mut inodes = Vec::new();
        for _ in 0..2 {
            let inputs = open_folder(CWD, slot.inputs().as_os_str()).expect("a folder");
            slot.pool().place(inputs.as_fd(), "a").expect("placed");
            slot.pool().place(inputs.as_fd(), "a").expect("it may stand there already");
            let inner = open_folder(inputs.as_fd(), OsStr::new("a")).expect("a folder");
            slot.pool().place(inner.as_fd(), "b").expect("placed");
            fs::write(slot.inputs().join("a/b/file"), "x").expect("a file");
            let inode = |path: &str| slot.inputs().join(path).metadata().expect("there").ino();
            let mut both = [inode("a"), inode("a/b")];
            both.sort_unstable();
            inodes.push(both);
            slot.clear().expect("cleared");
            assert_eq!(fs::read_dir(slot.inputs()).expect("a folder").count(), 0);
        }
        assert_eq!(inodes.first(), inodes.last());
        let path = slot.path().to_owned();
        drop(slot);
        assert!(!path.exists());
    }
}
