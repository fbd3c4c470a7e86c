//! Everything that the builds of some targets download: steps `fetch` of their actions, and of the
//! repositories that their build files name.

use std::sync::PoisonError;

use anyhow::Result;
use maestro_core::{ActionGraph, ActionId, ArtifactId, Digest, How, Node};
use maestro_executor::engine::Report;
use maestro_fetch::KIND;

use crate::args::{BuildOptions, Global};
use crate::exit::{Failure, chain};
use crate::invocation::{Invocation, Request};
use crate::runners::Runners;

/// One file that is downloaded.
#[derive(Clone, Debug)]
pub struct Download {
    /// Who needs it: a label, or a repository as `@NAME`.
    pub user: String,
    /// What was asked of `fetch`.
    pub request: serde_json::Value,
    /// The file in the store.
    pub digest: Digest,
}

impl Download {
    /// Where it comes from.
    pub fn urls(&self) -> Vec<String> {
        let list = self.request.get("urls").and_then(serde_json::Value::as_array);
        let texts = list.into_iter().flatten().filter_map(serde_json::Value::as_str);
        texts.map(str::to_owned).collect()
    }
}

/// The fetch actions of a plan with their outputs.
pub fn fetches(graph: &ActionGraph, order: &[ActionId]) -> Vec<(ActionId, ArtifactId)> {
    let is_fetch = |id: &ActionId| match &graph.action(*id).how {
        How::Native { kind, .. } => kind == KIND,
        How::Command { .. } | How::Params { .. } | How::Map(_) => false,
    };
    let outputs = order.iter().filter(|id| is_fetch(id));
    outputs.filter_map(|id| Some((*id, graph.action(*id).outputs.first()?.artifact))).collect()
}

/// The downloads among fetch actions that a report has results of.
pub fn finished(
    graph: &ActionGraph,
    fetches: &[(ActionId, ArtifactId)],
    report: &Report,
    user: impl Fn(ActionId) -> String,
) -> Vec<Download> {
    let download = |(action, artifact): &(ActionId, ArtifactId)| {
        let How::Native { request, .. } = &graph.action(*action).how else { return None };
        let Some(Node::File { digest, .. }) = report.nodes.get(artifact) else { return None };
        Some(Download { user: user(*action), request: request.clone(), digest: *digest })
    };
    fetches.iter().filter_map(download).collect()
}

/// Makes every download that the patterns of a command need; all of the workspace without any.
pub fn downloads_of(
    global: &Global,
    command: &'static str,
    patterns: &[String],
    options: &BuildOptions,
) -> Result<(Invocation, Vec<Download>)> {
    let patterns = match patterns {
        [] => vec!["//...".to_owned()],
        given => given.to_vec(),
    };
    let options = BuildOptions { keep_going: true, ..options.clone() };
    let request = Request::plain(command, patterns.clone(), options);
    let invocation = Invocation::start(global, request)?;
    let found = downloads(&invocation, &patterns)?;
    Ok((invocation, found))
}

fn downloads(invocation: &Invocation, patterns: &[String]) -> Result<Vec<Download>> {
    let loaded = invocation.load(patterns)?;
    let graph = &loaded.graph;
    let mut requested: Vec<ArtifactId> = Vec::new();
    for id in &loaded.requested {
        let target = graph.target(*id);
        requested.extend(&target.files);
        if let Some(test) = &target.test {
            let outputs = test.actions.iter().flat_map(|id| graph.action(*id).outputs);
            requested.extend(outputs.map(|output| output.artifact));
        }
    }
    let plan = graph.plan(&requested).map_err(|e| Failure::input(e.to_string()))?;
    let fetches = fetches(graph, &plan.order);
    let artifacts: Vec<ArtifactId> = fetches.iter().map(|(_, artifact)| *artifact).collect();
    let report = invocation.make_in_store(graph, &artifacts)?;
    if let Some(first) = report.failed.first() {
        let label = &graph.target(graph.action(first.action).owner).label;
        let message = format!("cannot download for `{label}`: {}", chain(&first.error));
        return Err(Failure::new(first.error.kind(), message).hints(first.error.hints()).into());
    }
    if report.cancelled {
        return Err(Failure::new(maestro_core::FailureKind::Build, "cancelled").into());
    }
    let owner = |id: ActionId| graph.target(graph.action(id).owner).label.to_string();
    let mut all = finished(graph, &fetches, &report, owner);
    let repositories = invocation.repos.downloads.lock().unwrap_or_else(PoisonError::into_inner);
    all.extend(repositories.iter().cloned());
    Ok(all)
}

impl Invocation {
    /// Makes artifacts in the store, and writes none of them out.
    pub fn make_in_store(&self, graph: &ActionGraph, requested: &[ArtifactId]) -> Result<Report> {
        let plan = graph.plan(requested).map_err(|e| Failure::input(e.to_string()))?;
        let runners = Runners::new(self)?;
        let report = self.engine(graph, runners.list(), None).build(&plan, requested);
        self.finish_baselines();
        if self.store.was_written() {
            self.store.leave_epoch()?;
        }
        Ok(report)
    }
}
