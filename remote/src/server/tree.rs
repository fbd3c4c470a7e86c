//! A directory with all that is below it, page by page.
//!
//! Directories come breadth first and once each, however often they occur, so that a tree of a few
//! directories that contain each other many times over is small. The token of a page says how many
//! directories came before it; whoever goes on with it walks the same way again. The next page is
//! made when the peer has taken the last one.

use std::collections::{HashSet, VecDeque};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use futures_util::Stream;
use maestro_cas::depot::Space;
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, DigestFunction, limits};
use prost::Message as _;
use tonic::Status;

use super::context::{Context, status, whole};
use crate::convert;

/// A walk that is under way.
struct Walk {
    function: DigestFunction,
    space: Option<Space>,
    page_directories: usize,
    seen: HashSet<Digest>,
    pending: VecDeque<Digest>,
    /// Directories that were found so far.
    found: usize,
    /// Directories that were sent by an earlier call.
    skip: usize,
}

/// The pages of a tree.
pub(super) async fn pages(
    context: &Context,
    space: Option<Space>,
    request: &reapi::GetTreeRequest,
) -> Result<impl Stream<Item = Result<reapi::GetTreeResponse, Status>> + Send + use<>, Status> {
    let function = convert::function(request.digest_function)?;
    let root = convert::required(function, "root_digest", request.root_digest.as_ref())?;
    let skip = match request.page_token.as_str() {
        "" => 0,
        token => token.parse::<usize>().map_err(|_| {
            Status::invalid_argument(format!("`{}` is no page token", token.escape_debug()))
        })?,
    };
    let page = match usize::try_from(request.page_size) {
        Ok(0) => limits::TREE_PAGE_DIRECTORIES,
        Ok(size) => size.min(limits::TREE_PAGE_DIRECTORIES),
        Err(_) => return Err(Status::invalid_argument("the page size is negative")),
    };
    let there = super::contents::has(&context.depot, space, &root);
    if !there {
        return Err(status(&StoreError::Missing { digest: root }));
    }
    let walk = Walk {
        function,
        space,
        page_directories: page,
        seen: HashSet::from([root]),
        pending: VecDeque::from([root]),
        found: 0,
        skip,
    };
    let context = context.clone();
    Ok(futures_util::stream::unfold(Some(walk), move |walk| {
        let context = context.clone();
        async move {
            let mut walk = walk?;
            let work = move |depot: &Depot| Ok((walk.page(depot), walk));
            match context.blocking(work).await {
                Ok((Ok(page), walk)) => {
                    let more = !page.next_page_token.is_empty();
                    Some((Ok(page), more.then_some(walk)))
                }
                Ok((Err(status), _)) | Err(status) => Some((Err(status), None)),
            }
        }
    }))
}

impl Walk {
    fn page(&mut self, depot: &Depot) -> Result<reapi::GetTreeResponse, Status> {
        let mut page = reapi::GetTreeResponse::default();
        let mut bytes = 0;
        while let Some(digest) = self.pending.pop_front() {
            let Some((directory, size)) = self.read(depot, &digest)? else { continue };
            if self.found >= self.skip && !page.directories.is_empty() {
                let full = page.directories.len() >= self.page_directories;
                if full || bytes + size > limits::BATCH_BYTES_MAX {
                    self.pending.push_front(digest);
                    page.next_page_token = self.found.to_string();
                    return Ok(page);
                }
            }
            for child in &directory.directories {
                let field = "directories.digest";
                let child = convert::required(self.function, field, child.digest.as_ref())?;
                if self.seen.insert(child) {
                    self.pending.push_back(child);
                }
            }
            if self.seen.len() > limits::RESULT_NAMES_MAX {
                let text = format!("the tree has more than {} folders", limits::RESULT_NAMES_MAX);
                return Err(Status::resource_exhausted(text));
            }
            self.found += 1;
            if self.found > self.skip {
                bytes += size;
                page.directories.push(directory);
            }
        }
        Ok(page)
    }

    /// Reads a directory, or `None` where it is not there.
    fn read(
        &self,
        depot: &Depot,
        digest: &Digest,
    ) -> Result<Option<(reapi::Directory, usize)>, Status> {
        let Some(space) = self.space else { return Ok(Some(Default::default())) };
        let bytes = match whole(depot, space, digest, limits::BATCH_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(status(&error)),
        };
        let directory = reapi::Directory::decode(bytes.as_slice())
            .map_err(|_| Status::invalid_argument(format!("`{digest}` is not a Directory")))?;
        Ok(Some((directory, bytes.len())))
    }
}
