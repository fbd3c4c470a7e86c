//! A part of a pipeline: some of its steps and all that they wait for, to be made for their own
//! sake. It changes nothing in the world, so it has neither effects nor gates.

use std::collections::BTreeSet;

use maestro_core::run::{StepIndex, StepKind, Trigger};

use super::Compiled;

/// Steps that cannot be made without the rest of their pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// There is no such step in the flow.
    #[error("pipeline `{pipeline}` has no step `{step}`")]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// The name.
        step: String,
    },
    /// An effect or a gate would have to come first.
    #[error("step `{step}` is made by a run only: {why}")]
    Acts {
        /// The step that was asked for.
        step: String,
        /// What is in the way.
        why: String,
    },
}

impl Compiled {
    /// The steps of these names with all that they wait for, in a plan of their own.
    pub fn part(self, names: &[String]) -> Result<Self, PartError> {
        let mut kept = BTreeSet::new();
        for name in names {
            let flows = |index: &StepIndex| {
                self.plan.step(*index).is_some_and(|step| step.trigger == Trigger::Flow)
            };
            let index = self.find(name).filter(flows).ok_or_else(|| PartError::Unknown {
                pipeline: self.plan.template.clone(),
                step: name.clone(),
            })?;
            let before = self.before(index);
            let acts = |other: &StepIndex| self.acts(*other, *other == index);
            if let Some(why) = before.iter().find_map(acts) {
                return Err(PartError::Acts { step: name.clone(), why });
            }
            kept.extend(before);
        }
        Ok(self.only(&kept))
    }

    /// A step and all that it waits for, itself first.
    fn before(&self, index: StepIndex) -> Vec<StepIndex> {
        let mut found = vec![index];
        let mut seen = BTreeSet::from([index]);
        let mut next = 0;
        while let Some(step) = found.get(next).and_then(|index| self.plan.step(*index)) {
            found.extend(step.after.iter().copied().filter(|index| seen.insert(*index)));
            next += 1;
        }
        found
    }

    /// What a step does beside making something.
    fn acts(&self, index: StepIndex, itself: bool) -> Option<String> {
        let step = self.plan.step(index)?;
        let who =
            if itself { "it".to_owned() } else { format!("it waits for `{}`, which", step.id) };
        match step.kind {
            StepKind::Work(_) => None,
            StepKind::Effect(_) => Some(format!("{who} changes the world (`{}`)", step.uses)),
            StepKind::Gate(_) => Some(format!("{who} asks people")),
        }
    }

    fn only(self, kept: &BTreeSet<StepIndex>) -> Self {
        let Self { mut plan, origins, names: _ } = self;
        let place = |index: &StepIndex| kept.iter().position(|own| own == index);
        let moved = |index: &StepIndex| Some(StepIndex(u32::try_from(place(index)?).ok()?));
        let indexed = (0..).map(StepIndex);
        let steps = indexed.clone().zip(std::mem::take(&mut plan.steps));
        plan.steps =
            steps.filter(|(index, _)| kept.contains(index)).map(|(_, step)| step).collect();
        for step in &mut plan.steps {
            step.after = step.after.iter().filter_map(moved).collect();
            step.approves = step.approves.as_ref().and_then(moved);
        }
        let origins = indexed.zip(origins).filter(|(index, _)| kept.contains(index));
        Self::new(plan, origins.map(|(_, origin)| origin).collect())
    }
}
