//! One build from start to end: everything that `build`, `test`, `run`, `lock` and `exec` share.
//!
//! The order of things, which is also the order in which they can go wrong:
//! 1. [`null_build::look`] asks the snapshot of the same request; if nothing changed, that was it.
//! 2. [`Invocation::start`] takes the workspace's lock and opens store, sources and records.
//! 3. [`Invocation::work`] finds out what there is to do; [`Invocation::build`] runs the engine,
//!    writes what was asked for to `maestro-out/`, and remembers (build log, snapshot).
//! 4. [`Invocation::conclude`] reports.

mod ending;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use maestro_cas::{Lease, Store, StoreOptions};
use maestro_core::event::{Event, EventSink};
use maestro_core::graph::{Executable, Plan};
use maestro_core::{ActionGraph, ArtifactId, FailureKind, RelPath};
use maestro_executor::baselines::{self, Build};
use maestro_executor::engine::before::Before;
use maestro_executor::engine::outputs::{OutputError, OutputWriter, WrittenFile};
use maestro_executor::engine::{Engine, EngineOptions, Report};
use maestro_executor::records::{Reach, Records};
use maestro_executor::remote_cache::RemoteCache;
use maestro_executor::runner::{Cancel, Runner};
use maestro_executor::workspace;
use maestro_executor::workspace::facts::KnownFiles;
use maestro_executor::workspace::host::WorkspaceHost;
use maestro_executor::workspace::lock::{WaitOptions, WorkspaceLock};
use maestro_executor::workspace::sources::Sources;
use maestro_executor::workspace::toolchain::Copying;

use maestro_remote::client::Client;

use crate::args::{BuildOptions, Global, OutputFormat, StaleRecords, TestFlags, TestOutput};
use crate::config::{Config, PROJECT_FILE};
use crate::console::Console;
use crate::exit::{Failure, chain};
use crate::increment::{Known, Work, observe};
use crate::null_build::{self, Memory};
use crate::report::{OutputSummary, Summary, TARGETS_SHOWN};
use crate::repos::{self, Repos};
pub use crate::request::{Goal, Request, Wanted};
use crate::runners::{Runners, ToolchainFinder, sandbox};
use crate::sinks::Fanout;

/// The end of a build, before it is reported.
pub struct Built {
    /// What the engine says.
    pub report: Report,
    /// How many targets were asked for.
    pub targets: usize,
    /// What is reported.
    pub summary: Summary,
    /// Files on disk, for each target that is named.
    pub files: Vec<Vec<OutputSummary>>,
    /// The programs of these targets, of those that can be run.
    pub executables: Vec<Option<(Executable, PathBuf)>>,
}

/// A build under way.
pub struct Invocation {
    /// Paths and choices.
    pub config: Config,
    /// What was asked for.
    pub request: Request,
    /// Blobs and results.
    pub store: Store,
    /// The workspace as evaluation sees it.
    pub host: WorkspaceHost,
    /// Other repositories.
    pub repos: Repos,
    /// The lock.
    pub records: Arc<Records>,
    /// The cache that others share, where one is used.
    pub remote: Option<Client>,
    /// Makes live calls where a command allows them.
    pub live: Option<Arc<dyn Runner>>,
    /// Ends the build.
    pub cancel: Cancel,
    /// Where events go.
    pub events: Fanout,
    output: OutputFormat,
    /// Hashes of source files.
    pub sources: Sources,
    /// Finds toolchains.
    pub toolchains: ToolchainFinder,
    /// What the last build of the same request left, where that is asked for.
    pub memory: Option<Memory>,
    remembers: bool,
    state_dir: PathBuf,
    stamp: Build,
    baselines: baselines::Writer,
    started: Instant,
    _lock: WorkspaceLock,
    _lease: Lease,
}

impl Invocation {
    /// Takes the workspace and opens everything, for a command that looks at all it needs.
    pub fn start(global: &Global, request: Request) -> Result<Self> {
        let config = Config { daemon: false, ..Config::load(global)? };
        Ok(Self { remembers: false, ..Self::open(global, config, request, None)? })
    }

