//! The connection to a server: who we are, how long we wait, what is tried again.
//!
//! Every call goes through [`Link::call`], or through [`Link::attempts`] where it is a stream that
//! goes on where it was cut. A status either says that the server is there and refuses, or that it
//! cannot be reached; only the latter is tried again, and only that makes the server count as lost.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::{protobuf, rpc};
use prost::Message as _;
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataValue, MetadataMap, MetadataValue,
};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::backoff::Health;
use super::{ClientOptions, OptionsError};

/// The header in which a client says who it is.
const METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";
/// How often a connection on which calls wait is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Bytes that may be under way to us in one stream, and in all.
const WINDOW_BYTES: (u32, u32) = (4 << 20, 16 << 20);

/// What calls are made with.
pub(crate) type Wire = InterceptedService<Channel, Stamp>;

/// Puts on each request what the server may want to know.
#[derive(Clone)]
pub(crate) struct Stamp(MetadataMap);

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.0.iter() {
            match entry {
                tonic::metadata::KeyAndValueRef::Ascii(name, value) => {
                    request.metadata_mut().append(name, value.clone());
                }
                tonic::metadata::KeyAndValueRef::Binary(name, value) => {
                    request.metadata_mut().append_bin(name, value.clone());
                }
            }
        }
        Ok(request)
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nothing was asked: the server was lost before.
    Off,
    /// The server cannot be reached. `is_news` where the last call before was answered.
    Lost {
        /// What the connection says.
        status: Status,
        /// Whether nobody knows yet.
        is_news: bool,
    },
    /// The server is there, and says no.
    Refused(Status),
}

/// The connection.
pub(crate) struct Link {
    wire: Wire,
    /// How long a server may be silent.
    pub(super) silence: Duration,
    health: Mutex<Health>,
}

/// The attempts at one call.
pub(crate) struct Attempts<'l> {
    link: &'l Link,
    made: u32,
}

impl Link {
    /// Prepares a connection; it is made by the first call. Must be called in a runtime.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, OptionsError> {
        let channel = endpoint(options)?.connect_lazy();
        let wire = InterceptedService::new(channel, stamp(options)?);
        Ok(Self { wire, silence: options.silence, health: Mutex::default() })
    }

    /// Makes a call, again where it is worth it.
    pub(super) async fn call<T, F>(&self, mut make: impl FnMut(Wire) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut attempts = self.attempts()?;
        loop {
            match self.in_time(make(self.wire.clone())).await {
                Ok(answer) => return Ok(attempts.succeeded(answer)),
                Err(status) => attempts.failed(status).await?,
            }
        }
    }

    /// Begins a call whose attempts the caller makes.
    pub(super) fn attempts(&self) -> Result<Attempts<'_>, CallError> {
        match self.health().may_call(Instant::now()) {
            true => Ok(Attempts { link: self, made: 0 }),
            false => Err(CallError::Off),
        }
    }

    /// What calls are made with.
    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Waits for something of the server as long as it may be silent.
    pub(crate) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.silence, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("no answer within {} ms", self.silence.as_millis());
                Err(Status::deadline_exceeded(text))
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempts<'_> {
    /// The call was answered.
    pub(super) fn succeeded<T>(&self, answer: T) -> T {
        self.link.health().answered();
        answer
    }

    /// An attempt got further than the one before: what comes now is another matter.
    pub(super) fn progressed(&mut self) {
        self.made = 0;
    }

    /// An attempt failed. Waits until the next may be made, or says how the call ends.
    pub(super) async fn failed(&mut self, status: Status) -> Result<(), CallError> {
        self.made += 1;
        let asked = retry_delay(&status);
        if asked.is_none() && !is_lost(&status) {
            self.link.health().answered();
            return Err(CallError::Refused(status));
        }
        // A server that is silent once is silent again, and the user waits.
        let is_silent = status.code() == Code::DeadlineExceeded;
        let pause = match is_silent {
            true => None,
            false => self.link.health().pause(self.made, asked, jitter()),
        };
        match pause {
            Some(pause) => {
                tracing::debug!(%status, ?pause, "a call is tried again");
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => {
                let is_news = self.link.health().failed(Instant::now());
                Err(CallError::Lost { status, is_news })
            }
        }
    }
}

