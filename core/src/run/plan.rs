//! What a run is to do: the compiled template, as far as deciding needs it.
//!
//! Expressions, inputs and requests are not here; a driver evaluates them and reports the results,
//! which go into the journal. So the fold does not depend on how expressions are written.

use serde::{Deserialize, Serialize};

use super::budget::Cap;
use super::failure::Retry;
use crate::action::ActionClass;
use crate::limits::{RUN_GUARDS_MAX, RUN_STEPS_MAX, RUN_TASKS_MAX};

/// A step's place in its plan.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StepIndex(pub u32);

impl StepIndex {
    /// As an index of a list.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub template: String,
    /// Its steps; order in this list is the order of the template.
    pub steps: Vec<StepPlan>,
    /// What the whole run may spend.
    #[serde(default)]
    pub cap: Cap,
    /// Whether steps that need nothing of a failed one still start.
    #[serde(default)]
    pub keep_going: bool,
    /// Most milliseconds that the run may take, people included; then it is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its name in the template.
    pub id: String,
    /// What it uses, such as `cd.rollout`.
    pub uses: String,
    /// What sort of work it is.
    pub kind: StepKind,
    /// The steps that must have ended before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepIndex>,
    /// When its turn comes at all.
    #[serde(default)]
    pub trigger: Trigger,
    /// It has a condition, which a driver evaluates when its turn comes.
    #[serde(default)]
    pub conditional: bool,
    /// Its condition asks for failures, so that it is evaluated after one too.
    #[serde(default)]
    pub even_after_failure: bool,
    /// How often it runs.
    #[serde(default)]
    pub repeat: Repeat,
    /// How it is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Most milliseconds that one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Its failure does not fail the run.
    #[serde(default)]
    pub continue_on_error: bool,
    /// What it may spend.
    #[serde(default)]
    pub cap: Cap,
    /// Most of its tasks that run at once; 0 for as many as the run allows.
    #[serde(default)]
    pub parallel: u32,
    /// Its verdict stands for the safety of what follows: a scan or a signature.
    #[serde(default)]
    pub evidence: bool,
    /// The step that this gate alone is about; it is skipped where that step is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approves: Option<StepIndex>,
}

impl StepPlan {
    /// A step of the flow that runs once, waits for nothing, and has the usual retries.
    pub fn new(id: &str, uses: &str, kind: StepKind) -> Self {
        Self {
            id: id.to_owned(),
            uses: uses.to_owned(),
            kind,
            after: Vec::new(),
            trigger: Trigger::Flow,
            conditional: false,
            even_after_failure: false,
            repeat: Repeat::Once,
            retry: Retry::default(),
            timeout_ms: None,
            continue_on_error: false,
            cap: Cap::default(),
            parallel: 0,
            evidence: false,
            approves: None,
        }
    }

    /// Whether effects after it rely on its verdict: a gate, a scan or a signature.
    pub fn is_guard(&self) -> bool {
        self.evidence || matches!(self.kind, StepKind::Gate(_))
    }
}

/// What sort of work a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Pure or recorded work: it goes through the cache, and running it again harms nobody.
    Work(ActionClass),
    /// It changes the world.
    Effect(FarSide),
    /// People decide.
    Gate(Gate),
}

/// What the far side of an effect offers to those who do not know whether they were heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FarSide {
    /// It takes the idempotency key: the same request twice is one.
    Idempotent,
    /// It compares and swaps: the same request twice is refused, and the state tells which it was.
    Conditional,
    /// It can be asked whether a request arrived, for so many milliseconds.
    Queryable {
        /// How long after the request the answer can be trusted.
        window_ms: u64,
    },
    /// The author declares that doing it twice is harmless.
    Repeatable,
    /// None of these: an intent without an outcome waits for a person.
    Unknown,
}

/// How many people must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// How many distinct principals must approve; at least 1.
    pub approvals: u32,
    /// Who may: any of these roles. Empty means everyone but the initiator.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How long approvals are waited for and stay good, in milliseconds.
    pub expires_ms: u64,
}

