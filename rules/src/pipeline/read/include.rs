//! Puts the steps of included templates in the place of the steps that include them.
//!
//! Little of an include is left afterwards: params are replaced by the values that they are given,
//! steps get the name of the including step in front of theirs, and what the template declares as
//! outputs takes the place of `steps.NAME.outputs.…` in the file that includes it. What stands in
//! one file sees the names of that file and of no other, whatever is put where. Which steps came
//! of which include is kept for [`order`](crate::pipeline::order).

use std::collections::HashMap;
use std::sync::Arc;

use super::fields::Reader;
use super::{Raw, RawStep};
use crate::error::Code;
use crate::pipeline::document;
use crate::pipeline::expression::{Expr, ExprKind, Operator, Root, Value};
use crate::pipeline::limits::{
    FILE_BYTES_MAX, INCLUDED_NESTING_MAX, INCLUDES_DEPTH_MAX, INCLUDES_MAX, NODES_MAX, STEPS_MAX,
};
use crate::pipeline::names::behind;
use crate::pipeline::report::Report;
use crate::pipeline::source::{Source, Sources, Span, Spanned};
use crate::pipeline::template::{
    Besides, Budget, Included, Param, ParamKind, Repeat, Step, Template,
};

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
    /// How many files were read, each as often as it was included.
    reads: usize,
    /// Parts of expressions that were copied so far.
    copied: usize,
}

/// The outputs of includes, by the names of the steps that include and of the outputs.
type Made = HashMap<String, HashMap<String, Expr>>;

impl<'a> Loader<'a> {
    pub(crate) fn new(includes: &'a Includes<'a>) -> Self {
        let (sources, report) = (Sources::default(), Report::default());
        Self { sources, report, includes, open: Vec::new(), reads: 0, copied: 0 }
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
        self.reads += 1;
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
        self.expand(&mut template, steps);
        self.open.pop();
        Some(template)
    }

    /// Puts the steps of a file into its template, those of includes among them.
    fn expand(&mut self, template: &mut Template, raw: Vec<RawStep>) {
        self.twice(&raw);
        let mut made = Made::new();
        for raw in raw {
            let id = raw.id().clone();
            match raw {
                RawStep::Step(step) => template.steps.push(*step),
                RawStep::Include(include) => {
                    let needs = include.needs.clone();
                    match self.included(include) {
                        Some(inner) => {
                            made.insert(
                                id.value.clone(),
                                append(template, id.clone(), needs, inner),
                            );
                        }
                        None => {
                            self.report.unread.insert(id.value.clone());
                        }
                    }
                }
            }
            if template.steps.len() > STEPS_MAX {
                let message = format!(
                    "a pipeline has up to {STEPS_MAX} steps, with those of what it includes"
                );
                self.report
                    .error(Code::PipelineLimit, id.span, message)
                    .hint("steps that differ in a value only are one, with `foreach`");
                return;
            }
        }
        if !made.is_empty() {
            let mut resolve = |expr: &mut Expr| self.resolve(expr, &made, &mut Vec::new());
            template.each_expression(&mut resolve);
        }
    }

    /// Tells of an include that is called like another step: what names it would mean both.
    fn twice(&mut self, raw: &[RawStep]) {
        let mut seen: HashMap<&str, &RawStep> = HashMap::new();
        for step in raw {
            let id = step.id();
            let other = *seen.entry(&id.value).or_insert(step);
            let is_include = |step: &RawStep| matches!(step, RawStep::Include(_));
            if !std::ptr::eq(other, step) && (is_include(other) || is_include(step)) {
                self.report
                    .error(
                        Code::PipelineDuplicate,
                        id.span,
                        format!("two steps are called `{}`", id.value),
                    )
                    .see(other.id().span, "the other stands here");
            }
        }
    }

