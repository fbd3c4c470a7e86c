//! Commands of REAPI as they stand: whatever stands at an output path is an output, one that is
//! missing is left out, and every exit code is a result. What that means, the client decides.

use std::fs::File;
use std::os::fd::AsFd;

use maestro_core::wire::{OutputDirectory, OutputFile};
use maestro_core::{Digest, Node, RelPath};

use super::failures::internal;
use super::outputs::{self, Collected, OutputError, Wanted};
use super::spawn::{Spawn, parents};
use super::{CommandRunner, Said, store_failure};
use crate::runner::{Cancel, RunError, ToolchainMount};
use crate::sandbox::protocol::{End, Reply, StepFailure};
use crate::sandbox::{exit_code, exit_signal};

/// What shells say of a command that is not there, and of one that cannot be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
/// What shells add to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;

/// A command that somebody else put together.
pub struct ForeignCommand {
    /// The command line.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where it starts, below the execution root; empty for the root itself.
    pub directory: String,
    /// What stands in the execution root, sorted by path.
    pub inputs: Vec<(RelPath, Node)>,
    /// What it may make, below the execution root.
    pub outputs: Vec<RelPath>,
    /// The toolchains that it sees; the folders of the machine where it names none.
    pub toolchains: Vec<ToolchainMount>,
    /// How long it may run.
    pub timeout_ms: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code; as shells say it, where a signal ended it.
    Exited(i32),
    /// Its time was up.
    TimedOut,
}

/// What came of a command. Every blob that it names is in the store.
#[derive(Clone, Debug)]
pub struct ForeignOutcome {
    /// How it ended.
    pub ended: Ended,
    /// Files that it made, by path.
    pub files: Vec<OutputFile>,
    /// Trees that it made, by path.
    pub directories: Vec<OutputDirectory>,
    /// Links that it made, by path, with what they point to.
    pub symlinks: Vec<(String, String)>,
    /// Standard output, if there was any.
    pub stdout: Option<Digest>,
    /// Standard error, if there was any.
    pub stderr: Option<Digest>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident memory of one process in bytes.
    pub memory_bytes: u64,
}

impl CommandRunner {
    /// Runs a command of REAPI to its end, in a job slot that nobody else uses. Blocks.
    pub fn run_foreign(
        &self,
        command: &ForeignCommand,
        slot: u32,
        cancel: &Cancel,
    ) -> Result<ForeignOutcome, RunError> {
        let wanted = |path: &RelPath| Wanted { path: path.clone(), kind: None, optional: true };
        let wanted: Vec<Wanted> = command.outputs.iter().map(wanted).collect();
        let spawn = Spawn {
            arguments: &command.arguments,
            environment: &command.environment,
            directory: &command.directory,
            inputs: &command.inputs,
            // Others have execution roots that can be written to everywhere.
            has_bound_trees: false,
            folders: parents(&command.outputs),
            toolchains: &command.toolchains,
            sees_host: command.toolchains.is_empty(),
            has_own_network: false,
            timeout_ms: command.timeout_ms,
            slot,
            cancel,
            kind: command.arguments.first().cloned().unwrap_or_default(),
        };
        self.spawn(&spawn, |written, reply| self.conclude_foreign(command, written, &wanted, reply))
    }

    fn conclude_foreign(
        &self,
        command: &ForeignCommand,
        written: &File,
        wanted: &[Wanted],
        reply: Reply,
    ) -> Result<ForeignOutcome, RunError> {
        let Reply { end, stdout, stderr, wall_ms, cpu_ms, memory_bytes } = reply;
        let mut stderr = stderr.into_bytes();
        let ended = match end {
            End::Status(status) => Ended::Exited(match exit_signal(status) {
                Some(signal) => SIGNALLED + signal,
                None => exit_code(status).unwrap_or_default(),
            }),
            End::TimedOut => Ended::TimedOut,
            End::NotStarted(errno) => {
                let program = command.arguments.first().map_or("", String::as_str);
                let source = std::io::Error::from_raw_os_error(errno);
                stderr = format!("maestro: cannot start `{program}`: {source}\n").into_bytes();
                let missing = errno == libc::ENOENT;
                Ended::Exited(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
            }
            End::Killed => return Err(RunError::Cancelled),
            End::Lost => {
                let message = "something outside killed the sandbox of the command".to_owned();
                return Err(RunError::Machine { message, hints: Vec::new() });
            }
            End::SetUp(StepFailure { step, .. }) => {
                return Err(internal(&format!("cannot {step}")));
            }
            End::Spilled => return Err(internal("an action spilled twice")),
        };
        let said = Said { stdout: self.keep(&stdout.into_bytes())?, stderr: self.keep(&stderr)? };
        let collected = match ended {
            Ended::Exited(_) => outputs::collect(&self.store, written.as_fd(), wanted)
                .map_err(|error| self.foreign_failure(said, error))?,
            Ended::TimedOut => Collected::default(),
        };
        let Collected { files, directories, symlinks } = collected;
        let Said { stdout, stderr } = said;
        Ok(ForeignOutcome {
            ended,
            files,
            directories,
            symlinks,
            stdout,
            stderr,
            wall_ms,
            cpu_ms,
            memory_bytes,
        })
    }

    fn foreign_failure(&self, said: Said, error: OutputError) -> RunError {
        match error {
            OutputError::Store(error) => store_failure(&error),
            OutputError::Io { ref source, .. } => {
                let message = format!("{error}: {source}");
                RunError::Machine { message, hints: Vec::new() }
            }
            error => said.failed(error.to_string(), Vec::new()),
        }
    }
}
