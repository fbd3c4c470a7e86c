//! `ctx.actions`: files to be made, and the commands that make them.

mod hosts;
mod map;

use std::fmt;

use allocative::Allocative;
use maestro_core::{Arg, ArtifactKind, ExecutionHints, How, Item};
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::none::NoneType;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};

use self::hosts::Hosts;
use super::draft::{Draft, add_program, expect_file, graph_error, output_path};
use super::native::native_methods;
use super::string_dict;
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::args::Args;
use crate::values::depset::{Depset, Unfold};
use crate::values::file::{FileOrigin, FileValue};
use crate::values::provider::{ProviderInstance, builtins, is_instance};
use crate::values::target::Target;
use crate::values::{expect_sequence, wrong_type};

/// The object behind `ctx.actions`; the target is the one under analysis.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct Actions;

starlark_simple_value!(Actions);

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<ctx.actions>")
    }
}

starlark::methods_static!(
    ACTION_METHODS = |builder| {
        command_methods(builder);
        map::map_methods(builder);
        native_methods(builder);
    }
);

#[starlark_value(type = "actions")]
impl<'v> StarlarkValue<'v> for Actions {
    fn get_methods() -> Option<&'static Methods> {
        Some(ACTION_METHODS.methods())
    }
}

/// Declares an output of the target under analysis.
pub(crate) fn declare(
    scope: &RuleScope,
    folder: &str,
    name: &str,
    kind: ArtifactKind,
) -> Result<FileValue, RuleError> {
    let current = scope.current()?;
    let path = output_path(folder, name)?;
    let mut graph = scope.graph.borrow_mut();
    let id = graph.declare_output(path.clone(), kind, current.target).map_err(graph_error)?;
    Ok(FileValue::new(id, path, kind, FileOrigin::Output, current.label))
}

fn declare_beside<'v>(
    eval: &Evaluator<'v, '_, '_>,
    name: &str,
    sibling: Option<Value<'v>>,
    kind: ArtifactKind,
) -> starlark::Result<FileValue> {
    let scope = RuleScope::of(eval)?;
    let folder = match sibling.filter(|value| !value.is_none()) {
        None => scope.current()?.out_dir(),
        Some(value) => {
            let sibling = expect_file(value, "sibling")?;
            if sibling.is_source() {
                let message = "`sibling` must be an output";
                return RuleError::new(Code::Action, message).raise();
            }
            sibling.path().parent().map(|p| p.to_string()).unwrap_or_default()
        }
    };
    Ok(declare(scope, &folder, name, kind)?)
}

/// What `run` and `run_shell` have in common.
struct Request<'v, 'a> {
    outputs: Value<'v>,
    optional_outputs: Option<Value<'v>>,
    inputs: Option<Value<'v>>,
    tools: Option<Value<'v>>,
    arguments: Option<Value<'v>>,
    env: Option<Value<'v>>,
    mnemonic: &'a str,
    progress_message: &'a str,
    toolchains: Option<Value<'v>>,
    timeout: Option<i32>,
    cpu: i32,
    memory_mb: i32,
    hosts: Hosts<'v>,
    exec_group: Option<Value<'v>>,
}

impl<'v> Request<'v, '_> {
    fn draft(
        self,
        eval: &mut Evaluator<'v, '_, '_>,
        mut argv: Vec<Arg>,
    ) -> starlark::Result<Draft<'v>> {
        let mut hints = hints(self.cpu, self.memory_mb)?;
        self.hosts.apply(self.inputs, &mut hints, eval)?;
        let scope = RuleScope::of(eval)?;
        let unfold = Unfold::of(eval);
        let given = |value: Option<Value<'v>>| value.filter(|value| !value.is_none());
        if let Some(value) = given(self.arguments) {
            for item in expect_sequence(value, "arguments")? {
                argv.extend(argument(*item)?);
            }
        }
        let mut outputs = Vec::new();
        for value in expect_sequence(self.outputs, "outputs")? {
            outputs.push((expect_file(*value, "outputs")?.clone(), false));
        }
        if let Some(value) = given(self.optional_outputs) {
            for value in expect_sequence(value, "optional_outputs")? {
                outputs.push((expect_file(*value, "optional_outputs")?.clone(), true));
            }
        }
        let env = match given(self.env) {
            None => Vec::new(),
            Some(value) => string_dict(value, "env")?,
        };
        check_environment(&env)?;
        let group = match given(self.exec_group) {
            None => None,
            Some(value) => match value.unpack_str() {
                Some(name) => Some(name.to_owned()),
                None => return wrong_type("exec_group", "the name of a group", value).raise(),
            },
        };
        let mut draft = Draft {
            mnemonic: check_mnemonic(self.mnemonic)?,
            progress: self.progress_message.to_owned(),
            class: maestro_core::ActionClass::Pure,
            how: How::Command { argv },
            inputs: given(self.inputs).into_iter().collect(),
            direct: Vec::new(),
            toolchains: unpack_toolchains(given(self.toolchains))?,
            outputs,
            env,
            timeout_ms: timeout_ms(self.timeout)?,
            hints,
            group,
        };
        if let Some(value) = given(self.tools) {
            for program in unpack_tools(value, unfold)? {
                add_program(&mut draft, scope, &program);
            }
        }
        Ok(draft)
    }
}

