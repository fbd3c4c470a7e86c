//! The flags of remote caches.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Deserialize;

/// Which remote cache a build shares results through. The table `[remote]` of `maestro.toml` says
/// the same.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Remote cache")]
pub struct RemoteFlags {
    /// Shares results through this cache: `grpc://HOST:PORT`, or `grpcs://HOST:PORT` with TLS;
    /// `none` where there is to be none.
    #[arg(long, value_name = "URL")]
    pub remote_cache: Option<String>,
    /// Runs actions on the workers of this server, and shares results through it: as
    /// `--remote-cache`.
    #[arg(long, value_name = "URL", conflicts_with = "remote_cache")]
    pub remote_executor: Option<String>,
    /// The instance of the server.
    #[arg(long, value_name = "NAME")]
    pub remote_instance: Option<String>,
    /// Sends this with each call, such as `authorization=Bearer TOKEN`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub remote_header: Vec<Header>,
    /// Which outputs found there are brought here [default: toplevel].
    #[arg(long, value_name = "WHICH")]
    pub remote_download: Option<RemoteDownload>,
    /// Leaves nothing for others.
    #[arg(long)]
    pub no_remote_upload: bool,
    /// Fails where the cache does not answer, instead of building without it.
    #[arg(long)]
    pub remote_required: bool,
    /// How long the server may be silent, in seconds [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub remote_timeout: Option<u32>,
    /// The authority of the server's certificate, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    pub remote_tls_ca: Option<PathBuf>,
    /// Our certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "remote_tls_key")]
    pub remote_tls_cert: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "remote_tls_cert")]
    pub remote_tls_key: Option<PathBuf>,
}

/// Which outputs of results that others made are brought here.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteDownload {
    /// Those that are asked for, and those that an action reads that runs here.
    Toplevel,
    /// All.
    All,
}

/// One header. Its value may be a secret and is never shown.
#[derive(Clone)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write NAME=VALUE".to_owned()),
        }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}
