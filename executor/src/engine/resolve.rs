//! What stands at each artifact of a build: sources hashed, toolchains laid out, outputs made.
//!
//! Filled while the build goes on. What an artifact holds is replaced rarely, and that is counted,
//! so that an action that ran on old inputs is recognised when it ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use maestro_cas::Store;
use maestro_core::event::{Event, EventSink};
use maestro_core::key::Resolved;
use maestro_core::{ActionGraph, ActionId, ArtifactId, Digest, Node, Origin, RelPath, Toolchain};

use super::before::Before;
use crate::runner::ToolchainMount;
use crate::workspace::sources::{SourceError, Sources};

/// Finds the tree of a declared toolchain and lays it out on disk.
pub trait Toolchains: Send + Sync {
    /// The root of the toolchain's tree. `refresh` says that blobs of it were lost.
    fn resolve(&self, toolchain: &Toolchain, refresh: bool) -> Result<Digest, ToolchainFailure>;

    /// The same tree on disk, where an action can use it.
    fn lay_out(&self, toolchain: &Toolchain) -> Result<ToolchainMount, ToolchainFailure>;
}

/// A toolchain cannot be had on this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[error("toolchain `{name}`: {message}")]
pub struct ToolchainFailure {
    /// The toolchain's name.
    pub name: String,
    /// One sentence without a final period.
    pub message: String,
    /// What can be done.
    pub hints: Vec<String>,
}

/// Why an input is not there.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A source file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A toolchain.
    #[error(transparent)]
    Toolchain(#[from] ToolchainFailure),
    /// The store.
    #[error(transparent)]
    Store(#[from] maestro_cas::StoreError),
}

/// What is known of artifacts. There is a node for each artifact of a build, and next to nothing
/// of all else.
#[derive(Default)]
struct Contents {
    nodes: HashMap<ArtifactId, Node>,
    /// How often the content was replaced, where it was.
    replaced: HashMap<ArtifactId, u64>,
    /// Blobs of these were found missing: whoever fills one again must look at the store.
    lost: HashSet<ArtifactId>,
}

/// The content of the artifacts of one graph.
pub struct Resolver<'e> {
    graph: &'e ActionGraph,
    store: &'e Store,
    sources: &'e Sources,
    toolchains: &'e dyn Toolchains,
    events: &'e dyn EventSink,
    before: Option<&'e Before<'e>>,
    contents: RwLock<Contents>,
    mounts: Mutex<HashMap<ArtifactId, ToolchainMount>>,
}

impl<'e> Resolver<'e> {
    /// Knows nothing yet.
    pub fn new(
        graph: &'e ActionGraph,
        store: &'e Store,
        sources: &'e Sources,
        toolchains: &'e dyn Toolchains,
        events: &'e dyn EventSink,
        before: Option<&'e Before<'e>>,
    ) -> Self {
        let (contents, mounts) = (RwLock::default(), Mutex::default());
        Self { graph, store, sources, toolchains, events, before, contents, mounts }
    }

    /// Makes sure that an input which no action makes is hashed and in the store.
    pub fn ensure_input(&self, id: ArtifactId) -> Result<(), InputError> {
        let contents = self.contents();
        if contents.nodes.contains_key(&id) {
            return Ok(());
        }
        let is_lost = contents.lost.contains(&id);
        drop(contents);
        let artifact = self.graph.artifact(id);
        // What is known of a toolchain is looked at anew before an action runs with it.
        let is_toolchain = matches!(artifact.origin, Origin::Toolchain(_));
        if !is_lost && !is_toolchain && self.known_before(id).is_some() {
            return Ok(());
        }
        let node = match &artifact.origin {
            Origin::Action(_) => return Ok(()),
            Origin::Source if is_lost => self.sources.ensure(&artifact.path, self.store)?,
            Origin::Source => self.sources.digest(&artifact.path, self.store)?,
            Origin::Builtin(bytes) => {
                Node::File { digest: self.store.put_bytes(bytes)?, executable: false }
            }
            Origin::Toolchain(toolchain) => self.toolchain(id, toolchain, is_lost)?,
        };
        self.set(id, node);
        Ok(())
    }

    /// Where a toolchain lies; laid out when that is first asked.
    pub fn mount(&self, id: ArtifactId) -> Result<ToolchainMount, InputError> {
        // Held meanwhile, so that two threads do not copy the same tree.
        let mut mounts = self.mounts();
        if let Some(mount) = mounts.get(&id) {
            return Ok(mount.clone());
        }
        let Origin::Toolchain(toolchain) = &self.graph.artifact(id).origin else {
            let (name, hints) = (self.path(id).to_string(), Vec::new());
            let message = "it is no toolchain".to_owned();
            return Err(ToolchainFailure { name, message, hints }.into());
        };
        let mount = self.telling(toolchain, || self.toolchains.lay_out(toolchain))?;
        mounts.insert(id, mount.clone());
        Ok(mount)
    }

    /// Takes the outputs of an action; tells whether one of them replaced other content.
    pub fn set_outputs(&self, outputs: &[(ArtifactId, Node)]) -> bool {
        let mut changed = false;
        for (id, node) in outputs {
            changed |= self.set(*id, node.clone());
        }
        changed
    }

