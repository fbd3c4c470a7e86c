//! What a build begins with and what it leaves: the graph, and how much of an earlier build holds.
//!
//! Where a snapshot of the same request can be used, only what was changed is looked at: edited
//! sources make actions dirty; build files are evaluated again only if something that they saw was
//! changed. Where it cannot, everything is evaluated, and every action is looked up by its key.
//! Both ways lead to the same outputs; the second is always open.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use maestro_core::graph::{ActionSet, Plan};
use maestro_core::host::Host;
use maestro_core::{
    ActionClass, ActionGraph, ActionId, ArtifactId, Label, Node, Origin, RelPath, Target, TargetId,
};
use maestro_executor::engine::Report;
use maestro_executor::engine::before::Before;
use maestro_executor::engine::outputs::WrittenFile;
use maestro_executor::records::{CONTENT_DIR, FoundIn, LOCK_FILE};
use maestro_executor::workspace::facts::Fact;
use maestro_executor::workspace::host::WorkspaceHost;
use maestro_executor::workspace::snapshot::{
    self, Changes, EvaluationBytes, Left, RequestRecord, Results, SnapshotToolchain,
};
use maestro_rules::Remember;

use crate::config::PROJECT_FILE;
use crate::daemon::client::Daemon;
use crate::invocation::{Invocation, Request, Wanted};
use crate::null_build::{Memory, Remembered, keyed_options, maestro_build, snapshot_name};
use crate::output_groups::OutputGroups;
use crate::report::{OutputSummary, Summary, TARGETS_SHOWN, TargetSummary};
use crate::verdicts::TestVerdict;

/// What a build works on.
#[derive(Debug)]
pub struct Work {
    /// Actions, artifacts and targets.
    pub graph: ActionGraph,
    /// What the patterns name.
    pub requested: Vec<TargetId>,
    /// How much of an earlier build holds; `None` where nothing is known to.
    pub known: Option<Known>,
    /// What the evaluation leaves for the next one.
    pub evaluation: EvaluationBytes,
}

/// What holds of an earlier build.
#[derive(Debug)]
pub struct Known {
    /// Its results.
    pub results: Results,
    /// Actions that must be looked at.
    pub dirty: ActionSet,
    /// Those among them without any result that could hold.
    pub redo: ActionSet,
    /// Sources with other content.
    pub edited: HashSet<ArtifactId>,
    /// The request as it stood.
    pub record: RequestRecord,
    /// How many actions of the graph `dirty` speaks of; those from here on are new.
    pub judged: usize,
    /// The targets that are not what they were, as they were; `None` where these are not known.
    pub former: Option<Vec<(TargetId, Target)>>,
}

impl Work {
    /// Work of which nothing is known.
    pub fn whole(loaded: maestro_rules::Loaded) -> Self {
        Self {
            graph: loaded.graph,
            requested: loaded.requested,
            known: None,
            evaluation: EvaluationBytes::default(),
        }
    }
}

impl Known {
    /// What the last build of the same request left for reports.
    pub fn remembered(&self) -> Option<Remembered> {
        serde_json::from_str(&self.record.payload).ok()
    }

    /// The verdicts of tests as they stood.
    pub fn verdicts(&self) -> HashMap<Label, TestVerdict> {
        let tests = self.remembered().map(|remembered| remembered.tests).unwrap_or_default();
        tests.into_iter().map(|verdict| (verdict.label.clone(), verdict)).collect()
    }

    /// Takes in actions that were added since: they have no result that could hold.
    pub fn expect_added(&mut self, graph: &ActionGraph) {
        let added = (self.judged..graph.action_count()).map(ActionId::from_index);
        let added: Vec<ActionId> = added.collect();
        self.redo.extend(added.iter().copied());
        self.dirty.extend(graph.affected(&[], &added).iter());
        self.judged = graph.action_count();
    }

