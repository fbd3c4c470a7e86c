//! An evaluation that begins where an earlier one of the same request ended.
//!
//! 1. Packages whose files saw something that changed are evaluated, and their declarations are
//!    compared with what is remembered. What differs, and what uses a name that means something
//!    else now, is a *suspect*.
//! 2. The suspects are configured; every other target that they lead to is *kept*, and nobody
//!    looks at what it depends on.
//! 3. What is no longer needed leaves the graph.
//! 4. Suspects that are not as they were are analyzed, then whatever depends on a value that
//!    changed, lowest ranks first, until no value changes any more.
//!
//! Whatever is out of the ordinary ends this with `None`: an error in the build files, memory that
//! has lost something. The request is then evaluated anew, which gives the same errors as ever.
//! So errors need not be told from memory, and there is one way only in which they come about.

mod need;
mod suspects;

use std::collections::{BTreeSet, HashMap, HashSet};

use maestro_core::{ActionGraph, Label, TargetId, TargetPattern};

use self::need::Need;
use self::suspects::Suspects;
use crate::LoadOptions;
use crate::analysis::Analyzer;
use crate::config::ConfigId;
use crate::config::request::configure;
use crate::configured::{ConfiguredGraph, NodeId, NodeKind};
use crate::diagnostic::Diagnostic;
use crate::evaluation::{ByRank, asked, file_of, record, sort};
use crate::limits::EvaluationLimits;
use crate::load::packages::Packages;
use crate::memo::imprint::Imprint;
use crate::memo::request::RequestMemory;
use crate::memo::session::Session;
use crate::memo::summary::Summary;
use crate::memo::targets::{PackageKey, package_of};
use crate::memo::{self, Recall, Reevaluated, Remember, Remembered};
use crate::resolve::Universe;
use crate::scope::RuleScope;
use crate::{Loaded, Reloaded, split};

/// Something that the patterns name.
enum Wanted {
    /// It is as it was.
    Known(TargetId),
    /// It has to be looked at.
    Label(Box<Label>),
}

/// Evaluates a request again; `None` where that has to be done without memory of targets.
pub(crate) fn reevaluate<'a>(
    options: &LoadOptions<'a>,
    limits: EvaluationLimits,
    mut recall: Recall<'a>,
    graph: ActionGraph,
    remember: Remember,
) -> Option<Reloaded> {
    let request = recall.request.clone()?;
    if request.asked != asked(options) || request.target_count != graph.target_count() {
        return None;
    }
    recall.changed.paths()?;
    let mut past = std::mem::take(&mut recall.targets);
    past.index(request.target_count);
    past.remove(&request.gone);
    let scope = RuleScope::recall(graph, &past).ok()?;
    let packages = Packages::new(options.host, options.threads, limits).with_recall(Some(recall));
    let again = Again {
        options,
        universe: Universe::new(packages),
        session: Session::new(past, &request.gone),
        scope,
        request,
        dirty: HashSet::new(),
        warnings: HashMap::new(),
        files: Vec::new(),
    };
    again.run(remember)
}

/// An evaluation on its way.
struct Again<'o, 'a> {
    options: &'o LoadOptions<'a>,
    universe: Universe<'a>,
    session: Session<'a>,
    scope: RuleScope,
    request: RequestMemory,
    /// Packages that were evaluated, or would be if they were still there.
    dirty: HashSet<PackageKey>,
    /// What there is to say about the targets whose attributes were resolved.
    warnings: HashMap<Label, Vec<Diagnostic>>,
    /// Files that the patterns name.
    files: Vec<(Label, TargetId)>,
}

