//! The service of blobs in batches.

use std::collections::HashSet;
use std::pin::Pin;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use futures_util::Stream;
use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, DigestFunction, limits};
use reapi::compressor::Value as Compressor;
use reapi::content_addressable_storage_server::ContentAddressableStorage;
use tonic::{Code, Request, Response, Status, Streaming};

use super::context::{Context, status};
use super::{chunks, tree};
use crate::{compression, convert};

/// The service.
pub(super) struct Contents(pub(super) Context);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for Contents {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        check_count(request.blob_digests.len())?;
        let mut asked = HashSet::with_capacity(request.blob_digests.len());
        let mut missing = Vec::new();
        for wire in request.blob_digests {
            let digest = convert::digest(function, &wire)?;
            if asked.insert(digest) && !has(&self.0.depot, space, &digest) {
                missing.push(wire);
            }
        }
        Ok(Response::new(reapi::FindMissingBlobsResponse { missing_blob_digests: missing }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.write_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        check_count(request.requests.len())?;
        let sizes = request.requests.iter().map(|blob| {
            let announced = blob.digest.as_ref().map_or(0, |digest| digest.size_bytes);
            // What travels compressed counts as what it is unpacked to.
            u64::try_from(announced).unwrap_or(0).max(blob.data.len() as u64)
        });
        check_total(sizes.fold(0, u64::saturating_add))?;
        let responses =
            self.0.blocking(move |depot| Ok(update(depot, space, function, request.requests)));
        let responses = responses.await?;
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        check_count(request.digests.len())?;
        let sizes = request.digests.iter();
        let sizes = sizes.map(|digest| u64::try_from(digest.size_bytes).unwrap_or(0));
        check_total(sizes.fold(0, u64::saturating_add))?;
        let zstd = request.acceptable_compressors.contains(&(Compressor::Zstd as i32));
        let responses = self.0.blocking(move |depot| {
            let read = |wire| read(depot, space, function, wire, zstd);
            Ok(request.digests.into_iter().map(read).collect())
        });
        let responses = responses.await?;
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Answers<reapi::GetTreeResponse>;

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let pages = tree::pages(&self.0, space, &request).await?;
        Ok(Response::new(Box::pin(pages)))
    }

    async fn split_blob(
        &self,
        request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let blob = convert::required(function, "blob_digest", request.blob_digest.as_ref())?;
        let chunks = chunks::of_blob(&self.0, space, blob).await?;
        Ok(Response::new(reapi::SplitBlobResponse {
            chunk_digests: chunks.digests.iter().map(convert::wire_digest).collect(),
            chunking_function: chunks.function as i32,
        }))
    }

    type GetChunkMappingStream = Answers<reapi::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        request: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.read_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let blob = convert::required(function, "blob_digest", request.blob_digest.as_ref())?;
        let chunks = chunks::of_blob(&self.0, space, blob).await?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(chunks::pages(&chunks)))))
    }

    async fn splice_blob(
        &self,
        request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let space = self.0.write_space(&extensions, &request.instance_name)?;
        let function = convert::function(request.digest_function)?;
        let blob = convert::required(function, "blob_digest", request.blob_digest.as_ref())?;
        let list = chunks::list(function, &request.chunk_digests)?;
        chunks::splice(&self.0, space, blob, list).await?;
        Ok(Response::new(reapi::SpliceBlobResponse {
            blob_digest: Some(convert::wire_digest(&blob)),
        }))
    }

    async fn register_chunk_mapping(
        &self,
        request: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        let (_, extensions, mut stream) = request.into_parts();
        let nothing = || Status::invalid_argument("the stream has no message");
        let first = stream.message().await?.ok_or_else(nothing)?;
        let space = self.0.write_space(&extensions, &first.instance_name)?;
        let function = convert::function(first.digest_function)?;
        let blob = convert::required(function, "blob_digest", first.blob_digest.as_ref())?;
        let mut list = chunks::list(function, &first.chunk_digests)?;
        while let Some(next) = stream.message().await? {
            list.extend(chunks::list(function, &next.chunk_digests)?);
            chunks::check_length(list.len())?;
        }
        chunks::splice(&self.0, space, blob, list).await?;
        Ok(Response::new(reapi::RegisterChunkMappingResponse {
            blob_digest: Some(convert::wire_digest(&blob)),
        }))
    }
}

