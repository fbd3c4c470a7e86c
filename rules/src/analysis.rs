//! Analysis: runs the implementations of the rules that a request needs, dependencies first.
//!
//! A target is analyzed at most once. The walk keeps its own stack, so that a chain of a hundred
//! thousand targets is no problem, and a cycle is reported with the whole path.

mod context;
mod program;
mod result;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maestro_core::{ActionGraph, ArtifactKind, Label, RelPath, Target as GraphTarget, TargetId};
use starlark::environment::Module;
use starlark::eval::Evaluator;
use starlark::values::{FrozenHeapName, OwnedFrozenValue, Value};

use crate::attr::{AttrKind, AttrValue};
use crate::ctx::actions::declare;
use crate::ctx::out_dir;
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError};
use crate::library;
use crate::limits::{UNCHECKED_HEAP_BYTES, check_value};
use crate::load::file::{display, path_of};
use crate::package::TargetDecl;
use crate::resolve::{Node, Universe, location_of, test_toolchain};
use crate::rule::RuleSpec;
use crate::scope::{Current, Prints, RuleScope};
use crate::values::file::{FileOrigin, FileValue};

/// What is known about a target.
enum Status {
    InProgress,
    Done(Configured),
    Failed,
}

/// An analyzed target.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) id: TargetId,
    /// The target as dependents see it.
    pub(crate) value: OwnedFrozenValue,
}

/// Analyzes targets into one graph.
pub(crate) struct Analyzer<'u, 'h> {
    universe: &'u Universe<'h>,
    scope: RuleScope,
    status: HashMap<Label, Status>,
    /// Files that targets name as outputs.
    outputs: HashMap<Label, FileValue>,
    implementations: HashMap<*const RuleSpec, OwnedFrozenValue>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// One target on the way down.
struct Frame {
    decl: Arc<TargetDecl>,
    dependencies: Vec<Label>,
    next: usize,
}

impl<'u, 'h> Analyzer<'u, 'h> {
    pub(crate) fn new(universe: &'u Universe<'h>) -> Self {
        let scope = RuleScope {
            graph: RefCell::new(ActionGraph::default()),
            runnables: RefCell::default(),
            current: RefCell::new(None),
        };
        Self {
            universe,
            scope,
            status: HashMap::new(),
            outputs: HashMap::new(),
            implementations: HashMap::new(),
            diagnostics: Vec::new(),
        }
    }

    /// The graph that was built.
    pub(crate) fn into_graph(self) -> ActionGraph {
        self.scope.graph.into_inner()
    }

    /// Analyzes a requested label; `None` if that failed, which is reported.
    pub(crate) fn request(&mut self, label: &Label) -> Option<TargetId> {
        let node = self.universe.nodes.get(label)?.clone();
        match node {
            Node::Rule(decl) => {
                self.walk(decl);
                self.configured(label).map(|configured| configured.id)
            }
            Node::Output(decl) => {
                self.walk(decl.clone());
                let owner = self.configured(&decl.label)?.id;
                let file = self.outputs.get(label)?.clone();
                Some(self.file_target(label, &file, "generated file", location_of(&decl), owner))
            }
            Node::Source => {
                let file = self.source(label).ok()?;
                let location = file.path().to_string();
                let mut graph = self.scope.graph.borrow_mut();
                let target = plain_target(label, "source file", location);
                let id = graph.add_target(target);
                graph.target_mut(id).files = vec![file.artifact()];
                Some(id)
            }
        }
    }

    fn file_target(
        &self,
        label: &Label,
        file: &FileValue,
        rule: &str,
        location: String,
        owner: TargetId,
    ) -> TargetId {
        let mut target = plain_target(label, rule, location);
        target.deps = vec![owner];
        target.files = vec![file.artifact()];
        self.scope.graph.borrow_mut().add_target(target)
    }

    fn configured(&self, label: &Label) -> Option<&Configured> {
        match self.status.get(label) {
            Some(Status::Done(configured)) => Some(configured),
            _ => None,
        }
    }

