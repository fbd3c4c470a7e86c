//! Values by dense id: those of an opened graph, decoded when first asked for, and those added
//! since. A value of the opened graph can be replaced; ids never move.

use std::collections::BTreeSet;
use std::sync::OnceLock;

/// See the module.
#[derive(Debug)]
pub(crate) struct Layer<T> {
    base: Vec<OnceLock<Box<T>>>,
    replaced: BTreeSet<u32>,
    added: Vec<T>,
}

impl<T> Default for Layer<T> {
    fn default() -> Self {
        Self::over(0)
    }
}

impl<T> Layer<T> {
    /// A layer over `base` stored values.
    pub(crate) fn over(base: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(base, OnceLock::new);
        Self { base: slots, replaced: BTreeSet::new(), added: Vec::new() }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.base.len() + self.added.len()
    }

    /// How many of them are stored ones.
    pub(crate) fn base_len(&self) -> usize {
        self.base.len()
    }

    /// The value at an index; `decode` makes a stored one.
    pub(crate) fn get(&self, index: usize, decode: impl FnOnce() -> T) -> Option<&T> {
        match self.base.get(index) {
            Some(slot) => Some(slot.get_or_init(|| Box::new(decode()))),
            None => self.added.get(index - self.base.len()),
        }
    }

    /// The value at an index if it is new or replaced, that is, not as it is stored.
    pub(crate) fn changed(&self, index: usize) -> Option<&T> {
        match self.base.get(index) {
            Some(slot) if self.is_replaced(index) => slot.get().map(|value| &**value),
            Some(_) => None,
            None => self.added.get(index - self.base.len()),
        }
    }

    /// Replaces a value, or adds one at the end.
    pub(crate) fn put(&mut self, index: usize, value: T) {
        match self.base.get_mut(index) {
            Some(slot) => {
                *slot = OnceLock::from(Box::new(value));
                self.replaced.extend(u32::try_from(index));
            }
            None => match self.added.get_mut(index - self.base.len()) {
                Some(own) => *own = value,
                None => self.added.push(value),
            },
        }
    }

    /// Adds a value and returns its index.
    pub(crate) fn push(&mut self, value: T) -> usize {
        self.added.push(value);
        self.len() - 1
    }

    /// The indices of all values that are not as they are stored.
    pub(crate) fn changes(&self) -> impl Iterator<Item = usize> + '_ {
        let replaced = self.replaced.iter().map(|index| *index as usize);
        replaced.chain(self.base.len()..self.len())
    }

    fn is_replaced(&self, index: usize) -> bool {
        u32::try_from(index).is_ok_and(|index| self.replaced.contains(&index))
    }
}

impl<T: Clone> Layer<T> {
    /// A value to be changed in place.
    pub(crate) fn get_mut(&mut self, index: usize, decode: impl FnOnce() -> T) -> Option<&mut T> {
        let base = self.base.len();
        match self.base.get_mut(index) {
            Some(slot) => {
                slot.get_or_init(|| Box::new(decode()));
                self.replaced.extend(u32::try_from(index));
                slot.get_mut().map(|value| &mut **value)
            }
            None => self.added.get_mut(index - base),
        }
    }
}
