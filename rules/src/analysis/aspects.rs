//! Aspects: runs them, and shows what they found out on the targets that they are on.
//!
//! What an aspect gives to a target is seen by whoever put it there and by aspects above it, and
//! by nobody else: a target with aspects is a value of its own, made where it is seen.

use std::collections::HashSet;

use maestro_core::ArtifactId;
use starlark::eval::Evaluator;
use starlark::values::{Heap, OwnedFrozenValue, Value};

use super::context::Subject;
use super::result::Returned;
use super::{Analyzer, Configured, plain_target};
use crate::configured::aspects::Applied;
use crate::configured::{NodeId, Via};
use crate::ctx::{Ctx, out_root};
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError};
use crate::load::file::display;
use crate::resolve::location_of;
use crate::scope::Current;
use crate::values::depset::{Depset, Unfold};
use crate::values::provider::{ProviderInstance, builtins, is_instance, same_type};
use crate::values::sequence;
use crate::values::target::Target;

/// The group that an aspect's outputs are in where nothing is said.
const DEFAULT_GROUP: &str = "default";

/// The group of checks, which are made with every build of a target.
const CHECKS_GROUP: &str = "_validation";

impl Analyzer<'_, '_> {
    /// Runs an aspect on a target that is analyzed.
    pub(super) fn configure_aspect(
        &mut self,
        id: NodeId,
        applied: &Applied,
    ) -> Result<Configured, Box<Diagnostic>> {
        let configured = self.configured;
        let aspect = configured.aspect(applied.aspect);
        let decl = &applied.decl;
        let name = aspect.spec.full_name();
        let mut target = plain_target(&decl.label, decl.rule.shared_name(), location_of(decl));
        target.aspect = Some(name.as_str().into());
        target.deps = self.deps_of(configured.node(id));
        let target = self.scope.graph.borrow_mut().add_target(target);
        let node = configured.node(id);
        let out_root = out_root(&configured.trims.get(node.trimmed).root);
        let execution = self.platforms(id, &aspect.spec.execution);
        let current = Current { label: decl.label.clone(), target, out_root, execution };
        self.scope.current.replace(Some(current));
        let implementation = self.universe.packages.aspect(&aspect.spec).ok_or_else(|| {
            let message = format!("aspect `{name}` has no implementation");
            Box::new(configured.about_aspect(id, RuleError::new(Code::Internal, message)))
        })?;
        let title = format!("aspect `{name}` on `{}`", decl.label);
        let file = display(&aspect.spec.file);
        let evaluated = self.evaluate(&file, &title, |analyzer, eval| {
            analyzer.run_aspect(applied, &implementation, eval)
        });
        match evaluated {
            Ok(evaluated) => {
                if let Some(session) = &mut self.session {
                    session.aspects.push(format!("{} {name}", decl.label));
                }
                Ok(Configured { id: target, value: evaluated.value })
            }
            Err(error) => {
                let mut diagnostic = Diagnostic::from_starlark(&error, Some(&decl.span));
                let place = Location::of(&decl.span);
                if diagnostic.location.as_ref() == Some(&place) {
                    diagnostic.message = format!("{title}: {}", diagnostic.message);
                } else {
                    diagnostic.trace.insert(0, format!("{place} in {title}"));
                }
                let way = configured.way_to(id).into_iter().rev().chain(decl.macro_trace());
                let way: Vec<String> = way.collect();
                diagnostic.trace.splice(0..0, way);
                Err(Box::new(diagnostic))
            }
        }
    }

