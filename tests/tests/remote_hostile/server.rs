//! A small REAPI cache in memory, which does what it is told to do wrong.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use bazel_remote_apis::google::rpc;
use maestro_core::DigestFunction;
use prost::Message as _;
use reapi::action_cache_server::{ActionCache, ActionCacheServer};
use reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use reapi::digest_function::Value as Function;
use stream::byte_stream_server::{ByteStream, ByteStreamServer};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    None,
    /// It sends blobs with other content of the same length.
    OtherBytes,
    /// It sends more than it announced.
    MoreBytes,
    /// It sends frames that unpack to far more than they should.
    Bomb,
    /// It has results, and none of the blobs.
    NoBlobs,
    /// Its results are of commands that failed.
    Failed,
    /// Its results have links in the place of outputs.
    Links,
    /// The digests of its results are none.
    BadDigests,
    /// Its results are of other outputs.
    OtherOutputs,
    /// The directories of its trees have entries twice.
    OddDirectories,
    /// Its streams end after some bytes.
    CutStreams,
    /// Every other call fails, and asks to be made again.
    BusyOnce,
    /// It takes calls and never answers.
    StandsStill,
    /// It knows other digest functions.
    OtherFunction,
}

/// The server; ends when it is dropped.
pub struct HostileServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    mischief: Mutex<Mischief>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    results: Mutex<HashMap<String, reapi::ActionResult>>,
    calls: AtomicU32,
}

impl HostileServer {
    /// A server that behaves.
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let shared = Arc::new(Shared {
            mischief: Mutex::new(Mischief::None),
            blobs: Mutex::default(),
            results: Mutex::default(),
            calls: AtomicU32::new(0),
        });
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let service = Service(shared.clone());
        let router = tonic::transport::Server::builder()
            .add_service(ActionCacheServer::new(service.clone()))
            .add_service(CapabilitiesServer::new(service.clone()))
            .add_service(ByteStreamServer::new(service.clone()))
            .add_service(
                ContentAddressableStorageServer::new(service).max_decoding_message_size(16 << 20),
            );
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it misbehaves.
    pub fn begin(&self, mischief: Mischief) {
        *self.shared.mischief.lock().expect("sound") = mischief;
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Service {
    fn mischief(&self) -> Mischief {
        *self.0.mischief.lock().expect("sound")
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.blobs.lock().expect("sound")
    }

    /// What is to be done at the begin of each call.
    async fn begin(&self) -> Result<Mischief, Status> {
        let mischief = self.mischief();
        match mischief {
            Mischief::StandsStill => std::future::pending().await,
            Mischief::BusyOnce if self.0.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
                Err(Status::unavailable("busy"))
            }
            _ => Ok(mischief),
        }
    }

    /// Tells a tree by a root that has everything twice. All digests are what the bytes are.
    fn turn_around(&self, directory: &mut reapi::OutputDirectory) {
        let message = directory.tree_digest.as_ref().expect("our client sends it");
        let bytes = self.blobs().get(&message.hash).cloned().expect("it was sent");
        let mut tree = reapi::Tree::decode(bytes.as_slice()).expect("a tree");
        let root = tree.root.as_mut().expect("a root");
        root.files.extend(root.files.clone());
        root.directories.extend(root.directories.clone());
        directory.root_directory_digest = Some(self.put(root.encode_to_vec()));
        directory.tree_digest = Some(self.put(tree.encode_to_vec()));
    }

    fn put(&self, bytes: Vec<u8>) -> reapi::Digest {
        let digest = DigestFunction::Blake3.digest(&bytes);
        self.blobs().insert(digest.hex(), bytes);
        reapi::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
    }

    /// A blob as it is sent.
    fn sent(&self, hash: &str) -> Option<Vec<u8>> {
        let bytes = self.blobs().get(hash).cloned()?;
        Some(match self.mischief() {
            Mischief::NoBlobs => return None,
            Mischief::OtherBytes => bytes.into_iter().map(|byte| byte ^ 1).collect(),
            Mischief::MoreBytes => [bytes, b"more".to_vec()].concat(),
            _ => bytes,
        })
    }
}

/// Much of nothing, packed.
fn bomb() -> Vec<u8> {
    zstd::stream::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 26), 1).expect("packed")
}

