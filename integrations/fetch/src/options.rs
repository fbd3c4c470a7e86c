//! How downloads are made; every bound has a default and a name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use maestro_core::limits;

/// How downloads are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Whether to refuse instead of asking the network.
    pub offline: bool,
    /// A folder of vendored files, which is looked at before anything is asked of the network.
    pub vendor_folder: Option<PathBuf>,
    /// The URL of a mirror that has files under the names of their digests; it is asked first.
    pub mirror: Option<String>,
    /// Where the cargo client keeps downloaded crates, in a folder for each registry.
    pub crate_folders: Vec<PathBuf>,
    /// The npm client, whose configuration says where packages are.
    pub npm: NpmOptions,
    /// The pip client, which downloads wheels.
    pub pip: PathBuf,
    /// The git client, which downloads commits.
    pub git: PathBuf,
    /// Files with certificates of authorities that are trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    /// Proxies, as the caller read them from its configuration.
    pub proxy: ProxyOptions,
    /// What is sent as `User-Agent`.
    pub user_agent: String,
    /// Most attempts of one mirror.
    pub attempts_max: u32,
    /// Most redirects of one attempt.
    pub redirects_max: usize,
    /// The longest wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The time in which [`FetchOptions::stall_bytes_min`] must come, and in which an answer must
    /// begin, in milliseconds.
    pub stall_window_ms: u64,
    /// The fewest bytes that must come in each window.
    pub stall_bytes_min: u64,
    /// The bound of the first wait between two attempts, in milliseconds; it doubles each time.
    pub backoff_ms: u64,
    /// The bound of every wait, also of one that the server asks for, in milliseconds.
    pub backoff_ms_max: u64,
}

/// How the npm client is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpmOptions {
    /// The program, searched as the system does.
    pub program: PathBuf,
    /// The folder whose `.npmrc` counts as the project's.
    pub folder: Option<PathBuf>,
    /// What `${NAME}` stands for in the client's files.
    pub variables: Variables,
}

impl Default for NpmOptions {
    fn default() -> Self {
        Self { program: "npm".into(), folder: None, variables: Variables::default() }
    }
}

/// Environment variables, which may hold secrets and are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

/// Proxies in the manner of `http_proxy`, `https_proxy` and `no_proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// The URL of the proxy for `http:`.
    pub http: Option<String>,
    /// The URL of the proxy for `https:`.
    pub https: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            offline: false,
            vendor_folder: None,
            mirror: None,
            crate_folders: Vec::new(),
            npm: NpmOptions::default(),
            pip: "pip3".into(),
            git: "git".into(),
            authorities: Vec::new(),
            proxy: ProxyOptions::default(),
            user_agent: "maestro".to_owned(),
            attempts_max: limits::DOWNLOAD_ATTEMPTS_MAX,
            redirects_max: 10,
            connect_timeout_ms: 20_000,
            stall_window_ms: 60_000,
            stall_bytes_min: 16 * 1024,
            backoff_ms: 500,
            backoff_ms_max: 30_000,
        }
    }
}
