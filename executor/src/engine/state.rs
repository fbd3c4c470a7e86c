//! The state of every action of a build, and the only functions that change it.
//!
//! ```text
//!            all producers done            a thread takes it
//!  Waiting ───────────────────────▶ Ready ─────────────────▶ Running
//!     ▲                                                        │
//!     │  a producer must run again (its blobs are lost),       ├──▶ Done ──┐ the bytes of a
//!     └────────────────────────────────────────────────────────┤          │ producer changed
//!                 or made other bytes than before              └──▶ Failed ▼
//!  Waiting, Ready ──▶ Skipped   (something it needs failed, or the build stops)   Done ─▶ Waiting
//!  Running ──▶ Skipped   (the build stops, and parts of it were not begun)
//! ```
//!
//! Invariants: `Waiting.pending` is the number of producers that are not `Done`; an action is in
//! the ready queue if and only if its state is `Ready` (stale queue entries are passed over);
//! `unfinished` counts actions that are neither `Done`, `Failed` nor `Skipped`.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use maestro_core::graph::Plan;
use maestro_core::{ActionGraph, ActionId, How, limits};

use super::parts::Batch;
use super::{FailedAction, FinishedAction};

/// Where an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActionState {
    /// So many of its producers are not done.
    Waiting {
        /// How many.
        pending: u32,
    },
    /// In the queue.
    Ready,
    /// A thread works on it.
    Running,
    /// It has a result.
    Done,
    /// It will have none.
    Failed,
    /// It is not tried.
    Skipped,
}

/// What a thread does next.
#[derive(Debug)]
pub enum Turn {
    /// Work on this action.
    Do {
        /// Which.
        action: ActionId,
        /// Whether the action cache must not be asked: its result there is known to be unusable.
        skip_cache: bool,
    },
    /// Work on this part of a map.
    Part {
        /// The map's parts.
        batch: Arc<Batch>,
        /// Which of them.
        index: usize,
    },
    /// Nothing to do right now.
    Wait,
    /// Nothing to do ever again.
    Finished,
}

/// What is left when all threads have ended.
pub struct Ended {
    /// Results by action.
    pub finished: HashMap<ActionId, Box<FinishedAction>>,
    /// Failures in order.
    pub failed: Vec<FailedAction>,
    /// Whether the build was ended from outside.
    pub cancelled: bool,
    /// Whether an action outside of the plan would have had to run.
    pub needs_whole_plan: bool,
}

/// Native kinds that wait for the network rather than use a processor.
const NETWORK_KINDS: [&str; 3] = ["fetch", "fetch-wheel", "llm"];

struct Entry {
    state: ActionState,
    /// The longest chain of actions that waits for this one: longer chains go first.
    height: u32,
    network: bool,
    skip_cache: bool,
    rewinds: u32,
}

/// Holds the state of every action of a plan.
pub struct Scheduler<'e> {
    plan: &'e Plan,
    entries: HashMap<ActionId, Entry>,
    ready: [BinaryHeap<(u32, std::cmp::Reverse<ActionId>)>; 2],
    unfinished: usize,
    running: usize,
    stopping: bool,
    cancelled: bool,
    needs_whole_plan: bool,
    finished: HashMap<ActionId, Box<FinishedAction>>,
    failed: Vec<FailedAction>,
    /// The maps that are carried out now.
    batches: Vec<Arc<Batch>>,
    jobs: usize,
}

impl<'e> Scheduler<'e> {
    /// Every action of the plan, those without producers ready.
    pub fn new(graph: &ActionGraph, plan: &'e Plan, jobs: usize) -> Self {
        let mut heights: HashMap<ActionId, u32> = HashMap::with_capacity(plan.order.len());
        for action in plan.order.iter().rev() {
            let above = plan.consumers(*action).filter_map(|c| heights.get(&c)).max();
            heights.insert(*action, above.map_or(0, |h| h + 1));
        }
        let mut scheduler = Self {
            plan,
            entries: HashMap::with_capacity(plan.order.len()),
            ready: [BinaryHeap::new(), BinaryHeap::new()],
            unfinished: plan.order.len(),
            running: 0,
            stopping: false,
            cancelled: false,
            needs_whole_plan: false,
            finished: HashMap::with_capacity(plan.order.len()),
            failed: Vec::new(),
            batches: Vec::new(),
            jobs,
        };
        for action in &plan.order {
            let pending = plan.producers(*action).count() as u32;
            let network = matches!(&graph.action(*action).how,
                How::Native { kind, .. } if NETWORK_KINDS.contains(&kind.as_str()));
            scheduler.entries.insert(
                *action,
                Entry {
                    state: ActionState::Waiting { pending },
                    height: heights.get(action).copied().unwrap_or(0),
                    network,
                    skip_cache: false,
                    rewinds: 0,
                },
            );
            if pending == 0 {
                scheduler.enter(*action, ActionState::Ready);
            }
        }
        scheduler
    }

