//! Checks of execution: small actions of `/bin/sh`, run by the server.
//!
//! What a server runs actions on is its own; `--platform` names properties that it needs to find a
//! worker. Actions use nothing but a shell and the programs `sleep`, `mkdir` and `ln`.

pub(super) mod caching;
pub(super) mod inputs;
pub(super) mod lifecycle;
pub(super) mod outputs;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::longrunning::{Operation, operation};
use bazel_remote_apis::google::{protobuf, rpc};
use prost::Message;
use tonic::{Code, Status};

use super::content::{Blob, unique};
use super::peer::{Peer, bounded};
use super::verdict::{Outcome, Verdict, ensure, failed, good, name, not_offered};

/// Most messages that are taken of one execution.
const OPERATIONS_MAX: usize = 1_000;

/// An action in the making.
#[derive(Clone)]
pub(super) struct Job {
    command: reapi::Command,
    root: reapi::Directory,
    action: reapi::Action,
    /// What is uploaded besides action, command and root.
    blobs: Vec<Blob>,
}

/// What came of an execution.
pub(super) struct Finished {
    operations: Vec<Operation>,
    response: reapi::ExecuteResponse,
}

impl Job {
    /// A script that is run by the shell, different from all others.
    fn shell(peer: &Peer, script: &str) -> Self {
        let script = format!("{script}\n# {}", unique());
        let variable = |name: &str, value: &str| reapi::command::EnvironmentVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let command = reapi::Command {
            arguments: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            environment_variables: vec![variable("PATH", "/usr/bin:/bin")],
            ..Default::default()
        };
        let action = reapi::Action { platform: platform(peer), ..Default::default() };
        let mut job = Self { command, root: Default::default(), action, blobs: Vec::new() };
        job.place(peer);
        job
    }

    /// The platform stands in the command too, where servers of old versions look for it.
    #[allow(deprecated)] // as long as servers read it there
    fn place(&mut self, peer: &Peer) {
        self.command.platform = platform(peer);
    }

    /// The same, with outputs.
    fn outputs(mut self, paths: &[&str]) -> Self {
        self.command.output_paths = paths.iter().map(|path| (*path).to_owned()).collect();
        self
    }

    /// The same, with a file in its input root.
    fn file(mut self, name: &str, blob: Blob) -> Self {
        let digest = Some(blob.wire());
        let node = reapi::FileNode { name: name.to_owned(), digest, ..Default::default() };
        self.root.files.push(node);
        self.blobs.push(blob);
        self
    }

    /// The same, with a folder in its input root.
    fn folder(mut self, peer: &Peer, name: &str, directory: &reapi::Directory) -> Self {
        let blob = Blob::message(peer.function, directory);
        let digest = Some(blob.wire());
        self.root.directories.push(reapi::DirectoryNode { name: name.to_owned(), digest });
        self.blobs.push(blob);
        self
    }

    /// The blob of the action, after everything that it names was uploaded.
    async fn upload(&self, peer: &Peer) -> Result<Blob, Verdict> {
        let (command, root) =
            (Blob::message(peer.function, &self.command), Blob::message(peer.function, &self.root));
        let mut action = self.action.clone();
        action.command_digest = Some(command.wire());
        action.input_root_digest = Some(root.wire());
        let action = Blob::message(peer.function, &action);
        let mut blobs = self.blobs.clone();
        blobs.extend([command, root, action.clone()]);
        peer.store(&blobs).await?;
        Ok(action)
    }

    /// Uploads the action and runs it.
    async fn run(&self, peer: &Peer) -> Result<Finished, Verdict> {
        let action = self.upload(peer).await?;
        finished(good("`Execute`", execute(peer, &action, |_| {}).await)?)
    }

    /// As above, and the command must have ended with 0.
    async fn succeed(&self, peer: &Peer) -> Result<reapi::ActionResult, Verdict> {
        let finished = self.run(peer).await?;
        let result = finished.result()?;
        ensure(result.exit_code == 0, || {
            let said = String::from_utf8_lossy(&result.stderr_raw).into_owned();
            format!("an action: expected exit code 0, got {} {said}", result.exit_code)
        })?;
        Ok(result)
    }
}

impl Finished {
    /// The status of the execution.
    fn status(&self) -> rpc::Status {
        self.response.status.clone().unwrap_or_default()
    }

    /// The result, of an execution without an error.
    fn result(&self) -> Result<reapi::ActionResult, Verdict> {
        let status = self.status();
        ensure(status.code == 0, || {
            let (code, message) = (name(Code::from(status.code)), status.message.clone());
            format!("`ExecuteResponse.status`: expected OK, got {code} ({message})")
        })?;
        let result = self.response.result.clone();
        result.ok_or_else(|| failed("`ExecuteResponse.result`: expected one, got none"))
    }
}

