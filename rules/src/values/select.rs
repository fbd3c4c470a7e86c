//! `select`: a value that depends on the configuration, alone or as part of a sum.
//!
//! It stays symbolic while files are evaluated, so a macro can pass it on and add to it, and no
//! file can look at the configuration. What it comes to is decided when the target is configured.

use std::fmt;
use std::sync::Arc;

use allocative::Allocative;
use maestro_core::Label;
use starlark::codemap::FileSpan;
use starlark::coerce::Coerce;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_complex_value;
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::label::LabelValue;
use super::wrong_type;
use crate::diagnostic::Location;
use crate::error::{Code, RuleError};
use crate::scope::FileScope;

/// The condition that holds where no other does.
pub(crate) const DEFAULT_CONDITION: &str = "//conditions:default";

/// A condition as it stands in a file; a text is relative to the package that uses the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Text(Arc<str>),
    Label(Label),
}

/// One operand of a sum.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// One value, the same in every configuration.
    Plain,
    /// As many values as conditions.
    Select(Arc<Cases>),
}

/// What one call of `select` says besides its values.
#[derive(Debug)]
pub(crate) struct Cases {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) no_match_error: Arc<str>,
    pub(crate) places: Arc<Places>,
}

/// Where the branches of a `select` stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) file: Arc<str>,
    /// Line and column of each branch.
    pub(crate) at: Vec<(u32, u32)>,
}

impl Places {
    /// `file:line:column` of a branch.
    pub(crate) fn of(&self, branch: usize) -> String {
        let (line, column) = self.at.get(branch).copied().unwrap_or_default();
        format!("{}:{line}:{column}", self.file)
    }

    /// Finds conditions in the text of a call; where one is not found, the call has to do.
    fn find(span: Option<&FileSpan>, conditions: &[Condition]) -> Self {
        let Some(span) = span else {
            return Self { file: "".into(), at: vec![(0, 0); conditions.len()] };
        };
        let text = span.source_span();
        let start = Location::of(span);
        let place = |condition: &Condition| {
            let before = match condition {
                Condition::Text(key) => {
                    text.find(&format!("\"{key}\"")).and_then(|at| text.get(..at))
                }
                Condition::Label(_) => None,
            };
            let Some(before) = before else { return (start.line, start.column) };
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let lines = count(before.matches('\n').count());
            let column = count(before.rsplit('\n').next().unwrap_or_default().chars().count());
            match lines {
                0 => (start.line, start.column.saturating_add(column)),
                _ => (start.line.saturating_add(lines), column.saturating_add(1)),
            }
        };
        Self { file: start.file.clone(), at: conditions.iter().map(place).collect() }
    }
}

impl Operand {
    /// How many values belong to it.
    fn arity(&self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Select(cases) => cases.conditions.len(),
        }
    }
}

/// A sum of plain values and calls of `select`.
#[derive(
    Debug, Trace, Coerce, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
#[repr(C)]
pub(crate) struct SelectGen<V> {
    #[trace(static)]
    #[allocative(skip)]
    operands: Vec<Operand>,
    /// The values of all operands, one after the other.
    values: Vec<V>,
}

starlark_complex_value!(pub(crate) Select);

impl Freeze for Select<'_> {
    type Frozen = FrozenSelect;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { operands, values } = self;
        Ok(SelectGen { operands, values: values.freeze(freezer)? })
    }
}

