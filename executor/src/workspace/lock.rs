//! One build at a time in a workspace: an OS lock that dies with its process.
//!
//! The lock is `flock` on a file that also says who holds it, so that whoever waits can tell the
//! user for whom. The file is never removed, for a removed file could be locked by two at once.
//! The text in it is for people only: a holder that was killed leaves it behind, and the lock,
//! not the text, decides.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use maestro_core::FailureKind;

use crate::runner::Cancel;

const FILE: &str = "lock";
/// Time between two tries for a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(20);
/// Most bytes of the holder's text that are read.
const HOLDER_BYTES_MAX: u64 = 64 * 1024;

/// Who holds a workspace's lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Its process id.
    pub pid: u32,
    /// Its command line, for people.
    pub command: String,
    /// When it got the lock, in milliseconds since 1970.
    pub started_unix_ms: u64,
}

/// Why a lock was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another build holds it and the time to wait is over.
    #[error("another build holds the workspace: {}", describe(.holder.as_ref()))]
    Busy {
        /// Who holds it, where known.
        holder: Option<HolderInfo>,
    },
    /// The invocation ended while waiting.
    #[error("cancelled while waiting for another build")]
    Cancelled,
    /// The lock file cannot be used.
    #[error("cannot lock `{}`", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        FailureKind::Environment
    }
}

impl fmt::Display for HolderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.command, self.pid)
    }
}

fn describe(holder: Option<&HolderInfo>) -> String {
    holder.map_or("a process that does not say its name".to_owned(), ToString::to_string)
}

/// How long to wait for another build.
#[derive(Clone, Debug, Default)]
pub struct WaitOptions {
    /// The longest wait; without end where absent.
    pub timeout: Option<Duration>,
    /// Ends the wait early.
    pub cancel: Cancel,
}

/// The right to build in a workspace, until it is dropped or the process ends.
#[derive(Debug)]
pub struct WorkspaceLock {
    _file: File,
}

impl WorkspaceLock {
    /// Gets the lock of the workspace whose state lies in `dir`.
    ///
    /// Where somebody else holds it, `on_wait` is called once for each holder that is seen.
    pub fn acquire(
        dir: &Path,
        command: &str,
        options: &WaitOptions,
        mut on_wait: impl FnMut(&HolderInfo),
    ) -> Result<Self, LockError> {
        let path = dir.join(FILE);
        let fail = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        let start = Instant::now();
        let mut announced = None;
        while !try_lock(&file).map_err(fail)? {
            let holder = read_holder(&mut file);
            if holder.is_some() && holder != announced {
                holder.iter().for_each(&mut on_wait);
                announced.clone_from(&holder);
            }
            if options.cancel.is_cancelled() {
                return Err(LockError::Cancelled);
            }
            if options.timeout.is_some_and(|limit| start.elapsed() >= limit) {
                return Err(LockError::Busy { holder });
            }
            std::thread::sleep(POLL);
        }
        write_holder(&mut file, command).map_err(fail)?;
        Ok(Self { _file: file })
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The text is replaced without a lock on it, so a reader may see half of it; then it reads again.
fn read_holder(file: &mut File) -> Option<HolderInfo> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_holder(file: &mut File, command: &str) -> io::Result<()> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let holder = HolderInfo {
        pid: std::process::id(),
        command: command.chars().take(1000).collect(),
        started_unix_ms: since_1970.map_or(0, |time| time.as_millis() as u64),
    };
    let text = serde_json::to_vec(&holder)?;
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once() -> WaitOptions {
        WaitOptions { timeout: Some(Duration::ZERO), cancel: Cancel::default() }
    }

    #[test]
    fn a_second_build_learns_for_whom_it_waits() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let dir = folder.path();
        let never = |_: &HolderInfo| panic!("nobody holds it");
        let first =
            WorkspaceLock::acquire(dir, "maestro build //a", &at_once(), never).expect("free");
        let mut seen = Vec::new();
        let error = WorkspaceLock::acquire(dir, "b", &at_once(), |h| seen.push(h.clone()))
            .expect_err("held");
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].pid, std::process::id());
        let expect = format!(
            "another build holds the workspace: `maestro build //a` (process {})",
            std::process::id()
        );
        assert_eq!(error.to_string(), expect);
        drop(first);
        WorkspaceLock::acquire(dir, "c", &at_once(), never).expect("free again");
    }

    #[test]
    fn a_waiter_gets_it_when_the_holder_ends() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let dir = folder.path();
        let first = WorkspaceLock::acquire(dir, "one", &at_once(), |_| {}).expect("free");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let wait = WaitOptions::default();
                WorkspaceLock::acquire(dir, "two", &wait, |h| {
                    tell.send(h.command.clone()).expect("the test listens");
                })
            });
            assert_eq!(told.recv().expect("the waiter speaks"), "one");
            drop(first);
            waiter.join().expect("no panic").expect("free now");
        });
    }

    #[test]
    fn waiting_ends_with_the_invocation() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let _first =
            WorkspaceLock::acquire(folder.path(), "one", &at_once(), |_| {}).expect("free");
        let wait = WaitOptions::default();
        wait.cancel.cancel();
        let error = WorkspaceLock::acquire(folder.path(), "two", &wait, |_| {});
        assert!(matches!(error, Err(LockError::Cancelled)));
    }

    #[test]
    fn damaged_text_in_the_file_does_not_matter() {
        let folder = tempfile::tempdir().expect("a temp dir");
        std::fs::write(folder.path().join(FILE), b"\xff{").expect("writable");
        WorkspaceLock::acquire(folder.path(), "one", &at_once(), |_| {}).expect("free");
    }
}
