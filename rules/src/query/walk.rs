//! Walks over a graph: what can be reached, and by which ways. Linear, and without recursion, so
//! that a chain of a hundred thousand targets is no problem; cycles do no harm.

use std::collections::{BinaryHeap, VecDeque};

use super::graph::{Edges, NodeId, TargetGraph};
use super::set::NodeSet;

/// What a walk came to.
pub(super) struct Reached {
    /// Everything, the start included.
    pub(super) all: NodeSet,
    /// The last ring, from which the walk did not go on because of its bound.
    pub(super) ring: Vec<NodeId>,
}

/// All that can be reached in at most `depth` steps, the start included; only through `within`.
pub(super) fn reach(
    start: &NodeSet,
    edges: &Edges,
    depth: Option<u32>,
    within: Option<&NodeSet>,
) -> Reached {
    let mut all = start.clone();
    let mut ring: Vec<NodeId> = start.iter().collect();
    let mut left = depth.unwrap_or(u32::MAX);
    while !ring.is_empty() && left > 0 {
        left -= 1;
        let mut next = Vec::new();
        for id in ring {
            for end in edges.of(id) {
                if within.is_none_or(|within| within.contains(*end)) && all.insert(*end) {
                    next.push(*end);
                }
            }
        }
        ring = next;
    }
    Reached { all, ring }
}

/// One shortest way from a node of `from` to a node of `to`, both ends included; else nothing.
pub(super) fn some_path(from: &NodeSet, to: &NodeSet, graph: &TargetGraph) -> Vec<NodeId> {
    let mut before: Vec<Option<NodeId>> = vec![None; graph.len()];
    let mut seen = from.clone();
    let mut queue: VecDeque<NodeId> = from.iter().collect();
    while let Some(id) = queue.pop_front() {
        if to.contains(id) {
            let previous = |id: &NodeId| before.get(id.index()).copied().flatten();
            let mut path: Vec<NodeId> = std::iter::successors(Some(id), previous).collect();
            path.reverse();
            return path;
        }
        for end in graph.dependencies().of(id) {
            if seen.insert(*end) {
                if let Some(slot) = before.get_mut(end.index()) {
                    *slot = Some(id);
                }
                queue.push_back(*end);
            }
        }
    }
    Vec::new()
}

/// The nodes of a set, each before what it depends on; neighbours in the order of labels.
///
/// Where nodes depend on each other in a circle, the first of them by label opens it.
pub(super) fn dependency_order(set: &NodeSet, graph: &TargetGraph) -> Vec<NodeId> {
    let mut waiting: Vec<u32> = vec![0; graph.len()];
    for id in set.iter() {
        for end in graph.dependencies().of(id).iter().filter(|end| set.contains(**end)) {
            if let Some(count) = waiting.get_mut(end.index()).filter(|_| *end != id) {
                *count += 1;
            }
        }
    }
    let free = |id: &NodeId, waiting: &[u32]| waiting.get(id.index()) == Some(&0);
    let mut ready: BinaryHeap<std::cmp::Reverse<NodeId>> =
        set.iter().filter(|id| free(id, &waiting)).map(std::cmp::Reverse).collect();
    let mut done = NodeSet::empty(graph.len());
    let mut order = Vec::new();
    let mut rest = set.iter();
    loop {
        let next = match ready.pop() {
            Some(std::cmp::Reverse(id)) => Some(id),
            None => rest.find(|id| !done.contains(*id)),
        };
        let Some(id) = next else { return order };
        if !done.insert(id) {
            continue;
        }
        order.push(id);
        for end in graph.dependencies().of(id).iter().filter(|end| set.contains(**end)) {
            if let Some(count) = waiting.get_mut(end.index()).filter(|_| *end != id) {
                *count = count.saturating_sub(1);
                if *count == 0 && !done.contains(*end) {
                    ready.push(std::cmp::Reverse(*end));
                }
            }
        }
    }
}

/// How far each node is from the roots of its set, by the shortest or the longest way.
///
/// The roots are the nodes on which no other of the set depends. Answers (rank, node) pairs in
/// the order of ranks and labels.
pub(super) fn ranks(set: &NodeSet, graph: &TargetGraph, longest: bool) -> Vec<(u32, NodeId)> {
    let order = dependency_order(set, graph);
    let mut place = vec![0usize; graph.len()];
    for (at, id) in order.iter().enumerate() {
        if let Some(slot) = place.get_mut(id.index()) {
            *slot = at;
        }
    }
    let mut ranks: Vec<Option<u32>> = vec![None; graph.len()];
    for (at, id) in order.iter().enumerate() {
        let rank = ranks.get(id.index()).copied().flatten().unwrap_or(0);
        for end in graph.dependencies().of(*id).iter().filter(|end| set.contains(**end)) {
            // An edge that closes a circle leads back; it says nothing about distance.
            if place.get(end.index()).is_none_or(|there| *there <= at) {
                continue;
            }
            if let Some(slot) = ranks.get_mut(end.index()) {
                let through = rank + 1;
                *slot = Some(match *slot {
                    None => through,
                    Some(known) if longest => known.max(through),
                    Some(known) => known.min(through),
                });
            }
        }
    }
    let mut out: Vec<(u32, NodeId)> = order
        .into_iter()
        .map(|id| (ranks.get(id.index()).copied().flatten().unwrap_or(0), id))
        .collect();
    out.sort_unstable();
    out
}