/// When the turn of a step comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// In the flow of the template.
    #[default]
    Flow,
    /// When the flow has ended, if this step failed, or any step where none is named.
    OnFailure(Option<StepIndex>),
    /// When the flow has ended because somebody cancelled it.
    OnCancel,
    /// The same, if this step had begun: what it began may have to be undone, however it ended.
    OnCancelOf(StepIndex),
}

/// How often a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// Once.
    #[default]
    Once,
    /// Once for each item, of at most so many (`foreach`, `matrix`).
    ForEach {
        /// Most items.
        max: u32,
    },
    /// Until a condition holds, at most so many rounds.
    Until {
        /// Most rounds.
        max: u32,
        /// Wait between rounds, in milliseconds.
        every_ms: u64,
    },
}

/// A plan that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too many steps.
    #[error("the plan has {0} steps, and at most {RUN_STEPS_MAX} are allowed")]
    TooManySteps(usize),
    /// Too many gates, scans and signatures.
    #[error("the plan has {0} gates, scans and signatures; at most {RUN_GUARDS_MAX} are allowed")]
    TooManyGuards(usize),
    /// A step of the flow waits for one that is called only when the flow has ended.
    #[error("step `{step}` waits for `{called}`, which is called only after all others")]
    AfterCalled {
        /// Who waits.
        step: String,
        /// For which.
        called: String,
    },
    /// Two steps have one name.
    #[error("two steps are called `{0}`")]
    Twice(String),
    /// A step waits for one that does not exist.
    #[error("step `{step}` waits for step number {index}, which does not exist")]
    Missing {
        /// Who waits.
        step: String,
        /// For what.
        index: u32,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// A number makes no sense.
    #[error("step `{step}`: {what}")]
    Number {
        /// Which step.
        step: String,
        /// What is wrong.
        what: String,
    },
}

impl Plan {
    /// The step at `index`.
    pub fn step(&self, index: StepIndex) -> Option<&StepPlan> {
        self.steps.get(index.index())
    }

    /// The index of a step by its name.
    pub fn find(&self, id: &str) -> Option<StepIndex> {
        let place = self.steps.iter().position(|step| step.id == id)?;
        Some(StepIndex(u32::try_from(place).ok()?))
    }

    /// Its steps with their indices.
    pub fn indexed(&self) -> impl Iterator<Item = (StepIndex, &StepPlan)> {
        (0..).map(StepIndex).zip(&self.steps)
    }

