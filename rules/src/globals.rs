//! The names that every file sees without loading anything.

use std::sync::OnceLock;

use maestro_core::Label;
use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::AllocList;
use starlark::values::none::NoneType;

use crate::aspect::aspect_globals;
use crate::attr::LabelBase;
use crate::attr::schema::attr_members;
use crate::bounded::bounded_globals;
use crate::build_setting::config_members;
use crate::error::{Code, RuleError};
use crate::glob::{Glob, glob as glob_files};
use crate::native_rules::native_rules;
use crate::read::read_globals;
use crate::repos::is_library;
use crate::rule::{rule_globals, unpack_visibility};
use crate::scope::FileScope;
use crate::symbolic_macro::macro_globals;
use crate::values::depset::depset_globals;
use crate::values::exec_group::exec_group_globals;
use crate::values::label::LabelValue;
use crate::values::provider::{builtins, provider_globals};
use crate::values::select::select_globals;
use crate::values::toolchains::config_common_members;
use crate::values::transition::transition_globals;
use crate::values::{expect_sequence, wrong_type};
use crate::visibility::Visibility;

/// What files see of Starlark besides its standard names.
pub(crate) const EXTENSIONS: [LibraryExtension; 4] = [
    LibraryExtension::StructType,
    LibraryExtension::Print,
    LibraryExtension::Json,
    LibraryExtension::SetType,
];

/// The global names, made once.
pub(crate) fn globals() -> &'static Globals {
    static GLOBALS: OnceLock<Globals> = OnceLock::new();
    GLOBALS.get_or_init(|| {
        let mut builder = GlobalsBuilder::extended_by(&EXTENSIONS);
        rule_globals(&mut builder);
        aspect_globals(&mut builder);
        macro_globals(&mut builder);
        provider_globals(&mut builder);
        depset_globals(&mut builder);
        package_globals(&mut builder);
        label_globals(&mut builder);
        select_globals(&mut builder);
        transition_globals(&mut builder);
        exec_group_globals(&mut builder);
        builder.namespace("config_common", config_common_members);
        builder.namespace("platform_common", |common| {
            let providers = builtins();
            common.set("ToolchainInfo", providers.toolchain.clone());
            common.set("ConstraintSettingInfo", providers.constraint_setting.clone());
            common.set("ConstraintValueInfo", providers.constraint_value.clone());
            common.set("PlatformInfo", providers.platform.clone());
        });
        bounded_globals(&mut builder);
        builder.namespace("attr", attr_members);
        builder.namespace("config", config_members);
        builder.namespace("native", |native| {
            package_globals(native);
            read_globals(native);
            native_rules(native);
        });
        native_rules(&mut builder);
        let providers = builtins();
        builder.set("DefaultInfo", providers.default_info.clone());
        builder.set("RunEnvironmentInfo", providers.run_environment.clone());
        builder.set("OutputGroupInfo", providers.output_groups.clone());
        builder.set("ToolchainInfo", providers.toolchain.clone());
        builder.set("BuildSettingInfo", providers.build_setting.clone());
        builder.build()
    })
}

#[starlark_module]
fn label_globals(builder: &mut GlobalsBuilder) {
    /// Makes a label; a relative one starts at the package of the file under evaluation.
    #[allow(non_snake_case)]
    fn Label<'v>(
        #[starlark(require = pos)] input: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<LabelValue> {
        if let Some(label) = LabelValue::from_value(input) {
            return Ok(label.clone());
        }
        let Some(text) = input.unpack_str() else {
            return wrong_type("input", "a string", input).raise();
        };
        let label = match FileScope::of(eval) {
            Ok(scope) => {
                LabelBase { repo: &scope.file.repo, package: &scope.file.package }.parse(text)?
            }
            Err(_) if text.starts_with("//") || text.starts_with('@') => Label::parse(text, "", "")
                .map_err(|e| RuleError::new(Code::Label, e.to_string()))?,
            Err(_) => {
                let message = "in an implementation, `Label` takes an absolute label";
                return RuleError::new(Code::Label, message).raise();
            }
        };
        Ok(LabelValue { label })
    }
}

