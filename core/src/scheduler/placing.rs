//! Tasks find workers.

use std::cmp::Reverse;

use super::decision::{Assignment, Decision, Stage};
use super::queue::ClassId;
use super::room::{Taken, Usage};
use super::state::{Lease, Scheduler, Task, Worker};
use super::{LeaseId, OperationId, TaskId, WorkerId};
use crate::limits;

impl Scheduler {
    /// Starts all tasks for which there is room, those with the best right first.
    pub(super) fn place(&mut self) {
        while !self.queue.open.is_empty() {
            self.reserve_for_the_first();
            let open = |class: ClassId| self.queue.open.contains(&class);
            let Some((class, operation)) = self.queue.first(self.offered, open) else { return };
            let Some(task) = self.operations.get(&operation).map(|operation| operation.task) else {
                return;
            };
            match self.best_worker(task) {
                Some((worker, taken)) => self.assign(task, operation, worker, taken),
                None => {
                    self.queue.open.remove(&class);
                }
            }
        }
    }

    /// Reserves a worker where the operation with the best right has waited for long, cannot be
    /// placed, and others are about to pass it.
    fn reserve_for_the_first(&mut self) {
        let all = |_: ClassId| true;
        let Some((class_id, operation)) = self.queue.first(self.offered, all) else { return };
        if self.queue.open.contains(&class_id) {
            return;
        }
        let since_ms = self.operations.get(&operation).map_or(0, |operation| operation.since_ms);
        let Some(class) = self.queue.classes.get(&class_id) else { return };
        let waited = self.now_ms.saturating_sub(since_ms) >= limits::RESERVE_AFTER_MS;
        if !waited || class.reserved.is_some() {
            return;
        }
        let free = |worker: &(WorkerId, &Worker)| worker.1.reserved.is_none();
        let eligible = class.eligible.iter().filter_map(|id| Some((*id, self.workers.get(id)?)));
        let demand = &class.requirements.demand;
        let nearest = eligible.filter(free).min_by_key(|(id, worker)| {
            (worker.rests_until_ms > self.now_ms, worker.room.shortfall(demand), *id)
        });
        let Some((worker, _)) = nearest else { return };
        if let Some(class) = self.queue.classes.get_mut(&class_id) {
            class.reserved = Some(worker);
        }
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.reserved = Some(class_id);
        }
    }

    /// The worker that suits a task best, of those that have room for it now: one that has its
    /// model loaded, where it has not failed yet, without devices that it does not need, and with
    /// the least room left.
    fn best_worker(&self, id: TaskId) -> Option<(WorkerId, Taken)> {
        let task = self.tasks.get(&id)?;
        let class = self.queue.classes.get(&task.class)?;
        let demand = &class.requirements.demand;
        let candidates = class.eligible.iter().filter_map(|id| {
            let worker = self.workers.get(id)?;
            let taken = worker.takes(task.class, self.now_ms).then(|| worker.room.fit(demand))?;
            Some((*id, worker, taken?))
        });
        let model = class.requirements.model.as_deref();
        let best = candidates.min_by_key(|(id, worker, _)| Self::fitness(task, model, *id, worker));
        best.map(|(id, _, taken)| (id, taken))
    }

    fn fitness(
        task: &Task,
        model: Option<&str>,
        id: WorkerId,
        worker: &Worker,
    ) -> (bool, Reverse<bool>, bool, usize, u64, u64, WorkerId) {
        let warm = model.is_none_or(|model| worker.models.contains(model));
        let reserved = worker.reserved.is_some();
        let failed = task.failed_on.contains(&id);
        let room = &worker.room;
        let devices = worker.offer.gpus.len();
        (failed, Reverse(warm), !reserved, devices, room.cpu_milli, room.memory_bytes, id)
    }

    fn assign(&mut self, id: TaskId, payer: OperationId, worker_id: WorkerId, taken: Taken) {
        self.dequeue(id);
        let Some(account) = self.operations.get(&payer).map(|payer| payer.account.clone()) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        let lease_id = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.queue.charge(&account, Usage::of(&taken));
        worker.room.take(&taken);
        worker.leases.insert(lease_id);
        task.lease = Some(lease_id);
        self.decisions.push(Decision::Assigned(Assignment {
            lease: lease_id,
            worker: worker_id,
            task: id,
            action: task.action.clone(),
            gpus: taken.devices(),
            attempts_before: task.attempts,
        }));
        task.attempts += 1;
        for operation in &task.operations {
            let (operation, stage) = (*operation, Stage::Executing);
            self.decisions.push(Decision::Staged { operation, stage });
        }
        let time_ms = task.timeout_ms.saturating_add(limits::LEASE_TRANSFER_MS_MAX);
        let deadline_ms = self.now_ms.saturating_add(time_ms);
        let heard_ms = self.now_ms;
        let lease = Lease { task: id, worker: worker_id, taken, account, heard_ms, deadline_ms };
        let class = task.class;
        self.leases.insert(lease_id, lease);
        if self.workers.get(&worker_id).is_some_and(|worker| worker.reserved == Some(class)) {
            self.unreserve(class);
        }
    }
}
