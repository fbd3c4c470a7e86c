//! The build that has nothing to do: how it is recognised, and what it reports.
//!
//! A null build evaluates nothing, hashes no file that is not racy, opens no database, takes no
//! lock and writes nothing but the events that the user asked for.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use maestro_cas::StatSignature;
use maestro_core::event::{Event, EventSink};
use maestro_executor::workspace;
use maestro_executor::workspace::snapshot::{Changes, RequestRecord, Snapshot, SnapshotName};
use serde::{Deserialize, Serialize};

use crate::args::{BuildOptions, ConfigurationOptions, Global, TestFlags};
use crate::config::Config;
use crate::console::Console;
use crate::daemon::client::Daemon;
use crate::daemon::message::Told;
use crate::invocation::{Request, millis, print_summary, unix_ms};
use crate::profiles::host_machine;
use crate::report::Summary;
use crate::sinks::Fanout;
use crate::verdicts::{TestVerdict, show_logs, write_merged};

/// What a snapshot remembers for the report of a null build.
#[derive(Debug, Serialize, Deserialize)]
pub struct Remembered {
    /// The summary; without targets where there are more of them than the console shows.
    pub summary: Summary,
    /// How many targets there are.
    pub targets: usize,
    /// Verdicts of tests.
    pub tests: Vec<TestVerdict>,
    /// How many parts each map has, by its number.
    pub parts: Vec<(u32, u32)>,
}

/// What the last build of the same request left, and what has changed since.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What is no longer as it was.
    pub changes: Changes,
    /// Whether this process looked for changes itself; else the daemon did.
    pub checked: bool,
}

/// What a look at the snapshot says.
#[derive(Debug)]
pub enum Look {
    /// The request is done: what it reports, with an id and a time of its own.
    Done(Remembered),
    /// There is something to do, and perhaps something to begin with.
    ToDo(Option<Memory>),
}

/// Looks whether a request is done already, without evaluating anything.
/// Nothing is hashed or written but for files that were edited just before the build: those are
/// hashed until they are old, and the snapshot then is written once without their marks.
/// `wants_all`: whether somebody reads all targets, however many there are.
pub fn look(config: &Config, request: &Request, wants_all: bool) -> Look {
    let started = Instant::now();
    let Ok(state_dir) = workspace::state_dir(&config.cache, &config.workspace) else {
        return Look::ToDo(None); // the build will say what is wrong
    };
    let options = keyed_options(config, request);
    let name = snapshot_name(&state_dir, &options);
    let told = told(config, &name);
    if let Some(remembered) = told.as_ref().and_then(|told| report_of_told(told, wants_all)) {
        return Look::Done(remembered.of_now(started));
    }
    let Some(memory) = read_memory(config, &name, told) else { return Look::ToDo(None) };
    let Memory { snapshot, changes, checked } = &memory;
    let record = snapshot
        .requests()
        .last()
        .filter(|record| record.complete && changes.is_empty() && snapshot.is_current());
    let remembered = record.and_then(|record| report_of(request, &memory, record, wants_all));
    let Some(remembered) = remembered else { return Look::ToDo(Some(memory)) };
    if *checked && let Err(error) = snapshot.settle() {
        tracing::debug!(%error, "racy files will be read again");
    }
    Look::Done(remembered.of_now(started))
}

impl Remembered {
    /// The same as the report of a build that began at `started` and ends now.
    fn of_now(mut self, started: Instant) -> Self {
        self.summary.invocation_id = uuid::Uuid::now_v7().to_string();
        self.summary.wall_ms = millis(started);
        self
    }
}

/// Reports a request that has nothing left to do.
pub fn report_done(
    global: &Global,
    config: &Config,
    request: &Request,
    remembered: &Remembered,
) -> Result<ExitCode> {
    let Remembered { summary, tests, targets, parts: _ } = remembered;
    tell_up_to_date(config, request, summary, tests)?;
    if let Some(flags) = &request.tests {
        write_merged(flags, &config.workspace, tests)?;
    }
    print_summary(global.output, summary, *targets, request, true)?;
    Ok(ExitCode::SUCCESS)
}

/// What is on disk now that the workspace is locked: another build may have come first, while this
/// one waited.
pub fn latest_memory(
    config: &Config,
    request: &Request,
    state_dir: &std::path::Path,
    memory: Option<Memory>,
) -> Option<Memory> {
    match memory {
        Some(memory) if memory.snapshot.is_latest() => Some(memory),
        _ => {
            let options = keyed_options(config, request);
            let name = snapshot_name(state_dir, &options);
            let told = told(config, &name);
            read_memory(config, &name, told)
        }
    }
}

