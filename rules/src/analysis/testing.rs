//! Tests: the actions whose success is a test's, one for each shard.

use maestro_core::graph::{Executable, TestTarget};
use maestro_core::{
    ActionClass, ActionId, Arg, ArtifactId, ArtifactKind, ExecutionHints, How, Item,
};
use starlark::values::Heap;

use super::Analyzer;
use crate::attr::AttrValue;
use crate::configured::Via;
use crate::ctx::actions::declare;
use crate::ctx::draft::Draft;
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::values::file::FileValue;
use crate::values::provider::{ProviderInstance, builtins};
use crate::values::target::Target;

/// Starts a test in its runfiles: `$1` runfiles, `$2` program below `main`, `$3` XML, `$4` outputs.
const TEST_SCRIPT: &str = r#"set -eu
export TEST_SRCDIR="$PWD/$1" RUNFILES_DIR="$PWD/$1" TEST_WORKSPACE=main
export TEST_TMPDIR=/tmp/test XML_OUTPUT_FILE="$PWD/$3" TEST_UNDECLARED_OUTPUTS_DIR="$PWD/$4"
mkdir -p "$TEST_TMPDIR" "${XML_OUTPUT_FILE%/*}" "$TEST_UNDECLARED_OUTPUTS_DIR"
if [ -n "${COVERAGE:-}" ]; then
  export COVERAGE_OUTPUT_FILE="${XML_OUTPUT_FILE%/*}/coverage.dat"
  export COVERAGE_DIR="${XML_OUTPUT_FILE%/*}/coverage" && mkdir -p "$COVERAGE_DIR"
fi
cd "$1/main"
program=./$2
shift 4
exec "$program" "$@""#;

/// The end of the script for a shard: a program that does not know of shards would run every test
/// in each of them, so it has to say that it does, by touching the status file.
const SHARD_END: &str = r#"export TEST_SHARD_STATUS_FILE="${XML_OUTPUT_FILE%/*}/shard-status"
"$program" "$@"
if ! [ -e "$TEST_SHARD_STATUS_FILE" ]; then
  echo "the test has \`shard_count\`, but its runner knows nothing of shards: it did not touch TEST_SHARD_STATUS_FILE" >&2
  exit 1
fi"#;

/// The execution group in which tests run, where their rule declares it, as in Bazel.
const TEST_GROUP: &str = "test";

/// Most shards of a test, as in Bazel.
const SHARDS_MAX: i32 = 50;
/// How often a flaky test is tried, as in Bazel.
const FLAKY_ATTEMPTS: u32 = 3;

impl Analyzer<'_, '_> {
    /// Adds the actions whose success is the test's.
    pub(super) fn test(
        &self,
        decl: &TargetDecl,
        program: &FileValue,
        executable: &Executable,
        heap: Heap<'_>,
    ) -> Result<TestTarget, RuleError> {
        let Some(runfiles) = executable.runfiles else {
            let message = format!("test `{}` must be an output, not a source", program.path());
            return Err(RuleError::new(Code::Implementation, message));
        };
        let size = decl.strings("size").into_iter().next().unwrap_or_default();
        let timeout = decl.strings("timeout").into_iter().next().unwrap_or_default();
        let tags = decl.strings("tags");
        let mut toolchains = self.toolchains_of(program);
        toolchains.extend(self.test_toolchain(heap)?);
        let shards = shard_count(decl)?;
        let group = self.scope.current()?.has_group(TEST_GROUP).then(|| TEST_GROUP.to_owned());
        let mut actions = Vec::new();
        for shard in 0..shards.max(1) {
            let folder = format!("{}/{}.test", self.scope.current()?.out_dir(), decl.label.name);
            let folder = match shards {
                0 => folder,
                _ => format!("{folder}/shard_{}_of_{shards}", shard + 1),
            };
            let xml = declare(&self.scope, &folder, "test.xml", ArtifactKind::File)?;
            let extra = declare(&self.scope, &folder, "outputs", ArtifactKind::Tree)?;
            let mut env = executable.env.clone();
            if shards > 0 {
                env.push(("TEST_SHARD_INDEX".to_owned(), shard.to_string()));
                env.push(("TEST_TOTAL_SHARDS".to_owned(), shards.to_string()));
            }
            let command = TestCommand { program, runfiles, xml: &xml, extra: &extra };
            let draft = Draft {
                mnemonic: "Test".to_owned(),
                progress: "Testing %{label}".to_owned(),
                class: ActionClass::Pure,
                how: How::Command { argv: command.argv(shards > 0, &executable.args) },
                inputs: Vec::new(),
                direct: vec![runfiles],
                toolchains: toolchains.clone(),
                outputs: vec![(xml, true), (extra, true)],
                env,
                timeout_ms: Some(timeout_ms(&size, &timeout)),
                hints: ExecutionHints {
                    test: true,
                    attempts: if is_set(decl, "flaky") { FLAKY_ATTEMPTS } else { 1 },
                    exclusive: tags.iter().any(|tag| tag == "exclusive"),
                    ..ExecutionHints::default()
                },
                group: group.clone(),
            };
            draft.add(&self.scope)?;
            let last = self.scope.graph.borrow().action_count() - 1;
            actions.push(ActionId::from_index(last));
        }
        Ok(TestTarget { actions, size })
    }

