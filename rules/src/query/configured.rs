//! The graph of `cquery` and `aquery`: targets in their configurations, as `build` would see them.
//!
//! A configuration is named as the folder of its outputs below `maestro-out` is: `shared`, or a
//! short hash of what the target reads of it. Files without one are in `null`.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use maestro_core::Label;

use super::eval::{Evaluator, Stop};
use super::graph::{Edges, NodeId, TargetGraph, TargetNode, What};
use super::names::Names;
use super::parse::{self, Argument, Expression, Function, Word};
use super::set::NodeSet;
use super::{EdgeFilter, Phase, QueryAnswer, QueryOptions, evaluated, patterns};
use crate::config::ConfigId;
use crate::config::request::{aspects, configure};
use crate::configured::{ConfiguredGraph, Node, NodeId as ConfiguredId, NodeKind, Via};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::limits::EvaluationLimits;
use crate::load::packages::Packages;
use crate::resolve::Universe;
use crate::{on_large_stack, split};

/// Answers a query about configured targets.
pub fn cquery(options: QueryOptions<'_>) -> Result<QueryAnswer, Vec<Diagnostic>> {
    on_large_stack(|| {
        let expression = parse::parse(options.expression, Phase::Configured).map_err(fail)?;
        let found = discover(&options, &expression)?;
        let selected = found.select(&expression)?;
        let is_path = matches!(&expression, Expression::Call(Function::SomePath, _));
        let Found { universe, graph, remarks, .. } = found;
        let evaluated = evaluated(&universe.packages);
        let _loaded = Names::default();
        Ok(QueryAnswer { graph, selected, is_path, remarks, evaluated, _loaded })
    })
}

/// What the patterns of a query lead to.
pub(super) struct Found<'h> {
    pub(super) universe: Universe<'h>,
    pub(super) configured: ConfiguredGraph,
    pub(super) graph: TargetGraph,
    /// The configured target that each node stands for.
    pub(super) origins: Vec<ConfiguredId>,
    patterns: HashMap<String, NodeSet>,
    pub(super) remarks: Vec<Diagnostic>,
}

impl Found<'_> {
    /// The nodes that an expression names.
    pub(super) fn select(&self, expression: &Expression) -> Result<NodeSet, Vec<Diagnostic>> {
        let mut evaluator = Evaluator {
            graph: &self.graph,
            patterns: &self.patterns,
            universe: &[],
            variables: Vec::new(),
        };
        match evaluator.evaluate(expression) {
            Ok(selected) => Ok(selected),
            Err(Stop::Wrong(error)) => Err(fail(error)),
            Err(Stop::Open(_)) => {
                let message = "a configured target has no dependencies";
                Err(fail(RuleError::new(Code::Internal, message)))
            }
        }
    }
}

fn fail(error: RuleError) -> Vec<Diagnostic> {
    vec![Diagnostic::of(error, None)]
}

/// Loads the patterns of a query and configures all that they need. The targets that they name
/// are those that `build` would build: `manual` ones only where they are named themselves.
pub(super) fn discover<'h>(
    options: &QueryOptions<'h>,
    expression: &Expression,
) -> Result<Found<'h>, Vec<Diagnostic>> {
    let packages = Packages::new(options.host, options.threads, EvaluationLimits::default())
        .with_memory(options.memory);
    let mut universe = Universe::new(packages);
    let mut named: HashMap<String, Vec<Label>> = HashMap::new();
    let mut errors = Vec::new();
    expression.patterns(false, &mut |word: &Word, _| {
        if named.contains_key(&word.text) {
            return;
        }
        match patterns::expand(&mut universe, options.package, &word.text, false) {
            Ok(found) => {
                let labels = found.into_iter().map(|(label, _)| label).collect();
                named.insert(word.text.clone(), labels);
            }
            Err(error) => errors.push(Diagnostic::of(error, None)),
        }
    });
    let requested: Vec<Label> = named.values().flatten().cloned().collect();
    let aspects = aspects(&mut universe, &options.configuration)?;
    let configured = configure(&mut universe, &options.configuration)?;
    let nobody = |_: &Label, _: ConfigId| None;
    let configured =
        ConfiguredGraph::discover(&mut universe, configured, &requested, &aspects, &nobody);
    let (mut remarks, more) = split(std::mem::take(&mut universe.diagnostics));
    remarks.extend(universe.packages.recalled_remarks());
    errors.extend(more);
    if !errors.is_empty() {
        return Err(errors);
    }
    let (graph, origins) = graph_of(&configured, options.edges);
    let places: HashMap<ConfiguredId, NodeId> = origins
        .iter()
        .enumerate()
        .map(|(index, origin)| (*origin, NodeId::from_index(index)))
        .collect();
    let patterns = named
        .iter()
        .map(|(text, labels)| {
            let mut set = NodeSet::empty(graph.len());
            for label in labels {
                let id = configured.requested(label);
                if let Some(place) = id.and_then(|id| places.get(&id)) {
                    set.insert(*place);
                }
            }
            (text.clone(), set)
        })
        .collect();
    Ok(Found { universe, configured, graph, origins, patterns, remarks })
}

