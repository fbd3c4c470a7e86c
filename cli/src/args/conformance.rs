//! The command line of the conformance suite.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `conformance`.
#[derive(Args, Debug)]
pub struct ConformanceArgs {
    /// The server: `grpc://HOST:PORT`, or `grpcs://HOST:PORT` for TLS.
    pub endpoint: String,
    /// The instance that is asked.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub instance: String,
    /// The form of the report.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub report: ReportForm,
    /// Checks these lines only, such as `C01,A02`; `C` stands for all that begin so.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Sends a header with every call; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    pub remote_header: Vec<String>,
    /// Who signed the certificate of the server, in PEM [default: whom this machine trusts].
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// A property of the platform on which the server runs actions; may be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    pub platform: Vec<String>,
}

/// Forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For people, line by line as checks end.
    Text,
    /// One JSON object.
    Json,
}
