//! Where a target of a macro came from: the calls between its package file and its rule.
//!
//! A declaration holds the outermost call as its span. What the calls below it look like depends
//! on the macro alone, so the targets of all its calls share one [`MacroCalls`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use starlark::eval::Evaluator;
use starlark_syntax::syntax::ast::StmtP;

use crate::diagnostic::{Diagnostic, Location};
use crate::error::RuleError;
use crate::format::parse;
use crate::lint::loaded::{call, named, string, top_level};
use crate::package::TargetDecl;

/// The calls by which a macro declares a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MacroCalls {
    /// The function that the package file calls.
    pub(crate) function: String,
    /// What each function calls, from the outermost to the one that calls the rule: where, and the
    /// name of what is called.
    pub(crate) inner: Vec<(Location, String)>,
}

/// Calls that were seen before.
pub(crate) type KnownCalls = RefCell<HashSet<Arc<MacroCalls>>>;

impl MacroCalls {
    /// The calls under evaluation; `None` where the package file itself calls the rule.
    pub(crate) fn capture(eval: &Evaluator<'_, '_, '_>, known: &KnownCalls) -> Option<Arc<Self>> {
        /// The file, and the rule.
        const DIRECT: usize = 2;
        if eval.call_stack_count() <= DIRECT {
            return None;
        }
        let mut frames = eval.call_stack().frames.into_iter();
        let function = frames.next()?.name;
        let inner = frames.filter_map(|frame| Some((Location::of(&frame.location?), frame.name)));
        let calls = Self { function, inner: inner.collect() };
        let mut known = known.borrow_mut();
        if let Some(same) = known.get(&calls) {
            return Some(same.clone());
        }
        let calls = Arc::new(calls);
        known.insert(calls.clone());
        Some(calls)
    }
}

/// What a query says of a target that a macro declares, in Bazel's words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Generator {
    /// The `name` of the outermost call; that of the target where the call names none.
    pub generator_name: String,
    /// The macro that the package file calls.
    pub generator_function: String,
    /// `file:line:column` of that call.
    pub generator_location: String,
    /// All calls, outermost first, each as `file:line:column in function`.
    pub instantiation_stack: Vec<String>,
}

impl TargetDecl {
    /// Where the target came from, if a macro declares it.
    pub(crate) fn generator(&self) -> Option<Generator> {
        let calls = self.calls.as_ref()?;
        let place = Location::of(&self.span).to_string();
        let mut stack = vec![format!("{place} in <toplevel>")];
        stack.extend(self.inner_calls().map(|(place, caller)| format!("{place} in {caller}")));
        let own = || self.label.name.to_string();
        Some(Generator {
            generator_name: name_argument(self.span.source_span()).unwrap_or_else(own),
            generator_function: calls.function.clone(),
            generator_location: place,
            instantiation_stack: stack,
        })
    }

    /// An error about the declaration.
    pub(crate) fn error(&self, error: RuleError) -> Diagnostic {
        let mut diagnostic = Diagnostic::at(error, &self.span);
        diagnostic.trace = self.macro_trace();
        diagnostic
    }

    /// How macros came to declare the target, for an error that names the outermost call.
    pub(crate) fn macro_trace(&self) -> Vec<String> {
        let line = |(place, caller)| format!("{place} in macro `{caller}`");
        self.inner_calls().map(line).collect()
    }

    /// Where functions call each other, from the outermost to the rule, each with its caller.
    fn inner_calls(&self) -> impl Iterator<Item = (&Location, &str)> {
        let calls = self.calls.iter();
        calls.flat_map(|calls| {
            let callers = std::iter::once(calls.function.as_str())
                .chain(calls.inner.iter().map(|(_, name)| name.as_str()));
            calls.inner.iter().map(|(place, _)| place).zip(callers)
        })
    }
}

/// The literal `name` of a call.
fn name_argument(text: &str) -> Option<String> {
    let module = parse("call", text).ok()?;
    let [statement] = top_level(module.statement())[..] else { return None };
    let StmtP::Expression(expression) = &statement.node else { return None };
    let (_, args) = call(expression)?;
    named(args, "name").and_then(string).map(str::to_owned)
}