    /// The template of an include as it is seen from outside.
    fn included(&mut self, include: Include) -> Option<Template> {
        let Include { id, path, with, condition, .. } = include;
        let text = self.text_of(&path)?;
        let outside = std::mem::take(&mut self.report.unread);
        let inner = self.load(&path.value, &text);
        let inside = std::mem::replace(&mut self.report.unread, outside);
        self.report.unread.extend(inside.iter().map(|name| behind(&id.value, name)));
        let mut inner = inner?;
        self.unused(&inner, path.span);
        let values = self.arguments(&inner.params, with, &id);
        for step in &mut inner.steps {
            step.put_env(&inner.env, &mut |value| self.copy(value, value.span));
        }
        let outputs = inner.outputs.iter().map(|(_, value)| self.copy(value, value.span));
        inner.besides.outputs.extend(outputs);
        inner
            .besides
            .env
            .extend(std::mem::take(&mut inner.env).into_iter().map(|(_, value)| value));
        inner.each_expression(&mut |expr| self.seen_from_outside(expr, &id, &values));
        let given = values.into_values().filter(|value| matches!(value.kind, ExprKind::Given(..)));
        inner.given.extend(given);
        for step in &mut inner.steps {
            step.each_name(&mut |name| *name = behind(&id.value, name));
            if let Some(outer) = &condition {
                let outer = self.copy(outer, outer.span);
                step.condition = Some(both(outer, step.condition.take()));
            }
        }
        for include in &mut inner.includes {
            let needs = include.needs.iter_mut().flatten();
            std::iter::once(&mut include.id).chain(needs).for_each(|name| {
                name.value = behind(&id.value, &name.value);
            });
        }
        Some(inner)
    }

    /// The text of a file that is included.
    fn text_of(&mut self, path: &Spanned<String>) -> Option<String> {
        let refuse = |loader: &mut Self, message: String| {
            loader.report.error(Code::PipelineInclude, path.span, message);
            None
        };
        if let Some(from) = self.open.iter().position(|open| *open == path.value) {
            let mut circle = self.open.get(from..).unwrap_or_default().to_vec();
            circle.push(path.value.clone());
            let circle = circle.join("` → `");
            return refuse(self, format!("pipelines include each other: `{circle}`"));
        }
        if self.open.len() >= INCLUDES_DEPTH_MAX || self.reads >= INCLUDES_MAX {
            let message = format!(
                "a pipeline includes up to {INCLUDES_MAX} others, {INCLUDES_DEPTH_MAX} deep"
            );
            return refuse(self, message);
        }
        match (self.includes)(&path.value) {
            Ok(text) => Some(text),
            Err(why) => {
                refuse(self, format!("`{}` cannot be included: {why}", path.value.escape_debug()))
            }
        }
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
        let mut with: HashMap<String, (Spanned<String>, Expr)> =
            with.into_iter().map(|(name, value)| (name.value.clone(), (name, value))).collect();
        let mut values = HashMap::new();
        for param in params {
            let name = &param.name.value;
            let value = match (with.remove(name), &param.default) {
                (Some((_, value)), _) => {
                    self.report.shared.insert(value.span);
                    self.given(param, value)
                }
                (None, Some(default)) => {
                    self.report.shared.insert(param.name.span);
                    Expr::literal(default.clone(), param.name.span)
                }
                (None, None) => {
                    let message = format!("the included pipeline needs param `{name}`");
                    self.report
                        .error(Code::PipelineMissing, id.span, message)
                        .see(param.name.span, "it is declared here")
                        .hint(format!("add `with: {{ {name}: … }}`"));
                    Expr::literal(Value::Null, param.name.span)
                }
            };
            values.insert(name.clone(), value);
        }
        let mut unknown: Vec<Spanned<String>> = with.into_values().map(|(name, _)| name).collect();
        unknown.sort_by_key(|name| name.span);
        for name in unknown {
            let message = format!("the included pipeline has no param `{}`", name.value);
            let draft = self.report.error(Code::PipelineReference, name.span, message);
            let known = params.iter().map(|param| param.name.value.as_str());
            draft.suggest(&name.value, name.span, known);
        }
        values
    }

    /// What a param is given: checked now where it is known, and when it is looked at else.
    fn given(&mut self, param: &Param, value: Expr) -> Expr {
        let span = value.span;
        self.allowed(param, &param.kind, &value, &format!("param `{}`", param.name.value));
        // The name of a secret is a text, and stays one that nothing may be made of.
        if value.known().is_some() && !param.kind.value_type().holds_secret() {
            return value;
        }
        Expr { kind: ExprKind::Given(Arc::new(param.clone()), Box::new(value)), span }
    }

