//! What runs are given: checks values against params.

use super::expression::{Type, Value};
use super::template::{ParamKind, Template};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError, did_you_mean};

impl ParamKind {
    /// Whether a value is allowed; else what is wrong with it, to stand behind its name.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::String { choices, pattern }, Value::String(text)) => {
                if !choices.is_empty() && !choices.contains(text) {
                    return Err(format!("is one of `{}`, not `{text}`", choices.join("`, `")));
                }
                match pattern {
                    Some(pattern) if !pattern.is_match(text) => {
                        Err(format!("does not fit `{}`", pattern.as_str()))
                    }
                    _ => Ok(()),
                }
            }
            (Self::Int { min, max }, Value::Number(number)) if number.is_i64() => {
                let inside = number.as_i64().is_some_and(|n| (*min..=*max).contains(&n));
                let range = format!("is between {min} and {max}, not {number}");
                if inside { Ok(()) } else { Err(range) }
            }
            (Self::Bool, Value::Bool(_)) | (Self::Secret, Value::String(_)) => Ok(()),
            (Self::List { item, .. }, Value::Array(items)) => {
                self.check_count(items.len())?;
                items.iter().enumerate().try_for_each(|(at, value)| {
                    item.check(value).map_err(|why| format!("has an item {at} that {why}"))
                })
            }
            (_, other) => Err(format!("is {}, not {}", self.describe(), Type::of(other))),
        }
    }

    /// Whether a list may have so many items.
    pub(crate) fn check_count(&self, count: usize) -> Result<(), String> {
        match self {
            Self::List { min, max, .. } if !(*min..=*max).contains(&(count as u64)) => {
                let most = match *max > i64::MAX as u64 - 1 {
                    true => "any number".to_owned(),
                    false => max.to_string(),
                };
                Err(format!("has from {min} to {most} items, not {count}"))
            }
            _ => Ok(()),
        }
    }

    /// A value that was given as text, such as `env=prod`. Items of a list stand between commas,
    /// or in JSON.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::String { .. } | Self::Secret => Value::String(text.to_owned()),
            Self::Int { .. } => match text.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => return Err(format!("is an int, not `{text}`")),
            },
            Self::Bool => match text {
                "true" => true.into(),
                "false" => false.into(),
                _ => return Err(format!("is `true` or `false`, not `{text}`")),
            },
            Self::List { .. } if text.starts_with('[') => {
                serde_json::from_str(text).map_err(|error| format!("is no JSON list: {error}"))?
            }
            Self::List { .. } if text.is_empty() => Value::Array(Vec::new()),
            Self::List { item, .. } => {
                let items = text.split(',').map(|part| item.parse(part.trim()));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
        };
        self.check(&value).map(|()| value)
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::String { .. } => "a text",
            Self::Int { .. } => "an int",
            Self::Bool => "a bool",
            Self::List { .. } => "a list",
            Self::Secret => "the name of a secret",
        }
    }

    pub(crate) fn value_type(&self) -> Type {
        match self {
            Self::String { choices, .. } if !choices.is_empty() => {
                Type::choice(choices.iter().map(String::as_str))
            }
            Self::String { .. } => Type::String,
            Self::Int { .. } => Type::Int,
            Self::Bool => Type::Bool,
            Self::List { item, .. } => Type::list(item.value_type()),
            Self::Secret => Type::Secret,
        }
    }
}

/// A value for a param, as a run is given it.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// From the command line.
    Text(String),
    /// From a file, or from the API.
    Value(Value),
}

impl Template {
    /// The values of all params, with defaults where nothing was given; all errors at once.
    ///
    /// Where a name stands twice the last one counts.
    pub fn bind(&self, given: &[(String, Given)]) -> Result<Value, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut refuse = |message: String, hint: Option<String>| {
            let error = RuleError::new(Code::PipelineParam, message).hint_opt(hint);
            errors.push(Diagnostic::of(error, None));
        };
        let known = || self.params.iter().map(|param| param.name.value.as_str());
        for (name, _) in given.iter().filter(|(name, _)| !known().any(|own| own == name)) {
            let hint =
                did_you_mean(name, known()).unwrap_or_else(|| match self.params.is_empty() {
                    true => "it has no params".to_owned(),
                    false => format!("there is `{}`", known().collect::<Vec<_>>().join("`, `")),
                });
            refuse(format!("pipeline `{}` has no param `{name}`", self.name.value), Some(hint));
        }
        let mut values = serde_json::Map::new();
        for param in &self.params {
            let name = &param.name.value;
            let found = match given.iter().rev().find(|(own, _)| own == name) {
                Some((_, Given::Text(text))) => param.kind.parse(text),
                Some((_, Given::Value(value))) => param.kind.check(value).map(|()| value.clone()),
                None => match &param.default {
                    Some(default) => Ok(default.clone()),
                    None => {
                        let hint = format!("give it with `--param {name}=…`");
                        refuse(format!("param `{name}` has no value"), Some(hint));
                        continue;
                    }
                },
            };
            match found {
                Ok(value) => {
                    values.insert(name.clone(), value);
                }
                Err(why) => refuse(format!("param `{name}` {why}"), None),
            }
        }
        if errors.is_empty() { Ok(Value::Object(values)) } else { Err(errors) }
    }
}
