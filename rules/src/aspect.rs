//! `aspect`: a function that looks at a target of any rule and, along some of its attributes, at
//! what it depends on.
//!
//! What is said here is only what an aspect is. `configured::aspects` finds the targets that one is
//! put on, and `analysis::aspects` runs it.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;

use crate::attr::schema::unpack_providers;
use crate::attr::{AttrKind, AttrSpec, DependencyConfig, LabelBase};
use crate::error::{Code, RuleError};
use crate::rule::{RuleSpec, unpack_attributes, unpack_provides};
use crate::scope::FileScope;
use crate::values::definition::{Definition, definition};
use crate::values::exec_group::{Execution, GroupNeeds};
use crate::values::provider::{ProviderType, builtins, same_type};
use crate::values::{expect_sequence, wrong_type};

/// Stands for every attribute in `attr_aspects`.
const ALL: &str = "*";

/// The attributes along which an aspect goes on.
#[derive(Debug)]
enum Along {
    All,
    Named(Vec<String>),
}

/// Lists of providers: all of one of them are needed.
type Needed = Vec<Vec<Arc<ProviderType>>>;

/// What an aspect is, apart from its implementation.
#[derive(Debug)]
pub(crate) struct AspectSpec {
    /// The file that defines it.
    pub(crate) file: Label,
    /// The variable that it is assigned to; known once it is.
    pub(crate) variable: OnceLock<Arc<str>>,
    /// Its own attributes. Those without `_` in front are params.
    pub(crate) attrs: Vec<(String, Arc<AttrSpec>)>,
    pub(crate) provides: Vec<Arc<ProviderType>>,
    /// What its actions need of where they run.
    pub(crate) execution: Execution,
    /// Aspects that are put on every target before this one, which sees them.
    pub(crate) requires: Vec<Arc<AspectSpec>>,
    /// Whether a file that a target makes stands for the target.
    pub(crate) follows_files: bool,
    /// What it does.
    pub(crate) doc: String,
    along: Along,
    needs: Needed,
    sees: Needed,
}

impl AspectSpec {
    /// The name for people.
    pub(crate) fn name(&self) -> &str {
        self.variable.get().map_or("aspect", |name| name)
    }

    /// The name by which `--aspects` asks for it, such as `//tools:lint.star%lint`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}%{}", self.file, self.name())
    }

    /// Whether it goes on along an attribute.
    pub(crate) fn follows(&self, attribute: &str) -> bool {
        match &self.along {
            Along::All => true,
            Along::Named(names) => names.iter().any(|name| name == attribute),
        }
    }

    /// What its own attributes and those of the aspects that it requires depend on by themselves.
    pub(crate) fn own_labels(&self) -> Vec<&Label> {
        let mut labels = Vec::new();
        let mut stack = vec![self];
        let mut seen: Vec<*const Self> = Vec::new();
        while let Some(aspect) = stack.pop() {
            if seen.contains(&std::ptr::from_ref(aspect)) {
                continue;
            }
            seen.push(aspect);
            labels.extend(aspect.attrs.iter().flat_map(|(_, spec)| spec.default.labels()));
            stack.extend(aspect.requires.iter().map(|required| &**required));
        }
        labels
    }

    /// The attributes along which it goes on, as they were written.
    pub(crate) fn attr_aspects(&self) -> Vec<String> {
        match &self.along {
            Along::All => vec![ALL.to_owned()],
            Along::Named(names) => names.clone(),
        }
    }

    /// Whether it looks at targets of a rule, which is told by what the rule promises.
    pub(crate) fn fits(&self, rule: &RuleSpec) -> bool {
        self.needs.is_empty() || has_one(&self.needs, &rule.provides)
    }

    /// Whether it sees what another aspect, put on the target before it, has found out.
    pub(crate) fn sees(&self, other: &Arc<Self>) -> bool {
        self.requires(other) || has_one(&self.sees, &other.provides)
    }

    /// Whether another aspect is put on every target before it.
    pub(crate) fn requires(&self, other: &Arc<Self>) -> bool {
        self.requires.iter().any(|own| Arc::ptr_eq(own, other))
    }
}

fn has_one(lists: &Needed, provided: &[Arc<ProviderType>]) -> bool {
    let is_there = |ty: &Arc<ProviderType>| {
        same_type(ty, &builtins().default_info.ty) || provided.iter().any(|own| same_type(own, ty))
    };
    lists.iter().any(|list| list.iter().all(is_there))
}

impl Definition for AspectSpec {
    fn file(&self) -> &Label {
        &self.file
    }

    fn variable(&self) -> &OnceLock<Arc<str>> {
        &self.variable
    }
}

definition! {
    /// The result of `aspect(…)`.
    Aspect, AspectGen, FrozenAspect: AspectSpec, "Aspect", "<aspect {}>",
    {}
}

/// The aspects of a list.
pub(crate) fn unpack_aspects(
    value: Value<'_>,
    parameter: &str,
) -> Result<Vec<Arc<AspectSpec>>, RuleError> {
    let mut aspects: Vec<Arc<AspectSpec>> = Vec::new();
    for item in expect_sequence(value, parameter)? {
        let aspect = Aspect::from_value(*item)
            .ok_or_else(|| wrong_type(parameter, "a list of aspects", *item))?;
        if aspect.spec.variable.get().is_none() {
            let message = "an aspect must be assigned to a variable of its file before it is used";
            return Err(RuleError::new(Code::Aspect, message));
        }
        if aspects.iter().any(|other| Arc::ptr_eq(other, &aspect.spec)) {
            let message = format!("`{parameter}` lists `{}` twice", aspect.spec.name());
            return Err(RuleError::new(Code::Aspect, message));
        }
        aspects.push(aspect.spec.clone());
    }
    Ok(aspects)
}

