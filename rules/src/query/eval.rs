//! What a parsed query means over a graph.
//!
//! Evaluation reads nothing but the graph. Where a walk comes to a target whose dependencies are
//! not in the graph yet, it stops with [`Stop::Open`]; the caller loads them and asks again.

use std::collections::HashMap;

use maestro_core::Label;
use regex::Regex;

use super::attributes::{attribute_labels, attribute_texts};
use super::graph::{NodeId, TargetGraph, What};
use super::parse::{Argument, Expression, Function, Operator, Word, malformed};
use super::set::NodeSet;
use super::walk::{self, Reached};
use crate::error::{Code, RuleError, did_you_mean};
use crate::visibility::Visibility;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// The query makes no sense.
    Wrong(RuleError),
    /// The dependencies of these must be loaded first.
    Open(Vec<Label>),
}

impl From<RuleError> for Stop {
    fn from(error: RuleError) -> Self {
        Self::Wrong(error)
    }
}

/// What a query is evaluated over.
pub(super) struct Evaluator<'a> {
    pub(super) graph: &'a TargetGraph,
    /// What each pattern of the query names.
    pub(super) patterns: &'a HashMap<String, NodeSet>,
    /// The patterns that `allrdeps` looks through.
    pub(super) universe: &'a [Word],
    /// The variables of the `let`s around, the innermost last.
    pub(super) variables: Vec<(String, NodeSet)>,
}

