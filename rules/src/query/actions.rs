//! `aquery`: which actions targets come to, without running any.
//!
//! The expression chooses configured targets; `inputs`, `outputs` and `mnemonic`, which stand
//! around it, choose among their actions. Their patterns match whole paths and names, as in Bazel.
//!
//! The key that is shown covers the declaration of an action, not the content of its inputs, which
//! is known only in a build: it changes if and only if what is declared changes.

mod messages;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use maestro_core::key::{
    InputPart, Prepared, REQUEST_FILE, Resolved, SandboxProfile, prepare, shell_quote,
};
use maestro_core::{
    ActionGraph, ActionId, ArtifactId, ArtifactKind, Digest, DigestFunction, How, Label,
    Node as TreeNode, Origin, TargetId,
};
use regex::Regex;

use super::configured::{Condition, conditions, discover};
use super::eval::regex;
use super::parse::{self, Expression, Function, Word};
use super::{Phase, QueryOptions};
use crate::analysis::Analyzer;
use crate::config::host_platform;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::{on_large_stack, split};

/// The form of an answer about actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionForm {
    /// A paragraph for each action.
    Text,
    /// One JSON array of [`ActionFacts`].
    Json,
    /// One JSON object of [`ActionFacts`] a line.
    Jsonl,
    /// Bazel's `analysis.ActionGraphContainer` as bytes.
    Proto,
    /// Bazel's `analysis.ActionGraphContainer` as JSON.
    JsonProto,
}

/// The actions that a query names, in the order in which they were declared.
#[derive(Debug)]
pub struct ActionAnswer {
    graph: ActionGraph,
    actions: Vec<ActionId>,
    /// The configuration of each target.
    configurations: BTreeMap<TargetId, String>,
    /// The platforms of actions that do not run on this machine.
    platforms: HashMap<ActionId, Label>,
    /// What files printed, and warnings.
    pub remarks: Vec<Diagnostic>,
}

/// What is declared of one action.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ActionFacts {
    /// What is said while it runs, else its mnemonic.
    pub title: String,
    /// A short word for its kind.
    pub mnemonic: String,
    /// The target that declares it.
    pub target: Label,
    /// The aspect that declares it, as `//tools:lint.star%lint`, where it is not the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aspect: Option<String>,
    /// The configuration of the target.
    pub configuration: String,
    /// The platform that it runs on.
    pub execution_platform: Label,
    /// What remote execution is told of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub execution_properties: BTreeMap<String, String>,
    /// `pure`, `recorded` or `effect`.
    pub class: &'static str,
    /// The digest of the declaration.
    pub key: String,
    /// The paths of what it reads, sorted.
    pub inputs: Vec<String>,
    /// The paths of what it makes, sorted.
    pub outputs: Vec<String>,
    /// The command line; of a native step, its name and the number of its semantics. Trees that
    /// are expanded when the action runs stand as they are.
    pub arguments: Vec<String>,
    /// The environment, sorted.
    pub environment: BTreeMap<String, String>,
    /// The toolchains that it sees.
    pub toolchains: Vec<String>,
    /// The parameters of a native step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<serde_json::Value>,
}

/// Answers a query about actions.
pub fn aquery(options: QueryOptions<'_>) -> Result<ActionAnswer, Vec<Diagnostic>> {
    on_large_stack(|| answer(&options))
}

fn answer(options: &QueryOptions<'_>) -> Result<ActionAnswer, Vec<Diagnostic>> {
    let fail = |error: RuleError| vec![Diagnostic::of(error, None)];
    let expression = parse::parse(options.expression, Phase::Actions).map_err(fail)?;
    let (conditions, targets) = conditions(&expression);
    let filters: Result<Vec<Filter>, RuleError> = conditions.iter().map(Filter::new).collect();
    let filters = filters.map_err(fail)?;
    let Analyzed { graph, platforms, targets, remarks } = analyze(options, targets)?;
    let configurations: BTreeMap<TargetId, String> = targets.into_iter().collect();
    let chosen = |id: &ActionId| {
        configurations.contains_key(&graph.action_head(*id).owner)
            && filters.iter().all(|filter| filter.matches(&graph, *id))
    };
    let actions = graph.live_actions().filter(chosen).collect();
    Ok(ActionAnswer { graph, actions, configurations, platforms, remarks })
}

