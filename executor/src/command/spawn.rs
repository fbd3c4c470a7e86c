//! Running a command in a job slot, whoever it comes from: laid out, started, waited for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use maestro_core::{Node, RelPath};

use super::failures::{internal, machine, sandbox_failure};
use super::inputs::{BoundTree, InputError};
use super::scratch::SlotFolder;
use super::slots::SlotState;
use super::{CommandRunner, store_failure};
use crate::runner::{Cancel, RunError, ToolchainMount};
use crate::sandbox::protocol::{End, Layer, Reply, Request};
use crate::sandbox::{SandboxError, SpawnServer};

/// Most kinds of actions that are remembered for writing too much for memory.
const SPILLS_MAX: usize = 10_000;
/// How often an action is tried when its spawn server dies under it.
const ATTEMPTS_MAX: usize = 2;

/// Numbers the folders of job slots: several runners may share a store's scratch folder.
static FOLDERS_MADE: AtomicU64 = AtomicU64::new(0);

/// A command that is to be run.
pub(super) struct Spawn<'a> {
    /// The command line.
    pub(super) arguments: &'a [String],
    /// The whole environment.
    pub(super) environment: &'a [(String, String)],
    /// Where it starts, below the execution root; empty for the root itself.
    pub(super) directory: &'a str,
    /// What stands in the execution root.
    pub(super) inputs: &'a [(RelPath, Node)],
    /// Whether large input trees may be bound, which makes them read-only.
    pub(super) has_bound_trees: bool,
    /// Folders of the execution root that it may write to, each after the one that it is in.
    pub(super) folders: Vec<String>,
    /// The toolchains that it sees, most important first.
    pub(super) toolchains: &'a [ToolchainMount],
    /// Whether it sees the folders of the machine that the runner may show.
    pub(super) sees_host: bool,
    /// Whether no other action may have used its network namespace.
    pub(super) has_own_network: bool,
    /// How long it may run.
    pub(super) timeout_ms: u64,
    /// The job slot.
    pub(super) slot: u32,
    /// Becomes true when nobody wants the result any more.
    pub(super) cancel: &'a Cancel,
    /// What commands that behave alike have in common.
    pub(super) kind: String,
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

impl CommandRunner {
    /// Runs a command once, and has `conclude` look at what it wrote; another spawn server is tried
    /// where one dies under it.
    pub(super) fn spawn<T>(
        &self,
        spawn: &Spawn<'_>,
        mut conclude: impl FnMut(&File, Reply) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let slot = self.slots.get(spawn.slot);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = internal("an action was not tried");
        for _ in 0..ATTEMPTS_MAX {
            if spawn.cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            let outcome = self.attempt(spawn, &mut slot, &mut conclude);
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
                    tracing::warn!(slot = spawn.slot, "a spawn server died and is replaced");
                }
            }
        }
        Err(last)
    }

    /// One attempt; starts a server and makes a folder if the slot has none.
    fn attempt<T>(
        &self,
        spawn: &Spawn<'_>,
        slot: &mut SlotState,
        conclude: &mut impl FnMut(&File, Reply) -> Result<T, RunError>,
    ) -> Result<T, Failure> {
        let SlotState { server, folder } = slot;
        let running = match server {
            Some(running) => running,
            None => server.insert(SpawnServer::start(&self.server_options(spawn.slot))?),
        };
        let folder = match folder {
            Some(folder) => folder,
            None => folder.insert(self.make_folder(spawn.slot)?),
        };
        let root = folder.inputs();
        let bound = self
            .layouter
            .lay_out(&root, folder.pool(), spawn.inputs, spawn.has_bound_trees)
            .map_err(input_failure)?;
        if !self.is_hermetic() {
            make_folders(&root, &spawn.folders)
                .map_err(|error| machine(&root, "make the folders of outputs in", &error))?;
        }
        let on_memory = running.abilities().memory_layer && !self.is_known_to_spill(spawn);
        let layer = if on_memory { Layer::Memory } else { Layer::Disk };
        let mut request = self.request(spawn, folder, &bound, layer)?;
        loop {
            let up = match request.layer {
                Layer::Disk if self.is_hermetic() => {
                    Some(folder.make_layer().map_err(|error| {
                        machine(folder.path(), "make a writable layer in", &error)
                    })?)
                }
                _ => None,
            };
            let (reply, written) = running.run(&request, spawn.cancel)?;
            if reply.end == End::Spilled {
                self.remember_spill(spawn);
                request.layer = Layer::Disk;
                continue;
            }
            let place = up.unwrap_or_else(|| root.clone());
            let written = match written {
                Some(written) => File::from(written),
                None => File::open(&place).map_err(|error| machine(&place, "open", &error))?,
            };
            return Ok(conclude(&written, reply)?);
        }
    }

    fn make_folder(&self, slot: u32) -> Result<SlotFolder, RunError> {
        let scratch = self.store.scratch_dir();
        let number = FOLDERS_MADE.fetch_add(1, Ordering::Relaxed);
        SlotFolder::create(&scratch, format!("s{slot}-{number}"), !self.is_hermetic())
            .map_err(|error| machine(&scratch, "make a folder in", &error))
    }

    /// Whether such an action wrote too much for memory before.
    fn is_known_to_spill(&self, spawn: &Spawn<'_>) -> bool {
        let spilled = self.spilled.lock().unwrap_or_else(PoisonError::into_inner);
        spilled.contains(&spawn.kind)
    }

    fn remember_spill(&self, spawn: &Spawn<'_>) {
        let mut spilled = self.spilled.lock().unwrap_or_else(PoisonError::into_inner);
        if spilled.len() < SPILLS_MAX {
            spilled.insert(spawn.kind.clone());
        }
    }

    fn request(
        &self,
        spawn: &Spawn<'_>,
        folder: &SlotFolder,
        bound: &[BoundTree],
        layer: Layer,
    ) -> Result<Request, RunError> {
        let toolchains = spawn.toolchains.iter().map(|mount| self.below_cache(&mount.path));
        let trees =
            bound.iter().map(|(path, target)| Ok((self.below_cache(path)?, target.clone())));
        let variable = |(name, value): &(String, String)| format!("{name}={value}").into_bytes();
        Ok(Request {
            argv: spawn.arguments.iter().map(|text| text.clone().into_bytes()).collect(),
            env: spawn.environment.iter().map(variable).collect(),
            directory: spawn.directory.to_owned(),
            toolchains: toolchains.collect::<Result<_, RunError>>()?,
            sees_host: spawn.sees_host,
            folder: folder.name().to_owned(),
            layer,
            folders: spawn.folders.clone(),
            trees: trees.collect::<Result<_, RunError>>()?,
            fresh_network: spawn.has_own_network,
            timeout_ms: spawn.timeout_ms,
            probe: false,
        })
    }

    fn below_cache(&self, path: &Path) -> Result<String, RunError> {
        let below = path.strip_prefix(self.store.root()).ok().and_then(Path::to_str);
        below
            .map(str::to_owned)
            .ok_or_else(|| internal(&format!("`{}` does not lie in the cache", path.display())))
    }
}

/// The folders that outputs stand in, each after the one that it is in.
pub(super) fn parents<'p>(outputs: impl IntoIterator<Item = &'p RelPath>) -> Vec<String> {
    let mut out = BTreeSet::new();
    for output in outputs {
        let mut at = output.parent();
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

fn input_failure(error: InputError) -> RunError {
    match error {
        InputError::Missing(digests) => RunError::MissingBlobs(digests),
        InputError::Store(error) => store_failure(&error),
        InputError::Io { path, source } => machine(&path, "make", &source),
    }
}
