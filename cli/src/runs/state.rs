//! Where the state of runs lies: a folder that is no cache, since nothing can make it again.
//!
//! `MAESTRO_STATE`, else `$XDG_STATE_HOME/maestro`, else `~/.local/state/maestro`: `runs.db` is the
//! journal, `backups/` has a copy of it, `budget.db` is the ledger of what calls cost, `leases/` a
//! lock for each run and group, `logs/` what detached runs print, and `roles.toml` says who may
//! approve.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use maestro_core::run::{Principal, RunId};
use maestro_executor::storage::StorageError;
use maestro_runs::journal::sqlite::SqliteJournal;
use maestro_runs::{Checkpoints, Journal, JournalError, RunSummary};

use super::identity;
use crate::config::non_empty;
use crate::exit::Failure;

/// Most runs that are looked through for a name.
const RUNS_MAX: usize = 10_000;

/// The folder and its journal.
pub struct State {
    /// The folder.
    pub folder: PathBuf,
    /// The journal in it.
    pub journal: Arc<dyn Journal>,
}

/// The folder, by the environment.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = non_empty("MAESTRO_STATE") {
        return std::path::absolute(&folder).with_context(|| format!("cannot use `{folder}`"));
    }
    if let Some(folder) = non_empty("XDG_STATE_HOME") {
        return Ok(Path::new(&folder).join("maestro"));
    }
    let home = non_empty("HOME").ok_or_else(|| {
        Failure::environment("neither `MAESTRO_STATE`, `XDG_STATE_HOME` nor `HOME` is set")
            .hint("name the folder for the state of runs in `MAESTRO_STATE`")
    })?;
    Ok(Path::new(&home).join(".local/state/maestro"))
}

/// The journal in the folder.
pub fn journal(folder: &Path) -> PathBuf {
    folder.join("runs.db")
}

/// The backup of it that is made by itself.
pub fn backup(folder: &Path) -> PathBuf {
    folder.join("backups/runs.db")
}

/// The locks in the folder.
pub fn leases(folder: &Path) -> PathBuf {
    folder.join("leases")
}

impl State {
    /// Opens the folder, or makes it.
    pub fn open(checkpoints: Arc<dyn Checkpoints>) -> Result<Self> {
        Self::at(folder()?, checkpoints)
    }

    /// Opens a folder, or makes it.
    pub fn at(folder: PathBuf, checkpoints: Arc<dyn Checkpoints>) -> Result<Self> {
        let journal = SqliteJournal::open(&journal(&folder), checkpoints);
        Ok(Self { journal: Arc::new(journal.map_err(failure)?), folder })
    }

    /// The folder of the locks.
    pub fn leases(&self) -> PathBuf {
        leases(&self.folder)
    }

    /// Whoever types, as the people of this state know them.
    pub fn principal(&self) -> Result<Principal> {
        identity::here(&self.folder)
    }

    /// The run that a user means by a name or the end of one.
    pub async fn find(&self, name: &str) -> Result<RunId> {
        let runs = self.journal.list(RUNS_MAX).await.map_err(failure)?;
        let exact = runs.iter().find(|run| run.run.as_str() == name);
        let ends: Vec<&RunSummary> =
            runs.iter().filter(|run| run.run.as_str().ends_with(name)).collect();
        match (exact, ends.as_slice()) {
            (Some(run), _) => Ok(run.run.clone()),
            (None, [run]) => Ok(run.run.clone()),
            (None, []) => Err(Failure::input(format!("there is no run `{name}`"))
                .hint("`maestro runs list` lists them")
                .into()),
            (None, several) => Err(Failure::input(format!(
                "{} runs end in `{name}`, such as `{}` and `{}`",
                several.len(),
                several[0].run,
                several[1].run
            ))
            .into()),
        }
    }

    /// The run that was begun last.
    pub async fn last(&self) -> Result<RunId> {
        let runs = self.journal.list(1).await.map_err(failure)?;
        let last = runs.into_iter().next();
        Ok(last
            .ok_or_else(|| {
                Failure::input("there are no runs yet")
                    .hint("`maestro run --template FILE` begins one")
            })?
            .run)
    }
}

/// What helps where a journal is damaged.
fn restore_hint(journal: &Path) -> String {
    let last = journal.parent().map(backup).filter(|last| last.is_file());
    match last {
        Some(last) => {
            format!("`maestro runs restore {}` puts the last backup in its place", last.display())
        }
        None => "`maestro runs restore FILE` puts a backup in its place".to_owned(),
    }
}

/// An error of the journal, with whose fault it is and what helps.
pub fn failure(error: JournalError) -> anyhow::Error {
    let text = error.to_string();
    let failure = match &error {
        JournalError::Storage(StorageError::Failed { damaged: true, place, .. })
        | JournalError::Restoring { place }
        | JournalError::Unsound { place, .. } => {
            Failure::environment(text).hint(restore_hint(Path::new(place)))
        }
        JournalError::InUse { .. } => Failure::environment(text)
            .hint("wait until the other process has ended: `maestro runs list` shows what runs"),
        JournalError::Storage(StorageError::Failed { .. }) => {
            Failure::environment(text).hint("`MAESTRO_STATE` names another folder for the state")
        }
        JournalError::Storage(StorageError::Newer { .. }) => Failure::environment(text)
            .hint("use the version of Maestro that wrote it, or a later one"),
        JournalError::Fenced { .. } => {
            Failure::environment(text).hint("`maestro watch RUN` shows what that process does")
        }
        JournalError::Unknown(_) | JournalError::Exists(_) => Failure::input(text),
        JournalError::Behind { .. } | JournalError::Event { .. } | JournalError::Fold { .. } => {
            Failure::new(maestro_core::FailureKind::Internal, text)
        }
    };
    failure.into()
}
