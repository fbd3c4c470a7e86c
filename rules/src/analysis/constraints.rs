//! What implementations learn of platforms: what their targets are, and what the target platform
//! has. They cannot ask for anything else, so what they learn is among what their targets read.

use std::sync::Arc;

use maestro_core::Label;
use starlark::values::{Heap, Value};

use super::Analyzer;
use crate::attr::{AttrSpec, AttrValue, DependencyConfig};
use crate::configured::{NodeKind, Via};
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::values::label::LabelValue;
use crate::values::provider::{ProviderCallable, ProviderInstance, builtins};

/// A provider whose fields are labels; those that are not given are left out.
fn info<'v>(
    callable: &ProviderCallable,
    label: &Label,
    more: Option<(&str, Value<'v>)>,
    heap: Heap<'v>,
) -> Value<'v> {
    let label = heap.alloc(LabelValue { label: label.clone() });
    let fields = [("label", label)].into_iter().chain(more).collect();
    heap.alloc(ProviderInstance::new(callable, fields))
}

/// What a target of the language tells of itself.
pub(super) fn native_info<'v>(decl: &TargetDecl, heap: Heap<'v>) -> Value<'v> {
    let providers = builtins();
    let named = |name: &str| match decl.attr(name) {
        Some(AttrValue::Label(label)) => Some(label),
        _ => None,
    };
    match decl.rule.native {
        Some(NativeKind::ConstraintSetting) => {
            let value = named("default_constraint_value");
            let value = value.map(|label| heap.alloc(LabelValue { label: Label::clone(label) }));
            let value = value.map(|value| ("default_constraint_value", value));
            info(&providers.constraint_setting, &decl.label, value, heap)
        }
        Some(NativeKind::ConstraintValue) => {
            let setting = named("constraint_setting")
                .map(|label| info(&providers.constraint_setting, label, None, heap))
                .map(|setting| ("constraint", setting));
            info(&providers.constraint_value, &decl.label, setting, heap)
        }
        Some(NativeKind::Platform) => info(&providers.platform, &decl.label, None, heap),
        Some(
            NativeKind::Alias
            | NativeKind::ConfigSetting
            | NativeKind::Toolchain
            | NativeKind::ToolchainType,
        )
        | None => Value::new_none(),
    }
}

impl Analyzer<'_, '_> {
    /// The constraint values that the node under analysis depends on in its own configuration,
    /// each with whether the target platform has it. `own` are the attributes of an aspect.
    pub(super) fn constraints(
        &self,
        decl: &TargetDecl,
        own: &[(String, Arc<AttrSpec>)],
    ) -> Vec<(Label, bool)> {
        let same_platform = |attrs: &[(String, Arc<AttrSpec>)], at: u16| {
            let spec = attrs.get(usize::from(at));
            spec.is_some_and(|(_, spec)| matches!(spec.cfg, DependencyConfig::Target))
        };
        let mut out = Vec::new();
        for edge in &self.configured.node(self.current).edges {
            let to = self.configured.target(edge);
            let NodeKind::Rule(value) = &self.configured.node(to).kind else { continue };
            if value.rule.native != Some(NativeKind::ConstraintValue) {
                continue;
            }
            let is_same = match edge.via {
                Via::Attribute(at) => same_platform(&decl.rule.attrs, at),
                Via::AspectAttribute(at) => same_platform(own, at),
                _ => false,
            };
            if is_same {
                out.push((value.label.clone(), self.configured.holds(to)));
            }
        }
        out
    }
}
