//! Reads steps.

use std::collections::BTreeSet;

use maestro_core::Label;

use super::RawStep;
use super::fields::{Fields, Reader};
use super::include::Include;
use crate::error::Code;
use crate::pipeline::definitions::{ALL, FieldKind, definition};
use crate::pipeline::document::{Kind, Node};
use crate::pipeline::expression::{Expr, ExprKind, Root, Value};
use crate::pipeline::limits::{COMBINATIONS_MAX, ROUNDS_MAX};
use crate::pipeline::source::Spanned;
use crate::pipeline::template::{Repeat, Resources, Step, Uses};

/// Keys of a step.
pub(crate) const STEP_KEYS: &[&str] = &[
    "id",
    "uses",
    "include",
    "description",
    "with",
    "needs",
    "if",
    "foreach",
    "until",
    "matrix",
    "max",
    "parallel",
    "delay",
    "timeout",
    "retry",
    "budget",
    "continue_on_error",
    "concurrency",
    "outputs",
    "env",
    "secrets",
    "egress",
    "resources",
    "approval",
    "on_failure",
    "on_cancel",
];

/// Keys of a step that includes a template.
const INCLUDE_KEYS: &[&str] = &["id", "include", "description", "with", "needs", "if"];
/// Keys of a step that runs where another failed.
const HANDLER_KEYS: &[&str] = &[
    "id",
    "uses",
    "description",
    "with",
    "if",
    "timeout",
    "retry",
    "budget",
    "continue_on_error",
    "env",
    "secrets",
    "egress",
    "resources",
];
/// How many instances of a step run at once where nothing is said.
const PARALLEL_DEFAULT: u32 = 8;
/// The wait between rounds of `until` where nothing is said, in milliseconds.
const DELAY_MS_DEFAULT: u64 = 10_000;

