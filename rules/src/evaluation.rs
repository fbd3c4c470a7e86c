//! One evaluation of a request from its first file to the graph, without memory of targets.

use std::collections::{BTreeSet, HashMap, HashSet};

use maestro_core::{ActionGraph, Label, TargetId, TargetPattern};

use crate::analysis::Analyzer;
use crate::config::ConfigId;
use crate::config::request::{aspects, configure};
use crate::configured::ConfiguredGraph;
use crate::diagnostic::Diagnostic;
use crate::limits::EvaluationLimits;
use crate::load::packages::{Packages, package_file};
use crate::memo::codec::Writer;
use crate::memo::imprint::Imprint;
use crate::memo::request::RequestMemory;
use crate::memo::session::Session;
use crate::memo::summary::Summary;
use crate::memo::targets::{EntryDraft, Note, PackageKey, package_of};
use crate::memo::{self, Memory, Recall, Reevaluated, Remember, Remembered, TargetRecord};
use crate::resolve::Universe;
use crate::scope::RuleScope;
use crate::{LoadOptions, Loaded, Reloaded, recalled, split};

/// Evaluates a request, with the help of memory as far as it holds.
pub(crate) fn evaluate<'a>(
    options: &LoadOptions<'a>,
    limits: EvaluationLimits,
    memory: Option<Memory<'a>>,
    remember: Remember,
) -> Result<Reloaded, Vec<Diagnostic>> {
    let mut files = None;
    if let Some(mut memory) = memory {
        let graph = memory.graph.take();
        if let Some(graph) = graph
            && let Some(recall) = Recall::open(&memory)
            && let Some(reloaded) = recalled::reevaluate(options, limits, recall, graph, remember)
        {
            return Ok(reloaded);
        }
        files = Recall::open(&memory);
    }
    anew(options, limits, files, remember)
}

