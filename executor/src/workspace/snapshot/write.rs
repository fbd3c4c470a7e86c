//! Writes what a build leaves: as changes to the snapshot that it began with, or anew.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use maestro_core::graph::columns::ColumnWriter;
use maestro_core::{ActionGraph, ActionId};
use rkyv::rancor;

use super::{
    Changes, EVALUATION_VERSION, FACTS_FORMAT, GRAPH_VERSION, HEAD, HEAD_FORMAT, Head,
    RequestRecord, Results, Snapshot, SnapshotError, SnapshotName, SnapshotToolchain, Values,
    evaluation_path, facts_path, graph_path, mapped,
};
use crate::workspace::facts::{Content, Fact, FactTable, KnownFiles, now_ns, to_archive};
use crate::workspace::sealed_file;

/// Changes that a head may always hold before everything is written anew.
const CHANGES_MIN: usize = 8192;
/// Beyond that, the changes may be this part of the whole.
const CHANGES_PART: usize = 16;
/// Most requests that one snapshot remembers; the oldest go first.
const REQUESTS_MAX: usize = 32;
/// Snapshots that one workspace keeps whatever they weigh; the oldest go first.
const SNAPSHOTS_MIN: usize = 16;
/// Most snapshots that one workspace keeps: a pipeline asks for each of its labels apart.
const SNAPSHOTS_MAX: usize = 1024;
/// The most that the snapshots of one workspace weigh, in bytes, but for the newest.
const SNAPSHOTS_BYTES_MAX: u64 = 512 << 20;

/// The memory of an evaluation, as bytes that only `rules` reads.
#[derive(Clone, Debug, Default)]
pub struct EvaluationBytes {
    /// A new base, or `None` where the former one stays.
    pub base: Option<StoredBase>,
    /// What was changed since the base, or `None` where that stays, too.
    pub delta: Option<Vec<u8>>,
}

/// A base of the memory of an evaluation, on disk already: it is large, and nobody looks at it
/// before the next build. What no snapshot comes to name is swept by the next that is written.
#[derive(Clone, Debug)]
pub struct StoredBase {
    generation: u64,
}

impl StoredBase {
    /// Writes a base beside a snapshot. To be called with the workspace's lock held.
    pub fn write(
        name: &SnapshotName<'_>,
        former: Option<&Snapshot>,
        bytes: &[u8],
    ) -> Result<Self, SnapshotError> {
        let folder = name.folder();
        fs::create_dir_all(&folder).map_err(SnapshotError::at(&folder))?;
        let generation = fresh_generation(former.and_then(|f| f.head.evaluation_generation));
        let path = evaluation_path(&folder, generation);
        mapped::write(&path, EVALUATION_VERSION, bytes).map_err(SnapshotError::at(&path))?;
        Ok(Self { generation })
    }
}

/// What a build leaves.
#[derive(Debug)]
pub struct Left<'a> {
    /// The graph; opened over that of the former snapshot, where one is given.
    pub graph: &'a ActionGraph,
    /// What stands at its artifacts now.
    pub results: &'a Results,
    /// What was seen in this build.
    pub facts: Vec<(String, Fact)>,
    /// What was found changed at its beginning. What of it was not seen again, or written again,
    /// is forgotten.
    pub changes: &'a Changes,
    /// Actions without a result that holds.
    pub pending: Vec<ActionId>,
    /// Actions whose results are recorded ones.
    pub recorded: Vec<ActionId>,
    /// The request that was made.
    pub request: RequestRecord,
    /// Whether other requests that were complete still are.
    pub others_hold: bool,
    /// The memory of the evaluation.
    pub evaluation: EvaluationBytes,
    /// Environment variables that were read.
    pub env: Values,
    /// Parameters that were read.
    pub params: Values,
    /// Toolchains that were used.
    pub toolchains: Vec<SnapshotToolchain>,
    /// How long the build log is.
    pub log_bytes: u64,
}