fn argument(value: Value<'_>) -> Result<Vec<Arg>, RuleError> {
    if let Some(args) = Args::from_value(value) {
        return Ok(args.to_args());
    }
    match value.unpack_str() {
        Some(text) => Ok(vec![Arg::One(vec![Item::Text(text.into())])]),
        None => Err(wrong_type("arguments", "a list of strings and `args()`", value)
            .hint("pass files through `args = ctx.actions.args()`")),
    }
}

fn unpack_tools<'v>(value: Value<'v>, unfold: Unfold<'v, '_>) -> Result<Vec<FileValue>, RuleError> {
    let items = match Depset::from_value(value) {
        Some(set) => set.items(unfold)?,
        None => expect_sequence(value, "tools")?.to_vec(),
    };
    let mut out = Vec::new();
    for item in items {
        match Target::from_value(item) {
            Some(target) => {
                let program = target.default_field("executable").and_then(FileValue::from_value);
                out.extend(super::files_of(target, unfold)?);
                out.extend(program.cloned());
            }
            None => match program_of(item) {
                Some(program) => out.push(program),
                None => out.push(expect_file(item, "tools")?.clone()),
            },
        }
    }
    Ok(out)
}

fn unpack_toolchains(value: Option<Value<'_>>) -> Result<Vec<maestro_core::ArtifactId>, RuleError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for item in expect_sequence(value, "toolchains")? {
        match FileValue::from_value(*item) {
            Some(file) if file.is_toolchain() => out.push(file.artifact()),
            _ => {
                let error = wrong_type("toolchains", "a list of toolchains", *item);
                return Err(error.hint("pass `target[ToolchainInfo].toolchain`"));
            }
        }
    }
    Ok(out)
}

fn check_environment(env: &[(String, String)]) -> Result<(), RuleError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (name, value) in env {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(valid) {
            let message = format!("`{}` is no name of a variable", name.escape_debug());
            return Err(RuleError::new(Code::Action, message));
        }
        if value.contains('\0') {
            let message = format!("variable `{name}` holds a zero byte");
            return Err(RuleError::new(Code::Action, message));
        }
    }
    Ok(())
}

fn check_mnemonic(text: &str) -> Result<String, RuleError> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    let message = format!("`mnemonic` is one word, not `{}`", text.escape_debug());
    Err(RuleError::new(Code::Action, message))
}

fn timeout_ms(seconds: Option<i32>) -> Result<Option<u64>, RuleError> {
    match seconds.map(u64::try_from) {
        None => Ok(None),
        Some(Ok(seconds)) if seconds > 0 => Ok(Some(seconds * 1000)),
        Some(_) => Err(RuleError::new(Code::Action, "`timeout` is a positive number of seconds")),
    }
}

fn hints(cpu: i32, memory_mb: i32) -> Result<ExecutionHints, RuleError> {
    let positive = |value: i32, name: &str| match u32::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(RuleError::new(Code::Action, format!("`{name}` must be positive"))),
    };
    Ok(ExecutionHints {
        cpu_millis: positive(cpu, "cpu")?.saturating_mul(1000),
        memory_bytes: u64::from(positive(memory_mb, "memory_mb")?) << 20,
        ..ExecutionHints::default()
    })
}

