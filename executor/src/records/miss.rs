//! Why a recorded action found no result: a value with its sentence and the commands that mend it.

use std::fmt;

use maestro_cas::StoreError;
use maestro_core::{Digest, FailureKind, Label};
use serde::{Deserialize, Serialize};

use super::answer::AnswerError;
use super::disk::LockError;
use super::lock::{ContextFile, LOCK_FILE, Record, RecordKey};
use super::request::{LlmRequest, Question, QuestionError};
use crate::runner::RunError;

/// A recorded action that has no recorded result for its present input.
#[derive(Clone, Debug, PartialEq)]
pub struct Miss {
    /// The target that asked.
    pub label: Label,
    /// The step's path.
    pub step: String,
    /// The sample.
    pub sample: u32,
    /// What is different, as far as the lock tells.
    pub reason: MissReason,
}

/// What is different from the time when the step was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum MissReason {
    /// The user asked for a new answer.
    Refresh,
    /// The lock has no record of the step at all.
    NeverRecorded,
    /// The lock does not say what the model's name stands for.
    Unpinned {
        /// The model's name.
        model: String,
    },
    /// Context files are others.
    ContextChanged {
        /// Which, in the order of the request; those that are gone come last.
        files: Vec<ContextChange>,
        /// The day of the record.
        recorded: String,
    },
    /// Another model is asked.
    ModelChanged {
        /// The recorded model.
        from: String,
        /// The model asked for now.
        to: String,
    },
    /// The model's name stands for another model.
    IdentityChanged {
        /// The model's name.
        model: String,
        /// The recorded identity.
        from: String,
        /// The identity that is pinned now.
        to: String,
    },
    /// The prompt, the schema or the sampling is another.
    RequestChanged,
    /// The record stands in the lock, but its answer is too long to stand there too.
    ContentGone {
        /// SHA-256 and length of the answer.
        content: Digest,
    },
}

/// A context file that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextChange {
    /// The content is another.
    Changed(String),
    /// The record did not see it.
    Added(String),
    /// Only the record saw it.
    Removed(String),
}

impl fmt::Display for ContextChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(path) => write!(f, "`{path}` changed"),
            Self::Added(path) => write!(f, "`{path}` was added"),
            Self::Removed(path) => write!(f, "`{path}` was removed"),
        }
    }
}

impl Miss {
    pub(super) fn new(label: &Label, question: &Question, reason: MissReason) -> Self {
        let LlmRequest { step, sample, .. } = &question.request;
        Self { label: label.clone(), step: step.clone(), sample: *sample, reason }
    }

    /// The commands that mend it.
    pub fn hints(&self) -> Vec<String> {
        let label = &self.label;
        let mut hints =
            vec![format!("`maestro lock --update {label}` asks for a new answer and records it")];
        match &self.reason {
            MissReason::ContextChanged { files, .. } => {
                if let Some(ContextChange::Changed(path)) = files.first() {
                    hints.push(format!("restoring `{path}` brings the recorded answer back"));
                }
                hints.push(STALE_HINT.to_owned());
            }
            MissReason::ModelChanged { .. }
            | MissReason::IdentityChanged { .. }
            | MissReason::RequestChanged => hints.push(STALE_HINT.to_owned()),
            MissReason::Refresh
            | MissReason::NeverRecorded
            | MissReason::Unpinned { .. }
            | MissReason::ContentGone { .. } => {}
        }
        hints
    }
}

const STALE_HINT: &str =
    "`--stale-records=allow` goes on with the last answer and marks the outputs stale";

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, step, sample, reason } = self;
        write!(f, "step `{step}` of `{label}`")?;
        if *sample != 0 {
            write!(f, " (sample {sample})")?;
        }
        match reason {
            MissReason::Refresh => f.write_str(" is to be asked again"),
            MissReason::NeverRecorded => f.write_str(" was never recorded"),
            MissReason::Unpinned { model } => {
                write!(f, " asks model `{model}`, which `{LOCK_FILE}` does not pin")
            }
            MissReason::ContextChanged { files, recorded } => {
                write!(f, " has no recorded answer for its present input: ")?;
                for (i, file) in files.iter().enumerate() {
                    write!(f, "{}{file}", if i == 0 { "" } else { ", " })?;
                }
                write!(f, " since it was recorded on {recorded}")
            }
            MissReason::ModelChanged { from, to } => {
                write!(f, " was recorded with model `{from}` and now asks `{to}`")
            }
            MissReason::IdentityChanged { model, from, to } => write!(
                f,
                " was recorded when model `{model}` was pinned to `{from}`; the pin is now `{to}`"
            ),
            MissReason::RequestChanged => f.write_str(
                " has no recorded answer for its present request: its prompt, schema or sampling \
                 changed",
            ),
            MissReason::ContentGone { content } => write!(
                f,
                " is recorded, but its answer of {} bytes ({}) is not in this cache",
                content.size,
                content.short()
            ),
        }
    }
}

/// Compares the last record of a step with what the step asks now.
pub(super) fn compare(last: Option<&Record>, question: &Question, identity: &str) -> MissReason {
    let Some(last) = last else { return MissReason::NeverRecorded };
    let files = changes(&last.context, &question.context);
    let request = &question.request;
    if !files.is_empty() {
        return MissReason::ContextChanged { files, recorded: last.date.to_string() };
    }
    if last.model != request.model {
        return MissReason::ModelChanged { from: last.model.clone(), to: request.model.clone() };
    }
    if last.identity != identity {
        return MissReason::IdentityChanged {
            model: request.model.clone(),
            from: last.identity.clone(),
            to: identity.to_owned(),
        };
    }
    MissReason::RequestChanged
}

