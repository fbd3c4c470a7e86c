//! What every service has at hand: the store, the check of who may do what, and the way from errors
//! to statuses.

use std::sync::Arc;

use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::Digest;
use tonic::{Extensions, Status};

use super::access::{Grant, Need};
use crate::compression::CompressionError;
use crate::convert::ConvertError;
use crate::names::NamesError;
use crate::resource::{ResourceError, check_instance};

/// Shared by the services.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) depot: Arc<Depot>,
}

impl Context {
    pub(super) fn new(depot: Arc<Depot>) -> Self {
        Self { depot }
    }

    /// The space of an instance that somebody wants to read; `None` where nothing was stored yet.
    pub(super) fn read_space(
        &self,
        extensions: &Extensions,
        instance: &str,
    ) -> Result<Option<Space>, Status> {
        self.check(extensions, instance, Need::Read)?;
        Ok(self.depot.space(instance))
    }

    /// The space of an instance that somebody wants to write to.
    pub(super) fn write_space(
        &self,
        extensions: &Extensions,
        instance: &str,
    ) -> Result<Space, Status> {
        self.check(extensions, instance, Need::Write)?;
        self.depot.make_space(instance).map_err(|error| status(&error))
    }

    /// Whether somebody may write to an instance.
    pub(super) fn may_write(&self, extensions: &Extensions, instance: &str) -> bool {
        self.check(extensions, instance, Need::Write).is_ok()
    }

    /// Whether somebody may do something with an instance.
    pub(super) fn check(
        &self,
        extensions: &Extensions,
        instance: &str,
        need: Need,
    ) -> Result<(), Status> {
        check_instance(instance).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let grant = extensions.get::<Grant>();
        grant.ok_or_else(|| Status::unauthenticated("no grant"))?.check(instance, need)
    }

    /// Does what may block on the disk.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Depot) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let depot = Arc::clone(&self.depot);
        match tokio::task::spawn_blocking(move || work(&depot)).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a call ended in a panic");
                Err(Status::internal("the call failed; the server's log says why"))
            }
        }
    }
}

/// Reads a whole blob of up to `limit` bytes.
pub(super) fn whole(
    depot: &Depot,
    space: Space,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<u8>, StoreError> {
    if digest.size > limit {
        return Err(StoreError::TooLarge { what: "message", size: digest.size, limit });
    }
    depot.content(space, digest)?.read(depot, 0, usize::MAX)
}

/// The status of an error of the store.
pub(super) fn status(error: &StoreError) -> Status {
    let text = maestro_core::failure::chain(error);
    match error {
        StoreError::Missing { .. } => Status::not_found(text),
        StoreError::Mismatch { .. } => Status::invalid_argument(text),
        StoreError::TooLarge { .. }
        | StoreError::NoSpace { .. }
        | StoreError::Quota { .. }
        | StoreError::TooManyFiles { .. } => Status::resource_exhausted(public(error)),
        _ => {
            tracing::error!(error = %text, "the store failed");
            Status::unavailable("the store failed; the server's log says why")
        }
    }
}

/// What clients may read of an error: no path of the server.
fn public(error: &StoreError) -> String {
    match error {
        StoreError::NoSpace { .. } | StoreError::Quota { .. } => {
            tracing::error!(error = %maestro_core::failure::chain(error), "there is no space");
            "the server has no space left".to_owned()
        }
        StoreError::TooManyFiles { .. } => "the server has too many files open".to_owned(),
        other => other.to_string(),
    }
}

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<ResourceError> for Status {
    fn from(error: ResourceError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<CompressionError> for Status {
    fn from(error: CompressionError) -> Self {
        match error {
            CompressionError::Encoder { .. } => Self::internal(error.to_string()),
            _ => Self::invalid_argument(error.to_string()),
        }
    }
}

impl From<NamesError<StoreError>> for Status {
    fn from(error: NamesError<StoreError>) -> Self {
        match error {
            NamesError::Read(StoreError::Missing { digest }) => absent(&digest),
            NamesError::Read(error) => status(&error),
            other => Self::invalid_argument(other.to_string()),
        }
    }
}

/// A result names what is not there.
pub(super) fn absent(digest: &Digest) -> Status {
    let text = format!("the result names the blob `{digest}`, which is not there: upload it first");
    Status::failed_precondition(text)
}
