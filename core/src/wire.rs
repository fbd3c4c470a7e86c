//! The canonical protobuf encoding of REAPI v2 `Action`, `Command`, `Directory`, `Tree` and
//! `ActionResult`.
//!
//! This is our own encoder, so that the lowest layer carries no protobuf dependency; property
//! tests compare it byte for byte with `bazel-remote-apis` (tests/tests/wire.rs).
//! Field numbers follow `build/bazel/remote/execution/v2/remote_execution.proto`.
//! Encoding is canonical: fields in ascending order, defaults left out, repeated fields in the
//! order that the REAPI demands, which the constructors of these messages keep.
//! [`decode`] is the way back.

mod decode;
mod fields;

use crate::digest::Digest;
use fields::Writer;

/// REAPI `Directory`: one level of a tree. Each list is sorted by name; names are unique over all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Regular files.
    pub files: Vec<FileNode>,
    /// Subfolders.
    pub directories: Vec<DirectoryNode>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkNode>,
}

/// REAPI `FileNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// A single path segment.
    pub name: String,
    /// The content.
    pub digest: Digest,
    /// The owner's execute bit.
    pub is_executable: bool,
}

/// REAPI `DirectoryNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryNode {
    /// A single path segment.
    pub name: String,
    /// The digest of the encoded [`Directory`].
    pub digest: Digest,
}

/// REAPI `SymlinkNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkNode {
    /// A single path segment.
    pub name: String,
    /// The text of the link.
    pub target: String,
}

/// REAPI `Tree`: a directory with all that are below it, in any order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The root.
    pub root: Directory,
    /// The others. Each is known by the digest of its bytes.
    pub children: Vec<Directory>,
}

/// REAPI `Command`, as far as Maestro uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The command line.
    pub arguments: Vec<String>,
    /// Sorted by name.
    pub environment_variables: Vec<(String, String)>,
    /// Sorted paths of outputs, files and trees alike.
    pub output_paths: Vec<String>,
    /// Sorted by name, then value.
    pub platform: Vec<(String, String)>,
}

/// REAPI `Action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The digest of the encoded [`Command`].
    pub command_digest: Digest,
    /// The digest of the encoded root [`Directory`].
    pub input_root_digest: Digest,
    /// Time limit of the command in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the result must not be cached.
    pub do_not_cache: bool,
    /// Facts that separate keys without selecting a worker: see [`crate::key`].
    pub salt: Vec<u8>,
    /// Sorted by name, then value; the same as the command's.
    pub platform: Vec<(String, String)>,
}

/// REAPI `ActionResult`, as far as Maestro uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionResult {
    /// Files made, sorted by path.
    pub output_files: Vec<OutputFile>,
    /// Trees made, sorted by path.
    pub output_directories: Vec<OutputDirectory>,
    /// The exit code.
    pub exit_code: i32,
    /// Standard output, if any.
    pub stdout_digest: Option<Digest>,
    /// Standard error, if any.
    pub stderr_digest: Option<Digest>,
    /// Who ran it: `ExecutedActionMetadata.worker`. Keeps an otherwise empty result from encoding
    /// to nothing.
    pub worker: String,
    /// Wall time of the run in milliseconds: `virtual_execution_duration`.
    pub execution_ms: u64,
}

/// REAPI `OutputFile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// The path below the execution root.
    pub path: String,
    /// The content.
    pub digest: Digest,
    /// The owner's execute bit.
    pub is_executable: bool,
}

/// REAPI `OutputDirectory`, known by its root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputDirectory {
    /// The path below the execution root.
    pub path: String,
    /// The digest of the encoded root [`Directory`].
    pub root_directory_digest: Digest,
}

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message}: {why}")]
pub struct DecodeError {
    /// The REAPI message.
    pub message: &'static str,
    /// The reason.
    pub why: &'static str,
}

impl Directory {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for file in &self.files {
            out.message(1, |out| {
                out.text(1, &file.name);
                out.digest(2, &file.digest);
                out.boolean(4, file.is_executable);
            });
        }
        for directory in &self.directories {
            out.message(2, |out| {
                out.text(1, &directory.name);
                out.digest(2, &directory.digest);
            });
        }
        for symlink in &self.symlinks {
            out.message(3, |out| {
                out.text(1, &symlink.name);
                out.text(2, &symlink.target);
            });
        }
        out.0
    }
}

impl Tree {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let children = self.children.iter().map(Directory::encode);
        Self::encode_parts(&self.root.encode(), children)
    }

    /// As [`Self::encode`], of directories that are encoded already.
    pub fn encode_parts(root: &[u8], children: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<u8> {
        let mut out = Writer::default();
        out.encoded(1, root);
        for child in children {
            out.encoded(2, child.as_ref());
        }
        out.0
    }
}

impl Command {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for argument in &self.arguments {
            out.element(1, argument);
        }
        for (name, value) in &self.environment_variables {
            out.message(2, |out| {
                out.text(1, name);
                out.text(2, value);
            });
        }
        out.platform(5, &self.platform);
        for path in &self.output_paths {
            out.element(7, path);
        }
        out.0
    }
}

impl Action {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.digest(1, &self.command_digest);
        out.digest(2, &self.input_root_digest);
        if let Some(ms) = self.timeout_ms {
            out.duration(6, ms);
        }
        out.boolean(7, self.do_not_cache);
        out.blob(9, &self.salt);
        out.platform(10, &self.platform);
        out.0
    }
}

impl ActionResult {
    /// The worker of a result that a test reached only at a later attempt. Such a result is good
    /// enough for whoever saw the failure, and must never leave the machine.
    pub const FLAKY_WORKER: &'static str = "local, after a failed attempt";

    /// Whether an attempt failed before this one passed.
    pub fn is_flaky(&self) -> bool {
        self.worker == Self::FLAKY_WORKER
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for file in &self.output_files {
            out.message(2, |out| {
                out.text(1, &file.path);
                out.digest(2, &file.digest);
                out.boolean(4, file.is_executable);
            });
        }
        for directory in &self.output_directories {
            out.message(3, |out| {
                out.text(1, &directory.path);
                out.digest(5, &directory.root_directory_digest);
            });
        }
        out.integer(4, i64::from(self.exit_code) as u64);
        if let Some(digest) = &self.stdout_digest {
            out.digest(6, digest);
        }
        if let Some(digest) = &self.stderr_digest {
            out.digest(8, digest);
        }
        out.message(9, |out| {
            out.text(1, &self.worker);
            if self.execution_ms > 0 {
                out.duration(12, self.execution_ms);
            }
        });
        out.0
    }

    /// Every blob that the result names; trees by their root directory only.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let files = self.output_files.iter().map(|file| file.digest);
        let trees = self.output_directories.iter().map(|tree| tree.root_directory_digest);
        files.chain(trees).chain(self.stdout_digest).chain(self.stderr_digest)
    }
}