    /// The call of the implementation, and what follows from what it returns.
    fn run_aspect<'v>(
        &self,
        applied: &Applied,
        implementation: &OwnedFrozenValue,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        let on = self.with_aspects_of(Via::Base).into_iter().next();
        let (base, below) =
            on.ok_or_else(|| RuleError::new(Code::Internal, "an aspect is on nothing"))?;
        let target = self.with_aspects(self.target_value(base, heap)?, &below, heap)?;
        let ctx = self.aspect_context(applied, heap)?;
        let function = heap.access_owned_frozen_value(implementation);
        let returned = eval.eval_function(function, &[target, ctx], &[])?;
        let aspect = self.configured.aspect(applied.aspect);
        let who = format!("`{}`", aspect.spec.name());
        let Returned { types, instances } = Returned::check(&who, returned, &aspect.spec.provides)?;
        let label = applied.decl.label.clone();
        if types.iter().any(|ty| same_type(ty, &builtins().default_info.ty)) {
            let message = format!("the implementation of {who} returned `DefaultInfo`");
            return RuleError::new(Code::Implementation, message)
                .hint("an aspect adds to a target; name its files in `OutputGroupInfo(…)`")
                .raise();
        }
        let target = Target { label, types, instances };
        self.finish_aspect(&target, heap)?;
        Ok(heap.alloc(target))
    }

    /// Completes an aspect in the graph. What it makes on the way to what is asked for is seen in
    /// the values of those above it; to list that for each would take the square of the targets.
    fn finish_aspect<'v>(&self, target: &Target<'v>, heap: Heap<'v>) -> Result<(), RuleError> {
        if !self.configured.is_asked(self.current) {
            return Ok(());
        }
        let groups = super::program::output_groups(target, Unfold::new(heap, &self.scope))?;
        let id = self.scope.current()?.target;
        let mut graph = self.scope.graph.borrow_mut();
        let target = graph.target_mut(id);
        let default = groups.iter().find(|(name, _)| name == DEFAULT_GROUP);
        target.files = default.map(|(_, files)| files.clone()).unwrap_or_default();
        target.groups = groups;
        Ok(())
    }

    /// What the aspects check that the target under analysis attaches: it is checked with it.
    pub(super) fn attached_checks(&self, heap: Heap<'_>) -> Result<Vec<ArtifactId>, RuleError> {
        let mut checks = Vec::new();
        for edge in &self.configured.node(self.current).edges {
            let aspect = self.values.get(&self.configured.target(edge));
            let (Via::Aspect(_), Some(aspect)) = (edge.via, aspect) else { continue };
            let value = heap.access_owned_frozen_value(aspect);
            let Some(target) = Target::from_value(value) else { continue };
            let groups = super::program::output_groups(target, Unfold::new(heap, &self.scope))?;
            let own = groups.into_iter().filter(|(name, _)| name == CHECKS_GROUP);
            checks.extend(own.flat_map(|(_, files)| files));
        }
        Ok(checks)
    }

    /// The context of an aspect: its own attributes, and those of the rule.
    fn aspect_context<'v>(
        &self,
        applied: &Applied,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let aspect = self.configured.aspect(applied.aspect);
        let spec = &aspect.spec;
        let (decl, base) = (&applied.decl, applied.base);
        let base = self.configured.node(base).canonical;
        let who = format!("aspect `{}` on `{}`", spec.full_name(), decl.label);
        let rule = self.fields(&Subject::of_rule(&who, decl, base), heap)?;
        let own = Subject {
            who: &who,
            attrs: &spec.attrs,
            values: &aspect.values,
            via: Via::aspect_attribute,
            node: self.current,
            name: None,
        };
        let own = self.fields(&own, heap)?;
        let found = self.toolchains(&spec.file, &spec.execution, Via::AspectToolchain, heap)?;
        Ok(heap.alloc(Ctx {
            label: decl.label.clone(),
            out_root: self.scope.current()?.out_root,
            build_setting_value: Value::new_none(),
            fields: own.ctx(heap),
            toolchains: found.toolchains,
            exec_groups: found.groups,
            constraints: self.constraints(decl, &spec.attrs),
            rule: Some(rule.rule(decl.rule.name(), heap)),
        }))
    }

    /// A target as whoever put aspects on it sees it.
    pub(super) fn with_aspects<'v>(
        &self,
        target: Value<'v>,
        aspects: &[NodeId],
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        if aspects.is_empty() {
            return Ok(target);
        }
        let internal = || RuleError::new(Code::Internal, "a target is no target");
        let base = Target::from_value(target).ok_or_else(internal)?;
        let mut merged = Target {
            label: base.label.clone(),
            types: base.types.clone(),
            instances: base.instances.clone(),
        };
        let mut givers = vec!["its rule".to_owned(); merged.types.len()];
        for node in aspects {
            let Some(applied) = self.configured.applied(*node) else { continue };
            let value = self.values.get(node).ok_or_else(internal)?;
            let value = heap.access_owned_frozen_value(value);
            let own = Target::from_value(value).ok_or_else(internal)?;
            let giver = format!("`{}`", self.configured.aspect(applied.aspect).spec.full_name());
            for (ty, instance) in own.types.iter().zip(&own.instances) {
                let at = merged.types.iter().position(|other| same_type(other, ty));
                let Some(at) = at else {
                    merged.types.push(ty.clone());
                    merged.instances.push(*instance);
                    givers.push(giver.clone());
                    continue;
                };
                let before = merged.instances.get_mut(at).ok_or_else(internal)?;
                *before = self.both_groups(*before, *instance, heap).ok_or_else(|| {
                    let other = givers.get(at).map_or("its rule", String::as_str);
                    let (name, label) = (ty.name(), &base.label);
                    let message = format!("{other} and {giver} both give `{name}` to `{label}`");
                    RuleError::new(Code::Aspect, message).hint(
                        "an aspect cannot replace what is there; give it a provider of its own",
                    )
                })??;
            }
        }
        Ok(heap.alloc(merged))
    }

    /// Groups of outputs of two; `None` for other providers.
    fn both_groups<'v>(
        &self,
        left: Value<'v>,
        right: Value<'v>,
        heap: Heap<'v>,
    ) -> Option<Result<Value<'v>, RuleError>> {
        let ty = &builtins().output_groups.ty;
        let infos = ProviderInstance::from_value(left).zip(ProviderInstance::from_value(right));
        let (left, right) = infos.filter(|(left, _)| is_instance(left, ty))?;
        let sets = &mut self.scope.graph.borrow_mut().sets;
        let mut as_set = |value: Value<'v>| match sequence(value) {
            Some(items) => Depset::flat(items.to_vec(), sets, heap),
            None => value,
        };
        let mut fields: Vec<(&str, Value<'v>, Option<Value<'v>>)> =
            left.fields().map(|(name, value)| (name, as_set(value), None)).collect();
        for (name, value) in right.fields() {
            let value = as_set(value);
            match fields.iter_mut().find(|(own, ..)| *own == name) {
                Some((_, _, other)) => *other = Some(value),
                None => fields.push((name, value, None)),
            }
        }
        let fields: Result<Vec<(&str, Value<'v>)>, RuleError> = fields
            .into_iter()
            .map(|(name, one, other)| match other {
                None => Ok((name, one)),
                Some(other) => Ok((name, Depset::union([one, other], sets, heap)?)),
            })
            .collect();
        let made = |fields| heap.alloc(ProviderInstance::new(&builtins().output_groups, fields));
        Some(fields.map(made))
    }
}

/// Adds checks to those of a target.
pub(super) fn add_checks(groups: &mut Vec<(String, Vec<ArtifactId>)>, checks: Vec<ArtifactId>) {
    if checks.is_empty() {
        return;
    }
    let mut seen = HashSet::new();
    match groups.iter_mut().find(|(name, _)| name == CHECKS_GROUP) {
        Some((_, own)) => {
            own.extend(checks);
            own.retain(|file| seen.insert(*file));
        }
        None => {
            let checks = checks.into_iter().filter(|file| seen.insert(*file)).collect();
            groups.push((CHECKS_GROUP.to_owned(), checks));
            groups.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
    }
}
