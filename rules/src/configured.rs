//! From requested labels to configured targets: what is built for what, and on what it depends.
//!
//! A node is a label in a configuration. Discovery walks from the requested ones along their
//! attributes, loads packages in batches as it meets them, and runs no rule. Then `order` sorts the
//! nodes, reports cycles, and trims each configuration to what the node and all below it read:
//! nodes that are equal after that are analyzed once.
//!
//! Invariant: after [`ConfiguredGraph::discover`], an edge of a node that is not failed leads to a
//! node that is not failed either, or the error is reported.

pub(crate) mod aspects;
mod check;
mod incompatible;
mod order;
mod visit;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use maestro_core::Label;

use self::aspects::{Applied, AspectTable};
use self::incompatible::Incompatible;
use self::visit::Stopped;
use crate::aspect::AspectSpec;
use crate::config::definitions::Definitions;
use crate::config::reads::{ReadsId, ReadsTable};
use crate::config::request::Configured;
use crate::config::toolchains::Resolution;
use crate::config::{ConfigId, Configurations, Setting, SettingValue, TrimId, TrimTable};
use crate::diagnostic::Diagnostic;
use crate::error::RuleError;
use crate::package::TargetDecl;
use crate::resolve::Universe;
use crate::rule::PARAM_DEFAULT;
use crate::values::exec_group::GroupNeeds;

pub(crate) use self::check::in_attribute;

/// Names a node of one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("nodes fit in memory"))
    }

    /// The position among the nodes of the graph.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which attribute an edge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The attribute at this position of the rule.
    Attribute(u16),
    /// The same attribute as the edge before it: an aspect on what that leads to.
    Aspect(u16),
    /// The toolchain of the type at this position of the rule.
    Toolchain(u16),
    /// What tests need to be started.
    TestToolchain,
    /// The target that makes a file.
    Owner,
    /// The target that an aspect is on; edges of [`Via::Aspect`] behind it are the aspects that it
    /// sees there.
    Base,
    /// The attribute at this position of the aspect.
    AspectAttribute(u16),
    /// The toolchain of the type at this position of the aspect.
    AspectToolchain(u16),
}

impl Via {
    /// The attribute at a position of a rule.
    pub(crate) fn attribute(position: usize) -> Self {
        Self::Attribute(u16::try_from(position).unwrap_or(u16::MAX))
    }

    /// The attribute at a position of an aspect.
    pub(crate) fn aspect_attribute(position: usize) -> Self {
        Self::AspectAttribute(u16::try_from(position).unwrap_or(u16::MAX))
    }
}

/// A dependency of a node.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) via: Via,
    pub(crate) to: NodeId,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// Not looked at yet.
    Unknown,
    /// A target of a rule; its attributes have no `select` left.
    Rule(Arc<TargetDecl>),
    /// Another name, or a target before the transition of its rule; the one edge leads to what it
    /// stands for.
    Alias(Arc<TargetDecl>),
    /// A file that a target declares as its output; the one edge leads to the target.
    Output(Arc<TargetDecl>),
    /// A source file.
    Source,
    /// An aspect on a target.
    Aspect(Arc<Applied>),
    /// An aspect on something that it passes over.
    Bare,
    /// There is no such thing; whoever names it reports why. `None` where that is reported already.
    Failed(Option<Box<RuleError>>),
}

/// A label in a configuration.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) label: Label,
    pub(crate) config: ConfigId,
    pub(crate) kind: NodeKind,
    pub(crate) edges: Box<[Edge]>,
    /// What it reads of the configuration; with all below it once the nodes are in order.
    reads: ReadsId,
    /// Whether the transition of its rule was applied already.
    transitioned: bool,
    /// What is left of the configuration.
    pub(crate) trimmed: TrimId,
    /// The node that stands for all that are equal after trimming.
    pub(crate) canonical: NodeId,
    /// Whether it is as it was in an earlier build; then nobody looks at what it depends on.
    pub(crate) remembered: bool,
}

impl Node {
    /// What it is found by.
    fn key(&self) -> (&Label, ConfigId, bool) {
        (&self.label, self.config, self.transitioned)
    }
}

/// Toolchains and a platform, and what finding them read of the configuration.
type Resolved = (Arc<Resolution>, BTreeSet<Setting>);

/// What was found for each execution group of a node, the default one first.
type Groups = Box<[Arc<Resolution>]>;

