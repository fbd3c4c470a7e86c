//! `maestro fetch`: downloads what targets need, so that they build without a network.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{FetchArgs, Global};
use crate::downloads::downloads;
use crate::invocation::{Invocation, Request};

/// Runs the command.
pub fn fetch(global: &Global, args: &FetchArgs) -> Result<ExitCode> {
    let patterns = match args.patterns.is_empty() {
        true => vec!["//...".to_owned()],
        false => args.patterns.clone(),
    };
    let mut options = args.options.clone();
    options.keep_going = true;
    let request = Request {
        command: "fetch",
        patterns: patterns.clone(),
        options,
        tests: None,
        output_groups: Vec::new(),
        further: Vec::new(),
    };
    let invocation = Invocation::start(global, request)?;
    let found = downloads(&invocation, &patterns)?;
    let bytes: u64 = found.iter().map(|download| download.digest.size).sum();
    let plural = if found.len() == 1 { "" } else { "s" };
    println!("{} download{plural}, {bytes} bytes, in the cache", found.len());
    Ok(ExitCode::SUCCESS)
}
