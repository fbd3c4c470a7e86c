//! The store of a server: many small blobs in packs, large ones as files, and an index of all.
//!
//! Not the cache of a machine (see [`crate::store`]): a depot has one owner, a server that many
//! clients ask over the network, and nothing in it is linked into sandboxes. It knows nothing of
//! the wire; what a result names is told by who stores it.
//!
//! A depot is divided into *spaces*, one for each instance name. A space sees nothing of another.
//!
//! Invariants:
//! - What is in the index has the bytes that its digest says: everything is hashed before it gets
//!   there, and hashed again where the machine stopped before it was on the disk.
//! - A result is there only with all that it names. Both go in one transaction: see [`evict`].
//! - What was acknowledged survives the end of the process at any point. What a stop of the machine
//!   takes away reads as missing.
//!
//! `docs/design/server-store.md` has the format, the measurements and what was rejected.

mod chunks;
mod content;
mod database;
mod evict;
mod files;
mod index;
mod maintain;
mod open;
mod packs;
mod results;
mod rows;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use maestro_core::{Digest, limits};

use crate::error::StoreError;
use database::{Batch, Database};
use files::Folder;
use index::{Entry, Index, Place};
use packs::Packs;
use rows::{BlobRow, Key};

pub use content::Content;
pub use rows::Space;
pub use uploads::Upload;

/// How a depot is kept.
#[derive(Clone, Debug)]
pub struct DepotOptions {
    /// Its folder.
    pub root: PathBuf,
    /// Above so many bytes of blobs and results, those that were not used for longest go.
    pub bytes_max: u64,
    /// Who opens it, in words, for others that try.
    pub owner: String,
}

/// What lies in a depot, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepotStats {
    /// Blobs of all kinds.
    pub blobs: u64,
    /// Action results.
    pub results: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// An open depot. All calls may block on the disk; any number of threads may call.
pub struct Depot {
    folder: Folder,
    bytes_max: u64,
    database: Database,
    index: Index,
    packs: Packs,
    /// Names of spaces and their numbers.
    spaces: RwLock<std::collections::BTreeMap<String, Space>>,
    /// Held shared by who adds, exclusively by who removes, moves or seals.
    ledger: RwLock<()>,
    /// Held by who looks for what may go.
    evicting: Mutex<()>,
    /// The epoch of what is written now; see [`maintain`].
    epoch: AtomicU32,
    /// Bytes of blobs and results.
    bytes: AtomicU64,
    /// Names of temporary files.
    serial: AtomicU64,
}