#[starlark_module]
fn package_globals(builder: &mut GlobalsBuilder) {
    /// The files of the package whose paths match.
    ///
    /// Args:
    ///   include: patterns; `*` matches inside one name, `**` any number of folders.
    ///   exclude: patterns of files that are left out.
    ///   allow_empty: whether it is fine that nothing matches.
    ///   exclude_directories: whether folders are left out.
    fn glob<'v>(
        include: Value<'v>,
        exclude: Option<Value<'v>>,
        #[starlark(require = named, default = false)] allow_empty: bool,
        #[starlark(require = named, default = true)] exclude_directories: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<AllocList<Vec<String>>> {
        let scope = FileScope::of(eval)?;
        scope.package_file("glob")?;
        if is_library(&scope.file.repo) {
            let message = "`glob` does not work in the library";
            return RuleError::new(Code::Glob, message).raise();
        }
        let include = strings(include, "include")?;
        let exclude = match exclude {
            Some(value) if !value.is_none() => strings(value, "exclude")?,
            _ => Vec::new(),
        };
        let request = Glob {
            include: &include,
            exclude: &exclude,
            allow_empty,
            exclude_directories,
            seen: &scope.globbed,
        };
        Ok(AllocList(glob_files(scope.host, &scope.file.package_dir(), &request)?))
    }

    /// Says what holds for the whole package; at most once, before any target.
    ///
    /// Args:
    ///   default_visibility: the visibility of targets that do not say.
    fn package<'v>(
        #[starlark(require = named)] default_visibility: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let scope = FileScope::of(eval)?;
        let mut package = scope.package_file("package")?.borrow_mut();
        if package.configured || !package.targets.is_empty() {
            let message = "`package` is called once, before the first target";
            return RuleError::new(Code::Evaluation, message).raise();
        }
        package.configured = true;
        if let Some(value) = default_visibility {
            let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
            package.default_visibility = unpack_visibility(value, base)?;
        }
        Ok(NoneType)
    }

    /// Lets other packages use source files of this one.
    ///
    /// Args:
    ///   srcs: names of files.
    ///   visibility: who may use them; everyone where it is not given.
    fn exports_files<'v>(
        srcs: Value<'v>,
        #[starlark(require = named)] visibility: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let scope = FileScope::of(eval)?;
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        let visibility = match visibility {
            Some(value) => unpack_visibility(value, base)?,
            None => Visibility::Public,
        };
        let mut package = scope.package_file("exports_files")?.borrow_mut();
        for name in strings(srcs, "srcs")? {
            let label = base.parse(name)?;
            if label.package != scope.file.package {
                let message = format!("`{name}` lies in another package");
                return RuleError::new(Code::Label, message).raise();
            }
            package.exports.insert(label.name, visibility.clone());
        }
        Ok(NoneType)
    }

    /// The package under evaluation, such as `app/server`; empty for the root.
    fn package_name(eval: &mut Evaluator<'_, '_, '_>) -> starlark::Result<String> {
        let scope = FileScope::of(eval)?;
        scope.package("package_name")?;
        Ok(scope.file.package.to_string())
    }

    /// The repository under evaluation; empty for the workspace.
    fn repository_name(eval: &mut Evaluator<'_, '_, '_>) -> starlark::Result<String> {
        let scope = FileScope::of(eval)?;
        scope.package("repository_name")?;
        Ok(scope.file.repo.to_string())
    }
}

fn strings<'v>(value: Value<'v>, parameter: &str) -> Result<Vec<&'v str>, RuleError> {
    let items = expect_sequence(value, parameter)?;
    let texts: Option<Vec<&str>> = items.iter().map(|item| item.unpack_str()).collect();
    texts.ok_or_else(|| wrong_type(parameter, "a list of strings", value))
}

/// The label of a `.star` file from the text of a `load`.
pub(crate) fn load_label(text: &str, from: &Label) -> Result<Label, RuleError> {
    let base = LabelBase { repo: &from.repo, package: &from.package };
    let label = base.parse(text)?;
    if !text.starts_with([':', '/', '@']) {
        let message = format!("`{}` must start with `//`, `:` or `@`", text.escape_debug());
        return Err(RuleError::new(Code::Label, message)
            .hint(format!("did you mean `:{}`?", text.escape_debug())));
    }
    if !label.name.ends_with(".star") {
        let message = format!("`{label}` is no `.star` file");
        return Err(RuleError::new(Code::Label, message));
    }
    Ok(label)
}
