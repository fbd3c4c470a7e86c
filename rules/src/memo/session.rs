//! What one evaluation knows of earlier ones while it analyzes, and notes for the next.
//!
//! A target is *kept* if its declaration, what its attributes lead to, and the values of all that
//! it depends on are as they were; its value is revived only for a dependent that is analyzed.
//! What changed is counted by ticks, so that a target that was analyzed before one of its
//! dependencies changed is analyzed once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maestro_core::{Label, Target, TargetId};
use starlark::values::OwnedFrozenValue;

use super::catalog::{Catalog, Surroundings};
use super::codec::Damaged;
use super::imprint::Imprint;
use super::revive::{Revived, Reviver};
use super::targets::{Body, Note, PackageKey, TargetMemory, package_of};
use super::texts::TextTable;
use super::value::{Archive, Archivist, Foreign, Opaque};
use crate::scope::RuleScope;
use crate::values::file::FileValue;
use crate::values::provider::ProviderType;

/// A target that this evaluation has analyzed.
#[derive(Clone)]
pub(crate) struct Fresh {
    pub(crate) value: OwnedFrozenValue,
    pub(crate) outputs: Vec<(Arc<str>, FileValue)>,
    tick: u32,
}

/// Of how many targets it is remembered what they were before.
const FORMER_TARGETS_MAX: usize = 1_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Session<'m> {
    pub(crate) past: TargetMemory<'m>,
    pub(crate) notes: HashMap<TargetId, Box<Note>>,
    pub(crate) texts: HashMap<PackageKey, TextTable>,
    pub(crate) catalog: Catalog,
    /// The aspects whose implementations ran, each with its target.
    pub(crate) aspects: Vec<String>,
    /// Targets that are no longer needed.
    pub(crate) gone: HashSet<TargetId>,
    /// Targets that were taken out of the graph, as they were.
    retired: HashMap<TargetId, Option<Box<Target>>>,
    revived: HashMap<TargetId, Revived>,
    types: HashMap<(String, String), Arc<ProviderType>>,
    fresh: HashMap<TargetId, Fresh>,
    changed: HashMap<TargetId, u32>,
    tick: u32,
}

impl<'m> Session<'m> {
    /// Begins with what is remembered.
    pub(crate) fn new(past: TargetMemory<'m>, gone: &[TargetId]) -> Self {
        Self { past, gone: gone.iter().copied().collect(), ..Self::default() }
    }

    /// Whether nothing is remembered: then nobody comes back to a target that was analyzed.
    pub(crate) fn is_first(&self) -> bool {
        self.past.entries.is_empty()
    }

