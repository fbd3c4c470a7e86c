//! Other repositories: where their files stand, and how they are opened.
//!
//! `@maestro` is the library inside the program; every other name is asked from the host, which
//! puts the files of `@NAME` at `external/NAME/…`. The names are those of the root workspace, for
//! all repositories alike. Nothing here knows where a repository comes from.

use maestro_core::Label;
use maestro_core::host::{Host, HostError};
use maestro_core::label::package_dir;

use crate::error::{Code, RuleError};
use crate::glob::host_error;
use crate::library;

/// The folder below which the host puts other repositories.
const EXTERNAL: &str = "external";

/// Whether a repository is the library that ships inside Maestro.
pub(crate) fn is_library(repo: &str) -> bool {
    repo == library::REPO
}

/// Where a path of a repository stands for the host, and when actions run; an empty path is the
/// root of the repository.
pub(crate) fn host_path(repo: &str, path: &str) -> String {
    package_dir(repo, path)
}

/// Where the file that a label names stands for the host, and when actions run.
pub(crate) fn file_path(file: &Label) -> String {
    let folder = file.package_dir();
    if folder.is_empty() { file.name.to_string() } else { format!("{folder}/{}", file.name) }
}

/// Makes a repository ready that a file of repository `from` names.
pub(crate) fn open(host: &dyn Host, repo: &str, from: &str) -> Result<(), RuleError> {
    if repo.is_empty() || is_library(repo) {
        return Ok(());
    }
    host.open_repository(repo, from).map(drop).map_err(|error| host_error(&error))
}

/// Refuses a folder of the workspace that stands where the files of a repository go.
pub(crate) fn check_folder(host: &dyn Host, repo: &str, package: &str) -> Result<(), RuleError> {
    let mut segments = package.split('/');
    if !repo.is_empty() || segments.next() != Some(EXTERNAL) {
        return Ok(());
    }
    let Some(name) = segments.next() else { return Ok(()) };
    let taken = is_library(name)
        || !matches!(host.open_repository(name, ""), Err(HostError::NoRepository { .. }));
    if !taken {
        return Ok(());
    }
    let message = format!("`{EXTERNAL}/{name}` is where the files of repository `@{name}` stand");
    Err(RuleError::new(Code::Repository, message)
        .hint(format!("write `@{name}//…` for the repository, or move the folder elsewhere")))
}