/// What a label in a configuration is known to read, with all below it, if it is as it was in an
/// earlier build.
pub(crate) type Recall<'a> = &'a dyn Fn(&Label, ConfigId) -> Option<BTreeSet<Setting>>;

/// Every configured target that a request needs.
#[derive(Debug)]
pub(crate) struct ConfiguredGraph {
    nodes: Vec<Node>,
    /// Nodes by label, configuration, and whether the transition of the rule was applied already.
    index: HashTable<NodeId>,
    hasher: DefaultHashBuilder,
    /// Dependencies before dependents, each canonical node once, failed ones left out.
    order: Vec<NodeId>,
    /// What is asked for.
    target: ConfigId,
    configurations: Configurations,
    definitions: Definitions,
    reads: ReadsTable,
    /// What was found for the execution groups of nodes, where there was something to find.
    resolutions: HashMap<NodeId, Groups>,
    /// The same by what was asked for, with what that read: targets of one rule get the same.
    resolved: HashMap<ConfigId, HashMap<GroupNeeds, Resolved>>,
    /// The names of the configurations to which the transition of an attribute leads.
    splits: HashMap<(NodeId, u16), Box<[Arc<str>]>>,
    /// Constraint values that the platforms of their nodes have.
    holding: HashSet<NodeId>,
    /// Nodes that cannot be built for their platform, and why.
    incompatible: HashMap<NodeId, Incompatible>,
    pub(crate) trims: TrimTable,
    aspects: AspectTable,
    /// What there is to say about targets that are fine, by their labels.
    warnings: HashMap<Label, Vec<Diagnostic>>,
}

