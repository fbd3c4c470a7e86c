//! Where things are and what is configured: flags, then environment, then `maestro.toml`, then
//! defaults. The only file that reads the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maestro_core::{DigestFunction, FailureKind, RelPath};
use maestro_runs::policy::Tier;
use serde::Deserialize;

use crate::args::{DaemonChoice, Global};
use crate::budget::BudgetConfig;
use crate::exit::Failure;
use crate::profiles::Profile;
use crate::remote::RemoteConfig;
use crate::repos::spec::RepoSpec;

/// The name of the project file, which also marks a workspace's root.
pub const PROJECT_FILE: &str = "maestro.toml";
/// The folder of the workspace that holds vendored downloads.
pub const VENDOR_FOLDER: &str = "vendor/maestro";

/// The project file. Every key is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    /// How many commands run at once, 1 to 1024.
    pub jobs: Option<u16>,
    /// Whether builds ask a daemon, where no flag says so.
    pub daemon: Option<bool>,
    /// The digest function of keys and blobs: `blake3`, or `sha256` for remote caches that know no
    /// other.
    #[serde(default)]
    pub digest_function: ChosenFunction,
    /// Other repositories, by the name that labels give them.
    #[serde(default)]
    pub repos: BTreeMap<String, RepoSpec>,
    /// How downloads are made.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// Base URL of an OpenAI-compatible API that `lock --update` asks.
    pub llm_endpoint: Option<String>,
    /// Which policies are asked.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// What may be spent.
    pub budget: Option<BudgetConfig>,
    /// How much depends on each environment that pipelines name.
    #[serde(default)]
    pub environments: BTreeMap<String, Tier>,
    /// Short names of params, and the labels that they stand for.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// What steps of pipelines leave out, by names such as `llm.model`.
    #[serde(default)]
    pub defaults: toml::Table,
    /// What the workspace registers.
    #[serde(default)]
    pub workspace: WorkspaceSection,
    /// The cache that results are shared through.
    #[serde(default)]
    pub remote: RemoteConfig,
    /// Profiles, each taken by `--config NAME`.
    #[serde(default, rename = "config")]
    pub profiles: BTreeMap<String, Profile>,
}

/// A digest function, as the project file names it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChosenFunction {
    /// BLAKE3.
    #[default]
    Blake3,
    /// SHA-256.
    Sha256,
}

/// What a workspace registers: labels, or `//pkg:all`, in the order in which they are tried.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkspaceSection {
    /// Toolchains. Those that ship with the rules come after them.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// Platforms on which actions may run. This machine comes after them.
    #[serde(default)]
    pub execution_platforms: Vec<String>,
}

/// The table `[policy]` of the project file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PolicyConfig {
    /// Files and folders of policies, below the workspace.
    pub paths: Vec<PathBuf>,
    /// Whether the built-in policies are asked, too.
    pub default: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { paths: Vec::new(), default: true }
    }
}

/// The table `[fetch]` of the project file and of the user's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FetchConfig {
    /// The URL of a mirror that has files under the names of their digests.
    pub mirror: Option<String>,
}

/// Paths and choices of one invocation.
#[derive(Debug)]
pub struct Config {
    /// The workspace's root, canonical.
    pub workspace: PathBuf,
    /// The folder the user stands in, below the workspace; empty at its root.
    pub package: String,
    /// `$CACHE`.
    pub cache: PathBuf,
    /// The project file.
    pub project: Project,
    /// The mirror that is asked first: the user's, else the project's.
    pub mirror: Option<String>,
    /// What the user's configuration says of remote caches.
    pub user_remote: RemoteConfig,
    /// Folders that take the place of repositories.
    pub overrides: BTreeMap<String, PathBuf>,
    /// Whether a daemon is asked what changed: by the flags, else the user's configuration, else
    /// the project's.
    pub daemon: bool,
    /// Whether this is a CI run.
    pub ci: bool,
    /// Whether colours are unwanted.
    pub no_color: bool,
}

/// `$CACHE`, which commands without a workspace need too.
pub fn cache_dir(global: &Global) -> Result<PathBuf> {
    if let Some(dir) = &global.cache {
        return absolute(dir);
    }
    if let Some(dir) = non_empty("MAESTRO_CACHE") {
        return absolute(Path::new(&dir));
    }
    if let Some(dir) = non_empty("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("maestro"));
    }
    let home = non_empty("HOME").ok_or_else(|| {
        Failure::environment("neither `MAESTRO_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set")
            .hint("name the cache with `--cache DIR`")
    })?;
    Ok(PathBuf::from(home).join(".cache/maestro"))
}