impl Depot {
    /// Opens a depot, or makes one.
    ///
    /// Fails with [`StoreError::Held`] where another process has it open.
    pub fn open(options: DepotOptions) -> Result<Self, StoreError> {
        open::open(options)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// What lies in it.
    pub fn stats(&self) -> DepotStats {
        let (blobs, results) = self.index.lengths();
        DepotStats { blobs, results, bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// The space of that name, if anything was ever stored in it.
    pub fn space(&self, name: &str) -> Option<Space> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// The space of that name; it is made where there is none.
    pub fn make_space(&self, name: &str) -> Result<Space, StoreError> {
        if let Some(space) = self.space(name) {
            return Ok(space);
        }
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(name) {
            return Ok(*space);
        }
        let limit = limits::INSTANCES_MAX;
        if spaces.len() >= limit {
            let what = "set of instance names";
            return Err(StoreError::TooLarge { what, size: limit as u64 + 1, limit: limit as u64 });
        }
        let space = Space::nth(spaces.len());
        let mut batch = Batch::default();
        self.database.put_space(&mut batch, name, space)?;
        self.database.write(batch)?;
        spaces.insert(name.to_owned(), space);
        Ok(space)
    }

    /// Whether a blob is there. It counts as used.
    pub fn has(&self, space: Space, digest: &Digest) -> bool {
        is_empty(digest) || self.index.touch(&Key::of(space, digest), digest.size)
    }

    /// Whether a blob is there, without any effect on how long it stays.
    pub fn holds(&self, space: Space, digest: &Digest) -> bool {
        let held = |entry: &Entry| entry.size == digest.size;
        is_empty(digest) || self.index.get(&Key::of(space, digest)).is_some_and(|e| held(&e))
    }

    /// Opens a blob for reading. What is open can be read to its end, though it is removed
    /// meanwhile; only a blob that is kept as chunks may end early, with [`StoreError::Missing`].
    pub fn content(&self, space: Space, digest: &Digest) -> Result<Content, StoreError> {
        if is_empty(digest) {
            return Ok(Content::empty());
        }
        content::open(self, space, digest)
    }

    /// Stores blobs that are in memory. The caller has hashed them.
    pub fn put(&self, space: Space, blobs: &[(Digest, &[u8])]) -> Result<(), StoreError> {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (digest, bytes) in blobs {
            let fits = bytes.len() as u64 == digest.size;
            debug_assert!(fits, "`{digest}` was hashed by the caller");
            if self.has(space, digest) {
                continue;
            }
            let list =
                if bytes.len() <= limits::PACKED_BLOB_BYTES_MAX { &mut small } else { &mut large };
            list.push((*digest, *bytes));
        }
        self.put_packed(space, &small)?;
        for (digest, bytes) in large {
            let path = self.temporary();
            self.folder.write(&path, bytes).inspect_err(|_| self.folder.discard(&path))?;
            self.adopt(space, &digest, &path)?;
        }
        self.evict_if_full()
    }

    fn put_packed(&self, space: Space, blobs: &[(Digest, &[u8])]) -> Result<(), StoreError> {
        if blobs.is_empty() {
            return Ok(());
        }
        let shared = self.shared();
        let parts: Vec<&[u8]> = blobs.iter().map(|(_, bytes)| *bytes).collect();
        let places = self.packs.append(&self.folder, &parts)?;
        let mut batch = Batch::default();
        let mut entries = Vec::with_capacity(blobs.len());
        for ((digest, _), place) in blobs.iter().zip(places) {
            let key = Key::of(space, digest);
            let place = Place::Packed(place);
            let row = self.row(digest.size, &place);
            self.database.put_blob(&mut batch, &key, &row)?;
            entries.push((key, Entry::new(digest.size, place)));
        }
        self.database.write(batch)?;
        for (key, entry) in entries {
            self.insert(key, entry);
        }
        drop(shared);
        Ok(())
    }

    /// Takes a file over as the content of a blob. The caller has hashed it.
    fn adopt(&self, space: Space, digest: &Digest, path: &str) -> Result<(), StoreError> {
        let shared = self.shared();
        let key = Key::of(space, digest);
        if self.index.touch(&key, digest.size) {
            self.folder.discard(path);
            return Ok(());
        }
        let file = files::blob_path(&key);
        self.folder.rename(path, &file)?;
        let mut batch = Batch::default();
        self.database.put_blob(&mut batch, &key, &self.row(digest.size, &Place::File))?;
        self.database.write(batch)?;
        self.insert(key, Entry::new(digest.size, Place::File));
        drop(shared);
        Ok(())
    }

    /// Adds to the index and to the sums.
    fn insert(&self, key: Key, entry: Entry) {
        self.bytes.fetch_add(entry.place.bytes(entry.size), Ordering::Relaxed);
        self.packs.count(&entry, 1);
        if let Some(old) = self.index.insert(key, entry) {
            self.forget(&old);
        }
    }

    /// Takes what left the index out of the sums.
    fn forget(&self, entry: &Entry) {
        self.bytes.fetch_sub(entry.place.bytes(entry.size), Ordering::Relaxed);
        self.packs.count(entry, -1);
    }

    fn row(&self, size: u64, place: &Place) -> BlobRow {
        BlobRow { size, place: place.row(), epoch: self.epoch.load(Ordering::Relaxed) }
    }

    fn temporary(&self) -> String {
        format!("{}/{}", files::TEMPORARY, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a digest is that of no bytes, which are always there.
fn is_empty(digest: &Digest) -> bool {
    digest.size == 0 && digest.function.digest(b"") == *digest
}

#[cfg(test)]
mod tests;
