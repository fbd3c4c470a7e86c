//! The proxy that splits traffic between the version that is there and the one that comes.
//!
//! | proxy | the URL | read | change |
//! |---|---|---|---|
//! | `http` | a resource of its own | `GET` gives `{"weight": 25}` | `PUT` of the same |
//! | `caddy` | the `weights` of a `weighted_round_robin` with two upstreams, in the admin API | `GET` gives `[75,25]` | `PATCH` of the same |
//!
//! The second upstream of Caddy is the one that comes. A change is conditional where the proxy
//! gives an `ETag`, as Caddy does; and each is read back, so that a lost answer does no harm.

use std::time::Duration;

use maestro_executor::step::Stop;
use reqwest::header::{ETAG, HeaderValue, IF_MATCH};
use reqwest::{Client, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger::Trouble;
use crate::failures::{hinted, infrastructure, user};
use crate::http::{Silence, call};
use crate::inputs::http_url;

/// How often a change is tried.
const TRIES_MAX: u32 = 5;
/// How long to wait between tries.
const WAIT: Duration = Duration::from_secs(1);
/// Longest call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What language a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Proxy {
    /// The form that this project documents.
    Http,
    /// Caddy's admin API.
    Caddy,
}

/// A proxy and where it keeps its weights.
pub(super) struct Traffic<'a> {
    pub(super) http: &'a Client,
    pub(super) proxy: Proxy,
    pub(super) url: &'a str,
}

/// How traffic is split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    /// As the proxy takes it.
    pub(super) raw: Value,
    part: u64,
    whole: u64,
    etag: Option<HeaderValue>,
}

impl Split {
    /// Whether exactly so many percent go to the version that comes.
    pub(super) fn is_at(&self, percent: u32) -> bool {
        u128::from(self.part) * 100 == u128::from(percent) * u128::from(self.whole)
    }

    /// Whether fewer percent go to the version that comes.
    pub(super) fn is_below(&self, percent: u32) -> bool {
        u128::from(self.part) * 100 < u128::from(percent) * u128::from(self.whole)
    }

    /// Percent, rounded down, for people.
    pub(super) fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.part) * 100 / u128::from(self.whole.max(1))).unwrap_or(100)
    }
}

impl Traffic<'_> {
    /// How traffic is split now.
    pub(super) async fn read(&self, stop: &Stop) -> Result<Split, Trouble> {
        let url = http_url("traffic", self.url).map_err(Trouble::Refused)?;
        let answer = call(self.http.get(url), CALL_TIMEOUT, stop)
            .await
            .map_err(|silence| Trouble::Unclear(silence.failure("the proxy")))?;
        if !answer.is_success() {
            let failure =
                infrastructure(format!("the proxy gives no weights ({})", answer.shown()));
            return Err(Trouble::Unclear(failure));
        }
        let raw = answer.json().map_err(|why| Trouble::Unclear(user(odd(&why))))?;
        let (part, whole) = self.parse(&raw).ok_or_else(|| {
            let failure = user(odd(&format!("`{}`", crate::failures::excerpt(&raw.to_string()))));
            Trouble::Unclear(hinted(failure, self.expected()))
        })?;
        let raw = match self.proxy {
            // What else a resource tells is its own.
            Proxy::Http => json!({ "weight": part }),
            Proxy::Caddy => raw,
        };
        Ok(Split { raw, part, whole, etag: answer.headers.get(ETAG).cloned() })
    }

    /// Moves traffic to a weight if it is `from`, and to nowhere else; reads it back.
    pub(super) async fn move_to(
        &self,
        percent: u32,
        from: impl Fn(&Split) -> bool,
        stop: &Stop,
    ) -> Result<(), Trouble> {
        let raw = match self.proxy {
            Proxy::Http => json!({ "weight": percent }),
            Proxy::Caddy => json!([100 - percent.min(100), percent]),
        };
        self.change(&raw, |split| split.is_at(percent), from, stop).await
    }

    /// Puts the traffic back as it was.
    pub(super) async fn restore(
        &self,
        raw: &Value,
        from: impl Fn(&Split) -> bool,
        stop: &Stop,
    ) -> Result<(), Trouble> {
        self.change(raw, |split| split.raw == *raw, from, stop).await
    }

    async fn change(
        &self,
        to: &Value,
        there: impl Fn(&Split) -> bool,
        from: impl Fn(&Split) -> bool,
        stop: &Stop,
    ) -> Result<(), Trouble> {
        let mut last = String::from("it takes the change and does not keep it");
        for _ in 0..TRIES_MAX {
            match self.read(stop).await {
                Ok(split) if there(&split) => return Ok(()),
                Ok(split) if !from(&split) => {
                    let message = format!("the traffic is at {} % by now", split.percent());
                    let hint = "somebody else moves it; let one rollout at a time do that";
                    return Err(Trouble::Unclear(hinted(user(message), hint)));
                }
                Ok(split) => match self.write(to, &split, stop).await {
                    // 412: it changed in between, and is looked at again.
                    Ok(status) if (200..300).contains(&status) || status == 412 => continue,
                    Ok(status) => last = format!("it answers with status {status}"),
                    Err(Silence::Stopped) => {
                        return Err(Trouble::Unclear(Silence::Stopped.failure("the proxy")));
                    }
                    Err(Silence::NotHeard(why) | Silence::Lost(why)) => last = why,
                },
                Err(trouble) if trouble.is_cancelled() => return Err(trouble),
                Err(trouble) => last = trouble.failure().message,
            }
            tokio::select! {
                () = tokio::time::sleep(WAIT) => {}
                () = stop.cancelled() => {}
            }
        }
        Err(Trouble::Unclear(infrastructure(format!("the proxy cannot be moved: {last}"))))
    }

    async fn write(&self, to: &Value, now: &Split, stop: &Stop) -> Result<u16, Silence> {
        let url = http_url("traffic", self.url).map_err(|f| Silence::NotHeard(f.message))?;
        let method = match self.proxy {
            Proxy::Http => Method::PUT,
            Proxy::Caddy => Method::PATCH,
        };
        let mut request = self.http.request(method, url).json(to);
        if let Some(etag) = &now.etag {
            request = request.header(IF_MATCH, etag);
        }
        call(request, CALL_TIMEOUT, stop).await.map(|answer| answer.status)
    }

    /// The part for the version that comes, and the whole.
    fn parse(&self, raw: &Value) -> Option<(u64, u64)> {
        match self.proxy {
            Proxy::Http => raw.get("weight")?.as_u64().filter(|w| *w <= 100).map(|w| (w, 100)),
            Proxy::Caddy => match raw.as_array()?.as_slice() {
                [stays, comes] => {
                    let (stays, comes) = (stays.as_u64()?, comes.as_u64()?);
                    let whole = stays.checked_add(comes)?;
                    (whole > 0).then_some((comes, whole))
                }
                _ => None,
            },
        }
    }

    fn expected(&self) -> &'static str {
        match self.proxy {
            Proxy::Http => "the URL answers `GET` with `{\"weight\": PERCENT}`",
            Proxy::Caddy => "the URL ends in `/load_balancing/selection_policy/weights`, with two",
        }
    }
}

fn odd(what: &str) -> String {
    format!("what the proxy gives are no weights: {what}")
}
