//! The index in memory: where each blob is, how large, and when it was last used.
//!
//! It is divided by the first byte of the hash, so that threads rarely wait for each other. About
//! 120 bytes a blob.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::packs::Packed;
use super::rows::{Item, Key, PlaceRow};
use crate::clock;

/// How many parts there are; a power of two.
const PARTS: usize = 64;

/// Where the bytes of a blob are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Packed(Packed),
    File,
    Slice(Box<(Key, u64)>),
    Chunked,
}

impl Place {
    pub(super) fn row(&self) -> PlaceRow {
        match self {
            Self::Packed(Packed { pack, offset }) => {
                PlaceRow::Packed { pack: *pack, offset: *offset }
            }
            Self::File => PlaceRow::File,
            Self::Slice(slice) => PlaceRow::Slice { of: slice.0, offset: slice.1 },
            Self::Chunked => PlaceRow::Chunked,
        }
    }

    pub(super) fn of_row(row: &PlaceRow) -> Self {
        match row {
            PlaceRow::Packed { pack, offset } => {
                Self::Packed(Packed { pack: *pack, offset: *offset })
            }
            PlaceRow::File => Self::File,
            PlaceRow::Slice { of, offset } => Self::Slice(Box::new((*of, *offset))),
            PlaceRow::Chunked => Self::Chunked,
        }
    }

    /// What a blob of that size takes for itself.
    pub(super) fn bytes(&self, size: u64) -> u64 {
        match self {
            Self::Packed(_) | Self::File => size + ROW_BYTES,
            Self::Slice(_) | Self::Chunked => ROW_BYTES,
        }
    }
}

/// What the rows of a blob or result take, roughly.
pub(super) const ROW_BYTES: u64 = 128;

/// A blob.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) place: Place,
    used: Used,
}

impl Entry {
    pub(super) fn new(size: u64, place: Place) -> Self {
        Self { size, place, used: Used::now() }
    }

    pub(super) fn used_at(size: u64, place: Place, ms: u64) -> Self {
        Self { size, place, used: Used::at(ms) }
    }

    pub(super) fn used_ms(&self) -> u64 {
        self.used.ms.load(Ordering::Relaxed)
    }
}

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self { size: self.size, place: self.place.clone(), used: Used::at(self.used_ms()) }
    }
}

/// The last use, and whether the database knows of it.
#[derive(Debug)]
struct Used {
    ms: AtomicU64,
    noted: AtomicBool,
}

impl Used {
    fn now() -> Self {
        Self { ms: AtomicU64::new(now_ms()), noted: AtomicBool::new(false) }
    }

    fn at(ms: u64) -> Self {
        Self { ms: AtomicU64::new(ms), noted: AtomicBool::new(true) }
    }

    fn touch(&self, now: u64) {
        if self.ms.swap(now, Ordering::Relaxed) != now {
            self.noted.store(false, Ordering::Relaxed);
        }
    }
}

/// A result.
#[derive(Debug)]
struct ResultEntry {
    bytes: u64,
    used: Used,
}

#[derive(Default)]
struct Part {
    blobs: HashMap<Key, Entry>,
    results: HashMap<Key, ResultEntry>,
}

/// Everything that may go, as eviction sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) item: Item,
    pub(super) used_ms: u64,
    pub(super) bytes: u64,
}

/// The index.
pub(super) struct Index {
    parts: Vec<RwLock<Part>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| RwLock::default()).collect() }
    }
}

impl Index {
    fn part(&self, key: &Key) -> &RwLock<Part> {
        let at = usize::from(key.first_byte()) % PARTS;
        self.parts.get(at).expect("there are PARTS parts")
    }

