//! An imprint: 128 bits that stand for a content.
//!
//! Equal imprints mean equal content, so what they cover is written without ambiguity and
//! without anything that may differ between two builds of the same workspace, such as an id.

use std::fmt;

/// The first half of a BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Imprint([u8; Self::LEN]);

impl Imprint {
    /// Its length in bytes.
    pub(crate) const LEN: usize = 16;

    /// The imprint of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes);
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self(*first)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Imprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
