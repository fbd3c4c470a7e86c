//! What a request needs: which actions, in which order, and which of them a change reaches.
//!
//! Walks go over sets as they are shared, never over what they flatten to, so that their cost is
//! that of the graph as it was written down.

use std::collections::HashMap;

use fixedbitset::FixedBitSet;
use petgraph::graph::{DiGraph, NodeIndex};

use super::stored::{Edge, members_of, reads_of};
use super::{ActionGraph, ActionId, ArtifactId, GraphError};
use crate::depset::SetId;

/// A set of actions of one graph.
#[derive(Clone, Debug, Default)]
pub struct ActionSet(FixedBitSet);

impl ActionSet {
    /// Whether an action is in it.
    pub fn contains(&self, action: ActionId) -> bool {
        self.0.contains(action.index())
    }

    /// Adds an action; says whether it is new.
    pub fn insert(&mut self, action: ActionId) -> bool {
        self.0.grow(action.index() + 1);
        !self.0.put(action.index())
    }

    /// Takes an action out.
    pub fn remove(&mut self, action: ActionId) {
        if self.contains(action) {
            self.0.set(action.index(), false);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.count_ones(..)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_clear()
    }

    /// All of them in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = ActionId> + '_ {
        self.0.ones().map(ActionId::from_index)
    }
}

impl Extend<ActionId> for ActionSet {
    fn extend<I: IntoIterator<Item = ActionId>>(&mut self, actions: I) {
        for action in actions {
            self.insert(action);
        }
    }
}

impl FromIterator<ActionId> for ActionSet {
    fn from_iter<I: IntoIterator<Item = ActionId>>(actions: I) -> Self {
        let mut set = Self::default();
        set.extend(actions);
        set
    }
}

/// The actions that a request needs, producers before consumers.
#[derive(Debug)]
pub struct Plan {
    /// Every needed action once, in a topological order.
    pub order: Vec<ActionId>,
    dag: DiGraph<ActionId, ()>,
    nodes: HashMap<ActionId, NodeIndex>,
    inputs: HashMap<ActionId, Vec<ArtifactId>>,
}

impl Plan {
    /// The actions that must be done before `action`.
    pub fn producers(&self, action: ActionId) -> impl Iterator<Item = ActionId> + '_ {
        self.neighbors(action, petgraph::Direction::Incoming)
    }

    /// The actions that wait for `action`.
    pub fn consumers(&self, action: ActionId) -> impl Iterator<Item = ActionId> + '_ {
        self.neighbors(action, petgraph::Direction::Outgoing)
    }

    /// The artifacts that an action of the plan reads.
    pub fn inputs(&self, action: ActionId) -> &[ArtifactId] {
        self.inputs.get(&action).map_or(&[], Vec::as_slice)
    }

    fn neighbors(
        &self,
        action: ActionId,
        direction: petgraph::Direction,
    ) -> impl Iterator<Item = ActionId> + '_ {
        let node = self.nodes.get(&action).copied();
        node.into_iter()
            .flat_map(move |n| self.dag.neighbors_directed(n, direction))
            .filter_map(|n| self.dag.node_weight(n).copied())
    }
}

impl ActionGraph {
    /// Checks the graph and orders the actions that `requested` artifacts need.
    pub fn plan(&self, requested: &[ArtifactId]) -> Result<Plan, GraphError> {
        self.plan_where(requested, |_| true)
    }

    /// As [`Self::plan`], for those actions alone that are in `dirty`: the others have results
    /// that hold. Whatever needs a dirty action must be dirty too, as [`Self::affected`] has it.
    pub fn plan_dirty(
        &self,
        requested: &[ArtifactId],
        dirty: &ActionSet,
    ) -> Result<Plan, GraphError> {
        self.plan_where(requested, |action| dirty.contains(action))
    }

    fn plan_where(
        &self,
        requested: &[ArtifactId],
        wanted: impl Fn(ActionId) -> bool,
    ) -> Result<Plan, GraphError> {
        self.check_outputs()?;
        let mut dag = DiGraph::<ActionId, ()>::new();
        let mut nodes: HashMap<ActionId, NodeIndex> = HashMap::new();
        let mut inputs = HashMap::new();
        let made_by = |artifact: &ArtifactId| self.producer(*artifact).filter(|id| wanted(*id));
        let mut stack: Vec<ActionId> = requested.iter().filter_map(made_by).collect();
        while let Some(id) = stack.pop() {
            let node = *nodes.entry(id).or_insert_with(|| dag.add_node(id));
            if inputs.contains_key(&id) {
                continue;
            }
            let reads = self.inputs_of(id);
            let mut producers: Vec<ActionId> = reads.iter().filter_map(made_by).collect();
            producers.sort_unstable();
            producers.dedup();
            for producer in producers {
                let from = *nodes.entry(producer).or_insert_with(|| dag.add_node(producer));
                dag.add_edge(from, node, ());
                stack.push(producer);
            }
            inputs.insert(id, reads);
        }
        match petgraph::algo::toposort(&dag, None) {
            Ok(order) => {
                let order = order.into_iter().filter_map(|n| dag.node_weight(n).copied()).collect();
                Ok(Plan { order, dag, nodes, inputs })
            }
            Err(_) => Err(self.describe_cycle(&dag)),
        }
    }

