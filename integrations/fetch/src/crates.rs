//! Crates of Rust out of what the cargo client has downloaded: places `crate:NAME/VERSION`.
//!
//! Which registry a crate comes from, and how one logs in there, is the client's configuration;
//! the pinned digest alone decides whether its copy is the right one. Nothing is asked of the
//! network here, so these places also work offline.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use maestro_cas::Store;
use maestro_core::{Digest, limits};
use maestro_executor::runner::Cancel;

use crate::FetchError;
use crate::intake::Intake;
use crate::request::Download;

/// The scheme of such places.
pub(crate) const SCHEME: &str = "crate:";

/// The bytes that are read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// A crate in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrateId {
    name: String,
    version: String,
}

impl CrateId {
    /// Reads `NAME/VERSION`; both are single words, so that no path can hide in them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.split_once('/')?;
        let word = |text: &str, more: &[char]| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        let fits = text.len() + ".crate".len() <= limits::NAME_BYTES_MAX;
        let valid = fits && word(name, &['_', '-']) && word(version, &['.', '+', '-', '_']);
        valid.then(|| Self { name: name.to_owned(), version: version.to_owned() })
    }

    fn file_name(&self) -> String {
        format!("{}-{}.crate", self.name, self.version)
    }

    /// Copies the crate into the store out of the first folder that has the pinned file.
    pub(crate) fn take(
        &self,
        download: &Download,
        folders: &[PathBuf],
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let mut mismatch = None;
        for path in self.candidates(folders)? {
            match self.copy(&path, download, store, cancel) {
                Err(error @ FetchError::Mismatch { .. }) => mismatch = Some(error),
                result => return result,
            }
        }
        Err(mismatch.unwrap_or_else(|| FetchError::CrateAbsent {
            name: self.name.clone(),
            version: self.version.clone(),
            folders: folders.to_vec(),
        }))
    }

    /// The files that may be this crate: each registry has a folder of its own.
    fn candidates(&self, folders: &[PathBuf]) -> Result<Vec<PathBuf>, FetchError> {
        let mut found = Vec::new();
        for folder in folders {
            let error = |source| FetchError::CrateIo { path: folder.clone(), source };
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(absent) if absent.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(error(source)),
            };
            for entry in entries {
                let path = entry.map_err(error)?.path().join(self.file_name());
                if path.is_file() {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn copy(
        &self,
        path: &Path,
        download: &Download,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let error = |source| FetchError::CrateIo { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(error)?;
        let mut intake = Intake::new(download, path.display(), store)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let count = file.read(&mut buffer).map_err(error)?;
            match buffer.get(..count) {
                None | Some([]) => return intake.finish(),
                Some(chunk) => intake.push(chunk)?,
            }
        }
    }
}

impl fmt::Display for CrateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        let check = |text: &str, file: Option<&str>| {
            assert_eq!(CrateId::parse(text).map(|id| id.file_name()).as_deref(), file, "`{text}`");
        };
        check("serde/1.0.229", Some("serde-1.0.229.crate"));
        check("toml_edit/0.25.18+spec-1.1.0", Some("toml_edit-0.25.18+spec-1.1.0.crate"));
        check("serde", None);
        check("serde/", None);
        check("/1.0.0", None);
        check("../1.0.0", None);
        check("serde/..", None);
        check("serde/1.0/2", None);
        check(&format!("{}/1", "a".repeat(255)), None);
    }
}