/// Files that have another content. A file that only moved is no change: its path is not keyed.
fn changes(then: &[ContextFile], now: &[ContextFile]) -> Vec<ContextChange> {
    let same = |a: &ContextFile, b: &ContextFile| a.sha256 == b.sha256;
    let mut out = Vec::new();
    for file in now {
        match then.iter().find(|old| old.path == file.path) {
            Some(old) if same(old, file) => {}
            Some(_) => out.push(ContextChange::Changed(file.path.clone())),
            None if then.iter().any(|old| same(old, file)) => {}
            None => out.push(ContextChange::Added(file.path.clone())),
        }
    }
    for old in then {
        let known = now.iter().any(|file| file.path == old.path || same(file, old));
        if !known {
            out.push(ContextChange::Removed(old.path.clone()));
        }
    }
    out
}

/// Why a lookup gave no result.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing is recorded. The one case in which a live call may help.
    #[error("{0}")]
    Miss(Box<Miss>),
    /// Inputs are gone from the store; their producers must run again.
    #[error("{} inputs are no longer in the store", .0.len())]
    MissingBlobs(Vec<Digest>),
    /// The action asks nothing that can be understood.
    #[error(transparent)]
    Question(QuestionError),
    /// The lock's files cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file of an answer is gone.
    #[error("`{file}`, the recorded answer of `{label}`, is missing")]
    ContentMissing {
        /// The file below the workspace.
        file: String,
        /// Whose answer.
        label: Label,
    },
    /// The file of an answer is not what was recorded.
    #[error("`{file}`, the recorded answer of `{label}`, was changed by hand")]
    ContentEdited {
        /// The file below the workspace.
        file: String,
        /// Whose answer.
        label: Label,
    },
    /// A recorded answer does not fit the schema of the action that asks.
    #[error("the recorded answer `{place}` of `{label}` can no longer be used")]
    Misfit {
        /// The file below the workspace, or the digest.
        place: String,
        /// Whose answer.
        label: Label,
        /// What does not fit, and where.
        #[source]
        source: Box<AnswerError>,
    },
    /// A record's metadata says something else than its key.
    #[error("the record of step `{step}` of `{label}` has a `{field}` that contradicts its key")]
    Contradiction {
        /// The key of the block.
        field: &'static str,
        /// Whose record.
        label: Label,
        /// The step.
        step: String,
    },
    /// The store failed.
    #[error("cannot use the store")]
    Store {
        /// The store's reason.
        #[source]
        source: StoreError,
    },
}

impl From<QuestionError> for FindError {
    fn from(error: QuestionError) -> Self {
        match error {
            QuestionError::Lost(digests) => Self::MissingBlobs(digests),
            other => Self::Question(other),
        }
    }
}

impl FindError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            // Any edit of what a step reads leads here: the step fails, as a compiler would.
            Self::Miss(_) => FailureKind::Build,
            Self::Lock(error) => error.kind(),
            Self::Store { source } => source.kind(),
            Self::Question(QuestionError::Store { source, .. }) => source.kind(),
            Self::MissingBlobs(_) => FailureKind::Environment,
            _ => FailureKind::Input,
        }
    }

    /// What can be done.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Miss(miss) => miss.hints(),
            Self::Lock(error) => error.hints(),
            Self::ContentEdited { file, label } => vec![
                format!("`maestro lock accept {label}` admits the edited answer"),
                format!("`git checkout -- {file}` brings the recorded one back"),
            ],
            Self::ContentMissing { file, label } => vec![
                format!("`git checkout -- {file}` brings it back"),
                format!("`maestro lock --update {label}` asks for a new answer"),
            ],
            Self::Misfit { place, label, .. } => vec![
                format!("`maestro lock --update {label}` asks for an answer that fits"),
                format!("or edit `{place}` and run `maestro lock accept {label}`"),
            ],
            Self::Contradiction { label, .. } => vec![
                format!("take `{LOCK_FILE}` from version control again"),
                format!("`maestro lock --update {label}` asks for a new answer"),
            ],
            Self::Store { source } | Self::Question(QuestionError::Store { source, .. }) => {
                source.hint().into_iter().collect()
            }
            Self::MissingBlobs(_) | Self::Question(_) => Vec::new(),
        }
    }

    /// The error with the reasons below it, in one sentence.
    pub fn sentence(&self) -> String {
        let mut out = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            out.push_str(&format!(": {error}"));
            source = error.source();
        }
        out
    }
}

impl From<FindError> for RunError {
    fn from(error: FindError) -> Self {
        let (message, hints) = (error.sentence(), error.hints());
        match error {
            FindError::MissingBlobs(digests) => Self::MissingBlobs(digests),
            other if other.kind() == FailureKind::Environment => Self::Machine { message, hints },
            _ => Self::Refused { message, hints },
        }
    }
}

/// The short form of a record key, for people.
pub(super) fn short(key: RecordKey) -> String {
    key.prefix().chars().take(12).collect()
}
