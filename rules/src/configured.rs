//! From requested labels to configured targets: what is built for what, and on what it depends.
//!
//! A node is a label in a configuration. Discovery walks from the requested ones along their
//! attributes, loads packages in batches as it meets them, and runs no rule. Then `order` sorts the
//! nodes, reports cycles, and trims each configuration to what the node and all below it read:
//! nodes that are equal after that are analyzed once.
//!
//! Invariant: after [`ConfiguredGraph::discover`], an edge of a node that is not failed leads to a
//! node that is not failed either, or the error is reported.

mod order;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use maestro_core::Label;

use crate::attr::AttrKind;
use crate::config::{ConfigId, Configurations, TrimId, TrimTable};
use crate::diagnostic::Diagnostic;
use crate::error::RuleError;
use crate::package::TargetDecl;
use crate::resolve::{Node as Named, Universe, test_toolchain};

/// Names a node of one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which attribute an edge comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The attribute at this position of the rule.
    Attribute(u16),
    /// What tests need to be started.
    TestToolchain,
    /// The target that makes a file.
    Owner,
}

impl Via {
    /// The attribute at a position of a rule.
    pub(crate) fn attribute(position: usize) -> Self {
        Self::Attribute(u16::try_from(position).unwrap_or(u16::MAX))
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
    /// A file that a target declares as its output; the one edge leads to the target.
    Output(Arc<TargetDecl>),
    /// A source file.
    Source,
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
    /// What is left of the configuration.
    pub(crate) trimmed: TrimId,
    /// The node that stands for all that are equal after trimming.
    pub(crate) canonical: NodeId,
}

/// Every configured target that a request needs.
#[derive(Debug)]
pub(crate) struct ConfiguredGraph {
    nodes: Vec<Node>,
    index: HashMap<(Label, ConfigId), NodeId>,
    /// Dependencies before dependents, each canonical node once, failed ones left out.
    order: Vec<NodeId>,
    #[allow(dead_code, reason = "what reads configurations comes with the next change")]
    pub(crate) configurations: Configurations,
    pub(crate) trims: TrimTable,
}

/// Why a node cannot be visited now.
enum Stop {
    /// These packages have to be loaded first.
    Missing(BTreeSet<PackageKey>),
    /// It is wrong.
    #[allow(dead_code, reason = "attributes that can be wrong come with the next change")]
    Error(Box<Diagnostic>),
}

/// Repository and folder of a package.
type PackageKey = (Arc<str>, Arc<str>);

fn package_key(label: &Label) -> PackageKey {
    (label.repo.clone(), label.package.clone())
}

impl ConfiguredGraph {
    /// Finds everything that requested labels need in a configuration.
    pub(crate) fn discover(
        universe: &mut Universe<'_>,
        configurations: Configurations,
        requested: &[(Label, ConfigId)],
    ) -> Self {
        let mut graph = Self {
            nodes: Vec::new(),
            index: HashMap::new(),
            order: Vec::new(),
            configurations,
            trims: TrimTable::new(),
        };
        let mut pending = Vec::new();
        for (label, config) in requested {
            graph.want(label, *config, &mut pending);
        }
        let roots = pending.clone();
        pending.reverse();
        graph.visit_all(universe, pending);
        graph.check_edges(universe, &roots);
        graph.sort_and_trim(universe, &roots);
        graph
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.index()).expect("an id comes from this graph")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(id.index()).expect("an id comes from this graph")
    }

