//! Blobs that go: only those that the server lacks, small ones in batches, large ones as streams.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use futures_util::StreamExt as _;
use maestro_core::{Digest, limits};
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use stream::byte_stream_client::ByteStreamClient;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::block_in_place;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::fetch::{BATCHED_BLOB_BYTES_MAX, CALLS_AT_ONCE, batches};
use super::{Shared, Trouble, lock};
use crate::compression::{self, Packer};
use crate::convert::{digest, function_value, wire_digest};
use crate::resource::{Encoding, Resource};

/// Smaller blobs do not gain by being compressed, in bytes.
const PACKED_BYTES_MIN: usize = 512;
/// Most digests that one call asks for.
const ASKED_DIGESTS_MAX: usize = 10_000;
/// Messages of a stream that wait to be sent.
const PIECES_AHEAD: usize = 2;

/// Blobs that are in memory, by digest; all others are in the store.
pub(crate) type InMemory = HashMap<Digest, Vec<u8>>;

impl Shared {
    /// Has the server hold blobs.
    pub(crate) async fn send(
        &self,
        digests: HashSet<Digest>,
        in_memory: &InMemory,
    ) -> Result<(), Trouble> {
        let abilities = *self.abilities().await?;
        let missing = self.missing(digests).await?;
        let limit = BATCHED_BLOB_BYTES_MAX.min(abilities.batch_bytes as u64);
        let (small, large): (Vec<Digest>, Vec<Digest>) =
            missing.into_iter().partition(|digest| digest.size <= limit);
        let batches = batches(small, abilities.batch_bytes as u64);
        let batches = batches
            .into_iter()
            .map(|batch| self.send_batch(batch, in_memory, abilities.zstd_batches));
        let mut batches = futures_util::stream::iter(batches).buffer_unordered(CALLS_AT_ONCE);
        while let Some(done) = batches.next().await {
            done?;
        }
        let streams = large
            .into_iter()
            .map(|digest| self.send_stream(digest, in_memory, abilities.zstd_streams));
        let mut streams = futures_util::stream::iter(streams).buffer_unordered(CALLS_AT_ONCE);
        while let Some(done) = streams.next().await {
            done?;
        }
        Ok(())
    }

    /// Which of them the server lacks.
    async fn missing(&self, digests: HashSet<Digest>) -> Result<Vec<Digest>, Trouble> {
        let mut unsure: Vec<Digest> = {
            let present = lock(&self.present);
            let known = |digest: &Digest| present.contains(digest) || digest.is_empty_blob();
            digests.into_iter().filter(|digest| !known(digest)).collect()
        };
        unsure.sort_unstable();
        let mut missing = HashSet::new();
        for asked in unsure.chunks(ASKED_DIGESTS_MAX) {
            let Some(function) = asked.first().map(|digest| digest.function) else { break };
            let request = reapi::FindMissingBlobsRequest {
                instance_name: self.options.instance.clone(),
                blob_digests: asked.iter().map(wire_digest).collect(),
                digest_function: function_value(function),
            };
            let ask = |wire| {
                let request = request.clone();
                let mut client = ContentAddressableStorageClient::new(wire)
                    .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
                async move { client.find_missing_blobs(request).await }
            };
            let answer = self.link.call(ask).await?.into_inner();
            let wire = answer.missing_blob_digests.iter();
            missing.extend(wire.filter_map(|wire| digest(function, wire).ok()));
        }
        let (missing, present) = unsure.into_iter().partition(|digest| missing.contains(digest));
        let present: Vec<Digest> = present;
        self.note_present(present);
        Ok(missing)
    }

