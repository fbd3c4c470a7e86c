//! The graph of an answer in the language of Graphviz, as Bazel writes it.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::{OutputOptions, Shown};
use crate::query::graph::{NodeId, TargetGraph};
use crate::query::set::NodeSet;

/// Writes the chosen nodes and the edges between them.
pub(super) fn write(
    graph: &TargetGraph,
    selected: &NodeSet,
    options: &OutputOptions,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let groups = groups(graph, selected, options.factored);
    let mut group_of: HashMap<NodeId, usize> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        group_of.extend(group.iter().map(|id| (*id, index)));
    }
    let names: Vec<String> =
        groups.iter().map(|group| name(graph, group, options.node_limit)).collect();
    let name = |index: &usize| names.get(*index).map(String::as_str).unwrap_or_default();
    writeln!(out, "digraph mygraph {{\n  node [shape=box];")?;
    for (index, group) in groups.iter().enumerate() {
        writeln!(out, "  \"{}\"", name(&index))?;
        let ends: BTreeSet<usize> = group
            .first()
            .into_iter()
            .flat_map(|id| graph.dependencies().of(*id))
            .filter_map(|end| group_of.get(end).copied())
            .collect();
        for end in &ends {
            writeln!(out, "  \"{}\" -> \"{}\"", name(&index), name(end))?;
        }
    }
    writeln!(out, "}}")
}

/// The nodes that are drawn as one: those with the same neighbours, if they are to be joined.
fn groups(graph: &TargetGraph, selected: &NodeSet, factored: bool) -> Vec<Vec<NodeId>> {
    if !factored {
        return selected.iter().map(|id| vec![id]).collect();
    }
    let mut groups: Vec<Vec<NodeId>> = Vec::new();
    let mut known: HashMap<(Vec<NodeId>, Vec<NodeId>), usize> = HashMap::new();
    let inside = |ids: &[NodeId]| -> Vec<NodeId> {
        ids.iter().copied().filter(|id| selected.contains(*id)).collect()
    };
    for id in selected.iter() {
        let neighbours = (inside(graph.dependencies().of(id)), inside(graph.dependents().of(id)));
        let index = *known.entry(neighbours).or_insert(groups.len());
        match groups.get_mut(index) {
            Some(group) => group.push(id),
            None => groups.push(vec![id]),
        }
    }
    groups
}

/// The labels of a group, up to a limit of bytes; 0 is none.
fn name(graph: &TargetGraph, group: &[NodeId], limit: usize) -> String {
    let mut out = String::new();
    for (index, id) in group.iter().enumerate() {
        let label = Shown { graph, id: *id }.to_string().replace('\\', "\\\\").replace('"', "\\\"");
        if limit > 0 && index > 0 && out.len() + label.len() + 2 > limit {
            out.push_str(&format!("\\n...and {} more items", group.len() - index));
            break;
        }
        if index > 0 {
            out.push_str("\\n");
        }
        out.push_str(&label);
    }
    out
}
