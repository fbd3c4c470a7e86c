//! What a workspace remembers from one build to the next, so that a build costs what was changed.
//!
//! A snapshot holds the action graph, what stood at each artifact, the key of each action, what
//! was seen on disk to get there, the memory of the evaluation, and the requests that were made.
//!
//! | file in `snapshots/NAME/` | holds | read |
//! |---|---|---|
//! | `head` | the generation, and all that was changed since its other files were written | always |
//! | `facts-G` | what was seen: build files, folders, sources, outputs ([`FactTable`]) | always |
//! | `graph-G` | graph and results, as columns | mapped, when something was changed |
//! | `evaluation-E` | the memory of the evaluation, which only `rules` reads | mapped, likewise |
//!
//! `head` is replaced in one step, and names the generation of the others, which are written
//! before and never in place: a reader sees one state as a whole. When the changes in `head` have
//! grown to a sixteenth of the rest, all files are written anew.
//!
//! A request is done if it was complete, nothing that was seen has changed, and its outputs lie on
//! disk as they were written: that is a null build, which reads two files. Else the changes say
//! what to do: [`Changes::sources`] make actions dirty, [`Changes::evaluation`] make build files
//! dirty, [`Changes::outputs`] are written again. Actions that are known to be dirty and that no
//! request has asked for yet are *pending*: they are kept until somebody does.
//!
//! A missing, damaged or outdated snapshot is never an error: the build then does all its work.
//! Invariant: a check writes nothing.

mod mapped;
mod nodes;
mod recent;
pub mod witness;
mod write;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maestro_cas::StatSignature;
use maestro_core::graph::GraphDelta;
use maestro_core::graph::columns::{Columns, SharedBytes};
use maestro_core::{ActionGraph, ActionId, ArtifactId, Digest, TargetId};
use rkyv::rancor;
use serde::{Deserialize, Serialize};

use self::nodes::AddedResults;
use super::facts::{
    ArchivedFactTable, Content, Difference, Fact, FactTable, KnownFiles, now_ns, split, to_archive,
};
use super::sealed_file::{self, Format, Sealed};
use super::toolchain::ToolchainList;

pub use self::nodes::Results;
pub use self::recent::{RecentEvaluation, recent_evaluation};
pub use self::write::{EvaluationBytes, Left, StoredBase, save};

const FOLDER: &str = "snapshots";
const HEAD: &str = "head";
const HEAD_FORMAT: Format = Format { magic: *b"MAEHEAD\0", version: 1 };
const FACTS_FORMAT: Format = Format { magic: *b"MAEFACT\0", version: 2 };
const GRAPH_VERSION: u32 = 2;
const EVALUATION_VERSION: u32 = 2;
/// Outputs lie below this folder of the workspace.
const OUTPUT_ROOT: &str = "maestro-out/";

/// Which snapshot of a workspace is meant. Equal names share one.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotName<'a> {
    /// Where the workspace's state is kept.
    pub state_dir: &'a Path,
    /// What makes results differ that are otherwise the same, in a fixed order.
    pub options: &'a [String],
    /// What tells one build of Maestro from another.
    pub maestro_build: &'a str,
}

impl SnapshotName<'_> {
    /// The folder of the snapshot.
    pub fn folder(&self) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for text in self.options {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let name: String = hasher.finalize().to_hex().chars().take(32).collect();
        self.state_dir.join(FOLDER).join(name)
    }

    /// The [`Snapshot::identity`] of what is on disk now, if anything is.
    pub fn identity(&self) -> Option<StatSignature> {
        signature_of(&self.folder().join(HEAD))
    }
}

/// A request, and how it stood when it was last made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// What was asked: command, patterns, and whatever else makes it another request.
    pub name: Vec<String>,
    /// Whether all of it was made and written.
    pub complete: bool,
    /// The artifacts that it asks for, sorted.
    pub artifacts: Vec<ArtifactId>,
    /// The targets that it names, in its order.
    pub targets: Vec<TargetId>,
    /// Text that the command line needs to report the request as done.
    pub payload: String,
}

/// A toolchain that a build used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotToolchain {
    /// Its list file: [`super::toolchain::ResolvedToolchain::list_path`].
    pub list: PathBuf,
    /// The digest of its tree.
    pub root: Digest,
}

/// Environment variables and parameters with the values that they had.
pub type Values = Vec<(String, Option<String>)>;

/// Why a snapshot was not read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot access `{}`", .path.display())]
pub struct SnapshotError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl SnapshotError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// All that is replaced with every build that changes something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    maestro_build: String,
    generation: u64,
    evaluation_generation: Option<u64>,
    /// Changes since the other files of the generation were written; `None` is no longer a fact.
    facts: HashMap<String, Option<Fact>>,
    listings: HashMap<String, Option<Fact>>,
    graph: GraphDelta,
    results: AddedResults,
    evaluation: Vec<u8>,
    /// The whole of what is small.
    pending: Vec<ActionId>,
    recorded: Vec<ActionId>,
    requests: Vec<RequestRecord>,
    env: Values,
    params: Values,
    toolchains: Vec<SnapshotToolchain>,
    log_bytes: u64,
}

