//! Removes folders in scratch, whatever an action put there: deep, locked, or named oddly.
//!
//! No link is followed. Depth costs neither descriptors nor stack beyond a bound.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// How deep folders are removed where they are; deeper ones are moved up first.
const DEPTH_MAX: usize = 32;
/// How often a folder is read again because something was left in it.
const PASSES_MAX: usize = 4;

/// Removes a folder and everything in it, following no link; it may be gone already.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_folder(CWD, path.as_os_str()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    rustix::fs::fchmod(&top, Mode::RWXU)?;
    let mut work = Removal { top: top.as_fd(), moved: 0 };
    work.empty(top.as_fd(), 0)?;
    // What was too deep lies in the top folder now; each round shortens it.
    while work.moved > 0 {
        work.moved = 0;
        work.empty(top.as_fd(), 0)?;
    }
    fs::remove_dir(path)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
}

impl Removal<'_> {
    /// Removes all that is in `folder`, except what it moved to the top.
    fn empty(&mut self, folder: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for _ in 0..PASSES_MAX {
            let mut left = 0u64;
            for (name, kind) in read_names(folder)? {
                if kind == FileType::Directory {
                    if depth == 0 && is_moved(&name) && self.moved > 0 {
                        continue;
                    }
                    left += u64::from(!self.remove_folder(folder, &name, depth)?);
                } else {
                    rustix::fs::unlinkat(folder, &*name, AtFlags::empty())?;
                }
            }
            if left == 0 {
                return Ok(());
            }
        }
        Err(io::Error::from_raw_os_error(Errno::NOTEMPTY.raw_os_error()))
    }

    /// Removes or moves away a subfolder; whether it is gone.
    fn remove_folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CString,
        depth: usize,
    ) -> io::Result<bool> {
        // Moving a folder changes its `..`, which takes the right to write it, as emptying does.
        allow(parent, name)?;
        if depth >= DEPTH_MAX {
            self.moved += 1;
            let to = format!("{MOVED}{}", next_number());
            rustix::fs::renameat(parent, &**name, self.top, to)?;
            return Ok(true);
        }
        let folder = open_folder(parent, OsStr::from_bytes(name.as_bytes()))?;
        self.empty(folder.as_fd(), depth + 1)?;
        match rustix::fs::unlinkat(parent, &**name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The names of folders that were moved to the top begin so.
const MOVED: &str = ".maestro-moved-";

fn is_moved(name: &CString) -> bool {
    name.as_bytes().starts_with(MOVED.as_bytes())
}

fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Makes a folder one that its owner can read and write, whatever mode an action gave it.
fn allow(parent: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
    let stat = rustix::fs::statat(parent, &**name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_mode & 0o700 == 0o700 {
        return Ok(());
    }
    Ok(rustix::fs::chmodat(parent, &**name, Mode::RWXU, AtFlags::empty())?)
}

pub(crate) fn open_folder(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

pub(crate) fn read_names(folder: BorrowedFd<'_>) -> io::Result<Vec<(CString, FileType)>> {
    let mut out = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            out.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn removes_what_is_deep_locked_and_linked() {
        let dir = tempfile::tempdir().expect("a folder");
        let keep = dir.path().join("keep");
        fs::create_dir(&keep).expect("a folder");
        fs::write(keep.join("file"), "kept").expect("a file");
        let top = dir.path().join("top");
        fs::create_dir(&top).expect("a folder");
        symlink(&keep, top.join("link")).expect("a link");
        // Far deeper than a path can name: made with relative steps.
        let mut at = open_folder(CWD, top.as_os_str()).expect("a folder");
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "dddd", Mode::RWXU).expect("a folder");
            at = open_folder(at.as_fd(), OsStr::new("dddd")).expect("a folder");
        }
        let locked = top.join("locked");
        fs::create_dir_all(locked.join("inner")).expect("folders");
        fs::write(locked.join("inner/file"), "x").expect("a file");
        for path in [locked.join("inner"), locked] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("own folder");
        }
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(keep.join("file")).expect("still there"), "kept");
    }
}
