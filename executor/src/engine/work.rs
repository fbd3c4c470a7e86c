//! What one action needs: its inputs hashed, its key made, its result looked up or made.
//!
//! The order of look-ups follows the class: a pure action asks the action cache; a recorded one
//! asks `maestro.lock` and then, unless the build is locked, what the cache remembers, and is run
//! only by commands that may make live calls; an effect is refused.
//! A failed, cancelled or transient result is never stored.

mod error;

use std::borrow::Cow;

use maestro_cas::StoreError;
use maestro_core::event::{self, Event, Severity};
use maestro_core::graph::Plan;
use maestro_core::key::{Files, PackedParts, PrepareError, Prepared, Subject, prepare_subject};
use maestro_core::map::Map;
use maestro_core::wire::ActionResult;
use maestro_core::{
    ActionClass, ActionId, ActionSpec, ArtifactId, Digest, How, Node, RelPath, limits,
};

pub use self::error::WorkError;
use super::parts::{composition, made_files};
use super::resolve::Resolver;
use super::slots::Slots;
use super::{Engine, FinishedAction, FinishedPart, Shared, failure};
use crate::baselines::Identity;
use crate::records::{FindError, Found, FoundIn, RecordLookup};
use crate::runner::{Job, Outcome, RunError, ToolchainMount};

/// One thread of a build.
pub struct Worker<'w, 'e, 's> {
    pub(super) engine: &'w Engine<'e>,
    pub(super) plan: &'w Plan,
    pub(super) resolver: &'w Resolver<'w>,
    pub(super) shared: &'w Shared<'s>,
    pub(super) slots: &'w Slots,
}

/// What is to be run: an action of the graph, or a part of a map.
pub(super) struct Task<'a> {
    /// Its number in events.
    pub(super) number: u32,
    /// What it is.
    pub(super) spec: &'a ActionSpec,
    /// Files that it makes beside the outputs of `spec`.
    pub(super) files: &'a [RelPath],
    /// Its key and what that was made of.
    pub(super) prepared: &'a Prepared,
    /// Whether a result that somebody else has will not do.
    pub(super) anew: bool,
}

/// An action whose key is known.
struct Keyed<'g> {
    spec: Cow<'g, ActionSpec>,
    prepared: Prepared,
    /// The parts that were made before, if it is a map.
    parts: Vec<FinishedPart>,
}

/// The end of an action that has a result.
pub struct Done {
    pub(super) finished: FinishedAction,
    pub(super) inputs: Vec<ArtifactId>,
    pub(super) inputs_version: u64,
    pub(super) slot: Option<u32>,
}

/// Where a result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the store.
    Store,
    /// In the cache that others share.
    Remote,
}

impl Source {
    /// How an action ends whose result was found there.
    pub(super) fn outcome(self) -> event::Outcome {
        match self {
            Self::Store => event::Outcome::Cached,
            Self::Remote => event::Outcome::Remote,
        }
    }
}

/// A result that need not be made.
enum Hit {
    Cached(ActionResult, Source),
    Recorded(Box<Found>),
}