fn unpack_along(value: Value<'_>) -> Result<Along, RuleError> {
    let wrong = || wrong_type("attr_aspects", "a list of names of attributes", value);
    let items = expect_sequence(value, "attr_aspects")?;
    let names: Option<Vec<String>> =
        items.iter().map(|item| item.unpack_str().map(str::to_owned)).collect();
    let names = names.ok_or_else(wrong)?;
    if !names.iter().any(|name| name == ALL) {
        return Ok(Along::Named(names));
    }
    if names.len() > 1 {
        let message = format!("`{ALL}` in `attr_aspects` stands for every attribute already");
        return Err(RuleError::new(Code::Aspect, message).hint(format!("write `[\"{ALL}\"]`")));
    }
    Ok(Along::All)
}

/// Checks that an attribute of an aspect can get a value: nobody writes one for it.
fn check_attribute(name: &str, spec: &AttrSpec) -> Result<(), RuleError> {
    let fail = |what: &str, hint: &str| {
        let message = format!("attribute `{name}` of an aspect {what}");
        Err(RuleError::new(Code::Aspect, message).hint(hint))
    };
    if !spec.aspects.is_empty() {
        return fail("has aspects of its own", "list them in `requires` of the aspect");
    }
    if matches!(spec.cfg, DependencyConfig::Transition(_)) {
        return fail("has a transition", "say `cfg = \"exec\"`, or nothing");
    }
    if name.starts_with('_') {
        return Ok(());
    }
    match spec.kind {
        AttrKind::Bool => Ok(()),
        AttrKind::String | AttrKind::Int if !spec.values.is_empty() => Ok(()),
        AttrKind::String | AttrKind::Int => {
            fail("takes any value, so there is no end of aspects", "list its `values`")
        }
        _ => fail(
            &format!("is {}, which a target cannot hand on", spec.kind.noun()),
            "give it a name with `_` in front, and a default",
        ),
    }
}

#[starlark_module]
pub(crate) fn aspect_globals(builder: &mut GlobalsBuilder) {
    /// Defines an aspect: a function that looks at targets of any rule, without their knowing.
    ///
    /// Args:
    ///   implementation: a function from `(target, ctx)` to a list of providers.
    ///   attr_aspects: names of the attributes along which it goes on; `["*"]` is all of them.
    ///   attrs: a dict from names to `attr.…`; labels need `_` in front and a default, all others
    ///     are params, which have the value of the same attribute of the rule that attaches it.
    ///   required_providers: providers that the rule of a target must promise by `provides`, or
    ///     lists of such of which one must be promised; it passes over all other targets.
    ///   required_aspect_providers: the same for aspects before it in a list: those that promise
    ///     the providers are seen on targets.
    ///   provides: providers that the implementation always returns.
    ///   requires: aspects that are put on each target before it, and are seen.
    ///   toolchains: types of toolchains that its actions need, as in `rule`.
    ///   exec_compatible_with: constraint values of the platform that they run on, as in `rule`.
    ///   exec_groups: groups of actions that run on platforms of their own, as in `rule`.
    ///   apply_to_generating_rules: whether it goes on from a file to the target that makes it.
    ///   doc: what it does.
    fn aspect<'v>(
        implementation: Value<'v>,
        #[starlark(require = named)] attr_aspects: Option<Value<'v>>,
        #[starlark(require = named)] attrs: Option<Value<'v>>,
        #[starlark(require = named)] required_providers: Option<Value<'v>>,
        #[starlark(require = named)] required_aspect_providers: Option<Value<'v>>,
        #[starlark(require = named)] provides: Option<Value<'v>>,
        #[starlark(require = named)] requires: Option<Value<'v>>,
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named)] exec_compatible_with: Option<Value<'v>>,
        #[starlark(require = named)] exec_groups: Option<Value<'v>>,
        #[starlark(require = named, default = false)] apply_to_generating_rules: bool,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Aspect<'v>> {
        let scope = FileScope::of(eval)?;
        if scope.package.is_some() {
            let message = "a package file cannot define an aspect";
            return RuleError::new(Code::Aspect, message)
                .hint("define it in a `.star` file beside it, and `load` it")
                .raise();
        }
        if implementation.get_type() != "function" {
            return wrong_type("implementation", "a function", implementation).raise();
        }
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        let attrs = given(attrs, |value| unpack_attributes(value, &[]))?;
        for (name, spec) in &attrs {
            check_attribute(name, spec)?;
        }
        let needs = GroupNeeds::unpack(toolchains, exec_compatible_with, base)?;
        let execution = Execution::new(needs, exec_groups)?;
        execution.check_attributes(&attrs)?;
        let needed = |value, parameter| given(value, |value| unpack_providers(value, parameter));
        let spec = AspectSpec {
            file: scope.file.clone(),
            variable: OnceLock::new(),
            attrs,
            provides: given(provides, unpack_provides)?,
            execution,
            requires: given(requires, |value| unpack_aspects(value, "requires"))?,
            follows_files: apply_to_generating_rules,
            doc: doc.to_owned(),
            along: match attr_aspects.filter(|value| !value.is_none()) {
                None => Along::Named(Vec::new()),
                Some(value) => unpack_along(value)?,
            },
            needs: needed(required_providers, "required_providers")?,
            sees: needed(required_aspect_providers, "required_aspect_providers")?,
        };
        Ok(AspectGen { implementation, spec: Arc::new(spec) })
    }
}

/// What a parameter comes to that may be left out.
fn given<'v, T: Default>(
    value: Option<Value<'v>>,
    unpack: impl FnOnce(Value<'v>) -> Result<T, RuleError>,
) -> Result<T, RuleError> {
    value.filter(|value| !value.is_none()).map_or_else(|| Ok(T::default()), unpack)
}
