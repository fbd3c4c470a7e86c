//! `rule`: makes a function that declares targets.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;
use starlark::codemap::FileSpan;
use starlark::collections::SmallMap;
use starlark::environment::GlobalsBuilder;
use starlark::eval::{Arguments, Evaluator};
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::none::NoneType;
use starlark::values::{StringValue, Value};

use crate::attr::schema::{AttrDescriptor, unpack_cfg};
use crate::attr::{AttrKind, AttrSpec, AttrValue, DependencyConfig, LabelBase, coerce};
use crate::build_setting::BuildSetting;
use crate::error::{Code, RuleError, did_you_mean};
use crate::generator::MacroCalls;
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::scope::{FileScope, outermost_call};
use crate::values::definition::{Definition, definition};
use crate::values::exec_group::{Execution, GroupNeeds};
use crate::values::provider::{ProviderCallable, ProviderType};
use crate::values::{expect_sequence, wrong_type};
use crate::visibility::Visibility;

/// The attribute that names what a target needs of the platform it is built for.
pub(crate) const COMPATIBLE: &str = "target_compatible_with";

/// The attribute that holds the name of a target.
const NAME: &str = "name";

/// The attribute that holds the default of a param.
pub(crate) const PARAM_DEFAULT: &str = "build_setting_default";

/// What a rule is, apart from its implementation.
#[derive(Debug)]
pub(crate) struct RuleSpec {
    /// The file that defines it.
    pub(crate) file: Label,
    /// The variable that it is assigned to; known once it is.
    pub(crate) variable: OnceLock<Arc<str>>,
    /// Its own attributes, then those that every rule has.
    pub(crate) attrs: Vec<(String, Arc<AttrSpec>)>,
    pub(crate) executable: bool,
    pub(crate) test: bool,
    pub(crate) provides: Vec<Arc<ProviderType>>,
    /// What it does.
    pub(crate) doc: String,
    /// Which rule of the language it is, if it is one.
    pub(crate) native: Option<NativeKind>,
    /// What its targets are as params, if they are some.
    pub(crate) build_setting: Option<BuildSetting>,
    /// What its targets are built for, in terms of what they were asked for in.
    pub(crate) cfg: DependencyConfig,
    /// What its actions need of where they run.
    pub(crate) execution: Execution,
}

impl RuleSpec {
    /// The name for people.
    pub(crate) fn name(&self) -> &str {
        self.variable.get().map_or("rule", |name| name)
    }

    /// The name for people, to be kept.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.variable.get().cloned().unwrap_or_else(|| self.name().into())
    }

    fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.attrs.iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with('_'))
    }
}

impl Definition for RuleSpec {
    fn file(&self) -> &Label {
        &self.file
    }

    fn variable(&self) -> &OnceLock<Arc<str>> {
        &self.variable
    }
}

definition! {
    /// The result of `rule(…)`: calling it declares a target. Rules of the language have `None`
    /// as their implementation.
    Rule, RuleGen, FrozenRule: RuleSpec, "function", "<rule {}>",
    {
        fn name_for_call_stack(&self, _me: Value<'v>) -> String {
            self.spec.name().to_owned()
        }

        fn invoke(
            &self,
            _me: Value<'v>,
            args: &Arguments<'v, '_>,
            eval: &mut Evaluator<'v, '_, '_>,
        ) -> starlark::Result<Value<'v>> {
            declare_from(&self.spec, args, eval)
        }
    }
}

/// The call of a rule: declares a target in the package under evaluation.
fn declare_from<'v>(
    spec: &Arc<RuleSpec>,
    args: &Arguments<'v, '_>,
    eval: &Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    if args.no_positional_args(eval.heap()).is_err() {
        let message = format!("`{}` takes named arguments only", spec.name());
        return RuleError::new(Code::Attribute, message).hint("write `name = \"…\"`").raise();
    }
    declare(spec, &args.names_map()?, eval)?;
    Ok(Value::new_none())
}