    fn toolchains_of(&self, program: &FileValue) -> Vec<ArtifactId> {
        let runnables = self.scope.runnables.borrow();
        runnables.get(&program.artifact()).map(|r| r.toolchains.clone()).unwrap_or_default()
    }

    /// The toolchain with the shell that starts tests.
    fn test_toolchain(&self, heap: Heap<'_>) -> Result<Option<ArtifactId>, RuleError> {
        let Some(node) = self.edges_of(Via::TestToolchain).next() else { return Ok(None) };
        let value = self.target_value(node, heap)?;
        let info = Target::from_value(value)
            .and_then(|target| target.provider(&builtins().toolchain.ty))
            .and_then(ProviderInstance::from_value);
        let tree = info.and_then(|info| info.field("toolchain")).and_then(FileValue::from_value);
        Ok(tree.map(FileValue::artifact))
    }
}

/// What the command of a test names.
struct TestCommand<'a> {
    program: &'a FileValue,
    runfiles: ArtifactId,
    xml: &'a FileValue,
    extra: &'a FileValue,
}

impl TestCommand<'_> {
    fn argv(&self, shard: bool, args: &[String]) -> Vec<Arg> {
        let text = |text: &str| Arg::One(vec![Item::Text(text.into())]);
        let path = |id: ArtifactId| Arg::One(vec![Item::Artifact(id)]);
        let inside = self.program.runfiles_path();
        let inside = match inside.strip_prefix("main/") {
            Some(rest) => rest.to_owned(),
            None => format!("../{inside}"),
        };
        let script = match shard {
            false => TEST_SCRIPT.to_owned(),
            true => TEST_SCRIPT.replace("exec \"$program\" \"$@\"", SHARD_END),
        };
        let mut argv = vec![
            text("/bin/bash"),
            text("-c"),
            text(&script),
            text("test"),
            path(self.runfiles),
            text(&inside),
            path(self.xml.artifact()),
            path(self.extra.artifact()),
        ];
        argv.extend(args.iter().map(|arg| text(arg)));
        argv
    }
}

fn is_set(decl: &TargetDecl, name: &str) -> bool {
    decl.attr(name) == Some(&AttrValue::Bool(true))
}

/// How many shards a test has; none where it is not split.
fn shard_count(decl: &TargetDecl) -> Result<i32, RuleError> {
    let count = match decl.attr("shard_count") {
        Some(AttrValue::Int(count)) => *count,
        _ => 0,
    };
    if (0..=SHARDS_MAX).contains(&count) {
        return Ok(count);
    }
    let message = format!("`shard_count` must be from 0 to {SHARDS_MAX}, not {count}");
    Err(RuleError::new(Code::Attribute, message))
}

/// How long a test may run: as its `timeout` says, else as its `size` does.
fn timeout_ms(size: &str, timeout: &str) -> u64 {
    let seconds = match (timeout, size) {
        ("short", _) | ("", "small") => 60,
        ("long", _) | ("", "large") => 900,
        ("eternal", _) | ("", "enormous") => 3600,
        _ => 300,
    };
    seconds * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_size_unless_said() {
        assert_eq!(timeout_ms("small", ""), 60_000);
        assert_eq!(timeout_ms("medium", ""), 300_000);
        assert_eq!(timeout_ms("large", ""), 900_000);
        assert_eq!(timeout_ms("enormous", ""), 3_600_000);
        assert_eq!(timeout_ms("enormous", "short"), 60_000);
        assert_eq!(timeout_ms("small", "moderate"), 300_000);
    }
}
