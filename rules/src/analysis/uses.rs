//! How long the value of a target is needed: until the last node that uses it was looked at.
//!
//! The values of a large graph are most of what its analysis holds, and nearly all of them are
//! asked for only by what stands right above. Where that may not be so, there are no counts, and
//! every value is kept: an evaluation with memory comes back to targets, and an aspect looks at
//! what its target depends on.

use crate::configured::{ConfiguredGraph, NodeId};

/// For each node, how many nodes that are still to be looked at use its value.
pub(super) struct Uses(Vec<u32>);

impl Uses {
    /// Counts the uses by all nodes of a graph.
    pub(super) fn count(configured: &ConfiguredGraph) -> Self {
        let mut counts = vec![0; configured.node_count()];
        for user in configured.order() {
            for owner in configured.owners(*user) {
                if let Some(count) = counts.get_mut(owner.index()) {
                    *count += 1;
                }
            }
        }
        Self(counts)
    }

    /// A node was looked at: which values nobody uses any more.
    pub(super) fn release(&mut self, configured: &ConfiguredGraph, user: NodeId) -> Vec<NodeId> {
        let mut unused = Vec::new();
        if self.0.get(user.index()) == Some(&0) {
            unused.push(user);
        }
        for owner in configured.owners(user) {
            let Some(count) = self.0.get_mut(owner.index()) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                unused.push(owner);
            }
        }
        unused
    }
}
