//! Checks of compressed blobs: verified by what they unpack to, and read in every way.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use maestro_core::Digest;
use reapi::compressor::Value as Compressor;
use tonic::{Code, Status};

use super::content::Blob;
use super::peer::{Peer, bounded};
use super::verdict::{Outcome, Verdict, ensure, failed, good, not_offered, refused, same_bytes};
use crate::compression;
use crate::resource::Encoding;

const BLOB_BYTES: usize = 200_000;
/// Bytes of a message of a compressed upload; small, so that there are several.
const PIECE_BYTES: usize = 20_000;

/// C03.
pub(super) async fn verified_writes(peer: Peer) -> Outcome {
    offers_zstd(&peer)?;
    let blob = Blob::compressible(peer.function, BLOB_BYTES);
    write(&peer, &blob.digest, &packed(&blob.bytes)?).await?;
    let read = good("a plain read", peer.read(&blob.digest).await)?;
    same_bytes("a plain read", &read, &blob.bytes)?;
    let (promised, sent) = (Blob::random(peer.function, 1_000), Blob::random(peer.function, 1_000));
    let wrong = [Code::InvalidArgument];
    let other = send(&peer, &promised.digest, &packed(&sent.bytes)?).await;
    refused("a frame of another content", &wrong, other)?;
    let longer = send(&peer, &sent.missized(), &packed(&sent.bytes)?).await;
    refused("a frame of another size than announced", &wrong, longer)?;
    let garbage = send(&peer, &promised.digest, &promised.bytes).await;
    refused("bytes that are no frame", &wrong, garbage)?;
    for blob in [promised.digest, sent.digest] {
        let there = peer.has(&blob).await?;
        ensure(!there, || "what was refused is there all the same".to_owned())?;
    }
    Ok(())
}

/// C04.
pub(super) async fn offsets(peer: Peer) -> Outcome {
    offers_zstd(&peer)?;
    let blob = Blob::random(peer.function, BLOB_BYTES);
    write(&peer, &blob.digest, &packed(&blob.bytes)?).await?;
    let offset = BLOB_BYTES / 3;
    let read = good("a read from an offset", peer.read_zstd(&blob.digest, offset as i64).await)?;
    let tail = blob.bytes.get(offset..).unwrap_or_default();
    same_bytes("a read from an uncompressed offset", &read, tail)?;
    let name = peer.read_name(&blob.digest, Encoding::Zstd);
    let limited = peer.read_part(&name, 0, 100).await;
    refused("a compressed read with a limit", &[Code::InvalidArgument], limited)
}

/// C08.
pub(super) async fn every_way(peer: Peer) -> Outcome {
    let plain = Blob::compressible(peer.function, BLOB_BYTES);
    peer.store(std::slice::from_ref(&plain)).await?;
    read_every_way(&peer, &plain, "a blob that came as a stream").await?;
    let batched = Blob::compressible(peer.function, BLOB_BYTES);
    update(&peer, &batched, Compressor::Identity, batched.bytes.clone()).await?;
    read_every_way(&peer, &batched, "a blob that came in a batch").await?;
    if peer.has_zstd() {
        let zstd = Blob::compressible(peer.function, BLOB_BYTES);
        write(&peer, &zstd.digest, &packed(&zstd.bytes)?).await?;
        read_every_way(&peer, &zstd, "a blob that came compressed").await?;
    }
    Ok(())
}

async fn read_every_way(peer: &Peer, blob: &Blob, what: &str) -> Outcome {
    let read = good(what, peer.read(&blob.digest).await)?;
    same_bytes(&format!("{what}, read as it is"), &read, &blob.bytes)?;
    let read = batch_read(peer, blob, Compressor::Identity).await?;
    same_bytes(&format!("{what}, read in a batch"), &read, &blob.bytes)?;
    if peer.has_zstd() {
        let read = good(&format!("{what}, as zstd"), peer.read_zstd(&blob.digest, 0).await)?;
        same_bytes(&format!("{what}, read as zstd"), &read, &blob.bytes)?;
        let read = batch_read(peer, blob, Compressor::Zstd).await?;
        same_bytes(&format!("{what}, read as zstd in a batch"), &read, &blob.bytes)?;
    }
    Ok(())
}

