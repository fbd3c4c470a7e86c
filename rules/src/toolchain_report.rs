//! Which toolchains targets get, and why, for people who wonder.

use std::sync::Arc;

use maestro_core::Label;

use crate::config::request::configure;
use crate::config::toolchains::Resolution;
use crate::configured::{ConfiguredGraph, NodeId, NodeKind};
use crate::diagnostic::Diagnostic;
use crate::limits::EvaluationLimits;
use crate::load::packages::Packages;
use crate::resolve::Universe;
use crate::{LoadOptions, on_large_stack, split};

/// What an execution group of a target gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupToolchains {
    /// The target.
    pub target: Label,
    /// The name of the group; `None` for the default one.
    pub group: Option<String>,
    /// Where its actions run, and which toolchains they use.
    pub resolution: Resolution,
}

/// Says which toolchains requested targets get, and why, without running any rule. Targets whose
/// rules neither name a type of toolchain nor declare an execution group are left out; where no
/// toolchain fits, that is an error.
pub fn resolve_toolchains(
    options: &LoadOptions<'_>,
) -> Result<Vec<GroupToolchains>, Vec<Diagnostic>> {
    on_large_stack(|| {
        let limits = EvaluationLimits::default();
        let mut universe = Universe::new(Packages::new(options.host, options.threads, limits));
        let labels = universe.expand(&options.patterns);
        let configured = configure(&mut universe, &options.configuration)?;
        let configured =
            ConfiguredGraph::discover(&mut universe, configured, &labels, &[], &|_, _| None);
        let (_, errors) = split(std::mem::take(&mut universe.diagnostics));
        if !errors.is_empty() {
            return Err(errors);
        }
        let nodes = labels.into_iter().filter_map(|label| configured.requested(&label));
        Ok(nodes.flat_map(|node| groups_of(&configured, node)).collect())
    })
}

fn groups_of(configured: &ConfiguredGraph, id: NodeId) -> Vec<GroupToolchains> {
    let node = configured.node(id);
    let NodeKind::Rule(decl) = &node.kind else { return Vec::new() };
    let groups = decl.rule.execution.all().zip(configured.resolutions(id));
    let said = groups.filter(|((name, _), found)| name.is_some() || !found.choices.is_empty());
    let of = |((name, _), found): ((Option<&Arc<str>>, _), &Arc<Resolution>)| GroupToolchains {
        target: node.label.clone(),
        group: name.map(|name| name.to_string()),
        resolution: Resolution::clone(found),
    };
    said.map(of).collect()
}
