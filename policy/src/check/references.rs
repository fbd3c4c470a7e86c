//! References: what a name stands for, and the steps that follow it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Checker, Frame, PartialRead};
use crate::error::{Code, Finding, did_you_mean};
use crate::index::{RuleId, point_of};
use crate::shape::{Field, Shape, ShapeId, Shapes};
use crate::syntax::{Reference, Span, Step, is_function};

/// A value, how the policy writes it, and how many steps of a reference it took to get there.
struct Start {
    shape: ShapeId,
    path: String,
    taken: usize,
}

impl Checker<'_> {
    /// The shape of a reference.
    pub(super) fn reference(&mut self, frame: &mut Frame, target: &Reference<'_>) -> ShapeId {
        let start = match target.root {
            Some(name) => self.start(frame, name, target),
            None => Start {
                shape: self.walk(frame, target.base),
                path: target.base.span().text().to_owned(),
                taken: 0,
            },
        };
        let Start { mut shape, mut path, taken } = start;
        for step in target.steps.iter().skip(taken) {
            match step {
                Step::Field(name, span) => {
                    shape = self.field(frame, shape, &path, name, span);
                    path.push('.');
                    path.push_str(name);
                }
                Step::Index(index) => {
                    self.walk_or_bind(frame, index);
                    shape = self.shapes.element(shape);
                    path.push_str("[_]");
                }
            }
        }
        shape
    }

    /// What the first name of a reference stands for.
    fn start(&mut self, frame: &mut Frame, name: &str, target: &Reference<'_>) -> Start {
        let here = |shape| Start { shape, path: name.to_owned(), taken: 0 };
        if name == "_" {
            return here(Shapes::UNKNOWN);
        }
        if let Some(shape) = frame.local(name) {
            return here(shape);
        }
        let names: Vec<String> = target.names().into_iter().skip(1).map(str::to_owned).collect();
        let index = self.index;
        let module = index.modules.get(frame.module);
        let imported = module.and_then(|module| module.imports.get(name));
        let (root, path, prefix) = match (name, imported) {
            ("input", _) => return here(self.input(frame)),
            ("data", _) => ("data", names, 0),
            (_, Some(import)) => {
                self.done.used_imports.insert((frame.module, name.to_owned()));
                let (root, rest) = match import.path.split_first() {
                    Some((root, rest)) => (root.as_str(), rest),
                    None => return here(Shapes::UNKNOWN),
                };
                if root == "input" {
                    let mut shape = self.input(frame);
                    for part in rest {
                        shape = self.field(frame, shape, "input", part, &import.span);
                    }
                    return here(shape);
                }
                (root, rest.iter().cloned().chain(names).collect(), rest.len())
            }
            (_, None) => {
                let package = module.map(|module| module.package.clone()).unwrap_or_default();
                let length = package.len() + 1;
                let path = package.into_iter().chain([name.to_owned()]).chain(names).collect();
                (name, path, length)
            }
        };
        self.named(frame, root, &path, prefix, target)
    }

    /// What a path of names below `data` stands for; `prefix` of them come before the first step.
    fn named(
        &mut self,
        frame: &mut Frame,
        root: &str,
        path: &[String],
        prefix: usize,
        target: &Reference<'_>,
    ) -> Start {
        let index = self.index;
        if let Some((length, rules)) = index.longest(path) {
            let shapes: Vec<ShapeId> =
                rules.iter().map(|rule| self.use_rule(frame, *rule, &[])).collect();
            let shape = self.shapes.union(shapes);
            let path = path.get(..length).unwrap_or_default().join(".");
            return Start { shape, path, taken: length.saturating_sub(prefix) };
        }
        let unknown = Start {
            shape: Shapes::UNKNOWN,
            path: path.join("."),
            taken: path.len() - prefix.min(path.len()),
        };
        let below: Vec<RuleId> = index.below(path).collect();
        if !below.is_empty() {
            for rule in below {
                self.mark(frame, rule);
            }
        } else if root == "data" && !self.is_test(frame) {
            self.data_path(path, target);
        }
        unknown
    }

    /// Reports a path that no file of data has.
    fn data_path(&mut self, path: &[String], target: &Reference<'_>) {
        let mut object = self.data;
        for (number, name) in path.iter().enumerate() {
            match object.get(name) {
                Some(Value::Object(inner)) => object = inner,
                Some(_) => return,
                None => {
                    let whole = path.get(..=number).unwrap_or_default();
                    let message = format!("there is no `data.{}`", whole.join("."));
                    let parent = path.get(..number).unwrap_or_default();
                    let rules = self.index.names_below(parent);
                    let known = object.keys().map(String::as_str).chain(rules);
                    let hint = did_you_mean(name, known);
                    let finding = Finding::new(Code::NoData, message)
                        .hints(hint)
                        .hint("a file `data.json` beside the policies defines it");
                    return self.report(target.base.span(), finding);
                }
            }
        }
    }

    /// Notes that a rule is read, and gives the shape of its value.
    pub(super) fn use_rule(&mut self, frame: &Frame, rule: RuleId, args: &[ShapeId]) -> ShapeId {
        self.mark(frame, rule);
        let index = self.index;
        let Some(entry) = index.rules.get(rule) else { return Shapes::UNKNOWN };
        if args.is_empty() && is_function(&entry.ast) {
            return Shapes::UNKNOWN;
        }
        let own = index.modules.get(entry.module).and_then(|module| point_of(&module.package));
        let touched = std::mem::take(&mut self.touched);
        let shape = self.rule(rule, own.or(frame.point), args);
        self.touched.extend(touched);
        self.touched.extend(own);
        shape
    }

    fn mark(&mut self, frame: &Frame, rule: RuleId) {
        let point = self.index.rules.get(rule).and_then(|rule| point_of(&rule.path));
        self.touched.extend(point);
        if let Some(uses) = self.done.uses.get_mut(frame.rule) {
            uses.insert(rule);
        }
        if let Some(uses) = self.done.signed_uses.get_mut(frame.rule) {
            uses.insert((rule, frame.negated));
        }
    }

    fn input(&self, frame: &Frame) -> ShapeId {
        let input = frame.point.and_then(|point| self.inputs.get(&point));
        input.copied().unwrap_or(Shapes::UNKNOWN)
    }

    /// One step by name.
    pub(super) fn field(
        &mut self,
        frame: &Frame,
        shape: ShapeId,
        path: &str,
        name: &str,
        span: &Span,
    ) -> ShapeId {
        match self.shapes.field(shape, name) {
            Field::Shape(field) => {
                self.note_partial(frame, shape, path, name, span);
                field
            }
            Field::Missing(known) => {
                let point = frame.point.map(|point| point.name());
                self.report(span, Self::missing(path, name, &known, point));
                Shapes::UNKNOWN
            }
            Field::Scalar(kind) => {
                let message = format!("`{path}` is {kind} and has no field `{name}`");
                self.report(span, Finding::new(Code::Path, message));
                Shapes::UNKNOWN
            }
        }
    }

    /// The finding for a field that is not there.
    pub(super) fn missing(
        path: &str,
        name: &str,
        known: &BTreeSet<String>,
        point: Option<&str>,
    ) -> Finding {
        let fields: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        let place = point.map(|point| format!(" at the decision point `{point}`"));
        let message = format!("`{path}` has no field `{name}`{}", place.unwrap_or_default());
        Finding::new(Code::Path, message)
            .hints(did_you_mean(name, known.iter().map(String::as_str)))
            .hint(format!("its fields are {}", fields.join(", ")))
    }

    /// Notes a field that not all states of a fact have.
    fn note_partial(&mut self, frame: &Frame, fact: ShapeId, path: &str, name: &str, span: &Span) {
        let Some((tag, variants)) = self.shapes.tag(fact) else { return };
        let has = |shapes: &Shapes, variant: ShapeId| match shapes.get(variant) {
            Shape::Object(fields) => fields.contains_key(name),
            _ => true,
        };
        let missing: BTreeSet<String> = variants
            .into_iter()
            .filter(|(_, variant)| !has(&self.shapes, *variant))
            .map(|(word, _)| word)
            .collect();
        if !missing.is_empty() && !frame.lenient {
            let strict = matches!(self.shapes.get(fact), Shape::Facts(_));
            let (rule, path, span) = (frame.rule, path.to_owned(), span.clone());
            let negated = frame.negated;
            let read = PartialRead { rule, fact, strict, path, tag, missing, negated, span };
            self.done.partial_reads.push(read);
        }
    }

    /// Whether a variable is bound by nothing and names nothing.
    pub(super) fn is_unbound(&self, frame: &Frame, name: &str) -> bool {
        if name == "_" {
            return true;
        }
        let Some(module) = self.index.modules.get(frame.module) else { return false };
        let rule = || {
            let mut path = module.package.clone();
            path.push(name.to_owned());
            self.index.below(&path).next().is_some()
        };
        !matches!(name, "input" | "data")
            && frame.local(name).is_none()
            && !module.imports.contains_key(name)
            && !rule()
    }
}
