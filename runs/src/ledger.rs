//! The ledger of the tenants of one machine: one SQLite file, many processes.
//!
//! It is a file of its own beside the journals, so that a journal that is restored from a backup
//! takes no spending back, and so that commands which drive no run can spend.
//!
//! ```text
//! claims     a row for each reservation: key, amount, and how it ended
//! periods    (tenant, day or month, its start) → what is settled and reserved in it
//! breakers   tenant → the breaker that opened last, and who closed it
//! history    everything that happened, in order, as JSON; nothing reads it to decide
//! ```
//!
//! A reservation is one transaction that takes the write lock before it looks, so that of any
//! number of processes and threads one looks and books at a time, and none books what another one
//! has booked. `synchronous=FULL`: what was granted is on stable storage before anybody calls.
//!
//! | a process dies | the reservation | what its work costs the tenant |
//! |---|---|---|
//! | after it reserved, before the run's journal says so | is open; the run that goes on reserves under the same key, in its place | once |
//! | after the journal says so, before the end is settled | is open, and settled in full by the run that goes on | what was reserved |
//! | after the end is settled, before the journal says so | has ended | what it cost |
//!
//! So an end is settled before it is journalled: what nobody goes on with counts in full.

mod books;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_core::run::{Amount, Notice};
use maestro_core::tenant::{Accounts, TenantCaps, TenantName, admit};
use maestro_executor::ledger::{ClaimKey, Denied, Ledger, LedgerEntry, LedgerEvent, Settlement};
use maestro_executor::storage::StorageError;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::checkpoint::{Checkpoints, Point};
use crate::database;
use crate::driver::Clock;
use books::Books;

/// The ledger in one file, as one tenant sees it.
pub struct SqliteLedger {
    path: PathBuf,
    tenant: TenantName,
    caps: TenantCaps,
    clock: Arc<dyn Clock>,
    checkpoints: Arc<dyn Checkpoints>,
    /// Opened when it is needed first: most runs spend nothing.
    connection: Mutex<Option<Connection>>,
}

impl SqliteLedger {
    /// The ledger of `tenant` in the file at `path`, which is made when something is written.
    pub fn new(
        path: &Path,
        (tenant, caps): (TenantName, TenantCaps),
        clock: Arc<dyn Clock>,
        checkpoints: Arc<dyn Checkpoints>,
    ) -> Self {
        let (path, connection) = (path.to_owned(), Mutex::default());
        Self { path, tenant, caps, clock, checkpoints, connection }
    }

    /// Makes one transaction, which sees what every other one before it has done, at a time that
    /// is read inside of it.
    fn transact<T>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&Books<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StorageError> {
        let wrong = |error: rusqlite::Error| database::failure(doing, &self.path, &error);
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match slot.as_mut() {
            Some(connection) => connection,
            None => slot.insert(database::open(&self.path, &books::LAYOUT)?),
        };
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction: Transaction<'_> = begun.map_err(wrong)?;
        let now_ms = self.clock.now_ms();
        let books = Books { change: &transaction, now_ms };
        let done = change(&books).map_err(wrong)?;
        self.checkpoints.reached(Point::BeforeCommit, doing);
        transaction.commit().map_err(wrong)?;
        self.checkpoints.reached(Point::AfterCommit, doing);
        Ok(done)
    }

    /// The rate is the configuration of this tenant, and says nothing of another one.
    fn caps_of(&self, tenant: &str) -> TenantCaps {
        if tenant == self.tenant.as_str() { self.caps } else { TenantCaps::default() }
    }
}

impl Ledger for SqliteLedger {
    fn reserve(
        &self,
        key: &ClaimKey,
        asked: Amount,
    ) -> Result<Result<Vec<Notice>, Denied>, StorageError> {
        self.transact("reserve in", |books| {
            if let Some(open) = books.open_claim(key)? {
                // Whoever held it has not called.
                books.settle(key, &open, (open.reserved, Amount::ZERO))?;
            }
            let accounts = books.accounts(&self.tenant)?;
            match admit(&self.tenant, &self.caps, &accounts, asked, books.now_ms) {
                Ok(notices) => {
                    books.begin(&self.tenant, key, asked)?;
                    Ok(Ok(notices))
                }
                Err(denial) => {
                    Ok(Err(Denied { message: denial.message(&self.tenant), hints: denial.hints() }))
                }
            }
        })
    }

    fn settle(&self, key: &ClaimKey, end: Settlement) -> Result<Vec<Notice>, StorageError> {
        self.transact("settle in", |books| {
            let (claim, reserved) = match (books.open_claim(key)?, end) {
                (Some(claim), _) => {
                    let reserved = claim.reserved;
                    (claim, reserved)
                }
                // It has ended. That it cost more than was thought is still news.
                (None, Settlement::Cost(_)) => match books.ended_claim(key)? {
                    Some(claim) => (claim, Amount::ZERO),
                    None => return Ok(Vec::new()),
                },
                (None, Settlement::Unseen | Settlement::Unasked) => return Ok(Vec::new()),
            };
            let spent = match end {
                Settlement::Cost(amount) => amount,
                Settlement::Unseen => claim.reserved,
                Settlement::Unasked => Amount::ZERO,
            };
            if claim.ended && !spent.exceeds(claim.spent) {
                return Ok(Vec::new());
            }
            let (tenant, bound) = (claim.tenant.clone(), claim.reserved);
            books.settle(key, &claim, (reserved, spent))?;
            let opened = books.look_at_breaker(&tenant, &self.caps_of(&tenant), (bound, spent))?;
            Ok(opened.into_iter().collect())
        })
    }

    fn open_claims(&self, holder: &str) -> Result<Vec<ClaimKey>, StorageError> {
        self.transact("read", |books| books.open_claims(holder))
    }

    fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    fn accounts(&self) -> Result<Accounts, StorageError> {
        self.transact("read", |books| books.accounts(&self.tenant))
    }

    fn close_breaker(&self, by: &str, reason: &str) -> Result<bool, StorageError> {
        self.transact("close the breaker in", |books| {
            let open = books.breaker(self.tenant.as_str())?.is_some();
            if open {
                let (by, reason) = (by.to_owned(), reason.to_owned());
                books.close_breaker(self.tenant.as_str())?;
                books.note(self.tenant.as_str(), &LedgerEvent::BreakerClosed { by, reason })?;
            }
            Ok(open)
        })
    }

    fn history(&self, most: usize) -> Result<Vec<LedgerEntry>, StorageError> {
        self.transact("read", |books| books.history(self.tenant.as_str(), most))
    }
}
