//! The forms in which an answer is written; names and layouts are Bazel's where Bazel has them.
//!
//! Every form is a function of the graph and the chosen nodes alone: the same answer gives the
//! same bytes. Locations are relative to the workspace.

mod build;
mod dot;
mod messages;

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use maestro_core::Label;

use super::QueryTarget;
use super::graph::{NodeId, TargetGraph, What};
use super::proto::Message;
use super::set::NodeSet;
use super::walk;
use crate::load::file::path_of;
use crate::resolve::{location_of, test_toolchain};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryForm {
    /// One label a line.
    Label,
    /// `cc_library rule //pkg:name`.
    LabelKind,
    /// `file:line:column: cc_library rule //pkg:name`.
    Location,
    /// The declarations as a build file would say them, macros expanded.
    Build,
    /// The packages of the targets.
    Package,
    /// Each target after the length of the shortest way to it.
    MinRank,
    /// Each target after the length of the longest way to it.
    MaxRank,
    /// A graph for Graphviz.
    Graph,
    /// One JSON array of [`QueryTarget`].
    Json,
    /// One JSON object of a [`QueryTarget`] a line.
    Jsonl,
    /// Bazel's `blaze_query.QueryResult` as bytes.
    Proto,
    /// Bazel's `blaze_query.Target` as bytes, each after its length.
    StreamedProto,
    /// Bazel's `blaze_query.QueryResult` as JSON.
    JsonProto,
    /// Bazel's `blaze_query.Target` as JSON, one a line.
    StreamedJsonProto,
}

/// The order of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryOrder {
    /// By label; a path from its start.
    #[default]
    Auto,
    /// By label.
    Label,
    /// Each target before what it depends on.
    Deps,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct OutputOptions {
    /// The form.
    pub form: QueryForm,
    /// The order, where the form leaves a choice.
    pub order: QueryOrder,
    /// Whether a graph joins nodes with the same neighbours into one.
    pub factored: bool,
    /// Longest label of a node of a graph, in bytes; 0 is no limit.
    pub node_limit: usize,
    /// Whether lines end in a zero byte.
    pub null: bool,
}

impl OutputOptions {
    /// A form with Bazel's defaults.
    pub fn new(form: QueryForm) -> Self {
        Self { form, order: QueryOrder::Auto, factored: true, node_limit: 512, null: false }
    }
}

/// Writes the chosen nodes of a graph.
pub(super) fn write(
    graph: &TargetGraph,
    selected: &NodeSet,
    is_path: bool,
    options: &OutputOptions,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let by_dependency = match options.order {
        QueryOrder::Auto => is_path,
        QueryOrder::Label => false,
        QueryOrder::Deps => true,
    };
    let nodes: Vec<NodeId> = match by_dependency {
        true => walk::dependency_order(selected, graph),
        false => selected.iter().collect(),
    };
    let end = if options.null { '\0' } else { '\n' };
    let each = |mut row: &mut dyn FnMut(NodeId) -> io::Result<()>| {
        nodes.iter().copied().try_for_each(&mut row)
    };
    match options.form {
        QueryForm::Label => each(&mut |id| write!(out, "{}{end}", Shown { graph, id })),
        QueryForm::LabelKind => {
            each(&mut |id| write!(out, "{} {}{end}", graph.node(id).kind(), Shown { graph, id }))
        }
        QueryForm::Location => each(&mut |id| {
            let (place, kind) = (place(graph, id), graph.node(id).kind());
            write!(out, "{place}: {kind} {}{end}", Shown { graph, id })
        }),
        QueryForm::Package => {
            let packages: BTreeSet<String> =
                nodes.iter().map(|id| package_name(&graph.node(*id).label)).collect();
            packages.iter().try_for_each(|package| write!(out, "{package}{end}"))
        }
        QueryForm::MinRank | QueryForm::MaxRank => {
            let longest = options.form == QueryForm::MaxRank;
            walk::ranks(selected, graph, longest)
                .into_iter()
                .try_for_each(|(rank, id)| write!(out, "{rank} {}{end}", Shown { graph, id }))
        }
        QueryForm::Build => build::write(graph, &nodes, out),
        QueryForm::Graph => dot::write(graph, selected, options, out),
        QueryForm::Json => {
            let targets: Vec<QueryTarget> = nodes.iter().map(|id| describe(graph, *id)).collect();
            serde_json::to_writer(&mut *out, &targets)?;
            writeln!(out)
        }
        QueryForm::Jsonl => nodes.iter().try_for_each(|id| {
            serde_json::to_writer(&mut *out, &describe(graph, *id))?;
            writeln!(out)
        }),
        QueryForm::Proto => out.write_all(&messages::result(graph, &nodes).encode()),
        QueryForm::JsonProto => {
            messages::result(graph, &nodes).write_json(out)?;
            writeln!(out)
        }
        QueryForm::StreamedProto => {
            nodes.iter().try_for_each(|id| messages::target(graph, *id).write_delimited(out))
        }
        QueryForm::StreamedJsonProto => nodes.iter().try_for_each(|id| {
            let message: Message = messages::target(graph, *id);
            message.write_json(out)?;
            writeln!(out)
        }),
    }
}

/// The facts of a node.
pub(super) fn describe(graph: &TargetGraph, id: NodeId) -> QueryTarget {
    let node = graph.node(id);
    let location = match &node.what {
        What::Rule(decl) | What::Output(decl) => Some(location_of(decl)),
        What::Source(_) => None,
    };
    let generator = match &node.what {
        What::Rule(decl) => decl.generator(),
        What::Output(_) | What::Source(_) => None,
    };
    let deps = dependencies(graph, id).into_iter().collect();
    QueryTarget { label: node.label.clone(), kind: node.kind(), location, generator, deps }
}

/// What a node depends on directly, whether or not it is in the graph.
fn dependencies(graph: &TargetGraph, id: NodeId) -> BTreeSet<Label> {
    let node = graph.node(id);
    if node.open {
        let ends = graph.dependencies().of(id).iter();
        return ends.map(|end| graph.node(*end).label.clone()).collect();
    }
    match &node.what {
        What::Rule(decl) => {
            let toolchain = decl.rule.test.then(test_toolchain).flatten();
            decl.dependencies().map(|(_, label)| label.clone()).chain(toolchain).collect()
        }
        What::Output(decl) => BTreeSet::from([decl.label.clone()]),
        What::Source(_) => BTreeSet::new(),
    }
}

/// A node in lines for people: its label, and its configuration where it has one.
struct Shown<'g> {
    graph: &'g TargetGraph,
    id: NodeId,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.graph.node(self.id).label;
        match self.graph.configuration(self.id) {
            None => label.fmt(f),
            Some("") => write!(f, "{label} (null)"),
            Some(configuration) => write!(f, "{label} ({configuration})"),
        }
    }
}

/// `file:line:column` of a declaration; the first place of a source file.
fn place(graph: &TargetGraph, id: NodeId) -> String {
    let node = graph.node(id);
    match &node.what {
        What::Rule(decl) | What::Output(decl) => location_of(decl),
        What::Source(_) if node.label.is_main() => format!("{}:1:1", path_of(&node.label)),
        What::Source(_) => format!("{}:1:1", node.label),
    }
}

fn package_name(label: &Label) -> String {
    match label.is_main() {
        true => label.package.to_string(),
        false => format!("@{}//{}", label.repo, label.package),
    }
}
