//! One assignment, from the digest of an action to the report of what came of it.

use std::sync::Arc;
use std::time::SystemTime;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::{protobuf, rpc};
use maestro_cas::{Store, StoreError};
use maestro_core::key::TOOLCHAINS_FILE;
use maestro_core::{Digest, Node, RelPath, limits};
use maestro_executor::command::{CommandRunner, ForeignCommand};
use maestro_executor::runner::{Cancel, RunError, ToolchainMount};
use tokio::task::block_in_place;
use tonic::Code;

use super::reply::{self, Asked};
use crate::client::{Shared, Trouble, link, link::CallError};
use crate::{convert, precondition};

/// What an assignment is run with.
pub(super) struct Assignment {
    /// The action.
    pub(super) action: Digest,
    /// The way to the blobs of its instance.
    pub(super) blobs: Arc<Shared>,
    /// The store that belongs to that.
    pub(super) store: Store,
    /// What runs commands over the store.
    pub(super) runner: Arc<CommandRunner>,
    /// A job slot that nobody else uses.
    pub(super) slot: u32,
    /// Becomes true when the lease is revoked.
    pub(super) cancel: Cancel,
    /// The name of the worker.
    pub(super) worker: String,
}

/// Why there is no result.
pub(super) enum Failure {
    /// The client is told: it asked for something that cannot be.
    Refused(rpc::Status),
    /// Another worker may do better.
    Fault(String),
    /// Nobody wants to know any more.
    Cancelled,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Fault(match trouble {
            Trouble::Call(CallError::Off) => "the server does not answer".to_owned(),
            Trouble::Call(CallError::Lost { status, .. } | CallError::Refused(status)) => {
                format!("the server: {}", link::text(&status))
            }
            Trouble::Unfit(why) => format!("the server cannot be used: {why}"),
            Trouble::Store(error) => maestro_core::failure::chain(&error),
        })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { digest } => missing(&[digest]),
            error => Trouble::from(error).into(),
        }
    }
}

fn missing(digests: &[Digest]) -> Failure {
    Failure::Refused(precondition::missing(digests))
}

fn malformed(error: impl std::fmt::Display) -> Failure {
    let (code, message) = (Code::InvalidArgument as i32, error.to_string());
    Failure::Refused(rpc::Status { code, message, details: Vec::new() })
}

impl Assignment {
    /// Runs the action, and has the server hold all that its response names.
    pub(super) async fn run(&self) -> Result<reapi::ExecuteResponse, Failure> {
        let mut times = reapi::ExecutedActionMetadata {
            worker: self.worker.clone(),
            worker_start_timestamp: now(),
            input_fetch_start_timestamp: now(),
            ..Default::default()
        };
        let action: reapi::Action = self.message(&self.action).await?;
        let function = self.action.function;
        let field = "command_digest";
        let command = convert::required(function, field, action.command_digest.as_ref());
        let command: reapi::Command = self.message(&command.map_err(malformed)?).await?;
        let root = action.input_root_digest.as_ref();
        let root = convert::required(function, "input_root_digest", root).map_err(malformed)?;
        self.bring_tree(root).await?;
        let asked = Asked::of(&command).map_err(malformed)?;
        let foreign = self.foreign(&action, command, &asked, root).await?;
        times.input_fetch_completed_timestamp = now();
        times.execution_start_timestamp = now();
        let outcome = block_in_place(|| self.runner.run_foreign(&foreign, self.slot, &self.cancel))
            .map_err(Self::run_failure)?;
        times.execution_completed_timestamp = now();
        times.virtual_execution_duration = Some(duration(outcome.wall_ms));
        times.output_upload_start_timestamp = now();
        let made = reply::made(&self.blobs, &asked, outcome)?;
        self.blobs.forget_present();
        self.blobs.send(made.blobs, &made.in_memory).await?;
        times.output_upload_completed_timestamp = now();
        times.worker_completed_timestamp = now();
        let mut response = made.response;
        if let Some(result) = &mut response.result {
            result.execution_metadata = Some(times);
        }
        Ok(response)
    }

    /// Fetches a message and reads it.
    async fn message<M: prost::Message + Default>(&self, digest: &Digest) -> Result<M, Failure> {
        self.bring(vec![*digest]).await?;
        if digest.is_empty_blob() {
            return Ok(M::default());
        }
        let bytes = block_in_place(|| self.store.read(digest))?;
        M::decode(bytes.as_slice()).map_err(|error| malformed(format!("`{digest}`: {error}")))
    }

    /// Has the store hold blobs.
    async fn bring(&self, digests: Vec<Digest>) -> Result<(), Failure> {
        let absent = block_in_place(|| self.blobs.absent(digests));
        let lost = self.blobs.fetch(&absent).await?;
        if lost.is_empty() { Ok(()) } else { Err(missing(&lost)) }
    }

