//! Why the storage behind a journal or a ledger did not do what it was asked, be it a file or a
//! server.

/// A call that failed. What was to be written was not.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The storage failed.
    #[error("cannot {doing} `{place}`: {why}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The file or server.
        place: String,
        /// What it said.
        why: String,
        /// The storage itself is damaged, beyond a failed call.
        damaged: bool,
    },
    /// A later version of Maestro made it.
    #[error("`{place}` has version {found}, and this Maestro knows up to {known}")]
    Newer {
        /// The file or server.
        place: String,
        /// Its version.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
}

impl StorageError {
    /// A call that failed on storage that is sound, as far as that is known.
    pub fn failed(doing: &'static str, place: impl ToString, why: impl ToString) -> Self {
        Self::Failed { doing, place: place.to_string(), why: why.to_string(), damaged: false }
    }
}
