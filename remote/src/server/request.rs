//! An action as a client wants it run: read, checked, and found to be whole.
//!
//! All that the action needs is looked up before it waits for a worker, so that a client learns at
//! once, and of every blob, what it has to upload.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::protobuf;
use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::scheduler::Requirements;
use maestro_core::wire::Directory;
use maestro_core::{Digest, limits};
use tonic::Status;

use super::contents::has;
use super::context::{status, whole};
use crate::{convert, platform, precondition};

/// What is to be known of an action to run it.
pub(super) struct Plan {
    /// What it needs of a worker.
    pub(super) requirements: Requirements,
    /// How long it may run.
    pub(super) timeout_ms: u64,
    /// Whether its result may be kept, or be that of another run.
    pub(super) is_cacheable: bool,
}

/// Reads an action and looks for all that it names.
pub(super) fn plan(depot: &Depot, space: Space, digest: &Digest) -> Result<Plan, Status> {
    let mut search = Search { depot, space, missing: Vec::new() };
    let Some(action) = search.message::<reapi::Action>(digest, "Action")? else {
        return Err(search.refusal());
    };
    let timeout_ms = timeout_ms(action.timeout.as_ref())?;
    let function = digest.function;
    let field = "command_digest";
    let command_digest = convert::required(function, field, action.command_digest.as_ref())?;
    let field = "input_root_digest";
    let root = convert::required(function, field, action.input_root_digest.as_ref())?;
    let command = search.message::<reapi::Command>(&command_digest, "Command")?;
    search.tree(root)?;
    let Some(command) = command.filter(|_| search.missing.is_empty()) else {
        return Err(search.refusal());
    };
    if command.arguments.is_empty() {
        return Err(Status::invalid_argument("the command has no arguments"));
    }
    if let Some(property) = command.output_node_properties.first() {
        let text = format!("the node property `{}` is not supported", property.escape_debug());
        return Err(Status::invalid_argument(text));
    }
    let platform = platform_of(&action, &command);
    let requirements = platform::requirements(&platform)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Plan { requirements, timeout_ms, is_cacheable: !action.do_not_cache })
}

/// The platform of an action; that of its command, where clients of old versions say it.
#[allow(deprecated)] // as long as clients say it there
fn platform_of(action: &reapi::Action, command: &reapi::Command) -> reapi::Platform {
    action.platform.clone().or_else(|| command.platform.clone()).unwrap_or_default()
}

fn timeout_ms(timeout: Option<&protobuf::Duration>) -> Result<u64, Status> {
    let Some(timeout) = timeout else { return Ok(limits::ACTION_TIMEOUT_MS_DEFAULT) };
    let limit = limits::ACTION_TIMEOUT_MS_MAX;
    let millis = u64::try_from(timeout.seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000))
        .and_then(|millis| millis.checked_add(u64::try_from(timeout.nanos).ok()? / 1_000_000));
    match millis {
        Some(0) if timeout.nanos == 0 => Ok(limits::ACTION_TIMEOUT_MS_DEFAULT),
        Some(millis) if millis <= limit => Ok(millis.max(1)),
        _ => {
            let seconds = limit / 1_000;
            let text = format!("the time limit of the action is not within 0 and {seconds} s");
            Err(Status::invalid_argument(text))
        }
    }
}

struct Search<'d> {
    depot: &'d Depot,
    space: Space,
    missing: Vec<Digest>,
}

impl Search<'_> {
    /// Reads a message; `None` where it is missing.
    fn message<M: prost::Message + Default>(
        &mut self,
        digest: &Digest,
        what: &str,
    ) -> Result<Option<M>, Status> {
        let Some(bytes) = self.read(digest)? else { return Ok(None) };
        let message = M::decode(bytes.as_slice())
            .map_err(|_| Status::invalid_argument(format!("`{digest}` is not a {what}")))?;
        Ok(Some(message))
    }

    fn read(&mut self, digest: &Digest) -> Result<Option<Vec<u8>>, Status> {
        if digest.is_empty_blob() {
            return Ok(Some(Vec::new()));
        }
        match whole(self.depot, self.space, digest, limits::MESSAGE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing { .. }) => {
                self.missing.push(*digest);
                Ok(None)
            }
            Err(error) => Err(status(&error)),
        }
    }

    /// Looks for everything in a tree; what stands there twice is looked at once.
    fn tree(&mut self, root: Digest) -> Result<(), Status> {
        let (mut seen, mut pending) = (HashSet::from([root]), vec![root]);
        while let Some(digest) = pending.pop() {
            let Some(bytes) = self.read(&digest)? else { continue };
            let directory = Directory::decode(digest.function, &bytes).map_err(|error| {
                let text = format!("the input directory `{digest}` cannot be used: {error}");
                Status::invalid_argument(text)
            })?;
            let below = directory.directories.iter().map(|node| node.digest);
            pending.extend(below.filter(|digest| seen.insert(*digest)));
            for file in directory.files {
                if seen.insert(file.digest)
                    && !has(self.depot, Some(self.space), &file.digest)
                    && self.missing.len() < limits::MISSING_NAMED_MAX
                {
                    self.missing.push(file.digest);
                }
            }
            if seen.len() > limits::RESULT_NAMES_MAX {
                let limit = limits::RESULT_NAMES_MAX;
                let text = format!("the input tree names more than {limit} blobs");
                return Err(Status::invalid_argument(text));
            }
        }
        Ok(())
    }

    fn refusal(&self) -> Status {
        precondition::of_call(&precondition::missing(&self.missing))
    }
}