    /// The plan that is carried out.
    pub fn plan(&self) -> &'e Plan {
        self.plan
    }

    /// How many actions wait for the network rather than use a processor.
    pub fn network_actions(&self) -> usize {
        self.entries.values().filter(|entry| entry.network).count()
    }

    /// Gives a thread its next turn.
    pub fn next(&mut self, network: bool) -> Turn {
        if self.unfinished == 0 || (self.stopping && self.running == 0) {
            return Turn::Finished;
        }
        if self.stopping {
            return Turn::Wait;
        }
        // A map that is begun holds a slot, so that its parts come first.
        let part = |batch: &Arc<Batch>| Some((batch.clone(), batch.take()?));
        if let Some((batch, index)) = self.batches.iter().filter(|_| !network).find_map(part) {
            return Turn::Part { batch, index };
        }
        let queue = usize::from(network);
        while let Some((_, std::cmp::Reverse(action))) =
            self.ready.get_mut(queue).and_then(BinaryHeap::pop)
        {
            let Some(entry) = self.entries.get(&action) else { continue };
            if entry.state == ActionState::Ready {
                let skip_cache = entry.skip_cache;
                self.enter(action, ActionState::Running);
                return Turn::Do { action, skip_cache };
            }
        }
        Turn::Wait
    }

    /// An action has its result. `changed` says that its outputs differ from an earlier result in
    /// this build; `stale` that an input changed while it ran, so that it must run again.
    pub fn done(&mut self, action: ActionId, finished: FinishedAction, changed: bool, stale: bool) {
        if let Some(entry) = self.entries.get_mut(&action) {
            entry.skip_cache = false;
        }
        self.finished.insert(action, Box::new(finished));
        self.enter(action, ActionState::Done);
        if changed {
            let consumers: Vec<ActionId> = self.plan.consumers(action).collect();
            for consumer in consumers {
                self.redo(consumer);
            }
        }
        if stale {
            self.redo(action);
        }
    }

    /// An action has failed; without `keep_going` nothing new starts.
    pub fn fail(&mut self, failed: FailedAction, keep_going: bool) {
        let action = failed.action;
        self.failed.push(failed);
        self.enter(action, ActionState::Failed);
        self.skip_consumers(action);
        if !keep_going {
            self.stopping = true;
        }
    }

    /// Offers the parts of a map to whoever takes a turn.
    pub fn offer(&mut self, batch: Arc<Batch>) {
        self.batches.push(batch);
    }

    /// A map has no more parts to offer.
    pub fn withdraw(&mut self, batch: &Arc<Batch>) {
        self.batches.retain(|own| !Arc::ptr_eq(own, batch));
    }

    /// Whether nothing new starts.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// An action was given up in the middle, because the build stops.
    pub fn abandoned(&mut self, action: ActionId) {
        self.enter(action, ActionState::Skipped);
    }

    /// An action ended because the build does.
    pub fn cancelled(&mut self, action: ActionId) {
        self.enter(action, ActionState::Skipped);
        self.cancel();
    }

    /// Ends the build: running actions end, nothing new starts.
    pub fn cancel(&mut self) {
        self.stopping = true;
        self.cancelled = true;
    }

    /// Whether an action is part of the plan.
    pub fn has(&self, action: ActionId) -> bool {
        self.entries.contains_key(&action)
    }

    /// Ends the build because something is lost that no action of the plan makes.
    pub fn give_up(&mut self, action: ActionId) {
        self.needs_whole_plan = true;
        self.stopping = true;
        self.enter(action, ActionState::Skipped);
    }

    /// Whether an action may wait for its producers once more.
    pub fn may_rewind(&self, action: ActionId) -> bool {
        self.entries.get(&action).is_some_and(|entry| entry.rewinds < limits::REWINDS_MAX)
    }

    /// An action's inputs are lost: it waits until `producers` have run again, past the cache.
    /// With no producers (lost sources, which are read again) it is ready at once.
    pub fn rewind(&mut self, action: ActionId, producers: &[ActionId]) {
        for producer in producers {
            if let Some(entry) = self.entries.get_mut(producer) {
                entry.skip_cache = true;
            }
            self.redo(*producer);
        }
        if let Some(entry) = self.entries.get_mut(&action) {
            entry.rewinds += 1;
        }
        let pending = self.pending(action);
        self.enter(action, ActionState::Waiting { pending });
        if pending == 0 {
            self.enter(action, ActionState::Ready);
        }
    }

    /// What is left at the end.
    pub fn end(mut self) -> Ended {
        let Self { finished, entries, .. } = &mut self;
        finished.retain(|action, _| {
            entries.get(action).is_some_and(|entry| entry.state == ActionState::Done)
        });
        Ended {
            finished: self.finished,
            failed: self.failed,
            cancelled: self.cancelled,
            needs_whole_plan: self.needs_whole_plan,
        }
    }

    /// Sends a done action back, because what it was made from is no longer what there is.
    fn redo(&mut self, action: ActionId) {
        let Some(entry) = self.entries.get(&action) else { return };
        if entry.state != ActionState::Done {
            return; // it has not used the old bytes, or is found stale when it ends
        }
        let pending = self.pending(action);
        self.enter(action, ActionState::Waiting { pending });
        if pending == 0 {
            self.enter(action, ActionState::Ready);
        }
    }

    fn pending(&self, action: ActionId) -> u32 {
        let open = |producer: &ActionId| {
            self.entries.get(producer).is_some_and(|e| e.state != ActionState::Done)
        };
        self.plan.producers(action).filter(open).count() as u32
    }

    fn skip_consumers(&mut self, action: ActionId) {
        let mut stack: Vec<ActionId> = self.plan.consumers(action).collect();
        while let Some(consumer) = stack.pop() {
            let waits = self.entries.get(&consumer).is_some_and(|entry| {
                matches!(entry.state, ActionState::Waiting { .. } | ActionState::Ready)
            });
            if waits {
                self.enter(consumer, ActionState::Skipped);
                stack.extend(self.plan.consumers(consumer));
            }
        }
    }

    /// The one place where a state changes, with all that hangs on it.
    fn enter(&mut self, action: ActionId, next: ActionState) {
        use ActionState::{Done, Failed, Ready, Running, Skipped, Waiting};
        let Some(entry) = self.entries.get_mut(&action) else { return };
        let old = std::mem::replace(&mut entry.state, next);
        let (height, network) = (entry.height, entry.network);
        let over = |state| matches!(state, Done | Failed | Skipped);
        match (over(old), over(next)) {
            (false, true) => self.unfinished -= 1,
            (true, false) => self.unfinished += 1,
            _ => {}
        }
        if old == Running {
            self.running -= 1;
        }
        if next == Running {
            self.running += 1;
        }
        if next == Ready {
            let queue = usize::from(network && self.jobs > 0);
            if let Some(queue) = self.ready.get_mut(queue) {
                queue.push((height, std::cmp::Reverse(action)));
            }
        }
        if (old == Done) != (next == Done) {
            let consumers: Vec<ActionId> = self.plan.consumers(action).collect();
            for consumer in consumers {
                self.producer_moved(consumer, next == Done);
            }
        }
        debug_assert!(!matches!(old, Waiting { .. }) || next != Done, "only running actions end");
    }

    /// Keeps `pending` of a consumer true when one of its producers became done, or undone.
    fn producer_moved(&mut self, consumer: ActionId, done: bool) {
        let Some(entry) = self.entries.get_mut(&consumer) else { return };
        match (entry.state, done) {
            (ActionState::Waiting { pending }, true) => {
                let pending = pending.saturating_sub(1);
                entry.state = ActionState::Waiting { pending };
                if pending == 0 {
                    self.enter(consumer, ActionState::Ready);
                }
            }
            (ActionState::Waiting { pending }, false) => {
                entry.state = ActionState::Waiting { pending: pending + 1 };
            }
            (ActionState::Ready, false) => {
                self.enter(consumer, ActionState::Waiting { pending: 1 });
            }
            _ => {}
        }
    }
}
