//! Parts that the requests of several steps have in common.

use std::collections::BTreeMap;

use maestro_core::ArtifactId;
use serde_json::{Value as Json, json};
use starlark::eval::Evaluator;
use starlark::values::Value;
use starlark::values::none::NoneType;

use crate::ctx::draft::{Draft, expect_file};
use crate::ctx::{string_dict, strings};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::entry::EntryValue;
use crate::values::file::FileValue;
use crate::values::{expect_sequence, wrong_type};

/// The output of a step that makes a file, or a tree.
pub(super) fn checked_output<'v>(value: Value<'v>, tree: bool) -> Result<&'v FileValue, RuleError> {
    let file = expect_file(value, "output")?;
    if file.is_tree() == tree {
        return Ok(file);
    }
    let (is, make) = match tree {
        true => ("a file", "declare_directory"),
        false => ("a tree", "declare_file"),
    };
    let message = format!("output `{}` is {is}, which this action does not make", file.path());
    Err(RuleError::new(Code::Action, message).hint(format!("declare it with `ctx.actions.{make}`")))
}

/// Adds a native action with inputs named by id.
pub(super) fn add(
    eval: &Evaluator<'_, '_, '_>,
    kind: &str,
    request: Json,
    output: &FileValue,
    inputs: Vec<ArtifactId>,
) -> starlark::Result<NoneType> {
    let scope = RuleScope::of(eval)?;
    let mut draft = Draft::native(kind, request, output);
    draft.direct = inputs;
    draft.add(scope)?;
    Ok(NoneType)
}

/// Entries in the shape of the request, and what they read.
pub(super) fn unpack_entries(value: Value<'_>) -> Result<(Json, Vec<ArtifactId>), RuleError> {
    let mut json = Vec::new();
    let mut inputs = Vec::new();
    for item in expect_sequence(value, "entries")? {
        let Some(entry) = EntryValue::from_value(*item) else {
            return Err(wrong_type("entries", "a list of `ctx.actions.entry(…)`", *item));
        };
        json.push(entry.to_json());
        inputs.extend(entry.input());
    }
    Ok((Json::Array(json), inputs))
}

/// A dict as a JSON object with sorted keys.
pub(super) fn object(value: Option<Value<'_>>, parameter: &str) -> Result<Json, RuleError> {
    let pairs = match value {
        None => Vec::new(),
        Some(value) => string_dict(value, parameter)?,
    };
    let sorted: BTreeMap<String, String> = pairs.into_iter().collect();
    Ok(json!(sorted))
}

/// A text, or `null` where it is empty.
pub(super) fn optional_text(value: &str) -> Json {
    if value.is_empty() { Json::Null } else { Json::from(value) }
}

/// A list of texts, empty where it is not given.
pub(super) fn list(value: Option<Value<'_>>, parameter: &str) -> Result<Vec<String>, RuleError> {
    value.map_or(Ok(Vec::new()), |value| strings(value, parameter))
}
