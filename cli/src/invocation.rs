//! One build from start to end: everything that `build`, `test`, `run`, `lock` and `exec` share.
//!
//! The order of things, which is also the order in which they can go wrong:
//! 1. [`null_build::look`] asks the snapshot of the same request; if nothing changed, that was it.
//! 2. [`Invocation::start`] takes the workspace's lock and opens store, sources and records.
//! 3. [`Invocation::work`] finds out what there is to do; [`Invocation::build`] runs the engine,
//!    writes what was asked for to `maestro-out/`, and remembers (build log, snapshot).
//! 4. [`Invocation::conclude`] reports.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use maestro_cas::{Lease, Store, StoreOptions};
use maestro_core::event::{Event, EventSink};
use maestro_core::graph::{Executable, Plan};
use maestro_core::{ActionGraph, ArtifactId, DigestFunction, FailureKind, RelPath};
use maestro_executor::baselines::Build;
use maestro_executor::engine::before::Before;
use maestro_executor::engine::outputs::{OutputError, OutputWriter, WrittenFile};
use maestro_executor::engine::{Engine, EngineOptions, FinishedAction, Report};
use maestro_executor::records::{Reach, Records};
use maestro_executor::runner::{Cancel, Runner};
use maestro_executor::workspace;
use maestro_executor::workspace::facts::KnownFiles;
use maestro_executor::workspace::host::WorkspaceHost;
use maestro_executor::workspace::lock::{WaitOptions, WorkspaceLock};
use maestro_executor::workspace::sources::Sources;

