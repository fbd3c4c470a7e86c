//! Looks at one node: which branches it takes, what it reads, what it depends on, and what that
//! is built for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use maestro_core::Label;

use super::incompatible::{Incompatible, incompatible};
use super::{
    ConfiguredGraph, Edge, Groups, Node, NodeId, NodeKind, Recall, Resolved, Via, in_attribute,
};
use crate::attr::{AttrKind, AttrValue, DependencyConfig};
use crate::config::choice::Reader;
use crate::config::definitions::{PackageKey, Stop};
use crate::config::toolchains::Resolution;
use crate::config::transition::Outcome;
use crate::config::{ConfigId, Configuration, Setting};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::resolve::{Node as Named, Universe, test_toolchain};
use crate::rule::COMPATIBLE;
use crate::values::exec_group::{Execution, GroupNeeds};

/// Why a node cannot be visited now.
pub(super) enum Stopped {
    /// These packages have to be loaded first.
    Missing(BTreeSet<PackageKey>),
    /// Another node has to be visited first.
    Later,
    /// It is wrong; the error is there unless it is reported already.
    Failed(Option<Diagnostic>),
}

/// What a visit finds out about a node.
struct Found {
    kind: NodeKind,
    edges: Vec<Edge>,
    reads: BTreeSet<Setting>,
    incompatible: Option<Incompatible>,
}

impl ConfiguredGraph {
    /// Finds out what a node is; new dependencies are to be visited.
    pub(super) fn visit(
        &mut self,
        universe: &Universe<'_>,
        id: NodeId,
        pending: &mut Vec<NodeId>,
        recall: Recall<'_>,
    ) -> Result<(), Stopped> {
        if self.is_aspect(id) {
            return self.visit_aspect(universe, id, pending);
        }
        let Node { label, config, transitioned, .. } = self.node(id);
        let (label, config, transitioned) = (label.clone(), *config, *transitioned);
        if !universe.is_loaded(&label) {
            return Err(Stopped::Missing(BTreeSet::from([(label.repo, label.package)])));
        }
        let plain =
            |kind| Found { kind, edges: Vec::new(), reads: BTreeSet::new(), incompatible: None };
        let mut remembered = false;
        let found = match universe.resolve(&label) {
            Ok(Some(Named::Rule(decl))) => match &decl.rule.cfg {
                // Whether a constraint value holds is not remembered.
                DependencyConfig::Target => match recall(&label, config) {
                    Some(reads) if decl.rule.native != Some(NativeKind::ConstraintValue) => {
                        remembered = true;
                        Found { reads, ..plain(NodeKind::Rule(decl.clone())) }
                    }
                    _ => self.visit_target(universe, &decl, id, pending)?,
                },
                _ if transitioned => self.visit_target(universe, &decl, id, pending)?,
                cfg => self.visit_before(universe, &decl, cfg, config, pending)?,
            },
            Ok(Some(Named::Output(decl))) => {
                let to = self.want(&decl.label, config, pending);
                Found { edges: vec![Edge { via: Via::Owner, to }], ..plain(NodeKind::Output(decl)) }
            }
            Ok(Some(Named::Source)) => plain(NodeKind::Source),
            Ok(None) => plain(NodeKind::Failed(None)),
            Err(error) => plain(NodeKind::Failed(Some(Box::new(error)))),
        };
        let reads = self.reads.intern(found.reads);
        if let Some(why) = found.incompatible {
            self.incompatible.insert(id, why);
        }
        let node = self.node_mut(id);
        node.kind = found.kind;
        node.edges = found.edges.into();
        node.reads = reads;
        node.remembered = remembered;
        Ok(())
    }

    fn visit_target(
        &mut self,
        universe: &Universe<'_>,
        decl: &Arc<TargetDecl>,
        id: NodeId,
        pending: &mut Vec<NodeId>,
    ) -> Result<Found, Stopped> {
        let config = self.node(id).config;
        let configuration = self.configurations.get(config).clone();
        let mut reader = Reader {
            universe,
            definitions: &mut self.definitions,
            configuration: &configuration,
            reads: BTreeSet::new(),
        };
        let decided = reader.decide(decl).map_err(|(name, stop)| stopped(stop, decl, &name))?;
        let general = |stop: Stop| stopped_target(stop, decl);
        if read_by_itself(&mut reader, decl).map_err(general)? {
            self.holding.insert(id);
        }
        let incompatible =
            incompatible(&mut reader, &decided).map_err(|stop| stopped(stop, decl, COMPATIBLE))?;
        // A target that is not built needs no toolchain.
        let resolved = match incompatible {
            None => {
                let known = self.resolved.entry(config).or_default();
                resolve_groups(&mut reader, known, &decl.rule.execution).map_err(general)?
            }
            Some(_) => Groups::default(),
        };
        let leads = leads(&mut reader, &decided, &resolved)?;
        let reads = reader.reads;
        let edges = self.edges(&decided, leads, &resolved, id, pending)?;
        if !resolved.is_empty() {
            self.resolutions.insert(id, resolved);
        }
        let kind = match decl.rule.native {
            Some(NativeKind::Alias) => NodeKind::Alias(decided),
            _ => NodeKind::Rule(decided),
        };
        Ok(Found { kind, edges, reads, incompatible })
    }

