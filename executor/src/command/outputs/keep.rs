//! Stores outputs that were found to be fit for it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_core::wire::{Directory, DirectoryNode, FileNode, SymlinkNode};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Found, OutputError, io_error, join, open_folder};

/// Inode flags that ext4 sets by itself: huge file, extents, inline data.
const FILE_SYSTEM_FLAGS: u32 = 0x0004_0000 | 0x0008_0000 | 0x1000_0000;

/// Stores what the folder `path` was found to hold; the digest of its directory message.
pub(super) fn store_folder(
    store: &Store,
    layer: BorrowedFd<'_>,
    path: &str,
    entries: &[(String, Found)],
) -> Result<Digest, OutputError> {
    let mut message = Directory::default();
    {
        let folder = open_folder(layer, path)?;
        for (name, node) in entries {
            let name = name.clone();
            match node {
                Found::File { executable } => message.files.push(FileNode {
                    digest: store_file(store, folder.as_fd(), &join(path, &name), name.as_ref())?,
                    is_executable: *executable,
                    name,
                }),
                Found::Link { target } => {
                    message.symlinks.push(SymlinkNode { name, target: target.clone() });
                }
                Found::Folder(_) => {}
            }
        }
    }
    for (name, node) in entries {
        if let Found::Folder(below) = node {
            let digest = store_folder(store, layer, &join(path, name), below)?;
            message.directories.push(DirectoryNode { name: name.clone(), digest });
        }
    }
    message.files.sort_by(|a, b| a.name.cmp(&b.name));
    message.directories.sort_by(|a, b| a.name.cmp(&b.name));
    message.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
    let bytes = message.encode();
    let digest = store.function().digest(&bytes);
    store.put_known(&digest, &bytes)?;
    Ok(digest)
}

/// Stores the file `name` of a folder; moved where nothing but its content and mode is there.
pub(super) fn store_file(
    store: &Store,
    folder: BorrowedFd<'_>,
    path: &str,
    name: &OsStr,
) -> Result<Digest, OutputError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())
        .map_err(|errno| io_error(path, errno))?;
    let file = File::from(file);
    if is_plain(&file) {
        return Ok(store.adopt_file(folder, name, &file)?);
    }
    Ok(store.put_file(&file)?)
}

/// Whether nothing but content and mode comes with the inode, so that the store may have it.
///
/// Whatever else the action can set on an inode would be seen by all who get a link to it, and is
/// in no digest. What cannot be asked for counts as set, unless the file system has no such thing.
fn is_plain(file: &File) -> bool {
    // With an empty buffer, `flistxattr` answers 0 whatever there is; only this one asks.
    let no_attributes = matches!(rustix::fs::flistxattr_query(file), Ok(0) | Err(Errno::NOTSUP));
    let no_flags = match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => flags.bits() & !FILE_SYSTEM_FLAGS == 0,
        Err(errno) => matches!(errno, Errno::NOTTY | Errno::NOTSUP),
    };
    let no_holes = rustix::fs::fstat(file).is_ok_and(|stat| stat.st_blocks * 512 >= stat.st_size);
    no_attributes && no_flags && no_holes
}
