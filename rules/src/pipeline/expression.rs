//! Expressions: what stands in `${{ … }}`, and every value that may hold some.
//!
//! One tree serves for all values of a template: a literal, a text with expressions in it, a list
//! or a mapping of such, or an expression proper. So one check finds their types, one evaluation
//! computes them, and including a template replaces its params by the trees that they stand for:
//! never by texts, so that nothing that a value says becomes an expression.
//!
//! Expressions are total: no loops, no recursion, no effects; every operation has a result or a
//! typed error, and takes time that its length bounds. [`check`] finds at lint what can be known
//! before a run, [`eval`] does the rest.

mod check;
mod eval;
mod lexer;
mod parse;
mod room;
mod typing;

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::limits::PATTERN_BYTES_MAX;
use super::source::{Span, Spanned};
use super::template::Param;

pub(crate) use check::{Environment, Loop, type_of};
pub use eval::{EvalError, Outcome, Scope, eval};
pub(crate) use parse::{Place, bare, interpolated};
pub(crate) use room::Room;
pub use typing::Type;

/// A value at run time: JSON.
pub type Value = serde_json::Value;

/// A value of a template, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A value that is known.
    Literal(Value),
    /// A text made of the texts of its parts.
    Text(Vec<Expr>),
    /// A list.
    List(Vec<Expr>),
    /// A mapping, in its order.
    Map(Vec<(Spanned<String>, Expr)>),
    /// A name that is always there.
    Root(Root),
    /// A field of a mapping.
    Field(Box<Expr>, Spanned<String>),
    /// An entry of a list or mapping.
    Index(Box<Expr>, Box<Expr>),
    /// `!`.
    Not(Box<Expr>),
    /// Two operands.
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `=~`.
    Matches(Box<Expr>, Pattern),
    /// A function.
    Call(Function, Vec<Expr>),
    /// What an include gives a param of the pipeline that it includes. It sees what the include
    /// sees, wherever it stands, and must be a value that the param allows.
    Given(Arc<Param>, Box<Expr>),
}

impl Expr {
    /// A value that is known; lists and mappings become trees, as those of a file are.
    pub(crate) fn literal(value: impl Into<Value>, span: Span) -> Self {
        let kind = match value.into() {
            Value::Array(items) => {
                ExprKind::List(items.into_iter().map(|item| Self::literal(item, span)).collect())
            }
            Value::Object(entries) => {
                let entry = |(key, value)| (Spanned::new(key, span), Self::literal(value, span));
                ExprKind::Map(entries.into_iter().map(entry).collect())
            }
            scalar => ExprKind::Literal(scalar),
        };
        Self { kind, span }
    }

    /// The value, if it is known without a run.
    pub fn known(&self) -> Option<Value> {
        match &self.kind {
            ExprKind::Literal(value) => Some(value.clone()),
            ExprKind::List(items) => items.iter().map(Self::known).collect(),
            ExprKind::Map(entries) => entries
                .iter()
                .map(|(key, value)| Some((key.value.clone(), value.known()?)))
                .collect::<Option<serde_json::Map<String, Value>>>()
                .map(Value::Object),
            _ => None,
        }
    }

    /// Every part of it, itself first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Root(_) => {}
            ExprKind::Text(parts) | ExprKind::List(parts) | ExprKind::Call(_, parts) => {
                parts.iter().for_each(|part| part.walk(visit));
            }
            ExprKind::Map(entries) => entries.iter().for_each(|(_, value)| value.walk(visit)),
            ExprKind::Field(of, _)
            | ExprKind::Not(of)
            | ExprKind::Matches(of, _)
            | ExprKind::Given(_, of) => of.walk(visit),
            ExprKind::Index(left, right) | ExprKind::Binary(_, left, right) => {
                left.walk(visit);
                right.walk(visit);
            }
        }
    }

    /// Its calls of functions that ask how the run goes so far: each with its place.
    pub fn outcomes(&self) -> Vec<(Function, Span)> {
        let mut found = Vec::new();
        self.walk(&mut |part| match part.kind {
            ExprKind::Call(function, _) if function.is_outcome() => {
                found.push((function, part.span));
            }
            _ => {}
        });
        found
    }

    /// The steps that it names, each with the place of the name.
    pub fn steps(&self) -> Vec<&Spanned<String>> {
        let mut found = Vec::new();
        self.walk(&mut |part| {
            if let ExprKind::Field(of, name) = &part.kind
                && of.kind == ExprKind::Root(Root::Steps)
            {
                found.push(name);
            }
        });
        found
    }

    /// Whether it says the same as another one, wherever both stand.
    pub(crate) fn says_same(&self, other: &Self) -> bool {
        use ExprKind::*;
        let all = |left: &[Self], right: &[Self]| {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a.says_same(b))
        };
        match (&self.kind, &other.kind) {
            (Literal(a), Literal(b)) => a == b,
            (Root(a), Root(b)) => a == b,
            (Text(a), Text(b)) | (List(a), List(b)) => all(a, b),
            (Call(function, a), Call(other, b)) => function == other && all(a, b),
            (Map(a), Map(b)) => {
                let mut pairs = a.iter().zip(b);
                a.len() == b.len()
                    && pairs
                        .all(|((key, a), (other, b))| key.value == other.value && a.says_same(b))
            }
            (Field(a, name), Field(b, other)) => name.value == other.value && a.says_same(b),
            (Not(a), Not(b)) => a.says_same(b),
            (Matches(a, pattern), Matches(b, other)) => pattern == other && a.says_same(b),
            (Given(param, a), Given(other, b)) => param == other && a.says_same(b),
            (Index(a, at), Index(b, other)) => a.says_same(b) && at.says_same(other),
            (Binary(operator, a, left), Binary(other, b, right)) => {
                operator == other && a.says_same(b) && left.says_same(right)
            }
            _ => false,
        }
    }

    /// Puts something else in the place of every part for which `other` gives it, outermost
    /// first. What was put there is not looked at again.
    pub(crate) fn rewrite(&mut self, other: &mut dyn FnMut(&Self) -> Option<Self>) {
        if let Some(other) = other(self) {
            *self = other;
            return;
        }
        match &mut self.kind {
            ExprKind::Literal(_) | ExprKind::Root(_) => {}
            ExprKind::Text(parts) | ExprKind::List(parts) | ExprKind::Call(_, parts) => {
                parts.iter_mut().for_each(|part| part.rewrite(other));
            }
            ExprKind::Map(entries) => {
                entries.iter_mut().for_each(|(_, value)| value.rewrite(other));
            }
            ExprKind::Field(of, _)
            | ExprKind::Not(of)
            | ExprKind::Matches(of, _)
            | ExprKind::Given(_, of) => of.rewrite(other),
            ExprKind::Index(left, right) | ExprKind::Binary(_, left, right) => {
                left.rewrite(other);
                right.rewrite(other);
            }
        }
    }

    /// How many parts it has, itself included.
    pub(crate) fn size(&self) -> usize {
        let mut count = 0;
        self.walk(&mut |_| count += 1);
        count
    }

    /// How deep its parts nest.
    pub(crate) fn depth(&self) -> usize {
        let deepest = |parts: &[Self]| parts.iter().map(Self::depth).max().unwrap_or(0);
        1 + match &self.kind {
            ExprKind::Literal(_) | ExprKind::Root(_) => 0,
            ExprKind::Text(parts) | ExprKind::List(parts) | ExprKind::Call(_, parts) => {
                deepest(parts)
            }
            ExprKind::Map(entries) => {
                entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0)
            }
            ExprKind::Field(of, _)
            | ExprKind::Not(of)
            | ExprKind::Matches(of, _)
            | ExprKind::Given(_, of) => of.depth(),
            ExprKind::Index(left, right) | ExprKind::Binary(_, left, right) => {
                left.depth().max(right.depth())
            }
        }
    }
}

macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$doc])* $variant,)* }

        impl $type {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What a text names.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// A name that is always there, in the places that its description says.
    Root {
        /// The params of the run.
        Params = "params",
        /// The commit that the run is about.
        Git = "git",
        /// Other steps: `steps.NAME.status`, `steps.NAME.outputs.NAME`.
        Steps = "steps",
        /// This instance of a `matrix`.
        Matrix = "matrix",
        /// This item of a `foreach`.
        Item = "item",
        /// The number of this item or round, from 0.
        Index = "index",
        /// What began the run.
        Event = "event",
        /// The run.
        Run = "run",
    }
}

named! {
    /// An operator between two operands.
    Operator {
        /// Equal.
        Equal = "==",
        /// Not equal.
        NotEqual = "!=",
        /// Less.
        Less = "<",
        /// Less or equal.
        LessEqual = "<=",
        /// Greater.
        Greater = ">",
        /// Greater or equal.
        GreaterEqual = ">=",
        /// Both; the right side is looked at only where the left one holds.
        And = "&&",
        /// One of both; the right side is looked at only where the left one does not hold.
        Or = "||",
        /// An item of a list, a key of a mapping, or a part of a text.
        In = "in",
    }
}

named! {
    /// A function.
    Function {
        /// `contains(list or text, part)`.
        Contains = "contains",
        /// `starts_with(text, start)`.
        StartsWith = "starts_with",
        /// `ends_with(text, end)`.
        EndsWith = "ends_with",
        /// `length(text, list or mapping)`; of a text in characters.
        Length = "length",
        /// `join(list, separator)`.
        Join = "join",
        /// `default(value, other)`: the other where the value is missing or null.
        Default = "default",
        /// `json(value)`: the value as JSON text.
        Json = "json",
        /// `files_changed(pattern, …)`: whether a changed file fits one of the globs.
        FilesChanged = "files_changed",
        /// Whether no step before has failed; only in `if`, where it is what is meant without it.
        Success = "success",
        /// Whether a step before has failed; only in `if`.
        Failure = "failure",
        /// Whether the run is being cancelled; only in `if`.
        Cancelled = "cancelled",
        /// True whatever became of the steps before; only in `if`.
        Always = "always",
    }
}

impl Function {
    /// Whether it asks how the run goes so far.
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled | Self::Always)
    }

    /// How many arguments it takes, at least and at most.
    pub(crate) fn arity(self) -> (usize, usize) {
        match self {
            Self::Length | Self::Json => (1, 1),
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Join | Self::Default => {
                (2, 2)
            }
            Self::FilesChanged => (1, 64),
            Self::Success | Self::Failure | Self::Cancelled | Self::Always => (0, 0),
        }
    }
}

/// A regular expression, matched in time linear in the text.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it is written.
    text: String,
    built: Regex,
}

impl Pattern {
    /// A pattern that fits a part of a text.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        // The last line says what is wrong; those before it draw it.
        let built = built.map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        Ok(Self { text: text.to_owned(), built })
    }

    /// A pattern that fits a text as a whole.
    pub(crate) fn whole(text: &str) -> Result<Self, String> {
        // By itself it must be one: `a)|(b` would close the group that is put around it.
        Self::new(text)?;
        let built = Self::new(&format!("^(?:{text})$"))?.built;
        Ok(Self { text: text.to_owned(), built })
    }

    /// Whether a text fits.
    pub fn is_match(&self, text: &str) -> bool {
        self.built.is_match(text)
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.built.as_str() == other.built.as_str()
    }
}

#[cfg(test)]
mod tests;
