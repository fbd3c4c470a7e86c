//! Checks what an implementation returns and completes it.

use std::sync::Arc;

use starlark::values::{Heap, Value};

use super::Analyzer;
use crate::attr::AttrKind;
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::values::depset::Depset;
use crate::values::file::FileValue;
use crate::values::provider::{ProviderInstance, ProviderType, builtins, is_instance, same_type};
use crate::values::runfiles::Runfiles;
use crate::values::target::Target;
use crate::values::{sequence, short};

fn wrong(who: &str, what: String) -> RuleError {
    RuleError::new(Code::Implementation, format!("the implementation of {who} {what}"))
}

/// What an implementation returned: providers, each once.
pub(super) struct Returned<'v> {
    pub(super) types: Vec<Arc<ProviderType>>,
    pub(super) instances: Vec<Value<'v>>,
}

impl<'v> Returned<'v> {
    /// Checks what `who` returned, who promised to provide some.
    pub(super) fn check(
        who: &str,
        returned: Value<'v>,
        promised: &[Arc<ProviderType>],
    ) -> Result<Self, RuleError> {
        let single = [returned];
        let list = if returned.is_none() {
            &[][..]
        } else if ProviderInstance::from_value(returned).is_some() {
            &single[..]
        } else {
            sequence(returned).ok_or_else(|| {
                wrong(who, format!("returned {}, not a list of providers", short(returned)))
            })?
        };
        let mut types: Vec<Arc<ProviderType>> = Vec::new();
        for value in list {
            let Some(instance) = ProviderInstance::from_value(*value) else {
                let what = format!("returned {} in its list of providers", short(*value));
                return Err(wrong(who, what));
            };
            if types.iter().any(|ty| is_instance(instance, ty)) {
                return Err(wrong(who, format!("returned `{}` twice", instance.ty.name())));
            }
            types.push(instance.ty.clone());
        }
        for ty in promised {
            let default = same_type(ty, &builtins().default_info.ty);
            if !default && !types.iter().any(|own| same_type(own, ty)) {
                return Err(wrong(who, format!("did not return `{}`", ty.name())));
            }
        }
        Ok(Self { types, instances: list.to_vec() })
    }
}

impl Analyzer<'_, '_> {
    /// The target that consists of what the implementation returned.
    pub(super) fn providers<'v>(
        &self,
        decl: &TargetDecl,
        returned: Value<'v>,
        heap: Heap<'v>,
    ) -> Result<Target<'v>, RuleError> {
        let who = format!("`{}`", decl.rule.name());
        let Returned { mut types, mut instances } =
            Returned::check(&who, returned, &decl.rule.provides)?;
        let default = &builtins().default_info.ty;
        let given = types.iter().position(|ty| same_type(ty, default));
        let given = given.map(|at| {
            types.remove(at);
            instances.remove(at)
        });
        let given = given.and_then(ProviderInstance::from_value);
        types.insert(0, default.clone());
        instances.insert(0, self.default_info(decl, given, heap)?);
        Ok(Target { label: decl.label.clone(), types, instances })
    }

    /// `DefaultInfo` with `files` filled in.
    fn default_info<'v>(
        &self,
        decl: &TargetDecl,
        given: Option<&ProviderInstance<'v>>,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let who = format!("`{}`", decl.rule.name());
        let field = |name: &str| given.and_then(|info| info.field(name));
        let executable = field("executable");
        if let Some(value) = executable
            && FileValue::from_value(value).is_none()
        {
            return Err(wrong(&who, format!("returned {} as `executable`", short(value))));
        }
        if decl.rule.executable && executable.is_none() {
            return Err(wrong(&who, "did not return an `executable`".to_owned())
                .hint("return `DefaultInfo(executable = …)`"));
        }
        for name in ["runfiles", "default_runfiles", "data_runfiles"] {
            if let Some(value) = field(name)
                && Runfiles::from_value(value).is_none()
            {
                return Err(wrong(&who, format!("returned {} as `{name}`", short(value)))
                    .hint("make them with `ctx.runfiles(files = […])`"));
            }
        }
        if field("runfiles").is_some() && field("default_runfiles").is_some() {
            let what = "returned both `runfiles` and `default_runfiles`".to_owned();
            return Err(wrong(&who, what).hint("`runfiles` stands for both kinds"));
        }
        let files = match field("files") {
            Some(value) if Depset::from_value(value).is_some() => value,
            Some(value) => {
                return Err(wrong(&who, format!("returned {} as `files`", short(value)))
                    .hint("wrap the list in `depset(…)`"));
            }
            None => {
                let mut direct: Vec<Value<'v>> = self.declared(decl, heap);
                direct.extend(executable);
                let sets = &mut self.scope.graph.borrow_mut().sets;
                Depset::flat(direct, sets, heap)
            }
        };
        let none = Value::new_none();
        let runfiles = field("runfiles").or_else(|| field("default_runfiles"));
        let mut fields = vec![
            ("files", files),
            ("runfiles", runfiles.unwrap_or(none)),
            ("executable", executable.unwrap_or(none)),
        ];
        fields.extend(field("data_runfiles").map(|value| ("data_runfiles", value)));
        Ok(heap.alloc(ProviderInstance::new(&builtins().default_info, fields)))
    }

    /// The files that output attributes name.
    fn declared<'v>(&self, decl: &TargetDecl, heap: Heap<'v>) -> Vec<Value<'v>> {
        let outputs =
            decl.rule.attrs.iter().zip(&decl.attrs).filter(|((_, spec), _)| {
                matches!(spec.kind, AttrKind::Output | AttrKind::OutputList)
            });
        outputs
            .flat_map(|(_, value)| value.labels())
            .filter_map(|label| self.output(&label.name))
            .map(|file| heap.alloc(file.clone()))
            .collect()
    }
}
