//! Rego's syntax tree, as the rest of this crate looks at it.
//!
//! The evaluator keeps its tree behind a module that it calls unstable; everything that is taken
//! from there is named here and nowhere else.

use std::sync::Arc;

pub(crate) use regorus::unstable::{
    AssignOp, BUILTINS, BoolOp, Expr, ExprRef, Literal, LiteralStmt, Module, Query, Ref, Rule,
    RuleBody, RuleHead, Span, WithModifier,
};

use crate::error::{Code, Finding, Place};

/// Longest line that is shown with an error, in bytes.
const SNIPPET_BYTES_MAX: usize = 240;

/// A reference such as `input.scan["findings"][i]`, taken apart.
pub(crate) struct Reference<'a> {
    /// The variable at its start; `None` where it starts with another expression.
    pub root: Option<&'a str>,
    /// The innermost expression, which is the variable if there is one.
    pub base: &'a ExprRef,
    /// What follows, from left to right.
    pub steps: Vec<Step<'a>>,
}

/// One step of a reference.
pub(crate) enum Step<'a> {
    /// `.name` or `["name"]`.
    Field(&'a str, &'a Span),
    /// `[expression]`.
    Index(&'a ExprRef),
}

/// Takes an expression apart that may be a reference.
pub(crate) fn reference(expr: &ExprRef) -> Reference<'_> {
    let mut steps = Vec::new();
    let mut base = expr;
    loop {
        match base.as_ref() {
            Expr::RefDot { refr, field: (span, _), .. } => {
                steps.push(Step::Field(span.text(), span));
                base = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                match text(index) {
                    Some(name) => steps.push(Step::Field(name, index.span())),
                    None => steps.push(Step::Index(index)),
                }
                base = refr;
            }
            _ => break,
        }
    }
    steps.reverse();
    Reference { root: variable(base), base, steps }
}

impl Reference<'_> {
    /// The names up to the first step that is no name.
    pub fn names(&self) -> Vec<&str> {
        let fields = self.steps.iter().map_while(|step| match step {
            Step::Field(name, _) => Some(*name),
            Step::Index(_) => None,
        });
        self.root.into_iter().chain(fields).collect()
    }
}

/// The name of a variable.
pub(crate) fn variable(expr: &ExprRef) -> Option<&str> {
    match expr.as_ref() {
        Expr::Var { span, .. } => Some(span.text()),
        _ => None,
    }
}

/// The content of a string literal.
pub(crate) fn text(expr: &ExprRef) -> Option<&str> {
    match expr.as_ref() {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.as_ref())
        }
        _ => None,
    }
}

/// What a rule's head names, such as `deny` or `limits.high`.
pub(crate) fn head_reference(rule: &Rule) -> &ExprRef {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. }
            | RuleHead::Set { refr, .. }
            | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// Whether a rule is a function, that is, has parameters.
pub(crate) fn is_function(rule: &Rule) -> bool {
    match rule {
        Rule::Default { args, .. } => !args.is_empty(),
        Rule::Spec { head: RuleHead::Func { args, .. }, .. } => !args.is_empty(),
        Rule::Spec { .. } => false,
    }
}

/// The direct parts of an expression that are expressions, without those of queries inside.
pub(crate) fn children(expr: &Expr) -> Vec<&ExprRef> {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().collect(),
        Expr::Object { fields, .. } => fields.iter().flat_map(|(_, k, v)| [k, v]).collect(),
        Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => vec![term],
        Expr::ObjectCompr { key, value, .. } => vec![key, value],
        Expr::Call { fcn, params, .. } => std::iter::once(fcn).chain(params).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::RefDot { refr, .. } => vec![refr],
        Expr::RefBrack { refr, index, .. } => vec![refr, index],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).collect()
        }
    }
}

/// The query inside of a comprehension.
pub(crate) fn inner_query(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } => Some(query),
        _ => None,
    }
}

/// The place of a span. Its column is counted anew, since the evaluator counts a tab as several.
pub(crate) fn place(span: &Span) -> Place {
    let before = span.source.get_contents().get(..span.start as usize).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let column = u32::try_from(line.chars().count()).unwrap_or(u32::MAX).saturating_add(1);
    Place { file: span.source.get_path().as_str().into(), line: span.line, column }
}

/// A finding at a span, with its line.
pub(crate) fn at(span: &Span, finding: Finding) -> Finding {
    let text = span.source.get_contents();
    let line = text.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or_default();
    let place = place(span);
    Finding { snippet: snippet(line, place.line, place.column), place: Some(place), ..finding }
}

/// A line with a caret below its column; nothing where it is too long to be looked at.
fn snippet(line: &str, number: u32, column: u32) -> String {
    if line.len() > SNIPPET_BYTES_MAX {
        return String::new();
    }
    let before: String = line
        .chars()
        .take(column.saturating_sub(1) as usize)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let margin = " ".repeat(number.to_string().len());
    format!("{margin} |\n{number} | {line}\n{margin} | {before}^")
}

/// An error of the evaluator, whose text has a place, a line and a message.
pub(crate) fn evaluator_finding(code: Code, error: &str) -> Finding {
    let mut finding = Finding::new(code, evaluator_message(error));
    let Some(start) = error.find("--> ") else { return finding };
    let head = error[start + 4..].lines().next().unwrap_or_default();
    let mut parts = head.rsplitn(3, ':');
    let column = parts.next().and_then(|text| text.trim().parse().ok());
    let line = parts.next().and_then(|text| text.parse().ok());
    if let (Some(file), Some(line), Some(column)) = (parts.next(), line, column) {
        let marked = format!("\n{line} | ");
        let shown = error[start..].split_once(&marked).map(|(_, rest)| rest);
        let shown = shown.and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = without_tabs(shown, column);
        finding.place = Some(Place { file: Arc::from(file), line, column });
        finding.snippet = snippet(shown, line, column);
    }
    finding
}

/// The column in characters of a column in which a tab is four.
fn without_tabs(line: &str, column: u32) -> u32 {
    let (mut wide, mut narrow) = (1, 1);
    for letter in line.chars() {
        if wide >= column {
            break;
        }
        wide += if letter == '\t' { 4 } else { 1 };
        narrow += 1;
    }
    narrow
}

/// The sentence of an error of the evaluator, in one line.
pub(crate) fn evaluator_message(error: &str) -> String {
    let message = error.split_once("error: ").map_or(error, |(_, message)| message);
    let line = message.lines().next().unwrap_or_default().trim();
    line.trim_end_matches('.').to_owned()
}
