//! Other repositories: declared in `maestro.toml`, overridden by the user, made ready when a build
//! first names them.
//!
//! The names are those of the root workspace. A repository that names a further one gets the one
//! that the root declares, or an error that shows what its own `maestro.toml` says.
//! An archive is fetched and unpacked by the engine, as actions with keys: what is in the cache is
//! never fetched again.

pub mod spec;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use maestro_cas::Store;
use maestro_core::event::{Event, EventSink};
use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::{FailureKind, Node, RelPath, TargetPattern};
use maestro_executor::engine::{Engine, EngineOptions};
use maestro_executor::native::NativeRunner;
use maestro_executor::records::{Reach, Records};
use maestro_executor::runner::{Cancel, Runner};
use maestro_executor::workspace;
use maestro_executor::workspace::facts::Fact;
use maestro_executor::workspace::host::{HostOptions, WorkspaceHost};
use maestro_executor::workspace::mounts::{Content, Mounts, Repositories};
use maestro_executor::workspace::sources::Sources;
use maestro_executor::workspace::toolchain::Copying;
use maestro_rules::LoadOptions;

use crate::config::{Config, PROJECT_FILE};
use crate::downloads::{Download, fetches, finished};
use crate::exit::{Failure, chain};
use crate::invocation::open_store;
use crate::runners::{ToolchainFinder, fetch_runner};
use spec::{Origin, RepoSpec};

/// The workspace as evaluation sees it, with the repositories that its configuration declares.
pub fn workspace_host(config: &Config, mounts: Arc<Mounts>) -> Result<WorkspaceHost> {
    let markers = HostOptions { workspace_markers: vec![PROJECT_FILE.to_owned()] };
    let host = WorkspaceHost::new(&config.workspace, markers)
        .with_context(|| format!("cannot open `{}`", config.workspace.display()))?;
    Ok(host.with_mounts(mounts))
}

/// The same for commands that build nothing, and take no lock of the workspace.
pub fn unlocked_host(config: &Config) -> Result<WorkspaceHost> {
    let store = open_store(config)?;
    workspace_host(config, repos(config, &store, false, &Cancel::default()).mounts)
}

/// The repositories of a configuration.
pub struct Repos {
    /// Where a build sees them.
    pub mounts: Arc<Mounts>,
    /// What was downloaded, now or before, to make those ready that were named.
    pub downloads: Arc<Mutex<Vec<Download>>>,
}

/// The repositories of a configuration. Nothing is fetched before one is named.
pub fn repos(config: &Config, store: &Store, offline: bool, cancel: &Cancel) -> Repos {
    let downloads: Arc<Mutex<Vec<Download>>> = Arc::default();
    let declared = Declared {
        workspace: config.workspace.clone(),
        cache: config.cache.clone(),
        specs: config.project.repos.clone(),
        overrides: config.overrides.clone(),
        jobs: config.jobs(None),
        store: store.clone(),
        runners: vec![Arc::new(NativeRunner), Arc::new(fetch_runner(config, offline))],
        cancel: cancel.clone(),
        facts: Mutex::default(),
        downloads: downloads.clone(),
    };
    Repos { mounts: Arc::new(Mounts::new(Box::new(declared), store.clone())), downloads }
}

/// The repositories that a workspace declares.
struct Declared {
    workspace: PathBuf,
    cache: PathBuf,
    specs: BTreeMap<String, RepoSpec>,
    overrides: BTreeMap<String, PathBuf>,
    jobs: usize,
    store: Store,
    runners: Vec<Arc<dyn Runner>>,
    cancel: Cancel,
    /// What was seen of the workspace's archives.
    facts: Mutex<Vec<(String, Fact)>>,
    downloads: Arc<Mutex<Vec<Download>>>,
}

impl Repositories for Declared {
    fn declares(&self, name: &str) -> bool {
        self.overrides.contains_key(name) || self.specs.contains_key(name)
    }

    fn open(&self, name: &str) -> Result<Content, HostError> {
        self.content(name).map_err(|error| match error.downcast::<Failure>() {
            Ok(Failure { kind, message, hints, .. }) => {
                HostError::Repository { message, kind, hints }
            }
            Err(error) => HostError::Repository {
                message: format!("cannot make repository `@{name}` ready: {error:#}"),
                kind: FailureKind::Environment,
                hints: Vec::new(),
            },
        })
    }

    fn undeclared(&self, name: &str, project: Option<&str>) -> Vec<String> {
        let names = self.specs.keys().chain(self.overrides.keys());
        let near = names
            .map(|known| (strsim::osa_distance(name, known), known))
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .min();
        let theirs = project.and_then(|text| declaration(text, name));
        match (near, theirs) {
            (_, Some(theirs)) => vec![format!(
                "the root decides which one is used; add this to `{PROJECT_FILE}`:\n{theirs}"
            )],
            (Some((_, near)), None) => vec![format!("did you mean `@{near}`?")],
            (None, None) => vec![format!(
                "declare it in `{PROJECT_FILE}`: `[repos.{name}]` with `url` and `sha256`, or with \
                 `path`"
            )],
        }
    }

