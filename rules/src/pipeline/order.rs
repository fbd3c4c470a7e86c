//! Finds what follows what, and what works on what.
//!
//! | a step | follows |
//! |---|---|
//! | that names steps in expressions | those, by a data edge |
//! | with `needs` | those it lists, and nothing else by order |
//! | that names no step, and has no `needs` | the one above it |
//! | that is an effect, and has no `needs` | every step above it |
//!
//! An include is ordered like a step, which is an effect where any of its steps is; each of its
//! steps follows what the include follows. Who needs an include, or stands below it, follows the
//! steps of it that no other of it follows.
//!
//! A reference adds edges and never takes one away, so that naming an output cannot slip a
//! deployment past a gate. Edges of order carry no data. What a step takes and leaves out is found
//! by [`binding`].
//!
//! The edges of effects are not drawn where others already say the same: an effect follows the
//! steps above that no other step above it follows.

mod binding;
mod flow;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use self::flow::Flow;
use super::expression::named;
use super::names::Names;
use super::report::Report;
use super::source::Span;
use super::template::{Step, Template};
use super::{Binding, Edge, StepId};
use crate::error::Code;

named! {
    /// Why a step follows another.
    EdgeKind {
        /// It takes something from it.
        Data = "data",
        /// It says so, in `needs`.
        Needs = "needs",
        /// It stands below it, and names no other.
        Sequence = "sequence",
        /// It is an effect.
        Effect = "effect",
    }
}

/// What was found out.
pub(crate) struct Ordered {
    pub(crate) edges: Vec<Edge>,
    pub(crate) bindings: Vec<Binding>,
}

/// Finds the edges between steps, and binds what they leave out.
pub(crate) fn order(template: &mut Template, names: &Names, report: &mut Report) -> Ordered {
    let Template { steps, includes, .. } = template;
    let mut edges = Flow::new(steps, includes, names).edges(report);
    let bindings = binding::bind(steps, includes, &mut edges, report);
    Ordered { edges: edges.finish(), bindings }
}

/// Edges while they are found; each pair of steps once.
struct Edges {
    list: Vec<Edge>,
    places: HashMap<(StepId, StepId), usize>,
    /// Whom each step follows.
    before: Vec<Vec<StepId>>,
    /// The first step that follows one below it.
    climbs: usize,
    /// The last two that were found to follow each other.
    reached: Option<(StepId, StepId)>,
}

impl Edges {
    fn new(count: usize) -> Self {
        Self {
            list: Vec::new(),
            places: HashMap::new(),
            before: vec![Vec::new(); count],
            climbs: usize::MAX,
            reached: None,
        }
    }

    fn add(&mut self, from: StepId, to: StepId, kind: EdgeKind) {
        if from == to {
            return;
        }
        match self.places.entry((from, to)) {
            Entry::Occupied(place) => {
                // Data says more than order.
                if let Some(edge) = self.list.get_mut(*place.get())
                    && kind == EdgeKind::Data
                {
                    edge.kind = kind;
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.list.len());
                self.list.push(Edge { from, to, kind });
                if let Some(before) = self.before.get_mut(to.index()) {
                    before.push(from);
                }
                if from > to {
                    self.climbs = self.climbs.min(to.index());
                }
            }
        }
    }

    fn before(&self, step: StepId) -> &[StepId] {
        self.before.get(step.index()).map_or(&[], Vec::as_slice)
    }

    /// Whether a step follows another, over however many edges.
    ///
    /// Nothing above `from` follows it, unless by a step that follows one below.
    fn reaches(&mut self, from: StepId, to: StepId) -> bool {
        if self.reached == Some((from, to)) {
            return true;
        }
        let mut seen = HashSet::new();
        let mut open = vec![to];
        while let Some(id) = open.pop() {
            if id == from {
                self.reached = Some((from, to));
                return true;
            }
            let is_above = id < from && id.index() < self.climbs;
            if !is_above && seen.insert(id) {
                open.extend(self.before(id));
            }
        }
        false
    }

    fn finish(mut self) -> Vec<Edge> {
        self.list.sort_by_key(|edge| (edge.to, edge.from));
        self.list
    }
}

/// Tells of steps that wait for each other, with the whole circle.
pub(crate) fn cycles(steps: &[Step], edges: &[Edge], report: &mut Report) {
    let mut waits = vec![0usize; steps.len()];
    let mut after: Vec<Vec<&Edge>> = vec![Vec::new(); steps.len()];
    let mut before: Vec<Vec<&Edge>> = vec![Vec::new(); steps.len()];
    for edge in edges {
        waits[edge.to.index()] += 1;
        after[edge.from.index()].push(edge);
        before[edge.to.index()].push(edge);
    }
    let mut ready: Vec<usize> = (0..steps.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        for edge in &after[at] {
            let to = edge.to.index();
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    let Some(start) = waits.iter().position(|count| *count > 0) else { return };
    // Every step that waits for ever waits for another such: going back must close a circle.
    let mut path: Vec<&Edge> = Vec::new();
    let mut seen = HashMap::new();
    let mut at = start;
    while !seen.contains_key(&at) {
        seen.insert(at, path.len());
        let Some(edge) = before[at].iter().find(|edge| waits[edge.from.index()] > 0) else {
            return;
        };
        path.push(edge);
        at = edge.from.index();
    }
    let circle = path.get(seen.get(&at).copied().unwrap_or(0)..).unwrap_or_default();
    let name = |id: StepId| format!("`{}`", steps[id.index()].id.value);
    let mut names: Vec<String> = circle.iter().map(|edge| name(edge.to)).collect();
    names.extend(circle.first().map(|edge| name(edge.to)));
    let span = circle.first().map_or(Span::default(), |edge| steps[edge.to.index()].id.span);
    let message = format!("steps wait for each other: {}", names.join(" waits for "));
    let draft = report.error(Code::PipelineCycle, span, message);
    for edge in circle {
        let why = match edge.kind {
            EdgeKind::Data => "takes something from",
            EdgeKind::Needs => "needs",
            EdgeKind::Sequence => "stands below",
            EdgeKind::Effect => "is an effect below",
        };
        draft.see(
            steps[edge.to.index()].id.span,
            format!("{} {why} {}", name(edge.to), name(edge.from)),
        );
    }
    draft.hint("a step that should begin at once has `needs: []`");
}
