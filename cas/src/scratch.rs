//! The folder of one process below `$CACHE/scratch`, on the same file system as the blobs.
//!
//! It is made at first use, so that a build with nothing to do makes none, and removed when the
//! store is dropped. Those of dead processes are removed by the next process that makes one:
//! beside each folder stands a file that its owner locks.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::StoreError;
use crate::layout::{Layout, SCRATCH};
use crate::liveness::{Liveness, Owner};
use crate::{clock, remove, scan};

const LOCK_SUFFIX: &str = ".lock";

/// A process's folders: one for whoever asks, one for the temporary files of this crate.
#[derive(Debug)]
pub(crate) struct Scratch {
    alive: Liveness,
    name: String,
    path: PathBuf,
    temps: OwnedFd,
    top: OwnedFd,
    next: AtomicU64,
}

impl Scratch {
    /// Makes the folders; removes those of dead processes first.
    pub(crate) fn create(layout: &Layout) -> Result<Self, StoreError> {
        remove_dead(layout)?;
        let (process, start) = (std::process::id(), clock::now_ns());
        let name = |n: u64| format!("{SCRATCH}/{process}-{start}-{n}{LOCK_SUFFIX}");
        let alive = Liveness::create(layout, name)?;
        let path = alive.name().trim_end_matches(LOCK_SUFFIX).to_owned();
        let name = path.trim_start_matches(SCRATCH).trim_start_matches('/').to_owned();
        layout.make_dir(&path, 0o755)?;
        let work = format!("{path}/work");
        let temps = format!("{path}/temps");
        layout.make_dir(&work, 0o755)?;
        layout.make_dir(&temps, 0o700)?;
        let gone = |path: &str| layout.error(path, rustix::io::Errno::NOENT);
        Ok(Self {
            alive,
            name,
            path: layout.absolute(&work),
            temps: layout.open_dir(&temps)?.ok_or_else(|| gone(&temps))?,
            top: layout.open_dir(SCRATCH)?.ok_or_else(|| gone(SCRATCH))?,
            next: AtomicU64::new(0),
        })
    }

    /// The folder for whoever asks.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty file that nobody else can name.
    pub(crate) fn temp(self: &std::sync::Arc<Self>) -> Result<Temp, StoreError> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.temps, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| StoreError::io(self.temp_path(&name), errno))?;
        Ok(Temp { scratch: self.clone(), name: Some(name), file: File::from(file) })
    }

    /// Makes an empty folder; gives its name and the folder that it is in.
    pub(crate) fn temp_dir(&self) -> Result<(String, OwnedFd), StoreError> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let fail = |errno| StoreError::io(self.temp_path(&name), errno);
        rustix::fs::mkdirat(&self.temps, &name, Mode::RWXU).map_err(fail)?;
        let temps = self.temps.try_clone();
        let temps = temps.map_err(|e| StoreError::io(self.temp_path(&name), e))?;
        Ok((name, temps))
    }

    fn temp_path(&self, name: &str) -> PathBuf {
        self.path.with_file_name("temps").join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next process.
        if let Err(errno) = remove::remove_tree(self.top.as_fd(), OsStr::new(&self.name)) {
            tracing::debug!(folder = %self.path.display(), %errno, "scratch folder stays");
            return;
        }
        let lock = format!("{}{LOCK_SUFFIX}", self.name);
        debug_assert!(self.alive.name().ends_with(&lock));
        // A lock without a folder is removed by the next process.
        let _ = rustix::fs::unlinkat(&self.top, &lock, AtFlags::empty());
    }
}

/// Removes the folders of dead processes.
pub(crate) fn remove_dead(layout: &Layout) -> Result<(), StoreError> {
    let Some(top) = layout.open_dir(SCRATCH)? else { return Ok(()) };
    for entry in scan::names(layout, SCRATCH)? {
        let name = entry.trim_end_matches(LOCK_SUFFIX);
        let lock = format!("{SCRATCH}/{name}{LOCK_SUFFIX}");
        let Owner::Dead(_lock) = Liveness::owner(layout, &lock)? else { continue };
        remove::remove_tree(top.as_fd(), OsStr::new(name))
            .map_err(|errno| layout.error(&format!("{SCRATCH}/{name}"), errno))?;
        layout.unlink(&lock)?;
    }
    Ok(())
}

/// A file in the making; removed when dropped, unless it was moved away.
#[derive(Debug)]
pub(crate) struct Temp {
    scratch: std::sync::Arc<Scratch>,
    name: Option<String>,
    /// Open for reading and writing.
    pub(crate) file: File,
}

impl Temp {
    /// Where it lies, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.temp_path(self.name.as_deref().unwrap_or_default())
    }

    /// Moves the file to its place in the cache.
    pub(crate) fn rename(mut self, layout: &Layout, to: &str) -> Result<(), StoreError> {
        let name = self.name.take().unwrap_or_default();
        let moved = layout.rename_from(self.scratch.temps.as_fd(), name.as_str(), to);
        moved.map_err(|errno| {
            self.name = Some(name.clone());
            layout.error(to, errno)
        })
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What stays goes with the scratch folder.
            let _ = rustix::fs::unlinkat(&self.scratch.temps, name, AtFlags::empty());
        }
    }
}
