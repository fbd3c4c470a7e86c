//! Makes `ctx`: attributes with targets in the place of labels, and their files.

use std::ops::RangeFrom;
use std::sync::Arc;

use maestro_core::Label;
use starlark::values::dict::AllocDict;
use starlark::values::list::AllocList;
use starlark::values::structs::AllocStruct;
use starlark::values::{Heap, Value};

use super::Analyzer;
use crate::attr::{AllowFiles, AttrKind, AttrSpec, AttrValue};
use crate::configured::{Node, NodeId, NodeKind, Via};
use crate::ctx::{Ctx, CtxFields, files_of};
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::values::depset::{Depset, Unfold};
use crate::values::exec_group::{ExecGroups, Execution};
use crate::values::file::FileValue;
use crate::values::provider::{ProviderInstance, ProviderType, builtins};
use crate::values::target::Target;
use crate::values::toolchains::{ToolchainNeed, Toolchains};

/// The fields of `ctx` under construction.
#[derive(Default)]
pub(super) struct Fields<'v, 'd> {
    attr: Vec<(&'d str, Value<'v>)>,
    files: Vec<(&'d str, Value<'v>)>,
    file: Vec<(&'d str, Value<'v>)>,
    executable: Vec<(&'d str, Value<'v>)>,
    outputs: Vec<(&'d str, Value<'v>)>,
    split_attr: Vec<(&'d str, Value<'v>)>,
}

impl<'v> Fields<'v, '_> {
    /// As fields of a `ctx`, of which all else is to be filled in.
    pub(super) fn ctx(self, heap: Heap<'v>) -> CtxFields<'v> {
        CtxFields {
            attr: heap.alloc(AllocStruct(self.attr)),
            files: heap.alloc(AllocStruct(self.files)),
            file: heap.alloc(AllocStruct(self.file)),
            executable: heap.alloc(AllocStruct(self.executable)),
            outputs: heap.alloc(AllocStruct(self.outputs)),
            split_attr: heap.alloc(AllocStruct(self.split_attr)),
        }
    }

    /// As `ctx.rule` of an aspect.
    pub(super) fn rule(self, kind: &str, heap: Heap<'v>) -> Value<'v> {
        let CtxFields { attr, files, file, executable, outputs, .. } = self.ctx(heap);
        let kind = heap.alloc(kind);
        let fields = [("attr", attr), ("executable", executable), ("file", file)];
        let more = [("files", files), ("kind", kind), ("outputs", outputs)];
        heap.alloc(AllocStruct(fields.into_iter().chain(more).collect::<Vec<_>>()))
    }
}

/// What a context shows of toolchains.
pub(super) struct FoundToolchains<'v> {
    /// Those of the default group.
    pub(super) toolchains: Value<'v>,
    /// Those of the groups that have names.
    pub(super) groups: Value<'v>,
}

/// Whose attributes a context shows.
pub(super) struct Subject<'d> {
    /// For messages.
    pub(super) who: &'d str,
    pub(super) attrs: &'d [(String, Arc<AttrSpec>)],
    pub(super) values: &'d [AttrValue],
    /// How edges call the attribute at a position.
    pub(super) via: fn(usize) -> Via,
    /// The node whose configurations and outputs the attributes name.
    pub(super) node: NodeId,
    /// What the attribute `name` is.
    pub(super) name: Option<&'d str>,
}

/// What a subject says about one attribute of labels.
struct Given<'d> {
    who: &'d str,
    name: &'d str,
    spec: &'d AttrSpec,
    value: &'d AttrValue,
    via: Via,
    /// The names of the configurations to which its transition leads, if it has one.
    keys: Option<&'d [Arc<str>]>,
}

impl<'d> Subject<'d> {
    /// The attributes of a rule.
    pub(super) fn of_rule(who: &'d str, decl: &'d TargetDecl, node: NodeId) -> Self {
        let (attrs, values) = (&decl.rule.attrs, &decl.attrs);
        Self { who, attrs, values, via: Via::attribute, node, name: Some(&decl.label.name) }
    }
}

