//! The decision point `step_start`: a step of a run is about to start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Budget, Environment, Principal, Run, Step, Timestamp};

/// What a policy sees before a step starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepStartInput {
    /// The time of the question.
    pub now: Timestamp,
    /// The run.
    pub run: Run,
    /// Who started it.
    pub initiator: Principal,
    /// The step.
    pub step: Step,
    /// Where its effects go.
    pub environment: Environment,
    /// The hosts that it declares to talk to, sorted; it reaches no other.
    pub egress: Vec<EgressHost>,
    /// References of the secrets that it declares, sorted.
    pub secrets: Vec<String>,
    /// What it may spend.
    pub budget: Budget,
}

/// A far side that a step talks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressHost {
    /// A host name in lower case, or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}
