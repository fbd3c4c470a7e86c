//! Analysis: runs the implementations of the rules that a request needs, dependencies first.
//!
//! A configured target is analyzed at most once, in the order that [`ConfiguredGraph`] found.

mod aspects;
mod constraints;
mod context;
mod memory;
mod program;
mod result;
mod testing;
mod uses;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hashbrown::HashMap as IdMap;
use maestro_core::{ArtifactId, ArtifactKind, Label, RelPath, Target as GraphTarget, TargetId};
use starlark::environment::{FrozenModule, Module};
use starlark::eval::Evaluator;
use starlark::values::{FrozenHeapName, OwnedFrozenValue, Value};

use self::constraints::native_info;
use self::memory::Outcome;
use self::uses::Uses;
use crate::attr::{AttrKind, AttrValue};
use crate::bounded::Evaluating;
use crate::configured::{ConfiguredGraph, Edge, Node, NodeId, NodeKind, Via};
use crate::ctx::actions::declare;
use crate::ctx::draft::output_path;
use crate::ctx::{out_dir, out_root};
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError};
use crate::library;
use crate::limits::{UNCHECKED_HEAP_BYTES, check_value};
use crate::load::file::{display, path_of};
use crate::memo::session::Session;
use crate::memo::value::Foreign;
use crate::package::TargetDecl;
use crate::repos::{file_path, is_library};
use crate::resolve::{Universe, location_of};
use crate::rule::RuleSpec;
use crate::scope::{Current, GroupPlatforms, Prints, RuleScope};
use crate::values::exec_group::Execution;
use crate::values::file::{FileOrigin, FileValue};

/// An analyzed target.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) id: TargetId,
    /// The target as dependents see it.
    pub(crate) value: OwnedFrozenValue,
}

/// What an evaluation left.
struct Evaluated {
    value: OwnedFrozenValue,
    foreign: Foreign,
    prints: Vec<Diagnostic>,
}

/// Analyzes targets into one graph.
pub(crate) struct Analyzer<'u, 'h> {
    universe: &'u Universe<'h>,
    configured: &'u ConfiguredGraph,
    scope: RuleScope,
    /// The node whose implementation runs.
    current: NodeId,
    /// The targets of nodes, by the index of the node: of those that are analyzed, and of those
    /// that need not be.
    ids: Vec<Option<TargetId>>,
    /// The values of nodes that are analyzed, as long as they are needed.
    values: IdMap<NodeId, OwnedFrozenValue>,
    /// Files that targets name as outputs, as long as the values of the targets are needed.
    outputs: IdMap<NodeId, HashMap<Arc<str>, FileValue>>,
    implementations: HashMap<*const RuleSpec, OwnedFrozenValue>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What is remembered, and what is to be.
    session: Option<Session<'h>>,
    /// The program for which the target under analysis has made runfiles.
    made_program: Cell<Option<ArtifactId>>,
    /// Whether memory has lost something that is needed.
    pub(crate) lost: bool,
}

impl<'u, 'h> Analyzer<'u, 'h> {
    /// Begins with a graph, which is empty but for what is remembered.
    pub(crate) fn new(
        universe: &'u Universe<'h>,
        configured: &'u ConfiguredGraph,
        scope: RuleScope,
        session: Option<Session<'h>>,
    ) -> Self {
        Self {
            universe,
            configured,
            scope,
            current: NodeId::default(),
            ids: vec![None; configured.node_count()],
            values: IdMap::new(),
            outputs: IdMap::new(),
            implementations: HashMap::new(),
            diagnostics: Vec::new(),
            session,
            made_program: Cell::new(None),
            lost: false,
        }
    }

    /// The graph that was built, and what is to be remembered.
    pub(crate) fn finish_all(self) -> (RuleScope, Option<Session<'h>>) {
        (self.scope, self.session)
    }

