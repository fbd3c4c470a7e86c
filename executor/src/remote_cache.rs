//! The interface between the engine and a cache on another machine, which others share.
//!
//! What is found there is a result like one of the store: its key says that the same action was
//! run, wherever that was. Only its blobs stay where they are until somebody reads them: an action
//! that runs here, or an output that is asked for. A blob that turns out to be gone makes the
//! engine run its producer, as if it were gone from the store.

use maestro_cas::StoreError;
use maestro_core::key::Prepared;
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{ActionKey, Digest};

use crate::runner::Cancel;

/// A cache on another machine. Its methods block.
pub trait RemoteCache: Send + Sync {
    /// The result of a key, if there is one that can be used. What it wrote to standard output and
    /// error and the directories of its trees are in the store afterwards; of other blobs only the
    /// digests are known.
    fn find(&self, key: &ActionKey) -> Result<Option<ActionResult>, RemoteError>;

    /// The build uses a result that came from here: it may be kept once its blobs are in the store.
    fn used(&self, key: &ActionKey, result: &ActionResult);

    /// Brings blobs into the store, and says which of them are not to be had.
    fn fetch(&self, digests: &[Digest]) -> Result<Vec<Digest>, RemoteError>;

    /// Takes the result of an action that was run here and may be shared. Its blobs are in the
    /// store. Returns at once; what cannot be left is no failure of the build.
    fn leave(&self, prepared: &Prepared, result: &ActionResult);

    /// Has an action run on another machine, and waits for it; `None` where that is not to be, so
    /// that it has to run here.
    fn execute(&self, errand: &Errand<'_>) -> Result<Option<Executed>, RemoteError> {
        let _ = errand;
        Ok(None)
    }

    /// What the user should know since this was last asked, a sentence each.
    fn news(&self) -> Vec<String>;

    /// How many threads can profitably ask at once.
    fn callers(&self) -> usize;
}

/// An action that is to be run on another machine.
pub struct Errand<'a> {
    /// Its key and input tree.
    pub prepared: &'a Prepared,
    /// Trees that it sees beside its inputs.
    pub toolchains: &'a [Digest],
    /// Whether a result that is known already will not do.
    pub anew: bool,
    /// Becomes true when nobody wants the result any more.
    pub cancel: &'a Cancel,
}

/// How an action ended on another machine. Logs are in the store.
#[derive(Debug)]
pub enum Executed {
    /// With a result, as [`RemoteCache::find`] gives one.
    Result(ActionResult),
    /// With an exit code that is none of success.
    Failed {
        /// The exit code.
        code: i32,
        /// Standard output, if any.
        stdout: Option<Digest>,
        /// Standard error, if any.
        stderr: Option<Digest>,
        /// Files that it made all the same, such as the report of a test; in the store.
        kept: Vec<OutputFile>,
    },
    /// With a sentence that says what is wrong with it.
    Refused(String),
    /// Its time was up.
    TimedOut {
        /// See `Failed`.
        stdout: Option<Digest>,
        /// See `Failed`.
        stderr: Option<Digest>,
    },
    /// Blobs that it needs are nowhere; their producers must run again.
    MissingBlobs(Vec<Digest>),
    /// Nobody wants it any more.
    Cancelled,
}

/// Why a remote cache stops a build.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It does not answer, and the user does not want to build without it.
    #[error("{message}")]
    Lost {
        /// One sentence without a final period.
        message: String,
        /// What can be done.
        hints: Vec<String>,
    },
    /// What it sent could not be stored here.
    #[error(transparent)]
    Store(#[from] StoreError),
}
