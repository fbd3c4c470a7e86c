//! Steps that make one file or copy one: `write`, `expand_template`, `copy` and its kin.

use std::collections::BTreeMap;

use maestro_core::{ActionGraph, Arg, ArtifactId, ArtifactKind, How, Item};
use serde_json::{Value as Json, json};
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::none::NoneType;

use super::request::{add, checked_output};
use crate::ctx::actions::Actions;
use crate::ctx::draft::{Draft, expect_file};
use crate::ctx::string_dict;
use crate::ctx::template::TemplateDict;
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::args::Args;
use crate::values::file::FileValue;
use crate::values::wrong_type;

#[starlark_module]
pub(crate) fn file_methods(builder: &mut MethodsBuilder) {
    /// Writes a small file.
    ///
    /// Args:
    ///   output: the file.
    ///   content: its text, or `args()`, of which each argument becomes a line.
    ///   is_executable: whether it is a program.
    ///   mnemonic: as in Bazel; writing is always called `Write`.
    fn write<'v>(
        this: &Actions,
        output: Value<'v>,
        content: Value<'v>,
        #[starlark(default = false)] is_executable: bool,
        #[starlark(require = named)] mnemonic: Option<&str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, mnemonic);
        let output = checked_output(output, false)?;
        if let Some(args) = Args::from_value(content) {
            return write_args(eval, output, args, is_executable);
        }
        let Some(content) = content.unpack_str() else {
            return wrong_type("content", "a string or `args()`", content).raise();
        };
        add(eval, "write", json!({"content": content, "executable": is_executable}), output, vec![])
    }

    /// Copies a template, with texts replaced in one pass; the longest match wins.
    ///
    /// Args:
    ///   template: the template.
    ///   output: the file.
    ///   substitutions: a dict from texts to what replaces them.
    ///   is_executable: whether it is a program.
    ///   computed_substitutions: a `template_dict()` with further ones.
    fn expand_template<'v>(
        this: &Actions,
        #[starlark(require = named)] template: Value<'v>,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] substitutions: Option<Value<'v>>,
        #[starlark(require = named, default = false)] is_executable: bool,
        #[starlark(require = named)] computed_substitutions: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        let template = expect_file(template, "template")?;
        let mut pairs = match substitutions {
            None => Vec::new(),
            Some(value) => string_dict(value, "substitutions")?,
        };
        if let Some(value) = computed_substitutions.filter(|value| !value.is_none()) {
            let Some(computed) = TemplateDict::from_value(value) else {
                let expected = "a `ctx.actions.template_dict()`";
                return wrong_type("computed_substitutions", expected, value).raise();
            };
            // As in Bazel, what is computed wins.
            pairs.extend(computed.pairs());
        }
        let substitutions: BTreeMap<String, String> = pairs.into_iter().collect();
        let request = json!({
            "template": template.path(),
            "substitutions": substitutions,
            "executable": is_executable,
        });
        add(eval, "expand-template", request, output, vec![template.artifact()])
    }

    /// Substitutions that are put together from lists and depsets.
    fn template_dict(this: &Actions) -> starlark::Result<TemplateDict> {
        let _ = this;
        Ok(TemplateDict::default())
    }

    /// Makes a file or tree that is the same as another. No bytes are copied.
    ///
    /// Args:
    ///   output: the copy.
    ///   source: what is copied.
    ///   executable: whether the copy is a program; as the source where `None`.
    ///   path: what is copied out of `source`, if that is a tree.
    fn copy<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] source: Value<'v>,
        #[starlark(require = named)] executable: Option<Value<'v>>,
        #[starlark(require = named, default = "")] path: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        copy_action(eval, output, source, executable, path)
    }

    /// As `copy`, under the name that Bazel has: what stands there has the content of the target.
    ///
    /// Args:
    ///   output: the copy.
    ///   target_file: what it is a copy of.
    ///   is_executable: whether it is a program; as the target where `False`.
    ///   target_path: not possible here; links are entries of trees.
    ///   progress_message: as in Bazel; no bytes move, so there is nothing to show.
    fn symlink<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] target_file: Option<Value<'v>>,
        #[starlark(require = named, default = false)] is_executable: bool,
        #[starlark(require = named)] target_path: Option<&str>,
        #[starlark(require = named)] progress_message: Option<&str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, progress_message);
        let target_file = match (target_file, target_path) {
            (Some(file), None) => file,
            (None, Some(path)) => return no_dangling_link(path).raise(),
            _ => {
                let message = "`symlink` takes exactly one of `target_file` and `target_path`";
                return RuleError::new(Code::Action, message).raise();
            }
        };
        let executable = is_executable.then(|| Value::new_bool(true));
        copy_action(eval, output, target_file, executable, "")
    }

    /// Not possible here: says how a link is made.
    fn declare_symlink<'v>(
        this: &Actions,
        #[starlark(require = pos)] filename: &str,
        #[starlark(require = named)] sibling: Option<Value<'v>>,
    ) -> starlark::Result<NoneType> {
        let _ = (this, sibling);
        no_dangling_link(filename).raise()
    }

    /// As `copy`, for trees.
    fn copy_tree<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] source: Value<'v>,
        #[starlark(require = named, default = "")] path: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        checked_output(output, true)?;
        copy_action(eval, output, source, None, path)
    }
}

