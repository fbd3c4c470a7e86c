//! The interface between the engine, which decides what runs, and those who run it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maestro_cas::Store;
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{
    ActionGraph, ActionSpec, ArtifactKind, Digest, FailureKind, How, Prepared, RelPath,
};

/// Tells running work that nobody wants its result any more. Cheap to clone, never reset.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everyone who holds a clone to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A toolchain tree that lies ready on disk.
#[derive(Clone, Debug)]
pub struct ToolchainMount {
    /// The digest of its root directory.
    pub root: Digest,
    /// The folder that holds it, with `usr/…` below; read-only by convention.
    pub path: PathBuf,
}

/// One action whose key was not found, to be run.
pub struct Job<'a> {
    /// The graph that the action belongs to.
    pub graph: &'a ActionGraph,
    /// The action.
    pub spec: &'a ActionSpec,
    /// Files that it must make beside the outputs of `spec`; a part of a map has only those.
    pub files: &'a [RelPath],
    /// Its key, input tree and new blobs; the blobs are in the store already.
    pub prepared: &'a Prepared,
    /// Where inputs come from and outputs go.
    pub store: &'a Store,
    /// The job slot, below the number of jobs; no two running jobs share one.
    pub slot: u32,
    /// Its toolchains, in order of priority.
    pub toolchains: &'a [ToolchainMount],
    /// Becomes true when the invocation is over.
    pub cancel: &'a Cancel,
}

impl Job<'_> {
    /// What it makes: path, kind, and whether it may leave it out.
    pub fn outputs(&self) -> Vec<(RelPath, ArtifactKind, bool)> {
        let declared = self.spec.outputs.iter().map(|output| {
            let artifact = self.graph.artifact(output.artifact);
            (artifact.path.clone(), artifact.kind, output.optional)
        });
        let files = self.files.iter().map(|path| (path.clone(), ArtifactKind::File, false));
        declared.chain(files).collect()
    }
}

/// What a successful run made. Every blob that `result` names is in the store.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result, ready to be cached.
    pub result: ActionResult,
    /// Processor time in milliseconds, user and system, where known.
    pub cpu_ms: u64,
    /// Largest resident memory in bytes, where known.
    pub memory_bytes: u64,
    /// What the run cost, in micro-dollars.
    pub cost_usd_micros: u64,
}

/// Why a run gave no result. None of these is ever cached.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The action's own fault: non-zero exit, missing output, a link that leaves its tree.
    #[error("{message}")]
    Failed {
        /// One sentence without a final period.
        message: String,
        /// What can be done.
        hints: Vec<String>,
        /// Standard output and error, in the store, where there is any.
        stdout: Option<Digest>,
        /// See `stdout`.
        stderr: Option<Digest>,
        /// What a test made before it failed, such as its report.
        kept: Vec<OutputFile>,
    },
    /// It ran longer than it may.
    #[error("timed out after {limit_ms} ms")]
    Timeout {
        /// The limit.
        limit_ms: u64,
        /// What it wrote until then.
        stdout: Option<Digest>,
        /// See `stdout`.
        stderr: Option<Digest>,
    },
    /// Blobs of its inputs are gone; their producers must run again.
    #[error("{} input blobs are no longer in the store", .0.len())]
    MissingBlobs(Vec<Digest>),
    /// The invocation is over.
    #[error("cancelled")]
    Cancelled,
    /// The machine is at fault: full disk, no permission, no namespaces.
    #[error("{message}")]
    Machine {
        /// One sentence without a final period.
        message: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// The action may not run: an unpinned download, a live call in a build.
    #[error("{message}")]
    Refused {
        /// One sentence without a final period.
        message: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// A bug in Maestro.
    #[error("internal error: {message}")]
    Internal {
        /// One sentence without a final period.
        message: String,
    },
}

impl RunError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Failed { .. } | Self::Timeout { .. } | Self::Cancelled => FailureKind::Build,
            Self::Refused { .. } => FailureKind::Input,
            Self::MissingBlobs(_) | Self::Machine { .. } => FailureKind::Environment,
            Self::Internal { .. } => FailureKind::Internal,
        }
    }

    /// What can be done about it.
    pub fn hints(&self) -> &[String] {
        match self {
            Self::Failed { hints, .. }
            | Self::Machine { hints, .. }
            | Self::Refused { hints, .. } => hints,
            _ => &[],
        }
    }
}

/// Runs actions of some kind.
pub trait Runner: Send + Sync {
    /// Whether this runner runs such actions.
    fn handles(&self, how: &How) -> bool;

    /// Runs one action to its end. Blocks; called from a thread of the engine.
    fn run(&self, job: &Job<'_>) -> Result<Outcome, RunError>;
}
