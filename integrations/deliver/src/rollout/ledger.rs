//! The ledger of a rollout: the far side that remembers, under its key, that it began, and how it
//! ended.
//!
//! A ledger is written before anything else is touched, and keeps what cannot be read back later:
//! the traffic as it was before. It also hears of a rollback before the traffic goes back, so that
//! whoever finds the traffic where it began knows whether the rollout is about to begin or is over.

use async_trait::async_trait;
use maestro_core::run::{Failure, FailureClass};
use maestro_executor::step::Stop;
use serde_json::Value;

/// A rollout that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Begun {
    /// The commit or deployment that was made.
    pub(super) revision: String,
    /// The one before it.
    pub(super) previous: String,
    /// The traffic before it began, as its proxy tells it.
    pub(super) former: Option<Value>,
}

/// A rollout that was taken back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RolledBack {
    /// How it began.
    pub(super) begun: Begun,
    /// Why it was taken back.
    pub(super) why: String,
    /// The commit or deployment that holds instead.
    pub(super) revision: String,
}

/// What a ledger knows about a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// Nothing.
    Absent,
    /// It began.
    Begun(Begun),
    /// It was, or is being, rolled back.
    RolledBack(RolledBack),
    /// It ended well.
    Finished(Begun),
}

/// Why something did not come about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    /// It certainly did not.
    Refused(Failure),
    /// It may have.
    Unclear(Failure),
}

impl Trouble {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Refused(failure) | Self::Unclear(failure) => failure,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        let (Self::Refused(failure) | Self::Unclear(failure)) = self;
        failure.class == FailureClass::Cancelled
    }
}

/// One rollout in the ledger of a far side.
#[async_trait]
pub(super) trait Ledger: Send + Sync {
    /// What the far side knows now.
    async fn look(&self, stop: &Stop) -> Result<Entry, Trouble>;

    /// Notes that it begins. Doing so twice is doing so once.
    async fn begin(&self, former: Option<&Value>, stop: &Stop) -> Result<Begun, Trouble>;

    /// Waits until the far side lets it go on; [`Trouble::Refused`] if it will not, ever.
    async fn ready(&self, begun: Begun, stop: &Stop) -> Result<Begun, Trouble>;

    /// Takes the version back. Doing so twice is doing so once.
    async fn roll_back(&self, begun: &Begun, why: &str, stop: &Stop)
    -> Result<RolledBack, Trouble>;

    /// Notes that it ended well.
    async fn finish(&self, begun: &Begun, stop: &Stop) -> Result<(), Trouble>;
}
