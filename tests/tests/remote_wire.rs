//! `maestro serve` on the wire: what the protocol says of single calls, good and hostile ones.
//!
//! Names in comments are lines of the checklist of REAPI semantics: C of blobs, A of results, K of
//! capabilities.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use maestro_core::digest::{Digest, DigestFunction};
use maestro_tests::cache_server::Server;
use prost::Message as _;
use reapi::action_cache_client::ActionCacheClient;
use reapi::capabilities_client::CapabilitiesClient;
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use stream::byte_stream_client::ByteStreamClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

const SHA256: DigestFunction = DigestFunction::Sha256;
const BLAKE3: DigestFunction = DigestFunction::Blake3;

/// A server, and a connection to it.
struct Peer {
    server: Server,
    channel: Channel,
    _data: tempfile::TempDir,
}

impl Peer {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let server = Server::start(data.path(), &[]);
        Self::of(server, data).await
    }

    async fn of(server: Server, data: tempfile::TempDir) -> Self {
        let channel = Channel::from_shared(format!("http://{}", server.address()));
        let channel = channel.expect("an address").connect().await.expect("it listens");
        Self { server, channel, _data: data }
    }

    fn contents(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    /// Uploads blobs in one batch; the code of each.
    async fn put(
        &self,
        function: DigestFunction,
        blobs: Vec<(reapi::Digest, Vec<u8>, Compressor)>,
    ) -> Result<Vec<i32>, Status> {
        let requests = blobs.into_iter().map(|(digest, data, compressor)| {
            let (digest, compressor) = (Some(digest), compressor as i32);
            reapi::batch_update_blobs_request::Request { digest, data, compressor }
        });
        let request = reapi::BatchUpdateBlobsRequest {
            requests: requests.collect(),
            digest_function: number(function),
            ..Default::default()
        };
        let answer = self.contents().batch_update_blobs(request).await?.into_inner();
        Ok(answer.responses.into_iter().map(|r| r.status.expect("a status").code).collect())
    }

    async fn put_one(&self, function: DigestFunction, bytes: &[u8]) -> reapi::Digest {
        let digest = wire(&function.digest(bytes));
        let codes = self.put(function, vec![(digest.clone(), bytes.into(), Compressor::Identity)]);
        assert_eq!(codes.await.expect("a good batch"), [0]);
        digest
    }

    async fn missing(&self, function: DigestFunction, blobs: Vec<reapi::Digest>) -> usize {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: blobs,
            digest_function: number(function),
            ..Default::default()
        };
        let answer = self.contents().find_missing_blobs(request).await.expect("an answer");
        answer.into_inner().missing_blob_digests.len()
    }

    /// Writes pieces, each at its offset; how much the server has then.
    async fn write(&self, name: &str, pieces: &[(i64, &[u8], bool)]) -> Result<i64, Status> {
        let requests: Vec<stream::WriteRequest> = pieces
            .iter()
            .map(|(write_offset, data, finish_write)| stream::WriteRequest {
                resource_name: name.to_owned(),
                write_offset: *write_offset,
                finish_write: *finish_write,
                data: data.to_vec(),
            })
            .collect();
        let mut client = ByteStreamClient::new(self.channel.clone());
        let answer = client.write(tokio_stream::iter(requests)).await?;
        Ok(answer.into_inner().committed_size)
    }

    async fn read(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = stream::ReadRequest {
            resource_name: name.to_owned(),
            read_offset: offset,
            read_limit: limit,
        };
        let mut client = ByteStreamClient::new(self.channel.clone());
        let mut answer = client.read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = answer.message().await? {
            bytes.extend(piece.data);
        }
        Ok(bytes)
    }

    async fn write_status(&self, name: &str) -> (i64, bool) {
        let request = stream::QueryWriteStatusRequest { resource_name: name.to_owned() };
        let mut client = ByteStreamClient::new(self.channel.clone());
        let answer = client.query_write_status(request).await.expect("an answer").into_inner();
        (answer.committed_size, answer.complete)
    }
}

