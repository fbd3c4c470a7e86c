//! All that the front ends may see of the machine: an interface without an implementation.
//!
//! Whoever implements it records each answer as a dependency of the evaluation.
//! The files of another repository `NAME` stand at `external/NAME/…`, once it was opened.

use crate::failure::FailureKind;
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
    /// No repository of that name is declared.
    #[error("there is no repository `@{name}`{}", user(.from))]
    NoRepository {
        /// The name.
        name: String,
        /// The repository whose file names it; empty for the workspace.
        from: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// A repository is declared, but cannot be had.
    #[error("{message}")]
    Repository {
        /// What happened, with the repository's name.
        message: String,
        /// Whose fault it is.
        kind: FailureKind,
        /// What can be done.
        hints: Vec<String>,
    },
}

fn user(from: &str) -> String {
    if from.is_empty() { String::new() } else { format!(", which `@{from}` uses") }
}

/// The workspace as evaluation sees it. Paths are relative to its root; `None` is the root itself.
pub trait Host: Send + Sync {
    /// What stands at `path`, following links; `None` if nothing does.
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError>;
    /// The bytes of a small file, or `None` if there is none.
    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError>;
    /// The entries of a folder, sorted by name; none if it does not exist.
    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError>;
    /// Makes the files of repository `name` ready, because a file of repository `from` (empty for
    /// the workspace) names it. Opening it again costs nothing.
    /// The answer tells this content of it, or the folder that it is, from any other.
    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError>;
}
