//! Checks of blobs as streams: their names, repeated and broken uploads, bounds.

use std::time::Duration;

use bazel_remote_apis::google::bytestream as stream;
use maestro_core::limits;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

use super::content::Blob;
use super::peer::{Peer, bounded, pieces};
use super::verdict::{
    Outcome, ensure, failed, good, not_offered, policy, refused, same, same_bytes, told,
};
use crate::resource::Encoding;

/// Bytes of the blobs of most checks.
const BLOB_BYTES: usize = 10_000;
/// Bytes of a blob that goes in several messages.
const LARGE_BYTES: usize = 3_000_000;
/// The header that may repeat the name of the resource.
const RESOURCE_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// C01.
pub(super) async fn upload_names(peer: Peer) -> Outcome {
    let blob = Blob::random(peer.function, BLOB_BYTES);
    let name = peer.write_name(&blob.digest, Encoding::Identity);
    let written = good("an upload", peer.write(&name, &blob.bytes).await)?;
    same("the size that is committed", &written, &(blob.bytes.len() as i64))?;
    let read = good("a read", peer.read(&blob.digest).await)?;
    same_bytes("a read", &read, &blob.bytes)?;
    let blob = Blob::random(peer.function, BLOB_BYTES);
    let name = format!("{}/folder/file.txt", peer.write_name(&blob.digest, Encoding::Identity));
    good("a name with more behind the size", peer.write(&name, &blob.bytes).await)?;
    ensure(peer.has(&blob.digest).await?, || "what was written is not there".to_owned())?;
    let blob = Blob::random(peer.function, BLOB_BYTES);
    let name = peer.write_name(&blob.digest, Encoding::Identity);
    for keyword in ["actions", "operations", "capabilities"] {
        let written = peer.write(&format!("{keyword}/{name}"), &blob.bytes).await;
        ensure(written.is_err(), || {
            format!("an instance `{keyword}/…`: expected a refusal, got success")
        })?;
    }
    let deeper = format!("{}/deeper/still", instance_or(&peer, "conformance"));
    let mut inner = peer.clone();
    inner.target.instance = deeper;
    let name = inner.write_name(&blob.digest, Encoding::Identity);
    // Which instances there are is the server's; what it takes, it has to give back there.
    if inner.write(&name, &blob.bytes).await.is_ok() {
        let read = good("a read of an instance of three parts", inner.read(&blob.digest).await)?;
        same_bytes("a read of an instance of three parts", &read, &blob.bytes)?;
    }
    Ok(())
}

fn instance_or(peer: &Peer, other: &str) -> String {
    let instance = peer.instance();
    if instance.is_empty() { other.to_owned() } else { instance }
}

/// C02.
pub(super) async fn function_in_names(peer: Peer) -> Outcome {
    let blob = peer.stored(BLOB_BYTES).await?;
    let read = good("a read", peer.read(&blob.digest).await)?;
    same_bytes("a read", &read, &blob.bytes)?;
    let named = peer.read_name(&blob.digest, Encoding::Identity);
    let bare = format!("{}/{}", blob.digest.hex(), blob.digest.size);
    let prefix = named.find("blobs/").and_then(|at| named.get(..at)).unwrap_or_default();
    let unknown = format!("{prefix}blobs/nosuchfunction/{bare}");
    let codes = [Code::InvalidArgument, Code::NotFound];
    refused("an unknown digest function", &codes, peer.read_part(&unknown, 0, 0).await)
}

/// C05.
pub(super) async fn duplicates(peer: Peer) -> Outcome {
    let blob = Blob::random(peer.function, LARGE_BYTES);
    let size = blob.bytes.len() as i64;
    let names = [(); 2].map(|()| peer.write_name(&blob.digest, Encoding::Identity));
    let [first, second] = &names;
    let both =
        futures_util::future::join(peer.write(first, &blob.bytes), peer.write(second, &blob.bytes));
    let (first, second) = both.await;
    same("one of two uploads at once", &good("one of two uploads at once", first)?, &size)?;
    same("the other of two uploads at once", &good("the other", second)?, &size)?;
    let name = peer.write_name(&blob.digest, Encoding::Identity);
    let again = good("a second upload", peer.write(&name, &blob.bytes).await)?;
    same("the size that a second upload commits", &again, &size)?;
    let committed = good("the begin of a third upload", begin(&peer, &blob).await)?;
    same("the size that the begin of a third upload commits", &committed, &size)
}

/// Sends the first message of an upload and then nothing; the server may answer all the same.
async fn begin(peer: &Peer, blob: &Blob) -> Result<i64, Status> {
    let name = peer.write_name(&blob.digest, Encoding::Identity);
    let head = pieces(&name, &blob.bytes, 0).into_iter().take(1);
    hold(peer, head.collect()).await
}

/// Sends messages, and keeps the stream open until the server answers.
async fn hold(peer: &Peer, messages: Vec<stream::WriteRequest>) -> Result<i64, Status> {
    let limit = Duration::from_millis(limits::CONFORMANCE_EARLY_MS_MAX);
    let mut client = peer.streams();
    let messages = tokio_stream::iter(messages).chain(tokio_stream::pending());
    match tokio::time::timeout(limit, client.write(messages)).await {
        Ok(answer) => Ok(answer?.into_inner().committed_size),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {limit:?} to a stream that is still open"
        ))),
    }
}

