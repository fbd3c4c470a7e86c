//! Puts configured targets in order, dependencies first, and trims their configurations.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::aspects::AspectId;
use super::incompatible::Incompatible;
use super::{ConfiguredGraph, NodeId, NodeKind, Via};
use crate::attr::{AttrSpec, DependencyConfig};
use crate::config::reads::ReadsId;
use crate::config::{ConfigId, TrimId};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::resolve::{Universe, location_of};
use crate::values::transition::TransitionSpec;

/// How far the walk is with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    Done,
}

/// One node on the way down.
struct Frame {
    id: NodeId,
    next: usize,
}

/// What was found out about nodes that are finished.
#[derive(Default)]
struct Known {
    /// The first node for each label and what is left of its configuration.
    nodes: HashTable<NodeId>,
    aspects: HashMap<(NodeId, AspectId, TrimId), NodeId>,
    trims: HashMap<(ConfigId, ReadsId), TrimId>,
    through: HashMap<(*const TransitionSpec, ReadsId), ReadsId>,
}

impl ConfiguredGraph {
    /// Orders all nodes below `roots`; what is on a cycle is reported and left out.
    pub(super) fn sort_and_trim(&mut self, universe: &mut Universe<'_>, roots: &[NodeId]) {
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut known = Known::default();
        for root in roots {
            self.walk(*root, &mut marks, &mut known, universe);
        }
    }

    fn walk(
        &mut self,
        root: NodeId,
        marks: &mut [Mark],
        known: &mut Known,
        universe: &mut Universe<'_>,
    ) {
        let mut stack = Vec::new();
        enter(root, marks, &mut stack);
        while let Some(frame) = stack.last_mut() {
            let Some(edge) = self.node(frame.id).edges.get(frame.next) else {
                let id = frame.id;
                stack.pop();
                set(marks, id, Mark::Done);
                self.leave(id, known, universe);
                continue;
            };
            frame.next += 1;
            let to = edge.to;
            match marks.get(to.index()) {
                Some(Mark::Open) => {
                    universe.diagnostics.push(self.cycle(&stack, to));
                    // Everyone on the cycle fails with it; the rest of the stack follows.
                    for frame in stack.drain(..) {
                        set(marks, frame.id, Mark::Done);
                        self.node_mut(frame.id).kind = NodeKind::Failed(None);
                    }
                }
                Some(Mark::Done) => {}
                _ => enter(to, marks, &mut stack),
            }
        }
    }

    /// Finishes a node whose dependencies are finished.
    fn leave(&mut self, id: NodeId, known: &mut Known, universe: &Universe<'_>) {
        let node = self.node(id);
        let failed =
            |to: NodeId| matches!(self.node(to).kind, NodeKind::Failed(_) | NodeKind::Unknown);
        if failed(id) {
            return;
        }
        if node.edges.iter().any(|edge| failed(edge.to)) {
            // The dependency's error is reported already.
            self.node_mut(id).kind = NodeKind::Failed(None);
            return;
        }
        let config = node.config;
        let through = node.edges.iter().map(|edge| edge.to).find(|to| self.is_incompatible(*to));
        if let Some(to) = through {
            self.incompatible.entry(id).or_insert(Incompatible::Through(to));
        }
        let node = self.node(id);
        let own = node.reads;
        let edges: Vec<(ReadsId, Via)> =
            node.edges.iter().map(|edge| (self.node(edge.to).reads, edge.via)).collect();
        let mut reads = own;
        for (below, via) in edges {
            let through = self.read_through(id, via, below, known);
            reads = self.reads.union(reads, through);
        }
        let trimmed = self.trim(config, reads, known, universe);
        let stands_for_another = match self.node(id).kind {
            NodeKind::Alias(_) => true,
            NodeKind::Output(_) => self.is_aspect(id),
            _ => false,
        };
        if stands_for_another {
            let to = self.node(id).edges.first().map(|edge| edge.to);
            let canonical = to.map_or(id, |to| self.node(to).canonical);
            let node = self.node_mut(id);
            node.reads = reads;
            node.trimmed = trimmed;
            node.canonical = canonical;
            return;
        }
        if matches!(self.node(id).kind, NodeKind::Bare) {
            return;
        }
        let node = self.node_mut(id);
        node.reads = reads;
        node.trimmed = trimmed;
        let canonical = match &self.node(id).kind {
            NodeKind::Aspect(applied) => {
                let base = self.node(applied.base).canonical;
                *known.aspects.entry((base, applied.aspect, trimmed)).or_insert(id)
            }
            _ => self.first_like(id, known),
        };
        self.node_mut(id).canonical = canonical;
        if canonical == id {
            self.order.push(id);
        }
    }

    /// The first node with the label of a node and what is left of its configuration.
    fn first_like(&self, id: NodeId, known: &mut Known) -> NodeId {
        let key = |id: &NodeId| {
            let node = self.node(*id);
            (&node.label, node.trimmed)
        };
        let hash = |id: &NodeId| self.hasher.hash_one(key(id));
        let same = |other: &NodeId| key(other) == key(&id);
        *known.nodes.entry(hash(&id), same, hash).or_insert(id).get()
    }