    /// The targets whose implementations ran, and the aspects, sorted.
    pub(crate) fn analyzed(&self) -> Vec<String> {
        let targets = self.notes.values().map(|note| note.label.to_string());
        let mut labels: Vec<String> = targets.chain(self.aspects.iter().cloned()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// The label of a target.
    pub(crate) fn label(&self, id: TargetId) -> Option<Label> {
        self.notes.get(&id).map(|note| note.label.clone()).or_else(|| self.past.label(id))
    }

    /// Which of the targets that this evaluation has analyzed depend on one.
    pub(crate) fn new_users(&self, id: TargetId) -> impl Iterator<Item = TargetId> + '_ {
        self.notes.values().filter(move |note| note.deps.contains(&id)).map(|note| note.id)
    }

    /// A target that this evaluation has analyzed.
    pub(crate) fn fresh(&self, id: TargetId) -> Option<&Fresh> {
        self.fresh.get(&id)
    }

    /// Whether a target that depends on `deps` has yet to see one of them as it is now.
    pub(crate) fn is_behind(&self, id: TargetId, deps: &[TargetId]) -> bool {
        let seen = self.fresh.get(&id).map_or(0, |fresh| fresh.tick);
        deps.iter().any(|dep| self.changed.get(dep).is_some_and(|tick| *tick > seen))
    }

    /// How far a target lies above those that depend on nothing.
    pub(crate) fn rank(&self, id: TargetId) -> u32 {
        match self.notes.get(&id) {
            Some(note) => note.rank,
            None => self.past.row(id).map_or(0, |(_, row)| row.rank),
        }
    }

    /// Takes what a target made out of the graph, before it is analyzed again or for good.
    pub(crate) fn retire(&mut self, id: TargetId, scope: &RuleScope) {
        if self.retired.contains_key(&id) {
            return;
        }
        let is_one_of_few = self.retired.len() < FORMER_TARGETS_MAX;
        let former = is_one_of_few.then(|| Box::new(scope.graph.borrow().target(id).clone()));
        self.retired.insert(id, former);
        scope.graph.borrow_mut().retire_target(id);
        let body = self.past.row(id).and_then(|(_, row)| row.body().ok());
        if let Some((program, _)) = body.and_then(|body| body.runnable) {
            scope.runnables.borrow_mut().remove(&program);
            self.catalog.forget_artifact(program);
        }
    }

    /// Begins an analysis of a target that is in the graph; what it made before is retired.
    pub(crate) fn begin(&mut self, id: TargetId, scope: &RuleScope) {
        if self.fresh.contains_key(&id)
            && let Some(former) = self.retired.remove(&id)
        {
            // What this evaluation made for it goes as well.
            self.retire(id, scope);
            self.retired.insert(id, former);
            return;
        }
        self.retire(id, scope);
    }

    /// The targets that were analyzed again or are needed no more, as they were before; `None`
    /// where there are many of them.
    pub(crate) fn former(&mut self) -> Option<Vec<(TargetId, Target)>> {
        let retired = std::mem::take(&mut self.retired).into_iter();
        retired.map(|(id, former)| Some((id, *former?))).collect()
    }

    /// Stores the value of a target that was analyzed.
    pub(crate) fn archive(
        &mut self,
        id: TargetId,
        label: &Label,
        value: &OwnedFrozenValue,
        foreign: &Foreign,
        scope: &RuleScope,
    ) -> Result<Archive, Opaque> {
        let key = package_of(label);
        if !self.texts.contains_key(&key) {
            let table = self.past.texts(&key).unwrap_or_default();
            self.texts.insert(key.clone(), table);
        }
        let texts = self.texts.entry(key).or_default();
        let graph = scope.graph.borrow();
        let runnables = scope.runnables.borrow();
        let around = Surroundings { graph: &graph, runnables: &runnables };
        let frozen = value.value().unpack_frozen().ok_or(Opaque { kind: "value".to_owned() })?;
        let catalog = &mut self.catalog;
        Archivist { catalog, around, texts, owner: id, foreign }.archive(frozen.to_value())
    }

    /// Notes that a target was analyzed; `value` is what its value comes to.
    pub(crate) fn finish(
        &mut self,
        id: TargetId,
        value: OwnedFrozenValue,
        outputs: Vec<(Arc<str>, FileValue)>,
        imprint: Option<Imprint>,
    ) {
        if self.is_first() {
            return;
        }
        self.tick += 1;
        let before = match self.notes.get(&id) {
            Some(note) => note.value,
            None => self.past.row(id).and_then(|(_, row)| row.value),
        };
        if imprint.is_none() || before != imprint {
            self.changed.insert(id, self.tick);
        }
        self.fresh.insert(id, Fresh { value, outputs, tick: self.tick });
    }

    /// Says that a target whose value cannot be stored is what it was.
    pub(crate) fn is_as_before(&mut self, id: TargetId) {
        self.changed.remove(&id);
    }

    /// The targets whose values changed after a tick, and the tick now.
    pub(crate) fn changed_since(&self, tick: u32) -> (Vec<TargetId>, u32) {
        let changed = self.changed.iter().filter(|(_, at)| **at > tick).map(|(id, _)| *id);
        (changed.collect(), self.tick)
    }

    /// The value of a target that was not analyzed, with the body of its row. What its value
    /// refers to is revived first; the walk has a stack of its own, since chains are long.
    pub(crate) fn revive(
        &mut self,
        id: TargetId,
        scope: &RuleScope,
    ) -> Result<(OwnedFrozenValue, Body<'m>), Damaged> {
        let body = self.past.row(id).ok_or(Damaged)?.1.body()?;
        let mut stack = vec![(id, body.clone())];
        while let Some((next, own)) = stack.last() {
            let missing = own.needs.iter().find(|need| !self.revived.contains_key(need));
            if let Some(missing) = missing {
                if stack.iter().any(|(open, _)| open == missing) {
                    return Err(Damaged);
                }
                let body = self.past.row(*missing).ok_or(Damaged)?.1.body()?;
                stack.push((*missing, body));
                continue;
            }
            let (next, records) = (*next, own.records.clone());
            stack.pop();
            if !self.revived.contains_key(&next) {
                let revived = self.revive_one(next, &records, scope)?;
                self.revived.insert(next, revived);
            }
        }
        let value = self.revived.get(&id).and_then(Revived::whole).ok_or(Damaged)?;
        Ok((value, body))
    }

    fn revive_one(
        &mut self,
        id: TargetId,
        records: &[(Imprint, &[u8])],
        scope: &RuleScope,
    ) -> Result<Revived, Damaged> {
        let (key, _) = self.past.row(id).ok_or(Damaged)?;
        let texts = match self.texts.get(key) {
            Some(texts) => texts,
            None => {
                let key = key.clone();
                let table = self.past.texts(&key)?;
                self.texts.entry(key).or_insert(table)
            }
        };
        let label = self.past.label(id).ok_or(Damaged)?;
        let graph = scope.graph.borrow();
        let (catalog, types, others) = (&mut self.catalog, &mut self.types, &self.revived);
        Reviver { graph: &graph, catalog, types, others, texts }.revive(id, &label, records)
    }
}
