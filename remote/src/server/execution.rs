//! The service of execution: an action goes in, the operation that runs it is followed.
//!
//! | what | how |
//! |---|---|
//! | a known result | is given back at once, unless the client wants a new one |
//! | what is missing | refuses the call, with every blob that is |
//! | errors before the action is queued | are the status of the call; later ones that of the response |
//! | a stream that ends early | leaves the operation: it can be waited for again, by its name |
//! | a result | is in the action cache before its operation says that it is done |

use std::pin::Pin;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::longrunning::{Operation as WireOperation, operation};
use bazel_remote_apis::google::{protobuf, rpc};
use futures_util::Stream;
use maestro_cas::depot::Space;
use maestro_core::limits;
use maestro_core::scheduler::{Action, Ending, Rejection, Stage, Submission};
use prost::Message as _;
use reapi::execution_server::Execution;
use reapi::execution_stage::Value as WireStage;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::access::Need;
use super::action_cache::{self, Inlined};
use super::context::Context;
use super::dispatch::{Dispatch, Operation, Progress};
use super::request;
use crate::convert::{self, function_value, wire_digest};

/// The service.
pub(super) struct Executions {
    pub(super) context: Context,
    pub(super) dispatch: Arc<Dispatch>,
}

type Operations = Pin<Box<dyn Stream<Item = Result<WireOperation, Status>> + Send>>;

/// The header in which a client says who it is.
const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

#[tonic::async_trait]
impl Execution for Executions {
    type ExecuteStream = Operations;

    async fn execute(
        &self,
        request: Request<reapi::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let space = self.context.write_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let digest = convert::required(function, "action_digest", request.action_digest.as_ref())?;
        let inlined = Inlined {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files,
        };
        let action = Action { instance: request.instance_name.as_str().into(), digest };
        if !request.skip_cache_lookup {
            let wanted = inlined.clone();
            let find = move |depot: &_| action_cache::find(depot, space, &digest, &wanted);
            if let Some(result) = self.context.blocking(find).await? {
                return Ok(Response::new(cached(&action, result)));
            }
        }
        let plan = self.context.blocking(move |depot| request::plan(depot, space, &digest)).await?;
        let invocation = invocation(&metadata);
        tracing::debug!(%digest, invocation, "an action is submitted");
        let submitted = self.dispatch.submit(|operation| Submission {
            operation,
            tenant: action.instance.clone(),
            invocation: invocation.as_str().into(),
            action,
            requirements: plan.requirements,
            priority: request.execution_policy.map_or(0, |policy| policy.priority),
            timeout_ms: plan.timeout_ms,
            merge: plan.is_cacheable && !request.skip_cache_lookup,
        });
        let operation = submitted.map_err(|rejection| rejected(&rejection))?;
        Ok(Response::new(self.follow(operation, inlined, space)))
    }

    type WaitExecutionStream = Operations;

    async fn wait_execution(
        &self,
        request: Request<reapi::WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let (_, extensions, reapi::WaitExecutionRequest { name }) = request.into_parts();
        let unknown = || {
            let name = name.escape_debug();
            Status::not_found(format!("there is no operation `{name}` (any more)"))
        };
        let operation = self.dispatch.find(&name).ok_or_else(unknown)?;
        let instance = &operation.action.instance;
        // Whoever may not know of the instance learns nothing of its operations.
        self.context.check(&extensions, instance, Need::Write).map_err(|_| unknown())?;
        let space = self.context.write_space(&extensions, instance)?;
        self.dispatch.attach(&operation);
        let all = Inlined { stdout: true, stderr: true, files: Vec::new() };
        Ok(Response::new(self.follow(operation, all, space)))
    }
}

/// A client that follows an operation; when it goes, the scheduler learns of it.
struct Follower {
    dispatch: Arc<Dispatch>,
    context: Context,
    operation: Operation,
    inlined: Inlined,
    space: Space,
    has_begun: bool,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.dispatch.detach(&self.operation);
    }
}

impl Executions {
    /// The messages of an operation, from where it is to its end.
    fn follow(&self, operation: Operation, inlined: Inlined, space: Space) -> Operations {
        let (dispatch, context) = (Arc::clone(&self.dispatch), self.context.clone());
        let follower = Follower { dispatch, context, operation, inlined, space, has_begun: false };
        Box::pin(futures_util::stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(message) if message.done => Some((Ok(message), None)),
                Ok(message) => Some((Ok(message), Some(follower))),
                Err(status) => Some((Err(status), None)),
            }
        }))
    }
}

impl Follower {
    async fn next(&mut self) -> Result<WireOperation, Status> {
        if self.has_begun {
            let changed = self.operation.progress.changed().await;
            changed.map_err(|_| Status::unavailable("the server ends: ask the next one"))?;
        }
        self.has_begun = true;
        let progress = self.operation.progress.borrow_and_update().clone();
        let response = match progress {
            Progress::Stage(stage) => return Ok(self.staged(stage)),
            Progress::Response(response) => self.complete(&response).await?,
            Progress::Ended(ending) => {
                let status = Some(status_of(&ending));
                reapi::ExecuteResponse { status, ..Default::default() }
            }
        };
        let Operation { name, action, .. } = &self.operation;
        Ok(done(name, action, &response))
    }

