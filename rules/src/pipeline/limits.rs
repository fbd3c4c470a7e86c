//! What a pipeline may take. Every bound has a name, and is told with the error that it causes.

/// Largest file, in bytes; larger ones are refused before anything is parsed.
pub(crate) const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub(crate) const NESTING_MAX: usize = 64;
/// Most scalars, lists and mappings of a file, with what aliases stand for counted each time.
pub(crate) const NODES_MAX: usize = 400_000;
/// Most steps of a pipeline, with those of what it includes.
pub(crate) const STEPS_MAX: usize = 20_000;
/// Longest expression, in bytes.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 4 * 1024;
/// Deepest nesting of operators, calls and brackets in an expression.
pub(crate) const EXPRESSION_NESTING_MAX: usize = 64;
/// Deepest nesting of an expression once values of includes stand in the place of their params.
pub(crate) const INCLUDED_NESTING_MAX: usize = 4 * EXPRESSION_NESTING_MAX;
/// Largest value that an expression comes to, and most that the instances of a matrix are told
/// together, in bytes of JSON.
pub(crate) const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest compiled pattern of `=~`, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Most pairs of steps of which one follows the other.
pub(crate) const EDGES_MAX: usize = 1_000_000;
/// Most findings of each severity that are told of one pipeline.
pub(crate) const FINDINGS_MAX: usize = 100;
/// Deepest chain of pipelines that include each other.
pub(crate) const INCLUDES_DEPTH_MAX: usize = 16;
/// Most files of one pipeline.
pub(crate) const INCLUDES_MAX: usize = 256;
/// Most rounds of a loop, and most instances of a matrix.
pub(crate) const ROUNDS_MAX: u64 = 100_000;
/// Most combinations that a matrix leaves out, and most that it adds.
pub(crate) const COMBINATIONS_MAX: usize = 1_000;
/// Longest time limit, delay or age, in milliseconds: ten years.
pub(crate) const DURATION_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1000;
/// Largest budget, in millionths of a dollar: ten million dollars.
pub(crate) const MONEY_MICROS_MAX: u64 = 10_000_000 * 1_000_000;
/// Longest name of a pipeline, step, param or output, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 100;
