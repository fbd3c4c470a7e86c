//! The front end: from build files to the action graph.
//!
//! Build files are Starlark. Evaluating them has no effects: every file, folder and listing is
//! asked from [`maestro_core::host::Host`], which records it; no process runs, nothing is written,
//! and time and environment cannot be seen.
//!
//! [`load()`] does three things: `load` evaluates files into packages of plain data, `configured`
//! finds the targets that a request needs and what each is built for, `analysis` runs the
//! implementations of their rules, which add actions to the graph. [`query()`] answers questions
//! about targets before they are configured.
//! Errors leave as [`Diagnostic`]s.
//!
//! What is not here: keys, caches, processes, and everything that knows what a rule is for. The
//! rules themselves are `.star` files in `library/`, over the small native core in `ctx`.

mod analysis;
mod aspect;
mod attr;
mod bounded;
mod build_setting;
mod config;
mod configured;
mod ctx;
mod diagnostic;
mod error;
mod evaluation;
mod format;
mod generator;
mod glob;
mod globals;
mod library;
mod limits;
mod lint;
mod load;
mod memo;
mod native_rules;
mod nesting;
mod package;
pub mod pipeline;
mod query;
mod read;
mod recalled;
mod reference;
mod repos;
mod resolve;
mod rule;
mod scope;
mod symbolic_macro;
mod toolchain_report;
mod values;
mod visibility;

use maestro_core::event::Severity;
use maestro_core::host::Host;
use maestro_core::{ActionGraph, Target, TargetId, TargetPattern};

use crate::evaluation::evaluate;
use crate::load::loader::STACK_BYTES;

pub use bounded::evaluated_file;
pub use config::definitions::HostMachine;
pub use config::request::ConfigurationRequest;
pub use config::toolchains::{Resolution, ToolchainChoice, Verdict};
pub use diagnostic::{Diagnostic, Location};
pub use error::Code;
pub use format::{FileKind, format};
pub use generator::Generator;
pub use glob::glob_matcher;
pub use limits::EvaluationLimits;
pub use lint::{LINTS, Lint, UnusedDep, fix, lint, lint_of, unused_deps, without_deps};
pub use memo::{
    ChangedPaths, Memory, PackageMemories, PackageMemory, Reevaluated, Remember, Remembered,
};
pub use query::{
    ActionAnswer, ActionFacts, ActionForm, EdgeFilter, OutputOptions, QueryAnswer, QueryForm,
    QueryOptions, QueryOrder, QueryTarget, aquery, cquery, cquery_files, query,
};
pub use reference::{
    AspectReference, Attribute, Field, FileReference, Function, MacroReference, Parameter,
    Provider, RuleReference, error_page, error_pages, language_page, reference,
};
pub use toolchain_report::{GroupToolchains, resolve_toolchains};

/// What is to be loaded.
#[derive(Clone)]
pub struct LoadOptions<'a> {
    /// The workspace.
    pub host: &'a dyn Host,
    /// Patterns in order; one with `true` takes away what it names from those before it.
    pub patterns: Vec<(bool, TargetPattern)>,
    /// What it is to be built for.
    pub configuration: ConfigurationRequest,
    /// Threads that evaluate files.
    pub threads: usize,
}

impl<'a> LoadOptions<'a> {
    /// Patterns for this machine, with every param at its default.
    pub fn new(host: &'a dyn Host, patterns: Vec<(bool, TargetPattern)>, threads: usize) -> Self {
        Self { host, patterns, configuration: ConfigurationRequest::default(), threads }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub struct Loaded {
    /// Actions, artifacts and targets; not yet planned.
    pub graph: ActionGraph,
    /// What the patterns name, in their order, each once; tests included.
    pub requested: Vec<TargetId>,
    /// How many packages were read.
    pub packages: usize,
    /// What files printed, and warnings.
    pub remarks: Vec<Diagnostic>,
}

/// An evaluation that began with a memory of an earlier one.
#[derive(Debug)]
pub struct Reloaded {
    /// What the request comes to; the same as without memory.
    pub loaded: Loaded,
    /// Whether the graph was made anew, so that ids of the one that was remembered mean nothing.
    pub anew: bool,
    /// The targets of the graph that was remembered that were analyzed again or are needed no
    /// more, as they were; `None` where these are many, or the graph was made anew.
    pub former: Option<Vec<(TargetId, Target)>>,
    /// What had to be evaluated.
    pub reevaluated: Reevaluated,
    /// What the next evaluation may begin with.
    pub remembered: Remembered,
}

/// As [`load()`], but evaluates only what is not remembered or has changed since.
///
/// Memory that is damaged or of another version is as good as none.
pub fn reload(
    options: LoadOptions<'_>,
    memory: Option<Memory<'_>>,
    remember: Remember,
) -> Result<Reloaded, Vec<Diagnostic>> {
    let limits = EvaluationLimits::default();
    on_large_stack(|| evaluate(&options, limits, memory, remember))
}

/// Evaluates the build files that a request needs into an action graph.
///
/// All errors that are independent of each other are returned, in a stable order.
pub fn load(options: LoadOptions<'_>) -> Result<Loaded, Vec<Diagnostic>> {
    load_within(options, EvaluationLimits::default())
}

/// As [`load()`], with other limits for each evaluation than those of `core/src/limits.rs`.
pub fn load_within(
    options: LoadOptions<'_>,
    limits: EvaluationLimits,
) -> Result<Loaded, Vec<Diagnostic>> {
    let reloaded = on_large_stack(|| evaluate(&options, limits, None, Remember::Nothing))?;
    Ok(reloaded.loaded)
}

fn split(all: Vec<Diagnostic>) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    all.into_iter().partition(|diagnostic| diagnostic.severity != Severity::Error)
}

/// Runs on a thread whose stack suits an interpreter that recurses.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let done = std::thread::scope(|scope| {
        let builder =
            std::thread::Builder::new().name("analysis".to_owned()).stack_size(STACK_BYTES);
        let handle = builder.spawn_scoped(scope, || work.take().map(|work| work())).ok()?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    match (done, work) {
        (Some(done), _) => done,
        // Without a thread of our own the caller's stack has to do.
        (None, Some(work)) => work(),
        (None, None) => unreachable!("the work is taken only by the thread that returns a value"),
    }
}