impl Analyzer<'_, '_> {
    /// The context of a target whose dependencies are analyzed.
    pub(super) fn context<'v>(
        &self,
        decl: &TargetDecl,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let who = format!("target `{}`", decl.label);
        let fields = self.fields(&Subject::of_rule(&who, decl, self.current), heap)?;
        let rule = &decl.rule;
        let found = self.toolchains(&rule.file, &rule.execution, Via::Toolchain, heap)?;
        Ok(heap.alloc(Ctx {
            label: decl.label.clone(),
            out_root: self.scope.current()?.out_root,
            build_setting_value: self.build_setting_value(decl, heap),
            fields: fields.ctx(heap),
            toolchains: found.toolchains,
            exec_groups: found.groups,
            constraints: self.constraints(decl, &[]),
            rule: None,
        }))
    }

    /// Attributes with targets in the place of labels.
    pub(super) fn fields<'v, 'd>(
        &'d self,
        subject: &Subject<'d>,
        heap: Heap<'v>,
    ) -> Result<Fields<'v, 'd>, RuleError> {
        let mut fields = Fields::default();
        for (at, ((name, spec), value)) in subject.attrs.iter().zip(subject.values).enumerate() {
            match spec.kind {
                AttrKind::Label | AttrKind::LabelList | AttrKind::LabelKeyedStringDict => {
                    let keys = self.configured.split(subject.node, at);
                    let (who, via) = (subject.who, (subject.via)(at));
                    let given = Given { who, name, spec, value, via, keys };
                    self.dependency(&given, heap, &mut fields)?;
                }
                AttrKind::Output | AttrKind::OutputList => {
                    fields.attr.push((name, value.alloc(heap)));
                    let files = self.output_files(subject.node, spec, value, heap);
                    fields.outputs.push((name, files));
                }
                _ => match subject.name.filter(|_| name == "name") {
                    Some(own) => fields.attr.push((name, heap.alloc(own))),
                    None => fields.attr.push((name, value.alloc(heap))),
                },
            }
        }
        Ok(fields)
    }

    /// What was found for the types of toolchains that a definition in `file` names, by groups.
    pub(super) fn toolchains<'v>(
        &self,
        file: &Label,
        execution: &Execution,
        via: fn(u16) -> Via,
        heap: Heap<'v>,
    ) -> Result<FoundToolchains<'v>, RuleError> {
        let mut positions = 0u16..;
        let mut found = execution.all().map(|(_, needs)| {
            self.group_toolchains(file, &needs.toolchains, &mut positions, via, heap)
        });
        let toolchains = found.next().unwrap_or_else(|| Ok(Value::new_none()))?;
        let groups: Result<Vec<Value<'v>>, RuleError> = found.collect();
        let names = execution.names().map(Into::into).collect();
        let groups = heap.alloc(ExecGroups { names, toolchains: groups? });
        Ok(FoundToolchains { toolchains, groups })
    }

    /// The same for one group, whose types have the next positions.
    fn group_toolchains<'v>(
        &self,
        file: &Label,
        needs: &[ToolchainNeed],
        positions: &mut RangeFrom<u16>,
        via: fn(u16) -> Via,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let mut infos = vec![Value::new_none(); needs.len()];
        for (slot, at) in infos.iter_mut().zip(positions) {
            let Some(node) = self.edges_of(via(at)).next() else { continue };
            let value = self.target_value(node, heap)?;
            let info = Target::from_value(value)
                .and_then(|target| target.provider(&builtins().toolchain.ty));
            *slot = info.ok_or_else(|| {
                let label = &self.configured.node(node).label;
                let message = format!("toolchain `{label}` does not provide ToolchainInfo");
                RuleError::new(Code::Toolchain, message)
                    .hint("its rule has to return `ToolchainInfo(…)`")
            })?;
        }
        Ok(heap.alloc(Toolchains {
            base: (file.repo.clone(), file.package.clone()),
            types: needs.iter().map(|need| need.ty.clone()).collect(),
            infos,
        }))
    }

    /// What a transition splits an attribute into, by the names of the configurations.
    fn split<'v>(
        keys: &[Arc<str>],
        targets: &[Value<'v>],
        single: bool,
        heap: Heap<'v>,
    ) -> Value<'v> {
        // A transition to one configuration is a split into one.
        let one: [Arc<str>; 1] = ["0".into()];
        let keys = if keys.is_empty() { &one[..] } else { keys };
        let entries = keys.iter().enumerate().map(|(at, key)| {
            let own: Vec<Value<'v>> =
                targets.iter().skip(at).step_by(keys.len()).copied().collect();
            let value = match (single, own.as_slice()) {
                (true, [only]) => *only,
                _ => heap.alloc(AllocList(own)),
            };
            (&**key, value)
        });
        heap.alloc(AllocDict(entries.collect::<Vec<_>>()))
    }

    /// The value of a target that is a param.
    fn build_setting_value<'v>(&self, decl: &TargetDecl, heap: Heap<'v>) -> Value<'v> {
        let node = self.configured.node(self.current);
        self.configured.param(node, decl).map_or_else(Value::new_none, |value| value.alloc(heap))
    }

    fn output_files<'v>(
        &self,
        node: NodeId,
        spec: &AttrSpec,
        value: &AttrValue,
        heap: Heap<'v>,
    ) -> Value<'v> {
        let labels = value.labels();
        let file = |label: &&Label| self.output_of(node, &label.name).cloned();
        let files: Vec<FileValue> = labels.iter().filter_map(file).collect();
        match spec.kind {
            AttrKind::Output => {
                files.into_iter().next().map_or_else(Value::new_none, |file| heap.alloc(file))
            }
            _ => heap.alloc(AllocList(files)),
        }
    }

    fn dependency<'v, 'd>(
        &self,
        given: &Given<'d>,
        heap: Heap<'v>,
        fields: &mut Fields<'v, 'd>,
    ) -> Result<(), RuleError> {
        let Given { who, name, spec, value, via, keys } = *given;
        let mut targets = Vec::new();
        let mut files: Vec<FileValue> = Vec::new();
        let mut programs = Vec::new();
        for (node, aspects) in self.with_aspects_of(via) {
            let label = &self.configured.node(node).label;
            let (target, found) = self
                .target_value(node, heap)
                .and_then(|target| {
                    let inner = Target::from_value(target)
                        .ok_or_else(|| RuleError::new(Code::Internal, "a target is no target"))?;
                    let found = files_of(inner, Unfold::new(heap, &self.scope))?;
                    self.check_dependency(node, spec, inner, &found)?;
                    if spec.executable {
                        programs.push(program_of(label, inner, &found)?);
                    }
                    Ok((self.with_aspects(target, &aspects, heap)?, found))
                })
                .map_err(|mut error| {
                    error.message = format!("{who}, attribute `{name}`: {}", error.message);
                    error
                })?;
            targets.push(target);
            files.extend(found);
        }
        // Targets may share files; a list of files holds each once.
        let mut seen = std::collections::HashSet::new();
        files.retain(|file| seen.insert(file.artifact()));
        if spec.single_file && spec.kind == AttrKind::Label {
            let first = files.first().cloned();
            let first = first.map_or_else(Value::new_none, |file| heap.alloc(file));
            fields.file.push((name, first));
        }
        if spec.executable && spec.kind == AttrKind::Label {
            let first = programs.into_iter().next();
            let first = first.map_or_else(Value::new_none, |file| heap.alloc(file));
            fields.executable.push((name, first));
        }
        fields.files.push((name, heap.alloc(AllocList(files))));
        if let Some(keys) = keys {
            let single = spec.kind == AttrKind::Label;
            fields.split_attr.push((name, Self::split(keys, &targets, single, heap)));
        }
        let value = match value {
            AttrValue::Labels(_) => heap.alloc(AllocList(targets)),
            // Behind a transition there may be several, so there is a list, as in Bazel.
            AttrValue::Label(_) if keys.is_some() => heap.alloc(AllocList(targets)),
            AttrValue::LabelDict(entries) => {
                let split = keys.map_or(1, |keys| keys.len().max(1));
                let texts = entries
                    .iter()
                    .flat_map(|(_, text)| std::iter::repeat_n(heap.alloc(&**text), split));
                heap.alloc(AllocDict(targets.into_iter().zip(texts)))
            }
            _ => targets.into_iter().next().unwrap_or_else(Value::new_none),
        };
        fields.attr.push((name, value));
        Ok(())
    }

    /// An output of the target under analysis that one of its attributes names.
    pub(super) fn output(&self, name: &str) -> Option<&FileValue> {
        self.output_of(self.current, name)
    }

    /// A dependency as implementations see it.
    pub(super) fn target_value<'v>(
        &self,
        id: NodeId,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let Node { label, kind, .. } = self.configured.node(id);
        let lost = || RuleError::new(Code::Internal, format!("`{label}` is not analyzed"));
        let file = match kind {
            NodeKind::Rule(_) => {
                let value = self.values.get(&id).ok_or_else(lost)?;
                return Ok(heap.access_owned_frozen_value(value));
            }
            NodeKind::Output(_) => {
                let owner = self.owner(id).ok_or_else(lost)?;
                self.output_of(owner, &label.name).cloned().ok_or_else(lost)?
            }
            NodeKind::Source => self.source(label)?,
            NodeKind::Alias(_)
            | NodeKind::Aspect(_)
            | NodeKind::Bare
            | NodeKind::Unknown
            | NodeKind::Failed(_) => return Err(lost()),
        };
        let sets = &mut self.scope.graph.borrow_mut().sets;
        let file = heap.alloc(file);
        let files = Depset::flat(vec![file], sets, heap);
        let callable = &builtins().default_info;
        let info = heap.alloc(ProviderInstance::new(callable, vec![("files", files)]));
        Ok(heap.alloc(Target {
            label: label.clone(),
            types: vec![callable.ty.clone()],
            instances: vec![info],
        }))
    }

    fn check_dependency(
        &self,
        id: NodeId,
        spec: &AttrSpec,
        target: &Target<'_>,
        files: &[FileValue],
    ) -> Result<(), RuleError> {
        let Node { label, kind, .. } = self.configured.node(id);
        let is_file = !matches!(kind, NodeKind::Rule(_));
        if is_file {
            check_file(label, spec)?;
        } else if !spec.providers.is_empty() {
            let has =
                |list: &Vec<Arc<ProviderType>>| list.iter().all(|ty| target.provider(ty).is_some());
            // A target that is named where files are fine need not have the provider.
            let fine = spec.providers.iter().any(has) || spec.allow_files != AllowFiles::No;
            if !fine {
                let lists: Vec<String> = spec
                    .providers
                    .iter()
                    .map(|list| list.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(" and "))
                    .collect();
                let message = format!("`{label}` does not provide {}", lists.join(", or "));
                return Err(RuleError::new(Code::Dependency, message));
            }
        }
        if spec.single_file && files.len() != 1 {
            let message = format!("`{label}` stands for {} files, one is needed", files.len());
            return Err(RuleError::new(Code::Dependency, message));
        }
        Ok(())
    }
}

fn check_file(label: &Label, spec: &AttrSpec) -> Result<(), RuleError> {
    match &spec.allow_files {
        AllowFiles::Any => Ok(()),
        AllowFiles::No if spec.executable => Ok(()),
        AllowFiles::No => {
            let message = format!("`{label}` is a file, and the attribute takes targets only");
            Err(RuleError::new(Code::Dependency, message))
        }
        AllowFiles::Suffixes(suffixes) => {
            if suffixes.iter().any(|suffix| label.name.ends_with(suffix.as_str())) {
                return Ok(());
            }
            let message = format!("`{label}` is no file of the kind that the attribute takes");
            Err(RuleError::new(Code::Dependency, message)
                .hint(format!("it takes names that end in: {}", suffixes.join(", "))))
        }
    }
}

fn program_of(
    label: &Label,
    target: &Target<'_>,
    files: &[FileValue],
) -> Result<FileValue, RuleError> {
    let declared = target.default_field("executable").and_then(FileValue::from_value);
    match (declared, files) {
        (Some(program), _) => Ok(program.clone()),
        (None, [only]) if only.is_source() => Ok(only.clone()),
        _ => {
            let message = format!("`{label}` cannot be run");
            Err(RuleError::new(Code::Dependency, message))
        }
    }
}
