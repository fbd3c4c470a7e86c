//! What the engine asks of a remote cache: results that nobody made here, and blobs that only it
//! has.

use maestro_cas::StoreError;
use maestro_core::event::{Event, Severity};
use maestro_core::key::{Prepared, Resolved as _, SandboxProfile};
use maestro_core::wire::ActionResult;
use maestro_core::{
    ActionClass, ActionKey, ActionSpec, ArtifactKind, Digest, How, Node, RelPath, limits,
};

use super::Engine;
use super::work::{Source, Task, WorkError, Worker};
use crate::remote_cache::{Errand, Executed, RemoteCache, RemoteError};
use crate::runner::{Outcome, RunError};

impl<'e> Engine<'e> {
    /// The remote cache, where results may be shared: those of other sandboxes are not.
    fn shared_cache(&self) -> Option<&'e dyn RemoteCache> {
        self.remote.filter(|_| self.options.sandbox == SandboxProfile::Hermetic)
    }

    /// How many threads look results up beside those that run actions.
    pub(super) fn callers(&self) -> usize {
        self.shared_cache().map_or(0, RemoteCache::callers)
    }

    /// Brings blobs into the store; says whether it has all of them then.
    pub fn bring(&self, digests: &[Digest]) -> Result<bool, RemoteError> {
        let Some(remote) = self.shared_cache().filter(|_| !digests.is_empty()) else {
            return Ok(digests.is_empty());
        };
        let lost = remote.fetch(digests);
        self.pass_on(remote);
        Ok(lost?.is_empty())
    }

    fn pass_on(&self, remote: &dyn RemoteCache) {
        for text in remote.news() {
            self.events.emit(Event::Message { severity: Severity::Warning, text });
        }
    }
}

