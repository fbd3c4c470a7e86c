//! The graph of a query, made of build files.
//!
//! Packages are loaded as patterns name them; the dependencies of a target only where the query
//! walks them, so that `//pkg:all` is answered even where a dependency is broken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use maestro_core::Label;

use super::EdgeFilter;
use super::graph::{Edges, NodeId, PackageFacts, TargetGraph, TargetNode, What};
use super::parse::{Expression, Function, Word};
use super::patterns::{self, members};
use super::set::NodeSet;
use crate::attr::AttrKind;
use crate::config::definitions::PackageKey;
use crate::configured::in_attribute;
use crate::diagnostic::Diagnostic;
use crate::error::RuleError;
use crate::load::packages::package_file;
use crate::package::TargetDecl;
use crate::resolve::{Universe, test_toolchain};

/// What has been loaded for a query so far.
pub(super) struct Source<'h> {
    universe: Universe<'h>,
    /// The package where relative patterns start.
    package: String,
    edges: EdgeFilter,
    wants: Wants,
    /// Everything that was named so far, in the order in which it was met.
    drafts: Vec<Draft>,
    ids: HashMap<Label, DraftId>,
    /// The dependencies of open nodes, each node's beside each other.
    ends: Vec<DraftId>,
    /// What each pattern names.
    named: BTreeMap<String, Vec<DraftId>>,
}

/// The place of a node before nodes are sorted.
type DraftId = usize;

/// A label that was named.
struct Draft {
    label: Label,
    /// What it is, once its package is loaded.
    what: Option<What>,
    /// Where its dependencies lie, once they are known.
    ends: Option<Range<usize>>,
}

/// Facts that only some functions ask for.
#[derive(Clone, Copy, Debug)]
struct Wants {
    /// The members of packages.
    members: bool,
    /// The files that declare packages, and those that they load.
    files: bool,
    /// Outputs that no other target names.
    outputs: bool,
}

/// A target and the position of its attribute that names a label.
type User = Option<(DraftId, usize)>;

impl<'h> Source<'h> {
    pub(super) fn new(
        universe: Universe<'h>,
        package: &str,
        edges: EdgeFilter,
        query: &Expression,
    ) -> Self {
        let calls = |function| query.calls(function);
        let wants = Wants {
            members: calls(Function::Siblings) || calls(Function::SamePackageDirectRdeps),
            files: calls(Function::BuildFiles) || calls(Function::LoadFiles),
            outputs: calls(Function::Labels),
        };
        Self {
            universe,
            package: package.to_owned(),
            edges,
            wants,
            drafts: Vec::new(),
            ids: HashMap::new(),
            ends: Vec::new(),
            named: BTreeMap::new(),
        }
    }

    /// Loads what a pattern names; with `walked`, all that it depends on as well.
    pub(super) fn name(&mut self, word: &Word, walked: bool) -> Result<(), RuleError> {
        if !self.named.contains_key(&word.text) {
            let found = patterns::expand(&mut self.universe, &self.package, &word.text, true)?;
            let ids = found.into_iter().map(|(label, what)| self.add(label, Some(what)));
            let ids = ids.collect();
            self.named.insert(word.text.clone(), ids);
        }
        if walked {
            let named = self.named.get(&word.text).cloned().unwrap_or_default();
            self.open_all(named);
        }
        Ok(())
    }

    /// Loads all that targets depend on; whether anything was to be done.
    pub(super) fn open(&mut self, labels: &[Label]) -> bool {
        let ids: Vec<DraftId> = labels.iter().filter_map(|l| self.ids.get(l).copied()).collect();
        let before = self.ends.len();
        let closed = ids.iter().any(|id| self.drafts.get(*id).is_some_and(|d| d.ends.is_none()));
        self.open_all(ids);
        closed || self.ends.len() > before
    }

