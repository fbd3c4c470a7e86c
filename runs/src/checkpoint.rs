//! Places where a test may stop the world: before and after everything that outlives the process.
//!
//! A run that survives a kill at each of them, and there is no other place where the process
//! changes anything outside its memory, survives a kill anywhere.

/// A place in the life of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Events are about to be committed.
    BeforeCommit,
    /// Events were committed; nobody knows yet.
    AfterCommit,
    /// The request of an effect is about to be sent.
    BeforeSend,
    /// The answer of the far side has come; it is not in the journal.
    AfterReceive,
}

impl Point {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeCommit => "before-commit",
            Self::AfterCommit => "after-commit",
            Self::BeforeSend => "before-send",
            Self::AfterReceive => "after-receive",
        }
    }
}

/// Is told of each point as it is reached, and may keep the caller there.
pub trait Checkpoints: Send + Sync {
    /// A point was reached; `what` says for whom or what.
    fn reached(&self, point: Point, what: &str);
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn reached(&self, _: Point, _: &str) {}
}