    /// The same for the engine.
    pub fn before(&self) -> Before<'_> {
        Before {
            results: &self.results,
            dirty: self.dirty.clone(),
            redo: self.redo.clone(),
            edited: self.edited.clone(),
        }
    }
}

impl Invocation {
    /// Finds out what there is to do.
    pub fn work(&self) -> Result<Work> {
        if let Some(work) = self.known_work()? {
            return Ok(work);
        }
        let reloaded = self.reload(&self.request.patterns, None, Remember::Base)?;
        let evaluation = self.keep_evaluation(reloaded.remembered)?;
        crate::allocator::give_back();
        Ok(Work { evaluation, ..Work::whole(reloaded.loaded) })
    }

    /// Whether a changed path makes other content of a repository: a file of a folder beside the
    /// workspace, or an archive in it. Neither is a source of the graph by that path.
    fn is_of_repository(&self, path: &str) -> bool {
        let specs = &self.config.project.repos;
        path.starts_with('/')
            || specs.values().any(|spec| spec.archive_file().as_deref() == Some(path))
    }

    /// What is left of an earlier build, or `None` where nothing can be built upon.
    fn known_work(&self) -> Result<Option<Work>> {
        let Some(Memory { snapshot, changes, checked: _ }) = &self.memory else { return Ok(None) };
        let Changes { sources, evaluation, outputs: _, toolchains, values } = changes;
        let usable = snapshot.is_current() && toolchains.is_empty() && values.is_empty();
        let record = snapshot.requests().last().filter(|_| usable);
        let Some((record, opened)) = record.zip(snapshot.open_graph().ok().flatten()) else {
            return Ok(None);
        };
        let (lock, evaluation): (Vec<&String>, Vec<&String>) =
            evaluation.iter().partition(|path| is_lock(path));
        let (graph, results) = opened;
        let seen_by_rules = |path: &&String| *path == PROJECT_FILE || self.is_of_repository(path);
        let elsewhere = sources.iter().any(|path| self.is_of_repository(path));
        if elsewhere || evaluation.iter().any(seen_by_rules) || is_mostly_retired(&graph) {
            return Ok(None);
        }
        let known_actions = graph.action_count();
        let mut redo: ActionSet = snapshot.pending().iter().copied().collect();
        if !lock.is_empty() {
            redo.extend(snapshot.recorded().iter().copied());
        }
        let mut requested = record.targets.clone();
        let mut bytes = EvaluationBytes::default();
        let mut former = Some(Vec::new());
        let mut graph = graph;
        if !evaluation.is_empty() {
            let Some(evaluated) = self.evaluate_changes(snapshot, &evaluation, graph)? else {
                return Ok(None);
            };
            (former, bytes) = (evaluated.former, evaluated.bytes);
            (graph, requested) = (evaluated.loaded.graph, evaluated.loaded.requested);
            redo.extend((known_actions..graph.action_count()).map(ActionId::from_index));
        }
        let paths: Vec<&String> = sources.iter().chain(evaluation).collect();
        let edited = self.edited(&graph, &results, &paths);
        let edited_list: Vec<ArtifactId> = edited.iter().copied().collect();
        let redo_list: Vec<ActionId> = redo.iter().collect();
        let dirty = graph.affected(&edited_list, &redo_list);
        let judged = graph.action_count();
        let record = record.clone();
        let known = Known { results, dirty, redo, edited, record, judged, former };
        Ok(Some(Work { graph, requested, known: Some(known), evaluation: bytes }))
    }

