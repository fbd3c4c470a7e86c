//! Where things lie below the cache folder, and the system calls relative to it.
//!
//! Every path here is relative to one directory descriptor that is opened once, so that the
//! store stays in one place even when the cache folder is renamed under it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use maestro_core::{ActionKey, Digest, DigestFunction};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::StoreError;

/// What the file [`FORMAT_FILE`] says.
pub(crate) const FORMAT: &str = "maestro-cache-1";
/// Names the format of everything below the cache folder.
pub(crate) const FORMAT_FILE: &str = "FORMAT";
/// Materialized trees.
pub(crate) const TREES: &str = "trees";
/// Folders of running processes.
pub(crate) const SCRATCH: &str = "scratch";
/// Epochs that are not sealed.
pub(crate) const EPOCHS: &str = "epochs";
/// Leases of running builds.
pub(crate) const LEASES: &str = "leases";
/// Segments of access logs.
pub(crate) const LOG: &str = "log";
/// Damaged files.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Blobs of an unclean stop that must be hashed before use. Exists only then.
pub(crate) const SUSPECT: &str = "suspect";
/// What a collection is about to delete.
pub(crate) const TRASH: &str = "trash";
/// The derived index.
pub(crate) const INDEX: &str = "index";
/// Held by maintenance.
pub(crate) const MAINTENANCE_LOCK: &str = "maintenance.lock";
/// Held while suspects are looked for.
pub(crate) const RECOVERY_LOCK: &str = "recovery.lock";

/// Folders that the sandbox's own user must be able to pass through, as blobs are linked and
/// trees are bound out of them.
const PUBLIC: [&str; 4] = ["cas", "cas-sha256", TREES, SCRATCH];
const PRIVATE: [&str; 7] = ["ac", "ac-sha256", EPOCHS, LEASES, LOG, QUARANTINE, TRASH];

/// The folder of blobs of a digest function.
pub(crate) fn blobs_of(function: DigestFunction) -> &'static str {
    match function {
        DigestFunction::Blake3 => "cas",
        DigestFunction::Sha256 => "cas-sha256",
    }
}

/// The folder of results whose keys are of a digest function.
pub(crate) fn results_of(function: DigestFunction) -> &'static str {
    match function {
        DigestFunction::Blake3 => "ac",
        DigestFunction::Sha256 => "ac-sha256",
    }
}

/// Which of the two inodes of a blob is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Mode 0444.
    Plain,
    /// Mode 0555.
    Executable,
}

impl Form {
    pub(crate) fn of(executable: bool) -> Self {
        if executable { Self::Executable } else { Self::Plain }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Executable,
            Self::Executable => Self::Plain,
        }
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::Plain => Mode::from_raw_mode(0o444),
            Self::Executable => Mode::from_raw_mode(0o555),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Executable => ".x",
        }
    }
}

/// `<folder>/xx/HASH<suffix>`.
fn fan_out(folder: &str, digest: &Digest, suffix: &str) -> String {
    let hex = digest.hex();
    let head = hex.get(..2).unwrap_or_default();
    let mut path = String::with_capacity(folder.len() + hex.len() + 8);
    for part in [folder, "/", head, "/", &hex, suffix] {
        path.push_str(part);
    }
    path
}

/// Where a blob lies.
pub(crate) fn blob_path(digest: &Digest, form: Form) -> String {
    fan_out(blobs_of(digest.function), digest, form.suffix())
}

/// Where a blob lies that must be hashed before use.
pub(crate) fn suspect_path(digest: &Digest, form: Form) -> String {
    let mut path = format!("{SUSPECT}/");
    path.push_str(&blob_path(digest, form));
    path
}

/// Where a result lies.
pub(crate) fn result_path(key: &ActionKey) -> String {
    fan_out(results_of(key.0.function), &key.0, "")
}

/// Where a materialized tree lies.
pub(crate) fn tree_path(root: &Digest) -> String {
    let suffix = match root.function {
        DigestFunction::Blake3 => "",
        DigestFunction::Sha256 => ".sha256",
    };
    fan_out(TREES, root, suffix)
}

/// The cache folder.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    fd: OwnedFd,
}

impl Layout {
    /// Opens the cache folder; makes it and its subfolders where they are missing.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(|e| StoreError::io(root, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&root, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(&root).map_err(|e| StoreError::io(&root, e))?;
                rustix::fs::open(&root, flags, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(|e| StoreError::io(&root, e))?;
        let layout = Self { root, fd };
        if layout.has_format()? {
            return Ok(layout);
        }
        for (names, mode) in [(&PUBLIC[..], 0o755), (&PRIVATE[..], 0o700)] {
            for name in names {
                layout.make_dir(name, mode)?;
            }
        }
        layout.write_format()?;
        Ok(layout)
    }

