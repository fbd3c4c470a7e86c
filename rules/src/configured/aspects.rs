//! Aspects in the graph of configured targets: which are put on what, and on what they depend.
//!
//! An aspect on a target is a node of its own. It depends on the target, on the aspects that it
//! sees there, on itself and those aspects on what the target's attributes lead to, and on what
//! its own attributes and toolchains lead to. So order, trimming, and the search for cycles know
//! nothing about aspects, and one that is reached on several ways is analyzed once.
//!
//! An aspect with other params, or over other aspects, is another one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use maestro_core::Label;

use super::visit::{
    Stopped, execution_configuration, implementations, resolve_groups, stopped_target,
};
use super::{ConfiguredGraph, Edge, NodeId, NodeKind, Via};
use crate::aspect::AspectSpec;
use crate::attr::{AttrSpec, AttrValue, DependencyConfig};
use crate::config::choice::Reader;
use crate::config::definitions::Stop;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::resolve::{Universe, location_of};

/// In the place of the position of an attribute: the way leads to the same target.
const SAME_TARGET: u16 = u16::MAX;

/// Names an aspect with its params and the aspects that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AspectId(u32);

/// An aspect, ready to be put on targets.
#[derive(Clone, Debug)]
pub(crate) struct AspectUse {
    pub(crate) spec: Arc<AspectSpec>,
    /// One value for each of its attributes, in their order.
    pub(crate) values: Vec<AttrValue>,
    /// The aspects that it sees on the same target, in their order.
    pub(crate) below: Vec<AspectId>,
}

/// An aspect on a target.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) aspect: AspectId,
    /// The target.
    pub(crate) base: NodeId,
    pub(crate) decl: Arc<TargetDecl>,
}

/// What a node of an aspect is about before anybody has looked at it.
#[derive(Clone, Copy, Debug)]
struct Put {
    aspect: AspectId,
    base: NodeId,
    /// Who put it there first, and by which attribute; `None` for whoever asked for the build.
    by: Option<(NodeId, u16)>,
}

/// Every aspect of a request.
#[derive(Debug, Default)]
pub(crate) struct AspectTable {
    uses: Vec<AspectUse>,
    nodes: HashMap<(NodeId, AspectId), NodeId>,
    put: HashMap<NodeId, Put>,
    /// Those that were asked for on what is requested, on each of the requested nodes.
    asked: HashMap<NodeId, Vec<NodeId>>,
    /// The same as they are analyzed.
    requested: HashSet<NodeId>,
}

impl AspectTable {
    fn get(&self, id: AspectId) -> &AspectUse {
        self.uses.get(id.0 as usize).expect("an id comes from this table")
    }

    fn intern(&mut self, new: AspectUse) -> AspectId {
        let same = |own: &AspectUse| {
            Arc::ptr_eq(&own.spec, &new.spec) && own.values == new.values && own.below == new.below
        };
        let at = self.uses.iter().position(same).unwrap_or_else(|| {
            self.uses.push(new);
            self.uses.len() - 1
        });
        AspectId(u32::try_from(at).expect("aspects fit in memory"))
    }

    /// A list of aspects as they are put on one target, with those that they require before them.
    fn chain(
        &mut self,
        list: &[Arc<AspectSpec>],
        value: &dyn Fn(&AspectSpec, &str, &AttrSpec) -> Result<AttrValue, RuleError>,
    ) -> Result<Vec<AspectId>, RuleError> {
        let mut specs = Vec::new();
        list.iter().for_each(|spec| with_required(spec, &mut specs));
        let mut chain: Vec<AspectId> = Vec::with_capacity(specs.len());
        for spec in specs {
            let values: Result<Vec<AttrValue>, RuleError> =
                spec.attrs.iter().map(|(name, attr)| value(&spec, name, attr)).collect();
            let below = chain.iter().copied().filter(|id| spec.sees(&self.get(*id).spec)).collect();
            chain.push(self.intern(AspectUse { values: values?, below, spec }));
        }
        Ok(chain)
    }

    /// An aspect as it goes on along an attribute, with those that go with it.
    fn along(&mut self, id: AspectId, attribute: &str) -> Option<AspectId> {
        if !self.get(id).spec.follows(attribute) {
            return None;
        }
        let own = self.get(id).clone();
        let mut below = Vec::with_capacity(own.below.len());
        for other in &own.below {
            let spec = &self.get(*other).spec;
            if own.spec.requires(spec) || spec.follows(attribute) {
                below.push(*other);
            }
        }
        Some(self.intern(AspectUse { below, ..own }))
    }
}

