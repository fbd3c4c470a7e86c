//! Sets that share structure: a node has direct items and other sets, and is flattened only late.
//!
//! The arena owns every node; a [`SetId`] is valid for the arena that made it.
//! A set can only name sets that exist already, so there are no cycles by construction.

use serde::{Deserialize, Serialize};

use crate::action::Item;
use crate::graph::layer::Layer;
use crate::graph::stored::Stored;

/// Names a set of a [`SetArena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetId(u32);

impl SetId {
    /// The position in the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The id at a position; valid only for an arena that has it.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than 2^32 sets fit in memory"))
    }
}

/// The order in which a set is flattened; the first occurrence of an item counts,
/// except in [`Order::Topological`], where the last does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// Sets first, then direct items (Bazel's `default` and `postorder`).
    #[default]
    Postorder,
    /// Direct items first, then sets.
    Preorder,
    /// An item comes before those of the sets below it.
    Topological,
}

/// One set: what it names itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetNode {
    /// How it is flattened.
    pub order: Order,
    /// Its own items.
    pub direct: Box<[Item]>,
    /// The sets in it.
    pub transitive: Box<[SetId]>,
}

/// Owns sets of items.
#[derive(Debug, Default)]
pub struct SetArena {
    stored: Option<Stored>,
    nodes: Layer<SetNode>,
    /// Sets of one artifact alone, in the usual order, by the index of the artifact. Every file is
    /// such a set to those who depend on it.
    singles: Vec<Option<SetId>>,
}

impl SetArena {
    /// Adds a set. An empty one, one that only wraps another in the same order, and one of the same
    /// single artifact as another cost nothing.
    pub fn add(&mut self, order: Order, direct: Vec<Item>, transitive: Vec<SetId>) -> SetId {
        let transitive: Vec<SetId> =
            transitive.into_iter().filter(|set| !self.is_empty(*set)).collect();
        if let ([], [only]) = (direct.as_slice(), transitive.as_slice())
            && self.node(*only).order == order
        {
            return *only;
        }
        let single = match (order, direct.as_slice(), transitive.as_slice()) {
            (Order::Postorder, [Item::Artifact(artifact)], []) => Some(artifact.index()),
            _ => None,
        };
        if let Some(known) = single.and_then(|at| self.singles.get(at).copied().flatten()) {
            return known;
        }
        let node = SetNode { order, direct: direct.into(), transitive: transitive.into() };
        let id = SetId::from_index(self.nodes.push(node));
        if let Some(at) = single {
            self.singles.resize(self.singles.len().max(at + 1), None);
            if let Some(slot) = self.singles.get_mut(at) {
                *slot = Some(id);
            }
        }
        id
    }

    /// The sets of an opened graph, and those that were added to it later.
    pub(crate) fn over(stored: Stored, added: Vec<SetNode>) -> Self {
        let mut nodes = Layer::over(stored.set_count());
        for node in added {
            nodes.push(node);
        }
        Self { stored: Some(stored), nodes, singles: Vec::new() }
    }

    /// How many sets there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The sets that are not stored, in the order of their ids.
    pub(crate) fn added(&self) -> impl Iterator<Item = (SetId, &SetNode)> {
        let ids = (self.nodes.base_len()..self.nodes.len()).map(SetId::from_index);
        ids.map(|id| (id, self.node(id)))
    }

    /// Whether the set has no item at all.
    pub fn is_empty(&self, set: SetId) -> bool {
        let node = self.node(set);
        node.direct.is_empty() && node.transitive.is_empty()
    }

    /// The items of a set, each once, in the set's order.
    pub fn flatten(&self, set: SetId) -> Vec<&Item> {
        let order = self.node(set).order;
        let mut seen_sets = std::collections::HashSet::new();
        let mut seen = std::collections::HashSet::new();
        let mut out = Vec::new();
        // Each frame is a set and how far its children are visited.
        let mut stack = vec![(set, 0usize)];
        seen_sets.insert(set);
        while let Some((id, child)) = stack.pop() {
            let node = self.node(id);
            if child == 0 && order == Order::Preorder {
                out.extend(node.direct.iter().filter(|item| seen.insert(*item)));
            }
            let next = match order {
                Order::Topological => node.transitive.iter().rev().nth(child),
                Order::Preorder | Order::Postorder => node.transitive.get(child),
            };
            match next {
                Some(next) => {
                    stack.push((id, child + 1));
                    if seen_sets.insert(*next) {
                        stack.push((*next, 0));
                    }
                }
                None if order == Order::Postorder => {
                    out.extend(node.direct.iter().filter(|item| seen.insert(*item)));
                }
                None if order == Order::Topological => {
                    out.extend(node.direct.iter().rev().filter(|item| seen.insert(*item)));
                }
                None => {}
            }
        }
        if order == Order::Topological {
            out.reverse();
        }
        out
    }

    /// What a set names itself.
    pub fn node(&self, set: SetId) -> &SetNode {
        let decode = || self.stored.as_ref().expect("stored ids have a store").set(set);
        self.nodes.get(set.index(), decode).expect("a set id comes from this arena")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ArtifactId;

    fn flat(order: Order) -> String {
        let text = |s: &str| Item::Text(s.into());
        let mut arena = SetArena::default();
        let d = arena.add(order, vec![text("d")], vec![]);
        let b = arena.add(order, vec![text("b")], vec![d]);
        let c = arena.add(order, vec![text("c")], vec![d]);
        let a = arena.add(order, vec![text("a"), text("d2")], vec![b, c]);
        let items = arena.flatten(a);
        items.iter().map(|i| i.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn diamonds_flatten_in_each_order() {
        assert_eq!(flat(Order::Postorder), "d b c a d2");
        assert_eq!(flat(Order::Preorder), "a d2 b d c");
        assert_eq!(flat(Order::Topological), "a d2 b c d");
    }

    #[test]
    fn deep_sets_do_not_overflow_the_stack() {
        let mut arena = SetArena::default();
        let mut set = arena.add(Order::Postorder, vec![], vec![]);
        for i in 0..200_000 {
            set = arena.add(Order::Postorder, vec![Item::Text(i.to_string().into())], vec![set]);
        }
        assert_eq!(arena.flatten(set).len(), 200_000);
    }

    #[test]
    fn wrapping_is_free() {
        let mut arena = SetArena::default();
        let empty = arena.add(Order::Postorder, vec![], vec![]);
        let one = arena.add(Order::Postorder, vec![Item::Text("x".into())], vec![empty]);
        assert_eq!(arena.add(Order::Postorder, vec![], vec![one, empty]), one);
    }

    #[test]
    fn a_file_alone_is_one_set() {
        let mut arena = SetArena::default();
        let file = |index| Item::Artifact(ArtifactId::from_index(index));
        let seven = arena.add(Order::Postorder, vec![file(7)], vec![]);
        let three = arena.add(Order::Postorder, vec![file(3)], vec![]);
        assert_eq!(arena.add(Order::Postorder, vec![file(7)], vec![]), seven);
        assert_eq!(arena.add(Order::Postorder, vec![file(3)], vec![]), three);
        assert_ne!(arena.add(Order::Preorder, vec![file(7)], vec![]), seven);
        assert_ne!(arena.add(Order::Postorder, vec![file(7)], vec![three]), seven);
        assert_eq!(arena.flatten(seven), [&file(7)]);
    }
}
