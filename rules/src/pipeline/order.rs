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
//! deployment past a gate. Edges of order carry no data. A field that takes an artifact and was
//! left out is *bound* to the nearest step above that makes one of the right kind: the reference
//! is put into the field, as if it stood there.
//!
//! The edges of effects are not drawn where others already say the same: an effect follows the
//! steps above that no other step above it follows.

mod flow;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use self::flow::Flow;
use super::complete::left_out;
use super::definitions::{Artifact, FieldDefinition, Presence};
use super::expression::{Expr, ExprKind, Root, Value, named};
use super::names::Names;
use super::report::Report;
use super::source::{Span, Spanned};
use super::template::{Repeat, Step, Template};
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
    let mut bindings = Vec::new();
    let mut makers: HashMap<Artifact, Vec<(StepId, &'static str)>> = HashMap::new();
    for at in 0..steps.len() {
        if report.is_full() {
            break;
        }
        for field in left_out(&steps[at]) {
            let (Presence::Bound(kinds) | Presence::BoundIfAny(kinds)) = field.presence else {
                continue;
            };
            let found = nearest_maker(steps, at, field, kinds, &makers, &mut edges, report);
            let Some((maker, output)) = found else { continue };
            let (span, name) = (steps[at].id.span, steps[maker.index()].id.value.clone());
            steps[at].with.push(reference(field.name, name, output, span));
            edges.add(maker, StepId::new(at), EdgeKind::Data);
            bindings.push(Binding { step: StepId::new(at), field: field.name, maker, output });
        }
        let step = &steps[at];
        for output in step.uses.outputs() {
            if let Some(kind) = output.artifact.filter(|_| makes(step, output.name)) {
                makers.entry(kind).or_default().push((StepId::new(at), output.name));
            }
        }
    }
    Ordered { edges: edges.finish(), bindings }
}

/// Whether a step makes an output at all, as it is written.
fn makes(step: &Step, output: &str) -> bool {
    // A bill of materials is made where one is asked for.
    let asked = step.argument(output).and_then(Expr::known);
    asked != Some(Value::Bool(false))
}

/// `steps.NAME.outputs.OUTPUT`, as the value of a field.
fn reference(field: &str, name: String, output: &str, span: Span) -> (Spanned<String>, Expr) {
    let expr = |kind| Expr { kind, span };
    let of = |inner: Expr, name: String| {
        expr(ExprKind::Field(Box::new(inner), Spanned::new(name, span)))
    };
    let step = of(expr(ExprKind::Root(Root::Steps)), name);
    let value = of(of(step, "outputs".to_owned()), output.to_owned());
    (Spanned::new(field.to_owned(), span), value)
}

/// The nearest maker above of one of some kinds.
fn nearest_maker(
    steps: &[Step],
    at: usize,
    field: &FieldDefinition,
    kinds: &[Artifact],
    makers: &HashMap<Artifact, Vec<(StepId, &'static str)>>,
    edges: &mut Edges,
    report: &mut Report,
) -> Option<(StepId, &'static str)> {
    let step = &steps[at];
    // The last two of each kind are enough to see whether there is one before all others.
    let last =
        |kind: &Artifact| makers.get(kind).into_iter().flat_map(|all| all.iter().rev().take(2));
    let mut candidates: Vec<(StepId, &'static str)> =
        kinds.iter().flat_map(last).copied().collect();
    candidates.sort_by_key(|(maker, _)| *maker);
    let wanted = || kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join("` or `");
    let Some((maker, output)) = candidates.last().copied() else {
        // What could not be read may have made it.
        if matches!(field.presence, Presence::Bound(_)) && report.unread.is_empty() {
            let message =
                format!("`{}` of step `{}` is bound to nothing", field.name, step.id.value);
            report.error(Code::PipelineBinding, step.id.span, message).hint(format!(
                "no step above makes a `{}`; name one with `with: {{ {}: … }}`",
                wanted(),
                field.name
            ));
        }
        return None;
    };
    let name = |id: StepId| steps[id.index()].id.value.as_str();
    let mend =
        format!("name one: `{}: ${{{{ steps.{}.outputs.{output} }}}}`", field.name, name(maker));
    let mut refuse = |why: String, other: StepId| {
        let message = format!("`{}` of step `{}` is ambiguous: {why}", field.name, step.id.value);
        report
            .error(Code::PipelineBinding, step.id.span, message)
            .see(steps[other.index()].id.span, "one stands here")
            .hint(mend.clone());
    };
    if let Repeat::Each { .. } | Repeat::Matrix { .. } = steps[maker.index()].repeat {
        refuse(format!("`{}` makes one for each of its instances", name(maker)), maker);
        return None;
    }
    let rival = candidates.iter().rev().map(|(other, _)| *other).find(|other| *other != maker);
    if let Some(other) = rival.filter(|other| !edges.reaches(*other, maker)) {
        refuse(format!("`{}` and `{}` are made side by side", name(other), name(maker)), other);
        return None;
    }
    Some((maker, output))
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
