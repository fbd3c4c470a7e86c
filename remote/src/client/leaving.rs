//! Results that are left for others: blobs first, then the entry, all in the background.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::key::Prepared;
use maestro_core::wire::ActionResult;
use maestro_core::{ActionKey, Digest};
use reapi::action_cache_client::ActionCacheClient;
use tokio::task::block_in_place;

use super::link::CallError;
use super::send::InMemory;
use super::{Shared, Trouble, results};
use crate::convert::{function_value, wire_digest};

/// A result to be left.
pub(super) struct Left {
    key: ActionKey,
    command: Digest,
    result: ActionResult,
}

impl Left {
    pub(super) fn new(prepared: &Prepared, result: &ActionResult) -> Self {
        Self { key: prepared.key, command: prepared.command, result: result.clone() }
    }
}

impl Shared {
    /// Leaves a result. What goes wrong is told as for every other call, but fails nothing.
    pub(super) async fn leave(self: Arc<Self>, left: Left) {
        let Ok(_lane) = self.lanes.acquire().await else { return };
        let done = self.send_result(&left).await;
        let counter = match &done {
            Ok(true) => Some(&self.left_results),
            // A lost server is told once, not for each result.
            Ok(false) | Err(Trouble::Call(CallError::Off | CallError::Lost { .. })) => None,
            Err(_) => Some(&self.lost_results),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        // Whoever insists on the cache is told by the next look-up.
        let _ = self.judge(done);
    }

    /// Says `false` where nothing may be left.
    async fn send_result(&self, left: &Left) -> Result<bool, Trouble> {
        if !self.abilities().await?.writable {
            return Ok(false);
        }
        let Left { key, command: _, result } = left;
        let (digests, in_memory, trees) = block_in_place(|| self.of_result(left))?;
        self.send(digests, &in_memory).await?;
        let request = reapi::UpdateActionResultRequest {
            instance_name: self.options.instance.clone(),
            action_digest: Some(wire_digest(&key.0)),
            action_result: Some(results::to_wire(result, &trees)),
            results_cache_policy: None,
            digest_function: function_value(key.0.function),
        };
        let ask = |wire| {
            let request = request.clone();
            async move { ActionCacheClient::new(wire).update_action_result(request).await }
        };
        self.link.call(ask).await?;
        Ok(true)
    }

    /// What must be there before the entry: the action itself, and all that the result names.
    fn of_result(&self, left: &Left) -> Result<(HashSet<Digest>, InMemory, Vec<Digest>), Trouble> {
        let Left { key, command, result } = left;
        let mut digests: HashSet<Digest> = result.blobs().collect();
        digests.extend([key.0, *command]);
        let (mut in_memory, mut trees) = (InMemory::new(), Vec::new());
        for tree in &result.output_directories {
            let closure = self.closure(&tree.root_directory_digest)?;
            let message = self.message(&closure)?;
            let digest = key.0.function.digest(&message);
            digests.extend(closure.directories);
            digests.extend(closure.files);
            digests.insert(digest);
            in_memory.insert(digest, message);
            trees.push(digest);
        }
        Ok((digests, in_memory, trees))
    }
}