fn number(function: DigestFunction) -> i32 {
    match function {
        DigestFunction::Blake3 => reapi::digest_function::Value::Blake3 as i32,
        DigestFunction::Sha256 => reapi::digest_function::Value::Sha256 as i32,
    }
}

fn wire(digest: &Digest) -> reapi::Digest {
    reapi::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

/// The name under which content is written or read.
fn named(prefix: &str, function: DigestFunction, bytes: &[u8]) -> String {
    let digest = function.digest(bytes);
    let function = if function == BLAKE3 { "blake3/" } else { "" };
    format!("{prefix}/{function}{}/{}", digest.hex(), digest.size)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) {
    let status = result.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status:?}");
}

#[tokio::test]
async fn capabilities_name_what_is_there() {
    let peer = Peer::start().await;
    let mut client = CapabilitiesClient::new(peer.channel.clone());
    let request = reapi::GetCapabilitiesRequest::default();
    let answer = client.get_capabilities(request).await.expect("an answer").into_inner();
    let cache = answer.cache_capabilities.expect("a cache");
    for function in [SHA256, BLAKE3] {
        assert!(cache.digest_functions.contains(&number(function)), "{cache:?}");
    }
    assert!(cache.supported_compressors.contains(&(Compressor::Zstd as i32)));
    assert!(answer.execution_capabilities.is_some_and(|execution| execution.exec_enabled));
    let low = answer.low_api_version.expect("a version");
    assert_eq!((low.major, low.minor), (2, 0), "K02: old clients are served");
}

#[tokio::test]
async fn batches_tell_of_each_blob_by_itself() {
    let peer = Peer::start().await;
    for function in [SHA256, BLAKE3] {
        let (good, packed) = (b"some content".to_vec(), vec![7u8; 100_000]);
        let zstd = zstd::bulk::compress(&packed, 3).expect("it can be packed");
        let digest = |bytes: &[u8]| wire(&function.digest(bytes));
        let mut long = digest(b"wrong size");
        long.size_bytes += 1;
        let bomb = reapi::Digest { size_bytes: 10, ..digest(&packed) };
        let blobs = vec![
            (digest(&good), good.clone(), Compressor::Identity),
            (digest(&packed), zstd.clone(), Compressor::Zstd),
            (digest(b"other"), b"content".to_vec(), Compressor::Identity),
            (long, b"wrong size".to_vec(), Compressor::Identity),
            (bomb, zstd, Compressor::Zstd),
            (digest(b"x"), b"no zstd at all".to_vec(), Compressor::Zstd),
        ];
        let codes = peer.put(function, blobs).await.expect("a batch");
        let wrong = Code::InvalidArgument as i32;
        assert_eq!(codes, [0, 0, wrong, wrong, wrong, wrong], "C06");
        let asked = vec![digest(&good), digest(b""), digest(&packed), digest(b"other")];
        let twice = [asked.clone(), asked].concat();
        assert_eq!(peer.missing(function, twice).await, 1, "C07 C10");
    }
    // C11: what is sent as next to nothing counts as what it comes to.
    let unpacked = vec![0u8; 5 << 20];
    let zstd = zstd::bulk::compress(&unpacked, 3).expect("it can be packed");
    let blob = (wire(&SHA256.digest(&unpacked)), zstd, Compressor::Zstd);
    refused(peer.put(SHA256, vec![blob]).await, Code::InvalidArgument);
    let large = vec![1u8; 3 << 20];
    let blob = (wire(&SHA256.digest(&large)), large, Compressor::Identity);
    let refusal = peer.put(SHA256, vec![blob.clone(), blob]).await;
    refused(refusal, Code::InvalidArgument);
}

