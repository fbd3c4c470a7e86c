//! Approvals: who agreed to what, and when that counts.
//!
//! What is approved is a *subject*: a digest over run, gate, template, parameters, policy, the
//! requests of the effects that the gate guards, artifacts and evidence. It is shown to those who
//! approve, and an effect whose request differs from what was approved does not pass
//! ([`Refusal::ApprovalChanged`](super::Refusal)).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Gate, StepIndex};

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Principal {
    /// The name, unique for its issuer.
    pub name: String,
    /// Who vouches for the name: `local` for a user of this machine.
    pub issuer: String,
    /// The roles that it has at this time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

impl Principal {
    /// Whether both are the same person or machine, whatever their roles.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name && self.issuer == other.issuer
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.issuer)
    }
}

/// An effect that waits behind a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The step.
    pub step: StepIndex,
    /// The digest of its exact request, where that is known before the gate opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What a gate asks people to agree to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// The digest of all that is approved.
    pub subject: String,
    /// The effects behind the gate.
    pub guarded: Vec<Guarded>,
    /// What is shown to people, a line each.
    #[serde(default)]
    pub summary: Vec<String>,
    /// When it was asked, in milliseconds since 1970.
    pub asked_at_ms: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// One approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: Principal,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Where a gate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    /// What is asked.
    pub request: ApprovalRequest,
    /// Who agreed, by `name@issuer`.
    pub given: BTreeMap<String, Approval>,
    /// Who had agreed and took it back, by `name@issuer`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoked: BTreeMap<String, Approval>,
    /// How many policy asked for, where that is more than the gate does; 0 before it did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wanted: u32,
    /// Enough agreed, and nothing has voided it.
    pub open: bool,
}

impl GateState {
    /// A gate that was just asked for.
    pub fn new(request: ApprovalRequest) -> Self {
        Self { request, given: BTreeMap::new(), revoked: BTreeMap::new(), wanted: 0, open: false }
    }

    /// How many approvals are missing for `gate`.
    pub fn missing(&self, gate: &Gate) -> u32 {
        gate.approvals.max(self.wanted).saturating_sub(self.count())
    }

    /// How many approvals there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.given.len()).unwrap_or(u32::MAX)
    }
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
