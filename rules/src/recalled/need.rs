//! What a request needs of the targets that are remembered and of those that were configured now.

use std::collections::{HashMap, HashSet};

use maestro_core::{Label, TargetId};

use crate::configured::{ConfiguredGraph, NodeId, NodeKind};
use crate::memo::targets::{Row, TargetMemory};

/// One of both, each target being only one of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Node(NodeId),
    Target(TargetId),
}

/// A walk over both, along what was configured now where there is a choice.
pub(super) struct Need<'a, 'm> {
    configured: &'a ConfiguredGraph,
    past: &'a TargetMemory<'m>,
    /// Remembered targets that were configured now.
    again: HashMap<TargetId, NodeId>,
    differs: bool,
    live: HashSet<TargetId>,
    nodes: HashSet<NodeId>,
    targets_left: Vec<TargetId>,
    nodes_left: Vec<NodeId>,
}

impl<'a, 'm> Need<'a, 'm> {
    pub(super) fn new(configured: &'a ConfiguredGraph, past: &'a TargetMemory<'m>) -> Self {
        let mut out = Self {
            configured,
            past,
            again: HashMap::new(),
            differs: false,
            live: HashSet::new(),
            nodes: HashSet::new(),
            targets_left: Vec::new(),
            nodes_left: Vec::new(),
        };
        for id in configured.order() {
            let node = configured.node(*id);
            if !node.remembered && matches!(node.kind, NodeKind::Rule(_)) {
                out.compare(*id);
            }
        }
        out
    }

    /// Whether a target depends on others than it did.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// Needs a target.
    pub(super) fn target(&mut self, id: TargetId) {
        self.targets_left.push(id);
    }

    /// Needs what a label names.
    pub(super) fn label(&mut self, label: &Label) {
        self.nodes_left.extend(self.configured.requested(label));
    }

    /// What was configured and is needed, and the remembered targets that are not.
    pub(super) fn finish(mut self) -> (HashSet<NodeId>, Vec<TargetId>) {
        loop {
            if let Some(id) = self.targets_left.pop() {
                self.visit_target(id);
            } else if let Some(id) = self.nodes_left.pop() {
                self.visit_node(id);
            } else {
                break;
            }
        }
        let all = self.past.ids();
        let dead = all.filter(|id| !self.live.contains(id)).collect();
        (self.nodes, dead)
    }

    /// Whether targets depend on each other in a circle that leads through remembered ones, into
    /// which configuring does not look.
    pub(super) fn has_cycle(&self) -> bool {
        let mut open: HashMap<Step, bool> = HashMap::new();
        for root in self.again.values() {
            let root = Step::Node(*root);
            if open.contains_key(&root) {
                continue;
            }
            open.insert(root, true);
            let mut stack = vec![(root, self.next(root))];
            while let Some((step, left)) = stack.last_mut() {
                let Some(next) = left.pop() else {
                    open.insert(*step, false);
                    stack.pop();
                    continue;
                };
                match open.get(&next) {
                    Some(true) => return true,
                    Some(false) => {}
                    None => {
                        open.insert(next, true);
                        stack.push((next, self.next(next)));
                    }
                }
            }
        }
        false
    }

    /// What a step leads to.
    fn next(&self, step: Step) -> Vec<Step> {
        match step {
            Step::Node(id) => {
                let edges = self.configured.node(id).edges.iter();
                let to = edges.map(|edge| self.configured.target(edge));
                to.map(|to| self.step(to)).collect()
            }
            Step::Target(id) => {
                let deps = self.past.row(id).map_or(&[][..], |(_, row)| &row.deps);
                let step = |id: &TargetId| match self.again.get(id) {
                    Some(node) => Step::Node(*node),
                    None => Step::Target(*id),
                };
                deps.iter().map(step).collect()
            }
        }
    }

    fn step(&self, id: NodeId) -> Step {
        match self.row(id).filter(|_| self.configured.node(id).remembered) {
            Some(row) => Step::Target(row.id),
            None => Step::Node(id),
        }
    }

    fn row(&self, id: NodeId) -> Option<&'a Row<'m>> {
        let node = self.configured.node(id);
        let root = &self.configured.trims.get(node.trimmed).root;
        let is_rule = matches!(node.kind, NodeKind::Rule(_));
        self.past.find_at(&node.label, root).filter(|_| is_rule)
    }

    fn compare(&mut self, id: NodeId) {
        let Some(row) = self.row(id) else {
            self.differs = true;
            return;
        };
        self.again.insert(row.id, id);
        let owners = self.configured.owners(id);
        let now: Option<HashSet<TargetId>> =
            owners.map(|owner| self.row(owner).map(|row| row.id)).collect();
        self.differs |= now != Some(row.deps.iter().copied().collect());
    }

    fn visit_target(&mut self, id: TargetId) {
        if !self.live.insert(id) {
            return;
        }
        match (self.again.get(&id), self.past.row(id)) {
            (Some(node), _) => self.nodes_left.push(*node),
            (None, Some((_, row))) => self.targets_left.extend(&row.deps),
            (None, None) => {}
        }
    }

    fn visit_node(&mut self, id: NodeId) {
        if !self.nodes.insert(id) {
            return;
        }
        self.targets_left.extend(self.row(id).map(|row| row.id));
        let node = self.configured.node(id);
        if !node.remembered {
            let edges = node.edges.iter().map(|edge| self.configured.target(edge));
            self.nodes_left.extend(edges);
        }
    }
}
