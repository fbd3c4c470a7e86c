//! The decision point `run_start`: a run is about to start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Budget, Environment, Principal, Run, Timestamp};

/// What a policy sees before a run starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStartInput {
    /// The time of the question.
    pub now: Timestamp,
    /// The run.
    pub run: Run,
    /// Who starts it.
    pub initiator: Principal,
    /// What started it.
    pub trigger: Trigger,
    /// The sources that it runs on.
    pub source: Source,
    /// Where its effects go.
    pub environment: Environment,
    /// What it may spend.
    pub budget: Budget,
}

/// What started a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// Somebody did.
    Manual {},
    /// A commit on a branch.
    Push {
        /// The branch.
        branch: String,
    },
    /// A proposed change.
    PullRequest {
        /// Its number.
        number: u64,
        /// Whether it comes from a repository of somebody else.
        from_fork: bool,
    },
    /// A clock.
    Schedule {},
}

/// The sources of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A commit, and nothing else.
    Commit {
        /// Its id.
        commit: String,
        /// Branches and tags that it is on, sorted.
        refs: Vec<String>,
    },
    /// A folder with changes that are in no commit, or that is in no repository.
    Dirty {},
}