    /// Analyzes everything that was found, or the part of it that is needed, dependencies first.
    /// A failure is reported once, and what depends on it is left out.
    pub(crate) fn analyze(&mut self, live: Option<&HashSet<NodeId>>) {
        self.retire_changed(live);
        let counts = self.is_first() && !self.configured.has_aspects();
        let mut uses = counts.then(|| Uses::count(self.configured));
        for id in self.configured.order() {
            if live.is_none_or(|live| live.contains(id)) {
                self.look_at(*id);
            }
            if let Some(uses) = &mut uses {
                for unused in uses.release(self.configured, *id) {
                    self.values.remove(&unused);
                    self.outputs.remove(&unused);
                }
            }
        }
    }

    fn look_at(&mut self, id: NodeId) {
        let node = self.configured.node(id);
        let ready = || node.edges.iter().all(|edge| self.is_ready(edge));
        if self.configured.is_incompatible(id) || !ready() {
            return;
        }
        match &node.kind {
            NodeKind::Rule(decl) if !self.keep(id, decl) => self.analyze_one(id, decl),
            NodeKind::Aspect(applied) => {
                self.current = id;
                match self.configure_aspect(id, applied) {
                    Ok(configured) => self.finish_node(id, configured),
                    Err(error) => self.diagnostics.push(*error),
                }
            }
            _ => {}
        }
    }

    fn finish_node(&mut self, node: NodeId, configured: Configured) {
        let Configured { id, value } = configured;
        self.set_target(node, id);
        self.values.insert(node, value);
    }

    fn analyze_one(&mut self, id: NodeId, decl: &Arc<TargetDecl>) {
        if !self.bring(id) {
            self.lost = true;
            return;
        }
        self.current = id;
        match self.configure(self.configured.node(id), decl) {
            Ok(configured) => self.finish_node(id, configured),
            Err(error) => self.diagnostics.push(*error),
        }
    }

    fn is_ready(&self, edge: &Edge) -> bool {
        let owner = self.owner(self.configured.target(edge));
        owner.is_none_or(|owner| self.target_id(owner).is_some())
    }

    /// The node whose analysis makes what a node stands for; a source has none.
    fn owner(&self, id: NodeId) -> Option<NodeId> {
        let node = self.configured.node(id);
        match &node.kind {
            NodeKind::Rule(_) | NodeKind::Aspect(_) => Some(id),
            NodeKind::Output(_) => node.edges.first().map(|edge| self.configured.target(edge)),
            NodeKind::Alias(_)
            | NodeKind::Source
            | NodeKind::Bare
            | NodeKind::Unknown
            | NodeKind::Failed(_) => None,
        }
    }

    /// The target of a requested node; `None` if its analysis failed, which is reported.
    pub(crate) fn requested(&self, id: NodeId) -> Option<TargetId> {
        let node = self.configured.node(id);
        let label = &node.label;
        match &node.kind {
            NodeKind::Rule(_) | NodeKind::Aspect(_) => self.target_id(id),
            NodeKind::Output(decl) => {
                let owner = self.owner(id)?;
                let mut target = plain_target(label, "generated file".into(), location_of(decl));
                target.deps = vec![self.target_id(owner)?];
                target.files = vec![self.output_artifact(owner, &label.name)?];
                Some(self.scope.graph.borrow_mut().add_target(target))
            }
            NodeKind::Source => {
                let file = self.source(label).ok()?;
                let mut target = plain_target(label, "source file".into(), file.path().to_string());
                target.files = vec![file.artifact()];
                Some(self.scope.graph.borrow_mut().add_target(target))
            }
            NodeKind::Alias(_) | NodeKind::Bare | NodeKind::Unknown | NodeKind::Failed(_) => None,
        }
    }

