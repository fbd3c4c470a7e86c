//! The `attr` namespace: how rules declare their attributes.

use std::fmt;
use std::sync::Arc;

use allocative::Allocative;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};

use super::{AllowFiles, AttrKind, AttrSpec, DependencyConfig, LabelBase, coerce};
use crate::aspect::unpack_aspects;
use crate::build_setting::ExecConfig;
use crate::error::{Code, RuleError};
use crate::scope::FileScope;
use crate::values::provider::{ProviderCallable, ProviderType};
use crate::values::select::Select;
use crate::values::transition::Transition;
use crate::values::{expect_sequence, sequence, wrong_type};

/// The result of `attr.…(…)`.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct AttrDescriptor {
    #[allocative(skip)]
    pub(crate) spec: Arc<AttrSpec>,
}

starlark_simple_value!(AttrDescriptor);

impl fmt::Display for AttrDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<attribute: {}>", self.spec.kind.noun())
    }
}

#[starlark_value(type = "Attribute")]
impl<'v> StarlarkValue<'v> for AttrDescriptor {}

/// What all attribute functions have in common.
struct Common<'v, 'a> {
    default: Option<Value<'v>>,
    mandatory: bool,
    doc: &'a str,
    values: Option<Value<'v>>,
    allow_empty: bool,
}

impl<'v> Common<'v, '_> {
    fn build(self, kind: AttrKind, base: LabelBase<'_>) -> Result<AttrSpec, RuleError> {
        let mut spec = AttrSpec::plain(kind, self.doc);
        if let Some(values) = self.values {
            let item_kind = match kind {
                AttrKind::StringList => AttrKind::String,
                other => other,
            };
            let item = AttrSpec::plain(item_kind, "");
            let values = expect_sequence(values, "values")?;
            let values: Result<_, _> =
                values.iter().map(|v| coerce(&item, "values", *v, base)).collect();
            spec.values = values?;
        }
        if let Some(default) = self.default.filter(|value| !value.is_none()) {
            if Select::from_value(default).is_some() {
                let message = "the default of an attribute cannot depend on the configuration";
                return Err(RuleError::new(Code::Attribute, message)
                    .hint("wrap the rule in a macro that passes the `select`"));
            }
            spec.default = coerce(&spec, "default", default, base)?;
        } else if let Some(first) = spec.values.first()
            && !self.mandatory
            && kind == AttrKind::String
        {
            spec.default = first.clone();
        }
        spec.mandatory = self.mandatory;
        spec.allow_empty = self.allow_empty;
        Ok(spec)
    }
}

/// What attributes of labels have besides.
struct Dependency<'v> {
    allow_files: Option<Value<'v>>,
    single_file: Option<Value<'v>>,
    providers: Option<Value<'v>>,
    executable: bool,
    cfg: Option<Value<'v>>,
    aspects: Option<Value<'v>>,
}

impl Dependency<'_> {
    fn apply(self, spec: &mut AttrSpec) -> Result<(), RuleError> {
        if let Some(value) = self.allow_files {
            spec.allow_files = unpack_files(value)?;
        }
        if let Some(value) = self.single_file {
            spec.allow_files = unpack_files(value)?;
            spec.single_file = true;
        }
        if let Some(value) = self.providers {
            spec.providers = unpack_providers(value, "providers")?;
        }
        if let Some(value) = self.aspects.filter(|value| !value.is_none()) {
            spec.aspects = unpack_aspects(value, "aspects")?;
        }
        spec.executable = self.executable;
        spec.cfg = match self.cfg.filter(|value| !value.is_none()) {
            None => DependencyConfig::Target,
            Some(value) => unpack_cfg(value)?,
        };
        Ok(())
    }
}

/// The configuration of dependencies: `exec`, `target`, or a transition.
pub(crate) fn unpack_cfg(value: Value<'_>) -> Result<DependencyConfig, RuleError> {
    if let Some(transition) = Transition::from_value(value) {
        return Ok(DependencyConfig::Transition(transition.spec.clone()));
    }
    if let Some(exec) = ExecConfig::from_value(value) {
        return Ok(DependencyConfig::Exec(exec.group.clone()));
    }
    match value.unpack_str() {
        Some("exec") => Ok(DependencyConfig::Exec(None)),
        Some("target") => Ok(DependencyConfig::Target),
        _ => Err(wrong_type("cfg", "`exec`, `target` or a transition", value)),
    }
}

fn unpack_files(value: Value<'_>) -> Result<AllowFiles, RuleError> {
    match value.unpack_bool() {
        Some(true) => return Ok(AllowFiles::Any),
        Some(false) => return Ok(AllowFiles::No),
        None => {}
    }
    let wrong = || wrong_type("allow_files", "`True`, `False` or a list of suffixes", value);
    let items = sequence(value).ok_or_else(wrong)?;
    let suffixes: Option<Vec<String>> =
        items.iter().map(|item| item.unpack_str().map(str::to_owned)).collect();
    Ok(AllowFiles::Suffixes(suffixes.ok_or_else(wrong)?))
}

