//! The server of a remote cache and of remote execution: its services on one port, from binding to
//! draining.
//!
//! What it serves: Capabilities, ContentAddressableStorage, ByteStream, ActionCache, Execution,
//! health, and Workers, by which its own workers get actions.
//! Every call names an instance, and is checked against what the caller's token allows; see
//! [`access`]. Memory is bounded: a stream holds a few pieces of `STREAM_CHUNK_BYTES`, whoever
//! reads slowly is not read ahead for, and whoever is silent is let go.

pub mod access;
mod action_cache;
mod byte_stream;
mod capabilities;
mod chunks;
mod contents;
mod context;
mod dispatch;
mod execution;
mod request;
mod tree;
mod workers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::byte_stream_server::ByteStreamServer;
use maestro_cas::{Depot, StoreError};
use maestro_core::limits;
use reapi::action_cache_server::ActionCacheServer;
use reapi::capabilities_server::CapabilitiesServer;
use reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use reapi::execution_server::ExecutionServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Identity, Server as Transport, ServerTlsConfig};

use access::{Gate, Tokens};
use context::Context;
use dispatch::Dispatch;

use crate::protos::worker::workers_server::WorkersServer;

/// How often the kernel and HTTP/2 ask a silent peer whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes that a peer may send on one stream before they were taken.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// As above, on all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How a server is run.
pub struct ServerOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it serves.
    pub depot: Arc<Depot>,
    /// Who may do what; everybody everything where it is `None`.
    pub tokens: Option<Tokens>,
    /// Certificates, where connections are encrypted.
    pub tls: Option<TlsOptions>,
}

/// Certificates and keys in PEM.
pub struct TlsOptions {
    /// The chain of the server.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Who must have signed the certificates of clients, where they need one.
    pub client_ca: Option<Vec<u8>>,
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// Certificates and keys are none, or do not fit each other.
    #[error("the certificates cannot be used")]
    Certificates(#[source] tonic::transport::Error),
    /// Connections cannot be served.
    #[error("cannot serve")]
    Transport(#[from] tonic::transport::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    transport: Transport,
    depot: Arc<Depot>,
    tokens: Option<Tokens>,
}

impl Server {
    /// Reads the certificates, then listens.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let ServerOptions { listen: address, depot, tokens, tls } = options;
        let transport = transport(tls).map_err(ServerError::Certificates)?;
        let fail = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, transport, depot, tokens })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then lets calls that are under way end, for at most
    /// `DRAIN_MS_MAX`, and has the disk hold everything.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { listener, mut transport, depot, tokens, .. } = self;
        let dispatch = Dispatch::new();
        let router = routes(&mut transport, &depot, &dispatch, tokens).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let drained = stop.clone();
        let incoming = TcpListenerStream::new(listener);
        let serving = router.serve_with_incoming_shutdown(incoming, drained.cancelled_owned());
        let upkeep = tokio::spawn(keep_up(Arc::clone(&depot), stop.clone()));
        let ticking = tokio::spawn(dispatch.tick(stop.clone()));
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = shutdown => None,
        };
        stop.cancel();
        match ended {
            Some(ended) => ended?,
            None => {
                let drain = Duration::from_millis(limits::DRAIN_MS_MAX);
                match tokio::time::timeout(drain, &mut serving).await {
                    Ok(ended) => ended?,
                    Err(_) => tracing::warn!("calls that did not end in time are cut off"),
                }
            }
        }
        let _ = tokio::join!(upkeep, ticking);
        depot.maintain()?;
        Ok(())
    }
}

impl TlsOptions {
    fn into_config(self) -> ServerTlsConfig {
        let identity = Identity::from_pem(self.certificate, self.key);
        let config = ServerTlsConfig::new().identity(identity);
        match self.client_ca {
            Some(ca) => config.client_ca_root(Certificate::from_pem(ca)),
            None => config,
        }
    }
}

/// How connections are held, and encrypted where there are certificates.
fn transport(tls: Option<TlsOptions>) -> Result<Transport, tonic::transport::Error> {
    let transport = Transport::builder()
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::CONNECTION_STREAMS_MAX);
    match tls {
        Some(tls) => transport.tls_config(tls.into_config()),
        None => Ok(transport),
    }
}

async fn routes(
    transport: &mut Transport,
    depot: &Arc<Depot>,
    dispatch: &Arc<Dispatch>,
    tokens: Option<Tokens>,
) -> tonic::transport::server::Router {
    let gate = Gate::new(tokens);
    let context = Context::new(Arc::clone(depot));
    let contents = ContentAddressableStorageServer::new(contents::Contents(context.clone()))
        .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let results = ActionCacheServer::new(action_cache::Results(context.clone()))
        .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let streams = ByteStreamServer::new(byte_stream::Streams::new(context.clone()))
        .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let (executions, pool) = {
        let (context, dispatch) = (context.clone(), Arc::clone(dispatch));
        let pool = workers::Pool { context: context.clone(), dispatch: Arc::clone(&dispatch) };
        (execution::Executions { context, dispatch }, pool)
    };
    let executions =
        ExecutionServer::new(executions).max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let pool = WorkersServer::new(pool).max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let capabilities = CapabilitiesServer::new(capabilities::Announced(context));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ContentAddressableStorageServer<contents::Contents>>().await;
    health.set_serving::<ActionCacheServer<action_cache::Results>>().await;
    health.set_serving::<ByteStreamServer<byte_stream::Streams>>().await;
    health.set_serving::<ExecutionServer<execution::Executions>>().await;
    transport
        .add_service(health_service)
        .add_service(InterceptedService::new(contents, gate.clone()))
        .add_service(InterceptedService::new(results, gate.clone()))
        .add_service(InterceptedService::new(streams, gate.clone()))
        .add_service(InterceptedService::new(executions, gate.clone()))
        .add_service(InterceptedService::new(pool, gate.clone()))
        .add_service(InterceptedService::new(capabilities, gate))
}

/// Has the disk hold what was acknowledged, from time to time.
async fn keep_up(depot: Arc<Depot>, stop: tokio_util::sync::CancellationToken) {
    let pause = Duration::from_millis(limits::DEPOT_SEAL_MS);
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        let depot = Arc::clone(&depot);
        match tokio::task::spawn_blocking(move || depot.maintain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store cannot be maintained"),
            Err(error) => tracing::error!(%error, "the maintenance of the store ended"),
        }
    }
}
