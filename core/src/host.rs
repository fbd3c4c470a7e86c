//! All that the front ends may see of the machine: an interface without an implementation.
//!
//! Whoever implements it records each answer as a dependency of the evaluation.

use crate::path::RelPath;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else: socket, device, pipe.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, or the odd bytes escaped where it is not UTF-8 (see `valid`).
    pub name: String,
    /// Whether the name can stand in a path of a build.
    pub valid: bool,
    /// What it is; links are not followed.
    pub file_type: FileType,
}

/// Why the machine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Reading failed.
    #[error("cannot read `{path}`")]
    Io {
        /// The path below the workspace.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than its limit.
    #[error("`{path}` has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The path below the workspace.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

/// The workspace as evaluation sees it. Paths are relative to its root; `None` is the root itself.
pub trait Host: Send + Sync {
    /// What stands at `path`, following links; `None` if nothing does.
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError>;
    /// The bytes of a small file, or `None` if there is none.
    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError>;
    /// The entries of a folder, sorted by name; none if it does not exist.
    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError>;
}
