//! Job slots: each has a spawn server and a folder, and keeps both from action to action.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::scratch::SlotFolder;
use crate::sandbox::{SpawnOptions, SpawnServer};

/// One job slot; runs one action at a time.
pub(super) type Slot = Arc<Mutex<SlotState>>;

/// What a job slot keeps from one action to the next.
#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) server: Option<SpawnServer>,
    pub(super) folder: Option<SlotFolder>,
}

impl SlotState {
    /// Empties the folder for the next action; one that cannot be emptied is given up.
    pub(super) fn clear(&mut self) {
        let Some(folder) = &mut self.folder else { return };
        if let Err(error) = folder.clear() {
            let path = folder.path().display();
            tracing::warn!(%path, %error, "the folder of a job slot is replaced");
            self.folder = None;
        }
    }
}

/// The job slots of a runner. Dropping them ends their servers, all at once.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Mutex<Vec<Slot>>,
    /// Threads that start spawn servers ahead of the first action.
    warming: Mutex<Vec<JoinHandle<()>>>,
}

impl Slots {
    /// None yet; so many are expected.
    pub(super) fn new(expected: usize) -> Self {
        Self { slots: Mutex::new(Vec::with_capacity(expected)), warming: Mutex::default() }
    }

    /// The slot of that number.
    pub(super) fn get(&self, number: u32) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = number as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, Slot::default);
        }
        slots.get(index).cloned().unwrap_or_default()
    }

    /// Has a thread start the server of a slot that has none.
    pub(super) fn warm_up(&self, number: u32, options: SpawnOptions) {
        let state = self.get(number);
        let start = move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.server.is_none() {
                // Where it fails, the first action of the slot tries once more, and says why.
                state.server = SpawnServer::start(&options).ok();
            }
        };
        let thread = std::thread::Builder::new().name(format!("warm-up-{number}")).spawn(start);
        self.warming.lock().unwrap_or_else(PoisonError::into_inner).extend(thread);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for thread in self.warming.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join(); // a server that could not be started is no concern any more
        }
        // All are told before one is waited for, which is what dropping them does.
        for slot in self.slots.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.server.iter().for_each(SpawnServer::dismiss);
        }
    }
}
