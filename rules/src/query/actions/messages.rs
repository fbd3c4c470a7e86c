//! Actions as the messages of Bazel's `src/main/protobuf/analysis_v2.proto`, package `analysis`.
//!
//! Ids count from 1, as Bazel's do. Sets of inputs keep their structure: a set that many actions
//! share is written once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use maestro_core::depset::SetId;
use maestro_core::{ActionId, ArtifactId, ArtifactKind, Item, TargetId};

use super::{ActionAnswer, ActionFacts};
use crate::query::proto::Message;

/// An `ActionGraphContainer`.
pub(super) fn container(answer: &ActionAnswer, facts: &[ActionFacts]) -> Message {
    let mut tables = Tables::new(answer);
    let actions: Vec<Message> =
        answer.actions.iter().zip(facts).map(|(id, facts)| tables.action(*id, facts)).collect();
    Message::default()
        .each(1, "artifacts", tables.artifacts.rows)
        .each(2, "actions", actions)
        .each(3, "targets", tables.targets.rows)
        .each(4, "depSetOfFiles", tables.sets.rows)
        .each(5, "configuration", tables.configurations.rows)
        .each(6, "aspectDescriptors", tables.aspects.rows)
        .each(7, "ruleClasses", tables.rules.rows)
        .each(8, "pathFragments", tables.paths.rows)
}

/// Messages that others refer to by number.
struct Table<K> {
    ids: HashMap<K, i64>,
    rows: Vec<Message>,
}

impl<K: Eq + Hash> Table<K> {
    fn new() -> Self {
        Self { ids: HashMap::new(), rows: Vec::new() }
    }

    fn known(&self, key: &K) -> Option<i64> {
        self.ids.get(key).copied()
    }

    /// Adds a message whose first field is its number.
    fn add(&mut self, key: K, row: impl FnOnce(Message) -> Message) -> i64 {
        let id = i64::try_from(self.rows.len() + 1).unwrap_or(i64::MAX);
        self.rows.push(row(Message::default().with(1, "id", id)));
        self.ids.insert(key, id);
        id
    }
}

struct Tables<'a> {
    answer: &'a ActionAnswer,
    artifacts: Table<ArtifactId>,
    targets: Table<TargetId>,
    sets: Table<SetId>,
    configurations: Table<String>,
    aspects: Table<Arc<str>>,
    rules: Table<Arc<str>>,
    paths: Table<String>,
}

impl<'a> Tables<'a> {
    fn new(answer: &'a ActionAnswer) -> Self {
        Self {
            answer,
            artifacts: Table::new(),
            targets: Table::new(),
            sets: Table::new(),
            configurations: Table::new(),
            aspects: Table::new(),
            rules: Table::new(),
            paths: Table::new(),
        }
    }

    fn action(&mut self, id: ActionId, facts: &ActionFacts) -> Message {
        let spec = self.answer.graph.action(id);
        let outputs: Vec<i64> =
            spec.outputs.iter().map(|output| self.artifact(output.artifact)).collect();
        let primary = outputs.first().copied().unwrap_or_default();
        let pair = |(key, value): (&String, &String)| {
            Message::default().with(1, "key", key.as_str()).with(2, "value", value.as_str())
        };
        let environment = facts.environment.iter().map(pair);
        let aspects: Vec<i64> = facts.aspect.iter().map(|name| self.aspect(name)).collect();
        Message::default()
            .with(1, "targetId", self.target(spec.owner))
            .each(2, "aspectDescriptorIds", aspects)
            .with(3, "actionKey", facts.key.as_str())
            .with(4, "mnemonic", facts.mnemonic.as_str())
            .with(5, "configurationId", self.configuration(&facts.configuration))
            .each(6, "arguments", facts.arguments.iter().map(String::as_str))
            .each(7, "environmentVariables", environment)
            .each(8, "inputDepSetIds", [self.set(spec.inputs)])
            .each(9, "outputIds", outputs)
            .each(11, "executionInfo", facts.execution_properties.iter().map(pair))
            .with(13, "primaryOutputId", primary)
            .with(14, "executionPlatform", facts.execution_platform.to_string())
    }

    fn target(&mut self, id: TargetId) -> i64 {
        if let Some(known) = self.targets.known(&id) {
            return known;
        }
        let target = self.answer.graph.target(id);
        let rule = match self.rules.known(&target.rule) {
            Some(known) => known,
            None => self.rules.add(target.rule.clone(), |row| row.with(2, "name", &*target.rule)),
        };
        let label = target.label.to_string();
        self.targets.add(id, |row| row.with(2, "label", label).with(3, "ruleClassId", rule))
    }

    fn aspect(&mut self, name: &str) -> i64 {
        let known = self.aspects.known(&name.into());
        known.unwrap_or_else(|| self.aspects.add(name.into(), |row| row.with(2, "name", name)))
    }

    fn configuration(&mut self, name: &str) -> i64 {
        let known = self.configurations.known(&name.to_owned());
        known.unwrap_or_else(|| {
            self.configurations
                .add(name.to_owned(), |row| row.with(2, "mnemonic", name).with(4, "checksum", name))
        })
    }

    fn artifact(&mut self, id: ArtifactId) -> i64 {
        if let Some(known) = self.artifacts.known(&id) {
            return known;
        }
        let artifact = self.answer.graph.artifact(id);
        let path = self.path(artifact.path.as_str());
        let is_tree = artifact.kind == ArtifactKind::Tree;
        self.artifacts.add(id, |row| {
            let row = row.with(2, "pathFragmentId", path);
            if is_tree { row.with(3, "isTreeArtifact", true) } else { row }
        })
    }

    /// The number of a path; its parents are rows of their own.
    fn path(&mut self, path: &str) -> i64 {
        let mut parent = None;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut id = 0;
        for end in ends {
            let whole = path.get(..end).unwrap_or_default();
            let label = whole.rsplit('/').next().unwrap_or_default();
            id = self.paths.known(&whole.to_owned()).unwrap_or_else(|| {
                self.paths.add(whole.to_owned(), |row| {
                    let row = row.with(2, "label", label);
                    match parent {
                        Some(parent) => row.with(3, "parentId", parent),
                        None => row,
                    }
                })
            });
            parent = Some(id);
        }
        id
    }

    /// The number of a set of inputs; the sets in it come before it. Keeps its own stack.
    fn set(&mut self, root: SetId) -> i64 {
        let mut stack = vec![root];
        while let Some(id) = stack.last().copied() {
            if self.sets.known(&id).is_some() {
                stack.pop();
                continue;
            }
            let node = self.answer.graph.sets.node(id);
            let before = stack.len();
            stack.extend(node.transitive.iter().filter(|inner| self.sets.known(inner).is_none()));
            if stack.len() > before {
                continue;
            }
            stack.pop();
            let direct: Vec<i64> = node
                .direct
                .iter()
                .filter_map(|item| match item {
                    Item::Artifact(artifact) => Some(self.artifact(*artifact)),
                    Item::Text(_) => None,
                })
                .collect();
            let inner: Vec<i64> =
                node.transitive.iter().filter_map(|inner| self.sets.known(inner)).collect();
            self.sets.add(id, |row| {
                row.each(2, "transitiveDepSetIds", inner).each(3, "directArtifactIds", direct)
            });
        }
        self.sets.known(&root).unwrap_or_default()
    }
}
