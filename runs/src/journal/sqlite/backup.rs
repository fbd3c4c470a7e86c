//! Copies a journal while others append to it, and puts a copy in the place of a damaged one.
//!
//! A copy is written beside its place, looked at, synced, and renamed: what stands under the name
//! of a backup is a whole one, or the one before. Who is killed leaves `….part`, which the next
//! backup to that name takes over; two at once to one name are refused by a lock on it.
//!
//! # Restoring
//!
//! ```text
//! copy and look at the backup ── marker ── damaged files aside ── copy in place ── no marker
//! ```
//!
//! From the marker on nobody opens the journal until a restore has come to its end: a main file
//! without its log, or beside the log of another one, would be a journal that never was.
//! The ledger of tenants is another file, so that nothing that was spent is forgotten.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maestro_core::run::{RunId, RunState};
use maestro_executor::storage::StorageError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::guard::{Guard, beside, io, sync_folder};
use super::{reader, schema};
use crate::database;
use crate::journal::JournalError;

/// How often a copy is begun that others keep from beginning.
const TRIES: u32 = 600;
/// How long is waited before it is begun again.
const PAUSE: Duration = Duration::from_millis(50);
/// How many events are read at once.
const READ_EVENTS: usize = 4096;
/// What each file of SQLite begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What a journal's file holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// The number of the last event of each run.
    pub runs: BTreeMap<RunId, u64>,
    /// Runs whose events cannot be read or contradict each other. The file is as it was written.
    pub unreadable: Vec<JournalError>,
}

impl Survey {
    /// How many events it holds.
    pub fn events(&self) -> u64 {
        self.runs.values().sum()
    }
}

/// A run of which a damaged journal shows more than the backup that took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which.
    pub run: RunId,
    /// How many of its events the backup has; 0 if it does not have the run.
    pub kept: u64,
    /// How many events are lost.
    pub lost: u64,
}

/// What became of a journal that was restored.
#[derive(Debug)]
pub struct Restored {
    /// What it holds now.
    pub survey: Survey,
    /// Where the file is that stood in its place; none if there was none.
    pub aside: Option<PathBuf>,
    /// What that file shows and the backup does not have.
    pub losses: Vec<Loss>,
    /// Why that file could not be read to its end, if so.
    pub unread: Option<String>,
}

/// Copies the journal to `file`, and looks at the copy before it takes that name.
pub fn back_up(journal: &Path, file: &Path) -> Result<Survey, JournalError> {
    let _guard = Guard::shared(journal)?;
    is_free(journal, file)?;
    let part = Part::claim(file)?;
    copy(journal, &part.path)?;
    let survey = survey(&part.path)?;
    part.take_name(file)?;
    Ok(survey)
}

/// Puts a copy of `backup` in the place of the journal, whatever stands there. Nobody may have the
/// journal open.
pub fn restore(journal: &Path, backup: &Path, now_ms: u64) -> Result<Restored, JournalError> {
    let guard = Guard::alone(journal)?;
    let fresh = Part::claim(journal)?;
    copy(backup, &fresh.path)?;
    let survey = survey(&fresh.path)?;
    guard.mark()?;
    let aside = move_aside(journal, now_ms)?;
    fresh.take_name(journal)?;
    guard.clear()?;
    let (losses, unread) = match &aside {
        Some(aside) => losses(aside, &survey),
        None => (Vec::new(), None),
    };
    Ok(Restored { survey, aside, losses, unread })
}

/// Refuses to write over the journal, and over what is no backup.
fn is_free(journal: &Path, file: &Path) -> Result<(), JournalError> {
    let refuse =
        |why: &str| Err(StorageError::failed("write a backup to", file.display(), why).into());
    let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    let own = name(journal).zip(name(file)).is_some_and(|(own, other)| other.starts_with(&own));
    if own && folder(journal) == folder(&std::path::absolute(file).unwrap_or_default()) {
        return refuse("it is a name of the journal itself");
    }
    let mut head = Vec::new();
    match File::open(file).and_then(|file| file.take(16).read_to_end(&mut head)) {
        Ok(_) if head == MAGIC => Ok(()),
        Ok(_) => refuse("it is there, and is no backup"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => refuse(&error.to_string()),
    }
}

/// A file that is being written, under a name of its own, and locked.
struct Part {
    path: PathBuf,
    file: File,
    /// It has another name by now, and whoever locks a file of this one is somebody else.
    named: bool,
}

impl Part {
    fn claim(target: &Path) -> Result<Self, JournalError> {
        let path = beside(target, ".part");
        for _ in 0..TRIES {
            let open =
                File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = open.map_err(|e| io("write", &path, &e))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(JournalError::InUse { place: path.display().to_string() });
                }
                Err(errno) => return Err(io("lock", &path, &errno.into())),
            }
            // Who had the lock before may have given the file its name.
            let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| a.ino() == b.ino();
            let is_there = file.metadata().and_then(|own| Ok(same(&own, &path.metadata()?)));
            if is_there.unwrap_or(false) {
                let part = Self { path, file, named: false };
                part.empty()?;
                return Ok(part);
            }
        }
        Err(JournalError::InUse { place: path.display().to_string() })
    }

    /// Takes away what somebody who was killed left.
    fn empty(&self) -> Result<(), JournalError> {
        for more in ["-journal", "-wal", "-shm"] {
            let path = beside(&self.path, more);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("remove", &path, &e));
                }
                _ => {}
            }
        }
        self.file.set_len(0).map_err(|e| io("write", &self.path, &e))
    }

    fn take_name(mut self, target: &Path) -> Result<(), JournalError> {
        self.file.sync_all().map_err(|e| io("sync", &self.path, &e))?;
        std::fs::rename(&self.path, target).map_err(|e| io("rename", &self.path, &e))?;
        self.named = true;
        sync_folder(target)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Copies a database as it is at one instant, by SQLite's online backup: others go on writing.
fn copy(from: &Path, to: &Path) -> Result<(), JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let wrong = |path: &Path, e: &rusqlite::Error| database::failure("copy", path, e);
    let source = Connection::open_with_flags(from, flags).map_err(|e| wrong(from, &e))?;
    let mut target = Connection::open_with_flags(to, flags).map_err(|e| wrong(to, &e))?;
    {
        let backup = Backup::new(&source, &mut target).map_err(|e| wrong(to, &e))?;
        let mut tries = 0;
        loop {
            // All pages in one step: a copy in several would begin anew with each append.
            match backup.step(-1).map_err(|e| failed(from, to, &e))? {
                StepResult::Done => break,
                _ if tries < TRIES => tries += 1,
                _ => return Err(JournalError::InUse { place: from.display().to_string() }),
            }
            std::thread::sleep(PAUSE);
        }
    }
    drop(target);
    // One file, without a log beside it.
    let target = Connection::open_with_flags(to, flags).map_err(|e| wrong(to, &e))?;
    target.pragma_update(None, "journal_mode", "DELETE").map_err(|e| wrong(to, &e))?;
    Ok(())
}

