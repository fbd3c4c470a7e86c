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
    let wrong = |why: &str| user(format!("`{field}` is `{}`, {why}", shown_url(text)));
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("which is too long"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("which is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("and only `http` and `https` are spoken"));
    }
    if has_credentials(&url) {
        return Err(user(format!("`{field}` holds credentials; name a secret instead")));
    }
    Ok(url)
}

/// The host and port that a URL leads to; none for files.
pub(crate) fn far_side(url: &Url) -> Option<(String, u16)> {
    let port = match url.scheme() {
        "ssh" => url.port().unwrap_or(22),
        _ => url.port_or_known_default()?,
    };
    Some((url.host_str()?.to_ascii_lowercase(), port))
}

/// Whether a URL has a password, or a user name where that may be a token; the name at `ssh` is
/// mostly `git`, and no secret.
pub(crate) fn has_credentials(url: &Url) -> bool {
    let names_user = !url.username().is_empty() && url.scheme() != "ssh";
    names_user || url.password().is_some()
}

/// Whether a text is a URL with credentials in it, which may stand in no template and no journal.
pub fn holds_credentials(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| has_credentials(&url))
}

/// A URL without its credentials. What is no URL stays as it is.
pub fn without_credentials(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if has_credentials(&url) => {
            // Whatever has credentials can be without.
            let _ = (url.set_username(""), url.set_password(None));
            url.into()
        }
        Err(_) if text.contains("://") => masked(text),
        _ => text.to_owned(),
    }
}

/// What may be shown of a text that was meant as a URL.
pub(crate) fn shown_url(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => excerpt(&without_credentials(text)),
        _ => excerpt(&masked(text)),
    }
}

/// A text without what stands before its last `@`.
fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
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
        let long = format!("http://me:pw@h/{}", "x".repeat(URL_BYTES_MAX));
        for bad in ["ftp://me:pw@h/", "http://me:pw@h:x/", "me:pw@h/", "http://me:p/w@h", &long] {
            let failure = http_url("url", bad).expect_err("refused");
            assert!(!failure.message.contains("pw"), "{}", failure.message);
        }
    }

    #[test]
    fn credentials_are_taken_out_of_urls_and_out_of_nothing_else() {
        let check = |text: &str, expected: &str| {
            assert_eq!(without_credentials(text), expected);
            assert_eq!(holds_credentials(text), text != expected, "{text}");
        };
        check("https://t0ken@h.example/a.git", "https://h.example/a.git");
        check("https://me:pw@h.example/a@b", "https://h.example/a@b");
        check("ssh://git@h.example/a", "ssh://git@h.example/a");
        check("git@h.example:a/b", "git@h.example:a/b");
        check("https://h.example/a@b?c=d@e", "https://h.example/a@b?c=d@e");
        check("./a@b", "./a@b");
        assert_eq!(without_credentials("https://me:pw@h:x/"), "…@h:x/");
    }
}
