//! The service of action results.
//!
//! | what | how |
//! |---|---|
//! | completeness | a result is stored with what it names, and refused where that is not there; see [`crate::names`] |
//! | inlined contents | stored as blobs; given back only to who asks, as far as there is room |
//! | a failed action | refused: a failure is never a cached result |
//! | an action that says `do_not_cache` | refused, where the action is there to be looked at |

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, DigestFunction, limits};
use prost::Message as _;
use reapi::action_cache_server::ActionCache;
use tonic::{Request, Response, Status};

use super::context::{Context, status, whole};
use crate::{convert, names};

/// The service.
pub(super) struct Results(pub(super) Context);

/// Who ran an action, where nobody said so: a result must not be empty.
const UNKNOWN_WORKER: &str = "unknown";
/// Bytes of a message that are left to what is not inlined.
const MESSAGE_MARGIN_BYTES: u64 = 64 * 1024;

#[tonic::async_trait]
impl ActionCache for Results {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let action = request.action_digest.as_ref();
        let action = convert::required(function, "action_digest", action)?;
        let unknown = || Status::not_found(format!("there is no result of `{action}`"));
        let space = space.ok_or_else(unknown)?;
        let inlined = Inlined {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files,
        };
        let found = self.0.blocking(move |depot| find(depot, space, &action, &inlined)).await?;
        Ok(Response::new(found.ok_or_else(unknown)?))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.write_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let action = request.action_digest.as_ref();
        let action = convert::required(function, "action_digest", action)?;
        let nothing = || Status::invalid_argument("`action_result` is missing");
        let result = request.action_result.ok_or_else(nothing)?;
        let stored = self.0.blocking(move |depot| store(depot, space, &action, result)).await?;
        Ok(Response::new(stored))
    }
}

/// What a client wants to have in the message, as far as there is room.
#[derive(Clone)]
pub(super) struct Inlined {
    /// Standard output.
    pub(super) stdout: bool,
    /// Standard error.
    pub(super) stderr: bool,
    /// Output files, by path.
    pub(super) files: Vec<String>,
}

/// The result of an action, if there is one.
pub(super) fn find(
    depot: &Depot,
    space: Space,
    action: &Digest,
    inlined: &Inlined,
) -> Result<Option<reapi::ActionResult>, Status> {
    let bytes = depot.result(space, action).map_err(|error| status(&error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let mut result = reapi::ActionResult::decode(bytes.as_slice()).map_err(|error| {
        tracing::error!(%error, %action, "a stored result is damaged");
        Status::unavailable("the store failed; the server's log says why")
    })?;
    inline(depot, space, action.function, &mut result, inlined);
    Ok(Some(result))
}

/// Puts contents into a result.
pub(super) fn inline(
    depot: &Depot,
    space: Space,
    function: DigestFunction,
    result: &mut reapi::ActionResult,
    inlined: &Inlined,
) {
    let used = result.encoded_len() as u64 + MESSAGE_MARGIN_BYTES;
    let mut room = (limits::BATCH_BYTES_MAX as u64).saturating_sub(used);
    let mut read = |digest: Option<&reapi::Digest>, wanted: bool| -> Vec<u8> {
        let digest = digest.and_then(|digest| convert::digest(function, digest).ok());
        let fits = |digest: &Digest| wanted && digest.size <= room;
        let Some(digest) = digest.filter(fits) else { return Vec::new() };
        // What cannot be read is not inlined; the client asks for it by its digest.
        let content = whole(depot, space, &digest, room).unwrap_or_default();
        room = room.saturating_sub(content.len() as u64);
        content
    };
    result.stdout_raw = read(result.stdout_digest.as_ref(), inlined.stdout);
    result.stderr_raw = read(result.stderr_digest.as_ref(), inlined.stderr);
    for file in &mut result.output_files {
        let wanted = inlined.files.contains(&file.path);
        file.contents = read(file.digest.as_ref(), wanted);
    }
}

/// Stores a result with what is inlined in it, where all that it names is there.
pub(super) fn store(
    depot: &Depot,
    space: Space,
    action: &Digest,
    mut result: reapi::ActionResult,
) -> Result<reapi::ActionResult, Status> {
    let size = result.encoded_len();
    if size > limits::RESULT_BYTES_MAX {
        let limit = limits::RESULT_BYTES_MAX;
        let text = format!("the result has {size} bytes, and {limit} are allowed");
        return Err(Status::invalid_argument(text));
    }
    if result.exit_code != 0 {
        let text = format!("the action failed with exit code {}: not cached", result.exit_code);
        return Err(Status::invalid_argument(text));
    }
    refuse_uncacheable(depot, space, action)?;
    store_inlined(depot, space, action.function, &mut result)?;
    if result.execution_metadata.is_none() {
        let worker = UNKNOWN_WORKER.to_owned();
        result.execution_metadata =
            Some(reapi::ExecutedActionMetadata { worker, ..Default::default() });
    }
    let mut read = |digest: &Digest| whole(depot, space, digest, limits::MESSAGE_BYTES_MAX);
    let names = names::of_result(action.function, &result, &mut read)?;
    match depot.put_result(space, action, result.encode_to_vec(), &names) {
        Ok(()) => Ok(result),
        Err(StoreError::Missing { digest }) => Err(super::context::absent(&digest)),
        Err(error) => Err(status(&error)),
    }
}

fn refuse_uncacheable(depot: &Depot, space: Space, action: &Digest) -> Result<(), Status> {
    if !depot.holds(space, action) {
        return Ok(());
    }
    let bytes = match whole(depot, space, action, limits::MESSAGE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(StoreError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(status(&error)),
    };
    match reapi::Action::decode(bytes.as_slice()) {
        Ok(action) if action.do_not_cache => {
            Err(Status::invalid_argument("the action says `do_not_cache`"))
        }
        _ => Ok(()),
    }
}

/// Stores what came in the message as blobs, and leaves the digests.
fn store_inlined(
    depot: &Depot,
    space: Space,
    function: DigestFunction,
    result: &mut reapi::ActionResult,
) -> Result<(), Status> {
    let mut blobs: Vec<(Digest, Vec<u8>)> = Vec::new();
    let mut take = |bytes: &mut Vec<u8>, digest: &mut Option<reapi::Digest>| {
        let bytes = std::mem::take(bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        let found = function.digest(&bytes);
        if let Some(wire) = digest {
            let expected = convert::digest(function, wire)?;
            if expected != found {
                return Err(status(&StoreError::Mismatch { expected, found }));
            }
        }
        *digest = Some(convert::wire_digest(&found));
        blobs.push((found, bytes));
        Ok(())
    };
    take(&mut result.stdout_raw, &mut result.stdout_digest)?;
    take(&mut result.stderr_raw, &mut result.stderr_digest)?;
    for file in &mut result.output_files {
        take(&mut file.contents, &mut file.digest)?;
    }
    let parts: Vec<(Digest, &[u8])> =
        blobs.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())).collect();
    depot.put(space, &parts).map_err(|error| status(&error))
}
