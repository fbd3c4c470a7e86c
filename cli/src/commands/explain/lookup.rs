//! What a build of some targets would find in the cache, and what it would have to run. Nothing
//! runs, and the workspace is left as it is.

use anyhow::Result;
use maestro_core::event::{Event, EventSink};
use maestro_core::{ArtifactId, graph::TargetId};
use maestro_executor::engine::Engine;
use maestro_executor::workspace::build_log::ActionRecord;

use crate::args::{
    BuildOptions, ConfigurationOptions, Global, RemoteFlags, SandboxChoice, StaleRecords,
};
use crate::exit::{Failure, chain};
use crate::invocation::{Invocation, Request};
use crate::memory::action_record;

/// What was looked up.
pub struct LookedUp {
    /// The actions whose keys can be known: their results are in the cache, or they would run.
    pub records: Vec<ActionRecord>,
    /// How many actions wait for those that would run.
    pub waiting: u32,
}

/// Looks up all that the targets need.
pub fn look_up(global: &Global, patterns: &[String]) -> Result<LookedUp> {
    let options = BuildOptions {
        configuration: ConfigurationOptions::default(),
        jobs: None,
        keep_going: true,
        locked: false,
        sandbox: SandboxChoice::Hermetic,
        stale_records: StaleRecords::Deny,
        offline: true,
        events: None,
        trace: None,
        remote: RemoteFlags::default(),
    };
    let request = Request {
        command: "explain",
        patterns: patterns.to_vec(),
        options,
        tests: None,
        output_groups: Vec::new(),
        further: Vec::new(),
    };
    let invocation = Invocation::start(global, request)?;
    let loaded = invocation.load(patterns)?;
    let graph = &loaded.graph;
    let files = |id: &TargetId| graph.target(*id).files.clone();
    let requested: Vec<ArtifactId> = loaded.requested.iter().flat_map(files).collect();
    let plan = graph.plan(&requested).map_err(|e| Failure::input(e.to_string()))?;
    let mut engine = Engine { events: &Nobody, ..invocation.engine(graph, &[], None) };
    engine.options.lookup_only = true;
    let mut report = engine.build(&plan, &requested);
    let other = report.failed.iter().find(|failed| failed.unmade().is_none());
    if let Some(failed) = other {
        let label = &graph.target(graph.action(failed.action).owner).label;
        let message = format!("`{label}`: {}", chain(&failed.error));
        return Err(Failure::new(failed.error.kind(), message).hints(failed.error.hints()).into());
    }
    let unmade: Vec<_> = report.failed.iter().filter_map(|failed| failed.unmade()).collect();
    report.finished.extend(unmade);
    let finished = report.finished.iter_mut();
    let records = finished.filter_map(|finished| action_record(&invocation, graph, finished));
    Ok(LookedUp { records: records.collect(), waiting: report.counts.skipped })
}

/// Takes events of actions that are not run.
struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _event: Event) {}
}