/// The paths of the files that the targets of a query make, in the order of their labels.
pub fn cquery_files(options: QueryOptions<'_>) -> Result<Vec<String>, Vec<Diagnostic>> {
    on_large_stack(|| {
        let fail = |error: RuleError| vec![Diagnostic::of(error, None)];
        let expression = parse::parse(options.expression, Phase::Configured).map_err(fail)?;
        let Analyzed { graph, targets, .. } = analyze(&options, &expression)?;
        let mut seen = HashSet::new();
        let files = targets.iter().flat_map(|(target, _)| &graph.target(*target).files);
        let new = files.filter(|file| seen.insert(**file));
        Ok(new.map(|file| graph.artifact(*file).path.to_string()).collect())
    })
}

/// What the targets of an expression come to.
struct Analyzed {
    graph: ActionGraph,
    /// The platforms of actions that do not run on this machine.
    platforms: HashMap<ActionId, Label>,
    /// The chosen targets with their configurations.
    targets: Vec<(TargetId, String)>,
    remarks: Vec<Diagnostic>,
}

fn analyze(
    options: &QueryOptions<'_>,
    expression: &Expression,
) -> Result<Analyzed, Vec<Diagnostic>> {
    let found = discover(options, expression)?;
    let selected = found.select(expression)?;
    let mut remarks = found.remarks;
    let scope = RuleScope::new(ActionGraph::default());
    let mut analyzer = Analyzer::new(&found.universe, &found.configured, scope, None);
    analyzer.analyze(None);
    let mut targets = Vec::new();
    let aspects = found.configured.aspects_by_target();
    for id in selected.iter() {
        let Some(origin) = found.origins.get(id.index()) else { continue };
        let name = found.graph.configuration(id).unwrap_or_default();
        let aspects = aspects.get(origin).into_iter().flatten();
        let nodes = [origin].into_iter().chain(aspects);
        let ids = nodes.filter_map(|node| analyzer.requested(*node));
        targets.extend(ids.map(|target| (target, name.to_owned())));
    }
    let (more, errors) = split(std::mem::take(&mut analyzer.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    remarks.extend(more);
    let (scope, _) = analyzer.finish_all();
    let (graph, platforms) = (scope.graph.into_inner(), scope.platforms.into_inner());
    Ok(Analyzed { graph, platforms, targets, remarks })
}

/// A condition on actions, ready to be tested.
struct Filter {
    function: Function,
    pattern: Regex,
}

impl Filter {
    fn new(condition: &Condition<'_>) -> Result<Self, RuleError> {
        regex(condition.pattern)?; // so that an error names what the user wrote
        let Word { text, column } = condition.pattern;
        let whole = Word { text: format!("^(?:{text})$"), column: *column };
        Ok(Self { function: condition.function, pattern: regex(&whole)? })
    }

    fn matches(&self, graph: &ActionGraph, id: ActionId) -> bool {
        let path =
            |artifact: ArtifactId| self.pattern.is_match(graph.artifact(artifact).path.as_str());
        match self.function {
            Function::Inputs => graph.inputs_of(id).into_iter().any(path),
            Function::Outputs => {
                graph.action(id).outputs.iter().any(|output| path(output.artifact))
            }
            _ => self.pattern.is_match(graph.action_head(id).mnemonic),
        }
    }
}

/// Stands for content that only a build knows: every artifact is as its path.
struct Declared<'a>(&'a ActionGraph);

impl Resolved for Declared<'_> {
    fn node(&self, artifact: ArtifactId) -> Option<TreeNode> {
        let artifact = self.0.artifact(artifact);
        let digest = DigestFunction::Blake3.digest(artifact.path.as_str().as_bytes());
        // Trees of toolchains are never expanded; those of actions would be, so they are given as
        // if they were files.
        Some(match (&artifact.origin, artifact.kind) {
            (Origin::Toolchain(_), ArtifactKind::Tree) => TreeNode::Tree { root: digest },
            _ => TreeNode::File { digest, executable: false },
        })
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

impl ActionAnswer {
    /// What is declared of each action.
    pub fn facts(&self) -> Result<Vec<ActionFacts>, Vec<Diagnostic>> {
        self.actions.iter().map(|id| self.facts_of(*id)).collect()
    }

    fn facts_of(&self, id: ActionId) -> Result<ActionFacts, Vec<Diagnostic>> {
        let graph = &self.graph;
        let spec = graph.action(id);
        let read = graph.inputs_of(id);
        let resolved = Declared(graph);
        let function = DigestFunction::Blake3;
        let prepared = prepare(graph, function, SandboxProfile::Hermetic, &spec, &read, &resolved);
        let Prepared { key, parts, blobs, .. } = prepared.map_err(|error| {
            let message = format!("action {} of `{}`: {error}", spec.mnemonic, self.owner(id));
            vec![Diagnostic::of(RuleError::new(Code::Action, message), None)]
        })?;
        let request = match &spec.how {
            How::Command { .. } | How::Map(_) => None,
            How::Native { request, .. } => Some(request.clone()),
            // The text of the file is made of the arguments; the request that holds it is an input.
            How::Params { .. } => parts
                .inputs
                .iter()
                .find_map(|(path, part)| match part {
                    InputPart::File { digest, .. } if path == REQUEST_FILE => Some(digest),
                    _ => None,
                })
                .and_then(|request| blobs.iter().find(|(digest, _)| digest == request))
                .and_then(|(_, bytes)| serde_json::from_slice(bytes).ok()),
        };
        let toolchains: HashSet<&ArtifactId> = spec.toolchains.iter().collect();
        let inputs = read.iter().filter(|artifact| !toolchains.contains(artifact));
        let mut inputs: Vec<String> =
            inputs.map(|artifact| graph.artifact(*artifact).path.to_string()).collect();
        inputs.sort_unstable();
        let title = if spec.progress.is_empty() { &spec.mnemonic } else { &spec.progress };
        Ok(ActionFacts {
            title: title.clone(),
            mnemonic: spec.mnemonic.clone(),
            target: self.owner(id).clone(),
            aspect: self.graph.target(spec.owner).aspect.as_deref().map(str::to_owned),
            configuration: self.configurations.get(&spec.owner).cloned().unwrap_or_default(),
            execution_platform: self.platforms.get(&id).cloned().unwrap_or_else(host_platform),
            execution_properties: spec.platform.iter().cloned().collect(),
            class: spec.class.name(),
            key: key.0.to_string(),
            inputs,
            outputs: parts.outputs,
            arguments: parts.arguments,
            environment: parts.environment.into_iter().collect(),
            toolchains: parts.toolchains.into_iter().map(|(name, _)| name).collect(),
            request,
        })
    }

    fn owner(&self, id: ActionId) -> &Label {
        &self.graph.target(self.graph.action(id).owner).label
    }

    /// Writes the actions in a form.
    pub fn write(
        &self,
        form: ActionForm,
        facts: &[ActionFacts],
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        match form {
            ActionForm::Text => facts.iter().try_for_each(|facts| paragraph(facts, out)),
            ActionForm::Json => {
                serde_json::to_writer(&mut *out, facts)?;
                writeln!(out)
            }
            ActionForm::Jsonl => facts.iter().try_for_each(|facts| {
                serde_json::to_writer(&mut *out, facts)?;
                writeln!(out)
            }),
            ActionForm::Proto => out.write_all(&messages::container(self, facts).encode()),
            ActionForm::JsonProto => {
                messages::container(self, facts).write_json(out)?;
                writeln!(out)
            }
        }
    }
}

/// Names with values, as one list.
fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("[{}]", pairs.join(", "))
}

fn paragraph(facts: &ActionFacts, out: &mut dyn io::Write) -> io::Result<()> {
    let list = |items: &[String]| format!("[{}]", items.join(", "));
    writeln!(out, "action '{}'", facts.title)?;
    writeln!(out, "  Mnemonic: {}", facts.mnemonic)?;
    writeln!(out, "  Target: {}", facts.target)?;
    writeln!(out, "  Configuration: {}", facts.configuration)?;
    if let Some(aspect) = &facts.aspect {
        writeln!(out, "  AspectDescriptors: [{aspect}]")?;
    }
    writeln!(out, "  ExecutionPlatform: {}", facts.execution_platform)?;
    if !facts.execution_properties.is_empty() {
        writeln!(out, "  ExecutionInfo: {}", pairs(&facts.execution_properties))?;
    }
    writeln!(out, "  Class: {}", facts.class)?;
    writeln!(out, "  ActionKey: {}", facts.key)?;
    writeln!(out, "  Inputs: {}", list(&facts.inputs))?;
    writeln!(out, "  Outputs: {}", list(&facts.outputs))?;
    if !facts.toolchains.is_empty() {
        writeln!(out, "  Toolchains: {}", list(&facts.toolchains))?;
    }
    if let Some(request) = &facts.request {
        writeln!(out, "  Native: {}", facts.arguments.join(" "))?;
        return writeln!(out, "  Request: {request}\n");
    }
    writeln!(out, "  Environment: {}", pairs(&facts.environment))?;
    let arguments: Vec<String> = facts.arguments.iter().map(|text| shell_quote(text)).collect();
    writeln!(out, "  Command Line: (exec {})\n", arguments.join(" \\\n    "))
}
