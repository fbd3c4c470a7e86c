//! Runs command actions: lays inputs out, runs the program in the sandbox, takes outputs in.
//!
//! One call of [`CommandRunner::run`] is one action, in a folder of its job slot that is emptied
//! afterwards, whatever happened. Nothing reaches the store before the action's processes are
//! dead and all its outputs were looked at, so a failure leaves at most blobs that nothing names.
//! Whether a result may be cached is not decided here: an `Ok` may be, an `Err` never.
//!
//! | module | what it owns |
//! |---|---|
//! | `slots` | job slots: their spawn servers and folders |
//! | `scratch` | the folder of a job slot |
//! | `spawn` | running a command in a job slot |
//! | `foreign` | commands of REAPI as they stand |
//! | `inputs` | laying inputs out |
//! | `outputs` | checking outputs and storing them |
//! | `diagnose` | what to tell the user about a failure |
//! | `failures` | errors of what is below, as failures of an action |

mod diagnose;
mod failures;
mod foreign;
mod inputs;
mod outputs;
mod scratch;
mod slots;
mod spawn;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};

use maestro_cas::Store;
use maestro_core::key::SandboxProfile;
use maestro_core::wire::ActionResult;
use maestro_core::{Digest, How, limits};

use crate::runner::{Job, Outcome, RunError, Runner};
use crate::sandbox::protocol::{End, Reply, StepFailure};
use crate::sandbox::{SpawnOptions, exit_code, exit_signal};
pub use foreign::{Ended, ForeignCommand, ForeignOutcome};

use failures::{internal, store_failure};
use inputs::Layouter;
use outputs::{Collected, OutputError, Wanted};
use slots::Slots;
use spawn::{Spawn, parents};

/// Below this many free bytes a failed action is blamed on the disk.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// Most files that are listed to find out what an action made instead of its outputs.
const MADE_FILES_MAX: usize = 2_000;

/// How to run commands.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// The program that serves as spawn server: see [`SpawnOptions::program`].
    pub program: PathBuf,
    /// How many job slots are expected; more may turn up.
    pub slots: usize,
    /// How commands are confined.
    pub profile: SandboxProfile,
    /// Folders of the machine that actions may see which ask for no toolchains.
    pub host: Vec<PathBuf>,
    /// The workspace, to recognise files that exist but are no inputs.
    pub workspace: Option<PathBuf>,
}

/// Runs command actions of any number of job slots.
#[derive(Debug)]
pub struct CommandRunner {
    store: Store,
    options: CommandOptions,
    layouter: Layouter,
    slots: Slots,
    spilled: Mutex<HashSet<String>>,
    /// Held for reading by every command that runs, for writing by one that must be alone.
    alone: RwLock<()>,
}

impl CommandRunner {
    /// A runner over `store`. Starts nothing yet.
    pub fn new(store: &Store, options: CommandOptions) -> Self {
        let copy = options.profile == SandboxProfile::None;
        Self {
            store: store.clone(),
            layouter: Layouter::new(store.clone(), copy),
            slots: Slots::new(options.slots),
            options,
            spilled: Mutex::default(),
            alone: RwLock::new(()),
        }
    }

    /// Starts the spawn servers of the first so many job slots, and does not wait for them: for
    /// whoever knows that commands will run, and still has to find out which.
    pub fn warm_up(&self, slots: usize) {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        (0..slots).for_each(|slot| self.slots.warm_up(slot, self.server_options(slot)));
    }

    fn is_hermetic(&self) -> bool {
        self.options.profile == SandboxProfile::Hermetic
    }

    fn server_options(&self, slot: u32) -> SpawnOptions {
        SpawnOptions {
            program: self.options.program.clone(),
            cache: self.store.root().to_owned(),
            scratch: self.store.scratch_dir(),
            host: self.options.host.clone(),
            slot,
            hermetic: self.is_hermetic(),
        }
    }