/// Declares a target of `rule` in the package under evaluation.
fn declare<'v>(
    rule: &Arc<RuleSpec>,
    given: &SmallMap<StringValue<'v>, Value<'v>>,
    eval: &Evaluator<'v, '_, '_>,
) -> Result<(), RuleError> {
    let scope = FileScope::of(eval)?;
    let package = scope.package(rule.name())?;
    if rule.variable.get().is_none() {
        let message = "a rule must be assigned to a variable of its file before it is called";
        return Err(RuleError::new(Code::Evaluation, message));
    }
    let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
    for name in given.keys() {
        check_known(rule, name.as_str())?;
    }
    let label = target_label(rule, given, base)?;
    if let Some(call) = scope.macros.borrow().last() {
        call.check_name(&label.name)?;
    }
    let in_target = |mut error: RuleError| {
        error.message = format!("target `{}`: {}", label.name, error.message);
        error
    };
    let mut attrs = Vec::with_capacity(rule.attrs.len());
    for (name, spec) in &rule.attrs {
        let value = given.get(name.as_str()).copied().filter(|value| !value.is_none());
        attrs.push(match value {
            Some(_) if name == NAME => AttrValue::String(label.name.clone()),
            Some(value) => coerce(spec, name, value, base).map_err(in_target)?,
            None if spec.mandatory => {
                let message = format!("attribute `{name}` of `{}` is missing", rule.name());
                return Err(in_target(RuleError::new(Code::Attribute, message))
                    .hint(format!("it is {}", attribute_of(spec))));
            }
            None => spec.default.clone(),
        });
    }
    let visibility = match given.get("visibility").copied().filter(|value| !value.is_none()) {
        None => scope.default_visibility(rule.name())?,
        Some(value) => unpack_visibility(value, base).map_err(in_target)?,
    };
    let span = outermost_call(eval)
        .unwrap_or_else(|| FileSpan::new(crate::load::file::display(&scope.file), String::new()));
    let rule = rule.clone();
    let calls = MacroCalls::capture(eval, &scope.calls);
    package.borrow_mut().add(TargetDecl { label, rule, attrs, visibility, span, calls })
}

/// The type and the meaning of an attribute.
pub(crate) fn attribute_of(spec: &AttrSpec) -> String {
    match spec.doc.as_str() {
        "" => spec.kind.noun().to_owned(),
        doc => format!("{}: {}", spec.kind.noun(), doc.trim_end_matches('.')),
    }
}

fn check_known(rule: &RuleSpec, name: &str) -> Result<(), RuleError> {
    if rule.attrs.iter().any(|(own, _)| own == name) && !name.starts_with('_') {
        return Ok(());
    }
    let message = format!("`{}` has no attribute `{name}`", rule.name());
    let hint = did_you_mean(name, rule.attribute_names());
    let names: Vec<&str> = rule.attribute_names().collect();
    let all = format!("its attributes are: {}", names.join(", "));
    Err(RuleError::new(Code::Attribute, message).hint(hint.unwrap_or(all)))
}

fn target_label<'v>(
    rule: &RuleSpec,
    given: &SmallMap<StringValue<'v>, Value<'v>>,
    base: LabelBase<'_>,
) -> Result<Label, RuleError> {
    let Some(name) = given.get(NAME) else {
        let message = format!("attribute `name` of `{}` is missing", rule.name());
        return Err(RuleError::new(Code::Attribute, message));
    };
    let Some(name) = name.unpack_str() else {
        return Err(wrong_type("name", "a string", *name));
    };
    Label::named(base.repo, base.package, name)
        .map_err(|e| RuleError::new(Code::Label, e.to_string()))
}

/// A `visibility` list.
pub(crate) fn unpack_visibility(
    value: Value<'_>,
    base: LabelBase<'_>,
) -> Result<Visibility, RuleError> {
    let items = expect_sequence(value, "visibility")?;
    let texts: Option<Vec<&str>> = items.iter().map(|item| item.unpack_str()).collect();
    let texts = texts.ok_or_else(|| wrong_type("visibility", "a list of strings", value))?;
    Visibility::parse(&texts, base.repo, base.package)
}