impl<'v> Select<'v> {
    /// The operands with their values.
    pub(crate) fn operands(&self) -> impl Iterator<Item = (&Operand, &[Value<'v>])> {
        let mut rest = self.values.as_slice();
        self.operands.iter().map(move |operand| {
            let (own, others) = rest.split_at_checked(operand.arity()).unwrap_or((rest, &[]));
            rest = others;
            (operand, own)
        })
    }

    /// A value as a sum of one, if it is not a sum already.
    fn of(value: Value<'v>) -> Self {
        match Self::from_value(value) {
            Some(sum) => Self { operands: sum.operands.clone(), values: sum.values.clone() },
            None => Self { operands: vec![Operand::Plain], values: vec![value] },
        }
    }

    fn sum(left: Value<'v>, right: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        let (mut sum, right) = (Self::of(left), Self::of(right));
        sum.operands.extend(right.operands);
        sum.values.extend(right.values);
        if sum.operands.len() > OPERANDS_MAX {
            let message = format!("a sum has more than {OPERANDS_MAX} operands with `select`");
            return RuleError::new(Code::Limit, message).raise();
        }
        Ok(heap.alloc(sum))
    }
}

/// Most operands of one sum: each further one copies those before it.
const OPERANDS_MAX: usize = 1000;

impl<V: fmt::Display> fmt::Display for SelectGen<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.iter();
        for (at, operand) in self.operands.iter().enumerate() {
            if at > 0 {
                f.write_str(" + ")?;
            }
            let Operand::Select(cases) = operand else {
                values.next().map_or(Ok(()), |value| value.fmt(f))?;
                continue;
            };
            f.write_str("select({")?;
            for (at, condition) in cases.conditions.iter().enumerate() {
                let comma = if at > 0 { ", " } else { "" };
                match condition {
                    Condition::Text(text) => write!(f, "{comma}\"{text}\": ")?,
                    Condition::Label(label) => write!(f, "{comma}\"{label}\": ")?,
                }
                values.next().map_or(Ok(()), |value| value.fmt(f))?;
            }
            f.write_str("})")?;
        }
        Ok(())
    }
}

#[starlark_value(type = "select")]
impl<'v, V: ValueLike<'v>> StarlarkValue<'v> for SelectGen<V>
where
    Self: ProvidesStaticType<'v>,
{
    type Canonical = FrozenSelect;

    fn add(&self, rhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let own = Select {
            operands: self.operands.clone(),
            values: self.values.iter().map(|value| value.to_value()).collect(),
        };
        Some(Select::sum(heap.alloc(own), rhs, heap))
    }

    fn radd(&self, lhs: Value<'v>, heap: Heap<'v>) -> Option<starlark::Result<Value<'v>>> {
        let own = Select {
            operands: self.operands.clone(),
            values: self.values.iter().map(|value| value.to_value()).collect(),
        };
        Some(Select::sum(lhs, heap.alloc(own), heap))
    }

    fn bit_or(&self, rhs: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        match self.add(rhs, heap) {
            Some(sum) => sum,
            None => Ok(rhs),
        }
    }
}

#[starlark_module]
pub(crate) fn select_globals(builder: &mut GlobalsBuilder) {
    /// A value of an attribute that depends on the configuration.
    ///
    /// Args:
    ///   x: a dict from labels of `config_setting` or `constraint_value` targets to values;
    ///     `//conditions:default` is for everything else. Where several hold, the one that asks
    ///     for all that the others ask for and more is taken.
    ///   no_match_error: what to say where none holds.
    fn select<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(require = named, default = "")] no_match_error: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Select<'v>> {
        FileScope::of(eval)?;
        let wrong = |value| wrong_type("x", "a dict from labels of conditions to values", value);
        let Some(dict) = DictRef::from_value(x) else { return wrong(x).raise() };
        if dict.is_empty() {
            return RuleError::new(Code::Evaluation, "a `select` needs at least one condition")
                .hint(format!("`\"{DEFAULT_CONDITION}\"` holds where no other does"))
                .raise();
        }
        let mut conditions = Vec::with_capacity(dict.len());
        let mut values = Vec::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            conditions.push(match (LabelValue::from_value(key), key.unpack_str()) {
                (Some(label), _) => Condition::Label(label.label.clone()),
                (None, Some(text)) => Condition::Text(text.into()),
                (None, None) => return wrong(key).raise(),
            });
            if Select::from_value(value).is_some() {
                return RuleError::new(Code::Evaluation, "a `select` cannot stand in another")
                    .hint("make a `config_setting` that asks for both")
                    .raise();
            }
            values.push(value);
        }
        let span = eval.call_stack_top_location();
        let places = Arc::new(Places::find(span.as_ref(), &conditions));
        let cases = Cases { conditions, no_match_error: no_match_error.into(), places };
        Ok(Select { operands: vec![Operand::Select(Arc::new(cases))], values })
    }
}