/// What the daemon says, where one is asked and knows.
fn told(config: &Config, name: &SnapshotName<'_>) -> Option<Told> {
    let daemon = Daemon::new(config, name.state_dir, name.maestro_build);
    let told = config.daemon.then(|| daemon.ask(name.options)).flatten()?;
    (name.identity().as_ref() == Some(&told.head)).then_some(told)
}

/// Reads a snapshot, and looks for changes where the daemon did not; none where there is none that
/// can be used.
fn read_memory(config: &Config, name: &SnapshotName<'_>, told: Option<Told>) -> Option<Memory> {
    let snapshot = Snapshot::open(name).ok().flatten()?;
    let told = told.filter(|told| told.head == *snapshot.identity());
    let checked = told.is_none();
    let env = |name: &str| crate::config::non_empty(name);
    let changes = match told {
        Some(told) => told.changes,
        None => snapshot.check(&config.workspace, &env, &|_| None).ok()?,
    };
    Some(Memory { snapshot: Arc::new(snapshot), changes, checked })
}

/// What a request reports that is done, as the daemon says; `None` where it is not, or where
/// somebody wants to read more targets than were noted.
fn report_of_told(told: &Told, wants_all: bool) -> Option<Remembered> {
    let remembered: Remembered = serde_json::from_str(told.done.as_ref()?).ok()?;
    let is_cut = remembered.summary.targets.len() < remembered.targets;
    (!wants_all || !is_cut).then_some(remembered)
}

/// What a complete request reports; where it has more targets than were noted, and somebody wants
/// to read all of them, they are looked up in the graph.
fn report_of(
    request: &Request,
    memory: &Memory,
    record: &RequestRecord,
    wants_all: bool,
) -> Option<Remembered> {
    let mut remembered: Remembered = serde_json::from_str(&record.payload).ok()?;
    if wants_all && remembered.summary.targets.len() < remembered.targets {
        remembered.summary.targets = crate::increment::all_targets(request, memory, record)?;
    }
    Some(remembered)
}

/// The events of a build that had nothing to do.
fn tell_up_to_date(
    config: &Config,
    request: &Request,
    summary: &Summary,
    tests: &[TestVerdict],
) -> Result<()> {
    let BuildOptions { events, trace, .. } = &request.options;
    if events.is_none() && trace.is_none() && tests.is_empty() {
        return Ok(());
    }
    let console = Console::new(false, config.no_color);
    let sinks = Fanout::start(console, events.as_deref(), trace.as_deref())?;
    sinks.emit(Event::InvocationStarted {
        invocation_id: summary.invocation_id.clone(),
        command: request.command.to_owned(),
        patterns: request.patterns.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unix_ms: unix_ms(),
    });
    if let Some(flags) = &request.tests {
        show_logs(flags, &config.workspace, tests, &sinks);
    }
    for test in tests {
        test.events(true).into_iter().for_each(|event| sinks.emit(event));
    }
    sinks.emit(Event::InvocationFinished {
        success: true,
        exit_code: 0,
        actions: summary.actions,
        critical_path_ms: 0,
        wall_ms: summary.wall_ms,
    });
    for problem in sinks.finish() {
        eprintln!("warning: {problem}");
    }
    Ok(())
}

/// All that can change what a request means or makes; requests that differ have snapshots of their
/// own.
pub fn keyed_options(config: &Config, request: &Request) -> Vec<String> {
    let options = &request.options;
    let ConfigurationOptions { params, platform, profiles, aspects } = &options.configuration;
    let own = [
        request.command.to_owned(),
        format!("sandbox={:?}", options.sandbox),
        format!("locked={}", options.locked || config.ci),
        format!("package={}", config.package),
        format!("params={params:?}"),
        format!("platform={platform:?}"),
        format!("profiles={profiles:?}"),
        format!("aspects={aspects:?}"),
        format!("host={:?}", host_machine()),
        format!("overrides={:?}", config.overrides),
        format!("digests={}", config.digest_function().name()),
    ];
    let own = own.into_iter().chain([format!("output-groups={:?}", request.output_groups)]);
    let own = own.chain(request.tests.iter().flat_map(TestFlags::keyed));
    own.chain(request.further.iter().cloned()).chain(request.patterns.iter().cloned()).collect()
}

/// The snapshot of a request.
pub fn snapshot_name<'a>(
    state_dir: &'a std::path::Path,
    options: &'a [String],
) -> SnapshotName<'a> {
    SnapshotName { state_dir, options, maestro_build: maestro_build() }
}

/// Tells this build of Maestro from any other by the signature of its own file.
pub fn maestro_build() -> &'static str {
    static BUILD: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BUILD.get_or_init(|| {
        let metadata = std::env::current_exe().and_then(std::fs::metadata);
        let signature = metadata.map(|m| format!("{:?}", StatSignature::of(&m)));
        format!("{} {}", env!("CARGO_PKG_VERSION"), signature.unwrap_or_default())
    })
}
