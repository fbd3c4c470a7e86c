//! What time does to the state.

use super::decision::{Decision, Ending};
use super::reasons::Rejection;
use super::state::Scheduler;
use super::{ExecutionId, LeaseId, OperationId, WorkerId};
use crate::limits;

impl Scheduler {
    pub(super) fn tick(&mut self) {
        self.excuse_silence();
        self.lose_silent_workers();
        self.lose_silent_leases();
        self.end_overrun();
        self.end_abandoned();
        self.reject_unserved();
        self.wake_rested();
    }

    /// Where no tick came for so long that leases would be lost, it is the server that slept: what
    /// workers have said meanwhile is still to be read.
    fn excuse_silence(&mut self) {
        let slept = self.now_ms.saturating_sub(self.ticked_ms) >= limits::LEASE_MS;
        self.ticked_ms = self.now_ms;
        if slept {
            self.workers.values_mut().for_each(|worker| worker.heard_ms = self.now_ms);
            self.leases.values_mut().for_each(|lease| lease.heard_ms = self.now_ms);
        }
    }

    fn lose_silent_workers(&mut self) {
        let silent = |heard_ms: u64| self.now_ms.saturating_sub(heard_ms) >= limits::LEASE_MS;
        let lost = self.workers.iter().filter(|(_, worker)| silent(worker.heard_ms));
        let lost: Vec<WorkerId> = lost.map(|(id, _)| *id).collect();
        for worker in lost {
            self.lose_worker(worker);
        }
    }

    /// A worker that is heard of, but does not name a lease, never got it or has forgotten it.
    fn lose_silent_leases(&mut self) {
        let silent = |heard_ms: u64| self.now_ms.saturating_sub(heard_ms) >= limits::LEASE_MS;
        let lost = self.leases.iter().filter(|(_, lease)| silent(lease.heard_ms));
        let lost: Vec<(LeaseId, WorkerId)> = lost.map(|(id, lease)| (*id, lease.worker)).collect();
        for (lease, worker) in lost {
            self.decisions.push(Decision::Revoked { lease, worker });
            self.lose_lease(lease);
        }
    }

    fn end_overrun(&mut self) {
        let overrun = self.leases.values().filter(|lease| lease.deadline_ms <= self.now_ms);
        let overrun: Vec<ExecutionId> = overrun.map(|lease| lease.execution).collect();
        for execution in overrun {
            self.end_execution(execution, &Ending::Overran);
        }
    }

    fn end_abandoned(&mut self) {
        let Some(before_ms) = self.now_ms.checked_sub(limits::ABANDONED_MS) else { return };
        let past = self.detached.iter().take_while(|(since_ms, _)| *since_ms <= before_ms);
        let past: Vec<OperationId> = past.map(|(_, id)| *id).collect();
        for operation in past {
            self.end_operation(operation, Ending::Cancelled);
        }
    }

    fn reject_unserved(&mut self) {
        let over = |since_ms: u64| self.now_ms.saturating_sub(since_ms) >= limits::UNSERVED_MS_MAX;
        let unserved =
            self.queue.classes.values().filter(|class| {
                class.unserved_since_ms.is_some_and(over) && !class.queued.is_empty()
            });
        let offers = || {
            let workers = self.workers.values().filter(|worker| !worker.draining);
            workers.map(|worker| &worker.offer)
        };
        let rejected: Vec<(ExecutionId, Ending)> = unserved
            .flat_map(|class| {
                let rejection = Rejection::unserved(&class.requirements, offers());
                let ending = Ending::Rejected(rejection);
                class.queued.iter().map(move |execution| (*execution, ending.clone()))
            })
            .collect();
        for (execution, ending) in rejected {
            self.end_execution(execution, &ending);
        }
    }

    /// Workers that have rested take executions again.
    fn wake_rested(&mut self) {
        let rested = |until_ms: u64| until_ms != 0 && until_ms <= self.now_ms;
        let woken = self.workers.iter().filter(|(_, worker)| rested(worker.rests_until_ms));
        let woken: Vec<WorkerId> = woken.map(|(id, _)| *id).collect();
        for id in woken {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.rests_until_ms = 0;
            }
            self.reopen(id);
        }
    }
}