/// A list of providers, or a list of such lists of which one must hold.
pub(crate) fn unpack_providers(
    value: Value<'_>,
    parameter: &str,
) -> Result<Vec<Vec<Arc<ProviderType>>>, RuleError> {
    let one = |list: &[Value<'_>]| -> Result<Vec<Arc<ProviderType>>, RuleError> {
        let provider = |value: &Value<'_>| match ProviderCallable::from_value(*value) {
            Some(callable) => Ok(callable.ty.clone()),
            None => Err(wrong_type(parameter, "a list of providers", *value)),
        };
        list.iter().map(provider).collect()
    };
    let items = expect_sequence(value, parameter)?;
    let lists: Option<Vec<&[Value<'_>]>> = items.iter().map(|item| sequence(*item)).collect();
    match lists {
        Some(lists) if !lists.is_empty() => lists.into_iter().map(one).collect(),
        _ if items.is_empty() => Ok(Vec::new()),
        _ => Ok(vec![one(items)?]),
    }
}

fn describe<'v>(
    eval: &Evaluator<'v, '_, '_>,
    kind: AttrKind,
    common: Common<'v, '_>,
    dependency: Option<Dependency<'v>>,
) -> starlark::Result<AttrDescriptor> {
    let scope = FileScope::of(eval)?;
    let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
    let mut spec = common.build(kind, base)?;
    if let Some(dependency) = dependency {
        dependency.apply(&mut spec)?;
    }
    Ok(AttrDescriptor { spec: Arc::new(spec) })
}

/// The functions that take no dependencies differ only in their kind.
macro_rules! plain_attribute {
    ($builder:ident, $($module:ident, $name:ident, $kind:ident, $doc:literal;)*) => {
        $(
            #[starlark_module]
            fn $module(builder: &mut GlobalsBuilder) {
                #[doc = $doc]
                fn $name<'v>(
                    #[starlark(require = named)] default: Option<Value<'v>>,
                    #[starlark(require = named, default = "")] doc: &str,
                    #[starlark(require = named, default = false)] mandatory: bool,
                    #[starlark(require = named, default = true)] allow_empty: bool,
                    #[starlark(require = named)] values: Option<Value<'v>>,
                    eval: &mut Evaluator<'v, '_, '_>,
                ) -> starlark::Result<AttrDescriptor> {
                    let common = Common { default, mandatory, doc, values, allow_empty };
                    describe(eval, AttrKind::$kind, common, None)
                }
            }
        )*

        fn plain_attributes($builder: &mut GlobalsBuilder) {
            $($module($builder);)*
        }
    };
}

plain_attribute! { builder,
    string_attribute, string, String, "A text.";
    string_list_attribute, string_list, StringList, "A list of texts.";
    string_dict_attribute, string_dict, StringDict, "A dict from texts to texts.";
    bool_attribute, r#bool, Bool, "`True` or `False`.";
    int_attribute, int, Int, "An integer.";
    int_list_attribute, int_list, IntList, "A list of integers.";
    output_attribute, output, Output, "The name of a file that the target makes.";
    output_list_attribute, output_list, OutputList, "Names of files that the target makes.";
}

/// The functions that take dependencies differ only in their kind.
macro_rules! label_attribute {
    ($builder:ident, $($module:ident, $name:ident, $kind:ident, $doc:literal;)*) => {
        $(
            #[starlark_module]
            fn $module(builder: &mut GlobalsBuilder) {
                #[doc = $doc]
                fn $name<'v>(
                    #[starlark(require = named)] default: Option<Value<'v>>,
                    #[starlark(require = named, default = "")] doc: &str,
                    #[starlark(require = named, default = false)] mandatory: bool,
                    #[starlark(require = named, default = true)] allow_empty: bool,
                    #[starlark(require = named)] allow_files: Option<Value<'v>>,
                    #[starlark(require = named)] allow_single_file: Option<Value<'v>>,
                    #[starlark(require = named)] providers: Option<Value<'v>>,
                    #[starlark(require = named, default = false)] executable: bool,
                    #[starlark(require = named)] cfg: Option<Value<'v>>,
                    #[starlark(require = named)] aspects: Option<Value<'v>>,
                    eval: &mut Evaluator<'v, '_, '_>,
                ) -> starlark::Result<AttrDescriptor> {
                    let common = Common { default, mandatory, doc, values: None, allow_empty };
                    let dependency = Dependency {
                        allow_files,
                        single_file: allow_single_file,
                        providers,
                        executable,
                        cfg,
                        aspects,
                    };
                    describe(eval, AttrKind::$kind, common, Some(dependency))
                }
            }
        )*

        fn label_attributes($builder: &mut GlobalsBuilder) {
            $($module($builder);)*
        }
    };
}

label_attribute! { builder,
    label_attribute, label, Label, "A dependency.";
    label_list_attribute, label_list, LabelList, "Dependencies.";
    label_dict_attribute, label_keyed_string_dict, LabelKeyedStringDict, "Labels with texts.";
}

/// The members of `attr`.
pub(crate) fn attr_members(builder: &mut GlobalsBuilder) {
    plain_attributes(builder);
    label_attributes(builder);
}
