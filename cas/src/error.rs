//! Everything that can go wrong in the store, each with the path or digest it is about.

use std::io;
use std::path::{Path, PathBuf};

use maestro_core::wire::DecodeError;
use maestro_core::{Digest, FailureKind};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob is not there. Its producer can make it again.
    #[error("blob `{digest}` is not in the store")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// The blob's bytes are not what its name says; it lies in quarantine and is missing now.
    #[error("blob `{digest}` is damaged and was moved to `{quarantine}`")]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// Where the damaged file lies.
        quarantine: PathBuf,
    },
    /// The file system is full (`ENOSPC`).
    #[error("no space is left on the file system of `{path}`")]
    NoSpace {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The user's quota is used up (`EDQUOT`).
    #[error("the disk quota is used up on the file system of `{path}`")]
    Quota {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system is mounted read-only (`EROFS`).
    #[error("the file system of `{path}` is read-only")]
    ReadOnly {
        /// What was written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The permissions of a file or folder do not allow it (`EACCES`, `EPERM`).
    #[error("no permission for `{path}`")]
    Permission {
        /// What was opened or written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The process or the machine has no file descriptor left (`EMFILE`, `ENFILE`).
    #[error("too many files are open, so `{path}` cannot be")]
    TooManyFiles {
        /// What was opened.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other failure of the system.
    #[error("cannot access `{path}`")]
    Io {
        /// What was accessed.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A source is a folder, device, socket or pipe.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The source.
        path: PathBuf,
    },
    /// A source changed each time it was read.
    #[error("`{path}` kept changing while it was read")]
    SourceChanging {
        /// The source.
        path: PathBuf,
    },
    /// Something is larger than its bound.
    #[error("{what} of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// What it is, such as a blob that is read into memory.
        what: &'static str,
        /// Its size in bytes or entries.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// A blob that should be a directory message is not one.
    #[error("blob `{digest}` is not a directory message")]
    Decode {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The cache folder was written by another format of the store.
    #[error("`{path}` holds format `{found}` of the cache, and this program reads `{expected}`")]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this program writes.
        expected: &'static str,
    },
    /// Other maintenance of the same cache did not end in time.
    #[error("`{path}` is held by other maintenance of the cache for more than {waited_ms} ms")]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// Another process has the store of a server open.
    #[error("`{path}` is held by {owner}")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the other says of itself.
        owner: String,
    },
    /// The bytes of a blob are not what its digest says.
    #[error("the content is `{found}`, not `{expected}`")]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The derived index failed and could not be rebuilt.
    #[error("the index `{path}` cannot be used")]
    Index {
        /// Its folder.
        path: PathBuf,
        /// The database's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotAFile { .. } | Self::SourceChanging { .. } | Self::Mismatch { .. } => {
                FailureKind::Input
            }
            Self::Decode { .. } => FailureKind::Internal,
            _ => FailureKind::Environment,
        }
    }

    /// What can be done about it, where something can.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSpace { .. } | Self::Quota { .. } => {
                "free space, or run `maestro cache gc` with a smaller size".to_owned()
            }
            Self::ReadOnly { .. } | Self::Permission { .. } => {
                "choose another cache folder, or change its owner and permissions".to_owned()
            }
            Self::TooManyFiles { .. } => "raise the limit with `ulimit -n`".to_owned(),
            Self::SourceChanging { .. } => {
                "stop what writes to the file, and build again".to_owned()
            }
            Self::Corrupt { .. } => "check the disk, and run `maestro cache verify`".to_owned(),
            Self::Format { .. } => "choose another cache folder, or delete this one".to_owned(),
            Self::Held { .. } => "stop the other, or choose another folder".to_owned(),
            Self::Busy { .. } => "wait until the other `maestro cache` command ends".to_owned(),
            _ => return None,
        })
    }

    /// Sorts a failure of the system by what the user can do about it.
    pub(crate) fn io(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        use rustix::io::Errno;
        let (path, source) = (path.as_ref().to_owned(), source.into());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC) => Self::NoSpace { path, source },
            Some(Errno::DQUOT) => Self::Quota { path, source },
            Some(Errno::ROFS) => Self::ReadOnly { path, source },
            Some(Errno::ACCESS | Errno::PERM) => Self::Permission { path, source },
            Some(Errno::MFILE | Errno::NFILE) => Self::TooManyFiles { path, source },
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_sorted_and_name_the_path() {
        let check = |errno: i32, expect: &str| {
            let error = StoreError::io("/c/x", io::Error::from_raw_os_error(errno));
            assert_eq!(error.to_string(), expect);
            assert_eq!(error.kind(), FailureKind::Environment);
        };
        check(28, "no space is left on the file system of `/c/x`");
        check(122, "the disk quota is used up on the file system of `/c/x`");
        check(30, "the file system of `/c/x` is read-only");
        check(13, "no permission for `/c/x`");
        check(24, "too many files are open, so `/c/x` cannot be");
        check(5, "cannot access `/c/x`");
    }
}
