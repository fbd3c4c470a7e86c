//! The state, and what clients do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::{Action, Command, Submission};
use super::decision::{Decision, Ending, Stage};
use super::queue::{Account, ClassId, Place, Queue};
use super::reasons::Rejection;
use super::requirements::{Offer, Requirements};
use super::room::{Room, Taken, Usage};
use super::{ExecutionId, LeaseId, OperationId, WorkerId};
use crate::limits;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) execution: ExecutionId,
    pub(super) account: Account,
    pub(super) place: Place,
    pub(super) since_ms: u64,
    pub(super) detached_since_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Execution {
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
    pub(super) execution: ExecutionId,
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
    pub(super) executions: BTreeMap<ExecutionId, Execution>,
    pub(super) merging: BTreeMap<Action, ExecutionId>,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) queue: Queue,
    pub(super) offered: Usage,
    pub(super) known_properties: BTreeSet<String>,
    /// Number of operations of each tenant that have not ended.
    operations_of: BTreeMap<Arc<str>, usize>,
    pub(super) detached: BTreeSet<(u64, OperationId)>,
    pub(super) ticked_ms: u64,
    pub(super) decisions: Vec<Decision>,
    next_execution: u64,
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
            executions: BTreeMap::new(),
            merging: BTreeMap::new(),
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            queue: Queue::default(),
            offered: Usage::default(),
            known_properties: BTreeSet::new(),
            operations_of: BTreeMap::new(),
            detached: BTreeSet::new(),
            ticked_ms: 0,
            decisions: Vec::new(),
            next_execution: 0,
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
        let execution = self.executions.get(&self.operations.get(&operation)?.execution)?;
        Some(if execution.lease.is_some() { Stage::Executing } else { Stage::Queued })
    }

    /// The actions that have not ended, whose inputs have to stay.
    pub fn held(&self) -> impl Iterator<Item = &Action> {
        self.executions.values().map(|execution| &execution.action)
    }

    /// Whether a lease is alive: what its worker says of it counts.
    pub fn has_lease(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Whether a worker is known: it has joined, and was neither lost nor has it left.
    pub fn has_worker(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker)
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
        let execution = running.unwrap_or_else(|| self.add_execution(&submission));
        self.add_operation(submission, execution);
    }

    fn admit(&self, submission: &Submission) -> Result<(), Rejection> {
        let too_many = |limit, of_tenant| Err(Rejection::TooManyOperations { limit, of_tenant });
        if self.operations.len() >= limits::OPERATIONS_MAX {
            return too_many(limits::OPERATIONS_MAX, false);
        }
        let of_tenant = self.operations_of.get(&submission.tenant).copied().unwrap_or(0);
        if of_tenant >= limits::TENANT_OPERATIONS_MAX {
            return too_many(limits::TENANT_OPERATIONS_MAX, true);
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

    fn add_execution(&mut self, submission: &Submission) -> ExecutionId {
        self.next_execution += 1;
        let id = ExecutionId(self.next_execution);
        let class = self.class_for(&submission.requirements);
        if let Some(class) = self.queue.classes.get_mut(&class) {
            class.executions += 1;
        }
        if submission.merge {
            self.merging.insert(submission.action.clone(), id);
        }
        let execution = Execution {
            action: submission.action.clone(),
            class,
            operations: BTreeSet::new(),
            lease: None,
            attempts: 0,
            timeout_ms: submission.timeout_ms,
            merged: submission.merge,
            failed_on: BTreeSet::new(),
        };
        self.executions.insert(id, execution);
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

    fn add_operation(&mut self, submission: Submission, execution: ExecutionId) {
        self.next_age += 1;
        let id = submission.operation;
        let operation = Operation {
            execution,
            account: Account { tenant: submission.tenant, invocation: submission.invocation },
            place: Place { priority: submission.priority, age: self.next_age, operation: id },
            since_ms: self.now_ms,
            detached_since_ms: None,
        };
        *self.operations_of.entry(Arc::clone(&operation.account.tenant)).or_default() += 1;
        self.operations.insert(id, operation);
        if let Some(execution) = self.executions.get_mut(&execution) {
            execution.operations.insert(id);
        }
        let stage = self.stage(id).unwrap_or(Stage::Queued);
        self.decisions.push(Decision::Staged { operation: id, stage });
        if stage == Stage::Queued {
            self.enqueue(execution, Some(id));
        }
    }

    /// Has an execution wait: all its operations, or the one that came last.
    pub(super) fn enqueue(&mut self, id: ExecutionId, only: Option<OperationId>) {
        let Some(execution) = self.executions.get(&id) else { return };
        let class = execution.class;
        for operation in
            execution.operations.iter().filter(|id| only.is_none_or(|only| only == **id))
        {
            if let Some(operation) = self.operations.get(operation) {
                self.queue.insert(&operation.account, class, operation.place);
            }
        }
        let Some(waiting) = self.queue.classes.get_mut(&class) else { return };
        if waiting.queued.is_empty() {
            // Otherwise the class is open already, or closed for this one as for the others.
            self.queue.open.insert(class);
            waiting.unserved_since_ms = waiting.eligible.is_empty().then_some(self.now_ms);
        }
        waiting.queued.insert(id);
    }

    /// Has an execution no longer wait.
    pub(super) fn dequeue(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.get(&id) else { return };
        for operation in execution.operations.iter().filter_map(|id| self.operations.get(id)) {
            self.queue.remove(&operation.account, execution.class, operation.place);
        }
        let class = execution.class;
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

    /// Ends one operation. Its execution goes on while others want it.
    pub(super) fn end_operation(&mut self, id: OperationId, ending: Ending) {
        let Some(operation) = self.forget(id) else { return };
        self.decisions.push(Decision::Ended { operation: id, ending });
        let Some(execution) = self.executions.get_mut(&operation.execution) else { return };
        execution.operations.remove(&id);
        let (class, lease, alone) =
            (execution.class, execution.lease, execution.operations.is_empty());
        if lease.is_none() {
            self.queue.remove(&operation.account, class, operation.place);
        }
        if alone {
            self.end_execution(operation.execution, &Ending::Cancelled);
        } else if let Some(lease) = lease {
            self.pass_charge(lease, &operation.account);
        }
    }

    fn forget(&mut self, id: OperationId) -> Option<Operation> {
        let operation = self.operations.remove(&id)?;
        if let Some(since_ms) = operation.detached_since_ms {
            self.detached.remove(&(since_ms, id));
        }
        let tenant = &operation.account.tenant;
        if let Some(count) = self.operations_of.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                self.operations_of.remove(tenant);
            }
        }
        Some(operation)
    }

    /// Ends an execution, and all that wait for it. A worker that has it is told to stop.
    pub(super) fn end_execution(&mut self, id: ExecutionId, ending: &Ending) {
        if let Some(lease) = self.executions.get(&id).and_then(|execution| execution.lease) {
            self.revoke(lease);
        }
        self.dequeue(id);
        let Some(execution) = self.executions.remove(&id) else { return };
        if execution.merged {
            self.merging.remove(&execution.action);
        }
        for operation in execution.operations {
            self.forget(operation);
            self.decisions.push(Decision::Ended { operation, ending: ending.clone() });
        }
        if let Some(class) = self.queue.classes.get_mut(&execution.class) {
            class.executions -= 1;
            if class.executions == 0 {
                self.queue.remove_class(execution.class);
            }
        }
    }

    /// Has another of an execution's operations pay, now that one has left.
    fn pass_charge(&mut self, lease: LeaseId, from: &Account) {
        let Some(lease) = self.leases.get_mut(&lease) else { return };
        let Some(execution) = self.executions.get(&lease.execution) else { return };
        let payers = || execution.operations.iter().filter_map(|id| self.operations.get(id));
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
}
