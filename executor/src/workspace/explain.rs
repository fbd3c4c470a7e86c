//! Why actions ran or got another key: back to the edit at the root.
//!
//! | compared with | by | answers |
//! |---|---|---|
//! | the last state of the action in this workspace | the build log | why did it re-run? |
//! | the nearest run that the cache remembers | [`Baselines`] | why was it not cached? |
//!
//! Either way the comparison is [`maestro_core::key::explain`], the same walk that makes the key.
//! An input that changed is followed to the action that made it, and on from there, until
//! something is reached that no action made: a source file, a toolchain, a rule.
//! Everything here is data; [`Explanation::render`] is one way to show it.

pub mod lines;
mod nearest;
mod producers;
mod text;
pub mod trees;
mod walk;

use std::collections::HashSet;

use maestro_core::event::Outcome;
use maestro_core::{ActionClass, Digest, Label};
use serde::Serialize;

use self::lines::Lines;
use self::nearest::Nearest;
use self::producers::Producers;
use self::walk::{LastState, Walk};
use super::build_log::{ActionRecord, BuildLog};
use crate::baselines::{Baselines, Entry};

/// Why one action ran, or got its result anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path of its first output.
    pub identity: String,
    /// The target that declared it.
    pub label: Label,
    /// What kind of action it is.
    pub mnemonic: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What made it necessary.
    pub why: Why,
    /// The run that it was compared with, where that is one that the cache remembers and not the
    /// last one in this workspace.
    pub baseline: Option<Entry>,
}

/// What made it necessary to look at an action again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Why {
    /// The log knows no earlier state of it.
    New,
    /// Its key is the same as before, and the verdict or the outputs are not.
    SameKey {
        /// Whether it had failed before.
        failed_before: bool,
    },
    /// No run of it is known to the cache.
    NeverRun,
    /// Its result was in the cache before it ran, and is gone.
    Lost,
    /// Its results are kept in `maestro.lock`, or nowhere.
    NotCached {
        /// How its results may be reused.
        class: ActionClass,
    },
    /// Its key changed.
    Changed {
        /// The roots of the change, each once.
        causes: Vec<Cause>,
        /// How many more there are.
        more: usize,
    },
}

/// One edit and how it reached an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What changed at the root.
    pub root: Root,
    /// The outputs that carried the change, from the edit's side to the action; empty if direct.
    /// A long way is shortened: its beginning and its last output are kept.
    pub through: Vec<String>,
}

