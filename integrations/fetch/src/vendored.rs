//! Downloads under the names of their digests: vendored in a folder, or on a mirror.
//!
//! The name says what the file must be, so neither a folder nor a mirror is trusted: what they give
//! is checked like any download.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_executor::runner::Cancel;
use reqwest::Url;
use serde_json::Value;

use crate::FetchError;
use crate::intake::{BUFFER_BYTES, Intake};
use crate::pin::Pin;
use crate::request::Download;

/// The name under which the file of a `fetch` request is vendored, such as `sha256-9f86…`.
pub fn pinned_name(request: &Value) -> Result<String, FetchError> {
    Ok(Download::parse(request)?.pin.name())
}

/// Whether a name is that of a vendored file.
pub fn is_pinned_name(name: &str) -> bool {
    Pin::of_name(name).is_some()
}

/// Whether the file at a path is the one that its name says.
pub fn is_file_of_name(path: &Path, name: &str) -> bool {
    let Some(pin) = Pin::of_name(name) else { return false };
    let Ok(mut file) = File::open(path) else { return false };
    let mut hasher = pin.hasher();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return pin.check(hasher).is_ok(),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// The vendored file of a download, if there is one.
pub(crate) fn take(
    folder: &Path,
    download: &Download,
    store: &Store,
    cancel: &Cancel,
) -> Result<Option<Digest>, FetchError> {
    let path = folder.join(download.pin.name());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FetchError::ClientFile { path, source }),
    };
    let intake = Intake::new(&download.pin, download.bytes_max, path.display(), store)?;
    match intake.take(file, &path, cancel) {
        Ok(digest) => Ok(Some(digest)),
        Err(FetchError::Mismatch { .. }) => Err(FetchError::Vendored { path }),
        Err(error) => Err(error),
    }
}

/// Where a mirror has the file of a download.
pub(crate) fn on_mirror(mirror: &str, download: &Download) -> Result<Url, FetchError> {
    let text = format!("{}/{}", mirror.trim_end_matches('/'), download.pin.name());
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) | Err(_) => Err(FetchError::Mirror { mirror: mirror.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_those_of_digests() {
        let name = format!("sha256-{EMPTY}");
        let request = json!({"urls": ["http://h/a"], "sha256": EMPTY});
        assert_eq!(pinned_name(&request).ok(), Some(name.clone()));
        assert!(is_pinned_name(&name));
        for bad in ["sha256-", "sha256-00", "sha512-00", "manifest.toml", "sha256-../x", ""] {
            assert!(!is_pinned_name(bad), "{bad}");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(&name);
        assert!(!is_file_of_name(&path, &name));
        std::fs::write(&path, "").expect("writable");
        assert!(is_file_of_name(&path, &name));
        std::fs::write(&path, "x").expect("writable");
        assert!(!is_file_of_name(&path, &name));
    }

    #[test]
    fn mirrors_are_asked_for_the_name() {
        let download = Download::parse(&json!({"urls": ["http://h/a"], "sha256": EMPTY}));
        let download = download.expect("valid");
        let check = |mirror: &str, expect: Option<&str>| {
            let url = on_mirror(mirror, &download).ok().map(|url| url.to_string());
            assert_eq!(url.as_deref(), expect, "{mirror}");
        };
        let expect = format!("https://m/files/sha256-{EMPTY}");
        check("https://m/files/", Some(&expect));
        check("https://m/files", Some(&expect));
        check("file:///tmp", None);
        check("m", None);
    }
}