impl Head {
    /// The facts that are newer than those of the generation, as an archive of a [`FactTable`].
    fn newer_facts(&self) -> rkyv::util::AlignedVec {
        let all = self.facts.iter().chain(&self.listings);
        let held = all.filter_map(|(path, fact)| Some((path.clone(), fact.clone()?)));
        to_archive(&FactTable::new(held))
    }
}

/// What is no longer as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Files that only actions read, and that are still files.
    pub sources: Vec<String>,
    /// Paths that build files were evaluated with: content, folders, kinds of files.
    pub evaluation: Vec<String>,
    /// Files below `maestro-out/`.
    pub outputs: Vec<String>,
    /// Lists of toolchains, or files in them.
    pub toolchains: Vec<String>,
    /// Environment variables and parameters.
    pub values: Vec<String>,
}

impl Changes {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        let Self { sources, evaluation, outputs, toolchains, values } = self;
        [sources, evaluation, outputs, toolchains, values].iter().all(|list| list.is_empty())
    }

    /// Adds differences by what they concern.
    fn sort_in(&mut self, differences: Vec<Difference>) {
        for Difference { path, content_only } in differences {
            match path.starts_with(OUTPUT_ROOT) {
                true => self.outputs.push(path),
                false if content_only => self.sources.push(path),
                false => self.evaluation.push(path),
            }
        }
    }
}

/// A snapshot that was read, checked against damage but not yet against the world.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    head: Head,
    facts: Arc<Sealed>,
    current: bool,
    opened_at_ns: i64,
    /// Tells this state of the snapshot from every other one.
    identity: StatSignature,
}

impl Snapshot {
    /// Reads a snapshot, or `None` where there is none that can be used.
    pub fn open(name: &SnapshotName<'_>) -> Result<Option<Self>, SnapshotError> {
        Self::open_after(name, None)
    }

    /// The same; what it has in common with one that was read before is not read again.
    fn open_after(
        name: &SnapshotName<'_>,
        former: Option<&Self>,
    ) -> Result<Option<Self>, SnapshotError> {
        let opened_at_ns = now_ns();
        let folder = name.folder();
        let path = folder.join(HEAD);
        let Some(identity) = signature_of(&path) else { return Ok(None) };
        let Some(sealed) =
            sealed_file::read(&path, HEAD_FORMAT).map_err(SnapshotError::at(&path))?
        else {
            return Ok(None);
        };
        let Ok(head) = postcard::from_bytes::<Head>(sealed.payload()) else { return Ok(None) };
        let same =
            |former: &&Self| former.folder == folder && former.head.generation == head.generation;
        let facts = match former.filter(same) {
            Some(former) => Some(Arc::clone(&former.facts)),
            None => read_facts(&facts_path(&folder, head.generation))?,
        };
        let current = head.maestro_build == name.maestro_build;
        Ok(facts.map(|facts| Self { folder, head, facts, current, opened_at_ns, identity }))
    }

    /// Whether the snapshot on disk is still the one that was read.
    pub fn is_latest(&self) -> bool {
        signature_of(&self.folder.join(HEAD)).as_ref() == Some(&self.identity)
    }

    /// What tells this state of the snapshot from every other one.
    pub fn identity(&self) -> &StatSignature {
        &self.identity
    }

    /// Whether this build of Maestro wrote it. Of one that another build wrote, only what was seen
    /// on disk is of use.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// The requests that were made.
    pub fn requests(&self) -> &[RequestRecord] {
        &self.head.requests
    }

    /// A request that was made before.
    pub fn request(&self, name: &[String]) -> Option<&RequestRecord> {
        self.head.requests.iter().find(|request| request.name == name)
    }

    /// What was seen of the regular files below a path.
    pub fn contents_below(&self, path: &str) -> Vec<(String, Content)> {
        let prefix = format!("{path}/");
        let mut found: std::collections::BTreeMap<String, Content> =
            self.table().contents_below(path).into_iter().collect();
        for (path, fact) in self.head.facts.iter().filter(|(path, _)| path.starts_with(&prefix)) {
            match fact {
                Some(Fact::Content(content)) => drop(found.insert(path.clone(), content.clone())),
                _ => drop(found.remove(path)),
            }
        }
        found.into_iter().collect()
    }

