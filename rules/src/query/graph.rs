//! The graph that queries walk: targets and files with dense ids, edges in two flat vectors.
//!
//! It is built once for an evaluation and only read. Ids follow the order of labels (and of
//! configurations, where a label has several), so that sets come out sorted. What a node was made
//! of is the business of `source` and `configured`; walks and output formats see only this.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use maestro_core::Label;

use crate::package::TargetDecl;
use crate::visibility::Visibility;

/// Names a node of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than 2^32 nodes fit in memory"))
    }
}

/// A target or a file.
#[derive(Clone, Debug)]
pub(crate) struct TargetNode {
    pub(crate) label: Label,
    pub(crate) what: What,
    /// Whether the edges to its dependencies are in the graph.
    pub(crate) open: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A target of a rule.
    Rule(Arc<TargetDecl>),
    /// A file that a target declares as its output.
    Output(Arc<TargetDecl>),
    /// A source file, and who may use it where its package says so.
    Source(Option<Visibility>),
}

impl TargetNode {
    /// `cc_library rule`, `source file` or `generated file`.
    pub(crate) fn kind(&self) -> String {
        match &self.what {
            What::Rule(decl) => format!("{} rule", decl.rule.name()),
            What::Output(_) => "generated file".to_owned(),
            What::Source(_) => "source file".to_owned(),
        }
    }

    /// The declaration, if the node is a target of a rule.
    pub(crate) fn decl(&self) -> Option<&Arc<TargetDecl>> {
        match &self.what {
            What::Rule(decl) => Some(decl),
            What::Output(_) | What::Source(_) => None,
        }
    }
}

/// What some functions need to know of a package.
#[derive(Debug, Default)]
pub(crate) struct PackageFacts {
    /// Its targets, their outputs, and the sources that they name.
    pub(crate) members: Vec<NodeId>,
    /// The file that declares it.
    pub(crate) build_file: Option<NodeId>,
    /// The files that it loads, directly or not.
    pub(crate) loads: Vec<NodeId>,
}

/// Edges from every node, in the manner of a compressed sparse row matrix.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// Where the edges of a node start; one more than there are nodes.
    starts: Vec<u32>,
    ends: Vec<NodeId>,
}

impl Edges {
    /// Collects the edges of the nodes in order.
    pub(crate) fn new<I: Iterator<Item = NodeId>>(of_each: impl Iterator<Item = I>) -> Self {
        let mut edges = Self { starts: vec![0], ends: Vec::new() };
        for of_one in of_each {
            let start = edges.ends.len();
            edges.ends.extend(of_one);
            if let Some(own) = edges.ends.get_mut(start..) {
                own.sort_unstable();
            }
            edges.close(start);
        }
        edges
    }

    fn close(&mut self, start: usize) {
        let mut last = None;
        let mut at = start;
        // Drops repetitions of the node that was just added; its edges are sorted.
        for index in start..self.ends.len() {
            let Some(end) = self.ends.get(index).copied() else { break };
            if last != Some(end) {
                if let Some(slot) = self.ends.get_mut(at) {
                    *slot = end;
                }
                at += 1;
                last = Some(end);
            }
        }
        self.ends.truncate(at);
        self.starts.push(offset(self.ends.len()));
    }

    /// The nodes that edges of `from` lead to, sorted, each once.
    pub(crate) fn of(&self, from: NodeId) -> &[NodeId] {
        let at = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        self.ends.get(at(from.index())..at(from.index() + 1)).unwrap_or_default()
    }

    /// The same edges, seen from their ends.
    fn reversed(&self) -> Self {
        let nodes = self.starts.len().saturating_sub(1);
        let mut starts = vec![0u32; nodes + 1];
        for end in &self.ends {
            if let Some(count) = starts.get_mut(end.index() + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut ends = vec![NodeId(0); self.ends.len()];
        for from in 0..nodes {
            let from = NodeId::from_index(from);
            for end in self.of(from) {
                let Some(next) = next.get_mut(end.index()) else { continue };
                if let Some(slot) = ends.get_mut(*next as usize) {
                    *slot = from;
                }
                *next += 1;
            }
        }
        Self { starts, ends }
    }
}

fn offset(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 edges fit in memory")
}

/// Targets, files, and what depends on what.
#[derive(Debug, Default)]
pub(crate) struct TargetGraph {
    nodes: Vec<TargetNode>,
    dependencies: Edges,
    dependents: OnceLock<Edges>,
    /// The configuration of each node: empty for a file that has none. No vector where targets
    /// are not configured.
    pub(crate) configurations: Vec<String>,
    /// Filled for the functions that ask about packages, by (repository, package).
    pub(crate) packages: BTreeMap<(Arc<str>, Arc<str>), PackageFacts>,
}

impl TargetGraph {
    /// A graph of nodes in the order of their ids.
    pub(crate) fn new(nodes: Vec<TargetNode>, dependencies: Edges) -> Self {
        Self { nodes, dependencies, ..Self::default() }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of an id.
    pub(crate) fn node(&self, id: NodeId) -> &TargetNode {
        self.nodes.get(id.index()).expect("a node id comes from this graph")
    }

    /// The configuration of a node, where nodes have some; empty for a file without one.
    pub(crate) fn configuration(&self, id: NodeId) -> Option<&str> {
        self.configurations.get(id.index()).map(String::as_str)
    }

    /// The nodes of a label: none, one, or one for each of its configurations.
    pub(crate) fn with_label(&self, label: &Label) -> impl Iterator<Item = NodeId> {
        let first = self.nodes.partition_point(|node| node.label < *label);
        let same = self.nodes.iter().skip(first).take_while(move |node| node.label == *label);
        (first..first + same.count()).map(NodeId::from_index)
    }

    /// What depends on what.
    pub(crate) fn dependencies(&self) -> &Edges {
        &self.dependencies
    }

    /// What is needed by what; made the first time it is asked for.
    pub(crate) fn dependents(&self) -> &Edges {
        self.dependents.get_or_init(|| self.dependencies.reversed())
    }

    /// What is known of the package of a label.
    pub(crate) fn package_of(&self, label: &Label) -> Option<&PackageFacts> {
        self.packages.get(&(label.repo.clone(), label.package.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_sorted_and_reversible() {
        let id = NodeId::from_index;
        let lists = [vec![2, 1, 2, 1], vec![3], vec![3, 0], vec![]];
        let edges =
            Edges::new(lists.iter().map(|list| list.iter().map(|i| NodeId::from_index(*i))));
        assert_eq!(edges.of(id(0)), [id(1), id(2)]);
        assert_eq!(edges.of(id(3)), []);
        assert_eq!(edges.of(id(9)), []);
        let back = edges.reversed();
        assert_eq!(back.of(id(3)), [id(1), id(2)]);
        assert_eq!(back.of(id(0)), [id(2)]);
        assert_eq!(back.of(id(2)), [id(0)]);
    }
}
