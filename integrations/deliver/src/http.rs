//! One bounded call over HTTP, and whether it may have been heard.
//!
//! Connections are not kept, since a kept one may be closed by the far side just when a request is
//! written on it, and nobody could tell whether it was heard. No redirect is followed.

use std::time::Duration;

use maestro_core::run::Failure;
use maestro_executor::step::Stop;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, redirect};
use serde_json::Value;

use crate::DeliverError;
use crate::failures::{cancelled, chain, excerpt, infrastructure};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of an answer that is read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest wait that a far side may ask for, in milliseconds; the retry policy bounds it further.
const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A client for one request on each connection.
pub(crate) fn client() -> Result<Client, DeliverError> {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("maestro/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(DeliverError::Client)
}

/// What came back.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body, or why there is none.
    pub(crate) body: Result<Vec<u8>, String>,
}

impl Answer {
    /// Whether the status is 200 to 299.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, String> {
        let body = self.body.as_ref().map_err(String::clone)?;
        serde_json::from_slice(body).map_err(|error| format!("it is no JSON: {error}"))
    }

    /// The status and the beginning of the body, for people.
    pub(crate) fn shown(&self) -> String {
        let body = match &self.body {
            Ok(body) => excerpt(&String::from_utf8_lossy(body)),
            Err(why) => why.clone(),
        };
        match body.as_str() {
            "" => format!("status {}", self.status),
            body => format!("status {}: {body}", self.status),
        }
    }

    /// How long the far side asks to wait, in milliseconds: `Retry-After` in seconds or as a date.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let millis = match text.parse::<u64>() {
            Ok(seconds) => seconds.saturating_mul(1000),
            Err(_) => {
                let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
                let wait = date.as_millisecond() - jiff::Timestamp::now().as_millisecond();
                u64::try_from(wait).unwrap_or(0)
            }
        };
        Some(millis.min(RETRY_AFTER_MS_MAX))
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The request certainly was not heard.
    NotHeard(String),
    /// It may have been heard.
    Lost(String),
    /// The run was cancelled; it may have been heard.
    Stopped,
}

impl Silence {
    /// The failure, where `what` was not reached.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        match self {
            Self::NotHeard(why) => infrastructure(format!("{what} cannot be reached: {why}")),
            Self::Lost(why) => infrastructure(format!("{what} did not answer: {why}")),
            Self::Stopped => cancelled(format!("cancelled while {what} was asked")),
        }
    }
}

/// Sends a request and reads the answer, all within `limit`.
pub(crate) async fn call(
    request: RequestBuilder,
    limit: Duration,
    stop: &Stop,
) -> Result<Answer, Silence> {
    if stop.is_cancelled() {
        return Err(Silence::Stopped);
    }
    let deadline = tokio::time::Instant::now() + limit;
    let late = || format!("it took longer than {} ms", limit.as_millis());
    let sent = tokio::select! {
        sent = tokio::time::timeout_at(deadline, request.send()) => sent,
        () = stop.cancelled() => return Err(Silence::Stopped),
    };
    let mut response = match sent {
        Err(_) => return Err(Silence::Lost(late())),
        Ok(Err(error)) if error.is_connect() || error.is_builder() => {
            return Err(Silence::NotHeard(chain(&error.without_url())));
        }
        Ok(Err(error)) => return Err(Silence::Lost(chain(&error.without_url()))),
        Ok(Ok(response)) => response,
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let read = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e.without_url()))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        Ok(body)
    };
    // The status is known; what happens to the rest does not make it unknown.
    let body = tokio::select! {
        body = tokio::time::timeout_at(deadline, read) => body.unwrap_or_else(|_| Err(late())),
        () = stop.cancelled() => Err("the run was cancelled".into()),
    };
    Ok(Answer { status, headers, body })
}
