//! A blob that arrives piece by piece and whose digest was known before: from another machine.
//!
//! Nothing is in the store before all of it came and was hashed; what is dropped halfway, or turns
//! out to be something else, leaves nothing behind.

use std::io::Write as _;

use maestro_core::Digest;
use maestro_core::digest::Hasher;

use crate::error::StoreError;
use crate::layout::Form;
use crate::scratch::Temp;
use crate::store::Store;

/// A blob on its way into the store.
pub struct Receiver {
    store: Store,
    digest: Digest,
    temp: Temp,
    hasher: Hasher,
    length: u64,
}

impl Store {
    /// Begins to take in a blob.
    pub fn receive(&self, digest: &Digest) -> Result<Receiver, StoreError> {
        let temp = self.inner.temp()?;
        let hasher = digest.function.hasher();
        Ok(Receiver { store: self.clone(), digest: *digest, temp, hasher, length: 0 })
    }
}

impl Receiver {
    /// How many bytes came so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes. More than the digest announces are refused at once.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let length = self.length + piece.len() as u64;
        if length > self.digest.size {
            let what = "a blob that is received";
            return Err(StoreError::TooLarge { what, size: length, limit: self.digest.size });
        }
        self.temp.file.write_all(piece).map_err(|e| StoreError::io(self.temp.path(), e))?;
        self.hasher.update(piece);
        self.length = length;
        Ok(())
    }

    /// Checks the whole and stores it.
    pub fn finish(self) -> Result<(), StoreError> {
        let Self { store, digest, temp, hasher, length: _ } = self;
        let found = hasher.finish();
        if found != digest {
            return Err(StoreError::Mismatch { expected: digest, found });
        }
        let inner = &store.inner;
        let _writing = inner.epochs.enter(&inner.layout)?;
        if inner.find(&digest, Form::Plain)?.is_none() {
            inner.publish(temp, &digest, Form::Plain)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use maestro_core::DigestFunction;

    use crate::error::StoreError;
    use crate::fixture::Fixture;

    #[test]
    fn what_arrives_whole_is_stored_and_nothing_else() {
        let check = |announced: &[u8], pieces: &[&[u8]], expect: Result<(), &str>| {
            for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
                let fixture = Fixture::new();
                let digest = function.digest(announced);
                let mut receiver = fixture.store.receive(&digest).expect("a temporary file");
                let written = pieces.iter().try_for_each(|piece| receiver.write(piece));
                let found = written.and_then(|()| receiver.finish());
                let found = found.map_err(|error| match error {
                    StoreError::TooLarge { .. } => "too large",
                    StoreError::Mismatch { .. } => "mismatch",
                    other => panic!("{other}"),
                });
                assert_eq!(found, expect);
                assert_eq!(fixture.store.contains(&digest), expect.is_ok());
            }
        };
        check(b"some content", &[b"some ", b"content"], Ok(()));
        check(b"some content", &[b"some ", b"contend"], Err("mismatch"));
        check(b"some content", &[b"some "], Err("mismatch"));
        check(b"some", &[b"some ", b"content"], Err("too large"));
    }
}
