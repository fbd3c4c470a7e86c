//! Takes labels out of lists of targets, in the text of a package file.

use maestro_core::Label;
use starlark::codemap::Span;
use starlark::syntax::AstModule;
use starlark_syntax::syntax::ast::{ArgumentP, AstExpr, BinOp, ExprP, StmtP};

use super::deps::UnusedDep;
use super::loaded::{call, string, top_level};
use crate::attr::LabelBase;
use crate::diagnostic::Diagnostic;
use crate::format::{FileKind, format};

/// Where a label stands in the text of its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The label.
    pub(super) element: Span,
    /// The ends of the elements around it.
    before: Option<Span>,
    after: Option<Span>,
}

/// Where the target that is declared by the call at `span` names `dep` in `deps`: in a list, which
/// may be part of a sum. Branches of a `select` are left to people.
pub(super) fn place_of(module: &AstModule, span: Span, user: &Label, dep: &Label) -> Option<Place> {
    let statements = top_level(module.statement());
    let mut calls = statements.iter().filter_map(|statement| match &statement.node {
        StmtP::Expression(expression) => Some(expression),
        _ => None,
    });
    let (_, args) = call(calls.find(|call| call.span == span)?)?;
    let deps = args.args.iter().find_map(|argument| match &argument.node {
        ArgumentP::Named(name, value) if name.node == "deps" => Some(value),
        _ => None,
    });
    let base = LabelBase { repo: &user.repo, package: &user.package };
    let is_dep = |element: &AstExpr| {
        string(element).and_then(|text| base.parse(text).ok()).is_some_and(|own| own == *dep)
    };
    let mut pending = vec![deps?];
    while let Some(expression) = pending.pop() {
        match &expression.node {
            ExprP::Op(left, BinOp::Add, right) => pending.extend([left.as_ref(), right.as_ref()]),
            ExprP::List(elements) => {
                let Some(at) = elements.iter().position(is_dep) else { continue };
                let span = |at: Option<usize>| Some(elements.get(at?)?.span);
                let element = span(Some(at))?;
                let (before, after) = (span(at.checked_sub(1)), span(at.checked_add(1)));
                return Some(Place { element, before, after });
            }
            _ => {}
        }
    }
    None
}

/// The text of a package file without dependencies that were found in it, laid out anew.
pub fn without_deps(path: &str, text: &str, unused: &[UnusedDep]) -> Result<String, Diagnostic> {
    let mut cuts: Vec<(usize, usize)> = unused
        .iter()
        .filter_map(|unused| {
            let Place { element, before, after } = unused.place?;
            let begin = |span: Span| span.begin().get() as usize;
            let end = |span: Span| span.end().get() as usize;
            Some(match (before, after) {
                // With what follows up to the next element, or from the end of the last one.
                (_, Some(after)) => (begin(element), begin(after)),
                (Some(before), None) => (end(before), end(element)),
                (None, None) => (begin(element), end(element)),
            })
        })
        .collect();
    cuts.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (begin, end) in cuts {
        out.push_str(text.get(at..begin.max(at)).unwrap_or_default());
        at = at.max(end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    format(path, &out, FileKind::of(path))
}
