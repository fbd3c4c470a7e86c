//! The store as a value: what it is made of, and how it is opened and closed.
//!
//! | where | what | written by |
//! |---|---|---|
//! | `FORMAT` | the format's name | whoever comes first |
//! | `cas/xx/HASH`, `cas/xx/HASH.x` | blobs, mode 0444, 0555; `cas-sha256/` for SHA-256 | anyone |
//! | `ac/xx/KEY` | results, with a checksum; `ac-sha256/` for SHA-256 keys | anyone |
//! | `trees/xx/HASH/` | trees of hard links to blobs | anyone |
//! | `scratch/<process>/` | temporary files, gone with their process | its process |
//! | `epochs/`, `leases/` | locked files of living processes | their processes |
//! | `log/` | segments of access logs | anyone; removed by maintenance |
//! | `index/` | RocksDB, derived | maintenance, under `maintenance.lock` |
//! | `quarantine/`, `suspect/`, `trash/` | damaged, unchecked, about to go | anyone; maintenance |
//!
//! Invariants:
//! 1. A file below `cas/` got there by one rename, with its whole content, its mode and the
//!    constant modification time. Whoever writes to one in place betrays that by the time stamp;
//!    such a blob is hashed before it is used again.
//! 2. A result is written after the blobs that it names, and removed before them.
//! 3. Nothing relies on the index.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_core::{Digest, DigestFunction};

use crate::access_log::{AccessLog, Record};
use crate::clock;
use crate::epoch::{self, Epochs};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::scratch::{Scratch, Temp};
use crate::tree::DirectoryCache;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache folder; made where it is missing.
    pub root: PathBuf,
    /// The function of digests that the store computes. Blobs of the other are served as well.
    pub function: DigestFunction,
}

/// Bounds of the file system and of patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hard links of one inode; at the bound the store's own file is replaced by a copy.
    /// Ext4 has 65,000. What the file system refuses earlier is met in the same way.
    pub links_max: u64,
    /// Attempts at reading a source that changes under the reader.
    pub source_attempts_max: u32,
    /// Milliseconds that maintenance waits for other maintenance.
    pub maintenance_wait_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { links_max: 64_000, source_attempts_max: 5, maintenance_wait_ms: 30_000 }
    }
}

/// Blobs and action results on disk. Cheap to clone; all methods take `&self` and block.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) function: DigestFunction,
    pub(crate) limits: Limits,
    pub(crate) epochs: Epochs,
    pub(crate) log: AccessLog,
    pub(crate) directories: DirectoryCache,
    /// What was accessed before this is accessed anew when it is used: see [`crate::lease`].
    pub(crate) touch_floor_ns: AtomicI64,
    /// Whether there are blobs that must be hashed before use.
    pub(crate) has_suspects: bool,
    scratch: Mutex<Option<Arc<Scratch>>>,
}

impl Store {
    /// Opens the store; makes its folders where they are missing, and sets suspects of an unclean
    /// stop apart. Opens no database.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(options, Limits::default())
    }

    /// Opens the store with other bounds than the default ones.
    pub fn open_with(options: StoreOptions, limits: Limits) -> Result<Self, StoreError> {
        let StoreOptions { root, function } = options;
        let layout = Layout::open(&root)?;
        let has_suspects = epoch::recover(&layout)?;
        Ok(Self { inner: Arc::new(Inner::new(layout, function, limits, has_suspects)) })
    }

    /// Another store on the same folder, for maintenance: what it reads does not count as used.
    pub(crate) fn observer(&self) -> Result<Self, StoreError> {
        let Inner { function, limits, has_suspects, .. } = *self.inner.as_ref();
        let layout = Layout::open(self.root())?;
        let inner = Inner::new(layout, function, limits, has_suspects);
        inner.touch_floor_ns.store(i64::MIN, Ordering::SeqCst);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    /// The function of digests that the store computes.
    pub fn function(&self) -> DigestFunction {
        self.inner.function
    }

    /// A folder of this process on the file system of the blobs, removed when the last clone of
    /// the store is dropped. One that cannot be made is named all the same, so that the first use
    /// of it fails with its path.
    pub fn scratch_dir(&self) -> PathBuf {
        match self.inner.scratch() {
            Ok(scratch) => scratch.path().to_owned(),
            Err(error) => {
                tracing::warn!(%error, "no scratch folder");
                self.inner.layout.absolute(crate::layout::SCRATCH).join("missing")
            }
        }
    }
}

impl Inner {
    fn new(layout: Layout, function: DigestFunction, limits: Limits, has_suspects: bool) -> Self {
        Self {
            layout,
            function,
            limits,
            epochs: Epochs::default(),
            log: AccessLog::default(),
            directories: DirectoryCache::default(),
            touch_floor_ns: AtomicI64::new(clock::now_ns()),
            has_suspects,
            scratch: Mutex::new(None),
        }
    }

    pub(crate) fn scratch(&self) -> Result<Arc<Scratch>, StoreError> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        match &*scratch {
            Some(scratch) => Ok(scratch.clone()),
            None => {
                let made = Arc::new(Scratch::create(&self.layout)?);
                *scratch = Some(made.clone());
                Ok(made)
            }
        }
    }

    pub(crate) fn temp(&self) -> Result<Temp, StoreError> {
        self.scratch()?.temp()
    }

    pub(crate) fn note_blob(&self, digest: &Digest) {
        let record = Record::Blob { digest: *digest, at_ns: clock::now_ns() };
        self.log.note(&self.layout, record);
    }

    pub(crate) fn note_result(&self, key: &Digest) {
        let record = Record::Result { key: *key, at_ns: clock::now_ns() };
        self.log.note(&self.layout, record);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.log.flush(&self.layout);
    }
}
