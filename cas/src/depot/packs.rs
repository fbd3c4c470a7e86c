//! Packs: files to which small blobs are appended, one after the other.
//!
//! A pack has no format of its own; what lies where is said by the database alone. Bytes that no
//! row names are dead. Packs that are mostly dead are emptied into the last one and deleted: see
//! the maintenance of a depot.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use maestro_core::limits::PACK_BYTES_MAX;

use super::files::{Folder, pack_path};
use super::index::{Entry, Place};
use crate::error::StoreError;

/// A place in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Packed {
    pub(super) pack: u32,
    pub(super) offset: u32,
}

/// One file.
pub(super) struct Pack {
    pub(super) file: File,
    /// Bytes of it that are somebody's.
    live: AtomicI64,
    /// Bytes of it.
    length: AtomicU64,
}

/// All packs of a depot.
#[derive(Default)]
pub(super) struct Packs {
    packs: RwLock<HashMap<u32, Arc<Pack>>>,
    /// The pack that is appended to.
    last: Mutex<u32>,
}

impl Packs {
    /// Adds a pack that was found.
    pub(super) fn found(&self, number: u32, file: File, length: u64) {
        self.add(number, file, length);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = number.max(*last);
    }

    fn add(&self, number: u32, file: File, length: u64) -> Arc<Pack> {
        let pack = Pack { file, live: AtomicI64::new(0), length: AtomicU64::new(length) };
        let pack = Arc::new(pack);
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.insert(number, Arc::clone(&pack));
        pack
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<Pack>> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Appends blobs, in one write, and says where each is.
    pub(super) fn append(
        &self,
        folder: &Folder,
        blobs: &[&[u8]],
    ) -> Result<Vec<Packed>, StoreError> {
        let bytes = blobs.concat();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pack = self.get(*last);
        let room = |pack: &Arc<Pack>| {
            pack.length.load(Ordering::Relaxed) + bytes.len() as u64 <= PACK_BYTES_MAX
        };
        if !pack.as_ref().is_some_and(room) {
            let number = *last + 1;
            let file = folder.create(&pack_path(number))?;
            pack = Some(self.add(number, file, 0));
            *last = number;
        }
        let pack = pack.expect("there is one with room now");
        let start = pack.length.load(Ordering::Relaxed);
        // A write that fails half-way leaves bytes behind which the next one covers.
        let written = pack.file.write_all_at(&bytes, start);
        written.map_err(|error| folder.error(&pack_path(*last), error))?;
        pack.length.store(start + bytes.len() as u64, Ordering::Relaxed);
        let mut offset = start;
        let mut places = Vec::with_capacity(blobs.len());
        for blob in blobs {
            let within = u32::try_from(offset).expect("PACK_BYTES_MAX is smaller");
            places.push(Packed { pack: *last, offset: within });
            offset += blob.len() as u64;
        }
        Ok(places)
    }

    /// Counts a blob that came (1) or went (-1).
    pub(super) fn count(&self, entry: &Entry, sign: i64) {
        if let Place::Packed(place) = &entry.place
            && let Some(pack) = self.get(place.pack)
        {
            pack.live.fetch_add(sign * entry.size as i64, Ordering::Relaxed);
        }
    }

    /// The packs of which more than a third is dead; never the last one.
    pub(super) fn wasteful(&self) -> Vec<u32> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<u32> = packs
            .iter()
            .filter(|(number, pack)| {
                let live = u64::try_from(pack.live.load(Ordering::Relaxed)).unwrap_or(0);
                **number != last && is_wasteful(live, pack.length.load(Ordering::Relaxed))
            })
            .map(|(number, _)| *number)
            .collect();
        found.sort_unstable();
        found
    }

    pub(super) fn remove(&self, number: u32) {
        self.packs.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// Whether it is worth to write the live bytes again in order to get rid of the dead ones.
fn is_wasteful(live: u64, length: u64) -> bool {
    live.saturating_mul(3) < length.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_emptied_when_a_third_is_dead() {
        let check = |live, length, expect| assert_eq!(is_wasteful(live, length), expect);
        check(0, 0, false);
        check(0, 1, true);
        check(100, 100, false);
        check(67, 100, false);
        check(66, 100, true);
    }
}