/// Why a copy failed: what is copied is damaged, or the copy cannot be written.
fn failed(from: &Path, to: &Path, error: &rusqlite::Error) -> JournalError {
    let read = database::failure("copy", from, error);
    match read {
        StorageError::Failed { damaged: true, .. } => read.into(),
        _ => database::failure("write", to, error).into(),
    }
}

fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags);
    opened.map_err(|e| database::failure("open", path, &e).into())
}

/// Looks at everything in a journal's file: each page, and each event of each run.
fn survey(path: &Path) -> Result<Survey, JournalError> {
    let connection = open_to_read(path)?;
    let wrong = |e: rusqlite::Error| JournalError::from(database::failure("read", path, &e));
    let unsound = |why: String| JournalError::Unsound { place: path.display().to_string(), why };
    let told: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|e| unsound(e.to_string()))?;
    if told != "ok" {
        return Err(unsound(told));
    }
    let version: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
    if version != schema::LAYOUT.version {
        return Err(unsound(format!("it is no journal of version {}", schema::LAYOUT.version)));
    }
    let mut survey = Survey::default();
    reader::each_run(&connection, |run, last| {
        survey.runs.insert(run, last);
    })
    .map_err(wrong)?;
    for (run, last) in &survey.runs {
        if let Err(error) = fold(&connection, path, run, *last) {
            survey.unreadable.push(error);
        }
    }
    Ok(survey)
}

/// Folds a run from its first event to its last.
fn fold(connection: &Connection, path: &Path, run: &RunId, last: u64) -> Result<(), JournalError> {
    let mut state: Option<RunState> = None;
    loop {
        let after = state.as_ref().map_or(0, |state| state.sequence);
        let rows = reader::events(connection, run, after, READ_EVENTS)
            .map_err(|e| database::failure("read", path, &e))?;
        if rows.is_empty() {
            let place = path.display().to_string();
            let why = format!("run `{run}` has {after} of {last} events");
            return if after == last { Ok(()) } else { Err(JournalError::Unsound { place, why }) };
        }
        for row in rows {
            let sequence = row.sequence;
            let entry = row.decode().map_err(|source| {
                let run = run.clone();
                JournalError::Event { run, sequence, source }
            })?;
            let folded = match &mut state {
                Some(state) => state.apply(&entry),
                None => RunState::begin(&entry).map(|begun| state = Some(begun)),
            };
            folded.map_err(|source| JournalError::Fold { run: run.clone(), source })?;
        }
    }
}

/// Renames the journal's files; the main one's new name, if there was one.
fn move_aside(journal: &Path, now_ms: u64) -> Result<Option<PathBuf>, JournalError> {
    let aside = beside(journal, &format!(".damaged-{now_ms}"));
    let mut moved = None;
    for more in ["", "-wal", "-shm"] {
        let (from, to) = (beside(journal, more), beside(&aside, more));
        match std::fs::rename(&from, &to) {
            Ok(()) if more.is_empty() => moved = Some(to),
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("rename", &from, &e)),
        }
    }
    sync_folder(journal)?;
    Ok(moved)
}

/// What a damaged file shows that a backup does not have, as far as it can be read.
fn losses(damaged: &Path, backup: &Survey) -> (Vec<Loss>, Option<String>) {
    let mut losses = Vec::new();
    let read = open_to_read(damaged).map_err(|error| error.to_string()).and_then(|connection| {
        let each = reader::each_run(&connection, |run, last| {
            let kept = backup.runs.get(&run).copied().unwrap_or_default();
            if last > kept {
                losses.push(Loss { run, kept, lost: last - kept });
            }
        });
        each.map_err(|error| error.to_string())
    });
    (losses, read.err())
}
