//! Computes expressions. Pure: the same scope gives the same value.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use globset::Glob;
use serde_json::Number;
use thiserror::Error;

use super::{Expr, ExprKind, Function, Operator, Room, Root, Value};
use crate::pipeline::limits::VALUE_BYTES_MAX;
use crate::pipeline::source::Span;

/// What expressions see of a run. Records are JSON objects.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The params of the run, with defaults; a secret is the name of one.
    pub params: Value,
    /// The commit: `sha`, `branch`, …
    pub git: Value,
    /// What began the run: `name`, `payload`, …
    pub event: Value,
    /// The run: `id`, `template`, `actor`, …
    pub run: Value,
    /// Steps that have ended: each an object of `status` and `outputs`.
    pub steps: HashMap<String, Value>,
    /// This instance of a matrix.
    pub matrix: Value,
    /// This item of a `foreach`.
    pub item: Value,
    /// The number of the item or round, from 0.
    pub index: u64,
    /// Files that the commit changes, below the workspace.
    pub changed_files: Vec<String>,
    /// How the steps before went.
    pub outcome: Outcome,
}

/// How a run goes so far, as a step that is about to start sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether a step before it failed.
    pub failed: bool,
    /// Whether the run is being cancelled.
    pub cancelled: bool,
}

/// Why an expression has no value.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum EvalError {
    /// A field that is not there.
    #[error("there is no `{name}`")]
    Missing {
        /// The field, with what it is a field of.
        name: String,
        /// Where it is named.
        span: Span,
    },
    /// A value of another type than the operation takes.
    #[error("{what} takes {expected}, and this is {found}")]
    Type {
        /// The operation.
        what: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was found.
        found: &'static str,
        /// Where it stands.
        span: Span,
    },
    /// A glob of `files_changed` that is none.
    #[error("`{text}` is no glob")]
    Glob {
        /// What it is.
        text: String,
        /// Where it stands.
        span: Span,
    },
    /// More instances than are allowed.
    #[error("there are {count} of them, and at most {max} are allowed")]
    TooMany {
        /// How many there are.
        count: u64,
        /// How many may be.
        max: u64,
        /// Where they come from.
        span: Span,
    },
    /// A value that a param does not allow.
    #[error("param `{name}` {why}")]
    Param {
        /// The param.
        name: String,
        /// What is wrong with the value.
        why: String,
        /// Where it is given.
        span: Span,
    },
    /// A value that is too large.
    #[error("the value is larger than {VALUE_BYTES_MAX} bytes")]
    Large {
        /// Where it stands.
        span: Span,
    },
}

impl EvalError {
    pub(crate) fn mismatch(
        what: &'static str,
        expected: &'static str,
        found: &Value,
        span: Span,
    ) -> Self {
        Self::Type { what, expected, found: describe(found), span }
    }

    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Self::Missing { span, .. }
            | Self::Type { span, .. }
            | Self::Glob { span, .. }
            | Self::TooMany { span, .. }
            | Self::Param { span, .. }
            | Self::Large { span } => *span,
        }
    }
}

type Evaluated = Result<Value, EvalError>;

/// The value of an expression.
///
/// Fails where something is missing that `default(…)` does not catch, and where a value that was
/// not known at lint has the wrong type, or is too large.
pub fn eval(expr: &Expr, scope: &Scope) -> Evaluated {
    fitting(expr, scope, &mut Room::default(), expr.span)
}

/// The value of a part of another one, for which there must be room; errors name the whole.
fn fitting(part: &Expr, scope: &Scope, room: &mut Room, whole: Span) -> Evaluated {
    let found = look(part, scope)?;
    room.take(&found, whole)?;
    Ok(found.into_owned())
}

/// The value of an expression, which is not copied where it lies in the scope: a field of a huge
/// value costs no more than one of a small one.
fn look<'a>(expr: &'a Expr, scope: &'a Scope) -> Result<Cow<'a, Value>, EvalError> {
    let owned = match &expr.kind {
        ExprKind::Literal(value) => return Ok(Cow::Borrowed(value)),
        ExprKind::Root(root) => return Ok(root_value(*root, scope)),
        ExprKind::Field(of, name) => return field(of, &name.value, name.span, scope),
        ExprKind::Index(of, index) => return entry(of, index, scope),
        ExprKind::Given(param, value) => {
            let found = look(value, scope)?;
            let name = || param.name.value.clone();
            return match param.kind.check(&found) {
                Ok(()) => Ok(found),
                Err(why) => Err(EvalError::Param { name: name(), why, span: value.span }),
            };
        }
        ExprKind::Text(parts) => {
            let (mut out, mut room) = (String::new(), Room::default());
            for part in parts {
                let text = text_of(&*look(part, scope)?, part.span)?;
                room.take_bytes(text.len(), expr.span)?;
                out.push_str(&text);
            }
            out.into()
        }
        ExprKind::List(items) => {
            let mut room = Room::default();
            let items = items.iter().map(|item| fitting(item, scope, &mut room, expr.span));
            items.collect::<Result<_, _>>()?
        }
        ExprKind::Map(entries) => {
            let mut room = Room::default();
            let entries = entries.iter().map(|(key, value)| {
                Ok((key.value.clone(), fitting(value, scope, &mut room, expr.span)?))
            });
            Value::Object(entries.collect::<Result<_, _>>()?)
        }
        ExprKind::Not(of) => (!truth("`!`", of, scope)?).into(),
        ExprKind::Matches(of, pattern) => pattern.is_match(&string("`=~`", of, scope)?).into(),
        ExprKind::Binary(op, left, right) => binary(*op, left, right, scope)?.into(),
        ExprKind::Call(function, arguments) => call(*function, expr, arguments, scope)?,
    };
    Ok(Cow::Owned(owned))
}

