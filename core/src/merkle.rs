//! Input trees: a set of paths becomes canonical REAPI directories and one root digest.

use crate::digest::{Digest, DigestFunction};
use crate::path::RelPath;
use crate::wire::{Directory, DirectoryNode, FileNode, SymlinkNode};

/// What stands at one path of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A regular file.
    File {
        /// The content.
        digest: Digest,
        /// The owner's execute bit.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link.
        target: String,
    },
    /// A whole folder, known by the digest of its [`Directory`] message.
    Tree {
        /// The digest of the encoded root directory.
        root: Digest,
    },
}

/// A tree with the directories that had to be made for it.
#[derive(Clone, Debug)]
pub struct InputTree {
    /// The digest of the root directory.
    pub root: Digest,
    /// Encoded directories that are new here; those inside [`Node::Tree`] are in the store already.
    pub directories: Vec<(Digest, Vec<u8>)>,
    /// What the tree was made of, sorted segment by segment.
    pub entries: Vec<(RelPath, Node)>,
}

/// Two things want the same place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is both a file and something else in the same tree")]
pub struct PathClash {
    /// The path that stands twice, or is a file with something below it.
    pub path: RelPath,
}

/// Builds the tree of `entries`. An entry that stands twice with the same node counts once.
pub fn merkle(
    function: DigestFunction,
    mut entries: Vec<(RelPath, Node)>,
) -> Result<InputTree, PathClash> {
    // `/` sorts below every other byte, so that a folder's entries are adjacent to its name.
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    entries
        .sort_by(|(a, _), (b, _)| a.as_str().bytes().map(rank).cmp(b.as_str().bytes().map(rank)));
    entries.dedup();
    let mut builder = Builder { function, directories: Vec::new() };
    let root = builder.directory(&entries, 0)?;
    Ok(InputTree { root, directories: builder.directories, entries })
}

struct Builder {
    function: DigestFunction,
    directories: Vec<(Digest, Vec<u8>)>,
}

impl Builder {
    /// Encodes the folder whose entries share their first `skip` bytes.
    fn directory(&mut self, entries: &[(RelPath, Node)], skip: usize) -> Result<Digest, PathClash> {
        let mut out = Directory::default();
        let mut rest = entries;
        while let Some(((path, node), tail)) = rest.split_first() {
            let below = path.as_str().get(skip..).unwrap_or_default();
            let (name, deeper) = match below.split_once('/') {
                Some((name, _)) => (name, true),
                None => (below, false),
            };
            let in_same = |other: &RelPath| {
                other
                    .as_str()
                    .get(skip..)
                    .and_then(|text| text.strip_prefix(name))
                    .is_some_and(|text| text.is_empty() || text.starts_with('/'))
            };
            if deeper {
                let count = rest.iter().take_while(|(other, _)| in_same(other)).count();
                let (group, after) = rest.split_at(count);
                let digest = self.directory(group, skip + name.len() + 1)?;
                out.directories.push(DirectoryNode { name: name.to_owned(), digest });
                rest = after;
                continue;
            }
            if tail.first().is_some_and(|(other, _)| in_same(other)) {
                return Err(PathClash { path: path.clone() });
            }
            let name = name.to_owned();
            match node {
                Node::File { digest, executable } => {
                    out.files.push(FileNode { name, digest: *digest, is_executable: *executable })
                }
                Node::Symlink { target } => {
                    out.symlinks.push(SymlinkNode { name, target: target.clone() });
                }
                Node::Tree { root } => {
                    out.directories.push(DirectoryNode { name, digest: *root });
                }
            }
            rest = tail;
        }
        let bytes = out.encode();
        let digest = self.function.digest(&bytes);
        self.directories.push((digest, bytes));
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::File { digest: DigestFunction::Blake3.digest(text.as_bytes()), executable: false }
    }

    fn build(paths: &[&str]) -> Result<InputTree, PathClash> {
        let entries = paths.iter().map(|p| (RelPath::new(p).expect("valid"), file(p))).collect();
        merkle(DigestFunction::Blake3, entries)
    }

    #[test]
    fn order_of_entries_does_not_matter() {
        let a = build(&["a/x", "a-b", "a/y/z", "b", "a.c"]).expect("no clash");
        let b = build(&["b", "a/y/z", "a.c", "a-b", "a/x", "b"]).expect("no clash");
        assert_eq!(a.root, b.root);
        for (digest, bytes) in &a.directories {
            assert_eq!(*digest, DigestFunction::Blake3.digest(bytes));
            Directory::decode(DigestFunction::Blake3, bytes).expect("canonical");
        }
    }

    #[test]
    fn clashes_are_found() {
        for paths in [&["a", "a/b"][..], &["a", "a-b", "a/b"], &["x/a", "x/a/b/c"]] {
            assert!(build(paths).is_err(), "{paths:?}");
        }
        let path = RelPath::new("a").expect("valid");
        let twice = vec![(path.clone(), file("1")), (path, file("2"))];
        assert!(merkle(DigestFunction::Blake3, twice).is_err());
    }

    #[test]
    fn grafting_a_tree_equals_listing_it() {
        let inner = build(&["f", "g/h"]).expect("no clash");
        let graft = vec![(RelPath::new("t").expect("valid"), Node::Tree { root: inner.root })];
        let grafted = merkle(DigestFunction::Blake3, graft).expect("no clash");
        let listed = vec![
            (RelPath::new("t/f").expect("valid"), file("f")),
            (RelPath::new("t/g/h").expect("valid"), file("g/h")),
        ];
        let listed = merkle(DigestFunction::Blake3, listed).expect("no clash");
        assert_eq!(grafted.root, listed.root);
    }
}
