//! From the inputs of a step to the question that it asks.

use std::collections::{BTreeMap, HashMap};

use maestro_core::run::{Failure, FailureClass};
use maestro_core::{Label, RelPath, limits};
use maestro_executor::records::Question;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::{Kind, user};
use crate::chat::prompt_tokens_max;

/// The inputs of a step, as a run hands them over.
#[derive(Debug, Deserialize)]
pub(super) struct Inputs {
    /// The step as a target: `//:TEMPLATE.STEP`.
    #[serde(rename = "$label")]
    pub(super) label: Label,
    /// The step with its item, as people see it.
    #[serde(rename = "$task")]
    pub(super) task: String,
    /// The run.
    #[serde(rename = "$run")]
    pub(super) run: String,
    model: String,
    prompt: String,
    system: Option<String>,
    #[serde(default)]
    context_from: Vec<Before>,
    #[serde(default)]
    pub(super) context_files: Vec<String>,
    schema: Option<Value>,
    temperature: Option<Number>,
    seed: Option<i64>,
    max_output_tokens: Option<u64>,
    budget_tokens: Option<u64>,
    #[serde(default)]
    fallbacks: Vec<String>,
    #[serde(default)]
    pub(super) output: String,
    #[serde(default)]
    criteria: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) require: bool,
}

/// A step that ran before.
#[derive(Debug, Deserialize)]
struct Before {
    step: String,
    #[serde(default)]
    outputs: Value,
}

impl Before {
    /// What it gave, as a prompt shows it: its text, if it has one.
    fn text(&self) -> String {
        match self.outputs.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => serde_json::to_string_pretty(&self.outputs).unwrap_or_default(),
        }
    }
}

impl Inputs {
    pub(super) fn read(kind: Kind, inputs: &Value) -> Result<Self, Failure> {
        // What is left out may be there as null.
        let given = inputs.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let given: Map<String, Value> =
            given.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut inputs: Self = serde_json::from_value(Value::Object(given))
            .map_err(|error| user(format!("the inputs of the step cannot be used: {error}")))?;
        if kind == Kind::Generate {
            RelPath::new(&inputs.output)
                .map_err(|error| user(format!("`output` is no path of a file: {error}")))?;
        }
        if kind == Kind::Review {
            inputs.schema = Some(verdict_schema(&inputs.criteria));
        }
        Ok(inputs)
    }

    /// Whether the answer is asked for as a value.
    pub(super) fn has_schema(&self) -> bool {
        self.schema.is_some()
    }

    /// The models in the order in which they are asked.
    pub(super) fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.model).chain(&self.fallbacks).map(String::as_str)
    }

    /// The question to one model, and the most tokens that its prompt and its answer have.
    pub(super) fn question(
        &self,
        kind: Kind,
        model: &str,
        files: Vec<(String, String)>,
        read_schema: impl Fn(&str) -> Result<Value, Failure>,
    ) -> Result<(Question, (u64, u64)), Failure> {
        let schema = match &self.schema {
            Some(Value::String(path)) => Some(read_schema(path)?),
            other => other.clone(),
        };
        let mut texts = HashMap::new();
        let mut parts = vec![json!({"text": self.prompt})];
        let before = self.context_from.iter();
        let before = before.map(|step| (format!("steps/{}", step.step), step.text()));
        let files = files.into_iter().map(|(path, text)| (format!("files/{path}"), text));
        for (path, text) in before.chain(files) {
            let name = path.split_once('/').map_or("", |(_, name)| name);
            parts.push(json!({"text": format!("\n\n## {name}\n\n")}));
            parts.push(json!({"context": path}));
            texts.insert(path, text);
        }
        if kind == Kind::Review && !self.criteria.is_empty() {
            let asked = self.criteria.iter().map(|(name, what)| format!("\n- {name}: {what}"));
            let asked: String = asked.collect();
            parts.push(json!({"text": format!("\n\nAnswer each of these criteria:{asked}")}));
        }
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": [{"text": system}]}));
        }
        messages.push(json!({"role": "user", "content": parts}));
        let bytes = messages.iter().map(|message| message_bytes(message, &texts));
        let prompt = prompt_tokens_max(bytes, schema.as_ref());
        let answer = self.answer_tokens_max(prompt)?;
        let mut sampling = json!({"max_tokens": answer});
        if let Some(temperature) = &self.temperature {
            sampling["temperature"] = Value::Number(temperature.clone());
        }
        if let Some(seed) = self.seed {
            sampling["seed"] = seed.into();
        }
        let request = json!({
            "model": model, "messages": messages, "schema": schema, "sampling": sampling,
            "step": self.task, "sample": 0,
        });
        let question = Question::asked(&request, texts, &self.output);
        Ok((question.map_err(|error| user(error.to_string()))?, (prompt, answer)))
    }

    /// The longest answer that the budget of the step leaves room for.
    fn answer_tokens_max(&self, prompt: u64) -> Result<u64, Failure> {
        let wanted = self.max_output_tokens.unwrap_or(limits::LLM_OUTPUT_TOKENS_DEFAULT);
        let Some(budget) = self.budget_tokens else { return Ok(wanted) };
        let left = budget.saturating_sub(prompt);
        match self.max_output_tokens {
            None if left > 0 => Ok(wanted.min(left)),
            Some(wanted) if wanted <= left => Ok(wanted),
            _ => Err(self.no_room(prompt, wanted, budget)),
        }
    }

    fn no_room(&self, prompt: u64, answer: u64, budget: u64) -> Failure {
        let message = format!(
            "`budget_tokens` leaves no room: the prompt may have {prompt} tokens and the answer \
             {answer}, and the budget is {budget}"
        );
        let hint = "raise `budget_tokens`, or ask with less context".to_owned();
        Failure { hints: vec![hint], ..Failure::new(FailureClass::Budget, message) }
    }
}

/// The bytes of a message with its context.
fn message_bytes(message: &Value, texts: &HashMap<String, String>) -> usize {
    let length = |part: &Value| match (part["text"].as_str(), part["context"].as_str()) {
        (Some(text), _) => text.len(),
        (None, path) => path.and_then(|path| texts.get(path)).map_or(0, String::len),
    };
    message["content"].as_array().into_iter().flatten().map(length).sum()
}

/// The form of a verdict: what is decided, why, and an answer to each criterion.
fn verdict_schema(criteria: &BTreeMap<String, String>) -> Value {
    let text = json!({"type": "string"});
    let answers: Map<String, Value> =
        criteria.keys().map(|name| (name.clone(), text.clone())).collect();
    let names: Vec<&String> = criteria.keys().collect();
    let closed = |properties: Value, required: Value| {
        json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        })
    };
    closed(
        json!({
            "verdict": {"type": "string", "enum": ["approve", "reject", "unsure"]},
            "reasons": text,
            "criteria": closed(Value::Object(answers), json!(names)),
        }),
        json!(["verdict", "reasons", "criteria"]),
    )
}
