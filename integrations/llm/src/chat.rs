//! The chat API's messages: the body that is sent, and chunks folded into one answer.
//!
//! No IO here. Unknown fields of the far side are skipped; missing ones that an honest record
//! needs (why it ended, how many tokens) are errors.

use maestro_core::limits;
use maestro_executor::records::Question;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{LlmError, excerpt};

/// How a schema is handed to the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaStyle {
    /// `response_format` of type `json_schema`, as OpenAI defines it.
    JsonSchema,
    /// Type `json_object` with the schema beside it, as older servers want it.
    JsonObject,
}

/// What an endpoint may add to a message when it counts tokens, in tokens.
const MESSAGE_TOKENS: u64 = 32;

/// A bound of the tokens of a prompt, by the bytes of its messages: no tokenizer makes more tokens
/// of a text than it has bytes. A schema may be sent along as a part of the prompt.
pub fn prompt_tokens_max(messages: impl Iterator<Item = usize>, schema: Option<&Value>) -> u64 {
    let schema = schema.map_or(0, |schema| schema.to_string().len());
    let tokens = |bytes: usize| MESSAGE_TOKENS.saturating_add(bytes as u64);
    messages.map(tokens).fold(schema as u64, u64::saturating_add)
}

/// The body of `POST /chat/completions`.
pub fn body(question: &Question, style: SchemaStyle) -> Value {
    let request = &question.request;
    let messages = question.messages().into_iter();
    let messages: Value =
        messages.map(|(role, content)| json!({"role": role.name(), "content": content})).collect();
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), messages);
    body.insert("stream".into(), json!(true));
    body.insert("stream_options".into(), json!({"include_usage": true}));
    body.insert("max_tokens".into(), json!(request.sampling.max_tokens));
    let mut optional = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    optional("seed", request.sampling.seed.map(Value::from));
    optional("temperature", request.sampling.temperature.clone().map(Value::Number));
    optional("top_p", request.sampling.top_p.clone().map(Value::Number));
    optional(
        "response_format",
        request.schema.as_ref().map(|schema| match style {
            SchemaStyle::JsonSchema => json!({
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema},
            }),
            SchemaStyle::JsonObject => json!({"type": "json_object", "schema": schema}),
        }),
    );
    Value::Object(body)
}

/// One chunk of a stream, or a whole completion: both have these fields.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default, alias = "message")]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

/// What the far side counted.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Dollars, where a gateway tells.
    #[serde(default)]
    pub cost: Option<f64>,
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Its text.
    pub text: String,
    /// The model's name as the far side writes it.
    pub model: Option<String>,
    /// What was counted.
    pub usage: Usage,
}

/// Folds chunks into an answer.
#[derive(Debug)]
pub struct Fold {
    endpoint: String,
    asked: String,
    max_tokens: u64,
    text: String,
    refusal: String,
    model: Option<String>,
    finish: Option<String>,
    usage: Option<Usage>,
    done: bool,
}

impl Fold {
    /// A fold that has seen nothing.
    pub fn new(endpoint: &str, question: &Question) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            asked: question.request.model.clone(),
            max_tokens: question.request.sampling.max_tokens,
            text: String::new(),
            refusal: String::new(),
            model: None,
            finish: None,
            usage: None,
            done: false,
        }
    }

    /// Whether the far side said that nothing follows.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes the data of one event, or a whole completion.
    pub fn push(&mut self, data: &[u8]) -> Result<(), LlmError> {
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|e| {
            let text = excerpt(&String::from_utf8_lossy(data));
            self.protocol(format!("{e} in `{text}`"))
        })?;
        if let Some(error) = chunk.error.filter(|e| !e.is_null()) {
            let message = excerpt(&message_of(&error));
            return Err(LlmError::MidStream { endpoint: self.endpoint.clone(), message });
        }
        if chunk.model.as_ref().is_some_and(|m| !m.is_empty()) {
            self.model = chunk.model;
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        for choice in chunk.choices {
            if choice.index != 0 {
                return Err(self.protocol("it gave several choices".to_owned()));
            }
            if let Some(delta) = choice.delta {
                self.text.push_str(delta.content.as_deref().unwrap_or_default());
                self.refusal.push_str(delta.refusal.as_deref().unwrap_or_default());
            }
            if choice.finish_reason.is_some() {
                self.finish = choice.finish_reason;
            }
        }
        let limit = limits::LLM_ANSWER_BYTES_MAX;
        if self.text.len() > limit || self.refusal.len() > limit {
            return Err(LlmError::TooLong { model: self.asked.clone(), limit });
        }
        Ok(())
    }

    /// The answer, if it is one that may be recorded.
    pub fn finish(self) -> Result<Completion, LlmError> {
        let model = self.asked.clone();
        if !self.refusal.is_empty() {
            return Err(LlmError::Filtered { model, why: excerpt(&self.refusal) });
        }
        match self.finish.as_deref() {
            Some("stop" | "eos") => {}
            Some("length") => {
                let tokens = self.usage.map_or(self.max_tokens, |u| u.completion_tokens);
                return Err(LlmError::Truncated { model, tokens, max: self.max_tokens });
            }
            Some(why @ "content_filter") => {
                return Err(LlmError::Filtered { model, why: why.to_owned() });
            }
            Some(other) => {
                return Err(self.protocol(format!("the answer ended with `{}`", excerpt(other))));
            }
            None => {
                let why = "the stream ended before the answer did".to_owned();
                return Err(LlmError::Transport { endpoint: self.endpoint, why });
            }
        }
        if self.text.trim().is_empty() {
            return Err(LlmError::Empty { model });
        }
        let Some(usage) = self.usage else {
            return Err(self.protocol("it does not count tokens (`usage` is missing)".to_owned()));
        };
        Ok(Completion { text: self.text, model: self.model, usage })
    }

    fn protocol(&self, why: String) -> LlmError {
        LlmError::Protocol { endpoint: self.endpoint.clone(), why }
    }
}

/// The text of an error object, whatever its shape.
pub(crate) fn message_of(error: &Value) -> String {
    let text = error.get("message").unwrap_or(error);
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}
