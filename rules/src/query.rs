//! Queries: questions about targets, answered from the build files without running any rule.
//!
//! ```text
//! //app/...                       the targets that a pattern names
//! deps(//app:server)              all that a target needs, itself included; deps(x, 1) is direct
//! rdeps(//..., //lib:core)        what of the first needs the second
//! kind("cc_.*", //...)            targets whose kind matches
//! tests(//...)                    tests
//! a + b   a - b   a ^ b           union, except, intersect
//! ```

mod parse;

use std::collections::{BTreeMap, BTreeSet};

use maestro_core::host::Host;
use maestro_core::{Label, TargetPattern};
use regex::Regex;

use self::parse::{Expression, Operator};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::limits::EvaluationLimits;
use crate::load::packages::Packages;
use crate::resolve::{Node, Universe, location_of, test_toolchain};
use crate::{on_large_stack, split};

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
    /// What it depends on directly, sorted, each once.
    pub deps: Vec<Label>,
}

/// Answers a query; the targets are sorted by label.
pub fn query(options: QueryOptions<'_>) -> Result<Vec<QueryTarget>, Vec<Diagnostic>> {
    on_large_stack(|| answer(&options))
}

fn answer(options: &QueryOptions<'_>) -> Result<Vec<QueryTarget>, Vec<Diagnostic>> {
    let fail = |error: RuleError| vec![Diagnostic::of(error, None)];
    let expression = parse::parse(options.expression).map_err(fail)?;
    let mut universe =
        Universe::new(Packages::new(options.host, options.threads, EvaluationLimits::default()));
    let mut sets = BTreeMap::new();
    expression.patterns(&mut |text| {
        if !sets.contains_key(text) {
            sets.insert(text.to_owned(), Vec::new());
        }
    });
    let mut all: Vec<Label> = Vec::new();
    for (text, labels) in &mut sets {
        let pattern = TargetPattern::parse(text, options.package)
            .map_err(|e| fail(RuleError::new(Code::Query, e.to_string())))?;
        *labels = universe.expand(&[(false, pattern)]);
        all.extend(labels.iter().cloned());
    }
    universe.close(&all);
    let (_, errors) = split(std::mem::take(&mut universe.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    let answer = Evaluator { universe: &universe, sets: &sets }.evaluate(&expression);
    let answer = answer.map_err(fail)?;
    Ok(answer.into_iter().map(|label| describe(&universe, label)).collect())
}

fn describe(universe: &Universe<'_>, label: Label) -> QueryTarget {
    let deps = dependencies(universe, &label).into_iter().collect();
    let (kind, location) = match universe.nodes.get(&label) {
        Some(Node::Rule(decl)) => (kind_of(universe, &label), Some(location_of(decl))),
        Some(Node::Output(decl)) => (kind_of(universe, &label), Some(location_of(decl))),
        Some(Node::Source) | None => (kind_of(universe, &label), None),
    };
    QueryTarget { label, kind, location, deps }
}

fn kind_of(universe: &Universe<'_>, label: &Label) -> String {
    match universe.nodes.get(label) {
        Some(Node::Rule(decl)) => format!("{} rule", decl.rule.name()),
        Some(Node::Output(_)) => "generated file".to_owned(),
        Some(Node::Source) | None => "source file".to_owned(),
    }
}

/// The direct dependencies of a label, implicit ones included.
fn dependencies(universe: &Universe<'_>, label: &Label) -> BTreeSet<Label> {
    match universe.nodes.get(label) {
        Some(Node::Rule(decl)) => {
            let toolchain = decl.rule.test.then(test_toolchain).flatten();
            decl.dependencies().map(|(_, label)| label.clone()).chain(toolchain).collect()
        }
        Some(Node::Output(decl)) => BTreeSet::from([decl.label.clone()]),
        Some(Node::Source) | None => BTreeSet::new(),
    }
}

struct Evaluator<'a, 'h> {
    universe: &'a Universe<'h>,
    sets: &'a BTreeMap<String, Vec<Label>>,
}

impl Evaluator<'_, '_> {
    fn evaluate(&self, expression: &Expression) -> Result<BTreeSet<Label>, RuleError> {
        Ok(match expression {
            Expression::Pattern(text) => {
                self.sets.get(text).into_iter().flatten().cloned().collect()
            }
            Expression::Set(parts) => {
                let mut out = BTreeSet::new();
                for part in parts {
                    out.extend(self.evaluate(part)?);
                }
                out
            }
            Expression::Binary(left, operator, right) => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                match operator {
                    Operator::Union => left.union(&right).cloned().collect(),
                    Operator::Except => left.difference(&right).cloned().collect(),
                    Operator::Intersect => left.intersection(&right).cloned().collect(),
                }
            }
            Expression::Deps(of, depth) => {
                let start = self.evaluate(of)?;
                reach(start, *depth, |label| dependencies(self.universe, label))
            }
            Expression::ReverseDeps(within, of, depth) => {
                let within = self.evaluate(within)?;
                let inside = reach(within, None, |label| dependencies(self.universe, label));
                let mut users: BTreeMap<Label, BTreeSet<Label>> = BTreeMap::new();
                for label in &inside {
                    for dependency in dependencies(self.universe, label) {
                        users.entry(dependency).or_default().insert(label.clone());
                    }
                }
                let start = self.evaluate(of)?.intersection(&inside).cloned().collect();
                reach(start, *depth, |label| users.get(label).cloned().unwrap_or_default())
            }
            Expression::Kind(pattern, of) => {
                let regex = Regex::new(pattern).map_err(|_| {
                    RuleError::new(Code::Query, format!("`{pattern}` is no regular expression"))
                })?;
                let mut out = self.evaluate(of)?;
                out.retain(|label| regex.is_match(&kind_of(self.universe, label)));
                out
            }
            Expression::Tests(of) => {
                let mut out = self.evaluate(of)?;
                out.retain(|label| match self.universe.nodes.get(label) {
                    Some(Node::Rule(decl)) => decl.rule.test,
                    _ => false,
                });
                out
            }
        })
    }
}

/// All that can be reached in at most `depth` steps, the start included.
fn reach(
    start: BTreeSet<Label>,
    depth: Option<u32>,
    next: impl Fn(&Label) -> BTreeSet<Label>,
) -> BTreeSet<Label> {
    let mut out = start.clone();
    let mut frontier = start;
    let mut left = depth.unwrap_or(u32::MAX);
    while !frontier.is_empty() && left > 0 {
        left -= 1;
        let found: BTreeSet<Label> = frontier.iter().flat_map(&next).collect();
        frontier = found.into_iter().filter(|label| !out.contains(label)).collect();
        out.extend(frontier.iter().cloned());
    }
    out
}
