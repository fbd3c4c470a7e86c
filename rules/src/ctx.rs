//! `ctx`: what a rule's implementation sees of its target, and how it declares actions.

pub(crate) mod actions;
pub(crate) mod draft;
pub(crate) mod expand;
pub(crate) mod native;
pub(crate) mod template;

use std::fmt;

use allocative::Allocative;
use maestro_core::{ArtifactKind, Label, RelPath, Toolchain};
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::structs::AllocStruct;
use starlark::values::{
    AllocValue, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Trace,
    Value, ValueLike, starlark_value,
};

use self::actions::Actions;
use self::expand::{Expander, Variable};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::depset::{Depset, Unfold, expect_depset};
use crate::values::file::{FileOrigin, FileValue, OUTPUT_FOLDER};
use crate::values::label::LabelValue;
use crate::values::provider::{ProviderInstance, builtins, is_instance};
use crate::values::runfiles::Runfiles;
use crate::values::target::Target;
use crate::values::{expect_sequence, wrong_type};

/// What attributes come to.
#[derive(Debug, Trace, Allocative)]
pub(crate) struct CtxFields<'v> {
    pub(crate) attr: Value<'v>,
    pub(crate) files: Value<'v>,
    pub(crate) file: Value<'v>,
    pub(crate) executable: Value<'v>,
    pub(crate) outputs: Value<'v>,
    /// Attributes with transitions, as dicts from names of configurations to targets.
    pub(crate) split_attr: Value<'v>,
}

/// The context of one target, or of an aspect on it. Cannot outlive their analysis.
#[derive(Debug, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct Ctx<'v> {
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) label: Label,
    /// The folder of outputs of its configuration, such as `maestro-out/shared`.
    #[trace(static)]
    pub(crate) out_root: String,
    /// The value of a param; `None` for other targets.
    pub(crate) build_setting_value: Value<'v>,
    pub(crate) fields: CtxFields<'v>,
    pub(crate) toolchains: Value<'v>,
    /// The toolchains of the execution groups that have names.
    pub(crate) exec_groups: Value<'v>,
    /// The constraint values that may be asked for, and whether the target platform has them.
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) constraints: Vec<(Label, bool)>,
    /// What the rule of the target says, for aspects.
    pub(crate) rule: Option<Value<'v>>,
}

impl<'v> AllocValue<'v> for Ctx<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

impl fmt::Display for Ctx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ctx of {}>", self.label)
    }
}

starlark::methods_static!(
    CTX_METHODS = |builder| {
        attribute_methods(builder);
        ctx_methods(builder);
    }
);

#[starlark_value(type = "ctx")]
impl<'v> StarlarkValue<'v> for Ctx<'v> {
    fn get_methods() -> Option<&'static Methods> {
        Some(CTX_METHODS.methods())
    }
}

fn this_ctx<'v>(this: Value<'v>) -> Result<&'v Ctx<'v>, RuleError> {
    this.downcast_ref::<Ctx<'v>>().ok_or_else(|| wrong_type("this", "a ctx", this))
}

/// The folder of the outputs of a configuration, whose name is given.
pub(crate) fn out_root(root: &str) -> String {
    format!("{OUTPUT_FOLDER}/{root}")
}

/// Where outputs of a package go, below a folder of [`out_root`].
pub(crate) fn out_dir(out_root: &str, label: &Label) -> String {
    match label.package_dir() {
        folder if folder.is_empty() => out_root.to_owned(),
        folder => format!("{out_root}/{folder}"),
    }
}