fn unpacked(data: Vec<u8>, compressor: i32) -> Vec<u8> {
    match compressor == Compressor::Zstd as i32 {
        true => zstd::stream::decode_all(data.as_slice()).expect("what our client packed"),
        false => data,
    }
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        _: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let function = match self.begin().await? {
            Mischief::OtherFunction => Function::Sha512,
            _ => Function::Blake3,
        };
        let zstd = vec![Compressor::Zstd as i32];
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(reapi::CacheCapabilities {
                digest_functions: vec![function as i32],
                action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                    update_enabled: true,
                }),
                supported_compressors: zstd.clone(),
                supported_batch_update_compressors: zstd,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let mischief = self.begin().await?;
        let key = request.into_inner().action_digest.expect("a digest").hash;
        let found = self.0.results.lock().expect("sound").get(&key).cloned();
        let mut result = found.ok_or_else(|| Status::not_found("no result"))?;
        let digests = result.output_files.iter_mut().filter_map(|file| file.digest.as_mut()).chain(
            result.output_directories.iter_mut().filter_map(|tree| tree.tree_digest.as_mut()),
        );
        match mischief {
            Mischief::BadDigests => digests.for_each(|digest| digest.hash = "../x".to_owned()),
            Mischief::Failed => result.exit_code = 1,
            Mischief::OddDirectories => {
                result.output_directories.iter_mut().for_each(|tree| self.turn_around(tree));
            }
            Mischief::Links => {
                let path = "maestro-out/shared/p/c.out".to_owned();
                let target = "/etc/passwd".to_owned();
                let link = reapi::OutputSymlink { path, target, node_properties: None };
                result.output_symlinks.push(link);
            }
            Mischief::OtherOutputs => {
                result.output_files.iter_mut().for_each(|file| file.path.insert(0, 'x'));
                result.output_directories.iter_mut().for_each(|tree| tree.path.insert(0, 'x'));
            }
            _ => {}
        }
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        self.begin().await?;
        let request = request.into_inner();
        let key = request.action_digest.expect("a digest").hash;
        let result = request.action_result.expect("a result");
        self.0.results.lock().expect("sound").insert(key, result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        self.begin().await?;
        let asked = request.into_inner().blob_digests;
        let blobs = self.blobs();
        let missing = asked.into_iter().filter(|digest| !blobs.contains_key(&digest.hash));
        let missing_blob_digests = missing.collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        self.begin().await?;
        let mut responses = Vec::new();
        for request in request.into_inner().requests {
            let digest = request.digest.expect("a digest");
            let bytes = unpacked(request.data, request.compressor);
            self.blobs().insert(digest.hash.clone(), bytes);
            responses.push(reapi::batch_update_blobs_response::Response {
                digest: Some(digest),
                status: Some(rpc::Status::default()),
            });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let mischief = self.begin().await?;
        let mut responses = Vec::new();
        for digest in request.into_inner().digests {
            let mut data = self.sent(&digest.hash);
            let mut compressor = Compressor::Identity;
            if let (Mischief::Bomb, Some(data)) = (mischief, &mut data) {
                (*data, compressor) = (bomb(), Compressor::Zstd);
            }
            let code = if data.is_some() { 0 } else { 5 };
            responses.push(reapi::batch_read_blobs_response::Response {
                digest: Some(digest),
                data: data.unwrap_or_default(),
                compressor: compressor as i32,
                status: Some(rpc::Status { code, ..Default::default() }),
            });
        }
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Stream<reapi::GetTreeResponse>;

    async fn get_tree(
        &self,
        _: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("no trees"))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    type GetChunkMappingStream = Stream<reapi::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }
}

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = Stream<stream::ReadResponse>;

    async fn read(
        &self,
        request: Request<stream::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let mischief = self.begin().await?;
        let request = request.into_inner();
        let hash = hash(&request.resource_name);
        let bytes = self.sent(&hash).ok_or_else(|| Status::not_found("no blob"))?;
        let rest = bytes.get(request.read_offset as usize..).unwrap_or_default();
        let (rest, end) = match mischief {
            Mischief::CutStreams if rest.len() > 700_000 => {
                (&rest[..700_000], Some(Status::unavailable("cut off")))
            }
            _ => (rest, None),
        };
        let data = match mischief {
            Mischief::Bomb => bomb(),
            _ => zstd::stream::encode_all(rest, 1).expect("packed"),
        };
        let pieces =
            data.chunks(100_000).map(|piece| Ok(stream::ReadResponse { data: piece.to_vec() }));
        let all: Vec<_> = pieces.chain(end.map(Err)).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(all))))
    }

    async fn write(
        &self,
        request: Request<Streaming<stream::WriteRequest>>,
    ) -> Result<Response<stream::WriteResponse>, Status> {
        self.begin().await?;
        let mut requests = request.into_inner();
        let (mut name, mut data) = (String::new(), Vec::new());
        while let Some(request) = requests.message().await? {
            name.push_str(&request.resource_name);
            data.extend(request.data);
        }
        let bytes = zstd::stream::decode_all(data.as_slice()).expect("what our client packed");
        self.blobs().insert(hash(&name), bytes);
        Ok(Response::new(stream::WriteResponse { committed_size: -1 }))
    }

    async fn query_write_status(
        &self,
        _: Request<stream::QueryWriteStatusRequest>,
    ) -> Result<Response<stream::QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("nothing goes on here"))
    }
}

/// The hash in `…/{hash}/{size}`.
fn hash(name: &str) -> String {
    name.rsplit('/').nth(1).expect("a resource name").to_owned()
}
