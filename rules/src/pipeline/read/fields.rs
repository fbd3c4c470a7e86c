//! Takes values out of mappings: knows which keys there are, and says what is wrong with a value.

use std::fmt::Display;

use crate::error::Code;
use crate::pipeline::document::{Kind, Node, Scalar, Style, offsets};
use crate::pipeline::expression::{Expr, ExprKind, Place, Value, bare, interpolated};
use crate::pipeline::limits::{DURATION_MS_MAX, MONEY_MICROS_MAX, NAME_BYTES_MAX};
use crate::pipeline::mask::OPEN;
use crate::pipeline::report::{Draft, Report};
use crate::pipeline::source::{Sources, Span, Spanned};
use maestro_core::quantity;

/// A mapping whose keys are known.
pub(crate) struct Fields<'a> {
    entries: &'a [(Spanned<String>, Node)],
    /// What it belongs to: an error about something that is missing points here.
    pub(crate) span: Span,
}

impl<'a> Fields<'a> {
    /// The value of a key; one that is nothing counts as left out.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|(_, value)| value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<(&'a Spanned<String>, &'a Node)> {
        let found = self.entries.iter().find(|(name, _)| name.value == key);
        found.map(|(name, value)| (name, value)).filter(|(_, value)| !value.is_null())
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a Spanned<String>, &'a Node)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

/// Keys of other systems, and what they are called here; where there is no such key, advice.
const FOREIGN: &[(&str, Result<&str, &str>)] = &[
    ("when", Ok("if")),
    ("condition", Ok("if")),
    ("depends_on", Ok("needs")),
    ("dependencies", Ok("needs")),
    ("inputs", Ok("with")),
    ("for_each", Ok("foreach")),
    ("environment", Ok("env")),
    ("allow_failure", Ok("continue_on_error")),
    ("max_attempts", Ok("max")),
    ("backoff_max_ms", Ok("backoff_max")),
    ("triggers", Ok("on")),
    ("parameters", Ok("params")),
    (
        "run",
        Err("a command is `uses: genrule` where it makes files, `uses: run.command` where it acts"),
    ),
    (
        "script",
        Err("a command is `uses: genrule` where it makes files, `uses: run.command` where it acts"),
    ),
    ("image", Err("steps run in the sandbox; `uses: build.container` builds images")),
    ("jobs", Err("there is one list of `steps`; what does not depend on each other runs at once")),
    ("stages", Err("there is one list of `steps`; `needs` orders them")),
];

/// The bool that somebody meant by a text.
pub(crate) fn meant_boolean(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" | "true" => Some("true"),
        "no" | "off" | "n" | "false" => Some("false"),
        _ => None,
    }
}

/// Reads values of one file.
pub(crate) struct Reader<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) file: u16,
    pub(crate) report: &'a mut Report,
}

