//! Actions that are run by the server's workers.
//!
//! What the server lacks of an action is sent first; then the operation is followed to its end. A
//! stream that breaks is taken up again by the name of the operation, and where the server does
//! not know that any more, the action is submitted once more: it is the same action.

use std::collections::HashSet;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::rpc;
use maestro_cas::StoreError;
use maestro_core::wire::ActionResult;
use maestro_core::{Digest, Node};
use maestro_executor::remote_cache::{Errand, Executed};
use maestro_executor::runner::Cancel;
use prost::Message as _;
use reapi::execution_client::ExecutionClient;
use tokio::task::block_in_place;
use tonic::{Code, Status, Streaming};

use super::link::CallError;
use super::send::InMemory;
use super::{Shared, Trouble, lock, results};
use crate::convert::{function_value, wire_digest};

/// How often an action is submitted again of which blobs were missing.
const UPLOADS_MAX: usize = 3;
/// How often it is looked whether anybody still waits.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// How a submission went.
enum Ended {
    Response(Box<reapi::ExecuteResponse>),
    Cancelled,
}

/// What the server must hold before an action is submitted.
struct Needed {
    digests: HashSet<Digest>,
    in_memory: InMemory,
    /// Trees that it holds whole then.
    trees: Vec<Digest>,
}

impl Shared {
    /// Has an action run by the server.
    pub(super) async fn execute(&self, errand: &Errand<'_>) -> Result<Executed, Trouble> {
        let function = errand.prepared.key.0.function;
        for _ in 0..UPLOADS_MAX {
            match self.provide(errand).await {
                Err(Trouble::Store(
                    StoreError::Missing { digest } | StoreError::Corrupt { digest, .. },
                )) => return Ok(Executed::MissingBlobs(vec![digest])),
                provided => provided?,
            }
            let response = match self.submit(errand).await {
                Ok(Ended::Response(response)) => *response,
                Ok(Ended::Cancelled) => return Ok(Executed::Cancelled),
                // It has let go of something that it had.
                Err(Trouble::Call(CallError::Refused(status)))
                    if status.code() == Code::FailedPrecondition
                        && !status.details().is_empty() =>
                {
                    self.forget_present();
                    continue;
                }
                Err(Trouble::Call(CallError::Refused(status)))
                    if status.code() == Code::InvalidArgument =>
                {
                    return Ok(Executed::Refused(status.message().to_owned()));
                }
                Err(trouble) => return Err(trouble),
            };
            let status = response.status.unwrap_or_default();
            if status.code == Code::FailedPrecondition as i32 && !status.details.is_empty() {
                self.forget_present();
                continue;
            }
            return self.executed(function, &status, response.result).await;
        }
        let text = "the server loses blobs while an action that needs them waits";
        Err(Trouble::Call(CallError::Refused(Status::failed_precondition(text))))
    }

    /// Has the server hold what an action needs.
    async fn provide(&self, errand: &Errand<'_>) -> Result<(), Trouble> {
        let mut needed = block_in_place(|| self.of_errand(errand))?;
        let _lane = match needed.trees.is_empty() {
            true => None,
            false => {
                let lane = self.tree_lane.lock().await;
                // Another action may have sent them meanwhile.
                needed = block_in_place(|| self.of_errand(errand))?;
                Some(lane)
            }
        };
        self.send(needed.digests, &needed.in_memory).await?;
        lock(&self.whole).extend(needed.trees);
        Ok(())
    }

    /// What the server must hold: the action itself, its inputs and its toolchains.
    fn of_errand(&self, errand: &Errand<'_>) -> Result<Needed, Trouble> {
        let prepared = errand.prepared;
        let mut in_memory: InMemory = prepared.tree.directories.iter().cloned().collect();
        in_memory.extend(prepared.blobs.iter().cloned());
        let mut digests: HashSet<Digest> = in_memory.keys().copied().collect();
        digests.extend([prepared.key.0, prepared.command, prepared.tree.root]);
        let nodes = prepared.tree.entries.iter().map(|(_, node)| node);
        let mut trees: Vec<Digest> = errand.toolchains.to_vec();
        for node in nodes {
            match node {
                Node::File { digest, .. } => {
                    digests.insert(*digest);
                }
                Node::Tree { root } => trees.push(*root),
                Node::Symlink { .. } => {}
            }
        }
        {
            let whole = lock(&self.whole);
            trees.retain(|root| !whole.contains(root));
        }
        for root in &trees {
            let closure = self.closure(root)?;
            if let Some(digest) = closure.absent.first() {
                return Err(StoreError::Missing { digest: *digest }.into());
            }
            digests.extend(closure.directories);
            digests.extend(closure.files);
        }
        Ok(Needed { digests, in_memory, trees })
    }

