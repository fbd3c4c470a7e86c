//! The place where a source is looked for: a folder of this machine, never outside of it.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use maestro_cas::StatSignature;
use maestro_core::host::{FileType, HostError};
use maestro_core::{FailureKind, Node, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::SourceError;
use crate::workspace::facts::file_type;
use crate::workspace::listing::{open_folder, read_listing};
use crate::workspace::mounts::FolderMount;

/// Where a source is looked for.
pub(super) enum Place<'a> {
    Disk(DiskPlace<'a>),
    /// It belongs to a repository that a digest pins.
    Known(Node),
}

/// A path below a folder of this machine.
pub(super) struct DiskPlace<'a> {
    pub(super) root: Root<'a>,
    pub(super) inner: &'a str,
    pub(super) absolute: PathBuf,
}

pub(super) enum Root<'a> {
    Workspace(BorrowedFd<'a>),
    Repository(Arc<FolderMount>),
}

impl DiskPlace<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.root {
            Root::Workspace(fd) => *fd,
            Root::Repository(folder) => folder.fd(),
        }
    }

    /// The path by which facts name it: absolute for files of other repositories.
    pub(super) fn fact_path<'p>(&'p self, path: &'p RelPath) -> &'p str {
        match &self.root {
            Root::Workspace(_) => path.as_str(),
            Root::Repository(_) => self.absolute.to_str().unwrap_or_default(),
        }
    }

    /// The signature of a regular file, or `None` where reading will say what is wrong.
    pub(super) fn stat(&self, path: &RelPath) -> Result<Option<StatSignature>, SourceError> {
        match rustix::fs::statat(self.fd(), self.inner, AtFlags::empty()) {
            Ok(stat) if file_type(&stat) == FileType::File => {
                Ok(Some(StatSignature::of_stat(&stat)))
            }
            Ok(_) => Ok(None),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(None),
            Err(error) => Err(SourceError::Io { path: path.clone(), source: error.into() }),
        }
    }

    /// Finds out, without opening it for reading, whether the path is a file of the workspace.
    pub(super) fn check_kind(&self, path: &RelPath) -> Result<(), SourceError> {
        let path = path.clone();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = rustix::fs::openat2(self.fd(), self.inner, flags, Mode::empty(), resolve);
        let file = match open {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let similar = self.similar(&path);
                return Err(SourceError::Missing { path, similar });
            }
            Err(Errno::XDEV) => return Err(SourceError::LeavesWorkspace { path }),
            Err(Errno::LOOP) => return Err(SourceError::LinkLoop { path }),
            Err(Errno::ACCESS | Errno::PERM) => return Err(SourceError::Permission { path }),
            Err(error) => return Err(SourceError::Io { path, source: error.into() }),
        };
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| SourceError::Io { path: path.clone(), source: error.into() })?;
        match file_type(&stat) {
            FileType::File => Ok(()),
            FileType::Directory => Err(SourceError::Folder { path }),
            FileType::Symlink | FileType::Other => Err(SourceError::NotRegular { path }),
        }
    }

    /// The file of the same folder whose name is most like that of `path`.
    fn similar(&self, path: &RelPath) -> Option<RelPath> {
        const LIKENESS_MIN: f64 = 0.8;
        let parent = path.parent();
        let folder = self.inner.rsplit_once('/').map_or("", |(folder, _)| folder);
        let entries = read_listing(open_folder(self.fd(), folder).ok()?).ok()?;
        let (_, name) = entries
            .into_iter()
            .filter(|entry| entry.valid && entry.file_type != FileType::Directory)
            .filter(|entry| entry.name != path.name())
            .map(|entry| (strsim::jaro_winkler(&entry.name, path.name()), entry.name))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|a, b| a.0.total_cmp(&b.0))?;
        match parent {
            Some(parent) => parent.join(&name).ok(),
            None => RelPath::new(&name).ok(),
        }
    }
}

impl From<HostError> for SourceError {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        match error {
            HostError::Repository { kind, hints, .. } => Self::Repository { message, kind, hints },
            HostError::NoRepository { hints, .. } => {
                Self::Repository { message, kind: FailureKind::Input, hints }
            }
            HostError::Io { .. } | HostError::TooLarge { .. } => {
                Self::Repository { message, kind: FailureKind::Environment, hints: Vec::new() }
            }
        }
    }
}