    /// Finds out what is no longer as it was. `env` and `params` give the values of now.
    pub fn check(
        &self,
        workspace_root: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        params: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Changes, SnapshotError> {
        let mut changes = Changes::default();
        let Head { env: old_env, params: old_params, toolchains, .. } = &self.head;
        for (list, now) in [(old_env, env), (old_params, params)] {
            let other = list.iter().filter(|(name, value)| now(name) != *value);
            changes.values.extend(other.map(|(name, _)| name.clone()));
        }
        let newer = self.head.newer_facts();
        let newer = rkyv::access::<ArchivedFactTable, rancor::Error>(&newer)
            .expect("what was just made is well formed");
        let replaced = self.replaced();
        let passed = |folder: &str, name: &str| replaced.contains(&(folder, name));
        let at_root = |source| SnapshotError { path: workspace_root.to_owned(), source };
        let mut differences = self.table().differences(workspace_root, &passed).map_err(at_root)?;
        differences.extend(newer.differences(workspace_root, &|_, _| false).map_err(at_root)?);
        changes.sort_in(differences);
        let changed = toolchains.iter().filter_map(toolchain_change);
        changes.toolchains.extend(changed);
        Ok(changes)
    }

    /// To be called once a check found nothing: writes the facts again without the marks of racy
    /// files that were read and are old by now, so that the next check does not read them.
    /// Does nothing where there are none, which is so from the second time on.
    pub fn settle(&self) -> Result<(), SnapshotError> {
        if !self.table().has_racy() {
            return Ok(());
        }
        let Ok(mut facts) = rkyv::deserialize::<FactTable, rancor::Error>(self.table()) else {
            return Ok(());
        };
        if !facts.settle(self.opened_at_ns) {
            return Ok(());
        }
        let path = facts_path(&self.folder, self.head.generation);
        sealed_file::write(&path, FACTS_FORMAT, &to_archive(&facts))
            .map_err(SnapshotError::at(&path))
    }

    /// The graph and its results, or `None` where they are damaged.
    pub fn open_graph(&self) -> Result<Option<(ActionGraph, Results)>, SnapshotError> {
        let path = graph_path(&self.folder, self.head.generation);
        let bytes = mapped::open(&path, GRAPH_VERSION).map_err(SnapshotError::at(&path))?;
        let Some(columns) = bytes.and_then(Columns::open) else { return Ok(None) };
        if columns.section_count() != nodes::SECTIONS {
            return Ok(None);
        }
        let graph = columns.shared(nodes::GRAPH);
        let Some(graph) = ActionGraph::open(graph, self.head.graph.clone()) else {
            return Ok(None);
        };
        Ok(Some((graph, Results::over(columns, self.head.results.clone()))))
    }

    /// What the evaluation left: a base, and what was changed since.
    pub fn open_evaluation(&self) -> Result<Option<(SharedBytes, &[u8])>, SnapshotError> {
        let Some(generation) = self.head.evaluation_generation else { return Ok(None) };
        let path = evaluation_path(&self.folder, generation);
        let bytes = mapped::open(&path, EVALUATION_VERSION).map_err(SnapshotError::at(&path))?;
        Ok(bytes.map(|bytes| (bytes, self.head.evaluation.as_slice())))
    }

    /// Actions without a result that holds.
    pub fn pending(&self) -> &[ActionId] {
        &self.head.pending
    }

    /// Actions whose results are recorded ones.
    pub fn recorded(&self) -> &[ActionId] {
        &self.head.recorded
    }

    /// The toolchains that were used.
    pub fn toolchains(&self) -> &[SnapshotToolchain] {
        &self.head.toolchains
    }

    /// How long the build log was when the snapshot was written.
    pub fn log_bytes(&self) -> u64 {
        self.head.log_bytes
    }

    /// The entries of the table that newer facts replace, as (folder, name).
    fn replaced(&self) -> HashSet<(&str, &str)> {
        let facts = self.head.facts.keys().map(|path| split(path));
        let listings = self.head.listings.keys().map(|path| (path.as_str(), ""));
        facts.chain(listings).collect()
    }

    fn table(&self) -> &ArchivedFactTable {
        // SAFETY: `read_facts` validated the same bytes, which nobody changes as long as one value
        // or several share them.
        unsafe { rkyv::access_unchecked::<ArchivedFactTable>(self.facts.payload()) }
    }
}

impl KnownFiles for Snapshot {
    fn content(&self, path: &str) -> Option<Content> {
        match self.head.facts.get(path) {
            Some(Some(Fact::Content(content))) => Some(content.clone()),
            Some(_) => None,
            None => self.table().content(path),
        }
    }
}

/// The facts of a generation, or `None` where they are not whole.
fn read_facts(path: &Path) -> Result<Option<Arc<Sealed>>, SnapshotError> {
    let facts = sealed_file::read(path, FACTS_FORMAT).map_err(SnapshotError::at(path))?;
    let usable = |sealed: &Sealed| {
        rkyv::access::<ArchivedFactTable, rancor::Error>(sealed.payload()).is_ok()
    };
    Ok(facts.filter(usable).map(Arc::new))
}

fn signature_of(path: &Path) -> Option<StatSignature> {
    std::fs::symlink_metadata(path).ok().map(|metadata| StatSignature::of(&metadata))
}

fn facts_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("facts-{generation:016x}"))
}

fn graph_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("graph-{generation:016x}"))
}

fn evaluation_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("evaluation-{generation:016x}"))
}

/// What of a toolchain is no longer as it was.
fn toolchain_change(toolchain: &SnapshotToolchain) -> Option<String> {
    let SnapshotToolchain { list: path, root } = toolchain;
    let name = || path.display().to_string();
    let Ok(Some(list)) = ToolchainList::open(path) else { return Some(name()) };
    if list.root() != *root {
        return Some(name());
    }
    list.first_change().unwrap_or_else(|_| Some(name()))
}

#[cfg(test)]
mod tests;
