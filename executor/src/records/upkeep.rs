//! Keeping the lock honest: what is stale, orphaned or old; removing it; admitting an edit.
//!
//! Judges by what an invocation asked ([`Records::asked`]); makes no call and never asks the clock.

use std::collections::HashSet;
use std::path::Path;

use jiff::civil::Date;
use maestro_core::record::canonical_json;
use maestro_core::{DigestFunction, Label};
use serde_json::Value;

use super::answer::{self, AnswerError};
use super::disk::{LockError, Writer, Written, read_content, read_lock};
use super::lock::{CONTENT_DIR, Record, RecordKey};
use super::{Asked, Records};

/// What counts as old.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Today, UTC.
    pub today: Date,
    /// Records that are older than this many days are reported; none where absent.
    pub age_days_max: Option<u32>,
    /// Whether every recorded step of the workspace could be asked: all targets were named, and
    /// nothing failed before them. Only then, and only if no step is stale, is a record that
    /// nobody asked for an orphan.
    pub complete: bool,
}

/// What is wrong with a lock. All empty: nothing.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Steps that the lock does not answer.
    pub stale: Vec<Asked>,
    /// Records that no step asks for.
    pub orphaned: Vec<Record>,
    /// Records beyond their age, with it in days.
    pub aged: Vec<(Record, i32)>,
}

impl CheckReport {
    /// Whether the lock may be released: aged entries only warn.
    pub fn is_clean(&self) -> bool {
        self.stale.is_empty() && self.orphaned.is_empty()
    }
}

impl Records {
    /// Judges the lock by what this invocation asked.
    pub fn check(&self, options: CheckOptions) -> CheckReport {
        let asked = self.asked();
        let keys: HashSet<RecordKey> = asked.iter().filter_map(|a| a.key).collect();
        let mut report = CheckReport::default();
        let mut seen = HashSet::new();
        for ask in asked {
            let first = seen.insert((ask.label.clone(), ask.step.clone(), ask.sample, ask.key));
            if first && ask.missed.is_some() {
                report.stale.push(ask);
            }
        }
        // A step that found nothing hides those that depend on it: they asked for nothing.
        let complete = options.complete && report.stale.is_empty();
        for record in &self.lock().records {
            if complete && !keys.contains(&record.key) {
                report.orphaned.push(record.clone());
                continue;
            }
            let age = days_between(record.date, options.today);
            if options.age_days_max.is_some_and(|max| i64::from(age) > i64::from(max)) {
                report.aged.push((record.clone(), age));
            }
        }
        report
    }
}

fn days_between(from: Date, to: Date) -> i32 {
    from.until(to).map_or(0, |span| span.get_days())
}

/// Removes records and the answers that only they name, and answers that no record names.
pub fn prune(root: &Path, orphaned: &[Record]) -> Result<Written, LockError> {
    let writer = Writer::acquire(root)?;
    let mut written = writer.change(&[], |lock| {
        lock.records.retain(|record| {
            !orphaned
                .iter()
                .any(|o| o.key == record.key && o.is_of(&record.label, &record.step, record.sample))
        });
        let used: HashSet<String> = lock.records.iter().map(|r| r.model.clone()).collect();
        // A pin with a price is a declaration of its own; the others only serve records.
        lock.models.retain(|name, pin| {
            used.contains(name) || pin.price_input_usd_micros_per_mtok.is_some()
        });
    })?;
    written.removed.extend(writer.sweep()?);
    written.removed.sort_unstable();
    written.removed.dedup();
    Ok(written)
}

/// Why an edited answer is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The lock's files fail.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The label has no record.
    #[error("`{label}` has no record")]
    NoRecord {
        /// The label.
        label: Label,
    },
    /// Its answers are too long to stand in the lock, or their files are gone.
    #[error("`{label}` has no answer in `{CONTENT_DIR}` that could be accepted")]
    NoContent {
        /// The label.
        label: Label,
    },
    /// The edited text is no answer.
    #[error("`{CONTENT_DIR}/{file}` cannot be accepted")]
    Answer {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        #[source]
        source: AnswerError,
    },
}

/// An answer that was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The record as it is now.
    pub record: Record,
    /// Whether the file was brought into canonical form.
    pub reformatted: bool,
}

/// Admits the answers of a label as people edited them, and marks them so.
///
/// Whether they fit the schema of their step is checked where the schema is known: by the next
/// lookup, and so by the next build. Records whose answer is unchanged stay as they are.
pub fn accept(root: &Path, label: &Label) -> Result<Vec<Accepted>, AcceptError> {
    let writer = Writer::acquire(root)?;
    let (lock, _) = read_lock(root)?;
    let of_label: Vec<&Record> = lock.records.iter().filter(|r| r.label == *label).collect();
    if of_label.is_empty() {
        return Err(AcceptError::NoRecord { label: label.clone() });
    }
    let mut accepted = Vec::new();
    let mut contents = Vec::new();
    let mut any = false;
    for record in of_label {
        let Some(name) = &record.content_file else { continue };
        let Some(bytes) = read_content(root, name)? else { continue };
        any = true;
        if DigestFunction::Sha256.digest(&bytes) == record.content {
            continue;
        }
        let normal = stored_form(name, &bytes)
            .map_err(|source| AcceptError::Answer { file: name.clone(), source })?;
        let content = DigestFunction::Sha256.digest(&normal);
        let reformatted = normal != bytes;
        // Reformatting alone may lead back to the recorded answer: then nobody changed it.
        let edited = content != record.content || record.edited;
        let record = Record { content, edited, signature: None, ..record.clone() };
        contents.push((name.clone(), normal));
        accepted.push(Accepted { record, reformatted });
    }
    if !any {
        return Err(AcceptError::NoContent { label: label.clone() });
    }
    writer.change(&contents, |lock| {
        for Accepted { record: new, .. } in &accepted {
            // Everyone who asks the same gets the same answer.
            for old in lock.records.iter_mut().filter(|old| old.key == new.key) {
                old.content = new.content;
                old.edited = new.edited;
                old.signature = None;
            }
        }
    })?;
    Ok(accepted)
}

/// The form that a build will demand of the file.
fn stored_form(name: &str, bytes: &[u8]) -> Result<Vec<u8>, AnswerError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| AnswerError::NotJson { why: format!("not UTF-8: {e}") })?;
    if !name.ends_with(".json") {
        return answer::normalise(text, None);
    }
    let value: Value =
        serde_json::from_str(text).map_err(|e| AnswerError::NotJson { why: e.to_string() })?;
    canonical_json(&value).map_err(|e| AnswerError::NotCanonical { why: e.why })?;
    answer::canonical_line(&value)
}
