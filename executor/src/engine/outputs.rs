//! Writes requested outputs to `maestro-out/`: copies, never links to the cache.
//!
//! What stands there already with the right content (same signature as when it was written) is
//! left alone, so that a null build touches nothing. A file that the user edited or deleted is
//! written again. Everything arrives by temp + rename.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use maestro_cas::{StatSignature, Store, StoreError};
use maestro_core::{ArtifactId, Digest, Node, RelPath};

use crate::remote_cache::RemoteError;
use crate::workspace::facts::{Content, Fact, KnownFiles};

/// One requested file on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it stands, relative to the workspace.
    pub path: String,
    /// Its content.
    pub digest: Digest,
    /// Whether it may be executed.
    pub executable: bool,
    /// How it looked right after it was written.
    pub signature: StatSignature,
}

impl WrittenFile {
    /// What is to be found there as long as nobody touches it.
    pub fn fact(self) -> (String, Fact) {
        let Self { path, digest, executable: _, signature } = self;
        (path, Fact::Content(Content::written(&signature, digest)))
    }
}

/// What could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Blobs of these artifacts are gone; their producers must run again.
    #[error("{} outputs are no longer in the store", .0.len())]
    Lost(Vec<ArtifactId>),
    /// The store or the disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The remote cache is lost, and must not be.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A folder could not be made or cleared.
    #[error("cannot write `{path}`")]
    Io {
        /// The path.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Writes requested artifacts below a workspace.
pub struct OutputWriter<'a> {
    /// The workspace's root.
    pub workspace: &'a Path,
    /// Where the bytes come from.
    pub store: &'a Store,
    /// What an earlier build wrote.
    pub before: Option<&'a dyn KnownFiles>,
}

