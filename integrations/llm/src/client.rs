//! One call, from check to answer: is it the pinned model, is its price known, then ask; try
//! again where that may help; is it still the pinned model.
//!
//! Invariants. No call is made while its price is unknown. An answer whose origin contradicts the
//! pin is thrown away. The key is sent only over TLS or to this machine, never to where a
//! redirect points. Every wait ends: by the time limit or by the user.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use maestro_core::limits;
use maestro_executor::records::{LiveAnswer, ModelPin, Question};
use maestro_executor::runner::Cancel;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use tokio::runtime::Runtime;

use crate::catalog::{Catalog, bare};
use crate::chat::{self, Fold, SchemaStyle, message_of};
use crate::endpoint::{base_url, is_loopback};
use crate::error::{LlmError, excerpt};
use crate::price::{Price, micros};
use crate::sse::SseParser;

/// Most attempts of one call.
pub const ATTEMPTS_MAX: u32 = 4;
/// Longest wait that a far side may ask for between two attempts.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Longest description of models or errors that is read, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of a stream for each byte that an answer may have: chunks carry much around it.
const STREAM_OVERHEAD: usize = 64;
/// How often a wait looks whether the user ended it.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// How models are reached.
#[derive(Clone)]
pub struct LlmOptions {
    /// The base URL of an OpenAI-compatible API; `/v1` is added to one without a path.
    pub endpoint: String,
    /// The bearer token.
    pub api_key: Option<String>,
    /// The price of every model, where the user declares it.
    pub price: Option<Price>,
    /// The limit of one call with all its attempts.
    pub timeout: Duration,
    /// The wait before the second attempt; it doubles from there.
    pub backoff: Duration,
    /// How often it is tried, 1 or more.
    pub attempts: u32,
}

impl LlmOptions {
    /// Options with the usual limits.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            api_key: None,
            price: None,
            timeout: Duration::from_millis(limits::LLM_CALL_TIMEOUT_MS),
            backoff: Duration::from_secs(1),
            attempts: ATTEMPTS_MAX,
        }
    }
}

/// Asks models at one endpoint.
pub struct LlmClient {
    base: Url,
    /// The base as messages show it.
    shown: String,
    options: LlmOptions,
    http: reqwest::Client,
    /// For callers that are not asynchronous.
    runtime: OnceLock<Runtime>,
}

/// A call that brought no answer.
#[derive(Debug)]
pub struct CallError {
    /// Why.
    pub error: LlmError,
    /// The price at which the question was asked, if it was: the call may have cost something.
    pub asked_at: Option<Price>,
}

impl From<LlmError> for CallError {
    fn from(error: LlmError) -> Self {
        Self { error, asked_at: None }
    }
}

