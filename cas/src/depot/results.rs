//! Action results: bytes that name blobs. What they name is told by who stores them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use maestro_core::Digest;

use super::database::Batch;
use super::index::ROW_BYTES;
use super::rows::{Item, KEY_BYTES, Key, ResultRow, Space};
use super::{Depot, is_empty};
use crate::error::StoreError;

impl Depot {
    /// The result of a key, if it and all that it names are there. All count as used.
    pub fn result(&self, space: Space, action: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let key = Key::of(space, action);
        if !self.index.touch_result(&key) {
            return Ok(None);
        }
        let Some(row) = self.database.result(&key)? else { return Ok(None) };
        for (name, size) in &row.names {
            if !self.index.touch(name, *size) {
                // Its blob is on its way out, and takes the result along.
                return Ok(None);
            }
        }
        Ok(Some(row.bytes))
    }

    /// Stores a result with what it names; replaces the one that was there.
    ///
    /// Fails with [`StoreError::Missing`] where one of `names` is not there, and then changes
    /// nothing.
    pub fn put_result(
        &self,
        space: Space,
        action: &Digest,
        bytes: Vec<u8>,
        names: &[Digest],
    ) -> Result<(), StoreError> {
        let key = Key::of(space, action);
        let shared = self.shared();
        let mut unique = BTreeMap::new();
        for name in names.iter().filter(|name| !is_empty(name)) {
            let blob = Key::of(space, name);
            if !self.index.touch(&blob, name.size) {
                return Err(StoreError::Missing { digest: *name });
            }
            unique.insert(blob, name.size);
        }
        let names: Vec<(Key, u64)> = unique.into_iter().collect();
        let size = result_bytes(bytes.len(), names.len());
        let mut batch = Batch::default();
        self.database.put_result(&mut batch, &key, &ResultRow { bytes, names })?;
        self.database.write(batch)?;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        if let Some(old) = self.index.insert_result(key, size, None) {
            self.bytes.fetch_sub(old, Ordering::Relaxed);
        }
        drop(shared);
        self.evict_if_full()
    }

    /// Removes a result.
    pub fn remove_result(&self, space: Space, action: &Digest) -> Result<(), StoreError> {
        let _alone = self.exclusive();
        self.remove_all(&[Item::Result(Key::of(space, action))])
    }
}

/// What a result takes, with the rows of what it names: each stands in both directions.
pub(super) fn result_bytes(bytes: usize, names: usize) -> u64 {
    ROW_BYTES + bytes as u64 + 3 * (names * KEY_BYTES) as u64
}
