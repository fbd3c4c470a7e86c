//! Job slots: as many actions run at once as there are slots, however many threads look results up.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

/// The free slots, by number.
pub(super) struct Slots {
    free: Mutex<Vec<u32>>,
    freed: Condvar,
}

/// A slot that is taken; free again when this is dropped.
pub(super) struct Slot<'s> {
    slots: &'s Slots,
    /// Its number; no two that are taken share one.
    pub(super) number: u32,
}

impl Slots {
    /// Free slots of these numbers.
    pub(super) fn new(numbers: Range<usize>) -> Self {
        // The lowest number is taken first: its spawn server may be warm.
        let free = numbers.rev().filter_map(|number| u32::try_from(number).ok()).collect();
        Self { free: Mutex::new(free), freed: Condvar::new() }
    }

    /// Takes a slot, and waits for one where none is free.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(number) = free.pop() {
                return Slot { slots: self, number };
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.number);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn as_many_hold_a_slot_as_there_are() {
        let (slots, held) = (Slots::new(0..3), [const { AtomicUsize::new(0) }; 3]);
        let at_once = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let slot = slots.take();
                        let of_it = held.get(slot.number as usize).expect("one of the three");
                        assert_eq!(of_it.fetch_add(1, Ordering::SeqCst), 0);
                        assert!(at_once.fetch_add(1, Ordering::SeqCst) < 3);
                        std::thread::yield_now();
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        of_it.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
