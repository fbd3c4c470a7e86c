//! Operations that could ask for more memory than there is, each in one step.
//!
//! The interpreter looks at the heap between steps, so a single `"x" * 1000000000` would be
//! noticed when the memory is gone. The parser's tree is changed so that `*` calls
//! [`TIMES`], which refuses such a product before it is made. What other operations ask for is
//! bounded by the program that owns the memory: see [`evaluated_file`].
//! A range is bounded for the same reason: it is small, but a list of its numbers is not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use maestro_core::limits;
use starlark::environment::{Globals, GlobalsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::syntax::AstModule;
use starlark::values::tuple::UnpackTuple;
use starlark::values::{FrozenValue, Value};

use crate::error::{Code, RuleError};
use crate::values::sequence;

/// The function that takes the place of `*`.
const TIMES: &str = "__times__";
/// The memory of one item of a list or tuple.
const ITEM_BYTES: usize = 8;

thread_local! {
    static FILE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The file that this thread evaluates, or whose rule it analyzes; empty for none.
///
/// For whoever owns the program's memory: a request for [`limits::STARLARK_STEP_BYTES_MAX`] or more
/// while a file is evaluated comes from that file.
pub fn evaluated_file<T>(look: impl FnOnce(&str) -> T) -> T {
    // A thread that ends, or that is just told of its file, evaluates none.
    let mut look = Some(look);
    let told = FILE.try_with(|file| {
        let file = file.try_borrow().ok()?;
        look.take().map(|look| look(&file))
    });
    match (told, look) {
        (Ok(Some(told)), _) => told,
        (_, Some(look)) => look(""),
        (_, None) => unreachable!("the closure is taken only where its answer is returned"),
    }
}

/// Says, as long as it lives, that this thread evaluates a file.
pub(crate) struct Evaluating(String);

impl Evaluating {
    pub(crate) fn start(file: &str) -> Self {
        Self(FILE.with(|current| current.replace(file.to_owned())))
    }
}

impl Drop for Evaluating {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.0);
        FILE.with(|current| current.replace(before));
    }
}

/// Makes a file call [`TIMES`] for its products.
pub(crate) fn bound_products(ast: &mut AstModule) {
    ast.replace_binary_operators(&HashMap::from([("*".to_owned(), TIMES.to_owned())]));
}

/// The memory of one repetition of a value, where `*` repeats it.
fn repeated_bytes(value: Value<'_>) -> Option<usize> {
    match value.unpack_str() {
        Some(text) => Some(text.len()),
        None => sequence(value).map(|items| items.len() * ITEM_BYTES),
    }
}

fn check_product(left: Value<'_>, right: Value<'_>) -> Result<(), RuleError> {
    let (bytes, times) = match (repeated_bytes(left), repeated_bytes(right)) {
        (Some(bytes), None) => (bytes, right.unpack_i32()),
        (None, Some(bytes)) => (bytes, left.unpack_i32()),
        _ => return Ok(()),
    };
    let times = times.and_then(|times| usize::try_from(times).ok()).unwrap_or(0);
    let limit = limits::STARLARK_PRODUCT_BYTES_MAX;
    match bytes.checked_mul(times) {
        Some(product) if product <= limit => Ok(()),
        _ => {
            let message = format!("{bytes} bytes times {times} is more than {limit} bytes");
            Err(RuleError::new(Code::Limit, message)
                .hint("a build file that needs such a value should have an action make it"))
        }
    }
}

/// A range takes no memory, but what is made of it does.
fn check_range(numbers: &[i32]) -> Result<(), RuleError> {
    let (start, stop, step) = match numbers {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, *step),
        _ => return Ok(()), // the interpreter says what is wrong
    };
    let distance = (i64::from(stop) - i64::from(start)) * i64::from(step.signum());
    let count = distance.max(0) / i64::from(step).abs().max(1);
    let limit = limits::STARLARK_RANGE_MAX;
    if count <= limit {
        return Ok(());
    }
    Err(RuleError::new(Code::Limit, format!("a range of {count} numbers, the limit is {limit}"))
        .hint("a loop that ends by itself can go over a shorter range"))
}

/// The function `range` of the interpreter.
fn interpreters_range() -> FrozenValue {
    static RANGE: OnceLock<(Globals, FrozenValue)> = OnceLock::new();
    let (_, range) = RANGE.get_or_init(|| {
        let globals = Globals::standard();
        let range = globals.iter().find(|(name, _)| *name == "range");
        let (_, range) = range.expect("the interpreter has a `range`");
        (globals, range)
    });
    *range
}

#[starlark_module]
pub(crate) fn bounded_globals(builder: &mut GlobalsBuilder) {
    /// The numbers from `start` up to `stop`, without it.
    ///
    /// Args:
    ///   args: `stop`, or `start` and `stop`, or `start`, `stop` and the step between two numbers.
    fn range<'v>(
        #[starlark(args)] args: UnpackTuple<i32>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        check_range(&args.items)?;
        let heap = eval.heap();
        let numbers: Vec<Value<'v>> = args.items.iter().map(|number| heap.alloc(*number)).collect();
        eval.eval_function(interpreters_range().to_value(), &numbers, &[])
    }

    /// The product of two values, as `*` makes it, if it is not too large.
    fn __times__<'v>(
        #[starlark(require = pos)] left: Value<'v>,
        #[starlark(require = pos)] right: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        check_product(left, right)?;
        left.mul(right, eval.heap())
    }
}
