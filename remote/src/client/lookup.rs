//! Finding a result: the entry, the trees that it names, and what it wrote.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::wire::{ActionResult, OutputDirectory};
use maestro_core::{ActionKey, Digest, limits};
use reapi::action_cache_client::ActionCacheClient;
use tokio::task::block_in_place;
use tonic::Code;

use super::link::CallError;
use super::results::{self, Came};
use super::{Download, Shared, Trouble, lock};
use crate::convert::{function_value, wire_digest};

impl Shared {
    /// The result of a key. One that cannot be used is as good as none.
    pub(super) async fn find(&self, key: &ActionKey) -> Result<Option<ActionResult>, Trouble> {
        self.abilities().await?;
        let Some(wire) = self.ask_result(key).await? else { return Ok(None) };
        let came = match results::of_wire(key.0.function, wire) {
            Ok(Some(came)) => came,
            Ok(None) => {
                tracing::debug!(key = %key.0, "a remote result is of no use here");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(key = %key.0, %error, "a remote result is malformed");
                return Ok(None);
            }
        };
        let Some(result) = self.complete(came).await? else {
            tracing::debug!(key = %key.0, "a remote result names what is not there");
            return Ok(None);
        };
        Ok(Some(result))
    }

    async fn ask_result(&self, key: &ActionKey) -> Result<Option<reapi::ActionResult>, Trouble> {
        let request = reapi::GetActionResultRequest {
            instance_name: self.options.instance.clone(),
            action_digest: Some(wire_digest(&key.0)),
            inline_stdout: true,
            inline_stderr: true,
            inline_output_files: Vec::new(),
            digest_function: function_value(key.0.function),
        };
        let ask = |wire| {
            let request = request.clone();
            let mut client = ActionCacheClient::new(wire)
                .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
            async move { client.get_action_result(request).await }
        };
        match self.link.call(ask).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(CallError::Refused(status)) if status.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has all in the store that must be there before a result is used.
    pub(super) async fn complete(&self, came: Came) -> Result<Option<ActionResult>, Trouble> {
        let Came { mut result, trees, blobs } = came;
        block_in_place(|| {
            blobs.iter().try_for_each(|(digest, bytes)| self.store.put_known(digest, bytes))
        })?;
        for tree in trees {
            let Some(root) = self.bring_tree(tree.root, tree.tree).await? else { return Ok(None) };
            let path = tree.path;
            result.output_directories.push(OutputDirectory { path, root_directory_digest: root });
        }
        let logs: Vec<Digest> =
            result.stdout_digest.into_iter().chain(result.stderr_digest).collect();
        let wanted = match self.options.download {
            Download::WhatIsRead => logs,
            Download::All => block_in_place(|| self.all_blobs(&result))?,
        };
        let absent = block_in_place(|| self.absent(wanted));
        if !self.fetch(&absent).await?.is_empty() {
            return Ok(None);
        }
        match block_in_place(|| self.names_gone(&result))? {
            true => Ok(None),
            false => Ok(Some(result)),
        }
    }

    fn all_blobs(&self, result: &ActionResult) -> Result<Vec<Digest>, Trouble> {
        let mut all: HashSet<Digest> = result.blobs().collect();
        for tree in &result.output_directories {
            all.extend(self.closure(&tree.root_directory_digest)?.files);
        }
        Ok(all.into_iter().collect())
    }

    /// Those that the store lacks.
    pub(crate) fn absent(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let mut absent = digests;
        absent.retain(|digest| !self.store.contains(digest));
        absent
    }

    /// Whether a result names a blob that the server was found not to have.
    fn names_gone(&self, result: &ActionResult) -> Result<bool, Trouble> {
        let gone = lock(&self.gone).clone();
        let is_gone = |digest: &Digest| gone.contains(digest) && !self.store.contains(digest);
        if gone.is_empty() {
            return Ok(false);
        }
        if result.blobs().any(|digest| is_gone(&digest)) {
            return Ok(true);
        }
        for tree in &result.output_directories {
            let closure = self.closure(&tree.root_directory_digest)?;
            if closure.files.iter().any(is_gone) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