    fn staged(&self, stage: Stage) -> WireOperation {
        let stage = match stage {
            Stage::Queued => WireStage::Queued,
            Stage::Executing => WireStage::Executing,
        };
        let Operation { name, action, .. } = &self.operation;
        WireOperation {
            name: name.clone(),
            metadata: Some(metadata(action, stage)),
            done: false,
            result: None,
        }
    }

    /// The response of a worker, with what this client wants to have inlined.
    async fn complete(
        &self,
        response: &reapi::ExecuteResponse,
    ) -> Result<reapi::ExecuteResponse, Status> {
        let mut response = response.clone();
        let Some(mut result) = response.result.take() else { return Ok(response) };
        if let Some(times) = &mut result.execution_metadata {
            let queued = timestamp(self.operation.queued_unix_ms);
            let starts = times.worker_start_timestamp;
            // A worker whose clock is behind must not start before it was asked.
            let earlier = starts.filter(|start| later(&queued, start)).unwrap_or(queued);
            times.queued_timestamp = Some(earlier);
        }
        let (function, space) = (self.operation.action.digest.function, self.space);
        let wanted = self.inlined.clone();
        let inline = move |depot: &_| {
            action_cache::inline(depot, space, function, &mut result, &wanted);
            Ok(result)
        };
        response.result = Some(self.context.blocking(inline).await?);
        Ok(response)
    }
}

/// The one message of an operation whose result was known before.
fn cached(action: &Action, result: reapi::ActionResult) -> Operations {
    let response = reapi::ExecuteResponse {
        result: Some(result),
        cached_result: true,
        status: Some(rpc::Status::default()),
        ..Default::default()
    };
    let name = format!("operations/{}", uuid::Uuid::now_v7());
    let message = done(&name, action, &response);
    Box::pin(futures_util::stream::iter([Ok(message)]))
}

fn done(name: &str, action: &Action, response: &reapi::ExecuteResponse) -> WireOperation {
    let response = any("build.bazel.remote.execution.v2.ExecuteResponse", response);
    WireOperation {
        name: name.to_owned(),
        metadata: Some(metadata(action, WireStage::Completed)),
        done: true,
        result: Some(operation::Result::Response(response)),
    }
}

fn metadata(action: &Action, stage: WireStage) -> protobuf::Any {
    let metadata = reapi::ExecuteOperationMetadata {
        stage: stage as i32,
        action_digest: Some(wire_digest(&action.digest)),
        digest_function: function_value(action.digest.function),
        ..Default::default()
    };
    any("build.bazel.remote.execution.v2.ExecuteOperationMetadata", &metadata)
}

fn any(name: &str, message: &impl prost::Message) -> protobuf::Any {
    let type_url = format!("type.googleapis.com/{name}");
    protobuf::Any { type_url, value: message.encode_to_vec() }
}

/// The build that an action belongs to; what says nothing belongs to one of its own.
fn invocation(metadata: &MetadataMap) -> String {
    let bytes = metadata.get_bin(METADATA).and_then(|value| value.to_bytes().ok());
    let who = bytes.and_then(|bytes| reapi::RequestMetadata::decode(bytes).ok());
    let mut id = who.unwrap_or_default().tool_invocation_id;
    let end = id.floor_char_boundary(limits::NAME_BYTES_MAX);
    id.truncate(end);
    id
}

/// Why an action is not queued, as the status of a call.
fn rejected(rejection: &Rejection) -> Status {
    Status::new(rejection_code(rejection), rejection.to_string())
}

fn rejection_code(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::UnknownProperty { .. } => Code::InvalidArgument,
        Rejection::Unserved { .. } => Code::FailedPrecondition,
        Rejection::TooManyOperations { .. } | Rejection::TooManyRequirements { .. } => {
            Code::ResourceExhausted
        }
    }
}

/// Why an operation has no response, as the status of one.
fn status_of(ending: &Ending) -> rpc::Status {
    let (code, message) = match ending {
        Ending::Result(_) => (Code::Internal, "the result was lost on its way".to_owned()),
        Ending::Cancelled => (Code::Cancelled, "nobody waited for the operation".to_owned()),
        Ending::Rejected(rejection) => (rejection_code(rejection), rejection.to_string()),
        Ending::Overran => {
            let text = "the time of the action was up, and its worker did not stop it";
            (Code::DeadlineExceeded, text.to_owned())
        }
        Ending::Faulted { attempts } => {
            let text = format!("{attempts} workers were lost with the action, or could not run it");
            (Code::Internal, text)
        }
    };
    rpc::Status { code: code as i32, message, details: Vec::new() }
}

fn timestamp(unix_ms: u64) -> protobuf::Timestamp {
    protobuf::Timestamp {
        seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(unix_ms % 1_000).unwrap_or(0) * 1_000_000,
    }
}

fn later(one: &protobuf::Timestamp, other: &protobuf::Timestamp) -> bool {
    (one.seconds, one.nanos) > (other.seconds, other.nanos)
}