/// The program of a target, of its `files_to_run`, or a file that is one.
fn program_of(value: Value<'_>) -> Option<FileValue> {
    if let Some(target) = Target::from_value(value) {
        return target.default_field("executable").and_then(FileValue::from_value).cloned();
    }
    if let Some(instance) = ProviderInstance::from_value(value) {
        let to_run = is_instance(instance, &builtins().files_to_run.ty);
        let program = instance.field("executable").filter(|_| to_run);
        return program.and_then(FileValue::from_value).cloned();
    }
    FileValue::from_value(value).cloned()
}

/// The first argument of a command: a program by its path, never searched for.
fn program(value: Value<'_>) -> Result<(Arg, Option<FileValue>), RuleError> {
    if let Some(file) = program_of(value) {
        let mut parts = vec![Item::Artifact(file.artifact())];
        if !file.path().as_str().contains('/') {
            parts.insert(0, Item::Text("./".into()));
        }
        return Ok((Arg::One(parts), Some(file)));
    }
    match value.unpack_str() {
        Some(text) if text.contains('/') => Ok((Arg::One(vec![Item::Text(text.into())]), None)),
        Some(text) => {
            let message = format!("`executable` must be a path, not `{}`", text.escape_debug());
            Err(RuleError::new(Code::Action, message)
                .hint("programs are not searched for; take the path from a toolchain"))
        }
        None => Err(wrong_type("executable", "a file or an absolute path", value)),
    }
}

