//! Puts the steps of included templates in the place of the steps that include them.
//!
//! Nothing of an include is left afterwards: params are replaced by the values that they are
//! given, steps get the name of the including step in front of theirs, and what the template
//! declares as outputs takes the place of `steps.NAME.outputs.…` in the file that includes it.

use std::collections::{HashMap, HashSet};

use super::fields::Reader;
use super::{Raw, RawStep};
use crate::error::Code;
use crate::pipeline::document;
use crate::pipeline::expression::{Expr, ExprKind, Operator, Root};
use crate::pipeline::limits::{FILE_BYTES_MAX, INCLUDES_DEPTH_MAX, INCLUDES_MAX, STEPS_MAX};
use crate::pipeline::report::Report;
use crate::pipeline::source::{Source, Sources, Span, Spanned};
use crate::pipeline::template::{Budget, Param, Repeat, Step, Template};

/// A step that stands for those of another file.
pub(crate) struct Include {
    pub(crate) id: Spanned<String>,
    pub(crate) path: Spanned<String>,
    pub(crate) with: Vec<(Spanned<String>, Expr)>,
    pub(crate) needs: Option<Vec<Spanned<String>>>,
    pub(crate) condition: Option<Expr>,
}

/// Gives the text of an included file, or says why there is none.
pub type Includes<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// Reads files and what they include.
pub(crate) struct Loader<'a> {
    pub(crate) sources: Sources,
    pub(crate) report: Report,
    pub(crate) includes: &'a Includes<'a>,
    /// The files that are being read, outermost first.
    open: Vec<String>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(includes: &'a Includes<'a>) -> Self {
        Self { sources: Sources::default(), report: Report::default(), includes, open: Vec::new() }
    }

    /// Reads a file; includes are in their places.
    pub(crate) fn load(&mut self, name: &str, text: &str) -> Option<Template> {
        if text.len() > FILE_BYTES_MAX {
            // Not even its lines are counted.
            let file = self.sources.add(Source::new(name, ""));
            let message =
                format!("the file has {} bytes, and may have {FILE_BYTES_MAX}", text.len());
            self.report
                .error(Code::PipelineLimit, Span::new(file, 0, 0), message)
                .hint("steps that differ in a value only are one, with `foreach` or `matrix`");
            return None;
        }
        let source = Source::new(name, text);
        let file = self.sources.add(source.clone());
        let before = self.report.errors();
        let root = document::parse(&source, file, &mut self.report);
        if root.is_none() && self.report.errors() > before {
            return None;
        }
        let mut reader = Reader { sources: &self.sources, file, report: &mut self.report };
        let Raw { mut template, steps } = reader.template(root.as_ref())?;
        self.open.push(name.to_owned());
        template.steps = self.expanded(steps, &mut template.outputs);
        self.open.pop();
        Some(template)
    }

    fn expanded(
        &mut self,
        raw: Vec<RawStep>,
        outputs: &mut Vec<(Spanned<String>, Expr)>,
    ) -> Vec<Step> {
        if !raw.iter().any(|step| matches!(step, RawStep::Include(_))) {
            let own = |step| match step {
                RawStep::Step(step) => Some(*step),
                RawStep::Include(_) => None,
            };
            return raw.into_iter().filter_map(own).collect();
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut made = HashMap::new();
        let mut own = HashSet::new();
        for raw in raw {
            match raw {
                RawStep::Step(step) => {
                    own.insert(steps.len());
                    steps.push(*step);
                }
                RawStep::Include(include) => {
                    let above = steps.last().map(|step| step.id.clone());
                    let id = include.id.clone();
                    let Some((inner, outputs)) = self.included(include, above) else {
                        self.report.unread.insert(id.value);
                        continue;
                    };
                    let ids = inner.iter().map(|step| step.id.value.clone()).collect();
                    made.insert(id.value, Made { steps: ids, outputs });
                    steps.extend(inner);
                }
            }
            if steps.len() > STEPS_MAX {
                break;
            }
        }
        let report = std::cell::RefCell::new(&mut self.report);
        let replace = |expr: Expr| made_output(expr, &made, &report);
        for (at, step) in steps.iter_mut().enumerate() {
            // Steps of an include hold values of this file only where those were put for params.
            step.map_expressions(&replace);
            if own.contains(&at)
                && let Some(needs) = &mut step.needs
            {
                *needs = needs.drain(..).flat_map(|name| expanded_name(name, &made)).collect();
            }
        }
        for (_, value) in outputs {
            *value = value.clone().map(&replace);
        }
        steps
    }

    /// The steps of an include, and its outputs.
    fn included(
        &mut self,
        include: Include,
        above: Option<Spanned<String>>,
    ) -> Option<(Vec<Step>, HashMap<String, Expr>)> {
        let Include { id, path, with, needs, condition } = include;
        let refuse = |loader: &mut Self, message: String| {
            loader.report.error(Code::PipelineInclude, path.span, message);
        };
        if let Some(from) = self.open.iter().position(|open| *open == path.value) {
            let mut circle = self.open.get(from..).unwrap_or_default().to_vec();
            circle.push(path.value.clone());
            refuse(self, format!("pipelines include each other: `{}`", circle.join("` → `")));
            return None;
        }
        if self.open.len() >= INCLUDES_DEPTH_MAX || self.sources.len() >= INCLUDES_MAX {
            refuse(
                self,
                format!(
                    "a pipeline includes up to {INCLUDES_MAX} others, {INCLUDES_DEPTH_MAX} deep"
                ),
            );
            return None;
        }
        let text = match (self.includes)(&path.value) {
            Ok(text) => text,
            Err(why) => {
                refuse(self, format!("`{}` cannot be included: {why}", path.value));
                return None;
            }
        };
        let inner = self.load(&path.value, &text)?;
        let values = self.arguments(&inner.params, with, &id);
        let prefix = Prefix { id: &id, values: &values };
        self.unused(&inner, path.span);
        let names: HashSet<String> = inner.steps.iter().map(|step| step.id.value.clone()).collect();
        let entry: Vec<Spanned<String>> = needs.clone().unwrap_or(above.into_iter().collect());
        let mut steps = inner.steps;
        for (at, step) in steps.iter_mut().enumerate() {
            // Its own environment comes later, and wins.
            step.env.splice(0..0, inner.env.iter().cloned());
            step.map_expressions(&|expr| prefix.replace(expr, &names));
            step.id.value = prefix.name(&step.id.value);
            for handler in step.on_failure.iter_mut().chain(&mut step.on_cancel) {
                handler.id.value = prefix.name(&handler.id.value);
            }
            match &mut step.needs {
                Some(needs) => {
                    needs.iter_mut().for_each(|name| name.value = prefix.name(&name.value));
                    needs.extend(entry.iter().cloned());
                }
                None if at == 0 => step.needs = needs.clone(),
                None => {}
            }
            if let Some(outer) = &condition {
                step.condition = Some(both(outer.clone(), step.condition.take()));
            }
        }
        let outputs = inner
            .outputs
            .into_iter()
            .map(|(name, value)| (name.value, value.map(&|expr| prefix.replace(expr, &names))));
        Some((steps, outputs.collect()))
    }

    /// Warns of what holds for a run only, and not for an included template.
    fn unused(&mut self, inner: &Template, span: Span) {
        let Template { budget, concurrency, timeout_ms, on_failure, on_cancel, .. } = inner;
        let keys = [
            ("budget", *budget != Budget::default()),
            ("concurrency", concurrency.is_some()),
            ("timeout", timeout_ms.is_some()),
            ("on_failure", !on_failure.is_empty()),
            ("on_cancel", !on_cancel.is_empty()),
        ];
        for (key, _) in keys.iter().filter(|(_, there)| *there) {
            let message = format!("`{key}` of the included pipeline does not hold here");
            self.report
                .warning(Code::PipelineInclude, span, message)
                .hint("say it in this file, for the run as a whole");
        }
    }

    /// A value for each param of an included template.
    fn arguments(
        &mut self,
        params: &[Param],
        with: Vec<(Spanned<String>, Expr)>,
        id: &Spanned<String>,
    ) -> HashMap<String, Expr> {
        let known = || params.iter().map(|param| param.name.value.as_str());
        for (name, _) in with.iter().filter(|(name, _)| !known().any(|own| own == name.value)) {
            let message = format!("the included pipeline has no param `{}`", name.value);
            let draft = self.report.error(Code::PipelineReference, name.span, message);
            draft.suggest(&name.value, name.span, known());
        }
        let mut values = HashMap::new();
        for param in params {
            let name = &param.name.value;
            let given = with.iter().find(|(own, _)| own.value == *name).map(|(_, value)| value);
            let value = match (given, &param.default) {
                (Some(value), _) => {
                    if let Some(Err(why)) = value.known().map(|known| param.kind.check(&known)) {
                        let message = format!("param `{name}` {why}");
                        self.report
                            .error(Code::PipelineType, value.span, message)
                            .see(param.name.span, "it is declared here");
                    }
                    value.clone()
                }
                (None, Some(default)) => Expr::literal(default.clone(), param.name.span),
                (None, None) => {
                    let message = format!("the included pipeline needs param `{name}`");
                    self.report
                        .error(Code::PipelineMissing, id.span, message)
                        .see(param.name.span, "it is declared here")
                        .hint(format!("add `with: {{ {name}: … }}`"));
                    Expr::literal(serde_json::Value::Null, param.name.span)
                }
            };
            values.insert(name.clone(), value);
        }
        values
    }
}

