//! Steps that Maestro implements itself: pure functions from digests to digests, in process.
//!
//! A native action's parameters are its `request`, its inputs stand below `in/` in the prepared
//! tree; `docs/design/native-steps.md` fixes both. Nothing here touches the workspace, the clock,
//! the network or the host's user, mask and names, so that the same key gives the same bytes on
//! every machine. Blobs that may be large are streamed, never held whole.
//!
//! | module | what it owns |
//! |---|---|
//! | [`request`] | the shapes of requests |
//! | `inputs` | what the paths of a request name |
//! | `compose` | trees made of files, trees, links and folders |
//! | `files` | `write`, `expand-template`, `copy`, `tree` |
//! | `archive`, `tar_writer`, `gzip` | `tar` |
//! | `image` | `oci-image` |
//! | `unpack`, `tar_reader` | `unpack` |
//! | `unpack::npm` | `npm-package` |
//! | `wheel` | `wheel` |
//! | `manifest` | `manifest` |
//! | `scratch` | temporary files on their way into the store |
//!
//! Adding a kind: a struct in `request`, a function, a row in [`KINDS`], a section in the page.

mod archive;
mod compose;
pub mod error;
mod files;
#[cfg(test)]
mod fixture;
mod gzip;
mod image;
mod inputs;
mod manifest;
pub mod request;
mod scratch;
mod tar_reader;
mod tar_writer;
mod unpack;
mod wheel;

use std::time::Instant;

use maestro_cas::Store;
use maestro_core::key::{REQUEST_FILE, WRITE_SEMANTICS};
use maestro_core::wire::{ActionResult, OutputDirectory, OutputFile};
use maestro_core::{ArtifactKind, Digest, How, Node, Output, Prepared};
use serde::de::DeserializeOwned;

pub use error::NativeError;
pub use scratch::{ScratchError, ScratchFile};

use crate::runner::{Cancel, Job, Outcome, RunError, Runner};
use inputs::Inputs;

/// One kind of native step.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in `How::Native`.
    pub name: &'static str,
    /// Bumped when the same request and inputs give other bytes.
    pub semantics: u32,
    run: fn(&Step<'_>) -> Result<Made, NativeError>,
}

/// The kind that composes a tree, which is also the end of a map.
pub const TREE: &str = "tree";
/// See [`Kind::semantics`].
pub const TREE_SEMANTICS: u32 = 1;

/// The kinds that [`NativeRunner`] runs.
pub const KINDS: [Kind; 10] = [
    Kind { name: "copy", semantics: 1, run: files::copy },
    Kind { name: "expand-template", semantics: 1, run: files::expand_template },
    Kind { name: "manifest", semantics: 1, run: manifest::manifest },
    Kind { name: "npm-package", semantics: 1, run: unpack::npm_package },
    Kind { name: "oci-image", semantics: 1, run: image::oci_image },
    Kind { name: "tar", semantics: 1, run: archive::tar },
    Kind { name: TREE, semantics: TREE_SEMANTICS, run: files::tree },
    Kind { name: "unpack", semantics: 1, run: unpack::unpack },
    Kind { name: "wheel", semantics: 1, run: wheel::wheel },
    Kind { name: "write", semantics: 1, run: files::write },
];

/// Runs the pure kinds of [`KINDS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeRunner;

impl Runner for NativeRunner {
    fn handles(&self, how: &How) -> bool {
        match how {
            How::Native { kind, .. } => find_kind(kind).is_some(),
            How::Params { .. } => true,
            How::Command { .. } | How::Map(_) => false,
        }
    }

    fn run(&self, job: &Job<'_>) -> Result<Outcome, RunError> {
        let start = Instant::now();
        if job.cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
        let made = run_kind(job).map_err(|failure| match failure {
            // Whatever failed, it failed because a reader was stopped.
            _ if job.cancel.is_cancelled() => RunError::Cancelled,
            failure => failure.into_run_error(),
        })?;
        one_output(job, made, start.elapsed().as_millis() as u64)
    }
}

/// What a step made: the content of its one output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A regular file.
    File {
        /// Its content, in the store.
        digest: Digest,
        /// Its execute bit.
        executable: bool,
    },
    /// A tree.
    Tree {
        /// Its root directory; it and all below are in the store.
        root: Digest,
    },
}

