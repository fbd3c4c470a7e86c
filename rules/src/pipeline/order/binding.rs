//! Binds what steps leave out to the steps above that make it.
//!
//! A field that takes an artifact and was left out is bound to the nearest step above, of the same
//! file, that makes one of the right kind: the reference is put into the field, as if it stood
//! there. Two that are made side by side, and one that is made for each instance of a step, are
//! ambiguous.
//!
//! A binding stays within its file. What an included pipeline makes on its way is its own affair:
//! were it taken, a scan could look at the image of a helper in place of the application's. So an
//! include is never what is bound, nor does a step of one reach for what stands around it; who
//! means that writes it, by an output or by a param.

use std::collections::HashMap;

use super::{EdgeKind, Edges};
use crate::error::Code;
use crate::pipeline::complete::left_out;
use crate::pipeline::definitions::{Artifact, FieldDefinition, Presence};
use crate::pipeline::expression::{Expr, ExprKind, Root, Value};
use crate::pipeline::report::Report;
use crate::pipeline::source::{Span, Spanned};
use crate::pipeline::template::{Included, Repeat, Step};
use crate::pipeline::{Binding, StepId};

/// A step that makes something, and the output that it is.
type Maker = (StepId, &'static str);

/// Steps that make something, from the first to the one above the present one.
struct Makers {
    /// The include of each step, innermost, by its number; none for the file itself.
    files: Vec<Option<usize>>,
    all: HashMap<Artifact, Vec<Maker>>,
    /// By the file in which they stand.
    own: HashMap<(Option<usize>, Artifact), Vec<Maker>>,
}

/// A field that was left out, and of what.
struct Gap<'a> {
    steps: &'a [Step],
    at: usize,
    field: &'static FieldDefinition,
    kinds: &'static [Artifact],
}

/// Puts references into fields that were left out, and draws their edges.
pub(super) fn bind(
    steps: &mut [Step],
    includes: &[Included],
    edges: &mut Edges,
    report: &mut Report,
) -> Vec<Binding> {
    let mut bindings = Vec::new();
    let mut makers = Makers::new(steps.len(), includes);
    for at in 0..steps.len() {
        if report.is_full() {
            break;
        }
        for field in left_out(&steps[at]) {
            let (Presence::Bound(kinds) | Presence::BoundIfAny(kinds)) = field.presence else {
                continue;
            };
            let gap = Gap { steps, at, field, kinds };
            let Some((maker, output)) = gap.nearest(&makers, edges, report) else { continue };
            let (span, name) = (steps[at].id.span, steps[maker.index()].id.value.clone());
            steps[at].with.push(reference(field.name, name, output, span));
            edges.add(maker, StepId::new(at), EdgeKind::Data);
            bindings.push(Binding { step: StepId::new(at), field: field.name, maker, output });
        }
        makers.add(at, &steps[at]);
    }
    bindings
}

impl Makers {
    fn new(count: usize, includes: &[Included]) -> Self {
        let mut files = vec![None; count];
        // Each stands before what it includes itself.
        for (number, include) in includes.iter().enumerate() {
            files.get_mut(include.steps.clone()).into_iter().flatten().for_each(|file| {
                *file = Some(number);
            });
        }
        Self { files, all: HashMap::new(), own: HashMap::new() }
    }

    fn file(&self, step: usize) -> Option<usize> {
        self.files.get(step).copied().flatten()
    }

    fn add(&mut self, at: usize, step: &Step) {
        let file = self.file(at);
        for output in step.uses.outputs() {
            if let Some(kind) = output.artifact.filter(|_| makes(step, output.name)) {
                let maker = (StepId::new(at), output.name);
                self.all.entry(kind).or_default().push(maker);
                self.own.entry((file, kind)).or_default().push(maker);
            }
        }
    }

    /// Those of a file that make one of some kinds, the nearest first. The last two of each kind
    /// are enough to see whether there is one before all others.
    fn nearest(&self, file: Option<usize>, kinds: &[Artifact]) -> Vec<Maker> {
        let last =
            |kind: &Artifact| self.own.get(&(file, *kind)).into_iter().flatten().rev().take(2);
        let mut found: Vec<Maker> = kinds.iter().flat_map(last).copied().collect();
        found.sort_by_key(|(maker, _)| std::cmp::Reverse(*maker));
        found
    }

    /// The nearest of any file.
    fn anywhere(&self, kinds: &[Artifact]) -> Option<StepId> {
        let last = kinds.iter().filter_map(|kind| self.all.get(kind)?.last());
        last.map(|(maker, _)| *maker).max()
    }
}

impl Gap<'_> {
    /// The nearest maker above that is meant.
    fn nearest(&self, makers: &Makers, edges: &mut Edges, report: &mut Report) -> Option<Maker> {
        let candidates = makers.nearest(makers.file(self.at), self.kinds);
        let Some((maker, output)) = candidates.first().copied() else {
            self.nothing(makers.anywhere(self.kinds), report);
            return None;
        };
        let step = &self.steps[self.at].id;
        let mend = format!(
            "name one: `{}: ${{{{ steps.{}.outputs.{output} }}}}`",
            self.field.name,
            self.name(maker)
        );
        let mut refuse = |why: String, other: StepId| {
            let (field, step_name) = (self.field.name, &step.value);
            let message = format!("`{field}` of step `{step_name}` is ambiguous: {why}");
            report
                .error(Code::PipelineBinding, step.span, message)
                .see(self.steps[other.index()].id.span, "one stands here")
                .hint(mend.clone());
        };
        if let Repeat::Each { .. } | Repeat::Matrix { .. } = self.steps[maker.index()].repeat {
            refuse(format!("`{}` makes one for each of its instances", self.name(maker)), maker);
            return None;
        }
        let rival = candidates.iter().map(|(other, _)| *other).find(|other| *other != maker);
        if let Some(other) = rival.filter(|other| !edges.reaches(*other, maker)) {
            let (one, other_name) = (self.name(other), self.name(maker));
            refuse(format!("`{one}` and `{other_name}` are made side by side"), other);
            return None;
        }
        Some((maker, output))
    }

    fn name(&self, id: StepId) -> &str {
        &self.steps[id.index()].id.value
    }

    /// Tells that the file has nothing to be bound to, and of what stands in another one.
    fn nothing(&self, elsewhere: Option<StepId>, report: &mut Report) {
        let (step, field) = (&self.steps[self.at].id, self.field.name);
        let message = format!("`{field}` of step `{}` is bound to nothing", step.value);
        let wanted = self.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join("` or `");
        let draft = match (self.field.presence, elsewhere) {
            // What could not be read may have made it.
            (Presence::Bound(_), _) if report.unread.is_empty() => {
                let draft = report.error(Code::PipelineBinding, step.span, message);
                draft.hint(format!(
                    "no step above it in this file makes a `{wanted}`; name one with `with: {{ {field}: … }}`"
                ))
            }
            (Presence::BoundIfAny(_), Some(_)) => {
                report.note(Code::PipelineBinding, step.span, message)
            }
            _ => return,
        };
        if let Some(maker) = elsewhere {
            draft.see(
                self.steps[maker.index()].id.span,
                format!("`{}` makes one", self.name(maker)),
            );
            draft.hint(
                "a step is bound within its file: what an include makes is taken by its `outputs`, \
                 and what it works on is given to it by a param",
            );
        }
    }
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
