//! What a depot does from time to time: it puts what was written on the disk, notes what was used,
//! and empties packs that are mostly dead.
//!
//! # Durability
//!
//! What was acknowledged is in the kernel's hands, so that it survives the end of the process, also
//! by SIGKILL. It is not on the disk yet. Rows carry the *epoch* in which they were written.
//! Sealing begins a new epoch while nobody writes, has the file system write everything, has the
//! database write its log, and only then notes that the former epoch is sealed.
//!
//! | the machine stops | found when the depot is opened |
//! |---|---|
//! | before the row is on the disk | the blob is missing; its bytes are dead |
//! | after the row, before the content | the epoch is not sealed: the blob is hashed, and removed |
//! | between the content and the seal | the blob is hashed, and kept |
//! | after the seal | the blob is kept as it is |
//!
//! So a stop of the machine takes away at most what came since the last seal, and what is taken
//! away reads as missing.

use std::fs::File;
use std::sync::atomic::Ordering;

use super::Depot;
use super::database::Batch;
use super::files::pack_path;
use super::index::Place;
use super::open::boot_id;
use super::rows::SealRow;
use crate::error::StoreError;

/// Blobs of a pack that are moved in one transaction.
const MOVED_BLOBS_MAX: usize = 256;
/// Uses that are noted in one transaction.
const NOTED_USES_MAX: usize = 10_000;

impl Depot {
    /// Does what is due; called every `DEPOT_SEAL_MS`, and before the process ends in order.
    pub fn maintain(&self) -> Result<(), StoreError> {
        self.note_uses()?;
        self.reclaim()?;
        self.seal()?;
        self.remove_old_uploads()
    }

    fn note_uses(&self) -> Result<(), StoreError> {
        for uses in self.index.take_uses().chunks(NOTED_USES_MAX) {
            let _shared = self.shared();
            let mut batch = Batch::default();
            for (item, ms) in uses {
                if self.index.used_ms(item).is_some() {
                    self.database.put_use(&mut batch, item, *ms);
                }
            }
            self.database.write(batch)?;
        }
        Ok(())
    }

    fn seal(&self) -> Result<(), StoreError> {
        let sealed = {
            let _alone = self.exclusive();
            self.epoch.fetch_add(1, Ordering::Relaxed)
        };
        let root = File::open(self.root()).map_err(|error| self.folder.error("", error))?;
        rustix::fs::syncfs(&root).map_err(|errno| self.folder.error("", errno))?;
        self.database.sync()?;
        let mut batch = Batch::default();
        self.database.put_seal(&mut batch, &SealRow { boot: boot_id(), sealed })?;
        self.database.write(batch)?;
        self.database.sync()
    }

    /// Empties packs that are mostly dead.
    pub(super) fn reclaim(&self) -> Result<(), StoreError> {
        for number in self.packs.wasteful() {
            for some in self.index.in_pack(number).chunks(MOVED_BLOBS_MAX) {
                self.move_blobs(number, some)?;
            }
            let _alone = self.exclusive();
            if self.index.in_pack(number).is_empty() {
                self.packs.remove(number);
                self.folder.discard(&pack_path(number));
            }
        }
        Ok(())
    }

    /// Moves blobs to the last pack. One whose bytes are not what its name says is removed.
    fn move_blobs(
        &self,
        number: u32,
        blobs: &[(super::rows::Key, super::packs::Packed, u64)],
    ) -> Result<(), StoreError> {
        use super::rows::Item;
        let _alone = self.exclusive();
        let Some(pack) = self.packs.get(number) else { return Ok(()) };
        let (mut contents, mut keys, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for (key, place, size) in blobs {
            let there = self.index.get(key);
            let Some(entry) = there.filter(|entry| entry.place == Place::Packed(*place)) else {
                continue;
            };
            let mut bytes = vec![0; usize::try_from(*size).unwrap_or(usize::MAX)];
            let offset = u64::from(place.offset);
            let read = std::os::unix::fs::FileExt::read_exact_at(&pack.file, &mut bytes, offset);
            let digest = key.digest(*size);
            if read.is_ok() && digest.function.digest(&bytes) == digest {
                contents.push(bytes);
                keys.push((*key, entry));
            } else {
                tracing::warn!(%digest, "a blob is damaged and removed");
                damaged.push(Item::Blob(*key));
            }
        }
        self.remove_all(&damaged)?;
        let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let places = self.packs.append(&self.folder, &parts)?;
        let mut batch = Batch::default();
        for ((key, entry), place) in keys.iter().zip(&places) {
            let row = self.row(entry.size, &Place::Packed(*place));
            self.database.put_blob(&mut batch, key, &row)?;
        }
        self.database.write(batch)?;
        for ((key, entry), place) in keys.into_iter().zip(places) {
            self.packs.count(&entry, -1);
            let moved = super::index::Entry::new(entry.size, Place::Packed(place));
            self.packs.count(&moved, 1);
            self.index.relocate(&key, Place::Packed(place));
        }
        Ok(())
    }
}
