//! Removes whole folders that actions or trees left, whatever their modes, names and depth.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg as _;

/// Folders nested deeper than this are first moved up, so that no depth can exhaust the stack
/// or the file descriptors.
const DEPTH_MAX: usize = 64;

/// Removes `name` of `parent` and everything below it. Links are removed, never followed.
/// What is gone already is fine.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let mut worklist = vec![CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?];
    while let Some(next) = worklist.pop() {
        let mut walk = Walk { top: parent, deep: Vec::new() };
        walk.remove(parent, &next, 0)?;
        if !walk.deep.is_empty() {
            // What was too deep stands beside the folder now; the folder comes after it.
            worklist.push(next);
            worklist.extend(walk.deep);
        }
    }
    Ok(())
}

/// Names folders that were moved up; unique in this process.
static MOVED: AtomicU64 = AtomicU64::new(0);

struct Walk<'a> {
    top: BorrowedFd<'a>,
    deep: Vec<CString>,
}

impl Walk<'_> {
    fn remove(&mut self, dir: BorrowedFd<'_>, name: &CString, depth: usize) -> Result<(), Errno> {
        // Most entries are files, for which one call is enough.
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if depth > DEPTH_MAX {
            return self.move_up(dir, name);
        }
        let folder = match open_writable(dir, name) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let child = entry.file_name();
            if child.to_bytes() != b"." && child.to_bytes() != b".." {
                self.remove(folder.as_fd(), &child.to_owned(), depth + 1)?;
            }
        }
        drop(folder);
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CString) -> Result<(), Errno> {
        let number = MOVED.fetch_add(1, Ordering::Relaxed);
        let up = format!(".deep-{}-{number}", std::process::id()).into_c_str()?.into_owned();
        rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
        rustix::fs::renameat(dir, name, self.top, &up)?;
        self.deep.push(up);
        Ok(())
    }
}

/// Opens a folder; gives its owner all permissions first.
fn open_writable(dir: BorrowedFd<'_>, name: &CString) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&folder, Mode::RWXU)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn locked_deep_and_linked_folders_go_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let keep = dir.path().join("keep");
        std::fs::create_dir(&keep).expect("made");
        std::fs::write(keep.join("file"), "x").expect("written");
        let top = dir.path().join("top");
        let locked = top.join("locked");
        std::fs::create_dir_all(&locked).expect("made");
        std::fs::write(locked.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(&keep, top.join("link")).expect("linked");
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 500).collect();
        std::fs::create_dir_all(top.join(deep)).expect("made");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&locked, mode).expect("locked");
        let parent = std::fs::File::open(dir.path()).expect("opened");
        remove_tree(parent.as_fd(), OsStr::new("top")).expect("removed");
        let left = std::fs::read_dir(dir.path()).expect("listed").count();
        assert_eq!((left, keep.join("file").exists()), (1, true));
        remove_tree(parent.as_fd(), OsStr::new("gone")).expect("fine");
    }
}