#[tokio::test]
async fn streams_are_read_from_any_place_in_any_encoding() {
    let peer = Peer::start().await;
    let content: Vec<u8> = (0..2_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for function in [SHA256, BLAKE3] {
        let name = named("uploads/u1/blobs", function, &content);
        let size = content.len() as i64;
        let (head, tail) = content.split_at(1_000_000);
        let pieces = [(0, head, false), (1_000_000, tail, true)];
        let written = peer.write(&name, &pieces);
        assert_eq!(written.await.expect("a good write"), size);
        let again = peer.write(&name, &[(0, head, false)]).await.expect("C05: it is there");
        assert_eq!(again, size);
        let plain = named("blobs", function, &content);
        assert_eq!(peer.read(&plain, 0, 0).await.expect("a blob"), content);
        let part = peer.read(&plain, 1_234_567, 89).await.expect("a part");
        assert_eq!(part, content[1_234_567..1_234_656]);
        refused(peer.read(&plain, size + 1, 0).await, Code::OutOfRange);
        let packed = named("compressed-blobs/zstd", function, &content);
        let read = peer.read(&packed, 1_000_000, 0).await.expect("C04: an uncompressed offset");
        assert_eq!(zstd::stream::decode_all(&read[..]).expect("zstd"), tail);
        refused(peer.read(&packed, 0, 5).await, Code::InvalidArgument); // C04
        let other = peer.read(&format!("another/{plain}"), 0, 0).await;
        refused(other, Code::NotFound);
    }
    let (small, empty) = (b"small".repeat(9), named("blobs", SHA256, b""));
    let zstd = zstd::bulk::compress(&small, 3).expect("it can be packed");
    let name = named("some/where/uploads/u2/compressed-blobs/zstd", BLAKE3, &small);
    let written = peer.write(&name, &[(0, &zstd, true)]).await.expect("C03");
    assert!(written == zstd.len() as i64 || written == -1, "{written}");
    let plain = named("some/where/blobs", BLAKE3, &small);
    assert_eq!(peer.read(&plain, 0, 0).await.expect("C01: an instance of two parts"), small);
    assert_eq!(peer.read(&empty, 0, 0).await.expect("C07"), b"");
}

#[tokio::test]
async fn wrong_streams_leave_nothing() {
    let peer = Peer::start().await;
    let (good, bad) = (b"announced".as_slice(), b"something".as_slice());
    let name = named("uploads/u/blobs", SHA256, good);
    refused(peer.write(&name, &[(0, bad, true)]).await, Code::InvalidArgument); // C06
    refused(peer.write(&name, &[(0, b"announced and more", true)]).await, Code::InvalidArgument);
    assert_eq!(peer.missing(SHA256, vec![wire(&SHA256.digest(good))]).await, 1);
    let bomb = zstd::bulk::compress(&vec![0u8; 50 << 20], 19).expect("it can be packed");
    let packed = named("uploads/v/compressed-blobs/zstd", SHA256, good);
    refused(peer.write(&packed, &[(0, &bomb, true)]).await, Code::InvalidArgument); // C03
    for name in ["", "blobs", "uploads/u/blobs/00/1", "uploads/u/blobs/blake2/00/1"] {
        refused(peer.write(name, &[(0, b"x", true)]).await, Code::InvalidArgument);
    }
    let traversal = format!("../../{}", named("blobs", SHA256, good));
    let read = peer.read(&traversal, 0, 0).await.expect_err("it is no name");
    assert!(matches!(read.code(), Code::InvalidArgument | Code::NotFound), "{read:?}");
    assert_eq!(peer.write(&name, &[(0, good, true)]).await.expect("a good write"), 9);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_also_after_a_kill() {
    let mut peer = Peer::start().await;
    let content = vec![5u8; 3_000_000];
    let name = named("uploads/u/blobs", BLAKE3, &content);
    let (head, tail) = content.split_at(2_000_000);
    let _ = peer.write(&name, &[(0, head, false)]).await;
    let (committed, complete) = peer.write_status(&name).await;
    assert!(!complete && committed == 2_000_000, "C16: {committed}");
    let data = std::mem::replace(&mut peer._data, tempfile::tempdir().expect("a folder"));
    let server = std::mem::replace(&mut peer.server, Server::start(peer._data.path(), &[]));
    server.kill();
    let peer = Peer::of(Server::start(data.path(), &[]), data).await;
    let (committed, complete) = peer.write_status(&name).await;
    assert!(!complete && (0..=2_000_000).contains(&committed), "{committed}");
    let rest = content.get(committed as usize..).expect("a part");
    assert!(rest.ends_with(tail));
    let written = peer.write(&name, &[(committed, rest, true)]).await.expect("C16: the rest");
    assert_eq!(written, 3_000_000);
    assert_eq!(peer.write_status(&name).await, (3_000_000, true));
    let read = peer.read(&named("blobs", BLAKE3, &content), 0, 0).await.expect("a blob");
    assert!(read == content);
    // The client has to hear of it meanwhile, or the server waits for its connection.
    let Peer { server, .. } = peer;
    tokio::task::spawn_blocking(|| server.stop()).await.expect("it ends in order");
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start_on_disk(data.path(), 100);
    let ballast = server.disk(data.path()).join("ballast");
    std::fs::write(&ballast, vec![0; 40 << 20]).expect("it fits");
    let peer = Peer::of(server, data).await;
    let content = |at: u32, size: usize| {
        let words = (0..size as u32 / 4).map(|word| word.wrapping_mul(2_654_435_761) ^ at);
        words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
    };
    let mut stored = Vec::new();
    let mut refused = None;
    // Large blobs as streams, then small ones in batches, until neither fits.
    for (size, count) in [(1 << 20, 60), (20_000, 900)] {
        refused = None;
        for at in 0..count {
            let bytes = content(at, size);
            let name = named("uploads/u/blobs", SHA256, &bytes);
            let code = match size > 100_000 {
                true => peer.write(&name, &[(0, &bytes, true)]).await.err().map(|s| s.code()),
                false => {
                    let blob = (wire(&SHA256.digest(&bytes)), bytes.clone(), Compressor::Identity);
                    let codes = peer.put(SHA256, vec![blob]).await.expect("a batch");
                    codes.first().map(|code| Code::from(*code)).filter(|code| *code != Code::Ok)
                }
            };
            match code {
                None => stored.push(bytes),
                Some(code) => {
                    refused = Some((code, bytes));
                    break;
                }
            }
        }
        let (code, bytes) = refused.as_ref().expect("the disk is full");
        assert_eq!(*code, Code::ResourceExhausted);
        assert_eq!(peer.missing(SHA256, vec![wire(&SHA256.digest(bytes))]).await, 1);
    }
    for bytes in &stored {
        let read = peer.read(&named("blobs", SHA256, bytes), 0, 0).await.expect("it was stored");
        assert!(read == *bytes);
    }
    std::fs::remove_file(&ballast).expect("ours");
    let (_, bytes) = refused.expect("something was");
    peer.put_one(SHA256, &bytes).await;
    let read = peer.read(&named("blobs", SHA256, &bytes), 0, 0).await.expect("there is room again");
    assert!(read == bytes);
}

#[tokio::test]
async fn a_small_graph_of_directories_does_not_blow_up() {
    let peer = Peer::start().await;
    // Twenty folders, each of which contains the next one ten times: 10^20 paths.
    let mut below: Option<reapi::Digest> = None;
    for _ in 0..20 {
        let node = |at: i32| reapi::DirectoryNode { name: format!("d{at}"), digest: below.clone() };
        let directories = if below.is_some() { (0..10).map(node).collect() } else { Vec::new() };
        let directory = reapi::Directory { directories, ..Default::default() };
        below = Some(peer.put_one(SHA256, &directory.encode_to_vec()).await);
    }
    let request = reapi::GetTreeRequest {
        root_digest: below,
        page_size: 3,
        digest_function: number(SHA256),
        ..Default::default()
    };
    let mut pages = peer.contents().get_tree(request.clone()).await.expect("pages").into_inner();
    let (mut count, mut token) = (0, None);
    while let Some(page) = pages.message().await.expect("a page") {
        assert!(page.directories.len() <= 3);
        count += page.directories.len();
        token.get_or_insert(page.next_page_token);
    }
    assert_eq!(count, 20, "C12: each folder once");
    let page_token = token.expect("more than one page");
    let rest = reapi::GetTreeRequest { page_token, ..request.clone() };
    let mut pages = peer.contents().get_tree(rest).await.expect("pages").into_inner();
    let mut count = 0;
    while let Some(page) = pages.message().await.expect("a page") {
        count += page.directories.len();
    }
    assert_eq!(count, 17, "C12: a token goes on");
    let root_digest = Some(wire(&SHA256.digest(b"nothing")));
    let absent = reapi::GetTreeRequest { root_digest, ..request };
    refused(peer.contents().get_tree(absent).await, Code::NotFound); // C12
}

#[tokio::test]
async fn a_result_is_found_only_with_all_that_it_names() {
    let peer = Peer::start().await;
    let mut client = ActionCacheClient::new(peer.channel.clone());
    let action = wire(&SHA256.digest(b"an action"));
    let output = |digest| reapi::OutputFile {
        path: "out".into(),
        digest: Some(digest),
        ..Default::default()
    };
    let update = |file| reapi::UpdateActionResultRequest {
        action_digest: Some(action.clone()),
        action_result: Some(reapi::ActionResult {
            output_files: vec![output(file)],
            ..Default::default()
        }),
        digest_function: number(SHA256),
        ..Default::default()
    };
    let get = reapi::GetActionResultRequest {
        action_digest: Some(action.clone()),
        digest_function: number(SHA256),
        ..Default::default()
    };
    let absent = wire(&SHA256.digest(b"absent"));
    refused(client.update_action_result(update(absent)).await, Code::FailedPrecondition); // A02
    refused(client.get_action_result(get.clone()).await, Code::NotFound); // A01
    let there = peer.put_one(SHA256, b"an output").await;
    client.update_action_result(update(there.clone())).await.expect("it is complete");
    let found = client.get_action_result(get.clone()).await.expect("a hit").into_inner();
    let files: Vec<_> = found.output_files.iter().map(|file| file.digest.clone()).collect();
    assert_eq!(files, [Some(there)]);
    assert!(found.output_files.iter().all(|file| file.contents.is_empty()), "A03: not asked for");
    let inline = reapi::GetActionResultRequest { inline_output_files: vec!["out".into()], ..get };
    let found = client.get_action_result(inline).await.expect("a hit").into_inner();
    let inlined = found.output_files.iter().all(|file| file.contents == b"an output");
    assert!(inlined || found.output_files.iter().all(|file| file.contents.is_empty()), "A03");
}

#[tokio::test]
async fn chunks_come_to_the_blob_that_they_were() {
    let peer = Peer::start().await;
    let parts: Vec<Vec<u8>> = (1..4u8).map(|at| vec![at; 5000 * usize::from(at)]).collect();
    let whole = parts.concat();
    let mut chunks = Vec::new();
    for part in &parts {
        chunks.push(peer.put_one(SHA256, part).await);
    }
    let splice = |blob: &[u8], chunk_digests| reapi::SpliceBlobRequest {
        blob_digest: Some(wire(&SHA256.digest(blob))),
        chunk_digests,
        digest_function: number(SHA256),
        ..Default::default()
    };
    let lie = splice(b"something else", chunks.clone());
    refused(peer.contents().splice_blob(lie).await, Code::InvalidArgument); // C14
    let absent = vec![8u8; whole.len()];
    let unknown = splice(&whole, vec![wire(&SHA256.digest(&absent))]);
    refused(peer.contents().splice_blob(unknown).await, Code::NotFound); // C14
    peer.contents().splice_blob(splice(&whole, chunks)).await.expect("C14");
    assert_eq!(peer.read(&named("blobs", SHA256, &whole), 0, 0).await.expect("a blob"), whole);
    let split = reapi::SplitBlobRequest {
        blob_digest: Some(wire(&SHA256.digest(&whole))),
        digest_function: number(SHA256),
        ..Default::default()
    };
    let split = peer.contents().split_blob(split).await.expect("C14").into_inner();
    let mut joined = Vec::new();
    for digest in &split.chunk_digests {
        let name = format!("blobs/{}/{}", digest.hash, digest.size_bytes);
        joined.extend(peer.read(&name, 0, 0).await.expect("a chunk"));
    }
    assert_eq!(joined, whole, "C14");
}