    /// A target whose rule has a transition: it stands for the same one after the transition.
    fn visit_before(
        &mut self,
        universe: &Universe<'_>,
        decl: &Arc<TargetDecl>,
        cfg: &DependencyConfig,
        config: ConfigId,
        pending: &mut Vec<NodeId>,
    ) -> Result<Found, Stopped> {
        let configuration = self.configurations.get(config).clone();
        let mut reader = Reader {
            universe,
            definitions: &mut self.definitions,
            configuration: &configuration,
            reads: BTreeSet::new(),
        };
        let general = |stop: Stop| stopped_target(stop, decl);
        let after = match cfg {
            DependencyConfig::Transition(spec) => {
                // What the function sees must not depend on what it decides.
                let plain = without_select(decl);
                let mut outcome = reader.transition(spec, &plain).map_err(general)?;
                if !outcome.keys.is_empty() {
                    let message = "the transition of a rule cannot split";
                    let error = RuleError::new(Code::Transition, message);
                    return Err(general(error.into()));
                }
                outcome.configurations.pop()
            }
            DependencyConfig::Exec(_) => {
                let platform = reader.execution_platform().map_err(general)?;
                Some(Configuration { params: BTreeMap::new(), platform })
            }
            DependencyConfig::Target => None,
        };
        let reads = reader.reads;
        let config = after.map_or(config, |after| self.configurations.intern(after));
        let to = self.want_after(&decl.label, config, true, pending);
        let edges = vec![Edge { via: Via::Owner, to }];
        Ok(Found { kind: NodeKind::Alias(decl.clone()), edges, reads, incompatible: None })
    }

    /// The dependencies of a target, in the order of its attributes.
    fn edges(
        &mut self,
        decl: &TargetDecl,
        leads: Vec<Lead>,
        resolved: &Groups,
        id: NodeId,
        pending: &mut Vec<NodeId>,
    ) -> Result<Vec<Edge>, Stopped> {
        let config = self.node(id).config;
        let mut edges = Vec::new();
        for lead in leads {
            let position = lead.position;
            let pair = decl.rule.attrs.get(position).zip(decl.attrs.get(position));
            let Some(((name, spec), value)) = pair else { continue };
            let via = Via::attribute(position);
            let aspects = match spec.aspects.is_empty() {
                true => Vec::new(),
                false => self
                    .attached(decl, spec)
                    .map_err(|error| stopped(Stop::Error(error), decl, name))?,
            };
            let configs: Vec<ConfigId> = match lead.outcome {
                None => vec![config],
                Some(outcome) => {
                    if let Via::Attribute(at) = via
                        && lead.splits
                    {
                        self.splits.insert((id, at), outcome.keys.into());
                    }
                    let all = outcome.configurations.into_iter();
                    all.map(|own| self.configurations.intern(own)).collect()
                }
            };
            for label in value.labels() {
                for config in &configs {
                    let base = self.want(label, *config, pending);
                    edges.push(Edge { via, to: base });
                    let Via::Attribute(at) = via else { continue };
                    for aspect in &aspects {
                        let to = self.put(base, *aspect, Some((id, at)), pending);
                        edges.push(Edge { via: Via::Aspect(at), to });
                    }
                }
            }
        }
        for (at, label) in implementations(resolved) {
            let via = Via::Toolchain(at);
            edges.push(Edge { via, to: self.want(label, config, pending) });
        }
        if decl.rule.test
            && let Some(label) = test_toolchain()
        {
            edges.push(Edge { via: Via::TestToolchain, to: self.want(&label, config, pending) });
        }
        Ok(edges)
    }
}

/// What the dependencies of an attribute are built for.
struct Lead {
    /// The position of the attribute.
    position: usize,
    /// `None` where they are built for the same as the target.
    outcome: Option<Outcome>,
    /// Whether a transition leads there, of which the rule sees the names.
    splits: bool,
}

/// Decides what the dependencies of a target are built for, attribute by attribute.
fn leads(
    reader: &mut Reader<'_, '_>,
    decl: &TargetDecl,
    resolved: &Groups,
) -> Result<Vec<Lead>, Stopped> {
    let mut leads = Vec::new();
    if decl.rule.native.is_some_and(|kind| kind != NativeKind::Alias) {
        return Ok(leads); // what they name is read, and not built
    }
    for (position, ((name, spec), value)) in decl.rule.attrs.iter().zip(&decl.attrs).enumerate() {
        let is_output = matches!(spec.kind, AttrKind::Output | AttrKind::OutputList);
        if is_output || name == COMPATIBLE || value.labels().is_empty() {
            continue;
        }
        let at = |stop: Stop| stopped(stop, decl, name);
        let outcome = match &spec.cfg {
            DependencyConfig::Target => None,
            DependencyConfig::Transition(spec) => Some(reader.transition(spec, decl).map_err(at)?),
            DependencyConfig::Exec(group) => {
                let group = decl.rule.execution.place(group.as_deref());
                let configuration = execution_configuration(reader, resolved, group).map_err(at)?;
                Some(Outcome { keys: Vec::new(), configurations: vec![configuration] })
            }
        };
        let splits = matches!(spec.cfg, DependencyConfig::Transition(_));
        leads.push(Lead { position, outcome, splits });
    }
    Ok(leads)
}

