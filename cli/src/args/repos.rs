//! Arguments of the commands about downloads and other repositories.

use clap::{Args, Subcommand};

use super::BuildOptions;

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// Targets [default: all].
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// How to build what downloads need.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// Arguments of `vendor`.
#[derive(Args, Debug)]
pub struct VendorArgs {
    /// Finds what is missing, damaged or unused; writes nothing. For CI.
    #[arg(long)]
    pub check: bool,
    /// Targets [default: all].
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// How to build what downloads need.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// Subcommands of `repo`.
#[derive(Subcommand, Debug)]
pub enum RepoCommand {
    /// Lists the repositories and where they come from.
    List,
    /// Downloads the archive of a repository and writes its digest into `maestro.toml`.
    Pin {
        /// The repository.
        #[arg(value_name = "NAME")]
        name: String,
    },
}
