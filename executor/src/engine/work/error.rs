//! Why an action has no result.

use maestro_core::event::TestStatus;
use maestro_core::key::{PrepareError, Prepared};
use maestro_core::map::MapError;
use maestro_core::wire::OutputFile;
use maestro_core::{ActionKey, Digest, FailureKind};

use crate::engine::parts::FailedParts;
use crate::engine::resolve::InputError;
use crate::records::FindError;
use crate::remote_cache::RemoteError;
use crate::runner::RunError;

/// Why an action has no result.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// An input could not be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The key could not be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The action ran, or could not.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A recorded action has no record.
    #[error(transparent)]
    Record(#[from] Box<FindError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] maestro_cas::StoreError),
    /// A tree cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Parts of a map failed, of which was told before.
    #[error(transparent)]
    Parts(Box<FailedParts>),
    /// The build stopped before all parts of a map were begun.
    #[error("given up")]
    Abandoned,
    /// Its result is not known, and nothing is to run.
    #[error("its result is not in the cache")]
    Unmade {
        /// Its key and what the key was made of.
        prepared: Box<Prepared>,
    },
    /// The command ran and failed; this keeps what it was.
    #[error("{error}")]
    Command {
        /// What went wrong.
        #[source]
        error: RunError,
        /// Its key and what the key was made of, so that it can be shown and run again.
        prepared: Box<Prepared>,
    },
}

impl WorkError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Input(InputError::Source(error)) => error.kind(),
            Self::Input(InputError::Toolchain(_)) => FailureKind::Environment,
            Self::Input(InputError::Store(error)) | Self::Store(error) => error.kind(),
            Self::Prepare(PrepareError::LostTree { .. }) => FailureKind::Environment,
            Self::Prepare(_) => FailureKind::Input,
            Self::Unmade { .. } => FailureKind::Build,
            Self::Record(error) => error.kind(),
            Self::Map(_) | Self::Abandoned => FailureKind::Build,
            Self::Parts(parts) => parts.kind,
            Self::Run(error) | Self::Command { error, .. } => error.kind(),
        }
    }

    /// The key of the action, where one could be made.
    pub fn key(&self) -> Option<ActionKey> {
        match self {
            Self::Command { prepared, .. } => Some(prepared.key),
            _ => None,
        }
    }

    /// Whether a recorded action found no record.
    pub fn is_record_miss(&self) -> bool {
        matches!(self, Self::Record(error) if matches!(**error, FindError::Miss(_)))
    }

    /// The verdict of a test that ended so, and what it wrote.
    pub fn test_status(&self) -> (TestStatus, Vec<Digest>) {
        let (Self::Run(error) | Self::Command { error, .. }) = self else {
            return (TestStatus::NotBuilt, Vec::new());
        };
        let logs = |stdout: &Option<Digest>, stderr: &Option<Digest>| {
            stdout.iter().chain(stderr).copied().collect()
        };
        match error {
            RunError::Failed { stdout, stderr, .. } => (TestStatus::Failed, logs(stdout, stderr)),
            RunError::Timeout { stdout, stderr, .. } => (TestStatus::Timeout, logs(stdout, stderr)),
            _ => (TestStatus::NotBuilt, Vec::new()),
        }
    }

    /// What a failed test made before it failed, such as its report.
    pub fn kept_files(&self) -> &[OutputFile] {
        match self {
            Self::Run(RunError::Failed { kept, .. })
            | Self::Command { error: RunError::Failed { kept, .. }, .. } => kept,
            _ => &[],
        }
    }

    /// What can be done about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Input(InputError::Source(error)) => error.hints(),
            Self::Input(InputError::Toolchain(failure)) => failure.hints.clone(),
            Self::Input(InputError::Store(error)) | Self::Store(error) => {
                error.hint().into_iter().collect()
            }
            Self::Map(error) => error.hint().map(str::to_owned).into_iter().collect(),
            Self::Prepare(_) | Self::Parts(_) | Self::Abandoned | Self::Unmade { .. } => Vec::new(),
            Self::Record(error) => error.hints(),
            Self::Run(error) | Self::Command { error, .. } => error.hints().to_vec(),
        }
    }
}

impl From<RemoteError> for WorkError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Lost { message, hints } => RunError::Machine { message, hints }.into(),
            RemoteError::Store(error) => error.into(),
        }
    }
}
