//! The action graph: a typed DAG of actions and artifacts with dense ids.
//!
//! It is built by analysis (or from a graph file), checked once, and then only read.
//! Invariants after [`ActionGraph::plan`] returned: every output has exactly one action, no output
//! lies inside another, no action depends on itself.

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::action::{ActionSpec, Arg, Artifact, ArtifactKind, How, Item, Origin, Toolchain};
use crate::depset::SetArena;
use crate::digest::DigestFunction;
use crate::label::Label;
use crate::path::RelPath;

macro_rules! dense_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Debug)]
pub struct Target {
    /// Its label.
    pub label: Label,
    /// The name of the rule that made it.
    pub rule: String,
    /// `file:line:column` of the call that declared it.
    pub location: String,
    /// Targets it depends on directly.
    pub deps: Vec<TargetId>,
    /// What `build` makes for it.
    pub files: Vec<ArtifactId>,
    /// What `run` starts, if it can be run.
    pub executable: Option<Executable>,
    /// The action whose success is the test's, if it is a test.
    pub test: Option<TestTarget>,
    /// Its `tags` attribute.
    pub tags: Vec<String>,
}

/// How a target is run.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct TestTarget {
    /// The action that runs the test.
    pub action: ActionId,
    /// `small`, `medium`, `large` or `enormous`.
    pub size: String,
}

/// Why a graph is not well formed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// Two actions declare the same output.
    #[error("`{path}` is an output of both `{first}` and `{second}`")]
    DuplicateOutput {
        /// The output.
        path: RelPath,
        /// Who declared it first.
        first: Label,
        /// Who declared it again.
        second: Label,
    },
    /// One output lies inside another.
    #[error("output `{inner}` of `{inner_owner}` lies inside output `{outer}` of `{outer_owner}`")]
    PrefixConflict {
        /// The output that would have to be a folder.
        outer: RelPath,
        /// Its owner.
        outer_owner: Label,
        /// The output below it.
        inner: RelPath,
        /// Its owner.
        inner_owner: Label,
    },
    /// An output was declared but no action makes it.
    #[error("no action makes the declared output `{path}` of `{owner}`")]
    NotMade {
        /// The output.
        path: RelPath,
        /// Who declared it.
        owner: Label,
    },
    /// Actions depend on each other in a circle.
    #[error("actions depend on each other in a cycle:\n{}", cycle_text(.steps))]
    Cycle {
        /// The steps, each as (owner, where it was declared, an output), the first one again last.
        steps: Vec<(Label, String, RelPath)>,
    },
}

fn cycle_text(steps: &[(Label, String, RelPath)]) -> String {
    let lines: Vec<String> = steps
        .iter()
        .map(|(label, location, path)| format!("  `{path}` of `{label}` ({location}) needs"))
        .collect();
    lines.join("\n")
}

/// Actions, artifacts and targets.
#[derive(Debug, Default)]
pub struct ActionGraph {
    artifacts: Vec<Artifact>,
    owners: Vec<Option<TargetId>>,
    actions: Vec<ActionSpec>,
    targets: Vec<Target>,
    by_path: HashMap<RelPath, ArtifactId>,
    toolchains: HashMap<Arc<Toolchain>, ArtifactId>,
    /// The sets that actions and arguments refer to.
    pub sets: SetArena,
}

