//! How one step's end gives others their turn: what follows from the journal by itself.
//!
//! Done with a queue, not by recursion, since a chain may have thousands of steps.

use std::collections::{BTreeSet, VecDeque};

use super::event::Item;
use super::plan::{Repeat, StepIndex, Trigger};
use super::state::{Phase, RunState, RunStatus, Sets, StepState, TaskState, TaskStatus, Verdict};
use super::task::TaskId;

/// Steps whose turn is to be looked at.
pub(super) type Turns = VecDeque<StepIndex>;

impl RunState {
    pub(super) fn is_flow(&self, step: StepIndex) -> bool {
        self.plan().step(step).is_some_and(|plan| plan.trigger == Trigger::Flow)
    }

    pub(super) fn leave_due(&mut self, step: StepIndex) -> Result<(), String> {
        match self.sets.due.remove(&step) {
            true => Ok(()),
            false => Err(format!("the turn of step number {} has not come", step.0)),
        }
    }

    pub(super) fn take_turns(&mut self, turns: &mut Turns) {
        while let Some(step) = turns.pop_front() {
            self.take_turn(step, turns);
        }
    }

    /// Everything that a step waited for has ended.
    pub(super) fn take_turn(&mut self, step: StepIndex, turns: &mut Turns) {
        let Some((plan, state)) = self.step(step) else { return };
        if state.phase != Phase::Waiting || state.waits > 0 {
            return;
        }
        if plan.trigger != Trigger::Flow && self.flow_open > 0 {
            return;
        }
        let (trigger, even_after_failure) = (plan.trigger, plan.even_after_failure);
        let evaluated = plan.conditional || plan.repeat_is_listed();
        let stopped = self.is_stopped(step);
        let called = match trigger {
            Trigger::Flow => true,
            Trigger::OnFailure(None) => self.failed,
            Trigger::OnFailure(Some(of)) => {
                self.steps.get(of.index()).and_then(StepState::verdict) == Some(Verdict::Failed)
            }
            Trigger::OnCancel => self.cancelled.is_some(),
            Trigger::OnCancelOf(of) => self.cancelled.is_some() && self.has_begun(of),
        };
        match () {
            () if !called => self.end_step(step, Verdict::Skipped, turns),
            () if trigger == Trigger::Flow && self.cancelled.is_some() => {
                self.end_step(step, Verdict::Cancelled, turns);
            }
            () if stopped && !even_after_failure => {
                self.end_step(step, Verdict::NotReached, turns);
            }
            () if evaluated => {
                self.steps[step.index()].phase = Phase::Due;
                self.sets.due.insert(step);
            }
            () => self.open_step(step, vec![Item::only()], turns),
        }
    }

    /// Whether something that failed keeps a step from starting.
    pub(super) fn is_stopped(&self, step: StepIndex) -> bool {
        let Some(plan) = self.plan().step(step) else { return false };
        let before = plan.after.iter().filter_map(|index| self.step(*index));
        let broken = before.into_iter().any(|(before, state)| match state.verdict() {
            Some(Verdict::Failed) => !before.continue_on_error,
            Some(Verdict::NotReached | Verdict::Cancelled) => true,
            _ => false,
        });
        let broken = broken
            && (plan.trigger == Trigger::Flow || self.triggered_before(plan.after.as_slice()));
        broken || (plan.trigger == Trigger::Flow && self.failed && !self.plan().keep_going)
    }

    /// Whether a step that was called by a failure stands among `steps` and failed itself.
    pub(super) fn triggered_before(&self, steps: &[StepIndex]) -> bool {
        steps.iter().any(|step| {
            let failed = self.steps.get(step.index()).and_then(StepState::verdict);
            !self.is_flow(*step) && failed == Some(Verdict::Failed)
        })
    }

    pub(super) fn open_step(&mut self, step: StepIndex, items: Vec<Item>, turns: &mut Turns) {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let state = &mut self.steps[step.index()];
        (state.items, state.open, state.worst) = (items, count, None);
        state.phase = Phase::Open;
        if count == 0 {
            self.end_step(step, Verdict::Succeeded, turns);
        }
        for item in 0..count {
            let task = TaskId { item, ..TaskId::first(step) };
            self.tasks.insert(task, TaskState::new(TaskStatus::Ended(Verdict::NotReached)));
            self.make_ready(task);
        }
    }

    pub(super) fn end_item(&mut self, step: StepIndex, verdict: Verdict, turns: &mut Turns) {
        let state = &mut self.steps[step.index()];
        state.open = state.open.saturating_sub(1);
        state.worst = Some(state.worst.map_or(verdict, |worst| worse(worst, verdict)));
        if let (0, Some(worst)) = (state.open, state.worst) {
            self.end_step(step, worst, turns);
        }
    }

    pub(super) fn end_step(&mut self, step: StepIndex, verdict: Verdict, turns: &mut Turns) {
        self.steps[step.index()].phase = Phase::Ended(verdict);
        self.left = self.left.saturating_sub(1);
        for dependent in self.edges.dependents[step.index()].clone() {
            let state = &mut self.steps[dependent.index()];
            if state.phase == Phase::Waiting {
                state.waits = state.waits.saturating_sub(1);
                turns.push_back(dependent);
            }
        }
        if self.fails_the_run(step) && !self.failed {
            self.failed = true;
            if !self.plan().keep_going {
                self.drop_pending(Verdict::NotReached, turns);
            }
        }
        if self.is_flow(step) {
            self.flow_open = self.flow_open.saturating_sub(1);
            if self.flow_open == 0 {
                let called =
                    self.plan().indexed().filter(|(_, plan)| plan.trigger != Trigger::Flow);
                turns.extend(called.map(|(step, _)| step).collect::<Vec<_>>());
            }
        }
    }

