//! The action graph: a typed DAG of actions and artifacts with dense ids.
//!
//! It is built by analysis (or from a graph file), checked once, and then only read.
//! Invariants after [`ActionGraph::plan`] returned: every output has exactly one action, no output
//! lies inside another, no action depends on itself.
//!
//! A graph can be written as bytes ([`ActionGraph::store`]) and opened over them: then nothing is
//! decoded before it is asked for, and what analysis changes lies above as a [`GraphDelta`]. A
//! target that is analyzed again is *retired*: its actions no longer count, and its outputs can be
//! declared anew under the ids that they had, so that all that refers to them stays true.

mod check;
pub mod columns;
mod delta;
pub(crate) mod layer;
mod packed;
mod plan;
pub(crate) mod stored;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

use self::layer::Layer;
use self::packed::Packed;
use self::stored::{Stored, decode_first};
use crate::action::{ActionSpec, Arg, Artifact, ArtifactKind, How, Item, Origin, Toolchain};
use crate::depset::SetArena;
use crate::digest::DigestFunction;
use crate::label::Label;
use crate::path::RelPath;

pub use self::check::GraphError;
pub use self::delta::GraphDelta;
pub use self::plan::{ActionSet, Plan};

macro_rules! dense_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(u32);

        impl $name {
            /// The position in the graph's vector.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The id at a position; valid only for a graph that has it.
            pub fn from_index(index: usize) -> Self {
                Self(u32::try_from(index).expect("fewer than 2^32 nodes fit in memory"))
            }
        }
    };
}

dense_id!(
    /// Names an action of one graph.
    ActionId
);
dense_id!(
    /// Names an artifact of one graph.
    ArtifactId
);
dense_id!(
    /// Names a target of one graph.
    TargetId
);

/// A target as the user knows it, after analysis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Its label.
    pub label: Label,
    /// The name of the rule that made it.
    pub rule: Arc<str>,
    /// The aspect, such as `//tools:lint.star%lint`, where this is what one makes on the target of
    /// the label, and not that target itself.
    pub aspect: Option<Arc<str>>,
    /// `file:line:column` of the call that declared it.
    pub location: String,
    /// Targets it depends on directly.
    pub deps: Vec<TargetId>,
    /// What `build` makes for it.
    pub files: Vec<ArtifactId>,
    /// Further files that are made where their group is asked for, by the name of the group.
    pub groups: Vec<(String, Vec<ArtifactId>)>,
    /// What `run` starts, if it can be run.
    pub executable: Option<Box<Executable>>,
    /// The actions whose success is the test's, if it is a test.
    pub test: Option<Box<TestTarget>>,
    /// Its `tags` attribute.
    pub tags: Vec<String>,
}

impl Target {
    /// The target for people: its label in backticks, and the aspect if it is one's.
    pub fn title(&self) -> String {
        match &self.aspect {
            None => format!("`{}`", self.label),
            Some(aspect) => format!("`{}` (aspect `{aspect}`)", self.label),
        }
    }
}

/// How a target is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Executable {
    /// The program.
    pub file: ArtifactId,
    /// The tree of its runfiles, laid out as `<program>.runfiles`.
    pub runfiles: Option<ArtifactId>,
    /// Arguments that come before those of the user.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

/// How a target is tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestTarget {
    /// The actions that run it: one, or one for each shard, in their order.
    pub actions: Vec<ActionId>,
    /// `small`, `medium`, `large` or `enormous`.
    pub size: String,
}

/// What an action is for people: its first fields, read without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ActionHead<'a> {
    /// As [`ActionSpec::owner`].
    pub owner: TargetId,
    /// As [`ActionSpec::mnemonic`].
    pub mnemonic: &'a str,
}

/// An artifact and the target that declared it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) artifact: Artifact,
    pub(crate) owner: Option<TargetId>,
}

/// Actions, artifacts and targets.
#[derive(Debug, Default)]
pub struct ActionGraph {
    stored: Option<Stored>,
    artifacts: Layer<Declared>,
    actions: Packed,
    targets: Layer<Target>,
    /// Actions that no longer count.
    retired: ActionSet,
    /// Artifacts that are not stored, by their paths.
    by_path: HashTable<ArtifactId>,
    hasher: DefaultHashBuilder,
    toolchains: HashMap<Arc<Toolchain>, ArtifactId>,
    /// The sets that actions and arguments refer to.
    pub sets: SetArena,
}

