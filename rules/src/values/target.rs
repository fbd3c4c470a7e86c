//! `Target`: a dependency as a rule's implementation sees it: a label and its providers.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use allocative::Allocative;
use maestro_core::Label;
use starlark::coerce::Coerce;
use starlark::collections::StarlarkHasher;
use starlark::starlark_complex_value;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::label::LabelValue;
use super::provider::{ProviderCallable, ProviderInstance, ProviderType, builtins, same_type};
use crate::error::{Code, RuleError};

/// A label with the providers that its rule returned.
#[derive(
    Debug, Trace, Coerce, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
#[repr(C)]
pub(crate) struct TargetGen<V> {
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) label: Label,
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) types: Vec<Arc<ProviderType>>,
    pub(crate) instances: Vec<V>,
}

starlark_complex_value!(pub(crate) Target);

impl Freeze for Target<'_> {
    type Frozen = FrozenTarget;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { label, types, instances } = self;
        Ok(TargetGen { label, types, instances: instances.freeze(freezer)? })
    }
}

impl<'v> Target<'v> {
    /// The instance of a provider, if the target has one.
    pub(crate) fn provider(&self, ty: &ProviderType) -> Option<Value<'v>> {
        let at = self.types.iter().position(|own| same_type(own, ty))?;
        self.instances.get(at).copied()
    }

    /// A field of its `DefaultInfo`.
    pub(crate) fn default_field(&self, name: &str) -> Option<Value<'v>> {
        let instance = self.provider(&builtins().default_info.ty)?;
        ProviderInstance::from_value(instance)?.field(name)
    }
}

impl<V> fmt::Display for TargetGen<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<target {}>", self.label)
    }
}

#[starlark_value(type = "Target")]
impl<'v, V: ValueLike<'v>> StarlarkValue<'v> for TargetGen<V>
where
    Self: ProvidesStaticType<'v>,
{
    type Canonical = FrozenTarget;

    fn at(&self, index: Value<'v>, _heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        let Some(callable) = ProviderCallable::from_value(index) else {
            return super::wrong_type("target[…]", "a provider", index).raise();
        };
        let at = self.types.iter().position(|own| same_type(own, &callable.ty));
        match at.and_then(|at| self.instances.get(at)) {
            Some(instance) => Ok(instance.to_value()),
            None => {
                let has: Vec<&str> = self.types.iter().map(|ty| ty.name()).collect();
                let message = format!("`{}` has no provider `{}`", self.label, callable.ty.name());
                RuleError::new(Code::Dependency, message)
                    .hint(format!("it has: {}", has.join(", ")))
                    .raise()
            }
        }
    }

    fn is_in(&self, other: Value<'v>) -> starlark::Result<bool> {
        let Some(callable) = ProviderCallable::from_value(other) else {
            return super::wrong_type("… in target", "a provider", other).raise();
        };
        Ok(self.types.iter().any(|own| same_type(own, &callable.ty)))
    }

    fn get_attr(&self, attribute: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let default = |field: &str| {
            let ty = &builtins().default_info.ty;
            let at = self.types.iter().position(|own| same_type(own, ty))?;
            self.instances.get(at)?.to_value().get_attr(field, heap).ok().flatten()
        };
        match attribute {
            "label" => Some(heap.alloc(LabelValue { label: self.label.clone() })),
            "files" | "files_to_run" | "default_runfiles" | "data_runfiles" => default(attribute),
            _ => None,
        }
    }

    fn dir_attr(&self) -> Vec<String> {
        ["data_runfiles", "default_runfiles", "files", "files_to_run", "label"]
            .map(str::to_owned)
            .into()
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(Target::from_value(other).is_some_and(|other| other.label == self.label))
    }

    fn write_hash(&self, hasher: &mut StarlarkHasher) -> starlark::Result<()> {
        self.label.hash(hasher);
        Ok(())
    }
}
