//! How gates open, close again, and hold what stands behind them.

use super::approval::{Approval, Principal};
use super::plan::{StepIndex, StepKind};
use super::state::{Phase, RunState, TaskStatus};
use super::task::TaskId;

type Applied = Result<(), String>;

impl RunState {
    /// The gates before a step that have not let pass, or do so no more.
    pub(super) fn closed_gates(&self, step: StepIndex) -> Vec<StepIndex> {
        let closed = |guard: &StepIndex| {
            let is_gate =
                self.plan().step(*guard).is_some_and(|s| matches!(s.kind, StepKind::Gate(_)));
            is_gate && self.steps.get(guard.index()).is_some_and(|s| s.verdict().is_none())
        };
        self.guards(step).iter().copied().filter(closed).collect()
    }

    pub(super) fn give(&mut self, task: TaskId, approval: &Approval) -> Applied {
        let unexpected = self.unexpected(task);
        let gate = self.gates.get_mut(&task).ok_or(unexpected)?;
        gate.revoked.remove(&approval.by.to_string());
        gate.given.insert(approval.by.to_string(), approval.clone());
        Ok(())
    }

    pub(super) fn revoke(&mut self, task: TaskId, by: &Principal) -> Applied {
        let unexpected = self.unexpected(task);
        let gate = self.gates.get_mut(&task).ok_or(unexpected)?;
        if let Some((name, approval)) = gate.given.remove_entry(&by.to_string()) {
            gate.revoked.insert(name, approval);
        }
        if gate.open {
            gate.open = false;
            self.reopen_gate(task, TaskStatus::Asked);
        }
        Ok(())
    }

    pub(super) fn want(&mut self, task: TaskId, approvals: u32) -> Applied {
        let unexpected = self.unexpected(task);
        match self.gates.get_mut(&task) {
            Some(gate) if gate.open => (gate.open, gate.wanted) = (false, approvals),
            _ => return Err(unexpected),
        }
        self.reopen_gate(task, TaskStatus::Asked);
        Ok(())
    }

    pub(super) fn void(&mut self, task: TaskId) -> Applied {
        let unexpected = self.unexpected(task);
        let gate = self.gates.remove(&task).ok_or(unexpected)?;
        if gate.open {
            self.reopen_gate(task, TaskStatus::Ready);
        } else {
            self.set(task, TaskStatus::Ready);
        }
        Ok(())
    }

    pub(super) fn void_guards_of(&mut self, step: StepIndex) -> Applied {
        for guard in self.edges.guards.get(step.index()).cloned().unwrap_or_default() {
            let task = TaskId::first(guard);
            if self.gates.get(&task).is_some_and(|gate| gate.open) {
                self.void(task)?;
            }
        }
        Ok(())
    }

    /// A gate that had let pass asks again; effects that have not begun are held.
    pub(super) fn reopen_gate(&mut self, task: TaskId, status: TaskStatus) {
        let step = task.step;
        self.set(task, status);
        let state = &mut self.steps[step.index()];
        (state.phase, state.open, state.worst) = (Phase::Open, 1, None);
        self.left = self.left.saturating_add(1);
        self.flow_open = self.flow_open.saturating_add(u32::from(self.is_flow(step)));
        for dependent in self.edges.dependents[step.index()].clone() {
            let state = &mut self.steps[dependent.index()];
            if state.phase == Phase::Waiting {
                state.waits = state.waits.saturating_add(1);
            }
        }
        let startable: Vec<TaskId> = self
            .sets
            .ready
            .iter()
            .copied()
            .chain(self.sets.timed.iter().map(|(_, t)| *t))
            .collect();
        for task in startable {
            if self.edges.guards[task.step.index()].contains(&step) {
                self.make_ready(task);
            }
        }
    }

    pub(super) fn release_held(&mut self) {
        for task in self.sets.held.clone() {
            self.make_ready(task);
        }
    }
}
