//! Names of runs and tasks, and the idempotency key of an effect.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::plan::StepIndex;

/// The name of a run: lower-case letters, digits and hyphens, at most 64 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text is no name of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no run id: lower-case letters, digits and hyphens, at most 64 of them")]
pub struct RunIdError(String);

impl RunId {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, RunIdError> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let fits = !name.is_empty() && name.len() <= 64 && !name.starts_with('-');
        if fits && name.bytes().all(allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err(RunIdError(name.chars().take(80).collect()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = RunIdError;
    fn try_from(name: String) -> Result<Self, RunIdError> {
        Self::new(&name)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a step: which item of its `foreach`, and which round of its `until`.
///
/// In JSON and messages `step.item.round`. The order is that in which tasks become due.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId {
    /// The step.
    pub step: StepIndex,
    /// The item, 0 where the step has none.
    pub item: u32,
    /// The round, 0 for the first.
    pub round: u32,
}

/// A text is no name of a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no task: `STEP.ITEM.ROUND` in numbers")]
pub struct TaskIdError(String);

impl TaskId {
    /// The only task of a step that is not repeated, and the first of one that is.
    pub fn first(step: StepIndex) -> Self {
        Self { step, item: 0, round: 0 }
    }

    /// The same step and item in the next round.
    pub fn next_round(self) -> Self {
        Self { round: self.round.saturating_add(1), ..self }
    }
}

impl TryFrom<String> for TaskId {
    type Error = TaskIdError;
    fn try_from(text: String) -> Result<Self, TaskIdError> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(step)), Some(Ok(item)), Some(Ok(round)), None) => {
                Ok(Self { step: StepIndex(step), item, round })
            }
            _ => Err(TaskIdError(text)),
        }
    }
}

impl From<TaskId> for String {
    fn from(task: TaskId) -> Self {
        format!("{}.{}.{}", task.step.0, task.item, task.round)
    }
}

/// The key by which a far side knows a request again: 64 hexadecimal digits.
///
/// It is SHA-256 over the run, the id of the step as the template has it, the indices of the task
/// and the generation, each ended by a line feed, which none of them contains.
pub fn idempotency_key(run: &RunId, step: &str, task: TaskId, generation: u32) -> String {
    let text = format!("{run}\n{step}\n{}\n{}\n{generation}\n", task.item, task.round);
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_checked() {
        for good in ["r", "build-20261123-a1b2", "0"] {
            assert!(RunId::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "-a", "A", "a/b", "a b", "é", long.as_str(), "a\n"] {
            assert!(RunId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_part_enters_the_idempotency_key() {
        let run = RunId::new("r1").expect("a run id");
        let other = RunId::new("r2").expect("a run id");
        let task = TaskId::first(StepIndex(0));
        let base = idempotency_key(&run, "deploy", task, 0);
        assert_eq!(base.len(), 64);
        assert_eq!(base, idempotency_key(&run, "deploy", task, 0));
        let elsewhere = TaskId { step: StepIndex(7), ..task };
        assert_eq!(base, idempotency_key(&run, "deploy", elsewhere, 0), "the id names the step");
        for different in [
            idempotency_key(&other, "deploy", task, 0),
            idempotency_key(&run, "notify", task, 0),
            idempotency_key(&run, "deploy", TaskId { item: 1, ..task }, 0),
            idempotency_key(&run, "deploy", TaskId { round: 1, ..task }, 0),
            idempotency_key(&run, "deploy", task, 1),
        ] {
            assert_ne!(base, different);
        }
    }
}
