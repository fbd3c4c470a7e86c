//! Opening a depot: claiming it, reading what is known, and setting right what a stop left behind.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::database::{Batch, Database};
use super::files::pack_path;
use super::files::{BLOBS, FORMAT, Folder, INDEX, LOCK, PACKS, TEMPORARY, UPLOADS, blob_path};
use super::index::{Entry, Index, Place, now_ms};
use super::packs::Packs;
use super::results::result_bytes;
use super::rows::{Item, Key, SealRow};
use super::{Content, Depot, DepotOptions};
use crate::error::StoreError;

/// The format of the folder.
const FORMAT_NAME: &str = "maestro-depot-1";
/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1024 * 1024;
/// What is read of the lock file at most.
const OWNER_BYTES_MAX: u64 = 1024;

pub(super) fn open(options: DepotOptions) -> Result<Depot, StoreError> {
    let DepotOptions { root, bytes_max, owner } = options;
    let folder = claim(&root, &owner)?;
    let database = Database::open(folder.absolute(INDEX))?;
    let mut depot = Depot {
        folder,
        bytes_max,
        database,
        index: Index::default(),
        packs: Packs::default(),
        spaces: RwLock::new(BTreeMap::new()),
        ledger: RwLock::new(()),
        evicting: Mutex::new(()),
        epoch: AtomicU32::new(0),
        bytes: AtomicU64::new(0),
        serial: AtomicU64::new(0),
    };
    depot.find_packs()?;
    let unsealed = depot.load()?;
    depot.remove_damaged(&unsealed)?;
    depot.remove_orphans()?;
    depot.evict_if_full()?;
    Ok(depot)
}

/// Locks the folder, and checks its format.
fn claim(root: &Path, owner: &str) -> Result<Folder, StoreError> {
    for folder in [PACKS, BLOBS, UPLOADS, TEMPORARY] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).map_err(|error| StoreError::io(&path, error))?;
    }
    let path = root.join(LOCK);
    let fail = |error| StoreError::io(&path, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock = options.open(&path).map_err(fail)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            lock.take(OWNER_BYTES_MAX).read_to_string(&mut owner).map_err(fail)?;
            return Err(StoreError::Held { path, owner });
        }
        Err(errno) => return Err(StoreError::io(&path, errno)),
    }
    lock.set_len(0).and_then(|()| lock.write_all(owner.as_bytes())).map_err(fail)?;
    let format = root.join(FORMAT);
    match std::fs::read_to_string(&format) {
        Ok(found) if found.trim() == FORMAT_NAME => {}
        Ok(found) => {
            let found = found.trim().to_owned();
            return Err(StoreError::Format { path: format, found, expected: FORMAT_NAME });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&format, format!("{FORMAT_NAME}\n"))
                .map_err(|error| StoreError::io(&format, error))?;
        }
        Err(error) => return Err(StoreError::io(&format, error)),
    }
    Ok(Folder::new(root.to_owned(), lock))
}

/// Tells one start of the machine from another.
pub(super) fn boot_id() -> String {
    // Where it cannot be read, no two starts are the same, and more is hashed than needed.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown-{}", now_ms()), |id| id.trim().to_owned())
}

impl Depot {
    fn find_packs(&mut self) -> Result<(), StoreError> {
        for name in self.folder.list(PACKS)? {
            let Ok(number) = name.parse::<u32>() else { continue };
            let path = pack_path(number);
            let file = self.folder.open_or_create(&path)?;
            let length = file.metadata().map_err(|error| self.folder.error(&path, error))?.len();
            self.packs.found(number, file, length);
        }
        Ok(())
    }