use crate::args::{BuildOptions, Global, OutputFormat, StaleRecords, TestFlags, TestOutput};
use crate::config::{Config, PROJECT_FILE};
use crate::console::Console;
use crate::exit::{Failure, chain};
use crate::increment::{Ended, Known, Work, observe};
use crate::null_build::{self, Memory};
use crate::report::{OutputSummary, Summary, TARGETS_SHOWN, TargetSummary};
use crate::repos::{self, Repos};
pub use crate::request::{Goal, Request, Wanted};
use crate::runners::{Runners, ToolchainFinder, sandbox};
use crate::sinks::Fanout;
use crate::verdicts::write_merged;

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
        let mut console = Console::new(false, config.no_color);
        let quiet = |flags: &TestFlags| flags.test_output == TestOutput::Summary;
        console.hide_test_logs(request.tests.as_ref().is_some_and(quiet));
        let BuildOptions { events, trace, .. } = &request.options;
        let events = Fanout::start(console, events.as_deref(), trace.as_deref())?;
        let id = uuid::Uuid::now_v7().to_string();
        let stamp = Build { invocation_id: id.clone(), started_unix_ms: unix_ms() };
        events.emit(Event::InvocationStarted {
            invocation_id: id,
            command: request.command.to_owned(),
            patterns: request.patterns.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_ms: stamp.started_unix_ms,
        });
        Ok(Self {
            toolchains: ToolchainFinder::new(&store),
            records: Arc::new(records),
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
        let Goal { targets, count, artifacts: requested, wanted } = goal.into();
        if let Some(known) = &mut work.known {
            known.expect_added(&work.graph);
        }
        let made = self.make(&work, &requested)?;
        // What this build has seen is then less than what it depends on: the former snapshot stays,
        // and the next build finds the same changes.
        let started_over = made.is_none();
        let Made { mut report, plan, written } = match made {
            Some(made) => made,
            None => {
                // Something is lost that nobody planned to make again: look at everything.
                work.known = None;
                let made = self.make(&work, &requested)?;
                made.ok_or_else(|| {
                    Failure::new(FailureKind::Internal, "a whole plan lacks an action")
                })?
            }
        };
        let exit = self.exit_code(&report);
        let log_bytes = crate::memory::remember(self, &work, &mut report, exit)?;
        if work.known.is_none() {
            crate::allocator::give_back();
        }
        if let (Some(_), Some(memory)) = (&work.known, &self.memory) {
            crate::counts::count_known(&mut report, &work, memory, &plan, &requested);
        }
        let (tests, logs) = self.test_verdicts(&work, &wanted, &report, &plan);
        if let Some(flags) = &self.request.tests {
            write_merged(flags, &self.config.workspace, &tests)?;
        }
        let (graph, known) = (&work.graph, work.known.as_ref());
        let named = if self.names_targets(count) { wanted.as_slice() } else { &[] };
        let executables = named.iter().map(|want| executable(&self.config, graph, want)).collect();
        let files: Vec<Vec<OutputSummary>> =
            named.iter().map(|want| self.files_of(graph, known, want, &written)).collect();
        let summary = self.summary(&report, named, &files);
        if self.store.was_written() {
            self.store.leave_epoch()?;
        }
        if self.remembers && !started_over {
            let written = written.into_values().flatten().chain(logs);
            let written: Vec<WrittenFile> = written.collect();
            self.leave(&Ended {
                work: &work,
                plan: &plan,
                report: &report,
                targets: &targets,
                count,
                requested: &requested,
                summary: &summary,
                tests: &tests,
                files: &written,
                log_bytes,
            })?;
        }
        Ok(Built { report, targets: count, summary, files, executables })
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
            runners,
            events: &self.events,
            cancel: &self.cancel,
            started: self.started,
            before,
        }
    }

    /// Runs the engine and writes outputs; `None` where only a look at all actions can help.
    fn make(&self, work: &Work, requested: &[ArtifactId]) -> Result<Option<Made>> {
        let graph = &work.graph;
        let before = work.known.as_ref().map(Known::before);
        let plan = match &before {
            Some(before) => graph.plan_dirty(requested, &before.dirty),
            None => graph.plan(requested),
        };
        let plan = plan.map_err(|e| Failure::input(e.to_string()))?;
        let runners = Runners::new(self)?.list(self.live.clone());
        let engine = self.engine(graph, &runners, before.as_ref());
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
            match self.write_outputs(work, &writer, &ids, &report) {
                Ok(written) => return Ok(Some(Made { report, plan, written })),
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

    /// Reports, and says how the process ends.
    pub fn conclude(self, built: Built) -> Result<ExitCode> {
        let Built { report, targets, mut summary, files: _, executables: _ } = built;
        summary.wall_ms = millis(self.started);
        let exit = self.exit_code(&report);
        self.events.emit(Event::InvocationFinished {
            success: summary.success,
            exit_code: exit,
            actions: summary.actions,
            critical_path_ms: summary.critical_path_ms,
            wall_ms: summary.wall_ms,
        });
        for problem in self.events.finish() {
            eprintln!("warning: {problem}");
        }
        if report.cancelled {
            eprintln!("error: cancelled");
        }
        print_summary(self.output, &summary, targets, &self.request, false)?;
        Ok(ExitCode::from(exit))
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
            build: Some(self.stamp.clone()),
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
        let threads = self.config.jobs(self.request.options.jobs);
        writer.write(&nodes.collect::<Vec<_>>(), threads)
    }

    fn summary(&self, report: &Report, wanted: &[Wanted], files: &[Vec<OutputSummary>]) -> Summary {
        let targets = wanted.iter().zip(files).map(|(want, files)| TargetSummary {
            label: want.label.to_string(),
            aspect: want.aspect.clone(),
            outputs: files.clone(),
        });
        let cost = |f: &FinishedAction| f.cost_usd_micros;
        let saved = |f: &FinishedAction| f.saved_usd_micros;
        Summary {
            success: report.success(),
            targets: targets.collect(),
            actions: report.counts,
            critical_path_ms: report.critical_path_ms,
            wall_ms: millis(self.started),
            cost_usd_micros: report.finished.iter().map(cost).sum(),
            saved_usd_micros: report.finished.iter().map(saved).sum(),
            invocation_id: self.id().to_owned(),
        }
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
}

/// Opens the store of a configuration.
pub fn open_store(config: &Config) -> Result<Store> {
    let root = config.cache.clone();
    Ok(Store::open(StoreOptions { root, function: DigestFunction::Blake3 })?)
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