    pub(super) fn fails_the_run(&self, step: StepIndex) -> bool {
        let state = self.step(step);
        state.is_some_and(|(plan, state)| {
            state.verdict() == Some(Verdict::Failed) && !plan.continue_on_error
        })
    }

    /// Ends whatever of the flow could begin and has not.
    pub(super) fn drop_pending(&mut self, verdict: Verdict, turns: &mut Turns) {
        let spared = |state: &Self, step: StepIndex| {
            let after_failure = state.plan().step(step).is_some_and(|plan| plan.even_after_failure);
            !state.is_flow(step) || (verdict == Verdict::NotReached && after_failure)
        };
        // Ending one may end others, where it is the failure that stops the run.
        for step in self.sets.due.clone() {
            if !spared(self, step) && self.sets.due.remove(&step) {
                self.end_step(step, verdict, turns);
            }
        }
        let sets = &self.sets;
        let waiting = sets.ready.iter().chain(&sets.held).chain(&sets.asked).copied();
        let timed = sets.timed.iter().map(|(_, task)| *task);
        for task in waiting.chain(timed).collect::<Vec<_>>() {
            let ended = |state: &TaskState| matches!(state.status, TaskStatus::Ended(_));
            if !spared(self, task.step) && !self.tasks.get(&task).is_some_and(ended) {
                self.set(task, TaskStatus::Ended(verdict));
                self.end_item(task.step, verdict, turns);
            }
        }
    }

    pub(super) fn steps_without_predecessors(&self) -> Turns {
        let free = self.plan().indexed().filter(|(_, plan)| plan.after.is_empty());
        free.map(|(step, _)| step).collect()
    }

    /// Counts what has not ended.
    pub(super) fn count(&mut self) {
        let ended: Vec<bool> = self.steps.iter().map(|step| step.verdict().is_some()).collect();
        let (mut left, mut flow) = (0, 0);
        for (place, plan) in self.created.plan.steps.iter().enumerate() {
            let waits = plan.after.iter().filter(|before| !ended[before.index()]).count();
            self.steps[place].waits = u32::try_from(waits).unwrap_or(u32::MAX);
            left += u32::from(!ended[place]);
            flow += u32::from(!ended[place] && plan.trigger == Trigger::Flow);
        }
        (self.left, self.flow_open) = (left, flow);
        let failed: Vec<bool> =
            self.plan().indexed().map(|(step, _)| self.fails_the_run(step)).collect();
        self.failed = failed.contains(&true);
    }

    /// Has the run go on. What its gates let pass holds no more for effects that are done anew, nor
    /// for any that is to come where somebody has `rewritten` what the run does.
    pub(super) fn reopen(&mut self, from: Option<StepIndex>, rewritten: bool, turns: &mut Turns) {
        let mut reset = self.with_dependents(from);
        for (step, plan) in self.created.plan.indexed() {
            let verdict = self.steps[step.index()].verdict();
            let stands = matches!(verdict, Some(Verdict::Succeeded | Verdict::Skipped));
            if !stands || plan.trigger != Trigger::Flow {
                reset.insert(step);
            }
        }
        let redone = self.generations.keys().map(|task| task.step);
        let mut redone: BTreeSet<StepIndex> = redone.filter(|step| reset.contains(step)).collect();
        if rewritten {
            redone.extend(&reset);
        }
        let gates = redone.iter().flat_map(|step| self.edges.guards[step.index()].iter().copied());
        let is_gate = |step: &StepIndex| self.gates.contains_key(&TaskId::first(*step));
        let voided: Vec<StepIndex> = gates.filter(is_gate).collect();
        reset.extend(voided);
        for (task, generation) in &mut self.generations {
            if reset.contains(&task.step) {
                *generation = generation.saturating_add(1);
            }
        }
        self.tasks.retain(|task, _| !reset.contains(&task.step));
        self.gates.retain(|task, _| !reset.contains(&task.step));
        for step in &reset {
            self.steps[step.index()] = StepState::default();
        }
        (self.sets, self.ended, self.cancelled) = (Sets::default(), None, None);
        self.reopened = self.reopened.saturating_add(1);
        self.count();
        turns.extend(reset);
    }

    pub(super) fn with_dependents(&self, from: Option<StepIndex>) -> BTreeSet<StepIndex> {
        let (mut found, mut next) = (BTreeSet::new(), Vec::from_iter(from));
        while let Some(step) = next.pop() {
            if found.insert(step) {
                next.extend(&self.edges.dependents[step.index()]);
            }
        }
        found
    }

    /// How a run whose steps have all ended is to end.
    pub(super) fn end_status(&self) -> Option<RunStatus> {
        match (self.left, self.ended) {
            (0, None) if self.cancelled.is_some() => Some(RunStatus::Cancelled),
            (0, None) if self.failed => Some(RunStatus::Failed),
            (0, None) => Some(RunStatus::Succeeded),
            _ => None,
        }
    }
}

impl super::plan::StepPlan {
    fn repeat_is_listed(&self) -> bool {
        matches!(self.repeat, Repeat::ForEach { .. })
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    let rank = |verdict| match verdict {
        Verdict::Succeeded => 0,
        Verdict::Skipped => 1,
        Verdict::NotReached => 2,
        Verdict::Cancelled => 3,
        Verdict::Failed => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}
