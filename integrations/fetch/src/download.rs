//! One download: attempts, and the stream from a server into the store.
//!
//! A mismatch is not asked for again, since a server that gives another file goes on giving it.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::time::{Duration, Instant};

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_executor::runner::Cancel;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, NoProxy, Proxy, Response, Url, redirect};
use tokio::runtime::Runtime;

use crate::intake::Intake;
use crate::request::Download;
use crate::{FetchError, FetchOptions};

/// How soon a wait notices that it is cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// How one shows who one is.
#[derive(Clone, Default)]
pub(crate) struct Access {
    /// The header `Authorization`; never sent to another host by a redirect.
    pub(crate) authorization: Option<String>,
}

/// An HTTP client and the runtime that drives it.
pub(crate) struct Downloader {
    options: FetchOptions,
    client: Client,
    runtime: Runtime,
}

impl Downloader {
    pub(crate) fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        // One thread drives the connections; each caller's thread runs its own download.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("maestro-fetch")
            .enable_all()
            .build()
            .map_err(|source| FetchError::Client { source })?;
        Ok(Self { options: options.clone(), client: client(options)?, runtime })
    }

    /// Downloads, checks and stores the file that lies at `url`.
    pub(crate) fn run(
        &self,
        url: &Url,
        access: &Access,
        download: &Download,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        self.runtime.block_on(self.mirror(url, access, download, store, cancel))
    }

    /// Asks one mirror until it answers well, definitely badly, or too often badly.
    async fn mirror(
        &self,
        url: &Url,
        access: &Access,
        download: &Download,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(url, access, download, store, cancel).await {
                Ok(digest) => return Ok(digest),
                Err(error) => error,
            };
            if !error.is_transient() || attempt >= self.options.attempts_max {
                return Err(error);
            }
            let wait = self.wait_ms(attempt, &error);
            tracing::debug!(%url, attempt, wait_ms = wait, %error, "download is tried again");
            pause(Duration::from_millis(wait), cancel).await?;
            attempt += 1;
        }
    }

    /// Exponential backoff with full jitter, or what the server asks for; bounded.
    fn wait_ms(&self, attempt: u32, error: &FetchError) -> u64 {
        let FetchOptions { backoff_ms, backoff_ms_max, .. } = self.options;
        if let FetchError::Status { retry_after_ms: Some(asked), .. } = error {
            return (*asked).min(backoff_ms_max);
        }
        let doubled = backoff_ms.saturating_mul(1 << (attempt - 1).min(32));
        random(doubled.min(backoff_ms_max))
    }

    async fn attempt(
        &self,
        url: &Url,
        access: &Access,
        download: &Download,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let mut pace = Pace::new(url, &self.options, cancel);
        let mut request = self.client.get(url.clone());
        if let Some(text) = &access.authorization {
            let mut header = HeaderValue::from_str(text)
                .map_err(|_| FetchError::Credentials { url: url.to_string() })?;
            header.set_sensitive(true);
            request = request.header(AUTHORIZATION, header);
        }
        let response =
            pace.wait(request.send()).await?.map_err(|source| self.transfer(url, source))?;
        check_status(url, &response)?;
        let mut intake = Intake::new(&download.pin, download.bytes_max, url, store)?;
        intake.expect(response.content_length().unwrap_or(0))?;
        let mut response = response;
        loop {
            let chunk = pace.wait(response.chunk()).await?;
            let Some(chunk) = chunk.map_err(|source| self.transfer(url, source))? else { break };
            pace.count(chunk.len() as u64)?;
            intake.push(&chunk)?;
        }
        intake.finish()
    }

    fn transfer(&self, url: &Url, source: reqwest::Error) -> FetchError {
        let url = url.to_string();
        if source.is_redirect() {
            return FetchError::Redirect { url, limit: self.options.redirects_max };
        }
        FetchError::Transfer { url, source: source.without_url() }
    }
}

