//! Why a download gave no file, and whose fault that is.

use std::path::PathBuf;

use maestro_core::FailureKind;
use maestro_core::failure::chain;
use maestro_executor::native::ScratchError;
use maestro_executor::runner::RunError;

use crate::pin::Mismatch;

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
    /// The client of a registry cannot be run.
    #[error("cannot run `{program}`, which does this download")]
    ClientProgram {
        /// The client.
        client: &'static str,
        /// What was run.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The client of a registry does not say what it is configured to do.
    #[error("{client} does not say what it is configured to do: {why}")]
    ClientConfig {
        /// The client.
        client: &'static str,
        /// The reason.
        why: String,
    },
    /// The client ran and failed.
    #[error("{client} cannot get `{what}`{messages}")]
    ClientFailed {
        /// The client.
        client: &'static str,
        /// What was wanted.
        what: String,
        /// The end of what it said, each line on a line of its own.
        messages: String,
    },
    /// A file that a client's configuration names, or of its cache, could not be read.
    #[error("cannot read `{}`", .path.display())]
    ClientFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The registry that a client is configured to use is no URL.
    #[error("the registry `{registry}` is not a URL: {why}")]
    Registry {
        /// Its text.
        registry: String,
        /// Why not.
        why: String,
    },
    /// Credentials hold characters that cannot be sent. They are not shown.
    #[error("`{url}`: the credentials cannot be sent in a header")]
    Credentials {
        /// What is asked for.
        url: String,
    },
    /// A vendored file is another one than its name says.
    #[error("`{}` is not the file that its name says", .path.display())]
    Vendored {
        /// The file.
        path: PathBuf,
    },
    /// The configured mirror is no URL that can be asked.
    #[error("the mirror `{mirror}` is no `http:` or `https:` URL")]
    Mirror {
        /// Its text.
        mirror: String,
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
    #[error("`{url}`: the file has the {mismatch}")]
    Mismatch {
        /// The mirror.
        url: String,
        /// What it has, and what it should have.
        mismatch: Mismatch,
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

/// What pip says where a file is another one than pinned.
const PIP_MISMATCH: &str = "DO NOT MATCH THE HASHES";

fn pip_hints(messages: &str) -> Vec<String> {
    if messages.contains(PIP_MISMATCH) {
        return vec!["if the release changed on purpose, pin its new digests".to_owned()];
    }
    let mut hints = vec!["check the network and `pip config list`".to_owned()];
    if messages.contains("No matching distribution") {
        hints.push(
            "only wheels are installed: if the release has only a source distribution, make a \
             wheel of it with `pip wheel`, and pin that"
                .to_owned(),
        );
    }
    hints
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
                | Self::ClientProgram { .. }
                | Self::ClientConfig { .. }
                | Self::ClientFailed { .. }
                | Self::ClientFile { .. }
        )
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Shape { .. } => FailureKind::Internal,
            Self::Field { .. }
            | Self::Offline { .. }
            | Self::CrateAbsent { .. }
            | Self::Vendored { .. }
            | Self::Mirror { .. } => FailureKind::Input,
            Self::ClientFailed { messages, .. } if messages.contains(PIP_MISMATCH) => {
                FailureKind::Build
            }
            Self::Status { .. } if self.is_transient() => FailureKind::Environment,
            Self::Status { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Mismatch { .. }
            | Self::Cancelled => FailureKind::Build,
            Self::Client { .. }
            | Self::ClientProgram { .. }
            | Self::ClientConfig { .. }
            | Self::ClientFailed { .. }
            | Self::ClientFile { .. }
            | Self::Registry { .. }
            | Self::Credentials { .. }
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
                vec![
                    "`maestro fetch` downloads all that targets need; `maestro vendor` keeps it in \
                     the workspace"
                        .to_owned(),
                ]
            }
            Self::Vendored { .. } => vec!["`maestro vendor` writes it anew".to_owned()],
            Self::Mirror { .. } => {
                vec!["set `mirror` of `[fetch]` in maestro.toml to a URL".to_owned()]
            }
            Self::CrateAbsent { .. } => {
                vec![
                    "run `cargo fetch --locked`, which downloads all that `Cargo.lock` pins".into(),
                ]
            }
            Self::ClientProgram { client, .. } | Self::ClientConfig { client, .. } => {
                vec![format!("install {client}; its configuration says where packages are")]
            }
            Self::ClientFailed { client: "pip", messages, .. } => pip_hints(messages),
            Self::ClientFailed { client, .. } => {
                vec![format!("check the network and the configuration of {client}")]
            }
            Self::Mismatch { mismatch, .. } => vec![mismatch.hint()],
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
            (FailureKind::Build, _) => {
                Self::Failed { message, hints, stdout: None, stderr: None, kept: Vec::new() }
            }
        }
    }
}
