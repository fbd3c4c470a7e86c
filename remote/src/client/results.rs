//! Action results between `core` and the wire, as a client sees them.
//!
//! What comes is only taken if it could have been made here: exit code 0, files and trees, no links
//! at the places of outputs.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::protobuf;
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{Digest, DigestFunction};

use crate::convert::{self, ConvertError, wire_digest};

/// A result as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Came {
    /// All of it but its trees.
    pub(super) result: ActionResult,
    /// Where its trees stand, and how they are told.
    pub(super) trees: Vec<CameTree>,
    /// Blobs that came with it; the digests are what the bytes are.
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
}

/// A tree of a result; one of the two digests is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CameTree {
    /// Its path below the execution root.
    pub(super) path: String,
    /// A `Tree` message that holds all its directories.
    pub(super) tree: Option<Digest>,
    /// Its root directory.
    pub(super) root: Option<Digest>,
}

/// Reads a result; `None` where it is none that this machine could have made.
#[expect(deprecated, reason = "servers may still fill what newer versions replace")]
pub(super) fn of_wire(
    function: DigestFunction,
    wire: reapi::ActionResult,
) -> Result<Option<Came>, ConvertError> {
    let links =
        [&wire.output_symlinks, &wire.output_file_symlinks, &wire.output_directory_symlinks];
    if wire.exit_code != 0 || links.iter().any(|links| !links.is_empty()) {
        return Ok(None);
    }
    let metadata = wire.execution_metadata.unwrap_or_default();
    if metadata.worker == ActionResult::FLAKY_WORKER {
        return Ok(None);
    }
    let mut blobs = Vec::new();
    let mut output_files = Vec::with_capacity(wire.output_files.len());
    for file in wire.output_files {
        let digest = convert::required(function, "output_files.digest", file.digest.as_ref())?;
        let reapi::OutputFile { path, is_executable, contents, .. } = file;
        if !contents.is_empty() && function.digest(&contents) == digest {
            blobs.push((digest, contents));
        }
        output_files.push(OutputFile { path, digest, is_executable });
    }
    output_files.sort_by(|a, b| a.path.cmp(&b.path));
    let stdout_digest = text(function, wire.stdout_digest.as_ref(), wire.stdout_raw, &mut blobs)?;
    let stderr_digest = text(function, wire.stderr_digest.as_ref(), wire.stderr_raw, &mut blobs)?;
    let optional = |digest: &Option<reapi::Digest>| {
        digest.as_ref().map(|digest| convert::digest(function, digest)).transpose()
    };
    let mut trees = Vec::with_capacity(wire.output_directories.len());
    for tree in wire.output_directories {
        let root = optional(&tree.root_directory_digest)?;
        let message = optional(&tree.tree_digest)?;
        if root.is_none() && message.is_none() {
            return Err(ConvertError::Absent { field: "output_directories.tree_digest" });
        }
        trees.push(CameTree { path: tree.path, tree: message, root });
    }
    trees.sort_by(|a, b| a.path.cmp(&b.path));
    let result = ActionResult {
        output_files,
        output_directories: Vec::new(),
        exit_code: 0,
        stdout_digest,
        stderr_digest,
        worker: metadata.worker,
        execution_ms: metadata.virtual_execution_duration.map_or(0, millis),
    };
    Ok(Some(Came { result, trees, blobs }))
}

/// What a command wrote: named by a digest, or there itself.
fn text(
    function: DigestFunction,
    named: Option<&reapi::Digest>,
    raw: Vec<u8>,
    blobs: &mut Vec<(Digest, Vec<u8>)>,
) -> Result<Option<Digest>, ConvertError> {
    let named = named.map(|digest| convert::digest(function, digest)).transpose()?;
    if raw.is_empty() {
        return Ok(named.filter(|digest| !digest.is_empty_blob()));
    }
    let digest = function.digest(&raw);
    if named.is_some_and(|named| named != digest) {
        return Ok(named);
    }
    blobs.push((digest, raw));
    Ok(Some(digest))
}

