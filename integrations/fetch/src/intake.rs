//! Bytes on their way into the store: counted, hashed, and kept only if they are the pinned ones.
//!
//! Nothing that has another digest ever reaches the store, whichever place it came from.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_executor::native::ScratchFile;
use maestro_executor::runner::Cancel;

use crate::FetchError;
use crate::pin::{Pin, PinHasher};

/// The bytes that are read at once.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// One file that is being received.
pub(crate) struct Intake<'a> {
    pin: &'a Pin,
    bytes_max: u64,
    /// Where it comes from, for messages.
    place: String,
    scratch: ScratchFile<'a>,
    hasher: PinHasher,
    received: u64,
}

impl<'a> Intake<'a> {
    /// An empty file.
    pub(crate) fn new(
        pin: &'a Pin,
        bytes_max: u64,
        place: impl ToString,
        store: &'a Store,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            pin,
            bytes_max,
            place: place.to_string(),
            scratch: ScratchFile::create(store)?,
            hasher: pin.hasher(),
            received: 0,
        })
    }

    /// Fails where the whole file is known to be too large.
    pub(crate) fn expect(&self, bytes: u64) -> Result<(), FetchError> {
        let limit = self.bytes_max;
        if bytes > limit {
            return Err(FetchError::TooLarge { url: self.place.clone(), limit });
        }
        Ok(())
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), FetchError> {
        self.received += chunk.len() as u64;
        self.expect(self.received)?;
        self.hasher.update(chunk);
        self.scratch.write_all(chunk).map_err(|error| self.scratch.error(error))?;
        Ok(())
    }

    /// Takes the whole of a file, which lies at a path.
    pub(crate) fn take(
        mut self,
        mut file: File,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let read = file.read(&mut buffer);
            let count =
                read.map_err(|source| FetchError::ClientFile { path: path.to_owned(), source })?;
            match buffer.get(..count) {
                None | Some([]) => return self.finish(),
                Some(chunk) => self.push(chunk)?,
            }
        }
    }

    /// Checks the digest and puts the file into the store.
    pub(crate) fn finish(self) -> Result<Digest, FetchError> {
        if let Err(mismatch) = self.pin.check(self.hasher) {
            return Err(FetchError::Mismatch { url: self.place, mismatch });
        }
        Ok(self.scratch.adopt()?)
    }
}
