//! From requested labels to configured targets: what is built for what, and on what it depends.
//!
//! A node is a label in a configuration. Discovery walks from the requested ones along their
//! attributes, loads packages in batches as it meets them, and runs no rule. Then `order` sorts the
//! nodes, reports cycles, and trims each configuration to what the node and all below it read:
//! nodes that are equal after that are analyzed once.
//!
//! Invariant: after [`ConfiguredGraph::discover`], an edge of a node that is not failed leads to a
//! node that is not failed either, or the error is reported.

mod check;
mod order;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use maestro_core::Label;

use crate::attr::{AttrKind, AttrValue};
use crate::config::choice::Reader;
use crate::config::definitions::{Definitions, PackageKey, Stop};
use crate::config::reads::{ReadsId, ReadsTable};
use crate::config::request::Configured;
use crate::config::{ConfigId, Configurations, Setting, SettingValue, TrimId, TrimTable};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::resolve::{Node as Named, Universe, location_of, test_toolchain};
use crate::rule::{COMPATIBLE, PARAM_DEFAULT};

pub(crate) use self::check::in_attribute;

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
    /// Another name; the one edge leads to what it stands for.
    Alias(Arc<TargetDecl>),
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
    /// What it reads of the configuration; with all below it once the nodes are in order.
    reads: ReadsId,
    /// What is left of the configuration.
    pub(crate) trimmed: TrimId,
    /// The node that stands for all that are equal after trimming.
    pub(crate) canonical: NodeId,
    /// Whether it is as it was in an earlier build; then nobody looks at what it depends on.
    pub(crate) remembered: bool,
}

/// What a label in a configuration is known to read, with all below it, if it is as it was in an
/// earlier build.
pub(crate) type Recall<'a> = &'a dyn Fn(&Label, ConfigId) -> Option<BTreeSet<Setting>>;

/// Every configured target that a request needs.
#[derive(Debug)]
pub(crate) struct ConfiguredGraph {
    nodes: Vec<Node>,
    index: HashMap<(Label, ConfigId), NodeId>,
    /// Dependencies before dependents, each canonical node once, failed ones left out.
    order: Vec<NodeId>,
    /// What is asked for.
    target: ConfigId,
    configurations: Configurations,
    definitions: Definitions,
    reads: ReadsTable,
    /// Nodes that cannot be built for their platform, and why.
    incompatible: HashMap<NodeId, Incompatible>,
    pub(crate) trims: TrimTable,
    /// What there is to say about targets that are fine, by their labels.
    warnings: HashMap<Label, Vec<Diagnostic>>,
}

/// Why a node cannot be built for its platform.
#[derive(Clone, Debug)]
enum Incompatible {
    /// It needs a constraint value, and the platform has another.
    Needs { value: Label, setting: Setting, has: SettingValue },
    /// What it depends on cannot.
    Through(NodeId),
}

/// Why a node cannot be visited now.
enum Stopped {
    /// These packages have to be loaded first.
    Missing(BTreeSet<PackageKey>),
    /// It is wrong; the error is there unless it is reported already.
    Failed(Option<Diagnostic>),
}

/// What a visit finds out about a node.
struct Found {
    kind: NodeKind,
    edges: Vec<Edge>,
    reads: BTreeSet<Setting>,
    incompatible: Option<Incompatible>,
}

