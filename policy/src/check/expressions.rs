//! Expressions: the shapes of their values.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Checker, Frame, StateTest};
use crate::error::{Code, Finding, did_you_mean};
use crate::functions;
use crate::shape::{Shape, ShapeId, Shapes};
use crate::syntax::{BoolOp, Expr, ExprRef, Query, Reference, Span, Step, reference, text};

impl Checker<'_> {
    /// Walks an expression and gives the shape of its value.
    pub(super) fn walk(&mut self, frame: &mut Frame, expr: &ExprRef) -> ShapeId {
        if !self.count(expr) {
            return Shapes::UNKNOWN;
        }
        match expr.as_ref() {
            Expr::String { .. } | Expr::RawString { .. } => {
                let word = text(expr).unwrap_or_default().to_owned();
                self.shapes.id(Shape::Words([word].into()))
            }
            Expr::Number { .. } => self.shapes.id(Shape::Scalar("a number")),
            Expr::Bool { .. } => self.shapes.id(Shape::Scalar("a boolean")),
            Expr::Null { .. } => self.shapes.id(Shape::Scalar("null")),
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                self.reference(frame, &reference(expr))
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                let items: Vec<ShapeId> =
                    items.iter().map(|item| self.walk_or_bind(frame, item)).collect();
                let item = self.shapes.union(items);
                self.shapes.id(Shape::Sequence(item))
            }
            Expr::Object { fields, .. } => self.object(frame, fields),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                let item = self.comprehension(frame, query, &[term]);
                self.shapes.id(Shape::Sequence(item))
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                let value = self.comprehension(frame, query, &[key, value]);
                self.shapes.id(Shape::Map(value))
            }
            Expr::Call { fcn, params, span, .. } => self.call(frame, fcn, params, span),
            Expr::UnaryExpr { expr, .. } => {
                self.walk(frame, expr);
                self.shapes.id(Shape::Scalar("a number"))
            }
            Expr::BinExpr { lhs, rhs, .. } => {
                let both = [self.walk(frame, lhs), self.walk(frame, rhs)];
                self.shapes.union(both)
            }
            Expr::ArithExpr { lhs, rhs, .. } => {
                self.walk(frame, lhs);
                self.walk(frame, rhs);
                // A difference of sets is a set.
                Shapes::UNKNOWN
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                let (left, right) = (self.walk(frame, lhs), self.walk(frame, rhs));
                if matches!(op, BoolOp::Eq | BoolOp::Ne) {
                    self.compare(frame, (lhs, left), (rhs, right), *op == BoolOp::Eq);
                }
                self.shapes.id(Shape::Scalar("a boolean"))
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                self.unify(frame, op, lhs, rhs);
                self.shapes.id(Shape::Scalar("a boolean"))
            }
            Expr::Membership { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.walk_or_bind(frame, key);
                }
                let left = self.walk_or_bind(frame, value);
                let right = self.walk(frame, collection);
                self.membership(frame, (value, left), (collection, right));
                self.shapes.id(Shape::Scalar("a boolean"))
            }
        }
    }

    fn object(&mut self, frame: &mut Frame, fields: &[(Span, ExprRef, ExprRef)]) -> ShapeId {
        let (mut known, mut all_known) = (BTreeMap::new(), true);
        for (_, key, value) in fields {
            let shape = self.walk_or_bind(frame, value);
            match text(key) {
                Some(name) => {
                    known.insert(name.to_owned(), shape);
                }
                None => {
                    self.walk_or_bind(frame, key);
                    all_known = false;
                }
            }
        }
        match all_known {
            true => self.shapes.id(Shape::Open(known)),
            false => Shapes::UNKNOWN,
        }
    }

    /// Walks a query and then terms in its scope; gives the shape of the last one.
    fn comprehension(&mut self, frame: &mut Frame, query: &Query, terms: &[&ExprRef]) -> ShapeId {
        frame.scopes.push(HashMap::new());
        self.query(frame, query);
        let shapes: Vec<ShapeId> = terms.iter().map(|term| self.walk(frame, term)).collect();
        frame.scopes.pop();
        shapes.last().copied().unwrap_or(Shapes::UNKNOWN)
    }

    fn call(
        &mut self,
        frame: &mut Frame,
        function: &ExprRef,
        params: &[ExprRef],
        span: &Span,
    ) -> ShapeId {
        let args: Vec<ShapeId> =
            params.iter().map(|param| self.walk_or_bind(frame, param)).collect();
        let target = reference(function);
        let names: Vec<String> = target.names().into_iter().map(str::to_owned).collect();
        let index = self.index;
        let path = match index.modules.get(frame.module) {
            Some(module) => match names.split_first() {
                Some((root, rest)) if root == "data" => rest.to_vec(),
                Some((root, rest)) if module.imports.contains_key(root) => {
                    self.done.used_imports.insert((frame.module, root.clone()));
                    let imported = module.imports.get(root).map_or(&[][..], |i| &i.path);
                    imported.iter().skip(1).chain(rest).cloned().collect()
                }
                _ => module.package.iter().chain(&names).cloned().collect(),
            },
            None => names.clone(),
        };
        let rules = index.at(&path);
        if !rules.is_empty() {
            let shapes: Vec<ShapeId> =
                rules.iter().map(|rule| self.use_rule(frame, *rule, &args)).collect();
            return self.shapes.union(shapes);
        }
        let name = names.join(".");
        if let Err(finding) = functions::check(&name, &self.functions) {
            self.report(span, finding);
        }
        match (name.as_str(), params, args.as_slice()) {
            ("object.get", [_, key, _], [object, _, default]) => {
                let value = self.get(frame, *object, key);
                self.shapes.union([value, *default])
            }
            _ => Shapes::UNKNOWN,
        }
    }

    /// What `object.get` finds: its second argument is a key or a list of them.
    fn get(&mut self, frame: &mut Frame, object: ShapeId, key: &ExprRef) -> ShapeId {
        let keys: Vec<&ExprRef> = match key.as_ref() {
            Expr::Array { items, .. } => items.iter().collect(),
            _ => vec![key],
        };
        let mut shape = object;
        // A default is a way of saying that a field may be missing in some state of a fact.
        let before = std::mem::replace(&mut frame.lenient, true);
        for key in keys {
            shape = match text(key) {
                Some(name) => self.field(frame, shape, "object", name, key.span()),
                None => self.shapes.element(shape),
            };
        }
        frame.lenient = before;
        shape
    }

    /// Looks at a comparison with words.
    pub(super) fn compare(
        &mut self,
        frame: &Frame,
        left: (&ExprRef, ShapeId),
        right: (&ExprRef, ShapeId),
        equal: bool,
    ) {
        for ((word, _), (other, shape)) in [(left, right), (right, left)] {
            if let Some(literal) = text(word)
                && text(other).is_none()
            {
                self.known_words(other, shape, &[(literal, word.span())]);
                self.state_test(frame, other, &[literal], equal);
            }
        }
    }

    fn membership(&mut self, frame: &Frame, left: (&ExprRef, ShapeId), right: (&ExprRef, ShapeId)) {
        let (Expr::Set { items, .. } | Expr::Array { items, .. }) = right.0.as_ref() else {
            return;
        };
        let literals: Option<Vec<(&str, &Span)>> =
            items.iter().map(|item| Some((text(item)?, item.span()))).collect();
        if let Some(literals) = literals {
            self.known_words(left.0, left.1, &literals);
            let words: Vec<&str> = literals.into_iter().map(|(word, _)| word).collect();
            self.state_test(frame, left.0, &words, true);
        }
    }

    /// Reports words that a value never is.
    fn known_words(&mut self, expr: &ExprRef, shape: ShapeId, literals: &[(&str, &Span)]) {
        let Some(known) = self.words(shape) else { return };
        for (word, span) in literals {
            if !known.contains(*word) {
                self.report(span, Self::never(expr.span().text(), word, &known));
            }
        }
    }

    /// The finding for a word that a value never is.
    pub(super) fn never(path: &str, word: &str, known: &BTreeSet<String>) -> Finding {
        let words: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
        let list = match words.as_slice() {
            [only] => format!("it is {only}"),
            _ => format!("it is one of {}", words.join(", ")),
        };
        Finding::new(Code::Path, format!("`{path}` is never `{word}`"))
            .hints(did_you_mean(word, known.iter().map(String::as_str)))
            .hint(list)
    }

    /// The words that a value may be, if it is always one.
    pub(super) fn words(&self, shape: ShapeId) -> Option<BTreeSet<String>> {
        let mut words = BTreeSet::new();
        for member in self.shapes.members(shape) {
            match self.shapes.get(member) {
                Shape::Words(more) => words.extend(more.iter().cloned()),
                _ => return None,
            }
        }
        Some(words)
    }

    /// Notes that a rule asks for states of a fact: `fact.tag == "word"`.
    fn state_test(&mut self, frame: &Frame, expr: &ExprRef, words: &[&str], equal: bool) {
        let Reference { root, base, mut steps } = reference(expr);
        let Some(Step::Field(field, _)) = steps.pop() else { return };
        let mut silent = Frame {
            rule: frame.rule,
            module: frame.module,
            point: frame.point,
            scopes: frame.scopes.clone(),
            negated: frame.negated,
            lenient: true,
        };
        let findings = self.done.findings.len();
        let fact = self.reference(&mut silent, &Reference { root, base, steps });
        self.done.findings.truncate(findings);
        let Some((tag, variants)) = self.shapes.tag(fact) else { return };
        if tag != field {
            return;
        }
        let goes_on = |word: &String| words.contains(&word.as_str()) == (equal != frame.negated);
        let (states, others) = variants.into_keys().partition(goes_on);
        self.done.state_tests.push(StateTest { rule: frame.rule, fact, states, others });
    }
}
