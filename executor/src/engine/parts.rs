//! Maps: actions that consist of a part for each file of a tree, which is known only now.
//!
//! A part is an action like any other, with a key, a look-up, a sandbox and events, but it stands
//! neither in the graph nor in the plan. The thread that carries out a map offers its parts to all
//! job slots and works on them itself until none is left, so that one slot is enough.
//! See `docs/design/dynamic-outputs.md`.
//!
//! Invariant: each part that was taken ends before its map does; nothing of a map outlives it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maestro_cas::StoreError;
use maestro_core::event::{ActionCounts, Event, Outcome};
use maestro_core::key::{Files, PackedParts, PrepareError, Resolved, Subject};
use maestro_core::map::{Map, Part};
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{
    ActionGraph, ActionId, ActionKey, ActionSpec, ArtifactId, FailureKind, How, Node, RelPath,
};
use serde_json::json;

use super::failure::{self, Failed};
use super::work::{Task, WorkError, Worker};
use super::{Shared, needs};
use crate::native::{TREE, TREE_SEMANTICS};
use crate::runner::RunError;

/// How long a map waits for its parts before it looks whether the build was cancelled.
const WAIT: Duration = Duration::from_millis(100);

/// A part that has its result.
#[derive(Clone, Debug)]
pub struct FinishedPart {
    /// Its number in events.
    pub number: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What it made, in the order in which the map declares it.
    pub outputs: Vec<OutputFile>,
    /// Its key.
    pub key: ActionKey,
    /// What the key was made of.
    pub key_parts: PackedParts,
    /// The job slot it ran in.
    pub slot: Option<u32>,
    /// When it began, in milliseconds since the invocation started.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: u64,
    /// Processor time of the command, in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident memory of the command, in bytes.
    pub memory_bytes: u64,
}

impl FinishedPart {
    /// How long it ran in this build.
    pub fn executed_ms(&self) -> u64 {
        match self.outcome {
            Outcome::Executed => self.end_ms.saturating_sub(self.start_ms),
            _ => 0,
        }
    }
}

/// What became of a map some of whose parts failed.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} files in `{tree}` failed", .counts.failed, .counts.total)]
pub struct FailedParts {
    /// The tree that is mapped.
    pub tree: RelPath,
    /// Whose fault it is.
    pub kind: FailureKind,
    /// Its parts by outcome.
    pub counts: ActionCounts,
}

type End = Result<FinishedPart, WorkError>;

/// The parts of a map that is being carried out.
#[derive(Debug)]
pub struct Batch {
    map: ActionId,
    /// What all parts have in common.
    spec: ActionSpec,
    /// The artifacts that each part reads.
    inputs: Vec<ArtifactId>,
    /// Whether parts read the tree as a whole.
    sees_tree: bool,
    parts: Vec<Part>,
    first_number: u32,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// The first part that nobody took.
    next: usize,
    /// How many were taken and have not ended.
    running: usize,
    /// The end of each, as far as there is one.
    ends: Vec<Option<End>>,
}

impl Batch {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a part; whoever does must work on it.
    pub fn take(&self) -> Option<usize> {
        let mut progress = self.progress();
        let index = progress.next;
        (index < self.parts.len()).then(|| {
            progress.next += 1;
            progress.running += 1;
            index
        })
    }

    /// Begins no further part.
    fn stop(&self) {
        self.progress().next = self.parts.len();
    }

    fn ended(&self, index: usize, end: End) {
        let mut progress = self.progress();
        progress.running -= 1;
        if let Some(slot) = progress.ends.get_mut(index) {
            *slot = Some(end);
        }
    }

    fn is_over(&self) -> bool {
        let progress = self.progress();
        progress.next == self.parts.len() && progress.running == 0
    }