    fn facts(&self) -> Vec<(String, Fact)> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Declared {
    fn content(&self, name: &str) -> Result<Content> {
        if let Some(path) = self.overrides.get(name) {
            return Ok(Content::Folder(self.workspace.join(path)));
        }
        let spec = self.specs.get(name).context("it is not declared")?;
        match spec.origin(name)? {
            Origin::Folder(path) => Ok(Content::Folder(self.workspace.join(path))),
            Origin::Rule(text) => self.make(name, text),
        }
    }

    /// Runs the actions that make the tree of a repository.
    fn make(&self, name: &str, text: String) -> Result<Content> {
        let failed = |kind: FailureKind, why: String| {
            Failure::new(kind, format!("cannot make repository `@{name}` ready: {why}"))
        };
        let host = OneFile { text, workspace: self.workspace.clone() };
        let pattern = TargetPattern::parse(&format!("//:{name}"), "")?;
        let options = LoadOptions::new(&host, vec![(false, pattern)], 1);
        let loaded = maestro_rules::load(options).map_err(|list| {
            let messages: Vec<String> = list.iter().map(|d| d.message.clone()).collect();
            let kind = list.first().map_or(FailureKind::Internal, |d| d.kind);
            let hints = list.iter().flat_map(|d| d.hints.clone());
            failed(kind, messages.join("; ")).hints(hints)
        })?;
        let target = loaded.requested.first().context("the rule makes no target")?;
        let files = loaded.graph.target(*target).files.clone();
        let [tree] = files.as_slice() else { anyhow::bail!("the rule makes no tree") };
        let plan = loaded.graph.plan(&files)?;
        let state_dir = workspace::state_dir(&self.cache, &self.workspace)?;
        let sources = Sources::open(&self.workspace, None)?;
        let records = Records::load(&self.workspace)?;
        let engine = Engine {
            options: EngineOptions {
                jobs: self.jobs,
                keep_going: false,
                reach: Reach::Cache,
                live: false,
                sandbox: maestro_core::key::SandboxProfile::Hermetic,
                log_dir: state_dir.join("logs"),
                lookup_only: false,
            },
            graph: &loaded.graph,
            store: &self.store,
            sources: &sources,
            toolchains: &ToolchainFinder::new(&self.store, Copying::WhileHashed),
            records: &records,
            remote: None,
            runners: &self.runners,
            events: &Progress { name: name.to_owned(), told: Mutex::default() },
            cancel: &self.cancel,
            started: Instant::now(),
            baselines: None,
            before: None,
        };
        let report = engine.build(&plan, &files);
        if let Some(first) = report.failed.first() {
            let hints = first.error.hints();
            return Err(failed(first.error.kind(), chain(&first.error)).hints(hints).into());
        }
        if report.cancelled {
            return Err(failed(FailureKind::Build, "cancelled".to_owned()).into());
        }
        // An archive that changes makes other packages, which have to be evaluated.
        let facts = sources.facts().into_iter().map(|(path, fact)| match fact {
            Fact::Content(content) => (path, Fact::Content(content.evaluated())),
            other => (path, other),
        });
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).extend(facts);
        let fetches = fetches(&loaded.graph, &plan.order);
        let found = finished(&loaded.graph, &fetches, &report, |_| format!("@{name}"));
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        match report.nodes.get(tree) {
            Some(Node::Tree { root }) => Ok(Content::Tree(*root)),
            _ => anyhow::bail!("the rule makes no tree"),
        }
    }
}

/// What the `maestro.toml` of another repository says of repository `name`.
fn declaration(project: &str, name: &str) -> Option<String> {
    let table: toml::Table = project.parse().ok()?;
    let theirs = table.get("repos")?.get(name)?.clone();
    let repos = toml::Table::from_iter([(name.to_owned(), theirs)]);
    let whole = toml::Table::from_iter([("repos".to_owned(), toml::Value::Table(repos))]);
    Some(toml::to_string(&whole).ok()?.trim().to_owned())
}

/// Tells people of what takes time.
struct Progress {
    name: String,
    told: Mutex<HashSet<String>>,
}

impl EventSink for Progress {
    fn emit(&self, event: Event) {
        let Event::ActionStarted { mnemonic, .. } = event else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let what = if mnemonic.eq_ignore_ascii_case("fetch") { "fetching" } else { "unpacking" };
        if told.insert(what.to_owned()) {
            eprintln!("{what} repository @{}", self.name);
        }
    }
}

/// A workspace whose root package is a text; its other files are those of the real workspace.
struct OneFile {
    text: String,
    workspace: PathBuf,
}

impl Host for OneFile {
    fn stat(&self, path: &RelPath) -> std::result::Result<Option<FileType>, HostError> {
        if path.name() == "maestro.star" {
            return Ok((path.as_str() == "maestro.star").then_some(FileType::File));
        }
        let metadata = std::fs::metadata(self.workspace.join(path));
        Ok(metadata.ok().map(|m| if m.is_dir() { FileType::Directory } else { FileType::File }))
    }

    fn read(&self, path: &RelPath) -> std::result::Result<Option<Vec<u8>>, HostError> {
        Ok((path.as_str() == "maestro.star").then(|| self.text.clone().into_bytes()))
    }

    fn list(&self, _dir: Option<&RelPath>) -> std::result::Result<Vec<DirEntry>, HostError> {
        Ok(Vec::new())
    }

    fn open_repository(&self, name: &str, _from: &str) -> std::result::Result<String, HostError> {
        let (name, from) = (name.to_owned(), String::new());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }
}
