//! What `maestro test` adds to a build: which tests run, how often, with which arguments.
//!
//! The graph has one action for each shard of a test. Options that change what a test does (a
//! filter, arguments, variables, several runs) make variants of these actions, with outputs of
//! their own, so that each variant is cached by itself and the plain test stays as it was.

pub mod junit;

use maestro_core::graph::Target;
use maestro_core::{
    ActionGraph, ActionId, ActionSpec, Arg, ArtifactId, ArtifactKind, DigestFunction, How, Item,
    Origin, Output, RelPath, TargetId,
};

use crate::args::TestFlags;
use crate::exit::Failure;
use crate::verdicts::COVERAGE_FILE;

/// The sizes that a test can have.
const SIZES: [&str; 4] = ["small", "medium", "large", "enormous"];

/// One action of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What runs.
    pub action: ActionId,
    /// Which run it is, from 1.
    pub run: u32,
    /// Which shard, from 1.
    pub shard: u32,
}

impl TestFlags {
    /// The flags that change what is made, as text.
    pub fn keyed(&self) -> Vec<String> {
        // What is only shown or written is not among them.
        let Self {
            test_filter,
            test_arg,
            test_env,
            runs_per_test,
            test_tag_filters,
            test_size_filters,
            test_output: _,
            junit: _,
            coverage,
        } = self;
        let coverage = coverage.is_some();
        vec![
            format!("test={test_filter:?}{test_arg:?}{test_env:?}{runs_per_test}{coverage}"),
            format!("tests={test_tag_filters:?}{test_size_filters:?}"),
        ]
    }

