//! `maestro cache stats|gc|verify`: looks after the cache of this machine.

use std::process::ExitCode;

use anyhow::Result;
use maestro_cas::{GcOptions, GcReport, Stats, Store, StoreOptions, VerifyReport};
use maestro_core::DigestFunction;

use crate::args::{CacheCommand, Global, OutputFormat};
use crate::config::cache_dir;
use crate::exit::Failure;

/// Runs the command.
pub fn cache(global: &Global, command: &CacheCommand) -> Result<ExitCode> {
    let store =
        Store::open(StoreOptions { root: cache_dir(global)?, function: DigestFunction::Blake3 })?;
    let json = global.output == OutputFormat::Json;
    match command {
        CacheCommand::Stats => {
            let stats = store.stats()?;
            if json {
                println!("{}", serde_json::to_string(&stats)?);
            } else {
                print!("{}", stats_text(&stats, &store));
            }
        }
        CacheCommand::Gc { max_size, max_age_days } => {
            let bytes_max = Some(parse_size(max_size)?);
            let age_ms_max = max_age_days.map(|days| u64::from(days) * 24 * 60 * 60 * 1000);
            let options = GcOptions { bytes_max, age_ms_max };
            let report = store.gc(options)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", gc_text(&report));
            }
        }
        CacheCommand::Verify { repair } => {
            let report = store.verify(*repair)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", verify_text(&report));
            }
            if !report.is_clean() {
                let hint = if *repair {
                    "what was damaged is in quarantine; the next build makes it again"
                } else {
                    "`maestro cache verify --repair` puts what is damaged into quarantine"
                };
                eprintln!("hint: {hint}");
                return Ok(ExitCode::from(if *repair { 0 } else { 1 }));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_text(stats: &Stats, store: &Store) -> String {
    let Stats { blobs, blob_bytes, results, result_bytes, trees, leases, quarantined, suspects } =
        *stats;
    let mut text = format!(
        "cache: {}\nblobs: {blobs}, {}\nresults: {results}, {}\ntrees: {trees}\n\
         builds that use it: {leases}\n",
        store.root().display(),
        bytes_text(blob_bytes),
        bytes_text(result_bytes),
    );
    for (count, what) in
        [(quarantined, "in quarantine"), (suspects, "to be hashed before use, after a crash")]
    {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    text
}

fn gc_text(report: &GcReport) -> String {
    let GcReport {
        results_removed,
        blobs_removed,
        trees_removed,
        bytes_removed,
        results_kept,
        blobs_kept,
        bytes_kept,
        spared,
    } = *report;
    let mut text = format!(
        "removed: {results_removed} results, {blobs_removed} blobs, {trees_removed} trees, {}\n\
         kept: {results_kept} results, {blobs_kept} blobs, {}\n",
        bytes_text(bytes_removed),
        bytes_text(bytes_kept),
    );
    if spared > 0 {
        text.push_str(&format!("{spared} spared because a build may be using them\n"));
    }
    text
}

fn verify_text(report: &VerifyReport) -> String {
    let mut text = format!(
        "checked: {} blobs ({}), {} results\n",
        report.blobs,
        bytes_text(report.bytes),
        report.results
    );
    for damaged in &report.damaged {
        text.push_str(&format!("damaged: {}\n", damaged.path));
    }
    for dangling in &report.dangling {
        text.push_str(&format!("result {} lacks blob {}\n", dangling.key, dangling.blob));
    }
    for strange in &report.strange {
        text.push_str(&format!("does not belong here: {strange}\n"));
    }
    text.push_str(if report.is_clean() { "clean\n" } else { "not clean\n" });
    text
}

/// A size for people, in powers of 1024.
pub fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Reads `10G`, `512M`, `64K` or a plain number of bytes; powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let trimmed = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let (digits, shift) = match trimmed.char_indices().last() {
        Some((end, 'k' | 'K')) => (trimmed.get(..end), 10),
        Some((end, 'm' | 'M')) => (trimmed.get(..end), 20),
        Some((end, 'g' | 'G')) => (trimmed.get(..end), 30),
        Some((end, 't' | 'T')) => (trimmed.get(..end), 40),
        _ => (Some(trimmed), 0),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let bytes = number.and_then(|n| n.checked_mul(1 << shift));
    Ok(bytes.ok_or_else(|| {
        Failure::input(format!("`{text}` is not a size")).hint("write it as `512M` or `20G`")
    })?)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_size(text).ok(), expect, "{text}");
        };
        check("10", Some(10));
        check("2K", Some(2048));
        check("20G", Some(20 << 30));
        check("1MiB", Some(1 << 20));
        check("", None);
        check("x", None);
        check("99999999999T", None);
    }
}
