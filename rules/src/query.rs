//! Queries: questions about targets, answered from the build files without running any rule.
//!
//! The language is Bazel's.
//!
//! ```text
//! //app/...   //app:*   lib/a.c      the targets (and files) that patterns and paths name
//! deps(//app:server)                 all that a target needs, itself included; deps(x, 1): direct
//! rdeps(//..., //lib:core)           what of the first needs the second
//! somepath(a, b)   allpaths(a, b)    how a comes to need b
//! kind("cc_.*", //...)               targets whose kind matches; also attr, filter, tests, visible
//! a + b   a - b   a ^ b              union, except, intersect
//! let x = //a/... in $x - deps(//b)  names
//! ```
//!
//! `source` loads what the query names into a [`graph::TargetGraph`] of dense ids, `eval` says
//! which of its nodes are meant, `output` writes them. A query looks at all branches of a
//! `select()`: what it says holds for every configuration. [`cquery`] asks the same language of
//! configured targets, [`aquery`] of their actions.

mod actions;
mod attributes;
mod configured;
mod eval;
mod functions;
mod graph;
mod lexer;
mod listed;
mod names;
mod output;
mod parse;
mod patterns;
mod proto;
mod set;
mod source;
mod walk;

use std::io;

use maestro_core::Label;
use maestro_core::host::Host;

use self::eval::{Evaluator, Stop};
use self::graph::TargetGraph;
use self::listed::Listed;
use self::names::Names;
use self::parse::{Expression, Function, Word};
use self::set::NodeSet;
use self::source::Source;
use crate::config::request::ConfigurationRequest;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::generator::Generator;
use crate::limits::EvaluationLimits;
use crate::load::file::display;
use crate::load::packages::Packages;
use crate::memo::PackageMemories;
use crate::resolve::Universe;
use crate::{on_large_stack, split};

pub use actions::{ActionAnswer, ActionFacts, ActionForm, aquery, cquery_files};
pub use configured::cquery;
pub use output::{OutputOptions, QueryForm, QueryOrder};

/// What a query reads.
#[derive(Clone)]
pub struct QueryOptions<'a> {
    /// The workspace.
    pub host: &'a dyn Host,
    /// The question.
    pub expression: &'a str,
    /// The package where relative patterns start.
    pub package: &'a str,
    /// Threads that evaluate files.
    pub threads: usize,
    /// The patterns that `allrdeps` looks through; `//...` where empty.
    pub universe: Vec<String>,
    /// Which edges count.
    pub edges: EdgeFilter,
    /// What targets are configured for, in [`cquery`] and [`aquery`].
    pub configuration: ConfigurationRequest,
    /// What builds remember of packages; it is asked where many of them are needed.
    pub memory: Option<&'a dyn PackageMemories>,
}

impl<'a> QueryOptions<'a> {
    /// A question about all edges of a workspace, asked at its root.
    pub fn new(host: &'a dyn Host, expression: &'a str, threads: usize) -> Self {
        Self {
            host,
            expression,
            package: "",
            threads,
            universe: Vec::new(),
            edges: EdgeFilter::default(),
            configuration: ConfigurationRequest::default(),
            memory: None,
        }
    }
}

/// Which edges of the target graph count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeFilter {
    /// Those that a rule adds by itself: private attributes, toolchains.
    pub implicit: bool,
}

impl Default for EdgeFilter {
    fn default() -> Self {
        Self { implicit: true }
    }
}

/// What a query is asked of; it decides which functions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Targets as build files declare them: `query`.
    Loading,
    /// Configured targets: `cquery`.
    Configured,
    /// Actions of configured targets: `aquery`.
    Actions,
}

impl Phase {
    /// The command that asks in this phase.
    fn command(self) -> &'static str {
        match self {
            Self::Loading => "query",
            Self::Configured => "cquery",
            Self::Actions => "aquery",
        }
    }
}

/// One target of an answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QueryTarget {
    /// Its label.
    pub label: Label,
    /// `cc_library rule`, `source file` or `generated file`.
    pub kind: String,
    /// `file:line:column` of its declaration; a source file has none.
    pub location: Option<String>,
    /// The macro that declares it, if one does.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// What it depends on directly, sorted, each once.
    pub deps: Vec<Label>,
}

