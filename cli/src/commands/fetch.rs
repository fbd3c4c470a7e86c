//! `maestro fetch`: downloads what targets need, so that they build without a network.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{FetchArgs, Global};
use crate::downloads::downloads_of;

/// Runs the command.
pub fn fetch(global: &Global, args: &FetchArgs) -> Result<ExitCode> {
    let (_, found) = downloads_of(global, "fetch", &args.patterns, &args.options)?;
    let bytes: u64 = found.iter().map(|download| download.digest.size).sum();
    let plural = if found.len() == 1 { "" } else { "s" };
    println!("{} download{plural}, {bytes} bytes, in the cache", found.len());
    Ok(ExitCode::SUCCESS)
}
