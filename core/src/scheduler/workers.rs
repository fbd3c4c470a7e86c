//! What workers do to the state.

use std::collections::BTreeSet;

use super::command::Outcome;
use super::decision::{Decision, Ending, Stage};
use super::queue::ClassId;
use super::requirements::Offer;
use super::room::{Room, Usage};
use super::state::{Lease, Scheduler, Worker};
use super::{LeaseId, WorkerId};
use crate::limits;

impl Scheduler {
    pub(super) fn join(
        &mut self,
        id: WorkerId,
        offer: Offer,
        models: BTreeSet<String>,
        holds: &BTreeSet<LeaseId>,
    ) {
        let same = self.workers.get(&id).map(|known| known.offer == offer);
        if same == Some(true) {
            self.heartbeat(id, holds, models);
            return self.requeue_dropped(id, holds);
        }
        self.lose_worker(id);
        for lease in holds {
            self.decisions.push(Decision::Revoked { lease: *lease, worker: id });
        }
        if self.workers.len() >= limits::WORKERS_MAX {
            return self.decisions.push(Decision::Dismissed { worker: id });
        }
        let room = limits::KNOWN_PROPERTIES_MAX.saturating_sub(self.known_properties.len());
        self.known_properties.extend(offer.properties.keys().take(room).cloned());
        self.offered.add(Usage::offered(&offer));
        for (class_id, class) in &mut self.queue.classes {
            if offer.lacks(&class.requirements).is_none() {
                class.eligible.insert(id);
                class.unserved_since_ms = None;
                if !class.queued.is_empty() {
                    self.queue.open.insert(*class_id);
                }
            }
        }
        let worker = Worker {
            room: Room::of(&offer),
            offer,
            models,
            leases: BTreeSet::new(),
            heard_ms: self.now_ms,
            draining: false,
            reserved: None,
            faults: 0,
            rests_until_ms: 0,
        };
        self.workers.insert(id, worker);
    }

