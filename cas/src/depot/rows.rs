//! The rows of a depot's database, and their keys. What is written here is a format: a change of it
//! is a new version.

use maestro_core::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};

/// The number of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Space(u32);

impl Space {
    /// The space that was made after `number` others.
    pub(super) fn nth(number: usize) -> Self {
        Self(u32::try_from(number).expect("INSTANCES_MAX is smaller"))
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// A blob or result of a space. The size is no part of it: one hash has one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) space: Space,
    sha256: bool,
    hash: [u8; 32],
}

/// Bytes of an encoded key.
pub(super) const KEY_BYTES: usize = 4 + 1 + 32;

impl Key {
    pub(super) fn of(space: Space, digest: &Digest) -> Self {
        let sha256 = digest.function == DigestFunction::Sha256;
        Self { space, sha256, hash: digest.hash }
    }

    /// The digest, given the size that the index knows.
    pub(super) fn digest(&self, size: u64) -> Digest {
        let function = if self.sha256 { DigestFunction::Sha256 } else { DigestFunction::Blake3 };
        Digest { function, hash: self.hash, size }
    }

    /// Tells which part of the index a key is in.
    pub(super) fn first_byte(&self) -> u8 {
        let [first, ..] = self.hash;
        first
    }

    pub(super) fn push(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.space.0.to_be_bytes());
        bytes.push(u8::from(self.sha256));
        bytes.extend_from_slice(&self.hash);
    }

    /// Reads a key and gives what follows it.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (space, rest) = bytes.split_first_chunk::<4>()?;
        let (function, rest) = rest.split_first()?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        let sha256 = match function {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some((Self { space: Space(u32::from_be_bytes(*space)), sha256, hash: *hash }, rest))
    }
}

/// What names something else, and cannot be there without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    /// An action result.
    Result(Key),
    /// A blob.
    Blob(Key),
}

impl Item {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Result(_) => b'r',
            Self::Blob(_) => b'b',
        }
    }

    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Result(key) | Self::Blob(key) => key,
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match (kind, Key::parse(rest)?) {
            (b'r', (key, [])) => Some(Self::Result(key)),
            (b'b', (key, [])) => Some(Self::Blob(key)),
            _ => None,
        }
    }
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PlaceRow {
    /// In a pack.
    Packed { pack: u32, offset: u32 },
    /// In a file of its own.
    File,
    /// In another blob, from an offset on.
    Slice { of: Key, offset: u64 },
    /// In others, one after the other; the row of its chunks says in which.
    Chunked,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobRow {
    pub(super) size: u64,
    pub(super) place: PlaceRow,
    /// When it was written; see the durability of a depot.
    pub(super) epoch: u32,
}

/// The chunks of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunksRow {
    /// In order, with their sizes.
    pub(super) chunks: Vec<(Key, u64)>,
}

/// An action result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResultRow {
    /// What the server stores.
    pub(super) bytes: Vec<u8>,
    /// Every blob without which the result is of no use.
    pub(super) names: Vec<(Key, u64)>,
}

/// How far the depot is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealRow {
    /// The start of the machine during which the depot was last opened.
    pub(super) boot: String,
    /// Everything up to this epoch is on the disk.
    pub(super) sealed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for function in [DigestFunction::Sha256, DigestFunction::Blake3] {
            let digest = function.digest(b"x");
            let key = Key::of(Space(7), &digest);
            let mut bytes = Vec::new();
            key.push(&mut bytes);
            assert_eq!(bytes.len(), KEY_BYTES);
            assert_eq!(Key::parse(&bytes), Some((key, &[][..])));
            assert_eq!(key.digest(1), digest);
            for cut in 0..bytes.len() {
                assert_eq!(Key::parse(&bytes[..cut]), None);
            }
        }
    }
}