/// What is found for each execution group of a rule or an aspect; nothing where it has no say and
/// there is only this machine.
pub(super) fn resolve_groups(
    reader: &mut Reader<'_, '_>,
    known: &mut HashMap<GroupNeeds, Resolved>,
    execution: &Execution,
) -> Result<Groups, Stop> {
    if execution.is_plain() && reader.definitions.registry.is_this_machine_only() {
        return Ok(Groups::default());
    }
    let found = execution.all().map(|(name, needs)| {
        resolve_once(reader, known, needs).map_err(|stop| match (stop, name) {
            (Stop::Error(mut error), Some(name)) => {
                error.message = format!("execution group `{name}`: {}", error.message);
                Stop::Error(error)
            }
            (stop, _) => stop,
        })
    });
    found.collect()
}

/// The toolchains that were found for all groups, by the position of their type among those of
/// all groups.
pub(super) fn implementations(resolved: &Groups) -> impl Iterator<Item = (u16, &Label)> {
    let choices = resolved.iter().flat_map(|group| &group.choices);
    (0u16..).zip(choices).filter_map(|(at, choice)| Some((at, choice.implementation.as_ref()?)))
}

/// What is found for a group in the configuration of a reader, found once.
fn resolve_once(
    reader: &mut Reader<'_, '_>,
    known: &mut HashMap<GroupNeeds, Resolved>,
    needs: &GroupNeeds,
) -> Result<Arc<Resolution>, Stop> {
    if let Some((resolution, reads)) = known.get(needs) {
        reader.reads.extend(reads.iter().cloned());
        return Ok(resolution.clone());
    }
    let before = std::mem::take(&mut reader.reads);
    let found = reader.resolve_toolchains(needs);
    let reads = std::mem::replace(&mut reader.reads, before);
    reader.reads.extend(reads.iter().cloned());
    let resolution = Arc::new(found?);
    known.insert(needs.clone(), (resolution.clone(), reads));
    Ok(resolution)
}

/// What the actions of a group run on: the platform that was found for it, every param at its
/// default.
pub(super) fn execution_configuration(
    reader: &mut Reader<'_, '_>,
    resolved: &Groups,
    group: Option<usize>,
) -> Result<Configuration, Stop> {
    let platform = match group.and_then(|group| resolved.get(group)) {
        Some(found) => found.execution_platform.clone(),
        None => reader.execution_platform()?,
    };
    Ok(Configuration { params: BTreeMap::new(), platform })
}

/// The declaration with defaults in the place of what depends on the configuration.
fn without_select(decl: &TargetDecl) -> TargetDecl {
    let mut plain = decl.clone();
    for ((_, spec), value) in decl.rule.attrs.iter().zip(&mut plain.attrs) {
        if matches!(value, AttrValue::Configurable(_)) {
            *value = spec.default.clone();
        }
    }
    plain
}

/// What a target reads of the configuration because of what it is. Whoever depends on it reads
/// that as well. Returns whether it is a constraint value that the platform has.
fn read_by_itself(reader: &mut Reader<'_, '_>, decl: &TargetDecl) -> Result<bool, Stop> {
    if decl.rule.build_setting.is_some() {
        reader.read(&Setting::Param(decl.label.clone()))?;
    }
    match decl.rule.native {
        Some(NativeKind::ConfigSetting | NativeKind::ConstraintValue) => {
            let condition = reader.definitions.condition(reader.universe, &decl.label)?;
            let holds = reader.holds(&condition)?;
            return Ok(holds && decl.rule.native == Some(NativeKind::ConstraintValue));
        }
        Some(NativeKind::Platform) => {
            reader.definitions.platform(reader.universe, &decl.label)?;
        }
        Some(
            NativeKind::Alias
            | NativeKind::ConstraintSetting
            | NativeKind::Toolchain
            | NativeKind::ToolchainType,
        )
        | None => {}
    }
    Ok(false)
}

fn stopped(stop: Stop, user: &TargetDecl, attribute: &str) -> Stopped {
    match stop {
        Stop::Missing(packages) => Stopped::Missing(packages),
        Stop::Error(error) => Stopped::Failed(Some(in_attribute(error, user, attribute))),
        Stop::Reported => Stopped::Failed(None),
    }
}

/// As [`stopped`], for what no single attribute is to blame for.
pub(super) fn stopped_target(stop: Stop, user: &TargetDecl) -> Stopped {
    match stop {
        Stop::Error(mut error) => {
            error.message = format!("target `{}`: {}", user.label, error.message);
            Stopped::Failed(Some(user.error(error)))
        }
        other => stopped(other, user, ""),
    }
}
