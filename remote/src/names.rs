//! What an action result names: every blob without which it is of no use.
//!
//! Output files, standard output and error, and trees with all that is in them. A tree is told by a
//! `Tree` message, by the digest of its root directory, or by both. Directories are read once each,
//! however often they occur, and the number of names is bounded: a few directories that contain
//! each other many times over describe more files than there are atoms.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::{Digest, DigestFunction, limits};

use crate::convert::{self, ConvertError};

/// Why it cannot be said what a result names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError<E> {
    /// A digest in it is none.
    #[error(transparent)]
    Digest(#[from] ConvertError),
    /// A blob that should be a message is none.
    #[error("`{digest}` is not a {message} message")]
    Malformed {
        /// The blob.
        digest: Digest,
        /// What it should be.
        message: &'static str,
    },
    /// It names too much.
    #[error("the result names more than {limit} blobs")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// A blob could not be read.
    #[error("cannot read a blob that the result names")]
    Read(E),
}

/// Gathers what a result names. `read` gives the bytes of a blob.
pub fn of_result<E>(
    function: DigestFunction,
    result: &reapi::ActionResult,
    read: &mut dyn FnMut(&Digest) -> Result<Vec<u8>, E>,
) -> Result<Vec<Digest>, NamesError<E>> {
    let mut names = Names { function, seen: HashSet::new(), pending: Vec::new() };
    for file in &result.output_files {
        let digest = convert::required(function, "output_files.digest", file.digest.as_ref())?;
        names.add(digest)?;
    }
    for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
        names.add(convert::digest(function, digest)?)?;
    }
    for tree in &result.output_directories {
        if tree.tree_digest.is_none() && tree.root_directory_digest.is_none() {
            return Err(ConvertError::Absent { field: "output_directories.tree_digest" }.into());
        }
        if let Some(digest) = &tree.tree_digest {
            let digest = convert::digest(function, digest)?;
            if names.add(digest)? {
                let message = decode::<reapi::Tree, E>(&digest, "Tree", read)?;
                for directory in message.root.iter().chain(&message.children) {
                    names.files_of(directory)?;
                }
            }
        }
        if let Some(root) = &tree.root_directory_digest {
            names.descend(convert::digest(function, root)?)?;
        }
        while let Some(digest) = names.pending.pop() {
            let directory = decode::<reapi::Directory, E>(&digest, "Directory", read)?;
            names.files_of(&directory)?;
            for child in &directory.directories {
                let field = "directories.digest";
                names.descend(convert::required(function, field, child.digest.as_ref())?)?;
            }
        }
    }
    Ok(names.seen.into_iter().collect())
}

struct Names {
    function: DigestFunction,
    seen: HashSet<Digest>,
    /// Directories that are named and not yet read.
    pending: Vec<Digest>,
}

impl Names {
    /// Adds a blob; says whether it is new.
    fn add<E>(&mut self, digest: Digest) -> Result<bool, NamesError<E>> {
        let new = self.seen.insert(digest);
        let limit = limits::RESULT_NAMES_MAX;
        if self.seen.len() > limit { Err(NamesError::TooMany { limit }) } else { Ok(new) }
    }

    fn descend<E>(&mut self, directory: Digest) -> Result<(), NamesError<E>> {
        if self.add(directory)? {
            self.pending.push(directory);
        }
        Ok(())
    }

    fn files_of<E>(&mut self, directory: &reapi::Directory) -> Result<(), NamesError<E>> {
        for file in &directory.files {
            let digest = convert::required(self.function, "files.digest", file.digest.as_ref())?;
            self.add(digest)?;
        }
        Ok(())
    }
}