/// What a kind's function gets.
struct Step<'a> {
    kind: &'a str,
    request: &'a serde_json::Value,
    inputs: Inputs<'a>,
    store: &'a Store,
    cancel: &'a Cancel,
}

impl Step<'_> {
    /// The request in the shape of the kind.
    fn request<T: DeserializeOwned>(&self) -> Result<T, NativeError> {
        T::deserialize(self.request).map_err(|error| NativeError::Shape {
            kind: self.kind.to_owned(),
            why: error.to_string(),
        })
    }

    fn check_cancelled(&self) -> Result<(), NativeError> {
        if self.cancel.is_cancelled() { Err(NativeError::Cancelled) } else { Ok(()) }
    }
}

fn find_kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn run_kind(job: &Job<'_>) -> Result<Made, NativeError> {
    let internal = |message: String| NativeError::Internal { message };
    let written;
    let (name, semantics, request) = match &job.spec.how {
        How::Native { kind, semantics, request } => (kind.as_str(), *semantics, request),
        How::Params { .. } => {
            written = prepared_request(job.prepared)?;
            ("write", WRITE_SEMANTICS, &written)
        }
        How::Command { .. } | How::Map(_) => {
            return Err(internal("a command was given to the native runner".to_owned()));
        }
    };
    let kind = find_kind(name).ok_or_else(|| internal(format!("no native kind is `{name}`")))?;
    if kind.semantics != semantics {
        return Err(internal(format!(
            "the rules know semantics {semantics} of `{name}`, the runner {}",
            kind.semantics
        )));
    }
    let inputs = Inputs::new(job.store, job.prepared);
    let step = Step { kind: name, request, inputs, store: job.store, cancel: job.cancel };
    (kind.run)(&step)
}

/// The request of a step whose text was known only when its key was made.
fn prepared_request(prepared: &Prepared) -> Result<serde_json::Value, NativeError> {
    let lost = || NativeError::Internal { message: "a request is not in its key".to_owned() };
    let digest = prepared.tree.entries.iter().find_map(|(path, node)| match node {
        Node::File { digest, .. } if path.as_str() == REQUEST_FILE => Some(*digest),
        _ => None,
    });
    let blob = prepared.blobs.iter().find(|(own, _)| Some(*own) == digest);
    let (_, bytes) = blob.ok_or_else(lost)?;
    serde_json::from_slice(bytes).map_err(|_| lost())
}

/// The outcome of a step whose single declared output is `made`.
pub fn one_output(job: &Job<'_>, made: Made, execution_ms: u64) -> Result<Outcome, RunError> {
    let internal = |message: String| Err(RunError::Internal { message });
    let [Output { artifact, optional: _ }] = job.spec.outputs.as_slice() else {
        return internal(format!(
            "a native step makes one output, {} are declared",
            job.spec.outputs.len()
        ));
    };
    let artifact = job.graph.artifact(*artifact);
    let path = artifact.path.to_string();
    let mut result =
        ActionResult { worker: "native".to_owned(), execution_ms, ..Default::default() };
    match (made, artifact.kind) {
        (Made::File { digest, executable }, ArtifactKind::File) => {
            result.output_files.push(OutputFile { path, digest, is_executable: executable });
        }
        (Made::Tree { root }, ArtifactKind::Tree) => {
            let tree = OutputDirectory { path, root_directory_digest: root };
            result.output_directories.push(tree);
        }
        (Made::File { .. }, ArtifactKind::Tree) => {
            return failed(format!(
                "output `{path}` is declared as a folder, the step made a file"
            ));
        }
        (Made::Tree { .. }, ArtifactKind::File) => {
            return failed(format!(
                "output `{path}` is declared as a file, the step made a folder"
            ));
        }
    }
    Ok(Outcome { result, cpu_ms: 0, memory_bytes: 0, cost_usd_micros: 0 })
}

fn failed(message: String) -> Result<Outcome, RunError> {
    Err(RunError::Failed {
        message,
        hints: Vec::new(),
        stdout: None,
        stderr: None,
        kept: Vec::new(),
    })
}