    /// Submits the action, and follows it to its end.
    async fn submit(&self, errand: &Errand<'_>) -> Result<Ended, Trouble> {
        let key = errand.prepared.key.0;
        let request = reapi::ExecuteRequest {
            instance_name: self.options.instance.clone(),
            skip_cache_lookup: errand.anew,
            action_digest: Some(wire_digest(&key)),
            digest_function: function_value(key.function),
            inline_stdout: true,
            inline_stderr: true,
            ..Default::default()
        };
        let mut name: Option<String> = None;
        let mut attempts = self.link.attempts()?;
        loop {
            let mut client = ExecutionClient::new(self.link.wire())
                .max_decoding_message_size(maestro_core::limits::RPC_MESSAGE_BYTES_MAX);
            let opened = match name.clone() {
                Some(name) => {
                    let request = reapi::WaitExecutionRequest { name };
                    self.link.in_time(client.wait_execution(request)).await
                }
                None => self.link.in_time(client.execute(request.clone())).await,
            };
            let followed = match opened {
                Ok(answer) => follow(answer.into_inner(), errand.cancel, &mut name).await,
                Err(status) => Err(status),
            };
            match followed {
                Ok(ended) => return Ok(attempts.succeeded(ended)),
                Err(status) if status.code() == Code::NotFound && name.is_some() => name = None,
                Err(status) => {
                    attempts.failed(status).await?;
                }
            }
            if errand.cancel.is_cancelled() {
                return Ok(Ended::Cancelled);
            }
        }
    }

    /// What a response says, with its logs and trees in the store.
    async fn executed(
        &self,
        function: maestro_core::DigestFunction,
        status: &rpc::Status,
        result: Option<reapi::ActionResult>,
    ) -> Result<Executed, Trouble> {
        let code = Code::from(status.code);
        let refused = || Trouble::Call(CallError::Refused(Status::new(code, &status.message)));
        match (code, result) {
            (Code::Ok, Some(wire)) if wire.exit_code == 0 => {
                let unfit = |why: String| Trouble::Unfit(format!("a result is malformed: {why}"));
                let came =
                    results::of_wire(function, wire).map_err(|error| unfit(error.to_string()))?;
                let Some(came) = came else {
                    let text = "an output is a link, and a declared output must not be one";
                    return Ok(Executed::Refused(text.to_owned()));
                };
                let Some(result) = self.complete(came).await? else {
                    return Err(unfit("it names what is not there".to_owned()));
                };
                Ok(Executed::Result(result))
            }
            (Code::Ok, Some(wire)) => {
                let code = wire.exit_code;
                let ActionResult { stdout_digest, stderr_digest, output_files, .. } =
                    self.remains(function, wire).await?;
                Ok(Executed::Failed {
                    code,
                    stdout: stdout_digest,
                    stderr: stderr_digest,
                    kept: output_files,
                })
            }
            (Code::DeadlineExceeded, result) => {
                let ActionResult { stdout_digest, stderr_digest, .. } =
                    self.remains(function, result.unwrap_or_default()).await?;
                Ok(Executed::TimedOut { stdout: stdout_digest, stderr: stderr_digest })
            }
            (Code::InvalidArgument, _) => Ok(Executed::Refused(status.message.clone())),
            _ => Err(refused()),
        }
    }

    /// What a command left that gave no result: files and logs.
    async fn remains(
        &self,
        function: maestro_core::DigestFunction,
        wire: reapi::ActionResult,
    ) -> Result<ActionResult, Trouble> {
        let remains = reapi::ActionResult {
            output_files: wire.output_files,
            stdout_digest: wire.stdout_digest,
            stdout_raw: wire.stdout_raw,
            stderr_digest: wire.stderr_digest,
            stderr_raw: wire.stderr_raw,
            ..Default::default()
        };
        let came = results::of_wire(function, remains);
        let came = came.map_err(|error| Trouble::Unfit(error.to_string()))?;
        let Some(came) = came else { return Ok(ActionResult::default()) };
        let mut left = self.complete(came).await?.unwrap_or_default();
        let files: Vec<Digest> = left.output_files.iter().map(|file| file.digest).collect();
        let absent = block_in_place(|| self.absent(files));
        let lost = self.fetch(&absent).await?;
        left.output_files.retain(|file| !lost.contains(&file.digest));
        Ok(left)
    }
}

/// Reads the messages of an operation until it is done.
async fn follow(
    mut stream: Streaming<Operation>,
    cancel: &Cancel,
    name: &mut Option<String>,
) -> Result<Ended, Status> {
    loop {
        let message = tokio::select! {
            message = stream.message() => message?,
            () = cancelled(cancel) => return Ok(Ended::Cancelled),
        };
        let Some(message) = message else {
            return Err(Status::unavailable("the stream of the operation ended too early"));
        };
        *name = Some(message.name);
        if !message.done {
            continue;
        }
        return match message.result {
            Some(operation::Result::Response(any)) => {
                let response = reapi::ExecuteResponse::decode(any.value.as_slice());
                let response = response.map_err(|error| Status::data_loss(error.to_string()))?;
                Ok(Ended::Response(Box::new(response)))
            }
            Some(operation::Result::Error(status)) => {
                Err(Status::new(Code::from(status.code), status.message))
            }
            None => Err(Status::data_loss("the operation is done and says nothing")),
        };
    }
}

async fn cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}
