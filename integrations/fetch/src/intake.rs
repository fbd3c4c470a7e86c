//! Bytes on their way into the store: counted, hashed, and kept only if they are the pinned ones.
//!
//! Nothing that has another digest ever reaches the store, whichever place it came from.

use std::io::Write as _;

use maestro_cas::Store;
use maestro_core::digest::Hasher;
use maestro_core::{Digest, DigestFunction};
use maestro_executor::native::ScratchFile;

use crate::FetchError;
use crate::request::Download;

/// One file that is being received.
pub(crate) struct Intake<'a> {
    download: &'a Download,
    /// Where it comes from, for messages.
    place: String,
    scratch: ScratchFile<'a>,
    hasher: Hasher,
    received: u64,
}

impl<'a> Intake<'a> {
    /// An empty file.
    pub(crate) fn new(
        download: &'a Download,
        place: impl ToString,
        store: &'a Store,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            download,
            place: place.to_string(),
            scratch: ScratchFile::create(store)?,
            hasher: DigestFunction::Sha256.hasher(),
            received: 0,
        })
    }

    /// Fails where the whole file is known to be too large.
    pub(crate) fn expect(&self, bytes: u64) -> Result<(), FetchError> {
        let limit = self.download.bytes_max;
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
        let actual = self.hasher.finish();
        if actual.hash != self.download.hash {
            let expected = Digest { hash: self.download.hash, ..actual }.hex();
            return Err(FetchError::Mismatch { url: self.place, expected, actual: actual.hex() });
        }
        Ok(self.scratch.adopt()?)
    }
}