/// What no action made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Root {
    /// A source file.
    Source {
        /// Its path below the workspace.
        path: String,
        /// What happened to it.
        edit: Edit,
        /// Its content before and now, if it is a file that changed.
        #[serde(skip)]
        content: Option<(Digest, Digest)>,
        /// The lines that differ, once [`lines::with_lines`] has looked.
        lines: Option<Lines>,
    },
    /// An output that was not an input before, or is none now.
    Dependency {
        /// Its path.
        path: String,
        /// What happened.
        edit: Edit,
    },
    /// A toolchain.
    Toolchain {
        /// Its name.
        name: String,
        /// What happened to it.
        edit: Edit,
        /// Its trees before and now, if there were two.
        #[serde(skip)]
        content: Option<(Digest, Digest)>,
        /// Some files that differ in it, once [`trees::with_files`] has looked.
        files: Vec<String>,
    },
    /// An action's command line.
    CommandLine {
        /// The first argument that differs, as it was.
        old: Option<String>,
        /// The same, as it is.
        new: Option<String>,
    },
    /// The parameters of a native step.
    Parameters,
    /// An environment variable that the rule sets.
    Environment {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// A platform property.
    Platform {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// The list of declared outputs.
    Outputs,
    /// The time limit.
    Timeout,
    /// Class, sandbox or cacheability.
    Definition {
        /// The salt of the key as it was.
        old: String,
        /// The same as it is.
        new: String,
    },
    /// What a native step does with its parameters: another version of Maestro.
    Semantics {
        /// Its number as it was.
        old: Option<String>,
        /// The same as it is.
        new: Option<String>,
    },
    /// An action made other bytes with the same key.
    Unstable {
        /// The path of its first output.
        identity: String,
    },
    /// A generated input changed, and the log does not know how.
    Unknown {
        /// Its path.
        path: String,
    },
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

impl Edit {
    fn of<T>(old: &Option<T>, new: &Option<T>) -> Self {
        match (old, new) {
            (None, Some(_)) => Self::Added,
            (Some(_), None) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// The actions that the targets consist of, with all that those need: records of one state of a
/// workspace, in their order.
pub fn actions_below<'r>(records: &'r [ActionRecord], labels: &[Label]) -> Vec<&'r ActionRecord> {
    let producers = Producers::of(records);
    let mut waiting: Vec<usize> = (0..records.len())
        .filter(|index| records.get(*index).is_some_and(|r| labels.contains(&r.label)))
        .collect();
    let mut found: HashSet<usize> = waiting.iter().copied().collect();
    while let Some(record) = waiting.pop().and_then(|index| records.get(index)) {
        for (path, _) in &record.parts.inputs {
            if let Some(index) = producers.of_input(record, path)
                && found.insert(index)
            {
                waiting.push(index);
            }
        }
    }
    let mut found: Vec<usize> = found.into_iter().collect();
    found.sort_unstable();
    found.into_iter().filter_map(|index| records.get(index)).collect()
}

/// Of the given actions those that changed in the last build that changed any of them, in the order
/// in which they finished.
pub fn of_last_build<'r>(log: &BuildLog, wanted: &[&'r ActionRecord]) -> Vec<&'r ActionRecord> {
    let last = wanted.last().and_then(|record| log.last_change(&record.identity));
    let changed = |record: &&&ActionRecord| log.last_change(&record.identity) == last;
    wanted.iter().filter(changed).copied().collect()
}

/// Explains the wanted actions of a state by the one before it. What this workspace never saw
/// before is compared with what the cache remembers.
pub fn explain(
    log: &BuildLog,
    records: &[ActionRecord],
    wanted: &[&ActionRecord],
    baselines: Option<Baselines<'_>>,
) -> Vec<Explanation> {
    let mut walk = Walk::new(records, LastState(log));
    let mut nearest = baselines.map(|known| Walk::new(records, Nearest::new(known)));
    let explained = wanted.iter().map(|record| {
        let why = walk.why(record);
        let ran = record.outcome == Outcome::Executed;
        let odd = matches!(why, Why::New | Why::SameKey { failed_before: false });
        let better = match &mut nearest {
            Some(nearest) if odd && ran => nearest.not_cached(record),
            _ => None,
        };
        match better {
            Some((better, baseline)) if better != Why::NeverRun => {
                Explanation::of(record, better, baseline)
            }
            _ => Explanation::of(record, why, None),
        }
    });
    explained.collect()
}

/// Says of those of the wanted actions that ran why their results were not in the cache.
pub fn explain_not_cached(
    records: &[ActionRecord],
    wanted: &[&ActionRecord],
    baselines: Baselines<'_>,
) -> Vec<Explanation> {
    let mut nearest = Walk::new(records, Nearest::new(baselines));
    let explained = wanted.iter().filter_map(|record| {
        let (why, baseline) = nearest.not_cached(record)?;
        Some(Explanation::of(record, why, baseline))
    });
    explained.collect()
}

impl Explanation {
    fn of(record: &ActionRecord, why: Why, baseline: Option<Entry>) -> Self {
        Self {
            identity: record.identity.clone(),
            label: record.label.clone(),
            mnemonic: record.mnemonic.clone(),
            outcome: record.outcome,
            why,
            baseline,
        }
    }

    /// What changed at the roots.
    fn roots_mut(&mut self) -> impl Iterator<Item = &mut Root> {
        let causes = match &mut self.why {
            Why::Changed { causes, .. } => causes.as_mut_slice(),
            _ => &mut [],
        };
        causes.iter_mut().map(|cause| &mut cause.root)
    }
}

#[cfg(test)]
mod tests;
