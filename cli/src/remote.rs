//! Which remote cache a build uses, and how: flags, then environment, then profiles, then the
//! user's configuration, then the project's.
//!
//! What is secret of the user's configuration, headers and certificates, goes only to the cache
//! that the user's configuration itself names: a project cannot have it sent elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use maestro_cas::Store;
use maestro_remote::client::{Client, ClientOptions, Download, OptionsError, TlsOptions};
use serde::Deserialize;

use crate::args::{BuildOptions, Header, RemoteDownload, RemoteFlags, SandboxChoice};
use crate::config::{Config, non_empty};
use crate::exit::{Failure, chain};

/// How long a server may be silent where nobody says, in seconds.
const TIMEOUT_S: u32 = 10;
/// Largest certificate or key that is read, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// The table `[remote]`. Every key is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemoteConfig {
    /// Where the cache is: `grpc://HOST:PORT` or `grpcs://HOST:PORT`; `none` for none.
    pub cache: Option<String>,
    /// Whether actions run on the workers of that server.
    pub execute: Option<bool>,
    /// The instance of the server.
    pub instance: Option<String>,
    /// What each call carries besides.
    #[serde(default)]
    pub headers: Headers,
    /// Which outputs found there are brought here.
    pub download: Option<RemoteDownload>,
    /// Whether results are left for others.
    pub upload: Option<bool>,
    /// Whether blobs travel compressed where the server can.
    pub compression: Option<bool>,
    /// Whether a build fails that cannot reach it.
    pub required: Option<bool>,
    /// How long the server may be silent, in seconds.
    pub timeout: Option<u32>,
    /// The authority of the server's certificate, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    pub tls_key: Option<PathBuf>,
}

/// Headers by name. Their values may be secrets and are never shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Headers(BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Who says something of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Whoever started the build.
    Caller,
    /// The user's configuration.
    User,
    /// The project, whoever wrote it.
    Project,
}

/// The client of the remote cache, where one is to be used.
pub fn client(
    config: &Config,
    options: &BuildOptions,
    store: &Store,
    invocation_id: &str,
) -> Result<Option<Client>> {
    let layers = layers(config, options)?;
    let named = layers.iter().find_map(|(origin, layer)| Some((*origin, layer.cache.clone()?)));
    let Some((named_by, url)) = named.filter(|(_, url)| url != "none") else { return Ok(None) };
    if options.offline {
        return Ok(None);
    }
    if options.sandbox == SandboxChoice::None {
        eprintln!("warning: results of `--sandbox=none` are not shared; `{url}` is not used");
        return Ok(None);
    }
    let trusted: Vec<&RemoteConfig> = layers
        .iter()
        .filter(|(origin, _)| *origin != Origin::User || named_by != Origin::Project)
        .map(|(_, layer)| layer)
        .collect();
    let options = ClientOptions {
        instance: first(&trusted, |layer| layer.instance.clone()).unwrap_or_default(),
        headers: headers(&trusted),
        tls: tls(config, &trusted)?,
        silence: Duration::from_secs(
            first(&trusted, |layer| layer.timeout).unwrap_or(TIMEOUT_S).into(),
        ),
        execute: first(&trusted, |layer| layer.execute).unwrap_or(false),
        upload: first(&trusted, |layer| layer.upload).unwrap_or(true),
        download: match first(&trusted, |layer| layer.download) {
            Some(RemoteDownload::All) => Download::All,
            Some(RemoteDownload::Toplevel) | None => Download::WhatIsRead,
        },
        compress: first(&trusted, |layer| layer.compression).unwrap_or(true),
        required: first(&trusted, |layer| layer.required).unwrap_or(false),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        invocation_id: invocation_id.to_owned(),
        url,
    };
    Ok(Some(Client::new(options, store).map_err(|error| failure(&error))?))
}

/// Options that cannot be used.
pub fn failure(error: &OptionsError) -> Failure {
    let text = chain(error);
    match error {
        OptionsError::Url { .. } => {
            Failure::input(text).hint("an address looks like `grpc://cache.example.com:8980`")
        }
        OptionsError::Certificates(_) => {
            Failure::input(text).hint("certificates and keys are PEM files")
        }
        OptionsError::Threads(_) => Failure::environment(text),
        OptionsError::Header { .. } | OptionsError::Instance(_) => Failure::input(text),
    }
}

/// What each says, the strongest first.
fn layers(config: &Config, options: &BuildOptions) -> Result<Vec<(Origin, RemoteConfig)>> {
    let mut layers = vec![(Origin::Caller, of_flags(&options.remote))];
    layers.push((Origin::Caller, of_environment()?));
    for profile in crate::profiles::remotes(config, options)?.into_iter().rev() {
        layers.push((Origin::Project, profile.clone()));
    }
    layers.push((Origin::User, config.user_remote.clone()));
    layers.push((Origin::Project, config.project.remote.clone()));
    Ok(layers)
}