/// Reads one blob in a batch, and unpacks it where the server chose to compress it.
async fn batch_read(peer: &Peer, blob: &Blob, acceptable: Compressor) -> Result<Vec<u8>, Verdict> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: peer.instance(),
        digests: vec![blob.wire()],
        acceptable_compressors: vec![acceptable as i32],
        digest_function: peer.function_value(),
    };
    let answer = bounded(peer.contents().batch_read_blobs(request)).await;
    let mut answer = good("`BatchReadBlobs`", answer)?.into_inner();
    let one = answer.responses.pop().filter(|_| answer.responses.is_empty());
    let one = one.ok_or_else(|| failed("`BatchReadBlobs` of one blob: expected one answer"))?;
    let code = one.status.unwrap_or_default().code;
    ensure(code == 0, || format!("`BatchReadBlobs` of what is there: got code {code}"))?;
    match Compressor::try_from(one.compressor) {
        Ok(Compressor::Identity) => Ok(one.data),
        Ok(Compressor::Zstd) if acceptable == Compressor::Zstd => {
            let unpacked = compression::unpack(&one.data, blob.digest.size);
            unpacked.map_err(|error| failed(format!("`BatchReadBlobs` as zstd: {error}")))
        }
        _ => Err(failed(format!(
            "`BatchReadBlobs`: expected a compressor that is accepted, got {}",
            one.compressor
        ))),
    }
}

/// Stores one blob in a batch.
pub(super) async fn update(
    peer: &Peer,
    blob: &Blob,
    compressor: Compressor,
    data: Vec<u8>,
) -> Outcome {
    let digest = Some(blob.wire());
    let one =
        reapi::batch_update_blobs_request::Request { digest, data, compressor: compressor as i32 };
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: peer.instance(),
        requests: vec![one],
        digest_function: peer.function_value(),
    };
    let answer = bounded(peer.contents().batch_update_blobs(request)).await;
    let answer = good("`BatchUpdateBlobs`", answer)?.into_inner();
    let codes: Vec<i32> = answer.responses.into_iter().map(code_of).collect();
    super::verdict::same("the codes of `BatchUpdateBlobs`", &codes, &vec![0])
}

fn code_of(response: reapi::batch_update_blobs_response::Response) -> i32 {
    response.status.unwrap_or_default().code
}

fn offers_zstd(peer: &Peer) -> Outcome {
    if peer.has_zstd() { Ok(()) } else { Err(not_offered("`supported_compressors` has no ZSTD")) }
}

/// Compresses a content as a client does.
pub(super) fn packed(bytes: &[u8]) -> Result<Vec<u8>, Verdict> {
    compression::pack(bytes).map_err(|error| failed(format!("cannot compress: {error}")))
}

/// Writes a compressed content that is right.
async fn write(peer: &Peer, digest: &Digest, packed: &[u8]) -> Outcome {
    let written = good("a compressed upload", send(peer, digest, packed).await)?;
    let size = packed.len() as i64;
    // Whoever has the blob already says -1.
    ensure(written == size || written == -1, || {
        format!("the size that a compressed upload commits: expected {size} or -1, got {written}")
    })
}

async fn send(peer: &Peer, digest: &Digest, packed: &[u8]) -> Result<i64, Status> {
    let name = peer.write_name(digest, Encoding::Zstd);
    let message = |(at, data): (usize, &[u8])| stream::WriteRequest {
        resource_name: name.clone(),
        write_offset: (at * PIECE_BYTES) as i64,
        finish_write: at * PIECE_BYTES + data.len() == packed.len(),
        data: data.to_vec(),
    };
    peer.send(packed.chunks(PIECE_BYTES).enumerate().map(message).collect()).await
}
