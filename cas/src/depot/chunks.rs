//! Blobs as chunks, without storing anything twice.
//!
//! A blob that is split keeps its bytes, and its chunks become *slices* of it. A blob that is
//! spliced out of chunks keeps none, and is read out of them. Either cannot be there without the
//! other, so they go together.

use maestro_core::{Digest, limits};

use super::database::Batch;
use super::index::{Entry, Place};
use super::rows::{ChunksRow, Item, Key, Space};
use super::{Depot, is_empty};
use crate::error::StoreError;

impl Depot {
    /// The chunks of a blob that was split or spliced, if all are there; they and the blob count as
    /// used.
    pub fn chunks(&self, space: Space, blob: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
        let key = Key::of(space, blob);
        if !self.index.touch(&key, blob.size) {
            return Ok(None);
        }
        let Some(row) = self.database.chunks(&key)? else { return Ok(None) };
        let there = row.chunks.iter().all(|(chunk, size)| self.index.touch(chunk, *size));
        Ok(there.then(|| row.chunks.iter().map(|(key, size)| key.digest(*size)).collect()))
    }

    /// Whether a blob is kept as chunks that somebody else has cut.
    pub fn is_spliced(&self, space: Space, blob: &Digest) -> bool {
        let entry = self.index.get(&Key::of(space, blob));
        entry.is_some_and(|entry| entry.place == Place::Chunked)
    }

    /// Notes the chunks of a blob that is there. The caller has hashed them.
    pub fn split(&self, space: Space, blob: &Digest, chunks: &[Digest]) -> Result<(), StoreError> {
        let shared = self.shared();
        let whole = Key::of(space, blob);
        if !self.index.touch(&whole, blob.size) {
            return Err(StoreError::Missing { digest: *blob });
        }
        // A slice of a slice is a slice of the whole; what is kept as chunks has no others.
        let (of, mut offset) = match self.index.get(&whole).map(|entry| entry.place) {
            Some(Place::Packed(_) | Place::File) => (whole, 0),
            Some(Place::Slice(slice)) => *slice,
            Some(Place::Chunked) | None => return Err(StoreError::Missing { digest: *blob }),
        };
        let mut batch = Batch::default();
        let mut entries: Vec<(Key, Entry)> = Vec::new();
        for chunk in chunks {
            let key = Key::of(space, chunk);
            if key != whole && !self.index.touch(&key, chunk.size) {
                let place = Place::Slice(Box::new((of, offset)));
                self.database.put_blob(&mut batch, &key, &self.row(chunk.size, &place))?;
                self.database.put_name(&mut batch, &of, &Item::Blob(key));
                entries.push((key, Entry::new(chunk.size, place)));
            }
            offset += chunk.size;
        }
        self.put_list(&mut batch, space, &whole, chunks)?;
        self.database.write(batch)?;
        for (key, entry) in entries {
            self.insert(key, entry);
        }
        drop(shared);
        self.evict_if_full()
    }

    /// Stores a blob as its chunks, which are there. The caller has hashed them together.
    pub fn splice(&self, space: Space, blob: &Digest, chunks: &[Digest]) -> Result<(), StoreError> {
        let shared = self.shared();
        let key = Key::of(space, blob);
        if self.index.touch(&key, blob.size) {
            return Ok(());
        }
        let chunks = self.flat(space, chunks)?;
        let mut batch = Batch::default();
        for chunk in &chunks {
            self.database.put_name(&mut batch, &Key::of(space, chunk), &Item::Blob(key));
        }
        self.database.put_blob(&mut batch, &key, &self.row(blob.size, &Place::Chunked))?;
        self.put_list(&mut batch, space, &key, &chunks)?;
        self.database.write(batch)?;
        self.insert(key, Entry::new(blob.size, Place::Chunked));
        drop(shared);
        self.evict_if_full()
    }

    /// The chunks with those in the place of each that is itself kept as chunks, so that reading
    /// never goes deeper than one level.
    fn flat(&self, space: Space, chunks: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut flat = Vec::with_capacity(chunks.len());
        for chunk in chunks.iter().filter(|chunk| !is_empty(chunk)) {
            let missing = || StoreError::Missing { digest: *chunk };
            let key = Key::of(space, chunk);
            if !self.index.touch(&key, chunk.size) {
                return Err(missing());
            }
            let place = self.index.get(&key).ok_or_else(missing)?.place;
            if place == Place::Chunked {
                flat.extend(self.chunks(space, chunk)?.ok_or_else(missing)?);
            } else {
                flat.push(*chunk);
            }
            if flat.len() > limits::BLOB_CHUNKS_MAX {
                let (what, limit) = ("list of chunks", limits::BLOB_CHUNKS_MAX as u64);
                return Err(StoreError::TooLarge { what, size: flat.len() as u64, limit });
            }
        }
        Ok(flat)
    }

    fn put_list(
        &self,
        batch: &mut Batch,
        space: Space,
        blob: &Key,
        chunks: &[Digest],
    ) -> Result<(), StoreError> {
        let chunks = chunks.iter().filter(|chunk| !is_empty(chunk));
        let chunks = chunks.map(|chunk| (Key::of(space, chunk), chunk.size)).collect();
        self.database.put_chunks(batch, blob, &ChunksRow { chunks })
    }
}
