//! `fetch-wheel`: the wheel of a project of Python that fits an interpreter, out of pinned ones.
//!
//! A requirements file pins every file of a release; which of them fits is pip's to say, who knows
//! the names that an index gives them. pip also knows the user's indexes, certificates and
//! credentials, so it does the download. What it brought must have one of the pinned digests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use maestro_cas::Store;
use maestro_core::{Digest, limits};
use maestro_executor::runner::Cancel;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Call, Scratch};
use crate::intake::Intake;
use crate::pin::Pin;
use crate::{FetchError, FetchOptions};

/// The name of the kind in `How::Native`.
pub const KIND: &str = "fetch-wheel";
/// Bumped when the same request gives other bytes.
pub const SEMANTICS: u32 = 1;

/// The request of a `fetch-wheel` action: see `docs/design/native-steps.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchWheel {
    /// The name of the project.
    pub project: String,
    /// Its version.
    pub version: String,
    /// The digests that the wheel may have, in lower-case hex.
    pub sha256: Vec<String>,
    /// The interpreter's version, such as `3.11`.
    pub python: String,
    /// Platform tags in order of preference.
    pub platforms: Vec<String>,
}

/// A request whose values were checked.
pub(crate) struct WheelDownload {
    request: FetchWheel,
    pin: Pin,
}

impl WheelDownload {
    /// Reads and checks the request of an action.
    pub(crate) fn parse(request: &Value) -> Result<Self, FetchError> {
        let request = FetchWheel::deserialize(request)
            .map_err(|error| FetchError::Shape { why: error.to_string() })?;
        let word = |field: &'static str, text: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
                true => Ok(()),
                false => Err(FetchError::Field { field, why: format!("`{text}` is not one word") }),
            }
        };
        word("project", &request.project, "-_.")?;
        word("version", &request.version, "-_.+!")?;
        word("python", &request.python, ".")?;
        for platform in &request.platforms {
            word("platforms", platform, "_.")?;
        }
        let pin = Pin::of_hexes(&request.sha256)
            .map_err(|why| FetchError::Field { field: "sha256", why })?;
        Ok(Self { request, pin })
    }

    /// Has pip download the wheel, and puts it into the store.
    pub(crate) fn take(
        &self,
        options: &FetchOptions,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        let scratch = Scratch::new(store)?;
        let FetchWheel { project, version, sha256, python, platforms } = &self.request;
        let what = format!("{project}=={version}");
        let hashes: String = sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        let requirements = scratch.path().join("requirements.txt");
        std::fs::write(&requirements, format!("{what}{hashes}\n"))
            .map_err(|source| FetchError::ClientFile { path: requirements.clone(), source })?;
        let wheels = scratch.path().join("wheels");
        let mut command = Command::new(&options.pip);
        command
            .args(["download", "--quiet", "--no-input", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--python-version", python])
            .args(platforms.iter().flat_map(|platform| ["--platform", platform]))
            .arg("--dest")
            .arg(&wheels)
            .arg("--requirement")
            .arg(&requirements)
            .current_dir(scratch.path())
            .stdout(Stdio::null());
        if options.offline {
            command.arg("--no-index");
        }
        Call { client: "pip", what: &what }.run(&mut command, cancel)?;
        self.keep(&only_file(wheels)?, store, cancel)
    }

    fn keep(&self, path: &Path, store: &Store, cancel: &Cancel) -> Result<Digest, FetchError> {
        let failure = |source| FetchError::ClientFile { path: path.to_owned(), source };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let intake = Intake::new(&self.pin, limits::DOWNLOAD_BYTES_MAX, name, store)?;
        intake.take(File::open(path).map_err(failure)?, path, cancel)
    }
}

/// The one file of a folder.
fn only_file(folder: PathBuf) -> Result<PathBuf, FetchError> {
    let failure = |source| FetchError::ClientFile { path: folder.clone(), source };
    let entries = std::fs::read_dir(&folder).map_err(failure)?;
    let files: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    match files.map_err(failure)?.as_slice() {
        [only] => Ok(only.clone()),
        all => {
            let why = format!("it brought {} files, one was asked for", all.len());
            Err(FetchError::ClientConfig { client: "pip", why })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_request_becomes_an_option_of_pip() {
        let good = json!({
            "project": "zope.interface", "version": "1!6.0+local", "sha256": ["0".repeat(64)],
            "python": "3.11", "platforms": ["manylinux_2_36_x86_64"],
        });
        assert!(WheelDownload::parse(&good).is_ok());
        let check = |field: &str, value: Value, expect: &str| {
            let mut request = good.clone();
            request[field] = value;
            let error = WheelDownload::parse(&request).map(|_| ()).expect_err(expect);
            assert_eq!(error.to_string(), format!("field `{field}`: {expect}"));
        };
        check("project", json!("-r evil"), "`-r evil` is not one word");
        check("project", json!("a @ file:///x"), "`a @ file:///x` is not one word");
        check("version", json!("1 --index-url=x"), "`1 --index-url=x` is not one word");
        check("python", json!("--x"), "`--x` is not one word");
        check("platforms", json!(["a", "-b"]), "`-b` is not one word");
        check("sha256", json!([]), "at least one digest is needed");
        check("sha256", json!(["AA"]), "`AA` is not a hash of 64 lower-case hex digits");
    }
}
