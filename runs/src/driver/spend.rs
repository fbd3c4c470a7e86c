//! How a driver has the tenant's ledger pay for what its tasks do.
//!
//! The run's own budget is a part of its fold, and is decided with it; the tenant's is shared with
//! other runs, so that it is asked beside the journal. [`crate::ledger`] says what becomes of a
//! reservation when the process dies between the two.

use std::sync::Arc;

use maestro_core::run::{Amount, Command, Failure, FailureClass, Notice, TaskId};
use maestro_executor::ledger::{ClaimKey, Ledger, Settlement};
use maestro_executor::step::WorkFailure;
use maestro_executor::storage::StorageError;

use super::{DriveError, Driver};

/// The reservation of one attempt of a task.
#[derive(Clone)]
pub struct Purse {
    ledger: Arc<dyn Ledger>,
    key: ClaimKey,
}

impl Purse {
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Ledger, &ClaimKey) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let Self { ledger, key } = self.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&*ledger, &key)).await;
        asked.unwrap_or_else(|error| {
            let place = format!("tenant `{}`", self.ledger.tenant());
            let (doing, why) = ("ask the ledger of", error.to_string());
            Err(StorageError::failed(doing, place, why))
        })
    }

    async fn reserve(&self, amount: Amount) -> Result<Result<Vec<Notice>, Failure>, StorageError> {
        let reserved = self.ask(move |ledger, key| ledger.reserve(key, amount)).await?;
        Ok(reserved.map_err(|denied| {
            let failure = Failure::new(FailureClass::Budget, denied.message);
            Failure { hints: denied.hints, ..failure }
        }))
    }

    /// Settles what a call came to.
    pub async fn settle(
        &self,
        came_to: Result<Amount, &WorkFailure>,
    ) -> Result<Vec<Notice>, StorageError> {
        let end = match came_to.map_err(|failed| failed.spent) {
            Ok(spent) | Err(Some(spent)) => Settlement::Cost(spent),
            Err(None) => Settlement::Unseen,
        };
        self.ask(move |ledger, key| ledger.settle(key, end)).await
    }

    /// Gives a reservation back whose call is not made.
    pub async fn give_back(&self) -> Result<(), StorageError> {
        self.ask(|ledger, key| ledger.settle(key, Settlement::Unasked)).await.map(|_| ())
    }
}

impl Driver {
    fn purse(&self, task: TaskId) -> Purse {
        let key = ClaimKey {
            holder: self.holder(),
            call: String::from(task),
            serial: self.state.ledger.taken(task),
        };
        Purse { ledger: self.ledger.clone(), key }
    }

    fn holder(&self) -> String {
        format!("run {}", self.state.created.run)
    }

    /// Reserves on behalf of a task, unless its run has no room for it, which the fold says.
    pub(super) async fn reserve(
        &mut self,
        task: TaskId,
        asked: Option<Amount>,
    ) -> Result<Result<Option<Purse>, Failure>, DriveError> {
        let Some(amount) = asked.filter(|amount| *amount != Amount::ZERO) else {
            return Ok(Ok(None));
        };
        let cap = self.state.plan().step(task.step).map(|plan| plan.cap).unwrap_or_default();
        let caps = (self.state.plan().cap, cap);
        if self.state.ledger.room(task.step, amount, caps).is_err() {
            return Ok(Ok(None));
        }
        let purse = self.purse(task);
        match purse.reserve(amount).await? {
            Ok(notices) => {
                self.tell(notices).await?;
                Ok(Ok(Some(purse)))
            }
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Journals what people are to be told, once.
    pub(super) async fn tell(&mut self, notices: Vec<Notice>) -> Result<(), DriveError> {
        match notices.is_empty() {
            true => Ok(()),
            false => self.act(Command::Tell { notices }).await,
        }
    }

    /// Ends the reservations that an owner before this one left: a call that the journal knows of
    /// may have been made, and one that it does not know of was not.
    pub(super) async fn settle_what_was_left(&mut self) -> Result<(), DriveError> {
        let costs = |uses: &str| self.registry.find_worker(uses).is_ok_and(|worker| worker.costs());
        if !self.state.plan().steps.iter().any(|step| costs(&step.uses)) {
            return Ok(());
        }
        let purse = |key| Purse { ledger: self.ledger.clone(), key };
        let whole = ClaimKey { holder: self.holder(), call: String::new(), serial: 0 };
        let left = purse(whole).ask(|ledger, key| ledger.open_claims(&key.holder)).await?;
        let mut notices = Vec::new();
        for key in left {
            let task = TaskId::try_from(key.call.clone()).ok();
            let journalled = task.is_none_or(|task| key.serial < self.state.ledger.taken(task));
            let end = if journalled { Settlement::Unseen } else { Settlement::Unasked };
            notices.extend(purse(key).ask(move |ledger, key| ledger.settle(key, end)).await?);
        }
        self.tell(notices).await
    }
}
