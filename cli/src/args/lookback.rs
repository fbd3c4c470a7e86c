//! The flags of commands that look back at builds.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Labels of built targets [default: everything that the last build touched].
    #[arg(value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Compares what ran with the nearest run that the cache remembers, of whatever machine.
    #[arg(long)]
    pub why_not_cached: bool,
    /// Prints JSON; short for `--output json`.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `profile`.
#[derive(Args, Debug)]
pub struct ProfileArgs {
    /// What `--trace FILE` or `--events FILE` of a build wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Writes a page with a timeline, too; it loads nothing from elsewhere.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