/// Writes a snapshot. To be called with the workspace's lock held.
pub fn save(
    name: &SnapshotName<'_>,
    former: Option<&Snapshot>,
    left: Left<'_>,
) -> Result<(), SnapshotError> {
    let folder = name.folder();
    fs::create_dir_all(&folder).map_err(SnapshotError::at(&folder))?;
    let head = former.map(|former| former.head.clone()).unwrap_or_default();
    let mut writer = Writer { folder: &folder, former, head };
    writer.head.maestro_build = name.maestro_build.to_owned();
    writer.write(left)?;
    sweep(&folder, &writer.head).map_err(SnapshotError::at(&folder))?;
    match folder.parent() {
        Some(all) if former.is_none() => sweep_old(all).map_err(SnapshotError::at(all)),
        _ => Ok(()),
    }
}

struct Writer<'a> {
    folder: &'a Path,
    former: Option<&'a Snapshot>,
    head: Head,
}

impl Writer<'_> {
    fn write(&mut self, left: Left<'_>) -> Result<(), SnapshotError> {
        let Left {
            graph,
            results,
            facts,
            changes,
            pending,
            recorded,
            request,
            others_hold,
            evaluation,
            env,
            params,
            toolchains,
            log_bytes,
        } = left;
        let anew = self.former.is_none();
        let seen = if anew { facts } else { self.take_facts(facts, changes) };
        self.take_request(request, others_hold);
        self.head.pending = pending;
        self.head.recorded = recorded;
        (self.head.env, self.head.params) = (env, params);
        (self.head.toolchains, self.head.log_bytes) = (toolchains, log_bytes);
        if let Some(StoredBase { generation }) = evaluation.base {
            self.head.evaluation_generation = Some(generation);
        }
        if let Some(delta) = evaluation.delta {
            self.head.evaluation = delta;
        }
        let Head { facts, listings, .. } = &self.head;
        let changed = facts.len() + listings.len() + graph.change_count() + results.added().len();
        let whole = graph.stored_artifact_count() + graph.stored_action_count();
        let fits = changed <= CHANGES_MIN.max(whole / CHANGES_PART);
        if !anew && fits {
            self.head.graph = graph.delta();
            self.head.results = results.added().clone();
        } else {
            self.write_anew(graph, results, seen)?;
        }
        let bytes = postcard::to_stdvec(&self.head).expect("plain data serializes");
        let path = self.folder.join(HEAD);
        sealed_file::write(&path, HEAD_FORMAT, &bytes).map_err(SnapshotError::at(&path))
    }

    /// Adds to the head what a build over a former snapshot saw; nothing is left over.
    fn take_facts(&mut self, seen: Vec<(String, Fact)>, changes: &Changes) -> Vec<(String, Fact)> {
        let Changes { sources, evaluation, outputs, toolchains: _, values: _ } = changes;
        for path in sources.iter().chain(evaluation).chain(outputs) {
            self.head.facts.insert(path.clone(), None);
            self.head.listings.insert(path.clone(), None);
        }
        for (path, mut fact) in seen {
            if matches!(fact, Fact::Listing(_)) {
                self.head.listings.insert(path, Some(fact));
                continue;
            }
            let known = match self.head.facts.get(&path) {
                Some(known) => known.clone(),
                None => self.former.and_then(|f| f.content(&path)).map(Fact::Content),
            };
            match (&mut fact, &known) {
                // What is known of the content says that it is a file, too.
                (Fact::Type(_), Some(Fact::Content(_))) => continue,
                (Fact::Content(new), Some(Fact::Content(Content { evaluated, .. }))) => {
                    new.evaluated |= *evaluated;
                }
                _ => {}
            }
            self.head.facts.insert(path, Some(fact));
        }
        Vec::new()
    }

    fn take_request(&mut self, request: RequestRecord, others_hold: bool) {
        let requests = &mut self.head.requests;
        requests.retain(|other| other.name != request.name);
        if !others_hold {
            requests.iter_mut().for_each(|other| other.complete = false);
        }
        requests.push(request);
        let surplus = requests.len().saturating_sub(REQUESTS_MAX);
        requests.drain(..surplus);
    }

    /// Writes a new generation of facts, graph and results, one after the other, as each takes
    /// room; the head has no changes then. `seen` is what is not in the head.
    fn write_anew(
        &mut self,
        graph: &ActionGraph,
        results: &Results,
        seen: Vec<(String, Fact)>,
    ) -> Result<(), SnapshotError> {
        let generation = fresh_generation(Some(self.head.generation));
        let facts = match self.former {
            None => to_archive(&FactTable::new(seen)),
            Some(_) => to_archive(&self.all_facts()),
        };
        let path = facts_path(self.folder, generation);
        sealed_file::write(&path, FACTS_FORMAT, &facts).map_err(SnapshotError::at(&path))?;
        drop(facts);
        let mut columns = ColumnWriter::over(graph.store());
        results.write(graph.artifact_count(), graph.action_count(), &mut columns);
        let path = graph_path(self.folder, generation);
        mapped::write(&path, GRAPH_VERSION, &columns.finish()).map_err(SnapshotError::at(&path))?;
        self.head.generation = generation;
        self.head.graph = Default::default();
        self.head.results = Default::default();
        (self.head.facts, self.head.listings) = (HashMap::new(), HashMap::new());
        Ok(())
    }

    fn all_facts(&mut self) -> FactTable {
        let Head { facts, listings, .. } = &mut self.head;
        let former = self
            .former
            .and_then(|former| rkyv::deserialize::<FactTable, rancor::Error>(former.table()).ok());
        let former = former.unwrap_or_default();
        let kept = former.iter().filter(|(path, fact)| match fact {
            Fact::Listing(_) => !listings.contains_key(path),
            _ => !facts.contains_key(path),
        });
        let kept: Vec<(String, Fact)> = kept.map(|(path, fact)| (path, fact.clone())).collect();
        drop(former);
        let newer = std::mem::take(facts).into_iter().chain(std::mem::take(listings));
        FactTable::new(kept.into_iter().chain(newer.filter_map(|(p, fact)| Some((p, fact?)))))
    }
}

