//! What a rule asks of `fetch`: see `docs/design/native-steps.md`.

use maestro_core::limits;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FetchError;
use crate::crates::{self, CrateId};
use crate::git::{self, Commit};
use crate::npm::{self, PackageId};
use crate::pin::Pin;

/// The request of a `fetch` action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Where the file is, tried in order: `http:` and `https:` URLs, `crate:NAME/VERSION`,
    /// `npm:NAME/VERSION`, or `git+URL#COMMIT`.
    pub urls: Vec<String>,
    /// The SHA-256 of the file in lower-case hex.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The digest of the file as `sha256-BASE64` or `sha512-BASE64`.
    #[serde(default)]
    pub integrity: Option<String>,
    /// The execute bit of the output.
    #[serde(default)]
    pub executable: bool,
    /// A bound on the file, below Maestro's own.
    #[serde(default)]
    pub bytes_max: Option<u64>,
}

/// Where a file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a server.
    Http(Url),
    /// Among the downloads of the cargo client.
    Crate(CrateId),
    /// Among the downloads of the npm client, or in the registry that it is configured to use.
    Npm(PackageId),
    /// In a Git repository.
    Git(Commit),
}

/// A request whose values were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Download {
    /// Where the file may be, at least one place.
    pub(crate) places: Vec<Place>,
    /// What the file is.
    pub(crate) pin: Pin,
    /// The execute bit of the output.
    pub(crate) executable: bool,
    /// The largest number of bytes that is taken.
    pub(crate) bytes_max: u64,
}

impl Download {
    /// Reads and checks the request of an action.
    pub(crate) fn parse(request: &Value) -> Result<Self, FetchError> {
        let request = Fetch::deserialize(request)
            .map_err(|error| FetchError::Shape { why: error.to_string() })?;
        let Fetch { urls, sha256, integrity, executable, bytes_max } = request;
        if urls.is_empty() {
            return Err(field("urls", "at least one is needed"));
        }
        let pin = match (sha256, integrity) {
            (Some(hex), None) => Pin::of_hex(&hex).map_err(|why| field("sha256", why))?,
            (None, Some(text)) => {
                Pin::of_integrity(&text).map_err(|why| field("integrity", why))?
            }
            _ => return Err(field("sha256", "exactly one of `sha256` and `integrity` is needed")),
        };
        let places = urls.iter().map(|url| parse_place(url)).collect::<Result<_, _>>()?;
        let bytes_max = bytes_max.unwrap_or(u64::MAX).min(limits::DOWNLOAD_BYTES_MAX);
        Ok(Self { places, pin, executable, bytes_max })
    }
}

fn field(field: &'static str, why: impl Into<String>) -> FetchError {
    FetchError::Field { field, why: why.into() }
}

fn parse_place(text: &str) -> Result<Place, FetchError> {
    let odd = |form| field("urls", format!("`{text}` is not of the form `{form}`"));
    if let Some(id) = text.strip_prefix(crates::SCHEME) {
        return CrateId::parse(id).map(Place::Crate).ok_or_else(|| odd("crate:NAME/VERSION"));
    }
    if let Some(id) = text.strip_prefix(npm::SCHEME) {
        return PackageId::parse(id).map(Place::Npm).ok_or_else(|| odd("npm:NAME/VERSION"));
    }
    if let Some(commit) = text.strip_prefix(git::SCHEME) {
        return Commit::parse(commit).map(Place::Git).ok_or_else(|| odd("git+URL#COMMIT"));
    }
    parse_url(text).map(Place::Http)
}

fn parse_url(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|error| field("urls", format!("`{text}`: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        let why =
            format!("`{text}`: only `http:`, `https:`, `crate:`, `npm:` and `git+` are fetched");
        return Err(field("urls", why));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let host = url.host_str().unwrap_or_default();
        return Err(field("urls", format!("a URL of `{host}` carries credentials")));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn both_pins_mean_the_same() {
        let parse = |request| Download::parse(&request).expect("valid");
        let hex = parse(json!({"urls": ["http://h/a"], "sha256": HEX}));
        let integrity = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let base64 = parse(json!({"urls": ["http://h/a"], "integrity": integrity}));
        assert_eq!(hex, base64);
        assert_eq!(hex.bytes_max, limits::DOWNLOAD_BYTES_MAX);
    }

    #[test]
    fn bad_requests_name_the_field() {
        let check = |request: Value, expect: &str| {
            let error = Download::parse(&request).expect_err(expect);
            assert_eq!(error.to_string(), expect);
        };
        check(json!({"urls": [], "sha256": HEX}), "field `urls`: at least one is needed");
        check(
            json!({"urls": ["http://h/a"]}),
            "field `sha256`: exactly one of `sha256` and `integrity` is needed",
        );
        check(
            json!({"urls": ["http://h/a"], "sha256": "AB"}),
            "field `sha256`: `AB` is not a hash of 64 lower-case hex digits",
        );
        check(
            json!({"urls": ["http://h/a"], "integrity": "sha512-AA=="}),
            "field `integrity`: `sha512-AA==` is neither `sha256-BASE64` nor `sha512-BASE64`",
        );
        check(
            json!({"urls": ["file:///etc/passwd"], "sha256": HEX}),
            "field `urls`: `file:///etc/passwd`: only `http:`, `https:`, `crate:`, `npm:` and `git+` are fetched",
        );
        check(
            json!({"urls": ["https://me:secret@h/a"], "sha256": HEX}),
            "field `urls`: a URL of `h` carries credentials",
        );
        check(
            json!({"urls": ["not a url"], "sha256": HEX}),
            "field `urls`: `not a url`: relative URL without a base",
        );
        check(
            json!({"urls": ["crate:../../etc/passwd"], "sha256": HEX}),
            "field `urls`: `crate:../../etc/passwd` is not of the form `crate:NAME/VERSION`",
        );
        check(
            json!({"urls": ["npm:../../etc/passwd"], "sha256": HEX}),
            "field `urls`: `npm:../../etc/passwd` is not of the form `npm:NAME/VERSION`",
        );
        let unknown = Download::parse(&json!({"urls": ["http://h/a"], "sha256": HEX, "md5": ""}));
        assert!(matches!(unknown, Err(FetchError::Shape { .. })));
    }
}