/// What the target says, and what was found for it.
#[starlark_module]
fn attribute_methods(builder: &mut MethodsBuilder) {
    /// The target's label.
    #[starlark(attribute)]
    fn label<'v>(this: Value<'v>) -> starlark::Result<LabelValue> {
        Ok(LabelValue { label: this_ctx(this)?.label.clone() })
    }

    /// The values of the attributes; labels are targets.
    #[starlark(attribute)]
    fn attr<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.attr)
    }

    /// Attributes whose `cfg` is a transition: dicts from the names of the configurations to
    /// targets, or to lists of them.
    #[starlark(attribute)]
    fn split_attr<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.split_attr)
    }

    /// The `ToolchainInfo` that was found for each type of `toolchains` of the rule; `None` where
    /// an optional one was not.
    #[starlark(attribute)]
    fn toolchains<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.toolchains)
    }

    /// The execution groups of the rule, by name: `ctx.exec_groups["link"].toolchains` is to the
    /// group what `ctx.toolchains` is to all other actions.
    #[starlark(attribute)]
    fn exec_groups<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.exec_groups)
    }

    /// What the rule of the target says, as an aspect sees it: `attr`, `executable`, `file`,
    /// `files`, `kind`, `outputs`.
    #[starlark(attribute)]
    fn rule<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        this_ctx(this)?.rule.ok_or_else(|| {
            let message = "`ctx.rule` is there for aspects only";
            RuleError::new(Code::Evaluation, message)
                .hint("a rule sees itself in `ctx.attr`")
                .into()
        })
    }

    /// The value of a target whose rule has a `build_setting`; `None` for others.
    #[starlark(attribute)]
    fn build_setting_value<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.build_setting_value)
    }

    /// The files of each attribute of labels, as lists.
    #[starlark(attribute)]
    fn files<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.files)
    }

    /// The file of each attribute that takes a single one.
    #[starlark(attribute)]
    fn file<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.file)
    }

    /// The program of each attribute that takes one.
    #[starlark(attribute)]
    fn executable<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.executable)
    }

    /// The files that output attributes name.
    #[starlark(attribute)]
    fn outputs<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(this_ctx(this)?.fields.outputs)
    }
}

