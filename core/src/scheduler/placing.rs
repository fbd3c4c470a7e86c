//! Executions find workers.

use super::decision::{Assignment, Decision, Stage};
use super::queue::ClassId;
use super::room::{Taken, Usage};
use super::state::{Execution, Lease, Scheduler, Worker};
use super::{ExecutionId, LeaseId, OperationId, WorkerId};
use crate::limits;

impl Scheduler {
    /// Starts all executions for which there is room, those with the best right first.
    pub(super) fn place(&mut self) {
        while !self.queue.open.is_empty() {
            let Some((mut class, mut operation)) = self.queue.first(self.offered, |_| true) else {
                return;
            };
            if !self.queue.open.contains(&class) {
                self.reserve(class, operation);
                let open = |class| self.queue.open.contains(&class);
                let Some(first) = self.queue.first(self.offered, open) else { return };
                (class, operation) = first;
            }
            let Some(execution) =
                self.operations.get(&operation).map(|operation| operation.execution)
            else {
                return;
            };
            match self.best_worker(execution) {
                Some((worker, taken)) => self.assign(execution, operation, worker, taken),
                None => {
                    self.queue.open.remove(&class);
                }
            }
        }
    }

    /// Reserves a worker for the operation with the best right, which cannot be placed while others
    /// are about to pass it, if it has waited for long.
    fn reserve(&mut self, class_id: ClassId, operation: OperationId) {
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

    /// The worker that suits an execution best, of those that have room for it now: one that has
    /// its model loaded, where it has not failed yet, without devices that it does not need, and
    /// with the least room left.
    fn best_worker(&self, id: ExecutionId) -> Option<(WorkerId, Taken)> {
        let execution = self.executions.get(&id)?;
        let class = self.queue.classes.get(&execution.class)?;
        let demand = &class.requirements.demand;
        let candidates = class.eligible.iter().filter_map(|id| {
            let worker = self.workers.get(id)?;
            let taken =
                worker.takes(execution.class, self.now_ms).then(|| worker.room.fit(demand))?;
            Some((*id, worker, taken?))
        });
        let model = class.requirements.model.as_deref();
        let best =
            candidates.min_by_key(|(id, worker, _)| Self::fitness(execution, model, *id, worker));
        best.map(|(id, _, taken)| (id, taken))
    }

    fn fitness(
        execution: &Execution,
        model: Option<&str>,
        id: WorkerId,
        worker: &Worker,
    ) -> (bool, bool, bool, usize, u64, u64, WorkerId) {
        let cold = model.is_some_and(|model| !worker.models.contains(model));
        let reserved = worker.reserved.is_some();
        let failed = execution.failed_on.contains(&id);
        let room = &worker.room;
        let devices = worker.offer.gpus.len();
        (failed, cold, !reserved, devices, room.cpu_milli, room.memory_bytes, id)
    }

    fn assign(&mut self, id: ExecutionId, payer: OperationId, worker_id: WorkerId, taken: Taken) {
        self.dequeue(id);
        let Some(account) = self.operations.get(&payer).map(|payer| payer.account.clone()) else {
            return;
        };
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let Some(worker) = self.workers.get_mut(&worker_id) else { return };
        let lease_id = LeaseId(self.next_lease);
        self.next_lease += 1;
        self.queue.charge(&account, Usage::of(&taken));
        worker.room.take(&taken);
        worker.leases.insert(lease_id);
        execution.lease = Some(lease_id);
        self.decisions.push(Decision::Assigned(Assignment {
            lease: lease_id,
            worker: worker_id,
            execution: id,
            action: execution.action.clone(),
            gpus: taken.devices(),
            attempts_before: execution.attempts,
        }));
        execution.attempts += 1;
        for operation in &execution.operations {
            let (operation, stage) = (*operation, Stage::Executing);
            self.decisions.push(Decision::Staged { operation, stage });
        }
        let time_ms = execution.timeout_ms.saturating_add(limits::LEASE_TRANSFER_MS_MAX);
        let deadline_ms = self.now_ms.saturating_add(time_ms);
        let heard_ms = self.now_ms;
        let lease =
            Lease { execution: id, worker: worker_id, taken, account, heard_ms, deadline_ms };
        let class = execution.class;
        self.leases.insert(lease_id, lease);
        self.unreserve(class);
    }
}
