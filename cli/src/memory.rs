//! What outlives a build: turns the engine's report into entries of the build log.

use std::path::Path;

use anyhow::Result;
use maestro_core::event::Outcome;
use maestro_core::graph::ActionGraph;
use maestro_core::{ActionId, ArtifactId, Digest, DigestFunction, Node};
use maestro_executor::engine::{FinishedAction, FinishedPart, Report};
use maestro_executor::records::{FoundIn, RecordUse};
use maestro_executor::workspace::build_log::{
    ActionRecord, BuildLog, BuildLogError, Entry, InvocationRecord, RecordRef, RecordedOutput,
    append_news,
};
use maestro_executor::workspace::snapshot::Results;

use crate::exit::{Failure, chain};
use crate::increment::Work;
use crate::invocation::{Invocation, unix_ms};

/// Opens the log of a workspace.
pub fn open_log(state_dir: &Path) -> Result<BuildLog> {
    Ok(BuildLog::open(state_dir).map_err(|e| Failure::new(e.kind(), chain(&e)))?)
}

/// Appends what a build did to the log: changed actions and the build itself. Returns the length
/// of the log. What only the log needs of a report is taken out of it.
pub fn remember(
    invocation: &Invocation,
    work: &Work,
    report: &mut Report,
    exit_code: u8,
) -> Result<u64> {
    let graph = &work.graph;
    let counts = report.counts;
    let has_parts = report.finished.iter().any(|finished| !finished.mapped.is_empty());
    let records = report.finished.iter_mut().flat_map(|finished| {
        let is_news = match &work.known {
            Some(known) => is_news(&known.results, finished),
            None => true,
        };
        let own = if is_news { action_record(invocation, graph, finished) } else { None };
        let (map, parts) = (finished.action, std::mem::take(&mut finished.mapped));
        let part = move |part| part_record(invocation, graph, map, part);
        parts.into_iter().filter_map(part).chain(own)
    });
    let last = Entry::Invocation(InvocationRecord {
        id: invocation.id().to_owned(),
        command: invocation.request.command.to_owned(),
        patterns: invocation.request.patterns.clone(),
        start_unix_ms: invocation.started_unix_ms(),
        end_unix_ms: unix_ms(),
        exit_code,
        counts,
    });
    let mut entries = records.map(Entry::Action).chain([last]);
    let fail = |e: BuildLogError| Failure::new(e.kind(), chain(&e));
    // What is news of a part, only the log knows.
    if let (Some(_), Some(memory), false) = (&work.known, &invocation.memory, has_parts) {
        let end = memory.snapshot.log_bytes();
        if let Some(bytes) =
            append_news(invocation.state_dir(), end, entries.by_ref()).map_err(fail)?
        {
            return Ok(bytes);
        }
    }
    let log = open_log(invocation.state_dir())?;
    Ok(log.append(entries).map_err(fail)?.bytes)
}

/// Whether something about an action is not as an earlier build knew it.
fn is_news(before: &Results, finished: &FinishedAction) -> bool {
    let Some(key) = &finished.key else { return false };
    let same = |(id, node): &(ArtifactId, Node)| before.node(*id).as_ref() == Some(node);
    before.key(finished.action) != Some(key.0.hash) || !finished.outputs.iter().all(same)
}

/// What the log keeps of an action; takes from it what only the log needs.
pub fn action_record(
    invocation: &Invocation,
    graph: &ActionGraph,
    finished: &mut FinishedAction,
) -> Option<ActionRecord> {
    let spec = graph.action(finished.action);
    let (key, parts) = (finished.key?, finished.parts.take()?.unpack());
    let first = spec.outputs.first()?;
    let outputs = finished.outputs.iter().map(|(id, node)| {
        let path = graph.artifact(*id).path.to_string();
        match node {
            Node::File { digest, executable } => {
                RecordedOutput { path, digest: *digest, tree: false, executable: *executable }
            }
            Node::Tree { root } => {
                RecordedOutput { path, digest: *root, tree: true, executable: false }
            }
            Node::Symlink { target } => RecordedOutput {
                path,
                digest: DigestFunction::Blake3.digest(target.as_bytes()),
                tree: false,
                executable: false,
            },
        }
    });
    Some(ActionRecord {
        identity: graph.artifact(first.artifact).path.to_string(),
        label: graph.target(spec.owner).label.clone(),
        mnemonic: spec.mnemonic.clone(),
        class: spec.class,
        key,
        parts,
        outputs: outputs.collect(),
        outcome: finished.outcome,
        invocation_id: invocation.id().to_owned(),
        start_unix_ms: invocation.started_unix_ms() + finished.start_ms,
        duration_ms: finished.end_ms.saturating_sub(finished.start_ms),
        cpu_ms: finished.cpu_ms,
        memory_bytes: finished.memory_bytes,
        cost_usd_micros: finished.cost_usd_micros,
        worker: worker(finished.outcome),
        record: finished.record.as_deref().and_then(record_ref),
    })
}

fn part_record(
    invocation: &Invocation,
    graph: &ActionGraph,
    map: ActionId,
    part: FinishedPart,
) -> Option<ActionRecord> {
    let spec = graph.action(map);
    let outputs = part.outputs.iter().map(|file| RecordedOutput {
        path: file.path.clone(),
        digest: file.digest,
        tree: false,
        executable: file.is_executable,
    });
    Some(ActionRecord {
        identity: part.outputs.first()?.path.clone(),
        label: graph.target(spec.owner).label.clone(),
        mnemonic: spec.mnemonic.clone(),
        class: spec.class,
        key: part.key,
        parts: part.key_parts.unpack(),
        outputs: outputs.collect(),
        outcome: part.outcome,
        invocation_id: invocation.id().to_owned(),
        start_unix_ms: invocation.started_unix_ms() + part.start_ms,
        duration_ms: part.end_ms.saturating_sub(part.start_ms),
        cpu_ms: part.cpu_ms,
        memory_bytes: part.memory_bytes,
        cost_usd_micros: 0,
        worker: worker(part.outcome),
        record: None,
    })
}

/// Who made a result in this build.
fn worker(outcome: Outcome) -> String {
    match outcome {
        Outcome::Executed => "local".to_owned(),
        _ => "cache".to_owned(),
    }
}

fn record_ref(used: &RecordUse) -> Option<RecordRef> {
    let record = &used.record;
    let hex = record.key.to_string();
    let hex = hex.strip_prefix("sha256:").unwrap_or(&hex);
    let key = Digest::from_hex(DigestFunction::Sha256, hex, record.content.size).ok()?;
    Some(RecordRef {
        key,
        subject: record.model.clone(),
        identity: Some(record.identity.clone()),
        attested: record.is_attested(),
        stale: used.found_in == FoundIn::Stale,
    })
}