impl ActionGraph {
    /// The targets with a label; one for each configuration that was analyzed.
    pub fn targets_named(&self, label: &Label) -> Vec<TargetId> {
        let text = label.to_string();
        let stored = self.stored.iter().flat_map(|stored| stored.targets_at(&text));
        let base = self.targets.base_len();
        let added = (base..self.targets.len())
            .map(TargetId::from_index)
            .filter(|id| self.target(*id).label == *label);
        stored.chain(added).collect()
    }

    /// Whether an action no longer counts.
    pub fn is_retired(&self, id: ActionId) -> bool {
        self.retired.contains(id)
    }

    /// All actions that count.
    pub fn live_actions(&self) -> impl Iterator<Item = ActionId> + '_ {
        let all = (0..self.actions.len()).map(ActionId::from_index);
        all.filter(|id| !self.is_retired(*id))
    }

    /// The actions that are not stored, retired ones included.
    pub(crate) fn added_actions(&self) -> impl Iterator<Item = ActionId> + '_ {
        (self.actions.base_len()..self.actions.len()).map(ActionId::from_index)
    }

    /// How many actions the stored part has; those from here on are new.
    pub fn stored_action_count(&self) -> usize {
        self.actions.base_len()
    }

    /// How many artifacts the stored part has; those from here on are new.
    pub fn stored_artifact_count(&self) -> usize {
        self.artifacts.base_len()
    }

    /// The target that declared an artifact as its output.
    pub fn owner(&self, id: ArtifactId) -> Option<TargetId> {
        match (self.artifacts.changed(id.index()), &self.stored) {
            (Some(declared), _) => declared.owner,
            (None, Some(stored)) => stored.owner(id.index()),
            (None, None) => None,
        }
    }

    /// The artifact of a source file; the same path gives the same id.
    pub fn source(&mut self, path: RelPath) -> ArtifactId {
        self.intern(path, ArtifactKind::File, Origin::Source)
    }

    /// The artifact of a file that ships inside Maestro.
    pub fn builtin(&mut self, path: RelPath, bytes: Arc<[u8]>) -> ArtifactId {
        self.intern(path, ArtifactKind::File, Origin::Builtin(bytes))
    }

    /// The artifact of a toolchain; equal declarations give the same id.
    pub fn toolchain(&mut self, toolchain: Toolchain) -> ArtifactId {
        let toolchain = Arc::new(toolchain);
        if let Some(id) = self.toolchains.get(&toolchain) {
            return *id;
        }
        let path = toolchain_path(&toolchain);
        let origin = Origin::Toolchain(toolchain.clone());
        let id = self.push(Artifact { path, kind: ArtifactKind::Tree, origin }, None);
        self.toolchains.insert(toolchain, id);
        id
    }

    /// Declares an output of `owner`, to be made by an action that is added later.
    pub fn declare_output(
        &mut self,
        path: RelPath,
        kind: ArtifactKind,
        owner: TargetId,
    ) -> Result<ArtifactId, GraphError> {
        let origin = Origin::Action(None);
        if let Some(other) = self.artifact_at(&path) {
            if !self.is_free(other) {
                return Err(GraphError::DuplicateOutput {
                    first: self.owner_title(other, owner),
                    second: self.target(owner).title(),
                    path,
                });
            }
            let artifact = Artifact { path, kind, origin };
            self.artifacts.put(other.index(), Declared { artifact, owner: Some(owner) });
            return Ok(other);
        }
        Ok(self.push_at(Artifact { path, kind, origin }, Some(owner)))
    }

    /// Adds an action; each of its outputs must be declared and not made yet.
    pub fn add_action(&mut self, spec: ActionSpec) -> Result<ActionId, GraphError> {
        let id = ActionId::from_index(self.actions.len());
        for output in &spec.outputs {
            let artifact = self.artifact(output.artifact);
            match artifact.origin {
                Origin::Action(None) => {}
                _ => {
                    return Err(GraphError::DuplicateOutput {
                        path: artifact.path.clone(),
                        first: self.owner_title(output.artifact, spec.owner),
                        second: self.target(spec.owner).title(),
                    });
                }
            }
        }
        for output in &spec.outputs {
            if let Some(declared) = self.declared_mut(output.artifact) {
                declared.artifact.origin = Origin::Action(Some(id));
            }
        }
        self.actions.push(&spec);
        Ok(id)
    }

    /// Adds a target.
    pub fn add_target(&mut self, target: Target) -> TargetId {
        TargetId::from_index(self.targets.push(target))
    }

    /// The artifact of an id.
    pub fn artifact(&self, id: ArtifactId) -> &Artifact {
        let decode = || self.base().artifact(id.index());
        let declared = self.artifacts.get(id.index(), decode);
        &declared.expect("an artifact id comes from this graph").artifact
    }

    /// The action of an id, made from the bytes that the graph keeps of it.
    pub fn action(&self, id: ActionId) -> ActionSpec {
        match id.index() < self.actions.base_len() {
            true => self.base().action(id.index()),
            false => self.actions.get(id.index()).expect("an action id comes from this graph"),
        }
    }

    /// The owner and the mnemonic of an action, which lie first in the bytes that are kept of it.
    pub fn action_head(&self, id: ActionId) -> ActionHead<'_> {
        decode_first(self.action_bytes(id))
    }

    /// What is kept of an action.
    fn action_bytes(&self, id: ActionId) -> &[u8] {
        let added = self.actions.bytes(id.index());
        added.unwrap_or_else(|| self.base().action_bytes(id.index()))
    }

    /// The target of an id.
    pub fn target(&self, id: TargetId) -> &Target {
        let decode = || self.base().target(id.index());
        self.targets.get(id.index(), decode).expect("a target id comes from this graph")
    }

    /// The target of an id, to be completed by analysis.
    pub fn target_mut(&mut self, id: TargetId) -> &mut Target {
        let Self { stored, targets, .. } = self;
        let decode = || stored.as_ref().expect(HAS_BASE).target(id.index());
        targets.get_mut(id.index(), decode).expect("a target id comes from this graph")
    }

    /// All targets with their ids.
    pub fn targets(&self) -> impl Iterator<Item = (TargetId, &Target)> {
        let ids = (0..self.targets.len()).map(TargetId::from_index);
        ids.map(|id| (id, self.target(id)))
    }

    /// How many targets there are.
    pub fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// All declared toolchains.
    pub fn toolchains(&self) -> impl Iterator<Item = &Toolchain> {
        let mut found: Vec<(&ArtifactId, &Arc<Toolchain>)> =
            self.toolchains.iter().map(|(toolchain, id)| (id, toolchain)).collect();
        found.sort_unstable_by_key(|(id, _)| **id);
        found.into_iter().map(|(_, toolchain)| toolchain.as_ref())
    }

    /// How many actions there are.
    pub fn action_count(&self) -> usize {
        self.actions.len()
    }

    /// How many artifacts there are.
    pub fn artifact_count(&self) -> usize {
        self.artifacts.len()
    }

    /// The artifact at an execution path, if there is one.
    pub fn artifact_at(&self, path: &RelPath) -> Option<ArtifactId> {
        let stored = || self.stored.as_ref()?.artifact_at(path.as_str());
        let is_there = |id: &ArtifactId| self.artifact(*id).path == *path;
        self.by_path.find(self.hasher.hash_one(path), is_there).copied().or_else(stored)
    }

    /// The artifacts that an action reads, toolchains included, each once.
    pub fn inputs_of(&self, id: ActionId) -> Vec<ArtifactId> {
        let spec = self.action(id);
        let mut out: Vec<ArtifactId> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let flat = self.sets.flatten(spec.inputs);
        let direct = flat.into_iter().filter_map(|item| match item {
            Item::Artifact(artifact) => Some(*artifact),
            Item::Text(_) => None,
        });
        for artifact in direct.chain(spec.toolchains.iter().copied()) {
            if seen.insert(artifact) {
                out.push(artifact);
            }
        }
        out
    }

    /// The action that makes an artifact, if one does.
    pub fn producer(&self, artifact: ArtifactId) -> Option<ActionId> {
        match (self.artifacts.changed(artifact.index()), &self.stored) {
            (Some(Declared { artifact, .. }), _) => match artifact.origin {
                Origin::Action(action) => action,
                _ => None,
            },
            (None, Some(stored)) => stored.producer(artifact.index()),
            (None, None) => None,
        }
    }

    /// Whether an artifact is what is left of a retired target.
    fn is_free(&self, id: ArtifactId) -> bool {
        self.owner(id).is_none() && matches!(self.artifact(id).origin, Origin::Action(None))
    }

    fn owner_title(&self, artifact: ArtifactId, otherwise: TargetId) -> String {
        self.target(self.owner(artifact).unwrap_or(otherwise)).title()
    }

    fn intern(&mut self, path: RelPath, kind: ArtifactKind, origin: Origin) -> ArtifactId {
        if let Some(id) = self.artifact_at(&path) {
            if self.is_free(id) {
                let artifact = Artifact { path, kind, origin };
                self.artifacts.put(id.index(), Declared { artifact, owner: None });
            }
            return id;
        }
        self.push_at(Artifact { path, kind, origin }, None)
    }

    /// Adds an artifact that is found by its path.
    fn push_at(&mut self, artifact: Artifact, owner: Option<TargetId>) -> ArtifactId {
        let id = self.push(artifact, owner);
        self.index_path(id);
        id
    }

    /// Makes an artifact that is not stored known by its path.
    fn index_path(&mut self, id: ArtifactId) {
        let Self { by_path, hasher, artifacts, .. } = self;
        let hash = |id: &ArtifactId| {
            let declared = artifacts.changed(id.index());
            hasher.hash_one(&declared.expect("an indexed artifact is not stored").artifact.path)
        };
        by_path.insert_unique(hash(&id), id, hash);
    }

    fn push(&mut self, artifact: Artifact, owner: Option<TargetId>) -> ArtifactId {
        ArtifactId::from_index(self.artifacts.push(Declared { artifact, owner }))
    }

    fn declared_mut(&mut self, id: ArtifactId) -> Option<&mut Declared> {
        let Self { stored, artifacts, .. } = self;
        let decode = || stored.as_ref().expect(HAS_BASE).artifact(id.index());
        artifacts.get_mut(id.index(), decode)
    }

    fn base(&self) -> &Stored {
        self.stored.as_ref().expect(HAS_BASE)
    }
}