/// The targets that a query names, and the graph around them.
#[derive(Debug)]
pub struct QueryAnswer {
    graph: TargetGraph,
    selected: NodeSet,
    /// Whether the query asks for a path, which is shown from its start.
    is_path: bool,
    /// What files printed, and warnings.
    pub remarks: Vec<Diagnostic>,
    /// The `.star` files of the workspace that were evaluated, sorted.
    pub evaluated: Vec<String>,
    /// What was loaded for the answer. Whoever needs the answer to the end of the program saves the
    /// time that it takes to take all of it down.
    _loaded: Names,
}

impl QueryAnswer {
    /// The labels of the targets, sorted.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.selected.iter().map(|id| &self.graph.node(id).label)
    }

    /// The targets, sorted by label.
    pub fn targets(&self) -> Vec<QueryTarget> {
        self.selected.iter().map(|id| output::describe(&self.graph, id)).collect()
    }

    /// Writes the targets in a form.
    pub fn write(&self, options: &OutputOptions, out: &mut dyn io::Write) -> io::Result<()> {
        output::write(&self.graph, &self.selected, self.is_path, options, out)
    }
}

/// Answers a query.
pub fn query(options: QueryOptions<'_>) -> Result<QueryAnswer, Vec<Diagnostic>> {
    on_large_stack(|| answer(&options))
}

fn answer(options: &QueryOptions<'_>) -> Result<QueryAnswer, Vec<Diagnostic>> {
    let fail = |error: RuleError| vec![Diagnostic::of(error, None)];
    let expression = parse::parse(options.expression, Phase::Loading).map_err(fail)?;
    let host = Listed::new(options.host);
    let packages = Packages::new(&host, options.threads, EvaluationLimits::default())
        .with_memory(options.memory);
    let mut source =
        Source::new(Universe::new(packages), options.package, options.edges, &expression);
    let universe = universe_of(options, &expression);
    let mut remarks = load(&mut source, &expression, &universe)?;
    loop {
        let (graph, patterns) = source.graph();
        let mut evaluator = Evaluator {
            graph: &graph,
            patterns: &patterns,
            universe: &universe,
            variables: vec![],
        };
        match evaluator.evaluate(&expression) {
            Ok(selected) => {
                let is_path = matches!(&expression, Expression::Call(Function::SomePath, _));
                remarks.extend(source.loaded().recalled_remarks());
                let evaluated = evaluated(source.loaded());
                let _loaded = source.into_names();
                return Ok(QueryAnswer { graph, selected, is_path, remarks, evaluated, _loaded });
            }
            Err(Stop::Wrong(error)) => return Err(fail(error)),
            // Every round opens targets that were not open before, so there is a last one.
            Err(Stop::Open(labels)) => {
                let progress = source.open(&labels);
                remarks.extend(checked(&mut source)?);
                if !progress {
                    let message = "the dependencies of a target cannot be loaded, without an error";
                    return Err(fail(RuleError::new(Code::Internal, message)));
                }
            }
        }
    }
}

/// The files of the workspace that were evaluated.
fn evaluated(packages: &Packages<'_>) -> Vec<String> {
    let files = packages.evaluated().filter(|(file, _)| file.is_main());
    files.map(|(file, _)| display(file)).collect()
}

/// The patterns that `allrdeps` looks through.
fn universe_of(options: &QueryOptions<'_>, expression: &Expression) -> Vec<Word> {
    if !expression.calls(Function::AllRdeps) {
        return Vec::new();
    }
    let word = |text: &str| Word { text: text.to_owned(), column: 1 };
    match options.universe.as_slice() {
        [] => vec![word("//...")],
        patterns => patterns.iter().map(|text| word(text)).collect(),
    }
}

/// Loads what the patterns name, and the dependencies that will be walked as far as one can see.
fn load(
    source: &mut Source<'_>,
    expression: &Expression,
    universe: &[Word],
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let mut name = |word: &Word, walked: bool| {
        if let Err(error) = source.name(word, walked) {
            errors.push(Diagnostic::of(error, None));
        }
    };
    universe.iter().for_each(|word| name(word, true));
    expression.patterns(false, &mut name);
    match checked(source) {
        Ok(remarks) if errors.is_empty() => Ok(remarks),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// The remarks of what was loaded, unless there are errors.
fn checked(source: &mut Source<'_>) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let (remarks, errors) = split(source.take_diagnostics());
    if errors.is_empty() { Ok(remarks) } else { Err(errors) }
}
