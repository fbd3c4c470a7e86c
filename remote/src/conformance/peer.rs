//! The server that is checked: the connection, and single calls with a deadline each.

use std::future::Future;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::semver::SemVer;
use bazel_remote_apis::google::bytestream as stream;
use maestro_core::{Digest, DigestFunction, limits};
use prost::Message as _;
use reapi::action_cache_client::ActionCacheClient;
use reapi::capabilities_client::CapabilitiesClient;
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use reapi::execution_client::ExecutionClient;
use stream::byte_stream_client::ByteStreamClient;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::content::{Blob, unique};
use super::verdict::{Verdict, failed, good};
use crate::resource::{Encoding, Resource, check_instance};
use crate::{compression, convert};

/// The header that says which build a call is part of.
const METADATA_HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";
/// The name under which the suite introduces itself.
const TOOL_NAME: &str = "maestro-conformance";

/// Which server is checked, and how it is reached.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `grpc://HOST:PORT`, or `grpcs://HOST:PORT` for TLS.
    pub endpoint: String,
    /// The instance; empty where the server has one without a name.
    pub instance: String,
    /// Headers of every call.
    pub headers: Vec<(String, String)>,
    /// Who signed the server's certificate, in PEM; the usual authorities where it is `None`.
    pub tls_ca: Option<Vec<u8>>,
    /// Properties of the platform on which actions are to run, by name.
    pub platform: Vec<(String, String)>,
}

/// Why a target is none. Nobody was asked yet.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address has another form.
    #[error("`{endpoint}` is not `grpc://HOST:PORT` or `grpcs://HOST:PORT`")]
    Address {
        /// What was given.
        endpoint: String,
    },
    /// A header has characters that headers do not have, or a name that is none.
    #[error("`{name}` cannot be sent as a header")]
    Header {
        /// Its name.
        name: String,
    },
    /// The instance name is none.
    #[error(transparent)]
    Instance(#[from] crate::resource::InstanceError),
    /// The certificate cannot be used.
    #[error("the certificate of the authority cannot be used")]
    Certificate(#[source] tonic::transport::Error),
}

/// Why a server could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It was not said well which one.
    #[error(transparent)]
    Target(#[from] EndpointError),
    /// Nobody listens there, or whoever does speaks something else.
    #[error("cannot reach `{endpoint}`")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// It does not say what it can do.
    #[error("`{endpoint}` does not answer `GetCapabilities`")]
    Silent {
        /// The address.
        endpoint: String,
        /// What it says instead.
        #[source]
        source: Box<Status>,
    },
}

/// A channel that adds the headers of the user and those of the protocol.
pub(super) type Connection = InterceptedService<Channel, Headers>;

/// A server, and the digest function with which it is asked.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) function: DigestFunction,
    pub(super) capabilities: reapi::ServerCapabilities,
    pub(super) target: Target,
}

/// Adds headers to every call.
#[derive(Clone)]
pub(super) struct Headers(MetadataMap);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.0.iter() {
            match entry {
                tonic::metadata::KeyAndValueRef::Ascii(key, value) => {
                    request.metadata_mut().insert(key, value.clone());
                }
                tonic::metadata::KeyAndValueRef::Binary(key, value) => {
                    request.metadata_mut().insert_bin(key, value.clone());
                }
            }
        }
        Ok(request)
    }
}

impl Headers {
    fn of(target: &Target) -> Result<Self, EndpointError> {
        let mut map = MetadataMap::new();
        for (name, value) in &target.headers {
            let fail = || EndpointError::Header { name: name.clone() };
            let key = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes());
            let value = MetadataValue::<Ascii>::try_from(value.as_str()).map_err(|_| fail())?;
            map.insert(key.map_err(|_| fail())?, value);
        }
        let metadata = reapi::RequestMetadata {
            tool_details: Some(reapi::ToolDetails {
                tool_name: TOOL_NAME.to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            tool_invocation_id: unique(),
            ..Default::default()
        };
        map.insert_bin(METADATA_HEADER, MetadataValue::from_bytes(&metadata.encode_to_vec()));
        Ok(Self(map))
    }
}

fn endpoint(target: &Target) -> Result<Endpoint, EndpointError> {
    let address = || EndpointError::Address { endpoint: target.endpoint.clone() };
    let (scheme, rest) = target.endpoint.split_once("://").ok_or_else(address)?;
    let (scheme, tls) = match scheme {
        "grpc" => ("http", false),
        "grpcs" => ("https", true),
        _ => return Err(address()),
    };
    let (host, port) = rest.rsplit_once(':').ok_or_else(address)?;
    if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err(address());
    }
    let limit = Duration::from_millis(limits::CONFORMANCE_CALL_MS_MAX);
    let endpoint = Channel::from_shared(format!("{scheme}://{rest}")).map_err(|_| address())?;
    let endpoint = endpoint.connect_timeout(limit).tcp_nodelay(true);
    if !tls {
        return Ok(endpoint);
    }
    let config = match &target.tls_ca {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    endpoint.tls_config(config).map_err(EndpointError::Certificate)
}

/// Waits for an answer, but not for ever.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let limit = Duration::from_millis(limits::CONFORMANCE_CALL_MS_MAX);
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

impl Peer {
    /// Connects, and asks the server what it can do.
    pub(super) async fn connect(target: Target) -> Result<Self, ConnectError> {
        check_instance(&target.instance).map_err(EndpointError::from)?;
        let (endpoint, headers) = (endpoint(&target)?, Headers::of(&target)?);
        let name = target.endpoint.clone();
        let channel = endpoint.connect().await;
        let channel = channel
            .map_err(|source| ConnectError::Unreachable { endpoint: name.clone(), source })?;
        let connection = InterceptedService::new(channel, headers);
        let capabilities = reapi::ServerCapabilities::default();
        let mut peer = Self { connection, function: DigestFunction::Sha256, capabilities, target };
        let silent = |source| ConnectError::Silent { endpoint: name, source: Box::new(source) };
        peer.capabilities = peer.ask_capabilities().await.map_err(silent)?;
        if let Some(first) = peer.functions().first() {
            peer.function = *first;
        }
        Ok(peer)
    }