impl LlmClient {
    /// A client; makes no call yet.
    pub fn new(options: LlmOptions) -> Result<Self, LlmError> {
        let (base, shown) = base_url(&options)?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("maestro/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| LlmError::Endpoint { endpoint: shown.clone(), why: chain(&e) })?;
        Ok(Self { base, shown, options, http, runtime: OnceLock::new() })
    }

    /// The host and port of the endpoint.
    pub fn far_side(&self) -> Option<(String, u16)> {
        Some((self.base.host_str()?.to_ascii_lowercase(), self.base.port_or_known_default()?))
    }

    /// What a model's name stands for at the far side, if it tells.
    pub async fn observe(&self, model: &str) -> Result<Option<ModelPin>, LlmError> {
        self.in_time(model, async { Ok(self.catalog().await?.observe(model)) }).await
    }

    /// What a model costs that must be `pin`.
    pub async fn price_of(&self, model: &str, pin: &ModelPin) -> Result<Price, LlmError> {
        self.in_time(model, async { self.price(model, pin, &self.catalog().await?) }).await
    }

    /// Asks. See [`Live::ask`](maestro_executor::records::Live::ask).
    pub async fn answer(
        &self,
        question: &Question,
        pin: &ModelPin,
    ) -> Result<LiveAnswer, CallError> {
        let model = &question.request.model;
        let price = self.in_time(model, self.ready(model, pin)).await?;
        let open = AtomicU32::new(0);
        let called = self.in_time(model, self.call(question, pin, price, &open)).await;
        called.map_err(|error| {
            let charged = open.into_inner() > 0;
            CallError { error, asked_at: charged.then_some(price) }
        })
    }

    /// How often a question is asked at most.
    pub(crate) fn attempts(&self) -> u32 {
        self.options.attempts
    }

    async fn in_time<T>(
        &self,
        model: &str,
        work: impl Future<Output = Result<T, LlmError>>,
    ) -> Result<T, LlmError> {
        let late =
            LlmError::Timeout { model: model.to_owned(), seconds: self.options.timeout.as_secs() };
        tokio::time::timeout(self.options.timeout, work).await.unwrap_or(Err(late))
    }

    fn runtime(&self) -> Result<&Runtime, LlmError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("llm")
            .enable_all()
            .build()
            .map_err(LlmError::Runtime)?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// Runs a future to its end or to the user's.
    pub(crate) fn block<T, E: From<LlmError>>(
        &self,
        cancel: &Cancel,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let cancelled = async {
            while !cancel.is_cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        self.runtime()?.block_on(async {
            tokio::select! {
                result = work => result,
                () = cancelled => Err(LlmError::Cancelled.into()),
            }
        })
    }

    async fn call(
        &self,
        question: &Question,
        pin: &ModelPin,
        price: Price,
        open: &AtomicU32,
    ) -> Result<LiveAnswer, LlmError> {
        let model = &question.request.model;
        let (completion, headers) = self.complete(question, open).await?;
        // Again: a server may have loaded another model while we waited.
        let after = self.catalog().await?;
        self.check_weights(model, pin, &after)?;
        let answered = Answered {
            deployment: header(&headers, "x-litellm-model-id"),
            model: completion.model.as_deref(),
        };
        self.check_name(model, pin, &after, &answered)?;
        let usage = completion.usage;
        // A gateway's streaming header says 0 for what is only counted at the end.
        let told = header(&headers, "x-litellm-response-cost").and_then(|c| c.parse().ok());
        let told = usage.cost.or(told).and_then(micros).filter(|cost| *cost > 0);
        let counted = price.cost(usage.prompt_tokens, usage.completion_tokens);
        Ok(LiveAnswer {
            text: completion.text,
            finish_reason: "stop".to_owned(),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cost_usd_micros: told.unwrap_or(counted),
        })
    }

    /// The price of a model, which must be the one that the pin names.
    async fn ready(&self, model: &str, pin: &ModelPin) -> Result<Price, LlmError> {
        let catalog = self.catalog().await?;
        self.check_weights(model, pin, &catalog)?;
        self.price(model, pin, &catalog)
    }

    /// The pin's weights must be those that the endpoint shows, if it shows any.
    fn check_weights(
        &self,
        model: &str,
        pin: &ModelPin,
        catalog: &Catalog,
    ) -> Result<(), LlmError> {
        match (pin.sha256, catalog.weights(model)) {
            (Some(pinned), Some(observed)) if pinned != observed => {
                Err(self.identity(model, format!("sha256:{pinned}"), format!("sha256:{observed}")))
            }
            _ => Ok(()),
        }
    }

    /// The pin's dated name must be the one that answered, as far as anyone tells.
    fn check_name(
        &self,
        model: &str,
        pin: &ModelPin,
        catalog: &Catalog,
        answered: &Answered<'_>,
    ) -> Result<(), LlmError> {
        let Some(pinned) = &pin.name else { return Ok(()) };
        let behind = catalog.provider_name(model, answered.deployment);
        // Gateways stamp the alias back onto the answer; it says nothing then.
        let stamped = answered.model.map(bare).filter(|name| *name != bare(model));
        match behind.as_deref().or(stamped) {
            Some(observed) if observed != pinned => {
                Err(self.identity(model, format!("name:{pinned}"), format!("name:{observed}")))
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, model: &str, pinned: String, observed: String) -> LlmError {
        let (model, endpoint) = (model.to_owned(), self.shown.clone());
        LlmError::Identity { model, pinned, observed, endpoint }
    }

    fn price(&self, model: &str, pin: &ModelPin, catalog: &Catalog) -> Result<Price, LlmError> {
        let declared = pin
            .price_input_usd_micros_per_mtok
            .zip(pin.price_output_usd_micros_per_mtok)
            .map(|(input, output)| Price {
                input_usd_micros_per_mtok: input,
                output_usd_micros_per_mtok: output,
            });
        // A server on this machine that names its weights file runs them here.
        let local = || {
            (is_loopback(&self.base) && catalog.weights(model).is_some()).then_some(Price::LOCAL)
        };
        let known = self.options.price.or(declared).or_else(|| catalog.price(model)).or_else(local);
        known.ok_or_else(|| LlmError::Price {
            model: model.to_owned(),
            endpoint: self.shown.clone(),
        })
    }

    async fn catalog(&self) -> Result<Catalog, LlmError> {
        let models = self.describe("models").await?;
        let info = self.describe("model/info").await?;
        Ok(Catalog::read(models.as_deref(), info.as_deref()))
    }

    /// A description of models, or `None` where the endpoint has none of this kind.
    async fn describe(&self, path: &str) -> Result<Option<Vec<u8>>, LlmError> {
        self.retrying(|| async {
            let request = self.authorised(self.http.get(self.url(path)?));
            let response = request.send().await.map_err(|e| self.transport(&e))?;
            let status = response.status().as_u16();
            match self.read(response, DESCRIPTION_BYTES_MAX).await {
                Ok(bytes) if status == 200 => Ok(Some(bytes)),
                Ok(bytes) => {
                    let error = self.status(status, None, &bytes);
                    if error.may_retry() { Err(error) } else { Ok(None) }
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Tries until there is an answer; `open` counts the attempts that may have been charged.
    async fn complete(
        &self,
        question: &Question,
        open: &AtomicU32,
    ) -> Result<(chat::Completion, HeaderMap), LlmError> {
        let attempt = async move |style| {
            open.fetch_add(1, Ordering::Relaxed);
            let tried = self.attempt(question, style).await;
            // A status instead of an answer is not charged.
            if matches!(tried, Err(LlmError::Status { .. })) {
                open.fetch_sub(1, Ordering::Relaxed);
            }
            tried
        };
        let styled = |style| self.retrying(move || attempt(style));
        match styled(SchemaStyle::JsonSchema).await {
            Err(LlmError::Status { status: 400 | 422, message, .. })
                if question.request.schema.is_some()
                    && (message.contains("response_format") || message.contains("json_schema")) =>
            {
                styled(SchemaStyle::JsonObject).await
            }
            other => other,
        }
    }

    async fn attempt(
        &self,
        question: &Question,
        style: SchemaStyle,
    ) -> Result<(chat::Completion, HeaderMap), LlmError> {
        let body = chat::body(question, style).to_string();
        let request = self
            .authorised(self.http.post(self.url("chat/completions")?))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .body(body);
        let response = request.send().await.map_err(|e| self.transport(&e))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if status != 200 {
            let bytes = self.read(response, DESCRIPTION_BYTES_MAX).await?;
            return Err(self.status(status, Some(&headers), &bytes));
        }
        let mut fold = Fold::new(&self.shown, question);
        let streamed = headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.starts_with("text/event-stream"))
        });
        if streamed {
            self.stream(response, &mut fold).await?;
        } else {
            // Some servers do not stream; one whole completion has the same fields.
            fold.push(&self.read(response, 2 * limits::LLM_ANSWER_BYTES_MAX).await?)?;
        }
        Ok((fold.finish()?, headers))
    }

    async fn stream(&self, response: Response, fold: &mut Fold) -> Result<(), LlmError> {
        let mut parser = SseParser::new(2 * limits::LLM_ANSWER_BYTES_MAX);
        let mut bytes = response.bytes_stream();
        let mut total = 0;
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|e| self.transport(&e))?;
            total += piece.len();
            if total > STREAM_OVERHEAD * limits::LLM_ANSWER_BYTES_MAX {
                return Err(self.protocol("the stream has no end".to_owned()));
            }
            let events = parser.push(&piece).map_err(|e| self.protocol(e.to_string()))?;
            for event in events {
                fold.push(&event)?;
                if fold.is_done() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read(&self, response: Response, limit: usize) -> Result<Vec<u8>, LlmError> {
        let mut out = Vec::new();
        let mut bytes = response.bytes_stream();
        while let Some(piece) = bytes.next().await {
            out.extend_from_slice(&piece.map_err(|e| self.transport(&e))?);
            if out.len() > limit {
                return Err(self.protocol(format!("it sent more than {limit} bytes")));
            }
        }
        Ok(out)
    }

    /// Tries until success, an error that another try does not help, or the last attempt.
    async fn retrying<T, F, W>(&self, attempt: F) -> Result<T, LlmError>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T, LlmError>>,
    {
        let mut number = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) if error.may_retry() && number < self.options.attempts => error,
                Err(error) => return Err(error),
            };
            let backoff = self.options.backoff * 2u32.pow(number - 1);
            let wait = error.retry_after().unwrap_or(backoff).min(RETRY_AFTER_MAX);
            tokio::time::sleep(wait).await;
            number += 1;
        }
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.options.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn url(&self, path: &str) -> Result<Url, LlmError> {
        self.base
            .join(path)
            .map_err(|e| LlmError::Endpoint { endpoint: self.shown.clone(), why: e.to_string() })
    }

    fn status(&self, status: u16, headers: Option<&HeaderMap>, body: &[u8]) -> LlmError {
        let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let error = value.as_ref().map(|v| v.get("error").unwrap_or(v));
        let message = match error {
            Some(error) => message_of(error),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        let code = |name: &str| {
            let code = error.and_then(|e| e.get(name)).and_then(|c| c.as_str());
            code == Some("insufficient_quota")
        };
        let seconds = headers.and_then(|h| header(h, RETRY_AFTER.as_str()));
        LlmError::Status {
            endpoint: self.shown.clone(),
            status,
            message: excerpt(&message),
            retry_after: seconds.and_then(|s| s.parse().ok()).map(Duration::from_secs),
            out_of_quota: code("code") || code("type"),
        }
    }

    fn transport(&self, error: &reqwest::Error) -> LlmError {
        LlmError::Transport { endpoint: self.shown.clone(), why: chain(error) }
    }

    fn protocol(&self, why: String) -> LlmError {
        LlmError::Protocol { endpoint: self.shown.clone(), why }
    }
}

/// What an answer says about its origin.
struct Answered<'a> {
    deployment: Option<&'a str>,
    model: Option<&'a str>,
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An error with its reasons; reqwest's own text names the URL only.
fn chain(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    excerpt(&deepest.to_string())
}
