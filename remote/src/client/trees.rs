//! Trees: their directories as they come and go.
//!
//! A tree comes as one `Tree` message where the server has that, and directory by directory where
//! it has not. Either way its directories are in the store afterwards, each under the digest of its
//! own bytes, and all of them are there.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_cas::StoreError;
use maestro_core::wire::Tree;
use maestro_core::{Digest, limits};
use prost::Message as _;
use tokio::task::block_in_place;

use super::{Shared, Trouble};

/// All that a tree is made of, each blob once.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    /// Its directories, the root first.
    pub(crate) directories: Vec<Digest>,
    /// The content of its files.
    pub(crate) files: Vec<Digest>,
    /// Directories that the store lacks; what is below them is not known.
    pub(crate) absent: Vec<Digest>,
}

impl Shared {
    /// Brings the directories of a tree, and gives its root; `None` where it cannot be had whole.
    pub(crate) async fn bring_tree(
        &self,
        root: Option<Digest>,
        message: Option<Digest>,
    ) -> Result<Option<Digest>, Trouble> {
        if let Some(root) = root
            && block_in_place(|| self.closure(&root)).is_ok_and(|tree| tree.absent.is_empty())
        {
            return Ok(Some(root));
        }
        let unpacked = match message {
            Some(message) => self.bring_message(&message).await?,
            None => None,
        };
        let Some(root) = root.or(unpacked) else { return Ok(None) };
        // Each round goes one level down.
        for _ in 0..limits::TREE_DEPTH_MAX {
            let absent = match block_in_place(|| self.closure(&root)) {
                Ok(closure) => closure.absent,
                // Too large, or no directory: of no use to us.
                Err(Trouble::Store(StoreError::TooLarge { .. } | StoreError::Decode { .. })) => {
                    return Ok(None);
                }
                Err(trouble) => return Err(trouble),
            };
            if absent.is_empty() {
                return Ok(Some(root));
            }
            if !self.fetch(&absent).await?.is_empty() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Fetches a `Tree` message and stores the directories in it; the digest of its root.
    async fn bring_message(&self, message: &Digest) -> Result<Option<Digest>, Trouble> {
        let absent = block_in_place(|| self.absent(vec![*message]));
        if !self.fetch(&absent).await?.is_empty() {
            return Ok(None);
        }
        block_in_place(|| {
            let bytes = match self.store.read(message) {
                Err(StoreError::TooLarge { .. }) => return Ok(None),
                bytes => bytes?,
            };
            let Ok(reapi::Tree { root: Some(root), children }) =
                reapi::Tree::decode(bytes.as_slice())
            else {
                return Ok(None);
            };
            for child in children {
                self.store_directory(&child, message)?;
            }
            self.store_directory(&root, message).map(Some)
        })
    }

    fn store_directory(
        &self,
        directory: &reapi::Directory,
        message: &Digest,
    ) -> Result<Digest, Trouble> {
        let bytes = directory.encode_to_vec();
        let digest = message.function.digest(&bytes);
        self.store.put_known(&digest, &bytes)?;
        Ok(digest)
    }

    /// Walks a tree as far as its directories are in the store.
    pub(crate) fn closure(&self, root: &Digest) -> Result<Closure, Trouble> {
        let (mut closure, mut seen) = (Closure::default(), HashSet::from([*root]));
        let mut pending = vec![*root];
        while let Some(digest) = pending.pop() {
            let directory = match self.store.directory(&digest) {
                Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {
                    closure.absent.push(digest);
                    continue;
                }
                directory => directory?,
            };
            closure.directories.push(digest);
            let below = directory.directories.iter().map(|node| node.digest);
            pending.extend(below.filter(|digest| seen.insert(*digest)));
            let files = directory.files.iter().map(|node| node.digest);
            closure.files.extend(files.filter(|digest| seen.insert(*digest)));
            if seen.len() > limits::RESULT_NAMES_MAX {
                let what = "a tree in blobs";
                let (size, limit) = (seen.len() as u64, limits::RESULT_NAMES_MAX as u64);
                return Err(StoreError::TooLarge { what, size, limit }.into());
            }
        }
        Ok(closure)
    }

    /// The `Tree` message of a tree whose directories are in the store.
    pub(crate) fn message(&self, closure: &Closure) -> Result<Vec<u8>, Trouble> {
        let directories = closure.directories.iter().map(|digest| self.store.read(digest));
        let directories = directories.collect::<Result<Vec<_>, _>>()?;
        let Some((root, children)) = directories.split_first() else { return Ok(Vec::new()) };
        Ok(Tree::encode_parts(root, children))
    }
}