fn root_value(root: Root, scope: &Scope) -> Cow<'_, Value> {
    Cow::Borrowed(match root {
        Root::Params => &scope.params,
        Root::Git => &scope.git,
        Root::Steps => &Value::Null,
        Root::Matrix => &scope.matrix,
        Root::Item => &scope.item,
        Root::Index => return Cow::Owned(scope.index.into()),
        Root::Event => &scope.event,
        Root::Run => &scope.run,
    })
}

fn field<'a>(
    of: &'a Expr,
    name: &str,
    span: Span,
    scope: &'a Scope,
) -> Result<Cow<'a, Value>, EvalError> {
    if of.kind == ExprKind::Root(Root::Steps) {
        let found = scope.steps.get(name).map(Cow::Borrowed);
        return found.ok_or_else(|| missing(&format!("steps.{name}"), span));
    }
    part(look(of, scope)?, |of| of.get(name)).ok_or_else(|| missing(name, span))
}

fn entry<'a>(of: &'a Expr, index: &'a Expr, scope: &'a Scope) -> Result<Cow<'a, Value>, EvalError> {
    let (of, at) = (look(of, scope)?, look(index, scope)?);
    let found = part(of, |of| match (of, &*at) {
        (Value::Array(items), Value::Number(n)) => {
            n.as_u64().and_then(|n| items.get(usize::try_from(n).ok()?))
        }
        (Value::Object(entries), Value::String(key)) => entries.get(key),
        _ => None,
    });
    found.ok_or_else(|| missing(&plain(&at), index.span))
}

/// A part of a value, which is borrowed where the value is.
fn part<'a>(
    whole: Cow<'a, Value>,
    find: impl for<'b> Fn(&'b Value) -> Option<&'b Value>,
) -> Option<Cow<'a, Value>> {
    match whole {
        Cow::Borrowed(whole) => find(whole).map(Cow::Borrowed),
        Cow::Owned(whole) => find(&whole).cloned().map(Cow::Owned),
    }
}

fn missing(name: &str, span: Span) -> EvalError {
    EvalError::Missing { name: name.to_owned(), span }
}

fn wrong(what: &'static str, expected: &'static str, found: &Value, span: Span) -> EvalError {
    EvalError::mismatch(what, expected, found, span)
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// A value within a text.
fn text_of(value: &Value, span: Span) -> Result<String, EvalError> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            Err(wrong("a text", "texts, numbers and bools", value, span))
        }
        Value::Null => Ok(String::new()),
        other => Ok(plain(other)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn truth(what: &'static str, expr: &Expr, scope: &Scope) -> Result<bool, EvalError> {
    let value = look(expr, scope)?;
    value.as_bool().ok_or_else(|| wrong(what, "a bool", &value, expr.span))
}

fn string<'a>(
    what: &'static str,
    expr: &'a Expr,
    scope: &'a Scope,
) -> Result<Cow<'a, str>, EvalError> {
    match look(expr, scope)? {
        Cow::Borrowed(Value::String(text)) => Ok(Cow::Borrowed(text)),
        Cow::Owned(Value::String(text)) => Ok(Cow::Owned(text)),
        other => Err(wrong(what, "a text", &other, expr.span)),
    }
}

/// Numbers are equal by what they count, not by how they are written.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => order_of(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => left == right,
    }
}

