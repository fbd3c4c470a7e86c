//! Who may drive a run on this machine, and which runs may run beside each other: operating-system
//! locks, each on a file of its own.
//!
//! The lock ends with the process, whatever it dies of. The file says who holds it, for people.
//! A process that is stopped but not dead still holds its lock; who takes the run over goes on
//! without the lock, and the epoch that it begins keeps the stopped one from writing.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use maestro_core::run::{Owner, RunId, request_digest};
use rustix::fs::{FlockOperation, flock};

/// The right to drive a run, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    _file: Option<File>,
    took_over: bool,
}

/// Why a run cannot be driven.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process drives it.
    #[error("run `{run}` is driven by {holder}")]
    Held {
        /// Which run.
        run: RunId,
        /// By whom, as its file says.
        holder: String,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock `{path}`: {why}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

impl Lease {
    /// Takes the lease of `run` below `folder`.
    ///
    /// With `take_over`, a holder that lives is passed by.
    pub fn take(
        folder: &Path,
        run: &RunId,
        owner: &Owner,
        take_over: bool,
    ) -> Result<Self, LeaseError> {
        let path = folder.join(format!("{run}.lock"));
        let wrong = |why: String| LeaseError::File { path: path.clone(), why };
        std::fs::create_dir_all(folder).map_err(|e| wrong(e.to_string()))?;
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| wrong(e.to_string()))?;
        match lock(&file) {
            Ok(()) => {
                let Owner { host, pid, principal } = owner;
                let text = format!("process {pid} on {host}, for {principal}");
                write(&mut file, &text).map_err(|e| wrong(e.to_string()))?;
                Ok(Self { _file: Some(file), took_over: false })
            }
            Err(rustix::io::Errno::WOULDBLOCK) if take_over => {
                Ok(Self { _file: None, took_over: true })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LeaseError::Held { run: run.clone(), holder: text(&mut file) })
            }
            Err(errno) => Err(wrong(errno.to_string())),
        }
    }

    /// Who drives `run`, if a process does. Whoever may read the file may ask.
    pub fn holder(folder: &Path, run: &RunId) -> Result<Option<String>, LeaseError> {
        let path = folder.join(format!("{run}.lock"));
        let wrong = |why: String| LeaseError::File { path: path.clone(), why };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(text(&mut file))),
            Err(errno) => Err(wrong(errno.to_string())),
        }
    }

    /// Whether a holder that lives was passed by.
    pub fn took_over(&self) -> bool {
        self.took_over
    }
}

/// One of the places of a group of runs, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    _file: File,
}

impl Seat {
    /// Takes a place for `run` in the group `name`, which has `limit` of them; else says which runs
    /// have them.
    pub fn take(
        folder: &Path,
        (name, limit): (&str, u32),
        run: &RunId,
    ) -> Result<Result<Self, Vec<String>>, LeaseError> {
        std::fs::create_dir_all(folder)
            .map_err(|e| LeaseError::File { path: folder.to_owned(), why: e.to_string() })?;
        let mut holders = Vec::new();
        for place in 0..limit {
            let digest = request_digest(name);
            let path =
                folder.join(format!("group-{}-{place}.lock", digest.get(..32).unwrap_or("")));
            let wrong = |why: String| LeaseError::File { path: path.clone(), why };
            let open =
                File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(|e| wrong(e.to_string()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    write(&mut file, run.as_str()).map_err(|e| wrong(e.to_string()))?;
                    return Ok(Ok(Self { _file: file }));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => holders.push(text(&mut file)),
                Err(errno) => return Err(wrong(errno.to_string())),
            }
        }
        Ok(Err(holders))
    }
}

/// Replaces what a file says.
fn write(file: &mut File, text: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// How often a lock is tried that somebody may only be looking at.
const TRIES: u32 = 20;
/// How long a look may take.
const LOOK: Duration = Duration::from_millis(10);

/// Takes the lock. [`Lease::holder`] has it for a moment, which must not look like a holder.
fn lock(file: &File) -> rustix::io::Result<()> {
    for _ in 1..TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOOK),
            other => return other,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// What the file says of its holder.
fn text(file: &mut File) -> String {
    let mut holder = String::new();
    match file.take(1_000).read_to_string(&mut holder) {
        Ok(1..) => holder,
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_core::run::Principal;

    #[test]
    fn one_process_holds_a_run_and_another_can_take_it_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunId::new("r1").expect("a run id");
        let principal = Principal { name: "ann".into(), issuer: "local".into(), roles: Vec::new() };
        let owner = Owner { host: "h".into(), pid: 7, principal };
        let take = |over| Lease::take(folder.path(), &run, &owner, over);
        let first = take(false).expect("free");
        assert!(!first.took_over());
        let holder = Lease::holder(folder.path(), &run).expect("readable");
        assert_eq!(holder.as_deref(), Some("process 7 on h, for ann@local"));
        let held = take(false).expect_err("held").to_string();
        assert_eq!(held, "run `r1` is driven by process 7 on h, for ann@local");
        assert!(take(true).expect("taken over").took_over());
        drop(first);
        assert_eq!(Lease::holder(folder.path(), &run).expect("readable"), None);
        assert!(!take(false).expect("free again").took_over());
    }
    #[test]
    fn a_group_has_so_many_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |name: &str| RunId::new(name).expect("a run id");
        let take = |name: &str| {
            Seat::take(folder.path(), ("deploy/prod", 2), &run(name)).expect("a folder")
        };
        let first = take("r1").expect("free");
        let _second = take("r2").expect("free");
        assert_eq!(take("r3").expect_err("full"), ["r1", "r2"]);
        assert!(Seat::take(folder.path(), ("other", 1), &run("r3")).expect("a folder").is_ok());
        drop(first);
        assert!(take("r3").is_ok());
    }
}
