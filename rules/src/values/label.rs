//! `Label`: the full name of a target or file, as a value.

use std::fmt;

use allocative::Allocative;
use maestro_core::Label;
use starlark::collections::StarlarkHasher;
use starlark::environment::{Methods, MethodsBuilder};
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};
use std::hash::Hash;

use crate::error::{Code, RuleError};

/// A label as a Starlark value.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct LabelValue {
    #[allocative(skip)]
    pub(crate) label: Label,
}

starlark_simple_value!(LabelValue);

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.label, f)
    }
}

starlark::methods_static!(LABEL_METHODS = label_methods);

#[starlark_value(type = "Label")]
impl<'v> StarlarkValue<'v> for LabelValue {
    fn get_methods() -> Option<&'static Methods> {
        Some(LABEL_METHODS.methods())
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(Self::from_value(other).is_some_and(|other| other.label == self.label))
    }

    fn write_hash(&self, hasher: &mut StarlarkHasher) -> starlark::Result<()> {
        self.label.hash(hasher);
        Ok(())
    }
}

#[starlark_module]
fn label_methods(builder: &mut MethodsBuilder) {
    /// The name inside the package.
    #[starlark(attribute)]
    fn name(this: &LabelValue) -> starlark::Result<String> {
        Ok(this.label.name.to_string())
    }

    /// The package.
    #[starlark(attribute)]
    fn package(this: &LabelValue) -> starlark::Result<String> {
        Ok(this.label.package.to_string())
    }

    /// The repository, empty for the main one.
    #[starlark(attribute)]
    fn repo_name(this: &LabelValue) -> starlark::Result<String> {
        Ok(this.label.repo.to_string())
    }

    /// The repository, as Bazel used to call it.
    #[starlark(attribute)]
    fn workspace_name(this: &LabelValue) -> starlark::Result<String> {
        Ok(this.label.repo.to_string())
    }

    /// A label in the same package.
    fn same_package_label(
        this: &LabelValue,
        #[starlark(require = pos)] name: &str,
    ) -> starlark::Result<LabelValue> {
        let label = Label::new(&this.label.repo, &this.label.package, name)
            .map_err(|e| RuleError::new(Code::Label, e.to_string()))?;
        Ok(LabelValue { label })
    }
}
