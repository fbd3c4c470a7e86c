//! From a recorded action to the question it asks: the request read, its context hashed, its key.
//!
//! The key is the one of [`maestro_core::record`]; this module only makes what is hashed.
//! It never sees the answer, nor who gives it.

use std::collections::HashMap;

use maestro_cas::{Store, StoreError};
use maestro_core::key::NATIVE_INPUTS;
use maestro_core::record::{RecordError, RecordRequest};
use maestro_core::{ActionClass, ActionSpec, Digest, How, Node, Prepared, limits};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::lock::{ContextFile, RecordKey, Sha256};

/// The kind of native action that asks a model.
pub const LLM_KIND: &str = "llm";
/// The semantics of [`LLM_KIND`] that this Maestro implements.
pub const LLM_SEMANTICS: u32 = 1;

/// The request of an action of kind `llm`: a closed object, see `docs/design/lock.md`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmRequest {
    /// The model's name as asked for.
    pub model: String,
    /// The conversation, in order.
    pub messages: Vec<Message>,
    /// The JSON Schema that the answer must fit; `None` for an answer in plain text.
    #[serde(default)]
    pub schema: Option<Value>,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// The step's path in the lock; not in the key.
    pub step: String,
    /// Tells apart several answers to one request.
    #[serde(default)]
    pub sample: u32,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; the parts are joined without anything between them.
    pub content: Vec<Part>,
}

/// Who speaks a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The frame of the conversation.
    System,
    /// The one who asks.
    User,
    /// The model, in examples.
    Assistant,
}

impl Role {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Text of the build file.
    Text(String),
    /// The execution path of an input file whose text is spliced in.
    Context(String),
}

/// How an answer is drawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Most tokens of the answer; also what its cost is bounded by.
    pub max_tokens: u64,
    /// The seed of the sampler.
    #[serde(default)]
    pub seed: Option<i64>,
    /// The temperature, 0 or more; kept as it was written, since that is what is keyed.
    #[serde(default)]
    pub temperature: Option<Number>,
    /// Nucleus sampling, from 0 to 1.
    #[serde(default)]
    pub top_p: Option<Number>,
}

/// What a recorded action asks.
#[derive(Clone, Debug)]
pub struct Question {
    /// The request, read.
    pub request: LlmRequest,
    /// The kind of the action.
    pub kind: String,
    /// The semantics of the action.
    pub semantics: u32,
    /// The context files in the order of the request, each once.
    pub context: Vec<ContextFile>,
    /// The output's execution path.
    pub output: String,
    texts: HashMap<String, String>,
    keyed: Value,
}

/// Why a recorded action asks nothing.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The rule made a request that the kind does not define.
    #[error("the request of a recorded `{kind}` action is malformed: {why}")]
    Malformed {
        /// The kind.
        kind: String,
        /// What is wrong.
        why: String,
    },
    /// A kind or semantics that this Maestro does not know.
    #[error("no recorded action of kind `{kind}` with semantics {semantics} is known")]
    Unknown {
        /// The kind.
        kind: String,
        /// The semantics.
        semantics: u32,
    },
    /// A context file is not text.
    #[error("the context file `{path}` is not UTF-8 text")]
    NotText {
        /// Its execution path.
        path: String,
    },
    /// The prompt with its context is too long.
    #[error("the prompt with its context has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
    /// Context files are no longer in the store; their producers must run again.
    #[error("{} context files are no longer in the store", .0.len())]
    Lost(Vec<Digest>),
    /// The store failed.
    #[error("cannot read the context file `{path}`")]
    Store {
        /// Its execution path.
        path: String,
        /// The store's reason.
        #[source]
        source: StoreError,
    },
    /// The request has no canonical form.
    #[error(transparent)]
    Canonical(#[from] RecordError),
}

