//! `provider`: typed records by which a target tells its dependents about itself.
//!
//! A provider is identified by the file and the variable that define it, so the same definition
//! loaded twice is the same provider, and two of the same name in different files are not.

use std::fmt;
use std::sync::{Arc, OnceLock};

use allocative::Allocative;
use starlark::coerce::Coerce;
use starlark::environment::GlobalsBuilder;
use starlark::eval::{Arguments, Evaluator};
use starlark::starlark_complex_value;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::dict::DictRef;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::runfiles::Runfiles;
use super::{expect_sequence, wrong_type};
use crate::error::{Code, RuleError, did_you_mean};
use crate::scope::FileScope;

/// What identifies a provider and which fields it has.
#[derive(Debug)]
pub(crate) struct ProviderType {
    /// The file that defines it, empty for built-in ones.
    pub(crate) file: String,
    /// The variable; known once the definition is assigned.
    name: OnceLock<String>,
    /// The names of the fields; any field is allowed where `None`.
    pub(crate) fields: Option<Vec<String>>,
    /// What it tells.
    pub(crate) doc: String,
    /// The meaning of each field, in the order of `fields`; empty where none is given.
    pub(crate) field_docs: Vec<String>,
}

impl ProviderType {
    /// The name for people.
    pub(crate) fn name(&self) -> &str {
        self.name.get().map_or("provider", String::as_str)
    }

    /// A provider as an earlier build knew it.
    pub(crate) fn recall(file: &str, name: &str, fields: Option<Vec<String>>) -> Self {
        let name = OnceLock::from(name.to_owned());
        let (doc, field_docs) = (String::new(), Vec::new());
        Self { file: file.to_owned(), name, fields, doc, field_docs }
    }

    /// The file that defines it, empty for built-in ones.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The variable, once the definition is assigned.
    pub(crate) fn exported_name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }

    /// The names of the fields; any field is allowed where `None`.
    pub(crate) fn fields(&self) -> Option<&[String]> {
        self.fields.as_deref()
    }

    fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.name.get().is_some() && self.key() == other.key())
    }

    fn key(&self) -> (&str, Option<&String>) {
        (&self.file, self.name.get())
    }
}

/// The result of `provider(…)`: calling it makes an instance.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct ProviderCallable {
    #[allocative(skip)]
    pub(crate) ty: Arc<ProviderType>,
}

starlark_simple_value!(ProviderCallable);

impl ProviderCallable {
    fn builtin(name: &str, fields: Option<&[&str]>) -> Self {
        let fields = fields.map(|list| list.iter().map(|name| (*name).to_owned()).collect());
        let ty = ProviderType {
            file: String::new(),
            name: OnceLock::from(name.to_owned()),
            fields,
            doc: String::new(),
            field_docs: Vec::new(),
        };
        Self { ty: Arc::new(ty) }
    }
}

impl fmt::Display for ProviderCallable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<provider {}>", self.ty.name())
    }
}

#[starlark_value(type = "Provider")]
impl<'v> StarlarkValue<'v> for ProviderCallable {
    fn export_as(
        &self,
        variable_name: &str,
        _eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<()> {
        // The first variable counts; an alias does not rename.
        self.ty.name.get_or_init(|| variable_name.to_owned());
        Ok(())
    }

    fn invoke(
        &self,
        _me: Value<'v>,
        args: &Arguments<'v, '_>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        args.no_positional_args(heap)?;
        let given = args.names_map()?;
        let mut names = Vec::with_capacity(given.len());
        let mut values = Vec::with_capacity(given.len());
        for (name, value) in given {
            self.check_field(name.as_str())?;
            names.push(name.as_str().to_owned());
            values.push(value);
        }
        Ok(heap.alloc(ProviderInstance { ty: self.ty.clone(), names, values }))
    }
}

impl ProviderCallable {
    fn check_field(&self, name: &str) -> Result<(), RuleError> {
        let Some(fields) = &self.ty.fields else { return Ok(()) };
        if fields.iter().any(|field| field == name) {
            return Ok(());
        }
        let known = fields.iter().map(String::as_str);
        let message = format!("provider `{}` has no field `{name}`", self.ty.name());
        Err(RuleError::new(Code::Evaluation, message).hint_opt(did_you_mean(name, known)))
    }
}

/// One record of a provider.
#[derive(
    Debug, Trace, Coerce, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
#[repr(C)]
pub(crate) struct ProviderInstanceGen<V> {
    #[trace(static)]
    #[allocative(skip)]
    pub(crate) ty: Arc<ProviderType>,
    names: Vec<String>,
    values: Vec<V>,
}

starlark_complex_value!(pub(crate) ProviderInstance);

impl Freeze for ProviderInstance<'_> {
    type Frozen = FrozenProviderInstance;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { ty, names, values } = self;
        Ok(ProviderInstanceGen { ty, names, values: values.freeze(freezer)? })
    }
}