impl<'a> Again<'_, 'a> {
    fn run(mut self, remember: Remember) -> Option<Reloaded> {
        self.evaluate_dirty()?;
        let (wanted, same) = self.wanted()?;
        let suspects = self.suspects()?;
        let labels = wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Known(_) => None,
            Wanted::Label(label) => Some(&**label),
        });
        let is_main = |label: &&Label| self.session.past.find(label).is_some();
        let main = suspects.labels.iter().filter(is_main);
        let roots: BTreeSet<Label> = main.chain(labels).cloned().collect();
        let mut requested = Vec::new();
        if roots.is_empty() && same {
            requested.extend(wanted.iter().filter_map(|wanted| match wanted {
                Wanted::Known(id) => Some(*id),
                Wanted::Label(_) => None,
            }));
        } else {
            let configured = self.discover(&roots, &suspects.labels)?;
            let live = self.drop_unneeded(&configured, &wanted, same)?;
            self.analyze(&configured, live.as_ref(), |files, analyzer| {
                for wanted in &wanted {
                    let id = match wanted {
                        Wanted::Known(id) => Some(*id),
                        Wanted::Label(label) => {
                            let node = configured.requested(label)?;
                            if configured.is_incompatible(node) {
                                return None; // it would have to be skipped
                            }
                            let id = analyzer.requested(node)?;
                            if configured.is_file(node) {
                                files.push((Label::clone(label), id));
                            }
                            Some(id)
                        }
                    };
                    requested.extend(id);
                }
                Some(())
            })?;
            self.propagate()?;
        }
        self.finish(requested, remember)
    }

    /// Evaluates the packages that are not as they were.
    fn evaluate_dirty(&mut self) -> Option<()> {
        let keys: Vec<PackageKey> = self.session.past.entries.keys().cloned().collect();
        for key in keys {
            if !self.universe.packages.is_clean(&file_of(&key)?) {
                self.dirty.insert(key);
            }
        }
        self.load(self.dirty.iter().cloned().collect())
    }

    fn load(&mut self, packages: BTreeSet<PackageKey>) -> Option<()> {
        self.universe.load(packages).ok()?;
        self.has_no_error()
    }

    /// `None` where there is an error. Remarks are collected in the end, of what is needed then.
    fn has_no_error(&mut self) -> Option<()> {
        let (_, errors) = split(std::mem::take(&mut self.universe.diagnostics));
        errors.is_empty().then_some(())
    }

    /// The names of the targets of a package that patterns name, with what is known of them.
    fn listed(&self, key: &PackageKey) -> Vec<(Label, Option<TargetId>)> {
        let (repo, package) = key;
        let entry = self.session.past.entries.get(key).filter(|_| !self.dirty.contains(key));
        let label = |name: &str| {
            let (repo, package, name) = (repo.clone(), package.clone(), name.into());
            Label { repo, package, name }
        };
        if let Some(entry) = entry {
            let labels = entry.summary.listed.iter().map(|name| label(name));
            let id = |label: &Label| self.session.past.find(label).map(|row| row.id);
            return labels.map(|label| (label.clone(), id(&label))).collect();
        }
        let declared = self.universe.packages.get(repo, package).map(|own| Summary::of(own));
        let names = declared.iter().flat_map(|declared| &declared.listed);
        names.map(|name| (label(name), None)).collect()
    }

    /// What the patterns name, and whether it is what they named before.
    fn wanted(&mut self) -> Option<(Vec<Wanted>, bool)> {
        let mut folders = HashMap::new();
        for (_, pattern) in &self.options.patterns {
            if let TargetPattern::Recursive { repo, package } = pattern {
                if !repo.is_empty() {
                    return None;
                }
                folders.insert(package.clone(), self.universe.packages.below(repo, package).ok()?);
            }
        }
        let names = |key: &&PackageKey| {
            let before = self.session.past.entries.get(*key);
            let before = before.iter().flat_map(|entry| &entry.summary.listed);
            let now = self.listed(key);
            !before.map(|name| &**name).eq(now.iter().map(|(label, _)| &*label.name))
        };
        let same = self.universe.packages.walked() == self.request.folders
            && !self.dirty.iter().any(|key| names(&key));
        if same {
            let files: HashMap<TargetId, &Label> =
                self.request.files.iter().map(|(label, id)| (*id, label)).collect();
            let known = |id: &TargetId| match files.get(id) {
                Some(label) => Wanted::Label(Box::new((*label).clone())),
                None => Wanted::Known(*id),
            };
            return Some((self.request.requested.iter().map(known).collect(), true));
        }
        self.expand(&folders).map(|wanted| (wanted, false))
    }

    /// Expands the patterns with the packages that are found now.
    fn expand(&mut self, folders: &HashMap<String, Vec<String>>) -> Option<Vec<Wanted>> {
        let patterns = self.options.patterns.clone();
        let mut out: Vec<(Label, Option<TargetId>)> = Vec::new();
        for (negative, pattern) in &patterns {
            if *negative {
                out.retain(|(label, _)| !pattern.matches(label));
                continue;
            }
            let keys: Vec<PackageKey> = match pattern {
                TargetPattern::Single(label) => {
                    if !out.iter().any(|(known, _)| known == label) {
                        out.push((label.clone(), None));
                    }
                    continue;
                }
                TargetPattern::Package { repo, package } => {
                    self.universe.packages.exists(repo, package).ok()?.then_some(())?;
                    vec![(repo.as_str().into(), package.as_str().into())]
                }
                TargetPattern::Recursive { repo, package } => {
                    let found = folders.get(package).filter(|found| !found.is_empty())?;
                    let key = |folder: &String| (repo.as_str().into(), folder.as_str().into());
                    found.iter().map(key).collect()
                }
            };
            let unknown = |key: &&PackageKey| !self.session.past.entries.contains_key(*key);
            let new = keys.iter().filter(unknown).cloned().collect();
            self.load(new)?;
            let known: HashSet<Label> = out.iter().map(|(label, _)| label.clone()).collect();
            let listed = keys.iter().flat_map(|key| self.listed(key));
            out.extend(listed.filter(|(label, _)| !known.contains(label)));
        }
        let wanted = out.into_iter().map(|(label, id)| match id {
            Some(id) => Wanted::Known(id),
            None => Wanted::Label(Box::new(label)),
        });
        Some(wanted.collect())
    }

    fn suspects(&mut self) -> Option<Suspects> {
        let Self { universe, session, scope, dirty, .. } = self;
        Suspects::find(universe, session, scope, dirty)
    }

    /// Configures labels; what is remembered and not among `suspects` is kept.
    fn discover(
        &mut self,
        roots: &BTreeSet<Label>,
        suspects: &HashSet<Label>,
    ) -> Option<ConfiguredGraph> {
        let Self { universe, session, .. } = self;
        let configured = configure(universe, &self.options.configuration).ok()?;
        let target = configured.target;
        let recall = |label: &Label, config: ConfigId| {
            if config != target || suspects.contains(label) {
                return None;
            }
            let row = session.past.find(label)?;
            row.value.is_some().then(|| row.reads.clone())
        };
        let roots: Vec<Label> = roots.iter().cloned().collect();
        let configured = ConfiguredGraph::discover(universe, configured, &roots, &[], &recall);
        self.has_no_error()?;
        if configured.has_aspects() {
            return None; // they look into what is kept
        }
        Some(configured)
    }

    /// Takes what nothing needs any more out of the graph. Returns what is left of what was
    /// configured, where that is not everything; nothing at all where targets form a circle.
    fn drop_unneeded(
        &mut self,
        configured: &ConfiguredGraph,
        wanted: &[Wanted],
        same: bool,
    ) -> Option<Option<HashSet<NodeId>>> {
        let mut need = Need::new(configured, &self.session.past);
        if need.differs() && need.has_cycle() {
            return None;
        }
        if same && !need.differs() {
            return Some(None);
        }
        for wanted in wanted {
            match wanted {
                Wanted::Known(id) => need.target(*id),
                Wanted::Label(label) => need.label(label),
            }
        }
        let (nodes, dead) = need.finish();
        for id in &dead {
            self.session.retire(*id, &self.scope);
        }
        self.session.gone.extend(&dead);
        self.session.past.remove(&dead);
        Some(Some(nodes))
    }

    /// Analyzes what was configured, but for what is not needed.
    fn analyze(
        &mut self,
        configured: &ConfiguredGraph,
        live: Option<&HashSet<NodeId>>,
        then: impl FnOnce(&mut Vec<(Label, TargetId)>, &Analyzer<'_, 'a>) -> Option<()>,
    ) -> Option<()> {
        for id in configured.order() {
            let node = configured.node(*id);
            let is_live = live.is_none_or(|live| live.contains(id));
            if matches!(node.kind, NodeKind::Rule(_)) && !node.remembered && is_live {
                self.warnings.insert(node.label.clone(), configured.warnings(*id).to_vec());
            }
        }
        let session = std::mem::take(&mut self.session);
        let scope = std::mem::take(&mut self.scope);
        let mut analyzer = Analyzer::new(&self.universe, configured, scope, Some(session));
        analyzer.analyze(live);
        if analyzer.lost {
            return None;
        }
        // What implementations printed stands in the notes of their targets.
        let (_, errors) = split(std::mem::take(&mut analyzer.diagnostics));
        if !errors.is_empty() {
            return None;
        }
        then(&mut self.files, &analyzer)?;
        let (scope, session) = analyzer.finish_all();
        self.scope = scope;
        self.session = session?;
        Some(())
    }

    /// Analyzes what depends on values that changed, until none changes any more.
    fn propagate(&mut self) -> Option<()> {
        let (mut changed, mut tick) = self.session.changed_since(0);
        let mut users: Option<HashMap<TargetId, Vec<TargetId>>> = None;
        let mut pending = ByRank::new();
        loop {
            if !changed.is_empty() {
                let users = users.get_or_insert_with(|| self.session.past.users());
                for id in &changed {
                    let known = users.get(id).into_iter().flatten().copied();
                    for user in known.chain(self.session.new_users(*id)) {
                        let behind = self.session.is_behind(user, &[*id]);
                        if behind && !self.session.gone.contains(&user) {
                            pending.entry(self.session.rank(user)).or_default().insert(user);
                        }
                    }
                }
            }
            let Some((_, ids)) = pending.pop_first() else { return Some(()) };
            let (labels, suspects) = self.ways_to(&ids)?;
            let configured = self.discover(&labels, &suspects)?;
            self.analyze(&configured, None, |_, _| Some(()))?;
            (changed, tick) = self.session.changed_since(tick);
        }
    }

    /// The labels to configure in order to get to targets, and those to look into on the way: what
    /// is built for something else is found by way of its users.
    fn ways_to(&self, ids: &BTreeSet<TargetId>) -> Option<(BTreeSet<Label>, HashSet<Label>)> {
        let past = &self.session.past;
        let is_elsewhere = |id: &TargetId| past.row(*id).is_some_and(|(_, row)| !row.main);
        let mut all: BTreeSet<TargetId> = ids.clone();
        if ids.iter().any(is_elsewhere) {
            let elsewhere = past.users_elsewhere(ids.iter().copied().collect());
            let uses = |deps: &[TargetId]| deps.iter().any(|dep| elsewhere.contains(dep));
            all.extend(past.rows().filter(|row| uses(&row.deps)).map(|row| row.id));
            all.extend(elsewhere.iter().copied());
        }
        let label = |id: &TargetId| self.session.label(*id);
        let suspects: Option<HashSet<Label>> = all.iter().map(label).collect();
        let main = all.iter().filter(|id| !is_elsewhere(id));
        let roots: Option<BTreeSet<Label>> = main.map(label).collect();
        Some((roots?, suspects?))
    }

    fn finish(mut self, mut requested: Vec<TargetId>, remember: Remember) -> Option<Reloaded> {
        let needed = self.needed_packages();
        let remarks = self.remarks(&needed)?;
        // Two names of one target are one target.
        let mut seen = vec![false; self.scope.graph.borrow().target_count()];
        let mut is_new = |id: &TargetId| {
            seen.get_mut(id.index()).is_some_and(|seen| !std::mem::replace(seen, true))
        };
        requested.retain(&mut is_new);
        let graph = std::mem::take(&mut self.scope).graph.into_inner();
        let mut request = RequestMemory {
            asked: self.request.asked,
            target_count: graph.target_count(),
            requested: requested.clone(),
            files: self.files,
            gone: self.session.gone.iter().copied().collect(),
            folders: self.universe.packages.walked(),
        };
        request.gone.sort_unstable();
        let delta = remember == Remember::Delta;
        let remembered = match remember {
            Remember::Nothing => Remembered::Nothing,
            Remember::Delta | Remember::Base => {
                let record = record(&self.universe, &self.session, request, &self.dirty, delta);
                memo::write(&self.universe.packages, Some(record), delta)
            }
        };
        // Rows were read up to here, and what makes no sense was passed over.
        if self.session.past.is_damaged() {
            return None;
        }
        let reevaluated = Reevaluated::of(&self.universe.packages, self.session.analyzed());
        let loaded = Loaded { graph, requested, packages: needed.len(), remarks };
        let former = self.session.former();
        Some(Reloaded { loaded, anew: false, former, reevaluated, remembered })
    }

    /// The packages that an evaluation without memory would have read.
    fn needed_packages(&self) -> HashSet<PackageKey> {
        let past = &self.session.past;
        let mut needed = HashSet::new();
        for (key, entry) in &past.entries {
            // Who reads what a package says about configurations is not known.
            if !entry.rows.ids().is_empty() || entry.summary.definitions != Imprint::of(&[]) {
                needed.insert(key.clone());
            }
            let is_kept = |id: &TargetId| !self.session.notes.contains_key(id);
            if entry.rows.sources().is_empty() || entry.rows.ids().iter().all(is_kept) {
                needed.extend(entry.rows.sources().iter().cloned());
                continue;
            }
            let kept = entry.rows.get().iter().filter(|row| is_kept(&row.id));
            needed.extend(kept.flat_map(|row| row.sources.iter().cloned()));
        }
        for note in self.session.notes.values() {
            needed.insert(package_of(&note.label));
            needed.extend(note.sources.iter().cloned());
        }
        needed.extend(self.files.iter().map(|(label, _)| package_of(label)));
        for (negative, pattern) in &self.options.patterns {
            match pattern {
                _ if *negative => {}
                TargetPattern::Single(label) => drop(needed.insert(package_of(label))),
                TargetPattern::Package { repo, package } => {
                    needed.insert((repo.as_str().into(), package.as_str().into()));
                }
                TargetPattern::Recursive { repo, package } => {
                    let found = self.universe.packages.below(repo, package).unwrap_or_default();
                    let key = |folder: &String| (repo.as_str().into(), folder.as_str().into());
                    needed.extend(found.iter().map(key));
                }
            }
        }
        needed.retain(|key| !self.is_missing(key));
        needed
    }

    /// Everything that there is to say, whether it was found out now or before.
    fn remarks(&self, packages: &HashSet<PackageKey>) -> Option<Vec<Diagnostic>> {
        let past = &self.session.past;
        let mut remarks = self.universe.packages.remarks_of(packages.iter().filter_map(file_of));
        remarks.extend(self.warnings.values().flatten().cloned());
        for row in past.rows_with_remarks() {
            let body = row.body().ok()?;
            if !self.session.notes.contains_key(&row.id) {
                remarks.extend(body.prints);
            }
            if !self.warnings.contains_key(&past.label(row.id)?) {
                remarks.extend(body.warnings);
            }
        }
        let prints = self.session.notes.values().filter(|note| note.has_remarks);
        remarks.extend(prints.flat_map(|note| note.prints.iter().cloned()));
        sort(&mut remarks);
        Some(remarks)
    }

    /// Whether a package is not there any more.
    fn is_missing(&self, key: &PackageKey) -> bool {
        self.dirty.contains(key) && self.universe.packages.get(&key.0, &key.1).is_none()
    }
}
