//! The service of blobs as streams: reading from any place on, and writing with resumption.

mod order;
mod write;

use std::pin::Pin;

use bazel_remote_apis::google::bytestream as wire;
use futures_util::Stream;
use maestro_cas::depot::Content;
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, limits};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use wire::byte_stream_server::ByteStream;

use super::access::Need;
use super::context::{Context, status};
use crate::compression::Packer;
use crate::resource::{Encoding, Resource};
use write::Turns;

/// A header in which clients may repeat the name of the resource, for what routes by it.
const RESOURCE_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// The service.
pub(super) struct Streams {
    context: Context,
    turns: Turns,
}

impl Streams {
    pub(super) fn new(context: Context) -> Self {
        Self { context, turns: Turns::default() }
    }
}

#[tonic::async_trait]
impl ByteStream for Streams {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<wire::ReadResponse, Status>> + Send>>;

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        check_header(&metadata, &request.resource_name)?;
        let resource = Resource::parse_read(&request.resource_name)?;
        let space = self.context.read_space(&extensions, &resource.instance)?;
        let digest = resource.digest;
        let range = range(&request, &resource)?;
        if !super::contents::has(&self.context.depot, space, &digest) {
            return Err(status(&StoreError::Missing { digest }));
        }
        let open = move |depot: &Depot| match space {
            Some(space) => depot.content(space, &digest).map(Some).map_err(|error| status(&error)),
            None => Ok(None),
        };
        let content = self.context.blocking(open).await?;
        let packer = match resource.encoding {
            Encoding::Identity => None,
            Encoding::Zstd => Some(Packer::new()?),
        };
        let reading = Reading { content, offset: range.0, end: range.1, packer, ended: false };
        Ok(Response::new(Box::pin(pieces(self.context.clone(), reading))))
    }

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteRequest>>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let (metadata, extensions, mut stream) = request.into_parts();
        let first = write::next(&mut stream).await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        check_header(&metadata, &first.resource_name)?;
        let resource = Resource::parse_write(&first.resource_name)?;
        let space = self.context.write_space(&extensions, &resource.instance)?;
        if resource.digest.size > limits::SERVED_BLOB_BYTES_MAX {
            return Err(too_large(&resource.digest));
        }
        let name = first.resource_name.clone();
        let writing = write::Writing { context: &self.context, space, resource: &resource, name };
        let committed_size = writing.run(&self.turns, first, &mut stream).await?;
        Ok(Response::new(wire::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<wire::QueryWriteStatusRequest>,
    ) -> Result<Response<wire::QueryWriteStatusResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        check_header(&metadata, &request.resource_name)?;
        let resource = Resource::parse_write(&request.resource_name)?;
        // Whoever asks takes the upload from the stream that writes to it.
        self.context.check(&extensions, &resource.instance, Need::Write)?;
        let space = self.context.depot.space(&resource.instance);
        let complete = super::contents::has(&self.context.depot, space, &resource.digest);
        let committed_size = if complete {
            resource.digest.size
        } else {
            self.turns.settle(&request.resource_name).await;
            let name = request.resource_name;
            let length =
                move |depot: &Depot| depot.upload_length(&name).map_err(|error| status(&error));
            self.context.blocking(length).await?
        };
        let committed_size = committed_size as i64;
        Ok(Response::new(wire::QueryWriteStatusResponse { committed_size, complete }))
    }
}

pub(super) fn too_large(digest: &Digest) -> Status {
    let limit = limits::SERVED_BLOB_BYTES_MAX;
    let text = format!("`{digest}` has more than the {limit} bytes that one blob may have");
    Status::invalid_argument(text)
}

fn check_header(metadata: &MetadataMap, name: &str) -> Result<(), Status> {
    match metadata.get(RESOURCE_HEADER).map(|value| value.to_str()) {
        None => Ok(()),
        Some(Ok(value)) if value == name => Ok(()),
        Some(_) => Err(Status::invalid_argument(format!(
            "the header `{RESOURCE_HEADER}` names another resource than the message"
        ))),
    }
}

/// The range of content that is asked for: from where, and up to where.
fn range(request: &wire::ReadRequest, resource: &Resource) -> Result<(u64, u64), Status> {
    let size = resource.digest.size;
    let offset = u64::try_from(request.read_offset).ok().filter(|offset| *offset <= size);
    let offset = offset.ok_or_else(|| {
        let text = format!("the offset {} is outside of {size} bytes", request.read_offset);
        Status::out_of_range(text)
    })?;
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| Status::invalid_argument("the read limit is negative"))?;
    match (limit, resource.encoding) {
        (0, _) => Ok((offset, size)),
        (_, Encoding::Zstd) => {
            Err(Status::invalid_argument("compressed blobs are read without a limit"))
        }
        (limit, Encoding::Identity) => Ok((offset, size.min(offset.saturating_add(limit)))),
    }
}

/// A blob that is being read; `None` is the empty one.
struct Reading {
    content: Option<Content>,
    offset: u64,
    end: u64,
    packer: Option<Packer>,
    ended: bool,
}

/// The pieces of a blob, each made when the one before was taken.
fn pieces(
    context: Context,
    reading: Reading,
) -> impl Stream<Item = Result<wire::ReadResponse, Status>> + Send {
    futures_util::stream::unfold(Some(reading), move |reading| {
        let context = context.clone();
        async move {
            let mut reading = reading?;
            if reading.ended {
                return None;
            }
            let work = move |depot: &Depot| reading.piece(depot).map(|piece| (piece, reading));
            match context.blocking(work).await {
                Ok((data, reading)) => Some((Ok(wire::ReadResponse { data }), Some(reading))),
                Err(status) => Some((Err(status), None)),
            }
        }
    })
}

impl Reading {
    fn piece(&mut self, depot: &Depot) -> Result<Vec<u8>, Status> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let length = left.min(limits::STREAM_CHUNK_BYTES);
        let bytes = match &self.content {
            Some(content) if length > 0 => {
                content.read(depot, self.offset, length).map_err(|error| status(&error))?
            }
            _ => Vec::new(),
        };
        self.offset += bytes.len() as u64;
        self.ended = self.offset >= self.end || bytes.is_empty();
        match &mut self.packer {
            None => Ok(bytes),
            Some(packer) => Ok(packer.pack(&bytes, self.ended)?),
        }
    }
}
