//! Why a download gave no file, and whose fault that is.

use std::path::PathBuf;

use maestro_core::FailureKind;
use maestro_executor::native::{ScratchError, error::chain};
use maestro_executor::runner::RunError;

/// The failure of a `fetch` action.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request has not the shape of `fetch`: rules make requests, so this is a bug.
    #[error("the request of `fetch` has the wrong shape: {why}")]
    Shape {
        /// What the JSON reader says.
        why: String,
    },
    /// A value in the request is not allowed.
    #[error("field `{field}`: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// The reason.
        why: String,
    },
    /// The user asked for no network.
    #[error("`{url}` is not in the cache, and downloads are switched off")]
    Offline {
        /// The first mirror.
        url: String,
    },
    /// The cargo client has not downloaded a crate.
    #[error("crate `{name}` {version} is not among the downloads of cargo{}", places(.folders))]
    CrateAbsent {
        /// The crate.
        name: String,
        /// Its version.
        version: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// A download of the cargo client could not be read.
    #[error("cannot read `{}`", .path.display())]
    CrateIo {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A proxy is not a URL that can be used. It may hold a password, so it is not shown.
    #[error("the proxy for `{scheme}:` cannot be used")]
    Proxy {
        /// What it is for.
        scheme: &'static str,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with something else than the file.
    #[error("`{url}`: the server answered {status}")]
    Status {
        /// The mirror.
        url: String,
        /// The status with its usual words.
        status: reqwest::StatusCode,
        /// How long the server asks to wait, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The connection failed.
    #[error("`{url}`: the transfer failed")]
    Transfer {
        /// The mirror.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Redirects that lead nowhere.
    #[error("`{url}`: it redirects more than {limit} times, or from HTTPS to HTTP")]
    Redirect {
        /// The mirror.
        url: String,
        /// The bound.
        limit: usize,
    },
    /// Too few bytes came for too long.
    #[error("`{url}`: fewer than {bytes_min} bytes came in {window_ms} ms")]
    Stalled {
        /// The mirror.
        url: String,
        /// The bytes that had to come.
        bytes_min: u64,
        /// The time in which they had to come.
        window_ms: u64,
    },
    /// The file is larger than allowed.
    #[error("`{url}`: the file is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The mirror.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// The file is another one than pinned.
    #[error("`{url}`: the file has the SHA-256 {actual}, pinned is {expected}")]
    Mismatch {
        /// The mirror.
        url: String,
        /// In hex.
        expected: String,
        /// In hex.
        actual: String,
    },
    /// No mirror gave the file.
    #[error("no mirror has the file{}", lines(.failures))]
    Mirrors {
        /// The last failure of each.
        failures: Vec<FetchError>,
    },
    /// The file could not be kept.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Nobody waits for the result any more.
    #[error("cancelled")]
    Cancelled,
}

fn places(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|path| format!("`{}`", path.display())).collect();
    if names.is_empty() { String::new() } else { format!(" below {}", names.join(", ")) }
}

fn lines(failures: &[FetchError]) -> String {
    failures.iter().map(|failure| format!("\n  {}", chain(failure))).collect()
}

impl FetchError {
    /// Whether asking the same mirror again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(status.as_u16(), 408 | 429) || status.is_server_error()
            }
            Self::Transfer { .. } | Self::Stalled { .. } => true,
            _ => false,
        }
    }

    /// Whether another mirror may help.
    pub(crate) fn is_of_the_mirror(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::Transfer { .. }
                | Self::Redirect { .. }
                | Self::Stalled { .. }
                | Self::TooLarge { .. }
                | Self::Mismatch { .. }
                | Self::CrateAbsent { .. }
                | Self::CrateIo { .. }
        )
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Shape { .. } => FailureKind::Internal,
            Self::Field { .. } | Self::Offline { .. } | Self::CrateAbsent { .. } => {
                FailureKind::Input
            }
            Self::Status { .. } if self.is_transient() => FailureKind::Environment,
            Self::Status { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Mismatch { .. }
            | Self::Cancelled => FailureKind::Build,
            Self::Client { .. }
            | Self::Proxy { .. }
            | Self::Transfer { .. }
            | Self::Stalled { .. }
            | Self::CrateIo { .. }
            | Self::Scratch(_) => FailureKind::Environment,
            // What the mirrors say counts more than what they do not say.
            Self::Mirrors { failures } => failures
                .iter()
                .map(Self::kind)
                .find(|kind| *kind == FailureKind::Build)
                .unwrap_or(FailureKind::Environment),
        }
    }

    /// What can be done about it.
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Offline { .. } => {
                vec!["run once without `--offline`, or import a cache that has it".to_owned()]
            }
            Self::CrateAbsent { .. } => {
                vec![
                    "run `cargo fetch --locked`, which downloads all that `Cargo.lock` pins".into(),
                ]
            }
            Self::Mismatch { actual, .. } => {
                vec![format!("if the file changed on purpose, pin `sha256 = \"{actual}\"`")]
            }
            Self::Transfer { .. } | Self::Stalled { .. } => {
                vec!["check the network and the proxy settings".to_owned()]
            }
            Self::Status { .. } => {
                vec!["check the URL, or add a mirror that has the file".to_owned()]
            }
            Self::Mirrors { failures } => {
                let mut hints: Vec<String> = failures.iter().flat_map(Self::hints).collect();
                hints.sort_unstable();
                hints.dedup();
                hints
            }
            _ => Vec::new(),
        }
    }
}

impl From<FetchError> for RunError {
    fn from(error: FetchError) -> Self {
        let (message, hints) = (chain(&error), error.hints());
        match (error.kind(), error) {
            (_, FetchError::Cancelled) => Self::Cancelled,
            (_, FetchError::Scratch(scratch)) => scratch.into(),
            (FailureKind::Internal, _) => Self::Internal { message },
            (FailureKind::Input, _) => Self::Refused { message, hints },
            (FailureKind::Environment, _) => Self::Machine { message, hints },
            (FailureKind::Build, _) => Self::Failed { message, hints, stdout: None, stderr: None },
        }
    }
}
