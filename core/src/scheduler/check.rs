//! What always holds between two commands; see [`Scheduler::check`].

use super::room::{Room, Usage};
use super::state::Scheduler;

impl Scheduler {
    /// Looks whether the state hangs together; costs as much as the state is large, and is meant
    /// for tests.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        self.check_operations()?;
        self.check_leases()?;
        self.check_workers()?;
        self.check_classes()
    }

    /// Each operation has an execution that knows it, and waits exactly where the execution has no
    /// lease.
    fn check_operations(&self) -> Result<(), String> {
        for (id, operation) in &self.operations {
            let execution = self.executions.get(&operation.execution);
            ensure(execution.is_some_and(|execution| execution.operations.contains(id)), || {
                format!("operation {id} is not one of its execution's")
            })?;
        }
        for (id, execution) in &self.executions {
            ensure(!execution.operations.is_empty(), || {
                format!("nobody waits for execution {id}")
            })?;
            let class = self.queue.classes.get(&execution.class);
            let queued = class.is_some_and(|class| class.queued.contains(id));
            ensure(queued != execution.lease.is_some(), || {
                format!("execution {id} is queued: {queued}, leased: {:?}", execution.lease)
            })?;
        }
        let queued = self.executions.values().filter(|execution| execution.lease.is_none());
        let waiting: usize = queued.map(|execution| execution.operations.len()).sum();
        ensure(waiting == self.queue.len(), || {
            format!("{waiting} operations wait, and {} stand in the queue", self.queue.len())
        })
    }

    /// Each lease is that of its execution, and of its worker; what is charged is what is taken.
    fn check_leases(&self) -> Result<(), String> {
        let mut used = Usage::default();
        for (id, lease) in &self.leases {
            let execution = self.executions.get(&lease.execution);
            ensure(execution.is_some_and(|execution| execution.lease == Some(*id)), || {
                format!("lease {id} is not that of execution {}", lease.execution)
            })?;
            let worker = self.workers.get(&lease.worker);
            ensure(worker.is_some_and(|worker| worker.leases.contains(id)), || {
                format!("lease {id} is not one of worker {}", lease.worker)
            })?;
            used.add(Usage::of(&lease.taken));
        }
        let charged = self.queue.used();
        ensure(used == charged, || format!("{used:?} is used, and {charged:?} charged"))
    }

    /// The room of each worker is what its leases leave of its offer.
    fn check_workers(&self) -> Result<(), String> {
        for (id, worker) in &self.workers {
            let mut room = Room::of(&worker.offer);
            for lease in &worker.leases {
                let lease = self.leases.get(lease);
                let lease = lease.ok_or_else(|| format!("worker {id} has a lease that is none"))?;
                room.take(&lease.taken);
            }
            ensure(room == worker.room, || format!("worker {id} has lost room: {worker:?}"))?;
            let reserved = worker.reserved.map(|class| self.queue.classes.get(&class));
            ensure(
                reserved.is_none_or(|class| class.is_some_and(|c| c.reserved == Some(*id))),
                || format!("worker {id} is reserved for a class that does not know"),
            )?;
        }
        Ok(())
    }

    /// No execution waits for which there is room.
    fn check_classes(&self) -> Result<(), String> {
        ensure(self.queue.open.is_empty(), || "a class is open after all was placed".to_owned())?;
        for (id, class) in &self.queue.classes {
            let executions =
                self.executions.values().filter(|execution| execution.class == *id).count();
            ensure(executions == class.executions && executions > 0, || {
                format!("class {id:?} counts {} executions of {executions}", class.executions)
            })?;
            let unserved = class.eligible.is_empty();
            ensure(unserved == class.unserved_since_ms.is_some(), || {
                format!("class {id:?} is unserved: {unserved}")
            })?;
            for (worker_id, worker) in &self.workers {
                let lacks = worker.offer.lacks(&class.requirements).is_some();
                let eligible = class.eligible.contains(worker_id);
                ensure(eligible == (!lacks && !worker.draining), || {
                    format!("worker {worker_id} is eligible for class {id:?}: {eligible}")
                })?;
                let fits = worker.room.fit(&class.requirements.demand).is_some();
                let idle = eligible && fits && worker.takes(*id, self.now_ms);
                ensure(!idle || class.queued.is_empty() || self.woken_late(worker), || {
                    format!("class {id:?} waits, and worker {worker_id} has room")
                })?;
            }
        }
        Ok(())
    }

    /// A worker whose rest is over takes executions from the next tick on.
    fn woken_late(&self, worker: &super::state::Worker) -> bool {
        worker.rests_until_ms != 0
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