impl Config {
    /// Finds the workspace and reads its project file.
    pub fn load(global: &Global) -> Result<Self> {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let root = match &global.workspace {
            Some(dir) => dir.clone(),
            None => find_workspace(&here).ok_or_else(|| {
                Failure::input(format!("there is no workspace at or above `{}`", here.display()))
                    .hint(format!(
                        "create `{PROJECT_FILE}` (it may be empty) in the root of your project"
                    ))
            })?,
        };
        let workspace = root
            .canonicalize()
            .with_context(|| format!("cannot open the workspace `{}`", root.display()))?;
        let package = match here.strip_prefix(&workspace) {
            Ok(below) => below.to_str().unwrap_or_default().to_owned(),
            Err(_) => String::new(),
        };
        if !package.is_empty() {
            RelPath::new(&package).map_err(|e| Failure::input(e.to_string()))?;
        }
        let user = user_config()?;
        let mut overrides = user.overrides;
        for text in &global.override_repo {
            let (name, path) = parse_override(text)?;
            overrides.insert(name, here.join(path));
        }
        let project = read_project(&workspace)?;
        Ok(Self {
            daemon: user.daemon.or(project.daemon).unwrap_or(false),
            mirror: user.fetch.mirror.or_else(|| project.fetch.mirror.clone()),
            project,
            user_remote: user.remote,
            overrides,
            workspace,
            package,
            cache: cache_dir(global)?,
            ci: non_empty("CI").is_some_and(|v| v == "true" || v == "1"),
            no_color: non_empty("NO_COLOR").is_some(),
        })
    }

    /// The same with what the flags say of the daemon.
    pub fn with_daemon(self, choice: DaemonChoice) -> Self {
        Self { daemon: choice.flag().unwrap_or(self.daemon), ..self }
    }

    /// The function of the digests that builds of this workspace compute.
    pub fn digest_function(&self) -> DigestFunction {
        match self.project.digest_function {
            ChosenFunction::Blake3 => DigestFunction::Blake3,
            ChosenFunction::Sha256 => DigestFunction::Sha256,
        }
    }

    /// How many commands run at once.
    pub fn jobs(&self, flag: Option<u16>) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        flag.or(self.project.jobs).map_or_else(processors, usize::from)
    }
}

/// Where the cargo client keeps the crates that it has downloaded.
pub fn cargo_downloads() -> Option<PathBuf> {
    let default = || non_empty("HOME").map(|home| Path::new(&home).join(".cargo"));
    let home = non_empty("CARGO_HOME").map(PathBuf::from).or_else(default)?;
    Some(home.join("registry/cache"))
}

/// An environment variable that is set and not empty.
pub fn non_empty(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// All environment variables that are UTF-8.
pub fn variables() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The nearest folder with a project file, else the topmost of an unbroken chain of packages.
fn find_workspace(here: &Path) -> Option<PathBuf> {
    let marked = here.ancestors().find(|dir| dir.join(PROJECT_FILE).is_file());
    let packages = || here.ancestors().filter(|dir| dir.join("maestro.star").is_file()).last();
    marked.or_else(packages).map(Path::to_owned)
}

/// The user's own configuration, for all workspaces. Every key is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UserConfig {
    /// Whether builds ask a daemon, where no flag says so.
    daemon: Option<bool>,
    /// Absolute folders that take the place of repositories.
    #[serde(default, rename = "override")]
    overrides: BTreeMap<String, PathBuf>,
    /// How downloads are made.
    #[serde(default)]
    fetch: FetchConfig,
    /// What may be spent, whatever projects say.
    budget: Option<BudgetConfig>,
    /// The cache that results are shared through.
    #[serde(default)]
    remote: RemoteConfig,
}

/// What may be spent in a workspace: by the user's configuration, else by the project's.
pub fn budget(workspace: &Path) -> Result<BudgetConfig> {
    let project = read_project(workspace)?.budget;
    Ok(user_config()?.budget.or(project).unwrap_or_default())
}

/// Reads `maestro/config.toml` below the user's configuration folder.
fn user_config() -> Result<UserConfig> {
    let home = || non_empty("HOME").map(|home| Path::new(&home).join(".config"));
    let Some(folder) = non_empty("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home) else {
        return Ok(UserConfig::default());
    };
    let path = folder.join("maestro/config.toml");
    // A folder that may not even be entered is that of another user, whose home this process was
    // started with; a file of our own that may not be read is an error below.
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    if std::fs::metadata(&path).is_err_and(|error| denied(&error)) {
        return Ok(UserConfig::default());
    }
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(UserConfig::default());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    let bad = |why: String| Failure::input(format!("`{}` is not valid: {why}", path.display()));
    let config: UserConfig = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
    for (name, folder) in &config.overrides {
        if !folder.is_absolute() {
            let shown = folder.display();
            return Err(bad(format!("the override `{shown}` of `@{name}` is not absolute")).into());
        }
    }
    Ok(config)
}

/// Reads `NAME=PATH`.
fn parse_override(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.trim_start_matches('@').to_owned(), PathBuf::from(path)))
        }
        _ => Err(Failure::input(format!("`{text}` overrides no repository"))
            .hint("write `--override-repo NAME=PATH`")
            .into()),
    }
}

/// Reads the project file of a workspace, if it has one.
pub fn read_project(workspace: &Path) -> Result<Project> {
    let path = workspace.join(PROJECT_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Project::default());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    toml::from_str(&text).map_err(|error| {
        let mut failure = Failure::input(format!("`{PROJECT_FILE}` is not valid: {error}"));
        failure.kind = FailureKind::Input;
        failure.into()
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use `{}`", path.display()))
}