const HAS_BASE: &str = "stored ids occur only in a graph that was opened";

/// Where native steps see a toolchain. It is in their keys, so it depends on what the toolchain
/// is made of and on nothing else: not on its name, nor on what else was loaded.
fn toolchain_path(toolchain: &Toolchain) -> RelPath {
    let Toolchain { name: _, packages, exclude, exclude_paths } = toolchain;
    let text = format!("{packages:?}{exclude:?}{exclude_paths:?}");
    let digest = DigestFunction::Sha256.digest(text.as_bytes());
    RelPath::new(&format!(".maestro/toolchain/{}", digest.short()))
        .expect("a constant and hex digits make a normal path")
}

/// Walks every artifact that an argument names directly.
pub fn argument_artifacts(how: &How, visit: &mut dyn FnMut(ArtifactId)) {
    fn walk(args: &[Arg], visit: &mut dyn FnMut(ArtifactId)) {
        for arg in args {
            match arg {
                Arg::One(items) => items.iter().for_each(|item| {
                    if let Item::Artifact(id) = item {
                        visit(*id);
                    }
                }),
                Arg::Many(sequence) => sequence.direct.iter().for_each(|item| {
                    if let Item::Artifact(id) = item {
                        visit(*id);
                    }
                }),
                Arg::ParamFile { args, .. } => walk(args, visit),
            }
        }
    }
    match how {
        How::Command { argv } => walk(argv, visit),
        How::Params { args, .. } => walk(args, visit),
        How::Map(map) => walk(&map.argv, visit),
        How::Native { .. } => {}
    }
}