impl ConfiguredGraph {
    /// Finds everything that requested labels need.
    pub(crate) fn discover(
        universe: &mut Universe<'_>,
        configured: Configured,
        requested: &[Label],
        aspects: &[Arc<AspectSpec>],
        recall: Recall<'_>,
    ) -> Self {
        let Configured { target, configurations, definitions } = configured;
        let mut graph = Self {
            nodes: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            order: Vec::new(),
            target,
            configurations,
            definitions,
            reads: ReadsTable::new(),
            resolutions: HashMap::new(),
            resolved: HashMap::new(),
            splits: HashMap::new(),
            holding: HashSet::new(),
            incompatible: HashMap::new(),
            trims: TrimTable::new(),
            aspects: AspectTable::default(),
            warnings: HashMap::new(),
        };
        let mut pending = Vec::new();
        for label in requested {
            graph.want(label, target, &mut pending);
        }
        let roots = pending.clone();
        if let Err(error) = graph.ask_for_aspects(aspects, &roots, &mut pending) {
            universe.diagnostics.push(Diagnostic::of(error, None));
        }
        let all = pending.clone();
        pending.reverse();
        graph.visit_all(universe, pending, recall);
        graph.check_edges(universe, &roots);
        graph.sort_and_trim(universe, &all);
        graph.settle_aspects();
        graph
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.index()).expect("an id comes from this graph")
    }

    /// How many nodes there are.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(id.index()).expect("an id comes from this graph")
    }

    /// The node of a requested label.
    pub(crate) fn requested(&self, label: &Label) -> Option<NodeId> {
        let id = self.find(label, self.target, false)?;
        Some(self.node(id).canonical)
    }

    /// The value of a param in the configuration of its node.
    pub(crate) fn param(&self, node: &Node, decl: &TargetDecl) -> Option<SettingValue> {
        let setting = decl.rule.build_setting.as_ref()?;
        let own = Setting::Param(decl.label.clone());
        let mut set = self.trims.get(node.trimmed).values.iter();
        match set.find(|(setting, _)| *setting == own) {
            Some((_, value)) => Some(value.clone()),
            None => decl.attr(PARAM_DEFAULT).and_then(|value| setting.ty.value_of(value)),
        }
    }

    /// What was found for the execution groups of a node, in the order of [`Execution::all`];
    /// nothing where all run on this machine and need no toolchain.
    ///
    /// [`Execution::all`]: crate::values::exec_group::Execution::all
    pub(crate) fn resolutions(&self, id: NodeId) -> &[Arc<Resolution>] {
        self.resolutions.get(&id).map(|found| &**found).unwrap_or_default()
    }

    /// The names of the configurations to which the transition of an attribute leads: `None`
    /// where the attribute has no transition, none where that does not split.
    pub(crate) fn split(&self, id: NodeId, position: usize) -> Option<&[Arc<str>]> {
        let position = u16::try_from(position).ok()?;
        self.splits.get(&(id, position)).map(|keys| &**keys)
    }

    /// Whether the platform of a constraint value's node has it.
    pub(crate) fn holds(&self, id: NodeId) -> bool {
        self.holding.contains(&id)
    }

    /// Whether a node cannot be built for its platform.
    pub(crate) fn is_incompatible(&self, id: NodeId) -> bool {
        self.incompatible.contains_key(&id)
    }

    /// The nodes whose analysis makes what a node depends on.
    pub(crate) fn owners(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let targets = self.node(id).edges.iter().map(|edge| self.target(edge));
        targets.filter_map(|to| {
            let node = self.node(to);
            match node.kind {
                NodeKind::Rule(_) | NodeKind::Aspect(_) => Some(to),
                NodeKind::Output(_) => node.edges.first().map(|edge| self.target(edge)),
                NodeKind::Alias(_)
                | NodeKind::Source
                | NodeKind::Bare
                | NodeKind::Unknown
                | NodeKind::Failed(_) => None,
            }
        })
    }

    /// Whether a node stands for a file rather than a target.
    pub(crate) fn is_file(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, NodeKind::Output(_) | NodeKind::Source)
    }

    /// The node at the end of an edge, as it is analyzed.
    pub(crate) fn target(&self, edge: &Edge) -> NodeId {
        self.node(edge.to).canonical
    }

    /// The nodes to be analyzed, dependencies first.
    pub(crate) fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// The id of a label in a configuration; new ones are to be visited.
    fn want(&mut self, label: &Label, config: ConfigId, pending: &mut Vec<NodeId>) -> NodeId {
        self.want_after(label, config, false, pending)
    }

    fn want_after(
        &mut self,
        label: &Label,
        config: ConfigId,
        transitioned: bool,
        pending: &mut Vec<NodeId>,
    ) -> NodeId {
        let key = (label, config, transitioned);
        let hash = self.hasher.hash_one(key);
        if let Some(id) = self.index.find(hash, |id| self.node(*id).key() == key) {
            return *id;
        }
        let id = self.push(label.clone(), config, transitioned);
        let Self { nodes, index, hasher, .. } = self;
        index.insert_unique(hash, id, |other| {
            let node = nodes.get(other.index());
            hasher.hash_one(node.map(Node::key).expect("indexed nodes are there"))
        });
        pending.push(id);
        id
    }

    fn find(&self, label: &Label, config: ConfigId, transitioned: bool) -> Option<NodeId> {
        let key = (label, config, transitioned);
        let is_same = |id: &NodeId| self.node(*id).key() == key;
        self.index.find(self.hasher.hash_one(key), is_same).copied()
    }

    fn push(&mut self, label: Label, config: ConfigId, transitioned: bool) -> NodeId {
        let id = NodeId::from_index(self.nodes.len());
        self.nodes.push(Node {
            label,
            config,
            kind: NodeKind::Unknown,
            edges: Box::default(),
            reads: ReadsId::NONE,
            transitioned,
            trimmed: TrimId::SHARED,
            canonical: id,
            remembered: false,
        });
        id
    }

    /// Visits nodes and all that they lead to; what misses a package waits for the next batch.
    fn visit_all(
        &mut self,
        universe: &mut Universe<'_>,
        mut pending: Vec<NodeId>,
        recall: Recall<'_>,
    ) {
        loop {
            let mut later = Vec::new();
            let mut missing = BTreeSet::new();
            while let Some(id) = pending.pop() {
                let mut found = Vec::new();
                match self.visit(universe, id, &mut found, recall) {
                    Ok(()) => pending.extend(found.into_iter().rev()),
                    Err(Stopped::Later) => later.push(id),
                    Err(Stopped::Missing(packages)) => {
                        missing.extend(packages);
                        later.push(id);
                    }
                    Err(Stopped::Failed(diagnostic)) => {
                        universe.diagnostics.extend(diagnostic);
                        self.node_mut(id).kind = NodeKind::Failed(None);
                    }
                }
            }
            if later.is_empty() {
                return;
            }
            if let Err(error) = universe.load(missing) {
                universe.diagnostics.push(Diagnostic::of(error, None));
                return;
            }
            pending = later.into_iter().rev().collect();
        }
    }

    /// What a node reads of its configuration, with all below it.
    pub(crate) fn reads(&self, id: NodeId) -> &BTreeSet<Setting> {
        self.reads.get(self.node(id).reads)
    }
}