    /// Every action that `requested` artifacts need, without an order.
    pub fn needed(&self, requested: &[ArtifactId]) -> ActionSet {
        let mut found = ActionSet(FixedBitSet::with_capacity(self.action_count()));
        let mut sets = FixedBitSet::with_capacity(self.sets.count());
        let mut pending: Vec<Edge> = Vec::new();
        let mut actions: Vec<ActionId> =
            requested.iter().filter_map(|artifact| self.producer(*artifact)).collect();
        loop {
            match pending.pop() {
                Some(Edge::Leaf(artifact)) => {
                    actions.extend(self.producer(ArtifactId::from_index(artifact as usize)));
                }
                Some(Edge::Set(set)) if !sets.put(set.index()) => {
                    self.each_member(set, &mut |edge| pending.push(edge));
                }
                Some(Edge::Set(_)) => {}
                None if actions.is_empty() => return found,
                None => {}
            }
            while let Some(action) = actions.pop() {
                if found.insert(action) {
                    self.each_read(action, &mut |edge| pending.push(edge));
                }
            }
        }
    }

    /// Every action that reads one of `artifacts` or is one of `actions`, and all that read what
    /// those make.
    pub fn affected(&self, artifacts: &[ArtifactId], actions: &[ActionId]) -> ActionSet {
        let users = AddedUsers::new(self);
        let mut found = ActionSet(FixedBitSet::with_capacity(self.action_count()));
        let mut sets = FixedBitSet::with_capacity(self.sets.count());
        let mut seen = FixedBitSet::with_capacity(self.artifact_count());
        let mut changed: Vec<ArtifactId> = artifacts.to_vec();
        let mut pending: Vec<Edge> = Vec::new();
        let of_action = |id: ActionId| Edge::Leaf(id.index() as u32);
        pending.extend(actions.iter().map(|action| of_action(*action)));
        loop {
            match pending.pop() {
                Some(Edge::Leaf(action)) => {
                    let action = ActionId::from_index(action as usize);
                    if !self.is_retired(action) && found.insert(action) {
                        self.each_made(action, &mut |artifact| changed.push(artifact));
                    }
                }
                Some(Edge::Set(set)) if !sets.put(set.index()) => {
                    users.of_set(self, set, &mut |edge| pending.push(edge));
                }
                Some(Edge::Set(_)) => {}
                None => match changed.pop() {
                    None => return found,
                    Some(artifact) => {
                        if !seen.put(artifact.index()) {
                            users.of_artifact(self, artifact, &mut |edge| pending.push(edge));
                        }
                    }
                },
            }
        }
    }

    fn each_member(&self, set: SetId, visit: &mut dyn FnMut(Edge)) {
        match &self.stored {
            Some(stored) if set.index() < stored.set_count() => {
                stored.members(set.index()).for_each(visit);
            }
            _ => members_of(self.sets.node(set)).for_each(visit),
        }
    }

    fn each_read(&self, action: ActionId, visit: &mut dyn FnMut(Edge)) {
        match &self.stored {
            Some(stored) if action.index() < stored.action_count() => {
                stored.reads(action.index()).for_each(visit);
            }
            _ => reads_of(&self.action(action)).for_each(visit),
        }
    }

    fn each_made(&self, action: ActionId, visit: &mut dyn FnMut(ArtifactId)) {
        match &self.stored {
            Some(stored) if action.index() < stored.action_count() => {
                stored.makes(action.index()).for_each(visit);
            }
            _ => self.action(action).outputs.iter().for_each(|output| visit(output.artifact)),
        }
    }
}

/// The edges of all that was added to an opened graph, from what is used to who uses it.
struct AddedUsers {
    artifacts: HashMap<u32, Vec<Edge>>,
    sets: HashMap<SetId, Vec<Edge>>,
}

impl AddedUsers {
    fn new(graph: &ActionGraph) -> Self {
        let mut users = Self { artifacts: HashMap::new(), sets: HashMap::new() };
        for (id, node) in graph.sets.added() {
            members_of(node).for_each(|member| users.add(member, Edge::Set(id)));
        }
        for id in graph.added_actions() {
            let user = Edge::Leaf(id.index() as u32);
            reads_of(&graph.action(id)).for_each(|read| users.add(read, user));
        }
        users
    }

    fn add(&mut self, used: Edge, user: Edge) {
        match used {
            Edge::Leaf(artifact) => self.artifacts.entry(artifact).or_default().push(user),
            Edge::Set(set) => self.sets.entry(set).or_default().push(user),
        }
    }

    fn of_artifact(&self, graph: &ActionGraph, id: ArtifactId, visit: &mut dyn FnMut(Edge)) {
        if let Some(stored) = graph.stored.as_ref().filter(|s| id.index() < s.artifact_count()) {
            stored.artifact_users(id.index()).for_each(&mut *visit);
        }
        let added = u32::try_from(id.index()).ok().and_then(|id| self.artifacts.get(&id));
        added.into_iter().flatten().copied().for_each(visit);
    }

    fn of_set(&self, graph: &ActionGraph, id: SetId, visit: &mut dyn FnMut(Edge)) {
        if let Some(stored) = graph.stored.as_ref().filter(|s| id.index() < s.set_count()) {
            stored.set_users(id.index()).for_each(&mut *visit);
        }
        self.sets.get(&id).into_iter().flatten().copied().for_each(visit);
    }
}