/// Writes arguments, which are expanded when their trees are known.
fn write_args(
    eval: &Evaluator<'_, '_, '_>,
    output: &FileValue,
    args: &Args,
    executable: bool,
) -> starlark::Result<NoneType> {
    let scope = RuleScope::of(eval)?;
    let (args, format) = args.for_file()?;
    let trees = trees_in(&args, &scope.graph.borrow());
    let mut draft = Draft::native("write", Json::Null, output);
    draft.how = How::Params { args, format, executable };
    draft.direct = trees;
    draft.add(scope)?;
    Ok(NoneType)
}

/// The trees that arguments expand.
fn trees_in(args: &[Arg], graph: &ActionGraph) -> Vec<ArtifactId> {
    let mut out = Vec::new();
    for arg in args {
        let Arg::Many(many) = arg else { continue };
        let set = many.set.filter(|_| many.expand_trees).map(|set| graph.sets.flatten(set));
        let direct = many.direct.iter().filter(|_| many.expand_trees);
        for item in direct.chain(set.unwrap_or_default()) {
            if let Item::Artifact(id) = item
                && graph.artifact(*id).kind == ArtifactKind::Tree
            {
                out.push(*id);
            }
        }
    }
    out
}

/// A link by itself would dangle wherever its output is used alone.
fn no_dangling_link(path: &str) -> RuleError {
    let message = format!("`{}` would be a link that no tree holds", path.escape_debug());
    RuleError::new(Code::Action, message).hint(
        "put it into a tree: `ctx.actions.tree(output = …, entries = [ctx.actions.entry(\"name\", \
         link = \"target\")])`",
    )
}

fn copy_action<'v>(
    eval: &Evaluator<'v, '_, '_>,
    output: Value<'v>,
    source: Value<'v>,
    executable: Option<Value<'v>>,
    path: &str,
) -> starlark::Result<NoneType> {
    let output = expect_file(output, "output")?;
    let source = expect_file(source, "source")?;
    if path.is_empty() && output.is_tree() != source.is_tree() {
        let what = |tree: bool| if tree { "a tree" } else { "a file" };
        let message = format!(
            "`{}` is {}, but `{}` is {}",
            output.path(),
            what(output.is_tree()),
            source.path(),
            what(source.is_tree()),
        );
        return RuleError::new(Code::Action, message).raise();
    }
    let from = match path {
        "" => source.path().to_string(),
        _ => format!("{}/{path}", source.path()),
    };
    let bit = executable.filter(|value| !value.is_none());
    let bit = match bit.map(|value| value.unpack_bool().ok_or(value)) {
        None => Json::Null,
        Some(Ok(bit)) => Json::Bool(bit),
        Some(Err(value)) => return wrong_type("executable", "a bool or `None`", value).raise(),
    };
    let request = json!({"from": from, "executable": bit});
    add(eval, "copy", request, output, vec![source.artifact()])
}