impl OutputWriter<'_> {
    /// Writes `artifacts`, each of which stands there once, with several threads. Returns the
    /// files of each; links are made but not listed.
    pub fn write(
        &self,
        artifacts: &[(ArtifactId, RelPath, Node)],
        threads: usize,
    ) -> Result<HashMap<ArtifactId, Vec<WrittenFile>>, OutputError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut results = Vec::new();
            while let Some((id, path, node)) = artifacts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut files = Vec::new();
                let result = self.write_node(path, node, &mut files);
                if result.as_ref().is_err_and(|error| !is_loss(error)) {
                    next.store(artifacts.len(), Ordering::Relaxed);
                }
                results.push((*id, result.map(|()| files)));
            }
            results
        };
        let results = std::thread::scope(|scope| {
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            // Where no thread can be had, this one does it all.
            let others: Vec<_> = (1..threads.min(artifacts.len())).filter_map(spawn).collect();
            let mut results = work();
            for other in others {
                results.extend(other.join().expect("writing outputs does not panic"));
            }
            results
        });
        let (mut written, mut lost) = (HashMap::with_capacity(results.len()), Vec::new());
        for (id, result) in results {
            match result {
                Ok(files) => drop(written.insert(id, files)),
                Err(error) if is_loss(&error) => lost.push(id),
                Err(error) => return Err(error),
            }
        }
        if lost.is_empty() { Ok(written) } else { Err(OutputError::Lost(lost)) }
    }

    /// The blobs that [`Self::write`] would read and the store lacks, each once.
    pub fn absent(&self, artifacts: &[(ArtifactId, RelPath, Node)]) -> Vec<Digest> {
        let mut absent = Vec::new();
        let mut note = |path: &str, digest: &Digest, executable| {
            if self.standing(path, digest, executable).is_none() && !self.store.contains(digest) {
                absent.push(*digest);
            }
        };
        for (_, path, node) in artifacts {
            match node {
                Node::File { digest, executable } => note(path.as_str(), digest, *executable),
                Node::Symlink { .. } => {}
                Node::Tree { root } => {
                    for entry in self.store.tree_files(root).unwrap_or_default() {
                        if let Node::File { digest, executable } = entry.node {
                            note(&format!("{path}/{}", entry.path), &digest, executable);
                        }
                    }
                }
            }
        }
        absent.sort_unstable();
        absent.dedup();
        absent
    }

    fn write_node(
        &self,
        path: &RelPath,
        node: &Node,
        written: &mut Vec<WrittenFile>,
    ) -> Result<(), OutputError> {
        match node {
            Node::File { digest, executable } => {
                written.push(self.write_file(path.as_str(), digest, *executable)?);
            }
            Node::Symlink { target } => self.write_link(path.as_str(), target)?,
            Node::Tree { root } => self.write_tree(path, root, written)?,
        }
        Ok(())
    }

    fn write_file(
        &self,
        path: &str,
        digest: &Digest,
        executable: bool,
    ) -> Result<WrittenFile, OutputError> {
        if let Some(standing) = self.standing(path, digest, executable) {
            return Ok(standing);
        }
        let dest = self.workspace.join(path);
        self.make_room(&dest)?;
        self.store.copy_out(digest, executable, &dest)?;
        let metadata = std::fs::symlink_metadata(&dest).map_err(|e| io(&dest, e))?;
        let signature = StatSignature::of(&metadata);
        Ok(WrittenFile { path: path.to_owned(), digest: *digest, executable, signature })
    }

    /// The file at a path, if an earlier build wrote just that and nobody touched it.
    fn standing(&self, path: &str, digest: &Digest, executable: bool) -> Option<WrittenFile> {
        let before = self.before?.content(path)?;
        let mode = before.stat_signature().mode;
        if Digest::from(before.digest) != *digest || (mode & 0o100 != 0) != executable {
            return None;
        }
        let metadata = std::fs::symlink_metadata(self.workspace.join(path)).ok()?;
        let signature = StatSignature::of(&metadata);
        let untouched = signature == before.stat_signature() && !before.racy;
        let path = path.to_owned();
        untouched.then_some(WrittenFile { path, digest: *digest, executable, signature })
    }

    fn write_link(&self, path: &str, target: &str) -> Result<(), OutputError> {
        let dest = self.workspace.join(path);
        if std::fs::read_link(&dest).is_ok_and(|old| old.as_os_str() == target) {
            return Ok(());
        }
        self.make_room(&dest)?;
        let _ = std::fs::remove_file(&dest);
        std::os::unix::fs::symlink(target, &dest).map_err(|e| io(&dest, e))
    }

    /// Writes a tree and removes what an earlier one left there.
    fn write_tree(
        &self,
        path: &RelPath,
        root: &Digest,
        written: &mut Vec<WrittenFile>,
    ) -> Result<(), OutputError> {
        let entries = self.store.tree_files(root)?;
        let dest = self.workspace.join(path);
        let mut wanted = std::collections::HashSet::new();
        for entry in &entries {
            let mut prefix = entry.path.as_str();
            wanted.insert(prefix);
            while let Some((parent, _)) = prefix.rsplit_once('/') {
                wanted.insert(parent);
                prefix = parent;
            }
        }
        if std::fs::symlink_metadata(&dest).is_ok_and(|m| !m.is_dir()) {
            std::fs::remove_file(&dest).map_err(|e| io(&dest, e))?;
        }
        std::fs::create_dir_all(&dest).map_err(|e| io(&dest, e))?;
        remove_others(&dest, "", &wanted)?;
        for entry in &entries {
            let inner = format!("{path}/{}", entry.path);
            match &entry.node {
                Node::File { digest, executable } => {
                    written.push(self.write_file(&inner, digest, *executable)?);
                }
                Node::Symlink { target } => self.write_link(&inner, target)?,
                Node::Tree { .. } => {
                    let empty = self.workspace.join(&inner);
                    std::fs::create_dir_all(&empty).map_err(|e| io(&empty, e))?;
                }
            }
        }
        Ok(())
    }

    /// Makes the folders above `dest`; a file that stands where a folder must be, and a folder
    /// that stands where a file must be, give way, but only inside `maestro-out`.
    fn make_room(&self, dest: &Path) -> Result<(), OutputError> {
        if let Some(parent) = dest.parent()
            && !parent.is_dir()
        {
            let mut above = parent;
            while above.starts_with(self.workspace) && above != self.workspace {
                if std::fs::symlink_metadata(above).is_ok_and(|m| !m.is_dir()) {
                    match std::fs::remove_file(above) {
                        // Another thread was first, and may have made the folder already.
                        Err(error) if !is_gone(&error) => return Err(io(above, error)),
                        _ => {}
                    }
                }
                let Some(next) = above.parent() else { break };
                above = next;
            }
            std::fs::create_dir_all(parent).map_err(|e| io(parent, e))?;
        }
        if std::fs::symlink_metadata(dest).is_ok_and(|m| m.is_dir()) {
            std::fs::remove_dir_all(dest).map_err(|e| io(dest, e))?;
        }
        Ok(())
    }
}

