//! The embedded journal: one SQLite file, many processes.
//!
//! Write-ahead logging lets readers and one writer work at once. One thread of each process writes
//! (`writer.rs`): it takes all appends that wait, and commits them together. A group with an event
//! that must be durable is committed with `synchronous=FULL`, which syncs the log; another one with
//! `NORMAL`, which only writes it, and so survives the process but not the machine.
//!
//! ```text
//! runs       a row for each run: last event, epoch, and what lists show
//! events     (run, sequence) → epoch, time, version, JSON
//! snapshots  run → a fold, as JSON with the version of its form
//! ```
//!
//! A copy of the file can be made while it is in use ([`back_up`]), and put in its place while it
//! is not ([`restore`]). [`crate::database`] says how the file is opened.

mod backup;
mod guard;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use maestro_core::run::{Entry, RunId, RunState};
use maestro_executor::storage::StorageError;
use rusqlite::Connection;
use tokio::sync::watch;

pub use backup::{Loss, Restored, Survey, back_up, restore};

use super::{Append, Journal, JournalError, RunSummary};
use crate::checkpoint::Checkpoints;
use crate::database;
use guard::Guard;
use writer::Writer;

/// The version of a stored fold; one of another version is not used.
const SNAPSHOT_VERSION: u32 = 1;

/// The journal in one file.
pub struct SqliteJournal {
    path: Arc<PathBuf>,
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
    changes: watch::Receiver<u64>,
    /// The last to go: whoever waits for it finds the file closed.
    guard: Arc<Guard>,
}

impl SqliteJournal {
    /// Opens the file at `path`, or makes it.
    pub fn open(path: &Path, checkpoints: Arc<dyn Checkpoints>) -> Result<Self, JournalError> {
        let path = Arc::new(path.to_owned());
        let guard = Guard::shared(&path)?;
        let connection = database::open(&path, &schema::LAYOUT)?;
        let (tell, changes) = watch::channel(0);
        let writer = Writer::start(path.clone(), connection, checkpoints, tell)?;
        Ok(Self { path, readers: Mutex::new(Vec::new()), writer, changes, guard: Arc::new(guard) })
    }

    /// Reads with a connection of the pool, on a thread that may block.
    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (path, guard) = (self.path.clone(), self.guard.clone());
        let kept = self.readers.lock().ok().and_then(|mut readers| readers.pop());
        let done = tokio::task::spawn_blocking(move || {
            let connection = match kept {
                Some(connection) => connection,
                None => database::connect(&path)?,
            };
            let result = read(&connection).map_err(|e| database::failure("read", &path, &e))?;
            Ok::<_, JournalError>((connection, result, guard))
        });
        let (connection, result, _guard) =
            done.await.map_err(|e| StorageError::failed("read", self.path.display(), e))??;
        if let Ok(mut readers) = self.readers.lock() {
            readers.push(connection);
        }
        Ok(result)
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, append: Append) -> Result<u64, JournalError> {
        self.writer.append(append).await
    }

    async fn read(&self, run: &RunId, after: u64, most: usize) -> Result<Vec<Entry>, JournalError> {
        let name = run.clone();
        let rows = self.read_with(move |c| reader::events(c, &name, after, most)).await?;
        rows.into_iter()
            .map(|row| {
                let sequence = row.sequence;
                row.decode().map_err(|source| JournalError::Event {
                    run: run.clone(),
                    sequence,
                    source,
                })
            })
            .collect()
    }

    async fn last(&self, run: &RunId) -> Result<(u64, u64), JournalError> {
        let name = run.clone();
        let last = self.read_with(move |c| reader::last(c, &name)).await?;
        last.ok_or_else(|| JournalError::Unknown(run.clone()))
    }

    async fn snapshot(&self, run: &RunId) -> Result<Option<RunState>, JournalError> {
        let name = run.clone();
        let body = self.read_with(move |c| reader::snapshot(c, &name)).await?;
        let state = body.and_then(|body| serde_json::from_str::<RunState>(&body).ok());
        Ok(state.map(|mut state| {
            state.index();
            state
        }))
    }

    async fn keep_snapshot(&self, state: &RunState) -> Result<(), JournalError> {
        let body = serde_json::to_string(state)
            .map_err(|e| StorageError::failed("encode a snapshot for", self.path.display(), e))?;
        self.writer.keep_snapshot(state.created.run.clone(), state.sequence, body).await
    }

    async fn list(&self, most: usize) -> Result<Vec<RunSummary>, JournalError> {
        self.read_with(move |c| reader::list(c, most)).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}
