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
//! | `inputs` | laying inputs out |
//! | `outputs` | checking outputs and storing them |
//! | `diagnose` | what to tell the user about a failure |
//! | `failures` | errors of what is below, as failures of an action |

mod diagnose;
mod failures;
mod inputs;
mod outputs;
mod scratch;
mod slots;

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use maestro_cas::Store;
use maestro_core::key::SandboxProfile;
use maestro_core::wire::ActionResult;
use maestro_core::{Digest, How, limits};

use crate::runner::{Job, Outcome, RunError, Runner};
use crate::sandbox::protocol::{End, Layer, Reply, Request, StepFailure};
use crate::sandbox::{SandboxError, SpawnOptions, SpawnServer, exit_code, exit_signal};
use failures::{internal, machine, sandbox_failure, store_failure};
use inputs::{BoundTree, InputError, Layouter};
use outputs::{Collected, OutputError, Wanted};
use scratch::SlotFolder;
use slots::{SlotState, Slots};

/// Below this many free bytes a failed action is blamed on the disk.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// Most files that are listed to find out what an action made instead of its outputs.
const MADE_FILES_MAX: usize = 2_000;
/// Most kinds of actions that are remembered for writing too much for memory.
const SPILLS_MAX: usize = 10_000;
/// How often an action is tried when its spawn server dies under it.
const ATTEMPTS_MAX: usize = 2;

/// Numbers the folders of job slots: several runners may share a store's scratch folder.
static FOLDERS_MADE: AtomicU64 = AtomicU64::new(0);

