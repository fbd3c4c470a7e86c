//! Checks what targets lead to: whether it is there, and whether they may use it.

use maestro_core::Label;

use super::aspects::Applied;
use super::{ConfiguredGraph, NodeId, NodeKind, Via};
use crate::diagnostic::Diagnostic;
use crate::error::RuleError;
use crate::package::TargetDecl;
use crate::repos;
use crate::resolve::{Node as Named, Universe};

impl ConfiguredGraph {
    /// Reports what is missing or may not be used, once for each target and label.
    pub(super) fn check_edges(&mut self, universe: &mut Universe<'_>, roots: &[NodeId]) {
        let mut found = Vec::new();
        let mut warnings: Vec<(Label, Diagnostic)> = Vec::new();
        for root in roots {
            if let NodeKind::Failed(Some(error)) = &self.node(*root).kind {
                found.push(Diagnostic::of((**error).clone(), None));
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if let NodeKind::Aspect(applied) = &node.kind {
                self.check_aspect(universe, NodeId::from_index(at), applied, &mut found);
            }
            let (NodeKind::Rule(user) | NodeKind::Alias(user)) = &node.kind else { continue };
            for edge in &node.edges {
                let Via::Attribute(position) = edge.via else {
                    let to = self.node(edge.to);
                    if let (Via::Toolchain(_), NodeKind::Failed(Some(error))) = (edge.via, &to.kind)
                    {
                        found.push(in_attribute((**error).clone(), user, "toolchains"));
                    }
                    continue;
                };
                let Some((attribute, _)) = user.rule.attrs.get(usize::from(position)) else {
                    continue;
                };
                let to = self.node(edge.to);
                let named = match &to.kind {
                    NodeKind::Rule(decl) | NodeKind::Alias(decl) => Named::Rule(decl.clone()),
                    NodeKind::Output(decl) => Named::Output(decl.clone()),
                    NodeKind::Source => Named::Source,
                    NodeKind::Failed(Some(error)) => {
                        // A repository that cannot be had is told with the one that uses it.
                        let host = universe.packages.host();
                        let opened = repos::open(host, &to.label.repo, &user.label.repo);
                        let error = opened.err().unwrap_or_else(|| (**error).clone());
                        found.push(in_attribute(error, user, attribute));
                        continue;
                    }
                    NodeKind::Failed(None) | NodeKind::Unknown => continue,
                    NodeKind::Aspect(_) | NodeKind::Bare => continue,
                };
                match universe.check_use(&to.label, &named, user) {
                    Ok(()) => {
                        if let Some(warning) = universe.deprecation(&named, user) {
                            warnings.push((user.label.clone(), warning.clone()));
                            found.push(warning);
                        }
                    }
                    Err(error) => found.push(in_attribute(error, user, attribute)),
                }
            }
        }
        found.dedup();
        universe.diagnostics.extend(found);
        warnings.dedup();
        for (label, warning) in warnings {
            self.warnings.entry(label).or_default().push(warning);
        }
    }

    /// Reports what an aspect itself leads to that is missing or may not be used.
    fn check_aspect(
        &self,
        universe: &Universe<'_>,
        id: NodeId,
        applied: &Applied,
        found: &mut Vec<Diagnostic>,
    ) {
        let spec = &self.aspect(applied.aspect).spec;
        for edge in &self.node(id).edges {
            let attribute = match edge.via {
                Via::AspectAttribute(at) => spec.attrs.get(usize::from(at)),
                Via::AspectToolchain(_) => None,
                _ => continue,
            };
            let attribute = attribute.map_or("toolchains", |(name, _)| name.as_str());
            let to = self.node(edge.to);
            let error = match &to.kind {
                NodeKind::Failed(Some(error)) => Some((**error).clone()),
                NodeKind::Rule(decl) | NodeKind::Alias(decl) => {
                    let named = Named::Rule(decl.clone());
                    universe.check_visible(&to.label, &named, &spec.file).err()
                }
                NodeKind::Output(decl) => {
                    let named = Named::Output(decl.clone());
                    universe.check_visible(&to.label, &named, &spec.file).err()
                }
                NodeKind::Source => {
                    universe.check_visible(&to.label, &Named::Source, &spec.file).err()
                }
                _ => None,
            };
            if let Some(mut error) = error {
                // It is the aspect's fault, wherever that is put.
                let name = spec.full_name();
                error.message =
                    format!("aspect `{name}`, attribute `{attribute}`: {}", error.message);
                found.push(Diagnostic::of(error, None));
            }
        }
    }

    /// What there is to say about a target that is fine.
    pub(crate) fn warnings(&self, id: NodeId) -> &[Diagnostic] {
        self.warnings.get(&self.node(id).label).map_or(&[], Vec::as_slice)
    }
}

/// An error about what an attribute of a target says.
pub(crate) fn in_attribute(mut error: RuleError, user: &TargetDecl, attribute: &str) -> Diagnostic {
    error.message = format!("target `{}`, attribute `{attribute}`: {}", user.label, error.message);
    user.error(error)
}