    /// The sources whose content is another, or that cannot be read: the action that needs one of
    /// those says why.
    fn edited(
        &self,
        graph: &ActionGraph,
        results: &Results,
        paths: &[&String],
    ) -> HashSet<ArtifactId> {
        let paths = paths.iter().filter_map(|path| RelPath::new(path).ok());
        let is_source = |path: &RelPath| {
            let id = graph.artifact_at(path)?;
            matches!(graph.artifact(id).origin, Origin::Source).then_some(id)
        };
        let sources: Vec<(RelPath, ArtifactId)> =
            paths.filter_map(|path| is_source(&path).map(|id| (path, id))).collect();
        let paths: Vec<RelPath> = sources.iter().map(|(path, _)| path.clone()).collect();
        self.sources.prefetch(&paths, &self.store, self.config.jobs(self.request.options.jobs));
        let differs = |(path, id): &(RelPath, ArtifactId)| {
            self.sources.digest(path, &self.store).ok().is_none_or(|n| results.node(*id) != Some(n))
        };
        sources.iter().filter(|source| differs(source)).map(|(_, id)| *id).collect()
    }

    /// The artifacts of a plan's request that must be written: all, unless it is known how the
    /// others lie on disk.
    pub fn to_write(
        &self,
        graph: &ActionGraph,
        known: Option<&Known>,
        requested: &[ArtifactId],
        report: &Report,
    ) -> Vec<ArtifactId> {
        let (Some(known), Some(memory)) = (known, &self.memory) else { return requested.to_vec() };
        if !known.record.complete {
            return requested.to_vec();
        }
        let mut paths = memory.changes.outputs.iter().filter_map(|path| RelPath::new(path).ok());
        let mut out: Vec<ArtifactId> =
            paths.by_ref().filter_map(|path| artifact_around(graph, path)).collect();
        let changed = report
            .nodes
            .iter()
            .filter(|(id, node)| known.results.node(**id).as_ref() != Some(*node));
        out.extend(changed.map(|(id, _)| *id));
        let asked_before = &known.record.artifacts;
        let new = requested.iter().filter(|id| asked_before.binary_search(id).is_err());
        out.extend(new);
        out.retain(|id| requested.binary_search(id).is_ok());
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Writes what the next build begins with; what is not needed for that goes first.
    pub fn leave(&self, ended: Ended<'_>) -> Result<()> {
        let Ended { work, plan, report, targets, count, requested, .. } = ended;
        let Ended { summary, tests, files, log_bytes, .. } = ended;
        let evaluation = std::mem::take(&mut work.evaluation);
        let (work, graph) = (&*work, &work.graph);
        let (results, others_hold) = new_results(work, report);
        let pending = pending(work, &plan, report);
        let planned: ActionSet = plan.order.iter().copied().collect();
        drop(plan);
        let options = keyed_options(&self.config, &self.request);
        let mut parts = report.parts.clone();
        if let Some(known) = &work.known {
            parts.extend(known.unseen_parts(graph, report));
        }
        report.finished = Vec::new();
        let request = RequestRecord {
            name: options.clone(),
            // What is pending beside the plan is nothing that this request asks for.
            complete: report.success() && !pending.iter().any(|id| planned.contains(*id)),
            artifacts: requested.to_vec(),
            targets: targets.to_vec(),
            payload: payload(summary, count, tests, &parts)?,
        };
        let former = self.memory.as_ref().filter(|_| work.known.is_some());
        let nothing = Changes::default();
        let left = Left {
            graph,
            results: &results,
            facts: self.seen(files)?,
            changes: former.map_or(&nothing, |memory| &memory.changes),
            pending,
            recorded: former.map_or_else(
                || recorded_actions(graph),
                |memory| memory.snapshot.recorded().to_vec(),
            ),
            request,
            others_hold,
            evaluation,
            env: Vec::new(),
            params: Vec::new(),
            toolchains: self.toolchains_after(former),
            log_bytes,
        };
        let name = snapshot_name(self.state_dir(), &options);
        let former = former.map(|memory| &*memory.snapshot);
        snapshot::save(&name, former, left)?; // with the system's reason, and so with a hint
        if self.config.daemon {
            Daemon::new(&self.config, self.state_dir(), maestro_build()).prepare(&options);
        }
        Ok(())
    }

    /// What was seen on disk in this build, and what it wrote.
    fn seen(&self, written: Vec<WrittenFile>) -> Result<Vec<(String, Fact)>> {
        for file in self.records.files_read().into_iter().chain([PROJECT_FILE.to_owned()]) {
            observe(&self.host, &file)?;
        }
        let mut facts = self.host.take_observations();
        facts.extend(self.sources.facts());
        facts.extend(written.into_iter().map(WrittenFile::fact));
        Ok(facts)
    }

    /// The toolchains that what is built depends on.
    fn toolchains_after(&self, former: Option<&Memory>) -> Vec<SnapshotToolchain> {
        let mut toolchains: Vec<SnapshotToolchain> =
            former.map(|memory| memory.snapshot.toolchains().to_vec()).unwrap_or_default();
        for (list, root) in self.toolchains.used() {
            toolchains.retain(|other| other.list != list);
            toolchains.push(SnapshotToolchain { list, root });
        }
        toolchains
    }

    /// The files of a wanted target on disk: what was written now, and what lay there already.
    pub fn files_of(
        &self,
        graph: &ActionGraph,
        known: Option<&Known>,
        want: &Wanted,
        written: &HashMap<ArtifactId, Vec<WrittenFile>>,
    ) -> Vec<OutputSummary> {
        let mut files: Vec<OutputSummary> = Vec::new();
        for id in &want.artifacts {
            match (written.get(id), known) {
                (Some(list), _) => files.extend(
                    list.iter().map(|file| OutputSummary::new(file.path.clone(), &file.digest)),
                ),
                (None, Some(known)) => {
                    let Some(memory) = &self.memory else { continue };
                    files.extend(files_on_disk(graph, &known.results, memory, *id));
                }
                (None, None) => {}
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        files
    }
}

/// A build that has ended.
pub struct Ended<'a> {
    /// What it worked on; the memory of the evaluation is taken out of it.
    pub work: &'a mut Work,
    /// What it planned.
    pub plan: Plan,
    /// How that ended; what only the snapshot needs is taken out of it.
    pub report: &'a mut Report,
    /// What was asked for.
    pub targets: &'a [TargetId],
    /// How many of them are targets and not aspects.
    pub count: usize,
    /// The artifacts of that, sorted.
    pub requested: &'a [ArtifactId],
    /// What is reported.
    pub summary: &'a Summary,
    /// Verdicts of tests.
    pub tests: &'a [TestVerdict],
    /// What was written.
    pub files: Vec<WrittenFile>,
    /// How long the build log is now.
    pub log_bytes: u64,
}

/// Whether so much of a graph no longer counts that it is better made anew.
fn is_mostly_retired(graph: &ActionGraph) -> bool {
    let live = graph.live_actions().count();
    graph.action_count() - live > live
}

/// The results that are known after a build, and whether those from before it all still hold.
fn new_results(work: &Work, report: &mut Report) -> (Results, bool) {
    let nodes = std::mem::take(&mut report.nodes);
    let mut hold = work.known.is_some();
    let (mut results, nodes) = match &work.known {
        Some(known) => (known.results.clone(), nodes),
        None => (Results::of(nodes), HashMap::new()),
    };
    for (id, node) in &nodes {
        if results.node(*id).as_ref() != Some(node) {
            hold = false;
            results.set_node(*id, node);
        }
    }
    for done in &report.finished {
        if let Some(key) = &done.key {
            results.set_key(done.action, key.0.hash);
        }
    }
    (results, hold)
}

/// The actions that have no result that holds: they failed, were not tried, or used an answer that
/// is to be asked for again.
fn pending(work: &Work, plan: &Plan, report: &Report) -> Vec<ActionId> {
    let settled = report.finished.iter().filter(|finished| {
        finished.record.as_ref().is_none_or(|used| used.found_in == FoundIn::Lock)
    });
    let done: ActionSet = settled.map(|finished| finished.action).collect();
    let candidates: Vec<ActionId> = match &work.known {
        Some(known) => known.dirty.iter().collect(),
        None => plan.order.clone(),
    };
    candidates.into_iter().filter(|action| !done.contains(*action)).collect()
}

/// The actions whose results are recorded ones.
fn recorded_actions(graph: &ActionGraph) -> Vec<ActionId> {
    let recorded = |id: &ActionId| graph.action(*id).class == ActionClass::Recorded;
    graph.live_actions().filter(recorded).collect()
}

/// What the next, unchanged build will say: everything is known without asking.
fn payload(
    summary: &Summary,
    targets: usize,
    tests: &[TestVerdict],
    parts: &BTreeMap<ActionId, u32>,
) -> Result<String> {
    let mut summary = summary.clone();
    summary.actions = summary.actions.all_known();
    summary.cost_usd_micros = 0;
    summary.critical_path_ms = 0;
    if targets > TARGETS_SHOWN {
        summary.targets.clear();
    }
    let number = |id: &ActionId| u32::try_from(id.index()).unwrap_or(u32::MAX);
    let parts = parts.iter().map(|(id, count)| (number(id), *count)).collect();
    Ok(serde_json::to_string(&Remembered { summary, targets, tests: tests.to_vec(), parts })?)
}

/// The output that stands at a path or around it.
fn artifact_around(graph: &ActionGraph, path: RelPath) -> Option<ArtifactId> {
    let mut at = Some(path);
    while let Some(path) = at {
        if let Some(id) = graph.artifact_at(&path) {
            return Some(id);
        }
        at = path.parent();
    }
    None
}

/// The files of an output that lie on disk as they were written.
fn files_on_disk(
    graph: &ActionGraph,
    results: &Results,
    memory: &Memory,
    id: ArtifactId,
) -> Vec<OutputSummary> {
    if graph.producer(id).is_none() {
        return Vec::new();
    }
    let path = graph.artifact(id).path.as_str();
    match results.node(id) {
        Some(Node::File { digest, .. }) => vec![OutputSummary::new(path.to_owned(), &digest)],
        Some(Node::Tree { .. }) => {
            let below = memory.snapshot.contents_below(path);
            let each = below
                .into_iter()
                .map(|(path, content)| OutputSummary::new(path, &content.digest.into()));
            each.collect()
        }
        Some(Node::Symlink { .. }) | None => Vec::new(),
    }
}

/// Every target of a complete request with its files.
pub fn all_targets(
    request: &Request,
    memory: &Memory,
    record: &RequestRecord,
) -> Option<Vec<TargetSummary>> {
    let (mut graph, results) = memory.snapshot.open_graph().ok().flatten()?;
    let groups = OutputGroups::parse(&request.output_groups);
    let tests = request.tests.as_ref();
    let mut summary = |id: &TargetId| {
        let want = crate::commands::build::wanted(&mut graph, *id, tests, &groups).ok()?;
        let files = want.artifacts.iter();
        let mut outputs: Vec<OutputSummary> =
            files.flat_map(|id| files_on_disk(&graph, &results, memory, *id)).collect();
        outputs.sort_by(|a, b| a.path.cmp(&b.path));
        outputs.dedup_by(|a, b| a.path == b.path);
        Some(TargetSummary { label: want.label.to_string(), aspect: want.aspect, outputs })
    };
    record.targets.iter().map(&mut summary).collect()
}

/// Whether a path is part of the lock, which the records read and not the build files.
fn is_lock(path: &str) -> bool {
    path == LOCK_FILE || path.strip_prefix(CONTENT_DIR).is_some_and(|rest| rest.starts_with('/'))
}

/// Makes a file of the workspace a dependency of the snapshot.
pub fn observe(host: &WorkspaceHost, file: &str) -> Result<()> {
    let path = RelPath::new(file).context("the lock names odd files")?;
    Host::read(host, &path)?;
    Ok(())
}
