//! What a command was asked to make, and the response that says what it made.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use maestro_core::{Digest, RelPath};
use maestro_executor::command::{Ended, ForeignOutcome};
use reapi::command::OutputDirectoryFormat as Format;
use tokio::task::block_in_place;
use tonic::Code;

use super::assignment::Failure;
use crate::client::Shared;
use crate::client::send::InMemory;
use crate::convert::wire_digest;

/// What a command is to make, and how that is to be told.
pub(super) struct Asked {
    /// Where the command starts, below the execution root.
    pub(super) directory: String,
    /// Output paths, below the execution root.
    pub(super) outputs: Vec<RelPath>,
    /// Output files and folders as clients of old versions name them: the latter as they stand.
    folders: Option<HashSet<String>>,
    format: Format,
}

impl Asked {
    /// Reads what a command says of its outputs.
    #[allow(deprecated)] // as long as clients say it there
    pub(super) fn of(command: &reapi::Command) -> Result<Self, String> {
        let directory = command.working_directory.trim_end_matches('/').to_owned();
        if !directory.is_empty() {
            RelPath::new(&directory).map_err(|error| format!("`working_directory`: {error}"))?;
        }
        let is_old = command.output_paths.is_empty();
        let (files, folders) = (&command.output_files, &command.output_directories);
        let paths: Vec<&String> = match is_old {
            true => files.iter().chain(folders).collect(),
            false => command.output_paths.iter().collect(),
        };
        let mut outputs = Vec::with_capacity(paths.len());
        for path in paths {
            if path.is_empty() {
                return Err(
                    "the output path \"\", the whole working directory, is not supported; \
                            name what is to be kept"
                        .to_owned(),
                );
            }
            let whole = match directory.as_str() {
                "" => path.clone(),
                directory => format!("{directory}/{path}"),
            };
            let path = RelPath::new(whole.trim_end_matches('/'));
            outputs.push(path.map_err(|error| format!("an output path: {error}"))?);
        }
        outputs.sort();
        outputs.dedup();
        let folders = is_old.then(|| folders.iter().cloned().collect());
        let format = Format::try_from(command.output_directory_format).unwrap_or(Format::TreeOnly);
        Ok(Self { directory, outputs, folders, format })
    }

    /// A path of the execution root as the client says it.
    fn path(&self, path: &str) -> String {
        let below = path.strip_prefix(self.directory.as_str()).unwrap_or(path);
        below.trim_start_matches('/').to_owned()
    }
}

/// A response, and the blobs that have to be where it goes.
pub(super) struct Made {
    pub(super) response: reapi::ExecuteResponse,
    pub(super) blobs: HashSet<Digest>,
    pub(super) in_memory: InMemory,
}

/// The response of a command that has ended.
pub(super) fn made(
    blobs: &Shared,
    asked: &Asked,
    outcome: ForeignOutcome,
) -> Result<Made, Failure> {
    let mut made = Made {
        response: reapi::ExecuteResponse::default(),
        blobs: outcome.stdout.into_iter().chain(outcome.stderr).collect(),
        in_memory: InMemory::new(),
    };
    let mut result = reapi::ActionResult {
        stdout_digest: outcome.stdout.as_ref().map(wire_digest),
        stderr_digest: outcome.stderr.as_ref().map(wire_digest),
        ..Default::default()
    };
    for file in &outcome.files {
        made.blobs.insert(file.digest);
        result.output_files.push(reapi::OutputFile {
            path: asked.path(&file.path),
            digest: Some(wire_digest(&file.digest)),
            is_executable: file.is_executable,
            ..Default::default()
        });
    }
    for folder in &outcome.directories {
        let root = folder.root_directory_digest;
        let path = asked.path(&folder.path);
        let folder = block_in_place(|| made.folder(blobs, &root, path, asked.format))?;
        result.output_directories.push(folder);
    }
    links(asked, &outcome.symlinks, &mut result);
    let code = match outcome.ended {
        Ended::Exited(code) => {
            result.exit_code = code;
            Code::Ok
        }
        Ended::TimedOut => Code::DeadlineExceeded,
    };
    let message = match code {
        Code::Ok => String::new(),
        _ => "the time of the action was up".to_owned(),
    };
    made.response.status = Some(rpc::Status { code: code as i32, message, details: Vec::new() });
    made.response.result = Some(result);
    Ok(made)
}

/// Links stand in the list that the client knows.
#[allow(deprecated)] // as long as clients look there
fn links(asked: &Asked, links: &[(String, String)], result: &mut reapi::ActionResult) {
    for (path, target) in links {
        let path = asked.path(path);
        let list = match &asked.folders {
            None => &mut result.output_symlinks,
            Some(folders) if folders.contains(&path) => &mut result.output_directory_symlinks,
            Some(_) => &mut result.output_file_symlinks,
        };
        let target = target.clone();
        list.push(reapi::OutputSymlink { path, target, ..Default::default() });
    }
}

impl Made {
    /// A folder in the form that the client wants.
    fn folder(
        &mut self,
        blobs: &Shared,
        root: &Digest,
        path: String,
        format: Format,
    ) -> Result<reapi::OutputDirectory, Failure> {
        let closure = blobs.closure(root)?;
        let mut folder = reapi::OutputDirectory { path, ..Default::default() };
        if format != Format::DirectoryOnly {
            let message = blobs.message(&closure)?;
            let digest = root.function.digest(&message);
            folder.tree_digest = Some(wire_digest(&digest));
            self.in_memory.insert(digest, message);
            self.blobs.insert(digest);
        }
        if format != Format::TreeOnly {
            folder.root_directory_digest = Some(wire_digest(root));
            self.blobs.extend(closure.directories);
        }
        self.blobs.extend(closure.files);
        Ok(folder)
    }
}
