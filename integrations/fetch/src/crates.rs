//! Crates of Rust out of what the cargo client has downloaded: places `crate:NAME/VERSION`.
//!
//! Which registry a crate comes from, and how one logs in there, is the client's configuration;
//! the pinned digest alone decides whether its copy is the right one. Nothing is asked of the
//! network here, so these places also work offline.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use maestro_cas::Store;
use maestro_core::{Digest, limits};
use maestro_executor::runner::Cancel;

use crate::FetchError;
use crate::intake::Intake;
use crate::request::Download;

/// The scheme of such places.
pub(crate) const SCHEME: &str = "crate:";

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
        let file = File::open(path).map_err(error)?;
        let intake = Intake::new(&download.pin, download.bytes_max, path.display(), store)?;
        intake.take(file, path, cancel)
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

    /// Takes `crate:a/1.0.0`, pinned to the text `right`, out of registries with these files.
    fn take(registries: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = dir.path().join("cache");
        for (registry, content) in registries {
            let folder = cache.join(registry);
            fs::create_dir_all(&folder).expect("a folder can be made");
            fs::write(folder.join("a-1.0.0.crate"), content).expect("a file can be written");
        }
        let root = dir.path().join("store");
        let function = maestro_core::DigestFunction::Sha256;
        let store = Store::open(maestro_cas::StoreOptions { root, function }).expect("a store");
        let mut hasher = function.hasher();
        hasher.update(b"right");
        let request = serde_json::json!({
            "urls": ["crate:a/1.0.0"],
            "sha256": hasher.finish().hex(),
        });
        let download = Download::parse(&request).expect("valid");
        let id = CrateId::parse("a/1.0.0").expect("valid");
        let taken = id.take(&download, std::slice::from_ref(&cache), &store, &Cancel::default());
        let digest = taken
            .map_err(|error| error.to_string().replace(&*dir.path().to_string_lossy(), "DIR"))?;
        Ok(store.read(&digest).expect("it is in the store"))
    }

    #[test]
    fn the_pinned_file_is_taken_whichever_registry_has_it() {
        assert_eq!(take(&[("one", "right")]).as_deref(), Ok(&b"right"[..]));
        let both = take(&[("one", "wrong"), ("two", "right")]);
        assert_eq!(both.as_deref(), Ok(&b"right"[..]));
    }

    #[test]
    fn other_files_are_refused() {
        let error = take(&[]).expect_err("there is none");
        let absent = "crate `a` 1.0.0 is not among the downloads of cargo below `DIR/cache`";
        assert_eq!(error, absent);
        let error = take(&[("one", "wrong")]).expect_err("it is another");
        assert!(error.starts_with("`DIR/cache/one/a-1.0.0.crate`: the file has the SHA-256"));
    }
}