fn remove_others(
    dir: &Path,
    prefix: &str,
    wanted: &std::collections::HashSet<&str>,
) -> Result<(), OutputError> {
    for entry in std::fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let entry = entry.map_err(|e| io(dir, e))?;
        let path = entry.path();
        let is_dir = entry.file_type().map_err(|e| io(&path, e))?.is_dir();
        let inner = entry.file_name().to_str().map(|name| {
            if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
        });
        match inner.filter(|inner| wanted.contains(inner.as_str())) {
            Some(inner) if is_dir => remove_others(&path, &inner, wanted)?,
            Some(_) => {}
            None if is_dir => std::fs::remove_dir_all(&path).map_err(|e| io(&path, e))?,
            None => std::fs::remove_file(&path).map_err(|e| io(&path, e))?,
        }
    }
    Ok(())
}

/// Whether blobs of the artifact are gone, so that making it again helps.
fn is_loss(error: &OutputError) -> bool {
    let OutputError::Store(error) = error else { return false };
    matches!(error, StoreError::Missing { .. } | StoreError::Corrupt { .. })
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory)
}

fn io(path: &Path, source: std::io::Error) -> OutputError {
    OutputError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use maestro_cas::StoreOptions;
    use maestro_core::DigestFunction;

    use super::*;

    /// Writes twenty files, of which those in `lost` have no blob, where `in_the_way` is a file.
    fn check(in_the_way: &str, lost: &[usize], expect: Result<usize, usize>) {
        let dir = tempfile::tempdir().expect("a folder");
        let function = DigestFunction::Blake3;
        let store = Store::open(StoreOptions { root: dir.path().join("cache"), function })
            .expect("a store");
        let workspace = dir.path().join("ws");
        std::fs::create_dir_all(workspace.join("maestro-out")).expect("a folder");
        std::fs::write(workspace.join(in_the_way), "in the way").expect("writable");
        let artifact = |index: usize| {
            let text = format!("content {index}");
            let digest = match lost.contains(&index) {
                true => function.digest(text.as_bytes()),
                false => store.put_bytes(text.as_bytes()).expect("stored"),
            };
            let path = RelPath::new(&format!("maestro-out/a/b{}/{index}", index % 3));
            let node = Node::File { digest, executable: index.is_multiple_of(2) };
            (ArtifactId::from_index(index), path.expect("valid"), node)
        };
        let artifacts: Vec<_> = (0..20).map(artifact).collect();
        let writer = OutputWriter { workspace: &workspace, store: &store, before: None };
        let found = match writer.write(&artifacts, 4) {
            Ok(written) => {
                for (id, path, _) in &artifacts {
                    let [file] = written.get(id).expect("written").as_slice() else {
                        panic!("{path} is one file")
                    };
                    assert_eq!(file.path, path.as_str());
                    let text = std::fs::read_to_string(workspace.join(path)).expect("there");
                    assert_eq!(text, format!("content {}", id.index()));
                }
                Ok(written.len())
            }
            Err(OutputError::Lost(ids)) => Err(ids.len()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn threads_share_the_writing() {
        check("other", &[], Ok(20));
        check("maestro-out/a", &[], Ok(20));
        check("maestro-out/a", &[3, 7], Err(2));
    }
}
