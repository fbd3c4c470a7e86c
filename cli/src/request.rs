//! What the user asked for, and what that comes to.

use std::collections::HashMap;

use maestro_core::{ActionGraph, ArtifactId, Label, Target, TargetId};
use maestro_executor::workspace::snapshot::RequestRecord;

use crate::args::{BuildOptions, TestFlags};
use crate::increment::Known;
use crate::output_groups::OutputGroups;
use crate::testing::TestRun;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The command's name.
    pub command: &'static str,
    /// Target patterns as given.
    pub patterns: Vec<String>,
    /// How to build.
    pub options: BuildOptions,
    /// How tests are run, where they are.
    pub tests: Option<TestFlags>,
    /// Groups of outputs, as given.
    pub output_groups: Vec<String>,
    /// Further options that change what is made, as text: they tell snapshots apart.
    pub further: Vec<String>,
}

impl Request {
    /// A request without tests or anything else that is special.
    pub fn plain(command: &'static str, patterns: Vec<String>, options: BuildOptions) -> Self {
        let (output_groups, further) = (Vec::new(), Vec::new());
        Self { command, patterns, options, tests: None, output_groups, further }
    }
}

/// A target with the artifacts of it that are to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its label.
    pub label: Label,
    /// The aspect, where it stands for what one makes on the target of the label.
    pub aspect: Option<String>,
    /// The target.
    pub target: TargetId,
    /// What to make.
    pub artifacts: Vec<ArtifactId>,
    /// The actions of its test, where tests run.
    pub runs: Vec<TestRun>,
}

/// All that a build is to make.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The targets that were asked for, and aspects on them.
    pub targets: Vec<TargetId>,
    /// How many of them are targets.
    pub count: usize,
    /// What to make of them, sorted, each once.
    pub artifacts: Vec<ArtifactId>,
    /// The targets one by one; none where nobody is told of each of them.
    pub wanted: Vec<Wanted>,
}

impl Goal {
    /// The goal of a request for so many targets that nobody is told of each of them.
    pub fn of_many(graph: &ActionGraph, targets: &[TargetId], groups: &OutputGroups) -> Self {
        let wanted = targets.iter().map(|id| groups.artifacts(graph.target(*id)));
        let mut artifacts: Vec<ArtifactId> = wanted.flatten().collect();
        artifacts.sort_unstable();
        artifacts.dedup();
        let targets = targets.to_vec();
        Self { count: count(graph, &targets), targets, artifacts, wanted: Vec::new() }
    }
}

/// How many of some targets are not aspects on others.
pub fn count(graph: &ActionGraph, targets: &[TargetId]) -> usize {
    targets.iter().filter(|id| graph.target(**id).aspect.is_none()).count()
}

impl From<Vec<Wanted>> for Goal {
    fn from(wanted: Vec<Wanted>) -> Self {
        let mut artifacts: Vec<ArtifactId> = Vec::new();
        for want in &wanted {
            artifacts.extend(&want.artifacts);
        }
        artifacts.sort_unstable();
        artifacts.dedup();
        let targets = wanted.iter().map(|want| want.target).collect();
        let count = wanted.iter().filter(|want| want.aspect.is_none()).count();
        Self { targets, count, artifacts, wanted }
    }
}

impl Known {
    /// What the request comes to, if that can be told from what it came to before: all of it was
    /// made, it names the same targets, and none of them wants less than it did.
    pub fn goal(
        &self,
        graph: &ActionGraph,
        requested: &[TargetId],
        groups: &OutputGroups,
    ) -> Option<Goal> {
        let RequestRecord { complete, artifacts, targets, .. } = &self.record;
        let former = self.former.as_ref().filter(|_| *complete && requested == targets)?;
        let mut artifacts = artifacts.clone();
        let before: HashMap<TargetId, &Target> =
            former.iter().map(|(id, own)| (*id, own)).collect();
        let is_former = |id: &&TargetId| !before.is_empty() && before.contains_key(id);
        for id in requested.iter().filter(is_former) {
            let now = groups.artifacts(graph.target(*id));
            let before = before.get(id).map(|target| groups.artifacts(target));
            // What one wants no more, others may still want.
            before?.iter().all(|artifact| now.contains(artifact)).then_some(())?;
            artifacts.extend(now);
        }
        artifacts.sort_unstable();
        artifacts.dedup();
        let (targets, count) = (targets.clone(), self.remembered()?.targets);
        Some(Goal { targets, count, artifacts, wanted: Vec::new() })
    }
}
