//! Sets of nodes of one graph, a bit for each node.
//!
//! Ids follow the order of labels, so iterating a set yields it sorted.

use super::graph::NodeId;

/// A set of nodes of a graph of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSet {
    words: Vec<u64>,
}

const BITS: usize = u64::BITS as usize;

impl NodeSet {
    /// The empty set over a graph of so many nodes.
    pub(crate) fn empty(nodes: usize) -> Self {
        Self { words: vec![0; nodes.div_ceil(BITS)] }
    }

    /// Adds a node; whether it was missing.
    pub(crate) fn insert(&mut self, id: NodeId) -> bool {
        let bit = 1 << (id.index() % BITS);
        match self.words.get_mut(id.index() / BITS) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// Whether a node is in the set.
    pub(crate) fn contains(&self, id: NodeId) -> bool {
        let word = self.words.get(id.index() / BITS).copied().unwrap_or(0);
        word & (1 << (id.index() % BITS)) != 0
    }

    /// Adds all nodes of another set of the same graph.
    pub(crate) fn unite(&mut self, other: &Self) {
        self.combine(other, |a, b| a | b);
    }

    /// Keeps what is in another set of the same graph as well.
    pub(crate) fn intersect(&mut self, other: &Self) {
        self.combine(other, |a, b| a & b);
    }

    /// Takes away what is in another set of the same graph.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a & !b);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word = with(*word, *more);
        }
    }

    /// The nodes in the order of their labels.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < BITS).then(|| NodeId::from_index(at * BITS + bit))
            })
        })
    }

    /// The nodes that a test accepts.
    pub(crate) fn filtered(&self, mut keep: impl FnMut(NodeId) -> bool) -> Self {
        let mut out = Self { words: vec![0; self.words.len()] };
        for id in self.iter().filter(|id| keep(*id)) {
            out.insert(id);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[usize]) -> NodeSet {
        let mut out = NodeSet::empty(200);
        for id in ids {
            assert!(out.insert(NodeId::from_index(*id)), "{id}");
        }
        out
    }

    #[test]
    fn sets_combine() {
        let check = |combine: fn(&mut NodeSet, &NodeSet), expect: &[usize]| {
            let mut left = set(&[0, 63, 64, 199]);
            combine(&mut left, &set(&[63, 65, 199]));
            assert_eq!(left, set(expect));
            assert_eq!(left.iter().map(NodeId::index).collect::<Vec<_>>(), expect);
        };
        check(NodeSet::unite, &[0, 63, 64, 65, 199]);
        check(NodeSet::intersect, &[63, 199]);
        check(NodeSet::subtract, &[0, 64]);
    }

    #[test]
    fn a_node_is_added_once() {
        let mut one = set(&[7]);
        assert!(!one.insert(NodeId::from_index(7)));
        assert!(one.contains(NodeId::from_index(7)) && !one.contains(NodeId::from_index(8)));
        assert!(!one.contains(NodeId::from_index(100_000)));
    }
}