/// The attributes that every rule has, and those of tests and programs.
pub(crate) fn common_attributes(
    executable: bool,
    test: bool,
    platforms: bool,
) -> Vec<(String, Arc<AttrSpec>)> {
    let mut out = Vec::new();
    let mut add = |name: &str, kind: AttrKind, doc: &str| {
        let mut spec = AttrSpec::plain(kind, doc);
        spec.configurable = matches!(name, "args" | "env" | COMPATIBLE);
        out.push((name.to_owned(), Arc::new(spec)));
    };
    add(NAME, AttrKind::String, "The name of the target.");
    add("visibility", AttrKind::StringList, "Who may depend on the target.");
    add("tags", AttrKind::StringList, "Words for people; `manual` hides it from `...` and `all`.");
    add("testonly", AttrKind::Bool, "Only tests and other such targets may depend on it.");
    add("deprecation", AttrKind::String, "Why one should no longer use the target.");
    if platforms {
        let doc = "Constraint values that the target platform must have.";
        add(COMPATIBLE, AttrKind::LabelList, doc);
    }
    if executable || test {
        add("args", AttrKind::StringList, "Arguments that come before those of the user.");
        add("env", AttrKind::StringDict, "Environment variables.");
    }
    if test {
        let choice = |doc: &str, values: &[&str], default: &str| {
            let mut spec = AttrSpec::plain(AttrKind::String, doc);
            spec.configurable = false;
            spec.values = values.iter().map(|v| AttrValue::String((*v).into())).collect();
            spec.default = AttrValue::String(default.into());
            Arc::new(spec)
        };
        let sizes = ["small", "medium", "large", "enormous"];
        let times = ["", "short", "moderate", "long", "eternal"];
        let shards = "How many processes share the test; each gets TEST_SHARD_INDEX.";
        for (name, kind, doc) in [
            ("flaky", AttrKind::Bool, "Whether it is tried up to three times."),
            ("shard_count", AttrKind::Int, shards),
        ] {
            let mut spec = AttrSpec::plain(kind, doc);
            spec.configurable = false;
            out.push((name.to_owned(), Arc::new(spec)));
        }
        out.push(("size".to_owned(), choice("How heavy the test is.", &sizes, "medium")));
        out.push(("timeout".to_owned(), choice("How long it may run.", &times, "")));
    }
    out
}

#[starlark_module]
pub(crate) fn rule_globals(builder: &mut GlobalsBuilder) {
    /// Defines a rule: a function that declares targets.
    ///
    /// Args:
    ///   implementation: a function from `ctx` to a list of providers.
    ///   attrs: a dict from names to `attr.…`; names with `_` in front cannot be set by targets.
    ///   executable: whether targets can be run.
    ///   test: whether targets are tests.
    ///   doc: what it does.
    ///   provides: providers that the implementation always returns.
    ///   cfg: a transition from the configuration that a target is asked for in to its own.
    ///   toolchains: types of toolchains that its actions need, as labels, or as
    ///     `config_common.toolchain_type(label, mandatory = False)`.
    ///   exec_compatible_with: constraint values that the platform must have that they run on.
    ///   exec_groups: a dict from names to `exec_group(…)`: actions that name one of them run on a
    ///     platform of their own.
    ///   build_setting: `config.string(flag = True)` and its kin: the targets are params.
    fn rule<'v>(
        implementation: Value<'v>,
        #[starlark(require = named)] attrs: Option<Value<'v>>,
        #[starlark(require = named, default = false)] executable: bool,
        #[starlark(require = named, default = false)] test: bool,
        #[starlark(require = named, default = "")] doc: &str,
        #[starlark(require = named)] provides: Option<Value<'v>>,
        #[starlark(require = named)] build_setting: Option<Value<'v>>,
        #[starlark(require = named)] cfg: Option<Value<'v>>,
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named)] exec_compatible_with: Option<Value<'v>>,
        #[starlark(require = named)] exec_groups: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Rule<'v>> {
        let scope = FileScope::of(eval)?;
        if scope.package.is_some() {
            return RuleError::new(Code::Evaluation, "a package file cannot define a rule")
                .hint("define it in a `.star` file beside it, and `load` it")
                .raise();
        }
        if implementation.get_type() != "function" {
            return wrong_type("implementation", "a function", implementation).raise();
        }
        let build_setting = match build_setting.filter(|value| !value.is_none()) {
            None => None,
            Some(value) => Some(BuildSetting::from_value(value).cloned().ok_or_else(|| {
                wrong_type("build_setting", "`config.string(flag = True)` or its kin", value)
            })?),
        };
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        let mut common = common_attributes(executable, test, true);
        common.extend(build_setting.iter().map(param_default));
        let mut all = match attrs {
            Some(value) if !value.is_none() => unpack_attributes(value, &common)?,
            _ => Vec::new(),
        };
        all.extend(common);
        let provides = match provides {
            None => Vec::new(),
            Some(value) => unpack_provides(value)?,
        };
        let needs = GroupNeeds::unpack(toolchains, exec_compatible_with, base)?;
        let execution = Execution::new(needs, exec_groups)?;
        execution.check_attributes(&all)?;
        let spec = RuleSpec {
            file: scope.file.clone(),
            variable: OnceLock::new(),
            attrs: all,
            executable: executable || test,
            test,
            provides,
            doc: doc.to_owned(),
            native: None,
            build_setting,
            cfg: match cfg.filter(|value| !value.is_none()) {
                None => DependencyConfig::Target,
                Some(value) => unpack_own_cfg(value)?,
            },
            execution,
        };
        Ok(RuleGen { implementation, spec: Arc::new(spec) })
    }

    /// Says who may load this file; its own package and those below where it is not called.
    ///
    /// Args:
    ///   value: a list such as `["//..."]`, `["//app/..."]` or `["public"]`.
    fn visibility<'v>(
        #[starlark(require = pos)] value: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let scope = FileScope::of(eval)?;
        if scope.package.is_some() {
            return RuleError::new(Code::Evaluation, "a package file cannot be loaded")
                .hint("say `package(default_visibility = […])` for its targets")
                .raise();
        }
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        let visibility = match value.unpack_str() {
            Some(text) => Visibility::parse(&[text], base.repo, base.package)?,
            None => unpack_visibility(value, base)?,
        };
        if scope.visibility.replace(Some(visibility)).is_some() {
            return RuleError::new(Code::Evaluation, "`visibility` is called twice").raise();
        }
        Ok(NoneType)
    }
}

