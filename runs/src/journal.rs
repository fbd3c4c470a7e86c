//! The journal: where the events of runs are kept, and what is durable when.
//!
//! # What an append promises
//!
//! An append names the run, the number of the last event that its writer has seen, and the
//! writer's epoch. It is one transaction: either all of its events stand in the journal with the
//! next numbers, or none does.
//!
//! | the journal has | answer | the writer |
//! |---|---|---|
//! | exactly what the writer has seen | appended | goes on |
//! | more, in the same epoch | [`JournalError::Behind`] | reads it and decides again |
//! | a later epoch | [`JournalError::Fenced`] | stops: another process drives the run |
//!
//! Events that must be on stable storage before anybody acts on them
//! ([`Event::is_durable`](maestro_core::run::Event::is_durable)) are synced before the append
//! returns. Others are written, so that they survive the process, and reach the disk with the next
//! sync; a power failure may lose the last of them, never one from the middle.
//!
//! Appends of many runs that come at the same time share a transaction and a sync (group commit).
//!
//! # Who may write
//!
//! The owner of a run holds its [`Lease`](crate::Lease) and has made itself known by an event
//! that began a new epoch. People who approve or cancel append without being owners, in the epoch
//! that they find; the owner learns of it by [`Journal::changes`].

pub mod sqlite;

use async_trait::async_trait;
use maestro_core::run::{ApplyError, Entry, Event, EventError, RunId, RunState, RunStatus};
use maestro_executor::storage::StorageError;
use tokio::sync::watch;

/// Events for the end of a journal.
#[derive(Clone, Debug)]
pub struct Append {
    /// Whose journal.
    pub run: RunId,
    /// The number of the last event that the writer has seen; 0 for a run that begins.
    pub after: u64,
    /// The writer's epoch; that of a new owner is one more than the journal's.
    pub epoch: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened, in order; at least one.
    pub events: Vec<Event>,
    /// How the run stands after it.
    pub status: RunStatus,
    /// The writer drives the run, so that nobody has to be told.
    pub by_driver: bool,
}

/// A run, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSummary {
    /// Its name.
    pub run: RunId,
    /// Its template.
    pub template: String,
    /// How it stands.
    pub status: RunStatus,
    /// Who began it.
    pub initiator: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_ms: u64,
    /// How many events it has.
    pub sequence: u64,
}

/// Why a journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Others have appended.
    #[error("the journal of run `{run}` has {last} events, not {expected}")]
    Behind {
        /// Whose journal.
        run: RunId,
        /// What the writer had seen.
        expected: u64,
        /// What there is.
        last: u64,
    },
    /// Another process drives the run.
    #[error("another process drives run `{run}`: its epoch is {epoch}, after {own}")]
    Fenced {
        /// Which run.
        run: RunId,
        /// The journal's epoch.
        epoch: u64,
        /// The writer's.
        own: u64,
    },
    /// There is no such run.
    #[error("there is no run `{0}`")]
    Unknown(RunId),
    /// There is such a run already.
    #[error("there is a run `{0}` already")]
    Exists(RunId),
    /// The storage failed. Nothing was appended.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another process has a file open that is needed alone.
    #[error("`{place}` is in use by another process")]
    InUse {
        /// The file.
        place: String,
    },
    /// A backup is taking its place, or was when its process died.
    #[error("`{place}` is being restored, or its restore was cut off")]
    Restoring {
        /// The file.
        place: String,
    },
    /// A file that was looked at is no whole journal.
    #[error("`{place}` is no sound journal: {why}")]
    Unsound {
        /// The file.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A stored event cannot be read.
    #[error("run `{run}`, event {sequence}: {source}")]
    Event {
        /// Whose.
        run: RunId,
        /// Which.
        sequence: u64,
        /// Why.
        source: EventError,
    },
    /// Stored events contradict each other.
    #[error("run `{run}`: {source}")]
    Fold {
        /// Whose.
        run: RunId,
        /// Why.
        source: ApplyError,
    },
}

/// Keeps the events of runs. See the module for what is promised.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends events; the number of the last one is the answer.
    async fn append(&self, append: Append) -> Result<u64, JournalError>;

    /// The events of a run after number `after`, at most `most`.
    async fn read(&self, run: &RunId, after: u64, most: usize) -> Result<Vec<Entry>, JournalError>;

    /// The number of a run's last event, and its epoch.
    async fn last(&self, run: &RunId) -> Result<(u64, u64), JournalError>;

    /// A fold that was kept, if any; a reader goes on from there.
    async fn snapshot(&self, run: &RunId) -> Result<Option<RunState>, JournalError>;

    /// Keeps a fold, so that the next reader need not begin at the beginning.
    async fn keep_snapshot(&self, state: &RunState) -> Result<(), JournalError>;

    /// Runs, the newest first, at most `most`.
    async fn list(&self, most: usize) -> Result<Vec<RunSummary>, JournalError>;

    /// Changes whenever somebody who does not drive a run may have appended to it, or another
    /// process to any.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How many events are read at once.
const READ_EVENTS: usize = 4096;

/// The present state of a run.
pub async fn load(journal: &dyn Journal, run: &RunId) -> Result<RunState, JournalError> {
    let state = match journal.snapshot(run).await? {
        Some(state) => state,
        None => {
            let first = journal.read(run, 0, 1).await?;
            let first = first.first().ok_or_else(|| JournalError::Unknown(run.clone()))?;
            RunState::begin(first)
                .map_err(|source| JournalError::Fold { run: run.clone(), source })?
        }
    };
    catch_up(journal, state).await
}

/// `state` with all events that have come since.
pub async fn catch_up(
    journal: &dyn Journal,
    mut state: RunState,
) -> Result<RunState, JournalError> {
    let run = state.created.run.clone();
    loop {
        let entries = journal.read(&run, state.sequence, READ_EVENTS).await?;
        for entry in &entries {
            state.apply(entry).map_err(|source| JournalError::Fold { run: run.clone(), source })?;
        }
        if entries.len() < READ_EVENTS {
            return Ok(state);
        }
    }
}
