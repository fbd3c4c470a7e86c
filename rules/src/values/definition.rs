//! What rules, transitions and aspects have in common: each is a function of a `.star` file with a
//! description beside it, and gets its name from the variable that it is assigned to.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;

/// The description of something that a file defines.
pub(crate) trait Definition {
    /// The file.
    fn file(&self) -> &Label;

    /// The variable that it is assigned to; known once it is.
    fn variable(&self) -> &OnceLock<Arc<str>>;
}

/// Declares the value `$name`, or `$frozen` once its file is evaluated: an `implementation`, and a
/// `spec` behind an `Arc`. The braces hold methods that the value has besides.
macro_rules! definition {
    (
        $(#[$doc:meta])*
        $name:ident, $generic:ident, $frozen:ident: $spec:ty, $type:tt, $shown:tt,
        { $($methods:tt)* }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug,
            starlark::values::Trace,
            starlark::coerce::Coerce,
            starlark::values::ProvidesStaticType,
            starlark::values::NoSerialize,
            starlark::values::StarlarkPagablePanic,
            allocative::Allocative,
        )]
        #[repr(C)]
        pub(crate) struct $generic<V> {
            pub(crate) implementation: V,
            #[trace(static)]
            #[allocative(skip)]
            pub(crate) spec: std::sync::Arc<$spec>,
        }

        use starlark::starlark_complex_value; // it calls itself by its bare name
        starlark_complex_value!(pub(crate) $name);

        impl starlark::values::Freeze for $name<'_> {
            type Frozen = $frozen;

            fn freeze(
                self,
                freezer: &starlark::values::Freezer<'_>,
            ) -> starlark::values::FreezeResult<Self::Frozen> {
                let Self { implementation, spec } = self;
                Ok($generic { implementation: implementation.freeze(freezer)?, spec })
            }
        }

        impl<V> std::fmt::Display for $generic<V> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, $shown, self.spec.name())
            }
        }

        #[starlark::values::starlark_value(type = $type)]
        impl<'v, V: starlark::values::ValueLike<'v>> starlark::values::StarlarkValue<'v>
            for $generic<V>
        where
            Self: starlark::values::ProvidesStaticType<'v>,
        {
            type Canonical = $frozen;

            fn export_as(
                &self,
                variable_name: &str,
                _eval: &mut starlark::eval::Evaluator<'v, '_, '_>,
            ) -> starlark::Result<()> {
                // The first variable counts; an alias does not rename.
                self.spec.variable.get_or_init(|| variable_name.into());
                Ok(())
            }

            $($methods)*
        }
    };
}

pub(crate) use definition;
