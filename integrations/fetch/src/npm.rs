//! Packages of npm: places `npm:NAME/VERSION`.
//!
//! Which registry has a package, how one logs in there and which authorities it trusts is the
//! npm client's own configuration, asked for once and only when something must be downloaded;
//! none of it is in a key, the pinned digest alone decides. What the client has downloaded before
//! is taken from its cache, which is ordered by that same digest, so that these places also work
//! offline after an `npm ci`.

mod config;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use maestro_cas::Store;
use maestro_core::{Digest, limits};
use maestro_executor::runner::Cancel;
use reqwest::Url;

use crate::download::{Access, Downloader};
use crate::intake::Intake;
use crate::request::Download;
use crate::{FetchError, FetchOptions};
use config::NpmConfig;

/// The scheme of such places.
pub(crate) const SCHEME: &str = "npm:";

/// A package in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageId {
    /// `name` or `@scope/name`.
    name: String,
    version: String,
}

impl PackageId {
    /// Reads `NAME/VERSION`; each part is a single word, so that no path can hide in them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.rsplit_once('/')?;
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.~+".contains(c))
        };
        let bare = match name.strip_prefix('@').map(|rest| rest.split_once('/')) {
            Some(Some((scope, bare))) if word(scope) => bare,
            Some(_) => return None,
            None => name,
        };
        let fits = text.len() <= limits::NAME_BYTES_MAX;
        let valid = fits && word(bare) && word(version);
        valid.then(|| Self { name: name.to_owned(), version: version.to_owned() })
    }

    /// The scope with its `@`.
    fn scope(&self) -> Option<&str> {
        self.name.split_once('/').map(|(scope, _)| scope)
    }

    /// Where its archive lies, below the registry.
    fn path(&self) -> String {
        let bare = self.name.rsplit('/').next().unwrap_or(&self.name);
        format!("{}/-/{bare}-{}.tgz", self.name, self.version)
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.name, self.version)
    }
}

/// The npm client's configuration, and connections as it wants them.
pub(crate) struct Npm {
    config: NpmConfig,
    options: FetchOptions,
    /// Made at the first download: the cache may have everything.
    downloader: std::sync::OnceLock<Downloader>,
}

impl Npm {
    /// Asks the client for its configuration.
    pub(crate) fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        let config = NpmConfig::ask(&options.npm)?;
        let mut options = options.clone();
        options.proxy.http = config.proxy.clone().or(options.proxy.http);
        options.proxy.https = config.https_proxy.clone().or(options.proxy.https);
        options.authorities = config.cafile.iter().cloned().collect();
        Ok(Self { config, options, downloader: std::sync::OnceLock::new() })
    }

    /// Takes a package out of the client's cache, else out of the registry.
    pub(crate) fn take(
        &self,
        id: &PackageId,
        download: &Download,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        if let Some(path) = self.cached(download)
            && let Some(digest) = copy(&path, download, store, cancel)?
        {
            return Ok(digest);
        }
        if self.options.offline {
            return Err(FetchError::Offline { url: id.to_string() });
        }
        let registry = self.config.registry(id.scope());
        let text = format!("{}/{}", registry.trim_end_matches('/'), id.path());
        let url = Url::parse(&text).map_err(|why| FetchError::Registry {
            registry: registry.into(),
            why: why.to_string(),
        })?;
        let access = Access { authorization: self.config.authorization(&url) };
        self.downloader()?.run(&url, &access, download, store, cancel)
    }

    /// Where the client keeps the file, if it has downloaded it.
    fn cached(&self, download: &Download) -> Option<PathBuf> {
        let hex = download.pin.sha512_hex()?;
        let (first, rest) = hex.split_at_checked(2)?;
        let (second, rest) = rest.split_at_checked(2)?;
        let content = self.config.cache.as_ref()?.join("_cacache/content-v2/sha512");
        Some(content.join(first).join(second).join(rest))
    }

    fn downloader(&self) -> Result<&Downloader, FetchError> {
        if self.downloader.get().is_none() {
            // Whoever comes second drops its own.
            let _ = self.downloader.set(Downloader::new(&self.options)?);
        }
        Ok(self.downloader.get().expect("it was set above"))
    }
}

/// Copies a file of the client's cache; `None` where there is none that can be read, or a damaged
/// one: the registry has it too.
fn copy(
    path: &Path,
    download: &Download,
    store: &Store,
    cancel: &Cancel,
) -> Result<Option<Digest>, FetchError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "npm's cache cannot be read");
            return Ok(None);
        }
    };
    let intake = Intake::new(&download.pin, download.bytes_max, path.display(), store)?;
    match intake.take(file, path, cancel) {
        Err(FetchError::Mismatch { .. }) => {
            tracing::warn!(path = %path.display(), "npm's cache holds a damaged file");
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        let check = |text: &str, path: Option<&str>| {
            assert_eq!(PackageId::parse(text).map(|id| id.path()).as_deref(), path, "`{text}`");
        };
        check("left-pad/1.3.0", Some("left-pad/-/left-pad-1.3.0.tgz"));
        check("@types/node/20.1.0", Some("@types/node/-/node-20.1.0.tgz"));
        check("a/1.0.0-rc.1+build", Some("a/-/a-1.0.0-rc.1+build.tgz"));
        check("left-pad", None);
        check("left-pad/", None);
        check("../1.0.0", None);
        check("a/..", None);
        check("@a/1.0.0", None);
        check("@../b/1.0.0", None);
        check("a/b/1.0.0", None);
        check("a?x=1/1.0.0", None);
        check("a#/1.0.0", None);
    }
}
