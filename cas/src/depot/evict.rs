//! What goes when the depot is full.
//!
//! Everything carries the time of its last use. Using a result counts as using all that it names,
//! so that a blob is never older than a result that needs it; still, a blob that goes takes with it
//! what cannot be there without it, in one transaction:
//!
//! | gone | goes along |
//! |---|---|
//! | a blob | results that name it; chunks that are parts of it; blobs that are kept as chunks of it |
//! | a result | nothing |
//!
//! Results go before blobs of the same age. Choosing takes no lock; what was used between the
//! choice and the removal stays. For example: results R1 (used at 5, names A and B) and R2 (used at
//! 9, names B) with blobs A (5) and B (9): R1 goes first, then A; then R2, then B.

use std::collections::HashSet;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use super::Depot;
use super::database::Batch;
use super::files::blob_path;
use super::index::{Candidate, Entry, Place};
use super::rows::{Item, Key};
use crate::error::StoreError;

/// How full the depot is after an eviction, of a hundred.
const FILL_AFTER: u64 = 90;
/// Items that are removed in one transaction, those not counted that go along.
const TRANSACTION_ITEMS_MAX: usize = 1_000;

/// Orders candidates by age and takes as many as it needs.
fn choose(mut candidates: Vec<Candidate>, bytes: u64) -> Vec<Candidate> {
    let order = |candidate: &Candidate| {
        (candidate.used_ms, matches!(candidate.item, Item::Blob(_)), candidate.item)
    };
    candidates.sort_unstable_by_key(order);
    let mut sum = 0u64;
    let enough = candidates.iter().position(|candidate| {
        let enough = sum >= bytes;
        sum = sum.saturating_add(candidate.bytes);
        enough
    });
    candidates.truncate(enough.unwrap_or(candidates.len()));
    candidates
}

impl Depot {
    /// Makes room where there is too much. Who comes while another does so does not wait for it.
    pub(super) fn evict_if_full(&self) -> Result<(), StoreError> {
        if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
            return Ok(());
        }
        let _turn = match self.evicting.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let full = self.bytes.load(Ordering::Relaxed);
        if full <= self.bytes_max {
            return Ok(());
        }
        let goal = self.bytes_max / 100 * FILL_AFTER;
        let chosen = choose(self.index.candidates(), full - goal);
        tracing::info!(items = chosen.len(), bytes = full - goal, "the depot is full");
        for some in chosen.chunks(TRANSACTION_ITEMS_MAX) {
            let still = |candidate: &&Candidate| {
                self.index.used_ms(&candidate.item) == Some(candidate.used_ms)
            };
            let _alone = self.exclusive();
            let items: Vec<Item> = some.iter().filter(still).map(|found| found.item).collect();
            self.remove_all(&items)?;
        }
        self.reclaim()
    }

    /// Removes items with all that cannot be there without them. The caller is alone.
    pub(super) fn remove_all(&self, items: &[Item]) -> Result<(), StoreError> {
        let mut gone: HashSet<Item> = HashSet::new();
        let mut pending = items.to_vec();
        while let Some(item) = pending.pop() {
            if !gone.insert(item) {
                continue;
            }
            if let Item::Blob(key) = &item {
                pending.extend(self.database.dependents(key)?);
            }
        }
        let mut batch = Batch::default();
        for item in &gone {
            self.database.remove(&mut batch, item)?;
        }
        self.database.write(batch)?;
        let mut files: Vec<(Key, Entry)> = Vec::new();
        for item in &gone {
            match item {
                Item::Result(key) => {
                    if let Some(bytes) = self.index.remove_result(key) {
                        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    }
                }
                Item::Blob(key) => files.extend(self.index.remove(key).map(|entry| (*key, entry))),
            }
        }
        for (key, entry) in files {
            self.forget(&entry);
            if entry.place == Place::File {
                self.folder.discard(&blob_path(&key));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use maestro_core::DigestFunction;

    use super::super::rows::Space;
    use super::*;

    fn key(name: &str) -> Key {
        Key::of(Space::nth(0), &DigestFunction::Sha256.digest(name.as_bytes()))
    }

    #[test]
    fn the_oldest_go_and_results_go_before_blobs() {
        let blob = |name, used_ms, bytes| Candidate { item: Item::Blob(key(name)), used_ms, bytes };
        let result =
            |name, used_ms, bytes| Candidate { item: Item::Result(key(name)), used_ms, bytes };
        let all = [blob("b", 9, 10), blob("a", 5, 10), result("r2", 9, 1), result("r1", 5, 1)];
        let check = |bytes: u64, expect: &[Candidate]| {
            assert_eq!(choose(all.to_vec(), bytes), expect, "{bytes}");
        };
        check(0, &[]);
        check(1, &[all[3]]);
        check(2, &[all[3], all[1]]);
        check(11, &[all[3], all[1]]);
        check(12, &[all[3], all[1], all[2]]);
        check(13, &[all[3], all[1], all[2], all[0]]);
        check(u64::MAX, &[all[3], all[1], all[2], all[0]]);
    }
}
