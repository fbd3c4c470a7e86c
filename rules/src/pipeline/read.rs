//! From a document to a [`Template`]: keys, types and names. All errors of a file are told.

mod fields;
mod include;
mod params;
mod settings;
mod step;

pub(crate) use fields::{Reader, meant_boolean};
pub use include::Includes;
pub(crate) use include::Loader;
pub(crate) use settings::OUTPUT_TYPES;
pub(crate) use step::STEP_KEYS;

use self::fields::Fields;
use self::include::Include;
use super::document::{Kind, Node};
use super::limits::STEPS_MAX;
use super::source::{Span, Spanned};
use super::template::{Besides, Budget, Event, Step, Template, Trigger};
use crate::error::Code;

/// Keys of a template.
pub(crate) const TEMPLATE_KEYS: &[&str] = &[
    "name",
    "description",
    "on",
    "params",
    "env",
    "budget",
    "concurrency",
    "timeout",
    "steps",
    "on_failure",
    "on_cancel",
    "outputs",
];

/// A template whose includes are not there yet.
pub(crate) struct Raw {
    /// All of it but steps.
    pub(crate) template: Template,
    pub(crate) steps: Vec<RawStep>,
}

/// A step, or steps of another file.
pub(crate) enum RawStep {
    Step(Box<Step>),
    Include(Include),
}

impl RawStep {
    pub(crate) fn id(&self) -> &Spanned<String> {
        match self {
            Self::Step(step) => &step.id,
            Self::Include(include) => &include.id,
        }
    }
}

/// The keys of a trigger that is a mapping.
const TRIGGER_KEYS: &[&str] = &["branches", "tags", "paths", "cron"];

