//! The state, and what clients do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::{Action, Command, Submission};
use super::decision::{Decision, Ending, Stage};
use super::queue::{Account, ClassId, Place, Queue};
use super::reasons::Rejection;
use super::requirements::{Offer, Requirements};
use super::room::{Room, Taken, Usage};
use super::{LeaseId, OperationId, TaskId, WorkerId};
use crate::limits;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) task: TaskId,
    pub(super) account: Account,
    pub(super) place: Place,
    pub(super) since_ms: u64,
    pub(super) detached_since_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) action: Action,
    pub(super) class: ClassId,
    pub(super) operations: BTreeSet<OperationId>,
    pub(super) lease: Option<LeaseId>,
    pub(super) attempts: u32,
    pub(super) timeout_ms: u64,
    pub(super) merged: bool,
    /// Workers that were lost with it, or at fault.
    pub(super) failed_on: BTreeSet<WorkerId>,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) task: TaskId,
    pub(super) worker: WorkerId,
    pub(super) taken: Taken,
    pub(super) account: Account,
    pub(super) heard_ms: u64,
    pub(super) deadline_ms: u64,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) offer: Offer,
    pub(super) room: Room,
    pub(super) models: BTreeSet<String>,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) heard_ms: u64,
    pub(super) draining: bool,
    pub(super) reserved: Option<ClassId>,
    /// Faults one after another.
    pub(super) faults: u32,
    pub(super) rests_until_ms: u64,
}

/// The scheduler.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) now_ms: u64,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) merging: BTreeMap<Action, TaskId>,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) queue: Queue,
    pub(super) offered: Usage,
    pub(super) known_properties: BTreeSet<String>,
    pub(super) detached: BTreeSet<(u64, OperationId)>,
    pub(super) decisions: Vec<Decision>,
    next_task: u64,
    pub(super) next_lease: u64,
    next_age: u64,
}

/// How much there is to do, and with what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Operations that have not ended.
    pub operations: usize,
    /// Operations that wait for a worker.
    pub queued: usize,
    /// Leases that are alive.
    pub leases: usize,
    /// Workers.
    pub workers: usize,
    /// Those that drain.
    pub draining: usize,
}

impl Scheduler {
    /// A scheduler without workers. Leases are counted from `first_lease`: greater than any that
    /// was given before a restart.
    pub fn new(first_lease: u64) -> Self {
        Self {
            now_ms: 0,
            operations: BTreeMap::new(),
            tasks: BTreeMap::new(),
            merging: BTreeMap::new(),
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            queue: Queue::default(),
            offered: Usage::default(),
            known_properties: BTreeSet::new(),
            detached: BTreeSet::new(),
            decisions: Vec::new(),
            next_task: 0,
            next_lease: first_lease,
            next_age: 0,
        }
    }

    /// Applies a command. Time that goes back stands still.
    pub fn apply(&mut self, command: Command, now_ms: u64) -> Vec<Decision> {
        self.now_ms = self.now_ms.max(now_ms);
        match command {
            Command::Submit(submission) => self.submit(submission),
            Command::Attach(operation) => self.attach(operation),
            Command::Detach(operation) => self.detach(operation),
            Command::Cancel(operation) => self.end_operation(operation, Ending::Cancelled),
            Command::Join { worker, offer, models, holds } => {
                self.join(worker, offer, models, &holds);
            }
            Command::Heartbeat { worker, holds, models } => self.heartbeat(worker, &holds, models),
            Command::Drain(worker) => self.drain(worker),
            Command::Leave(worker) => self.lose_worker(worker),
            Command::Finished { worker, lease, outcome } => self.finished(worker, lease, outcome),
            Command::Tick => self.tick(),
        }
        self.place();
        std::mem::take(&mut self.decisions)
    }

    /// The stage of an operation that has not ended.
    pub fn stage(&self, operation: OperationId) -> Option<Stage> {
        let task = self.tasks.get(&self.operations.get(&operation)?.task)?;
        Some(if task.lease.is_some() { Stage::Executing } else { Stage::Queued })
    }

    /// The actions that have not ended, whose inputs have to stay.
    pub fn held(&self) -> impl Iterator<Item = &Action> {
        self.tasks.values().map(|task| &task.action)
    }

