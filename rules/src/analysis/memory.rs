//! Analysis with a memory: which targets are kept, and what is noted of those that are analyzed.

use std::collections::HashSet;
use std::sync::Arc;

use maestro_core::{ArtifactId, Target, TargetId};
use starlark::values::OwnedFrozenValue;

use super::{Analyzer, Configured};
use crate::attr::AttrKind;
use crate::configured::{NodeId, NodeKind, Via};
use crate::diagnostic::Diagnostic;
use crate::memo::codec::Writer;
use crate::memo::decls;
use crate::memo::imprint::Imprint;
use crate::memo::targets::{BodyParts, Note, PackageKey, package_of, write_body};
use crate::memo::value::{Archive, Foreign};
use crate::package::TargetDecl;
use crate::values::file::FileValue;

/// What tells whether a target is as it was.
pub(super) struct Marks {
    decl: Imprint,
    usage: Imprint,
    edges: Imprint,
    deps: Vec<TargetId>,
    sources: Vec<PackageKey>,
}

/// What analyzing a target came to.
pub(super) struct Outcome {
    pub(super) id: TargetId,
    pub(super) value: OwnedFrozenValue,
    pub(super) foreign: Foreign,
    pub(super) prints: Vec<Diagnostic>,
}

impl<'u> Analyzer<'u, '_> {
    /// The target of a node that is analyzed or kept.
    pub(super) fn target_id(&self, node: NodeId) -> Option<TargetId> {
        self.ids.get(node.index()).copied().flatten()
    }

    /// Says which target a node comes to.
    pub(super) fn set_target(&mut self, node: NodeId, id: TargetId) {
        if let Some(slot) = self.ids.get_mut(node.index()) {
            *slot = Some(id);
        }
    }

    /// Whether a node need not be analyzed: then it is kept, under the id that it had.
    pub(super) fn keep(&mut self, node: NodeId, decl: &TargetDecl) -> bool {
        let Some(session) = &self.session else { return false };
        let root = self.root(node);
        let Some(row) = session.past.find_at(&decl.label, root) else { return false };
        let id = row.id;
        if session.gone.contains(&id) {
            return false;
        }
        if !self.configured.node(node).remembered {
            let marks = self.marks(node, decl);
            let before = match session.notes.get(&id) {
                Some(note) => (note.decl, note.edges),
                None => (row.decl, row.edges),
            };
            if before != (marks.decl, marks.edges) || session.is_behind(id, &marks.deps) {
                return false;
            }
            if row.has_remarks() || !self.configured.warnings(node).is_empty() {
                let said = row.body().map(|body| body.warnings);
                if said.as_deref() != Ok(self.configured.warnings(node)) {
                    return false;
                }
            }
            self.scope.update_place(id, decl);
        }
        self.set_target(node, id);
        true
    }

    /// Takes what targets made out of the graph whose declarations have changed, before any of
    /// them is analyzed: an output may move from one to another.
    pub(super) fn retire_changed(&mut self, live: Option<&HashSet<NodeId>>) {
        let configured = self.configured;
        for id in configured.order() {
            let node = configured.node(*id);
            let NodeKind::Rule(decl) = &node.kind else { continue };
            if node.remembered || live.is_some_and(|live| !live.contains(id)) {
                continue;
            }
            let declared = self.declaration(*id, decl);
            let root = &*configured.trims.get(node.trimmed).root;
            let Some(session) = &mut self.session else { return };
            let Some(row) = session.past.find_at(&node.label, root) else { continue };
            if row.decl != declared && session.fresh(row.id).is_none() {
                let id = row.id;
                session.retire(id, &self.scope);
            }
        }
    }

    fn declaration(&self, node: NodeId, decl: &TargetDecl) -> Imprint {
        let code = self.universe.packages.code_of(&decl.rule);
        decls::declared(decl, self.root(node), code)
    }

    /// The folder of a node's outputs, below that of all outputs.
    pub(super) fn root(&self, node: NodeId) -> &'u Arc<str> {
        &self.configured.trims.get(self.configured.node(node).trimmed).root
    }

    /// What tells whether a target is as it was.
    pub(super) fn marks(&self, node: NodeId, decl: &TargetDecl) -> Marks {
        let configured = self.configured;
        let mut edges = Writer::default();
        let (mut deps, mut sources) = (Vec::new(), Vec::new());
        for edge in &configured.node(node).edges {
            let to = configured.target(edge);
            let target = configured.node(to);
            match edge.via {
                Via::Attribute(position) => edges.number(u64::from(position) + 2),
                // Beyond the positions of attributes.
                Via::Toolchain(position) => edges.number(u64::from(position) + (1 << 20)),
                Via::TestToolchain => edges.byte(0),
                Via::Owner => edges.byte(1),
                // A request with aspects is not remembered.
                Via::Aspect(_) | Via::Base | Via::AspectAttribute(_) | Via::AspectToolchain(_) => {}
            }
            if let Via::Attribute(position) = edge.via {
                let names = configured.split(node, usize::from(position)).unwrap_or_default();
                edges.list(names.iter(), |writer, name| writer.text(name));
            }
            edges.text(&target.label.to_string());
            edges.text(self.root(to));
            edges.byte(match target.kind {
                NodeKind::Rule(_) => 0,
                NodeKind::Output(_) => 1,
                NodeKind::Source => 2,
                NodeKind::Alias(_)
                | NodeKind::Aspect(_)
                | NodeKind::Bare
                | NodeKind::Unknown
                | NodeKind::Failed(_) => 3,
            });
            match self.owner(to).and_then(|owner| self.target_id(owner)) {
                Some(id) if !deps.contains(&id) => deps.push(id),
                Some(_) => {}
                None => {
                    let package = package_of(&target.label);
                    if package != package_of(&decl.label) && !sources.contains(&package) {
                        sources.push(package);
                    }
                }
            }
        }
        Marks {
            decl: self.declaration(node, decl),
            usage: decls::usage(decl),
            edges: Imprint::of(&edges.bytes),
            deps,
            sources,
        }
    }

    /// Makes the values of what a node depends on known; `false` where memory has lost one.
    pub(super) fn bring(&mut self, node: NodeId) -> bool {
        let owners: Vec<NodeId> = self
            .configured
            .node(node)
            .edges
            .iter()
            .filter_map(|edge| self.owner(self.configured.target(edge)))
            .collect();
        owners.into_iter().all(|owner| self.values.contains_key(&owner) || self.bring_one(owner))
    }

    fn bring_one(&mut self, node: NodeId) -> bool {
        let Some(id) = self.target_id(node) else { return false };
        let Some(session) = &mut self.session else { return false };
        if session.fresh(id).is_none() && session.past.row(id).is_some_and(|r| r.1.value.is_none())
        {
            return self.analyze_again(node);
        }
        if let Some(fresh) = session.fresh(id).cloned() {
            self.outputs.entry(node).or_default().extend(fresh.outputs);
            self.finish_node(node, Configured { id, value: fresh.value });
            return true;
        }
        let Ok((value, body)) = session.revive(id, &self.scope) else { return false };
        for (name, artifact) in body.outputs {
            if artifact.index() >= self.scope.graph.borrow().artifact_count() {
                return false;
            }
            let file = self.scope.file(artifact);
            self.outputs.entry(node).or_default().insert(name.into(), file);
        }
        self.finish_node(node, Configured { id, value });
        true
    }

    /// Analyzes a target whose value could not be stored, although nothing about it has changed.
    fn analyze_again(&mut self, node: NodeId) -> bool {
        let NodeKind::Rule(decl) = &self.configured.node(node).kind else { return false };
        if self.configured.node(node).remembered {
            return false; // what it depends on is not known
        }
        let current = self.current;
        self.analyze_one(node, decl);
        self.current = current;
        if let (Some(id), Some(session)) = (self.target_id(node), &mut self.session) {
            session.is_as_before(id);
        }
        self.values.contains_key(&node)
    }

    /// Adds the target under analysis to the graph, or puts it in the place that it had.
    pub(super) fn put_target(&mut self, node: NodeId, target: Target) -> TargetId {
        let root = self.root(node);
        let before = self.session.as_mut().and_then(|session| {
            let row = session.past.find_at(&target.label, root)?;
            let id = (!session.gone.contains(&row.id)).then_some(row.id)?;
            session.begin(id, &self.scope);
            Some(id)
        });
        let mut graph = self.scope.graph.borrow_mut();
        match before {
            Some(id) => {
                graph.replace_target(id, target);
                id
            }
            None => graph.add_target(target),
        }
    }

    /// Notes what analyzing a target came to.
    pub(super) fn note(&mut self, node: NodeId, decl: &TargetDecl, outcome: Outcome) {
        if self.session.is_none() {
            return;
        }
        let marks = self.marks(node, decl);
        let root = self.root(node).clone();
        let Outcome { id, value, foreign, prints } = outcome;
        let named =
            decl.rule.attrs.iter().zip(&decl.attrs).filter(|((_, spec), _)| {
                matches!(spec.kind, AttrKind::Output | AttrKind::OutputList)
            });
        let outputs: Vec<(Arc<str>, FileValue)> = named
            .flat_map(|(_, value)| value.labels())
            .filter_map(|label| {
                Some((label.name.clone(), self.output_of(node, &label.name)?.clone()))
            })
            .collect();
        let Some(session) = &mut self.session else { return };
        let archive = session.archive(id, &decl.label, &value, &foreign, &self.scope).ok();
        let imprint = archive.as_ref().map(Archive::imprint);
        let archive = archive.unwrap_or_default();
        let runnables = self.scope.runnables.borrow();
        let program = self.made_program.take();
        let runnable = program.and_then(|program| Some((program, runnables.get(&program)?)));
        let warnings = self.configured.warnings(node);
        let written: Vec<(Arc<str>, ArtifactId)> =
            outputs.iter().map(|(name, file)| (name.clone(), file.artifact())).collect();
        let body = write_body(&BodyParts {
            runnable,
            warnings,
            prints: &prints,
            outputs: &written,
            needs: &archive.needs,
            records: &archive.records,
        });
        let Marks { decl: declared, usage, edges, deps, sources } = marks;
        let rank = deps.iter().map(|dep| session.rank(*dep) + 1).max().unwrap_or_default();
        let note = Note {
            label: decl.label.clone(),
            id,
            rank,
            root,
            main: self.configured.requested(&decl.label) == Some(node),
            reads: self.configured.reads(node).clone(),
            decl: declared,
            usage,
            edges,
            value: imprint,
            deps: deps.into(),
            sources: sources.into(),
            has_remarks: !warnings.is_empty() || !prints.is_empty(),
            has_runnable: runnable.is_some(),
            prints: prints.into(),
            body: body.into(),
        };
        session.finish(id, value, outputs, imprint);
        session.notes.insert(id, Box::new(note));
    }
}