impl ConfiguredGraph {
    /// Finds everything that requested labels need.
    pub(crate) fn discover(
        universe: &mut Universe<'_>,
        configured: Configured,
        requested: &[Label],
        recall: Recall<'_>,
    ) -> Self {
        let Configured { target, configurations, definitions } = configured;
        let mut graph = Self {
            nodes: Vec::new(),
            index: HashMap::new(),
            order: Vec::new(),
            target,
            configurations,
            definitions,
            reads: ReadsTable::new(),
            incompatible: HashMap::new(),
            trims: TrimTable::new(),
            warnings: HashMap::new(),
        };
        let mut pending = Vec::new();
        for label in requested {
            graph.want(label, target, &mut pending);
        }
        let roots = pending.clone();
        pending.reverse();
        graph.visit_all(universe, pending, recall);
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

    /// The node of a requested label.
    pub(crate) fn requested(&self, label: &Label) -> Option<NodeId> {
        let id = self.index.get(&(label.clone(), self.target))?;
        Some(self.node(*id).canonical)
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

    /// Whether a node cannot be built for its platform.
    pub(crate) fn is_incompatible(&self, id: NodeId) -> bool {
        self.incompatible.contains_key(&id)
    }

    /// The error for a requested node that cannot be built for its platform.
    pub(crate) fn incompatibility(&self, id: NodeId) -> Diagnostic {
        let node = self.node(id);
        let platform = &self.configurations.get(node.config).platform;
        let mut message = format!("`{}` cannot be built for `{platform}`", node.label);
        let mut next = id;
        loop {
            let node = self.node(next);
            let place = match &node.kind {
                NodeKind::Rule(decl) | NodeKind::Alias(decl) | NodeKind::Output(decl) => {
                    format!(" ({})", location_of(decl))
                }
                _ => String::new(),
            };
            let _ = write!(message, "\n  `{}`{place} needs", node.label);
            match self.incompatible.get(&next) {
                Some(Incompatible::Through(below)) => next = *below,
                Some(Incompatible::Needs { value, setting, has }) => {
                    let _ = write!(message, "\n  `{value}`, but `{setting}` is `{has}`");
                    break;
                }
                None => break,
            }
        }
        let error = RuleError::new(Code::Incompatible, message)
            .hint("choose another platform with `--platform`; patterns such as `//...` skip it");
        match &node.kind {
            NodeKind::Rule(decl) => Diagnostic::at(error, &decl.span),
            _ => Diagnostic::of(error, None),
        }
    }

    /// The nodes whose analysis makes what a node depends on.
    pub(crate) fn owners(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let targets = self.node(id).edges.iter().map(|edge| self.target(edge));
        targets.filter_map(|to| {
            let node = self.node(to);
            match node.kind {
                NodeKind::Rule(_) => Some(to),
                NodeKind::Output(_) => node.edges.first().map(|edge| self.target(edge)),
                NodeKind::Alias(_) | NodeKind::Source | NodeKind::Unknown | NodeKind::Failed(_) => {
                    None
                }
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
        if let Some(id) = self.index.get(&(label.clone(), config)) {
            return *id;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).expect("nodes fit in memory"));
        self.nodes.push(Node {
            label: label.clone(),
            config,
            kind: NodeKind::Unknown,
            edges: Box::default(),
            reads: ReadsId::NONE,
            trimmed: TrimId::SHARED,
            canonical: id,
            remembered: false,
        });
        self.index.insert((label.clone(), config), id);
        pending.push(id);
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

    fn visit(
        &mut self,
        universe: &Universe<'_>,
        id: NodeId,
        pending: &mut Vec<NodeId>,
        recall: Recall<'_>,
    ) -> Result<(), Stopped> {
        let Node { label, config, .. } = self.node(id);
        let (label, config) = (label.clone(), *config);
        if !universe.is_loaded(&label) {
            return Err(Stopped::Missing(BTreeSet::from([(label.repo, label.package)])));
        }
        let plain =
            |kind| Found { kind, edges: Vec::new(), reads: BTreeSet::new(), incompatible: None };
        let mut remembered = false;
        let found = match universe.resolve(&label) {
            Ok(Some(Named::Rule(decl))) => match recall(&label, config) {
                Some(reads) => {
                    remembered = true;
                    Found { reads, ..plain(NodeKind::Rule(decl)) }
                }
                None => self.visit_target(universe, &decl, config, pending)?,
            },
            Ok(Some(Named::Output(decl))) => {
                let to = self.want(&decl.label, config, pending);
                Found { edges: vec![Edge { via: Via::Owner, to }], ..plain(NodeKind::Output(decl)) }
            }
            Ok(Some(Named::Source)) => plain(NodeKind::Source),
            Ok(None) => plain(NodeKind::Failed(None)),
            Err(error) => plain(NodeKind::Failed(Some(Box::new(error)))),
        };
        let reads = self.reads.intern(found.reads);
        if let Some(why) = found.incompatible {
            self.incompatible.insert(id, why);
        }
        let node = self.node_mut(id);
        node.kind = found.kind;
        node.edges = found.edges.into();
        node.reads = reads;
        node.remembered = remembered;
        Ok(())
    }

    fn visit_target(
        &mut self,
        universe: &Universe<'_>,
        decl: &Arc<TargetDecl>,
        config: ConfigId,
        pending: &mut Vec<NodeId>,
    ) -> Result<Found, Stopped> {
        let configuration = self.configurations.get(config).clone();
        let mut reader = Reader {
            universe,
            definitions: &mut self.definitions,
            configuration: &configuration,
            reads: BTreeSet::new(),
        };
        let decided = reader.decide(decl).map_err(|(name, stop)| stopped(stop, decl, &name))?;
        read_by_itself(&mut reader, decl).map_err(|stop| stopped(stop, decl, "name"))?;
        let incompatible =
            incompatible(&mut reader, &decided).map_err(|stop| stopped(stop, decl, COMPATIBLE))?;
        let reads = reader.reads;
        let edges = self.edges(&decided, config, pending);
        let kind = match decl.rule.native {
            Some(NativeKind::Alias) => NodeKind::Alias(decided),
            _ => NodeKind::Rule(decided),
        };
        Ok(Found { kind, edges, reads, incompatible })
    }

    /// The dependencies of a target, in the order of its attributes.
    fn edges(
        &mut self,
        decl: &TargetDecl,
        config: ConfigId,
        pending: &mut Vec<NodeId>,
    ) -> Vec<Edge> {
        let mut edges = Vec::new();
        if decl.rule.native.is_some_and(|kind| kind != NativeKind::Alias) {
            return edges; // what they name is read, and not built
        }
        for (position, ((name, spec), value)) in decl.rule.attrs.iter().zip(&decl.attrs).enumerate()
        {
            if matches!(spec.kind, AttrKind::Output | AttrKind::OutputList) || name == COMPATIBLE {
                continue;
            }
            let via = Via::attribute(position);
            for label in value.labels() {
                edges.push(Edge { via, to: self.want(label, config, pending) });
            }
        }
        if decl.rule.test
            && let Some(label) = test_toolchain()
        {
            edges.push(Edge { via: Via::TestToolchain, to: self.want(&label, config, pending) });
        }
        edges
    }

    /// What a node reads of its configuration, with all below it.
    pub(crate) fn reads(&self, id: NodeId) -> &BTreeSet<Setting> {
        self.reads.get(self.node(id).reads)
    }
}

/// What a target reads of the configuration because of what it is. Whoever depends on it reads
/// that as well.
fn read_by_itself(reader: &mut Reader<'_, '_>, decl: &TargetDecl) -> Result<(), Stop> {
    if decl.rule.build_setting.is_some() {
        reader.read(&Setting::Param(decl.label.clone()))?;
    }
    match decl.rule.native {
        Some(NativeKind::ConfigSetting | NativeKind::ConstraintValue) => {
            let condition = reader.definitions.condition(reader.universe, &decl.label)?;
            reader.holds(&condition)?;
        }
        Some(NativeKind::Platform) => {
            reader.definitions.platform(reader.universe, &decl.label)?;
        }
        Some(NativeKind::Alias | NativeKind::ConstraintSetting) | None => {}
    }
    Ok(())
}

/// What a target needs of its platform that the platform does not have, if there is something.
fn incompatible(
    reader: &mut Reader<'_, '_>,
    decl: &TargetDecl,
) -> Result<Option<Incompatible>, Stop> {
    let mut found = None;
    if decl.rule.native.is_some_and(|kind| kind != NativeKind::Alias) {
        return Ok(found); // for `toolchain`, the attribute says something else
    }
    for label in decl.attr(COMPATIBLE).map(AttrValue::labels).unwrap_or_default() {
        let (setting, value) = reader.definitions.constraint_value(reader.universe, label)?;
        let setting = Setting::Constraint(setting);
        let has = reader.read(&setting)?;
        if has != SettingValue::Label(value.clone()) && found.is_none() {
            found = Some(Incompatible::Needs { value, setting, has });
        }
    }
    Ok(found)
}

fn stopped(stop: Stop, user: &TargetDecl, attribute: &str) -> Stopped {
    match stop {
        Stop::Missing(packages) => Stopped::Missing(packages),
        Stop::Error(error) => Stopped::Failed(Some(in_attribute(error, user, attribute))),
        Stop::Reported => Stopped::Failed(None),
    }
}
