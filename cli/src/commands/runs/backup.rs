//! `maestro runs backup` and `restore`, and the backup that is made by itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use maestro_core::run::RunId;
use maestro_executor::storage::StorageError;
use maestro_runs::driver::Clock as _;
use maestro_runs::journal::sqlite::{Loss, Restored, Survey, back_up, restore};
use maestro_runs::{JournalError, Lease};

use crate::exit::Failure;
use crate::runs::SystemClock;
use crate::runs::state::{self, State, failure};

/// How old the last backup is when another one is made.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// `maestro runs backup`.
pub fn write(file: &Path) -> Result<ExitCode> {
    let survey = back_up(&state::journal(&state::folder()?), file);
    let survey = survey.map_err(|error| about(file, error))?;
    println!("{}: {}", file.display(), held(&survey));
    Ok(told(&survey))
}

/// `maestro runs restore`.
pub fn read(file: &Path) -> Result<ExitCode> {
    let folder = state::folder()?;
    nobody_drives(&state::leases(&folder))?;
    let restored = restore(&state::journal(&folder), file, SystemClock.now_ms());
    let restored = restored.map_err(|error| about(file, error))?;
    let Restored { survey, aside, losses, unread } = restored;
    println!("restored {}", held(&survey));
    if let Some(aside) = aside {
        println!("what stood in its place is `{}`", aside.display());
    }
    losses.iter().for_each(say_loss);
    if let Some(why) = unread {
        eprintln!("warning: what was lost beyond that is not known: {why}");
    }
    if survey.runs.is_empty() && losses.is_empty() {
        return Ok(told(&survey));
    }
    eprintln!(
        "hint: what runs did after the backup is not in their journals: look before you resume one"
    );
    Ok(told(&survey))
}

/// An error about the file that was named, which the state has nothing to do with; or another one.
fn about(file: &Path, error: JournalError) -> anyhow::Error {
    let (text, named) = (error.to_string(), file.display().to_string());
    match error {
        JournalError::Storage(StorageError::Failed { place, .. })
        | JournalError::Unsound { place, .. }
        | JournalError::InUse { place }
            if place.starts_with(&named) =>
        {
            let hint = "the journal is as it was; name another file";
            Failure::environment(text).hint(hint).into()
        }
        _ => failure(error),
    }
}

fn say_loss(loss: &Loss) {
    match loss {
        Loss { run, kept: 0, lost } => println!("lost: run {run}, with {lost} events"),
        Loss { run, kept, lost } => println!("lost: {lost} events of run {run} after event {kept}"),
    }
}

fn held(survey: &Survey) -> String {
    format!("{} runs with {} events", survey.runs.len(), survey.events())
}

/// Names the runs that the file holds as the journal does, and cannot be read.
fn told(survey: &Survey) -> ExitCode {
    survey.unreadable.iter().for_each(|error| eprintln!("warning: {error}"));
    ExitCode::from(u8::from(!survey.unreadable.is_empty()))
}

/// A journal whose runs are driven is not replaced.
fn nobody_drives(leases: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(leases) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", leases.display()));
        }
    };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read `{}`", leases.display()))?.path();
        let Some(run) = path.file_stem().and_then(|name| RunId::new(name.to_str()?).ok()) else {
            continue;
        };
        let holder =
            Lease::holder(leases, &run).map_err(|error| Failure::environment(error.to_string()))?;
        if let Some(holder) = holder {
            return Err(Failure::input(format!("run `{run}` is driven by {holder}"))
                .hint(format!("wait until it ends, or interrupt it: `maestro watch {run}`"))
                .into());
        }
    }
    Ok(())
}

/// Backs the journal up before a run begins, if the last backup is older than a day. A run begins
/// all the same where that fails.
pub(super) async fn when_due(state: &State) {
    let file = state::backup(&state.folder);
    let age = file.metadata().and_then(|file| file.modified()).ok();
    let age = age.and_then(|written| SystemTime::now().duration_since(written).ok());
    let empty = state.journal.list(1).await.is_ok_and(|runs| runs.is_empty());
    if empty || age.is_some_and(|age| age < EVERY) {
        return;
    }
    if let Err(error) = made(state::journal(&state.folder), file.clone()).await {
        eprintln!("warning: the journal is not backed up to `{}`: {error:#}", file.display());
    }
}

async fn made(journal: PathBuf, file: PathBuf) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    match tokio::task::spawn_blocking(move || back_up(&journal, &file)).await? {
        // Another run that begins now is at it.
        Err(JournalError::InUse { .. }) => Ok(()),
        survey => {
            told(&survey.map_err(failure)?);
            Ok(())
        }
    }
}