    /// Tells of what a param does not allow, in the parts that are known.
    fn allowed(&mut self, param: &Param, kind: &ParamKind, value: &Expr, what: &str) {
        let checked = match (value.known(), kind, &value.kind) {
            (Some(known), _, _) => kind.check(&known),
            (None, ParamKind::List { item, .. }, ExprKind::List(items)) => {
                let what = format!("an item of {what}");
                items.iter().for_each(|value| self.allowed(param, item, value, &what));
                kind.check_count(items.len())
            }
            _ => Ok(()),
        };
        if let Err(why) = checked {
            self.report
                .error(Code::PipelineType, value.span, format!("{what} {why}"))
                .see(param.name.span, "it is declared here");
        }
    }

    /// Replaces params by their values, and puts the name of the include before names of steps.
    fn seen_from_outside(
        &mut self,
        expr: &mut Expr,
        id: &Spanned<String>,
        values: &HashMap<String, Expr>,
    ) {
        let mut named = Vec::new();
        expr.rewrite(&mut |part| match &part.kind {
            ExprKind::Root(Root::Params) => {
                named.push(part.span);
                let mut names: Vec<&String> = values.keys().collect();
                names.sort_unstable();
                let entries = names.into_iter().map(|name| {
                    let value = self.copy(&values[name], part.span);
                    (Spanned::new(name.clone(), part.span), value)
                });
                Some(Expr { kind: ExprKind::Map(entries.collect()), span: part.span })
            }
            ExprKind::Field(of, name) => match of.kind {
                ExprKind::Root(Root::Params) => {
                    named.push(part.span);
                    values.get(&name.value).map(|value| self.copy(value, part.span))
                }
                ExprKind::Root(Root::Steps) => {
                    let name = Spanned::new(behind(&id.value, &name.value), name.span);
                    Some(Expr { kind: ExprKind::Field(of.clone(), name), span: part.span })
                }
                _ => None,
            },
            _ => None,
        });
        // What stands there is written elsewhere.
        self.report.shared.extend(named);
        self.bound(expr);
    }

    /// `steps.NAME.outputs.OUTPUT` of an include becomes what the output is; `open` are those on
    /// the way to this one.
    fn resolve(&mut self, expr: &mut Expr, made: &Made, open: &mut Vec<(String, String)>) {
        expr.rewrite(&mut |part| {
            let (name, output) = output_of(part)?;
            let outputs = made.get(&name.value)?;
            let Some(found) = outputs.get(&output.value) else {
                let message =
                    format!("the included pipeline declares no output `{}`", output.value);
                let draft = self.report.error(Code::PipelineReference, output.span, message);
                draft.suggest(&output.value, output.span, outputs.keys().map(String::as_str));
                return Some(Expr::literal(Value::Null, part.span));
            };
            let key = (name.value.clone(), output.value.clone());
            if open.len() >= INCLUDES_DEPTH_MAX || open.contains(&key) {
                let message = format!(
                    "output `{}` of `{}` is made of itself, or of more than {INCLUDES_DEPTH_MAX} \
                     others",
                    output.value, name.value
                );
                self.report.error(Code::PipelineCycle, part.span, message);
                return Some(Expr::literal(Value::Null, part.span));
            }
            self.report.shared.insert(part.span);
            let mut copy = self.copy(found, part.span);
            open.push(key);
            self.resolve(&mut copy, made, open);
            open.pop();
            Some(copy)
        });
        self.bound(expr);
    }

    /// A copy that stands elsewhere. Few lines cannot become a huge tree.
    fn copy(&mut self, value: &Expr, span: Span) -> Expr {
        self.copied = self.copied.saturating_add(value.size());
        if self.copied > NODES_MAX {
            let message = format!(
                "values of params and outputs of includes come to more than {NODES_MAX} parts"
            );
            self.report.error(Code::PipelineLimit, span, message);
            return Expr::literal(Value::Null, span);
        }
        Expr { kind: value.kind.clone(), span }
    }

    fn bound(&mut self, expr: &mut Expr) {
        if expr.depth() > INCLUDED_NESTING_MAX {
            let message = format!(
                "with what includes put into it, an expression nests deeper than \
                 {INCLUDED_NESTING_MAX}"
            );
            self.report.error(Code::PipelineLimit, expr.span, message);
            *expr = Expr::literal(Value::Null, expr.span);
        }
    }
}

