//! Blobs as lists of chunks: how they are cut, told and put together.
//!
//! Cutting is FastCDC of 2020 with normalization 2, chunks of 512 KiB on the average, a quarter of
//! that at least, four times at most, and seed 0, so that every client cuts alike. What is smaller
//! than the largest chunk is one.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use fastcdc::v2020::{FastCDC, Normalization};
use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, DigestFunction, limits};
use reapi::chunking_function::Value as Chunking;
use tonic::Status;

use super::context::{Context, status};
use crate::convert;

/// Bytes of a chunk on the average.
pub(super) const CHUNK_BYTES_AVERAGE: usize = 512 * 1024;
const CHUNK_BYTES_MIN: usize = CHUNK_BYTES_AVERAGE / 4;
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_AVERAGE * 4;
/// Digests of one message of a stream.
const PAGE_DIGESTS: usize = 10_000;
/// Bytes that are read at once to be cut.
const CUT_BYTES: usize = 8 * 1024 * 1024;

/// The chunks of a blob.
pub(super) struct Chunks {
    pub(super) digests: Vec<Digest>,
    pub(super) function: Chunking,
}

/// The chunks of a blob; it is cut where nobody did so yet.
pub(super) async fn of_blob(
    context: &Context,
    space: Option<Space>,
    blob: Digest,
) -> Result<Chunks, Status> {
    let missing = || status(&StoreError::Missing { digest: blob });
    if blob.function.digest(b"") == blob {
        return Ok(Chunks { digests: Vec::new(), function: Chunking::FastCdc2020 });
    }
    let space = space.ok_or_else(missing)?;
    let work = move |depot: &Depot| split(depot, space, &blob).map_err(|error| status(&error));
    context.blocking(work).await
}

fn split(depot: &Depot, space: Space, blob: &Digest) -> Result<Chunks, StoreError> {
    if let Some(digests) = depot.chunks(space, blob)? {
        let spliced = depot.is_spliced(space, blob);
        let function = if spliced { Chunking::Unknown } else { Chunking::FastCdc2020 };
        return Ok(Chunks { digests, function });
    }
    let content = depot.content(space, blob)?;
    if content.size() < CHUNK_BYTES_MAX as u64 {
        return Ok(Chunks { digests: vec![*blob], function: Chunking::FastCdc2020 });
    }
    let mut digests = Vec::new();
    let (mut buffer, mut offset) = (Vec::new(), 0);
    loop {
        let more = content.read(depot, offset, CUT_BYTES)?;
        offset += more.len() as u64;
        buffer.extend(more);
        let last = offset >= content.size();
        // A cut depends on what follows, so the last ones wait until that is known.
        let kept = cut(&buffer, last, |chunk| digests.push(blob.function.digest(chunk)));
        buffer.drain(..kept);
        if last {
            break;
        }
    }
    depot.split(space, blob, &digests)?;
    Ok(Chunks { digests, function: Chunking::FastCdc2020 })
}

/// Cuts bytes into chunks and says how many of them were used up.
fn cut(bytes: &[u8], last: bool, mut each: impl FnMut(&[u8])) -> usize {
    let (min, average, max) = (CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX);
    let mut used = 0;
    for chunk in FastCDC::with_level(bytes, min, average, max, Normalization::Level2) {
        let end = chunk.offset + chunk.length;
        if !last && bytes.len() - chunk.offset < CHUNK_BYTES_MAX {
            break;
        }
        if let Some(piece) = bytes.get(chunk.offset..end) {
            each(piece);
        }
        used = end;
    }
    used
}

/// A list of chunks in messages of a stream.
pub(super) fn pages(chunks: &Chunks) -> Vec<Result<reapi::GetChunkMappingResponse, Status>> {
    let page = |(at, digests): (usize, &[Digest])| {
        let function = if at == 0 { chunks.function } else { Chunking::Unknown };
        Ok(reapi::GetChunkMappingResponse {
            chunk_digests: digests.iter().map(convert::wire_digest).collect(),
            chunking_function: function as i32,
        })
    };
    chunks.digests.chunks(PAGE_DIGESTS).enumerate().map(page).collect()
}

