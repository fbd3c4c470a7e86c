//! Action results: one small file each, with a checksum, written after the blobs that it names.
//!
//! The file is a magic word with the version, 32 bytes of BLAKE3 over key and payload, then the
//! canonical `ActionResult`. A file that is cut, damaged or of another key is removed
//! and is a miss, like one that names a blob that is gone.

use maestro_core::wire::ActionResult;
use maestro_core::{ActionKey, limits};
use std::io::Write as _;

use crate::error::StoreError;
use crate::layout::{self, Form};
use crate::store::{Inner, Store};

const MAGIC: &[u8; 8] = b"MAE-AR-1";
const CHECKSUM_BYTES: usize = 32;

impl Store {
    /// The result of a key, if there is one and each blob that it names is present. A result that
    /// is not usable is removed.
    pub fn action_result(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let inner = &self.inner;
        let path = layout::result_path(key);
        let Some(result) = inner.load_result(key)? else { return Ok(None) };
        if !self.is_usable(&result)? {
            tracing::debug!(key = %key.0, "result names a blob that is gone");
            inner.layout.unlink(&path)?;
            return Ok(None);
        }
        // The blobs were renewed first: a result is never younger than what it names.
        let stat = inner.layout.stat(&path)?;
        let floor = inner.touch_floor_ns.load(std::sync::atomic::Ordering::SeqCst);
        if stat.is_some_and(|stat| crate::clock::accessed_ns(&stat) < floor) {
            inner.touch(&path)?;
            inner.note_result(&key.0);
        }
        Ok(Some(result))
    }

    /// The result of a key as it was stored: blobs that it names may be gone, and nothing is
    /// renewed.
    pub fn stored_action_result(
        &self,
        key: &ActionKey,
    ) -> Result<Option<ActionResult>, StoreError> {
        self.inner.load_result(key)
    }

    /// Stores a result. Every blob that it names must be present; the first one that is not is
    /// the error.
    pub fn put_action_result(
        &self,
        key: &ActionKey,
        result: &ActionResult,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        for digest in result.blobs() {
            if !digest.is_empty_blob() && inner.find(&digest, Form::Plain)?.is_none() {
                return Err(StoreError::Missing { digest });
            }
        }
        for tree in &result.output_directories {
            let root = tree.root_directory_digest;
            if !Inner::tree_is_complete(self, &root)? {
                return Err(StoreError::Missing { digest: root });
            }
        }
        let _writing = inner.epochs.enter(&inner.layout)?;
        let mut temp = inner.temp()?;
        let written = temp.file.write_all(&encode(key, result));
        written.map_err(|e| StoreError::io(temp.path(), e))?;
        temp.rename(&inner.layout, &layout::result_path(key))?;
        inner.note_result(&key.0);
        Ok(())
    }

    /// Removes a result. One that is not there is fine.
    pub fn forget_action_result(&self, key: &ActionKey) -> Result<(), StoreError> {
        self.inner.layout.unlink(&layout::result_path(key))
    }

    /// Whether every blob that a result names is present.
    fn is_usable(&self, result: &ActionResult) -> Result<bool, StoreError> {
        for digest in result.blobs() {
            if !digest.is_empty_blob() && self.inner.find(&digest, Form::Plain)?.is_none() {
                return Ok(false);
            }
        }
        for tree in &result.output_directories {
            if !Inner::tree_is_complete(self, &tree.root_directory_digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Inner {
    /// Reads a result without looking at its blobs. A damaged one is removed.
    pub(crate) fn load_result(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let path = layout::result_path(key);
        let Some(bytes) = self.read_result_file(&path)? else { return Ok(None) };
        let result = decode(key, &bytes);
        if result.is_none() {
            self.quarantine(&path)?;
        }
        Ok(result)
    }

    /// The bytes of a result's file, up to the bound of a message.
    pub(crate) fn read_result_file(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        use std::io::Read as _;
        let Some(fd) = self.layout.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut file = std::fs::File::from(fd).take(limits::MESSAGE_BYTES_MAX + 1);
        match file.read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            // A folder in the place of a file reads as one that is damaged.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => Ok(Some(bytes)),
            Err(error) => Err(StoreError::io(self.layout.absolute(path), error)),
        }
    }
}

fn encode(key: &ActionKey, result: &ActionResult) -> Vec<u8> {
    let payload = result.encode();
    let mut bytes = Vec::with_capacity(MAGIC.len() + CHECKSUM_BYTES + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&checksum(key, &payload));
    bytes.extend_from_slice(&payload);
    bytes
}

/// The result in a file, or `None` where the file is cut, damaged or of another key.
pub(crate) fn decode(key: &ActionKey, bytes: &[u8]) -> Option<ActionResult> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, payload) = rest.split_at_checked(CHECKSUM_BYTES)?;
    if checksum(key, payload) != sum {
        return None;
    }
    ActionResult::decode(key.0.function, payload).ok()
}

/// Binds a payload to its key. The size of the key is left out, as file names do not have it.
fn checksum(key: &ActionKey, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.0.function.name().as_bytes());
    hasher.update(&key.0.hash);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