/// As [`stopped_target`], for an aspect on the target.
fn stopped_aspect(stop: Stop, aspect: &AspectSpec, decl: &TargetDecl) -> Stopped {
    match stop {
        Stop::Error(mut error) => {
            error.message = format!("aspect `{}`: {}", aspect.full_name(), error.message);
            stopped_target(Stop::Error(error), decl)
        }
        other => stopped_target(other, decl),
    }
}

fn with_required(spec: &Arc<AspectSpec>, out: &mut Vec<Arc<AspectSpec>>) {
    if out.iter().any(|own| Arc::ptr_eq(own, spec)) {
        return;
    }
    spec.requires.iter().for_each(|required| with_required(required, out));
    out.push(spec.clone());
}

/// The value of an attribute of an aspect that a rule attaches: for params, that of the rule's
/// attribute of the same name.
fn handed_on(
    decl: &TargetDecl,
    aspect: &AspectSpec,
    name: &str,
    spec: &AttrSpec,
) -> Result<AttrValue, RuleError> {
    if name.starts_with('_') {
        return Ok(spec.default.clone());
    }
    let fail = |what: String| {
        let message = format!("aspect `{}` has the param `{name}`, {what}", aspect.full_name());
        RuleError::new(Code::Aspect, message)
    };
    let own = decl.rule.attrs.iter().zip(&decl.attrs).find(|((own, _), _)| own == name);
    let Some(((_, own), value)) = own else {
        return match spec.mandatory {
            false => Ok(spec.default.clone()),
            true => Err(fail(format!("but rule `{}` has no such attribute", decl.rule.name()))),
        };
    };
    if own.kind != spec.kind {
        return Err(fail(format!("which is {}, not {}", spec.kind.noun(), own.kind.noun())));
    }
    if !spec.values.is_empty() && !spec.values.contains(value) {
        return Err(fail(format!("which cannot be {value:?}")));
    }
    Ok(value.clone())
}

impl ConfiguredGraph {
    /// Whether there is an aspect on anything.
    pub(crate) fn has_aspects(&self) -> bool {
        !self.aspects.put.is_empty()
    }

    /// An aspect with its params.
    pub(crate) fn aspect(&self, id: AspectId) -> &AspectUse {
        self.aspects.get(id)
    }

    /// The aspects that were asked for on a requested label, as they are analyzed.
    pub(crate) fn asked_aspects(&self, label: &Label) -> Vec<NodeId> {
        let root = self.find(label, self.target, false);
        let asked = root.and_then(|root| self.aspects.asked.get(&root)).into_iter().flatten();
        let ids = asked.map(|id| self.node(*id).canonical);
        ids.filter(|id| self.applied(*id).is_some()).collect()
    }

    /// Whether somebody asked for what an aspect on a target makes.
    pub(crate) fn is_asked(&self, id: NodeId) -> bool {
        self.aspects.requested.contains(&id)
    }

    /// Notes which aspects are asked for, once it is known which nodes are analyzed.
    pub(super) fn settle_aspects(&mut self) {
        let asked = self.aspects.asked.values().flatten();
        self.aspects.requested = asked.map(|id| self.node(*id).canonical).collect();
    }

    /// Every aspect, by the target that it is on.
    pub(crate) fn aspects_by_target(&self) -> HashMap<NodeId, Vec<NodeId>> {
        let mut out: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        if self.has_aspects() {
            for id in self.order() {
                if let Some(applied) = self.applied(*id) {
                    out.entry(self.node(applied.base).canonical).or_default().push(*id);
                }
            }
        }
        out
    }

    /// What a node is about, if it is an aspect on a target.
    pub(crate) fn applied(&self, id: NodeId) -> Option<&Applied> {
        match &self.node(id).kind {
            NodeKind::Aspect(applied) => Some(applied),
            _ => None,
        }
    }

    /// Whether a node is about an aspect, whatever it is on.
    pub(super) fn is_aspect(&self, id: NodeId) -> bool {
        self.aspects.put.contains_key(&id)
    }