#[starlark_module]
fn command_methods(builder: &mut MethodsBuilder) {
    /// An empty command line.
    fn args<'v>(this: &Actions) -> starlark::Result<Args> {
        let _ = this;
        Ok(Args::default())
    }

    /// Declares a file that one action of the target will make.
    fn declare_file<'v>(
        this: &Actions,
        #[starlark(require = pos)] filename: &str,
        #[starlark(require = named)] sibling: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<FileValue> {
        let _ = this;
        declare_beside(eval, filename, sibling, ArtifactKind::File)
    }

    /// Declares a tree that one action of the target will make.
    fn declare_directory<'v>(
        this: &Actions,
        #[starlark(require = pos)] filename: &str,
        #[starlark(require = named)] sibling: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<FileValue> {
        let _ = this;
        declare_beside(eval, filename, sibling, ArtifactKind::Tree)
    }

    /// Runs a program in the sandbox.
    ///
    /// Args:
    ///   outputs: files that it must make.
    ///   executable: a file, a target that can be run, or an absolute path in a toolchain.
    ///   inputs: a list or depset of the files that it may read.
    ///   arguments: a list of strings and `args()`.
    ///   env: environment variables.
    ///   tools: files and targets that it runs, with their runfiles.
    ///   toolchains: trees that it sees at absolute paths.
    ///   mnemonic: one word for people.
    ///   progress_message: one line for people; `%{label}` and `%{output}` are replaced.
    ///   optional_outputs: files that it may leave out.
    ///   timeout: seconds that it may run.
    ///   cpu: processors that it uses, for scheduling.
    ///   memory_mb: memory that it uses, for scheduling.
    ///   use_default_shell_env: must be `False`: the environment of whoever builds is not seen.
    ///   execution_requirements: as in Bazel; `cpu:N` counts, ways around the sandbox are refused.
    ///   resource_set: a function from the system and the number of inputs to a dict of `cpu` and
    ///     `memory`.
    ///   toolchain: as in Bazel, the type that the program comes from; changes nothing.
    ///   exec_group: the execution group of the rule on whose platform it runs.
    fn run<'v>(
        this: &Actions,
        #[starlark(require = named)] outputs: Value<'v>,
        #[starlark(require = named)] executable: Value<'v>,
        #[starlark(require = named)] inputs: Option<Value<'v>>,
        #[starlark(require = named)] arguments: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named)] tools: Option<Value<'v>>,
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named, default = "Action")] mnemonic: &str,
        #[starlark(require = named, default = "")] progress_message: &str,
        #[starlark(require = named)] optional_outputs: Option<Value<'v>>,
        #[starlark(require = named)] timeout: Option<i32>,
        #[starlark(require = named, default = 1)] cpu: i32,
        #[starlark(require = named, default = 256)] memory_mb: i32,
        #[starlark(require = named, default = false)] use_default_shell_env: bool,
        #[starlark(require = named)] execution_requirements: Option<Value<'v>>,
        #[starlark(require = named)] resource_set: Option<Value<'v>>,
        #[starlark(require = named)] toolchain: Option<Value<'v>>,
        #[starlark(require = named)] exec_group: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, toolchain);
        let (first, file) = program(executable)?;
        let request = Request {
            outputs,
            optional_outputs,
            inputs,
            tools,
            arguments,
            env,
            mnemonic,
            progress_message,
            toolchains,
            timeout,
            cpu,
            memory_mb,
            hosts: Hosts { use_default_shell_env, execution_requirements, resource_set },
            exec_group,
        };
        let mut draft = request.draft(eval, vec![first])?;
        let scope = RuleScope::of(eval)?;
        if let Some(file) = file {
            add_program(&mut draft, scope, &file);
        }
        draft.add(scope)?;
        Ok(NoneType)
    }

    /// Runs a command with `/bin/bash -c` in the sandbox; `arguments` are `$1`, `$2`, ….
    ///
    /// Args:
    ///   outputs: files that it must make.
    ///   command: the command.
    ///   inputs: a list or depset of the files that it may read.
    ///   arguments: a list of strings and `args()`.
    ///   env: environment variables.
    ///   tools: files and targets that it runs, with their runfiles.
    ///   toolchains: trees that it sees at absolute paths; one of them has bash.
    ///   mnemonic: one word for people.
    ///   progress_message: one line for people; `%{label}` and `%{output}` are replaced.
    ///   optional_outputs: files that it may leave out.
    ///   timeout: seconds that it may run.
    ///   cpu: processors that it uses, for scheduling.
    ///   memory_mb: memory that it uses, for scheduling.
    ///   use_default_shell_env: must be `False`: the environment of whoever builds is not seen.
    ///   execution_requirements: as in Bazel; `cpu:N` counts, ways around the sandbox are refused.
    ///   resource_set: a function from the system and the number of inputs to a dict of `cpu` and
    ///     `memory`.
    ///   toolchain: as in Bazel, the type that the program comes from; changes nothing.
    ///   exec_group: the execution group of the rule on whose platform it runs.
    fn run_shell<'v>(
        this: &Actions,
        #[starlark(require = named)] outputs: Value<'v>,
        #[starlark(require = named)] command: &str,
        #[starlark(require = named)] inputs: Option<Value<'v>>,
        #[starlark(require = named)] arguments: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named)] tools: Option<Value<'v>>,
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named, default = "Action")] mnemonic: &str,
        #[starlark(require = named, default = "")] progress_message: &str,
        #[starlark(require = named)] optional_outputs: Option<Value<'v>>,
        #[starlark(require = named)] timeout: Option<i32>,
        #[starlark(require = named, default = 1)] cpu: i32,
        #[starlark(require = named, default = 256)] memory_mb: i32,
        #[starlark(require = named, default = false)] use_default_shell_env: bool,
        #[starlark(require = named)] execution_requirements: Option<Value<'v>>,
        #[starlark(require = named)] resource_set: Option<Value<'v>>,
        #[starlark(require = named)] toolchain: Option<Value<'v>>,
        #[starlark(require = named)] exec_group: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, toolchain);
        let request = Request {
            outputs,
            optional_outputs,
            inputs,
            tools,
            arguments,
            env,
            mnemonic,
            progress_message,
            toolchains,
            timeout,
            cpu,
            memory_mb,
            hosts: Hosts { use_default_shell_env, execution_requirements, resource_set },
            exec_group,
        };
        let text = |text: &str| Arg::One(vec![Item::Text(text.into())]);
        // As in Bazel, `$0` is empty and the arguments begin at `$1`.
        let argv = ["/bin/bash", "-c", command, ""].map(text).into();
        let draft = request.draft(eval, argv)?;
        draft.add(RuleScope::of(eval)?)?;
        Ok(NoneType)
    }

    /// Declares an action that does nothing, as Bazel's extra actions use it: there is none here.
    ///
    /// Args:
    ///   mnemonic: one word for people.
    ///   inputs: a list or depset of files.
    fn do_nothing<'v>(
        this: &Actions,
        #[starlark(require = named)] mnemonic: &str,
        #[starlark(require = named)] inputs: Option<Value<'v>>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        check_mnemonic(mnemonic)?;
        if let Some(value) = inputs.filter(|value| Depset::from_value(*value).is_none()) {
            for item in expect_sequence(value, "inputs")? {
                expect_file(*item, "inputs")?;
            }
        }
        Ok(NoneType)
    }
}