    /// Turns the end of an action into a result or a failure.
    fn conclude(
        &self,
        job: &Job<'_>,
        written: &File,
        wanted: &[Wanted],
        limit_ms: u64,
        reply: Reply,
    ) -> Result<Outcome, RunError> {
        let Reply { end, stdout, stderr, wall_ms, cpu_ms, memory_bytes } = reply;
        let (stdout, stderr) = (stdout.into_bytes(), stderr.into_bytes());
        let said = Said { stdout: self.keep(&stdout)?, stderr: self.keep(&stderr)? };
        let status = match end {
            End::Status(status) => status,
            End::Killed => return Err(RunError::Cancelled),
            End::TimedOut => {
                let Said { stdout, stderr } = said;
                return Err(RunError::Timeout { limit_ms, stdout, stderr });
            }
            End::NotStarted(errno) => {
                return Err(not_started(job, self.is_hermetic(), errno));
            }
            End::Lost => {
                let hints = vec!["perhaps the kernel, for want of memory; run fewer jobs".into()];
                let message = "something outside killed the sandbox of the command".to_owned();
                return Err(RunError::Machine { message, hints });
            }
            End::SetUp(StepFailure { step, .. }) => {
                return Err(internal(&format!("cannot {step}")));
            }
            End::Spilled => return Err(internal("an action spilled twice")),
        };
        let (code, signal) = (exit_code(status), exit_signal(status));
        if code != Some(0) {
            self.check_disk()?;
            let workspace = self.options.workspace.as_deref();
            let hints = diagnose::hints(job, workspace, signal, &stderr);
            let mut error = said.failed(diagnose::ending(code, signal), hints);
            if let (RunError::Failed { kept, .. }, true) = (&mut error, job.spec.hints.test) {
                // A report that cannot be had is no reason to hide why the test failed.
                let collected = outputs::collect(&self.store, written.as_fd(), wanted);
                *kept = collected.map(|collected| collected.files).unwrap_or_default();
            }
            return Err(error);
        }
        let collected = outputs::collect(&self.store, written.as_fd(), wanted);
        let Collected { files, directories, .. } =
            collected.map_err(|error| self.output_failure(written, said, error))?;
        let result = ActionResult {
            output_files: files,
            output_directories: directories,
            exit_code: 0,
            stdout_digest: said.stdout,
            stderr_digest: said.stderr,
            worker: "local".to_owned(),
            execution_ms: wall_ms,
        };
        Ok(Outcome { result, cpu_ms, memory_bytes, cost_usd_micros: 0 })
    }

    fn keep(&self, log: &[u8]) -> Result<Option<Digest>, RunError> {
        if log.is_empty() {
            return Ok(None);
        }
        self.store.put_bytes(log).map(Some).map_err(|error| store_failure(&error))
    }

    fn output_failure(&self, written: &File, said: Said, error: OutputError) -> RunError {
        let full = match (&error, self.check_disk()) {
            // A program that ignores errors of writing leaves outputs out, or cuts them short.
            (OutputError::Missing(_), Err(full)) => Some(full),
            _ => None,
        };
        if let Some(full) = full {
            return full;
        }
        match error {
            OutputError::Store(error) => store_failure(&error),
            OutputError::Io { ref source, .. } => {
                let message = format!("{error}: {source}");
                RunError::Machine { message, hints: Vec::new() }
            }
            OutputError::Missing(ref paths) => {
                let hints = made_instead(written, paths);
                said.failed(error.to_string(), hints)
            }
            OutputError::Link { .. } => {
                let hint = "copy the file instead, or make a relative link within a folder output";
                said.failed(error.to_string(), vec![hint.to_owned()])
            }
            _ => said.failed(error.to_string(), Vec::new()),
        }
    }

    /// Fails if the file system of scratch has no room left.
    fn check_disk(&self) -> Result<(), RunError> {
        let path = self.store.scratch_dir();
        let Ok(stat) = rustix::fs::statvfs(&path) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let has_files = stat.f_favail > 0 || stat.f_files == 0;
        if free >= FREE_BYTES_MIN && has_files {
            return Ok(());
        }
        Err(RunError::Machine {
            message: format!("no space is left on the file system of `{}`", path.display()),
            hints: vec!["`maestro cache gc` makes room".to_owned()],
        })
    }
}

impl Runner for CommandRunner {
    fn handles(&self, how: &How) -> bool {
        matches!(how, How::Command { .. })
    }

