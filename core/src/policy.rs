//! Decision points: where a run asks a policy, what the policy sees, and what it answers.
//!
//! This is the port; the Rego implementation is the crate `maestro-policy`. Nothing here reads a
//! file or a clock: the time is part of what is asked ([`Timestamp`]).
//!
//! Each decision point is a file of this folder with one struct, and one line of the table below.
//! The struct is the whole of what a policy may look at: it is complete (no field may be missing),
//! and what can be in several states is a sum type (`scan: not_run | stale | failed | done`), so
//! that "nobody looked" cannot be mistaken for "nothing was found".
//!
//! The answer fails closed: [`Verdict`] has no way to allow by accident, and whatever goes wrong in
//! a policy is a [`Reason`] to deny, with a code of [`failure`].

mod approval;
mod effect;
mod facts;
mod run_start;
mod step_start;
mod timestamp;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::{Digest, DigestFunction};
use crate::record::{RecordError, canonical_json};

pub use approval::{ApprovalGate, ApprovalInput, ApprovalRequest};
pub use effect::{EffectInput, EffectRequest, FarSide};
pub use facts::{
    Approval, ApprovalState, Artifact, Budget, Check, CheckKind, CheckOutcome, Environment,
    Evidence, EvidenceKind, Findings, Identity, ParamValue, Principal, Record, RecordState, Run,
    Scan, Signature, Step, StepClass,
};
pub use run_start::{RunStartInput, Source, Trigger};
pub use step_start::{EgressHost, StepStartInput};
pub use timestamp::{Timestamp, TimestampError};

macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident($input:ident) = $name:literal,)*) => {
        /// A place where a run asks before it goes on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DecisionPoint {
            $($(#[doc = $doc])* $point,)*
        }

        impl DecisionPoint {
            /// Every point, in the order in which a run meets them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)*];

            /// The name, as in the package `maestro.NAME` of a policy.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }

            /// When the question is asked, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$point => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The JSON Schema of the input, made from the type.
            pub fn schema(self) -> Value {
                let schema = match self { $(Self::$point => schemars::schema_for!($input),)* };
                schema.to_value()
            }

            /// Reads an input of this point; a field that is missing or unknown is an error.
            pub fn read(self, value: Value) -> Result<Input, serde_json::Error> {
                match self {
                    $(Self::$point => serde_json::from_value(value).map(Input::$point),)*
                }
            }
        }

        /// What a policy is asked: the point with all that it may look at.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Input {
            $($(#[doc = $doc])* $point($input),)*
        }

        impl Input {
            /// The point that asks.
            pub fn point(&self) -> DecisionPoint {
                match self { $(Self::$point(_) => DecisionPoint::$point,)* }
            }
        }
    };
}

points! {
    /// A run is about to start.
    RunStart(RunStartInput) = "run_start",
    /// A step is about to start: a command, a recorded call, or the preparation of an effect.
    StepStart(StepStartInput) = "step_start",
    /// An effect is about to be sent to the outside world.
    Effect(EffectInput) = "effect",
    /// Somebody approves, rejects or revokes at a gate.
    Approval(ApprovalInput) = "approval",
}

impl DecisionPoint {
    /// The point of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

impl Input {
    /// The document that a policy sees as `input`.
    pub fn document(&self) -> Result<Value, RecordError> {
        serde_json::to_value(self).map_err(|error| RecordError { why: error.to_string() })
    }

    /// The digest of what is asked: SHA-256 over RFC 8785 JSON of `{input, point}`.
    pub fn digest(&self) -> Result<Digest, RecordError> {
        let asked = json!({"input": self.document()?, "point": self.point().name()});
        Ok(DigestFunction::Sha256.digest(&canonical_json(&asked)?))
    }
}

/// Something that decides.
///
/// An implementation never fails: what goes wrong is a denial with one of the codes of [`failure`].
/// It is a function: the same policy and the same input give the same decision.
pub trait Policy: Send + Sync {
    /// Decides one question.
    fn decide(&self, input: &Input) -> Decision;
}

/// An answer, as it enters the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Which question.
    pub point: DecisionPoint,
    /// Yes, or no and why.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The digest of the policy that answered.
    pub policy: Digest,
    /// The digest of what was asked, see [`Input::digest`].
    pub input: Digest,
}

/// Yes, or no and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It may go on.
    Allow,
    /// It may not.
    Deny {
        /// Why, sorted by code and message. People read them.
        reasons: Vec<Reason>,
    },
}

/// One reason to deny.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// A stable word that scripts can match, such as `initiator_approves`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// How many approvals there have to be for the reason to go away, where approvals can do that:
    /// an effect waits for them instead of failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u32>,
}

impl Reason {
    /// A reason with a code and a sentence.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), approvals: None }
    }
}

impl Decision {
    /// Whether it may go on.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// How many approvals there have to be for it to go on, if nothing else keeps it.
    pub fn wanted_approvals(&self) -> Option<u32> {
        let each: Option<Vec<u32>> = self.reasons().iter().map(|reason| reason.approvals).collect();
        each?.into_iter().max()
    }

    /// Why not; empty where it may go on.
    pub fn reasons(&self) -> &[Reason] {
        match &self.verdict {
            Verdict::Allow => &[],
            Verdict::Deny { reasons } => reasons,
        }
    }
}

/// The key by which a schema marks a fact whose every state a policy has to look at: one that says
/// whether somebody checked, where "nobody did" must not pass for "nothing was found".
pub const EVERY_STATE: &str = "x-every-state";

/// The codes of denials that no rule of a policy gave: the policy itself did not answer.
pub mod failure {
    /// No policy says anything about the point, or an `allow` has no value.
    pub const UNDEFINED: &str = "policy_undefined";
    /// A policy gave something else than a set of reasons, or a boolean.
    pub const MALFORMED: &str = "policy_malformed";
    /// The evaluation failed.
    pub const ERROR: &str = "policy_error";
    /// The evaluation took too long.
    pub const TIMEOUT: &str = "policy_timeout";
    /// The `allow` of a policy is false, and no `deny` says why.
    pub const NOT_ALLOWED: &str = "not_allowed";
    /// What was asked has no canonical form, or is too large.
    pub const INPUT: &str = "policy_input";
}

#[cfg(test)]
mod tests;
