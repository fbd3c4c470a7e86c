//! `macro`: a function that declares targets, with a schema of its attributes, as rules have.
//!
//! A plain function that declares targets is a macro as well. One of these besides checks what it
//! is given, resolves labels where they are written, and keeps to itself what it does not show:
//! its targets are named after the call, and are private unless it says otherwise.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;
use starlark::collections::SmallMap;
use starlark::environment::GlobalsBuilder;
use starlark::eval::{Arguments, Evaluator};
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::list::AllocList;
use starlark::values::{StringValue, Value};

use crate::attr::{AttrKind, AttrSpec, AttrValue, LabelBase, coerce};
use crate::error::{Code, RuleError, did_you_mean};
use crate::rule::{Rule, attribute_of, check_attributes, common_attributes, unpack_visibility};
use crate::scope::FileScope;
use crate::values::definition::{Definition, definition};
use crate::values::wrong_type;

/// Attributes that every macro has.
const OWN: [&str; 2] = ["name", "visibility"];

/// Stands for the attributes that every rule has, in `inherit_attrs`.
const COMMON: &str = "common";

/// What a macro is, apart from its implementation.
#[derive(Debug)]
pub(crate) struct MacroSpec {
    /// The file that defines it.
    pub(crate) file: Label,
    /// The variable that it is assigned to; known once it is.
    pub(crate) variable: OnceLock<Arc<str>>,
    pub(crate) attrs: Vec<(String, Arc<AttrSpec>)>,
    /// What it declares.
    pub(crate) doc: String,
    /// Attributes of what it wraps: they are `None` where nothing is said.
    inherited: Vec<(String, Arc<AttrSpec>)>,
}

impl MacroSpec {
    /// The name for people.
    pub(crate) fn name(&self) -> &str {
        self.variable.get().map_or("macro", |name| name)
    }

    fn attribute_names(&self) -> impl Iterator<Item = &str> {
        let all = self.attrs.iter().chain(&self.inherited);
        OWN.into_iter().chain(all.map(|(name, _)| name.as_str()).filter(|n| !n.starts_with('_')))
    }
}

impl Definition for MacroSpec {
    fn file(&self) -> &Label {
        &self.file
    }

    fn variable(&self) -> &OnceLock<Arc<str>> {
        &self.variable
    }
}

definition! {
    /// The result of `macro(…)`: calling it declares targets.
    SymbolicMacro, SymbolicMacroGen, FrozenSymbolicMacro: MacroSpec, "function", "<macro {}>",
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
            call(&self.spec, self.implementation.to_value(), args, eval)
        }
    }
}

/// A call under evaluation.
#[derive(Clone, Debug)]
pub(crate) struct MacroCall {
    /// The macro.
    function: String,
    /// The name that it was given.
    name: String,
}

impl MacroCall {
    /// Checks that a target, or the call of another macro, is named after this call.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), RuleError> {
        let Self { function, name: own } = self;
        let rest = name.strip_prefix(own.as_str());
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-', '.'])) {
            return Ok(());
        }
        let message = format!("macro `{function}` was called as `{own}`, and declares `{name}`");
        Err(RuleError::new(Code::Attribute, message)
            .hint(format!("name it `{own}`, or begin with it: `{own}_{name}`")))
    }

    /// The error for a function that only a package file may call.
    pub(crate) fn refuse(&self, function: &str) -> RuleError {
        let message = format!("`{function}` cannot be called in macro `{}`", self.function);
        RuleError::new(Code::Evaluation, message)
            .hint("call it in the package file, and pass the result as an attribute")
    }
}

fn call<'v>(
    spec: &MacroSpec,
    implementation: Value<'v>,
    args: &Arguments<'v, '_>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    if args.no_positional_args(eval.heap()).is_err() {
        let message = format!("`{}` takes named arguments only", spec.name());
        return RuleError::new(Code::Attribute, message).hint("write `name = \"…\"`").raise();
    }
    let scope = FileScope::of(eval)?;
    scope.package(spec.name())?;
    let given = args.names_map()?;
    let name = match given.get("name").map(|name| name.unpack_str()) {
        Some(Some(name)) => name.to_owned(),
        _ => {
            let message = format!("attribute `name` of `{}` must be a string", spec.name());
            return RuleError::new(Code::Attribute, message).raise();
        }
    };
    if let Some(outer) = scope.macros.borrow().last() {
        outer.check_name(&name)?;
    }
    let values = arguments(spec, &given, eval).map_err(|mut error| {
        error.message = format!("macro `{}` `{name}`: {}", spec.name(), error.message);
        error
    })?;
    let values: Vec<(&str, Value<'v>)> = values.iter().map(|(n, value)| (*n, *value)).collect();
    scope.macros.borrow_mut().push(MacroCall { function: spec.name().to_owned(), name });
    let result = eval.eval_function(implementation, &[], &values);
    scope.macros.borrow_mut().pop();
    let returned = result?;
    if !returned.is_none() {
        let message =
            format!("macro `{}` must return nothing, and returned something", spec.name());
        return RuleError::new(Code::Evaluation, message).raise();
    }
    Ok(Value::new_none())
}

