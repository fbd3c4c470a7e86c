//! Uploads of large blobs: what has come so far lies in a file, so that an upload goes on after the
//! connection or the server has ended.
//!
//! A file holds content as it will be stored, not as it travels. It is named by a digest of the
//! upload's name, so that whoever knows that name, and nobody else, goes on with it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::time::{Duration, SystemTime};

use maestro_core::digest::Hasher;
use maestro_core::{Digest, DigestFunction, limits};

use super::Depot;
use super::files::UPLOADS;
use super::rows::Space;
use crate::error::StoreError;

/// Bytes that are hashed at once when an upload goes on.
const REHASH_BYTES: usize = 1024 * 1024;

/// An upload that is under way. What came stays when this is dropped.
pub struct Upload {
    path: String,
    file: File,
    length: u64,
    hasher: Hasher,
    digest: Digest,
}

fn path(name: &str) -> String {
    format!("{UPLOADS}/{}", DigestFunction::Blake3.digest(name.as_bytes()).hex())
}

impl Depot {
    /// How many bytes of an upload came so far.
    pub fn upload_length(&self, name: &str) -> Result<u64, StoreError> {
        match std::fs::metadata(self.folder.absolute(&path(name))) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.folder.error(&path(name), error)),
        }
    }

    /// Goes on with an upload, or begins it.
    pub fn upload(&self, name: &str, digest: &Digest) -> Result<Upload, StoreError> {
        let path = path(name);
        let known = self.folder.list(UPLOADS)?.len();
        let file = match self.folder.absolute(&path).exists() {
            false if known >= limits::UPLOADS_MAX => {
                return Err(StoreError::TooLarge {
                    what: "set of unfinished uploads",
                    size: known as u64 + 1,
                    limit: limits::UPLOADS_MAX as u64,
                });
            }
            _ => self.folder.open_or_create(&path)?,
        };
        let hasher = digest.function.hasher();
        let mut upload = Upload { path, file, length: 0, hasher, digest: *digest };
        upload.rehash(self)?;
        Ok(upload)
    }

    pub(super) fn remove_old_uploads(&self) -> Result<(), StoreError> {
        let oldest = SystemTime::now() - Duration::from_millis(limits::UPLOAD_KEPT_MS);
        for name in self.folder.list(UPLOADS)? {
            let path = format!("{UPLOADS}/{name}");
            let modified = std::fs::metadata(self.folder.absolute(&path))
                .and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified < oldest) {
                self.folder.remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Upload {
    /// How many bytes came so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Forgets what came, and begins anew.
    pub fn restart(&mut self, depot: &Depot) -> Result<(), StoreError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| depot.folder.error(&self.path, error))?;
        self.hasher = self.digest.function.hasher();
        self.length = 0;
        Ok(())
    }

    /// Adds bytes. Fails with [`StoreError::TooLarge`] where they are more than the digest says.
    pub fn append(&mut self, depot: &Depot, bytes: &[u8]) -> Result<(), StoreError> {
        let length = self.length + bytes.len() as u64;
        if length > self.digest.size {
            let (what, limit) = ("content of a blob", self.digest.size);
            return Err(StoreError::TooLarge { what, size: length, limit });
        }
        if let Err(error) = self.file.write_all(bytes) {
            // What was written in part would be hashed by nobody.
            let _ = self.file.set_len(self.length);
            return Err(depot.folder.error(&self.path, error));
        }
        self.hasher.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Stores the blob. Fails with [`StoreError::Mismatch`] where the bytes are others than the
    /// digest says; then, as after a success, nothing is left of the upload.
    pub fn finish(self, depot: &Depot, space: Space) -> Result<(), StoreError> {
        let Self { path, digest, hasher, .. } = self;
        let found = hasher.finish();
        if found != digest {
            depot.folder.discard(&path);
            return Err(StoreError::Mismatch { expected: digest, found });
        }
        if digest.size <= limits::PACKED_BLOB_BYTES_MAX as u64 {
            let absolute = depot.folder.absolute(&path);
            let bytes =
                std::fs::read(&absolute).map_err(|error| depot.folder.error(&path, error))?;
            depot.put(space, &[(digest, &bytes)])?;
            return depot.folder.remove(&path);
        }
        depot.adopt(space, &digest, &path)?;
        depot.evict_if_full()
    }

    /// Forgets what came.
    pub fn discard(self, depot: &Depot) {
        depot.folder.discard(&self.path);
    }

    fn rehash(&mut self, depot: &Depot) -> Result<(), StoreError> {
        let mut bytes = vec![0; REHASH_BYTES];
        let fail = |error| depot.folder.error(&self.path, error);
        loop {
            let read = self.file.read(&mut bytes).map_err(fail)?;
            let Some(read) = bytes.get(..read).filter(|read| !read.is_empty()) else { break };
            self.hasher.update(read);
            self.length += read.len() as u64;
        }
        if self.length > self.digest.size { self.restart(depot) } else { Ok(()) }
    }
}