impl Reader<'_> {
    pub(super) fn step_or_include(&mut self, node: &Node) -> Option<RawStep> {
        let includes = match &node.kind {
            Kind::Mapping(entries) => entries.iter().any(|(key, _)| key.value == "include"),
            _ => false,
        };
        match includes {
            true => self.include(node).map(RawStep::Include),
            false => self.step(node, STEP_KEYS).map(|step| RawStep::Step(Box::new(step))),
        }
    }

    fn include(&mut self, node: &Node) -> Option<Include> {
        let fields = self.fields(node, "a step with `include`", INCLUDE_KEYS)?;
        let id = self.id(&fields);
        let path = fields.get("include").and_then(|node| self.text(node, "`include`"));
        let with = fields.get("with").map(|node| self.pairs(node, "`with`")).unwrap_or_default();
        let needs = fields.get("needs").map(|node| self.texts(node, "a step of `needs`"));
        let condition = fields.get("if").and_then(|node| self.condition(node, "`if`"));
        // Steps say for themselves whether they run after a failure, and most by saying nothing.
        for (function, span) in condition.iter().flat_map(Expr::outcomes) {
            let name = function.as_str();
            let message = format!("`{name}()` cannot be asked for all steps of an include");
            self.error(Code::PipelineExpression, span, message)
                .hint("write it in the `if` of the steps that are meant, in the included file");
        }
        let id = id?;
        if path.is_none() {
            self.report.unread.insert(id.value.clone());
        }
        Some(Include { id, path: path?, with, needs, condition })
    }

    /// Steps that run after a failure or a cancellation.
    pub(super) fn handlers(&mut self, fields: &Fields<'_>, key: &str) -> Vec<Step> {
        let Some(node) = fields.get(key) else { return Vec::new() };
        let Kind::Sequence(items) = &node.kind else {
            self.wrong(node, &format!("`{key}`"), "a list of steps");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.step(item, HANDLER_KEYS)).collect()
    }

    fn id(&mut self, fields: &Fields<'_>) -> Option<Spanned<String>> {
        let Some(node) = fields.get("id") else {
            self.missing(fields, "a step", "id").hint("such as `id: build`; others name it so");
            return None;
        };
        let id = self.text(node, "`id`")?;
        self.name(&id, "a step").then_some(id)
    }

    /// One step. What could not be read is left out, and then an error was told.
    fn step(&mut self, node: &Node, keys: &[&str]) -> Option<Step> {
        let fields = self.fields(node, "a step", keys)?;
        let id = self.id(&fields);
        let uses = self.uses(&fields);
        let with = fields.get("with").map(|node| self.pairs(node, "`with`")).unwrap_or_default();
        let with = with.into_iter().map(|(name, value)| {
            let value = named_steps(uses.as_ref(), &name, value);
            (name, value)
        });
        let with = with.collect();
        let needs = fields.get("needs").map(|node| self.texts(node, "a step of `needs`"));
        let condition = fields.get("if").and_then(|node| self.condition(node, "`if`"));
        let repeat = self.repeat(&fields);
        let timeout_ms = fields.get("timeout").and_then(|node| self.duration(node, "`timeout`"));
        let retry = fields.get("retry").and_then(|node| self.retry(node));
        let budget = fields.get("budget").map(|node| self.budget(node)).unwrap_or_default();
        let go_on = fields.get("continue_on_error");
        let go_on = go_on.and_then(|node| self.boolean(node, "`continue_on_error`"));
        let concurrency = fields.get("concurrency").and_then(|node| self.concurrency(node));
        let outputs = fields.get("outputs").map(|node| self.declared_outputs(node));
        let env = fields.get("env").map(|node| self.env(node)).unwrap_or_default();
        let secrets = fields.get("secrets").map(|node| self.secrets(node)).unwrap_or_default();
        let egress = fields.get("egress").map(|node| self.egress(node)).unwrap_or_default();
        let resources = fields.get("resources").map(|node| self.resources(node));
        let approval = fields.get("approval").and_then(|node| self.approval(node));
        let on_failure = self.handlers(&fields, "on_failure");
        let on_cancel = self.handlers(&fields, "on_cancel");
        let id = id?;
        if uses.is_none() {
            self.report.unread.insert(id.value.clone());
        }
        Some(Step {
            id,
            uses: uses?,
            with,
            needs,
            condition,
            repeat,
            timeout_ms,
            retry,
            budget,
            continue_on_error: go_on.unwrap_or(false),
            concurrency,
            outputs: outputs.unwrap_or_default(),
            env,
            secrets,
            egress,
            resources: resources.unwrap_or(Resources::default()),
            approval,
            on_failure,
            on_cancel,
            span: node.span,
        })
    }

    fn uses(&mut self, fields: &Fields<'_>) -> Option<Uses> {
        let Some(node) = fields.get("uses") else {
            self.missing(fields, "a step", "uses").hint(
                "a kind of step such as `build.container`, or a label such as `//app:server`",
            );
            return None;
        };
        let text = self.text(node, "`uses`")?;
        if text.value.starts_with(['/', ':', '@']) {
            return match Label::parse(&text.value, "", "") {
                Ok(label) => Some(Uses::Target(label)),
                Err(error) => {
                    self.error(Code::PipelineStep, text.span, error.to_string());
                    None
                }
            };
        }
        if let Some(found) = definition(&text.value) {
            return Some(Uses::Step(found));
        }
        let message = format!("there is no kind of step `{}`", text.value.escape_debug());
        let draft = self.error(Code::PipelineStep, text.span, message);
        let language = ["cc_", "rust_", "py_", "node_", "go_", "java_"];
        if language.iter().any(|start| text.value.starts_with(start)) {
            draft.hint(
                "declare the target in a `maestro.star`, and use its label: `uses: //app:server`",
            );
        } else {
            draft.suggest(&text.value, text.span, ALL.iter().map(|step| step.name));
        }
        None
    }

    /// `foreach`, `matrix` or `until`, with what belongs to them.
    fn repeat(&mut self, fields: &Fields<'_>) -> Repeat {
        let loops: Vec<_> =
            ["foreach", "matrix", "until"].iter().filter_map(|key| fields.entry(key)).collect();
        if let [(first, _), (second, _), ..] = loops.as_slice() {
            let message = format!("a step has one of `{}` and `{}`", first.value, second.value);
            self.error(Code::PipelineField, second.span, message)
                .see(first.span, "the other stands here")
                .hint("put the inner loop into a template of its own, and include it");
            return Repeat::Once;
        }
        let kind = loops.first().map(|(key, _)| key.value.as_str());
        for (key, of) in [
            ("max", &["foreach", "until"][..]),
            ("parallel", &["foreach", "matrix"]),
            ("delay", &["until"]),
        ] {
            if let (Some((name, _)), false) =
                (fields.entry(key), kind.is_some_and(|kind| of.contains(&kind)))
            {
                let message = format!("`{key}` belongs to `{}`", of.join("` or `"));
                self.error(Code::PipelineField, name.span, message);
            }
        }
        let max = fields.get("max").map(|node| self.integer(node, "`max`", 1, ROUNDS_MAX));
        let parallel =
            fields.get("parallel").and_then(|node| self.integer(node, "`parallel`", 1, 10_000));
        let parallel = parallel.and_then(|n| u32::try_from(n).ok()).unwrap_or(PARALLEL_DEFAULT);
        let delay = fields.get("delay").and_then(|node| self.duration(node, "`delay`"));
        match loops.first() {
            None => Repeat::Once,
            Some((key, node)) => {
                let found = match key.value.as_str() {
                    "foreach" => self.each(key, node, max, parallel),
                    "matrix" => self.matrix(node, parallel),
                    _ => self.until(key, node, max, delay.unwrap_or(DELAY_MS_DEFAULT)),
                };
                found.unwrap_or(Repeat::Once)
            }
        }
    }

    fn unbounded(&mut self, key: &Spanned<String>, example: &str) {
        let message = format!("`{}` needs `max`", key.value);
        self.error(Code::PipelineUnbounded, key.span, message).hint(example);
    }

    fn each(
        &mut self,
        key: &Spanned<String>,
        node: &Node,
        max: Option<Option<u64>>,
        parallel: u32,
    ) -> Option<Repeat> {
        let items = self.expr(node)?;
        let count = match &items.kind {
            ExprKind::List(items) => Some(items.len() as u64),
            ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Text(_) => {
                self.wrong(node, "`foreach`", "a list, or an expression that comes to one");
                return None;
            }
            _ => None,
        };
        match (count, max) {
            (Some(count), None) => Some(Repeat::Each { items, max: count.max(1), parallel }),
            (Some(count), Some(Some(max))) if count > max => {
                let message = format!("`foreach` has {count} items, and `max` is {max}");
                self.error(Code::PipelineType, key.span, message);
                None
            }
            (None, None) => {
                self.unbounded(key, "the list is known at run time only; `max: 100` bounds it");
                None
            }
            (_, Some(max)) => Some(Repeat::Each { items, max: max?, parallel }),
        }
    }

    fn until(
        &mut self,
        key: &Spanned<String>,
        node: &Node,
        max: Option<Option<u64>>,
        delay_ms: u64,
    ) -> Option<Repeat> {
        let condition = self.condition(node, "`until`")?;
        if max.is_none() {
            self.unbounded(key, "the most rounds, such as `max: 30`");
        }
        Some(Repeat::Until { condition, max: max??, delay_ms })
    }

    fn matrix(&mut self, node: &Node, parallel: u32) -> Option<Repeat> {
        let entries = self.mapping(node, "`matrix`")?;
        let (mut axes, mut exclude, mut include) = (Vec::new(), Vec::new(), Vec::new());
        for (name, node) in entries {
            match name.value.as_str() {
                "exclude" => exclude = self.combinations(node, "`exclude`"),
                "include" => include = self.combinations(node, "`include`"),
                _ => {
                    self.name(name, "an axis");
                    let values = self.expr(node)?;
                    if matches!(
                        values.kind,
                        ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Text(_)
                    ) {
                        self.wrong(node, &format!("axis `{}`", name.value), "a list");
                    }
                    axes.push((name.clone(), values));
                }
            }
        }
        let names: BTreeSet<&str> = axes.iter().map(|(name, _)| name.value.as_str()).collect();
        for (key, _) in exclude.iter().chain(&include).flat_map(entries_of) {
            if !names.contains(key.value.as_str()) {
                let message = format!("the matrix has no axis `{}`", key.value);
                let draft = self.report.error(Code::PipelineReference, key.span, message);
                draft.suggest(&key.value, key.span, names.iter().copied());
            }
        }
        if axes.is_empty() {
            self.error(Code::PipelineMissing, node.span, "a matrix needs an axis")
                .hint("such as `matrix: { os: [linux, windows] }`");
            return None;
        }
        Some(Repeat::Matrix { axes, exclude, include, parallel })
    }

    fn combinations(&mut self, node: &Node, what: &str) -> Vec<Expr> {
        let mut found = Vec::new();
        if self.list(node).len() > COMBINATIONS_MAX {
            let message = format!("{what} of a matrix has up to {COMBINATIONS_MAX} combinations");
            self.error(Code::PipelineLimit, node.span, message)
                .hint("an axis can be an expression that comes to the values that are meant");
            return found;
        }
        for item in self.list(node) {
            match item.kind {
                Kind::Mapping(_) => found.extend(self.expr(item)),
                _ => self.wrong(item, what, "a list of mappings"),
            }
        }
        found
    }

    fn egress(&mut self, node: &Node) -> Vec<Expr> {
        let items: Vec<Expr> = self.list(node).iter().filter_map(|item| self.expr(item)).collect();
        for item in &items {
            if let ExprKind::Literal(value) = &item.kind
                && !value.as_str().is_some_and(is_host)
            {
                let message =
                    format!("`{}` is no host", value.as_str().unwrap_or("this").escape_debug());
                self.error(Code::PipelineType, item.span, message)
                    .hint("such as `api.example.com`, `*.example.com` or `api.example.com:8443`");
            }
        }
        items
    }
}