impl Worker<'_, '_, '_> {
    /// Brings one action to its end. Blobs that are found missing on the way are fetched where
    /// they can be.
    pub fn perform(
        &self,
        action: ActionId,
        skip_cache: bool,
        start_ms: u64,
    ) -> Result<Done, WorkError> {
        for _ in 0..limits::REWINDS_MAX {
            match self.attempt(action, skip_cache, start_ms) {
                Err(WorkError::Run(RunError::MissingBlobs(lost)))
                    if !self.engine.bring(&lost)? =>
                {
                    return Err(RunError::MissingBlobs(lost).into());
                }
                Err(WorkError::Run(RunError::MissingBlobs(_))) => {}
                ended => return ended,
            }
        }
        self.attempt(action, skip_cache, start_ms)
    }

    fn attempt(
        &self,
        action: ActionId,
        skip_cache: bool,
        start_ms: u64,
    ) -> Result<Done, WorkError> {
        let spec = &self.engine.graph.action(action);
        let inputs = self.plan.inputs(action);
        // Toolchains come later: an action that turns out unchanged needs none on disk.
        for input in inputs.iter().filter(|input| !spec.toolchains.contains(input)) {
            self.resolver.ensure_input(*input)?;
        }
        let inputs_version = self.resolver.version_of(inputs);
        if !skip_cache && let Some(finished) = self.unchanged(action, spec, start_ms) {
            return Ok(Done { finished, inputs: inputs.to_vec(), inputs_version, slot: None });
        }
        for toolchain in &spec.toolchains {
            self.resolver.ensure_input(*toolchain)?;
        }
        let inputs_version = self.resolver.version_of(inputs);
        let Keyed { spec, prepared, parts } = match &spec.how {
            How::Map(map) => self.keyed_map(action, spec, map)?,
            _ => {
                let subject = Subject { spec, inputs, files: &Files::default() };
                let prepared = self.prepare(&subject)?;
                Keyed { spec: Cow::Borrowed(spec), prepared, parts: Vec::new() }
            }
        };
        let spec = spec.as_ref();
        // What is left of a map begins when its parts are done.
        let start_ms = if parts.is_empty() { start_ms } else { self.engine.now_ms() };
        let mut finished = FinishedAction::cached(action, start_ms);
        let mut slot = None;
        let result = match self.look_up(spec, &prepared, skip_cache)? {
            Some(Hit::Cached(result, source)) => {
                finished.outcome = source.outcome();
                result
            }
            Some(Hit::Recorded(found)) => self.take_record(spec, *found, &mut finished),
            None if self.engine.options.lookup_only => {
                return Err(WorkError::Unmade { prepared: Box::new(prepared) });
            }
            None => {
                let number = action.index() as u32;
                let task = Task { number, spec, files: &[], prepared: &prepared, anew: skip_cache };
                let (outcome, taken) = self.run(&task)?;
                slot = taken;
                finished.outcome = event::Outcome::Executed;
                finished.cpu_ms = outcome.cpu_ms;
                finished.memory_bytes = outcome.memory_bytes;
                finished.cost_usd_micros = outcome.cost_usd_micros;
                outcome.result
            }
        };
        finished.mapped = parts;
        finished.outputs = self.outputs(spec, &result)?;
        finished.flaky = result.is_flaky();
        finished.logs = result.stdout_digest.into_iter().chain(result.stderr_digest).collect();
        finished.end_ms = self.engine.now_ms();
        (finished.key, finished.parts) =
            (Some(prepared.key), Some(PackedParts::new(&prepared.parts, &self.shared.common)));
        Ok(Done { finished, inputs: inputs.to_vec(), inputs_version, slot })
    }

    /// The end of an action whose inputs turned out to be what they were: its result holds, and
    /// not even its key is made.
    fn unchanged(
        &self,
        action: ActionId,
        spec: &ActionSpec,
        start_ms: u64,
    ) -> Option<FinishedAction> {
        let before = self.engine.before?;
        let inputs = self.plan.inputs(action);
        if before.redo.contains(action) || !inputs.iter().all(|id| self.resolver.is_as_before(*id))
        {
            return None;
        }
        let mut finished = FinishedAction::cached(action, start_ms);
        for output in &spec.outputs {
            match before.results.node(output.artifact) {
                Some(node) => finished.outputs.push((output.artifact, node)),
                None if output.optional => {}
                None => return None,
            }
        }
        if spec.class == ActionClass::Recorded {
            finished.outcome = event::Outcome::Locked;
        }
        Some(finished)
    }

    /// Makes the key of an action or a part.
    pub(super) fn prepare(&self, subject: &Subject<'_>) -> Result<Prepared, WorkError> {
        let (graph, function) = (self.engine.graph, self.engine.store.function());
        let sandbox = self.engine.options.sandbox;
        match prepare_subject(graph, function, sandbox, subject, self.resolver) {
            Err(PrepareError::LostTree { root }) => Err(RunError::MissingBlobs(vec![root]).into()),
            prepared => Ok(prepared?),
        }
    }

    /// Carries out the parts of a map; what is left to do is to compose what they made.
    fn keyed_map<'g>(
        &self,
        action: ActionId,
        spec: &'g ActionSpec,
        map: &Map,
    ) -> Result<Keyed<'g>, WorkError> {
        let parts = self.carry_out(action, spec, map)?;
        let (spec, files) = composition(self.engine.graph, spec, &parts)?;
        let prepared = self.prepare(&Subject { spec: &spec, inputs: &[], files: &files })?;
        Ok(Keyed { spec: Cow::Owned(spec), prepared, parts })
    }

    fn look_up(
        &self,
        spec: &ActionSpec,
        prepared: &Prepared,
        skip_cache: bool,
    ) -> Result<Option<Hit>, WorkError> {
        match spec.class {
            ActionClass::Pure if skip_cache => Ok(None),
            ActionClass::Pure => {
                let found = self.known_result(spec, &[], &prepared.key)?;
                Ok(found.map(|(result, source)| Hit::Cached(result, source)))
            }
            ActionClass::Recorded => {
                let store = self.engine.store;
                let label = &self.engine.graph.target(spec.owner).label;
                let lookup = RecordLookup { label, prepared, spec };
                match self.engine.records.find(&lookup, store, self.engine.options.reach) {
                    Ok(found) => Ok(Some(Hit::Recorded(Box::new(found)))),
                    Err(FindError::Miss(_)) if self.engine.options.live => Ok(None),
                    Err(FindError::MissingBlobs(lost)) => Err(RunError::MissingBlobs(lost).into()),
                    Err(error) => Err(Box::new(error).into()),
                }
            }
            ActionClass::Effect => Err(RunError::Refused {
                message: "a build performs no effects".into(),
                hints: vec!["effects are performed by `maestro run` within a pipeline".into()],
            }
            .into()),
        }
    }

    /// Runs an action or a part, on another machine or in a free slot, and stores its result.
    pub(super) fn run(&self, task: &Task<'_>) -> Result<(Outcome, Option<u32>), WorkError> {
        let Task { number, spec, files, prepared, anew: _ } = *task;
        let engine = self.engine;
        for (digest, bytes) in &prepared.blobs {
            engine.store.put_known(digest, bytes)?;
        }
        if let Some(outcome) = self.run_elsewhere(task)? {
            self.outputs(spec, &outcome.result)?;
            made_files(files, &outcome.result)?;
            self.show_log(number, spec, &outcome.result);
            return Ok((outcome, None));
        }
        self.bring_inputs(prepared)?;
        let slot = self.slots.take();
        if engine.cancel.is_cancelled() {
            return Err(RunError::Cancelled.into());
        }
        engine.events.emit(Event::ActionStarted {
            action: number,
            label: engine.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            progress: spec.progress.clone(),
            at_ms: engine.now_ms(),
        });
        let toolchains = spec.toolchains.iter().map(|id| self.resolver.mount(*id));
        let toolchains = toolchains.collect::<Result<Vec<ToolchainMount>, _>>()?;
        let Some(runner) = engine.runners.iter().find(|runner| runner.handles(&spec.how)) else {
            return Err(RunError::Internal {
                message: format!("nothing runs actions of kind `{}`", spec.mnemonic),
            }
            .into());
        };
        let job = Job {
            graph: engine.graph,
            spec,
            files,
            prepared,
            store: engine.store,
            slot: slot.number,
            toolchains: &toolchains,
            cancel: engine.cancel,
        };
        let outcome = match runner.run(&job) {
            Ok(outcome) => outcome,
            Err(error @ (RunError::MissingBlobs(_) | RunError::Cancelled)) => {
                return Err(error.into());
            }
            Err(error) => {
                return Err(WorkError::Command { error, prepared: Box::new(prepared.clone()) });
            }
        };
        // Before anything is stored: everything that was declared must be there.
        self.outputs(spec, &outcome.result)?;
        made_files(files, &outcome.result)?;
        if spec.class == ActionClass::Pure {
            match engine.store.put_action_result(&prepared.key, &outcome.result) {
                // Something took an output between its storing and now: run once more.
                Err(StoreError::Missing { digest } | StoreError::Corrupt { digest, .. }) => {
                    return Err(RunError::MissingBlobs(vec![digest]).into());
                }
                stored => stored?,
            }
            self.note_baseline(task, &outcome.result);
            self.share(prepared, &outcome.result);
        }
        self.show_log(number, spec, &outcome.result);
        Ok((outcome, Some(slot.number)))
    }

    /// Leaves what an action was made of. A build does not fail for want of an explanation.
    fn note_baseline(&self, task: &Task<'_>, result: &ActionResult) {
        let Task { number: _, spec, files, prepared, anew: _ } = task;
        let (Some(baselines), Some(first)) = (self.engine.baselines, spec.outputs.first()) else {
            return;
        };
        // Parts of a map have the map's outputs in common; a file tells them apart.
        let path = match (files.is_empty(), result.output_files.first()) {
            (false, Some(file)) => file.path.clone(),
            _ => self.resolver.path(first.artifact).to_string(),
        };
        let identity = Identity { mnemonic: spec.mnemonic.clone(), path };
        baselines.note(identity, prepared, self.engine.now_ms());
    }

    /// Takes what a record says of an action; gives its result.
    fn take_record(
        &self,
        spec: &ActionSpec,
        found: Found,
        finished: &mut FinishedAction,
    ) -> ActionResult {
        if found.record.found_in == FoundIn::Stale {
            self.warn_of_stale(spec, &found);
        }
        if found.record.found_in != FoundIn::Cache {
            finished.outcome = event::Outcome::Locked;
        }
        finished.saved_usd_micros = found.saved_usd_micros;
        finished.record = Some(Box::new(found.record));
        found.result
    }

    /// Says that an answer to an older input was used, on the user's demand.
    fn warn_of_stale(&self, spec: &ActionSpec, found: &Found) {
        let label = &self.engine.graph.target(spec.owner).label;
        let date = found.record.record.date;
        self.engine.events.emit(Event::Message {
            severity: Severity::Warning,
            text: format!(
                "`{label}` is stale: its answer of {date} is to an older input, and so is all that \
                 is made from it"
            ),
        });
    }

    /// Shows what a successful command wrote, such as warnings. Tests have log files instead.
    fn show_log(&self, number: u32, spec: &ActionSpec, result: &ActionResult) {
        let logs: Vec<Digest> =
            result.stdout_digest.into_iter().chain(result.stderr_digest).collect();
        if logs.is_empty() || spec.hints.test {
            return;
        }
        let (text, truncated) = failure::read_tail(self.engine.store, &logs);
        self.engine.events.emit(Event::ActionLog {
            action: number,
            label: self.engine.graph.target(spec.owner).label.clone(),
            text,
            truncated,
        });
    }

    /// Pairs the declared outputs with what the result has.
    fn outputs(
        &self,
        spec: &ActionSpec,
        result: &ActionResult,
    ) -> Result<Vec<(ArtifactId, Node)>, WorkError> {
        let mut outputs = Vec::with_capacity(spec.outputs.len());
        for output in &spec.outputs {
            let path = self.resolver.path(output.artifact).as_str();
            let file = result.output_files.iter().find(|file| file.path == path);
            let tree = result.output_directories.iter().find(|tree| tree.path == path);
            let node = match (file, tree) {
                (Some(file), _) => {
                    Node::File { digest: file.digest, executable: file.is_executable }
                }
                (None, Some(tree)) => Node::Tree { root: tree.root_directory_digest },
                (None, None) if output.optional => continue,
                (None, None) => {
                    return Err(RunError::Internal {
                        message: format!("the result lacks the declared output `{path}`"),
                    }
                    .into());
                }
            };
            outputs.push((output.artifact, node));
        }
        Ok(outputs)
    }
}
