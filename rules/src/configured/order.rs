//! Puts configured targets in order, dependencies first, and trims their configurations.

use std::collections::HashMap;

use super::{ConfiguredGraph, NodeId, NodeKind};
use crate::config::TrimId;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::resolve::{Universe, location_of};
use maestro_core::Label;

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

impl ConfiguredGraph {
    /// Orders all nodes below `roots`; what is on a cycle is reported and left out.
    pub(super) fn sort_and_trim(&mut self, universe: &mut Universe<'_>, roots: &[NodeId]) {
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut known: HashMap<(Label, TrimId), NodeId> = HashMap::new();
        for root in roots {
            self.walk(*root, &mut marks, &mut known, universe);
        }
    }

    fn walk(
        &mut self,
        root: NodeId,
        marks: &mut [Mark],
        known: &mut HashMap<(Label, TrimId), NodeId>,
        universe: &mut Universe<'_>,
    ) {
        let mut stack = Vec::new();
        enter(root, marks, &mut stack);
        while let Some(frame) = stack.last_mut() {
            let Some(edge) = self.node(frame.id).edges.get(frame.next) else {
                let id = frame.id;
                stack.pop();
                set(marks, id, Mark::Done);
                self.leave(id, known);
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
    fn leave(&mut self, id: NodeId, known: &mut HashMap<(Label, TrimId), NodeId>) {
        let node = self.node(id);
        let failed =
            |to: NodeId| matches!(self.node(to).kind, NodeKind::Failed(_) | NodeKind::Unknown);
        match node.kind {
            NodeKind::Failed(_) | NodeKind::Unknown => return,
            NodeKind::Rule(_) | NodeKind::Output(_) | NodeKind::Source => {}
        }
        if node.edges.iter().any(|edge| failed(edge.to)) {
            // The dependency's error is reported already.
            self.node_mut(id).kind = NodeKind::Failed(None);
            return;
        }
        let trimmed = TrimId::SHARED;
        let canonical = *known.entry((node.label.clone(), trimmed)).or_insert(id);
        let node = self.node_mut(id);
        node.trimmed = trimmed;
        node.canonical = canonical;
        if canonical == id {
            self.order.push(id);
        }
    }

    /// The error for targets that depend on each other, with the path from `again` back to itself.
    fn cycle(&self, stack: &[Frame], again: NodeId) -> Diagnostic {
        let start = stack.iter().position(|frame| frame.id == again).unwrap_or(0);
        let path = stack.get(start..).unwrap_or_default();
        // A file is on the path only as another name of the target that makes it.
        let decls: Vec<_> = path
            .iter()
            .filter_map(|frame| match &self.node(frame.id).kind {
                NodeKind::Rule(decl) => Some(decl),
                _ => None,
            })
            .collect();
        let steps: String = decls
            .iter()
            .map(|decl| format!("\n  `{}` ({}) needs", decl.label, location_of(decl)))
            .collect();
        let first = decls.first();
        let name = first.map_or(&self.node(again).label, |decl| &decl.label);
        let message = format!("targets depend on each other in a cycle:{steps}\n  `{name}` again");
        let error = RuleError::new(Code::TargetCycle, message)
            .hint("split one of them, so that what both need is a target of its own");
        match first {
            Some(decl) => Diagnostic::at(error, &decl.span),
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