/// In a field that takes names of steps, texts are such names: `[plan]` is `[steps.plan]`.
fn named_steps(uses: Option<&Uses>, field: &Spanned<String>, value: Expr) -> Expr {
    let field = match uses {
        Some(Uses::Step(definition)) => definition.field(&field.value),
        _ => None,
    };
    if field.is_none_or(|field| field.kind != FieldKind::Steps) {
        return value;
    }
    let step = |expr: Expr| match &expr.kind {
        ExprKind::Literal(Value::String(name)) => {
            let span = expr.span;
            let of = Box::new(Expr { kind: ExprKind::Root(Root::Steps), span });
            Expr { kind: ExprKind::Field(of, Spanned::new(name.clone(), span)), span }
        }
        _ => expr,
    };
    match value.kind {
        ExprKind::List(items) => {
            let items = items.into_iter().map(step).collect();
            Expr { kind: ExprKind::List(items), span: value.span }
        }
        _ => {
            let span = value.span;
            Expr { kind: ExprKind::List(vec![step(value)]), span }
        }
    }
}

fn entries_of(expr: &Expr) -> &[(Spanned<String>, Expr)] {
    match &expr.kind {
        ExprKind::Map(entries) => entries,
        _ => &[],
    }
}

/// A host with a port or without; the first label may be `*`.
fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "443"));
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    port.parse::<u16>().is_ok() && host.split('.').all(label) && host.len() <= 253
}
