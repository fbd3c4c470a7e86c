//! Checks of blobs in batches: digests that lie, the empty blob, what is missing, limits.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use reapi::compressor::Value as Compressor;
use tonic::{Code, Status};

use super::content::Blob;
use super::peer::{Peer, bounded};
use super::verdict::{Outcome, Verdict, ensure, failed, good, policy, refused, same, same_bytes};
use crate::resource::Encoding;

const BLOB_BYTES: usize = 5_000;
/// The hash of a function that no server here is asked with, 160 bits wide.
const FOREIGN_HASH: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
/// Batches are tried up to this size; larger ones are beyond what a message may have.
const BATCH_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// C06.
pub(super) async fn wrong_digests(peer: Peer) -> Outcome {
    let [promised, sent] = [(); 2].map(|()| Blob::random(peer.function, BLOB_BYTES));
    let wrong = [Code::InvalidArgument];
    let name = peer.write_name(&promised.digest, Encoding::Identity);
    refused("a stream with another hash", &wrong, peer.write(&name, &sent.bytes).await)?;
    let name = peer.write_name(&sent.missized(), Encoding::Identity);
    refused("a stream that is too short", &wrong, peer.write(&name, &sent.bytes).await)?;
    let mut shorter = sent.digest;
    shorter.size -= 1;
    let name = peer.write_name(&shorter, Encoding::Identity);
    refused("a stream that is too long", &wrong, peer.write(&name, &sent.bytes).await)?;
    let missized = crate::convert::wire_digest(&sent.missized());
    let blobs = vec![(promised.wire(), sent.bytes.clone()), (missized, sent.bytes.clone())];
    let codes = update(&peer, blobs).await?;
    let expected = vec![Code::InvalidArgument as i32; 2];
    same("the codes of a batch with another hash and another size", &codes, &expected)?;
    for digest in [promised.digest, sent.missized(), shorter] {
        let there = peer.has(&digest).await?;
        ensure(!there, || "what was refused is there all the same".to_owned())?;
    }
    Ok(())
}

/// C07.
pub(super) async fn empty_blob(peer: Peer) -> Outcome {
    let empty = Blob::of(peer.function, Vec::new());
    let there = peer.has(&empty.digest).await?;
    ensure(there, || "`FindMissingBlobs`: expected the empty blob to be there".to_owned())?;
    let read = good("a read of the empty blob", peer.read(&empty.digest).await)?;
    same_bytes("a read of the empty blob", &read, b"")?;
    if peer.has_zstd() {
        let read = peer.read_zstd(&empty.digest, 0).await;
        same_bytes("a compressed read", &good("a compressed read", read)?, b"")?;
    }
    let answers = good("`BatchReadBlobs`", read_batch(&peer, vec![empty.wire()]).await)?;
    same("the codes of `BatchReadBlobs`", &codes_of(&answers), &vec![0])?;
    let codes = update(&peer, vec![(empty.wire(), Vec::new())]).await?;
    same("the codes of `BatchUpdateBlobs`", &codes, &vec![0])?;
    let name = peer.write_name(&empty.digest, Encoding::Identity);
    same("an upload of it", &good("an upload of it", peer.write(&name, b"").await)?, &0)
}

/// C10.
pub(super) async fn missing(peer: Peer) -> Outcome {
    let (there, also) = (peer.stored(BLOB_BYTES).await?, peer.stored(1).await?);
    let [absent, gone] = [(); 2].map(|()| Blob::random(peer.function, BLOB_BYTES));
    let asked = [&gone, &there, &absent, &also, &there, &absent].map(Blob::wire).to_vec();
    let mut found = good("`FindMissingBlobs`", peer.missing(asked).await)?;
    found.sort_by(|a, b| a.hash.cmp(&b.hash));
    found.dedup();
    let mut expected = vec![absent.wire(), gone.wire()];
    expected.sort_by(|a, b| a.hash.cmp(&b.hash));
    same("what is missing", &found, &expected)?;
    let foreign = reapi::Digest { hash: FOREIGN_HASH.to_owned(), size_bytes: 1 };
    match peer.missing(vec![there.wire(), foreign]).await {
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        Err(status) => Err(failed(format!(
            "digests of two functions: expected INVALID_ARGUMENT, got {}",
            super::verdict::told(&status)
        ))),
        Ok(_) => Err(policy("a digest of another function is looked up like the others")),
    }
}

