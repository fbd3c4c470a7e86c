//! `maestro.lock` as a value: pins of models, records, and the one text form of both.
//!
//! Not here: files (see [`super::write`]), answers (see [`super::answer`]).
//! Printing is deterministic: equal values print equal bytes, sorted, whatever order they came in.
//! `docs/design/lock.md` fixes the format.

pub mod parse;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::civil::Date;
use maestro_core::{Digest, DigestFunction, Label};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of the format that is written, and the newest that is read.
pub const LOCK_VERSION: i64 = 1;
/// The name of the lock below the workspace's root.
pub const LOCK_FILE: &str = "maestro.lock";
/// The folder of short answers below the workspace's root.
pub const CONTENT_DIR: &str = "maestro.lock.d";
/// What stands in `recorder` as long as nobody vouches for a record.
pub const UNSIGNED: &str = "unsigned";

/// A SHA-256 hash; text form 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

/// What a record is found by. Text form `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub Sha256);

/// A whole lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// What each model name stands for.
    pub models: BTreeMap<String, ModelPin>,
    /// What was answered, in any order.
    pub records: Vec<Record>,
}

/// What a model name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPin {
    /// SHA-256 of the weights file.
    #[serde(default)]
    pub sha256: Option<Sha256>,
    /// The provider's dated name of the snapshot that must answer.
    #[serde(default)]
    pub name: Option<String>,
    /// Length of the weights file in bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Name of the weights file.
    #[serde(default)]
    pub file: Option<String>,
    /// Where the weights come from.
    #[serde(default)]
    pub source: Option<String>,
    /// Micro-dollars for a million tokens of prompt.
    #[serde(default)]
    pub price_input_usd_micros_per_mtok: Option<u64>,
    /// Micro-dollars for a million tokens of answer.
    #[serde(default)]
    pub price_output_usd_micros_per_mtok: Option<u64>,
}

impl ModelPin {
    /// The pin that an [`identity`](Self::identity) tells.
    pub fn of_identity(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("sha256", hash) => Some(Self { sha256: Some(hash.parse().ok()?), ..Self::default() }),
            ("name", name) => Some(Self { name: Some(name.to_owned()), ..Self::default() }),
            _ => None,
        }
    }

    /// The text that stands for the model in record keys; `None` if the pin says nothing.
    pub fn identity(&self) -> Option<String> {
        match (&self.sha256, &self.name) {
            (Some(hash), _) => Some(format!("sha256:{hash}")),
            (None, Some(name)) => Some(format!("name:{name}")),
            (None, None) => None,
        }
    }
}

/// One answer of the outside world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The target that asked.
    pub label: Label,
    /// The step's path within the target.
    pub step: String,
    /// Which of several answers to the same request.
    pub sample: u32,
    /// The record key.
    pub key: RecordKey,
    /// The kind of recorded action, such as `llm`.
    pub kind: String,
    /// The model's name as asked for.
    pub model: String,
    /// What that name stood for.
    pub identity: String,
    /// The seed of the request.
    pub seed: Option<i64>,
    /// Tokens of the prompt, as the far side counted.
    pub prompt_tokens: u64,
    /// Tokens of the answer, as the far side counted.
    pub completion_tokens: u64,
    /// Why the answer ended.
    pub finish_reason: String,
    /// What the answer cost, in micro-dollars.
    pub cost_usd_micros: u64,
    /// The day of the answer, UTC.
    pub date: Date,
    /// SHA-256 and length of the output.
    pub content: Digest,
    /// The file name of the output below [`CONTENT_DIR`], where it may stand there.
    pub content_file: Option<String>,
    /// The context files of the request, in its order.
    pub context: Vec<ContextFile>,
    /// Who vouches for the record.
    pub recorder: String,
    /// The recorder's signature.
    pub signature: Option<String>,
    /// Whether a person changed the answer and accepted that.
    pub edited: bool,
}

/// A context file as it was when a record was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContextFile {
    /// Its execution path.
    pub path: String,
    /// The hash of its content.
    pub sha256: Sha256,
}

impl Record {
    /// What records are sorted by.
    fn order(&self) -> (String, &str, u32, RecordKey) {
        (self.label.to_string(), &self.step, self.sample, self.key)
    }

    /// Whether the record answers this step, whatever its input.
    pub fn is_of(&self, label: &Label, step: &str, sample: u32) -> bool {
        self.label == *label && self.step == step && self.sample == sample
    }

    /// Whether the answer may be attributed to its model: signed, and not edited since.
    pub fn is_attested(&self) -> bool {
        self.signature.is_some() && !self.edited
    }
}

