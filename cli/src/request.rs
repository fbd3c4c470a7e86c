//! What the user asked for, and what that comes to.

use maestro_core::{ActionGraph, ArtifactId, Label, TargetId};

use crate::args::{BuildOptions, TestFlags};
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