    /// The versions of some artifacts as one number, which grows with each of them.
    pub fn version_of(&self, ids: &[ArtifactId]) -> u64 {
        let Contents { nodes, replaced, lost } = &*self.contents();
        let version = |id| {
            let seen = nodes.contains_key(id) || lost.contains(id);
            replaced.get(id).copied().unwrap_or(0) + u64::from(seen)
        };
        ids.iter().map(version).sum()
    }

    /// Which of `inputs` are touched by lost blobs. Those that no action makes are forgotten, so
    /// that they are read again; of the others the producers are returned.
    pub fn forget_lost(&self, inputs: &[ArtifactId], lost: &[Digest]) -> Vec<ActionId> {
        let lost: HashSet<Digest> = lost.iter().copied().collect();
        let mut producers = Vec::new();
        for id in inputs {
            let Some(node) = self.node(*id) else { continue };
            let touched = match &node {
                Node::File { digest, .. } => lost.contains(digest),
                Node::Symlink { .. } => false,
                Node::Tree { root } => self.tree_is_touched(root, &lost),
            };
            if !touched {
                continue;
            }
            match self.graph.producer(*id) {
                Some(producer) => producers.push(producer),
                None => self.forget(*id),
            }
        }
        producers.sort_unstable();
        producers.dedup();
        producers
    }

    /// All that was found out, for the report.
    pub fn into_nodes(self) -> HashMap<ArtifactId, Node> {
        self.contents.into_inner().unwrap_or_else(PoisonError::into_inner).nodes
    }

    /// Whether an artifact is what it was when `before` was written.
    pub fn is_as_before(&self, id: ArtifactId) -> bool {
        let Some(before) = self.before else { return false };
        let old = before.results.node(id);
        let Contents { nodes, lost, .. } = &*self.contents();
        match nodes.get(&id) {
            Some(node) => old.as_ref() == Some(node),
            None => old.is_some() && !lost.contains(&id) && before.holds(self.graph, id),
        }
    }

    /// What an earlier build knew of an artifact, if that still holds.
    fn known_before(&self, id: ArtifactId) -> Option<Node> {
        let before = self.before.filter(|before| before.holds(self.graph, id))?;
        before.results.node(id)
    }

    fn toolchain(
        &self,
        id: ArtifactId,
        toolchain: &Arc<Toolchain>,
        refresh: bool,
    ) -> Result<Node, InputError> {
        // Held over the resolution, so that two threads do not read the same files.
        let mut mounts = self.mounts();
        if let Some(known) = self.contents().nodes.get(&id).filter(|_| !refresh) {
            return Ok(known.clone());
        }
        mounts.remove(&id);
        let root = self.telling(toolchain, || self.toolchains.resolve(toolchain, refresh))?;
        Ok(Node::Tree { root })
    }

    /// Does something that takes long for a toolchain that is new or changed.
    fn telling<T>(
        &self,
        toolchain: &Toolchain,
        work: impl FnOnce() -> Result<T, ToolchainFailure>,
    ) -> Result<T, ToolchainFailure> {
        let name = || toolchain.name.clone();
        self.events.emit(Event::ToolchainStarted { name: name() });
        let done = work();
        self.events.emit(Event::ToolchainFinished { name: name() });
        done
    }

    fn mounts(&self) -> MutexGuard<'_, HashMap<ArtifactId, ToolchainMount>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree_is_touched(&self, root: &Digest, lost: &HashSet<Digest>) -> bool {
        if lost.contains(root) {
            return true;
        }
        match self.store.tree_files(root) {
            Ok(entries) => entries.iter().any(|entry| match &entry.node {
                Node::File { digest, .. } => lost.contains(digest),
                _ => false,
            }),
            Err(_) => true, // a folder of it is lost
        }
    }

    fn set(&self, id: ArtifactId, node: Node) -> bool {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let was_lost = contents.lost.remove(&id);
        let former = contents.nodes.get(&id);
        if former == Some(&node) {
            return false;
        }
        let is_replaced = was_lost || former.is_some();
        if is_replaced {
            *contents.replaced.entry(id).or_default() += 1;
        }
        contents.nodes.insert(id, node);
        is_replaced
    }

    fn forget(&self, id: ArtifactId) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.nodes.remove(&id);
        contents.lost.insert(id);
    }

    fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The execution path of an artifact.
    pub fn path(&self, id: ArtifactId) -> &RelPath {
        &self.graph.artifact(id).path
    }
}

impl Resolved for Resolver<'_> {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        let contents = self.contents();
        match contents.nodes.get(&artifact) {
            Some(node) => Some(node.clone()),
            None if contents.lost.contains(&artifact) => None,
            None => {
                drop(contents);
                self.known_before(artifact)
            }
        }
    }

    fn tree_files(&self, root: Digest) -> Option<Vec<String>> {
        let entries = self.store.tree_files(&root).ok()?;
        let files = entries.into_iter().filter_map(|entry| match entry.node {
            Node::Tree { .. } => None,
            Node::File { .. } | Node::Symlink { .. } => Some(entry.path),
        });
        Some(files.collect())
    }
}
