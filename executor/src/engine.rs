//! The build: decides which action is next, looks its result up, has it run, and remembers.
//!
//! Demand-driven: only what the requested artifacts need is looked at. For each action whose
//! inputs are known the engine makes the key, looks it up, and runs the action on a miss.
//! Content addressing gives early cutoff: an action that ran again but made the same bytes
//! leaves the keys of its consumers as they were.
//!
//! Division of labour: [`state`] holds the state of every action and owns every transition;
//! [`work`] does what one action needs (hash sources, key, look up, run); [`parts`] does the same
//! for actions that turn up only when a tree is there; this file starts the threads, turns results
//! into transitions and events, and writes the report.
//! Nothing here knows how an action is run: that is a [`Runner`](crate::runner::Runner).

pub mod before;
pub mod failure;
pub mod outputs;
mod parts;
mod remote;
pub mod resolve;
mod slots;
pub mod state;
pub mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use maestro_cas::Store;
use maestro_core::event::{ActionCounts, Event, EventSink, Outcome};
use maestro_core::graph::Plan;
use maestro_core::key::{CommonParts, PackedParts, SandboxProfile};
use maestro_core::{ActionGraph, ActionId, ActionKey, ArtifactId, Digest, Node, limits};

use crate::baselines;
use crate::records::{Reach, Records};
use crate::remote_cache::RemoteCache;
use crate::runner::{Cancel, RunError, Runner};
use crate::workspace::sources::Sources;
use before::Before;
use failure::Failed;
pub use parts::FinishedPart;
use resolve::Resolver;
use slots::Slots;
use state::{Scheduler, Turn};
use work::{Done, WorkError, Worker};

/// What the user chose.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How many commands run at once.
    pub jobs: usize,
    /// Whether independent actions go on after a failure.
    pub keep_going: bool,
    /// How far lookups of recorded results go.
    pub reach: Reach,
    /// Whether a recorded action that is not found is run, that is, whether live calls are made.
    pub live: bool,
    /// How commands are confined.
    pub sandbox: SandboxProfile,
    /// Where the logs of failed actions go.
    pub log_dir: std::path::PathBuf,
    /// Whether actions are only looked up: one whose result is not known fails with
    /// [`WorkError::Unmade`], and nothing runs.
    pub lookup_only: bool,
}

/// Everything a build uses.
pub struct Engine<'a> {
    /// The user's choices.
    pub options: EngineOptions,
    /// What could be done.
    pub graph: &'a ActionGraph,
    /// Blobs and results.
    pub store: &'a Store,
    /// Source files and toolchains.
    pub sources: &'a Sources,
    /// Where toolchains are resolved.
    pub toolchains: &'a dyn resolve::Toolchains,
    /// The lock.
    pub records: &'a Records,
    /// The cache that others share, where there is one.
    pub remote: Option<&'a dyn RemoteCache>,
    /// Who runs what; the first that handles an action gets it.
    pub runners: &'a [Arc<dyn Runner>],
    /// Where events go.
    pub events: &'a dyn EventSink,
    /// Ends the build early.
    pub cancel: &'a Cancel,
    /// When the invocation began; times in events count from here.
    pub started: Instant,
    /// Takes what was run, for explanations; who made it finishes it. Without it none are left.
    pub baselines: Option<&'a baselines::Writer>,
    /// What an earlier build left; a plan then holds dirty actions alone.
    pub before: Option<&'a Before<'a>>,
}

/// One action of the build with its end.
#[derive(Clone, Debug)]
pub struct FinishedAction {
    /// Which.
    pub action: ActionId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its key, where one was made.
    pub key: Option<ActionKey>,
    /// What the key was made of.
    pub parts: Option<PackedParts>,
    /// Its outputs.
    pub outputs: Vec<(ArtifactId, Node)>,
    /// When it began, in milliseconds since the invocation started.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: u64,
    /// Processor time of the command, in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident memory of the command, in bytes.
    pub memory_bytes: u64,
    /// What it cost now.
    pub cost_usd_micros: u64,
    /// What reuse saved.
    pub saved_usd_micros: u64,
    /// The record it came from.
    pub record: Option<Box<crate::records::RecordUse>>,
    /// Standard output and error of the run that made the result, if any.
    pub logs: Vec<Digest>,
    /// Whether it passed only after a failed attempt.
    pub flaky: bool,
    /// The parts that it was made of, if it is a map that was looked at.
    pub mapped: Vec<FinishedPart>,
}

