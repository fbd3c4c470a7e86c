//! `map_directory`: a command for each file of a tree, whose files are known only when it is made.
//!
//! What a rule passes is kept as data with placeholders: no Starlark runs while a build does.

use maestro_core::map::{FILE_PLACEHOLDERS, PATH_PLACEHOLDERS, placeholders};
use maestro_core::{Arg, How, Item, Map};
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::none::NoneType;

use super::hosts::Hosts;
use super::{Actions, Request, add_program, expect_file, program};
use crate::error::{Code, RuleError, did_you_mean};
use crate::scope::RuleScope;
use crate::values::depset::{Depset, Unfold};
use crate::values::file::FileValue;
use crate::values::{expect_sequence, wrong_type};

/// A parameter that must be a tree.
fn expect_tree<'v>(value: Value<'v>, parameter: &str) -> Result<&'v FileValue, RuleError> {
    let file = expect_file(value, parameter)?;
    if file.is_tree() && !file.is_toolchain() {
        return Ok(file);
    }
    let message = format!("`{parameter}` must be a tree, which `{}` is not", file.path());
    Err(RuleError::new(Code::Action, message)
        .hint("trees come from `ctx.actions.declare_directory`"))
}

/// A list of strings, which may be left out.
fn strings(
    value: Option<Value<'_>>,
    parameter: &str,
    otherwise: &[&str],
) -> Result<Vec<String>, RuleError> {
    let Some(value) = value.filter(|value| !value.is_none()) else {
        return Ok(otherwise.iter().map(|text| (*text).to_owned()).collect());
    };
    let text = |item: &Value<'_>| {
        let text = item.unpack_str().map(str::to_owned);
        text.ok_or_else(|| wrong_type(parameter, "a list of strings", *item))
    };
    expect_sequence(value, parameter)?.iter().map(text).collect()
}

