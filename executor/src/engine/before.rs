//! What an earlier build left, and how far it still holds: the reason why a build costs what was
//! changed and not what there is.

use std::collections::HashSet;

use maestro_core::graph::ActionSet;
use maestro_core::{ActionGraph, ArtifactId};

use crate::workspace::snapshot::Results;

/// The results of an earlier build of the same graph.
///
/// Invariant: whoever reads an edited source or an output of a dirty action is dirty.
#[derive(Debug)]
pub struct Before<'a> {
    /// What stood at each artifact.
    pub results: &'a Results,
    /// Actions that must be looked at; the results of all others hold.
    pub dirty: ActionSet,
    /// Dirty actions that have no result for the inputs that they had: they are keyed again even
    /// where these are the same.
    pub redo: ActionSet,
    /// Sources with other content than before.
    pub edited: HashSet<ArtifactId>,
}

impl Before<'_> {
    /// Whether what stood at an artifact still does, as far as can be told without any work.
    pub fn holds(&self, graph: &ActionGraph, artifact: ArtifactId) -> bool {
        match graph.producer(artifact) {
            Some(action) => !self.dirty.contains(action),
            None => !self.edited.contains(&artifact),
        }
    }
}
