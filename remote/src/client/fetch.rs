//! Blobs that come: small ones in batches, large ones as streams that go on where they were cut.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use futures_util::StreamExt as _;
use maestro_cas::{Receiver, StoreError};
use maestro_core::{Digest, limits};
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use std::sync::atomic::Ordering;
use stream::byte_stream_client::ByteStreamClient;
use tokio::task::block_in_place;
use tonic::{Code, Status};

use super::link::CallError;
use super::{Shared, Trouble};
use crate::compression::{self, CompressionError, Unpacker};
use crate::convert::{digest, function_value, wire_digest};
use crate::resource::{Encoding, Resource};

/// Larger blobs are streams of their own, in bytes.
pub(super) const BATCHED_BLOB_BYTES_MAX: u64 = 512 * 1024;
/// How many batches and streams of one request are under way at once.
pub(super) const CALLS_AT_ONCE: usize = 8;
/// What a digest takes in a message beside its blob, in bytes.
const DIGEST_BYTES: u64 = 128;

impl Shared {
    /// Brings blobs into the store; says which are not to be had.
    pub(crate) async fn fetch(&self, digests: &[Digest]) -> Result<Vec<Digest>, Trouble> {
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let abilities = *self.abilities().await?;
        let (small, large): (Vec<Digest>, Vec<Digest>) = digests.iter().partition(|digest| {
            digest.size <= BATCHED_BLOB_BYTES_MAX.min(abilities.batch_bytes as u64)
        });
        let batches = batches(small, abilities.batch_bytes as u64);
        let batches =
            batches.into_iter().map(|batch| self.fetch_batch(batch, abilities.zstd_batches));
        let streams =
            large.into_iter().map(|digest| self.fetch_stream(digest, abilities.zstd_streams));
        let mut lost = Vec::new();
        let mut batches = futures_util::stream::iter(batches).buffer_unordered(CALLS_AT_ONCE);
        while let Some(done) = batches.next().await {
            lost.extend(done?);
        }
        let mut streams = futures_util::stream::iter(streams).buffer_unordered(CALLS_AT_ONCE);
        while let Some(done) = streams.next().await {
            lost.extend(done?);
        }
        Ok(lost)
    }

