//! Values by dense id, kept as they are stored: in a tenth of the room that they take as values.
//!
//! A graph of a million actions has to fit into memory, and a build looks at each of them a few
//! times; decoding one takes a microsecond.

use serde::{Deserialize, Serialize};

use super::stored::{decode, record};

/// Values that were added to those of an opened graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    base: usize,
    bytes: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
}

impl Packed {
    /// Nothing yet, above `base` stored values.
    pub(crate) fn over(base: usize) -> Self {
        Self { base, ..Self::default() }
    }

    /// How many values there are, stored ones included.
    pub(crate) fn len(&self) -> usize {
        self.base + self.ends.len()
    }

    /// How many of them are stored ones.
    pub(crate) fn base_len(&self) -> usize {
        self.base
    }

    /// How many bytes the values take that are not stored.
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, value: &impl Serialize) {
        record(value, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// The bytes of a value that is not stored.
    pub(crate) fn bytes(&self, index: usize) -> Option<&[u8]> {
        let at = index.checked_sub(self.base)?;
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(at)?)
    }

    /// A value that is not stored.
    pub(crate) fn get<'a, T: Deserialize<'a>>(&'a self, index: usize) -> Option<T> {
        self.bytes(index).map(decode)
    }
}