    /// Checks what the fold relies on: bounds, unique names, edges that exist and make no cycle.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.steps.len() > RUN_STEPS_MAX {
            return Err(PlanError::TooManySteps(self.steps.len()));
        }
        let guards = self.steps.iter().filter(|step| step.is_guard()).count();
        if guards > RUN_GUARDS_MAX {
            return Err(PlanError::TooManyGuards(guards));
        }
        let mut ids = std::collections::BTreeSet::new();
        for step in &self.steps {
            if !ids.insert(step.id.as_str()) {
                return Err(PlanError::Twice(step.id.clone()));
            }
            self.check_step(step)?;
        }
        self.check_cycles()
    }

    fn check_step(&self, step: &StepPlan) -> Result<(), PlanError> {
        let watched = match step.trigger {
            Trigger::OnFailure(of) => of,
            Trigger::OnCancelOf(of) => Some(of),
            Trigger::Flow | Trigger::OnCancel => None,
        };
        for index in step.after.iter().copied().chain(watched).chain(step.approves) {
            if self.step(index).is_none() {
                return Err(PlanError::Missing { step: step.id.clone(), index: index.0 });
            }
        }
        let called = step.after.iter().filter_map(|index| self.step(*index));
        let mut called = called.filter(|before| before.trigger != Trigger::Flow);
        if let (Trigger::Flow, Some(before)) = (step.trigger, called.next()) {
            return Err(PlanError::AfterCalled {
                step: step.id.clone(),
                called: before.id.clone(),
            });
        }
        let wrong = |what: String| Err(PlanError::Number { step: step.id.clone(), what });
        match step.repeat {
            Repeat::ForEach { max } | Repeat::Until { max, .. } if max > RUN_TASKS_MAX => {
                return wrong(format!("`max` is {max}, and at most {RUN_TASKS_MAX} is allowed"));
            }
            Repeat::Until { max: 0, .. } => return wrong("`max` is 0".into()),
            _ => {}
        }
        if step.retry.attempts_max == 0 {
            return wrong("it may never be tried".into());
        }
        match &step.kind {
            StepKind::Gate(gate) if gate.approvals == 0 => wrong("it needs no approval".into()),
            StepKind::Work(ActionClass::Effect) => wrong("an effect is no work".into()),
            StepKind::Gate(_) if step.repeat != Repeat::Once => wrong("a gate asks once".into()),
            _ => Ok(()),
        }
    }

    /// Its steps, each after those that it waits for; those of a cycle are missing.
    pub fn order(&self) -> Vec<StepIndex> {
        let mut dependents = vec![Vec::new(); self.steps.len()];
        let mut waits = Vec::with_capacity(self.steps.len());
        for (index, step) in self.indexed() {
            waits.push(step.after.len());
            for before in &step.after {
                if let Some(list) = dependents.get_mut(before.index()) {
                    list.push(index);
                }
            }
        }
        let free = self.indexed().filter(|(_, step)| step.after.is_empty());
        let mut order: Vec<StepIndex> = free.map(|(index, _)| index).collect();
        let mut next = 0;
        while let Some(step) = order.get(next).copied() {
            next += 1;
            for dependent in &dependents[step.index()] {
                let left = &mut waits[dependent.index()];
                *left -= 1;
                if *left == 0 {
                    order.push(*dependent);
                }
            }
        }
        order
    }

    fn check_cycles(&self) -> Result<(), PlanError> {
        let order = self.order();
        if order.len() == self.steps.len() {
            return Ok(());
        }
        let mut cyclic = vec![true; self.steps.len()];
        for step in order {
            cyclic[step.index()] = false;
        }
        let start = cyclic.iter().position(|left| *left).unwrap_or_default();
        Err(PlanError::Cycle(self.cycle_through(start, &cyclic)))
    }

    /// Walks back along edges that are left, until a step comes twice.
    fn cycle_through(&self, start: usize, cyclic: &[bool]) -> Vec<String> {
        let mut path = vec![start];
        loop {
            let last = path[path.len() - 1];
            let before = self.steps[last].after.iter().map(|step| step.index());
            let Some(next) = before.into_iter().find(|place| cyclic[*place]) else {
                return path.iter().map(|place| self.steps[*place].id.clone()).collect();
            };
            let seen = path.iter().position(|place| *place == next);
            path.push(next);
            if let Some(from) = seen {
                let cycle = path[from..].iter().rev();
                return cycle.map(|place| self.steps[*place].id.clone()).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::{plan, work};

    #[test]
    fn plans_are_checked() {
        let chain = plan(vec![work("a", &[]), work("b", &[0]), work("c", &[0, 1])]);
        assert_eq!(chain.check(), Ok(()));
        let twice = plan(vec![work("a", &[]), work("a", &[])]);
        assert_eq!(twice.check(), Err(PlanError::Twice("a".into())));
        let missing = plan(vec![work("a", &[4])]);
        assert_eq!(missing.check(), Err(PlanError::Missing { step: "a".into(), index: 4 }));
        let cycle =
            plan(vec![work("a", &[]), work("b", &[0, 3]), work("c", &[1]), work("d", &[2])]);
        let error = cycle.check().expect_err("a cycle").to_string();
        assert_eq!(error, "steps wait for each other: b → c → d → b");
        let itself = plan(vec![work("a", &[0])]);
        let error = itself.check().expect_err("a cycle").to_string();
        assert_eq!(error, "steps wait for each other: a → a");
    }
}