#[starlark_module]
fn ctx_methods(builder: &mut MethodsBuilder) {
    /// Declares files and actions.
    #[starlark(attribute)]
    fn actions<'v>(this: Value<'v>) -> starlark::Result<Actions> {
        this_ctx(this)?;
        Ok(Actions)
    }

    /// The folder of the target's outputs.
    #[starlark(attribute)]
    fn out_dir<'v>(this: Value<'v>) -> starlark::Result<String> {
        let ctx = this_ctx(this)?;
        Ok(crate::ctx::out_dir(&ctx.out_root, &ctx.label))
    }

    /// The folder of all outputs.
    #[starlark(attribute)]
    fn out_root<'v>(this: Value<'v>) -> starlark::Result<String> {
        Ok(this_ctx(this)?.out_root.clone())
    }

    /// The folder of all outputs, as Bazel calls it.
    #[starlark(attribute)]
    fn bin_dir<'v>(this: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        let root = this_ctx(this)?.out_root.as_str();
        Ok(heap.alloc(AllocStruct([("path", root)])))
    }

    /// The name of the workspace in runfiles.
    #[starlark(attribute)]
    fn workspace_name<'v>(this: Value<'v>) -> starlark::Result<&'static str> {
        this_ctx(this)?;
        Ok("main")
    }

    /// Makes runfiles.
    ///
    /// Args:
    ///   files: a list of files.
    ///   transitive_files: a depset of files.
    ///   symlinks: a dict from paths below `main/` to files.
    ///   root_symlinks: a dict from paths below the root of the tree to files.
    fn runfiles<'v>(
        this: Value<'v>,
        #[starlark(require = named)] files: Option<Value<'v>>,
        #[starlark(require = named)] transitive_files: Option<Value<'v>>,
        #[starlark(require = named)] symlinks: Option<Value<'v>>,
        #[starlark(require = named)] root_symlinks: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Runfiles<'v>> {
        this_ctx(this)?;
        let heap = eval.heap();
        let scope = RuleScope::of(eval)?;
        let sets = &mut scope.graph.borrow_mut().sets;
        let direct = match files {
            Some(value) if !value.is_none() => expect_sequence(value, "files")?.to_vec(),
            _ => Vec::new(),
        };
        if let Some(odd) = direct.iter().find(|value| FileValue::from_value(**value).is_none()) {
            return wrong_type("files", "a list of files", *odd).raise();
        }
        let transitive = match transitive_files {
            Some(value) if !value.is_none() => {
                vec![expect_depset(value, "transitive_files", sets, heap)?]
            }
            _ => Vec::new(),
        };
        let set = Depset::alloc(None, direct, transitive, Some(sets), eval.module())?;
        let mut links = runfiles_links(symlinks, "symlinks", "main/")?;
        links.extend(runfiles_links(root_symlinks, "root_symlinks", "")?);
        Ok(Runfiles::new(set, links))
    }

    /// Whether the platform that the target is built for has a constraint value.
    ///
    /// Args:
    ///   constraint_value: the `platform_common.ConstraintValueInfo` of a `constraint_value` that
    ///     an attribute names, as in `ctx.attr._windows[platform_common.ConstraintValueInfo]`.
    fn target_platform_has_constraint<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] constraint_value: Value<'v>,
    ) -> starlark::Result<bool> {
        let ctx = this_ctx(this)?;
        let ty = &builtins().constraint_value.ty;
        let info = ProviderInstance::from_value(constraint_value);
        let label = info
            .filter(|info| is_instance(info, ty))
            .and_then(|info| info.field("label"))
            .and_then(LabelValue::from_value)
            .ok_or_else(|| {
                wrong_type("constraint_value", "a `ConstraintValueInfo`", constraint_value)
                    .hint("pass `target[platform_common.ConstraintValueInfo]`")
            })?;
        match ctx.constraints.iter().find(|(own, _)| *own == label.label) {
            Some((_, has)) => Ok(*has),
            None => {
                let (value, own) = (&label.label, &ctx.label);
                let message = format!("`{own}` does not depend on `{value}` as it is built itself");
                RuleError::new(Code::Dependency, message)
                    .hint("name it in an attribute without `cfg`")
                    .raise()
            }
        }
    }

    /// Declares a toolchain: files of installed packages, visible at their absolute paths.
    ///
    /// Args:
    ///   name: what messages call it.
    ///   packages: names of Debian packages.
    ///   exclude: packages that are left out although others depend on them.
    ///   exclude_paths: prefixes of absolute paths that are left out.
    fn toolchain<'v>(
        this: Value<'v>,
        #[starlark(require = named)] name: &str,
        #[starlark(require = named)] packages: Value<'v>,
        #[starlark(require = named)] exclude: Option<Value<'v>>,
        #[starlark(require = named)] exclude_paths: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<FileValue> {
        let label = this_ctx(this)?.label.clone();
        let scope = RuleScope::of(eval)?;
        let sorted = |value: Option<Value<'v>>, name: &str| -> Result<Vec<String>, RuleError> {
            let Some(value) = value else { return Ok(Vec::new()) };
            let mut list = strings(value, name)?;
            list.sort_unstable();
            list.dedup();
            Ok(list)
        };
        let packages = sorted(Some(packages), "packages")?;
        let odd = |p: &&String| {
            p.is_empty() || !p.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:".contains(c))
        };
        if let Some(odd) = packages.iter().find(odd) {
            let message = format!("`{}` is no name of a package", odd.escape_debug());
            return RuleError::new(Code::Action, message).raise();
        }
        let toolchain = Toolchain {
            name: name.to_owned(),
            packages,
            exclude: sorted(exclude, "exclude")?,
            exclude_paths: sorted(exclude_paths, "exclude_paths")?,
        };
        let mut graph = scope.graph.borrow_mut();
        let id = graph.toolchain(toolchain);
        let path = graph.artifact(id).path.clone();
        Ok(FileValue::new(id, path, ArtifactKind::Tree, FileOrigin::Toolchain, label))
    }

    /// Replaces `$(location L)` and its kin in a text; all else stays.
    ///
    /// Args:
    ///   text: the text.
    ///   targets: the targets that labels in the text may name.
    fn expand_location<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] text: &str,
        targets: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<String> {
        let ctx = this_ctx(this)?;
        let targets = target_files(targets, "targets", Unfold::of(eval))?;
        Ok(Expander { label: &ctx.label, attribute: "text", targets: &targets, variables: None }
            .expand(text)?)
    }

    /// Replaces `$(VARIABLE)`, `$X`, `$$` and, where targets are given, `$(location L)`.
    ///
    /// Args:
    ///   attribute_name: the attribute that messages speak of.
    ///   command: the text.
    ///   additional_substitutions: a dict from names to texts, or to lists of files, which are
    ///     quoted for a shell.
    ///   targets: the targets that labels in the text may name.
    fn expand_make_variables<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] attribute_name: &str,
        #[starlark(require = pos)] command: &str,
        #[starlark(require = pos)] additional_substitutions: Value<'v>,
        #[starlark(require = named)] targets: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<String> {
        let ctx = this_ctx(this)?;
        let targets = target_files(targets, "targets", Unfold::of(eval))?;
        let parameter = "additional_substitutions";
        let dict = DictRef::from_value(additional_substitutions)
            .ok_or_else(|| wrong_type(parameter, "a dict", additional_substitutions))?;
        let mut variables = Vec::new();
        for (name, value) in dict.iter() {
            let name = name.unpack_str().ok_or_else(|| wrong_type(parameter, "named", name))?;
            let value = match value.unpack_str() {
                Some(text) => Variable::Text(text.to_owned()),
                None => Variable::Files(files_of_list(value, parameter)?),
            };
            variables.push((name.to_owned(), value));
        }
        let expander = Expander {
            label: &ctx.label,
            attribute: attribute_name,
            targets: &targets,
            variables: Some(&variables),
        };
        Ok(expander.expand(command)?)
    }
}