    pub(super) fn heartbeat(
        &mut self,
        id: WorkerId,
        holds: &BTreeSet<LeaseId>,
        models: BTreeSet<String>,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return self.decisions.push(Decision::Dismissed { worker: id });
        };
        worker.heard_ms = self.now_ms;
        worker.models = models;
        for lease in holds {
            match self.leases.get_mut(lease) {
                Some(known) if known.worker == id => known.heard_ms = self.now_ms,
                _ => self.decisions.push(Decision::Revoked { lease: *lease, worker: id }),
            }
        }
    }

    /// A worker that has come back says all that it holds: what it does not name is lost.
    fn requeue_dropped(&mut self, id: WorkerId, holds: &BTreeSet<LeaseId>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let dropped: Vec<LeaseId> = worker.leases.difference(holds).copied().collect();
        for lease in dropped {
            self.lose_lease(lease);
        }
    }

    pub(super) fn drain(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return self.decisions.push(Decision::Dismissed { worker: id });
        };
        if !worker.draining {
            worker.draining = true;
            self.withdraw(id);
        }
        self.tell_drained(id);
    }

    /// A worker is gone: what it had is queued again.
    pub(super) fn lose_worker(&mut self, id: WorkerId) {
        self.withdraw(id);
        let Some(worker) = self.workers.remove(&id) else { return };
        self.offered.remove(Usage::offered(&worker.offer));
        for lease in worker.leases {
            self.lose_lease(lease);
        }
    }

    /// A worker takes nothing new.
    fn withdraw(&mut self, id: WorkerId) {
        let reserved = self.workers.get(&id).and_then(|worker| worker.reserved);
        if let Some(class) = reserved {
            self.unreserve(class);
        }
        for class in self.queue.classes.values_mut() {
            if class.eligible.remove(&id) && class.eligible.is_empty() {
                class.unserved_since_ms = Some(self.now_ms);
            }
        }
    }

    fn tell_drained(&mut self, id: WorkerId) {
        let idle = |worker: &Worker| worker.draining && worker.leases.is_empty();
        if self.workers.get(&id).is_some_and(idle) {
            self.decisions.push(Decision::Drained { worker: id });
        }
    }

    pub(super) fn finished(&mut self, id: WorkerId, lease: LeaseId, outcome: Outcome) {
        let known = self.leases.get(&lease).filter(|known| known.worker == id);
        let Some(execution) = known.map(|lease| lease.execution) else { return };
        match outcome {
            Outcome::Result => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.faults = 0;
                }
                self.release(lease);
                self.end_execution(execution, &Ending::Result(lease));
            }
            Outcome::Fault => {
                self.rest(id);
                self.lose_lease(lease);
            }
        }
    }

    /// Has a worker that is at fault rest for a while, twice as long each time, so that it does not
    /// draw in all executions to fail them.
    fn rest(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.faults = worker.faults.saturating_add(1);
        let doubled = limits::WORKER_REST_MS << (worker.faults - 1).min(16);
        worker.rests_until_ms = self.now_ms + doubled.min(limits::WORKER_REST_MS_MAX);
    }

    /// An attempt came to nothing: its execution is queued again, or ends where it was the last
    /// try.
    pub(super) fn lose_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.release(id) else { return };
        let Some(execution) = self.executions.get_mut(&lease.execution) else { return };
        execution.failed_on.insert(lease.worker);
        if execution.attempts >= limits::ATTEMPTS_MAX {
            let ending = Ending::Faulted { attempts: execution.attempts };
            return self.end_execution(lease.execution, &ending);
        }
        for operation in &execution.operations {
            let (operation, stage) = (*operation, Stage::Queued);
            self.decisions.push(Decision::Staged { operation, stage });
        }
        self.enqueue(lease.execution, None);
    }

    /// Takes a lease from a worker that may still work on it.
    pub(super) fn revoke(&mut self, id: LeaseId) {
        if let Some(lease) = self.release(id) {
            self.decisions.push(Decision::Revoked { lease: id, worker: lease.worker });
        }
    }

    /// Ends a lease: the worker has its room again, and the payer is charged no longer.
    fn release(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        if let Some(execution) = self.executions.get_mut(&lease.execution) {
            execution.lease = None;
        }
        self.queue.discharge(&lease.account, Usage::of(&lease.taken));
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.leases.remove(&id);
            worker.room.give_back(&lease.taken);
        }
        self.reopen(lease.worker);
        self.tell_drained(lease.worker);
        Some(lease)
    }

    /// Opens the classes that a worker has room for.
    pub(super) fn reopen(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let waits = self.queue.classes.iter().filter(|(_, class)| !class.queued.is_empty());
        let fit = |class: &ClassId, requirements: &super::Requirements| {
            worker.takes(*class, self.now_ms) && worker.room.fit(&requirements.demand).is_some()
        };
        let opened: Vec<ClassId> = waits
            .filter(|(_, class)| class.eligible.contains(&id))
            .filter(|(class_id, class)| fit(class_id, &class.requirements))
            .map(|(class_id, _)| *class_id)
            .collect();
        self.queue.open.extend(opened);
    }

    /// Gives the worker that is reserved for a class back to all.
    pub(super) fn unreserve(&mut self, class: ClassId) {
        let reserved = self.queue.classes.get_mut(&class).and_then(|class| class.reserved.take());
        let Some(id) = reserved else { return };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reserved = None;
        }
        self.reopen(id);
    }
}

impl Worker {
    /// Whether executions of a class may be put on it at all, now.
    pub(super) fn takes(&self, class: ClassId, now_ms: u64) -> bool {
        !self.draining
            && self.rests_until_ms <= now_ms
            && self.leases.len() < limits::WORKER_LEASES_MAX
            && self.reserved.is_none_or(|reserved| reserved == class)
    }
}