/// A number that no earlier generation had.
fn fresh_generation(former: Option<u64>) -> u64 {
    let now = u64::try_from(now_ns()).unwrap_or_default();
    former.map_or(now, |former| now.max(former + 1))
}

/// Removes files of the folder that the head does not name.
fn sweep(folder: &Path, head: &Head) -> std::io::Result<()> {
    let mut named = vec![
        folder.join(HEAD),
        facts_path(folder, head.generation),
        graph_path(folder, head.generation),
    ];
    named.extend(head.evaluation_generation.map(|own| evaluation_path(folder, own)));
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !named.contains(&path) {
            remove(&path, |path| fs::remove_file(path))?;
        }
    }
    Ok(())
}

/// Removes the oldest snapshots beyond the limits.
fn sweep_old(all: &Path) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        let modified = fs::symlink_metadata(path.join(HEAD)).and_then(|m| m.modified()).ok();
        let bytes = folder_bytes(&path);
        found.push((modified, path, bytes));
    }
    found.sort();
    let sizes = found.iter().rev().map(|(_, _, bytes)| *bytes);
    let surplus = found.len() - kept(sizes);
    found.into_iter().take(surplus).try_for_each(|(_, path, _)| {
        // Files of an older layout lie here, too.
        let folder = path.is_dir();
        remove(&path, |path| if folder { fs::remove_dir_all(path) } else { fs::remove_file(path) })
    })
}

/// How many snapshots of these sizes are kept, the newest first.
fn kept(sizes: impl Iterator<Item = u64>) -> usize {
    let mut total = 0_u64;
    let fits = |(place, bytes): &(usize, u64)| {
        total = total.saturating_add(*bytes);
        *place < SNAPSHOTS_MIN || (*place < SNAPSHOTS_MAX && total <= SNAPSHOTS_BYTES_MAX)
    };
    sizes.enumerate().take_while(fits).count()
}

/// What the files of a folder weigh, as far as that can be told.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn remove(path: &Path, remove: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_kept_by_number_and_weight() {
        let check = |sizes: &[(usize, u64)], expect: usize| {
            let sizes = sizes.iter().flat_map(|(count, bytes)| std::iter::repeat_n(*bytes, *count));
            assert_eq!(kept(sizes), expect);
        };
        check(&[], 0);
        check(&[(2000, 10)], SNAPSHOTS_MAX);
        check(&[(2000, SNAPSHOTS_BYTES_MAX)], SNAPSHOTS_MIN);
        check(&[(20, SNAPSHOTS_BYTES_MAX / 100), (1, SNAPSHOTS_BYTES_MAX), (9, 1)], 20);
    }
}
