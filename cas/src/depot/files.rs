//! The files of a depot: their names, and how they are written.
//!
//! | name | what |
//! |---|---|
//! | `FORMAT` | the format of the folder |
//! | `lock` | held by the owner, and says who that is |
//! | `index/` | the database |
//! | `packs/NUMBER` | packs of small blobs |
//! | `blobs/xx/KEY` | large blobs |
//! | `uploads/NAME` | what has come so far of uploads that did not end |
//! | `temporary/` | files on their way to `blobs/`; emptied when the depot is opened |

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::rows::Key;
use crate::error::StoreError;

pub(super) const FORMAT: &str = "FORMAT";
pub(super) const LOCK: &str = "lock";
pub(super) const INDEX: &str = "index";
pub(super) const PACKS: &str = "packs";
pub(super) const BLOBS: &str = "blobs";
pub(super) const UPLOADS: &str = "uploads";
pub(super) const TEMPORARY: &str = "temporary";

/// A pack's path.
pub(super) fn pack_path(number: u32) -> String {
    format!("{PACKS}/{number:08}")
}

/// A large blob's path. Its name is all that is known of it, so that the folder can be compared
/// with the database.
pub(super) fn blob_path(key: &Key) -> String {
    let digest = key.digest(0);
    let hex = digest.hex();
    format!(
        "{BLOBS}/{:02x}/{}-{}-{hex}",
        key.first_byte(),
        key.space.number(),
        digest.function.name()
    )
}

/// The folder of a depot.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Freed by the kernel when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    pub(super) fn new(root: PathBuf, lock: File) -> Self {
        Self { root, _lock: lock }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn error(&self, path: &str, error: impl Into<io::Error>) -> StoreError {
        StoreError::io(self.absolute(path), error)
    }

    /// Makes a file for reading and writing that was not there before, or empties it.
    pub(super) fn create(&self, path: &str) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.absolute(path)).map_err(|error| self.error(path, error))
    }

    /// Opens a file for reading and writing at its end, or makes it.
    pub(super) fn open_or_create(&self, path: &str) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.absolute(path)).map_err(|error| self.error(path, error))
    }

    /// Opens a file for reading.
    pub(super) fn open(&self, path: &str) -> Result<Option<File>, StoreError> {
        match File::open(self.absolute(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(path, error)),
        }
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.create(path)?.write_all(bytes).map_err(|error| self.error(path, error))
    }

    /// Moves a file, making the folder that it goes to.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let rename = || std::fs::rename(self.absolute(from), self.absolute(to));
        match rename() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = self.absolute(to).parent() {
                    std::fs::create_dir_all(parent).map_err(|error| self.error(to, error))?;
                }
                rename().map_err(|error| self.error(to, error))
            }
            other => other.map_err(|error| self.error(to, error)),
        }
    }

    /// Deletes a file that may be gone already.
    pub(super) fn remove(&self, path: &str) -> Result<(), StoreError> {
        match std::fs::remove_file(self.absolute(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(path, error)),
            _ => Ok(()),
        }
    }

    /// Deletes a file that is of no use; what cannot be deleted goes when the depot is opened.
    pub(super) fn discard(&self, path: &str) {
        if let Err(error) = self.remove(path) {
            tracing::warn!(%error, "a file is left behind");
        }
    }

    /// The names in a folder; none where it does not exist.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let entries = match std::fs::read_dir(self.absolute(path)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error(path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(path, error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }
}
