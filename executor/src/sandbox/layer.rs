//! The writable layer of an action: what it writes below its execution root, and its `/tmp`.
//!
//! It is memory where possible (a tmpfs that no one else can name), for two reasons: nothing has
//! to be removed afterwards, and making and removing folders on a disk is the largest part of what
//! a small action costs (freeing a folder's block may wait for the device, 0.15 to 4 ms each on
//! ext4 with `discard` and no journal).
//! Memory is bounded: a server measures the layer while the action runs, and one that holds more
//! than [`spill_bytes`] is given up; the client runs the action again with a layer on disk. The
//! file system itself is several times larger than that bound, so that no action comes to see it
//! full between two measurements, and an answer that lacks what did not fit cannot arise.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Most bytes in a layer that is memory, and in `/tmp`.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Most files in a layer that is memory, and in `/tmp`.
const MEMORY_FILES_MAX: u64 = 1 << 20;
/// From how many bytes on an action is run again on disk.
const SPILL_BYTES: u64 = 1 << 30;
/// The same, as a part of the machine's memory.
const SPILL_PART: u64 = 16;
/// What a file costs at least when a layer is measured, so that many small ones spill too.
const FILE_BYTES: u64 = 2048;

/// Options of a tmpfs that actions write to.
pub(super) fn options(user: Option<u32>) -> String {
    let owner = user.map(|user| format!(",uid={user},gid={user}")).unwrap_or_default();
    format!("mode=1777,size={MEMORY_BYTES_MAX},nr_inodes={MEMORY_FILES_MAX}{owner}")
}

/// A new layer: a detached mount with the folders `up`, `work` and `tmp` in it.
pub(super) fn in_memory(user: Option<u32>) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options(user).split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let layer = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for (name, mode) in [("up", 0o755), ("work", 0o755), ("tmp", 0o1777)] {
        rustix::fs::mkdirat(&layer, name, Mode::RWXU)?;
        rustix::fs::chmodat(&layer, name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())?;
        if let Some(user) = user {
            let (uid, gid) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(user));
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::chownat(&layer, name, Some(uid), Some(gid), flags)?;
        }
    }
    Ok(layer)
}

/// Whether this kernel's tmpfs can be the upper layer of an overlay: since 6.6 it keeps the
/// attributes with which an overlay marks a folder that replaces another.
pub(super) fn works(user: Option<u32>) -> bool {
    let marked = || -> io::Result<()> {
        let layer = in_memory(user)?;
        let flags = rustix::fs::XattrFlags::empty();
        let folder = open_written(&layer)?;
        Ok(rustix::fs::fsetxattr(&folder, "user.overlay.opaque", b"y", flags)?)
    };
    marked().is_ok()
}

/// A descriptor of what was written below the execution root.
pub(super) fn open_written(layer: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(layer, "up", flags, Mode::empty())?)
}

/// How much a layer holds.
pub(super) fn used_bytes(layer: BorrowedFd<'_>) -> u64 {
    let Ok(stat) = rustix::fs::fstatvfs(layer.as_fd()) else { return 0 };
    let bytes = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    let files = stat.f_files.saturating_sub(stat.f_ffree);
    bytes.saturating_add(files.saturating_mul(FILE_BYTES))
}

/// From how much on an action must write to disk instead.
pub(super) fn spill_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let memory = u64::from(info.mem_unit).saturating_mul(info.totalram);
    SPILL_BYTES.min(memory / SPILL_PART)
}

/// Makes folders below `up`, and gives them and `up` to the user that the action runs as.
pub(super) fn make_folders(up: &Path, user: Option<u32>, folders: &[String]) -> io::Result<()> {
    let give = |path: &Path| if user.is_some() { chown(path, user, user) } else { Ok(()) };
    give(up)?;
    for folder in folders {
        let path = up.join(folder);
        match fs::create_dir(&path) {
            Ok(()) => give(&path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