    /// Reads the database into the index; gives the blobs that may not be on the disk whole.
    fn load(&mut self) -> Result<Vec<Key>, StoreError> {
        let seal = self.database.seal()?.unwrap_or_default();
        let (boot, sealed) = (boot_id(), seal.sealed);
        let torn = seal.boot != boot;
        let mut uses = HashMap::new();
        self.database.each_use(|item, ms| {
            uses.insert(item, ms);
            Ok(())
        })?;
        let now = now_ms();
        let used = |item: &Item| uses.get(item).copied().unwrap_or(now);
        let (mut unsealed, mut last) = (Vec::new(), sealed);
        self.database.each_blob(|key, row| {
            last = last.max(row.epoch);
            if torn && row.epoch > sealed {
                unsealed.push(key);
            }
            let place = Place::of_row(&row.place);
            self.insert(key, Entry::used_at(row.size, place, used(&Item::Blob(key))));
            Ok(())
        })?;
        self.database.each_result(|key, row| {
            let bytes = result_bytes(row.bytes.len(), row.names.len());
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.index.insert_result(key, bytes, Some(used(&Item::Result(key))));
            Ok(())
        })?;
        let mut spaces = BTreeMap::new();
        self.database.each_space(|name, space| {
            spaces.insert(name, space);
            Ok(())
        })?;
        self.spaces = RwLock::new(spaces);
        self.epoch.store(last + 1, Ordering::Relaxed);
        let mut batch = Batch::default();
        self.database.put_seal(&mut batch, &SealRow { boot, sealed })?;
        self.database.write(batch)?;
        Ok(unsealed)
    }

    /// Hashes what a stop of the machine may have torn, and removes what is not what it should be.
    fn remove_damaged(&self, unsealed: &[Key]) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for key in unsealed {
            let Some(entry) = self.index.get(key) else { continue };
            let digest = key.digest(entry.size);
            let whole = match self.content(key.space, &digest) {
                Ok(content) => self.is_whole(&content, &digest),
                Err(StoreError::Missing { .. }) => false,
                Err(error) => return Err(error),
            };
            if !whole {
                tracing::warn!(%digest, "a blob did not survive the stop of the machine");
                gone.push(Item::Blob(*key));
            }
        }
        if gone.is_empty() { Ok(()) } else { self.remove_all(&gone) }
    }

    fn is_whole(&self, content: &Content, digest: &maestro_core::Digest) -> bool {
        let mut hasher = digest.function.hasher();
        let mut offset = 0;
        while offset < digest.size {
            let Ok(bytes) = content.read(self, offset, HASH_BYTES) else { return false };
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        hasher.finish() == *digest
    }

    /// Removes files that no row names, and rows whose file is gone.
    fn remove_orphans(&self) -> Result<(), StoreError> {
        for name in self.folder.list(TEMPORARY)? {
            self.folder.remove(&format!("{TEMPORARY}/{name}"))?;
        }
        let mut wanted: HashMap<String, Key> =
            self.index.files().into_iter().map(|key| (blob_path(&key), key)).collect();
        for folder in self.folder.list(BLOBS)? {
            for name in self.folder.list(&format!("{BLOBS}/{folder}"))? {
                let path = format!("{BLOBS}/{folder}/{name}");
                if wanted.remove(&path).is_none() {
                    self.folder.remove(&path)?;
                }
            }
        }
        let mut gone: Vec<Item> = wanted.into_values().map(Item::Blob).collect();
        gone.extend(self.outside_of_packs()?);
        if gone.is_empty() { Ok(()) } else { self.remove_all(&gone) }
    }

    /// Blobs of packs that do not exist, or are shorter than they should be.
    fn outside_of_packs(&self) -> Result<Vec<Item>, StoreError> {
        let mut lengths: HashMap<u32, u64> = HashMap::new();
        for name in self.folder.list(PACKS)? {
            if let Ok(number) = name.parse::<u32>()
                && let Some(pack) = self.packs.get(number)
            {
                let metadata = pack.file.metadata();
                let length = metadata.map_err(|error| self.folder.error(&name, error))?.len();
                lengths.insert(number, length);
            }
        }
        let mut gone = Vec::new();
        self.database.each_blob(|key, row| {
            if let Place::Packed(place) = Place::of_row(&row.place) {
                let length = lengths.get(&place.pack).copied().unwrap_or(0);
                if u64::from(place.offset) + row.size > length {
                    gone.push(Item::Blob(key));
                }
            }
            Ok(())
        })?;
        Ok(gone)
    }
}
