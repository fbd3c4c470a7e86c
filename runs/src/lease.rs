//! Who may drive a run on this machine: an operating-system lock on a file of its own.
//!
//! The lock ends with the process, whatever it dies of. The file says who holds it, for people.
//! A process that is stopped but not dead still holds its lock; who takes the run over goes on
//! without the lock, and the epoch that it begins keeps the stopped one from writing.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use maestro_core::run::{Owner, RunId};
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
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let text =
                    format!("process {} on {}, for {}", owner.pid, owner.host, owner.principal);
                let written = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| file.write_all(text.as_bytes()));
                written.map_err(|e| wrong(e.to_string()))?;
                Ok(Self { _file: Some(file), took_over: false })
            }
            Err(rustix::io::Errno::WOULDBLOCK) if take_over => {
                Ok(Self { _file: None, took_over: true })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.take(1_000).read_to_string(&mut holder);
                if holder.is_empty() {
                    holder = "another process".into();
                }
                Err(LeaseError::Held { run: run.clone(), holder })
            }
            Err(errno) => Err(wrong(errno.to_string())),
        }
    }

    /// Whether a holder that lives was passed by.
    pub fn took_over(&self) -> bool {
        self.took_over
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
        let held = take(false).expect_err("held").to_string();
        assert_eq!(held, "run `r1` is driven by process 7 on h, for ann@local");
        assert!(take(true).expect("taken over").took_over());
        drop(first);
        assert!(!take(false).expect("free again").took_over());
    }
}
