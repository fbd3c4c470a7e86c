//! Finds the types of expressions, and what cannot be right whatever a run brings.

use std::collections::HashMap;

use super::{Expr, ExprKind, Function, Operator, Root, Type, Value};
use crate::error::Code;
use crate::pipeline::names::Names;
use crate::pipeline::report::{Draft, Report};
use crate::pipeline::source::{Span, Spanned};
use crate::pipeline::template::{Param, ParamKind};

/// What repeats the step that an expression belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Loop {
    None,
    /// `foreach`, over items of this type.
    Items(Type),
    /// `matrix`, with a record of its axes.
    Matrix(Type),
    /// `until`.
    Rounds,
}

/// What an expression can name.
pub(crate) struct Environment<'a> {
    /// A record.
    pub(crate) params: &'a Type,
    /// Each step that may be named, as a record of `status` and `outputs`; others exist but come
    /// later.
    pub(crate) steps: &'a HashMap<String, Type>,
    /// What there is to say of other steps.
    pub(crate) names: &'a Names,
    /// Names that are records or anything, whoever runs.
    pub(crate) roots: &'a HashMap<Root, Type>,
    pub(crate) repeated: &'a Loop,
    /// Whether `success()` and its kind mean something.
    pub(crate) outcome: bool,
    /// Why no step can be named here, where that is so.
    pub(crate) no_steps: Option<&'static str>,
}

/// The type of an expression; what is wrong with it is reported, and then it may be anything.
pub(crate) fn type_of(expr: &Expr, env: &Environment<'_>, report: &mut Report) -> Type {
    let span = expr.span;
    match &expr.kind {
        ExprKind::Literal(value) => Type::of(value),
        ExprKind::Text(parts) => {
            for part in parts {
                let of = type_of(part, env, report);
                text_part(&of, part.span, report);
            }
            Type::String
        }
        ExprKind::List(items) => {
            let types: Vec<Type> = items.iter().map(|item| type_of(item, env, report)).collect();
            Type::list(Type::common(types))
        }
        ExprKind::Map(entries) => {
            let entries =
                entries.iter().map(|(key, value)| (key.value.clone(), type_of(value, env, report)));
            Type::Record(std::sync::Arc::new(entries.collect()))
        }
        ExprKind::Root(root) => root_type(*root, span, env, report),
        ExprKind::Field(of, name) => match of.kind {
            ExprKind::Root(Root::Steps) => step_type(name, env, report),
            _ => {
                let of = type_of(of, env, report);
                field_type(&of, name, report)
            }
        },
        ExprKind::Index(of, index) => {
            let (of, at) = (type_of(of, env, report), type_of(index, env, report));
            index_type(&of, &at, index.span, report)
        }
        ExprKind::Not(of) => {
            let found = type_of(of, env, report);
            demand(&found, &Type::Bool, of.span, "`!`", report);
            Type::Bool
        }
        ExprKind::Matches(of, _) => {
            let found = type_of(of, env, report);
            demand(&found, &Type::String, of.span, "`=~`", report);
            Type::Bool
        }
        ExprKind::Binary(op, left, right) => {
            let types = (type_of(left, env, report), type_of(right, env, report));
            binary_type(*op, (left, &types.0), (right, &types.1), report)
        }
        ExprKind::Call(function, arguments) => call_type(*function, expr, arguments, env, report),
        ExprKind::Given(param, value) => given_type(param, value, env, report),
    }
}

/// The type of a param; what it is given belongs to the step that includes, which never repeats.
fn given_type(param: &Param, value: &Expr, env: &Environment<'_>, report: &mut Report) -> Type {
    let outside = Environment { repeated: &Loop::None, outcome: false, ..*env };
    let found = type_of(value, &outside, report);
    let what = format!("param `{}`", param.name.value);
    given_part(&param.kind, (value, found), &what, &outside, report);
    param.kind.value_type()
}

/// Checks a value of a param, or an item of it, by its type.
fn given_part(
    kind: &ParamKind,
    (value, found): (&Expr, Type),
    what: &str,
    env: &Environment<'_>,
    report: &mut Report,
) {
    let expected = kind.value_type();
    // What is known was checked by its value; the names of secrets are texts there.
    if value.known().is_some() {
        return;
    }
    if let (ParamKind::List { item, .. }, ExprKind::List(items)) = (kind, &value.kind) {
        let what = format!("an item of {what}");
        for part in items {
            let found = type_of(part, env, &mut Report::default());
            given_part(item, (part, found), &what, env, report);
        }
        return;
    }
    match (&expected, &found) {
        (Type::Secret, Type::Secret) => {}
        (Type::Secret, _) => {
            let message = format!("{what} is the name of a secret, and this is {found}");
            report
                .error(Code::PipelineSecret, value.span, message)
                .hint("write its name, or a param of type `secret`");
        }
        _ => demand(&found, &expected, value.span, what, report),
    }
}

