//! Answers for the steps of runs: found as a build finds them, else asked for by whoever may call
//! out, and then remembered.
//!
//! Nothing here calls the outside world or writes the lock: an answer that a run paid for lies in
//! the cache, where the next run finds it, until a user has [`promote`] write it down.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::civil::Date;
use maestro_cas::{Store, StoreError};
use maestro_core::{Digest, Label};

use super::answer::{self, AnswerError};
use super::disk::LockError;
use super::lock::{ModelPin, Record};
use super::miss::FindError;
use super::request::Question;
use super::update::{self, Asked, LiveAnswer, Staged, UpdateReport};
use super::{FoundIn, Reach, Records, memory};

/// The records of a workspace and what its cache remembers beyond them.
#[derive(Debug)]
pub struct Answers {
    records: Records,
    store: Store,
    today: fn() -> Date,
}

/// An answer with its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// How it came to be.
    pub record: Record,
    /// The answer, in the form in which it is stored.
    pub bytes: Vec<u8>,
    /// Where it was found; `None` if it was asked for just now.
    pub found_in: Option<FoundIn>,
}

impl Answers {
    /// Answers out of these records and this store; new ones bear the date of `today`, in UTC.
    pub fn new(records: Records, store: Store, today: fn() -> Date) -> Self {
        Self { records, store, today }
    }

    /// What the lock says that a model's name stands for.
    pub fn pin(&self, model: &str) -> Option<&ModelPin> {
        self.records.lock().models.get(model)
    }

    /// Finds the answer to a question, of a model that is `pin`.
    pub fn find(
        &self,
        label: &Label,
        question: &Question,
        pin: &ModelPin,
    ) -> Result<Option<Given>, FindError> {
        let failed = |source| FindError::Store { source };
        if self.pin(&question.request.model).is_some() {
            match self.records.search(label, question, &self.store, Reach::Cache) {
                Ok(found) => {
                    let Some(file) = found.result.output_files.first() else { return Ok(None) };
                    let bytes = self.store.read(&file.digest).map_err(failed)?;
                    let (record, found_in) = (found.record.record, Some(found.record.found_in));
                    return Ok(Some(Given { record, bytes, found_in }));
                }
                // The lock may name an answer that this machine has not got, since it was too long
                // to stand there; one that was asked for since then lies in the cache.
                Err(FindError::Miss(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let identity = pin.identity().unwrap_or_default();
        let Some((record, bytes)) = memory::recall(&self.store, question, &identity)? else {
            return Ok(None);
        };
        let fits = answer::check(&bytes, question.request.schema.as_ref()).is_ok();
        Ok(fits.then_some(Given { record, bytes, found_in: Some(FoundIn::Cache) }))
    }

    /// Checks a new answer and remembers it.
    pub fn keep(
        &self,
        label: &Label,
        question: &Question,
        pin: &ModelPin,
        (bytes, answer): (Vec<u8>, &LiveAnswer),
    ) -> Result<Given, FindError> {
        let identity = pin.identity().unwrap_or_default();
        let key = question.key(&identity)?;
        let asked = Asked { question, identity: &identity, answer, bytes: &bytes };
        let record = asked.record(label, key, (self.today)());
        memory::remember(&self.store, question, &record, &bytes)?;
        Ok(Given { record, bytes, found_in: None })
    }

    /// Stores an answer and its record, by whose digest a run's journal names them.
    pub fn store(&self, given: &Given) -> Result<Digest, StoreError> {
        self.store.put_known(&given.record.content, &given.bytes)?;
        let json = serde_json::to_vec(&given.record).expect("a record has only text keys");
        self.store.put_bytes(&json)
    }
}

/// The form in which an answer to a question is stored, if it is one.
pub fn stored_form(question: &Question, text: &str) -> Result<Vec<u8>, AnswerError> {
    answer::normalise(text, question.request.schema.as_ref())
}

/// Writes what runs have recorded into the lock of a workspace. Records are named by the digests
/// that [`Answers::store`] gave.
pub fn promote(
    root: &Path,
    store: &Store,
    records: &[Digest],
) -> Result<UpdateReport, PromoteError> {
    let mut staged = Vec::new();
    let mut pins = BTreeMap::new();
    for digest in records {
        let gone = |source| PromoteError::Gone { digest: *digest, source };
        let json = store.read(digest).map_err(gone)?;
        let record: Record = serde_json::from_slice(&json)
            .map_err(|source| PromoteError::Other { digest: *digest, source })?;
        let bytes = store.read(&record.content).map_err(gone)?;
        if let Some(pin) = ModelPin::of_identity(&record.identity) {
            pins.insert(record.model.clone(), pin);
        }
        staged.push(Staged { record, bytes });
    }
    Ok(update::write(root, &staged, &pins)?)
}

/// Why a run's records are not in the lock.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The cache no longer has one.
    #[error("the cache no longer has the record `{digest}` or its answer")]
    Gone {
        /// The record.
        digest: Digest,
        /// The store's reason.
        #[source]
        source: StoreError,
    },
    /// It was written by another Maestro.
    #[error("the record `{digest}` cannot be read")]
    Other {
        /// The record.
        digest: Digest,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// The lock's files fail.
    #[error(transparent)]
    Lock(#[from] LockError),
}