impl FinishedAction {
    /// An action whose result is there already.
    fn cached(action: ActionId, start_ms: u64) -> Self {
        Self {
            action,
            outcome: Outcome::Cached,
            key: None,
            parts: None,
            outputs: Vec::new(),
            start_ms,
            end_ms: start_ms,
            cpu_ms: 0,
            memory_bytes: 0,
            cost_usd_micros: 0,
            saved_usd_micros: 0,
            record: None,
            logs: Vec::new(),
            flaky: false,
            mapped: Vec::new(),
        }
    }
}

/// An action that failed, with everything that is needed to tell of it.
#[derive(Debug)]
pub struct FailedAction {
    /// Which.
    pub action: ActionId,
    /// Why.
    pub error: WorkError,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl FailedAction {
    /// The action as it would be if it had run: where it only was looked up, and in vain.
    pub fn unmade(&self) -> Option<FinishedAction> {
        let WorkError::Unmade { prepared } = &self.error else { return None };
        Some(FinishedAction {
            outcome: Outcome::Executed,
            key: Some(prepared.key),
            parts: Some(PackedParts::new(&prepared.parts, &CommonParts::default())),
            ..FinishedAction::cached(self.action, 0)
        })
    }
}

/// How a build ended.
#[derive(Debug)]
pub struct Report {
    /// Every action of the plan that has a result, in the order of the plan.
    pub finished: Vec<FinishedAction>,
    /// Failures, in the order they happened.
    pub failed: Vec<FailedAction>,
    /// Counts by outcome.
    pub counts: ActionCounts,
    /// How many parts each map has that was looked at; those without parts are left out.
    pub parts: BTreeMap<ActionId, u32>,
    /// What stands at each artifact that was looked at.
    pub nodes: HashMap<ArtifactId, Node>,
    /// Milliseconds along the longest chain of executed actions.
    pub critical_path_ms: u64,
    /// Whether the user ended the build.
    pub cancelled: bool,
    /// Whether something is lost that an action outside of the plan made, so that all that is
    /// needed must be looked at.
    pub needs_whole_plan: bool,
}

impl Report {
    /// Whether everything that was asked for is made.
    pub fn success(&self) -> bool {
        self.failed.is_empty() && !self.cancelled && !self.needs_whole_plan
    }
}

/// State shared by the threads of one build.
struct Shared<'e> {
    scheduler: Mutex<Scheduler<'e>>,
    changed: Condvar,
    /// The number in events of the next action that is not in the graph.
    next_number: AtomicU32,
    /// Where actions run that use a processor, and those that wait for the network.
    slots: [Slots; 2],
    /// What the keys of this build have in common.
    common: CommonParts,
}

