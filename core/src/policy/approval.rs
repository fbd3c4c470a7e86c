//! The decision point `approval`: somebody approves, rejects or revokes at a gate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Approval, Environment, Evidence, Principal, Run, Timestamp};
use crate::digest::Digest;

/// What a policy sees before what somebody says at a gate counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalInput {
    /// The time of the question.
    pub now: Timestamp,
    /// The run.
    pub run: Run,
    /// Who started it.
    pub initiator: Principal,
    /// The gate.
    pub gate: ApprovalGate,
    /// Who speaks.
    pub approver: Principal,
    /// What is said.
    pub request: ApprovalRequest,
    /// Why, in the approver's words; may be empty.
    pub reason: String,
    /// The digest of what is approved, as the approver was shown it.
    #[schemars(with = "String")]
    pub subject: Digest,
    /// Where the guarded effects go.
    pub environment: Environment,
    /// What is known about the artifacts.
    pub evidence: Vec<Evidence>,
    /// What was said at this gate before.
    pub approvals: Vec<Approval>,
}

/// A gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalGate {
    /// Its name.
    pub name: String,
    /// How many distinct principals have to approve.
    pub required: u32,
    /// Roles of which an approver has at least one.
    pub roles: Vec<String>,
}

/// What is said at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRequest {
    /// Yes.
    Approve,
    /// No.
    Reject,
    /// The earlier yes no longer holds.
    Revoke,
}
