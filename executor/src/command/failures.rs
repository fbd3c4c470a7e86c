//! Errors of what commands stand on, sandbox, store and file system, as failures of an action.

use std::io;
use std::path::Path;

use maestro_cas::StoreError;

use crate::runner::RunError;
use crate::sandbox::SandboxError;

/// A sandbox that cannot be had is the machine's fault.
pub(super) fn sandbox_failure(error: &SandboxError) -> RunError {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    let message = format!("{error}{}", source.unwrap_or_default());
    RunError::Machine { message, hints: error.hints() }
}

/// Blobs that are gone are made again; else the machine is at fault.
pub(super) fn store_failure(error: &StoreError) -> RunError {
    match error {
        StoreError::Missing { digest } | StoreError::Corrupt { digest, .. } => {
            RunError::MissingBlobs(vec![*digest])
        }
        _ => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}"));
            let message = format!("{error}{}", source.unwrap_or_default());
            RunError::Machine { message, hints: error.hint().into_iter().collect() }
        }
    }
}

/// An operation on a path failed.
pub(super) fn machine(path: &Path, action: &str, source: &io::Error) -> RunError {
    let message = format!("cannot {action} `{}`: {source}", path.display());
    let full = source.kind() == io::ErrorKind::StorageFull;
    let hints = if full { vec!["`maestro cache gc` makes room".to_owned()] } else { Vec::new() };
    RunError::Machine { message, hints }
}

/// A bug.
pub(super) fn internal(message: &str) -> RunError {
    RunError::Internal { message: message.to_owned() }
}
