//! The graph of a query, made of build files.
//!
//! Packages are loaded as patterns name them; the dependencies of a target only where the query
//! walks them, so that `//pkg:all` is answered even where a dependency is broken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maestro_core::Label;

use super::EdgeFilter;
use super::graph::{Edges, NodeId, PackageFacts, TargetGraph, TargetNode, What};
use super::names::{Draft, DraftId, HomeState, Names};
use super::parse::{Expression, Function, Word};
use super::patterns::{self, members};
use super::set::NodeSet;
use crate::attr::{AttrKind, AttrSpec, AttrValue};
use crate::config::definitions::PackageKey;
use crate::configured::in_attribute;
use crate::diagnostic::Diagnostic;
use crate::error::RuleError;
use crate::load::packages::{Packages, package_file};
use crate::package::TargetDecl;
use crate::resolve::{Universe, test_toolchain};

/// What has been loaded for a query so far.
pub(super) struct Source<'h> {
    universe: Universe<'h>,
    /// The package where relative patterns start.
    package: String,
    edges: EdgeFilter,
    wants: Wants,
    /// Everything that was named so far.
    names: Names,
    /// The dependencies of open nodes, each node's beside each other.
    ends: Vec<DraftId>,
    /// What each pattern names.
    named: BTreeMap<String, Vec<DraftId>>,
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
            names: Names::default(),
            ends: Vec::new(),
            named: BTreeMap::new(),
        }
    }

    /// Loads what a pattern names; with `walked`, all that it depends on as well.
    pub(super) fn name(&mut self, word: &Word, walked: bool) -> Result<(), RuleError> {
        if !self.named.contains_key(&word.text) {
            let found = patterns::expand(&mut self.universe, &self.package, &word.text, true)?;
            let ids = found.iter().map(|(label, what)| self.names.add(label, Some(what.clone())));
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
        let ids: Vec<DraftId> = labels.iter().filter_map(|l| self.names.find(l)).collect();
        let before = self.ends.len();
        let closed = ids.iter().any(|id| self.names.get(*id).is_some_and(|d| d.ends.is_none()));
        self.open_all(ids);
        closed || self.ends.len() > before
    }

    /// Takes the errors and remarks that were collected.
    pub(super) fn take_diagnostics(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.universe.diagnostics)
    }

    /// All that was named, with the packages of it.
    pub(super) fn into_names(self) -> Names {
        self.names
    }

    /// The packages that were loaded.
    pub(super) fn loaded(&self) -> &Packages<'h> {
        &self.universe.packages
    }

    /// Finds the dependencies of nodes and of all below them; packages are loaded in batches.
    fn open_all(&mut self, ids: Vec<DraftId>) {
        let mut pending: Vec<(DraftId, User)> =
            ids.into_iter().rev().map(|id| (id, None)).collect();
        loop {
            self.settle();
            let mut later = Vec::new();
            let mut missing: BTreeSet<PackageKey> = BTreeSet::new();
            while let Some((id, user)) = pending.pop() {
                let Some(Draft { label, what, ends, .. }) = self.names.get(id) else { continue };
                if ends.is_some() {
                    continue;
                }
                let resolved = match (what, self.names.home(id)) {
                    (Some(what), _) => Ok(Some(what.clone())),
                    (None, HomeState::Loaded(package)) => {
                        patterns::resolve_in(&self.universe, package, label).map(Some)
                    }
                    (None, HomeState::Broken) => patterns::resolve(&self.universe, label),
                    (None, HomeState::New) => {
                        missing.insert((label.repo.clone(), label.package.clone()));
                        later.push((id, user));
                        continue;
                    }
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

    /// Finds out how far packages are known.
    fn settle(&mut self) {
        let universe = &self.universe;
        self.names.settle(|key| match universe.packages.get(&key.0, &key.1) {
            Some(package) => HomeState::Loaded(package.clone()),
            None if universe.was_asked_for(key) => HomeState::Broken,
            None => HomeState::New,
        });
    }

    /// Notes the dependencies of a node; those that are not open are to be opened next.
    fn open_one(&mut self, id: DraftId, what: What, pending: &mut Vec<(DraftId, User)>) {
        let start = self.ends.len();
        match &what {
            What::Rule(decl) => {
                for (position, label) in labels_of(decl, self.edges.implicit) {
                    let end = self.names.add(label, None);
                    self.ends.push(end);
                    pending.push((end, Some((id, position))));
                }
                if self.edges.implicit
                    && decl.rule.test
                    && let Some(label) = test_toolchain()
                {
                    let end = self.names.add(&label, None);
                    self.ends.push(end);
                    pending.push((end, None));
                }
            }
            What::Output(decl) => {
                let end = self.names.add(&decl.label, Some(What::Rule(decl.clone())));
                self.ends.push(end);
                pending.push((end, None));
            }
            What::Source(_) => {}
        }
        let ends = start..self.ends.len();
        if let Some(draft) = self.names.get_mut(id) {
            draft.what = Some(what);
            draft.ends = Some(ends);
        }
    }

    fn report(&mut self, error: RuleError, user: User) {
        let named = user.and_then(|(user, position)| {
            let What::Rule(decl) = self.names.get(user)?.what.as_ref()? else { return None };
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
        let order = self.names.sorted();
        let mut places: Vec<Option<NodeId>> = vec![None; self.names.len()];
        for (index, id) in order.iter().enumerate() {
            if let Some(place) = places.get_mut(*id) {
                *place = Some(NodeId::from_index(index));
            }
        }
        let place = |id: &DraftId| places.get(*id).copied().flatten();
        let sorted = || order.iter().filter_map(|id| self.names.get(*id));
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
        let known = |label: &Label| self.names.find(label);
        match &draft.what {
            Some(What::Rule(decl)) => {
                labels_of(decl, self.edges.implicit).filter_map(|(_, label)| known(label)).collect()
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
        for key in self.names.packages() {
            let (repo, folder) = (&key.0, &key.1);
            let Some(package) = self.universe.packages.get(repo, folder) else { continue };
            let found = match wants.members || wants.outputs {
                true => members(repo, package),
                false => Vec::new(),
            };
            let mut facts = DraftedFacts::default();
            for (label, what) in found {
                let id = self.names.add(&label, Some(what));
                if wants.members {
                    facts.members.push(id);
                }
            }
            if wants.files
                && let Some(file) = package_file(repo, folder)
            {
                let loads = self.universe.packages.loads(&file);
                let mut add = |label| self.names.add(label, Some(What::Source(None)));
                facts.loads = loads.iter().map(&mut add).collect();
                facts.build_file = Some(add(&file));
            }
            out.insert(key, facts);
        }
        out
    }
}

/// The labels that a declaration depends on, each with the position of its attribute. Implicit are
/// those that the target does not name itself: private ones, defaults, and what the aspects need
/// that an attribute puts on what it names.
fn labels_of(decl: &TargetDecl, implicit: bool) -> impl Iterator<Item = (usize, &Label)> {
    let counts = move |name: &str, spec: &AttrSpec, value: &AttrValue| {
        let is_output = matches!(spec.kind, AttrKind::Output | AttrKind::OutputList);
        !is_output && (implicit || !(name.starts_with('_') || *value == spec.default))
    };
    let attributes = decl.rule.attrs.iter().zip(&decl.attrs).enumerate();
    let counting = attributes.filter(move |(_, ((name, spec), value))| counts(name, spec, value));
    counting.flat_map(move |(position, ((_, spec), value))| {
        let named = value.labels();
        let aspects = match implicit && !named.is_empty() {
            true => spec.aspects.as_slice(),
            false => &[],
        };
        let attached = aspects.iter().flat_map(|aspect| aspect.own_labels());
        let labels = named.into_iter().chain(value.conditions()).chain(attached);
        labels.map(move |label| (position, label))
    })
}

/// As [`PackageFacts`], before there are ids.
#[derive(Default)]
struct DraftedFacts {
    members: Vec<DraftId>,
    build_file: Option<DraftId>,
    loads: Vec<DraftId>,
}