impl Question {
    /// Reads what a recorded action asks. Its inputs must be in the store.
    pub fn of(
        spec: &ActionSpec,
        prepared: &Prepared,
        store: &Store,
    ) -> Result<Self, QuestionError> {
        let How::Native { kind, semantics, request } = &spec.how else {
            let why = "it runs a command".to_owned();
            return Err(QuestionError::Malformed { kind: "command".to_owned(), why });
        };
        if kind != LLM_KIND || *semantics != LLM_SEMANTICS {
            return Err(QuestionError::Unknown { kind: kind.clone(), semantics: *semantics });
        }
        let malformed = |why: String| QuestionError::Malformed { kind: kind.clone(), why };
        if spec.class != ActionClass::Recorded {
            return Err(malformed(format!("its class is `{}`", spec.class.name())));
        }
        let [output] = prepared.parts.outputs.as_slice() else {
            let count = prepared.parts.outputs.len();
            return Err(malformed(format!("it declares {count} outputs instead of one")));
        };
        let llm = LlmRequest::deserialize(request).map_err(|e| malformed(e.to_string()))?;
        llm.check().map_err(malformed)?;
        let (context, texts) = read_context(&llm, kind, prepared, store)?;
        let keyed = keyed_request(request, &context);
        Ok(Self {
            request: llm,
            kind: kind.clone(),
            semantics: *semantics,
            context,
            output: output.clone(),
            texts,
            keyed,
        })
    }

    /// What a step of a run asks, with its context in memory: texts by the paths that the request
    /// gives them.
    pub fn asked(
        request: &Value,
        texts: HashMap<String, String>,
        output: &str,
    ) -> Result<Self, QuestionError> {
        let malformed = |why: String| QuestionError::Malformed { kind: LLM_KIND.to_owned(), why };
        let llm = LlmRequest::deserialize(request).map_err(|e| malformed(e.to_string()))?;
        llm.check().map_err(malformed)?;
        let mut context = Vec::new();
        let mut bytes = llm.own_bytes();
        for path in llm.context_paths() {
            let missing = || malformed(format!("there is no context `{path}`"));
            let text = texts.get(path).ok_or_else(missing)?;
            bytes += text.len() as u64;
            let sha256 = Sha256::of(text.as_bytes());
            context.push(ContextFile { path: path.to_owned(), sha256 });
        }
        prompt_fits(bytes)?;
        let keyed = keyed_request(request, &context);
        Ok(Self {
            request: llm,
            kind: LLM_KIND.to_owned(),
            semantics: LLM_SEMANTICS,
            context,
            output: output.to_owned(),
            texts,
            keyed,
        })
    }

    /// What is hashed into the record key of a model with this identity.
    pub fn record_request(&self, identity: &str) -> RecordRequest {
        let mut request = self.keyed.clone();
        if let Value::Object(fields) = &mut request {
            fields.insert("identity".to_owned(), Value::String(identity.to_owned()));
        }
        RecordRequest {
            kind: self.kind.clone(),
            semantics: self.semantics,
            request,
            sample: self.request.sample,
        }
    }

    /// The record key for a model with this identity.
    pub fn key(&self, identity: &str) -> Result<RecordKey, QuestionError> {
        Ok(RecordKey(Sha256::from(self.record_request(identity).key()?)))
    }

    /// The messages as the far side sees them: (role, text).
    pub fn messages(&self) -> Vec<(Role, String)> {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Context(path) => self.texts.get(path).cloned().unwrap_or_default(),
        };
        let messages = self.request.messages.iter();
        messages.map(|m| (m.role, m.content.iter().map(text).collect())).collect()
    }
}

impl LlmRequest {
    fn check(&self) -> Result<(), String> {
        let Self { model, messages, schema, sampling, step, sample: _ } = self;
        if model.is_empty() {
            return Err("`model` is empty".to_owned());
        }
        if step.is_empty() || step.chars().any(char::is_control) {
            return Err("`step` is empty or has a control character".to_owned());
        }
        if messages.is_empty() || messages.iter().any(|m| m.content.is_empty()) {
            return Err("`messages` or the `content` of one is empty".to_owned());
        }
        if schema.as_ref().is_some_and(|s| !s.is_object()) {
            return Err("`schema` is neither an object nor null".to_owned());
        }
        if sampling.max_tokens == 0 {
            return Err("`sampling.max_tokens` is 0".to_owned());
        }
        let within = |number: &Option<Number>, most: f64| {
            number.as_ref().and_then(Number::as_f64).is_none_or(|n| (0.0..=most).contains(&n))
        };
        if !within(&sampling.temperature, f64::MAX) || !within(&sampling.top_p, 1.0) {
            return Err("`sampling.temperature` or `sampling.top_p` is out of range".to_owned());
        }
        Ok(())
    }

