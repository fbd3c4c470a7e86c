//! `notify.webhook`: one signed request, and what each answer to it means.
//!
//! The far side takes the idempotency key, so a request that may have been heard is sent again with
//! the same bytes and the same key. What an answer means follows the drafts of `Idempotency-Key`:
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | done |
//! | 3xx | refused: redirects are not followed |
//! | 409 | unclear: an earlier request with this key is still being worked on |
//! | 408, 425, 429 | not done, and asked to come again |
//! | other 4xx, 422 among them (the key with another body) | refused |
//! | 5xx, or none after the request was written | unclear |
//! | no connection | not done |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maestro_core::limits::RUN_REQUEST_BYTES_MAX;
use maestro_core::run::event::Success;
use maestro_core::run::{Failure, FailureClass};
use maestro_executor::step::{Effect, Reach, Reply, Stop};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DeliverError;
use crate::failures::{cancelled, excerpt, hinted, user};
use crate::http::{Answer, Silence, call, client};
use crate::inputs::{Millis, check_key, far_side, http_url, read, restore, store};
use crate::secrets::{self, Secrets};
use crate::signature::signature;

/// What steps call it.
pub const USES: &str = "notify.webhook";
/// The header of the signature.
pub const SIGNATURE_HEADER: &str = "X-Maestro-Signature-256";
/// The header by which receivers recognise a delivery that comes twice.
pub const DELIVERY_HEADER: &str = "X-Maestro-Delivery";
/// Longest time that a call may be given, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1000;
/// Most further headers.
pub const HEADERS_MAX: usize = 64;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Headers that this module or the protocol sets.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Posts messages.
pub struct Webhook {
    http: Client,
    secrets: Arc<dyn Secrets>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    url: String,
    secret: Option<String>,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    method: Verb,
    timeout: Millis,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Verb {
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
}

#[derive(Serialize, Deserialize)]
struct Request {
    method: Verb,
    url: String,
    headers: BTreeMap<String, String>,
    body: String,
    timeout_ms: u64,
    secret: Option<String>,
}

impl Webhook {
    /// One that takes the keys of its signatures from `secrets`.
    pub fn new(secrets: Arc<dyn Secrets>) -> Result<Self, DeliverError> {
        Ok(Self { http: client()?, secrets })
    }

    fn prepare(&self, request: &Request, key: &str) -> Result<RequestBuilder, Failure> {
        check_key(key)?;
        let url = http_url("url", &request.url)?;
        let method = match request.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
        };
        let mut call = self.http.request(method, url);
        for (name, value) in &request.headers {
            let (name, value) = header(name, value)?;
            call = call.header(name, value);
        }
        let secret = secrets::find(&*self.secrets, request.secret.as_deref())?;
        if let Some(secret) = secret {
            call = call.header(SIGNATURE_HEADER, signature(&secret, request.body.as_bytes()));
        }
        Ok(call
            .header("Idempotency-Key", key)
            .header(DELIVERY_HEADER, key)
            .body(request.body.clone()))
    }
}

#[async_trait]
impl Effect for Webhook {
    fn render(&self, inputs: &Value) -> Result<String, Failure> {
        let inputs: Inputs = read(USES, inputs)?;
        let url = http_url("url", &inputs.url)?;
        let (kind, body) = match inputs.body {
            Value::Null => (JSON, "{}".to_owned()),
            Value::String(text) => (TEXT, text),
            body => {
                let text = serde_json_canonicalizer::to_string(&body);
                (JSON, text.map_err(|error| user(format!("`body` is no JSON: {error}")))?)
            }
        };
        let mut headers = BTreeMap::from([("content-type".to_owned(), kind.to_owned())]);
        for (name, value) in inputs.headers.unwrap_or_default() {
            header(&name, &value)?;
            headers.insert(name.to_ascii_lowercase(), value);
        }
        if headers.len() > HEADERS_MAX {
            return Err(user(format!("`headers` has more than {HEADERS_MAX} entries")));
        }
        let timeout_ms = inputs.timeout.0;
        if !(1..=TIMEOUT_MS_MAX).contains(&timeout_ms) {
            return Err(user(format!("`timeout` is not between 1 and {TIMEOUT_MS_MAX} ms")));
        }
        let (method, url, secret) = (inputs.method, url.to_string(), inputs.secret);
        let request = store(USES, Request { method, url, headers, body, timeout_ms, secret })?;
        if request.len() > RUN_REQUEST_BYTES_MAX {
            return Err(user(format!("`body` makes a request of {} bytes", request.len())));
        }
        Ok(request)
    }

    fn reach(&self, inputs: &Value) -> Result<Reach, Failure> {
        let inputs: Inputs = read(USES, inputs)?;
        let url = http_url("url", &inputs.url)?;
        let (hosts, secrets) = (far_side(&url).into_iter(), inputs.secret.into_iter());
        Ok(Reach { hosts: hosts.collect(), secrets: secrets.collect() })
    }

    async fn send(&self, request: &str, key: &str, cancel: &Stop) -> Reply {
        let prepared = restore::<Request>(USES, request).and_then(|request| {
            let call = self.prepare(&request, key)?;
            Ok((call, Duration::from_millis(request.timeout_ms)))
        });
        let (prepared, limit) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Reply::Refused(failure),
        };
        if cancel.is_cancelled() {
            return Reply::Refused(cancelled("cancelled before the webhook was called"));
        }
        match call(prepared, limit, cancel).await {
            Ok(answer) => judge(&answer),
            Err(silence @ Silence::NotHeard(_)) => Reply::Refused(silence.failure("the webhook")),
            Err(silence) => Reply::Unclear(silence.failure("the webhook")),
        }
    }
}

/// A header as it can be sent.
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let wrong = |why: &str| user(format!("the header `{}` {why}", excerpt(name)));
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&&*lower) || lower.starts_with("x-maestro-") {
        return Err(wrong("is set by Maestro itself"));
    }
    let name = HeaderName::from_bytes(lower.as_bytes())
        .map_err(|_| wrong("has characters that names of headers cannot have"))?;
    let value = HeaderValue::from_str(value)
        .map_err(|_| wrong("has line breaks or control characters in its value"))?;
    Ok((name, value))
}

/// What an answer means.
fn judge(answer: &Answer) -> Reply {
    let failure = |class, what: &str| Failure {
        retry_after_ms: answer.retry_after_ms(),
        ..Failure::new(class, format!("the webhook {what} ({})", answer.shown()))
    };
    match answer.status {
        200..=299 => {
            let outputs = BTreeMap::from([("status_code".to_owned(), answer.status.into())]);
            Reply::Done(Success { outputs, ..Success::default() })
        }
        408 => Reply::Refused(failure(FailureClass::Infrastructure, "was tired of waiting")),
        425 | 429 => Reply::Refused(failure(FailureClass::RateLimit, "asks for patience")),
        409 => Reply::Unclear(failure(
            FailureClass::Infrastructure,
            "still works on an earlier request with this key",
        )),
        422 => Reply::Refused(failure(FailureClass::User, "cannot take this message")),
        300..=399 => {
            let to = answer.headers.get("location").and_then(|to| to.to_str().ok());
            let failure = failure(FailureClass::User, "is elsewhere");
            let to = to.map_or("its new place".to_owned(), |to| format!("`{}`", excerpt(to)));
            Reply::Refused(hinted(failure, format!("redirects are not followed; name {to}")))
        }
        400..=499 => Reply::Refused(failure(FailureClass::User, "refused")),
        _ => Reply::Unclear(failure(FailureClass::Infrastructure, "failed")),
    }
}
