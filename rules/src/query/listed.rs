//! The workspace as a query sees it: where many files of a folder are asked for, the folder is
//! listed once.
//!
//! An evaluation for a build must not do so: a listing is more than it needs to know, and would
//! have to be looked at again whenever any file of the folder comes or goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use maestro_core::RelPath;
use maestro_core::host::{DirEntry, FileType, Host, HostError};

/// From how many questions about files of one folder on it is listed.
const QUESTIONS: u32 = 8;

/// See the module.
pub(super) struct Listed<'h> {
    host: &'h dyn Host,
    folders: Mutex<HashMap<String, Folder>>,
}

/// What was asked of a folder, and what is in it.
#[derive(Default)]
struct Folder {
    questions: u32,
    files: Option<HashSet<Box<str>>>,
}

impl<'h> Listed<'h> {
    pub(super) fn new(host: &'h dyn Host) -> Self {
        Self { host, folders: Mutex::default() }
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<String, Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a regular file is known to stand at a path.
    fn is_known_file(&self, path: &RelPath) -> bool {
        let (folder, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let mut folders = self.folders();
        if !folders.contains_key(folder) {
            folders.insert(folder.to_owned(), Folder::default());
        }
        let Some(known) = folders.get_mut(folder) else { return false };
        if let Some(files) = &known.files {
            return files.contains(name);
        }
        known.questions += 1;
        if known.questions < QUESTIONS {
            return false;
        }
        drop(folders);
        // An error is told by whoever asks for the file itself.
        self.list(path.parent().as_ref())
            .is_ok_and(|entries| entries.iter().any(|entry| is_file(entry) && entry.name == name))
    }
}

fn is_file(entry: &DirEntry) -> bool {
    entry.valid && entry.file_type == FileType::File
}

impl Host for Listed<'_> {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        match self.is_known_file(path) {
            true => Ok(Some(FileType::File)),
            false => self.host.stat(path),
        }
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        self.host.read(path)
    }

    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        let entries = self.host.list(dir)?;
        let files = entries.iter().filter(|entry| is_file(entry));
        let files = files.map(|entry| entry.name.as_str().into()).collect();
        let folder = dir.map_or("", RelPath::as_str).to_owned();
        self.folders().entry(folder).or_default().files = Some(files);
        Ok(entries)
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        self.host.open_repository(name, from)
    }
}