impl Reader<'_> {
    /// Reads a whole file.
    pub(crate) fn template(&mut self, root: Option<&Node>) -> Option<Raw> {
        let empty = Span::new(self.file, 0, 0);
        let Some(root) = root.filter(|root| !root.is_null()) else {
            self.error(Code::PipelineMissing, empty, "the file is empty")
                .hint("a pipeline has `name` and `steps`; `maestro template new` begins one");
            return None;
        };
        let fields = self.fields(root, "a pipeline", TEMPLATE_KEYS)?;
        let name = match fields.get("name") {
            Some(node) => self.text(node, "`name`"),
            None => {
                let at = Span { end: root.span.start, ..root.span };
                self.error(Code::PipelineMissing, at, "a pipeline needs `name`")
                    .hint("such as `name: release`");
                None
            }
        };
        if let Some(name) = &name {
            self.name(name, "a pipeline");
        }
        let description =
            fields.get("description").and_then(|node| self.text(node, "a description"));
        let triggers = fields.get("on").map(|node| self.triggers(node)).unwrap_or_default();
        let params = fields.get("params").map(|node| self.params(node)).unwrap_or_default();
        let env = fields.get("env").map(|node| self.env(node)).unwrap_or_default();
        let budget = fields.get("budget").map(|node| self.budget(node));
        let concurrency = fields.get("concurrency").and_then(|node| self.concurrency(node));
        let timeout_ms = fields.get("timeout").and_then(|node| self.duration(node, "`timeout`"));
        let steps = self.top_steps(&fields);
        let on_failure = self.handlers(&fields, "on_failure");
        let on_cancel = self.handlers(&fields, "on_cancel");
        let outputs = fields.get("outputs").map(|node| self.pairs(node, "`outputs`"));
        let template = Template {
            name: name.unwrap_or(Spanned::new(String::new(), empty)),
            description: description.map(|text| text.value).unwrap_or_default(),
            triggers,
            params,
            env,
            budget: budget.unwrap_or(Budget::default()),
            concurrency,
            timeout_ms,
            steps: Vec::new(),
            includes: Vec::new(),
            given: Vec::new(),
            besides: Besides::default(),
            on_failure,
            on_cancel,
            outputs: outputs.unwrap_or_default(),
        };
        Some(Raw { template, steps })
    }

    fn top_steps(&mut self, fields: &Fields<'_>) -> Vec<RawStep> {
        let Some((key, node)) = fields.entry("steps") else {
            let at = Span { end: fields.span.start, ..fields.span };
            self.error(Code::PipelineMissing, at, "a pipeline needs `steps`")
                .hint("a list; each step has `id` and `uses`");
            return Vec::new();
        };
        let Kind::Sequence(items) = &node.kind else {
            self.wrong(node, "`steps`", "a list");
            return Vec::new();
        };
        if items.is_empty() {
            self.error(Code::PipelineMissing, key.span, "a pipeline needs a step at least");
        }
        if items.len() > STEPS_MAX {
            let message = format!("a pipeline has up to {STEPS_MAX} steps, not {}", items.len());
            self.error(Code::PipelineLimit, key.span, message)
                .hint("steps that differ in a value only are one, with `foreach`");
            return Vec::new();
        }
        let mut steps = Vec::with_capacity(items.len());
        for item in items {
            if self.report.is_full() {
                break;
            }
            steps.extend(self.step_or_include(item));
        }
        steps
    }

    fn triggers(&mut self, node: &Node) -> Vec<Trigger> {
        match &node.kind {
            Kind::Mapping(entries) => {
                entries.iter().filter_map(|(event, node)| self.filtered(event, node)).collect()
            }
            _ => {
                let items = self.list(node);
                items.iter().filter_map(|item| self.plain_trigger(item)).collect()
            }
        }
    }

    fn plain_trigger(&mut self, node: &Node) -> Option<Trigger> {
        let text = self.text(node, "a trigger")?;
        let event = self.event(&text)?;
        if event == Event::Schedule {
            self.error(Code::PipelineMissing, node.span, "`schedule` needs `cron`")
                .hint("write `on: { schedule: { cron: \"0 3 * * *\" } }`");
        }
        Some(Trigger {
            event,
            span: node.span,
            branches: Vec::new(),
            tags: Vec::new(),
            paths: Vec::new(),
            cron: None,
        })
    }

    fn event(&mut self, text: &Spanned<String>) -> Option<Event> {
        let found = Event::parse(&text.value);
        if found.is_none() {
            let message = format!("there is no event `{}`", text.value.escape_debug());
            let draft = self.error(Code::PipelineReference, text.span, message);
            match Event::foreign(&text.value).map(Event::as_str) {
                None => {
                    draft.suggest(&text.value, text.span, Event::ALL.iter().map(|e| e.as_str()))
                }
                Some(own) => draft.fix(text.span, own).hint(format!("it is called `{own}` here")),
            };
        }
        found
    }

    fn filtered(&mut self, event: &Spanned<String>, node: &Node) -> Option<Trigger> {
        let found = self.event(event)?;
        let what = format!("trigger `{}`", event.value);
        let mut trigger = Trigger {
            event: found,
            span: event.span,
            branches: Vec::new(),
            tags: Vec::new(),
            paths: Vec::new(),
            cron: None,
        };
        if !node.is_null() {
            let fields = self.fields(node, &what, TRIGGER_KEYS)?;
            let mut globs = |key: &str| match fields.get(key) {
                Some(node) => self.globs(node, &format!("`{key}` of {what}")),
                None => Vec::new(),
            };
            trigger.branches = globs("branches");
            trigger.tags = globs("tags");
            trigger.paths = globs("paths");
            trigger.cron = fields.get("cron").and_then(|node| self.cron(node));
        }
        if found == Event::Schedule && trigger.cron.is_none() {
            self.error(Code::PipelineMissing, event.span, "`schedule` needs `cron`")
                .hint("such as `cron: \"0 3 * * *\"`, every night at three, UTC");
        }
        Some(trigger)
    }

    fn globs(&mut self, node: &Node, what: &str) -> Vec<String> {
        let mut out = Vec::new();
        for text in self.texts(node, what) {
            match globset::Glob::new(&text.value) {
                Ok(_) => out.push(text.value),
                Err(error) => {
                    let message = format!("{what} has no glob `{}`: {}", text.value, error.kind());
                    self.error(Code::PipelineType, text.span, message);
                }
            }
        }
        out
    }

    fn cron(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "`cron`")?;
        let fields: Vec<&str> = text.value.split_whitespace().collect();
        let known =
            |field: &&str| field.bytes().all(|b| b.is_ascii_alphanumeric() || b"*,-/".contains(&b));
        if fields.len() != 5 || !fields.iter().all(known) {
            self.error(Code::PipelineType, node.span, "`cron` has five fields")
                .hint("minute, hour, day of month, month, day of week: `0 3 * * 1-5`");
            return None;
        }
        Some(text.value)
    }
}
