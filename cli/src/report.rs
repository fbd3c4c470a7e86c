//! The end of a build: the JSON object on standard output and the lines that people read.

use std::time::Duration;

use maestro_core::Digest;
use maestro_core::event::{ActionCounts, Outcome};
use serde::{Deserialize, Serialize};

use crate::commands::cache::bytes_text;
use crate::console::{counts_text, dollars, seconds};

/// What `--output json` prints at the end; one object on one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Whether all that was asked for is made.
    pub success: bool,
    /// What was asked for.
    pub targets: Vec<TargetSummary>,
    /// Actions by outcome.
    pub actions: ActionCounts,
    /// Milliseconds along the longest chain of executed actions.
    pub critical_path_ms: u64,
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// What live calls cost now, in micro-dollars.
    pub cost_usd_micros: u64,
    /// What reused answers cost when they were recorded, in micro-dollars.
    pub saved_usd_micros: u64,
    /// What went to the remote cache and came from it, where one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteSummary>,
    /// A UUID v7.
    pub invocation_id: String,
}

/// What went to a remote cache and came from it; bytes are those of blobs before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSummary {
    /// Bytes that came.
    pub fetched_bytes: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Results that were left for others.
    pub left_results: u64,
}

/// One requested target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetSummary {
    /// Its label.
    pub label: String,
    /// The aspect whose files these are, such as `//tools:lint.star%lint`, where they are not those
    /// of the target itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aspect: Option<String>,
    /// Its files on disk; those of a tree one by one.
    pub outputs: Vec<OutputSummary>,
}

/// One requested file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputSummary {
    /// Relative to the workspace.
    pub path: String,
    /// Its content, as `function:hash`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

impl OutputSummary {
    /// Describes a file with known content.
    pub fn new(path: String, digest: &Digest) -> Self {
        let text = format!("{}:{}", digest.function.name(), digest.hex());
        Self { path, digest: text, size: digest.size }
    }
}

/// How many targets the console names.
pub const TARGETS_SHOWN: usize = 10;
/// How many files of a target the console names.
const FILES_SHOWN: usize = 5;

impl Summary {
    /// The lines for people, on standard error; `verb` is `built` or `tested`, and `targets` how
    /// many there are, also where they are not named.
    pub fn text(&self, verb: &str, targets: usize, up_to_date: bool) -> String {
        let mut out = String::new();
        if self.success && targets <= TARGETS_SHOWN {
            for target in &self.targets {
                match &target.aspect {
                    None => out.push_str(&format!("{}\n", target.label)),
                    Some(_) if target.outputs.is_empty() => continue,
                    Some(aspect) => out.push_str(&format!("{} ({aspect})\n", target.label)),
                }
                for output in target.outputs.iter().take(FILES_SHOWN) {
                    out.push_str(&format!("  {}\n", output.path));
                }
                let more = target.outputs.len().saturating_sub(FILES_SHOWN);
                if more > 0 {
                    out.push_str(&format!("  and {more} more files\n"));
                }
            }
        }
        let plural = if targets == 1 { "target" } else { "targets" };
        let head = match (self.success, up_to_date) {
            (true, true) => "up to date:".to_owned(),
            (true, false) => format!("{verb}:"),
            (false, _) => "failed:".to_owned(),
        };
        out.push_str(&format!(
            "{head} {targets} {plural}, {} in {}",
            counts_text(&self.actions),
            seconds(Duration::from_millis(self.wall_ms)),
        ));
        if self.cost_usd_micros > 0 || self.actions.get(Outcome::Locked) > 0 {
            out.push_str(&format!(
                ", cost {}, saved {}",
                dollars(self.cost_usd_micros),
                dollars(self.saved_usd_micros)
            ));
        }
        if let Some(RemoteSummary { fetched_bytes, sent_bytes, left_results: _ }) = self.remote {
            for (bytes, word) in [(fetched_bytes, "fetched"), (sent_bytes, "sent")] {
                if bytes > 0 {
                    out.push_str(&format!(", {} {word}", bytes_text(bytes)));
                }
            }
        }
        out.push('\n');
        out
    }
}