    fn run(&self, job: &Job<'_>) -> Result<Outcome, RunError> {
        let (_shared, _alone) = match job.spec.hints.exclusive {
            true => (None, Some(self.alone.write().unwrap_or_else(PoisonError::into_inner))),
            false => (Some(self.alone.read().unwrap_or_else(PoisonError::into_inner)), None),
        };
        let mut tried = 1;
        loop {
            let spawn = spawn_of(job);
            let wanted = wanted(job);
            let conclude = |written: &File, reply| {
                self.conclude(job, written, &wanted, spawn.timeout_ms, reply)
            };
            match self.spawn(&spawn, conclude) {
                Err(RunError::Failed { .. } | RunError::Timeout { .. })
                    if tried < job.spec.hints.attempts =>
                {
                    tried += 1;
                }
                Ok(mut outcome) if tried > 1 => {
                    outcome.result.worker = ActionResult::FLAKY_WORKER.to_owned();
                    return Ok(outcome);
                }
                end => return end,
            }
        }
    }
}

/// The command of an action of ours.
fn spawn_of<'a>(job: &'a Job<'_>) -> Spawn<'a> {
    let parts = &job.prepared.parts;
    Spawn {
        arguments: &parts.arguments,
        environment: &parts.environment,
        directory: "",
        inputs: &job.prepared.tree.entries,
        has_bound_trees: true,
        folders: parents(job.outputs().iter().map(|(path, ..)| path)),
        toolchains: job.toolchains,
        sees_host: false,
        has_own_network: job.spec.hints.test,
        timeout_ms: parts.timeout_ms.unwrap_or(limits::ACTION_TIMEOUT_MS_DEFAULT),
        slot: job.slot,
        cancel: job.cancel,
        // What actions of the same kind have in common: the target and the word for people.
        kind: format!("{} {}", job.graph.target(job.spec.owner).label, job.spec.mnemonic),
    }
}

/// The logs of a run, in the store.
#[derive(Clone, Copy)]
struct Said {
    stdout: Option<Digest>,
    stderr: Option<Digest>,
}

impl Said {
    fn failed(self, message: String, hints: Vec<String>) -> RunError {
        let Self { stdout, stderr } = self;
        RunError::Failed { message, hints, stdout, stderr, kept: Vec::new() }
    }
}

fn wanted(job: &Job<'_>) -> Vec<Wanted> {
    let wanted = |(path, kind, optional)| Wanted { path, kind: Some(kind), optional };
    job.outputs().into_iter().map(wanted).collect()
}

fn made_instead(written: &File, missing: &[maestro_core::RelPath]) -> Vec<String> {
    let made = outputs::list_files(written.as_fd(), MADE_FILES_MAX);
    if made.is_empty() {
        return vec!["the command made no files at all".to_owned()];
    }
    let mut hints: Vec<String> = missing
        .iter()
        .take(3)
        .filter_map(|wanted| {
            let near = diagnose::nearest(wanted, &made)?;
            Some(format!("the command made `{near}`; did you mean `{wanted}`?"))
        })
        .collect();
    if hints.is_empty() {
        let shown: Vec<String> = made.iter().take(5).map(|path| format!("`{path}`")).collect();
        hints.push(format!("the command made {}", shown.join(", ")));
    }
    hints
}

fn not_started(job: &Job<'_>, hermetic: bool, errno: i32) -> RunError {
    let program = job.prepared.parts.arguments.first().map_or("", String::as_str);
    let source = io::Error::from_raw_os_error(errno);
    let message = format!("cannot start `{program}`: {source}");
    let hint = match errno {
        libc::ENOENT if is_input(job, program) => {
            "the file is there, but not what interprets it: its `#!` line or its loader names \
             a file that no toolchain of this action has"
        }
        libc::ENOENT if hermetic => {
            "only inputs and toolchains exist in the sandbox; add one that has the program to \
             `toolchains`, or the program to `tools`"
        }
        libc::EACCES => "the file is not executable",
        libc::ENOEXEC => "the file is neither a program for this machine nor a script with `#!`",
        libc::E2BIG => "the command line is too long; use `args.use_param_file`",
        _ => "",
    };
    let hints = if hint.is_empty() { Vec::new() } else { vec![hint.to_owned()] };
    RunError::Failed { message, hints, stdout: None, stderr: None, kept: Vec::new() }
}

fn is_input(job: &Job<'_>, program: &str) -> bool {
    let program = program.trim_start_matches("/build/").trim_start_matches("./");
    job.prepared.tree.entries.iter().any(|(path, _)| path.as_str() == program)
}
