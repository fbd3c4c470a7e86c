//! Attribute values that depend on the configuration: sums with `select` in them.

use std::sync::Arc;

use maestro_core::Label;
use starlark::values::Value;

use super::{AttrKind, AttrSpec, AttrValue, LabelBase, check_choice, check_value, take};
use crate::error::{Code, RuleError};
use crate::values::select::{Cases, Condition, DEFAULT_CONDITION, Operand, Places, Select};

/// A sum whose operands depend on the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configurable {
    pub(crate) operands: Vec<Choice>,
}

/// One operand: several branches, of which one is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The branches in their order; an operand that is the same everywhere has one.
    pub(crate) branches: Vec<Branch>,
    /// What to say where none holds; empty for the usual words.
    pub(crate) no_match_error: Arc<str>,
    /// Where the branches stand; `None` for an operand that is the same everywhere.
    pub(crate) places: Option<Arc<Places>>,
}

/// One branch of a `select`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// The condition; `None` holds where no other does.
    pub(crate) condition: Option<Label>,
    /// The value; [`AttrValue::None`] is the attribute's default.
    pub(crate) value: AttrValue,
}

impl Configurable {
    /// Every value that an operand may have.
    pub(crate) fn values(&self) -> impl Iterator<Item = &AttrValue> {
        self.operands.iter().flat_map(|choice| &choice.branches).map(|branch| &branch.value)
    }

    /// Every condition that is looked at.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Label> {
        let branches = self.operands.iter().flat_map(|choice| &choice.branches);
        branches.filter_map(|branch| branch.condition.as_ref())
    }
}

/// Takes a value that may depend on the configuration out of the interpreter.
pub(super) fn coerce_sum(
    spec: &AttrSpec,
    name: &str,
    sum: &Select<'_>,
    base: LabelBase<'_>,
) -> Result<AttrValue, RuleError> {
    if !spec.configurable {
        let message = format!(
            "attribute `{name}` cannot depend on the configuration, so it takes no `select`"
        );
        return Err(RuleError::new(Code::Attribute, message).hint(
            "declare one target for each case, and `select` among them where they are used",
        ));
    }
    let mut operands = Vec::new();
    for (operand, values) in sum.operands() {
        operands.push(match operand {
            Operand::Plain => plain(spec, name, values, base)?,
            Operand::Select(cases) => choice(spec, name, cases, values, base)?,
        });
    }
    if operands.len() > 1 && !can_add(spec.kind) {
        let message =
            format!("attribute `{name}` is {}, which cannot be added to", spec.kind.noun());
        return Err(RuleError::new(Code::Attribute, message)
            .hint("use a single `select` that covers all cases"));
    }
    Ok(AttrValue::Configurable(Arc::new(Configurable { operands })))
}

fn can_add(kind: AttrKind) -> bool {
    !matches!(kind, AttrKind::Bool | AttrKind::Int | AttrKind::Label | AttrKind::Output)
}

fn plain(
    spec: &AttrSpec,
    name: &str,
    values: &[Value<'_>],
    base: LabelBase<'_>,
) -> Result<Choice, RuleError> {
    let mut branches = Vec::with_capacity(1);
    for value in values {
        let value = take(spec, name, *value, base)?;
        check_choice(spec, name, &value)?;
        branches.push(Branch { condition: None, value });
    }
    Ok(Choice { branches, no_match_error: "".into(), places: None })
}

fn choice(
    spec: &AttrSpec,
    name: &str,
    cases: &Cases,
    values: &[Value<'_>],
    base: LabelBase<'_>,
) -> Result<Choice, RuleError> {
    let mut branches: Vec<Branch> = Vec::with_capacity(values.len());
    for (condition, value) in cases.conditions.iter().zip(values) {
        let condition = match condition {
            Condition::Label(label) => Some(label.clone()),
            Condition::Text(text) if **text == *DEFAULT_CONDITION => None,
            Condition::Text(text) => Some(base.parse(text)?),
        };
        if branches.iter().any(|branch| branch.condition == condition) {
            let shown = condition.map_or(DEFAULT_CONDITION.to_owned(), |label| label.to_string());
            let message = format!("attribute `{name}`: `{shown}` stands twice in one `select`");
            return Err(RuleError::new(Code::Attribute, message));
        }
        let value = match value.is_none() {
            true => AttrValue::None,
            false => take(spec, name, *value, base)?,
        };
        if value != AttrValue::None {
            check_choice(spec, name, &value)?;
        }
        branches.push(Branch { condition, value });
    }
    let no_match_error = cases.no_match_error.clone();
    Ok(Choice { branches, no_match_error, places: Some(cases.places.clone()) })
}

/// Adds the chosen values of a sum, and checks the result as if it had been given as it is.
pub(crate) fn add_up(
    spec: &AttrSpec,
    name: &str,
    chosen: &[&AttrValue],
) -> Result<AttrValue, RuleError> {
    let given = |value: &&&AttrValue| **value != &AttrValue::None;
    let mut values = chosen.iter().filter(given).map(|value| (*value).clone());
    let Some(mut sum) = values.next() else {
        if spec.mandatory {
            let message = format!("attribute `{name}` is mandatory, and comes to `None` here");
            return Err(RuleError::new(Code::Attribute, message));
        }
        return Ok(spec.default.clone());
    };
    for value in values {
        sum = match (sum, value) {
            (AttrValue::String(a), AttrValue::String(b)) => {
                AttrValue::String(format!("{a}{b}").into())
            }
            (AttrValue::Strings(a), AttrValue::Strings(b)) => AttrValue::Strings(chain(a, b)),
            (AttrValue::Ints(a), AttrValue::Ints(b)) => AttrValue::Ints(chain(a, b)),
            (AttrValue::Labels(a), AttrValue::Labels(b)) => AttrValue::Labels(chain(a, b)),
            (AttrValue::Dict(a), AttrValue::Dict(b)) => AttrValue::Dict(union(a, b)),
            (AttrValue::LabelDict(a), AttrValue::LabelDict(b)) => AttrValue::LabelDict(union(a, b)),
            (_, other) => other,
        };
    }
    check_value(spec, name, &sum)?;
    Ok(sum)
}

/// The entries of both; where a key is in both, the later value counts, as with `|`.
fn union<K: PartialEq, V>(left: Box<[(K, V)]>, right: Box<[(K, V)]>) -> Box<[(K, V)]> {
    let mut left = left.into_vec();
    for (key, value) in right {
        match left.iter_mut().find(|(own, _)| *own == key) {
            Some(slot) => slot.1 = value,
            None => left.push((key, value)),
        }
    }
    left.into()
}

fn chain<T>(left: Box<[T]>, right: Box<[T]>) -> Box<[T]> {
    left.into_iter().chain(right).collect()
}
