//! `--watch`: builds, waits until something in the workspace changes, and builds again.
//!
//! The kernel says that something changed, never what to build: each build finds that out for
//! itself, as any build does. So a lost event, an overflow of the queue, or a folder that cannot be
//! watched costs a build that has nothing to do, or one that comes late, and never a wrong one.
//! Watches are set before a build begins: what is edited while it runs starts the next.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use maestro_executor::runner::Cancel;
use maestro_executor::workspace::watches::{Seen, Watches};
use rustix::io::Errno;

use crate::args::Global;
use crate::config::Config;
use crate::exit::{self, Failure};

/// A build begins when nothing has changed for so long: editors and Git write many files at once.
const QUIET_MS: u64 = 50;
/// It begins after this time even where changes do not end.
const PATIENCE_MS: u64 = 1_000;
/// How often an interrupt is looked for.
const INTERRUPT_MS: u64 = 100;
/// Most folders that are watched.
const FOLDERS_MAX: usize = 100_000;
/// Folders that are not watched: outputs, and what is no part of the workspace.
const PASSED_OVER: [&str; 2] = ["maestro-out", ".git"];
/// How a program ends that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Builds with `build` until the user ends it.
pub fn run(global: &Global, build: impl Fn() -> Result<ExitCode>) -> Result<ExitCode> {
    let root = Config::load(global)?.workspace;
    let cancel = Cancel::default();
    crate::signals::cancel_on_interrupt(&cancel)?;
    let mut folders = Folders::new()?;
    loop {
        folders.watch_all(&root)?;
        if let Err(error) = build() {
            exit::report(&error);
        }
        if cancel.is_cancelled() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        eprintln!("watching {} folders; Ctrl-C ends", folders.watched.len());
        if !folders.wait(&cancel)? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
}

/// The folders of a workspace, watched by the kernel.
struct Folders {
    watches: Watches<PathBuf>,
    watched: HashSet<PathBuf>,
}

impl Folders {
    fn new() -> Result<Self> {
        let watches = Watches::new().context("the kernel gives no inotify queue")?;
        Ok(Self { watches, watched: HashSet::new() })
    }

    /// Watches every folder of the workspace that is not watched yet.
    fn watch_all(&mut self, root: &Path) -> Result<()> {
        self.watched.retain(|folder| folder.is_dir());
        let mut pending = vec![root.to_owned()];
        while let Some(folder) = pending.pop() {
            self.watch(&folder)?;
            // A folder that is gone or may not be read is the build's business.
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
                let passed = PASSED_OVER.iter().any(|name| entry.file_name() == *name);
                if is_folder && !passed {
                    pending.push(entry.path());
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, folder: &Path) -> Result<()> {
        if self.watched.len() >= FOLDERS_MAX {
            return Err(Failure::input(format!("more than {FOLDERS_MAX} folders to watch"))
                .hint("name a smaller workspace with `--workspace`")
                .into());
        }
        match self.watches.add(folder, folder.to_owned()) {
            Ok(_) => {
                self.watched.insert(folder.to_owned());
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
            Err(Errno::NOSPC) => {
                Err(Failure::environment("the kernel watches no more folders for this user")
                    .hint("raise the limit: `sysctl fs.inotify.max_user_watches=524288`")
                    .into())
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot watch `{}`", folder.display()))
            }
        }
    }

    /// Waits for a change and for the quiet after it; `false` if the user ends it first.
    fn wait(&mut self, cancel: &Cancel) -> Result<bool> {
        while !self.changes_within(INTERRUPT_MS)? {
            if cancel.is_cancelled() {
                return Ok(false);
            }
        }
        let first = Instant::now();
        while first.elapsed() < Duration::from_millis(PATIENCE_MS)
            && self.changes_within(QUIET_MS)?
        {
            if cancel.is_cancelled() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something that counts changes within some milliseconds.
    fn changes_within(&mut self, wait_ms: u64) -> Result<bool> {
        if !self.watches.wait(wait_ms).context("cannot wait for changes")? {
            return Ok(false);
        }
        let mut counts = false;
        let tell = |seen: Seen<'_, PathBuf>| match seen {
            Seen::Entry { name, .. } => counts |= PASSED_OVER.iter().all(|passed| name != *passed),
            Seen::Folder(_) | Seen::Lost => counts = true,
        };
        self.watches.drain(tell).context("cannot read changes")?;
        Ok(counts)
    }
}
