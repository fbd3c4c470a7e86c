//! Checks what a policy reads: paths into `input` and `data`, words that are compared, functions.
//!
//! The rules of every policy are walked as an evaluator would, with shapes in the place of values:
//! `input` has the shape of the decision point's schema, and variables, rules and functions have
//! the shapes of what is put into them. A function is walked anew for each combination of shapes
//! that it is called with; a rule of a library, for each decision point that reads it.
//!
//! The walk is exact about names and lenient about everything else: where nothing is known about a
//! value, nothing is said about it. What it learns on the way (which rule needs which) serves
//! [`crate::teeth`] and [`crate::lint`].

mod expressions;
mod order;
mod references;
mod statements;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maestro_core::limits::{POLICY_CHECKS_MAX, POLICY_RULE_DEPTH_MAX};
use maestro_core::policy::DecisionPoint;
use serde_json::{Map, Value};

use crate::error::{Code, Finding};
use crate::index::{Index, RuleId, point_of};
use crate::shape::{Shape, ShapeId, Shapes};
use crate::syntax::{Expr, ExprRef, Rule, RuleBody, RuleHead, Span, at, head_reference, reference};
use crate::syntax::{Step, is_function};

/// What the walk found.
pub(crate) struct Checked {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// For each rule, those that it reads.
    pub uses: Vec<BTreeSet<RuleId>>,
    /// For each rule, those that it reads, and whether behind a `not`.
    pub signed_uses: Vec<BTreeSet<(RuleId, bool)>>,
    /// Imports that something reads: module and name.
    pub used_imports: BTreeSet<(usize, String)>,
    /// Reads of fields that exist in some states of a fact only.
    pub partial_reads: Vec<PartialRead>,
    /// States that rules ask for.
    pub state_tests: Vec<StateTest>,
}

/// A rule reads a field that exists in some states of a fact only.
pub(crate) struct PartialRead {
    /// The rule.
    pub rule: RuleId,
    /// The fact.
    pub fact: ShapeId,
    /// Whether a policy has to look at each of its states, and not just at some.
    pub strict: bool,
    /// How the policy writes the fact.
    pub path: String,
    /// The field that tells the states apart.
    pub tag: String,
    /// The states without the field.
    pub missing: BTreeSet<String>,
    /// Whether it stands behind a `not`.
    pub negated: bool,
    /// Where.
    pub span: Span,
}

/// A rule asks whether a fact is in some states.
pub(crate) struct StateTest {
    /// The rule.
    pub rule: RuleId,
    /// The fact.
    pub fact: ShapeId,
    /// The states in which it goes on.
    pub states: BTreeSet<String>,
    /// The states in which it does not.
    pub others: BTreeSet<String>,
}

/// Walks all rules.
pub(crate) fn check(index: &Index, data: &Map<String, Value>) -> Checked {
    let mut checker = Checker::new(index, data);
    for (id, rule) in index.rules.iter().enumerate() {
        let module = index.modules.get(rule.module);
        let point = module.and_then(|module| point_of(&module.package));
        // What a library reads is known when a policy reads the library; tests call functions.
        if point.is_some() || module.is_some_and(|module| module.is_test) {
            let parameters = parameters(&rule.ast);
            checker.rule(id, point, &vec![Shapes::UNKNOWN; parameters]);
        }
    }
    checker.rest();
    checker.done
}

fn parameters(rule: &Rule) -> usize {
    match rule {
        Rule::Default { args, .. } => args.len(),
        Rule::Spec { head: RuleHead::Func { args, .. }, .. } => args.len(),
        Rule::Spec { .. } => 0,
    }
}

/// What a rule was walked with: its number, the decision point, the shapes of its arguments.
type Visit = (RuleId, Option<DecisionPoint>, Vec<ShapeId>);

pub(super) struct Checker<'a> {
    index: &'a Index,
    data: &'a Map<String, Value>,
    /// Names of the functions of all modules, for hints.
    functions: Vec<String>,
    shapes: Shapes,
    inputs: BTreeMap<DecisionPoint, ShapeId>,
    visits: HashMap<Visit, ShapeId>,
    /// Rules that are being walked, outermost first.
    active: Vec<RuleId>,
    /// Decision points whose rules were read since this was cleared.
    touched: BTreeSet<DecisionPoint>,
    steps: usize,
    done: Checked,
}

/// The rule that is being walked.
pub(super) struct Frame {
    rule: RuleId,
    module: usize,
    point: Option<DecisionPoint>,
    /// Variables, innermost scope last.
    scopes: Vec<HashMap<String, ShapeId>>,
    /// Whether a `not` surrounds what is being walked.
    negated: bool,
    /// Whether a field that some states lack is meant to be read nevertheless.
    lenient: bool,
}

impl<'a> Checker<'a> {
    fn new(index: &'a Index, data: &'a Map<String, Value>) -> Self {
        let mut shapes = Shapes::new();
        let points = DecisionPoint::ALL.iter();
        let inputs = points.map(|point| (*point, shapes.of_point(*point))).collect();
        let functions = index.rules.iter().filter(|rule| is_function(&rule.ast));
        let count = index.rules.len();
        Self {
            index,
            data,
            functions: functions.map(|rule| rule.name().to_owned()).collect(),
            shapes,
            inputs,
            visits: HashMap::new(),
            active: Vec::new(),
            touched: BTreeSet::new(),
            steps: 0,
            done: Checked {
                findings: Vec::new(),
                uses: vec![BTreeSet::new(); count],
                signed_uses: vec![BTreeSet::new(); count],
                used_imports: BTreeSet::new(),
                partial_reads: Vec::new(),
                state_tests: Vec::new(),
            },
        }
    }

