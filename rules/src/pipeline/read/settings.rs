//! Reads what surrounds a step: budgets, retries, groups, resources, approvals.

use super::fields::Reader;
use crate::error::Code;
use crate::pipeline::document::{Kind, Node};
use crate::pipeline::expression::{Expr, ExprKind, Type};
use crate::pipeline::source::Spanned;
use crate::pipeline::template::{
    Approval, Budget, Concurrency, FailureClass, Output, PathSegment, Resources, Retry,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long an approval waits where nothing is said.
const APPROVAL_EXPIRES_MS_DEFAULT: u64 = 7 * DAY_MS;
/// The first and the longest wait between attempts where nothing is said.
const BACKOFF_MS_DEFAULT: u64 = 1_000;
const BACKOFF_MS_MAX_DEFAULT: u64 = 5 * 60 * 1000;
/// Most attempts after the first.
const RETRIES_MAX: u64 = 100;
/// Most people whom a gate asks for.
const APPROVALS_MAX: u64 = 100;

impl Reader<'_> {
    /// A mapping from names to values.
    pub(crate) fn pairs(&mut self, node: &Node, what: &str) -> Vec<(Spanned<String>, Expr)> {
        let entries = self.mapping(node, what).unwrap_or_default();
        let read = |(name, node): &(Spanned<String>, Node)| Some((name.clone(), self.expr(node)?));
        entries.iter().filter_map(read).collect()
    }

    pub(crate) fn env(&mut self, node: &Node) -> Vec<(Spanned<String>, Expr)> {
        let found = self.pairs(node, "`env`");
        for (name, _) in &found {
            self.variable(name);
        }
        found
    }

    fn variable(&mut self, name: &Spanned<String>) {
        let mut bytes = name.value.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let message = format!("`{}` is no name of a variable", name.value.escape_debug());
            self.error(Code::PipelineType, name.span, message);
        }
    }

    /// Secrets: a list of names, or a mapping from variables to names and params.
    pub(crate) fn secrets(&mut self, node: &Node) -> Vec<(Spanned<String>, Expr)> {
        let found = match &node.kind {
            Kind::Mapping(_) => self.pairs(node, "`secrets`"),
            _ => {
                let names = self.texts(node, "a secret");
                let own = |name: Spanned<String>| {
                    let value = Expr::literal(name.value.clone(), name.span);
                    (name, value)
                };
                names.into_iter().map(own).collect()
            }
        };
        for (name, value) in &found {
            self.variable(name);
            if let ExprKind::Literal(value) = &value.kind
                && !value.as_str().is_some_and(is_secret_name)
            {
                let message = format!("the secret for `{}` is named by its name", name.value);
                self.error(Code::PipelineSecret, name.span, message).hint(
                    "letters, digits, `-`, `_`, `/` and `.`; a value that was written here must be \
                     changed at its origin",
                );
            }
        }
        found
    }

    pub(crate) fn budget(&mut self, node: &Node) -> Budget {
        let mut budget = Budget::default();
        if matches!(node.kind, Kind::Scalar(_)) {
            budget.usd_micros = self.money(node, "`budget`");
            return budget;
        }
        let keys = &["usd", "tokens", "soft_usd", "soft_tokens"];
        let Some(fields) = self.fields(node, "`budget`", keys) else { return budget };
        let most = i64::MAX as u64;
        let mut money =
            |key: &str| fields.get(key).and_then(|node| self.money(node, &format!("`{key}`")));
        (budget.usd_micros, budget.soft_usd_micros) = (money("usd"), money("soft_usd"));
        let mut tokens = |key: &str| {
            fields.get(key).and_then(|node| self.integer(node, &format!("`{key}`"), 0, most))
        };
        (budget.tokens, budget.soft_tokens) = (tokens("tokens"), tokens("soft_tokens"));
        let money = (budget.soft_usd_micros, budget.usd_micros);
        let tokens = (budget.soft_tokens, budget.tokens);
        for pair in [money, tokens] {
            if matches!(pair, (Some(soft), Some(hard)) if soft > hard) {
                let message = "a soft limit lies above the hard one";
                self.error(Code::PipelineType, node.span, message);
            }
        }
        budget
    }

    pub(crate) fn concurrency(&mut self, node: &Node) -> Option<Concurrency> {
        if matches!(node.kind, Kind::Scalar(_)) {
            return Some(Concurrency { group: self.expr(node)?, limit: 1, cancel_running: false });
        }
        let fields = self.fields(node, "`concurrency`", &["group", "limit", "cancel_running"])?;
        let Some(group) = fields.get("group") else {
            self.missing(&fields, "`concurrency`", "group").hint("such as `concurrency: deploy`");
            return None;
        };
        let limit = fields.get("limit").map(|node| self.integer(node, "`limit`", 1, 10_000));
        let cancel =
            fields.get("cancel_running").map(|node| self.boolean(node, "`cancel_running`"));
        Some(Concurrency {
            group: self.expr(group)?,
            limit: limit.flatten().and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            cancel_running: cancel.flatten().unwrap_or(false),
        })
    }

    pub(crate) fn retry(&mut self, node: &Node) -> Option<Retry> {
        let infrastructure =
            vec![FailureClass::Infrastructure, FailureClass::RateLimit, FailureClass::Timeout];
        let mut retry = Retry {
            max: 0,
            on: infrastructure,
            backoff_ms: BACKOFF_MS_DEFAULT,
            backoff_ms_max: BACKOFF_MS_MAX_DEFAULT,
            jitter: true,
        };
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        if matches!(node.kind, Kind::Scalar(_)) {
            retry.max = count(self.integer(node, "`retry`", 0, RETRIES_MAX)?);
            return Some(retry);
        }
        let keys = &["max", "on", "backoff", "backoff_max", "jitter"];
        let fields = self.fields(node, "`retry`", keys)?;
        let Some(max) = fields.get("max") else {
            self.missing(&fields, "`retry`", "max").hint("the most attempts after the first");
            return None;
        };
        retry.max = count(self.integer(max, "`max` of `retry`", 0, RETRIES_MAX)?);
        if let Some(node) = fields.get("on") {
            let names: Vec<&str> = FailureClass::ALL.iter().map(|class| class.as_str()).collect();
            let items = self.list(node).iter();
            retry.on = items
                .filter_map(|item| {
                    self.choice(item, "a class of failures", FailureClass::parse, &names)
                })
                .collect();
        }
        if let Some(found) = fields.get("backoff").and_then(|node| self.duration(node, "`backoff`"))
        {
            retry.backoff_ms = found;
            retry.backoff_ms_max = retry.backoff_ms_max.max(found);
        }
        if let Some(found) =
            fields.get("backoff_max").and_then(|node| self.duration(node, "`backoff_max`"))
        {
            retry.backoff_ms_max = found;
        }
        if let Some(found) = fields.get("jitter").and_then(|node| self.boolean(node, "`jitter`")) {
            retry.jitter = found;
        }
        Some(retry)
    }

    pub(crate) fn resources(&mut self, node: &Node) -> Resources {
        let mut resources = Resources::default();
        let keys = &["cpu", "memory", "disk", "gpus"];
        let Some(fields) = self.fields(node, "`resources`", keys) else { return resources };
        if let Some(node) = fields.get("cpu") {
            // Thousandths: `0.5` is half a processor.
            let found = match &node.kind {
                Kind::Scalar(scalar) => scalar.float().or(scalar.integer().map(|n| n as f64)),
                _ => None,
            };
            match found.filter(|n| (0.001..=4096.0).contains(n)) {
                Some(n) => resources.cpu_millis = Some((n * 1000.0).round() as u64),
                None => self.wrong(node, "`cpu`", "a number between 0.001 and 4096"),
            }
        }
        resources.memory_bytes = fields.get("memory").and_then(|node| self.bytes(node, "`memory`"));
        resources.disk_bytes = fields.get("disk").and_then(|node| self.bytes(node, "`disk`"));
        resources.gpus = fields.get("gpus").and_then(|node| self.integer(node, "`gpus`", 0, 1024));
        resources
    }

    pub(crate) fn approval(&mut self, node: &Node) -> Option<Approval> {
        let mut approval = Approval {
            count: 1,
            roles: Vec::new(),
            expires_ms: APPROVAL_EXPIRES_MS_DEFAULT,
            span: node.span,
        };
        if let Kind::Scalar(scalar) = &node.kind {
            // `approval: true` asks for one person, `approval: 2` for two.
            return match scalar.boolean() {
                Some(wanted) => wanted.then_some(approval),
                None => {
                    let count = self.integer(node, "`approval`", 1, APPROVALS_MAX)?;
                    approval.count = u32::try_from(count).unwrap_or(u32::MAX);
                    Some(approval)
                }
            };
        }
        let fields = self.fields(node, "`approval`", &["count", "roles", "expires"])?;
        if let Some(node) = fields.get("count") {
            let count = self.integer(node, "`count`", 1, APPROVALS_MAX)?;
            approval.count = u32::try_from(count).unwrap_or(u32::MAX);
        }
        approval.roles =
            fields.get("roles").map(|node| self.texts(node, "a role")).unwrap_or_default();
        if let Some(found) = fields.get("expires").and_then(|node| self.duration(node, "`expires`"))
        {
            approval.expires_ms = found;
        }
        Some(approval)
    }

    /// Outputs that a step declares: `name: $.path`, or a mapping of type and path.
    pub(crate) fn declared_outputs(&mut self, node: &Node) -> Vec<Output> {
        let entries = self.mapping(node, "`outputs`").unwrap_or_default();
        entries.iter().filter_map(|(name, node)| self.declared_output(name, node)).collect()
    }

    fn declared_output(&mut self, name: &Spanned<String>, node: &Node) -> Option<Output> {
        self.name(name, "an output").then_some(())?;
        let what = format!("output `{}`", name.value);
        let (path, kind) = match &node.kind {
            Kind::Scalar(_) => (node, Type::Any),
            _ => {
                let fields = self.fields(node, &what, &["path", "type"])?;
                let Some(path) = fields.get("path") else {
                    self.missing(&fields, &what, "path").hint("such as `path: $.image.digest`");
                    return None;
                };
                let kind = match fields.get("type") {
                    Some(node) => self.choice(
                        node,
                        &format!("the type of {what}"),
                        output_type,
                        OUTPUT_TYPES,
                    )?,
                    None => Type::Any,
                };
                (path, kind)
            }
        };
        let text = self.text(path, &format!("the path of {what}"))?;
        let Some(path) = json_path(&text.value) else {
            let message = format!("`{}` is no path into a result", text.value.escape_debug());
            self.error(Code::PipelineType, text.span, message)
                .hint("a path is `$`, then fields and numbers: `$.images[0].digest`");
            return None;
        };
        Some(Output { name: name.clone(), kind, path })
    }
}

/// Types of outputs.
pub(crate) const OUTPUT_TYPES: &[&str] = &["string", "int", "number", "bool", "list", "map", "any"];

fn output_type(text: &str) -> Option<Type> {
    Some(match text {
        "string" => Type::String,
        "int" => Type::Int,
        "number" => Type::Number,
        "bool" => Type::Bool,
        "list" => Type::list(Type::Any),
        "map" => Type::map(Type::Any),
        "any" => Type::Any,
        _ => return None,
    })
}

fn is_secret_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_/.".contains(&b);
    (1..=200).contains(&text.len()) && text.bytes().all(known)
}

/// The parts of a path such as `$.a.b[0]`.
fn json_path(text: &str) -> Option<Vec<PathSegment>> {
    let mut rest = text.strip_prefix('$')?;
    let mut path = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at_checked(end)?;
            path.push(PathSegment::Field((!name.is_empty()).then(|| name.to_owned())?));
            rest = after;
        } else {
            let (number, after) = rest.strip_prefix('[')?.split_once(']')?;
            path.push(PathSegment::Index(number.parse().ok()?));
            rest = after;
        }
    }
    Some(path)
}
