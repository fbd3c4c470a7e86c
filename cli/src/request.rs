//! What the user asked for, and what that comes to.

use maestro_core::{ArtifactId, Label, TargetId};

use crate::args::{BuildOptions, TestFlags};
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