    /// Takes the workspace and opens everything, for a command that begins with what the last
    /// build of the same request left, and leaves the same for the next.
    pub fn start_over(
        global: &Global,
        config: Config,
        request: Request,
        memory: Option<Memory>,
    ) -> Result<Self> {
        Self::open(global, config, request, memory)
    }

    fn open(
        global: &Global,
        config: Config,
        request: Request,
        memory: Option<Memory>,
    ) -> Result<Self> {
        let started = Instant::now();
        let cancel = Cancel::default();
        crate::signals::cancel_on_interrupt(&cancel)?;
        let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
        let wait = WaitOptions { timeout: None, cancel: cancel.clone() };
        let lock = WorkspaceLock::acquire(&state_dir, request.command, &wait, |holder| {
            eprintln!("waiting for {holder}, which builds this workspace");
        })
        .map_err(|e| Failure::new(e.kind(), chain(&e)))?;
        let store = open_store(&config)?;
        let lease = store.lease()?;
        let repos = repos::repos(&config, &store, request.options.offline, &cancel);
        let host = repos::workspace_host(&config, repos.mounts.clone())?;
        let memory = null_build::latest_memory(&config, &request, &state_dir, memory);
        let known = memory.as_ref().map(|memory| memory.snapshot.clone() as Arc<dyn KnownFiles>);
        let sources = Sources::open(&config.workspace, known)
            .map_err(|e| Failure::new(e.kind(), chain(&e)))?
            .with_mounts(repos.mounts.clone());
        let records = Records::load(&config.workspace)
            .map_err(|e| Failure::new(e.kind(), chain(&e)).hints(e.hints()))?;
        // What was read is what a later null build must find unchanged.
        for file in std::iter::once(PROJECT_FILE.to_owned()).chain(records.files_read()) {
            observe(&host, &file)?;
        }
        let events = open_events(&config, &request)?;
        let id = uuid::Uuid::now_v7().to_string();
        let remote = crate::remote::client(&config, &request.options, &store, &id)?;
        let copying = if remote.is_some() { Copying::WhenRead } else { Copying::WhileHashed };
        let stamp = Build { invocation_id: id.clone(), started_unix_ms: unix_ms() };
        events.emit(Event::InvocationStarted {
            invocation_id: id,
            command: request.command.to_owned(),
            patterns: request.patterns.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_ms: stamp.started_unix_ms,
        });
        Ok(Self {
            baselines: baselines::Writer::new(&store, &stamp),
            toolchains: ToolchainFinder::new(&store, copying),
            records: Arc::new(records),
            remote,
            live: None,
            output: global.output,
            config,
            request,
            store,
            host,
            repos,
            cancel,
            events,
            sources,
            memory,
            remembers: true,
            state_dir,
            stamp,
            started,
            _lock: lock,
            _lease: lease,
        })
    }

    /// The lock as it stands on disk, to be looked at in another way.
    pub fn take_records(&self) -> Result<Records> {
        Ok(Records::load(&self.config.workspace)
            .map_err(|e| Failure::new(e.kind(), chain(&e)).hints(e.hints()))?)
    }

    /// Makes what is wanted, writes it to `maestro-out/`, and remembers.
    pub fn build(&self, mut work: Work, goal: impl Into<Goal>) -> Result<Built> {
        let goal: Goal = goal.into();
        let runners = Runners::new(self)?;
        if let Some(known) = &mut work.known {
            known.expect_added(&work.graph);
            if !known.edited.is_empty() {
                let jobs = self.config.jobs(self.request.options.jobs);
                runners.warm_up(known.dirty.len().min(jobs));
            }
        }
        let made = self.make_whole(&mut work, &goal.artifacts, &runners);
        std::thread::scope(|scope| {
            let closing = std::thread::Builder::new()
                .name("closing".to_owned())
                .spawn_scoped(scope, move || self.close(runners))
                .context("cannot start a thread")?;
            let built = self.remember(work, goal, made?)?;
            closing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(built)
        })
    }