    /// Analyzes a target after everything that it depends on.
    fn walk(&mut self, root: Arc<TargetDecl>) {
        if self.status.contains_key(&root.label) {
            return;
        }
        let mut stack = vec![self.enter(root)];
        while let Some(frame) = stack.last_mut() {
            let Some(label) = frame.dependencies.get(frame.next) else {
                let decl = frame.decl.clone();
                stack.pop();
                self.leave(&decl);
                continue;
            };
            frame.next += 1;
            let owner = match self.universe.nodes.get(label) {
                Some(Node::Rule(decl) | Node::Output(decl)) => decl.clone(),
                Some(Node::Source) | None => continue,
            };
            match self.status.get(&owner.label) {
                None => {
                    let next = self.enter(owner);
                    stack.push(next);
                }
                Some(Status::InProgress) => {
                    let error = cycle(&stack, &owner);
                    self.diagnostics.push(error);
                    // Everyone on the cycle fails with it; the rest of the stack follows.
                    for frame in stack.drain(..) {
                        self.status.insert(frame.decl.label.clone(), Status::Failed);
                    }
                }
                Some(Status::Done(_) | Status::Failed) => {}
            }
        }
    }

    fn enter(&mut self, decl: Arc<TargetDecl>) -> Frame {
        self.status.insert(decl.label.clone(), Status::InProgress);
        let mut dependencies: Vec<Label> =
            decl.dependencies().map(|(_, label)| label.clone()).collect();
        if decl.rule.test {
            dependencies.extend(test_toolchain());
        }
        Frame { decl, dependencies, next: 0 }
    }

    fn leave(&mut self, decl: &Arc<TargetDecl>) {
        let ready = |label: &Label| match self.universe.nodes.get(label) {
            Some(Node::Source) => true,
            Some(Node::Rule(owner) | Node::Output(owner)) => {
                self.configured(&owner.label).is_some()
            }
            None => false,
        };
        let toolchain = decl.rule.test.then(test_toolchain).flatten();
        let mut needed = decl.dependencies().map(|(_, label)| label).chain(&toolchain);
        let status = if !needed.all(ready) {
            Status::Failed // the dependency's error is reported already
        } else {
            match self.configure(decl) {
                Ok(configured) => Status::Done(configured),
                Err(error) => {
                    self.diagnostics.push(*error);
                    Status::Failed
                }
            }
        };
        self.status.insert(decl.label.clone(), status);
    }

    /// Runs the implementation of a target whose dependencies are analyzed.
    fn configure(&mut self, decl: &Arc<TargetDecl>) -> Result<Configured, Box<Diagnostic>> {
        let at = |error: RuleError| Box::new(Diagnostic::at(error, &decl.span));
        let id = self.add_target(decl);
        let current = Current { label: decl.label.clone(), target: id };
        self.scope.current.replace(Some(current));
        self.declare_outputs(decl).map_err(at)?;
        let implementation = self.implementation(&decl.rule).map_err(at)?;
        let prints = Prints::new(&display(&decl.rule.file));
        let frozen = Module::with_temp_heap(|module| {
            {
                let mut eval = Evaluator::new(&module);
                eval.extra = Some(&self.scope);
                eval.set_print_handler(&prints);
                self.universe.packages.limits().apply(&mut eval)?;
                let value = self.run(decl, &implementation, &mut eval)?;
                module.set_extra_value(value);
            }
            let name = FrozenHeapName::User(Box::new(decl.label.to_string()));
            Ok(module.freeze_named(name)?)
        });
        self.diagnostics.extend(prints.take());
        let frozen = frozen.map_err(|error: starlark::Error| {
            let mut diagnostic = Diagnostic::from_starlark(&error, Some(&decl.span));
            let place = Location::of(&decl.span);
            if diagnostic.location.as_ref() != Some(&place) {
                diagnostic.trace.insert(0, format!("{place} in target `{}`", decl.label));
            }
            Box::new(diagnostic)
        })?;
        let value = frozen.owned_extra_value().ok_or_else(|| {
            at(RuleError::new(Code::Internal, "the analysis of the target left no value"))
        })?;
        Ok(Configured { id, value })
    }

    /// The call of the implementation, and what follows from what it returns.
    fn run<'v>(
        &self,
        decl: &TargetDecl,
        implementation: &OwnedFrozenValue,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        let ctx = self.context(decl, heap)?;
        let function = heap.access_owned_frozen_value(implementation);
        let returned = eval.eval_function(function, &[ctx], &[])?;
        let target = self.providers(decl, returned, heap)?;
        self.finish(decl, &target, heap)?;
        let value = heap.alloc(target);
        if heap.allocated_bytes() > UNCHECKED_HEAP_BYTES {
            check_value(value, &mut HashMap::new())?;
        }
        Ok(value)
    }