/// Whether a status says that the server was not reached, or broke off.
fn is_lost(status: &Status) -> bool {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, Unavailable, Unknown};
    matches!(
        status.code(),
        Aborted | Cancelled | DataLoss | DeadlineExceeded | Internal | Unavailable | Unknown
    )
}

/// The detail of a status that asks for a pause: `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<protobuf::Duration>,
}

/// How long the server asks to be left alone before the call is tried again.
fn retry_delay(status: &Status) -> Option<Duration> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let info = details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// A number between 0 and 1 that two clients do not share.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(random as u32) / f64::from(u32::MAX)
}

/// What a status says, for people.
pub(crate) fn text(status: &Status) -> String {
    let mut texts = vec![status.message().to_owned()];
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let text = error.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        source = error.source();
    }
    // What stands beside this says it better.
    let says_nothing = |text: &String| text.is_empty() || text == "transport error";
    if !texts.iter().all(says_nothing) {
        texts.retain(|text| !says_nothing(text));
    }
    match texts.iter().all(String::is_empty) {
        true => format!("{:?}", status.code()),
        false => texts.join(": "),
    }
}

fn endpoint(options: &ClientOptions) -> Result<Endpoint, OptionsError> {
    let url = || options.url.clone();
    let wrong = |why: &'static str| OptionsError::Url { url: url(), why };
    let (encrypted, rest) = match options.url.split_once("://") {
        Some(("grpc", rest)) => (false, rest),
        Some(("grpcs", rest)) => (true, rest),
        Some(_) => return Err(wrong("only `grpc://` and `grpcs://` are spoken")),
        None => return Err(wrong("it begins neither with `grpc://` nor with `grpcs://`")),
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', '@', '?', '#']) {
        return Err(wrong("what follows must be `HOST:PORT`, and nothing more"));
    }
    let scheme = if encrypted { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{rest}"))
        .map_err(|_| wrong("what follows must be `HOST:PORT`, and nothing more"))?
        .connect_timeout(options.silence)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(options.silence)
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1);
    let tls = &options.tls;
    if !encrypted {
        return match tls.authority.is_some() || tls.identity.is_some() {
            true => Err(wrong("certificates need `grpcs://`")),
            false => Ok(endpoint),
        };
    }
    let mut config = match &tls.authority {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(config).map_err(OptionsError::Certificates)
}

fn stamp(options: &ClientOptions) -> Result<Stamp, OptionsError> {
    let mut map = MetadataMap::new();
    for (name, value) in &options.headers {
        let wrong = || OptionsError::Header { name: name.clone() };
        let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
        let mut value: AsciiMetadataValue = value.parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    let who = reapi::RequestMetadata {
        tool_details: Some(reapi::ToolDetails {
            tool_name: "maestro".to_owned(),
            tool_version: options.version.clone(),
        }),
        tool_invocation_id: options.invocation_id.clone(),
        ..Default::default()
    };
    let value: BinaryMetadataValue = MetadataValue::from_bytes(&who.encode_to_vec());
    map.insert_bin(METADATA, value);
    Ok(Stamp(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_ask_for_a_pause() {
        let delay = protobuf::Duration { seconds: 1, nanos: 500_000_000 };
        let info = RetryInfo { retry_delay: Some(delay) };
        let details = rpc::Status {
            code: 8,
            message: "busy".to_owned(),
            details: vec![protobuf::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let details = details.encode_to_vec().into();
        let status = Status::with_details(Code::ResourceExhausted, "busy", details);
        assert_eq!(retry_delay(&status), Some(Duration::from_millis(1_500)));
        assert_eq!(retry_delay(&Status::unavailable("gone")), None);
        let garbage = Status::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert_eq!(retry_delay(&garbage), None);
    }
}
