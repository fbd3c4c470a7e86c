//! Storing a graph, opening it, and what is changed above what is stored.

use std::collections::HashMap;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Serialize};

use super::columns::SharedBytes;
use super::layer::Layer;
use super::packed::Packed;
use super::stored::{self, Stored};
use super::{ActionGraph, ActionId, ActionSet, ArtifactId, Declared, Target, TargetId};
use crate::action::{ActionSpec, Origin};
use crate::depset::{SetArena, SetNode};

/// What was changed in a graph since it was stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GraphDelta {
    artifacts: Vec<(u32, Declared)>,
    actions: Vec<ActionSpec>,
    targets: Vec<(u32, Target)>,
    retired: Vec<u32>,
    sets: Vec<SetNode>,
}

impl ActionGraph {
    /// The whole graph as bytes, to be opened later.
    pub fn store(&self) -> Vec<u8> {
        stored::write(self)
    }

    /// Opens a graph over bytes of [`Self::store`] that were checked to be whole, with what was
    /// changed since; `None` where the bytes are something else.
    pub fn open(bytes: SharedBytes, delta: GraphDelta) -> Option<Self> {
        let stored = Stored::open(bytes)?;
        let GraphDelta { artifacts, actions, targets, retired, sets } = delta;
        let mut graph = Self {
            artifacts: Layer::over(stored.artifact_count()),
            actions: Packed::over(stored.action_count()),
            targets: Layer::over(stored.target_count()),
            retired: stored.retired().map(ActionId::from_index).collect(),
            by_path: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            toolchains: HashMap::new(),
            sets: SetArena::over(stored.clone(), sets),
            stored: Some(stored.clone()),
        };
        let known: Vec<usize> = stored.toolchains().collect();
        for (index, declared) in artifacts {
            graph.artifacts.put(index as usize, declared);
        }
        for index in known.into_iter().chain(stored.artifact_count()..graph.artifacts.len()) {
            graph.index_artifact(ArtifactId::from_index(index));
        }
        for action in actions {
            graph.actions.push(&action);
        }
        for (index, target) in targets {
            graph.targets.put(index as usize, target);
        }
        for action in retired {
            graph.retired.insert(ActionId(action));
        }
        Some(graph)
    }

    /// What was changed since the graph was stored; all of it, where it never was.
    pub fn delta(&self) -> GraphDelta {
        let stored_retired: ActionSet = self
            .stored
            .iter()
            .flat_map(|stored| stored.retired().map(ActionId::from_index))
            .collect();
        let id = |index: usize| u32::try_from(index).expect("ids are dense");
        GraphDelta {
            artifacts: self
                .artifacts
                .changes()
                .filter_map(|index| Some((id(index), self.artifacts.changed(index)?.clone())))
                .collect(),
            actions: self.added_actions().map(|action| self.action(action)).collect(),
            targets: self
                .targets
                .changes()
                .filter_map(|index| Some((id(index), self.targets.changed(index)?.clone())))
                .collect(),
            retired: self
                .retired
                .iter()
                .filter(|action| !stored_retired.contains(*action))
                .map(|action| id(action.index()))
                .collect(),
            sets: self.sets.added().map(|(_, node)| node.clone()).collect(),
        }
    }

    /// How many nodes were changed since the graph was stored.
    pub fn change_count(&self) -> usize {
        let stored_retired = self.stored.iter().map(|stored| stored.retired().count()).sum();
        self.artifacts.changes().count()
            + self.added_actions().count()
            + self.targets.changes().count()
            + self.retired.len().saturating_sub(stored_retired)
            + self.sets.added().count()
    }

    /// Takes a target's actions out of the graph, and lets its outputs be declared again.
    /// What is not declared again stays known by its path, with nobody who makes it.
    pub fn retire_target(&mut self, id: TargetId) {
        let (mut actions, mut outputs) = (Vec::new(), Vec::new());
        if let Some(stored) = &self.stored {
            actions.extend(stored.target_actions(id.index()));
            outputs.extend(stored.target_outputs(id.index()));
        }
        actions.extend(self.added_actions().filter(|own| self.action(*own).owner == id));
        outputs.extend(self.artifacts.changes().map(ArtifactId::from_index));
        for action in actions {
            self.retired.insert(action);
        }
        for output in outputs {
            if self.owner(output) == Some(id)
                && let Some(declared) = self.declared_mut(output)
            {
                declared.owner = None;
                declared.artifact.origin = Origin::Action(None);
            }
        }
    }

    /// Replaces what is known of a target that keeps its id.
    pub fn replace_target(&mut self, id: TargetId, target: Target) {
        self.targets.put(id.index(), target);
    }

    /// Makes an artifact that is not stored, or a toolchain, known by what it is.
    fn index_artifact(&mut self, id: ArtifactId) {
        match self.artifact(id).origin.clone() {
            Origin::Toolchain(toolchain) => drop(self.toolchains.insert(toolchain, id)),
            _ => self.index_path(id),
        }
    }
}
