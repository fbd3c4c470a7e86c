//! The command line of a worker.

use std::path::PathBuf;

use clap::Args;

use super::remote::Header;

/// Arguments of `worker`.
#[derive(Args, Debug)]
pub struct WorkerArgs {
    /// The server that gives it actions: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Where inputs are kept, and actions run.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Above this size, what was not used for longest goes: `512M`, `20G`.
    #[arg(long, value_name = "SIZE", default_value = "20G")]
    pub max_bytes: String,
    /// Its name in results [default: the name of this machine].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Cores that actions may take: `4`, `0.5` [default: those of this machine].
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<String>,
    /// Memory that actions may take: `16G` [default: that of this machine].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// A GPU, by model and memory: `l4:24G`. May be repeated.
    #[arg(long, value_name = "MODEL:SIZE")]
    pub gpu: Vec<String>,
    /// A language model that is loaded: actions that ask it come here first. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub model: Vec<String>,
    /// A platform property that actions can ask for, beside `os`, `arch`, `OSFamily` and `ISA`. May
    /// be repeated, also with the same name.
    #[arg(long, value_name = "NAME=VALUE")]
    pub property: Vec<Property>,
    /// A folder of this machine that actions see, read-only, which bring no toolchains. May be
    /// repeated [default: what programs are made of, such as `/usr`].
    #[arg(long, value_name = "DIR", conflicts_with = "no_host")]
    pub host_folder: Vec<PathBuf>,
    /// Shows actions nothing of this machine.
    #[arg(long)]
    pub no_host: bool,
    /// The file with the token that the server knows the worker by.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Sends a header with each call. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub remote_header: Vec<Header>,
    /// The authority of the server's certificate, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate of this worker, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A platform property.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Property {
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
