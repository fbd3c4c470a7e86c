//! `ctx.toolchains`: what resolution found for the types that a rule names; and how it names them.

use std::fmt;
use std::sync::Arc;

use allocative::Allocative;
use maestro_core::Label;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::{
    AllocValue, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Trace,
    Value, starlark_value,
};

use super::label::LabelValue;
use super::{expect_sequence, wrong_type};
use crate::attr::LabelBase;
use crate::error::{Code, RuleError};
use crate::scope::FileScope;

/// A type of toolchain that a rule needs.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    Hash,
    ProvidesStaticType,
    NoSerialize,
    StarlarkPagablePanic,
    Allocative,
)]
pub(crate) struct ToolchainNeed {
    /// The `toolchain_type` target.
    #[allocative(skip)]
    pub(crate) ty: Label,
    /// Whether the target cannot be built without one.
    pub(crate) mandatory: bool,
}

starlark_simple_value!(ToolchainNeed);

impl fmt::Display for ToolchainNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<toolchain type {}>", self.ty)
    }
}

#[starlark_value(type = "toolchain_type_requirement")]
impl<'v> StarlarkValue<'v> for ToolchainNeed {}

/// A label, or a text that is one.
pub(crate) fn label_of(
    value: Value<'_>,
    parameter: &str,
    base: LabelBase<'_>,
) -> Result<Label, RuleError> {
    match (LabelValue::from_value(value), value.unpack_str()) {
        (Some(label), _) => Ok(label.label.clone()),
        (None, Some(text)) => base.parse(text),
        (None, None) => Err(wrong_type(parameter, "a label", value)),
    }
}

/// The `toolchains` of a rule.
pub(crate) fn unpack_needs(
    value: Value<'_>,
    base: LabelBase<'_>,
) -> Result<Vec<ToolchainNeed>, RuleError> {
    let mut needs: Vec<ToolchainNeed> = Vec::new();
    for item in expect_sequence(value, "toolchains")? {
        let need = match ToolchainNeed::from_value(*item) {
            Some(need) => need.clone(),
            None => ToolchainNeed { ty: label_of(*item, "toolchains", base)?, mandatory: true },
        };
        if needs.iter().any(|other| other.ty == need.ty) {
            let message = format!("`toolchains` lists `{}` twice", need.ty);
            return Err(RuleError::new(Code::Evaluation, message));
        }
        needs.push(need);
    }
    Ok(needs)
}

/// The members of `config_common`.
#[starlark_module]
pub(crate) fn config_common_members(builder: &mut GlobalsBuilder) {
    /// A type of toolchain that a rule uses.
    ///
    /// Args:
    ///   name: the label of the `toolchain_type`.
    ///   mandatory: whether the target cannot be built without one; else `ctx.toolchains` may
    ///     hold `None` for it.
    fn toolchain_type<'v>(
        #[starlark(require = pos)] name: Value<'v>,
        #[starlark(require = named, default = true)] mandatory: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<ToolchainNeed> {
        let scope = FileScope::of(eval)?;
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        Ok(ToolchainNeed { ty: label_of(name, "toolchain_type", base)?, mandatory })
    }
}

/// What was found, by type. Cannot outlive the target's analysis.
#[derive(Debug, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct Toolchains<'v> {
    /// The package of the rule, where relative labels start: repository and folder.
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) base: (Arc<str>, Arc<str>),
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) types: Vec<Label>,
    /// `ToolchainInfo`, or `None`, for each type.
    pub(crate) infos: Vec<Value<'v>>,
}

impl<'v> AllocValue<'v> for Toolchains<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

impl fmt::Display for Toolchains<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<ctx.toolchains>")
    }
}

impl<'v> Toolchains<'v> {
    fn position(&self, index: Value<'v>) -> Result<Option<usize>, RuleError> {
        let base = LabelBase { repo: &self.base.0, package: &self.base.1 };
        let label = label_of(index, "toolchain_type", base)?;
        Ok(self.types.iter().position(|ty| *ty == label))
    }
}

#[starlark_value(type = "ToolchainContext")]
impl<'v> StarlarkValue<'v> for Toolchains<'v> {
    fn at(&self, index: Value<'v>, _heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        if let Some(info) = self.position(index)?.and_then(|at| self.infos.get(at)) {
            return Ok(*info);
        }
        let known: Vec<String> = self.types.iter().map(|ty| format!("`{ty}`")).collect();
        let message = format!("the rule names no toolchain type {}", index.to_repr());
        let error = RuleError::new(Code::Toolchain, message);
        match known.is_empty() {
            true => error.hint("list it in `toolchains` of `rule`"),
            false => error.hint(format!("it names {}", known.join(", "))),
        }
        .raise()
    }

    fn is_in(&self, other: Value<'v>) -> starlark::Result<bool> {
        let info = self.position(other)?.and_then(|at| self.infos.get(at));
        Ok(info.is_some_and(|info| !info.is_none()))
    }
}
