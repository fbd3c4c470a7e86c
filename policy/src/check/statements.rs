//! Statements: what they bind, and what they replace.

use std::collections::HashMap;

use super::order::ordered;
use super::{Checker, Frame};
use crate::error::{Code, Finding};
use crate::shape::{Field, Shape, ShapeId, Shapes};
use crate::syntax::{
    AssignOp, Expr, ExprRef, Literal, LiteralStmt, Query, Span, WithModifier, reference, text,
    variable,
};

impl Checker<'_> {
    /// Walks a query in the innermost scope.
    pub(super) fn query(&mut self, frame: &mut Frame, query: &Query) {
        for statement in ordered(query) {
            let before = std::mem::take(&mut self.touched);
            self.literal(frame, &statement.literal);
            self.modifiers(frame, statement);
            self.touched.extend(before);
        }
    }

    fn literal(&mut self, frame: &mut Frame, literal: &Literal) {
        match literal {
            Literal::SomeVars { vars, .. } => {
                for span in vars {
                    self.declare(frame, span.text(), span, Shapes::UNKNOWN);
                }
            }
            Literal::SomeIn { key, value, collection, .. } => {
                let shape = self.walk(frame, collection);
                let element = self.shapes.element(shape);
                if let Some(key) = key {
                    self.bind(frame, key, Shapes::UNKNOWN);
                }
                self.bind(frame, value, element);
            }
            Literal::Expr { expr, .. } => {
                self.walk(frame, expr);
            }
            Literal::NotExpr { expr, .. } => {
                let before = std::mem::replace(&mut frame.negated, true);
                self.walk(frame, expr);
                frame.negated = before;
            }
            Literal::Every { key, value, domain, query, .. } => {
                let shape = self.walk(frame, domain);
                let element = self.shapes.element(shape);
                frame.scopes.push(HashMap::new());
                if let Some(key) = key {
                    self.declare(frame, key.text(), key, Shapes::UNKNOWN);
                }
                self.declare(frame, value.text(), value, element);
                self.query(frame, query);
                frame.scopes.pop();
            }
        }
    }

    /// Gives a variable a shape.
    pub(super) fn declare(&mut self, frame: &mut Frame, name: &str, span: &Span, shape: ShapeId) {
        match name {
            "_" => {}
            "input" | "data" => {
                let message = format!("a variable hides `{name}`");
                self.report(span, Finding::new(Code::Shadow, message));
            }
            _ => frame.set(name, shape),
        }
    }

    /// Matches a pattern with a value: variables in it are new.
    pub(super) fn bind(&mut self, frame: &mut Frame, pattern: &ExprRef, shape: ShapeId) {
        match pattern.as_ref() {
            Expr::Var { span, .. } => self.declare(frame, span.text(), span, shape),
            Expr::Array { items, .. } => {
                let element = self.shapes.element(shape);
                items.iter().for_each(|item| self.bind(frame, item, element));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    let part = match text(key).map(|name| self.shapes.field(shape, name)) {
                        Some(Field::Shape(part)) => part,
                        _ => Shapes::UNKNOWN,
                    };
                    self.bind(frame, value, part);
                }
            }
            _ => {
                self.walk(frame, pattern);
            }
        }
    }

    /// Matches two expressions, either of which may bind variables of the other.
    pub(super) fn unify(&mut self, frame: &mut Frame, op: &AssignOp, lhs: &ExprRef, rhs: &ExprRef) {
        if *op == AssignOp::ColEq || self.has_unbound(frame, lhs) {
            let shape = self.walk(frame, rhs);
            match op {
                AssignOp::ColEq => self.bind(frame, lhs, shape),
                AssignOp::Eq => self.bind_unbound(frame, lhs, shape),
            }
        } else if self.has_unbound(frame, rhs) {
            let shape = self.walk(frame, lhs);
            self.bind_unbound(frame, rhs, shape);
        } else {
            let shapes = (self.walk(frame, lhs), self.walk(frame, rhs));
            self.compare(frame, (lhs, shapes.0), (rhs, shapes.1), true);
        }
    }

    /// Whether an expression is a pattern with a variable that nothing has bound yet.
    fn has_unbound(&self, frame: &Frame, expr: &ExprRef) -> bool {
        match expr.as_ref() {
            Expr::Var { span, .. } => self.is_unbound(frame, span.text()),
            Expr::Array { items, .. } => items.iter().any(|item| self.has_unbound(frame, item)),
            Expr::Object { fields, .. } => {
                fields.iter().any(|(_, _, value)| self.has_unbound(frame, value))
            }
            _ => false,
        }
    }

    fn bind_unbound(&mut self, frame: &mut Frame, pattern: &ExprRef, shape: ShapeId) {
        match pattern.as_ref() {
            Expr::Array { items, .. } => {
                let element = self.shapes.element(shape);
                items.iter().for_each(|item| self.bind_unbound(frame, item, element));
            }
            Expr::Object { .. } => self.bind(frame, pattern, shape),
            Expr::Var { span, .. } if self.is_unbound(frame, span.text()) => {
                self.declare(frame, span.text(), span, shape);
            }
            _ => {
                self.walk(frame, pattern);
            }
        }
    }

    /// Walks an expression, or binds the variables of a pattern of which nothing is known.
    pub(super) fn walk_or_bind(&mut self, frame: &mut Frame, expr: &ExprRef) -> ShapeId {
        match self.has_unbound(frame, expr) {
            true => {
                self.bind_unbound(frame, expr, Shapes::UNKNOWN);
                Shapes::UNKNOWN
            }
            false => self.walk(frame, expr),
        }
    }

    /// Looks at `with input as …` and the like.
    fn modifiers(&mut self, frame: &mut Frame, statement: &LiteralStmt) {
        let points: Vec<_> = self.touched.iter().copied().collect();
        for WithModifier { span, refr, r#as } in &statement.with_mods {
            let target = reference(refr);
            let replaced = self.walk(frame, r#as);
            if !self.is_test(frame) && matches!(target.root, Some("input" | "data")) {
                let message = format!("`{}` is replaced outside of a test", refr.span().text());
                self.report(span, Finding::new(Code::Shadow, message));
            }
            if target.root != Some("input") {
                continue;
            }
            // What is tested says which input it has; a test of two points has none to check.
            let point = match points.as_slice() {
                [only] => Some(*only),
                [] => frame.point,
                _ => None,
            };
            let Some(point) = point else { continue };
            let before = frame.point.replace(point);
            let expected = self.walk(frame, refr);
            frame.point = before;
            self.conform(r#as.span(), variable(r#as).unwrap_or("input"), replaced, expected);
        }
    }

    /// Reports fields of a made-up input that the real one does not have.
    fn conform(&mut self, span: &Span, path: &str, made: ShapeId, expected: ShapeId) {
        match self.shapes.get(made).clone() {
            Shape::Open(fields) => {
                for (name, value) in fields {
                    let inner = format!("{path}.{name}");
                    match self.shapes.field(expected, &name) {
                        Field::Shape(field) => self.conform(span, &inner, value, field),
                        Field::Missing(known) => {
                            self.report(span, Self::missing(path, &name, &known, None));
                        }
                        Field::Scalar(kind) => {
                            let message = format!("`{path}` is {kind} and has no fields");
                            self.report(span, Finding::new(Code::Path, message));
                        }
                    }
                }
            }
            Shape::Sequence(item) => {
                let element = self.shapes.element(expected);
                self.conform(span, &format!("{path}[_]"), item, element);
            }
            Shape::Union(members) | Shape::Facts(members) => {
                members.into_iter().for_each(|made| self.conform(span, path, made, expected));
            }
            Shape::Words(made) => {
                if let Some(known) = self.words(expected)
                    && let Some(odd) = made.iter().find(|word| !known.contains(*word))
                {
                    self.report(span, Self::never(path, odd, &known));
                }
            }
            Shape::Unknown | Shape::Scalar(_) | Shape::Object(_) | Shape::Map(_) => {}
        }
    }
}