    /// The engine over a graph.
    pub fn engine<'e>(
        &'e self,
        graph: &'e ActionGraph,
        runners: &'e [Arc<dyn Runner>],
        before: Option<&'e Before<'e>>,
    ) -> Engine<'e> {
        Engine {
            options: self.engine_options(),
            graph,
            store: &self.store,
            sources: &self.sources,
            toolchains: &self.toolchains,
            records: &self.records,
            remote: self.remote.as_ref().map(|remote| remote as &dyn RemoteCache),
            runners,
            events: &self.events,
            cancel: &self.cancel,
            started: self.started,
            baselines: Some(&self.baselines),
            before,
        }
    }

    /// Runs the engine and writes outputs; once more with the whole plan where less is not enough.
    fn make_whole(
        &self,
        work: &mut Work,
        requested: &[ArtifactId],
        runners: &Runners,
    ) -> Result<Made> {
        if let Some(made) = self.make(work, requested, runners)? {
            return Ok(made);
        }
        // Something is lost that nobody planned to make again: look at everything. What this build
        // has seen is then less than what it depends on: the former snapshot stays, and the next
        // build finds the same changes.
        work.known = None;
        let made = self.make(work, requested, runners)?;
        let made = made
            .ok_or_else(|| Failure::new(FailureKind::Internal, "a whole plan lacks an action"))?;
        Ok(Made { started_over: true, ..made })
    }

    /// Runs the engine and writes outputs; `None` where only a look at all actions can help.
    fn make(
        &self,
        work: &Work,
        requested: &[ArtifactId],
        runners: &Runners,
    ) -> Result<Option<Made>> {
        let graph = &work.graph;
        let before = work.known.as_ref().map(Known::before);
        let plan = match &before {
            Some(before) => graph.plan_dirty(requested, &before.dirty),
            None => graph.plan(requested),
        };
        let plan = plan.map_err(|e| Failure::input(e.to_string()))?;
        let engine = self.engine(graph, runners.list(), before.as_ref());
        let mut report = engine.build(&plan, requested);
        let known_files = self.memory.as_ref().map(|memory| &*memory.snapshot as &dyn KnownFiles);
        let writer = OutputWriter {
            workspace: &self.config.workspace,
            store: &self.store,
            before: known_files,
        };
        for attempt in 1.. {
            if report.needs_whole_plan {
                return Ok(None);
            }
            let ids = self.to_write(graph, work.known.as_ref(), requested, &report);
            match self.write_outputs(work, &writer, &ids, &report, &engine) {
                Ok(written) => {
                    return Ok(Some(Made { report, plan, written, started_over: false }));
                }
                Err(OutputError::Lost(_)) if before.is_some() => return Ok(None),
                Err(OutputError::Lost(lost)) if attempt < maestro_core::limits::REWINDS_MAX => {
                    match engine.rewind_lost(&plan, requested, &lost) {
                        Some(again) => report = again,
                        None => return Err(OutputError::Lost(lost).into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Whether a report names each of so many targets: of many, only programs want to know.
    pub fn names_targets(&self, count: usize) -> bool {
        count <= TARGETS_SHOWN || self.output == OutputFormat::Json
    }

    fn exit_code(&self, report: &Report) -> u8 {
        if report.cancelled {
            return 130; // as if the interrupt had ended us, which is what scripts expect
        }
        let kinds: Vec<FailureKind> = report.failed.iter().map(|f| f.error.kind()).collect();
        let worst = [
            FailureKind::Internal,
            FailureKind::Environment,
            FailureKind::Input,
            FailureKind::Build,
        ];
        let kind = worst.into_iter().find(|kind| kinds.contains(kind));
        kind.map_or(0, FailureKind::exit_code)
    }

    fn engine_options(&self) -> EngineOptions {
        let options = &self.request.options;
        EngineOptions {
            jobs: self.config.jobs(options.jobs),
            keep_going: options.keep_going || self.request.tests.is_some(),
            reach: match (self.locked(), options.stale_records) {
                (true, _) => Reach::Lock,
                (false, StaleRecords::Allow) => Reach::Stale,
                (false, StaleRecords::Deny) => Reach::Cache,
            },
            live: self.live.is_some(),
            sandbox: sandbox(options),
            log_dir: self.state_dir.join("logs"),
            lookup_only: false,
        }
    }

    fn locked(&self) -> bool {
        self.request.options.locked || self.config.ci
    }

    fn write_outputs(
        &self,
        work: &Work,
        writer: &OutputWriter<'_>,
        ids: &[ArtifactId],
        report: &Report,
        engine: &Engine<'_>,
    ) -> Result<HashMap<ArtifactId, Vec<WrittenFile>>, OutputError> {
        let Work { graph, known, requested: _, evaluation: _ } = work;
        let before = known.as_ref().map(Known::before);
        let node_of = |id: ArtifactId| match report.nodes.get(&id) {
            Some(node) => Some(node.clone()),
            None => {
                let before = before.as_ref().filter(|before| before.holds(graph, id))?;
                before.results.node(id)
            }
        };
        let made = ids.iter().filter(|id| graph.producer(**id).is_some());
        let nodes = made.filter_map(|id| {
            let path: RelPath = graph.artifact(*id).path.clone();
            Some((*id, path, node_of(*id)?))
        });
        let nodes: Vec<_> = nodes.collect();
        let threads = self.config.jobs(self.request.options.jobs);
        if self.remote.is_some() {
            engine.bring(&writer.absent(&nodes))?;
        }
        writer.write(&nodes, threads)
    }

    /// The id of this invocation.
    pub fn id(&self) -> &str {
        &self.stamp.invocation_id
    }

    /// When the process began its work.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Where this workspace's state is kept.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// When it began, in milliseconds since 1970.
    pub fn started_unix_ms(&self) -> u64 {
        self.stamp.started_unix_ms
    }
}

/// What the engine made and what lies on disk of it.
struct Made {
    report: Report,
    plan: Plan,
    written: HashMap<ArtifactId, Vec<WrittenFile>>,
    /// Whether a plan of dirty actions alone turned out to be too little.
    started_over: bool,
}

/// Opens what events go to.
fn open_events(config: &Config, request: &Request) -> Result<Fanout> {
    let mut console = Console::new(false, config.no_color);
    let quiet = |flags: &TestFlags| flags.test_output == TestOutput::Summary;
    console.hide_test_logs(request.tests.as_ref().is_some_and(quiet));
    let BuildOptions { events, trace, .. } = &request.options;
    Fanout::start(console, events.as_deref(), trace.as_deref())
}

/// Opens the store of a configuration.
pub fn open_store(config: &Config) -> Result<Store> {
    let root = config.cache.clone();
    Ok(Store::open(StoreOptions { root, function: config.digest_function() })?)
}

fn executable(
    config: &Config,
    graph: &ActionGraph,
    want: &Wanted,
) -> Option<(Executable, PathBuf)> {
    let executable = graph.target(want.target).executable.clone()?;
    let path = config.workspace.join(&graph.artifact(executable.file).path);
    Some((*executable, path))
}

/// Tells people on standard error, and scripts on standard output.
pub fn print_summary(
    output: OutputFormat,
    summary: &Summary,
    targets: usize,
    request: &Request,
    up_to_date: bool,
) -> Result<()> {
    let verb = if request.tests.is_some() { "tested" } else { "built" };
    eprint!("{}", summary.text(verb, targets, up_to_date));
    if output == OutputFormat::Json {
        println!("{}", serde_json::to_string(summary)?);
    }
    Ok(())
}

/// Milliseconds since an instant.
pub fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