    /// Whether the folder is complete and of our format.
    fn has_format(&self) -> Result<bool, StoreError> {
        let path = self.absolute(FORMAT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) if bytes.strip_suffix(b"\n") == Some(FORMAT.as_bytes()) => Ok(true),
            // A crash of the machine can leave the file without content.
            Ok(bytes) if bytes.is_empty() => Ok(false),
            Ok(bytes) => Err(StoreError::Format {
                path,
                found: String::from_utf8_lossy(&bytes).trim().chars().take(40).collect(),
                expected: FORMAT,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io(path, error)),
        }
    }

    fn write_format(&self) -> Result<(), StoreError> {
        let temp = format!(".{FORMAT_FILE}.{}", std::process::id());
        let path = self.absolute(&temp);
        std::fs::write(&path, format!("{FORMAT}\n")).map_err(|e| StoreError::io(&path, e))?;
        self.rename(&temp, FORMAT_FILE)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn absolute(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn error(&self, relative: &str, errno: Errno) -> StoreError {
        StoreError::io(self.absolute(relative), errno)
    }

    /// Makes a folder; one that is there already is fine. The mode is not cut by the umask.
    pub(crate) fn make_dir(&self, relative: &str, mode: u32) -> Result<(), StoreError> {
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::mkdirat(&self.fd, relative, mode) {
            Ok(()) => rustix::fs::chmodat(&self.fd, relative, mode, AtFlags::empty())
                .map_err(|errno| self.error(relative, errno)),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.error(relative, errno)),
        }
    }

    /// The status of a path, or `None` if nothing is there. Does not follow links.
    pub(crate) fn stat(&self, relative: &str) -> Result<Option<Stat>, StoreError> {
        match rustix::fs::statat(&self.fd, relative, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(relative, errno)),
        }
    }

    /// Opens a file for reading, or `None` if nothing is there. Reading leaves the access time
    /// alone, which says when a build used the file and not when maintenance looked at it.
    pub(crate) fn open_file(&self, relative: &str) -> Result<Option<OwnedFd>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::openat(&self.fd, relative, flags, Mode::empty());
        let opened = match open(flags | OFlags::NOATIME) {
            // Only the owner may ask for that.
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(relative, errno)),
        }
    }

    /// Opens a folder, or `None` if it is not there.
    pub(crate) fn open_dir(&self, relative: &str) -> Result<Option<OwnedFd>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, relative, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(relative, errno)),
        }
    }

    /// Renames within the cache; makes the fan-out folder where it is missing.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.rename_from(self.fd(), from, to).map_err(|errno| self.error(to, errno))
    }

    /// Renames from another folder of the same file system into the cache.
    pub(crate) fn rename_from(
        &self,
        dir: BorrowedFd<'_>,
        from: impl rustix::path::Arg + Copy,
        to: &str,
    ) -> Result<(), Errno> {
        match rustix::fs::renameat(dir, from, &self.fd, to) {
            Err(Errno::NOENT) => {
                self.make_parents(to)?;
                rustix::fs::renameat(dir, from, &self.fd, to)
            }
            other => other,
        }
    }

    /// Makes the folders above a path.
    pub(crate) fn make_parents(&self, relative: &str) -> Result<(), Errno> {
        for (end, _) in relative.match_indices('/') {
            let parent = relative.get(..end).unwrap_or_default();
            match rustix::fs::mkdirat(&self.fd, parent, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let mode = Mode::from_raw_mode(0o755);
                    rustix::fs::chmodat(&self.fd, parent, mode, AtFlags::empty())?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn unlink(&self, relative: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.fd, relative, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error(relative, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fan_out_by_the_first_byte() {
        let hash = [0xab; 32];
        let [blake3, sha256] = [DigestFunction::Blake3, DigestFunction::Sha256]
            .map(|function| Digest { function, hash, size: 1 });
        let hex = blake3.hex();
        let check = |path: String, expect: &str| {
            assert_eq!(path, expect.replace('*', &hex));
        };
        check(blob_path(&blake3, Form::Plain), "cas/ab/*");
        check(blob_path(&blake3, Form::Executable), "cas/ab/*.x");
        check(blob_path(&sha256, Form::Plain), "cas-sha256/ab/*");
        check(result_path(&ActionKey(blake3)), "ac/ab/*");
        check(suspect_path(&blake3, Form::Plain), "suspect/cas/ab/*");
        check(tree_path(&sha256), "trees/ab/*.sha256");
    }
}