/// Writes a result; `trees` are the digests of the `Tree` messages of its trees, in their order.
pub(super) fn to_wire(result: &ActionResult, trees: &[Digest]) -> reapi::ActionResult {
    let files = result.output_files.iter().map(|file| reapi::OutputFile {
        path: file.path.clone(),
        digest: Some(wire_digest(&file.digest)),
        is_executable: file.is_executable,
        ..Default::default()
    });
    let directories = result.output_directories.iter().zip(trees);
    let directories = directories.map(|(directory, tree)| reapi::OutputDirectory {
        path: directory.path.clone(),
        tree_digest: Some(wire_digest(tree)),
        is_topologically_sorted: false,
        root_directory_digest: Some(wire_digest(&directory.root_directory_digest)),
    });
    let ms = result.execution_ms;
    let duration = protobuf::Duration {
        seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
    };
    reapi::ActionResult {
        output_files: files.collect(),
        output_directories: directories.collect(),
        exit_code: result.exit_code,
        stdout_digest: result.stdout_digest.as_ref().map(wire_digest),
        stderr_digest: result.stderr_digest.as_ref().map(wire_digest),
        execution_metadata: Some(reapi::ExecutedActionMetadata {
            worker: result.worker.clone(),
            virtual_execution_duration: (ms > 0).then_some(duration),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn millis(duration: protobuf::Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000) + u64::try_from(duration.nanos).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use maestro_core::wire::OutputDirectory;

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn ours() -> ActionResult {
        let digest = FUNCTION.digest(b"x");
        ActionResult {
            output_files: vec![OutputFile { path: "a".into(), digest, is_executable: true }],
            output_directories: vec![OutputDirectory {
                path: "t".into(),
                root_directory_digest: digest,
            }],
            exit_code: 0,
            stdout_digest: Some(FUNCTION.digest(b"said")),
            stderr_digest: None,
            worker: "local".into(),
            execution_ms: 61_234,
        }
    }

    #[test]
    fn results_come_back_as_they_went() {
        let (ours, tree) = (ours(), FUNCTION.digest(b"tree"));
        let came = of_wire(FUNCTION, to_wire(&ours, &[tree])).expect("sound").expect("usable");
        let root = Some(FUNCTION.digest(b"x"));
        assert_eq!(came.trees, [CameTree { path: "t".into(), tree: Some(tree), root }]);
        assert_eq!(came.blobs, []);
        let result = ActionResult { output_directories: came_directories(&came), ..came.result };
        assert_eq!(result, ours);
    }

    fn came_directories(came: &Came) -> Vec<OutputDirectory> {
        let directory = |tree: &CameTree| OutputDirectory {
            path: tree.path.clone(),
            root_directory_digest: tree.root.expect("it was sent"),
        };
        came.trees.iter().map(directory).collect()
    }

    #[test]
    fn what_could_not_be_made_here_is_not_taken() {
        let check = |change: &dyn Fn(&mut reapi::ActionResult)| {
            let mut wire = to_wire(&ours(), &[FUNCTION.digest(b"tree")]);
            change(&mut wire);
            assert_eq!(of_wire(FUNCTION, wire), Ok(None));
        };
        check(&|wire| wire.exit_code = 1);
        check(&|wire| wire.output_symlinks.push(reapi::OutputSymlink::default()));
        check(&|wire| {
            let metadata = wire.execution_metadata.as_mut().expect("there");
            metadata.worker = ActionResult::FLAKY_WORKER.to_owned();
        });
    }

    #[test]
    fn bytes_that_come_along_are_what_they_are() {
        let mut wire = to_wire(&ours(), &[FUNCTION.digest(b"tree")]);
        wire.stdout_raw = b"said".to_vec();
        wire.output_files[0].contents = b"y".to_vec();
        let came = of_wire(FUNCTION, wire).expect("sound").expect("usable");
        assert_eq!(came.blobs, [(FUNCTION.digest(b"said"), b"said".to_vec())]);
    }
}
