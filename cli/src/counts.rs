//! Counts of what a build did not have to look at, so that its summary names all that it has.

use std::collections::BTreeMap;

use maestro_core::graph::{ActionSet, Plan};
use maestro_core::{ActionGraph, ActionId, ArtifactId};
use maestro_executor::engine::Report;

use crate::increment::{Known, Work};
use crate::null_build::Memory;

/// Counts the actions that a plan left out, since their results hold.
pub fn count_known(
    report: &mut Report,
    work: &Work,
    memory: &Memory,
    plan: &Plan,
    requested: &[ArtifactId],
) {
    let graph = &work.graph;
    let planned: ActionSet = plan.order.iter().copied().collect();
    let needed = graph.needed(requested);
    let clean = |action: &ActionId| needed.contains(*action) && !planned.contains(*action);
    let all = needed.len() - needed.iter().filter(|action| planned.contains(*action)).count();
    let locked = memory.snapshot.recorded().iter().copied().filter(clean).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let finished: ActionSet = report.finished.iter().map(|finished| finished.action).collect();
    let parts = work.known.as_ref().map(|known| known.unseen_parts(graph, report));
    let held = |(id, _): &(ActionId, u32)| clean(id) || finished.contains(*id);
    let parts: u32 =
        parts.unwrap_or_default().into_iter().filter(held).map(|(_, count)| count).sum();
    report.counts.total += parts;
    report.counts.cached += parts;
    report.counts.total += number(all);
    report.counts.locked += number(locked);
    report.counts.cached += number(all - locked);
}

impl Known {
    /// How many parts each map had that nobody has looked at since.
    pub fn unseen_parts(&self, graph: &ActionGraph, report: &Report) -> BTreeMap<ActionId, u32> {
        let keyed = report.finished.iter().filter(|finished| finished.key.is_some());
        let seen: ActionSet = keyed.map(|finished| finished.action).collect();
        let parts = self.remembered().map(|remembered| remembered.parts).unwrap_or_default();
        let parts = parts.into_iter().map(|(id, count)| (ActionId::from_index(id as usize), count));
        parts.filter(|(id, _)| !seen.contains(*id) && !graph.is_retired(*id)).collect()
    }
}