/// What the implementation is given.
fn arguments<'s, 'v>(
    spec: &'s MacroSpec,
    given: &SmallMap<StringValue<'v>, Value<'v>>,
    eval: &Evaluator<'v, '_, '_>,
) -> Result<Vec<(&'s str, Value<'v>)>, RuleError> {
    let scope = FileScope::of(eval)?;
    let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
    let heap = eval.heap();
    for name in given.keys() {
        if !spec.attribute_names().any(|own| own == name.as_str()) {
            let message = format!("it has no attribute `{}`", name.as_str());
            let hint = did_you_mean(name.as_str(), spec.attribute_names());
            return Err(RuleError::new(Code::Attribute, message).hint_opt(hint));
        }
    }
    let mut out = Vec::new();
    out.extend(given.get("name").map(|name| ("name", *name)));
    let visibility = match given.get("visibility").filter(|value| !value.is_none()) {
        Some(value) => unpack_visibility(*value, base)?,
        None => scope.default_visibility("visibility")?,
    };
    out.push(("visibility", heap.alloc(AllocList(visibility.entries()))));
    let own = spec.attrs.iter().map(|attr| (attr, false));
    for ((name, attr), is_inherited) in own.chain(spec.inherited.iter().map(|attr| (attr, true))) {
        let value = given.get(name.as_str()).copied().filter(|value| !value.is_none());
        let value = match value {
            Some(value) => match coerce(attr, name, value, base)? {
                // What depends on the configuration is passed on, and resolved with its target.
                AttrValue::Configurable(_) => value,
                _ if matches!(attr.kind, AttrKind::Output | AttrKind::OutputList) => value,
                checked => checked.alloc(heap),
            },
            None if attr.mandatory => {
                let message = format!("attribute `{name}` is missing");
                return Err(RuleError::new(Code::Attribute, message)
                    .hint(format!("it is {}", attribute_of(attr))));
            }
            None if is_inherited => Value::new_none(),
            None => attr.default.alloc(heap),
        };
        out.push((name, value));
    }
    Ok(out)
}

/// The attributes of what a macro wraps.
fn inherited(value: Value<'_>) -> Result<Vec<(String, Arc<AttrSpec>)>, RuleError> {
    let all = match (Rule::from_value(value), SymbolicMacro::from_value(value), value.unpack_str())
    {
        (Some(rule), _, _) => rule.spec.attrs.clone(),
        (_, Some(other), _) => {
            other.spec.attrs.iter().chain(&other.spec.inherited).cloned().collect()
        }
        (_, _, Some(COMMON)) => common_attributes(false, false, true),
        _ => return Err(wrong_type("inherit_attrs", "a rule, a macro or `common`", value)),
    };
    let is_shared =
        |(name, _): &(String, _)| !name.starts_with('_') && !OWN.contains(&name.as_str());
    Ok(all.into_iter().filter(is_shared).collect())
}

/// The `attrs` of a macro.
#[derive(Default)]
struct Own<'v> {
    attrs: Vec<(String, Value<'v>)>,
    /// Attributes that it does not inherit.
    dropped: Vec<String>,
}

impl<'v> Own<'v> {
    fn unpack(value: Value<'v>) -> Result<Self, RuleError> {
        let dict =
            DictRef::from_value(value).ok_or_else(|| wrong_type("attrs", "a dict", value))?;
        let mut out = Self::default();
        for (name, value) in dict.iter() {
            let text = name.unpack_str();
            let text = text.ok_or_else(|| wrong_type("attrs", "named by strings", name))?;
            match value.is_none() {
                true => out.dropped.push(text.to_owned()),
                false => out.attrs.push((text.to_owned(), value)),
            }
        }
        Ok(out)
    }
}

#[starlark_module]
pub(crate) fn macro_globals(builder: &mut GlobalsBuilder) {
    /// Defines a macro: a function that declares targets, with a schema of its attributes.
    ///
    /// Args:
    ///   implementation: a function that gets `name`, `visibility` and the attributes by name; it
    ///     declares targets that are named `name`, or begin with it and `_`, `-` or `.`.
    ///   attrs: a dict from names to `attr.…`; `None` leaves out an attribute that is inherited.
    ///   inherit_attrs: a rule or macro whose attributes it has too, or `common`; they are `None`
    ///     where nothing is said.
    ///   doc: what it declares.
    fn r#macro<'v>(
        #[starlark(require = named)] implementation: Value<'v>,
        #[starlark(require = named)] attrs: Option<Value<'v>>,
        #[starlark(require = named)] inherit_attrs: Option<Value<'v>>,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<SymbolicMacro<'v>> {
        let scope = FileScope::of(eval)?;
        if scope.package.is_some() {
            return RuleError::new(Code::Evaluation, "a package file cannot define a macro")
                .hint("define it in a `.star` file beside it, and `load` it")
                .raise();
        }
        if implementation.get_type() != "function" {
            return wrong_type("implementation", "a function", implementation).raise();
        }
        let Own { attrs, dropped } = match attrs.filter(|value| !value.is_none()) {
            None => Own::default(),
            Some(value) => Own::unpack(value)?,
        };
        let common: Vec<(String, Arc<AttrSpec>)> = OWN
            .map(|name| (name.to_owned(), Arc::new(AttrSpec::plain(AttrKind::String, ""))))
            .into();
        let attrs = check_attributes(attrs.into_iter(), &common)?;
        let mut inherited = match inherit_attrs.filter(|value| !value.is_none()) {
            None => Vec::new(),
            Some(value) => inherited(value)?,
        };
        inherited.retain(|(name, _)| {
            !dropped.contains(name) && !attrs.iter().any(|(own, _)| own == name)
        });
        let (file, variable) = (scope.file.clone(), OnceLock::new());
        let spec = MacroSpec { file, variable, attrs, doc: doc.to_owned(), inherited };
        Ok(SymbolicMacroGen { implementation, spec: Arc::new(spec) })
    }
}
