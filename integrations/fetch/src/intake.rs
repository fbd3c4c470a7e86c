//! Bytes on their way into the store: counted, hashed, and kept only if they are the pinned ones.
//!
//! Nothing that has another digest ever reaches the store, whichever place it came from.

use std::io::Write as _;

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_executor::native::ScratchFile;

use crate::FetchError;
use crate::pin::{Pin, PinHasher};

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

    /// Checks the digest and puts the file into the store.
    pub(crate) fn finish(self) -> Result<Digest, FetchError> {
        if let Err(mismatch) = self.pin.check(self.hasher) {
            return Err(FetchError::Mismatch { url: self.place, mismatch });
        }
        Ok(self.scratch.adopt()?)
    }
}