fn decode<M: prost::Message + Default, E>(
    digest: &Digest,
    message: &'static str,
    read: &mut dyn FnMut(&Digest) -> Result<Vec<u8>, E>,
) -> Result<M, NamesError<E>> {
    let bytes = read(digest).map_err(NamesError::Read)?;
    M::decode(bytes.as_slice()).map_err(|_| NamesError::Malformed { digest: *digest, message })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use prost::Message as _;

    use super::*;
    use crate::convert::wire_digest;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    #[derive(Default)]
    struct Blobs(HashMap<Digest, Vec<u8>>);

    impl Blobs {
        fn add(&mut self, bytes: Vec<u8>) -> Digest {
            let digest = FUNCTION.digest(&bytes);
            self.0.insert(digest, bytes);
            digest
        }

        fn names(&self, result: &reapi::ActionResult) -> Result<BTreeSet<Digest>, String> {
            let mut read = |digest: &Digest| self.0.get(digest).cloned().ok_or(*digest);
            match of_result(FUNCTION, result, &mut read) {
                Ok(names) => Ok(names.into_iter().collect()),
                Err(NamesError::Read(digest)) => Err(format!("no {digest}")),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    fn file(name: &str, digest: &Digest) -> reapi::FileNode {
        let digest = Some(wire_digest(digest));
        reapi::FileNode { name: name.into(), digest, ..Default::default() }
    }

    fn folder(name: &str, digest: &Digest) -> reapi::DirectoryNode {
        reapi::DirectoryNode { name: name.into(), digest: Some(wire_digest(digest)) }
    }

    #[test]
    fn trees_are_named_with_all_that_is_in_them() {
        let mut blobs = Blobs::default();
        let [a, b, c, log] = [b"a", b"b", b"c", b"l"].map(|bytes| blobs.add(bytes.to_vec()));
        let child = reapi::Directory { files: vec![file("b", &b)], ..Default::default() };
        let child_digest = blobs.add(child.encode_to_vec());
        let root = reapi::Directory {
            files: vec![file("a", &a)],
            directories: vec![folder("d", &child_digest), folder("e", &child_digest)],
            ..Default::default()
        };
        let root_digest = blobs.add(root.encode_to_vec());
        let tree = reapi::Tree { root: Some(root), children: vec![child] };
        let tree_digest = blobs.add(tree.encode_to_vec());
        let output = |tree: Option<&Digest>, root: Option<&Digest>| reapi::ActionResult {
            output_files: vec![reapi::OutputFile {
                digest: Some(wire_digest(&c)),
                ..Default::default()
            }],
            output_directories: vec![reapi::OutputDirectory {
                tree_digest: tree.map(wire_digest),
                root_directory_digest: root.map(wire_digest),
                ..Default::default()
            }],
            stdout_digest: Some(wire_digest(&log)),
            ..Default::default()
        };
        let by_tree = output(Some(&tree_digest), None);
        assert_eq!(blobs.names(&by_tree), Ok(BTreeSet::from([a, b, c, log, tree_digest])));
        let by_root = output(None, Some(&root_digest));
        let expect = BTreeSet::from([a, b, c, log, root_digest, child_digest]);
        assert_eq!(blobs.names(&by_root), Ok(expect));
        let error = blobs.names(&output(None, None)).expect_err("it says nothing");
        assert!(error.contains("output_directories.tree_digest"), "{error}");
        let error = blobs.names(&output(Some(&a), None)).expect_err("it is no tree");
        assert!(error.contains("is not a Tree message"), "{error}");
        blobs.0.remove(&child_digest);
        assert_eq!(blobs.names(&by_root), Err(format!("no {child_digest}")));
    }

    #[test]
    fn a_tree_that_is_wider_than_anything_is_read_in_no_time() {
        let mut blobs = Blobs::default();
        let mut level = blobs.add(reapi::Directory::default().encode_to_vec());
        for _ in 0..200 {
            let twice = vec![folder("a", &level), folder("b", &level)];
            let directory = reapi::Directory { directories: twice, ..Default::default() };
            level = blobs.add(directory.encode_to_vec());
        }
        let output = reapi::OutputDirectory {
            root_directory_digest: Some(wire_digest(&level)),
            ..Default::default()
        };
        let result = reapi::ActionResult { output_directories: vec![output], ..Default::default() };
        assert_eq!(blobs.names(&result).expect("it is bounded").len(), 201);
    }
}