impl Reader<'_> {
    pub(crate) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Draft {
        self.report.error(code, span, message)
    }

    /// The mapping that a node is; other keys than these are errors.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> Option<Fields<'n>> {
        let entries = self.mapping(node, what)?;
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            self.unknown_key(key, what, known);
        }
        Some(Fields { entries, span: node.span })
    }

    /// A mapping whose keys are names that the file chooses.
    pub(crate) fn mapping<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
    ) -> Option<&'n [(Spanned<String>, Node)]> {
        match &node.kind {
            Kind::Mapping(entries) => Some(entries),
            _ => {
                self.wrong(node, what, "a mapping");
                None
            }
        }
    }

    fn unknown_key(&mut self, key: &Spanned<String>, what: &str, known: &[&str]) {
        let message = format!("{what} has no key `{}`", key.value);
        let draft = self.error(Code::PipelineField, key.span, message);
        match FOREIGN.iter().find(|(name, _)| *name == key.value).map(|(_, own)| own) {
            Some(Ok(own)) if known.contains(own) => {
                draft.fix(key.span, *own).hint(format!("it is called `{own}` here"));
            }
            Some(Err(advice)) => {
                draft.hint(*advice);
            }
            _ => {
                draft.suggest(&key.value, key.span, known.iter().copied());
            }
        }
    }

    /// Says that a value is not what it should be. A number, a bool or nothing in the place of a
    /// text is mended by quotes.
    pub(crate) fn wrong(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} is {expected}, not {}", node.describe());
        let written = self.sources.text(node.span).to_owned();
        let draft = self.report.error(Code::PipelineType, node.span, message);
        let plain = matches!(&node.kind, Kind::Scalar(s) if s.style == Style::Plain);
        if plain && !node.is_null() && expected == "a text" {
            draft.fix(node.span, format!("\"{written}\"")).hint("put it into quotes");
        }
    }

    pub(crate) fn missing(&mut self, fields: &Fields<'_>, what: &str, key: &str) -> &mut Draft {
        let message = format!("{what} needs `{key}`");
        self.error(Code::PipelineMissing, fields.span, message)
    }

    /// A text without expressions.
    pub(crate) fn text(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        match &node.kind {
            Kind::Scalar(scalar) if node.describe() == "a text" || scalar.style != Style::Plain => {
                if scalar.text.contains(OPEN) {
                    self.constant(node.span, what);
                    return None;
                }
                Some(Spanned::new(scalar.text.clone(), node.span))
            }
            _ => {
                self.wrong(node, what, "a text");
                None
            }
        }
    }

    fn constant(&mut self, span: Span, what: &str) {
        let message = format!("{what} is the same in every run, and cannot be an expression");
        self.error(Code::PipelineType, span, message);
    }

    /// A name of something that expressions can name.
    pub(crate) fn name(&mut self, text: &Spanned<String>, what: &str) -> bool {
        let mut bytes = text.value.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if first && rest && text.value.len() <= NAME_BYTES_MAX {
            return true;
        }
        let message = format!("`{}` is no name of {what}", text.value.escape_debug());
        self.error(Code::PipelineType, text.span, message).hint(format!(
            "a name begins with a letter and goes on with letters, digits, `-` and `_`, up to \
             {NAME_BYTES_MAX} of them"
        ));
        false
    }

    /// One of the names that a type has.
    pub(crate) fn choice<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: fn(&str) -> Option<T>,
        known: &[&str],
    ) -> Option<T> {
        let text = self.text(node, what)?;
        let found = parse(&text.value);
        if found.is_none() {
            let message = format!("{what} cannot be `{}`", text.value.escape_debug());
            let draft = self.error(Code::PipelineType, text.span, message);
            draft.suggest(&text.value, text.span, known.iter().copied());
        }
        found
    }

    /// A list, or one item in the place of a list of one.
    pub(crate) fn list<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.kind {
            Kind::Sequence(items) => items,
            _ => std::slice::from_ref(node),
        }
    }

    pub(crate) fn texts(&mut self, node: &Node, what: &str) -> Vec<Spanned<String>> {
        self.list(node).iter().filter_map(|item| self.text(item, what)).collect()
    }

    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let Kind::Scalar(scalar) = &node.kind else {
            self.wrong(node, what, "a bool");
            return None;
        };
        if let Some(found) = scalar.boolean() {
            return Some(found);
        }
        let span = node.span;
        let mend = meant_boolean(&scalar.text);
        let message = format!("{what} is a bool, not {}", node.describe());
        let draft = self.error(Code::PipelineType, span, message);
        if let Some(mend) = mend {
            draft.fix(span, mend).hint(format!("write `{mend}`"));
        }
        None
    }

    pub(crate) fn integer(&mut self, node: &Node, what: &str, low: u64, high: u64) -> Option<u64> {
        let found = match &node.kind {
            Kind::Scalar(scalar) => scalar.integer(),
            _ => None,
        };
        let Some(found) = found else {
            self.wrong(node, what, "an int");
            return None;
        };
        let fitting = u64::try_from(found).ok().filter(|n| (low..=high).contains(n));
        if fitting.is_none() {
            self.out_of_range(node.span, what, low, high);
        }
        fitting
    }

    fn out_of_range(&mut self, span: Span, what: &str, low: impl Display, high: impl Display) {
        let message = format!("{what} is between {low} and {high}");
        self.error(Code::PipelineType, span, message);
    }

    /// A time, in milliseconds.
    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<u64> {
        let scalar = self.scalar(node, what, "a time")?;
        match quantity::duration_ms(&scalar.text) {
            Some(found) if found <= DURATION_MS_MAX => Some(found),
            _ => {
                let message = format!("{what} is a time, and `{}` is none", scalar.text);
                self.error(Code::PipelineType, node.span, message).hint(
                    "such as `90s`, `15m`, `2h`, `7d`, or a number of seconds; up to ten years",
                );
                None
            }
        }
    }

    /// Money, in millionths of a dollar.
    pub(crate) fn money(&mut self, node: &Node, what: &str) -> Option<u64> {
        let scalar = self.scalar(node, what, "an amount of money")?;
        match quantity::usd_micros(&scalar.text) {
            Some(found) if found <= MONEY_MICROS_MAX => Some(found),
            _ => {
                let message =
                    format!("{what} is an amount of money, and `{}` is none", scalar.text);
                self.error(Code::PipelineType, node.span, message).hint(
                    "such as `5`, `0.25` or `5usd`: dollars, up to six digits behind the point",
                );
                None
            }
        }
    }

    /// A size, in bytes.
    pub(crate) fn bytes(&mut self, node: &Node, what: &str) -> Option<u64> {
        let scalar = self.scalar(node, what, "a size")?;
        let found = quantity::bytes(&scalar.text);
        if found.is_none() {
            let message = format!("{what} is a size, and `{}` is none", scalar.text);
            let hint = "such as `512MiB`, `2GiB`, or a number of bytes";
            self.error(Code::PipelineType, node.span, message).hint(hint);
        }
        found
    }

    fn scalar<'n>(&mut self, node: &'n Node, what: &str, expected: &str) -> Option<&'n Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text.contains(OPEN) => {
                self.constant(node.span, what);
                None
            }
            Kind::Scalar(scalar) => Some(scalar),
            _ => {
                self.wrong(node, what, expected);
                None
            }
        }
    }

    /// Any value, with the expressions in it.
    pub(crate) fn expr(&mut self, node: &Node) -> Option<Expr> {
        let kind = match &node.kind {
            Kind::Scalar(scalar) if scalar.text.contains(OPEN) => {
                return self.placed(scalar, node.span, interpolated);
            }
            Kind::Scalar(scalar) => ExprKind::Literal(self.literal(scalar, node.span)?),
            Kind::Sequence(items) => {
                let items: Vec<Option<Expr>> = items.iter().map(|item| self.expr(item)).collect();
                ExprKind::List(items.into_iter().collect::<Option<_>>()?)
            }
            Kind::Mapping(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| Some((key.clone(), self.expr(value)?)))
                    .collect();
                ExprKind::Map(entries.into_iter().collect::<Option<_>>()?)
            }
        };
        Some(Expr { kind, span: node.span })
    }

    /// A condition: an expression, with `${{ }}` around it or without.
    pub(crate) fn condition(&mut self, node: &Node, what: &str) -> Option<Expr> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.boolean().is_some() => self.expr(node),
            Kind::Scalar(scalar) => self.placed(scalar, node.span, bare),
            _ => {
                self.wrong(node, what, "a condition");
                None
            }
        }
    }

    fn placed(
        &mut self,
        scalar: &Scalar,
        span: Span,
        parse: fn(&str, &Place<'_>, &mut Report) -> Option<Expr>,
    ) -> Option<Expr> {
        let offsets = offsets(self.sources.text(span), &scalar.text, scalar.style);
        let place = Place { file: self.file, base: span.start as usize, offsets: &offsets };
        parse(&scalar.text, &place, self.report)
    }

    /// What a scalar without expressions stands for.
    pub(crate) fn literal(&mut self, scalar: &Scalar, span: Span) -> Option<Value> {
        if scalar.is_null() {
            return Some(Value::Null);
        }
        if let Some(found) = scalar.boolean() {
            return Some(found.into());
        }
        if let Some(found) = scalar.integer() {
            return Some(found.into());
        }
        if let Some(found) = scalar.float() {
            return Some(found.into());
        }
        let digits = scalar.text.bytes().all(|b| b.is_ascii_digit());
        if scalar.style == Style::Plain && digits && !scalar.text.is_empty() {
            let message = "a number is larger than 64 bits can hold";
            let written = format!("\"{}\"", scalar.text);
            self.error(Code::PipelineType, span, message)
                .fix(span, written)
                .hint("put it into quotes");
            return None;
        }
        Some(scalar.text.clone().into())
    }
}