    /// Walks what nothing has led to, so that at least its functions are known.
    fn rest(&mut self) {
        let seen: BTreeSet<RuleId> = self.visits.keys().map(|(id, ..)| *id).collect();
        let left = (0..self.index.rules.len()).filter(|id| !seen.contains(id));
        for id in left.collect::<Vec<_>>() {
            let count = self.index.rules.get(id).map_or(0, |rule| parameters(&rule.ast));
            self.rule(id, None, &vec![Shapes::UNKNOWN; count]);
        }
    }

    /// Walks a rule, unless that was done, and gives the shape of its value.
    fn rule(&mut self, id: RuleId, point: Option<DecisionPoint>, args: &[ShapeId]) -> ShapeId {
        let visit = (id, point, args.to_vec());
        if let Some(shape) = self.visits.get(&visit) {
            return *shape;
        }
        let index = self.index;
        let Some(entry) = index.rules.get(id) else { return Shapes::UNKNOWN };
        if self.active.contains(&id) {
            let message = format!("`{}` needs itself", entry.path.join("."));
            self.report(entry.span(), Finding::new(Code::Recursion, message));
            return Shapes::UNKNOWN;
        }
        if self.active.len() >= POLICY_RULE_DEPTH_MAX {
            let message =
                format!("more than {POLICY_RULE_DEPTH_MAX} rules need each other in a chain");
            self.report(entry.span(), Finding::new(Code::Recursion, message));
            return Shapes::UNKNOWN;
        }
        self.active.push(id);
        let mut frame = Frame {
            rule: id,
            module: entry.module,
            point,
            scopes: vec![HashMap::new()],
            negated: false,
            lenient: false,
        };
        let shape = self.rule_value(&mut frame, &entry.ast, args);
        let shape = match entry.is_partial_object {
            true => self.shapes.id(Shape::Map(shape)),
            false => shape,
        };
        self.active.pop();
        self.visits.insert(visit, shape);
        shape
    }

    fn rule_value(&mut self, frame: &mut Frame, rule: &Rule, args: &[ShapeId]) -> ShapeId {
        for step in reference(head_reference(rule)).steps {
            if let Step::Index(index) = step {
                self.walk_or_bind(frame, index);
            }
        }
        match rule {
            Rule::Default { value, .. } => self.walk(frame, value),
            Rule::Spec { head, bodies, .. } => {
                let (first, is_set) = match head {
                    RuleHead::Compr { assign, .. } => (assign.as_ref().map(|a| &a.value), false),
                    RuleHead::Set { key, .. } => (key.as_ref(), true),
                    RuleHead::Func { args: patterns, assign, .. } => {
                        let unknown = std::iter::repeat(&Shapes::UNKNOWN);
                        for (pattern, shape) in patterns.iter().zip(args.iter().chain(unknown)) {
                            self.bind(frame, pattern, *shape);
                        }
                        (assign.as_ref().map(|a| &a.value), false)
                    }
                };
                let value = self.bodies(frame, first, bodies);
                if is_set { self.shapes.id(Shape::Sequence(value)) } else { value }
            }
        }
    }

    fn bodies(
        &mut self,
        frame: &mut Frame,
        first: Option<&ExprRef>,
        bodies: &[RuleBody],
    ) -> ShapeId {
        let mut values = Vec::new();
        for (number, body) in bodies.iter().enumerate() {
            frame.scopes.push(HashMap::new());
            self.query(frame, &body.query);
            let own = body.assign.as_ref().map(|assign| &assign.value);
            let value = own.or(if number == 0 || !body.is_else { first } else { None });
            values.push(self.value_or_true(frame, value));
            frame.scopes.pop();
        }
        if bodies.is_empty() {
            values.push(self.value_or_true(frame, first));
        }
        self.shapes.union(values)
    }

    fn value_or_true(&mut self, frame: &mut Frame, value: Option<&ExprRef>) -> ShapeId {
        match value {
            Some(value) => self.walk(frame, value),
            None => self.shapes.id(Shape::Scalar("a boolean")),
        }
    }

    /// Counts a step; false when there were too many.
    fn count(&mut self, expr: &Expr) -> bool {
        self.steps += 1;
        if self.steps == POLICY_CHECKS_MAX {
            let message = "the rules call each other in too many ways to be checked";
            self.report(expr.span(), Finding::new(Code::Recursion, message));
        }
        self.steps < POLICY_CHECKS_MAX
    }

    fn report(&mut self, span: &Span, finding: Finding) {
        self.done.findings.push(at(span, finding));
    }

    fn is_test(&self, frame: &Frame) -> bool {
        self.index.modules.get(frame.module).is_some_and(|module| module.is_test)
    }
}

impl Frame {
    fn local(&self, name: &str) -> Option<ShapeId> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    fn set(&mut self, name: &str, shape: ShapeId) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), shape);
        }
    }
}
