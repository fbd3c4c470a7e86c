//! The decision point `effect`: a request is about to leave for the outside world.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Approval, Artifact, Check, Environment, Evidence, Principal, Record, Run, Scan, Step, Timestamp,
};
use crate::digest::Digest;

/// What a policy sees before an effect is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EffectInput {
    /// The time of the question.
    pub now: Timestamp,
    /// The run.
    pub run: Run,
    /// Who started it.
    pub initiator: Principal,
    /// The step that is the effect.
    pub step: Step,
    /// What is sent.
    pub effect: EffectRequest,
    /// Where it goes.
    pub environment: Environment,
    /// The gates, scans, signatures and tests above it, in the order of the template.
    pub checks: Vec<Check>,
    /// What a scan of the artifacts came to.
    pub scan: Scan,
    /// What is sent or rolled out.
    pub artifacts: Vec<Artifact>,
    /// What is known about the artifacts.
    pub evidence: Vec<Evidence>,
    /// Recorded answers that went into the artifacts.
    pub records: Vec<Record>,
    /// What was said at the gates above it.
    pub approvals: Vec<Approval>,
}

/// What an effect sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EffectRequest {
    /// The digest of the exact bytes.
    #[schemars(with = "String")]
    pub request: Digest,
    /// Whether others can see or use afterwards what it sends: a push, a release, an upload.
    pub publishes: bool,
    /// What the far side offers against doing it twice.
    pub far_side: FarSide,
    /// How many times a person had it done again.
    pub generation: u32,
}

/// What a far side offers against doing a thing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FarSide {
    /// It takes an idempotency key.
    Idempotent,
    /// It changes only what is as expected.
    Conditional,
    /// It can be asked whether it was done.
    Queryable,
    /// Doing it twice is harmless.
    Repeatable,
    /// None of these, as far as anybody knows.
    Unknown,
}