    fn add_target(&self, decl: &TargetDecl) -> TargetId {
        let mut target = plain_target(&decl.label, decl.rule.name(), location_of(decl));
        let mut seen = HashSet::new();
        for (_, label) in decl.dependencies() {
            if let Some(Node::Rule(owner) | Node::Output(owner)) = self.universe.nodes.get(label)
                && let Some(configured) = self.configured(&owner.label)
                && seen.insert(configured.id)
            {
                target.deps.push(configured.id);
            }
        }
        target.tags = decl.strings("tags");
        self.scope.graph.borrow_mut().add_target(target)
    }

    fn declare_outputs(&mut self, decl: &TargetDecl) -> Result<(), RuleError> {
        let folder = out_dir(&decl.label);
        for ((_, spec), value) in decl.rule.attrs.iter().zip(&decl.attrs) {
            if !matches!(spec.kind, AttrKind::Output | AttrKind::OutputList) {
                continue;
            }
            for label in value.labels() {
                let file = declare(&self.scope, &folder, &label.name, ArtifactKind::File)?;
                self.outputs.insert(label.clone(), file);
            }
        }
        Ok(())
    }

    fn implementation(&mut self, rule: &Arc<RuleSpec>) -> Result<OwnedFrozenValue, RuleError> {
        let key = Arc::as_ptr(rule);
        if let Some(known) = self.implementations.get(&key) {
            return Ok(known.clone());
        }
        let found = self.universe.packages.implementation(rule).ok_or_else(|| {
            let message = format!("rule `{}` has no implementation", rule.name());
            RuleError::new(Code::Internal, message)
        })?;
        self.implementations.insert(key, found.clone());
        Ok(found)
    }

    /// The file that a label of a source names.
    fn source(&self, label: &Label) -> Result<FileValue, RuleError> {
        let error = |message: String| RuleError::new(Code::NoTarget, message);
        let mut graph = self.scope.graph.borrow_mut();
        let (path, id) = if label.is_main() {
            let path = RelPath::new(&path_of(label)).map_err(|e| error(e.to_string()))?;
            (path.clone(), graph.source(path))
        } else {
            let text = library::read(&path_of(label))
                .ok_or_else(|| error(format!("there is no file `{label}`")))?;
            let path = format!("external/{}/{}", label.repo, path_of(label));
            let path = RelPath::new(&path).map_err(|e| error(e.to_string()))?;
            (path.clone(), graph.builtin(path, text.as_bytes().into()))
        };
        Ok(FileValue::new(id, path, ArtifactKind::File, FileOrigin::Source, label.clone()))
    }
}

fn plain_target(label: &Label, rule: &str, location: String) -> GraphTarget {
    GraphTarget {
        label: label.clone(),
        rule: rule.to_owned(),
        location,
        deps: Vec::new(),
        files: Vec::new(),
        executable: None,
        test: None,
        tags: Vec::new(),
    }
}

/// The error for targets that depend on each other, with the path from `again` back to itself.
fn cycle(stack: &[Frame], again: &TargetDecl) -> Diagnostic {
    let start = stack.iter().position(|frame| frame.decl.label == again.label).unwrap_or(0);
    let path = stack.get(start..).unwrap_or_default();
    let steps: String = path
        .iter()
        .map(|frame| {
            let decl = &frame.decl;
            format!("\n  `{}` ({}) needs", decl.label, location_of(decl))
        })
        .collect();
    let message =
        format!("targets depend on each other in a cycle:{steps}\n  `{}` again", again.label);
    let error = RuleError::new(Code::TargetCycle, message)
        .hint("split one of them, so that what both need is a target of its own");
    Diagnostic::at(error, &again.span)
}

/// The texts of an attribute that is a dict.
pub(crate) fn dict_of(decl: &TargetDecl, name: &str) -> Vec<(String, String)> {
    match decl.attr(name) {
        Some(AttrValue::Dict(pairs)) => {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        }
        _ => Vec::new(),
    }
}
