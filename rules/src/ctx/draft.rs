//! From what an implementation passes to an action of the graph.

use maestro_core::depset::Order;
use maestro_core::{
    ActionClass, ActionSpec, ArtifactId, ExecutionHints, GraphError, How, Item, Output, RelPath,
};
use starlark::values::Value;

use crate::config::host_platform;
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::depset::Depset;
use crate::values::file::FileValue;
use crate::values::target::Target;
use crate::values::{expect_sequence, wrong_type};

/// An action under construction.
pub(crate) struct Draft<'v> {
    pub(crate) mnemonic: String,
    pub(crate) progress: String,
    pub(crate) class: ActionClass,
    pub(crate) how: How,
    /// Depsets and lists of files.
    pub(crate) inputs: Vec<Value<'v>>,
    /// Further files that are read.
    pub(crate) direct: Vec<ArtifactId>,
    pub(crate) toolchains: Vec<ArtifactId>,
    pub(crate) outputs: Vec<(FileValue, bool)>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) hints: ExecutionHints,
    /// The execution group that it is of; the default one where `None`.
    pub(crate) group: Option<String>,
}

impl<'v> Draft<'v> {
    /// A step that Maestro implements itself.
    pub(crate) fn native(kind: &str, request: serde_json::Value, output: &FileValue) -> Self {
        let mut mnemonic = String::new();
        for word in kind.split('-') {
            let mut chars = word.chars();
            mnemonic.extend(chars.next().map(|c| c.to_ascii_uppercase()));
            mnemonic.push_str(chars.as_str());
        }
        Self {
            mnemonic,
            progress: String::new(),
            class: ActionClass::Pure,
            how: How::Native { kind: kind.to_owned(), semantics: SEMANTICS, request },
            inputs: Vec::new(),
            direct: Vec::new(),
            toolchains: Vec::new(),
            outputs: vec![(output.clone(), false)],
            env: Vec::new(),
            timeout_ms: None,
            hints: ExecutionHints::default(),
            group: None,
        }
    }

    /// Adds the action to the graph.
    pub(crate) fn add(self, scope: &RuleScope) -> Result<(), RuleError> {
        let current = scope.current()?;
        let mut graph = scope.graph.borrow_mut();
        let mut direct: Vec<Item> = self.direct.iter().map(|id| Item::Artifact(*id)).collect();
        let mut sets = Vec::new();
        for value in &self.inputs {
            match Depset::from_value(*value) {
                Some(set) => sets.push(set.arena_set(&mut graph.sets)?),
                None => {
                    for item in expect_sequence(*value, "inputs")? {
                        direct.push(Item::Artifact(expect_file(*item, "inputs")?.artifact()));
                    }
                }
            }
        }
        let inputs = graph.sets.add(Order::Postorder, direct, sets);
        let outputs = self.outputs.iter().map(|(file, optional)| {
            check_output(file)?;
            Ok(Output { artifact: file.artifact(), optional: *optional })
        });
        let outputs: Vec<Output> = outputs.collect::<Result<_, RuleError>>()?;
        if outputs.is_empty() {
            return Err(RuleError::new(Code::Action, "an action needs at least one output"));
        }
        let mut toolchains = Vec::new();
        for id in self.toolchains {
            if !toolchains.contains(&id) {
                toolchains.push(id);
            }
        }
        let first = self.outputs.first().map(|(file, _)| file.short_path()).unwrap_or_default();
        let progress = self
            .progress
            .replace("%{label}", &current.label.to_string())
            .replace("%{output}", first);
        let runs_on = match &self.how {
            // What Maestro does itself, it does wherever it is.
            How::Native { .. } | How::Params { .. } => None,
            How::Command { .. } | How::Map(_) => current.platform(self.group.as_deref())?,
        };
        let spec = ActionSpec {
            owner: current.target,
            mnemonic: self.mnemonic,
            progress,
            class: self.class,
            how: self.how,
            inputs,
            toolchains,
            outputs,
            env: self.env,
            platform: runs_on.map(|found| found.properties.clone()).unwrap_or_default(),
            timeout_ms: self.timeout_ms,
            hints: self.hints,
        };
        let id = graph.add_action(spec).map_err(graph_error)?;
        if let Some(found) = runs_on.filter(|found| found.execution_platform != host_platform()) {
            scope.platforms.borrow_mut().insert(id, found.execution_platform.clone());
        }
        Ok(())
    }
}

/// The semantics number of every native step so far; see `docs/design/native-steps.md`.
const SEMANTICS: u32 = 1;

fn check_output(file: &FileValue) -> Result<(), RuleError> {
    if file.is_source() || file.is_toolchain() {
        let message = format!("`{}` is not an output, so no action can make it", file.path());
        return Err(RuleError::new(Code::Action, message)
            .hint("declare outputs with `ctx.actions.declare_file`"));
    }
    Ok(())
}

/// An error of the graph as one of ours.
pub(crate) fn graph_error(error: GraphError) -> RuleError {
    RuleError::new(Code::Action, error.to_string())
}

/// A value that must be a file.
pub(crate) fn expect_file<'v>(
    value: Value<'v>,
    parameter: &str,
) -> Result<&'v FileValue, RuleError> {
    FileValue::from_value(value).ok_or_else(|| {
        let error = wrong_type(parameter, "a file", value);
        match Target::from_value(value) {
            Some(_) => error.hint("a target is not a file; use `ctx.file` or `ctx.files`"),
            None => error,
        }
    })
}

/// Adds what running `program` needs: the file, its runfiles, its toolchains, its variables.
pub(crate) fn add_program(draft: &mut Draft<'_>, scope: &RuleScope, program: &FileValue) {
    draft.direct.push(program.artifact());
    let runnables = scope.runnables.borrow();
    let Some(runnable) = runnables.get(&program.artifact()) else { return };
    draft.direct.extend(runnable.runfiles);
    draft.toolchains.extend(&runnable.toolchains);
    for (name, value) in &runnable.env {
        if !draft.env.iter().any(|(own, _)| own == name) {
            draft.env.push((name.clone(), value.clone()));
        }
    }
}

/// The execution path of an output of the current target.
pub(crate) fn output_path(folder: &str, name: &str) -> Result<RelPath, RuleError> {
    RelPath::new(&format!("{folder}/{name}"))
        .map_err(|e| RuleError::new(Code::Action, e.to_string()))
}