    /// The address, as it was given.
    pub(super) fn endpoint(&self) -> &str {
        &self.target.endpoint
    }

    /// The instance that is asked.
    pub(super) fn instance(&self) -> String {
        self.target.instance.clone()
    }

    /// The same server, asked with another digest function.
    pub(super) fn with(&self, function: DigestFunction) -> Self {
        Self { function, ..self.clone() }
    }

    /// What the server says of its cache.
    pub(super) fn cache(&self) -> reapi::CacheCapabilities {
        self.capabilities.cache_capabilities.clone().unwrap_or_default()
    }

    /// The digest functions of the server that can be computed here.
    pub(super) fn functions(&self) -> Vec<DigestFunction> {
        let listed = self.cache().digest_functions;
        let ours = [DigestFunction::Sha256, DigestFunction::Blake3];
        let is_listed =
            |function: &DigestFunction| listed.contains(&convert::function_value(*function));
        ours.into_iter().filter(is_listed).collect()
    }

    /// The versions that the server says it speaks.
    pub(super) fn versions(&self) -> String {
        let text = |version: &Option<SemVer>| match version {
            Some(version) => format!("{}.{}", version.major, version.minor),
            None => "?".to_owned(),
        };
        let ServerCapabilities { low_api_version, high_api_version, .. } = &self.capabilities;
        format!("{} to {}", text(low_api_version), text(high_api_version))
    }

    /// The digest function as requests name it.
    pub(super) fn function_value(&self) -> i32 {
        convert::function_value(self.function)
    }

    /// Whether the server says that it takes zstd.
    pub(super) fn has_zstd(&self) -> bool {
        self.cache().supported_compressors.contains(&(Compressor::Zstd as i32))
    }

    pub(super) fn contents(&self) -> ContentAddressableStorageClient<Connection> {
        ContentAddressableStorageClient::new(self.connection.clone())
    }

    pub(super) fn streams(&self) -> ByteStreamClient<Connection> {
        ByteStreamClient::new(self.connection.clone())
    }

    pub(super) fn results(&self) -> ActionCacheClient<Connection> {
        ActionCacheClient::new(self.connection.clone())
    }

    pub(super) fn executions(&self) -> ExecutionClient<Connection> {
        ExecutionClient::new(self.connection.clone())
    }

    /// Asks what the server can do.
    pub(super) async fn ask_capabilities(&self) -> Result<reapi::ServerCapabilities, Status> {
        let request = reapi::GetCapabilitiesRequest { instance_name: self.instance() };
        let mut client = CapabilitiesClient::new(self.connection.clone());
        Ok(bounded(client.get_capabilities(request)).await?.into_inner())
    }

    /// The name under which a blob is read.
    pub(super) fn read_name(&self, digest: &Digest, encoding: Encoding) -> String {
        let instance = self.instance();
        Resource { instance, upload: None, encoding, digest: *digest }.to_string()
    }

    /// A name under which a blob can be written, another one each time.
    pub(super) fn write_name(&self, digest: &Digest, encoding: Encoding) -> String {
        let (instance, upload) = (self.instance(), Some(unique()));
        Resource { instance, upload, encoding, digest: *digest }.to_string()
    }

    /// Stores blobs, one by one where one batch cannot hold them.
    pub(super) async fn store(&self, blobs: &[Blob]) -> Result<(), Verdict> {
        for blob in blobs {
            let name = self.write_name(&blob.digest, Encoding::Identity);
            let written = good("an upload", self.write(&name, &blob.bytes).await)?;
            if u64::try_from(written) != Ok(blob.digest.size) {
                let size = blob.digest.size;
                return Err(failed(format!("an upload: expected {size} bytes, got {written}")));
            }
        }
        Ok(())
    }

    /// A random blob that the server has.
    pub(super) async fn stored(&self, size: usize) -> Result<Blob, Verdict> {
        let blob = Blob::random(self.function, size);
        self.store(std::slice::from_ref(&blob)).await?;
        Ok(blob)
    }