    fn number(&self, index: usize) -> u32 {
        self.first_number.saturating_add(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// What is said of the whole once it is over.
    fn verdict(&self, tree: &RelPath) -> Result<Vec<FinishedPart>, WorkError> {
        let ends = std::mem::take(&mut self.progress().ends);
        let total = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        let mut counts = ActionCounts { total, ..ActionCounts::default() };
        let (mut finished, mut lost) = (Vec::with_capacity(ends.len()), Vec::new());
        let (mut kind, mut cancelled) = (FailureKind::Build, false);
        for end in ends {
            match end {
                None => counts.add(Outcome::Skipped),
                Some(Ok(part)) => {
                    counts.add(part.outcome);
                    finished.push(part);
                }
                Some(Err(WorkError::Run(RunError::MissingBlobs(blobs)))) => lost.extend(blobs),
                Some(Err(WorkError::Run(RunError::Cancelled))) => cancelled = true,
                Some(Err(error)) => {
                    counts.add(Outcome::Failed);
                    if kind == FailureKind::Build {
                        kind = error.kind();
                    }
                }
            }
        }
        if cancelled {
            return Err(RunError::Cancelled.into());
        }
        if counts.failed > 0 {
            return Err(WorkError::Parts(Box::new(FailedParts {
                tree: tree.clone(),
                kind,
                counts,
            })));
        }
        if !lost.is_empty() {
            return Err(RunError::MissingBlobs(lost).into());
        }
        if counts.skipped > 0 {
            return Err(WorkError::Abandoned);
        }
        Ok(finished)
    }
}

impl Worker<'_, '_, '_> {
    /// Carries out the parts of a map, together with whoever has a free slot.
    pub(super) fn carry_out(
        &self,
        action: ActionId,
        spec: &ActionSpec,
        map: &Map,
    ) -> Result<Vec<FinishedPart>, WorkError> {
        let tree = self.resolver.path(map.input);
        let batch = Arc::new(self.batch(action, spec, map)?);
        let Shared { changed, .. } = self.shared;
        self.shared.lock().offer(batch.clone());
        changed.notify_all();
        loop {
            if self.engine.cancel.is_cancelled() || self.shared.lock().is_stopping() {
                batch.stop();
            }
            match batch.take() {
                Some(index) => self.work_on(&batch, index),
                None => {
                    // Whoever ends a part takes this lock before it wakes the others.
                    let guard = self.shared.lock();
                    if batch.is_over() {
                        break;
                    }
                    drop(changed.wait_timeout(guard, WAIT));
                }
            }
        }
        self.shared.lock().withdraw(&batch);
        if self.engine.cancel.is_cancelled() {
            return Err(RunError::Cancelled.into());
        }
        batch.verdict(tree)
    }

    fn batch(&self, map_id: ActionId, spec: &ActionSpec, map: &Map) -> Result<Batch, WorkError> {
        let tree = self.resolver.path(map.input);
        let root = match self.resolver.node(map.input) {
            Some(Node::Tree { root }) => root,
            Some(_) => {
                let message = format!("`{tree}`, whose files are mapped, is no tree");
                return Err(RunError::Internal { message }.into());
            }
            // Its maker may leave it out, and did.
            None => return Err(PrepareError::MissingInput { path: tree.clone() }.into()),
        };
        let entries = match self.engine.store.tree_files(&root) {
            Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {
                return Err(RunError::MissingBlobs(vec![root]).into());
            }
            entries => entries?,
        };
        let entries: Vec<(String, Node)> =
            entries.into_iter().map(|entry| (entry.path, entry.node)).collect();
        let output = spec.outputs.first().map(|output| self.resolver.path(output.artifact));
        let parts = map.parts(tree, output.unwrap_or(tree), &entries)?;
        let inputs = self.plan.inputs(map_id).iter().copied();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let first_number = self.shared.next_number.fetch_add(count, Ordering::Relaxed);
        self.engine.events.emit(Event::Mapped {
            action: map_id.index() as u32,
            parts: count,
            at_ms: self.engine.now_ms(),
        });
        let ends = parts.iter().map(|_| None).collect();
        Ok(Batch {
            map: map_id,
            spec: ActionSpec { outputs: Vec::new(), ..spec.clone() },
            inputs: inputs.filter(|id| map.sees_tree || *id != map.input).collect(),
            sees_tree: map.sees_tree,
            parts,
            first_number,
            progress: Mutex::new(Progress { next: 0, running: 0, ends }),
        })
    }

    /// Brings a part to its end, and tells of it.
    pub(super) fn work_on(&self, batch: &Batch, index: usize) {
        let Some(part) = batch.parts.get(index) else { return };
        let start_ms = self.engine.now_ms();
        let (file, _) = &part.input;
        let title = match batch.spec.progress.as_str() {
            "" => format!("{} {file}", batch.spec.mnemonic),
            text => text.replace("%{input}", file.as_str()),
        };
        let how = How::Command { argv: part.argv.clone() };
        let spec = ActionSpec { how, progress: title, ..batch.spec.clone() };
        let end = self.perform_part(batch, index, part, &spec);
        match &end {
            Ok(finished) => self.tell_finished(batch, &spec, finished),
            Err(WorkError::Run(RunError::MissingBlobs(_) | RunError::Cancelled)) => batch.stop(),
            Err(error) => {
                self.tell_failed(batch, index, &spec, error, start_ms);
                if !self.engine.options.keep_going {
                    batch.stop();
                }
            }
        }
        batch.ended(index, end);
    }

    fn perform_part(&self, batch: &Batch, index: usize, part: &Part, spec: &ActionSpec) -> End {
        let start_ms = self.engine.now_ms();
        let inputs = if batch.sees_tree { Vec::new() } else { vec![part.input.clone()] };
        let files = Files { inputs, outputs: part.outputs.clone() };
        let prepared = self.prepare(&Subject { spec, inputs: &batch.inputs, files: &files })?;
        let number = batch.number(index);
        let (mut cpu_ms, mut memory_bytes, mut slot) = (0, 0, None);
        let (result, outcome) = match self.known_result(spec, &files.outputs, &prepared.key)? {
            Some((result, source)) => (result, source.outcome()),
            None => {
                let files = &files.outputs;
                let task = Task { number, spec, files, prepared: &prepared, anew: false };
                let (ran, taken) = self.run(&task)?;
                (cpu_ms, memory_bytes, slot) = (ran.cpu_ms, ran.memory_bytes, taken);
                (ran.result, Outcome::Executed)
            }
        };
        Ok(FinishedPart {
            number,
            outcome,
            outputs: made_files(&part.outputs, &result)?,
            key: prepared.key,
            key_parts: PackedParts::new(&prepared.parts, &self.shared.common),
            slot,
            start_ms,
            end_ms: self.engine.now_ms(),
            cpu_ms,
            memory_bytes,
        })
    }

    fn tell_finished(&self, batch: &Batch, spec: &ActionSpec, finished: &FinishedPart) {
        let executed = finished.outcome == Outcome::Executed;
        self.engine.events.emit(Event::ActionFinished {
            action: finished.number,
            label: self.engine.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            class: spec.class,
            outcome: finished.outcome,
            key: Some(finished.key.0),
            start_ms: finished.start_ms,
            at_ms: finished.end_ms,
            slot: finished.slot,
            cost_usd_micros: 0,
            saved_usd_micros: 0,
            needs: if executed { needs(self.plan, batch.map) } else { Vec::new() },
        });
    }

    fn tell_failed(
        &self,
        batch: &Batch,
        index: usize,
        spec: &ActionSpec,
        error: &WorkError,
        start_ms: u64,
    ) {
        let number = batch.number(index);
        self.engine.events.emit(Event::ActionFinished {
            action: number,
            label: self.engine.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            class: spec.class,
            outcome: Outcome::Failed,
            key: error.key().map(|key| key.0),
            start_ms,
            at_ms: self.engine.now_ms(),
            slot: None,
            cost_usd_micros: 0,
            saved_usd_micros: 0,
            needs: needs(self.plan, batch.map),
        });
        let file = batch.parts.get(index).map(|part| &part.input.0);
        let failed = Failed { number, spec, file };
        self.engine.events.emit(failure::describe(self.engine, &failed, error));
    }
}

/// The files of a result that are asked for, in their order.
pub(super) fn made_files(
    wanted: &[RelPath],
    result: &ActionResult,
) -> Result<Vec<OutputFile>, RunError> {
    let find = |path: &RelPath| {
        let found = result.output_files.iter().find(|file| file.path == path.as_str());
        found.cloned().ok_or_else(|| RunError::Internal {
            message: format!("the result lacks the declared output `{path}`"),
        })
    };
    wanted.iter().map(find).collect()
}

/// What is left of a map when its parts are done: the native step that composes its tree.
pub(super) fn composition(
    graph: &ActionGraph,
    map: &ActionSpec,
    parts: &[FinishedPart],
) -> Result<(ActionSpec, Files), WorkError> {
    let tree = map.outputs.first().map(|output| graph.artifact(output.artifact).path.to_string());
    let tree = tree.unwrap_or_default();
    let (mut entries, mut files) = (Vec::new(), Files::default());
    for file in parts.iter().flat_map(|part| &part.outputs) {
        let internal = |why: String| RunError::Internal { message: why };
        let below = file.path.strip_prefix(&tree).and_then(|below| below.strip_prefix('/'));
        let below = below
            .ok_or_else(|| internal(format!("the output `{}` is not below `{tree}`", file.path)))?;
        let path = RelPath::new(&file.path).map_err(|error| internal(error.to_string()))?;
        entries.push(json!({"path": below, "from": file.path}));
        let node = Node::File { digest: file.digest, executable: file.is_executable };
        files.inputs.push((path, node));
    }
    let how = How::Native {
        kind: TREE.to_owned(),
        semantics: TREE_SEMANTICS,
        request: json!({"entries": entries}),
    };
    let spec = ActionSpec {
        how,
        toolchains: Vec::new(),
        env: Vec::new(),
        timeout_ms: None,
        ..map.clone()
    };
    Ok((spec, files))
}
