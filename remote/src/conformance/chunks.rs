//! Checks of blobs as lists of chunks.
//!
//! Version 2.12 has one call each way, later ones have streams in their place; a server may have
//! either or both, and what it has is asked.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use fastcdc::v2020::{FastCDC, Normalization};
use maestro_core::Digest;
use reapi::chunking_function::Value as Chunking;
use tonic::{Code, Status};

use super::content::Blob;
use super::peer::{Peer, bounded};
use super::verdict::{
    Outcome, Verdict, ensure, failed, good, not_offered, policy, refused, same, same_bytes, told,
};
use crate::convert;

/// Bytes of the chunks that are spliced; each has another size.
const CHUNK_BYTES: usize = 20_000;
/// Bytes of the blob that is split where no parameters say what is large.
const BLOB_BYTES: usize = 3_000_000;
/// The range in which the average size of chunks has to be, in bytes.
const AVERAGE_BYTES: std::ops::RangeInclusive<u64> = 1024..=8 * 1024 * 1024;
/// Above this average, in bytes, a blob that has several chunks is larger than is sent here.
const AVERAGE_TRIED_BYTES_MAX: u64 = 1024 * 1024;
/// The smallest chunk that RepMaxCDC may be asked for, in bytes.
const REP_MAX_BYTES_MIN: u64 = 64;

/// C14.
pub(super) async fn split_and_splice(peer: Peer) -> Outcome {
    let cache = peer.cache();
    if !cache.split_blob_support && !cache.splice_blob_support {
        return Err(not_offered("neither `split_blob_support` nor `splice_blob_support` is said"));
    }
    if cache.split_blob_support {
        splits(&peer).await?;
    }
    if cache.splice_blob_support {
        splices(&peer).await?;
    }
    Ok(())
}

async fn splits(peer: &Peer) -> Outcome {
    let absent = Blob::random(peer.function, CHUNK_BYTES);
    let split = split(peer, Some(absent.wire()), Chunking::Unknown).await;
    refused("a split of what is not there", &[Code::NotFound], split)?;
    let blob = peer.stored(BLOB_BYTES).await?;
    let chunks = match self::split(peer, Some(blob.wire()), Chunking::Unknown).await {
        // There may be no chunks of it, which is said in the same way.
        Err(status) if status.code() == Code::NotFound => {
            return Err(policy("blobs that came whole are not split"));
        }
        answer => good("a split", answer)?,
    };
    joined(peer, &chunks, &blob).await
}

async fn splices(peer: &Peer) -> Outcome {
    let parts: Vec<Blob> = (1..4).map(|at| Blob::random(peer.function, CHUNK_BYTES * at)).collect();
    peer.store(&parts).await?;
    let whole = whole(peer, &parts);
    let chunks: Vec<reapi::Digest> = parts.iter().map(Blob::wire).collect();
    let mut lie = Blob::random(peer.function, 1).digest;
    lie.size = whole.digest.size;
    let lie = Some(convert::wire_digest(&lie));
    let wrong = [Code::InvalidArgument];
    refused("a splice to another hash", &wrong, splice(peer, lie, &chunks).await)?;
    refused("a splice without a digest", &wrong, splice(peer, None, &chunks).await)?;
    let mut gap = chunks.clone();
    gap.push(Blob::random(peer.function, CHUNK_BYTES).wire());
    let absent = Blob::random(peer.function, whole.bytes.len() + CHUNK_BYTES).wire();
    let missing = splice(peer, Some(absent), &gap).await;
    refused("a splice of a chunk that is not there", &[Code::NotFound], missing)?;
    good("a splice", splice(peer, Some(whole.wire()), &chunks).await)?;
    let read = good("a read of what was spliced", peer.read(&whole.digest).await)?;
    same_bytes("a read of what was spliced", &read, &whole.bytes)?;
    other_chunks(peer, &whole).await?;
    if peer.cache().split_blob_support {
        let found = split(peer, Some(whole.wire()), Chunking::Unknown).await;
        joined(peer, &good("a split of what was spliced", found)?, &whole).await?;
    }
    Ok(())
}

/// The same blob out of other chunks: taken, or refused since it is there.
async fn other_chunks(peer: &Peer, whole: &Blob) -> Outcome {
    let (head, tail) = whole.bytes.split_at(CHUNK_BYTES / 2);
    let parts = [head, tail].map(|part| Blob::of(peer.function, part.to_vec()));
    peer.store(&parts).await?;
    let chunks: Vec<reapi::Digest> = parts.iter().map(Blob::wire).collect();
    match splice(peer, Some(whole.wire()), &chunks).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(failed(format!(
            "a splice of what is there: expected success or ALREADY_EXISTS, got {}",
            told(&status)
        ))),
        _ => Ok(()),
    }
}

fn whole(peer: &Peer, parts: &[Blob]) -> Blob {
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect();
    Blob::of(peer.function, bytes)
}

/// Chunks are there, and make the blob.
async fn joined(peer: &Peer, chunks: &[reapi::Digest], blob: &Blob) -> Outcome {
    let missing = good("`FindMissingBlobs`", peer.missing(chunks.to_vec()).await)?;
    same("chunks that are missing", &missing.len(), &0)?;
    let mut bytes = Vec::new();
    for chunk in chunks {
        let digest = convert::digest(peer.function, chunk);
        let digest = digest.map_err(|error| failed(format!("the digest of a chunk: {error}")))?;
        bytes.extend(good("a read of a chunk", peer.read(&digest).await)?);
    }
    same_bytes("the chunks together", &bytes, &blob.bytes)
}