impl ActionGraph {
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
        let id = self.push(Artifact {
            path,
            kind: ArtifactKind::Tree,
            origin: Origin::Toolchain(toolchain.clone()),
        });
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
        if let Some(other) = self.by_path.get(&path) {
            return Err(GraphError::DuplicateOutput {
                first: self.owner_label(*other, owner),
                second: self.target(owner).label.clone(),
                path,
            });
        }
        let id = self.push(Artifact { path: path.clone(), kind, origin: Origin::Action(None) });
        if let Some(slot) = self.owners.get_mut(id.index()) {
            *slot = Some(owner);
        }
        self.by_path.insert(path, id);
        Ok(id)
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
                        first: self.owner_label(output.artifact, spec.owner),
                        second: self.target(spec.owner).label.clone(),
                    });
                }
            }
        }
        for output in &spec.outputs {
            if let Some(artifact) = self.artifacts.get_mut(output.artifact.index()) {
                artifact.origin = Origin::Action(Some(id));
            }
        }
        self.actions.push(spec);
        Ok(id)
    }

    /// Adds a target.
    pub fn add_target(&mut self, target: Target) -> TargetId {
        self.targets.push(target);
        TargetId::from_index(self.targets.len() - 1)
    }

    /// The artifact of an id.
    pub fn artifact(&self, id: ArtifactId) -> &Artifact {
        self.artifacts.get(id.index()).expect("an artifact id comes from this graph")
    }

    /// The action of an id.
    pub fn action(&self, id: ActionId) -> &ActionSpec {
        self.actions.get(id.index()).expect("an action id comes from this graph")
    }

    /// The target of an id.
    pub fn target(&self, id: TargetId) -> &Target {
        self.targets.get(id.index()).expect("a target id comes from this graph")
    }

    /// The target of an id, to be completed by analysis.
    pub fn target_mut(&mut self, id: TargetId) -> &mut Target {
        self.targets.get_mut(id.index()).expect("a target id comes from this graph")
    }

    /// All targets with their ids.
    pub fn targets(&self) -> impl Iterator<Item = (TargetId, &Target)> {
        self.targets.iter().enumerate().map(|(i, t)| (TargetId::from_index(i), t))
    }

    /// All declared toolchains.
    pub fn toolchains(&self) -> impl Iterator<Item = &Toolchain> {
        self.artifacts.iter().filter_map(|artifact| match &artifact.origin {
            Origin::Toolchain(toolchain) => Some(toolchain.as_ref()),
            _ => None,
        })
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
        self.by_path.get(path).copied()
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

    /// Checks the graph and orders the actions that `requested` artifacts need.
    pub fn plan(&self, requested: &[ArtifactId]) -> Result<Plan, GraphError> {
        self.check_outputs()?;
        let mut dag = DiGraph::<ActionId, ()>::new();
        let mut nodes: HashMap<ActionId, NodeIndex> = HashMap::new();
        let mut inputs = HashMap::new();
        let mut stack: Vec<ActionId> =
            requested.iter().filter_map(|artifact| self.producer(*artifact)).collect();
        while let Some(id) = stack.pop() {
            let node = *nodes.entry(id).or_insert_with(|| dag.add_node(id));
            if inputs.contains_key(&id) {
                continue;
            }
            let reads = self.inputs_of(id);
            let mut producers: Vec<ActionId> =
                reads.iter().filter_map(|artifact| self.producer(*artifact)).collect();
            producers.sort_unstable();
            producers.dedup();
            for producer in producers {
                let from = *nodes.entry(producer).or_insert_with(|| dag.add_node(producer));
                dag.add_edge(from, node, ());
                stack.push(producer);
            }
            inputs.insert(id, reads);
        }
        match petgraph::algo::toposort(&dag, None) {
            Ok(order) => {
                let order = order.into_iter().filter_map(|n| dag.node_weight(n).copied()).collect();
                Ok(Plan { order, dag, nodes, inputs })
            }
            Err(_) => Err(self.describe_cycle(&dag)),
        }
    }

    /// The action that makes an artifact, if one does.
    pub fn producer(&self, artifact: ArtifactId) -> Option<ActionId> {
        match self.artifact(artifact).origin {
            Origin::Action(action) => action,
            _ => None,
        }
    }

    fn check_outputs(&self) -> Result<(), GraphError> {
        for (artifact, owner) in self.artifacts.iter().zip(&self.owners) {
            let (Origin::Action(made), Some(owner)) = (&artifact.origin, owner) else { continue };
            let owner_label = &self.target(*owner).label;
            if made.is_none() {
                let path = artifact.path.clone();
                return Err(GraphError::NotMade { path, owner: owner_label.clone() });
            }
            let mut above = artifact.path.parent();
            while let Some(path) = above {
                if let Some(outer) = self.by_path.get(&path)
                    && matches!(self.artifact(*outer).origin, Origin::Action(_))
                {
                    return Err(GraphError::PrefixConflict {
                        outer: path,
                        outer_owner: self.owner_label(*outer, *owner),
                        inner: artifact.path.clone(),
                        inner_owner: owner_label.clone(),
                    });
                }
                above = path.parent();
            }
        }
        Ok(())
    }

    fn describe_cycle(&self, dag: &DiGraph<ActionId, ()>) -> GraphError {
        let component = petgraph::algo::tarjan_scc(dag)
            .into_iter()
            .find(|c| c.len() > 1 || c.first().is_some_and(|n| dag.contains_edge(*n, *n)))
            .unwrap_or_default();
        let members: std::collections::HashSet<NodeIndex> = component.iter().copied().collect();
        // Walk inside the component until a node repeats; what lies between is one cycle.
        let mut walk: Vec<NodeIndex> = Vec::new();
        let mut next = component.first().copied();
        while let Some(node) = next {
            if let Some(start) = walk.iter().position(|n| *n == node) {
                walk.drain(..start);
                walk.push(node);
                break;
            }
            walk.push(node);
            next = dag
                .neighbors_directed(node, petgraph::Direction::Incoming)
                .find(|n| members.contains(n));
        }
        let steps = walk.into_iter().filter_map(|node| {
            let spec = self.action(*dag.node_weight(node)?);
            let target = self.target(spec.owner);
            let output = self.artifact(spec.outputs.first()?.artifact);
            Some((target.label.clone(), target.location.clone(), output.path.clone()))
        });
        GraphError::Cycle { steps: steps.collect() }
    }

    fn owner_label(&self, artifact: ArtifactId, otherwise: TargetId) -> Label {
        let owner = self.owners.get(artifact.index()).copied().flatten().unwrap_or(otherwise);
        self.target(owner).label.clone()
    }

    fn intern(&mut self, path: RelPath, kind: ArtifactKind, origin: Origin) -> ArtifactId {
        if let Some(id) = self.by_path.get(&path) {
            return *id;
        }
        let id = self.push(Artifact { path: path.clone(), kind, origin });
        self.by_path.insert(path, id);
        id
    }

    fn push(&mut self, artifact: Artifact) -> ArtifactId {
        self.artifacts.push(artifact);
        self.owners.push(None);
        ArtifactId::from_index(self.artifacts.len() - 1)
    }
}

