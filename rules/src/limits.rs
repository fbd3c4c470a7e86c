//! What an evaluation may take, and bounds that the interpreter does not have itself.
//!
//! Freezing a module recurses over its values, so values that hold each other in a very long chain
//! would overflow the stack. They are looked for first, without recursion.

use std::collections::HashMap;

use maestro_core::limits;
use starlark::environment::Module;
use starlark::eval::Evaluator;
use starlark::syntax::{AstModule, Dialect};
use starlark::values::dict::DictRef;
use starlark::values::structs::StructRef;
use starlark::values::{Value, ValueIdentity};

use crate::error::{Code, RuleError};
use crate::globals::globals;
use crate::values::depset::Depset;
use crate::values::provider::ProviderInstance;
use crate::values::sequence;
use crate::values::target::Target;

/// What the evaluation of one file, or the analysis of one target, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationLimits {
    /// Calls and loop iterations.
    pub ticks: u64,
    /// Memory of Starlark values, in bytes. A single operation may pass it before it is noticed.
    pub heap_bytes: usize,
    /// Calls within calls.
    pub call_depth: usize,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self {
            ticks: limits::STARLARK_TICKS_MAX,
            heap_bytes: limits::STARLARK_HEAP_BYTES_MAX,
            call_depth: limits::STARLARK_CALL_DEPTH_MAX,
        }
    }
}

impl EvaluationLimits {
    /// Sets the bounds of an evaluator.
    pub(crate) fn apply(self, eval: &mut Evaluator<'_, '_, '_>) -> starlark::Result<()> {
        let Self { ticks, heap_bytes, call_depth } = self;
        let internal = |e: String| RuleError::new(Code::Internal, e);
        eval.set_max_tick_count(ticks).map_err(|e| internal(e.to_string()))?;
        eval.set_max_heap_size(heap_bytes).map_err(|e| internal(e.to_string()))?;
        eval.set_max_callstack_size(call_depth).map_err(|e| internal(e.to_string()))?;
        Ok(())
    }
}

/// Deepest nesting of lists, tuples, dicts, structs, providers and depsets in each other.
const VALUE_DEPTH_MAX: usize = 1_000;

/// Heaps up to this size cannot hold values that nest too deeply to be frozen.
pub(crate) const UNCHECKED_HEAP_BYTES: usize = 256 * 1024;

/// Checks the values of every variable of a module that was just evaluated.
pub(crate) fn check_module<'v>(
    module: &Module<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<()> {
    if eval.heap().allocated_bytes() <= UNCHECKED_HEAP_BYTES {
        return Ok(());
    }
    let mut depths = HashMap::new();
    let names: Vec<String> =
        module.names_and_visibilities().map(|(name, _)| name.as_str().to_owned()).collect();
    for name in names {
        // Private variables can only be read by a piece of Starlark; one that has no value fails.
        let value = match module.get(&name) {
            Some(value) => Some(value),
            None => AstModule::parse("value", name.clone(), &Dialect::Standard)
                .and_then(|ast| eval.eval_module(ast, globals()))
                .ok(),
        };
        if let Some(value) = value {
            check_value(value, &mut depths).map_err(|mut error| {
                error.message = format!("variable `{name}`: {}", error.message);
                error
            })?;
        }
    }
    Ok(())
}

/// Checks one value.
pub(crate) fn check_value<'v>(
    root: Value<'v>,
    depths: &mut HashMap<ValueIdentity<'v>, usize>,
) -> Result<(), RuleError> {
    let mut stack = vec![(root, 0usize)];
    while let Some((value, depth)) = stack.pop() {
        if depth > VALUE_DEPTH_MAX {
            let message = format!("values nest deeper than {VALUE_DEPTH_MAX}");
            return Err(RuleError::new(Code::Limit, message));
        }
        if value.unpack_frozen().is_some() || value.unpack_str().is_some() {
            continue;
        }
        // Seen at least as deep before: nothing new below.
        match depths.get(&value.identity()) {
            Some(known) if *known >= depth => continue,
            _ => depths.insert(value.identity(), depth),
        };
        if let Some(items) = sequence(value) {
            stack.extend(items.iter().map(|item| (*item, depth + 1)));
        } else if let Some(dict) = DictRef::from_value(value) {
            stack.extend(dict.iter().flat_map(|(k, v)| [(k, depth + 1), (v, depth + 1)]));
        } else if let Some(record) = StructRef::from_value(value) {
            stack.extend(record.iter().map(|(_, v)| (v, depth + 1)));
        } else if let Some(set) = Depset::from_value(value) {
            stack.extend(set.parts().into_iter().map(|part| (part, depth + 1)));
        } else if let Some(instance) = ProviderInstance::from_value(value) {
            stack.extend(instance.values().map(|field| (field, depth + 1)));
        } else if let Some(target) = Target::from_value(value) {
            stack.extend(target.instances.iter().map(|instance| (*instance, depth + 1)));
        }
    }
    Ok(())
}