impl<'v> ProviderInstance<'v> {
    /// A field, if it is set to something other than `None`.
    pub(crate) fn field(&self, name: &str) -> Option<Value<'v>> {
        let at = self.names.iter().position(|n| n == name)?;
        self.values.get(at).copied().filter(|value| !value.is_none())
    }

    /// What its fields hold.
    pub(crate) fn values(&self) -> impl Iterator<Item = Value<'v>> {
        self.values.iter().copied()
    }

    /// Its fields, in the order in which they were given.
    pub(crate) fn fields(&self) -> impl ExactSizeIterator<Item = (&str, Value<'v>)> {
        self.names.iter().map(String::as_str).zip(self.values.iter().copied())
    }

    /// A record as an earlier build made it.
    pub(crate) fn recall(ty: Arc<ProviderType>, fields: Vec<(String, Value<'v>)>) -> Self {
        let (names, values) = fields.into_iter().unzip();
        Self { ty, names, values }
    }

    /// Makes a record of a built-in provider.
    pub(crate) fn new(callable: &ProviderCallable, fields: Vec<(&str, Value<'v>)>) -> Self {
        let (names, values) = fields.into_iter().map(|(n, v)| (n.to_owned(), v)).unzip();
        Self { ty: callable.ty.clone(), names, values }
    }
}

impl<V: fmt::Display> fmt::Display for ProviderInstanceGen<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.ty.name())?;
        for (i, (name, value)) in self.names.iter().zip(&self.values).enumerate() {
            write!(f, "{}{name} = {value}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

#[starlark_value(type = "struct")]
impl<'v, V: ValueLike<'v>> StarlarkValue<'v> for ProviderInstanceGen<V>
where
    Self: ProvidesStaticType<'v>,
{
    type Canonical = FrozenProviderInstance;

    fn at(&self, index: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        self.check_groups()?;
        let group = index.unpack_str().and_then(|name| self.get_attr(name, heap));
        group.ok_or_else(|| {
            let message = format!("there is no output group {}", index.to_repr());
            let near = index.unpack_str().map(|name| self.names_near(name));
            RuleError::new(Code::Evaluation, message).hint_opt(near.flatten()).into()
        })
    }

    fn is_in(&self, other: Value<'v>) -> starlark::Result<bool> {
        self.check_groups()?;
        Ok(other.unpack_str().is_some_and(|name| self.names.iter().any(|own| own == name)))
    }

    fn get_attr(&self, attribute: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let at = self.names.iter().position(|n| n == attribute);
        let own = at.and_then(|at| self.values.get(at)).map(|v| v.to_value());
        if self.ty.same(&builtins().default_info.ty)
            && let Some(value) = self.default_attr(attribute, own, heap)
        {
            return Some(value);
        }
        match own {
            Some(value) => Some(value),
            // A declared field that was not set reads as `None`.
            None => {
                let fields = self.ty.fields.as_ref()?;
                fields.iter().any(|field| field == attribute).then(Value::new_none)
            }
        }
    }

    fn dir_attr(&self) -> Vec<String> {
        match &self.ty.fields {
            Some(fields) => fields.clone(),
            None => self.names.clone(),
        }
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        let Some(other) = ProviderInstance::from_value(other) else { return Ok(false) };
        if !self.ty.same(&other.ty) || self.names.len() != other.names.len() {
            return Ok(false);
        }
        for (name, value) in self.names.iter().zip(&self.values) {
            let Some(at) = other.names.iter().position(|n| n == name) else { return Ok(false) };
            let Some(theirs) = other.values.get(at) else { return Ok(false) };
            if !value.to_value().equals(*theirs)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<'v, V: ValueLike<'v>> ProviderInstanceGen<V> {
    /// Only groups of outputs are asked for by name in brackets.
    fn check_groups(&self) -> Result<(), RuleError> {
        if self.ty.same(&builtins().output_groups.ty) {
            return Ok(());
        }
        let message = format!("`{}` has fields, not items", self.ty.name());
        Err(RuleError::new(Code::Evaluation, message).hint("write `info.field`"))
    }

    fn names_near(&self, name: &str) -> Option<String> {
        did_you_mean(name, self.names.iter().map(String::as_str))
    }

    /// What a field of `DefaultInfo` is where it has another name, or was not given.
    fn default_attr(
        &self,
        attribute: &str,
        own: Option<Value<'v>>,
        heap: Heap<'v>,
    ) -> Option<Value<'v>> {
        let of = |name: &str| {
            let at = self.names.iter().position(|n| n == name)?;
            self.values.get(at).map(|v| v.to_value()).filter(|value| !value.is_none())
        };
        match attribute {
            "runfiles" | "default_runfiles" | "data_runfiles" => {
                let given = own.filter(|value| !value.is_none());
                Some(given.or_else(|| of("runfiles")).unwrap_or_else(|| Runfiles::empty(heap)))
            }
            "files_to_run" => {
                let program = of("executable").unwrap_or_else(Value::new_none);
                let fields = vec![("executable", program)];
                Some(heap.alloc(ProviderInstance::new(&builtins().files_to_run, fields)))
            }
            _ => None,
        }
    }
}

/// Whether an instance is one of this provider.
pub(crate) fn is_instance(instance: &ProviderInstance<'_>, ty: &ProviderType) -> bool {
    instance.ty.same(ty)
}

/// Whether two provider types are the same.
pub(crate) fn same_type(left: &ProviderType, right: &ProviderType) -> bool {
    left.same(right)
}

/// The built-in providers.
pub(crate) struct Builtins {
    pub(crate) default_info: ProviderCallable,
    pub(crate) run_environment: ProviderCallable,
    pub(crate) output_groups: ProviderCallable,
    pub(crate) files_to_run: ProviderCallable,
    pub(crate) toolchain: ProviderCallable,
    pub(crate) build_setting: ProviderCallable,
    pub(crate) constraint_setting: ProviderCallable,
    pub(crate) constraint_value: ProviderCallable,
    pub(crate) platform: ProviderCallable,
}

/// The built-in providers, made once.
pub(crate) fn builtins() -> &'static Builtins {
    static BUILTINS: OnceLock<Builtins> = OnceLock::new();
    BUILTINS.get_or_init(|| Builtins {
        // What every target has: the files that `build` makes, and how to run it.
        default_info: ProviderCallable::builtin(
            "DefaultInfo",
            Some(&["files", "runfiles", "executable", "default_runfiles", "data_runfiles"]),
        ),
        // How to run a target; what `files_to_run` of a target is.
        files_to_run: ProviderCallable::builtin("FilesToRunProvider", Some(&["executable"])),
        // What an executable needs around it: a dict of variables, a list of toolchains.
        run_environment: ProviderCallable::builtin(
            "RunEnvironmentInfo",
            Some(&["environment", "toolchains"]),
        ),
        // Named depsets of further files.
        output_groups: ProviderCallable::builtin("OutputGroupInfo", None),
        // A toolchain: the field `toolchain` is its tree, others name its tools.
        toolchain: ProviderCallable::builtin("ToolchainInfo", None),
        // The value of a param.
        build_setting: ProviderCallable::builtin("BuildSettingInfo", Some(&["value"])),
        // What constraint settings, constraint values and platforms are.
        constraint_setting: ProviderCallable::builtin(
            "ConstraintSettingInfo",
            Some(&["label", "default_constraint_value"]),
        ),
        constraint_value: ProviderCallable::builtin(
            "ConstraintValueInfo",
            Some(&["label", "constraint"]),
        ),
        platform: ProviderCallable::builtin("PlatformInfo", Some(&["label"])),
    })
}

#[starlark_module]
pub(crate) fn provider_globals(builder: &mut GlobalsBuilder) {
    /// Defines a provider.
    ///
    /// Args:
    ///   doc: what it tells.
    ///   fields: the names of its fields, or a dict of names and their meaning.
    fn provider<'v>(
        #[starlark(default = "")] doc: &str,
        #[starlark(require = named)] fields: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<ProviderCallable> {
        let scope = FileScope::of(eval)?;
        let (fields, field_docs) = match fields {
            None => (None, Vec::new()),
            Some(value) => (Some(unpack_fields(value)?), field_docs(value)),
        };
        let file = scope.file.to_string();
        let doc = doc.to_owned();
        let ty = ProviderType { file, name: OnceLock::new(), fields, doc, field_docs };
        Ok(ProviderCallable { ty: Arc::new(ty) })
    }
}

fn unpack_fields(value: Value<'_>) -> Result<Vec<String>, RuleError> {
    let text = |value: Value<'_>| match value.unpack_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong_type("fields", "a list or dict of strings", value)),
    };
    if let Some(dict) = DictRef::from_value(value) {
        return dict.keys().map(text).collect();
    }
    expect_sequence(value, "fields")?.iter().map(|name| text(*name)).collect()
}

/// What a dict of fields says about each.
fn field_docs(value: Value<'_>) -> Vec<String> {
    let text = |value: Value<'_>| value.unpack_str().unwrap_or_default().to_owned();
    DictRef::from_value(value).map(|dict| dict.values().map(text).collect()).unwrap_or_default()
}