    /// Refuses variables and sizes that are none.
    pub fn check(&self) -> Result<(), Failure> {
        let no_variable = |text: &&String| {
            let (name, _) = text.split_once('=').unwrap_or(("", ""));
            name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if let Some(text) = self.test_env.iter().find(no_variable) {
            return Err(Failure::input(format!("`--test-env={text}` sets no variable"))
                .hint("write `--test-env=NAME=VALUE`; nothing is taken from your environment"));
        }
        let no_size = |text: &&String| !SIZES.contains(&text.trim_start_matches('-'));
        if let Some(text) = self.test_size_filters.iter().find(no_size) {
            return Err(Failure::input(format!(
                "`--test-size-filters`: there is no size `{text}`"
            ))
            .hint(format!("sizes are {}", SIZES.join(", "))));
        }
        Ok(())
    }

    /// Whether the filters leave a test in. As in Bazel, it needs one of the plain words, if there
    /// are any, and none of those with a `-` before them.
    pub fn selects(&self, target: &Target) -> bool {
        let Some(test) = &target.test else { return true };
        let passes = |filters: &[String], has: &dyn Fn(&str) -> bool| {
            let (out, wanted): (Vec<&String>, Vec<&String>) =
                filters.iter().partition(|filter| filter.starts_with('-'));
            let refused = out.iter().any(|filter| has(filter.trim_start_matches('-')));
            !refused && (wanted.is_empty() || wanted.iter().any(|filter| has(filter)))
        };
        passes(&self.test_tag_filters, &|word| target.tags.iter().any(|tag| tag == word))
            && passes(&self.test_size_filters, &|word| test.size == word)
    }

    /// The actions of a test under these flags; variants are added to the graph.
    pub fn runs(&self, graph: &mut ActionGraph, id: TargetId) -> Result<Vec<TestRun>, Failure> {
        let Some(test) = graph.target(id).test.clone() else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        for run in 1..=self.runs_per_test {
            for (action, shard) in test.actions.iter().zip(1u32..) {
                let action = self.variant(graph, *action, run)?;
                out.push(TestRun { action, run, shard });
            }
        }
        Ok(out)
    }

    fn is_plain(&self) -> bool {
        let Self { test_filter, test_arg, test_env, runs_per_test, coverage, .. } = self;
        let as_always = test_filter.is_none() && test_arg.is_empty() && test_env.is_empty();
        as_always && *runs_per_test == 1 && coverage.is_none()
    }

    /// The folder that tells the files of a variant from those of others; none for plain tests.
    pub fn variant_folder(&self) -> Option<String> {
        let Self { test_filter, test_arg, test_env, coverage, .. } = self;
        let coverage = coverage.is_some();
        let text = format!("{test_filter:?}{test_arg:?}{test_env:?}{coverage}");
        let digest = || DigestFunction::Sha256.digest(text.as_bytes()).short().to_string();
        (!self.is_plain()).then(digest)
    }

    fn variant_name(&self, run: u32) -> String {
        let runs_per_test = self.runs_per_test;
        let digest = self.variant_folder().unwrap_or_default();
        match runs_per_test {
            1 => digest,
            _ => format!("{digest}/run_{run}_of_{runs_per_test}"),
        }
    }

    fn variant(
        &self,
        graph: &mut ActionGraph,
        plain: ActionId,
        run: u32,
    ) -> Result<ActionId, Failure> {
        if self.is_plain() {
            return Ok(plain);
        }
        let bad = |error: &dyn std::fmt::Display| Failure::input(error.to_string());
        let mut spec: ActionSpec = graph.action(plain);
        let name = self.variant_name(run);
        let mut moved: Vec<(ArtifactId, ArtifactId)> = Vec::new();
        for Output { artifact, optional: _ } in &mut spec.outputs {
            let old = graph.artifact(*artifact);
            let (kind, folder) = (old.kind, old.path.parent());
            let folder = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
            let path = RelPath::new(&format!("{folder}{name}/{}", old.path.name()));
            let path = path.map_err(|error| bad(&error))?;
            if let Some(made) = graph.artifact_at(&path)
                && let Origin::Action(Some(action)) = graph.artifact(made).origin
            {
                return Ok(action); // the graph remembers the variant from an earlier build
            }
            let new = graph.declare_output(path, kind, spec.owner).map_err(|error| bad(&error))?;
            moved.push((*artifact, new));
            *artifact = new;
        }
        if let How::Command { argv } = &mut spec.how {
            rename(argv, &moved);
            let text = |text: &String| Arg::One(vec![Item::Text(text.as_str().into())]);
            argv.extend(self.test_arg.iter().map(text));
        }
        if let (Some(_), Some((_, output))) = (&self.coverage, moved.first()) {
            let folder = graph.artifact(*output).path.parent();
            let path = folder.map(|folder| format!("{folder}/{COVERAGE_FILE}")).unwrap_or_default();
            let path = RelPath::new(&path).map_err(|error| bad(&error))?;
            let artifact = graph.declare_output(path, ArtifactKind::File, spec.owner);
            let artifact = artifact.map_err(|error| bad(&error))?;
            spec.outputs.push(Output { artifact, optional: true });
        }
        self.set_variables(&mut spec.env, run);
        graph.add_action(spec).map_err(|error| bad(&error))
    }

    fn set_variables(&self, env: &mut Vec<(String, String)>, run: u32) {
        let mut set = |name: &str, value: &str| {
            env.retain(|(own, _)| own != name);
            env.push((name.to_owned(), value.to_owned()));
        };
        for (name, value) in self.test_env.iter().filter_map(|text| text.split_once('=')) {
            set(name, value);
        }
        if let Some(filter) = &self.test_filter {
            set("TESTBRIDGE_TEST_ONLY", filter);
        }
        if self.runs_per_test > 1 {
            set("TEST_RUN_NUMBER", &run.to_string());
        }
        if self.coverage.is_some() {
            set("COVERAGE", "1");
        }
    }
}

/// Puts the outputs of a variant in the place of those of the plain test.
fn rename(argv: &mut [Arg], moved: &[(ArtifactId, ArtifactId)]) {
    for arg in argv {
        let Arg::One(items) = arg else { continue };
        for item in items {
            if let Item::Artifact(id) = item
                && let Some((_, new)) = moved.iter().find(|(old, _)| old == id)
            {
                *id = *new;
            }
        }
    }
}