impl Lock {
    /// The text of the lock.
    pub fn print(&self) -> String {
        let mut out = String::from(
            "# What the outside world answered. Written by `maestro lock`; commit it.\n",
        );
        line(&mut out, "version", LOCK_VERSION);
        for (name, pin) in &self.models {
            print_pin(&mut out, name, pin);
        }
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by(|a, b| a.order().cmp(&b.order()));
        for record in records {
            print_record(&mut out, record);
        }
        out
    }
}

fn print_pin(out: &mut String, name: &str, pin: &ModelPin) {
    let ModelPin {
        sha256,
        name: dated,
        size,
        file,
        source,
        price_input_usd_micros_per_mtok: input,
        price_output_usd_micros_per_mtok: output,
    } = pin;
    out.push_str("\n[models.");
    quote(out, name);
    out.push_str("]\n");
    text_if(out, "sha256", sha256.map(|hash| hash.to_string()).as_deref());
    text_if(out, "name", dated.as_deref());
    number_if(out, "size", *size);
    text_if(out, "file", file.as_deref());
    text_if(out, "source", source.as_deref());
    number_if(out, "price_input_usd_micros_per_mtok", *input);
    number_if(out, "price_output_usd_micros_per_mtok", *output);
}

fn print_record(out: &mut String, record: &Record) {
    let Record {
        label,
        step,
        sample,
        key,
        kind,
        model,
        identity,
        seed,
        prompt_tokens,
        completion_tokens,
        finish_reason,
        cost_usd_micros,
        date,
        content,
        content_file,
        context,
        recorder,
        signature,
        edited,
    } = record;
    out.push_str("\n[[record]]\n");
    text(out, "label", &label.to_string());
    text(out, "step", step);
    line(out, "sample", sample);
    text(out, "key", &key.to_string());
    text(out, "kind", kind);
    text(out, "model", model);
    text(out, "identity", identity);
    if let Some(seed) = seed {
        line(out, "seed", seed);
    }
    line(out, "prompt_tokens", prompt_tokens);
    line(out, "completion_tokens", completion_tokens);
    text(out, "finish_reason", finish_reason);
    line(out, "cost_usd_micros", cost_usd_micros);
    text(out, "date", &date.to_string());
    text(out, "content", &content.to_string());
    if let Some(name) = content_file {
        text(out, "content_file", &format!("{CONTENT_DIR}/{name}"));
    }
    print_context(out, context);
    text(out, "recorder", recorder);
    text_if(out, "signature", signature.as_deref());
    if *edited {
        line(out, "edited", true);
    }
}

/// One file a line where there are several, so that diffs show which one changed.
fn print_context(out: &mut String, context: &[ContextFile]) {
    let several = context.len() > 1;
    out.push_str("context = [");
    for (i, file) in context.iter().enumerate() {
        match (several, i) {
            (true, _) => out.push_str("\n    "),
            (false, 0) => {}
            (false, _) => out.push_str(", "),
        }
        quote(out, &format!("{} sha256:{}", file.path, file.sha256));
        if several {
            out.push(',');
        }
    }
    out.push_str(if several { "\n]\n" } else { "]\n" });
}

fn line(out: &mut String, name: &str, value: impl fmt::Display) {
    writeln!(out, "{name} = {value}").expect("writing to a string cannot fail");
}

fn number_if(out: &mut String, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        line(out, name, value);
    }
}

fn text(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(" = ");
    quote(out, value);
    out.push('\n');
}

fn text_if(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(out, name, value);
    }
}

/// A TOML basic string.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                write!(out, "\\u{:04X}", c as u32).expect("writing to a string cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Sha256 {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(DigestFunction::Sha256.digest(bytes).hash)
    }

    /// Whether `digest` is the SHA-256 digest with this hash.
    pub fn matches(self, digest: &Digest) -> bool {
        digest.function == DigestFunction::Sha256 && digest.hash == self.0
    }
}

/// A text is not 64 lower-case hex digits, with `sha256:` before them where that is due.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a SHA-256 hash")]
pub struct HashError {
    /// The text.
    pub text: String,
}

impl FromStr for Sha256 {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        match Digest::from_hex(DigestFunction::Sha256, text, 0) {
            Ok(digest) => Ok(Self(digest.hash)),
            Err(_) => Err(HashError { text: text.to_owned() }),
        }
    }
}

impl From<Digest> for Sha256 {
    /// The hash of a digest that is SHA-256 already; callers hold such digests only.
    fn from(digest: Digest) -> Self {
        debug_assert_eq!(digest.function, DigestFunction::Sha256);
        Self(digest.hash)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl RecordKey {
    /// The beginning of the hex form, by which content files are named.
    pub fn prefix(self) -> String {
        self.0.to_string().chars().take(16).collect()
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecordKey {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let hex = text.strip_prefix("sha256:");
        hex.ok_or_else(|| HashError { text: text.to_owned() })?.parse().map(Self)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Sha256);
serde_as_text!(RecordKey);