/// C11.
pub(super) async fn limits(peer: Peer) -> Outcome {
    let [good_one, lie] = [(); 2].map(|()| Blob::random(peer.function, BLOB_BYTES));
    let blobs = vec![(good_one.wire(), good_one.bytes.clone()), (lie.wire(), b"a lie".to_vec())];
    let expected = vec![0, Code::InvalidArgument as i32];
    same("the codes of a good and a bad blob", &update(&peer, blobs).await?, &expected)?;
    let absent = Blob::random(peer.function, BLOB_BYTES);
    let read = read_batch(&peer, vec![good_one.wire(), absent.wire()]).await;
    let answers = good("`BatchReadBlobs`", read)?;
    let mut codes = codes_of(&answers);
    codes.sort_unstable();
    same("the codes of one that is there and one that is not", &codes, &vec![0, 5])?;
    let data = answers.iter().find(|answer| answer.digest == Some(good_one.wire()));
    let data = data.map(|answer| answer.data.as_slice()).unwrap_or_default();
    same_bytes("`BatchReadBlobs`", data, &good_one.bytes)?;
    too_much(&peer).await
}

/// Batches that are larger than announced are refused as a whole.
async fn too_much(peer: &Peer) -> Outcome {
    let limit = peer.cache().max_batch_total_size_bytes;
    if !(1..=BATCH_BYTES_MAX).contains(&limit) {
        let text = match limit {
            0 => "batches have no limit".to_owned(),
            _ => format!("batches may have {limit} bytes, more than is tried here"),
        };
        return Err(policy(text));
    }
    let half = usize::try_from(limit / 2 + 1).unwrap_or_default();
    let halves = [(); 2].map(|()| Blob::random(peer.function, half));
    let wrong = [Code::InvalidArgument];
    let blobs = halves.iter().map(|blob| (blob.wire(), blob.bytes.clone())).collect();
    let written = send(peer, blobs).await.map(|_| ());
    peer.store(&halves).await?;
    let digests = halves.iter().map(Blob::wire).collect();
    let read = read_batch(peer, digests).await.map(|_| ());
    let mut taken = Vec::new();
    for (what, answer) in [("writes", written), ("reads", read)] {
        match answer {
            Ok(()) => taken.push(what),
            answer => refused(&format!("a batch of {what} above the limit"), &wrong, answer)?,
        }
    }
    match taken.is_empty() {
        true => Ok(()),
        false => {
            let taken = taken.join(" and ");
            Err(policy(format!("batches of {taken} above the limit that is announced are taken")))
        }
    }
}

type Answer = reapi::batch_read_blobs_response::Response;

async fn read_batch(peer: &Peer, digests: Vec<reapi::Digest>) -> Result<Vec<Answer>, Status> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: peer.instance(),
        digests,
        acceptable_compressors: Vec::new(),
        digest_function: peer.function_value(),
    };
    Ok(bounded(peer.contents().batch_read_blobs(request)).await?.into_inner().responses)
}

fn codes_of(answers: &[Answer]) -> Vec<i32> {
    answers.iter().map(|answer| answer.status.clone().unwrap_or_default().code).collect()
}

/// Sends blobs in one batch; the code of each.
async fn update(peer: &Peer, blobs: Vec<(reapi::Digest, Vec<u8>)>) -> Result<Vec<i32>, Verdict> {
    let digests: Vec<reapi::Digest> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
    let answers = good("`BatchUpdateBlobs`", send(peer, blobs).await)?;
    let code = |digest: &reapi::Digest| {
        let answer = answers.iter().find(|answer| answer.digest.as_ref() == Some(digest));
        answer.map(|answer| answer.status.clone().unwrap_or_default().code)
    };
    let codes: Option<Vec<i32>> = digests.iter().map(code).collect();
    codes.ok_or_else(|| failed("`BatchUpdateBlobs`: expected an answer for each blob"))
}

type Updated = reapi::batch_update_blobs_response::Response;

async fn send(peer: &Peer, blobs: Vec<(reapi::Digest, Vec<u8>)>) -> Result<Vec<Updated>, Status> {
    let request = |(digest, data)| reapi::batch_update_blobs_request::Request {
        digest: Some(digest),
        data,
        compressor: Compressor::Identity as i32,
    };
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: peer.instance(),
        requests: blobs.into_iter().map(request).collect(),
        digest_function: peer.function_value(),
    };
    Ok(bounded(peer.contents().batch_update_blobs(request)).await?.into_inner().responses)
}
