//! Why a native step gave no output, and whose fault that is.

use std::io;
use std::path::PathBuf;

use maestro_cas::StoreError;
use maestro_core::failure::chain;
use maestro_core::{Digest, FailureKind};

use crate::runner::RunError;

/// The failure of a native step.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The request has not the shape of its kind: rules make requests, so this is a bug.
    #[error("the request of `{kind}` has the wrong shape: {why}")]
    Shape {
        /// The kind of step.
        kind: String,
        /// What the JSON reader says.
        why: String,
    },
    /// A value in the request is not allowed.
    #[error("field `{field}`: {why}")]
    Field {
        /// The field, such as `entries[3].path`.
        field: String,
        /// The reason.
        why: String,
    },
    /// Two things want the same place in a tree.
    #[error("two different things are put at `{path}`")]
    Clash {
        /// The place.
        path: String,
    },
    /// A link leads out of its tree, or may do so by way of another link.
    #[error("the link `{path}` -> `{target}` does not surely stay in the tree")]
    Link {
        /// Where it stands.
        path: String,
        /// Its text.
        target: String,
    },
    /// An archive is damaged or hostile.
    #[error("archive `{archive}`: {why}")]
    Archive {
        /// Its path.
        archive: String,
        /// The reason, naming the entry where there is one.
        why: String,
    },
    /// A base image is not what it should be.
    #[error("image layout `{layout}`: {why}")]
    Layout {
        /// Its path.
        layout: String,
        /// The reason.
        why: String,
    },
    /// More bytes, entries or depth than Maestro takes.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The store failed or has lost a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A temporary file could not be written or read.
    #[error("cannot use the temporary file `{}`", .path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An input could not be read.
    #[error("cannot read the blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody waits for the result any more.
    #[error("cancelled")]
    Cancelled,
    /// Maestro contradicts itself.
    #[error("{message}")]
    Internal {
        /// How.
        message: String,
    },
}

impl NativeError {
    /// An error about a field of the request.
    pub(super) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }

    /// Tells the engine, which knows how to go on from each.
    pub(super) fn into_run_error(self) -> RunError {
        let message = chain(&self);
        match self {
            Self::Shape { .. } | Self::Internal { .. } => RunError::Internal { message },
            Self::Field { .. } => RunError::Refused { message, hints: Vec::new() },
            Self::Clash { .. }
            | Self::Link { .. }
            | Self::Archive { .. }
            | Self::Layout { .. }
            | Self::TooLarge { .. } => RunError::Failed {
                message,
                hints: Vec::new(),
                stdout: None,
                stderr: None,
                kept: Vec::new(),
            },
            Self::Store(error) => store_error(error),
            Self::Scratch { .. } | Self::Read { .. } => {
                RunError::Machine { message, hints: Vec::new() }
            }
            Self::Cancelled => RunError::Cancelled,
        }
    }
}

/// Tells the engine what the store said: a lost blob is made again, a full disk is the machine's.
pub fn store_error(error: StoreError) -> RunError {
    if let StoreError::Missing { digest } | StoreError::Corrupt { digest, .. } = &error {
        return RunError::MissingBlobs(vec![*digest]);
    }
    let message = chain(&error);
    match error.kind() {
        FailureKind::Internal => RunError::Internal { message },
        FailureKind::Build | FailureKind::Input | FailureKind::Environment => {
            RunError::Machine { message, hints: Vec::new() }
        }
    }
}