    /// Whether a lease is alive: what its worker says of it counts.
    pub fn has_lease(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// How much there is to do, and with what.
    pub fn load(&self) -> Load {
        Load {
            operations: self.operations.len(),
            queued: self.queue.len(),
            leases: self.leases.len(),
            workers: self.workers.len(),
            draining: self.workers.values().filter(|worker| worker.draining).count(),
        }
    }

    fn submit(&mut self, submission: Submission) {
        if self.operations.contains_key(&submission.operation) {
            return;
        }
        if let Err(rejection) = self.admit(&submission) {
            let ending = Ending::Rejected(rejection);
            let operation = submission.operation;
            return self.decisions.push(Decision::Ended { operation, ending });
        }
        let running = match submission.merge {
            true => self.merging.get(&submission.action).copied(),
            false => None,
        };
        let task = running.unwrap_or_else(|| self.add_task(&submission));
        self.add_operation(submission, task);
    }

    fn admit(&self, submission: &Submission) -> Result<(), Rejection> {
        let full = |limit, of_tenant| Err(Rejection::QueueFull { limit, of_tenant });
        if self.queue.len() >= limits::QUEUED_OPERATIONS_MAX {
            return full(limits::QUEUED_OPERATIONS_MAX, false);
        }
        if self.queue.len_of(&submission.tenant) >= limits::QUEUED_TENANT_OPERATIONS_MAX {
            return full(limits::QUEUED_TENANT_OPERATIONS_MAX, true);
        }
        if !self.known_properties.is_empty() {
            let mut names = submission.requirements.properties.iter().map(|(name, _)| name);
            if let Some(name) = names.find(|name| !self.known_properties.contains(*name)) {
                let known = self.known_properties.clone();
                return Err(Rejection::UnknownProperty { name: name.clone(), known });
            }
        }
        let limit = limits::REQUIREMENT_CLASSES_MAX;
        let is_new = self.queue.class_of(&submission.requirements).is_none();
        if is_new && self.queue.classes.len() >= limit {
            return Err(Rejection::TooManyRequirements { limit });
        }
        Ok(())
    }

    fn add_task(&mut self, submission: &Submission) -> TaskId {
        self.next_task += 1;
        let id = TaskId(self.next_task);
        let class = self.class_for(&submission.requirements);
        if let Some(class) = self.queue.classes.get_mut(&class) {
            class.tasks += 1;
        }
        if submission.merge {
            self.merging.insert(submission.action.clone(), id);
        }
        let task = Task {
            action: submission.action.clone(),
            class,
            operations: BTreeSet::new(),
            lease: None,
            attempts: 0,
            timeout_ms: submission.timeout_ms,
            merged: submission.merge,
            failed_on: BTreeSet::new(),
        };
        self.tasks.insert(id, task);
        id
    }

    fn class_for(&mut self, requirements: &Requirements) -> ClassId {
        if let Some(id) = self.queue.class_of(requirements) {
            return id;
        }
        let fits = |worker: &Worker| !worker.draining && worker.offer.lacks(requirements).is_none();
        let eligible: BTreeSet<WorkerId> =
            self.workers.iter().filter(|(_, worker)| fits(worker)).map(|(id, _)| *id).collect();
        let now_ms = self.now_ms;
        let (id, class) = self.queue.add_class(requirements.clone());
        class.unserved_since_ms = eligible.is_empty().then_some(now_ms);
        class.eligible = eligible;
        id
    }

    fn add_operation(&mut self, submission: Submission, task: TaskId) {
        self.next_age += 1;
        let id = submission.operation;
        let operation = Operation {
            task,
            account: Account { tenant: submission.tenant, invocation: submission.invocation },
            place: Place { priority: submission.priority, age: self.next_age, operation: id },
            since_ms: self.now_ms,
            detached_since_ms: None,
        };
        self.operations.insert(id, operation);
        if let Some(task) = self.tasks.get_mut(&task) {
            task.operations.insert(id);
        }
        let stage = self.stage(id).unwrap_or(Stage::Queued);
        self.decisions.push(Decision::Staged { operation: id, stage });
        if stage == Stage::Queued {
            self.enqueue(task, Some(id));
        }
    }

    /// Has a task wait: all its operations, or the one that came last.
    pub(super) fn enqueue(&mut self, id: TaskId, only: Option<OperationId>) {
        let Some(task) = self.tasks.get(&id) else { return };
        let class = task.class;
        for operation in task.operations.iter().filter(|id| only.is_none_or(|only| only == **id)) {
            if let Some(operation) = self.operations.get(operation) {
                self.queue.insert(&operation.account, class, operation.place);
            }
        }
        let Some(waiting) = self.queue.classes.get_mut(&class) else { return };
        waiting.queued.insert(id);
        self.queue.open.insert(class);
    }

    /// Has a task no longer wait.
    pub(super) fn dequeue(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else { return };
        for operation in task.operations.iter().filter_map(|id| self.operations.get(id)) {
            self.queue.remove(&operation.account, task.class, operation.place);
        }
        let class = task.class;
        let Some(waiting) = self.queue.classes.get_mut(&class) else { return };
        waiting.queued.remove(&id);
        if waiting.queued.is_empty() {
            self.queue.open.remove(&class);
            self.unreserve(class);
        }
    }

    fn attach(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        if let Some(since_ms) = operation.detached_since_ms.take() {
            self.detached.remove(&(since_ms, id));
        }
    }

    fn detach(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        if operation.detached_since_ms.is_none() {
            operation.detached_since_ms = Some(self.now_ms);
            self.detached.insert((self.now_ms, id));
        }
    }

    /// Ends one operation. Its task goes on while others want it.
    pub(super) fn end_operation(&mut self, id: OperationId, ending: Ending) {
        let Some(operation) = self.operations.remove(&id) else { return };
        if let Some(since_ms) = operation.detached_since_ms {
            self.detached.remove(&(since_ms, id));
        }
        self.decisions.push(Decision::Ended { operation: id, ending });
        let Some(task) = self.tasks.get_mut(&operation.task) else { return };
        task.operations.remove(&id);
        let (class, lease, alone) = (task.class, task.lease, task.operations.is_empty());
        if lease.is_none() {
            self.queue.remove(&operation.account, class, operation.place);
        }
        if alone {
            self.end_task(operation.task, &Ending::Cancelled);
        } else if let Some(lease) = lease {
            self.pass_charge(lease, &operation.account);
        }
    }

    /// Ends a task, and all that wait for it. A worker that has it is told to stop.
    pub(super) fn end_task(&mut self, id: TaskId, ending: &Ending) {
        if let Some(lease) = self.tasks.get(&id).and_then(|task| task.lease) {
            self.revoke(lease);
        }
        self.dequeue(id);
        let Some(task) = self.tasks.remove(&id) else { return };
        if task.merged {
            self.merging.remove(&task.action);
        }
        for operation in &task.operations {
            if let Some(operation) = self.operations.remove(operation)
                && let Some(since_ms) = operation.detached_since_ms
            {
                self.detached.remove(&(since_ms, operation.place.operation));
            }
            let (operation, ending) = (*operation, ending.clone());
            self.decisions.push(Decision::Ended { operation, ending });
        }
        if let Some(class) = self.queue.classes.get_mut(&task.class) {
            class.tasks -= 1;
            if class.tasks == 0 {
                self.queue.remove_class(task.class);
            }
        }
    }

    /// Has another of a task's operations pay, now that one has left.
    fn pass_charge(&mut self, lease: LeaseId, from: &Account) {
        let Some(lease) = self.leases.get_mut(&lease) else { return };
        let Some(task) = self.tasks.get(&lease.task) else { return };
        let payers = || task.operations.iter().filter_map(|id| self.operations.get(id));
        if lease.account != *from || payers().any(|operation| operation.account == *from) {
            return;
        }
        if let Some(operation) = payers().next() {
            let usage = Usage::of(&lease.taken);
            self.queue.discharge(from, usage);
            self.queue.charge(&operation.account, usage);
            lease.account = operation.account.clone();
        }
    }

    /// The name of a tenant with what it uses, for those who watch.
    pub fn tenants(&self) -> impl Iterator<Item = (Arc<str>, usize, u64)> {
        let share = |used: Usage| used.dominant_share(self.offered);
        self.queue
            .tenants()
            .map(move |(name, queued, used)| (Arc::clone(name), queued, share(used)))
    }
}