/// How to run commands.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// The program that serves as spawn server: see [`SpawnOptions::program`].
    pub program: PathBuf,
    /// How many job slots are expected; more may turn up.
    pub slots: usize,
    /// How commands are confined.
    pub profile: SandboxProfile,
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
            slot,
            hermetic: self.is_hermetic(),
        }
    }

    /// One attempt; starts a server and makes a folder if the slot has none.
    fn attempt(&self, job: &Job<'_>, slot: &mut SlotState) -> Result<Outcome, Failure> {
        let SlotState { server, folder } = slot;
        let running = match server {
            Some(running) => running,
            None => server.insert(SpawnServer::start(&self.server_options(job.slot))?),
        };
        let folder = match folder {
            Some(folder) => folder,
            None => {
                let scratch = self.store.scratch_dir();
                let number = FOLDERS_MADE.fetch_add(1, Ordering::Relaxed);
                let name = format!("s{}-{number}", job.slot);
                let made = SlotFolder::create(&scratch, name, !self.is_hermetic());
                let made = made.map_err(|error| machine(&scratch, "make a folder in", &error))?;
                folder.insert(made)
            }
        };
        let root = folder.inputs();
        let bound = self
            .layouter
            .lay_out(&root, folder.pool(), &job.prepared.tree.entries)
            .map_err(|error| self.input_failure(error))?;
        let wanted = wanted(job);
        if !self.is_hermetic() {
            make_folders(&root, &parents(&wanted))
                .map_err(|error| machine(&root, "make the folders of outputs in", &error))?;
        }
        let on_memory = running.abilities().memory_layer && !self.is_known_to_spill(job);
        let layer = if on_memory { Layer::Memory } else { Layer::Disk };
        let mut request = self.request(job, folder, &bound, &wanted, layer)?;
        loop {
            let up = match request.layer {
                Layer::Disk if self.is_hermetic() => {
                    Some(folder.make_layer().map_err(|error| {
                        machine(folder.path(), "make a writable layer in", &error)
                    })?)
                }
                _ => None,
            };
            let (reply, written) = running.run(&request, job.cancel)?;
            if reply.end == End::Spilled {
                self.remember_spill(job);
                request.layer = Layer::Disk;
                continue;
            }
            let place = up.unwrap_or_else(|| root.clone());
            let written = match written {
                Some(written) => File::from(written),
                None => File::open(&place).map_err(|error| machine(&place, "open", &error))?,
            };
            return Ok(self.conclude(job, &written, &wanted, request.timeout_ms, reply)?);
        }
    }

    /// Whether such an action wrote too much for memory before.
    fn is_known_to_spill(&self, job: &Job<'_>) -> bool {
        let spilled = self.spilled.lock().unwrap_or_else(PoisonError::into_inner);
        spilled.contains(&spill_key(job))
    }

    fn remember_spill(&self, job: &Job<'_>) {
        let mut spilled = self.spilled.lock().unwrap_or_else(PoisonError::into_inner);
        if spilled.len() < SPILLS_MAX {
            spilled.insert(spill_key(job));
        }
    }

    fn request(
        &self,
        job: &Job<'_>,
        folder: &SlotFolder,
        bound: &[BoundTree],
        wanted: &[Wanted],
        layer: Layer,
    ) -> Result<Request, RunError> {
        let parts = &job.prepared.parts;
        let toolchains = job.toolchains.iter().map(|mount| self.below_cache(&mount.path));
        let trees =
            bound.iter().map(|(path, target)| Ok((self.below_cache(path)?, target.clone())));
        Ok(Request {
            argv: parts.arguments.iter().map(|text| text.clone().into_bytes()).collect(),
            env: parts
                .environment
                .iter()
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect(),
            toolchains: toolchains.collect::<Result<_, RunError>>()?,
            folder: folder.name().to_owned(),
            layer,
            folders: parents(wanted),
            trees: trees.collect::<Result<_, RunError>>()?,
            fresh_network: job.spec.hints.test,
            timeout_ms: parts.timeout_ms.unwrap_or(limits::ACTION_TIMEOUT_MS_DEFAULT),
            probe: false,
        })
    }

    fn below_cache(&self, path: &Path) -> Result<String, RunError> {
        let below = path.strip_prefix(self.store.root()).ok().and_then(Path::to_str);
        below
            .map(str::to_owned)
            .ok_or_else(|| internal(&format!("`{}` does not lie in the cache", path.display())))
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
        let Collected { files, directories } =
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

    fn input_failure(&self, error: InputError) -> RunError {
        match error {
            InputError::Missing(digests) => RunError::MissingBlobs(digests),
            InputError::Store(error) => store_failure(&error),
            InputError::Io { path, source } => machine(&path, "make", &source),
        }
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
            match self.run_once(job) {
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

impl CommandRunner {
    /// Runs an action once; another spawn server is tried where one dies under it.
    fn run_once(&self, job: &Job<'_>) -> Result<Outcome, RunError> {
        let slot = self.slots.get(job.slot);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = internal("an action was not tried");
        for _ in 0..ATTEMPTS_MAX {
            if job.cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            let outcome = self.attempt(job, &mut slot);
            slot.clear();
            match outcome {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::Run(error)) => return Err(error),
                Err(Failure::Sandbox(error)) => {
                    slot.server = None;
                    let died = matches!(error, SandboxError::Died { .. });
                    last = sandbox_failure(&error);
                    if !died {
                        break;
                    }
                    tracing::warn!(slot = job.slot, "a spawn server died and is replaced");
                }
            }
        }
        Err(last)
    }
}

/// Why an attempt gave no result.
enum Failure {
    /// The sandbox is at fault; its server is of no more use.
    Sandbox(SandboxError),
    /// Anything else; the server is fine.
    Run(RunError),
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::Sandbox(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(error)
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
    let wanted = |(path, kind, optional)| Wanted { path, kind, optional };
    job.outputs().into_iter().map(wanted).collect()
}

/// What actions of the same kind have in common: the target and the word for people.
fn spill_key(job: &Job<'_>) -> String {
    format!("{} {}", job.graph.target(job.spec.owner).label, job.spec.mnemonic)
}

/// The folders that outputs stand in, each after the one that it is in.
fn parents(wanted: &[Wanted]) -> Vec<String> {
    let mut out = BTreeSet::new();
    for output in wanted {
        let mut at = output.path.parent();
        while let Some(path) = at {
            at = path.parent();
            out.insert(path.as_str().to_owned());
        }
    }
    // A path sorts after its own beginnings.
    out.into_iter().collect()
}

fn make_folders(root: &Path, folders: &[String]) -> io::Result<()> {
    for folder in folders {
        match fs::create_dir(root.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
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