    /// What an attribute of the node under analysis leads to, in its order.
    fn edges_of(&self, via: Via) -> impl Iterator<Item = NodeId> + '_ {
        let edges = &self.configured.node(self.current).edges;
        edges.iter().filter(move |edge| edge.via == via).map(|edge| self.configured.target(edge))
    }

    /// The same, each with the aspects that are put on it there.
    fn with_aspects_of(&self, via: Via) -> Vec<(NodeId, Vec<NodeId>)> {
        let mut out: Vec<(NodeId, Vec<NodeId>)> = Vec::new();
        let mut is_near = false;
        for edge in &self.configured.node(self.current).edges {
            let to = self.configured.target(edge);
            if edge.via == via {
                out.push((to, Vec::new()));
            } else if let (Via::Aspect(_), true, Some((_, aspects))) =
                (edge.via, is_near, out.last_mut())
            {
                aspects.push(to);
            }
            is_near = edge.via == via || (is_near && matches!(edge.via, Via::Aspect(_)));
        }
        out
    }

    /// Runs the implementation of a target whose dependencies are analyzed.
    fn configure(
        &mut self,
        node: &Node,
        decl: &Arc<TargetDecl>,
    ) -> Result<Configured, Box<Diagnostic>> {
        let at = |error: RuleError| Box::new(decl.error(error));
        let id = self.add_target(node, decl);
        let out_root = out_root(self.root(self.current));
        let execution = self.platforms(self.current, &decl.rule.execution);
        let current = Current { label: decl.label.clone(), target: id, out_root, execution };
        let folder = current.out_dir();
        self.scope.current.replace(Some(current));
        self.declare_outputs(decl, &folder).map_err(at)?;
        let implementation = match decl.rule.native {
            Some(_) => None,
            None => Some(self.implementation(&decl.rule).map_err(at)?),
        };
        let file = display(&decl.rule.file);
        let title = decl.label.to_string();
        let evaluated = self.evaluate(&file, &title, |analyzer, eval| {
            analyzer.run(decl, implementation.as_ref(), eval)
        });
        let Evaluated { value, foreign, prints } = evaluated.map_err(|error| {
            let mut diagnostic = Diagnostic::from_starlark(&error, Some(&decl.span));
            let place = Location::of(&decl.span);
            let mut trace = match diagnostic.location.as_ref() == Some(&place) {
                true => Vec::new(),
                false => vec![format!("{place} in target `{}`", decl.label)],
            };
            trace.extend(decl.macro_trace());
            diagnostic.trace.splice(0..0, trace);
            Box::new(diagnostic)
        })?;
        let outcome = Outcome { id, value: value.clone(), foreign, prints };
        self.note(self.current, decl, outcome);
        Ok(Configured { id, value })
    }

    /// Evaluates something of a file in a module of its own, which keeps what it comes to.
    fn evaluate(
        &mut self,
        file: &str,
        title: &str,
        run: impl for<'v> FnOnce(&Self, &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>>,
    ) -> starlark::Result<Evaluated> {
        let _evaluating = Evaluating::start(file);
        let prints = Prints::new(file);
        let mut foreign = Foreign::default();
        let frozen: starlark::Result<FrozenModule> = Module::with_temp_heap(|module| {
            {
                let mut eval = Evaluator::new(&module);
                eval.extra = Some(&self.scope);
                eval.set_print_handler(&prints);
                self.universe.packages.limits().apply(&mut eval)?;
                let value = run(self, &mut eval)?;
                if self.session.is_some() {
                    foreign = Foreign::of(value);
                }
                module.set_extra_value(value);
            }
            let name = FrozenHeapName::User(Box::new(title.to_owned()));
            Ok(module.freeze_named(name)?)
        });
        let prints = prints.take();
        self.diagnostics.extend(prints.iter().cloned());
        let value = frozen.and_then(|frozen| {
            let value = frozen.owned_extra_value();
            value.ok_or_else(|| {
                RuleError::new(Code::Internal, "the analysis of the target left no value").into()
            })
        })?;
        Ok(Evaluated { value, foreign, prints })
    }

    /// The call of the implementation, and what follows from what it returns.
    fn run<'v>(
        &self,
        decl: &TargetDecl,
        implementation: Option<&OwnedFrozenValue>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        let returned = match implementation {
            Some(implementation) => {
                let ctx = self.context(decl, heap)?;
                let function = heap.access_owned_frozen_value(implementation);
                eval.eval_function(function, &[ctx], &[])?
            }
            None => native_info(decl, heap),
        };
        let target = self.providers(decl, returned, heap)?;
        self.finish(decl, &target, heap)?;
        let value = heap.alloc(target);
        if heap.allocated_bytes() > UNCHECKED_HEAP_BYTES {
            check_value(value, &mut HashMap::new())?;
        }
        Ok(value)
    }

    /// Where the actions of a node run, by execution groups.
    fn platforms(&self, node: NodeId, execution: &Execution) -> Option<Arc<GroupPlatforms>> {
        let found = self.configured.resolutions(node);
        let names = execution.all().map(|(name, _)| name.cloned());
        let groups = || names.zip(found.iter().cloned()).collect();
        (!found.is_empty()).then(|| Arc::new(GroupPlatforms(groups())))
    }

    fn add_target(&mut self, node: &Node, decl: &TargetDecl) -> TargetId {
        let mut target = plain_target(&decl.label, decl.rule.shared_name(), location_of(decl));
        target.deps = self.deps_of(node);
        target.tags = decl.strings("tags");
        self.put_target(self.current, target)
    }

    /// The folder of the outputs of a node's target.
    fn out_dir(&self, node: NodeId) -> String {
        out_dir(&out_root(self.root(node)), &self.configured.node(node).label)
    }

    /// The artifact of an output of a target that was analyzed, even if its value is gone.
    fn output_artifact(&self, node: NodeId, name: &str) -> Option<ArtifactId> {
        if !self.is_first() {
            return self.output_of(node, name).map(FileValue::artifact);
        }
        let path = output_path(&self.out_dir(node), name).ok()?;
        self.scope.graph.borrow().artifact_at(&path)
    }

    /// Whether nothing is remembered, so that every target is analyzed, and once.
    fn is_first(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_first)
    }

    /// A file that a target names as an output.
    fn output_of(&self, node: NodeId, name: &str) -> Option<&FileValue> {
        self.outputs.get(&node)?.get(name)
    }

    /// The targets that a node depends on, each once.
    fn deps_of(&self, node: &Node) -> Vec<TargetId> {
        let (mut deps, mut seen) = (Vec::new(), HashSet::new());
        for edge in node.edges.iter().filter(|edge| edge.via != Via::TestToolchain) {
            if let Some(owner) = self.owner(self.configured.target(edge))
                && let Some(id) = self.target_id(owner)
                && seen.insert(id)
            {
                deps.push(id);
            }
        }
        deps
    }

    fn declare_outputs(&mut self, decl: &TargetDecl, folder: &str) -> Result<(), RuleError> {
        for ((_, spec), value) in decl.rule.attrs.iter().zip(&decl.attrs) {
            if !matches!(spec.kind, AttrKind::Output | AttrKind::OutputList) {
                continue;
            }
            for label in value.labels() {
                let file = declare(&self.scope, folder, &label.name, ArtifactKind::File)?;
                self.outputs.entry(self.current).or_default().insert(label.name.clone(), file);
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
        let path = RelPath::new(&file_path(label)).map_err(|e| error(e.to_string()))?;
        let id = if is_library(&label.repo) {
            let text = library::read(&path_of(label))
                .ok_or_else(|| error(format!("there is no file `{label}`")))?;
            graph.builtin(path.clone(), text.as_bytes().into())
        } else {
            graph.source(path.clone())
        };
        Ok(FileValue::new(id, path, ArtifactKind::File, FileOrigin::Source, label.clone()))
    }
}

fn plain_target(label: &Label, rule: Arc<str>, location: String) -> GraphTarget {
    GraphTarget {
        label: label.clone(),
        rule,
        aspect: None,
        location,
        deps: Vec::new(),
        files: Vec::new(),
        groups: Vec::new(),
        executable: None,
        test: None,
        tags: Vec::new(),
    }
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