/// C15.
pub(super) async fn fast_cdc(peer: Peer) -> Outcome {
    let cache = peer.cache();
    if let Some(params) = cache.rep_max_cdc_params {
        ensure(params.min_chunk_size_bytes >= REP_MAX_BYTES_MIN, || {
            let size = params.min_chunk_size_bytes;
            format!("`rep_max_cdc_params`: expected chunks of 64 bytes at least, got {size}")
        })?;
    }
    let Some(params) = cache.fast_cdc_2020_params else {
        return Err(not_offered("no `fast_cdc_2020_params` are announced"));
    };
    let average = params.avg_chunk_size_bytes;
    ensure(AVERAGE_BYTES.contains(&average), || {
        format!("`avg_chunk_size_bytes`: expected 1 KiB to 8 MiB, got {average}")
    })?;
    if !cache.split_blob_support || average > AVERAGE_TRIED_BYTES_MAX {
        return Err(policy(format!("chunks of {average} bytes on the average, cut by clients")));
    }
    let average = usize::try_from(average).unwrap_or_default();
    let small = peer.stored(average * 2).await?;
    let one = good("a split of a small blob", split_fast(&peer, &small).await)?;
    let large = peer.stored(average * 12).await?;
    let found = good("a split of a large blob", split_fast(&peer, &large).await)?;
    let cut = FastCDC::with_level_and_seed(
        &large.bytes,
        average / 4,
        average,
        average * 4,
        Normalization::Level2,
        u64::from(params.seed),
    );
    let chunk = |chunk: fastcdc::v2020::Chunk| {
        let bytes = large.bytes.get(chunk.offset..chunk.offset + chunk.length);
        peer.function.digest(bytes.unwrap_or_default())
    };
    let expected: Vec<Digest> = cut.map(chunk).collect();
    let sizes = |digests: &[Digest]| digests.iter().map(|digest| digest.size).collect::<Vec<_>>();
    let found = digests(&peer, &found)?;
    same("the sizes of chunks", &sizes(&found), &sizes(&expected))?;
    ensure(found == expected, || "the chunks have other digests than their bytes".to_owned())?;
    match one.len() {
        1 => Ok(()),
        count => Err(policy(format!("a blob of twice the average is cut into {count} chunks"))),
    }
}

fn digests(peer: &Peer, chunks: &[reapi::Digest]) -> Result<Vec<Digest>, Verdict> {
    let digest = |chunk| convert::digest(peer.function, chunk);
    let all: Result<_, _> = chunks.iter().map(digest).collect();
    all.map_err(|error| failed(format!("the digest of a chunk: {error}")))
}

async fn split_fast(peer: &Peer, blob: &Blob) -> Result<Vec<reapi::Digest>, Status> {
    split(peer, Some(blob.wire()), Chunking::FastCdc2020).await
}

/// The chunks of a blob, by the call that the server has.
pub(super) async fn split(
    peer: &Peer,
    blob: Option<reapi::Digest>,
    chunking: Chunking,
) -> Result<Vec<reapi::Digest>, Status> {
    let request = reapi::SplitBlobRequest {
        instance_name: peer.instance(),
        blob_digest: blob.clone(),
        digest_function: peer.function_value(),
        chunking_function: chunking as i32,
    };
    match bounded(peer.contents().split_blob(request)).await {
        Err(status) if status.code() == Code::Unimplemented => {}
        answer => return Ok(answer?.into_inner().chunk_digests),
    }
    let request = reapi::GetChunkMappingRequest {
        instance_name: peer.instance(),
        blob_digest: blob,
        digest_function: peer.function_value(),
        chunking_function: chunking as i32,
    };
    bounded(async {
        let mut stream = peer.contents().get_chunk_mapping(request).await?.into_inner();
        let mut chunks = Vec::new();
        while let Some(page) = stream.message().await? {
            chunks.extend(page.chunk_digests);
            if chunks.len() > maestro_core::limits::BLOB_CHUNKS_MAX {
                return Err(Status::out_of_range("the list of chunks does not end"));
            }
        }
        Ok(chunks)
    })
    .await
}

/// Puts a blob together, by the call that the server has.
pub(super) async fn splice(
    peer: &Peer,
    blob: Option<reapi::Digest>,
    chunks: &[reapi::Digest],
) -> Result<(), Status> {
    let request = reapi::SpliceBlobRequest {
        instance_name: peer.instance(),
        blob_digest: blob.clone(),
        chunk_digests: chunks.to_vec(),
        digest_function: peer.function_value(),
        chunking_function: Chunking::Unknown as i32,
    };
    match bounded(peer.contents().splice_blob(request)).await {
        Err(status) if status.code() == Code::Unimplemented => {}
        answer => return answer.map(|_| ()),
    }
    let request = reapi::RegisterChunkMappingRequest {
        instance_name: peer.instance(),
        blob_digest: blob,
        chunk_digests: chunks.to_vec(),
        digest_function: peer.function_value(),
        chunking_function: Chunking::Unknown as i32,
    };
    let mut client = peer.contents();
    bounded(client.register_chunk_mapping(tokio_stream::once(request))).await.map(|_| ())
}
