//! The `with` of a step read into types, and requests in their stored form.
//!
//! A request is canonical JSON (RFC 8785) with the name of its effect and a version, so that equal
//! requests are equal texts, and a later Maestro knows what it has before it.

use maestro_core::quantity::duration_ms;
use maestro_core::run::Failure;
use reqwest::Url;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::failures::{excerpt, user};

/// The version of requests that this Maestro writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Longest URL.
const URL_BYTES_MAX: usize = 4096;

/// A time in milliseconds; `1m`, `90s`, or a number of seconds where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let millis = match &value {
            Value::String(text) => duration_ms(text),
            Value::Number(seconds) => seconds.as_u64().and_then(|s| s.checked_mul(1000)),
            _ => None,
        };
        millis.map(Self).ok_or_else(|| D::Error::custom(format!("{value} is no time")))
    }
}

/// Reads the inputs of a step.
pub(crate) fn read<T: DeserializeOwned>(uses: &str, inputs: &Value) -> Result<T, Failure> {
    T::deserialize(inputs).map_err(|error| {
        user(format!("the inputs of `{uses}` do not fit: {}", excerpt(&error.to_string())))
    })
}

/// A request as the journal keeps it.
#[derive(Serialize, Deserialize)]
struct Stored<T> {
    effect: String,
    version: u32,
    request: T,
}

/// The stored form of a request.
pub(crate) fn store<T: Serialize>(uses: &str, request: T) -> Result<String, Failure> {
    let stored = Stored { effect: uses.to_owned(), version: VERSION, request };
    serde_json_canonicalizer::to_string(&stored)
        .map_err(|error| user(format!("the request of `{uses}` cannot be written: {error}")))
}

/// The request out of its stored form.
pub(crate) fn restore<T: DeserializeOwned>(uses: &str, text: &str) -> Result<T, Failure> {
    let wrong = |why: String| user(format!("this is no request of `{uses}`: {why}"));
    let stored: Stored<Value> =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if stored.effect != uses {
        return Err(wrong(format!("it is one of `{}`", excerpt(&stored.effect))));
    }
    if stored.version > VERSION {
        let (is, newest) = (stored.version, VERSION);
        return Err(wrong(format!("it has version {is}, and the newest known is {newest}")));
    }
    T::deserialize(stored.request).map_err(|error| wrong(excerpt(&error.to_string())))
}

/// A URL of HTTP that holds no password.
pub(crate) fn http_url(field: &str, text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| user(format!("`{field}` is `{}`, {why}", excerpt(text)));
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("which is too long"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("which is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("and only `http` and `https` are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(user(format!("`{field}` holds credentials; name a secret instead")));
    }
    Ok(url)
}

/// Whether a key can stand in a URL, a header and a commit as it is.
pub(crate) fn check_key(key: &str) -> Result<(), Failure> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    let good = (1..=200).contains(&key.len())
        && key.bytes().all(fits)
        && key.bytes().any(|b| b.is_ascii_alphanumeric());
    good.then_some(()).ok_or_else(|| user(format!("`{}` is no idempotency key", excerpt(key))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_as_templates_write_them() {
        let check = |value: Value, expected: Option<u64>| {
            let read = Millis::deserialize(&value).ok().map(|millis| millis.0);
            assert_eq!(read, expected, "{value}");
        };
        check(json!("1m"), Some(60_000));
        check(json!("1h30m"), Some(5_400_000));
        check(json!("250ms"), Some(250));
        check(json!("7"), Some(7_000));
        check(json!(7), Some(7_000));
        check(json!(""), None);
        check(json!("m"), None);
        check(json!("1 m"), None);
        check(json!(-1), None);
        check(json!("99999999999999999999d"), None);
        check(json!("999999999999999d"), None);
    }

    #[test]
    fn a_request_comes_back_as_it_was_and_not_as_another_effect() {
        let text = store("a.b", json!({"z": 1, "a": "ü"})).expect("JSON");
        assert_eq!(text, r#"{"effect":"a.b","request":{"a":"ü","z":1},"version":1}"#);
        assert_eq!(restore::<Value>("a.b", &text), Ok(json!({"z": 1, "a": "ü"})));
        let check = |uses: &str, text: &str, expected: &str| {
            let message = restore::<Value>(uses, text).expect_err("refused").message;
            assert!(message.contains(expected), "{message}");
        };
        check("a.c", &text, "it is one of `a.b`");
        check("a.b", &text.replace(":1}", ":2}"), "it has version 2");
        check("a.b", "{", "this is no request of `a.b`");
    }

    #[test]
    fn urls_are_of_http_and_hold_no_password() {
        for good in ["http://127.0.0.1:1/a?b", "https://h.example"] {
            assert!(http_url("url", good).is_ok(), "{good}");
        }
        for bad in ["ftp://h/", "/a", "file:///etc", "http://me:pw@h/", "http://me@h/", "http://"] {
            assert!(http_url("url", bad).is_err(), "{bad}");
        }
    }
}