/// What an include left behind: the names of its steps, and its outputs.
struct Made {
    steps: Vec<String>,
    outputs: HashMap<String, Expr>,
}

fn expanded_name(name: Spanned<String>, made: &HashMap<String, Made>) -> Vec<Spanned<String>> {
    match made.get(&name.value) {
        Some(made) => made.steps.iter().map(|id| Spanned::new(id.clone(), name.span)).collect(),
        None => vec![name],
    }
}

/// `steps.NAME.outputs.OUTPUT` of an include becomes what the output is.
fn made_output(
    expr: Expr,
    made: &HashMap<String, Made>,
    report: &std::cell::RefCell<&mut Report>,
) -> Expr {
    let ExprKind::Field(of, output) = &expr.kind else { return expr };
    let ExprKind::Field(step, part) = &of.kind else { return expr };
    let ExprKind::Field(root, name) = &step.kind else { return expr };
    let Some(made) = made.get(&name.value).filter(|_| root.kind == ExprKind::Root(Root::Steps))
    else {
        return expr;
    };
    match made.outputs.get(&output.value).filter(|_| part.value == "outputs") {
        Some(found) => Expr { kind: found.kind.clone(), span: expr.span },
        None => {
            let message = format!("the included pipeline declares no output `{}`", output.value);
            let mut report = report.borrow_mut();
            let draft = report.error(Code::PipelineReference, output.span, message);
            draft.suggest(&output.value, output.span, made.outputs.keys().map(String::as_str));
            Expr::literal(serde_json::Value::Null, expr.span)
        }
    }
}

