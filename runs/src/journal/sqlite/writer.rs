//! The one thread of a process that writes: it commits all appends that wait together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use maestro_core::run::event::EVENT_VERSION;
use maestro_core::run::{Event, RunId};
use maestro_executor::storage::StorageError;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::SNAPSHOT_VERSION;
use crate::checkpoint::{Checkpoints, Point};
use crate::database::{self, signed};
use crate::journal::{Append, JournalError};

/// Most appends that wait; further ones wait at the door.
const WAITING_MAX: usize = 4096;
/// Most appends of one transaction.
const GROUP_MAX: usize = 512;
/// How often it is looked whether another process has written.
const LOOK: Duration = Duration::from_millis(50);

type Answer = oneshot::Sender<Result<u64, JournalError>>;

enum Request {
    Append(Append, Answer),
    Snapshot { run: RunId, sequence: u64, body: String, answer: Answer },
}

/// The way to the thread; dropping it ends the thread, and waits until its file is closed.
pub struct Writer {
    /// Taken when it is dropped.
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    place: String,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It answers for each group by itself; what is left of a panic is on stderr.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Starts the thread.
    pub fn start(
        path: Arc<PathBuf>,
        connection: Connection,
        checkpoints: Arc<dyn Checkpoints>,
        tell: watch::Sender<u64>,
    ) -> Result<Self, JournalError> {
        let (requests, waiting) = sync_channel(WAITING_MAX);
        let place = path.display().to_string();
        let thread = Thread { path, connection, checkpoints, tell, seen: 0 };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || thread.work(&waiting))
            .map_err(|e| StorageError::failed("start the writer of", &place, e))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), place })
    }

    /// Appends, once the events before it are in.
    pub async fn append(&self, append: Append) -> Result<u64, JournalError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Append(append, answer), answered).await
    }

    /// Keeps a fold.
    pub async fn keep_snapshot(
        &self,
        run: RunId,
        sequence: u64,
        body: String,
    ) -> Result<(), JournalError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Snapshot { run, sequence, body, answer }, answered).await.map(|_| ())
    }

    async fn ask(
        &self,
        request: Request,
        answered: oneshot::Receiver<Result<u64, JournalError>>,
    ) -> Result<u64, JournalError> {
        let ended = || {
            JournalError::from(StorageError::failed(
                "write to",
                &self.place,
                "its writer has ended",
            ))
        };
        let mut request = Some(request);
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        while let Some(next) = request.take() {
            match requests.try_send(next) {
                Ok(()) => {}
                Err(std::sync::mpsc::TrySendError::Full(back)) => {
                    request = Some(back);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(ended()),
            }
        }
        answered.await.map_err(|_| ended())?
    }
}

struct Thread {
    path: Arc<PathBuf>,
    connection: Connection,
    checkpoints: Arc<dyn Checkpoints>,
    tell: watch::Sender<u64>,
    seen: i64,
}

