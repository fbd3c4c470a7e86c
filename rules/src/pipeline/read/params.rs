//! Reads params.

use super::fields::{Fields, Reader};
use crate::error::Code;
use crate::pipeline::document::{Kind, Node};
use crate::pipeline::expression::{Pattern, Value};
use crate::pipeline::source::Spanned;
use crate::pipeline::template::{Param, ParamKind};

const KEYS: &[&str] = &["type", "default", "description", "enum", "pattern", "min", "max", "items"];
const TYPES: &[&str] = &["string", "int", "bool", "enum", "list", "secret"];

impl Reader<'_> {
    /// `params`.
    pub(crate) fn params(&mut self, node: &Node) -> Vec<Param> {
        let entries = self.mapping(node, "`params`").unwrap_or_default();
        entries.iter().filter_map(|(name, node)| self.param(name, node)).collect()
    }

    fn param(&mut self, name: &Spanned<String>, node: &Node) -> Option<Param> {
        self.name(name, "a param").then_some(())?;
        // `env: staging` is a param with a default; its type is that of the default.
        if matches!(node.kind, Kind::Scalar(_)) {
            return self.short_param(name, node);
        }
        let what = format!("param `{}`", name.value);
        let fields = self.fields(node, &what, KEYS)?;
        let kind = self.param_kind(node, &what)?;
        let default = match fields.get("default") {
            None => None,
            Some(node) => Some(self.default(&kind, node, &what)?),
        };
        let description =
            fields.get("description").and_then(|node| self.text(node, "a description"));
        let description = description.map(|text| text.value).unwrap_or_default();
        Some(Param { name: name.clone(), kind, default, description })
    }

    fn short_param(&mut self, name: &Spanned<String>, node: &Node) -> Option<Param> {
        let Kind::Scalar(scalar) = &node.kind else { return None };
        let value = self.literal(scalar, node.span)?;
        let kind = match &value {
            Value::Bool(_) => ParamKind::Bool,
            Value::Number(number) if number.is_i64() => {
                ParamKind::Int { min: i64::MIN, max: i64::MAX }
            }
            Value::String(text) if TYPES.contains(&text.as_str()) => {
                let message =
                    format!("param `{}` would have the text `{text}` as default", name.value);
                self.error(Code::PipelineType, node.span, message)
                    .fix(node.span, format!("{{ type: {text} }}"))
                    .hint(format!("a type is said by `{{ type: {text} }}`"));
                return None;
            }
            Value::String(_) => ParamKind::String { choices: Vec::new(), pattern: None },
            _ => {
                let message = format!("param `{}` needs a type", name.value);
                self.error(Code::PipelineMissing, name.span, message)
                    .hint(format!("such as `{}: {{ type: string }}`", name.value));
                return None;
            }
        };
        let default = Some(value);
        Some(Param { name: name.clone(), kind, default, description: String::new() })
    }

    fn param_kind(&mut self, node: &Node, what: &str) -> Option<ParamKind> {
        let fields = self.fields(node, what, KEYS)?;
        let choices: Vec<Spanned<String>> = match fields.get("enum") {
            Some(node) => self.texts(node, "a value of `enum`"),
            None => Vec::new(),
        };
        let kind = match fields.get("type") {
            None if !choices.is_empty() => "enum".to_owned(),
            None => {
                self.missing(&fields, what, "type")
                    .hint(format!("there is `{}`", TYPES.join("`, `")));
                return None;
            }
            Some(node) => self.choice(
                node,
                &format!("the type of {what}"),
                |text| TYPES.contains(&text).then(|| text.to_owned()),
                TYPES,
            )?,
        };
        self.misplaced(&fields, &kind);
        let bound = |reader: &mut Self, key: &str, other: i64| match fields.get(key) {
            None => Some(other),
            Some(node) => reader.signed(node, &format!("`{key}` of {what}")),
        };
        Some(match kind.as_str() {
            "string" | "enum" => {
                if kind == "enum" && choices.is_empty() {
                    self.missing(&fields, what, "enum").hint("such as `enum: [staging, prod]`");
                    return None;
                }
                let pattern = match fields.get("pattern") {
                    Some(node) => Some(self.pattern(node)?),
                    None => None,
                };
                let choices = choices.into_iter().map(|text| text.value).collect();
                ParamKind::String { choices, pattern }
            }
            "int" => ParamKind::Int {
                min: bound(self, "min", i64::MIN)?,
                max: bound(self, "max", i64::MAX)?,
            },
            "bool" => ParamKind::Bool,
            "list" => {
                let item = match fields.get("items") {
                    Some(node) if matches!(node.kind, Kind::Scalar(_)) => {
                        self.item_kind(node, what)?
                    }
                    Some(node) => self.param_kind(node, &format!("an item of {what}"))?,
                    None => ParamKind::String { choices: Vec::new(), pattern: None },
                };
                let length = |bound: i64| u64::try_from(bound).unwrap_or(0);
                let (min, max) = (bound(self, "min", 0)?, bound(self, "max", i64::MAX)?);
                ParamKind::List { item: Box::new(item), min: length(min), max: length(max) }
            }
            _ => ParamKind::Secret,
        })
    }

    /// Tells of keys that belong to params of other types.
    fn misplaced(&mut self, fields: &Fields<'_>, kind: &str) {
        let allowed: &[&str] = match kind {
            "string" => &["enum", "pattern"],
            "enum" => &["enum"],
            "int" => &["min", "max"],
            "list" => &["min", "max", "items"],
            _ => &[],
        };
        let general = ["type", "default", "description"];
        for (key, _) in fields.entries().filter(|(key, _)| KEYS.contains(&key.value.as_str())) {
            if !allowed.contains(&&*key.value) && !general.contains(&&*key.value) {
                let message = format!("`{}` means nothing for a param of type `{kind}`", key.value);
                self.error(Code::PipelineField, key.span, message);
            }
        }
    }

    fn item_kind(&mut self, node: &Node, what: &str) -> Option<ParamKind> {
        let what = format!("the type of an item of {what}");
        let parse = |text: &str| match text {
            "string" => Some(ParamKind::String { choices: Vec::new(), pattern: None }),
            "int" => Some(ParamKind::Int { min: i64::MIN, max: i64::MAX }),
            "bool" => Some(ParamKind::Bool),
            _ => None,
        };
        self.choice(node, &what, parse, &["string", "int", "bool"])
    }

    fn signed(&mut self, node: &Node, what: &str) -> Option<i64> {
        let found = match &node.kind {
            Kind::Scalar(scalar) => scalar.integer(),
            _ => None,
        };
        if found.is_none() {
            self.wrong(node, what, "an int");
        }
        found
    }

    pub(crate) fn pattern(&mut self, node: &Node) -> Option<Pattern> {
        let text = self.text(node, "`pattern`")?;
        match Pattern::whole(&text.value) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                let message = format!("this is no regular expression: {why}");
                self.error(Code::PipelineType, node.span, message);
                None
            }
        }
    }

    fn default(&mut self, kind: &ParamKind, node: &Node, what: &str) -> Option<Value> {
        if kind.value_type().holds_secret() {
            let message = format!("{what} is a secret, and a default would be for all to read");
            self.error(Code::PipelineSecret, node.span, message)
                .hint("leave it out; `--param NAME=SECRET` names a stored secret");
            return None;
        }
        let value = self.expr(node)?;
        let Some(value) = value.known() else {
            let message = format!("the default of {what} is the same in every run");
            self.error(Code::PipelineType, node.span, message);
            return None;
        };
        match kind.check(&value) {
            Ok(()) => Some(value),
            Err(why) => {
                let written = self.sources.text(node.span).to_owned();
                let message = format!("the default of {what} {why}");
                let draft = self.error(Code::PipelineType, node.span, message);
                if let (ParamKind::String { choices, .. }, Value::String(text)) = (kind, &value) {
                    draft.suggest(text, node.span, choices.iter().map(String::as_str));
                } else if matches!(kind, ParamKind::String { .. }) && !value.is_object() {
                    draft.fix(node.span, format!("\"{written}\"")).hint("put it into quotes");
                }
                None
            }
        }
    }
}
