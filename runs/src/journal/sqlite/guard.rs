//! Who has a journal's file open: all who use it share a lock on a file beside it, and who puts
//! another file in its place has that lock alone.
//!
//! While the place is taken a marker stands beside the file. It outlives a process that dies then,
//! and nobody opens the journal before it is restored again: half of it may be in its place.

use std::fs::File;
use std::path::{Path, PathBuf};

use maestro_executor::storage::StorageError;
use rustix::fs::{FlockOperation, flock};

use crate::journal::JournalError;

/// The right to use a journal's file, or to replace it, until it is dropped.
pub struct Guard {
    _file: File,
    marker: PathBuf,
}

impl Guard {
    /// For those who read and append.
    pub fn shared(journal: &Path) -> Result<Self, JournalError> {
        let place = journal.display().to_string();
        let guard = Self::take(journal, FlockOperation::NonBlockingLockShared)?;
        match guard {
            Some(guard) if !guard.marker.exists() => Ok(guard),
            _ => Err(JournalError::Restoring { place }),
        }
    }

    /// For who replaces it: nobody else has it open.
    pub fn alone(journal: &Path) -> Result<Self, JournalError> {
        let place = journal.display().to_string();
        let guard = Self::take(journal, FlockOperation::NonBlockingLockExclusive)?;
        guard.ok_or(JournalError::InUse { place })
    }

    fn take(journal: &Path, operation: FlockOperation) -> Result<Option<Self>, JournalError> {
        let path = beside(journal, ".lock");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| io("make the folder of", &path, &e))?;
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|e| io("open", &path, &e))?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { _file: file, marker: beside(journal, ".restoring") })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io("lock", &path, &errno.into())),
        }
    }

    /// From here on until [`clear`](Self::clear) the journal is nothing that can be opened.
    pub fn mark(&self) -> Result<(), JournalError> {
        let wrong = |e: std::io::Error| io("write", &self.marker, &e);
        File::create(&self.marker).and_then(|file| file.sync_all()).map_err(wrong)?;
        sync_folder(&self.marker)
    }

    /// The journal is in its place.
    pub fn clear(&self) -> Result<(), JournalError> {
        std::fs::remove_file(&self.marker).map_err(|e| io("remove", &self.marker, &e))?;
        sync_folder(&self.marker)
    }
}

/// The path with more at its end.
pub fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// What was renamed, made or removed in the folder of `path` is on stable storage.
pub fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder).and_then(|file| file.sync_all()).map_err(|e| io("sync", folder, &e))
}

/// An error of the file system.
pub fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> JournalError {
    let (place, why) = (path.display().to_string(), error.to_string());
    StorageError::failed(doing, place, why).into()
}