/// The order of what two numbers count, exactly.
fn order_of(a: &Number, b: &Number) -> Ordering {
    // A number with a fraction is smaller than 2^53, where every whole number is a float.
    let whole = |n: &Number| match n.as_f64() {
        _ if n.is_i64() => n.as_i64().map(i128::from),
        _ if n.is_u64() => n.as_u64().map(i128::from),
        Some(n) if n.fract() == 0.0 && n.abs() < 2f64.powi(120) => Some(n as i128),
        _ => None,
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn binary(op: Operator, left: &Expr, right: &Expr, scope: &Scope) -> Result<bool, EvalError> {
    let what = op.as_str();
    match op {
        Operator::And => return Ok(truth(what, left, scope)? && truth(what, right, scope)?),
        Operator::Or => return Ok(truth(what, left, scope)? || truth(what, right, scope)?),
        _ => {}
    }
    let (a, b) = (look(left, scope)?, look(right, scope)?);
    let order = || match (&*a, &*b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => Ok(order_of(x, y)),
        (Value::String(_) | Value::Number(_), _) => {
            Err(wrong(what, "two numbers or two texts", &b, right.span))
        }
        _ => Err(wrong(what, "two numbers or two texts", &a, left.span)),
    };
    Ok(match op {
        Operator::Equal => equal(&a, &b),
        Operator::NotEqual => !equal(&a, &b),
        Operator::Less => order()? == Ordering::Less,
        Operator::LessEqual => order()? != Ordering::Greater,
        Operator::Greater => order()? == Ordering::Greater,
        Operator::GreaterEqual => order()? != Ordering::Less,
        Operator::In => holds(what, (&b, right), (&a, left))?,
        Operator::And | Operator::Or => unreachable!("both returned above"),
    })
}

/// Whether a list, text or mapping holds a value.
fn holds(
    what: &'static str,
    (whole, whole_expr): (&Value, &Expr),
    (part, part_expr): (&Value, &Expr),
) -> Result<bool, EvalError> {
    match (whole, part) {
        (Value::Array(items), _) => Ok(items.iter().any(|item| equal(item, part))),
        (Value::Object(entries), Value::String(key)) => Ok(entries.contains_key(key)),
        (Value::String(text), Value::String(part)) => Ok(text.contains(part.as_str())),
        (Value::Object(_) | Value::String(_), _) => {
            Err(wrong(what, "a text", part, part_expr.span))
        }
        _ => Err(wrong(what, "a list, a mapping or a text", whole, whole_expr.span)),
    }
}

fn call(function: Function, call: &Expr, arguments: &[Expr], scope: &Scope) -> Evaluated {
    let name = function.as_str();
    let argument = |at: usize| arguments.get(at).unwrap_or(call);
    Ok(match function {
        Function::Contains => {
            let (whole, part) = (argument(0), argument(1));
            let values = (look(whole, scope)?, look(part, scope)?);
            holds(name, (&values.0, whole), (&values.1, part))?.into()
        }
        Function::StartsWith => string(name, argument(0), scope)?
            .starts_with(&*string(name, argument(1), scope)?)
            .into(),
        Function::EndsWith => {
            string(name, argument(0), scope)?.ends_with(&*string(name, argument(1), scope)?).into()
        }
        Function::Length => match &*look(argument(0), scope)? {
            Value::String(text) => text.chars().count().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(entries) => entries.len().into(),
            other => {
                return Err(wrong(name, "a text, a list or a mapping", other, argument(0).span));
            }
        },
        Function::Join => {
            let separator = string(name, argument(1), scope)?;
            let list = look(argument(0), scope)?;
            let Value::Array(items) = &*list else {
                return Err(wrong(name, "a list", &list, argument(0).span));
            };
            let (mut out, mut room) = (String::new(), Room::default());
            for (at, item) in items.iter().enumerate() {
                let text = text_of(item, argument(0).span)?;
                let before = if at == 0 { "" } else { &*separator };
                room.take_bytes(before.len() + text.len(), call.span)?;
                out.extend([before, &text]);
            }
            out.into()
        }
        Function::Default => match look(argument(0), scope) {
            Err(EvalError::Missing { .. }) => look(argument(1), scope)?.into_owned(),
            Ok(found) if found.is_null() => look(argument(1), scope)?.into_owned(),
            other => other?.into_owned(),
        },
        Function::Json => {
            let found = look(argument(0), scope)?;
            Room::default().take(&found, call.span)?;
            found.to_string().into()
        }
        Function::FilesChanged => {
            let changed = arguments.iter().map(|glob| changed(name, glob, scope));
            changed.collect::<Result<Vec<_>, _>>()?.contains(&true).into()
        }
        Function::Success => (!scope.outcome.failed && !scope.outcome.cancelled).into(),
        Function::Failure => scope.outcome.failed.into(),
        Function::Cancelled => scope.outcome.cancelled.into(),
        Function::Always => true.into(),
    })
}

fn changed(name: &'static str, pattern: &Expr, scope: &Scope) -> Result<bool, EvalError> {
    let text = string(name, pattern, scope)?;
    let glob = Glob::new(&text).map(|glob| glob.compile_matcher());
    let glob = glob.map_err(|_| EvalError::Glob { text: text.into_owned(), span: pattern.span })?;
    Ok(scope.changed_files.iter().any(|file| glob.is_match(file)))
}