/// Reads a list of chunks.
pub(super) fn list(
    function: DigestFunction,
    wire: &[reapi::Digest],
) -> Result<Vec<Digest>, Status> {
    check_length(wire.len())?;
    let digests = wire.iter().map(|digest| convert::digest(function, digest));
    Ok(digests.collect::<Result<_, _>>()?)
}

/// Refuses lists that are too long.
pub(super) fn check_length(length: usize) -> Result<(), Status> {
    let limit = limits::BLOB_CHUNKS_MAX;
    if length > limit {
        return Err(Status::invalid_argument(format!("a blob has at most {limit} chunks")));
    }
    Ok(())
}

/// Puts a blob together out of chunks that are there. What they are together is hashed: nothing is
/// taken on trust.
pub(super) async fn splice(
    context: &Context,
    space: Space,
    blob: Digest,
    chunks: Vec<Digest>,
) -> Result<(), Status> {
    if blob.size > limits::SERVED_BLOB_BYTES_MAX {
        return Err(super::byte_stream::too_large(&blob));
    }
    let sum = chunks.iter().fold(0, |sum: u64, chunk| sum.saturating_add(chunk.size));
    if sum != blob.size {
        let text = format!("the chunks have {sum} bytes together, and `{blob}` has another number");
        return Err(Status::invalid_argument(text));
    }
    context
        .blocking(move |depot| {
            verify(depot, space, &blob, &chunks)
                .and_then(|()| depot.splice(space, &blob, &chunks))
                .map_err(|error| status(&error))
        })
        .await
}

fn verify(depot: &Depot, space: Space, blob: &Digest, chunks: &[Digest]) -> Result<(), StoreError> {
    let mut hasher = blob.function.hasher();
    for chunk in chunks {
        let content = depot.content(space, chunk)?;
        let mut offset = 0;
        while offset < chunk.size {
            let bytes = content.read(depot, offset, limits::STREAM_CHUNK_BYTES)?;
            offset += bytes.len() as u64;
            hasher.update(&bytes);
        }
    }
    let found = hasher.finish();
    if found != *blob {
        return Err(StoreError::Mismatch { expected: *blob, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        (0..size)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect()
    }

    #[test]
    fn cutting_piece_by_piece_is_cutting_at_once() {
        let bytes = content(20_000_000);
        let mut at_once = Vec::new();
        let used = cut(&bytes, true, |chunk| at_once.push(chunk.len()));
        assert_eq!((used, at_once.iter().sum::<usize>()), (bytes.len(), bytes.len()));
        assert!(at_once.len() > 20, "{at_once:?}");
        let (last, others) = at_once.split_last().expect("there are some");
        assert!(*last <= CHUNK_BYTES_MAX);
        assert!(others.iter().all(|size| (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(size)));
        let (mut pieces, mut buffer, mut offset) = (Vec::new(), Vec::new(), 0);
        while offset < bytes.len() {
            let end = bytes.len().min(offset + CUT_BYTES);
            buffer.extend_from_slice(&bytes[offset..end]);
            offset = end;
            let used = cut(&buffer, end == bytes.len(), |chunk| pieces.push(chunk.len()));
            buffer.drain(..used);
        }
        assert_eq!(pieces, at_once);
    }

    #[test]
    fn an_edit_changes_the_chunks_around_it_only() {
        let chunks = |bytes: &[u8]| {
            let mut digests = Vec::new();
            cut(bytes, true, |chunk| digests.push(DigestFunction::Sha256.digest(chunk)));
            digests
        };
        let bytes = content(20_000_000);
        let mut edited = bytes.clone();
        edited.splice(10_000_000..10_000_000, *b"inserted");
        let (before, after) = (chunks(&bytes), chunks(&edited));
        let new = after.iter().filter(|digest| !before.contains(digest)).count();
        assert!((1..=3).contains(&new), "{new} of {}", after.len());
    }
}