    /// Puts aspects on requested nodes.
    pub(super) fn ask_for_aspects(
        &mut self,
        aspects: &[Arc<AspectSpec>],
        roots: &[NodeId],
        pending: &mut Vec<NodeId>,
    ) -> Result<(), RuleError> {
        let default = |aspect: &AspectSpec, name: &str, spec: &AttrSpec| match spec.mandatory {
            false => Ok(spec.default.clone()),
            true => {
                let name = format!("`{}` needs a value for `{name}`", aspect.full_name());
                Err(RuleError::new(Code::Aspect, name)
                    .hint("it can only be attached by a rule that has such an attribute"))
            }
        };
        let chain = self.aspects.chain(aspects, &default)?;
        for root in roots {
            let nodes: Vec<NodeId> =
                chain.iter().map(|aspect| self.put(*root, *aspect, None, pending)).collect();
            self.aspects.asked.insert(*root, nodes);
        }
        Ok(())
    }

    /// The aspects that an attribute of a rule attaches.
    pub(super) fn attached(
        &mut self,
        decl: &TargetDecl,
        spec: &AttrSpec,
    ) -> Result<Vec<AspectId>, RuleError> {
        let value =
            |aspect: &AspectSpec, name: &str, spec: &AttrSpec| handed_on(decl, aspect, name, spec);
        self.aspects.chain(&spec.aspects, &value)
    }

    /// The node of an aspect on another node; a new one is to be visited.
    pub(super) fn put(
        &mut self,
        base: NodeId,
        aspect: AspectId,
        by: Option<(NodeId, u16)>,
        pending: &mut Vec<NodeId>,
    ) -> NodeId {
        if let Some(id) = self.aspects.nodes.get(&(base, aspect)) {
            return *id;
        }
        let (label, config) = (self.node(base).label.clone(), self.node(base).config);
        let id = self.push(label, config, true);
        self.aspects.nodes.insert((base, aspect), id);
        self.aspects.put.insert(id, Put { aspect, base, by });
        pending.push(id);
        id
    }

    /// Finds out what an aspect is on; `Stopped::Later` where nobody has looked at that yet.
    pub(super) fn visit_aspect(
        &mut self,
        universe: &Universe<'_>,
        id: NodeId,
        pending: &mut Vec<NodeId>,
    ) -> Result<(), Stopped> {
        let Some(Put { aspect, base, by }) = self.aspects.put.get(&id).copied() else {
            return Ok(());
        };
        let follows_files = self.aspect(aspect).spec.follows_files;
        let on = self.node(base);
        let (kind, to) = match &on.kind {
            NodeKind::Unknown => return Err(Stopped::Later),
            NodeKind::Failed(_) => (NodeKind::Failed(None), None),
            NodeKind::Alias(_) => (on.kind.clone(), on.edges.first()),
            NodeKind::Output(_) if follows_files => (on.kind.clone(), on.edges.first()),
            NodeKind::Rule(decl) if !on.remembered && self.aspect(aspect).spec.fits(&decl.rule) => {
                let decl = decl.clone();
                return self.visit_applied(universe, id, Applied { aspect, base, decl }, pending);
            }
            NodeKind::Rule(_) | NodeKind::Output(_) | NodeKind::Source => (NodeKind::Bare, None),
            NodeKind::Aspect(_) | NodeKind::Bare => (NodeKind::Bare, None),
        };
        let to = to.map(|edge| edge.to);
        let edges = to.map(|to| Edge { via: Via::Owner, to: self.put(to, aspect, by, pending) });
        let node = self.node_mut(id);
        node.kind = kind;
        node.edges = edges.into_iter().collect();
        Ok(())
    }

