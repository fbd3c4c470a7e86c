//! What an update may spend: its own cap, and what the ledger of its tenant grants.
//!
//! The most that a call can cost is reserved with both before it is made, so that neither is ever
//! passed, however many calls are under way.

use std::sync::{Arc, Mutex};

use maestro_core::run::budget::{Notice, room_text};
use maestro_core::run::{Amount, Cap};

use super::hold;
use crate::ledger::{ClaimKey, Ledger, Settlement};
use crate::runner::RunError;
use crate::storage::StorageError;

/// The money of one update.
pub(super) struct Spending {
    ledger: Arc<dyn Ledger>,
    /// The name of this invocation, which no other one has.
    holder: String,
    cap: Cap,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    settled: Amount,
    reserved: Amount,
    notices: Vec<Notice>,
}

impl Spending {
    pub(super) fn new(ledger: Arc<dyn Ledger>, holder: String, cap: Cap) -> Self {
        Self { ledger, holder, cap, books: Mutex::default() }
    }

    /// Reserves the most that a call can cost.
    pub(super) fn reserve(&self, call: String, bound: Amount) -> Result<ClaimKey, RunError> {
        let mut books = hold(&self.books);
        let total = books.settled.plus(books.reserved).plus(bound);
        if !total.is_within(self.cap) {
            let room = room_text(self.cap, (books.settled, books.reserved), bound);
            return Err(RunError::Refused {
                message: format!("the budget of this update leaves no room: {room}"),
                hints: vec!["raise `--budget`, or update fewer targets at a time".to_owned()],
            });
        }
        let key = ClaimKey { holder: self.holder.clone(), call, serial: 0 };
        let granted = self.ledger.reserve(&key, bound).map_err(broken)?;
        let notices = granted.map_err(|denied| {
            let (message, hints) = (denied.message, denied.hints);
            RunError::Refused { message, hints }
        })?;
        books.reserved.add(bound);
        books.tell(notices);
        Ok(key)
    }

    /// Ends a reservation.
    pub(super) fn settle(
        &self,
        key: &ClaimKey,
        bound: Amount,
        end: Settlement,
    ) -> Result<(), RunError> {
        let spent = match end {
            Settlement::Cost(spent) => spent,
            Settlement::Unseen => bound,
            Settlement::Unasked => Amount::ZERO,
        };
        let notices = self.ledger.settle(key, end).map_err(broken)?;
        let mut books = hold(&self.books);
        books.reserved = books.reserved.minus(bound);
        books.settled.add(spent);
        books.tell(notices);
        Ok(())
    }

    /// What was spent, and what people are to be told of it.
    pub(super) fn end(&self) -> (Amount, Vec<Notice>) {
        let books = hold(&self.books);
        (books.settled, books.notices.clone())
    }
}

impl Books {
    fn tell(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            if self.notices.iter().all(|told| told.about != notice.about) {
                self.notices.push(notice);
            }
        }
    }
}

fn broken(error: StorageError) -> RunError {
    RunError::Machine { message: error.to_string(), hints: Vec::new() }
}