impl Worker<'_, '_, '_> {
    /// The result of a pure action, from the store or else from the remote cache.
    pub(super) fn known_result(
        &self,
        spec: &ActionSpec,
        files: &[RelPath],
        key: &ActionKey,
    ) -> Result<Option<(ActionResult, Source)>, WorkError> {
        // Once a test no longer says that it is flaky, a late pass is none.
        let holds = |found: &ActionResult| !found.is_flaky() || spec.hints.attempts > 1;
        if let Some(found) = self.engine.store.action_result(key)?.filter(holds) {
            return Ok(Some((found, Source::Store)));
        }
        let Some(remote) = self.engine.shared_cache() else { return Ok(None) };
        let found = remote.find(key);
        self.engine.pass_on(remote);
        let found = found?.filter(|found| self.is_whole(spec, files, found));
        found.iter().for_each(|found| remote.used(key, found));
        Ok(found.map(|found| (found, Source::Remote)))
    }

    /// Whether a result that others made has all that the action is to make.
    fn is_whole(&self, spec: &ActionSpec, files: &[RelPath], result: &ActionResult) -> bool {
        let has_file = |path: &str| result.output_files.iter().any(|file| file.path == path);
        let has_tree = |path: &str| result.output_directories.iter().any(|tree| tree.path == path);
        let declared = spec.outputs.iter().all(|output| {
            let artifact = self.engine.graph.artifact(output.artifact);
            let path = artifact.path.as_str();
            match artifact.kind {
                ArtifactKind::File => has_file(path) || (output.optional && !has_tree(path)),
                ArtifactKind::Tree => has_tree(path) || (output.optional && !has_file(path)),
            }
        });
        declared && files.iter().all(|path| has_file(path.as_str()))
    }

    /// Has an action run on another machine, where that is wanted and it may be; `None` where it
    /// has to run here.
    pub(super) fn run_elsewhere(&self, task: &Task<'_>) -> Result<Option<Outcome>, WorkError> {
        let Task { number: _, spec, files, prepared, anew } = *task;
        let is_plain = !spec.hints.exclusive && spec.hints.attempts <= 1;
        let is_command = matches!(spec.how, How::Command { .. });
        let fits = is_plain && is_command && spec.class == ActionClass::Pure;
        let Some(remote) = self.engine.shared_cache().filter(|_| fits) else { return Ok(None) };
        let roots = spec.toolchains.iter().filter_map(|id| match self.resolver.node(*id) {
            Some(Node::Tree { root }) => Some(root),
            _ => None,
        });
        let toolchains: Vec<Digest> = roots.collect();
        let errand = Errand { prepared, toolchains: &toolchains, anew, cancel: self.engine.cancel };
        let executed = remote.execute(&errand);
        self.engine.pass_on(remote);
        let command = |error| Err(WorkError::Command { error, prepared: prepared.clone().into() });
        let result = match executed? {
            None => return Ok(None),
            Some(Executed::Result(result)) if self.is_whole(spec, files, &result) => result,
            Some(Executed::Result(ActionResult { stdout_digest, stderr_digest, .. })) => {
                return command(RunError::Failed {
                    message: "declared outputs were not made, or not as declared".to_owned(),
                    hints: vec![
                        "run it here to see what it made instead: without \
                                 `--remote-executor`"
                            .to_owned(),
                    ],
                    stdout: stdout_digest,
                    stderr: stderr_digest,
                    kept: Vec::new(),
                });
            }
            Some(Executed::Failed { code, stdout, stderr, kept }) => {
                let (message, hints) = (format!("the command exited with code {code}"), Vec::new());
                let kept = if spec.hints.test { kept } else { Vec::new() };
                return command(RunError::Failed { message, hints, stdout, stderr, kept });
            }
            Some(Executed::Refused(message)) => {
                return command(RunError::Refused { message, hints: Vec::new() });
            }
            Some(Executed::TimedOut { stdout, stderr }) => {
                let limit_ms = prepared.parts.timeout_ms;
                let limit_ms = limit_ms.unwrap_or(limits::ACTION_TIMEOUT_MS_DEFAULT);
                return command(RunError::Timeout { limit_ms, stdout, stderr });
            }
            Some(Executed::MissingBlobs(lost)) => return Err(RunError::MissingBlobs(lost).into()),
            Some(Executed::Cancelled) => return Err(RunError::Cancelled.into()),
        };
        remote.used(&prepared.key, &result);
        Ok(Some(Outcome { result, cpu_ms: 0, memory_bytes: 0, cost_usd_micros: 0 }))
    }

    /// Has all that an action reads in the store before it runs.
    pub(super) fn bring_inputs(&self, prepared: &Prepared) -> Result<(), WorkError> {
        if self.engine.shared_cache().is_none() {
            return Ok(());
        }
        let store = self.engine.store;
        let mut absent = Vec::new();
        let mut note = |digest: &Digest| {
            if !store.contains(digest) {
                absent.push(*digest);
            }
        };
        for (_, node) in &prepared.tree.entries {
            match node {
                Node::File { digest, .. } => note(digest),
                Node::Symlink { .. } => {}
                Node::Tree { root } => match store.tree_files(root) {
                    Err(StoreError::Missing { digest } | StoreError::Corrupt { digest, .. }) => {
                        return Err(RunError::MissingBlobs(vec![digest]).into());
                    }
                    entries => entries?.iter().for_each(|entry| {
                        if let Node::File { digest, .. } = &entry.node {
                            note(digest);
                        }
                    }),
                },
            }
        }
        absent.sort_unstable();
        absent.dedup();
        match self.engine.bring(&absent)? {
            true => Ok(()),
            false => {
                absent.retain(|digest| !store.contains(digest));
                Err(RunError::MissingBlobs(absent).into())
            }
        }
    }

    /// Leaves a result for others.
    pub(super) fn share(&self, prepared: &Prepared, result: &ActionResult) {
        if let Some(remote) = self.engine.shared_cache().filter(|_| !result.is_flaky()) {
            remote.leave(prepared, result);
        }
    }
}