/// A dict from paths to files, with the paths as they are in the tree.
fn runfiles_links(
    value: Option<Value<'_>>,
    parameter: &str,
    prefix: &str,
) -> Result<Vec<(String, FileValue)>, RuleError> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Vec::new()) };
    let wrong = || wrong_type(parameter, "a dict from paths to files", value);
    let dict = DictRef::from_value(value).ok_or_else(wrong)?;
    let mut out = Vec::with_capacity(dict.len());
    for (path, file) in dict.iter() {
        let (path, file) = path.unpack_str().zip(FileValue::from_value(file)).ok_or_else(wrong)?;
        let path = RelPath::new(&format!("{prefix}{path}"))
            .map_err(|e| RuleError::new(Code::Action, format!("`{parameter}`: {e}")))?;
        out.push((path.to_string(), file.clone()));
    }
    Ok(out)
}

fn files_of_list(value: Value<'_>, parameter: &str) -> Result<Vec<FileValue>, RuleError> {
    let file = |value: &Value<'_>| match FileValue::from_value(*value) {
        Some(file) => Ok(file.clone()),
        None => Err(wrong_type(parameter, "texts or lists of files", *value)),
    };
    expect_sequence(value, parameter)?.iter().map(file).collect()
}

/// The labels of targets with their files; a program stands for itself alone.
fn target_files<'v>(
    value: Option<Value<'v>>,
    parameter: &str,
    unfold: Unfold<'v, '_>,
) -> Result<Vec<(Label, Vec<FileValue>)>, RuleError> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for item in expect_sequence(value, parameter)? {
        let target = Target::from_value(*item)
            .ok_or_else(|| wrong_type(parameter, "a list of targets", *item))?;
        let executable = target.default_field("executable").and_then(FileValue::from_value);
        let files = match executable {
            Some(program) => vec![program.clone()],
            None => files_of(target, unfold)?,
        };
        out.push((target.label.clone(), files));
    }
    Ok(out)
}

/// The files that `build` makes for a target.
pub(crate) fn files_of<'v>(
    target: &Target<'v>,
    unfold: Unfold<'v, '_>,
) -> Result<Vec<FileValue>, RuleError> {
    let Some(value) = target.default_field("files") else { return Ok(Vec::new()) };
    let set = Depset::from_value(value).ok_or_else(|| wrong_type("files", "a depset", value))?;
    let file = |value: Value<'_>| match FileValue::from_value(value) {
        Some(file) => Ok(file.clone()),
        None => Err(wrong_type("files", "a depset of files", value)),
    };
    set.items(unfold)?.into_iter().map(file).collect()
}

/// A list of texts.
pub(crate) fn strings(value: Value<'_>, parameter: &str) -> Result<Vec<String>, RuleError> {
    let text = |value: &Value<'_>| match value.unpack_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong_type(parameter, "a list of strings", *value)),
    };
    expect_sequence(value, parameter)?.iter().map(text).collect()
}

/// A dict of texts, in its order.
pub(crate) fn string_dict(
    value: Value<'_>,
    parameter: &str,
) -> Result<Vec<(String, String)>, RuleError> {
    let wrong = || wrong_type(parameter, "a dict of strings", value);
    let dict = DictRef::from_value(value).ok_or_else(wrong)?;
    let pair = |(k, v): (Value<'_>, Value<'_>)| {
        Some((k.unpack_str()?.to_owned(), v.unpack_str()?.to_owned()))
    };
    dict.iter().map(pair).collect::<Option<Vec<_>>>().ok_or_else(wrong)
}