impl Evaluator<'_> {
    /// The nodes that an expression names.
    pub(super) fn evaluate(&mut self, expression: &Expression) -> Result<NodeSet, Stop> {
        match expression {
            Expression::Pattern(word) => Ok(self.pattern(word)),
            Expression::Variable(word) => self.variable(word),
            Expression::Set(words) => {
                let mut out = self.nothing();
                words.iter().for_each(|word| out.unite(&self.pattern(word)));
                Ok(out)
            }
            Expression::Chain(first, rest) => {
                let mut out = self.evaluate(first)?;
                for (operator, term) in rest {
                    let term = self.evaluate(term)?;
                    match operator {
                        Operator::Union => out.unite(&term),
                        Operator::Except => out.subtract(&term),
                        Operator::Intersect => out.intersect(&term),
                    }
                }
                Ok(out)
            }
            Expression::Let { name, value, body } => {
                let value = self.evaluate(value)?;
                self.variables.push((name.clone(), value));
                let out = self.evaluate(body);
                self.variables.pop();
                out
            }
            Expression::Call(function, arguments) => {
                let mut call = Call { sets: Vec::new(), words: Vec::new(), number: None };
                for argument in arguments {
                    match argument {
                        Argument::Set(expression) => call.sets.push(self.evaluate(expression)?),
                        Argument::Word(word) => call.words.push(word),
                        Argument::Number(number) => call.number = Some(*number),
                    }
                }
                self.call(*function, &call)
            }
        }
    }

    fn nothing(&self) -> NodeSet {
        NodeSet::empty(self.graph.len())
    }

    fn pattern(&self, word: &Word) -> NodeSet {
        self.patterns.get(&word.text).cloned().unwrap_or_else(|| self.nothing())
    }

    fn variable(&self, word: &Word) -> Result<NodeSet, Stop> {
        let bound = self.variables.iter().rev().find(|(name, _)| *name == word.text);
        match bound {
            Some((_, set)) => Ok(set.clone()),
            None => {
                let message = format!("there is no variable `${}`", word.text.escape_debug());
                let names = self.variables.iter().map(|(name, _)| name.as_str());
                Err(malformed(word.column, message)
                    .hint_opt(did_you_mean(&word.text, names))
                    .hint("variables are bound by `let x = … in f($x)`")
                    .into())
            }
        }
    }

    fn call(&self, function: Function, call: &Call<'_>) -> Result<NodeSet, Stop> {
        let graph = self.graph;
        match function {
            Function::Deps => self.below(call.set(0)?, call.number),
            Function::Rdeps => self.rdeps(call.set(0)?, call.set(1)?, call.number),
            Function::AllRdeps => {
                let mut universe = self.nothing();
                self.universe.iter().for_each(|word| universe.unite(&self.pattern(word)));
                self.rdeps(&universe, call.set(0)?, call.number)
            }
            Function::AllPaths => self.rdeps(call.set(0)?, call.set(1)?, None),
            Function::SomePath => {
                self.below(call.set(0)?, None)?;
                let mut out = self.nothing();
                for id in walk::some_path(call.set(0)?, call.set(1)?, graph) {
                    out.insert(id);
                }
                Ok(out)
            }
            Function::SamePackageDirectRdeps => self.same_package_rdeps(call.set(0)?),
            Function::Kind => {
                let regex = regex(call.word(0)?)?;
                Ok(call.set(0)?.filtered(|id| regex.is_match(&graph.node(id).kind())))
            }
            Function::Filter => {
                let regex = regex(call.word(0)?)?;
                Ok(call.set(0)?.filtered(|id| regex.is_match(&graph.node(id).label.to_string())))
            }
            Function::Attr => self.attr(call),
            Function::Labels => self.labels(call.word(0)?, call.set(0)?),
            Function::Tests => {
                let is_test = |id| graph.node(id).decl().is_some_and(|decl| decl.rule.test);
                Ok(call.set(0)?.filtered(is_test))
            }
            Function::Visible => {
                let (users, of) = (call.set(0)?, call.set(1)?);
                Ok(of.filtered(|id| users.iter().all(|user| self.visible(user, id))))
            }
            Function::Some => {
                let mut left = call.number.unwrap_or(1);
                let first = |_| {
                    let taken = left > 0;
                    left = left.saturating_sub(1);
                    taken
                };
                Ok(call.set(0)?.filtered(first))
            }
            Function::Siblings => Ok(self.of_packages(call.set(0)?, |facts| facts.members.clone())),
            Function::BuildFiles => Ok(self.of_packages(call.set(0)?, |facts| {
                facts.build_file.into_iter().chain(facts.loads.iter().copied()).collect()
            })),
            Function::LoadFiles => Ok(self.of_packages(call.set(0)?, |facts| facts.loads.clone())),
            Function::Config => self.configured(call.set(0)?, call.word(0)?),
            Function::Inputs | Function::Mnemonic | Function::Outputs => {
                let word = call.word(0)?;
                let message = "`inputs`, `outputs` and `mnemonic` choose actions, not targets";
                Err(malformed(word.column, message.to_owned())
                    .hint("let them stand around everything else: `mnemonic(\"Cc.*\", deps(//x))`")
                    .into())
            }
        }
    }

    /// The set and what it depends on, up to a depth.
    fn below(&self, set: &NodeSet, depth: Option<u32>) -> Result<NodeSet, Stop> {
        let Reached { all, ring } = walk::reach(set, self.graph.dependencies(), depth, None);
        let mut passed = all.clone();
        let mut beyond = self.nothing();
        ring.into_iter().for_each(|id| {
            beyond.insert(id);
        });
        passed.subtract(&beyond);
        self.check_open(&passed)?;
        Ok(all)
    }

    /// Stops where the dependencies of a node are not in the graph yet.
    fn check_open(&self, passed: &NodeSet) -> Result<(), Stop> {
        let closed = passed.iter().map(|id| self.graph.node(id)).filter(|node| !node.open);
        let labels: Vec<Label> = closed.map(|node| node.label.clone()).collect();
        if labels.is_empty() { Ok(()) } else { Err(Stop::Open(labels)) }
    }

    /// What depends on `of`, among what `universe` consists of and depends on.
    fn rdeps(&self, universe: &NodeSet, of: &NodeSet, depth: Option<u32>) -> Result<NodeSet, Stop> {
        let within = self.below(universe, None)?;
        let mut start = of.clone();
        start.intersect(&within);
        Ok(walk::reach(&start, self.graph.dependents(), depth, Some(&within)).all)
    }

    fn same_package_rdeps(&self, of: &NodeSet) -> Result<NodeSet, Stop> {
        let mut out = self.nothing();
        for id in of.iter() {
            let label = &self.graph.node(id).label;
            let Some(facts) = self.graph.package_of(label) else { continue };
            for member in &facts.members {
                let decl = self.graph.node(*member).decl();
                if decl.is_some_and(|decl| decl.dependencies().any(|(_, dep)| dep == label)) {
                    out.insert(*member);
                }
            }
        }
        Ok(out)
    }

    fn of_packages(
        &self,
        set: &NodeSet,
        members: impl Fn(&super::graph::PackageFacts) -> Vec<NodeId>,
    ) -> NodeSet {
        let mut out = self.nothing();
        let mut last: Option<&Label> = None;
        for id in set.iter() {
            let label = &self.graph.node(id).label;
            let same = last.is_some_and(|l| l.repo == label.repo && l.package == label.package);
            last = Some(label);
            if !same && let Some(facts) = self.graph.package_of(label) {
                members(facts).into_iter().for_each(|id| {
                    out.insert(id);
                });
            }
        }
        out
    }

    fn attr(&self, call: &Call<'_>) -> Result<NodeSet, Stop> {
        let (name, regex) = (&call.word(0)?.text, regex(call.word(1)?)?);
        Ok(call.set(0)?.filtered(|id| {
            let Some(decl) = self.graph.node(id).decl() else { return false };
            attribute_texts(decl, name).iter().any(|text| regex.is_match(text))
        }))
    }

    fn labels(&self, attribute: &Word, of: &NodeSet) -> Result<NodeSet, Stop> {
        self.check_open(of)?;
        let mut out = self.nothing();
        for id in of.iter() {
            let Some(decl) = self.graph.node(id).decl() else { continue };
            for label in attribute_labels(decl, &attribute.text) {
                self.graph.with_label(label).for_each(|id| {
                    out.insert(id);
                });
            }
        }
        Ok(out)
    }

    /// Whether `user` may depend on `target`.
    fn visible(&self, user: NodeId, target: NodeId) -> bool {
        let (user, target) = (&self.graph.node(user).label, self.graph.node(target));
        let visibility = match &target.what {
            What::Rule(decl) | What::Output(decl) => &decl.visibility,
            What::Source(Some(visibility)) => visibility,
            What::Source(None) if target.label.is_main() => &Visibility::Private,
            What::Source(None) => &Visibility::Public,
        };
        visibility.allows(&target.label, &user.repo, &user.package)
    }

    fn configured(&self, of: &NodeSet, name: &Word) -> Result<NodeSet, Stop> {
        let configurations = &self.graph.configurations;
        let wanted = |id| match self.graph.configuration(id) {
            Some(known) => known == name.text || (name.text == "null" && known.is_empty()),
            None => false,
        };
        if !configurations.contains(&name.text) && name.text != "null" {
            let mut known: Vec<&str> = configurations.iter().map(String::as_str).collect();
            known.sort_unstable();
            known.dedup();
            known.retain(|name| !name.is_empty());
            let shown = name.text.escape_debug();
            let message = format!("no target is in a configuration `{shown}`");
            return Err(malformed(name.column, message)
                .hint_opt(did_you_mean(&name.text, known.iter().copied()))
                .hint(format!("configurations: {}, null", known.join(", ")))
                .into());
        }
        Ok(of.filtered(wanted))
    }
}

/// The evaluated arguments of a call.
struct Call<'a> {
    sets: Vec<NodeSet>,
    words: Vec<&'a Word>,
    number: Option<u32>,
}

impl Call<'_> {
    fn set(&self, at: usize) -> Result<&NodeSet, Stop> {
        self.sets.get(at).ok_or_else(|| missing_argument().into())
    }

    fn word(&self, at: usize) -> Result<&Word, Stop> {
        self.words.get(at).copied().ok_or_else(|| missing_argument().into())
    }
}

/// The parser gives every function what its signature asks for.
fn missing_argument() -> RuleError {
    RuleError::new(Code::Internal, "a function of the query lacks an argument")
}

/// A regular expression of a query; it matches anywhere, as in Bazel.
pub(super) fn regex(word: &Word) -> Result<Regex, RuleError> {
    Regex::new(&word.text).map_err(|error| {
        let text = word.text.escape_debug();
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        malformed(word.column, format!("`{text}` is no regular expression")).hint(why)
    })
}