    /// The length of what the build file itself says.
    fn own_bytes(&self) -> u64 {
        let parts = self.messages.iter().flat_map(|m| &m.content);
        let length = |part: &Part| match part {
            Part::Text(text) => text.len() as u64,
            Part::Context(_) => 0,
        };
        parts.map(length).sum()
    }

    /// The context paths in order, each once.
    fn context_paths(&self) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::new();
        for part in self.messages.iter().flat_map(|m| &m.content) {
            if let Part::Context(path) = part
                && !out.contains(&path.as_str())
            {
                out.push(path);
            }
        }
        out
    }
}

fn prompt_fits(bytes: u64) -> Result<(), QuestionError> {
    let limit = limits::LLM_PROMPT_BYTES_MAX;
    match bytes > limit as u64 {
        true => Err(QuestionError::TooLong { bytes, limit }),
        false => Ok(()),
    }
}

type Context = (Vec<ContextFile>, HashMap<String, String>);

/// Reads every context file, whole: what is hashed here is what the far side will see.
fn read_context(
    request: &LlmRequest,
    kind: &str,
    prepared: &Prepared,
    store: &Store,
) -> Result<Context, QuestionError> {
    let entries = prepared.tree.entries.iter();
    let nodes: HashMap<&str, &Node> = entries.map(|(path, node)| (path.as_str(), node)).collect();
    let mut found = Vec::new();
    let mut bytes = 0;
    for path in request.context_paths() {
        let inside = format!("{NATIVE_INPUTS}/{path}");
        let Some(Node::File { digest, .. }) = nodes.get(inside.as_str()) else {
            let why = format!("the context `{path}` is not an input file of the action");
            return Err(QuestionError::Malformed { kind: kind.to_owned(), why });
        };
        bytes += digest.size;
        found.push((path, digest));
    }
    prompt_fits(bytes + request.own_bytes())?;
    let mut context = Vec::new();
    let mut texts = HashMap::new();
    let mut lost = Vec::new();
    for (path, digest) in found {
        let content = match store.read(digest) {
            Ok(content) => content,
            Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {
                lost.push(*digest);
                continue;
            }
            Err(source) => return Err(QuestionError::Store { path: path.to_owned(), source }),
        };
        context.push(ContextFile { path: path.to_owned(), sha256: Sha256::of(&content) });
        let text = String::from_utf8(content)
            .map_err(|_| QuestionError::NotText { path: path.to_owned() })?;
        texts.insert(path.to_owned(), text);
    }
    if lost.is_empty() { Ok((context, texts)) } else { Err(QuestionError::Lost(lost)) }
}

/// The request without step and sample, context paths replaced by hashes.
fn keyed_request(request: &Value, context: &[ContextFile]) -> Value {
    let mut keyed = Map::new();
    for (name, value) in request.as_object().into_iter().flatten() {
        match name.as_str() {
            "step" | "sample" => {}
            // A schema may itself have a property named `context`.
            "messages" => {
                keyed.insert(name.clone(), hashed(value, context));
            }
            _ => {
                keyed.insert(name.clone(), value.clone());
            }
        }
    }
    keyed.entry("schema").or_insert(Value::Null);
    Value::Object(keyed)
}

fn hashed(value: &Value, context: &[ContextFile]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| hashed(item, context)).collect(),
        Value::Object(fields) => {
            let path = match fields.get("context") {
                Some(Value::String(path)) if fields.len() == 1 => path,
                _ => {
                    let inner = fields.iter().map(|(k, v)| (k.clone(), hashed(v, context)));
                    return Value::Object(inner.collect());
                }
            };
            let hash = context.iter().find(|file| file.path == *path);
            serde_json::json!({"sha256": hash.map(|file| file.sha256.to_string())})
        }
        other => other.clone(),
    }
}
