//! What is kept between the builds of one workspace, and what it depends on outside of it.
//!
//! All of it lies in `$CACHE/workspaces/<digest of the workspace's path>/`, and all of it may be
//! deleted at any time: the next build is slower, never wrong.
//!
//! | module | what it owns |
//! |---|---|
//! | [`lock`] | one build at a time |
//! | [`sources`] | digests of source files, by stat signature |
//! | [`host`] | the workspace as evaluation sees it, with a record of what it saw |
//! | [`facts`] | things seen on disk, and checking them quickly |
//! | [`snapshot`] | what a build that has nothing to do reads |
//! | [`build_log`] | the last two states of every action |
//! | [`explain`] | why actions ran, from the build log |
//! | [`watches`] | folders that the kernel watches |
//! | [`toolchain`] | trees of the machine's packages, shared by all workspaces of a cache |

pub mod build_log;
pub mod explain;
pub mod facts;
mod framed_log;
pub mod host;
mod listing;
pub mod lock;
pub mod mounts;
mod sealed_file;
pub mod snapshot;
pub mod sources;
pub mod toolchain;
pub mod watches;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use maestro_core::FailureKind;
use std::os::unix::ffi::OsStrExt;

const FOLDER: &str = "workspaces";
/// Holds the workspace's path, for people who look into the cache.
const PATH_FILE: &str = "path";

/// Why a workspace's state cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot access `{}`", .path.display())]
pub struct WorkspaceError {
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl WorkspaceError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        FailureKind::Environment
    }
}

/// The folder in which the state of a workspace is kept. Makes it where it does not exist.
pub fn state_dir(cache_root: &Path, workspace_root: &Path) -> Result<PathBuf, WorkspaceError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| WorkspaceError { path, source }
    };
    let canonical = fs::canonicalize(workspace_root).map_err(at(workspace_root))?;
    let bytes = canonical.as_os_str().as_bytes();
    let name: String = blake3::hash(bytes).to_hex().chars().take(32).collect();
    let dir = cache_root.join(FOLDER).join(name);
    let path_file = dir.join(PATH_FILE);
    if !path_file.exists() {
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        fs::write(&path_file, bytes).map_err(at(&path_file))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workspace_has_one_folder_whatever_way_leads_to_it() {
        let cache = tempfile::tempdir().expect("a temp dir");
        let root = tempfile::tempdir().expect("a temp dir");
        for name in ["a", "b"] {
            fs::create_dir(root.path().join(name)).expect("writable");
        }
        let dir = |path: &str| state_dir(cache.path(), &root.path().join(path)).expect("there");
        assert_eq!(dir("a"), dir("b/../a"));
        assert_ne!(dir("a"), dir("b"));
        assert_eq!(fs::read(dir("a").join(PATH_FILE)).expect("there"), {
            let path = fs::canonicalize(root.path().join("a")).expect("there");
            path.as_os_str().as_bytes().to_vec()
        });
        let error = state_dir(cache.path(), &root.path().join("zz")).expect_err("not there");
        assert!(error.to_string().ends_with("/zz`"), "{error}");
    }
}
