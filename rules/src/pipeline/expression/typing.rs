//! Types of expressions, as far as they are known before a run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Value;

/// What a value can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything: it is known only at run time.
    Any,
    /// Nothing.
    Null,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// A text.
    String,
    /// One of some texts.
    Choice(Arc<[String]>),
    /// The name of a secret, which can be handed on as a whole and nothing else.
    Secret,
    /// Something of which a secret may be a part; nothing takes it.
    Tainted,
    /// A list.
    List(Arc<Type>),
    /// A mapping whose keys are not known.
    Map(Arc<Type>),
    /// A mapping with these keys.
    Record(Arc<BTreeMap<String, Type>>),
}

impl Type {
    pub(crate) fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub(crate) fn map(value: Self) -> Self {
        Self::Map(Arc::new(value))
    }

    pub(crate) fn choice<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Choice(texts.into_iter().map(str::to_owned).collect())
    }

    pub(crate) fn record<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, of)| (name.to_owned(), of));
        Self::Record(Arc::new(fields.collect()))
    }

    /// The type of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() || number.is_u64() => Self::Int,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(items) => Self::list(Self::common(items.iter().map(Self::of))),
            Value::Object(entries) => {
                Self::record(entries.iter().map(|(key, value)| (key.as_str(), Self::of(value))))
            }
        }
    }

    /// The type that all of these have; where there is no such, anything, or what secrets taint.
    pub(crate) fn common(types: impl IntoIterator<Item = Self>) -> Self {
        let mut types = types.into_iter();
        let Some(first) = types.next() else { return Self::Any };
        types.fold(first, |a, b| match a == b {
            true => a,
            false if a.holds_secret() || b.holds_secret() => Self::Tainted,
            false => Self::Any,
        })
    }

    /// Whether it is a secret, or one may be a part of it.
    pub(crate) fn holds_secret(&self) -> bool {
        match self {
            Self::Secret | Self::Tainted => true,
            Self::List(of) | Self::Map(of) => of.holds_secret(),
            Self::Record(fields) => fields.values().any(Self::holds_secret),
            _ => false,
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::String | Self::Choice(_))
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Number)
    }

    /// Whether a value of this type may be one of the other.
    pub fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret, Self::Secret) => true,
            // Nobody chooses at run time which secret is meant, nor makes a text of one.
            _ if self.holds_secret() != other.holds_secret() => false,
            (Self::Secret | Self::Tainted, _) | (_, Self::Secret | Self::Tainted) => false,
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Int, Self::Number) | (Self::Number, Self::Int) => true,
            (Self::Choice(left), Self::Choice(right)) => left.iter().any(|one| right.contains(one)),
            (left, right) if left.is_text() && right.is_text() => true,
            (Self::List(left), Self::List(right)) | (Self::Map(left), Self::Map(right)) => {
                left.fits(right)
            }
            (Self::Record(left), Self::Map(right)) | (Self::Map(right), Self::Record(left)) => {
                left.values().all(|value| value.fits(right))
            }
            (Self::Record(_), Self::Record(_)) => true,
            (left, right) => left == right,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Null => f.write_str("nothing"),
            Self::Bool => f.write_str("a bool"),
            Self::Int => f.write_str("an int"),
            Self::Number => f.write_str("a number"),
            Self::String => f.write_str("a text"),
            Self::Choice(texts) => write!(f, "one of `{}`", texts.join("`, `")),
            Self::Secret => f.write_str("a secret"),
            Self::Tainted => f.write_str("something with a secret in it"),
            Self::List(of) if **of == Self::Any => f.write_str("a list"),
            Self::List(of) => write!(f, "a list, each item {of}"),
            Self::Map(_) | Self::Record(_) => f.write_str("a mapping"),
        }
    }
}