fn mismatch(span: Span, message: String, report: &mut Report) -> &mut Draft {
    report.error(Code::PipelineExpression, span, message)
}

fn demand(found: &Type, expected: &Type, span: Span, what: &str, report: &mut Report) {
    if found.fits(expected) {
        return;
    }
    if found.holds_secret() && !expected.holds_secret() {
        secret(span, report);
    } else {
        mismatch(span, format!("{what} takes {expected}, and this is {found}"), report);
    }
}

fn secret(span: Span, report: &mut Report) {
    report
        .error(Code::PipelineSecret, span, "a secret cannot become part of another value")
        .hint("hand it on as a whole: in `secrets`, or in a field that takes a secret");
}

fn text_part(of: &Type, span: Span, report: &mut Report) {
    match of {
        _ if of.holds_secret() => secret(span, report),
        Type::List(_) | Type::Map(_) | Type::Record(_) => {
            mismatch(span, format!("{of} cannot be part of a text"), report)
                .hint("`json(…)` makes a text of it, `join(…, ', ')` one of a list");
        }
        _ => {}
    }
}

fn root_type(root: Root, span: Span, env: &Environment<'_>, report: &mut Report) -> Type {
    let needs = match (root, env.repeated) {
        (Root::Params, _) => return env.params.clone(),
        (Root::Item, Loop::Items(of)) => return of.clone(),
        (Root::Matrix, Loop::Matrix(axes)) => return axes.clone(),
        (Root::Index, Loop::None) => "`foreach`, `matrix` or `until`",
        (Root::Index, _) => return Type::Int,
        (Root::Item, _) => "`foreach`",
        (Root::Matrix, _) => "`matrix`",
        (Root::Steps, _) => {
            mismatch(
                span,
                "`steps` means something only with the name of a step".to_owned(),
                report,
            )
            .hint("such as `steps.build.outputs.digest` or `steps.build.status`");
            return Type::Any;
        }
        (other, _) => return env.roots.get(&other).cloned().unwrap_or(Type::Any),
    };
    let message = format!("`{}` exists only in a step with {needs}", root.as_str());
    report.error(Code::PipelineReference, span, message);
    Type::Any
}

fn step_type(name: &Spanned<String>, env: &Environment<'_>, report: &mut Report) -> Type {
    if let Some(why) = env.no_steps {
        report.error(Code::PipelineReference, name.span, why);
        return Type::Any;
    }
    match env.steps.get(&name.value) {
        Some(of) => of.clone(),
        None => {
            env.names.absent(name, report);
            Type::Any
        }
    }
}

fn field_type(of: &Type, name: &Spanned<String>, report: &mut Report) -> Type {
    match of {
        Type::Any => Type::Any,
        Type::Map(value) => (**value).clone(),
        Type::Record(fields) => match fields.get(&name.value) {
            Some(found) => found.clone(),
            None => {
                let message = format!("there is no `{}` here", name.value);
                let known = fields.keys().map(String::as_str);
                // Another one means something else: only the author knows.
                let draft = report.error(Code::PipelineReference, name.span, message);
                draft.resembles(&name.value, known);
                Type::Any
            }
        },
        Type::Secret | Type::Tainted => {
            secret(name.span, report);
            Type::Any
        }
        other => {
            mismatch(name.span, format!("{other} has no fields"), report);
            Type::Any
        }
    }
}

fn index_type(of: &Type, at: &Type, span: Span, report: &mut Report) -> Type {
    match of {
        Type::Any => Type::Any,
        Type::List(item) => {
            demand(at, &Type::Int, span, "the number of an item", report);
            (**item).clone()
        }
        Type::Map(value) => {
            demand(at, &Type::String, span, "a key", report);
            (**value).clone()
        }
        Type::Record(fields) => {
            demand(at, &Type::String, span, "a key", report);
            Type::common(fields.values().cloned())
        }
        Type::Secret | Type::Tainted => {
            secret(span, report);
            Type::Any
        }
        other => {
            mismatch(span, format!("{other} has no entries"), report);
            Type::Any
        }
    }
}

