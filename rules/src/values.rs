//! The values that build files work with beyond plain Starlark: labels, files, sets, providers.
//!
//! Each is either *simple* (holds no other Starlark value; immutable, shared) or *complex* (holds
//! values, and is frozen when the analysis of its target ends). None can be changed by the rules
//! that receive it, so the order in which targets are analyzed cannot show.

pub(crate) mod args;
pub(crate) mod definition;
pub(crate) mod depset;
pub(crate) mod entry;
pub(crate) mod exec_group;
pub(crate) mod file;
pub(crate) mod label;
pub(crate) mod provider;
pub(crate) mod runfiles;
pub(crate) mod select;
pub(crate) mod target;
pub(crate) mod toolchains;
pub(crate) mod transition;

use starlark::values::Value;
use starlark::values::list::ListRef;
use starlark::values::tuple::TupleRef;

use crate::error::{Code, RuleError};

/// The items of a list or tuple.
pub(crate) fn sequence<'v>(value: Value<'v>) -> Option<&'v [Value<'v>]> {
    ListRef::from_value(value)
        .map(ListRef::content)
        .or_else(|| TupleRef::from_value(value).map(TupleRef::content))
}

/// The items of a list or tuple; anything else is an error that names the parameter.
pub(crate) fn expect_sequence<'v>(
    value: Value<'v>,
    parameter: &str,
) -> Result<&'v [Value<'v>], RuleError> {
    sequence(value).ok_or_else(|| wrong_type(parameter, "a list", value))
}

/// The error for a value of a wrong type.
pub(crate) fn wrong_type(parameter: &str, expected: &str, value: Value<'_>) -> RuleError {
    RuleError::new(
        Code::Evaluation,
        format!("`{parameter}` must be {expected}, not a `{}`: {}", value.get_type(), short(value)),
    )
}

/// A value as text, cut where it is long.
pub(crate) fn short(value: Value<'_>) -> String {
    const SHOWN: usize = 60;
    let text = value.to_repr();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