    /// Sends blobs in one call.
    async fn send_batch(
        &self,
        batch: Vec<Digest>,
        in_memory: &InMemory,
        zstd: bool,
    ) -> Result<(), Trouble> {
        let Some(function) = batch.first().map(|digest| digest.function) else { return Ok(()) };
        let mut requests = Vec::with_capacity(batch.len());
        for digest in &batch {
            let bytes = match in_memory.get(digest) {
                Some(bytes) => bytes.clone(),
                None => block_in_place(|| self.store.read(digest))?,
            };
            let (data, compressor) = pack(bytes, zstd);
            let (digest, compressor) = (Some(wire_digest(digest)), compressor as i32);
            requests.push(reapi::batch_update_blobs_request::Request { digest, data, compressor });
        }
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.options.instance.clone(),
            requests,
            digest_function: function_value(function),
        };
        let ask = |wire| {
            let request = request.clone();
            let mut client = ContentAddressableStorageClient::new(wire)
                .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
            async move { client.batch_update_blobs(request).await }
        };
        let answer = self.link.call(ask).await?.into_inner();
        for response in answer.responses {
            let status = response.status.unwrap_or_default();
            if status.code != 0 {
                let status = Status::new(status.code.into(), status.message);
                return Err(super::CallError::Refused(status).into());
            }
        }
        let bytes = batch.iter().map(|digest| digest.size).sum();
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.note_present(batch);
        Ok(())
    }

    /// Sends a blob by itself.
    async fn send_stream(
        &self,
        digest: Digest,
        in_memory: &InMemory,
        zstd: bool,
    ) -> Result<(), Trouble> {
        let mut attempts = self.link.attempts()?;
        loop {
            let content = match in_memory.get(&digest) {
                Some(bytes) => Content::Memory(std::io::Cursor::new(bytes.clone())),
                None => Content::File(block_in_place(|| self.store.open_blob(&digest))?),
            };
            match self.write_whole(&digest, content, zstd).await {
                Ok(()) => break,
                Err(status) => attempts.failed(status).await?,
            }
        }
        attempts.succeeded(());
        self.sent_bytes.fetch_add(digest.size, Ordering::Relaxed);
        self.note_present([digest]);
        Ok(())
    }

    /// One attempt at a stream. The server may say in the middle that it has the blob.
    async fn write_whole(
        &self,
        digest: &Digest,
        content: Content,
        zstd: bool,
    ) -> Result<(), Status> {
        let encoding = if zstd { Encoding::Zstd } else { Encoding::Identity };
        let resource = Resource {
            instance: self.options.instance.clone(),
            upload: Some(uuid::Uuid::now_v7().to_string()),
            encoding,
            digest: *digest,
        };
        let (sender, pieces) = channel(PIECES_AHEAD);
        let sent = Arc::new(AtomicU64::new(0));
        let feeder = Feeder { sender, sent: sent.clone(), name: resource.to_string(), zstd };
        let feeding = tokio::task::spawn_blocking(move || feeder.feed(content));
        let mut client = ByteStreamClient::new(self.link.wire());
        let writing = client.write(ReceiverStream::new(pieces));
        tokio::pin!(writing);
        let answer = loop {
            let before = sent.load(Ordering::Relaxed);
            tokio::select! {
                answer = &mut writing => break answer?.into_inner(),
                () = tokio::time::sleep(self.link.silence) => {
                    if sent.load(Ordering::Relaxed) == before {
                        return Err(Status::deadline_exceeded("the stream does not go on"));
                    }
                }
            }
        };
        let is_whole = answer.committed_size == i64::try_from(digest.size).unwrap_or(i64::MAX);
        let fed = feeding.await.map_err(|_| Status::internal("a thread ended"))?;
        match (zstd, is_whole, fed) {
            (true, _, _) | (false, true, _) => Ok(()),
            (_, _, Err(error)) => Err(Status::data_loss(error.to_string())),
            _ => Err(Status::data_loss("the server has another size")),
        }
    }
}

/// Where the bytes of a stream come from.
enum Content {
    Memory(std::io::Cursor<Vec<u8>>),
    File(File),
}

impl Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Memory(cursor) => cursor.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }

    /// Fills the buffer, but at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Turns content into the messages of a stream.
struct Feeder {
    sender: Sender<stream::WriteRequest>,
    /// Bytes that were taken from us.
    sent: Arc<AtomicU64>,
    name: String,
    zstd: bool,
}

impl Feeder {
    /// Feeds until the end, or until nobody listens any more. Blocks.
    fn feed(self, mut content: Content) -> Result<(), std::io::Error> {
        let mut packer = match self.zstd {
            true => Some(Packer::new().map_err(std::io::Error::other)?),
            false => None,
        };
        let mut buffer = vec![0; limits::STREAM_CHUNK_BYTES];
        let (mut offset, mut name) = (0, self.name.clone());
        loop {
            let count = content.fill(&mut buffer)?;
            let piece = buffer.get(..count).unwrap_or_default();
            let finish_write = count < buffer.len();
            let data = match &mut packer {
                Some(packer) => packer.pack(piece, finish_write).map_err(std::io::Error::other)?,
                None => piece.to_vec(),
            };
            let length = data.len();
            let request = stream::WriteRequest {
                resource_name: std::mem::take(&mut name),
                write_offset: offset,
                finish_write,
                data,
            };
            if self.sender.blocking_send(request).is_err() || finish_write {
                return Ok(());
            }
            offset += i64::try_from(length).unwrap_or(0);
            self.sent.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}

/// Compresses a blob where that makes it smaller.
fn pack(bytes: Vec<u8>, zstd: bool) -> (Vec<u8>, Compressor) {
    if !zstd || bytes.len() < PACKED_BYTES_MIN {
        return (bytes, Compressor::Identity);
    }
    match compression::pack(&bytes) {
        Ok(packed) if packed.len() < bytes.len() => (packed, Compressor::Zstd),
        _ => (bytes, Compressor::Identity),
    }
}
