//! Where the time of a build went: from the file that `--trace` or `--events` wrote.
//!
//! Reading is in [`read`], arithmetic in [`analysis`], the page in [`page`]. Nothing here knows of
//! workspaces or caches: a file from another machine is as good as one of this.

pub mod analysis;
pub mod page;
pub mod read;

use maestro_core::event::Outcome;

/// One action as the build saw it; times are milliseconds since the build began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its number in the build.
    pub id: u32,
    /// The target that declared it.
    pub label: String,
    /// What kind of action it is.
    pub mnemonic: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When a thread took it.
    pub start_ms: u64,
    /// When it had its result.
    pub end_ms: u64,
    /// The numbers of the actions that it waited for.
    pub needs: Vec<u32>,
}

impl Action {
    /// How long it took.
    pub fn duration_ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    /// Whether work was done, rather than a result found.
    pub fn ran(&self) -> bool {
        matches!(self.outcome, Outcome::Executed | Outcome::Failed)
    }
}

/// One build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// What was asked for, such as `build //app:server`.
    pub request: String,
    /// When loading and analysis ended.
    pub analyzed_ms: u64,
    /// When the build ended.
    pub wall_ms: u64,
    /// Every action that was looked at, each once.
    pub actions: Vec<Action>,
}
