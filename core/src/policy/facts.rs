//! What several decision points know: who, what, where, and what was found out before.
//!
//! No field is optional: what may be absent is a variant that says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::digest::Digest;

/// Somebody, or something, that acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// The name with its issuer, by which principals are told apart, such as `ada@local`.
    pub id: String,
    /// How it is known that it is this one.
    pub identity: Identity,
    /// The roles that it has in this project, sorted.
    pub roles: Vec<String>,
}

/// How a principal was recognized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Identity {
    /// The user of the operating system, which nobody vouched for.
    Local {
        /// The user's name.
        user: String,
    },
    /// A token of an OpenID Connect issuer, whose signature was verified.
    Oidc {
        /// The issuer's URL.
        issuer: String,
        /// The subject.
        subject: String,
    },
}

/// The run that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The template's name.
    pub template: String,
    /// The digest of the template.
    #[schemars(with = "String")]
    pub template_digest: Digest,
    /// The project.
    pub project: String,
    /// The values of its params; of a secret, the reference.
    pub params: BTreeMap<String, ParamValue>,
}

/// The value of a param.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParamValue {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<String>),
}

/// Where the run, or an effect of it, goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "tier", rename_all = "snake_case", deny_unknown_fields)]
pub enum Environment {
    /// Nowhere: it touches no environment.
    None {},
    /// One where anything may break.
    Development {
        /// Its name.
        name: String,
    },
    /// One that looks like production.
    Staging {
        /// Its name.
        name: String,
    },
    /// One that users depend on. An environment that nobody classified is this.
    Production {
        /// Its name.
        name: String,
    },
}

/// What may be spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Budget {
    /// Nothing was set.
    Unlimited {},
    /// Up to these amounts.
    Limited {
        /// Millionths of a US dollar.
        micro_usd: u64,
        /// Tokens of models.
        tokens: u64,
    },
}

/// A step of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its path, with indices of `foreach`, `matrix` and `until`.
    pub path: String,
    /// What it uses, such as `cd.rollout`.
    pub uses: String,
    /// Its class.
    pub class: StepClass,
}

/// What may happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepClass {
    /// The same input gives the same output; nothing outside is touched.
    Pure,
    /// An answer of the outside world is written down.
    Recorded,
    /// The outside world is changed.
    Effect,
}

/// A check above an effect: a step whose outcome decides whether one should go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The step.
    pub step: String,
    /// What it checks.
    pub kind: CheckKind,
    /// What came of it.
    pub outcome: CheckOutcome,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// An approval.
    Gate,
    /// A scan for vulnerabilities.
    Scan,
    /// A signature.
    Signature,
    /// A test.
    Test,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It succeeded.
    Passed,
    /// It failed.
    Failed,
    /// It failed, and `continue_on_error` let the run go on.
    Tolerated,
    /// It did not run: its condition was false, or a step before it failed.
    Skipped,
}

/// What a scan for vulnerabilities came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(extend("x-every-state" = true))]
pub enum Scan {
    /// Nobody looked.
    NotRun {},
    /// There is a result, of another artifact or an aged database.
    Stale {
        /// When it was made.
        finished_at: Timestamp,
        /// What was found then.
        findings: Findings,
    },
    /// The scanner did not come to an end.
    Failed {
        /// What it said.
        message: String,
    },
    /// There is a result of this artifact.
    Done {
        /// When it was made.
        finished_at: Timestamp,
        /// What was found.
        findings: Findings,
    },
}

/// How many vulnerabilities there are, by severity; those that a statement excludes do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    /// Critical ones.
    pub critical: u32,
    /// High ones.
    pub high: u32,
    /// Medium ones.
    pub medium: u32,
    /// Low ones.
    pub low: u32,
}

/// Whether an artifact is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(extend("x-every-state" = true))]
pub enum Signature {
    /// It is not.
    Unsigned {},
    /// There is a signature, and it does not hold.
    Invalid {
        /// Why not.
        message: String,
    },
    /// It is.
    Signed {
        /// Whose signature it is.
        signer: String,
    },
}

/// An artifact that an effect sends, or that an approval is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its name, such as a label or an image.
    pub name: String,
    /// Its content.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Whether it is signed.
    pub signature: Signature,
}

/// A document that says something about the artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// What kind of document it is.
    pub kind: EvidenceKind,
    /// Its content.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// The artifact that it is about.
    #[schemars(with = "String")]
    pub subject: Digest,
}

/// What a document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// What is in it.
    Sbom,
    /// How it was made.
    Provenance,
    /// What a scan found.
    Scan,
    /// What tests said.
    TestReport,
    /// Which licences apply.
    Licenses,
}

/// A recorded answer that went into the artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The step that asked.
    pub step: String,
    /// Whether one may believe it.
    pub state: RecordState,
}

/// Whether one may believe a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Signed by its recorder.
    Attested,
    /// Edited since, or never signed.
    Unattested,
    /// An answer to an earlier question.
    Stale,
}

/// What somebody said at a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The gate.
    pub gate: String,
    /// Who.
    pub principal: Principal,
    /// When.
    pub at: Timestamp,
    /// What is left of it.
    pub state: ApprovalState,
}

/// What is left of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// It holds, for the present subject.
    Granted,
    /// It was a refusal.
    Rejected,
    /// It was taken back.
    Revoked,
    /// It is too old.
    Expired,
    /// What was approved has changed since.
    Superseded,
}