    fn read<T>(&self, key: &Key, look: impl FnOnce(&Part) -> T) -> T {
        look(&self.part(key).read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, key: &Key, change: impl FnOnce(&mut Part) -> T) -> T {
        change(&mut self.part(key).write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.read(key, |part| part.blobs.get(key).cloned())
    }

    /// Whether a blob of that size is there; it counts as used.
    pub(super) fn touch(&self, key: &Key, size: u64) -> bool {
        let now = now_ms();
        self.read(key, |part| {
            let entry = part.blobs.get(key).filter(|entry| entry.size == size);
            entry.inspect(|entry| entry.used.touch(now)).is_some()
        })
    }

    pub(super) fn insert(&self, key: Key, entry: Entry) -> Option<Entry> {
        self.write(&key, |part| part.blobs.insert(key, entry))
    }

    pub(super) fn remove(&self, key: &Key) -> Option<Entry> {
        self.write(key, |part| part.blobs.remove(key))
    }

    /// Moves a blob to another place; its use stays.
    pub(super) fn relocate(&self, key: &Key, place: Place) {
        self.write(key, |part| {
            if let Some(entry) = part.blobs.get_mut(key) {
                entry.place = place;
            }
        });
    }

    /// Whether a result is there; it counts as used.
    pub(super) fn touch_result(&self, key: &Key) -> bool {
        let now = now_ms();
        self.read(key, |part| {
            part.results.get(key).inspect(|entry| entry.used.touch(now)).is_some()
        })
    }

    /// Adds a result of that many bytes; gives the bytes of the one that it replaces.
    pub(super) fn insert_result(&self, key: Key, bytes: u64, used_ms: Option<u64>) -> Option<u64> {
        let used = used_ms.map_or_else(Used::now, Used::at);
        let old = self.write(&key, |part| part.results.insert(key, ResultEntry { bytes, used }));
        old.map(|old| old.bytes)
    }

    pub(super) fn remove_result(&self, key: &Key) -> Option<u64> {
        self.write(key, |part| part.results.remove(key)).map(|entry| entry.bytes)
    }

    /// When something was last used, if it is there.
    pub(super) fn used_ms(&self, item: &Item) -> Option<u64> {
        self.read(item.key(), |part| {
            let used = match item {
                Item::Blob(key) => &part.blobs.get(key)?.used,
                Item::Result(key) => &part.results.get(key)?.used,
            };
            Some(used.ms.load(Ordering::Relaxed))
        })
    }

    /// Numbers of blobs and results.
    pub(super) fn lengths(&self) -> (u64, u64) {
        let mut sum = (0, 0);
        self.each_part(|part| {
            sum.0 += part.blobs.len() as u64;
            sum.1 += part.results.len() as u64;
        });
        sum
    }

    /// Everything that there is.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let mut all = Vec::new();
        self.each_part(|part| {
            all.extend(part.results.iter().map(|(key, entry)| Candidate {
                item: Item::Result(*key),
                used_ms: entry.used.ms.load(Ordering::Relaxed),
                bytes: entry.bytes,
            }));
            all.extend(part.blobs.iter().map(|(key, entry)| Candidate {
                item: Item::Blob(*key),
                used_ms: entry.used_ms(),
                bytes: entry.place.bytes(entry.size),
            }));
        });
        all
    }

    /// The blobs that lie in a pack.
    pub(super) fn in_pack(&self, pack: u32) -> Vec<(Key, Packed, u64)> {
        let mut found = Vec::new();
        self.each_part(|part| {
            for (key, entry) in &part.blobs {
                if let Place::Packed(packed) = &entry.place
                    && packed.pack == pack
                {
                    found.push((*key, *packed, entry.size));
                }
            }
        });
        found
    }

    /// The blobs that are files.
    pub(super) fn files(&self) -> HashSet<Key> {
        let mut found = HashSet::new();
        self.each_part(|part| {
            let files = part.blobs.iter().filter(|(_, entry)| entry.place == Place::File);
            found.extend(files.map(|(key, _)| *key));
        });
        found
    }

    /// Uses that the database does not know of; from now on it does.
    pub(super) fn take_uses(&self) -> Vec<(Item, u64)> {
        let mut uses = Vec::new();
        self.each_part(|part| {
            let blobs = part.blobs.iter().map(|(key, entry)| (Item::Blob(*key), &entry.used));
            let results = part.results.iter().map(|(key, entry)| (Item::Result(*key), &entry.used));
            for (item, used) in blobs.chain(results) {
                if !used.noted.swap(true, Ordering::Relaxed) {
                    uses.push((item, used.ms.load(Ordering::Relaxed)));
                }
            }
        });
        uses
    }

    fn each_part(&self, mut look: impl FnMut(&Part)) {
        for part in &self.parts {
            look(&part.read().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(clock::now_ns() / 1_000_000).unwrap_or(0)
}