    /// Takes the errors and remarks that were collected.
    pub(super) fn take_diagnostics(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.universe.diagnostics)
    }

    /// The id of a label; what it is becomes known once.
    fn add(&mut self, label: Label, what: Option<What>) -> DraftId {
        if let Some(id) = self.ids.get(&label) {
            if let Some(draft) = self.drafts.get_mut(*id)
                && draft.what.is_none()
            {
                draft.what = what;
            }
            return *id;
        }
        let id = self.drafts.len();
        self.ids.insert(label.clone(), id);
        self.drafts.push(Draft { label, what, ends: None });
        id
    }

    /// Finds the dependencies of nodes and of all below them; packages are loaded in batches.
    fn open_all(&mut self, ids: Vec<DraftId>) {
        let mut pending: Vec<(DraftId, User)> =
            ids.into_iter().rev().map(|id| (id, None)).collect();
        loop {
            let mut later = Vec::new();
            let mut missing: BTreeSet<PackageKey> = BTreeSet::new();
            while let Some((id, user)) = pending.pop() {
                let Some(Draft { label, what, ends }) = self.drafts.get(id) else { continue };
                if ends.is_some() {
                    continue;
                }
                if what.is_none() && !self.universe.is_loaded(label) {
                    missing.insert((label.repo.clone(), label.package.clone()));
                    later.push((id, user));
                    continue;
                }
                let resolved = match what {
                    Some(what) => Ok(Some(what.clone())),
                    None => patterns::resolve(&self.universe, label),
                };
                match resolved {
                    Ok(Some(what)) => self.open_one(id, what, &mut pending),
                    Ok(None) => {}
                    Err(error) => self.report(error, user),
                }
            }
            if later.is_empty() {
                return;
            }
            if let Err(error) = self.universe.load(missing) {
                self.universe.diagnostics.push(Diagnostic::of(error, None));
                return;
            }
            pending.extend(later.into_iter().rev());
        }
    }

    /// Notes the dependencies of a node; those that are not open are to be opened next.
    fn open_one(&mut self, id: DraftId, what: What, pending: &mut Vec<(DraftId, User)>) {
        let start = self.ends.len();
        match &what {
            What::Rule(decl) => {
                for (position, labels) in labels_of(decl, self.edges.implicit).enumerate() {
                    for label in labels {
                        let end = self.add(label.clone(), None);
                        self.ends.push(end);
                        pending.push((end, Some((id, position))));
                    }
                }
                if self.edges.implicit
                    && decl.rule.test
                    && let Some(label) = test_toolchain()
                {
                    let end = self.add(label, None);
                    self.ends.push(end);
                    pending.push((end, None));
                }
            }
            What::Output(decl) => {
                let end = self.add(decl.label.clone(), Some(What::Rule(decl.clone())));
                self.ends.push(end);
                pending.push((end, None));
            }
            What::Source(_) => {}
        }
        let ends = start..self.ends.len();
        if let Some(draft) = self.drafts.get_mut(id) {
            draft.what = Some(what);
            draft.ends = Some(ends);
        }
    }

    fn report(&mut self, error: RuleError, user: User) {
        let named = user.and_then(|(user, position)| {
            let What::Rule(decl) = self.drafts.get(user)?.what.as_ref()? else { return None };
            let (attribute, _) = decl.rule.attrs.get(position)?;
            Some((decl.clone(), attribute.clone()))
        });
        self.universe.diagnostics.push(match named {
            Some((decl, attribute)) => in_attribute(error, &decl, &attribute),
            None => Diagnostic::of(error, None),
        });
    }

    /// The graph of everything that is loaded, and what each pattern names in it.
    pub(super) fn graph(&mut self) -> (TargetGraph, HashMap<String, NodeSet>) {
        let packages = self.packages();
        let known = |draft: &&DraftId| self.drafts.get(**draft).is_some_and(|d| d.what.is_some());
        let mut order: Vec<DraftId> = (0..self.drafts.len()).collect();
        order.retain(|id| known(&id));
        let label = |id: &DraftId| self.drafts.get(*id).map(|draft| &draft.label);
        order.sort_unstable_by(|a, b| label(a).cmp(&label(b)));
        let mut places: Vec<Option<NodeId>> = vec![None; self.drafts.len()];
        for (index, id) in order.iter().enumerate() {
            if let Some(place) = places.get_mut(*id) {
                *place = Some(NodeId::from_index(index));
            }
        }
        let place = |id: &DraftId| places.get(*id).copied().flatten();
        let sorted = || order.iter().filter_map(|id| self.drafts.get(*id));
        let edges = Edges::new(sorted().map(|draft| {
            let ends = draft.ends.clone().and_then(|ends| self.ends.get(ends));
            let near = if ends.is_none() { self.near(draft) } else { Vec::new() };
            ends.unwrap_or_default().iter().copied().chain(near).filter_map(|id| place(&id))
        }));
        let nodes = sorted().filter_map(|draft| {
            let (label, what) = (draft.label.clone(), draft.what.clone()?);
            Some(TargetNode { label, what, open: draft.ends.is_some() })
        });
        let mut graph = TargetGraph::new(nodes.collect(), edges);
        let ids = |labels: Vec<DraftId>| labels.iter().filter_map(place).collect();
        graph.packages = packages
            .into_iter()
            .map(|(key, drafted)| {
                let facts = PackageFacts {
                    members: ids(drafted.members),
                    build_file: drafted.build_file.as_ref().and_then(place),
                    loads: ids(drafted.loads),
                };
                (key, facts)
            })
            .collect();
        let named = self.named.iter().map(|(text, ids)| {
            let mut set = NodeSet::empty(graph.len());
            ids.iter().filter_map(place).for_each(|id| {
                set.insert(id);
            });
            (text.clone(), set)
        });
        let named = named.collect();
        (graph, named)
    }

    /// The dependencies of a node that is not open, as far as they are known for other reasons.
    fn near(&self, draft: &Draft) -> Vec<DraftId> {
        let known = |label: &Label| self.ids.get(label).copied();
        match &draft.what {
            Some(What::Rule(decl)) => {
                labels_of(decl, self.edges.implicit).flatten().filter_map(known).collect()
            }
            Some(What::Output(decl)) => known(&decl.label).into_iter().collect(),
            Some(What::Source(_)) | None => Vec::new(),
        }
    }

    /// What the query asks of packages; nodes that are new are added.
    fn packages(&mut self) -> BTreeMap<PackageKey, DraftedFacts> {
        let mut out = BTreeMap::new();
        let wants = self.wants;
        if !wants.members && !wants.files && !wants.outputs {
            return out;
        }
        let labels = self.drafts.iter().map(|draft| &draft.label);
        let keys: BTreeSet<PackageKey> =
            labels.map(|label| (label.repo.clone(), label.package.clone())).collect();
        for key in keys {
            let (repo, folder) = (&key.0, &key.1);
            let Some(package) = self.universe.packages.get(repo, folder) else { continue };
            let found = match wants.members || wants.outputs {
                true => members(repo, package),
                false => Vec::new(),
            };
            let mut facts = DraftedFacts::default();
            for (label, what) in found {
                let id = self.add(label, Some(what));
                if wants.members {
                    facts.members.push(id);
                }
            }
            if wants.files
                && let Some(file) = package_file(repo, folder)
            {
                let loads = self.universe.packages.loads(&file);
                let mut add = |label| self.add(label, Some(What::Source(None)));
                facts.loads = loads.into_iter().map(&mut add).collect();
                facts.build_file = Some(add(file));
            }
            out.insert(key, facts);
        }
        out
    }
}

/// The labels that each attribute of a declaration depends on, in the order of attributes.
/// Implicit are those that the target does not name itself: private ones and defaults.
fn labels_of(decl: &TargetDecl, implicit: bool) -> impl Iterator<Item = Vec<&Label>> {
    decl.rule.attrs.iter().zip(&decl.attrs).map(move |((name, spec), value)| {
        let is_output = matches!(spec.kind, AttrKind::Output | AttrKind::OutputList);
        let is_implicit = name.starts_with('_') || *value == spec.default;
        if is_output || (is_implicit && !implicit) {
            return Vec::new();
        }
        value.labels().into_iter().chain(value.conditions()).collect()
    })
}

/// As [`PackageFacts`], before there are ids.
#[derive(Default)]
struct DraftedFacts {
    members: Vec<DraftId>,
    build_file: Option<DraftId>,
    loads: Vec<DraftId>,
}
