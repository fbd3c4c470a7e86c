//! Answers: the one form in which they are stored, and whether they fit their schema.
//!
//! The same functions judge a fresh answer, one from the lock and one that a person edited, so
//! that no road leads round the schema.

use maestro_core::limits;
use maestro_core::record::canonical_json;
use serde_json::Value;

/// Why a text is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Nothing but white space.
    #[error("the answer is empty")]
    Empty,
    /// Longer than any answer may be.
    #[error("the answer has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A schema asks for JSON and this is none.
    #[error("the answer is not JSON: {why}")]
    NotJson {
        /// What the parser says.
        why: String,
    },
    /// JSON without a canonical form.
    #[error("the answer has no canonical form: {why}")]
    NotCanonical {
        /// The reason.
        why: String,
    },
    /// It does not fit.
    #[error("the answer does not fit its schema at `{at}`: {why}")]
    Misfit {
        /// JSON pointer into the answer; `/` for the whole.
        at: String,
        /// What the schema demands there.
        why: String,
    },
    /// The schema itself is wrong.
    #[error("the schema is not a JSON Schema at `{at}`: {why}")]
    Schema {
        /// JSON pointer into the schema; `/` for the whole.
        at: String,
        /// What is wrong there.
        why: String,
    },
}

/// Brings a text into the form that is stored, and checks it.
pub fn normalise(text: &str, schema: Option<&Value>) -> Result<Vec<u8>, AnswerError> {
    if text.len() > limits::LLM_ANSWER_BYTES_MAX {
        let (bytes, limit) = (text.len(), limits::LLM_ANSWER_BYTES_MAX);
        return Err(AnswerError::TooLong { bytes, limit });
    }
    let Some(schema) = schema else {
        let unix = text.replace("\r\n", "\n");
        let body = unix.trim_end();
        if body.trim_start().is_empty() {
            return Err(AnswerError::Empty);
        }
        return Ok(format!("{body}\n").into_bytes());
    };
    if text.trim().is_empty() {
        return Err(AnswerError::Empty);
    }
    let value: Value =
        serde_json::from_str(text).map_err(|e| AnswerError::NotJson { why: e.to_string() })?;
    fit(&value, schema)?;
    canonical_line(&value)
}

/// RFC 8785 bytes and a newline.
pub fn canonical_line(value: &Value) -> Result<Vec<u8>, AnswerError> {
    let mut bytes = canonical_json(value).map_err(|e| AnswerError::NotCanonical { why: e.why })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Checks that `bytes` are an answer in stored form that fits `schema`.
pub fn check(bytes: &[u8], schema: Option<&Value>) -> Result<(), AnswerError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| AnswerError::NotJson { why: format!("not UTF-8: {e}") })?;
    let normal = normalise(text, schema)?;
    if normal == bytes {
        return Ok(());
    }
    Err(AnswerError::NotCanonical {
        why: "it is not in the form that `maestro lock` writes".into(),
    })
}

fn fit(value: &Value, schema: &Value) -> Result<(), AnswerError> {
    let validator = jsonschema::validator_for(schema).map_err(|e| AnswerError::Schema {
        at: pointer(&e.instance_path().to_string()),
        why: e.to_string(),
    })?;
    match validator.validate(value) {
        Ok(()) => Ok(()),
        Err(e) => Err(AnswerError::Misfit {
            at: pointer(&e.instance_path().to_string()),
            why: shorten(&e.to_string()),
        }),
    }
}

fn pointer(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

/// The validator quotes the whole offending value; a message has room for its beginning.
fn shorten(text: &str) -> String {
    const CHARS: usize = 300;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_normalised() {
        let check = |text: &str, expect: Result<&str, AnswerError>| {
            let got = normalise(text, None).map(|b| String::from_utf8(b).expect("UTF-8"));
            assert_eq!(got, expect.map(str::to_owned), "{text:?}");
        };
        check("a\r\nb  \n\n", Ok("a\nb\n"));
        check("  a", Ok("  a\n"));
        check("", Err(AnswerError::Empty));
        check(" \n\t", Err(AnswerError::Empty));
    }

    #[test]
    fn json_is_canonical_and_fits() {
        let schema = json!({
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 3}},
            "required": ["n"],
            "additionalProperties": false,
        });
        let check = |text: &str, expect: Result<&str, &str>| {
            let got = normalise(text, Some(&schema));
            let got = got.map(|b| String::from_utf8(b).expect("UTF-8")).map_err(|e| e.to_string());
            match expect {
                Ok(expect) => assert_eq!(got.as_deref(), Ok(expect), "{text}"),
                Err(part) => assert!(got.is_err_and(|e| e.contains(part)), "{text}"),
            }
        };
        check("{ \"n\": 2.0 }\n", Ok("{\"n\":2}\n"));
        check("{\"n\": 4}", Err("at `/n`"));
        check("{\"n\": 1, \"m\": 1}", Err("at `/`"));
        check("{}", Err("at `/`"));
        check("Sure! {\"n\": 1}", Err("not JSON"));
        check("{\"n\": 1} and", Err("not JSON"));
        check(&"[".repeat(100_000), Err("not JSON"));
        check("", Err("empty"));
    }

    #[test]
    fn a_wrong_schema_is_not_the_answers_fault() {
        let error = normalise("1", Some(&json!({"type": "strin"}))).expect_err("no such type");
        assert!(matches!(error, AnswerError::Schema { .. }), "{error}");
        let far = json!({"$ref": "http://127.0.0.1:9/schema.json"});
        let error = normalise("1", Some(&far)).expect_err("never fetched");
        assert!(matches!(error, AnswerError::Schema { .. }), "{error}");
    }
}