/// Puts what an include came to behind the steps so far; what is left are its outputs.
fn append(
    template: &mut Template,
    id: Spanned<String>,
    needs: Option<Vec<Spanned<String>>>,
    inner: Template,
) -> HashMap<String, Expr> {
    let first = template.steps.len();
    template.steps.extend(inner.steps);
    template.given.extend(inner.given);
    template.besides.env.extend(inner.besides.env);
    template.besides.outputs.extend(inner.besides.outputs);
    template.includes.push(Included { id, steps: first..template.steps.len(), needs });
    template.includes.extend(inner.includes.into_iter().map(|include| Included {
        steps: first + include.steps.start..first + include.steps.end,
        ..include
    }));
    inner.outputs.into_iter().map(|(name, value)| (name.value, value)).collect()
}

/// The parts of `steps.NAME.outputs.OUTPUT`.
fn output_of(expr: &Expr) -> Option<(&Spanned<String>, &Spanned<String>)> {
    let ExprKind::Field(of, output) = &expr.kind else { return None };
    let ExprKind::Field(step, part) = &of.kind else { return None };
    let ExprKind::Field(root, name) = &step.kind else { return None };
    let fits = root.kind == ExprKind::Root(Root::Steps) && part.value == "outputs";
    fits.then_some((name, output))
}

fn both(outer: Expr, inner: Option<Expr>) -> Expr {
    let Some(inner) = inner else { return outer };
    let span = outer.span;
    Expr { kind: ExprKind::Binary(Operator::And, Box::new(outer), Box::new(inner)), span }
}

impl Template {
    /// Visits the expressions of its steps and outputs, and those of what it includes.
    fn each_expression(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        let Self { steps, on_failure, on_cancel, .. } = self;
        let steps = steps.iter_mut().chain(on_failure).chain(on_cancel);
        steps.for_each(|step| step.each_expression(visit));
        let Besides { env, outputs } = &mut self.besides;
        self.given.iter_mut().chain(env).chain(outputs).for_each(&mut *visit);
        self.outputs.iter_mut().for_each(|(_, value)| visit(value));
    }
}

impl Step {
    /// Visits all its expressions, and those of the steps that it calls.
    fn each_expression(&mut self, visit: &mut dyn FnMut(&mut Expr)) {
        self.with.iter_mut().for_each(|(_, value)| visit(value));
        self.env.iter_mut().for_each(|(_, value)| visit(value));
        self.secrets.iter_mut().for_each(|(_, value)| visit(value));
        self.egress.iter_mut().for_each(&mut *visit);
        self.condition.iter_mut().for_each(&mut *visit);
        self.concurrency.iter_mut().for_each(|found| visit(&mut found.group));
        match &mut self.repeat {
            Repeat::Once => {}
            Repeat::Each { items, .. } => visit(items),
            Repeat::Until { condition, .. } => visit(condition),
            Repeat::Matrix { axes, exclude, include, .. } => {
                axes.iter_mut().for_each(|(_, values)| visit(values));
                exclude.iter_mut().chain(include).for_each(&mut *visit);
            }
        }
        let called = self.on_failure.iter_mut().chain(&mut self.on_cancel);
        called.for_each(|step| step.each_expression(visit));
    }

    /// Visits its name, those that it needs, and those of the steps that it calls.
    fn each_name(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.id.value);
        self.needs.iter_mut().flatten().for_each(|name| visit(&mut name.value));
        let called = self.on_failure.iter_mut().chain(&mut self.on_cancel);
        called.for_each(|step| step.each_name(visit));
    }

    /// Puts an environment before its own, which wins, and before that of the steps that it calls.
    fn put_env(&mut self, env: &[(Spanned<String>, Expr)], copy: &mut dyn FnMut(&Expr) -> Expr) {
        let copies = env.iter().map(|(name, value)| (name.clone(), copy(value)));
        self.env.splice(0..0, copies.collect::<Vec<_>>());
        let called = self.on_failure.iter_mut().chain(&mut self.on_cancel);
        called.for_each(|step| step.put_env(env, copy));
    }
}
