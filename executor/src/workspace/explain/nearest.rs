//! The run that an action is compared with where its result was not cached: the nearest one.
//!
//! Nearest is the run with the fewest differences in what its key was made of, and of those the
//! newest. Only runs that ended before the action began count: later ones could not have helped.

use std::collections::HashMap;

use maestro_core::event::Outcome;
use maestro_core::{ActionClass, KeyParts, key};

use super::Why;
use super::walk::{Former, FormerStates, Walk};
use crate::baselines::{Baselines, Entry, Identity};
use crate::workspace::build_log::ActionRecord;

/// Chooses runs, and keeps which were chosen.
pub(super) struct Nearest<'a> {
    baselines: Baselines<'a>,
    chosen: HashMap<String, Entry>,
}

impl<'a> Nearest<'a> {
    pub(super) fn new(baselines: Baselines<'a>) -> Self {
        Self { baselines, chosen: HashMap::new() }
    }

    /// The runs of an action that were over when it began, oldest first.
    fn earlier(&self, record: &ActionRecord) -> Vec<Entry> {
        let identity =
            Identity { mnemonic: record.mnemonic.clone(), path: record.identity.clone() };
        let mut entries = self.baselines.entries(&identity).unwrap_or_else(|error| {
            tracing::warn!(%error, "baselines cannot be read");
            Vec::new()
        });
        entries.retain(|entry| {
            entry.unix_ms <= record.start_unix_ms && entry.invocation_id != record.invocation_id
        });
        entries
    }
}

impl FormerStates for Nearest<'_> {
    fn former(&mut self, record: &ActionRecord) -> Option<Former> {
        let entries = self.earlier(record);
        let (same, others): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| entry.key == record.key);
        let mut nearest: Option<(usize, &Entry, KeyParts)> = None;
        for entry in others.into_iter().rev() {
            let Some(parts) = self.baselines.parts(entry, &record.parts) else { continue };
            let distance = key::explain(&parts, &record.parts).len();
            if nearest.as_ref().is_none_or(|(least, ..)| distance < *least) {
                nearest = Some((distance, entry, parts));
            }
        }
        let (entry, parts) = match (nearest, same.last()) {
            (Some((_, entry, parts)), _) => (entry, parts),
            // What reads its output saw other bytes than now: its runs do not agree.
            (None, Some(entry)) => (*entry, record.parts.clone()),
            (None, None) => return None,
        };
        self.chosen.insert(record.identity.clone(), entry.clone());
        Some(Former { parts, failed: false })
    }
}

impl Walk<'_, Nearest<'_>> {
    /// Why the result of an action was not in the cache, and the run that says so; `None` where
    /// there was a result.
    pub(super) fn not_cached(&mut self, record: &ActionRecord) -> Option<(Why, Option<Entry>)> {
        if record.outcome != Outcome::Executed {
            return None;
        }
        if record.class != ActionClass::Pure {
            return Some((Why::NotCached { class: record.class }, None));
        }
        let lost = self.formers.earlier(record).into_iter().rfind(|run| run.key == record.key);
        if let Some(run) = lost {
            return Some((Why::Lost, Some(run)));
        }
        Some(match self.why(record) {
            why @ Why::Changed { .. } => (why, self.formers.chosen.get(&record.identity).cloned()),
            _ => (Why::NeverRun, None),
        })
    }
}
