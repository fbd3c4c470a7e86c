//! Downloads that are pinned by digest: the native kinds `fetch` and `fetch-wheel`.
//!
//! A fetch is pure: its key holds the SHA-256 of the file, so whichever mirror answers, the result
//! is the same, and nothing that has another digest is ever stored. It is the only pure step that
//! needs the network; everything else here is patience with servers: several mirrors, bounded
//! redirects, retries with backoff, and bounds on time and bytes. Crates of Rust are not asked
//! for at all: they are taken out of what the cargo client has downloaded. Packages of npm come out
//! of what the npm client has downloaded, or from the registry that it is configured to use.
//!
//! This crate never reads the environment: proxies and `offline` come in [`FetchOptions`].

mod client;
mod crates;
mod download;
mod error;
mod git;
mod intake;
mod npm;
mod options;
mod pin;
pub mod request;
mod vendored;
pub mod wheel;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use maestro_cas::Store;
use maestro_core::{Digest, How};
use maestro_executor::native::{Made, one_output};
use maestro_executor::runner::{Cancel, Job, Outcome, RunError, Runner};

pub use error::FetchError;
pub use options::{FetchOptions, NpmOptions, ProxyOptions, Variables};
pub use pin::Mismatch;
pub use vendored::{is_file_of_name, is_pinned_name, pinned_name};

use download::{Access, Downloader};
use npm::Npm;
use request::{Download, Place};
use wheel::WheelDownload;

/// The name of the kind in `How::Native`.
pub const KIND: &str = "fetch";
/// Bumped when the same request gives other bytes.
pub const SEMANTICS: u32 = 1;

/// Runs `fetch` actions.
pub struct FetchRunner {
    options: FetchOptions,
    /// Made at the first download: most builds have none.
    downloader: Mutex<Option<Arc<Downloader>>>,
    /// Asked at the first package.
    npm: Mutex<Option<Arc<Npm>>>,
}

impl FetchRunner {
    /// A runner; nothing is opened before the first download.
    pub fn new(options: FetchOptions) -> Self {
        Self { options, downloader: Mutex::default(), npm: Mutex::default() }
    }

    fn downloader(&self) -> Result<Arc<Downloader>, FetchError> {
        let mut slot = self.downloader.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(downloader) => Ok(downloader.clone()),
            None => Ok(slot.insert(Arc::new(Downloader::new(&self.options)?)).clone()),
        }
    }

    fn npm(&self) -> Result<Arc<Npm>, FetchError> {
        let mut slot = self.npm.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(npm) => Ok(npm.clone()),
            None => Ok(slot.insert(Arc::new(Npm::new(&self.options)?)).clone()),
        }
    }

    /// The SHA-256 of what lies at a URL now, in hex, so that it can be pinned.
    pub fn sha256_of(
        &self,
        url: &str,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<String, FetchError> {
        // Pinned to a digest that no file has: the error tells the one that it has.
        let request = serde_json::json!({"urls": [url], "sha256": "0".repeat(64)});
        let download = Download::parse(&request)?;
        let taken = match download.places.first() {
            Some(Place::Http(url)) => {
                self.downloader()?.run(url, &Access::default(), &download, store, cancel)
            }
            Some(Place::Git(commit)) => commit.take(&download, &self.options, store, cancel),
            _ => {
                let why = format!("`{url}` is pinned by those who publish it");
                return Err(FetchError::Field { field: "urls", why });
            }
        };
        match taken {
            Err(FetchError::Mismatch { mismatch, .. }) => Ok(mismatch.actual_hex()),
            Err(error) => Err(error),
            Ok(_) => Ok("0".repeat(64)),
        }
    }

    /// The file from the first place that has it.
    fn first(&self, download: &Download, job: &Job<'_>) -> Result<Digest, FetchError> {
        let FetchOptions { vendor_folder, mirror, offline, .. } = &self.options;
        if let Some(folder) = vendor_folder
            && let Some(digest) = vendored::take(folder, download, job.store, job.cancel)?
        {
            return Ok(digest);
        }
        let mirror = mirror.as_ref().filter(|_| !offline);
        let mirror = mirror.map(|mirror| vendored::on_mirror(mirror, download)).transpose()?;
        let mut failures = Vec::new();
        for place in mirror.map(Place::Http).iter().chain(&download.places) {
            match self.take(place, download, job) {
                Ok(digest) => return Ok(digest),
                Err(error) if error.is_of_the_mirror() => {
                    tracing::debug!(?place, %error, "no file from here");
                    failures.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        match failures.pop() {
            Some(only) if failures.is_empty() => Err(only),
            Some(last) => {
                failures.push(last);
                Err(FetchError::Mirrors { failures })
            }
            None => Err(FetchError::Field { field: "urls", why: "at least one is needed".into() }),
        }
    }

    fn take(
        &self,
        place: &Place,
        download: &Download,
        job: &Job<'_>,
    ) -> Result<Digest, FetchError> {
        match place {
            Place::Crate(id) => {
                id.take(download, &self.options.crate_folders, job.store, job.cancel)
            }
            Place::Http(url) if self.options.offline => {
                Err(FetchError::Offline { url: url.to_string() })
            }
            Place::Http(url) => {
                let access = Access::default();
                self.downloader()?.run(url, &access, download, job.store, job.cancel)
            }
            Place::Git(commit) => commit.take(download, &self.options, job.store, job.cancel),
            Place::Npm(id) => self.npm()?.take(id, download, job.store, job.cancel),
        }
    }

    fn fetch(&self, job: &Job<'_>) -> Result<Made, RunError> {
        let How::Native { kind, semantics, request } = &job.spec.how else {
            let message = "a command was given to the fetch runner".to_owned();
            return Err(RunError::Internal { message });
        };
        match (kind.as_str(), *semantics) {
            (KIND, SEMANTICS) => {
                let download = Download::parse(request)?;
                let digest = self.first(&download, job)?;
                Ok(Made::File { digest, executable: download.executable })
            }
            (wheel::KIND, wheel::SEMANTICS) => {
                let download = WheelDownload::parse(request)?;
                let digest = download.take(&self.options, job.store, job.cancel)?;
                Ok(Made::File { digest, executable: false })
            }
            _ => {
                let message = format!("the runner does not know `{kind}` {semantics}");
                Err(RunError::Internal { message })
            }
        }
    }
}

impl Runner for FetchRunner {
    fn handles(&self, how: &How) -> bool {
        matches!(how, How::Native { kind, .. } if kind == KIND || kind == wheel::KIND)
    }

    fn run(&self, job: &Job<'_>) -> Result<Outcome, RunError> {
        let start = Instant::now();
        let made = self.fetch(job)?;
        one_output(job, made, start.elapsed().as_millis() as u64)
    }
}
