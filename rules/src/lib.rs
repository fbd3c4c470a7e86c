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
mod attr;
mod build_setting;
mod config;
mod configured;
mod ctx;
mod diagnostic;
mod error;
mod format;
mod glob;
mod globals;
mod library;
mod limits;
mod load;
mod memo;
mod native_rules;
mod nesting;
mod package;
mod query;
mod read;
mod resolve;
mod rule;
mod scope;
mod values;
mod visibility;

use std::collections::HashSet;

use maestro_core::event::Severity;
use maestro_core::host::Host;
use maestro_core::{ActionGraph, Label, TargetId, TargetPattern};

use crate::analysis::Analyzer;
use crate::config::request::configure;
use crate::configured::ConfiguredGraph;
use crate::load::loader::STACK_BYTES;
use crate::load::packages::Packages;
use crate::memo::Recall;
use crate::resolve::Universe;

pub use config::definitions::HostMachine;
pub use config::request::ConfigurationRequest;
pub use diagnostic::{Diagnostic, Location};
pub use error::Code;
pub use format::{FileKind, format};
pub use limits::EvaluationLimits;
pub use memo::{ChangedPaths, Memory, Reevaluated, Remember, Remembered};
pub use query::{QueryOptions, QueryTarget, query};

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
    on_large_stack(|| {
        let recall = memory.as_ref().and_then(Recall::open);
        load_here(&options, EvaluationLimits::default(), recall, remember)
    })
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
    let reloaded = on_large_stack(|| load_here(&options, limits, None, Remember::Nothing))?;
    Ok(reloaded.loaded)
}

fn load_here<'a>(
    options: &LoadOptions<'a>,
    limits: EvaluationLimits,
    recall: Option<Recall<'a>>,
    remember: Remember,
) -> Result<Reloaded, Vec<Diagnostic>> {
    let packages = Packages::new(options.host, options.threads, limits).with_recall(recall);
    let mut universe = Universe::new(packages);
    let labels = universe.expand(&options.patterns);
    let configured = configure(&mut universe, &options.configuration)?;
    let configured = ConfiguredGraph::discover(&mut universe, configured, &labels);
    let named = |label: &Label| {
        let mut patterns = options.patterns.iter().filter(|(negative, _)| !negative);
        patterns.any(|(_, pattern)| *pattern == TargetPattern::Single(label.clone()))
    };
    let (labels, diagnostics) = leave_out_incompatible(&configured, labels, named);
    universe.diagnostics.extend(diagnostics);
    let (mut remarks, errors) = split(std::mem::take(&mut universe.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut analyzer = Analyzer::new(&universe, &configured);
    analyzer.analyze();
    let mut requested: Vec<TargetId> = labels
        .iter()
        .filter_map(|label| configured.requested(label))
        .filter_map(|node| analyzer.requested(node))
        .collect();
    // Two names of one target are one target.
    let mut seen = HashSet::new();
    requested.retain(|id| seen.insert(*id));
    let (more, errors) = split(std::mem::take(&mut analyzer.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    remarks.extend(more);
    remarks.extend(universe.packages.recalled_remarks());
    remarks.sort_by(|a, b| (&a.location, &a.message).cmp(&(&b.location, &b.message)));
    let packages = universe.package_count();
    let graph = analyzer.into_graph();
    Ok(Reloaded {
        loaded: Loaded { graph, requested, packages, remarks },
        reevaluated: Reevaluated::of(&universe.packages),
        remembered: memo::write(&universe.packages, remember),
    })
}

/// Leaves out what cannot be built for the target platform: with an error where it is asked for by
/// its name, with a remark where a pattern names it among others.
fn leave_out_incompatible(
    configured: &ConfiguredGraph,
    labels: Vec<Label>,
    named: impl Fn(&Label) -> bool,
) -> (Vec<Label>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut skipped = Vec::new();
    let kept = labels.into_iter().filter(|label| match configured.requested(label) {
        Some(node) if configured.is_incompatible(node) => {
            match named(label) {
                true => diagnostics.push(configured.incompatibility(node)),
                false => skipped.push(format!("`{label}`")),
            }
            false
        }
        _ => true,
    });
    let kept = kept.collect();
    if !skipped.is_empty() {
        const SHOWN: usize = 5;
        let more = match skipped.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        skipped.truncate(SHOWN);
        let message = format!("skipped, not for this platform: {}{more}", skipped.join(", "));
        diagnostics.push(Diagnostic::info(message, None));
    }
    (kept, diagnostics)
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