    /// Has the store hold a tree with all its files.
    async fn bring_tree(&self, root: Digest) -> Result<(), Failure> {
        if self.blobs.bring_tree(Some(root), None).await?.is_none() {
            return Err(missing(&[root]));
        }
        let closure = block_in_place(|| self.blobs.closure(&root))?;
        self.bring(closure.files).await
    }

    /// The command, its inputs and toolchains, as the runner wants them.
    async fn foreign(
        &self,
        action: &reapi::Action,
        command: reapi::Command,
        asked: &Asked,
        root: Digest,
    ) -> Result<ForeignCommand, Failure> {
        if !block_in_place(|| self.has_folder(&root, &asked.directory))? {
            let directory = &asked.directory;
            let text = format!("the working directory `{directory}` is not among the inputs");
            return Err(malformed(text));
        }
        let mut toolchains = Vec::new();
        for root in block_in_place(|| self.toolchains(&root))? {
            self.bring_tree(root).await?;
            let path = block_in_place(|| self.store.tree_dir(&root))?;
            toolchains.push(ToolchainMount { root, path });
        }
        let variables = command.environment_variables.into_iter();
        Ok(ForeignCommand {
            arguments: command.arguments,
            environment: variables.map(|variable| (variable.name, variable.value)).collect(),
            directory: asked.directory.clone(),
            inputs: block_in_place(|| self.inputs(&root))?,
            outputs: asked.outputs.clone(),
            toolchains,
            timeout_ms: timeout_ms(action.timeout.as_ref()),
        })
    }

    /// What stands in the root of the inputs, sorted by path.
    fn inputs(&self, root: &Digest) -> Result<Vec<(RelPath, Node)>, Failure> {
        let root = self.store.directory(root)?;
        let mut inputs = Vec::new();
        let mut add = |name: &str, node: Node| {
            inputs.push((RelPath::new(name).map_err(malformed)?, node));
            Ok::<(), Failure>(())
        };
        for file in &root.files {
            let node = Node::File { digest: file.digest, executable: file.is_executable };
            add(&file.name, node)?;
        }
        for folder in &root.directories {
            add(&folder.name, Node::Tree { root: folder.digest })?;
        }
        for link in &root.symlinks {
            add(&link.name, Node::Symlink { target: link.target.clone() })?;
        }
        inputs.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(inputs)
    }

    /// Whether a folder is among the inputs.
    fn has_folder(&self, root: &Digest, path: &str) -> Result<bool, Failure> {
        let mut at = *root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let directory = self.store.directory(&at)?;
            match directory.directories.iter().find(|node| node.name == name) {
                Some(node) => at = node.digest,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The toolchains that an action of Maestro names in its inputs.
    fn toolchains(&self, root: &Digest) -> Result<Vec<Digest>, Failure> {
        let (folder, name) = TOOLCHAINS_FILE.split_once('/').unwrap_or(("", TOOLCHAINS_FILE));
        let root = self.store.directory(root)?;
        let Some(folder) = root.directories.iter().find(|node| node.name == folder) else {
            return Ok(Vec::new());
        };
        let folder = self.store.directory(&folder.digest)?;
        let Some(list) = folder.files.iter().find(|node| node.name == name) else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8(self.store.read(&list.digest)?).map_err(malformed)?;
        let digest = |line: &str| line.parse::<Digest>().map_err(malformed);
        text.lines().map(digest).collect()
    }

    fn run_failure(error: RunError) -> Failure {
        match error {
            RunError::MissingBlobs(digests) => missing(&digests),
            RunError::Cancelled => Failure::Cancelled,
            RunError::Failed { message, .. } | RunError::Refused { message, .. } => {
                malformed(message)
            }
            error => Failure::Fault(error.to_string()),
        }
    }
}

fn timeout_ms(timeout: Option<&protobuf::Duration>) -> u64 {
    let millis = timeout.and_then(|timeout| {
        let seconds = u64::try_from(timeout.seconds).ok()?.checked_mul(1_000)?;
        seconds.checked_add(u64::try_from(timeout.nanos).ok()? / 1_000_000)
    });
    let asked = millis.filter(|millis| *millis > 0);
    asked.unwrap_or(limits::ACTION_TIMEOUT_MS_DEFAULT).min(limits::ACTION_TIMEOUT_MS_MAX)
}

fn now() -> Option<protobuf::Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Some(protobuf::Timestamp { seconds, nanos: since.subsec_nanos() as i32 })
}

fn duration(millis: u64) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
        nanos: (millis % 1_000) as i32 * 1_000_000,
    }
}
