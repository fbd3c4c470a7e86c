//! The interface between whoever makes calls that cost, and the ledger of a tenant's budget.
//!
//! Runs and `lock --update` reserve the most that a call can cost before they make it, and settle
//! afterwards; [`maestro_core::tenant`] decides what is granted. Who makes calls does not know
//! which tenant pays, nor what its caps are: a ledger is made for one tenant.
//!
//! # Keys
//!
//! A reservation has a key that a process which goes on with the work of a dead one finds again.
//! Whoever reserves under a key that has an open reservation has not called: its reservation takes
//! the place of the open one, so that a reservation that is replayed is not taken twice.
//!
//! # Ends
//!
//! | end | counts as |
//! |---|---|
//! | [`Settlement::Cost`] | what it cost, also where that is more than was reserved |
//! | [`Settlement::Unseen`] | all that was reserved |
//! | [`Settlement::Unasked`] | nothing |
//! | none, the process died | all that was reserved, until one of the others takes its place |

use maestro_core::run::{Amount, Notice};
use maestro_core::tenant::{Accounts, Breaker, TenantName};
use serde::{Deserialize, Serialize};

use crate::storage::StorageError;

/// The name of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimKey {
    /// Who calls: a run, or one invocation of a command.
    pub holder: String,
    /// What for.
    pub call: String,
    /// How often the holder has called for that before.
    pub serial: u32,
}

/// How a reservation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The call cost this.
    Cost(Amount),
    /// The call may have been made, and nobody saw its end.
    Unseen,
    /// The call certainly was not made.
    Unasked,
}

/// A reservation that is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// One sentence without a final period.
    pub message: String,
    /// What can be done.
    pub hints: Vec<String>,
}

/// What happened to the budget of a tenant. The JSON form has a field `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LedgerEvent {
    /// A reservation was granted.
    Reserved {
        /// Under this key.
        key: ClaimKey,
        /// Which is the most that the call can cost.
        amount: Amount,
    },
    /// A reservation ended.
    Settled {
        /// That of this key.
        key: ClaimKey,
        /// What is reserved no more.
        reserved: Amount,
        /// What is spent in its place.
        spent: Amount,
    },
    /// The breaker opened.
    BreakerOpened {
        /// Why, and until when.
        breaker: Breaker,
    },
    /// Somebody closed the breaker.
    BreakerClosed {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// A line of a ledger's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its place, counted from 1; those of other tenants have places between them.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub event: LedgerEvent,
}

/// The durable accounts of one tenant, shared by all processes that spend for it.
///
/// Each method is one transaction, and what it says stands on stable storage when it returns. They
/// may block: on storage, and on others who are at the same ledger.
pub trait Ledger: Send + Sync {
    /// Reserves `asked`, if caps and breaker let it; what people are to be told, or why not.
    fn reserve(
        &self,
        key: &ClaimKey,
        asked: Amount,
    ) -> Result<Result<Vec<Notice>, Denied>, StorageError>;

    /// Ends a reservation; what people are to be told. The first end stands, and a later one can
    /// only raise what was spent.
    fn settle(&self, key: &ClaimKey, end: Settlement) -> Result<Vec<Notice>, StorageError>;

    /// The keys of a holder's reservations that have no end, in no order.
    fn open_claims(&self, holder: &str) -> Result<Vec<ClaimKey>, StorageError>;

    /// Whose accounts they are.
    fn tenant(&self) -> &TenantName;

    /// The accounts as they are now.
    fn accounts(&self) -> Result<Accounts, StorageError>;

    /// Closes the breaker; whether it was open.
    fn close_breaker(&self, by: &str, reason: &str) -> Result<bool, StorageError>;

    /// The newest entries of the history, at most `most`, in their order.
    fn history(&self, most: usize) -> Result<Vec<LedgerEntry>, StorageError>;
}

/// The accounts of whoever keeps none: it grants everything, and remembers nothing.
#[derive(Debug)]
pub struct Unkept(
    /// Whose they would be.
    pub TenantName,
);

impl Ledger for Unkept {
    fn reserve(
        &self,
        _: &ClaimKey,
        _: Amount,
    ) -> Result<Result<Vec<Notice>, Denied>, StorageError> {
        Ok(Ok(Vec::new()))
    }
    fn settle(&self, _: &ClaimKey, _: Settlement) -> Result<Vec<Notice>, StorageError> {
        Ok(Vec::new())
    }
    fn open_claims(&self, _: &str) -> Result<Vec<ClaimKey>, StorageError> {
        Ok(Vec::new())
    }
    fn tenant(&self) -> &TenantName {
        &self.0
    }
    fn accounts(&self) -> Result<Accounts, StorageError> {
        Ok(Accounts::default())
    }
    fn close_breaker(&self, _: &str, _: &str) -> Result<bool, StorageError> {
        Ok(false)
    }
    fn history(&self, _: usize) -> Result<Vec<LedgerEntry>, StorageError> {
        Ok(Vec::new())
    }
}