fn platform(peer: &Peer) -> Option<reapi::Platform> {
    let mut properties: Vec<reapi::platform::Property> = peer
        .target
        .platform
        .iter()
        .map(|(name, value)| reapi::platform::Property { name: name.clone(), value: value.clone() })
        .collect();
    properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    (!properties.is_empty()).then_some(reapi::Platform { properties })
}

/// Whether the server runs actions.
pub(super) fn is_offered(peer: &Peer) -> bool {
    let execution = peer.capabilities.execution_capabilities.as_ref();
    execution.is_some_and(|execution| execution.exec_enabled)
}

fn offers(peer: &Peer) -> Outcome {
    if is_offered(peer) { Ok(()) } else { Err(not_offered("`exec_enabled` is not said")) }
}

/// Starts an execution, and takes all that it says to its end.
async fn execute(
    peer: &Peer,
    action: &Blob,
    change: impl FnOnce(&mut reapi::ExecuteRequest),
) -> Result<Vec<Operation>, Status> {
    let mut request = reapi::ExecuteRequest {
        instance_name: peer.instance(),
        action_digest: Some(action.wire()),
        digest_function: peer.function_value(),
        inline_stdout: true,
        inline_stderr: true,
        ..Default::default()
    };
    change(&mut request);
    bounded(async {
        let stream = peer.executions().execute(request).await?.into_inner();
        all(stream).await
    })
    .await
}

async fn all(mut stream: tonic::Streaming<Operation>) -> Result<Vec<Operation>, Status> {
    let mut operations = Vec::new();
    while let Some(operation) = stream.message().await? {
        operations.push(operation);
        if operations.len() > OPERATIONS_MAX {
            return Err(Status::out_of_range("the execution says more than there is to say"));
        }
    }
    Ok(operations)
}

/// Reads the response out of the last message of an execution.
fn finished(operations: Vec<Operation>) -> Result<Finished, Verdict> {
    let last = operations.last().ok_or_else(|| failed("`Execute`: expected messages, got none"))?;
    ensure(last.done, || "the last operation: expected `done`, got another".to_owned())?;
    let response = match &last.result {
        Some(operation::Result::Response(any)) => unpack::<reapi::ExecuteResponse>(any)?,
        Some(operation::Result::Error(status)) => {
            let code = name(Code::from(status.code));
            return Err(failed(format!("`Operation.error`: expected none, got {code}")));
        }
        None => return Err(failed("the last operation: expected a response, got none")),
    };
    Ok(Finished { operations, response })
}

fn unpack<M: Message + Default>(any: &protobuf::Any) -> Result<M, Verdict> {
    let malformed = |error| failed(format!("`{}` is malformed: {error}", any.type_url));
    M::decode(any.value.as_slice()).map_err(malformed)
}

/// The stages that an execution went through, as far as it told them.
fn stages(operations: &[Operation]) -> Result<Vec<(i32, bool)>, Verdict> {
    let metadata = |operation: &Operation| {
        let any = operation.metadata.as_ref()?;
        let metadata = unpack::<reapi::ExecuteOperationMetadata>(any);
        Some(metadata.map(|metadata| (metadata.stage, operation.done)))
    };
    operations.iter().filter_map(metadata).collect()
}

/// What went to standard output, inlined or stored.
async fn stdout(peer: &Peer, result: &reapi::ActionResult) -> Result<String, Verdict> {
    let bytes = match &result.stdout_digest {
        Some(digest) if result.stdout_raw.is_empty() => {
            let digest = crate::convert::digest(peer.function, digest);
            let digest = digest.map_err(|error| failed(format!("`stdout_digest`: {error}")))?;
            good("a read of standard output", peer.read(&digest).await)?
        }
        _ => result.stdout_raw.clone(),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The bytes of an output file of a result.
async fn output(peer: &Peer, result: &reapi::ActionResult, path: &str) -> Result<Vec<u8>, Verdict> {
    let file = result.output_files.iter().find(|file| file.path == path);
    let digest = file.and_then(|file| file.digest.as_ref());
    let digest = digest.ok_or_else(|| failed(format!("expected the output `{path}`, got none")))?;
    let digest = crate::convert::digest(peer.function, digest);
    let digest = digest.map_err(|error| failed(format!("the digest of `{path}`: {error}")))?;
    good("a read of an output", peer.read(&digest).await)
}