/// Whether a blob is there; what nobody ever stored anything in has the empty one alone.
pub(super) fn has(depot: &Depot, space: Option<Space>, digest: &Digest) -> bool {
    match space {
        Some(space) => depot.has(space, digest),
        None => digest.function.digest(b"") == *digest,
    }
}

fn check_count(count: usize) -> Result<(), Status> {
    let limit = limits::REQUEST_DIGESTS_MAX;
    if count > limit {
        let text = format!("the request names {count} blobs, and {limit} are allowed");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

fn check_total(bytes: u64) -> Result<(), Status> {
    let limit = limits::BATCH_BYTES_MAX as u64;
    if bytes > limit {
        let text = format!(
            "the batch has {bytes} bytes, and {limit} are allowed: `max_batch_total_size_bytes`"
        );
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

type Update = reapi::batch_update_blobs_request::Request;
type Updated = reapi::batch_update_blobs_response::Response;

fn update(
    depot: &Depot,
    space: Space,
    function: DigestFunction,
    blobs: Vec<Update>,
) -> Vec<Updated> {
    let mut statuses = Vec::with_capacity(blobs.len());
    let mut good: Vec<(Digest, Vec<u8>)> = Vec::new();
    for blob in blobs {
        let wire = blob.digest.clone();
        let verdict = verified(function, blob).map(|blob| good.push(blob));
        statuses.push((wire, verdict));
    }
    let parts: Vec<(Digest, &[u8])> =
        good.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())).collect();
    let stored = depot.put(space, &parts).map_err(|error| status(&error));
    let answer = |(digest, verdict): (Option<reapi::Digest>, Result<(), Status>)| Updated {
        digest,
        status: Some(wire_status(verdict.and_then(|()| stored.clone()))),
    };
    statuses.into_iter().map(answer).collect()
}

/// Unpacks and hashes a blob.
fn verified(function: DigestFunction, blob: Update) -> Result<(Digest, Vec<u8>), Status> {
    let digest = convert::required(function, "digest", blob.digest.as_ref())?;
    let bytes = match Compressor::try_from(blob.compressor) {
        Ok(Compressor::Identity) => blob.data,
        Ok(Compressor::Zstd) => compression::unpack(&blob.data, digest.size)?,
        _ => {
            return Err(Status::invalid_argument(format!(
                "the compressor {} is not supported; IDENTITY and ZSTD are",
                blob.compressor
            )));
        }
    };
    let found = function.digest(&bytes);
    if found != digest {
        return Err(status(&StoreError::Mismatch { expected: digest, found }));
    }
    Ok((digest, bytes))
}

type Found = reapi::batch_read_blobs_response::Response;

fn read(
    depot: &Depot,
    space: Option<Space>,
    function: DigestFunction,
    wire: reapi::Digest,
    zstd: bool,
) -> Found {
    let (data, verdict) = match content(depot, space, function, &wire) {
        Ok(data) => (data, Ok(())),
        Err(status) => (Vec::new(), Err(status)),
    };
    let packed = if zstd { compression::pack(&data).ok() } else { None };
    let (data, compressor) = match packed.filter(|packed| packed.len() < data.len()) {
        Some(packed) => (packed, Compressor::Zstd),
        None => (data, Compressor::Identity),
    };
    let status = Some(wire_status(verdict));
    Found { digest: Some(wire), data, compressor: compressor as i32, status }
}

fn content(
    depot: &Depot,
    space: Option<Space>,
    function: DigestFunction,
    wire: &reapi::Digest,
) -> Result<Vec<u8>, Status> {
    let digest = convert::digest(function, wire)?;
    if function.digest(b"") == digest {
        return Ok(Vec::new());
    }
    let missing = || status(&StoreError::Missing { digest });
    let content = depot.content(space.ok_or_else(missing)?, &digest);
    let content = content.map_err(|error| status(&error))?;
    content.read(depot, 0, usize::MAX).map_err(|error| status(&error))
}

fn wire_status(verdict: Result<(), Status>) -> rpc::Status {
    match verdict {
        Ok(()) => rpc::Status { code: Code::Ok as i32, ..Default::default() },
        Err(status) => rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}
