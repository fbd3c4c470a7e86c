//! The build that has nothing to do: what is remembered for it, and how it is recognised.
//!
//! A null build evaluates nothing, hashes no file that is not racy, opens no database, takes no
//! lock and writes nothing but the events that the user asked for.

use std::time::Instant;

use anyhow::Result;
use maestro_cas::StatSignature;
use maestro_core::Node;
use maestro_core::event::{ActionCounts, Event, EventSink};
use maestro_executor::engine::Report;
use maestro_executor::engine::outputs::WrittenFile;
use maestro_executor::records::FoundIn;
use maestro_executor::workspace;
use maestro_executor::workspace::snapshot::{
    Snapshot, SnapshotContent, SnapshotOutput, SnapshotRequest, SnapshotToolchain, write_snapshot,
};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

use crate::args::{BuildOptions, ConfigurationOptions, Global};
use crate::config::Config;
use crate::console::Console;
use crate::invocation::{Invocation, Request, millis, observe, print_summary, unix_ms};
use crate::profiles::host_machine;
use crate::report::Summary;
use crate::sinks::Fanout;
use crate::verdicts::TestVerdict;

/// What a snapshot remembers for the report of a null build.
#[derive(Serialize, Deserialize)]
struct Remembered {
    summary: Summary,
    tests: Vec<TestVerdict>,
}

/// Reports a request that is done already, without evaluating anything. Nothing is hashed or
/// written but for files that were edited just before the build: those are hashed until they are
/// old, and the snapshot then is written once without their marks.
pub fn up_to_date(global: &Global, config: &Config, request: &Request) -> Result<Option<ExitCode>> {
    let started = Instant::now();
    let Ok(state_dir) = workspace::state_dir(&config.cache, &config.workspace) else {
        return Ok(None); // the build will say what is wrong
    };
    let options = keyed_options(config, request);
    let path = snapshot_request(request, &options).path(&state_dir);
    let Ok(Some(snapshot)) = Snapshot::open(&path) else { return Ok(None) };
    let env = |name: &str| crate::config::non_empty(name);
    if snapshot.check(&config.workspace, &env, &|_| None).is_err() {
        return Ok(None);
    }
    let Ok(remembered) = serde_json::from_str::<Remembered>(snapshot.payload()) else {
        return Ok(None);
    };
    if let Err(error) = snapshot.settle(&path) {
        tracing::debug!(%error, "racy files will be read again");
    }
    let Remembered { mut summary, tests } = remembered;
    summary.invocation_id = uuid::Uuid::now_v7().to_string();
    summary.wall_ms = millis(started);
    tell_up_to_date(config, request, &summary, &tests)?;
    print_summary(global.output, &summary, request, true)?;
    Ok(Some(ExitCode::SUCCESS))
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
    for test in tests {
        sinks.emit(test.event(true));
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

/// Writes the snapshot of a request that is done.
pub fn remember(
    invocation: &Invocation,
    summary: &Summary,
    tests: &[TestVerdict],
    files: &[Vec<WrittenFile>],
    report: &Report,
) -> Result<()> {
    for file in invocation.records.files_read() {
        observe(&invocation.host, &file)?;
    }
    let mut facts = invocation.host.take_observations();
    facts.extend(invocation.sources.facts());
    // What the next, unchanged build will say: everything is known without asking.
    let mut summary = summary.clone();
    let ActionCounts { total, locked, .. } = summary.actions;
    let cached = total - locked;
    summary.actions = ActionCounts { total, cached, locked, ..ActionCounts::default() };
    summary.cost_usd_micros = 0;
    summary.critical_path_ms = 0;
    let stale = report
        .finished
        .iter()
        .filter_map(|f| f.record.as_ref())
        .any(|r| r.found_in != FoundIn::Lock);
    if stale {
        return Ok(()); // what did not come from the lock is asked for again next time
    }
    let payload = serde_json::to_string(&Remembered { summary, tests: tests.to_vec() })?;
    let outputs = files.iter().flatten().map(|file| SnapshotOutput {
        path: file.path.clone(),
        node: Node::File { digest: file.digest, executable: file.executable },
    });
    let toolchains = invocation.toolchains.used().into_iter();
    let content = SnapshotContent {
        facts,
        env: Vec::new(),
        params: Vec::new(),
        toolchains: toolchains.map(|(list, root)| SnapshotToolchain { list, root }).collect(),
        outputs: outputs.collect(),
        payload,
    };
    let options = keyed_options(&invocation.config, &invocation.request);
    let request = snapshot_request(&invocation.request, &options);
    write_snapshot(&request, invocation.state_dir(), &invocation.config.workspace, content)?;
    Ok(())
}

/// Options that can change what a request means or makes.
fn keyed_options(config: &Config, request: &Request) -> Vec<String> {
    let options = &request.options;
    let ConfigurationOptions { params, platform, profiles } = &options.configuration;
    let own = [
        format!("sandbox={:?}", options.sandbox),
        format!("locked={}", options.locked || config.ci),
        format!("package={}", config.package),
        format!("params={params:?}"),
        format!("platform={platform:?}"),
        format!("profiles={profiles:?}"),
        format!("host={:?}", host_machine()),
    ];
    own.into_iter().chain(request.further.iter().cloned()).collect()
}

fn snapshot_request<'a>(request: &'a Request, options: &'a [String]) -> SnapshotRequest<'a> {
    SnapshotRequest {
        command: request.command,
        patterns: &request.patterns,
        options,
        maestro_build: maestro_build(),
    }
}

/// Tells this build of Maestro from any other by the signature of its own file.
fn maestro_build() -> &'static str {
    static BUILD: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BUILD.get_or_init(|| {
        let metadata = std::env::current_exe().and_then(std::fs::metadata);
        let signature = metadata.map(|m| format!("{:?}", StatSignature::of(&m)));
        format!("{} {}", env!("CARGO_PKG_VERSION"), signature.unwrap_or_default())
    })
}