    /// Which of these blobs the server lacks, as it says it.
    pub(super) async fn missing(
        &self,
        digests: Vec<reapi::Digest>,
    ) -> Result<Vec<reapi::Digest>, Status> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance(),
            blob_digests: digests,
            digest_function: self.function_value(),
        };
        let answer = bounded(self.contents().find_missing_blobs(request)).await?;
        Ok(answer.into_inner().missing_blob_digests)
    }

    /// Whether the server says that it has a blob.
    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, Verdict> {
        let missing = self.missing(vec![convert::wire_digest(digest)]).await;
        Ok(good("`FindMissingBlobs`", missing)?.is_empty())
    }

    /// Writes all of a content, in messages of a size that every server takes.
    pub(super) async fn write(&self, name: &str, bytes: &[u8]) -> Result<i64, Status> {
        self.send(pieces(name, bytes, 0)).await
    }

    /// Sends messages of a write, and takes the answer.
    pub(super) async fn send(&self, messages: Vec<stream::WriteRequest>) -> Result<i64, Status> {
        let mut client = self.streams();
        let call = client.write(tokio_stream::iter(messages));
        Ok(bounded(call).await?.into_inner().committed_size)
    }

    /// Reads a resource from a place on; `limit` 0 reads all that follows.
    pub(super) async fn read_part(
        &self,
        name: &str,
        offset: i64,
        limit: i64,
    ) -> Result<Vec<u8>, Status> {
        let resource_name = name.to_owned();
        let request = stream::ReadRequest { resource_name, read_offset: offset, read_limit: limit };
        bounded(async {
            let mut answer = self.streams().read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(piece) = answer.message().await? {
                bytes.extend(piece.data);
                if bytes.len() as u64 > limits::CONFORMANCE_BYTES_MAX {
                    return Err(Status::out_of_range("more came than was ever stored"));
                }
            }
            Ok(bytes)
        })
        .await
    }

    /// Reads a whole blob as it is.
    pub(super) async fn read(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        self.read_part(&self.read_name(digest, Encoding::Identity), 0, 0).await
    }

    /// Reads a blob as zstd from an uncompressed offset on, and unpacks it.
    pub(super) async fn read_zstd(&self, digest: &Digest, offset: i64) -> Result<Vec<u8>, Status> {
        let name = self.read_name(digest, Encoding::Zstd);
        let packed = self.read_part(&name, offset, 0).await?;
        let unpacked = compression::unpack(&packed, digest.size);
        unpacked.map_err(|error| Status::data_loss(format!("what came is no zstd: {error}")))
    }
}

use reapi::ServerCapabilities;

/// The messages that carry a content from an offset on.
pub(super) fn pieces(name: &str, bytes: &[u8], offset: usize) -> Vec<stream::WriteRequest> {
    let message = |write_offset: usize, data: &[u8], finish_write| stream::WriteRequest {
        resource_name: name.to_owned(),
        write_offset: write_offset as i64,
        finish_write,
        data: data.to_vec(),
    };
    if bytes.is_empty() {
        return vec![message(offset, b"", true)];
    }
    let (size, step) = (bytes.len(), limits::STREAM_CHUNK_BYTES);
    let piece = |(at, data): (usize, &[u8])| {
        let start = at * step;
        message(offset + start, data, start + data.len() == size)
    };
    bytes.chunks(step).enumerate().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_are_none_are_refused() {
        let check = |address: &str, expect: Option<&str>| {
            let target = Target { endpoint: address.to_owned(), ..Default::default() };
            let error = endpoint(&target).err().map(|error| error.to_string());
            let expect = expect.map(|text| text.replace("IT", address));
            assert_eq!(error, expect, "{address}");
        };
        check("grpc://127.0.0.1:8980", None);
        check("grpc://[::1]:8980", None);
        check("grpcs://cache.example:443", None);
        let shape = Some("`IT` is not `grpc://HOST:PORT` or `grpcs://HOST:PORT`");
        for address in ["", "127.0.0.1:8980", "http://a:1", "grpc://a", "grpc://:1", "grpc://a/b:1"]
        {
            check(address, shape);
        }
        let headers = vec![("no name".to_owned(), "x".to_owned())];
        let target = Target { headers, ..Default::default() };
        let error = Headers::of(&target).map(|_| ()).expect_err("it is none").to_string();
        assert_eq!(error, "`no name` cannot be sent as a header");
    }

    #[test]
    fn the_last_piece_ends_the_write() {
        let ends = |size: usize| {
            let messages = pieces("n", &vec![0; size], 5);
            let sent: usize = messages.iter().map(|message| message.data.len()).sum();
            assert_eq!(sent, size);
            messages.iter().map(|m| (m.write_offset, m.finish_write)).collect::<Vec<_>>()
        };
        let step = limits::STREAM_CHUNK_BYTES as i64;
        assert_eq!(ends(0), [(5, true)]);
        assert_eq!(ends(step as usize), [(5, true)]);
        assert_eq!(ends(step as usize + 1), [(5, false), (5 + step, true)]);
    }
}