fn client(options: &FetchOptions) -> Result<Client, FetchError> {
    let mut builder = Client::builder()
        .user_agent(&options.user_agent)
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .redirect(redirect_policy(options.redirects_max))
        // The digest is that of the file as it lies on the server.
        .no_gzip()
        .referer(false)
        // Only what the options say: no proxy of the environment.
        .no_proxy();
    for path in &options.authorities {
        let failure = |source| FetchError::ClientFile { path: path.clone(), source };
        let text = std::fs::read(path).map_err(failure)?;
        let certificates = Certificate::from_pem_bundle(&text)
            .map_err(|error| failure(io::Error::other(error)))?;
        builder = builder.tls_certs_merge(certificates);
    }
    let proxies = &options.proxy;
    let except = || proxies.no_proxy.as_deref().and_then(NoProxy::from_string);
    let bad =
        |scheme, source: reqwest::Error| FetchError::Proxy { scheme, source: source.without_url() };
    if let Some(url) = &proxies.http {
        let proxy = Proxy::http(url).map_err(|error| bad("http", error))?;
        builder = builder.proxy(proxy.no_proxy(except()));
    }
    if let Some(url) = &proxies.https {
        let proxy = Proxy::https(url).map_err(|error| bad("https", error))?;
        builder = builder.proxy(proxy.no_proxy(except()));
    }
    builder.build().map_err(|error| FetchError::Client { source: io::Error::other(error) })
}

fn redirect_policy(redirects_max: usize) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        // Never from an encrypted connection to an open one. To other schemes than these two the
        // client follows no redirect by itself.
        let from_https = attempt.previous().last().is_some_and(|last| last.scheme() == "https");
        let downgrades = from_https && attempt.url().scheme() != "https";
        if attempt.previous().len() > redirects_max || downgrades {
            return attempt.error(io::Error::other("the redirect is not followed"));
        }
        attempt.follow()
    })
}

fn check_status(url: &Url, response: &Response) -> Result<(), FetchError> {
    let status = response.status();
    if status == reqwest::StatusCode::OK {
        return Ok(());
    }
    // Only the form in seconds: dates would need a clock that agrees with the server's.
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after_ms =
        seconds.and_then(|text| text.trim().parse::<u64>().ok()).map(|s| s.saturating_mul(1000));
    Err(FetchError::Status { url: url.to_string(), status, retry_after_ms })
}

/// Watches that bytes keep coming, and that somebody still wants them.
struct Pace<'a> {
    url: &'a Url,
    window: Duration,
    bytes_min: u64,
    cancel: &'a Cancel,
    since: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(url: &'a Url, options: &FetchOptions, cancel: &'a Cancel) -> Self {
        let window = Duration::from_millis(options.stall_window_ms);
        let bytes_min = options.stall_bytes_min;
        Self { url, window, bytes_min, cancel, since: Instant::now(), bytes: 0 }
    }

    /// Waits for `work`, at most until the window ends.
    async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, FetchError> {
        let mut work = std::pin::pin!(work);
        loop {
            if self.cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            if let Ok(done) = tokio::time::timeout(CANCEL_POLL, work.as_mut()).await {
                return Ok(done);
            }
            if self.since.elapsed() > self.window {
                self.next_window()?;
            }
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.bytes += bytes;
        if self.since.elapsed() > self.window { self.next_window() } else { Ok(()) }
    }

    fn next_window(&mut self) -> Result<(), FetchError> {
        if self.bytes < self.bytes_min {
            return Err(FetchError::Stalled {
                url: self.url.to_string(),
                bytes_min: self.bytes_min,
                window_ms: self.window.as_millis() as u64,
            });
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

async fn pause(time: Duration, cancel: &Cancel) -> Result<(), FetchError> {
    let end = Instant::now() + time;
    loop {
        if cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        tokio::time::sleep(left.min(CANCEL_POLL)).await;
    }
}

/// A number up to `max`. The seeds of the standard library's hash maps are random enough to
/// spread retries.
fn random(max: u64) -> u64 {
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    number % max.saturating_add(1).max(1)
}
