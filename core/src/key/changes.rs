//! What differs between two keys of the same action.
//!
//! [`explain`] takes [`KeyParts`] apart exhaustively, as `prepare` does an action: a new field does
//! not compile until someone has decided how a difference in it is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InputPart, KeyParts, TOOLCHAINS_FILE};
use crate::digest::Digest;

/// One difference between two keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Change {
    /// The command line differs, first at this position.
    Argument {
        /// Position from 0.
        index: usize,
        /// The old argument, if there was one.
        old: Option<String>,
        /// The new argument, if there is one.
        new: Option<String>,
    },
    /// An environment variable differs.
    Environment {
        /// Its name.
        name: String,
        /// The old value.
        old: Option<String>,
        /// The new value.
        new: Option<String>,
    },
    /// A platform property differs.
    Platform {
        /// Its name.
        name: String,
        /// The old value.
        old: Option<String>,
        /// The new value.
        new: Option<String>,
    },
    /// An input came, went or changed.
    Input {
        /// Its path in the input root.
        path: String,
        /// What it was.
        old: Option<InputPart>,
        /// What it is.
        new: Option<InputPart>,
    },
    /// A toolchain came, went or changed.
    Toolchain {
        /// Its name.
        name: String,
        /// The digest of its old tree.
        old: Option<Digest>,
        /// The digest of its new tree.
        new: Option<Digest>,
    },
    /// The declared outputs differ.
    Outputs {
        /// The old paths.
        old: Vec<String>,
        /// The new paths.
        new: Vec<String>,
    },
    /// The time limit differs.
    Timeout {
        /// Old, in milliseconds.
        old: Option<u64>,
        /// New, in milliseconds.
        new: Option<u64>,
    },
    /// Class, sandbox profile or cacheability differ.
    Definition {
        /// The old salt.
        old: String,
        /// The new salt.
        new: String,
    },
}

/// What changed between two keys of the same action; empty if and only if the keys are equal.
pub fn explain(old: &KeyParts, new: &KeyParts) -> Vec<Change> {
    let KeyParts {
        arguments,
        environment,
        outputs,
        platform,
        timeout_ms,
        do_not_cache,
        salt,
        inputs,
        toolchains,
    } = old;
    let mut changes = Vec::new();
    if salt != &new.salt || do_not_cache != &new.do_not_cache {
        changes.push(Change::Definition { old: salt.clone(), new: new.salt.clone() });
    }
    let longest = arguments.len().max(new.arguments.len());
    if let Some(index) = (0..longest).find(|i| arguments.get(*i) != new.arguments.get(*i)) {
        changes.push(Change::Argument {
            index,
            old: arguments.get(index).cloned(),
            new: new.arguments.get(index).cloned(),
        });
    }
    for (name, old, new) in differences(environment, &new.environment) {
        changes.push(Change::Environment { name, old, new });
    }
    for (name, old, new) in differences(platform, &new.platform) {
        changes.push(Change::Platform { name, old, new });
    }
    if platform != &new.platform && differences(platform, &new.platform).is_empty() {
        // The same name may stand with several values; then only the lists as a whole differ.
        let whole = |list: &[(String, String)]| Some(format!("{list:?}"));
        let name = "*".to_owned();
        changes.push(Change::Platform { name, old: whole(platform), new: whole(&new.platform) });
    }
    let digests = |list: &[(String, Digest)]| list.iter().map(|(_, d)| *d).collect::<Vec<_>>();
    let same_toolchains = digests(toolchains) == digests(&new.toolchains);
    if !same_toolchains {
        let named = differences(toolchains, &new.toolchains);
        if named.is_empty() {
            let name = "order of toolchains".to_owned();
            changes.push(Change::Toolchain { name, old: None, new: None });
        }
        changes.extend(named.into_iter().map(|(name, old, new)| Change::Toolchain {
            name,
            old,
            new,
        }));
    }
    for (path, old, new) in differences(inputs, &new.inputs) {
        if path != TOOLCHAINS_FILE || same_toolchains {
            changes.push(Change::Input { path, old, new });
        }
    }
    if outputs != &new.outputs {
        changes.push(Change::Outputs { old: outputs.clone(), new: new.outputs.clone() });
    }
    if timeout_ms != &new.timeout_ms {
        changes.push(Change::Timeout { old: *timeout_ms, new: new.timeout_ms });
    }
    changes
}

/// Pairs that differ between two lists of (name, value), by name.
fn differences<V: Clone + PartialEq>(
    old: &[(String, V)],
    new: &[(String, V)],
) -> Vec<(String, Option<V>, Option<V>)> {
    let mut merged: BTreeMap<&str, (Option<&V>, Option<&V>)> = BTreeMap::new();
    for (name, value) in old {
        merged.entry(name).or_default().0 = Some(value);
    }
    for (name, value) in new {
        merged.entry(name).or_default().1 = Some(value);
    }
    merged
        .into_iter()
        .filter(|(_, (old, new))| old != new)
        .map(|(name, (old, new))| (name.to_owned(), old.cloned(), new.cloned()))
        .collect()
}