/// The configured targets by label and configuration, and which each node stands for.
fn graph_of(configured: &ConfiguredGraph, filter: EdgeFilter) -> (TargetGraph, Vec<ConfiguredId>) {
    let order = configured.order().iter().copied();
    let mut origins: Vec<ConfiguredId> =
        order.filter(|id| configured.applied(*id).is_none()).collect();
    let root = |node: &Node| match node.kind {
        NodeKind::Source => Arc::from(""),
        _ => configured.trims.get(node.trimmed).root.clone(),
    };
    origins.sort_by_cached_key(|id| {
        let node = configured.node(*id);
        (node.label.clone(), root(node))
    });
    let places: HashMap<ConfiguredId, NodeId> = origins
        .iter()
        .enumerate()
        .map(|(index, origin)| (*origin, NodeId::from_index(index)))
        .collect();
    let aspects = match filter.implicit {
        true => AspectEnds::of(configured),
        false => AspectEnds::default(),
    };
    let edges = Edges::new(origins.iter().map(|id| {
        let node = configured.node(*id);
        let counts = move |via: Via| filter.implicit || !is_implicit(node, via);
        let ends = node.edges.iter().filter(move |edge| counts(edge.via));
        let ends = ends.map(|edge| configured.target(edge));
        let of_aspects = ends.clone().filter_map(|end| aspects.by_aspect.get(&end).map(|e| &**e));
        let of_aspects = of_aspects.chain(aspects.asked.get(id)).flat_map(|ends| ends.iter());
        let places = &places;
        ends.chain(of_aspects.copied()).filter_map(move |end| places.get(&end).copied())
    }));
    let nodes = origins.iter().map(|id| {
        let node = configured.node(*id);
        let what = match &node.kind {
            NodeKind::Rule(decl) | NodeKind::Alias(decl) => What::Rule(decl.clone()),
            NodeKind::Output(decl) => What::Output(decl.clone()),
            NodeKind::Source
            | NodeKind::Aspect(_)
            | NodeKind::Bare
            | NodeKind::Unknown
            | NodeKind::Failed(_) => What::Source(None),
        };
        TargetNode { label: node.label.clone(), what, open: true }
    });
    let mut graph = TargetGraph::new(nodes.collect(), edges);
    graph.configurations =
        origins.iter().map(|id| root(configured.node(*id)).to_string()).collect();
    (graph, origins)
}

/// What aspects on targets depend on by themselves. In the graph, which knows no aspects, whoever
/// puts one on a target depends on that; where it goes on, so does what it meets there.
#[derive(Default)]
struct AspectEnds {
    by_aspect: HashMap<ConfiguredId, Rc<BTreeSet<ConfiguredId>>>,
    /// Of those that were asked for with the request, by their targets.
    asked: HashMap<ConfiguredId, BTreeSet<ConfiguredId>>,
}

impl AspectEnds {
    fn of(configured: &ConfiguredGraph) -> Self {
        let mut out = Self::default();
        for id in configured.order() {
            let Some(applied) = configured.applied(*id) else { continue };
            // Mostly all of one kind have the same ends, which are kept once.
            let mut ends: Option<Rc<BTreeSet<ConfiguredId>>> = None;
            let mut own = BTreeSet::new();
            for edge in &configured.node(*id).edges {
                let to = configured.target(edge);
                match (edge.via, out.by_aspect.get(&to)) {
                    (Via::AspectAttribute(_) | Via::AspectToolchain(_), _) => drop(own.insert(to)),
                    (Via::Aspect(_), Some(below)) if ends.is_none() => ends = Some(below.clone()),
                    (Via::Aspect(_), Some(below)) => own.extend(below.iter().copied()),
                    _ => {}
                }
            }
            let mut ends = ends.unwrap_or_default();
            if !own.is_subset(&ends) {
                Rc::make_mut(&mut ends).extend(own);
            }
            if configured.is_asked(*id) {
                let base = configured.node(applied.base).canonical;
                out.asked.entry(base).or_default().extend(ends.iter().copied());
            }
            out.by_aspect.insert(*id, ends);
        }
        out
    }
}

/// Whether the target does not name an edge itself.
fn is_implicit(node: &Node, via: Via) -> bool {
    match via {
        Via::TestToolchain | Via::Toolchain(_) | Via::Aspect(_) => true,
        Via::AspectAttribute(_) | Via::AspectToolchain(_) => true,
        Via::Owner | Via::Base => false,
        Via::Attribute(position) => {
            let (NodeKind::Rule(decl) | NodeKind::Alias(decl)) = &node.kind else { return false };
            let position = usize::from(position);
            let spec = decl.rule.attrs.get(position).zip(decl.attrs.get(position));
            spec.is_some_and(|((name, spec), value)| {
                name.starts_with('_') || *value == spec.default
            })
        }
    }
}

/// A condition that the outermost calls of an `aquery` put on actions.
pub(super) struct Condition<'e> {
    pub(super) function: Function,
    pub(super) pattern: &'e Word,
}

/// Takes the calls that choose actions from the outside of an expression.
pub(super) fn conditions(mut expression: &Expression) -> (Vec<Condition<'_>>, &Expression) {
    let mut out = Vec::new();
    while let Expression::Call(
        function @ (Function::Inputs | Function::Outputs | Function::Mnemonic),
        arguments,
    ) = expression
        && let [Argument::Word(pattern), Argument::Set(inner)] = arguments.as_slice()
    {
        out.push(Condition { function: *function, pattern });
        expression = inner;
    }
    (out, expression)
}
