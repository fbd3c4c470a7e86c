//! What an evaluation saw of the workspace, so that a later build can tell whether it still would.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use maestro_core::RelPath;
use maestro_core::host::{DirEntry, FileType, Host, HostError};

use super::codec::{Damaged, Reader, Writer};
use super::imprint::Imprint;

/// Which paths of the workspace are not as they were when the memory was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChangedPaths {
    /// Nobody looked: everything that was seen is looked at again.
    #[default]
    Unknown,
    /// These, relative to the workspace: a file whose content or type changed, that came or went,
    /// or a folder whose listing changed. The root is empty.
    These(BTreeSet<String>),
}

/// Changed paths, and the folders whose listings they may show in.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    paths: &'a ChangedPaths,
    folders: HashSet<&'a str>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(paths: &'a ChangedPaths) -> Self {
        let mut folders = HashSet::new();
        if let ChangedPaths::These(paths) = paths {
            for path in paths {
                // A file can hide the folder that it stands in from the listing above.
                let parent = parent(path);
                folders.extend([path.as_str(), parent, self::parent(parent)]);
            }
        }
        Self { paths, folders }
    }

    /// Whether a path may have changed.
    pub(crate) fn may_include(&self, path: &str) -> bool {
        match self.paths {
            ChangedPaths::Unknown => true,
            ChangedPaths::These(paths) => paths.contains(path),
        }
    }

    /// Whether the listing of a folder may have changed.
    pub(crate) fn may_show_in(&self, folder: &str) -> bool {
        *self.paths == ChangedPaths::Unknown || self.folders.contains(folder)
    }

    /// The paths; `None` where they are not known.
    pub(crate) fn paths(&self) -> Option<&'a BTreeSet<String>> {
        match self.paths {
            ChangedPaths::Unknown => None,
            ChangedPaths::These(paths) => Some(paths),
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What was asked about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Stat,
    Read,
    List,
    /// The repository of a path was opened.
    Open,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Relative to the workspace, empty for its root; or the name of a repository.
    path: String,
    asked: Asked,
    /// `None` where the machine had none, which is asked again each time.
    answer: Option<Imprint>,
}

impl Observation {
    /// Whether the answer may have changed.
    pub(crate) fn is_touched(&self, changed: &Changes<'_>) -> bool {
        match self.asked {
            Asked::List => changed.may_show_in(&self.path),
            Asked::Stat | Asked::Read => changed.may_include(&self.path),
            // No change of a file tells that a repository is another one.
            Asked::Open => true,
        }
    }

    /// Whether it is what stands at a path.
    pub(crate) fn is_content_of(&self, path: &str) -> bool {
        matches!(self.asked, Asked::Stat | Asked::Read) && self.path == path
    }

    /// Whether the answer is still the same; only paths that may have changed are asked about.
    pub(crate) fn holds(&self, host: &dyn Host, changed: &Changes<'_>) -> bool {
        if !self.is_touched(changed) {
            return true;
        }
        let Some(answer) = self.answer else { return false };
        let Ok(path) = self.rel_path() else { return false };
        let now = match (self.asked, path) {
            (Asked::List, path) => host.list(path.as_ref()).map(|entries| of_listing(&entries)),
            (Asked::Stat, Some(path)) => host.stat(&path).map(of_stat),
            (Asked::Read, Some(path)) => host.read(&path).map(|bytes| of_read(bytes.as_deref())),
            (Asked::Open, Some(path)) => {
                host.open_repository(path.as_str(), "").map(|identity| of_repository(&identity))
            }
            (Asked::Stat | Asked::Read | Asked::Open, None) => return false,
        };
        now.is_ok_and(|now| now == answer)
    }

    fn rel_path(&self) -> Result<Option<RelPath>, maestro_core::path::PathError> {
        match self.path.as_str() {
            "" => Ok(None),
            path => RelPath::new(path).map(Some),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.text(&self.path);
        let answered = if self.answer.is_some() { 4 } else { 0 };
        writer.byte(answered | self.asked as u8);
        if let Some(answer) = self.answer {
            writer.imprint(answer);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let path = reader.text()?.to_owned();
        let kind = reader.byte()?;
        let asked = match kind & 3 {
            0 => Asked::Stat,
            1 => Asked::Read,
            2 => Asked::List,
            _ => Asked::Open,
        };
        let answer = if kind & 4 == 4 { Some(reader.imprint()?) } else { None };
        Ok(Self { path, asked, answer })
    }
}

fn of_stat(file_type: Option<FileType>) -> Imprint {
    let code = match file_type {
        None => 0,
        Some(FileType::File) => 1,
        Some(FileType::Directory) => 2,
        Some(FileType::Symlink) => 3,
        Some(FileType::Other) => 4,
    };
    Imprint::of(&[code])
}

fn of_read(bytes: Option<&[u8]>) -> Imprint {
    bytes.map_or_else(|| of_stat(None), Imprint::of)
}

fn of_listing(entries: &[DirEntry]) -> Imprint {
    let mut writer = Writer::default();
    for entry in entries {
        writer.text(&entry.name);
        writer.flag(entry.valid);
        writer.imprint(of_stat(Some(entry.file_type)));
    }
    Imprint::of(&writer.bytes)
}

fn of_repository(identity: &str) -> Imprint {
    Imprint::of(identity.as_bytes())
}

/// A [`Host`] that notes every answer.
pub(crate) struct Tracer<'h> {
    host: &'h dyn Host,
    seen: Mutex<BTreeMap<(String, Asked), Option<Imprint>>>,
}

impl<'h> Tracer<'h> {
    pub(crate) fn new(host: &'h dyn Host) -> Self {
        Self { host, seen: Mutex::default() }
    }

    /// Everything that was asked, sorted by path.
    pub(crate) fn finish(self) -> Vec<Observation> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let observation = |((path, asked), answer)| Observation { path, asked, answer };
        seen.into_iter().map(observation).collect()
    }

    fn note<T>(
        &self,
        path: &str,
        asked: Asked,
        answer: &Result<T, HostError>,
        print: impl FnOnce(&T) -> Imprint,
    ) {
        let answer = answer.as_ref().ok().map(print);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((path.to_owned(), asked), answer);
    }
}

impl Host for Tracer<'_> {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        let answer = self.host.stat(path);
        self.note(path.as_str(), Asked::Stat, &answer, |file_type| of_stat(*file_type));
        answer
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        let answer = self.host.read(path);
        self.note(path.as_str(), Asked::Read, &answer, |bytes| of_read(bytes.as_deref()));
        answer
    }

    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        let answer = self.host.list(dir);
        let path = dir.map_or("", RelPath::as_str);
        self.note(path, Asked::List, &answer, |entries| of_listing(entries));
        answer
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        let answer = self.host.open_repository(name, from);
        self.note(name, Asked::Open, &answer, |identity| of_repository(identity));
        answer
    }
}