/// The `cfg` of a rule, which no group of its own can decide.
fn unpack_own_cfg(value: Value<'_>) -> Result<DependencyConfig, RuleError> {
    match unpack_cfg(value)? {
        DependencyConfig::Exec(Some(group)) => {
            let message = format!("`cfg` of a rule names the execution group `{group}`");
            Err(RuleError::new(Code::Toolchain, message)
                .hint("name it in `cfg` of an attribute, or write `cfg = \"exec\"`"))
        }
        cfg => Ok(cfg),
    }
}

/// The attribute in which a param says its default.
fn param_default(setting: &BuildSetting) -> (String, Arc<AttrSpec>) {
    let mut spec = AttrSpec::plain(setting.ty.attribute(), "The value where nobody sets another.");
    spec.mandatory = true;
    spec.configurable = false;
    (PARAM_DEFAULT.to_owned(), Arc::new(spec))
}

/// The `attrs` of a rule or aspect; `common` are those that it has anyway.
pub(crate) fn unpack_attributes(
    value: Value<'_>,
    common: &[(String, Arc<AttrSpec>)],
) -> Result<Vec<(String, Arc<AttrSpec>)>, RuleError> {
    let dict = DictRef::from_value(value).ok_or_else(|| wrong_type("attrs", "a dict", value))?;
    let mut given = Vec::with_capacity(dict.len());
    for (name, descriptor) in dict.iter() {
        let text =
            name.unpack_str().ok_or_else(|| wrong_type("attrs", "named by strings", name))?;
        given.push((text.to_owned(), descriptor));
    }
    check_attributes(given.into_iter(), common)
}

/// The same by name.
pub(crate) fn check_attributes<'v>(
    given: impl Iterator<Item = (String, Value<'v>)>,
    common: &[(String, Arc<AttrSpec>)],
) -> Result<Vec<(String, Arc<AttrSpec>)>, RuleError> {
    let mut out = Vec::new();
    for (name, descriptor) in given {
        let Some(descriptor) = AttrDescriptor::from_value(descriptor) else {
            return Err(wrong_type(&format!("attrs[\"{name}\"]"), "an `attr.…(…)`", descriptor));
        };
        if common.iter().any(|(reserved, _)| *reserved == name) {
            let message = format!("every rule has the attribute `{name}` already");
            return Err(RuleError::new(Code::Evaluation, message));
        }
        let mut chars = name.chars();
        let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = format!("`{}` cannot be the name of an attribute", name.escape_debug());
            return Err(RuleError::new(Code::Evaluation, message));
        }
        if name.starts_with('_') && descriptor.spec.mandatory {
            let message = format!("attribute `{name}` is private, so it cannot be mandatory");
            return Err(RuleError::new(Code::Evaluation, message).hint("give it a default"));
        }
        out.push((name, descriptor.spec.clone()));
    }
    Ok(out)
}

/// The `provides` of a rule or aspect.
pub(crate) fn unpack_provides(value: Value<'_>) -> Result<Vec<Arc<ProviderType>>, RuleError> {
    let provider = |value: &Value<'_>| match ProviderCallable::from_value(*value) {
        Some(callable) => Ok(callable.ty.clone()),
        None => Err(wrong_type("provides", "a list of providers", *value)),
    };
    expect_sequence(value, "provides")?.iter().map(provider).collect()
}