impl<'e> Shared<'e> {
    fn lock(&self) -> MutexGuard<'_, Scheduler<'e>> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine<'_> {
    /// Makes the requested artifacts; those of a failed action stay unmade.
    pub fn build(&self, plan: &Plan, requested: &[ArtifactId]) -> Report {
        self.events.emit(Event::Planned {
            actions: u32::try_from(plan.order.len()).unwrap_or(u32::MAX),
            at_ms: self.now_ms(),
        });
        let resolver = Resolver::new(
            self.graph,
            self.store,
            self.sources,
            self.toolchains,
            self.events,
            self.before,
        );
        let scheduler = Scheduler::new(self.graph, plan, self.options.jobs);
        // A thread that has nothing to wait for would only be woken by the end of each action.
        let network = scheduler.network_actions().min(limits::NETWORK_ACTIONS_MAX);
        let jobs = self.options.jobs;
        let shared = Shared {
            scheduler: Mutex::new(scheduler),
            changed: Condvar::new(),
            next_number: AtomicU32::new(u32::try_from(self.graph.action_count()).unwrap_or(0)),
            slots: [Slots::new(0..jobs), Slots::new(jobs..jobs + network)],
            common: CommonParts::default(),
        };
        std::thread::scope(|scope| {
            let general = jobs + self.callers().min(plan.order.len());
            for number in 0..general + network {
                let (shared, resolver) = (&shared, &resolver);
                let name = format!("action-{number}");
                let waits = number >= general;
                let spawned = std::thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, move || self.serve(plan, waits, shared, resolver));
                if spawned.is_err() && number == 0 {
                    // Not even one thread: serve from here, so that the build still ends.
                    self.serve(plan, false, shared, resolver);
                }
            }
        });
        let scheduler = shared.scheduler.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.report(plan, requested, scheduler, resolver)
    }

    /// Looks for blobs that outputs about to be written need and that are gone; runs their
    /// producers again. Returns the new report, or `None` if nothing had to be done.
    pub fn rewind_lost(
        &self,
        plan: &Plan,
        requested: &[ArtifactId],
        lost: &[ArtifactId],
    ) -> Option<Report> {
        let lost: Vec<ActionId> = lost.iter().filter_map(|a| self.graph.producer(*a)).collect();
        if lost.is_empty() {
            return None;
        }
        for action in &lost {
            tracing::warn!(action = action.index(), "an output is gone from the store; remaking");
        }
        // The lookup of a fresh build treats a result whose blobs are gone as a miss.
        Some(self.build(plan, requested))
    }

    /// The loop of one thread: takes turns until there are none. `network` says that it takes those
    /// that wait for the network.
    fn serve(&self, plan: &Plan, network: bool, shared: &Shared<'_>, resolver: &Resolver<'_>) {
        let [processor, waiting] = &shared.slots;
        let slots = if network { waiting } else { processor };
        let worker = Worker { engine: self, plan, resolver, shared, slots };
        let mut guard = shared.lock();
        loop {
            if self.cancel.is_cancelled() {
                guard.cancel();
            }
            match guard.next(network) {
                Turn::Finished => {
                    shared.changed.notify_all();
                    return;
                }
                Turn::Wait => {
                    // Bounded, so that a cancel from a signal handler is seen.
                    let wait = std::time::Duration::from_millis(100);
                    let (next, _) = shared
                        .changed
                        .wait_timeout(guard, wait)
                        .unwrap_or_else(PoisonError::into_inner);
                    guard = next;
                }
                Turn::Part { batch, index } => {
                    drop(guard);
                    worker.work_on(&batch, index);
                    guard = shared.lock();
                    shared.changed.notify_all();
                }
                Turn::Do { action, skip_cache } => {
                    drop(guard);
                    let start_ms = self.now_ms();
                    let result = worker.perform(action, skip_cache, start_ms);
                    guard = shared.lock();
                    self.conclude(&mut guard, action, result, start_ms, resolver);
                    shared.changed.notify_all();
                }
            }
        }
    }

    /// Turns the end of one action into transitions and events.
    fn conclude(
        &self,
        scheduler: &mut Scheduler<'_>,
        action: ActionId,
        result: Result<Done, WorkError>,
        start_ms: u64,
        resolver: &Resolver<'_>,
    ) {
        let slot = None;
        match result {
            Ok(done) => {
                let changed = resolver.set_outputs(&done.finished.outputs);
                let stale = done.inputs_version != resolver.version_of(&done.inputs);
                let mut needs = match done.finished.outcome {
                    Outcome::Executed => needs(scheduler.plan(), action),
                    _ => Vec::new(),
                };
                needs.extend(done.finished.mapped.iter().map(|part| part.number));
                self.emit_finished(&done.finished, done.slot.or(slot), needs);
                scheduler.done(action, done.finished, changed, stale);
            }
            Err(WorkError::Run(RunError::MissingBlobs(digests)))
                if scheduler.may_rewind(action) =>
            {
                let producers = resolver.forget_lost(scheduler.plan().inputs(action), &digests);
                tracing::info!(
                    action = action.index(),
                    producers = producers.len(),
                    "inputs are gone from the store; remaking them"
                );
                if producers.iter().all(|producer| scheduler.has(*producer)) {
                    scheduler.rewind(action, &producers);
                } else {
                    scheduler.give_up(action);
                }
            }
            Err(WorkError::Run(RunError::Cancelled)) => scheduler.cancelled(action),
            Err(WorkError::Abandoned) => scheduler.abandoned(action),
            Err(error) => {
                let needs = needs(scheduler.plan(), action);
                self.emit_failed(action, &error, start_ms, needs);
                let duration_ms = self.now_ms().saturating_sub(start_ms);
                let failed = FailedAction { action, error, duration_ms };
                scheduler.fail(failed, self.options.keep_going);
            }
        }
    }

    fn emit_finished(&self, finished: &FinishedAction, slot: Option<u32>, needs: Vec<u32>) {
        let spec = self.graph.action(finished.action);
        self.events.emit(Event::ActionFinished {
            action: finished.action.index() as u32,
            label: self.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            class: spec.class,
            outcome: finished.outcome,
            key: finished.key.map(|key| key.0),
            start_ms: finished.start_ms,
            at_ms: finished.end_ms,
            slot,
            cost_usd_micros: finished.cost_usd_micros,
            saved_usd_micros: finished.saved_usd_micros,
            needs,
        });
    }

    fn emit_failed(&self, action: ActionId, error: &WorkError, start_ms: u64, needs: Vec<u32>) {
        let spec = self.graph.action(action);
        self.events.emit(Event::ActionFinished {
            action: action.index() as u32,
            label: self.graph.target(spec.owner).label.clone(),
            mnemonic: spec.mnemonic.clone(),
            class: spec.class,
            outcome: Outcome::Failed,
            key: error.key().map(|key| key.0),
            start_ms,
            at_ms: self.now_ms(),
            slot: None,
            cost_usd_micros: 0,
            saved_usd_micros: 0,
            needs,
        });
        let failed = Failed { number: action.index() as u32, spec: &spec, file: None };
        self.events.emit(failure::describe(self, &failed, error));
    }

    fn report(
        &self,
        plan: &Plan,
        requested: &[ArtifactId],
        scheduler: Scheduler<'_>,
        resolver: Resolver<'_>,
    ) -> Report {
        let ended = scheduler.end();
        let mut counts = ActionCounts { total: plan.order.len() as u32, ..ActionCounts::default() };
        let mut chains: HashMap<ActionId, u64> = HashMap::new();
        let mut parts = BTreeMap::new();
        let mut finished = Vec::with_capacity(ended.finished.len());
        let mut by_action = ended.finished;
        for action in &plan.order {
            let Some(done) = by_action.remove(action) else { continue };
            counts.add(done.outcome);
            for part in &done.mapped {
                counts.total += 1;
                counts.add(part.outcome);
                *parts.entry(*action).or_insert(0) += 1;
            }
            let own = match done.outcome {
                Outcome::Executed => done.end_ms.saturating_sub(done.start_ms),
                _ => 0,
            };
            let own = own + done.mapped.iter().map(FinishedPart::executed_ms).max().unwrap_or(0);
            let below = plan.producers(*action).filter_map(|p| chains.get(&p)).max();
            chains.insert(*action, own + below.copied().unwrap_or(0));
            finished.push(*done);
        }
        counts.failed = u32::try_from(ended.failed.len()).unwrap_or(u32::MAX);
        let planned = plan.order.len() - finished.len() - ended.failed.len();
        counts.skipped += u32::try_from(planned).unwrap_or(u32::MAX);
        for failed in &ended.failed {
            if let WorkError::Parts(parts) = &failed.error {
                counts.add_all(parts.counts);
            }
        }
        // Requested sources have no action; hash them, so that the caller can write them out too.
        for artifact in requested {
            if self.graph.producer(*artifact).is_none() {
                let _ = resolver.ensure_input(*artifact);
            }
        }
        Report {
            critical_path_ms: chains.values().copied().max().unwrap_or(0),
            nodes: resolver.into_nodes(),
            cancelled: ended.cancelled,
            needs_whole_plan: ended.needs_whole_plan,
            failed: ended.failed,
            finished,
            counts,
            parts,
        }
    }

    /// Milliseconds since the invocation started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The actions that `action` waits for, by number.
fn needs(plan: &Plan, action: ActionId) -> Vec<u32> {
    plan.producers(action).map(|producer| producer.index() as u32).collect()
}