    /// What a node reads because a dependency does: everything, but for what does not depend on
    /// the node's own configuration.
    fn read_through(&mut self, id: NodeId, via: Via, below: ReadsId, known: &mut Known) -> ReadsId {
        if below == ReadsId::NONE {
            return below;
        }
        let (decl, own) = match &self.node(id).kind {
            NodeKind::Rule(decl) | NodeKind::Alias(decl) => (decl, None),
            NodeKind::Aspect(applied) => (&applied.decl, Some(self.aspect(applied.aspect))),
            _ => return below,
        };
        let of = |attrs: &[(String, Arc<AttrSpec>)], at: u16| {
            attrs.get(usize::from(at)).map(|(_, spec)| spec.cfg.clone())
        };
        let cfg = match via {
            Via::Attribute(at) | Via::Aspect(at) => of(&decl.rule.attrs, at),
            Via::AspectAttribute(at) => own.and_then(|own| of(&own.spec.attrs, at)),
            Via::Owner => Some(decl.rule.cfg.clone()),
            Via::Toolchain(_) | Via::TestToolchain | Via::Base | Via::AspectToolchain(_) => None,
        };
        match cfg {
            None | Some(DependencyConfig::Target) => below,
            Some(DependencyConfig::Exec(_)) => ReadsId::NONE,
            Some(DependencyConfig::Transition(spec)) => {
                let key = (Arc::as_ptr(&spec), below);
                if let Some(known) = known.through.get(&key) {
                    return *known;
                }
                let left = self.reads.get(below).iter().filter(|setting| !spec.hides(setting));
                let left = left.cloned().collect();
                let left = self.reads.intern(left);
                known.through.insert(key, left);
                left
            }
        }
    }

    /// What is left of a configuration where only some settings are read.
    fn trim(
        &mut self,
        config: ConfigId,
        reads: ReadsId,
        known: &mut Known,
        universe: &Universe<'_>,
    ) -> TrimId {
        if reads == ReadsId::NONE || config == ConfigId::DEFAULT {
            return TrimId::SHARED;
        }
        if let Some(known) = known.trims.get(&(config, reads)) {
            return *known;
        }
        let own = self.configurations.get(config).clone();
        let default = self.configurations.get(ConfigId::DEFAULT).clone();
        let mut values = Vec::new();
        for setting in self.reads.get(reads).iter() {
            // What was read can be read again; its packages are loaded.
            let Ok(value) = self.definitions.value(universe, &own, setting) else { continue };
            let usual = self.definitions.value(universe, &default, setting);
            if usual.ok().as_ref() != Some(&value) {
                values.push((setting.clone(), value));
            }
        }
        let trimmed = self.trims.intern(values);
        known.trims.insert((config, reads), trimmed);
        trimmed
    }

    /// The error for targets that depend on each other, with the path from `again` back to itself.
    fn cycle(&self, stack: &[Frame], again: NodeId) -> Diagnostic {
        let start = stack.iter().position(|frame| frame.id == again).unwrap_or(0);
        let path = stack.get(start..).unwrap_or_default();
        // A file is on the path only as another name of the target that makes it.
        let decls: Vec<(String, &TargetDecl)> = path
            .iter()
            .filter_map(|frame| match &self.node(frame.id).kind {
                NodeKind::Rule(decl) | NodeKind::Alias(decl) => {
                    Some((format!("`{}`", decl.label), &**decl))
                }
                NodeKind::Aspect(applied) => {
                    let aspect = self.aspect(applied.aspect).spec.full_name();
                    let name = format!("aspect `{aspect}` on `{}`", applied.decl.label);
                    Some((name, &*applied.decl))
                }
                _ => None,
            })
            .collect();
        let steps: String = decls
            .iter()
            .map(|(name, decl)| format!("\n  {name} ({}) needs", location_of(decl)))
            .collect();
        let first = decls.first();
        let again = || format!("`{}`", self.node(again).label);
        let name = first.map_or_else(again, |(name, _)| name.clone());
        let message = format!("targets depend on each other in a cycle:{steps}\n  {name} again");
        let error = RuleError::new(Code::TargetCycle, message)
            .hint("split one of them, so that what both need is a target of its own");
        match first {
            Some((_, decl)) => decl.error(error),
            None => Diagnostic::of(error, None),
        }
    }
}

fn enter(id: NodeId, marks: &mut [Mark], stack: &mut Vec<Frame>) {
    if marks.get(id.index()) == Some(&Mark::New) {
        set(marks, id, Mark::Open);
        stack.push(Frame { id, next: 0 });
    }
}

fn set(marks: &mut [Mark], id: NodeId, mark: Mark) {
    if let Some(slot) = marks.get_mut(id.index()) {
        *slot = mark;
    }
}
