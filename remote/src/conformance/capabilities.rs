//! Checks of what the server says of itself, against what it does.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use reapi::compressor::Value as Compressor;
use reapi::digest_function::Value as Function;
use tonic::{Code, Status};

use super::chunks::{splice, split};
use super::compressed::{packed, update};
use super::content::Blob;
use super::peer::{Peer, bounded};
use super::verdict::{Outcome, ensure, failed, good, not_offered, policy, refused, told};

const BLOB_BYTES: usize = 10_000;
/// The version that brought chunks.
const CHUNKS_SINCE: (i32, i32) = (2, 12);
/// The first version whose requests name their digest function.
const FUNCTION_SINCE: (i32, i32) = (2, 3);

/// K01.
pub(super) async fn services(peer: Peer) -> Outcome {
    let cache = peer.capabilities.cache_capabilities.clone();
    let cache = cache.ok_or_else(|| not_offered("no `cache_capabilities`: there is no cache"))?;
    let listed = &cache.digest_functions;
    ensure(!listed.is_empty(), || "`digest_functions`: expected some, got none".to_owned())?;
    ensure(!peer.functions().is_empty(), || {
        "`digest_functions`: expected SHA256 or BLAKE3, which are checked here".to_owned()
    })?;
    execution_agrees(&peer).await?;
    let candidates = [Function::Md5, Function::Sha1, Function::Murmur3, Function::Vso];
    let Some(foreign) = candidates.iter().find(|one| !listed.contains(&(**one as i32))) else {
        return Ok(());
    };
    let request = reapi::FindMissingBlobsRequest {
        instance_name: peer.instance(),
        blob_digests: vec![Blob::random(peer.function, BLOB_BYTES).wire()],
        digest_function: *foreign as i32,
    };
    let what = format!("{}, which is not listed", foreign.as_str_name());
    let answer = bounded(peer.contents().find_missing_blobs(request)).await;
    match answer {
        Ok(_) => Err(policy(format!("{what}, is looked up like the others"))),
        answer => refused(&what, &[Code::InvalidArgument], answer),
    }
}

/// Execution is offered where it is said, with a digest function that the cache has.
async fn execution_agrees(peer: &Peer) -> Outcome {
    let execution = peer.capabilities.execution_capabilities.clone().unwrap_or_default();
    if execution.exec_enabled {
        let mut named = execution.digest_functions.clone();
        named.push(execution.digest_function);
        named.retain(|function| *function != Function::Unknown as i32);
        let listed = peer.cache().digest_functions;
        return ensure(named.iter().all(|function| listed.contains(function)), || {
            format!("execution: expected digest functions of the cache {listed:?}, got {named:?}")
        });
    }
    let request = reapi::ExecuteRequest {
        instance_name: peer.instance(),
        action_digest: Some(Blob::random(peer.function, BLOB_BYTES).wire()),
        digest_function: peer.function_value(),
        ..Default::default()
    };
    let answer = bounded(async {
        let mut stream = peer.executions().execute(request).await?.into_inner();
        stream.message().await
    });
    ensure(answer.await.is_err(), || {
        "`Execute`: expected a refusal where `exec_enabled` is not said, got success".to_owned()
    })
}

/// K02.
pub(super) async fn versions(peer: Peer) -> Outcome {
    let absent = |what: &str| failed(format!("`{what}`: expected a version, got none"));
    let low = peer.capabilities.low_api_version.clone();
    let low = low.ok_or_else(|| absent("low_api_version"))?;
    let high = peer.capabilities.high_api_version.clone();
    let high = high.ok_or_else(|| absent("high_api_version"))?;
    let (low, high) = ((low.major, low.minor), (high.major, high.minor));
    ensure(low <= high && low.0 == 2, || {
        format!("versions: expected a range from 2.x on, got {low:?} to {high:?}")
    })?;
    if low < FUNCTION_SINCE && peer.functions().contains(&maestro_core::DigestFunction::Sha256) {
        let peer = peer.with(maestro_core::DigestFunction::Sha256);
        let blob = peer.stored(BLOB_BYTES).await?;
        let request = reapi::FindMissingBlobsRequest {
            instance_name: peer.instance(),
            blob_digests: vec![blob.wire()],
            digest_function: Function::Unknown as i32,
        };
        let answer = bounded(peer.contents().find_missing_blobs(request)).await;
        let answer = good("a request of an old client, without a digest function", answer)?;
        let missing = answer.into_inner().missing_blob_digests.len();
        super::verdict::same("what is missing for an old client", &missing, &0)?;
    }
    let cache = peer.cache();
    if (cache.split_blob_support || cache.splice_blob_support) && high < CHUNKS_SINCE {
        let (major, minor) = high;
        return Err(policy(format!(
            "chunks are offered with {major}.{minor} as the highest version, which has none"
        )));
    }
    Ok(())
}

/// K03.
pub(super) async fn flags(peer: Peer) -> Outcome {
    let cache = peer.cache();
    let blob = peer.stored(BLOB_BYTES).await?;
    let splitting = split(&peer, Some(blob.wire()), reapi::chunking_function::Value::Unknown).await;
    truthful("split_blob_support", cache.split_blob_support, splitting)?;
    let copy = Blob::random(peer.function, BLOB_BYTES);
    let splicing = splice(&peer, Some(copy.wire()), &[copy.wire()]).await;
    truthful("splice_blob_support", cache.splice_blob_support, splicing)?;
    batch_compressors(&peer, &cache).await
}

/// A call that is offered is there, and one that is not offered is not.
fn truthful<T>(flag: &str, offered: bool, answer: Result<T, Status>) -> Outcome {
    match (offered, answer) {
        (true, Err(status)) if status.code() == Code::Unimplemented => {
            Err(failed(format!("`{flag}` is said, and the call is {}", told(&status))))
        }
        (false, Ok(_)) => Err(policy(format!("`{flag}` is not said, and the call works"))),
        _ => Ok(()),
    }
}

async fn batch_compressors(peer: &Peer, cache: &reapi::CacheCapabilities) -> Outcome {
    for listed in &cache.supported_batch_update_compressors {
        ensure(cache.supported_compressors.contains(listed), || {
            format!("the compressor {listed} is for batches, and not for streams")
        })?;
    }
    if !cache.supported_batch_update_compressors.contains(&(Compressor::Zstd as i32)) {
        return Ok(());
    }
    let blob = Blob::compressible(peer.function, BLOB_BYTES);
    update(peer, &blob, Compressor::Zstd, packed(&blob.bytes)?).await?;
    let read = good("a read of what came compressed in a batch", peer.read(&blob.digest).await)?;
    super::verdict::same_bytes("what came compressed in a batch", &read, &blob.bytes)
}
