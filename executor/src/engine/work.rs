//! What one action needs: its inputs hashed, its key made, its result looked up or made.
//!
//! The order of look-ups follows the class: a pure action asks the action cache; a recorded one
//! asks `maestro.lock` and then, unless the build is locked, what the cache remembers, and is run
//! only by commands that may make live calls; an effect is refused.
//! A failed, cancelled or transient result is never stored.

use std::borrow::Cow;

use maestro_cas::StoreError;
use maestro_core::event::{self, Event, Severity, TestStatus};
use maestro_core::graph::Plan;
use maestro_core::key::{Files, PackedParts, PrepareError, Prepared, Subject, prepare_subject};
use maestro_core::map::{Map, MapError};
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{
    ActionClass, ActionId, ActionKey, ActionSpec, ArtifactId, Digest, FailureKind, How, Node,
    RelPath,
};

use super::parts::{FailedParts, composition, made_files};
use super::resolve::{InputError, Resolver};
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
    pub(super) slot: u32,
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

/// A result that need not be made.
enum Hit {
    Cached(ActionResult),
    Recorded(Box<Found>),
}

/// Why an action has no result.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// An input could not be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The key could not be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The action ran, or could not.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A recorded action has no record.
    #[error(transparent)]
    Record(#[from] Box<FindError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] maestro_cas::StoreError),
    /// A tree cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Parts of a map failed, of which was told before.
    #[error(transparent)]
    Parts(Box<FailedParts>),
    /// The build stopped before all parts of a map were begun.
    #[error("given up")]
    Abandoned,
    /// Its result is not known, and nothing is to run.
    #[error("its result is not in the cache")]
    Unmade {
        /// Its key and what the key was made of.
        prepared: Box<Prepared>,
    },
    /// The command ran and failed; this keeps what it was.
    #[error("{error}")]
    Command {
        /// What went wrong.
        #[source]
        error: RunError,
        /// Its key and what the key was made of, so that it can be shown and run again.
        prepared: Box<Prepared>,
    },
}

impl WorkError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Input(InputError::Source(error)) => error.kind(),
            Self::Input(InputError::Toolchain(_)) => FailureKind::Environment,
            Self::Input(InputError::Store(error)) | Self::Store(error) => error.kind(),
            Self::Prepare(PrepareError::LostTree { .. }) => FailureKind::Environment,
            Self::Prepare(_) => FailureKind::Input,
            Self::Unmade { .. } => FailureKind::Build,
            Self::Record(error) => error.kind(),
            Self::Map(_) | Self::Abandoned => FailureKind::Build,
            Self::Parts(parts) => parts.kind,
            Self::Run(error) | Self::Command { error, .. } => error.kind(),
        }
    }

    /// The key of the action, where one could be made.
    pub fn key(&self) -> Option<ActionKey> {
        match self {
            Self::Command { prepared, .. } => Some(prepared.key),
            _ => None,
        }
    }

    /// Whether a recorded action found no record.
    pub fn is_record_miss(&self) -> bool {
        matches!(self, Self::Record(error) if matches!(**error, FindError::Miss(_)))
    }

    /// The verdict of a test that ended so, and what it wrote.
    pub fn test_status(&self) -> (TestStatus, Vec<Digest>) {
        let (Self::Run(error) | Self::Command { error, .. }) = self else {
            return (TestStatus::NotBuilt, Vec::new());
        };
        let logs = |stdout: &Option<Digest>, stderr: &Option<Digest>| {
            stdout.iter().chain(stderr).copied().collect()
        };
        match error {
            RunError::Failed { stdout, stderr, .. } => (TestStatus::Failed, logs(stdout, stderr)),
            RunError::Timeout { stdout, stderr, .. } => (TestStatus::Timeout, logs(stdout, stderr)),
            _ => (TestStatus::NotBuilt, Vec::new()),
        }
    }

    /// What a failed test made before it failed, such as its report.
    pub fn kept_files(&self) -> &[OutputFile] {
        match self {
            Self::Run(RunError::Failed { kept, .. })
            | Self::Command { error: RunError::Failed { kept, .. }, .. } => kept,
            _ => &[],
        }
    }

    /// What can be done about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Input(InputError::Source(error)) => error.hints(),
            Self::Input(InputError::Toolchain(failure)) => failure.hints.clone(),
            Self::Input(InputError::Store(error)) | Self::Store(error) => {
                error.hint().into_iter().collect()
            }
            Self::Map(error) => error.hint().map(str::to_owned).into_iter().collect(),
            Self::Prepare(_) | Self::Parts(_) | Self::Abandoned | Self::Unmade { .. } => Vec::new(),
            Self::Record(error) => error.hints(),
            Self::Run(error) | Self::Command { error, .. } => error.hints().to_vec(),
        }
    }
}

impl Worker<'_, '_, '_> {
    /// Brings one action to its end.
    pub fn perform(
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
            Some(Hit::Cached(result)) => result,
            Some(Hit::Recorded(found)) => {
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
            None if self.engine.options.lookup_only => {
                return Err(WorkError::Unmade { prepared: Box::new(prepared) });
            }
            None => {
                slot = Some(self.slot);
                let number = action.index() as u32;
                let task = Task { number, spec, files: &[], prepared: &prepared };
                let outcome = self.run(&task)?;
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
        let store = self.engine.store;
        match spec.class {
            ActionClass::Pure if skip_cache => Ok(None),
            ActionClass::Pure => {
                let found = store.action_result(&prepared.key)?;
                // Once a test no longer says that it is flaky, a late pass is none.
                let holds = |found: &ActionResult| !found.is_flaky() || spec.hints.attempts > 1;
                Ok(found.filter(holds).map(Hit::Cached))
            }
            ActionClass::Recorded => {
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

    /// Runs an action or a part, and stores its result.
    pub(super) fn run(&self, task: &Task<'_>) -> Result<Outcome, WorkError> {
        let Task { number, spec, files, prepared } = *task;
        let engine = self.engine;
        engine.events.emit(Event::ActionStarted {
            action: number,
            label: engine.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            progress: spec.progress.clone(),
            at_ms: engine.now_ms(),
        });
        for (digest, bytes) in &prepared.blobs {
            engine.store.put_known(digest, bytes)?;
        }
        let toolchains: Vec<ToolchainMount> =
            spec.toolchains.iter().filter_map(|id| self.resolver.mount(*id)).collect();
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
            slot: self.slot,
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
        }
        self.show_log(number, spec, &outcome.result);
        Ok(outcome)
    }

    /// Leaves what an action was made of. A build does not fail for want of an explanation.
    fn note_baseline(&self, task: &Task<'_>, result: &ActionResult) {
        let Task { number: _, spec, files, prepared } = task;
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
