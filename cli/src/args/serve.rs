//! The command line of the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8980")]
    pub listen: SocketAddr,
    /// Where blobs and results are kept.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Above this size, what was not used for longest goes: `512M`, `20G`.
    #[arg(long, value_name = "SIZE", default_value = "20G")]
    pub max_bytes: String,
    /// Who may do what: lines of `TOKEN INSTANCE read-only|read-write`; `*` is every instance, and
    /// `TOKEN * worker` is for workers.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// The certificate of this server, in PEM, with those that lead to its authority.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Lets in only clients with a certificate of this authority.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Serves whoever can connect, also from other machines.
    #[arg(long, conflicts_with_all = ["tokens", "tls_client_ca"])]
    pub no_auth: bool,
}