fn of_flags(flags: &RemoteFlags) -> RemoteConfig {
    let RemoteFlags {
        remote_cache,
        remote_executor,
        remote_instance,
        remote_header,
        remote_download,
        no_remote_upload,
        remote_required,
        remote_timeout,
        remote_tls_ca,
        remote_tls_cert,
        remote_tls_key,
    } = flags.clone();
    let headers = remote_header.into_iter().map(|header| (header.name, header.value));
    RemoteConfig {
        // Whoever names a cache alone wants nothing run there.
        execute: match (&remote_executor, &remote_cache) {
            (Some(url), _) => Some(url != "none"),
            (None, Some(_)) => Some(false),
            (None, None) => None,
        },
        cache: remote_executor.or(remote_cache),
        instance: remote_instance,
        headers: Headers(headers.collect()),
        download: remote_download,
        upload: no_remote_upload.then_some(false),
        compression: None,
        required: remote_required.then_some(true),
        timeout: remote_timeout,
        tls_ca: remote_tls_ca,
        tls_cert: remote_tls_cert,
        tls_key: remote_tls_key,
    }
}

fn of_environment() -> Result<RemoteConfig> {
    let mut headers = BTreeMap::new();
    if let Some(text) = non_empty("MAESTRO_REMOTE_HEADER") {
        let Header { name, value } = text.parse().map_err(|why: String| {
            Failure::input("`MAESTRO_REMOTE_HEADER` is no header").hint(why)
        })?;
        headers.insert(name, value);
    }
    let cache = non_empty("MAESTRO_REMOTE_CACHE");
    Ok(RemoteConfig { cache, headers: Headers(headers), ..RemoteConfig::default() })
}

fn first<T>(layers: &[&RemoteConfig], key: impl Fn(&RemoteConfig) -> Option<T>) -> Option<T> {
    layers.iter().find_map(|layer| key(layer))
}

/// Every header that somebody gives; the strongest wins where two give the same.
fn headers(layers: &[&RemoteConfig]) -> Vec<(String, String)> {
    let mut all = BTreeMap::new();
    for layer in layers.iter().rev() {
        let given = &layer.headers.0;
        all.extend(given.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
    }
    all.into_iter().collect()
}

fn tls(config: &Config, layers: &[&RemoteConfig]) -> Result<TlsOptions> {
    let read = |path: PathBuf, what| read_pem(&config.workspace.join(path), what);
    let authority = first(layers, |layer| layer.tls_ca.clone());
    let authority = authority.map(|path| read(path, "CERTIFICATE")).transpose()?;
    let both = first(layers, |layer| Some((layer.tls_cert.clone()?, layer.tls_key.clone()?)));
    let identity = match both {
        Some((certificate, key)) => {
            Some((read(certificate, "CERTIFICATE")?, read(key, "PRIVATE KEY")?))
        }
        None => None,
    };
    Ok(TlsOptions { authority, identity })
}

/// Reads a PEM file that must have such a part.
fn read_pem(path: &Path, what: &str) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read `{}`", path.display());
    let metadata = std::fs::metadata(path).with_context(cannot)?;
    if metadata.len() > PEM_BYTES_MAX {
        let text = format!("`{}` is larger than any certificate", path.display());
        return Err(Failure::input(text).into());
    }
    let bytes = std::fs::read(path).with_context(cannot)?;
    let begins = |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.ends_with(b"-----");
    let named = |line: &[u8]| String::from_utf8_lossy(line).contains(what);
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    match lines.any(|line| begins(line) && named(line)) {
        true => Ok(bytes),
        false => {
            let text = format!("`{}` has no part `{what}`", path.display());
            Err(Failure::input(text).hint("certificates and keys are PEM files").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> RemoteConfig {
        toml::from_str(text).expect("a table")
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = layer("headers = { authorization = \"Bearer s3cret\" }");
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret") && shown.contains("authorization"), "{shown}");
        let header: Header = "authorization=Bearer s3cret".parse().expect("a header");
        assert!(!format!("{header:?}").contains("s3cret"));
    }

    #[test]
    fn the_strongest_header_wins() {
        let strong = layer("headers = { A = \"1\" }");
        let weak = layer("headers = { a = \"2\", b = \"3\" }");
        let found = headers(&[&strong, &weak]);
        let expect = [("a", "1"), ("b", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(found, expect);
    }
}
