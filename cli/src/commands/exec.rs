//! `maestro exec GRAPH.json`: runs an action graph without any build file.
//!
//! For tests and benchmarks of the layers below the build language. The format is described in
//! docs/design/exec-graph.md.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::action::ExecutionHints;
use maestro_core::depset::Order;
use maestro_core::graph::Target;
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, Arg, ArtifactId, ArtifactKind, How, Item, Label, Output,
    RelPath, TargetId, Toolchain,
};
use maestro_executor::workspace::snapshot::EvaluationBytes;
use serde::Deserialize;

use crate::args::{ExecArgs, Global};
use crate::exit::Failure;
use crate::increment::Work;
use crate::invocation::{Invocation, Request, Wanted};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphFile {
    #[serde(default)]
    toolchains: BTreeMap<String, ToolchainEntry>,
    actions: Vec<ActionEntry>,
    /// Output paths to make; all if absent.
    requested: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolchainEntry {
    packages: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    exclude_paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionEntry {
    label: String,
    #[serde(default)]
    mnemonic: Option<String>,
    #[serde(default)]
    class: ActionClass,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    native: Option<NativeEntry>,
    #[serde(default)]
    inputs: Vec<String>,
    outputs: Vec<OutputEntry>,
    #[serde(default)]
    toolchains: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    test: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeEntry {
    kind: String,
    semantics: u32,
    request: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OutputEntry {
    File(String),
    Full(FullOutput),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullOutput {
    path: String,
    kind: ArtifactKind,
    #[serde(default)]
    optional: bool,
}

/// Runs the command.
pub fn exec(global: &Global, args: &ExecArgs) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&args.graph)
        .with_context(|| format!("cannot read `{}`", args.graph.display()))?;
    let (graph, wanted) = read_graph(&args.graph, &text)?;
    let request =
        Request::plain("exec", vec![args.graph.display().to_string()], args.options.clone());
    let invocation = Invocation::start(global, request)?;
    let requested = wanted.iter().map(|want| want.target).collect();
    let built = invocation.build(
        Work { graph, requested, known: None, evaluation: EvaluationBytes::default() },
        wanted,
    )?;
    invocation.conclude(built)
}

fn read_graph(path: &Path, text: &str) -> Result<(ActionGraph, Vec<Wanted>)> {
    let bad = |message: String| Failure::input(format!("`{}`: {message}", path.display()));
    let file: GraphFile = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    let mut graph = ActionGraph::default();
    let mut toolchains: HashMap<String, ArtifactId> = HashMap::new();
    for (name, entry) in file.toolchains {
        let ToolchainEntry { packages, exclude, exclude_paths } = entry;
        let toolchain = Toolchain { name: name.clone(), packages, exclude, exclude_paths };
        toolchains.insert(name, graph.toolchain(toolchain));
    }
    let mut declared = Vec::with_capacity(file.actions.len());
    for entry in &file.actions {
        let label = Label::parse(&entry.label, "", "").map_err(|e| bad(e.to_string()))?;
        let owner = graph.add_target(Target {
            label,
            rule: "exec".into(),
            aspect: None,
            location: path.display().to_string(),
            deps: Vec::new(),
            files: Vec::new(),
            groups: Vec::new(),
            executable: None,
            test: None,
            tags: Vec::new(),
        });
        let outputs = declare_outputs(&mut graph, owner, entry).map_err(bad)?;
        declared.push((owner, outputs));
    }
    let mut wanted = Vec::new();
    let requested = file.requested;
    for (entry, (owner, outputs)) in file.actions.into_iter().zip(declared) {
        let label = graph.target(owner).label.clone();
        let artifacts: Vec<ArtifactId> = outputs
            .iter()
            .map(|output| output.artifact)
            .filter(|id| {
                let path = graph.artifact(*id).path.as_str();
                requested.as_ref().is_none_or(|list| list.iter().any(|p| p == path))
            })
            .collect();
        if !artifacts.is_empty() {
            wanted.push(Wanted {
                label: label.clone(),
                aspect: None,
                target: owner,
                artifacts,
                runs: Vec::new(),
            });
        }
        let context = |message| bad(format!("action of `{label}`: {message}"));
        let spec = action_spec(&mut graph, owner, outputs, entry, &toolchains).map_err(context)?;
        graph.add_action(spec).map_err(|e| bad(e.to_string()))?;
    }
    Ok((graph, wanted))
}

fn declare_outputs(
    graph: &mut ActionGraph,
    owner: TargetId,
    entry: &ActionEntry,
) -> Result<Vec<Output>, String> {
    let mut outputs = Vec::with_capacity(entry.outputs.len());
    for output in &entry.outputs {
        let (path, kind, optional) = match output {
            OutputEntry::File(path) => (path, ArtifactKind::File, false),
            OutputEntry::Full(FullOutput { path, kind, optional }) => (path, *kind, *optional),
        };
        let path = RelPath::new(path).map_err(|e| e.to_string())?;
        let artifact = graph.declare_output(path, kind, owner).map_err(|e| e.to_string())?;
        outputs.push(Output { artifact, optional });
    }
    Ok(outputs)
}

fn action_spec(
    graph: &mut ActionGraph,
    owner: TargetId,
    outputs: Vec<Output>,
    entry: ActionEntry,
    toolchains: &HashMap<String, ArtifactId>,
) -> Result<ActionSpec, String> {
    let how = match (entry.command, entry.native) {
        (Some(command), None) => How::Command {
            argv: command.into_iter().map(|a| Arg::One(vec![Item::Text(a.into())])).collect(),
        },
        (None, Some(NativeEntry { kind, semantics, request })) => {
            How::Native { kind, semantics, request }
        }
        _ => return Err("it needs either `command` or `native`".into()),
    };
    let mut inputs = Vec::with_capacity(entry.inputs.len());
    for path in entry.inputs {
        let path = RelPath::new(&path).map_err(|e| e.to_string())?;
        inputs.push(Item::Artifact(graph.source(path)));
    }
    let toolchain = |name: &String| {
        toolchains.get(name).copied().ok_or_else(|| format!("toolchain `{name}` is not declared"))
    };
    let toolchains = entry.toolchains.iter().map(toolchain).collect::<Result<Vec<_>, _>>()?;
    let native = matches!(how, How::Native { .. });
    if native {
        inputs.extend(toolchains.iter().map(|id| Item::Artifact(*id)));
    }
    Ok(ActionSpec {
        owner,
        mnemonic: entry.mnemonic.unwrap_or_else(|| "Exec".into()),
        progress: String::new(),
        class: entry.class,
        how,
        inputs: graph.sets.add(Order::Postorder, inputs, Vec::new()),
        toolchains: if native { Vec::new() } else { toolchains },
        outputs,
        env: entry.env.into_iter().collect(),
        platform: Vec::new(),
        timeout_ms: entry.timeout_ms,
        hints: ExecutionHints { test: entry.test, ..ExecutionHints::default() },
    })
}