fn both(outer: Expr, inner: Option<Expr>) -> Expr {
    let Some(inner) = inner else { return outer };
    let span = outer.span;
    Expr { kind: ExprKind::Binary(Operator::And, Box::new(outer), Box::new(inner)), span }
}

/// How names and params of an included template are seen from outside.
struct Prefix<'a> {
    id: &'a Spanned<String>,
    values: &'a HashMap<String, Expr>,
}

impl Prefix<'_> {
    fn name(&self, inner: &str) -> String {
        format!("{}.{inner}", self.id.value)
    }

    fn replace(&self, expr: Expr, names: &HashSet<String>) -> Expr {
        let ExprKind::Field(of, name) = &expr.kind else { return expr };
        match of.kind {
            ExprKind::Root(Root::Params) => match self.values.get(&name.value) {
                Some(value) => Expr { kind: value.kind.clone(), span: expr.span },
                None => expr,
            },
            ExprKind::Root(Root::Steps) if names.contains(&name.value) => {
                let name = Spanned::new(self.name(&name.value), name.span);
                Expr { kind: ExprKind::Field(of.clone(), name), span: expr.span }
            }
            _ => expr,
        }
    }
}

impl Step {
    /// Replaces parts of all its expressions.
    pub(crate) fn map_expressions(&mut self, replace: &dyn Fn(Expr) -> Expr) {
        let one = |expr: &mut Expr| {
            let span = expr.span;
            let old = std::mem::replace(expr, Expr::literal(serde_json::Value::Null, span));
            *expr = old.map(replace);
        };
        self.with.iter_mut().for_each(|(_, value)| one(value));
        self.env.iter_mut().for_each(|(_, value)| one(value));
        self.secrets.iter_mut().for_each(|(_, value)| one(value));
        self.egress.iter_mut().for_each(one);
        self.condition.iter_mut().for_each(one);
        self.concurrency.iter_mut().for_each(|found| one(&mut found.group));
        match &mut self.repeat {
            Repeat::Once => {}
            Repeat::Each { items, .. } => one(items),
            Repeat::Until { condition, .. } => one(condition),
            Repeat::Matrix { axes, exclude, include, .. } => {
                axes.iter_mut().for_each(|(_, values)| one(values));
                exclude.iter_mut().chain(include).for_each(one);
            }
        }
        let handlers = self.on_failure.iter_mut().chain(&mut self.on_cancel);
        handlers.for_each(|handler| handler.map_expressions(replace));
    }
}
