//! `ctx.actions.template_dict()`: substitutions that are put together from lists and depsets.
//!
//! Its functions run at once, during analysis; what it holds is texts.

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::{
    AllocValue, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Trace,
    Value, ValueLike, starlark_value,
};

use crate::error::RuleError;
use crate::values::depset::{Depset, Unfold};
use crate::values::{expect_sequence, sequence, wrong_type};

/// What is replaced, and by what. Cannot outlive its target's analysis.
#[derive(
    Debug, Default, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
pub(crate) struct TemplateDict {
    #[trace(static)]
    pairs: RefCell<Vec<(String, String)>>,
}

impl<'v> AllocValue<'v> for TemplateDict {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

impl TemplateDict {
    /// The value as such a dict, if it is one.
    pub(crate) fn from_value<'v>(value: Value<'v>) -> Option<&'v Self> {
        value.downcast_ref::<Self>()
    }

    /// What it holds, in the order in which it was added; the last of a name counts.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.pairs.borrow().clone()
    }
}

impl fmt::Display for TemplateDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<template_dict {}>", self.pairs.borrow().len())
    }
}

starlark::methods_static!(TEMPLATE_METHODS = template_methods);

#[starlark_value(type = "TemplateDict")]
impl<'v> StarlarkValue<'v> for TemplateDict {
    fn get_methods() -> Option<&'static Methods> {
        Some(TEMPLATE_METHODS.methods())
    }
}

fn this_dict<'v>(this: Value<'v>) -> Result<&'v TemplateDict, RuleError> {
    TemplateDict::from_value(this).ok_or_else(|| wrong_type("this", "a template_dict", this))
}

#[starlark_module]
fn template_methods(builder: &mut MethodsBuilder) {
    /// Adds one substitution.
    fn add<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] key: &str,
        #[starlark(require = pos)] value: &str,
    ) -> starlark::Result<Value<'v>> {
        this_dict(this)?.pairs.borrow_mut().push((key.to_owned(), value.to_owned()));
        Ok(this)
    }

    /// Adds a substitution that joins the items of a list or depset.
    ///
    /// Args:
    ///   key: what is replaced.
    ///   values: a list or depset.
    ///   join_with: what stands between two items.
    ///   map_each: a function from an item to a string, a list of strings, or `None`.
    ///   uniquify: drop texts that came before.
    ///   format_joined: a template with one `%s` for the whole.
    ///   allow_closure: as in Bazel; any function may be given.
    fn add_joined<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] key: &str,
        #[starlark(require = pos)] values: Value<'v>,
        #[starlark(require = named)] join_with: &str,
        #[starlark(require = named)] map_each: Value<'v>,
        #[starlark(require = named, default = false)] uniquify: bool,
        #[starlark(require = named)] format_joined: Option<&str>,
        #[starlark(require = named, default = false)] allow_closure: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let _ = allow_closure;
        let items = match Depset::from_value(values) {
            Some(set) => set.items(Unfold::of(eval))?,
            None => expect_sequence(values, "values")?.to_vec(),
        };
        let mut texts: Vec<String> = Vec::new();
        for item in items {
            let mapped = eval.eval_function(map_each, &[item], &[])?;
            let single = [mapped];
            let parts = match mapped.is_none() {
                true => &[][..],
                false => sequence(mapped).unwrap_or(&single),
            };
            for part in parts {
                let text = part.unpack_str();
                let expected = "a function that returns strings";
                texts.push(text.ok_or_else(|| wrong_type("map_each", expected, *part))?.to_owned());
            }
        }
        if uniquify {
            let mut seen = std::collections::HashSet::new();
            texts.retain(|text| seen.insert(text.clone()));
        }
        let joined = texts.join(join_with);
        let text = match format_joined {
            Some(format) => format.replacen("%s", &joined, 1),
            None => joined,
        };
        this_dict(this)?.pairs.borrow_mut().push((key.to_owned(), text));
        Ok(this)
    }
}
