//! A tree of the store, asked path by path as if it were a folder.
//!
//! Links are followed as long as they stay inside; `.git` and `maestro-out` are not listed, as in
//! folders. A blob that is gone is an error of the store, which the caller may mend by making the
//! tree again.

use maestro_cas::{Store, StoreError};
use maestro_core::host::{DirEntry, FileType};
use maestro_core::path::resolve_link;
use maestro_core::{Digest, Node, RelPath};

use crate::workspace::listing::HIDDEN_NAMES;

/// Most links that are followed for one path.
const LINKS_MAX: usize = 40;

/// A tree of the store.
#[derive(Debug)]
pub struct TreeMount {
    store: Store,
    root: Digest,
}

impl TreeMount {
    /// The tree below a root directory.
    pub fn new(store: Store, root: Digest) -> Self {
        Self { store, root }
    }

    /// The digest of the root directory.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The file or folder at a path, links followed; an empty path is the root.
    pub fn find(&self, path: &str) -> Result<Option<Node>, StoreError> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match self.step(&path)? {
                Step::Found(node) => return Ok(node),
                Step::Link(next) => path = next,
            }
        }
        Ok(None) // links that lead in a circle lead nowhere
    }

    /// Walks to a path until a link is in the way.
    fn step(&self, path: &str) -> Result<Step, StoreError> {
        let mut folder = self.root;
        let mut segments = path.split('/').filter(|s| !s.is_empty()).peekable();
        let mut walked = String::new();
        while let Some(segment) = segments.next() {
            let directory = self.store.directory(&folder)?;
            if !walked.is_empty() {
                walked.push('/');
            }
            walked.push_str(segment);
            if let Some(child) = directory.directories.iter().find(|d| d.name == segment) {
                folder = child.digest;
            } else if let Some(file) = directory.files.iter().find(|f| f.name == segment) {
                let node = Node::File { digest: file.digest, executable: file.is_executable };
                return Ok(Step::Found(segments.peek().is_none().then_some(node)));
            } else if let Some(link) = directory.symlinks.iter().find(|l| l.name == segment) {
                let link_path = RelPath::new(&walked).ok();
                let Some(target) = link_path.and_then(|at| resolve_link(&at, &link.target)) else {
                    return Ok(Step::Found(None));
                };
                let rest: Vec<&str> = segments.collect();
                return Ok(Step::Link(format!("{target}/{}", rest.join("/"))));
            } else {
                return Ok(Step::Found(None));
            }
        }
        Ok(Step::Found(Some(Node::Tree { root: folder })))
    }

    /// What stands at a path.
    pub fn stat(&self, path: &str) -> Result<Option<FileType>, StoreError> {
        Ok(self.find(path)?.map(|node| match node {
            Node::File { .. } => FileType::File,
            Node::Tree { .. } => FileType::Directory,
            Node::Symlink { .. } => FileType::Symlink,
        }))
    }

    /// The entries of a folder, sorted by name; none if there is no such folder.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, StoreError> {
        let Some(Node::Tree { root }) = self.find(path)? else { return Ok(Vec::new()) };
        let directory = self.store.directory(&root)?;
        let entry = |name: &str, file_type| DirEntry {
            name: name.to_owned(),
            valid: RelPath::new(name).is_ok(),
            file_type,
        };
        let files = directory.files.iter().map(|file| entry(&file.name, FileType::File));
        let folders = directory.directories.iter().map(|d| entry(&d.name, FileType::Directory));
        let links = directory.symlinks.iter().map(|link| entry(&link.name, FileType::Symlink));
        let mut entries: Vec<DirEntry> = files
            .chain(folders)
            .chain(links)
            .filter(|entry| !HIDDEN_NAMES.contains(&entry.name.as_str()))
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The content of a file that [`TreeMount::find`] found.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.store.read(digest)
    }
}

enum Step {
    Found(Option<Node>),
    Link(String),
}
