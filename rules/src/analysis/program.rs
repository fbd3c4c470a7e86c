//! Programs: their runfiles tree, arguments and environment; and groups of outputs.

use std::collections::BTreeMap;

use maestro_core::graph::Executable;
use maestro_core::{ArtifactId, ArtifactKind};
use serde_json::json;
use starlark::values::dict::DictRef;
use starlark::values::{Heap, Value};

use super::aspects::add_checks;
use super::{Analyzer, dict_of};
use crate::attr::AttrKind;
use crate::configured::Via;
use crate::ctx::actions::declare;
use crate::ctx::draft::Draft;
use crate::ctx::expand::Expander;
use crate::ctx::files_of;
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::scope::Runnable;
use crate::values::depset::{Depset, Unfold};
use crate::values::file::FileValue;
use crate::values::provider::{ProviderInstance, builtins};
use crate::values::runfiles::Runfiles;
use crate::values::target::Target;
use crate::values::{sequence, wrong_type};

impl Analyzer<'_, '_> {
    /// Completes the target in the graph: files, program, test.
    pub(super) fn finish<'v>(
        &self,
        decl: &TargetDecl,
        target: &Target<'v>,
        heap: Heap<'v>,
    ) -> Result<(), RuleError> {
        let id = self.scope.current()?.target;
        let files: Vec<ArtifactId> = files_of(target, Unfold::new(heap, &self.scope))?
            .iter()
            .map(FileValue::artifact)
            .collect();
        let program = target.default_field("executable").and_then(FileValue::from_value);
        let executable = match program {
            Some(program) => Some(self.program(decl, target, program, heap)?),
            None => None,
        };
        let test = match (&executable, program) {
            (Some(executable), Some(program)) if decl.rule.test => {
                Some(self.test(decl, program, executable, heap)?)
            }
            _ => None,
        };
        let mut groups = output_groups(target, Unfold::new(heap, &self.scope))?;
        add_checks(&mut groups, self.attached_checks(heap)?);
        let mut graph = self.scope.graph.borrow_mut();
        let target = graph.target_mut(id);
        target.files = files;
        target.groups = groups;
        target.executable = executable.map(Box::new);
        target.test = test.map(Box::new);
        Ok(())
    }

    fn program<'v>(
        &self,
        decl: &TargetDecl,
        target: &Target<'v>,
        program: &FileValue,
        heap: Heap<'v>,
    ) -> Result<Executable, RuleError> {
        let known = self.scope.runnables.borrow().get(&program.artifact()).cloned();
        let runnable = match known {
            Some(runnable) => runnable,
            None => {
                let runnable = self.runnable(target, program, heap)?;
                let mut runnables = self.scope.runnables.borrow_mut();
                runnables.insert(program.artifact(), runnable.clone());
                self.made_program.set(Some(program.artifact()));
                runnable
            }
        };
        let mut env = runnable.env.clone();
        for (name, value) in dict_of(decl, "env") {
            if decl.rule.executable {
                env.retain(|(own, _)| *own != name);
                env.push((name, value));
            }
        }
        Ok(Executable {
            file: program.artifact(),
            runfiles: runnable.runfiles,
            args: self.arguments(decl, heap)?,
            env,
        })
    }

    /// Declares the runfiles tree beside a program that this target made.
    fn runnable<'v>(
        &self,
        target: &Target<'v>,
        program: &FileValue,
        heap: Heap<'v>,
    ) -> Result<Runnable, RuleError> {
        let mut runnable = Runnable::default();
        self.run_environment(target, &mut runnable)?;
        if program.is_source() || program.is_toolchain() {
            return Ok(runnable);
        }
        let mut entries: BTreeMap<String, FileValue> = BTreeMap::new();
        let runfiles = target.default_field("runfiles").and_then(Runfiles::from_value);
        let listed =
            runfiles.map_or(Ok(Vec::new()), |own| own.entries(Unfold::new(heap, &self.scope)))?;
        for (path, file) in listed.into_iter().chain([(program.runfiles_path(), program.clone())]) {
            match entries.get(&path) {
                Some(first) if first.artifact() != file.artifact() => {
                    let message = format!(
                        "`{}` and `{}` both stand at `{path}` in the runfiles",
                        first.path(),
                        file.path()
                    );
                    return Err(RuleError::new(Code::Implementation, message));
                }
                _ => entries.insert(path, file),
            };
        }
        let folder = program.path().parent().map(|p| p.to_string()).unwrap_or_default();
        let name = format!("{}.runfiles", program.path().name());
        let tree = declare(&self.scope, &folder, &name, ArtifactKind::Tree)?;
        let list: Vec<_> =
            entries.iter().map(|(path, file)| json!({"path": path, "from": file.path()})).collect();
        let mut draft = Draft::native("tree", json!({"entries": list}), &tree);
        draft.mnemonic = "Runfiles".to_owned();
        draft.direct = entries.values().map(FileValue::artifact).collect();
        draft.add(&self.scope)?;
        runnable.runfiles = Some(tree.artifact());
        Ok(runnable)
    }

    /// What `RunEnvironmentInfo` says.
    fn run_environment(
        &self,
        target: &Target<'_>,
        runnable: &mut Runnable,
    ) -> Result<(), RuleError> {
        let Some(info) = target.provider(&builtins().run_environment.ty) else { return Ok(()) };
        let Some(info) = ProviderInstance::from_value(info) else { return Ok(()) };
        if let Some(value) = info.field("toolchains") {
            for item in sequence(value).unwrap_or_default() {
                match FileValue::from_value(*item) {
                    Some(file) if file.is_toolchain() => runnable.toolchains.push(file.artifact()),
                    _ => return Err(wrong_type("toolchains", "a list of toolchains", *item)),
                }
            }
        }
        if let Some(value) = info.field("environment") {
            let wrong = || wrong_type("environment", "a dict of strings", value);
            let dict = DictRef::from_value(value).ok_or_else(wrong)?;
            for (name, value) in dict.iter() {
                let text = |value: Value<'_>| value.unpack_str().map(str::to_owned);
                let pair = text(name).zip(text(value)).ok_or_else(wrong)?;
                runnable.env.push(pair);
            }
        }
        Ok(())
    }

    /// The `args` attribute with locations replaced.
    fn arguments(&self, decl: &TargetDecl, heap: Heap<'_>) -> Result<Vec<String>, RuleError> {
        let args = match decl.rule.executable {
            true => decl.strings("args"),
            false => Vec::new(),
        };
        if !args.iter().any(|arg| arg.contains("$(")) {
            return Ok(args);
        }
        let mut targets = Vec::new();
        for (at, (_, spec)) in decl.rule.attrs.iter().enumerate() {
            if !matches!(spec.kind, AttrKind::Label | AttrKind::LabelList) {
                continue;
            }
            for node in self.edges_of(Via::attribute(at)) {
                let value = self.target_value(node, heap)?;
                let files = Target::from_value(value).map_or(Ok(Vec::new()), |target| {
                    files_of(target, Unfold::new(heap, &self.scope))
                })?;
                targets.push((self.configured.node(node).label.clone(), files));
            }
        }
        let expander =
            Expander { label: &decl.label, attribute: "args", targets: &targets, variables: None };
        args.iter().map(|arg| expander.expand(arg)).collect()
    }
}

/// What `OutputGroupInfo` names, by group.
pub(super) fn output_groups<'v>(
    target: &Target<'v>,
    unfold: Unfold<'v, '_>,
) -> Result<Vec<(String, Vec<ArtifactId>)>, RuleError> {
    let info = target.provider(&builtins().output_groups.ty);
    let Some(info) = info.and_then(ProviderInstance::from_value) else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (name, value) in info.fields() {
        let wrong = || wrong_type(name, "a depset or list of files", value);
        let items = match Depset::from_value(value) {
            Some(set) => set.items(unfold)?,
            None => sequence(value).ok_or_else(wrong)?.to_vec(),
        };
        let file = |item: &Value<'_>| FileValue::from_value(*item).map(FileValue::artifact);
        let files: Option<Vec<ArtifactId>> = items.iter().map(file).collect();
        out.push((name.to_owned(), files.ok_or_else(wrong)?));
    }
    out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}
