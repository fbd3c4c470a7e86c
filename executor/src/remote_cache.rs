//! The interface between the engine and a cache on another machine, which others share.
//!
//! What is found there is a result like one of the store: its key says that the same action was
//! run, wherever that was. Only its blobs stay where they are until somebody reads them: an action
//! that runs here, or an output that is asked for. A blob that turns out to be gone makes the
//! engine run its producer, as if it were gone from the store.

use maestro_cas::StoreError;
use maestro_core::key::Prepared;
use maestro_core::wire::ActionResult;
use maestro_core::{ActionKey, Digest};

/// A cache on another machine. Its methods block.
pub trait RemoteCache: Send + Sync {
    /// The result of a key, if there is one that can be used. What it wrote to standard output and
    /// error and the directories of its trees are in the store afterwards; of other blobs only the
    /// digests are known.
    fn find(&self, key: &ActionKey) -> Result<Option<ActionResult>, RemoteError>;

    /// Brings blobs into the store, and says which of them are not to be had.
    fn fetch(&self, digests: &[Digest]) -> Result<Vec<Digest>, RemoteError>;

    /// Takes the result of an action that was run here and may be shared. Its blobs are in the
    /// store. Returns at once; what cannot be left is no failure of the build.
    fn leave(&self, prepared: &Prepared, result: &ActionResult);

    /// What the user should know since this was last asked, a sentence each.
    fn news(&self) -> Vec<String>;

    /// How many threads can profitably ask at once.
    fn callers(&self) -> usize;
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
