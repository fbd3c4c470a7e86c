//! Why tasks fail, and which failures are worth another attempt.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::task::{RunId, TaskId};

/// What sort of failure it is; decides whether it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// What the user wrote or built is wrong: a red test, a bad parameter.
    User,
    /// A machine or network failed; another attempt may well succeed.
    Infrastructure,
    /// The far side asked for patience.
    RateLimit,
    /// A cap would be passed.
    Budget,
    /// A policy denies it.
    Policy,
    /// It took longer than it may.
    Timeout,
    /// Somebody cancelled the run.
    Cancelled,
}

impl FailureClass {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::User,
        Self::Infrastructure,
        Self::RateLimit,
        Self::Budget,
        Self::Policy,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// The word for it in templates, journals and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Infrastructure => "infrastructure",
            Self::RateLimit => "rate-limit",
            Self::Budget => "budget",
            Self::Policy => "policy",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a template may ask for further attempts after it.
    ///
    /// Budget, policy and cancellation are decisions; asking again does not change them.
    pub fn may_be_retried(self) -> bool {
        match self {
            Self::User | Self::Infrastructure | Self::RateLimit | Self::Timeout => true,
            Self::Budget | Self::Policy | Self::Cancelled => false,
        }
    }
}

/// A failure, as the journal and people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its sort.
    pub class: FailureClass,
    /// One sentence without a final period.
    pub message: String,
    /// What can be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The digest of its log in the store, as `HASH/SIZE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How long the far side asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure with a message and nothing else.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, message, hints: Vec::new(), log: None, retry_after_ms: None }
    }
}

/// How often and when a task is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Most attempts in all, the first one included; at least 1.
    pub attempts_max: u32,
    /// Which failures are tried again.
    pub on: Vec<FailureClass>,
    /// The bound of the first wait, in milliseconds; it doubles with each further one.
    pub backoff_ms: u64,
    /// The bound of every wait, in milliseconds.
    pub backoff_ms_max: u64,
    /// Whether a wait is chosen below its bound, so that not all come back at the same time.
    pub jitter: bool,
}

impl Default for Retry {
    /// Three attempts, after failures that are nobody's decision and nobody's mistake.
    fn default() -> Self {
        let on = vec![FailureClass::Infrastructure, FailureClass::RateLimit, FailureClass::Timeout];
        Self { attempts_max: 3, on, backoff_ms: 1_000, backoff_ms_max: 60_000, jitter: true }
    }
}

impl Retry {
    /// One attempt, whatever happens.
    pub fn never() -> Self {
        Self { attempts_max: 1, on: Vec::new(), backoff_ms: 0, backoff_ms_max: 0, jitter: true }
    }

    /// When the attempt after number `attempt` (the first is 1) may begin, in milliseconds since
    /// 1970; `None` if there is none.
    ///
    /// The wait is a bound that doubles; or chosen between zero and it ("full jitter"), by
    /// a hash of run, task and attempt: spread over tasks, and the same whenever it is computed.
    /// A far side that asked for a time gets at least that, within the bound of every wait.
    pub fn next_at(
        &self,
        (run, task, attempt): (&RunId, TaskId, u32),
        failure: &Failure,
        now_ms: u64,
    ) -> Option<u64> {
        let wanted = self.on.contains(&failure.class) && failure.class.may_be_retried();
        if !wanted || attempt >= self.attempts_max {
            return None;
        }
        let doubled = self.backoff_ms.saturating_mul(1 << attempt.saturating_sub(1).min(32));
        let bound = doubled.min(self.backoff_ms_max);
        let asked = failure.retry_after_ms.unwrap_or(0).min(self.backoff_ms_max);
        let wait = match self.jitter {
            true => jitter(run, task, attempt).checked_rem(bound.saturating_add(1)).unwrap_or(0),
            false => bound,
        };
        Some(now_ms.saturating_add(wait.max(asked)))
    }
}

fn jitter(run: &RunId, task: TaskId, attempt: u32) -> u64 {
    let TaskId { step, item, round } = task;
    let hash = Sha256::digest(format!("{run}\n{}\n{item}\n{round}\n{attempt}\n", step.0));
    hash.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::StepIndex;

    fn wait(retry: &Retry, failure: &Failure, item: u32, attempt: u32) -> Option<u64> {
        let run = RunId::new("r").expect("a run id");
        let task = TaskId { item, ..TaskId::first(StepIndex(3)) };
        retry.next_at((&run, task, attempt), failure, 1_000_000).map(|at| at - 1_000_000)
    }

    #[test]
    fn only_listed_classes_are_tried_again_and_only_so_often() {
        let retry = Retry::default();
        let infrastructure = Failure::new(FailureClass::Infrastructure, "x");
        assert!(wait(&retry, &infrastructure, 0, 1).is_some());
        assert!(wait(&retry, &infrastructure, 0, 2).is_some());
        assert_eq!(wait(&retry, &infrastructure, 0, 3), None);
        assert_eq!(wait(&retry, &Failure::new(FailureClass::User, "x"), 0, 1), None);
        let all = Retry { on: FailureClass::ALL.to_vec(), ..Retry::default() };
        for class in FailureClass::ALL {
            let tried = wait(&all, &Failure::new(class, "x"), 0, 1).is_some();
            assert_eq!(tried, class.may_be_retried(), "{class:?}");
        }
        assert_eq!(wait(&Retry::never(), &infrastructure, 0, 1), None);
    }

    #[test]
    fn waits_are_spread_below_a_bound_that_doubles() {
        let retry = Retry { attempts_max: 40, ..Retry::default() };
        let failure = Failure::new(FailureClass::Infrastructure, "x");
        for (attempt, bound) in [(1, 1_000), (2, 2_000), (4, 8_000), (7, 60_000), (39, 60_000)] {
            let waits: Vec<u64> =
                (0..200).filter_map(|item| wait(&retry, &failure, item, attempt)).collect();
            assert_eq!(waits.len(), 200);
            assert!(waits.iter().all(|wait| *wait <= bound), "attempt {attempt}");
            assert!(waits.iter().any(|wait| *wait > bound / 2), "attempt {attempt}");
            assert!(waits.iter().any(|wait| *wait < bound / 2), "attempt {attempt}");
        }
    }

    #[test]
    fn a_far_side_that_asks_for_time_gets_it_within_bounds() {
        let asked = |ms| Failure {
            retry_after_ms: Some(ms),
            ..Failure::new(FailureClass::RateLimit, "slow down")
        };
        assert_eq!(wait(&Retry::default(), &asked(30_000), 0, 1), Some(30_000));
        assert_eq!(wait(&Retry::default(), &asked(u64::MAX), 0, 1), Some(60_000));
    }
}