fn binary_type(
    op: Operator,
    (left, left_type): (&Expr, &Type),
    (right, right_type): (&Expr, &Type),
    report: &mut Report,
) -> Type {
    let sign = format!("`{}`", op.as_str());
    if left_type.holds_secret() || right_type.holds_secret() {
        secret(if left_type.holds_secret() { left.span } else { right.span }, report);
        return Type::Bool;
    }
    match op {
        Operator::And | Operator::Or => {
            demand(left_type, &Type::Bool, left.span, &sign, report);
            demand(right_type, &Type::Bool, right.span, &sign, report);
        }
        Operator::Equal | Operator::NotEqual => {
            let nothing = *left_type == Type::Null || *right_type == Type::Null;
            comparable(left, left_type, right, right_type, nothing, report);
        }
        Operator::In => match right_type {
            Type::List(item) => {
                if !left_type.fits(item) {
                    let message = format!("{left_type} is never in {right_type}");
                    mismatch(left.span, message, report);
                }
            }
            Type::Any | Type::String | Type::Choice(_) | Type::Map(_) | Type::Record(_) => {
                demand(left_type, &Type::String, left.span, &sign, report);
            }
            other => {
                let message = format!("nothing is in {other}");
                mismatch(right.span, message, report)
                    .hint("`in` looks into lists, mappings and texts");
            }
        },
        Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
            for (side, found) in [(left, left_type), (right, right_type)] {
                if *found != Type::Any && !found.is_text() && !found.is_number() {
                    let message = format!("{sign} takes numbers or texts, and this is {found}");
                    mismatch(side.span, message, report);
                    return Type::Bool;
                }
            }
            comparable(left, left_type, right, right_type, false, report);
        }
    }
    Type::Bool
}

/// Refuses comparisons that come out the same in every run.
fn comparable(
    left: &Expr,
    left_type: &Type,
    right: &Expr,
    right_type: &Type,
    nothing: bool,
    report: &mut Report,
) {
    for (choice, other) in [(left_type, right), (right_type, left)] {
        if let (Type::Choice(texts), ExprKind::Literal(Value::String(text))) = (choice, &other.kind)
        {
            if !texts.contains(text) {
                let message = format!("this is never `{text}`");
                let draft = report.error(Code::PipelineExpression, other.span, message);
                draft.resembles(text, texts.iter().map(String::as_str));
            }
            return;
        }
    }
    if !nothing && !left_type.fits(right_type) {
        let message = format!("{left_type} and {right_type} are never equal, nor in an order");
        mismatch(left.span.to(right.span), message, report);
    }
}

fn call_type(
    function: Function,
    call: &Expr,
    arguments: &[Expr],
    env: &Environment<'_>,
    report: &mut Report,
) -> Type {
    let typed = |argument: &Expr| match type_of(argument, env, report) {
        // No function takes a secret, nor gives one.
        found if found.holds_secret() => {
            secret(argument.span, report);
            Type::Any
        }
        found => found,
    };
    let types: Vec<Type> = arguments.iter().map(typed).collect();
    let name = format!("`{}`", function.as_str());
    let mut want = |at: usize, expected: Type| {
        if let (Some(found), Some(argument)) = (types.get(at), arguments.get(at)) {
            demand(found, &expected, argument.span, &name, report);
        }
    };
    match function {
        Function::StartsWith | Function::EndsWith => {
            want(0, Type::String);
            want(1, Type::String);
            Type::Bool
        }
        Function::Contains => {
            match types.first() {
                Some(Type::List(item)) => want(1, (**item).clone()),
                Some(Type::Any) => {}
                _ => {
                    want(0, Type::String);
                    want(1, Type::String);
                }
            }
            Type::Bool
        }
        Function::Length => {
            if types
                .first()
                .is_some_and(|of| !matches!(of, Type::List(_) | Type::Map(_) | Type::Record(_)))
            {
                want(0, Type::String);
            }
            Type::Int
        }
        Function::Join => {
            want(0, Type::list(Type::Any));
            want(1, Type::String);
            Type::String
        }
        Function::Json => Type::String,
        Function::Default => default_type(types),
        Function::FilesChanged => {
            (0..arguments.len()).for_each(|at| want(at, Type::String));
            Type::Bool
        }
        Function::Success | Function::Failure | Function::Cancelled | Function::Always => {
            if !env.outcome {
                let message = format!("{name} means something only in `if`");
                mismatch(call.span, message, report);
            }
            Type::Bool
        }
    }
}

/// Either of both; where nothing is known of the value, it should be what replaces it.
fn default_type(types: Vec<Type>) -> Type {
    let mut types = types.into_iter();
    let (value, other) = (types.next(), types.next().unwrap_or(Type::Any));
    match value {
        Some(Type::Any | Type::Null) | None => other,
        Some(value) => Type::common([value, other]),
    }
}