/// Refuses placeholders that mean nothing.
fn check(text: &str, parameter: &str, known: &[&[&'static str]]) -> Result<(), RuleError> {
    let names = || known.iter().flat_map(|names| names.iter().copied());
    for name in placeholders(text) {
        if !names().any(|own| own == name) {
            let all: Vec<String> = names().map(|own| format!("`%{{{own}}}`")).collect();
            let message =
                format!("`{parameter}` has the unknown placeholder `%{{{}}}`", name.escape_debug());
            let hint = did_you_mean(name, names())
                .unwrap_or_else(|| format!("there are {}; `%%{{` is a plain one", all.join(", ")));
            return Err(RuleError::new(Code::Action, message).hint(hint));
        }
    }
    Ok(())
}

fn check_items(items: &[Item]) -> Result<(), RuleError> {
    for item in items {
        if let Item::Text(text) = item {
            check(text, "arguments", &[&FILE_PLACEHOLDERS, &PATH_PLACEHOLDERS])?;
        }
    }
    Ok(())
}

fn check_arguments(args: &[Arg]) -> Result<(), RuleError> {
    args.iter().try_for_each(|arg| match arg {
        Arg::One(items) => check_items(items),
        Arg::Many(sequence) => check_items(&sequence.direct),
        Arg::ParamFile { args, .. } => check_arguments(args),
    })
}

/// Whether the tree is among what every command reads.
fn holds<'v>(
    inputs: Option<Value<'v>>,
    tree: &FileValue,
    unfold: Unfold<'v, '_>,
) -> Result<bool, RuleError> {
    let Some(value) = inputs.filter(|value| !value.is_none()) else { return Ok(false) };
    let items = match Depset::from_value(value) {
        Some(set) => set.items(unfold)?,
        None => expect_sequence(value, "additional_inputs")?.to_vec(),
    };
    let is_tree = |file: &FileValue| file.artifact() == tree.artifact();
    Ok(items.iter().filter_map(|item| FileValue::from_value(*item)).any(is_tree))
}

#[starlark_module]
pub(super) fn map_methods(builder: &mut MethodsBuilder) {
    /// Runs a program for each file of a tree, each run an action of its own, and makes a tree of
    /// what they make.
    ///
    /// Which files there are is known only when the tree is made, so that a run is described with
    /// placeholders in `arguments`, `outputs` and `progress_message`: for the file `a/b.txt` in
    /// the tree, `%{tree_relative_path}` is `a/b.txt`, `%{stem}` is `a/b` and `%{basename}` is
    /// `b.txt`. In arguments `%{input}` is the path of the file, `%{output}` that of the first
    /// output and `%{output_directory}` that of the tree that is made. `%%{` is a plain `%{`.
    ///
    /// Args:
    ///   input_directory: the tree whose files are mapped.
    ///   output_directory: the tree that is made, from `declare_directory`.
    ///   executable: a file, a target that can be run, or an absolute path in a toolchain.
    ///   arguments: a list of strings and `args()`; strings that were added there may have
    ///     placeholders, too.
    ///   outputs: what each run makes: paths below `output_directory`.
    ///   suffixes: the endings of the files that count, such as `.proto`; all where empty.
    ///   additional_inputs: files that every run may read, as a list or depset; with the tree
    ///     itself among them, a run sees all of it, and runs again when any of it changes.
    ///   env: environment variables.
    ///   tools: files and targets that it runs, with their runfiles.
    ///   toolchains: trees that it sees at absolute paths.
    ///   mnemonic: one word for people.
    ///   progress_message: one line for people; `%{label}` and `%{input}` are replaced.
    ///   timeout: seconds that a run may take.
    ///   cpu: processors that a run uses, for scheduling.
    ///   memory_mb: memory that a run uses, for scheduling.
    ///   execution_requirements: as in Bazel; `cpu:N` counts, ways around the sandbox are refused.
    ///   toolchain: as in Bazel, the type that the program comes from; changes nothing.
    ///   exec_group: the execution group of the rule on whose platform all run.
    fn map_directory<'v>(
        this: &Actions,
        #[starlark(require = named)] input_directory: Value<'v>,
        #[starlark(require = named)] output_directory: Value<'v>,
        #[starlark(require = named)] executable: Value<'v>,
        #[starlark(require = named)] arguments: Option<Value<'v>>,
        #[starlark(require = named)] outputs: Option<Value<'v>>,
        #[starlark(require = named)] suffixes: Option<Value<'v>>,
        #[starlark(require = named)] additional_inputs: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named)] tools: Option<Value<'v>>,
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named, default = "MapDirectory")] mnemonic: &str,
        #[starlark(require = named, default = "")] progress_message: &str,
        #[starlark(require = named)] timeout: Option<i32>,
        #[starlark(require = named, default = 1)] cpu: i32,
        #[starlark(require = named, default = 256)] memory_mb: i32,
        #[starlark(require = named)] execution_requirements: Option<Value<'v>>,
        #[starlark(require = named)] toolchain: Option<Value<'v>>,
        #[starlark(require = named)] exec_group: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, toolchain);
        let tree = expect_tree(input_directory, "input_directory")?;
        expect_tree(output_directory, "output_directory")?;
        let outputs = strings(outputs, "outputs", &["%{tree_relative_path}"])?;
        if outputs.is_empty() {
            return RuleError::new(Code::Action, "`outputs` names nothing").raise();
        }
        outputs.iter().try_for_each(|text| check(text, "outputs", &[&FILE_PLACEHOLDERS]))?;
        let suffixes = strings(suffixes, "suffixes", &[])?;
        let sees_tree = holds(additional_inputs, tree, Unfold::of(eval))?;
        let (first, file) = program(executable)?;
        let request = Request {
            outputs: eval.heap().alloc(vec![output_directory]),
            optional_outputs: None,
            inputs: additional_inputs,
            tools,
            arguments,
            env,
            mnemonic,
            progress_message,
            toolchains,
            timeout,
            cpu,
            memory_mb,
            hosts: Hosts {
                use_default_shell_env: false,
                execution_requirements,
                resource_set: None,
            },
            exec_group,
        };
        let mut draft = request.draft(eval, vec![first])?;
        let scope = RuleScope::of(eval)?;
        if let Some(file) = file {
            add_program(&mut draft, scope, &file);
        }
        draft.direct.push(tree.artifact());
        if let How::Command { argv } = draft.how {
            check_arguments(&argv)?;
            let input = tree.artifact();
            draft.how = How::Map(Map { input, argv, outputs, suffixes, sees_tree });
        }
        draft.add(scope)?;
        Ok(NoneType)
    }
}