    /// The node that stands for a label in a configuration.
    pub(crate) fn find(&self, label: &Label, config: ConfigId) -> Option<NodeId> {
        let id = self.index.get(&(label.clone(), config))?;
        Some(self.node(*id).canonical)
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
        if let Some(id) = self.index.get(&(label.clone(), config)) {
            return *id;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).expect("nodes fit in memory"));
        self.nodes.push(Node {
            label: label.clone(),
            config,
            kind: NodeKind::Unknown,
            edges: Box::default(),
            trimmed: TrimId::SHARED,
            canonical: id,
        });
        self.index.insert((label.clone(), config), id);
        pending.push(id);
        id
    }

    /// Visits nodes and all that they lead to; what misses a package waits for the next batch.
    fn visit_all(&mut self, universe: &mut Universe<'_>, mut pending: Vec<NodeId>) {
        loop {
            let mut later = Vec::new();
            let mut missing = BTreeSet::new();
            while let Some(id) = pending.pop() {
                let mut found = Vec::new();
                match self.visit(universe, id, &mut found) {
                    Ok(()) => pending.extend(found.into_iter().rev()),
                    Err(Stop::Missing(packages)) => {
                        missing.extend(packages);
                        later.push(id);
                    }
                    Err(Stop::Error(diagnostic)) => {
                        universe.diagnostics.push(*diagnostic);
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

    fn visit(
        &mut self,
        universe: &Universe<'_>,
        id: NodeId,
        found: &mut Vec<NodeId>,
    ) -> Result<(), Stop> {
        let Node { label, config, .. } = self.node(id);
        let (label, config) = (label.clone(), *config);
        if !universe.is_loaded(&label) {
            return Err(Stop::Missing(BTreeSet::from([package_key(&label)])));
        }
        let (kind, edges) = match universe.resolve(&label) {
            Ok(Some(Named::Rule(decl))) => {
                let edges = self.edges(&decl, config, found);
                (NodeKind::Rule(decl), edges)
            }
            Ok(Some(Named::Output(decl))) => {
                let to = self.want(&decl.label, config, found);
                (NodeKind::Output(decl), vec![Edge { via: Via::Owner, to }])
            }
            Ok(Some(Named::Source)) => (NodeKind::Source, Vec::new()),
            Ok(None) => (NodeKind::Failed(None), Vec::new()),
            Err(error) => (NodeKind::Failed(Some(Box::new(error))), Vec::new()),
        };
        let node = self.node_mut(id);
        node.kind = kind;
        node.edges = edges.into();
        Ok(())
    }

    /// The dependencies of a target, in the order of its attributes.
    fn edges(&mut self, decl: &TargetDecl, config: ConfigId, found: &mut Vec<NodeId>) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (position, ((_, spec), value)) in decl.rule.attrs.iter().zip(&decl.attrs).enumerate() {
            if matches!(spec.kind, AttrKind::Output | AttrKind::OutputList) {
                continue;
            }
            let via = Via::attribute(position);
            for label in value.labels() {
                edges.push(Edge { via, to: self.want(label, config, found) });
            }
        }
        if decl.rule.test
            && let Some(label) = test_toolchain()
        {
            edges.push(Edge { via: Via::TestToolchain, to: self.want(&label, config, found) });
        }
        edges
    }

    /// Reports what is missing or may not be used, once for each target and label.
    fn check_edges(&mut self, universe: &mut Universe<'_>, roots: &[NodeId]) {
        let mut found = Vec::new();
        for root in roots {
            if let NodeKind::Failed(Some(error)) = &self.node(*root).kind {
                found.push(Diagnostic::of((**error).clone(), None));
            }
        }
        for node in &self.nodes {
            let NodeKind::Rule(user) = &node.kind else { continue };
            for edge in &node.edges {
                let Via::Attribute(position) = edge.via else { continue };
                let Some((attribute, _)) = user.rule.attrs.get(usize::from(position)) else {
                    continue;
                };
                let to = self.node(edge.to);
                let named = match &to.kind {
                    NodeKind::Rule(decl) => Named::Rule(decl.clone()),
                    NodeKind::Output(decl) => Named::Output(decl.clone()),
                    NodeKind::Source => Named::Source,
                    NodeKind::Failed(Some(error)) => {
                        found.push(in_attribute((**error).clone(), user, attribute));
                        continue;
                    }
                    NodeKind::Failed(None) | NodeKind::Unknown => continue,
                };
                match universe.check_use(&to.label, &named, user) {
                    Ok(()) => found.extend(universe.deprecation(&named, user)),
                    Err(error) => found.push(in_attribute(error, user, attribute)),
                }
            }
        }
        found.dedup();
        universe.diagnostics.extend(found);
    }
}

/// An error about what an attribute of a target says.
pub(crate) fn in_attribute(mut error: RuleError, user: &TargetDecl, attribute: &str) -> Diagnostic {
    error.message = format!("target `{}`, attribute `{attribute}`: {}", user.label, error.message);
    Diagnostic::at(error, &user.span)
}
