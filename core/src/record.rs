//! Record keys: how the result of a recorded action is found.
//!
//! The key is SHA-256, whatever the cache uses, over RFC 8785 JSON of
//! `{kind, request, sample, semantics}`, where `request` is what the far side sees.
//! Timeout, environment, platform, endpoints, Maestro's version and the cache's digest function
//! are not in it; what is only observed (fingerprint, cost, date) is metadata of the record.

use serde_json::Value;

use crate::digest::{Digest, DigestFunction};

/// What is asked of the outside world.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRequest {
    /// The kind of step, such as `llm`.
    pub kind: String,
    /// The semantics number of the kind.
    pub semantics: u32,
    /// What the far side sees, with context as SHA-256 digests and the pinned identity added.
    pub request: Value,
    /// Tells apart several answers to the same request.
    pub sample: u32,
}

impl RecordRequest {
    /// The canonical JSON that is hashed.
    pub fn canonical(&self) -> Result<Vec<u8>, RecordError> {
        let Self { kind, semantics, request, sample } = self;
        canonical_json(&serde_json::json!({
            "kind": kind, "semantics": semantics, "request": request, "sample": sample,
        }))
    }

    /// The record key. Its size is that of the canonical JSON.
    pub fn key(&self) -> Result<Digest, RecordError> {
        Ok(DigestFunction::Sha256.digest(&self.canonical()?))
    }
}

/// A value has no canonical form.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the value has no canonical JSON form: {why}")]
pub struct RecordError {
    /// The reason.
    pub why: String,
}

/// RFC 8785 bytes of `value`.
///
/// Integers beyond 2^53 are refused, since other readers of I-JSON would round them.
pub fn canonical_json(value: &Value) -> Result<Vec<u8>, RecordError> {
    check_numbers(value)?;
    serde_json_canonicalizer::to_vec(value).map_err(|e| RecordError { why: e.to_string() })
}

fn check_numbers(value: &Value) -> Result<(), RecordError> {
    const SAFE: u64 = 1 << 53;
    match value {
        Value::Number(n) => {
            let magnitude = n.as_u64().or(n.as_i64().map(i64::unsigned_abs));
            match magnitude {
                Some(m) if m > SAFE => Err(RecordError { why: format!("{n} is larger than 2^53") }),
                _ => Ok(()),
            }
        }
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(fields) => fields.values().try_for_each(check_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_order_does_not_matter_and_values_do() {
        let key = |request: Value, sample| {
            RecordRequest { kind: "llm".into(), semantics: 1, request, sample }
                .key()
                .expect("canonical")
        };
        let a = key(json!({"model": "m", "seed": 1}), 0);
        assert_eq!(a, key(json!({"seed": 1, "model": "m"}), 0));
        assert_eq!(a, key(json!({"seed": 1.0, "model": "m"}), 0));
        assert_ne!(a, key(json!({"seed": 2, "model": "m"}), 0));
        assert_ne!(a, key(json!({"seed": 1, "model": "m"}), 1));
    }

    #[test]
    fn canonical_form_is_rfc_8785() {
        let bytes = canonical_json(&json!({"b": 1e21, "a": "é\n", "c": [1.5, -0.0]}));
        let text = String::from_utf8(bytes.expect("canonical")).expect("UTF-8");
        assert_eq!(text, r#"{"a":"é\n","b":1e+21,"c":[1.5,0]}"#);
        assert!(canonical_json(&json!(u64::MAX)).is_err());
    }
}