impl Thread {
    fn work(mut self, waiting: &Receiver<Request>) {
        loop {
            match waiting.recv_timeout(LOOK) {
                Ok(first) => {
                    let more = std::iter::from_fn(|| waiting.try_recv().ok()).take(GROUP_MAX - 1);
                    let group: Vec<Request> = std::iter::once(first).chain(more).collect();
                    self.commit(group);
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tells those who wait when another process has written.
    fn look(&mut self) {
        let version = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        if let Ok(version) = version
            && version != self.seen
        {
            self.seen = version;
            self.tell.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        let (mut answers, mut results) = (Vec::new(), Vec::new());
        let durable = group.iter().any(Request::is_durable);
        let what = format!("{} of {}", if durable { "sync" } else { "write" }, group.len());
        let news = group.iter().any(Request::is_news);
        let done = self.transact(durable, &what, |change, path| {
            for request in &group {
                match insert(change, request)? {
                    Ok(last) => results.push(Ok(last)),
                    Err(refused) => results.push(Err(refused.named(path, request))),
                }
            }
            Ok(())
        });
        answers.extend(group.into_iter().map(Request::into_answer));
        match done {
            Ok(()) => {
                if news {
                    self.tell.send_modify(|count| *count = count.wrapping_add(1));
                }
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for answer in answers {
                    let error = database::failure("write to", &self.path, &error);
                    let _ = answer.send(Err(error.into()));
                }
            }
        }
    }

    fn transact(
        &mut self,
        durable: bool,
        what: &str,
        fill: impl FnOnce(&Transaction<'_>, &Path) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let level = if durable { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", level)?;
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        fill(&change, &self.path)?;
        self.checkpoints.reached(Point::BeforeCommit, what);
        change.commit()?;
        self.checkpoints.reached(Point::AfterCommit, what);
        Ok(())
    }
}

impl Request {
    fn is_durable(&self) -> bool {
        match self {
            Self::Append(append, _) => append.events.iter().any(Event::is_durable),
            Self::Snapshot { .. } => false,
        }
    }

    /// Whether some driver may have to hear of it.
    fn is_news(&self) -> bool {
        matches!(self, Self::Append(append, _) if !append.by_driver)
    }

    fn into_answer(self) -> Answer {
        match self {
            Self::Append(_, answer) | Self::Snapshot { answer, .. } => answer,
        }
    }
}

/// Why one request of a group is refused, while the others go in.
enum Refused {
    Behind { last: u64 },
    Fenced { epoch: u64 },
    Unknown,
    Exists,
    Unreadable(String),
}

impl Refused {
    fn named(self, path: &Path, request: &Request) -> JournalError {
        let (run, after, own) = match request {
            Request::Append(append, _) => (append.run.clone(), append.after, append.epoch),
            Request::Snapshot { run, sequence, .. } => (run.clone(), *sequence, 0),
        };
        match self {
            Self::Behind { last } => JournalError::Behind { run, expected: after, last },
            Self::Fenced { epoch } => JournalError::Fenced { run, epoch, own },
            Self::Unknown => JournalError::Unknown(run),
            Self::Exists => JournalError::Exists(run),
            Self::Unreadable(why) => {
                StorageError::failed("encode an event for", path.display(), why).into()
            }
        }
    }
}

fn insert(change: &Transaction<'_>, request: &Request) -> rusqlite::Result<Result<u64, Refused>> {
    match request {
        Request::Append(append, _) => insert_events(change, append),
        Request::Snapshot { run, sequence, body, .. } => {
            change
                .prepare_cached(
                    "INSERT INTO snapshots (run, sequence, version, body)
                     SELECT number, ?2, ?3, ?4 FROM runs WHERE run = ?1
                     ON CONFLICT (run) DO UPDATE SET sequence = ?2, version = ?3, body = ?4",
                )?
                .execute(params![run.as_str(), signed(*sequence), SNAPSHOT_VERSION, body])?;
            Ok(Ok(*sequence))
        }
    }
}

fn insert_events(
    change: &Transaction<'_>,
    append: &Append,
) -> rusqlite::Result<Result<u64, Refused>> {
    let bodies: Result<Vec<String>, _> = append.events.iter().map(Event::encode).collect();
    let bodies = match bodies {
        Ok(bodies) => bodies,
        Err(error) => return Ok(Err(Refused::Unreadable(error.to_string()))),
    };
    let number = match place(change, append)? {
        Ok(number) => number,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut event = change.prepare_cached(
        "INSERT INTO events (run, sequence, epoch, at_ms, version, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut last = append.after;
    for body in bodies {
        last = last.saturating_add(1);
        let (sequence, epoch, at_ms) = (signed(last), signed(append.epoch), signed(append.at_ms));
        event.execute(params![number, sequence, epoch, at_ms, EVENT_VERSION, body])?;
    }
    let mut run = change.prepare_cached(
        "UPDATE runs SET sequence = ?2, epoch = ?3, updated_ms = ?4, status = ?5 WHERE number = ?1",
    )?;
    let (epoch, at_ms) = (signed(append.epoch), signed(append.at_ms));
    run.execute(params![number, signed(last), epoch, at_ms, append.status.name()])?;
    Ok(Ok(last))
}

/// The number of the run, if the append fits the end of its journal.
fn place(change: &Transaction<'_>, append: &Append) -> rusqlite::Result<Result<i64, Refused>> {
    let mut select =
        change.prepare_cached("SELECT number, sequence, epoch FROM runs WHERE run = ?1")?;
    let found = select
        .query_row([append.run.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let (after, own) = (signed(append.after), signed(append.epoch));
    let owned = i64::from(matches!(append.events.first(), Some(Event::Owned { .. })));
    let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
    match (found, append.events.first()) {
        (None, Some(Event::RunCreated(created))) => {
            let mut insert = change.prepare_cached(
                "INSERT INTO runs
                     (run, template, initiator, status, created_ms, updated_ms, sequence, epoch)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0, ?6)",
            )?;
            insert.execute(params![
                append.run.as_str(),
                created.plan.template,
                created.initiator.to_string(),
                append.status.name(),
                signed(append.at_ms),
                own,
            ])?;
            Ok(Ok(change.last_insert_rowid()))
        }
        (None, _) => Ok(Err(Refused::Unknown)),
        (Some(_), Some(Event::RunCreated(_))) => Ok(Err(Refused::Exists)),
        (Some((_, _, epoch)), _) if epoch + owned > own => {
            Ok(Err(Refused::Fenced { epoch: unsigned(epoch) }))
        }
        (Some((_, last, _)), _) if last != after => {
            Ok(Err(Refused::Behind { last: unsigned(last) }))
        }
        (Some((number, _, _)), _) => Ok(Ok(number)),
    }
}