/// C09.
pub(super) async fn resource_header(peer: Peer) -> Outcome {
    let blob = peer.stored(BLOB_BYTES).await?;
    let other = peer.stored(BLOB_BYTES).await?;
    let name = peer.read_name(&blob.digest, Encoding::Identity);
    let read = good("a header that agrees", read_with(&peer, &name, &name).await)?;
    same_bytes("a header that agrees", &read, &blob.bytes)?;
    let header = peer.read_name(&other.digest, Encoding::Identity);
    match read_with(&peer, &name, &header).await {
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        Err(status) => Err(failed(format!(
            "a header that differs: expected INVALID_ARGUMENT, got {}",
            told(&status)
        ))),
        Ok(bytes) => {
            same_bytes("a header that differs: the message", &bytes, &blob.bytes)?;
            Err(policy("the header is not compared; the message counts"))
        }
    }
}

async fn read_with(peer: &Peer, name: &str, header: &str) -> Result<Vec<u8>, Status> {
    let resource_name = name.to_owned();
    let message = stream::ReadRequest { resource_name, read_offset: 0, read_limit: 0 };
    let mut request = Request::new(message);
    let value = header.parse().map_err(|_| Status::internal("a name is no header"))?;
    request.metadata_mut().insert(RESOURCE_HEADER, value);
    bounded(async {
        let mut answer = peer.streams().read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = answer.message().await? {
            bytes.extend(piece.data);
        }
        Ok(bytes)
    })
    .await
}

/// C13.
pub(super) async fn largest_blob(peer: Peer) -> Outcome {
    let limit = peer.cache().max_cas_blob_size_bytes;
    let Some(above) = u64::try_from(limit).ok().filter(|limit| *limit > 0) else {
        return Err(not_offered("no `max_cas_blob_size_bytes` is announced"));
    };
    let mut digest = Blob::random(peer.function, BLOB_BYTES).digest;
    digest.size = above.saturating_add(1);
    let name = peer.write_name(&digest, Encoding::Identity);
    let message = stream::WriteRequest {
        resource_name: name,
        write_offset: 0,
        finish_write: false,
        data: vec![0; BLOB_BYTES],
    };
    let what = format!("the begin of a blob of {} bytes", digest.size);
    refused(&what, &[Code::InvalidArgument], hold(&peer, vec![message]).await)
}

/// C16.
pub(super) async fn resumption(peer: Peer) -> Outcome {
    let blob = Blob::random(peer.function, LARGE_BYTES);
    let size = blob.bytes.len() as i64;
    let name = peer.write_name(&blob.digest, Encoding::Identity);
    let mut head = pieces(&name, &blob.bytes, 0);
    head.truncate(2);
    let sent: i64 = head.iter().map(|message| message.data.len() as i64).sum();
    // Whether the server takes note of the end of a broken stream is not what is asked here.
    let _ = peer.send(head).await;
    let known = match status_of(&peer, &name).await {
        Ok(answer) => {
            ensure(!answer.complete, || "half of an upload is called complete".to_owned())?;
            answer.committed_size
        }
        Err(status) if status.code() == Code::NotFound => 0,
        Err(status) if status.code() == Code::Unimplemented => {
            return Err(not_offered("`QueryWriteStatus` is not implemented"));
        }
        Err(status) => {
            let told = told(&status);
            return Err(failed(format!("`QueryWriteStatus`: expected an answer, got {told}")));
        }
    };
    let range = 0..=sent;
    ensure(range.contains(&known), || {
        format!("`committed_size`: expected at most the {sent} bytes that were sent, got {known}")
    })?;
    let at = usize::try_from(known).unwrap_or_default();
    let rest = pieces(&name, blob.bytes.get(at..).unwrap_or_default(), at);
    let written = good("the rest of an upload", peer.send(rest).await)?;
    same("the size that the rest of an upload commits", &written, &size)?;
    let read = good("a read", peer.read(&blob.digest).await)?;
    same_bytes("a read of what came in two parts", &read, &blob.bytes)?;
    finished(&peer, &name, size).await?;
    match known {
        0 => Err(policy("nothing is kept of an upload that broke off: it begins again")),
        _ => Ok(()),
    }
}

/// What is stored is complete, or is a name that the server has forgotten.
async fn finished(peer: &Peer, name: &str, size: i64) -> Outcome {
    match status_of(peer, name).await {
        Ok(answer) => {
            ensure(answer.complete, || "a whole upload is not called complete".to_owned())?;
            same("the size of a whole upload", &answer.committed_size, &size)
        }
        Err(status) if status.code() == Code::NotFound => {
            Err(policy("an upload is forgotten when it has ended; blobs are asked for by digest"))
        }
        Err(status) => {
            Err(failed(format!("a whole upload: expected an answer, got {}", told(&status))))
        }
    }
}

async fn status_of(peer: &Peer, name: &str) -> Result<stream::QueryWriteStatusResponse, Status> {
    let request = stream::QueryWriteStatusRequest { resource_name: name.to_owned() };
    Ok(bounded(peer.streams().query_write_status(request)).await?.into_inner())
}
