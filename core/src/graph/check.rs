//! What makes a graph well formed, and how it is said where it is not.

use petgraph::graph::{DiGraph, NodeIndex};

use super::{ActionGraph, ActionId, ArtifactId, Declared};
use crate::action::Origin;
use crate::label::Label;
use crate::path::RelPath;

/// Why a graph is not well formed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// Two actions declare the same output.
    #[error("`{path}` is an output of both {first} and {second}")]
    DuplicateOutput {
        /// The output.
        path: RelPath,
        /// Who declared it first, as [`Target::title`] has it.
        first: String,
        /// Who declared it again.
        second: String,
    },
    /// One output lies inside another.
    #[error("output `{inner}` of `{inner_owner}` lies inside output `{outer}` of `{outer_owner}`")]
    PrefixConflict {
        /// The output that would have to be a folder.
        outer: RelPath,
        /// Its owner.
        outer_owner: Label,
        /// The output below it.
        inner: RelPath,
        /// Its owner.
        inner_owner: Label,
    },
    /// An output was declared but no action makes it.
    #[error("no action makes the declared output `{path}` of `{owner}`")]
    NotMade {
        /// The output.
        path: RelPath,
        /// Who declared it.
        owner: Label,
    },
    /// Actions depend on each other in a circle.
    #[error("actions depend on each other in a cycle:\n{}", cycle_text(.steps))]
    Cycle {
        /// The steps, each as (owner, where it was declared, an output), the first one again last.
        steps: Vec<(Label, String, RelPath)>,
    },
}

fn cycle_text(steps: &[(Label, String, RelPath)]) -> String {
    let lines: Vec<String> = steps
        .iter()
        .map(|(label, location, path)| format!("  `{path}` of `{label}` ({location}) needs"))
        .collect();
    lines.join("\n")
}

impl ActionGraph {
    /// Checks what is not stored; the rest was checked before it was.
    pub(super) fn check_outputs(&self) -> Result<(), GraphError> {
        for index in self.artifacts.changes() {
            let Some(Declared { artifact, owner }) = self.artifacts.changed(index) else {
                continue;
            };
            let (Origin::Action(made), Some(owner)) = (&artifact.origin, owner) else { continue };
            if made.is_none() {
                let path = artifact.path.clone();
                return Err(GraphError::NotMade { path, owner: self.target(*owner).label.clone() });
            }
            let id = ArtifactId::from_index(index);
            let mut above = artifact.path.parent();
            while let Some(path) = above {
                if let Some(outer) = self.artifact_at(&path).filter(|outer| self.is_output(*outer))
                {
                    return Err(self.prefix_conflict(outer, id));
                }
                above = path.parent();
            }
            let stored = self.stored.iter();
            let mut below = stored.flat_map(|s| s.artifacts_below(artifact.path.as_str()));
            if let Some(inner) = below.find(|inner| self.is_output(*inner)) {
                return Err(self.prefix_conflict(id, inner));
            }
        }
        Ok(())
    }

    fn prefix_conflict(&self, outer: ArtifactId, inner: ArtifactId) -> GraphError {
        let label = |id| {
            let owner = self.owner(id).expect("an output has an owner");
            self.target(owner).label.clone()
        };
        GraphError::PrefixConflict {
            outer: self.artifact(outer).path.clone(),
            outer_owner: label(outer),
            inner: self.artifact(inner).path.clone(),
            inner_owner: label(inner),
        }
    }

    /// Whether somebody declares an artifact as an output.
    fn is_output(&self, id: ArtifactId) -> bool {
        self.owner(id).is_some()
    }

    pub(super) fn describe_cycle(&self, dag: &DiGraph<ActionId, ()>) -> GraphError {
        let component = petgraph::algo::tarjan_scc(dag)
            .into_iter()
            .find(|c| c.len() > 1 || c.first().is_some_and(|n| dag.contains_edge(*n, *n)))
            .unwrap_or_default();
        let members: std::collections::HashSet<NodeIndex> = component.iter().copied().collect();
        // Walk inside the component until a node repeats; what lies between is one cycle.
        let mut walk: Vec<NodeIndex> = Vec::new();
        let mut next = component.first().copied();
        while let Some(node) = next {
            if let Some(start) = walk.iter().position(|n| *n == node) {
                walk.drain(..start);
                walk.push(node);
                break;
            }
            walk.push(node);
            next = dag
                .neighbors_directed(node, petgraph::Direction::Incoming)
                .find(|n| members.contains(n));
        }
        let steps = walk.into_iter().filter_map(|node| {
            let spec = self.action(*dag.node_weight(node)?);
            let target = self.target(spec.owner);
            let output = self.artifact(spec.outputs.first()?.artifact);
            Some((target.label.clone(), target.location.clone(), output.path.clone()))
        });
        GraphError::Cycle { steps: steps.collect() }
    }
}
