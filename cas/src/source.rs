//! Sources: how a file of the user's becomes a blob, and how a change of it is noticed.
//!
//! A source is copied into the store once, and what is hashed is what was copied: a write that
//! races with the copy can give a blob of an odd content, never a blob of a wrong name. The
//! status is taken before and after, so that such a copy is not taken for the file's state; it
//! includes the change time, which a writer cannot put back as it can the modification time.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use maestro_core::{Digest, limits};
use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use crate::blob::{self, FromStart};
use crate::clock;
use crate::error::StoreError;
use crate::layout::Form;
use crate::store::{Inner, Store};

/// Files up to this size are read into memory, and written only where they are new, in bytes.
const SMALL_BYTES_MAX: u64 = 1024 * 1024;

/// What of a file's status tells that its content may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatSignature {
    /// The file system.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u32,
    /// The modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The change time in nanoseconds since 1970; no program can set it.
    pub ctime_ns: i64,
}

impl StatSignature {
    /// The signature of a file by the standard library's status.
    pub fn of(metadata: &Metadata) -> Self {
        let join =
            |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            mtime_ns: join(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: join(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The signature of a file by the system call's status.
    pub fn of_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            mode: stat.st_mode,
            mtime_ns: clock::modified_ns(stat),
            ctime_ns: clock::changed_ns(stat),
        }
    }

    /// Whether the file may have changed after `hashed_at_ns` without another signature: its
    /// time stamps are too close to the hash, or lie after it.
    pub fn is_racy(&self, hashed_at_ns: i64) -> bool {
        let window_ns = limits::RACY_WINDOW_MS as i64 * 1_000_000;
        self.mtime_ns.max(self.ctime_ns).saturating_add(window_ns) > hashed_at_ns
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    /// The owner's execute bit.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }
}

/// A source that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// The content.
    pub digest: Digest,
    /// The owner's execute bit.
    pub executable: bool,
    /// The file's status, which is the same before and after the reading.
    pub signature: StatSignature,
}

impl Store {
    /// Copies a source into the store. A link is followed. Whoever keeps the signature keeps the
    /// time before this call with it, for [`StatSignature::is_racy`].
    pub fn ingest_source(&self, path: &Path) -> Result<Ingested, StoreError> {
        self.read_source(path, |file, before| self.inner.ingest(file, before, path))
    }

    /// Hashes a source as [`Store::ingest_source`] does, and leaves it where it is.
    pub fn hash_source(&self, path: &Path) -> Result<Ingested, StoreError> {
        self.read_source(path, |file, before| {
            let digest = blob::hash_file(self.inner.function, file, path)?;
            Ok((digest.size == before.size).then_some(digest))
        })
    }

    /// Reads a source until it is the same before and after.
    fn read_source(
        &self,
        path: &Path,
        read: impl Fn(&File, &StatSignature) -> Result<Option<Digest>, StoreError>,
    ) -> Result<Ingested, StoreError> {
        for _ in 0..self.inner.limits.source_attempts_max {
            let file = open_source(path)?;
            let before = signature(&file, path)?;
            if !before.is_file() {
                return Err(StoreError::NotAFile { path: path.to_owned() });
            }
            if let Some(digest) = read(&file, &before)?
                && signature(&file, path)? == before
            {
                let executable = before.is_executable();
                return Ok(Ingested { digest, executable, signature: before });
            }
        }
        Err(StoreError::SourceChanging { path: path.to_owned() })
    }
}

impl Inner {
    /// Stores what a file holds now; `None` where its length is not that of the signature.
    fn ingest(
        &self,
        file: &File,
        before: &StatSignature,
        path: &Path,
    ) -> Result<Option<Digest>, StoreError> {
        let source = FromStart { file, offset: 0 };
        if before.size <= SMALL_BYTES_MAX {
            let mut bytes = Vec::with_capacity(before.size as usize + 1);
            let mut limited = std::io::Read::take(source, SMALL_BYTES_MAX + 1);
            std::io::Read::read_to_end(&mut limited, &mut bytes)
                .map_err(|e| StoreError::io(path, e))?;
            if bytes.len() as u64 != before.size {
                return Ok(None);
            }
            return self.put(&bytes).map(Some);
        }
        let _writing = self.epochs.enter(&self.layout)?;
        let mut temp = self.temp()?;
        let is_clone = rustix::fs::ioctl_ficlone(&temp.file, file).is_ok();
        let digest = if is_clone {
            blob::hash_file(self.function, &temp.file, path)?
        } else {
            blob::copy_and_hash(self.function, source, &mut temp, path)?
        };
        if digest.size != before.size {
            return Ok(None);
        }
        if self.find(&digest, Form::Plain)?.is_none() {
            self.publish(temp, &digest, Form::Plain)?;
        }
        Ok(Some(digest))
    }
}

fn open_source(path: &Path) -> Result<File, StoreError> {
    // Opening a pipe without a writer would wait for one.
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags as i32).open(path);
    opened.map_err(|error| {
        // A socket cannot be opened at all.
        if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
            StoreError::NotAFile { path: path.to_owned() }
        } else {
            StoreError::io(path, error)
        }
    })
}

fn signature(file: &File, path: &Path) -> Result<StatSignature, StoreError> {
    let stat = rustix::fs::fstat(file).map_err(|e| StoreError::io(path, e))?;
    Ok(StatSignature::of_stat(&stat))
}

#[cfg(test)]
mod tests;