/// Evaluates a request with no memory of targets; that of files is used.
fn anew<'a>(
    options: &LoadOptions<'a>,
    limits: EvaluationLimits,
    recall: Option<Recall<'a>>,
    remember: Remember,
) -> Result<Reloaded, Vec<Diagnostic>> {
    let packages = Packages::new(options.host, options.threads, limits).with_recall(recall);
    let mut universe = Universe::new(packages);
    let labels = universe.expand(&options.patterns);
    let aspects = aspects(&mut universe, &options.configuration)?;
    let configured = configure(&mut universe, &options.configuration)?;
    let nobody = |_: &Label, _: ConfigId| None;
    let configured =
        ConfiguredGraph::discover(&mut universe, configured, &labels, &aspects, &nobody);
    let named = |label: &Label| {
        let mut patterns = options.patterns.iter().filter(|(negative, _)| !negative);
        patterns.any(|(_, pattern)| *pattern == TargetPattern::Single(label.clone()))
    };
    let (labels, skipped) = leave_out_incompatible(&configured, labels, named);
    // What was skipped would have to be said again by whoever does not look; and on which targets
    // an aspect is put shows only by looking at each on the way.
    let memorable = skipped.is_empty() && !configured.has_aspects();
    universe.diagnostics.extend(skipped);
    let (mut remarks, errors) = split(std::mem::take(&mut universe.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    let session = (remember != Remember::Nothing).then(Session::default);
    let scope = RuleScope::new(ActionGraph::default());
    let mut analyzer = Analyzer::new(&universe, &configured, scope, session);
    analyzer.analyze(None);
    let (requested, files) = requested(&configured, &analyzer, &labels);
    let (more, errors) = split(std::mem::take(&mut analyzer.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    let (scope, session) = analyzer.finish_all();
    // What follows takes room of its own.
    drop(configured);
    let graph = scope.graph.into_inner();
    remarks.extend(more);
    remarks.extend(universe.packages.recalled_remarks());
    sort(&mut remarks);
    let analyzed = session.as_ref().map(Session::analyzed).unwrap_or_default();
    let remembered = match &session {
        None => Remembered::Nothing,
        Some(session) => {
            let request = RequestMemory {
                asked: asked(options),
                target_count: graph.target_count(),
                requested: requested.clone(),
                files,
                gone: Vec::new(),
                folders: universe.packages.walked(),
            };
            let record = record(&universe, session, request, &HashSet::new(), false);
            memo::write(&universe.packages, memorable.then_some(record), false)
        }
    };
    Ok(Reloaded {
        anew: true,
        former: None,
        reevaluated: Reevaluated::of(&universe.packages, analyzed),
        loaded: Loaded { graph, requested, packages: universe.package_count(), remarks },
        remembered,
    })
}

/// The targets of labels, and which of them stand for files.
fn requested(
    configured: &ConfiguredGraph,
    analyzer: &Analyzer<'_, '_>,
    labels: &[Label],
) -> (Vec<TargetId>, Vec<(Label, TargetId)>) {
    let (mut requested, mut files) = (Vec::new(), Vec::new());
    // Two names of one target are one target.
    let mut seen = HashSet::new();
    for label in labels {
        let Some(node) = configured.requested(label) else { continue };
        let Some(id) = analyzer.requested(node) else { continue };
        let aspects = configured.asked_aspects(label);
        let aspects = aspects.into_iter().filter_map(|node| analyzer.requested(node));
        requested.extend([id].into_iter().chain(aspects).filter(|id| seen.insert(*id)));
        if configured.is_file(node) {
            files.push((label.clone(), id));
        }
    }
    (requested, files)
}

/// Leaves out what cannot be built for the target platform: with an error where it is asked for by
/// its name, with a remark where a pattern names it among others.
fn leave_out_incompatible(
    configured: &ConfiguredGraph,
    labels: Vec<Label>,
    named: impl Fn(&Label) -> bool,
) -> (Vec<Label>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut skipped = Vec::new();
    let kept = labels.into_iter().filter(|label| match configured.requested(label) {
        Some(node) if configured.is_incompatible(node) => {
            match named(label) {
                true => diagnostics.push(configured.incompatibility(node)),
                false => skipped.push(format!("`{label}`")),
            }
            false
        }
        _ => true,
    });
    let kept = kept.collect();
    if !skipped.is_empty() {
        const SHOWN: usize = 5;
        let more = match skipped.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        skipped.truncate(SHOWN);
        let message = format!("skipped, not for this platform: {}{more}", skipped.join(", "));
        diagnostics.push(Diagnostic::info(message, None));
    }
    (kept, diagnostics)
}

/// Puts remarks in an order that does not depend on what was remembered.
pub(crate) fn sort(remarks: &mut [Diagnostic]) {
    remarks.sort_by(|a, b| (&a.location, &a.message).cmp(&(&b.location, &b.message)));
}

/// What a request asks for.
pub(crate) fn asked(options: &LoadOptions<'_>) -> Imprint {
    let LoadOptions { host: _, patterns, configuration, threads: _ } = options;
    let mut writer = Writer::default();
    for (negative, pattern) in patterns {
        writer.flag(*negative);
        writer.text(&format!("{pattern:?}"));
    }
    writer.text(&format!("{configuration:?}"));
    Imprint::of(&writer.bytes)
}

/// What is to be remembered of targets; over a base, only packages that differ from it.
pub(crate) fn record<'a, 'm>(
    universe: &Universe<'_>,
    session: &'a Session<'m>,
    request: RequestMemory,
    dirty: &HashSet<PackageKey>,
    delta: bool,
) -> TargetRecord<'a, 'm> {
    let mut notes: HashMap<PackageKey, Vec<&Note>> = HashMap::new();
    for note in session.notes.values().filter(|note| !session.gone.contains(&note.id)) {
        notes.entry(package_of(&note.label)).or_default().push(note);
    }
    let mut keys: BTreeSet<PackageKey> = notes.keys().cloned().collect();
    keys.extend(universe.loaded().filter(|key| !session.past.entries.contains_key(key)).cloned());
    keys.extend(dirty.iter().cloned());
    let before = session.past.entries.iter();
    keys.extend(before.filter(|(_, e)| !delta || !e.is_in_base()).map(|(key, _)| key.clone()));
    let entries = keys.into_iter().filter_map(|key| {
        let before = session.past.entries.get(&key);
        let package = universe.packages.get(&key.0, &key.1);
        let summary =
            package.map(|own| Summary::of(own)).or_else(|| Some(before?.summary.clone()))?;
        Some(EntryDraft {
            summary,
            texts: session.texts.get(&key),
            notes: notes.remove(&key).unwrap_or_default(),
            gone: &session.gone,
            before,
            key,
        })
    });
    let entries = entries.collect();
    TargetRecord { request, entries }
}

/// The file of a package.
pub(crate) fn file_of((repo, package): &PackageKey) -> Option<Label> {
    package_file(repo, package)
}

/// Targets by the order in which they have to be looked at.
pub(crate) type ByRank = std::collections::BTreeMap<u32, BTreeSet<TargetId>>;
