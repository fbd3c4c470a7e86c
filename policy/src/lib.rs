//! Policies in Rego behind the port of `maestro_core::policy`.
//!
//! A policy is text: modules and data, read by [`Sources`] and checked by [`Policies::load`] before
//! it decides anything. A path into `input` that the decision point does not have, a word that a
//! fact never is, a function that would ask a clock, and a policy that could never deny are errors
//! with file, line and column. [`Policies`] then answers as `maestro_core::policy::Policy`, and
//! never but with a denial where something goes wrong.
//!
//! Where to start reading: [`decide`] says how an answer comes about, [`check`] what is known about
//! a policy before it is asked.
//!
//! The crate knows nothing of runs; it prints nothing, and reads no more than the files that it is
//! told to. Rego itself is the crate `regorus`; nobody else uses it.

mod check;
mod decide;
mod engine;
mod error;
mod explain;
mod functions;
mod index;
mod library;
mod lint;
mod numbers;
mod pages;
mod policies;
mod shape;
mod sources;
mod syntax;
mod teeth;
mod testing;

pub use engine::is_evaluating;
pub use error::{Code, Finding, LoadError, Place};
pub use explain::{Explanation, RuleResult, RuleTrace};
pub use library::{BUILTIN, LIBRARY, LIBRARY_DATA, Shipped};
pub use pages::error_pages;
pub use policies::{Policies, lint};
pub use sources::{SourceFile, Sources};
pub use testing::{Coverage, TestOptions, TestOutcome, TestReport, TestResult, test};
#[cfg(test)]
mod tests;