/// Where native steps see a toolchain. It is in their keys, so it depends on what the toolchain
/// is made of and on nothing else: not on its name, nor on what else was loaded.
fn toolchain_path(toolchain: &Toolchain) -> RelPath {
    let Toolchain { name: _, packages, exclude, exclude_paths } = toolchain;
    let text = format!("{packages:?}{exclude:?}{exclude_paths:?}");
    let digest = DigestFunction::Sha256.digest(text.as_bytes());
    RelPath::new(&format!(".maestro/toolchain/{}", digest.short()))
        .expect("a constant and hex digits make a normal path")
}

/// The actions that a request needs, producers before consumers.
#[derive(Debug)]
pub struct Plan {
    /// Every needed action once, in a topological order.
    pub order: Vec<ActionId>,
    dag: DiGraph<ActionId, ()>,
    nodes: HashMap<ActionId, NodeIndex>,
    inputs: HashMap<ActionId, Vec<ArtifactId>>,
}

impl Plan {
    /// The actions that must be done before `action`.
    pub fn producers(&self, action: ActionId) -> impl Iterator<Item = ActionId> + '_ {
        self.neighbors(action, petgraph::Direction::Incoming)
    }

    /// The actions that wait for `action`.
    pub fn consumers(&self, action: ActionId) -> impl Iterator<Item = ActionId> + '_ {
        self.neighbors(action, petgraph::Direction::Outgoing)
    }

    /// The artifacts that an action of the plan reads.
    pub fn inputs(&self, action: ActionId) -> &[ArtifactId] {
        self.inputs.get(&action).map_or(&[], Vec::as_slice)
    }

    fn neighbors(
        &self,
        action: ActionId,
        direction: petgraph::Direction,
    ) -> impl Iterator<Item = ActionId> + '_ {
        let node = self.nodes.get(&action).copied();
        node.into_iter()
            .flat_map(move |n| self.dag.neighbors_directed(n, direction))
            .filter_map(|n| self.dag.node_weight(n).copied())
    }
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
    if let How::Command { argv } = how {
        walk(argv, visit);
    }
}