    fn visit_applied(
        &mut self,
        universe: &Universe<'_>,
        id: NodeId,
        applied: Applied,
        pending: &mut Vec<NodeId>,
    ) -> Result<(), Stopped> {
        let Applied { aspect, base, decl } = &applied;
        let own = self.aspect(*aspect).clone();
        let mut edges = vec![Edge { via: Via::Base, to: *base }];
        for below in &own.below {
            let to = self.put(*base, *below, Some((id, SAME_TARGET)), pending);
            edges.push(Edge { via: Via::Aspect(SAME_TARGET), to });
        }
        self.go_on(id, &applied, &mut edges, pending);
        let config = self.node(id).config;
        let configuration = self.configurations.get(config).clone();
        let mut reader = Reader {
            universe,
            definitions: &mut self.definitions,
            configuration: &configuration,
            reads: BTreeSet::new(),
        };
        let failed = |stop| stopped_aspect(stop, &own.spec, decl);
        let known = self.resolved.entry(config).or_default();
        let resolved = resolve_groups(&mut reader, known, &own.spec.execution).map_err(failed)?;
        let mut leads = Vec::new();
        for (at, ((_, spec), value)) in own.spec.attrs.iter().zip(&own.values).enumerate() {
            let execution = match &spec.cfg {
                DependencyConfig::Exec(group) if !value.labels().is_empty() => {
                    let group = own.spec.execution.place(group.as_deref());
                    let found = execution_configuration(&mut reader, &resolved, group);
                    Some(found.map_err(failed)?)
                }
                _ => None,
            };
            leads.push((at, execution, value));
        }
        let reads = reader.reads;
        for (at, execution, value) in leads {
            let config = execution.map_or(config, |own| self.configurations.intern(own));
            let via = Via::aspect_attribute(at);
            let labels = value.labels().into_iter();
            edges.extend(labels.map(|l| Edge { via, to: self.want(l, config, pending) }));
        }
        for (at, label) in implementations(&resolved) {
            let via = Via::AspectToolchain(at);
            edges.push(Edge { via, to: self.want(label, config, pending) });
        }
        if !resolved.is_empty() {
            self.resolutions.insert(id, resolved);
        }
        let reads = self.reads.intern(reads);
        let node = self.node_mut(id);
        node.reads = reads;
        node.edges = edges.into();
        node.kind = NodeKind::Aspect(Arc::new(applied));
        Ok(())
    }

    /// Puts an aspect on what the attributes of its target lead to.
    fn go_on(
        &mut self,
        id: NodeId,
        applied: &Applied,
        edges: &mut Vec<Edge>,
        pending: &mut Vec<NodeId>,
    ) {
        let ways = self.node(applied.base).edges.clone();
        let mut ways = ways.iter().peekable();
        while let Some(way) = ways.next() {
            let Via::Attribute(at) = way.via else { continue };
            let first = edges.len() + 1;
            edges.push(way.clone());
            // Those that the rule attaches are seen as well.
            while let Some(own) = ways.next_if(|next| next.via == Via::Aspect(at)) {
                edges.push(own.clone());
            }
            let name = applied.decl.rule.attrs.get(usize::from(at));
            let aspect = name.and_then(|(name, _)| self.aspects.along(applied.aspect, name));
            let Some(aspect) = aspect else { continue };
            let below = self.aspect(aspect).below.clone();
            for aspect in below.into_iter().chain([aspect]) {
                let to = self.put(way.to, aspect, Some((id, at)), pending);
                if !edges.iter().skip(first).any(|edge| edge.to == to) {
                    edges.push(Edge { via: Via::Aspect(at), to });
                }
            }
        }
    }

    /// The way on which an aspect got to its target, from the target up.
    pub(crate) fn way_to(&self, id: NodeId) -> Vec<String> {
        /// Most steps that a message names.
        const STEPS_MAX: usize = 20;
        let mut steps = Vec::new();
        let mut at = self.aspects.put.get(&id).map(|put| put.by);
        while let Some(by) = at {
            let Some((node, position)) = by else {
                steps.push("what was asked for, with `--aspects`".to_owned());
                break;
            };
            if steps.len() == STEPS_MAX {
                steps.push("further targets".to_owned());
                break;
            }
            let own = self.node(node);
            let (NodeKind::Rule(decl) | NodeKind::Alias(decl) | NodeKind::Output(decl)) =
                self.applied(node).map_or(&own.kind, |applied| &self.node(applied.base).kind)
            else {
                break;
            };
            let mut step = format!("{} in `{}`", location_of(decl), decl.label);
            if let Some((name, _)) = decl.rule.attrs.get(usize::from(position)) {
                let _ = write!(step, ", by `{name}`");
                steps.push(step);
            }
            at = self.aspects.put.get(&node).map(|put| put.by);
        }
        steps
    }

    /// An error about an aspect on a target.
    pub(crate) fn about_aspect(&self, id: NodeId, mut error: RuleError) -> Diagnostic {
        let Some(applied) = self.applied(id) else { return Diagnostic::of(error, None) };
        let name = self.aspect(applied.aspect).spec.full_name();
        let label = &applied.decl.label;
        error.message = format!("aspect `{name}` on `{label}`: {}", error.message);
        let mut diagnostic = applied.decl.error(error);
        diagnostic.trace.extend(self.way_to(id));
        diagnostic
    }
}