    /// Fetches blobs in one call.
    async fn fetch_batch(&self, batch: Vec<Digest>, zstd: bool) -> Result<Vec<Digest>, Trouble> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.options.instance.clone(),
            digests: batch.iter().map(wire_digest).collect(),
            acceptable_compressors: zstd.then_some(Compressor::Zstd as i32).into_iter().collect(),
            digest_function: function_value(first.function),
        };
        let ask = |wire| {
            let request = request.clone();
            let mut client = ContentAddressableStorageClient::new(wire)
                .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
            async move { client.batch_read_blobs(request).await }
        };
        let answer = self.link.call(ask).await?.into_inner();
        block_in_place(|| self.take_batch(batch, answer))
    }

    fn take_batch(
        &self,
        batch: Vec<Digest>,
        answer: reapi::BatchReadBlobsResponse,
    ) -> Result<Vec<Digest>, Trouble> {
        let mut lost = batch;
        for response in answer.responses {
            let Some((function, wire)) = lost.first().map(|d| d.function).zip(response.digest)
            else {
                continue;
            };
            let code = response.status.map_or(0, |status| status.code);
            let Ok(named) = digest(function, &wire) else { continue };
            let Some(at) = lost.iter().position(|wanted| *wanted == named) else { continue };
            let zstd = response.compressor == Compressor::Zstd as i32;
            let bytes = match (code, zstd) {
                (0, false) => response.data,
                (0, true) => match compression::unpack(&response.data, named.size) {
                    Ok(bytes) => bytes,
                    Err(_) => continue,
                },
                _ => continue,
            };
            if function.digest(&bytes) == named {
                self.store.put_known(&named, &bytes)?;
                self.fetched_bytes.fetch_add(named.size, Ordering::Relaxed);
                lost.swap_remove(at);
            } else {
                tracing::warn!(digest = %named, "the remote cache sent another blob");
            }
        }
        Ok(lost)
    }

    /// Fetches a blob by itself.
    async fn fetch_stream(&self, digest: Digest, zstd: bool) -> Result<Option<Digest>, Trouble> {
        let mut receiver = block_in_place(|| self.store.receive(&digest))?;
        let mut attempts = self.link.attempts()?;
        while receiver.length() < digest.size {
            let before = receiver.length();
            let read = self.read_on(&mut receiver, &digest, zstd).await;
            if receiver.length() > before {
                attempts.progressed();
            }
            match read {
                Ok(()) if receiver.length() > before => {}
                Ok(()) => attempts.failed(Status::data_loss("a stream ended too early")).await?,
                Err(Broken::Status(status)) if status.code() == Code::NotFound => {
                    return Ok(Some(digest));
                }
                Err(Broken::Status(status)) => match attempts.failed(status).await {
                    Err(CallError::Refused(status)) if status.code() == Code::OutOfRange => {
                        return Ok(Some(digest));
                    }
                    ended => ended?,
                },
                Err(Broken::Content(why)) => {
                    tracing::warn!(%digest, why, "the remote cache sent another blob");
                    return Ok(Some(digest));
                }
                Err(Broken::Store(error)) => return Err(error.into()),
            }
        }
        attempts.succeeded(());
        match block_in_place(|| receiver.finish()) {
            Ok(()) => {
                self.fetched_bytes.fetch_add(digest.size, Ordering::Relaxed);
                Ok(None)
            }
            Err(StoreError::Mismatch { .. }) => {
                tracing::warn!(%digest, "the remote cache sent another blob");
                Ok(Some(digest))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is still to come of a blob, until its end or a break.
    async fn read_on(
        &self,
        receiver: &mut Receiver,
        digest: &Digest,
        zstd: bool,
    ) -> Result<(), Broken> {
        let encoding = if zstd { Encoding::Zstd } else { Encoding::Identity };
        let instance = self.options.instance.clone();
        let resource = Resource { instance, upload: None, encoding, digest: *digest };
        let request = stream::ReadRequest {
            resource_name: resource.to_string(),
            read_offset: i64::try_from(receiver.length()).unwrap_or(i64::MAX),
            read_limit: 0,
        };
        let mut client = ByteStreamClient::new(self.link.wire())
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
        let mut answers = self.link.in_time(client.read(request)).await?.into_inner();
        let mut unpacker = Unpacker::new(digest.size - receiver.length())?;
        while let Some(answer) = self.link.in_time(answers.message()).await? {
            block_in_place(|| match zstd {
                true => unpacker
                    .unpack(&answer.data, |piece| receiver.write(piece).map_err(Broken::from)),
                false => receiver.write(&answer.data).map_err(Broken::from),
            })?;
        }
        Ok(())
    }
}

/// Why a stream ended before its end.
enum Broken {
    Status(Status),
    /// What came cannot be the blob.
    Content(String),
    Store(StoreError),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<CompressionError> for Broken {
    fn from(error: CompressionError) -> Self {
        Self::Content(error.to_string())
    }
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } => Self::Content(error.to_string()),
            error => Self::Store(error),
        }
    }
}

/// Groups blobs so that each group fits in a message.
pub(super) fn batches(digests: Vec<Digest>, bytes_max: u64) -> Vec<Vec<Digest>> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for digest in digests {
        let needed = digest.size + DIGEST_BYTES;
        if all.is_empty() || bytes + needed > bytes_max {
            all.push(Vec::new());
            bytes = 0;
        }
        bytes += needed;
        if let Some(last) = all.last_mut() {
            last.push(digest);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_core::DigestFunction;

    #[test]
    fn batches_stay_within_their_bound() {
        let check = |sizes: &[u64], expect: &[usize]| {
            let digest = |size: &u64| Digest { size: *size, ..DigestFunction::Blake3.digest(b"") };
            let batches = batches(sizes.iter().map(digest).collect(), 1_000);
            let found: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert_eq!(found, expect);
        };
        check(&[], &[]);
        check(&[10], &[1]);
        check(&[0; 20], &[7, 7, 6]);
        check(&[400, 300, 600, 100, 5_000, 1], &[2, 2, 1, 1]);
    }
}
