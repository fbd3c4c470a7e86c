//! A recorded step to ask with.

#![allow(dead_code)] // each test binary uses a part

use std::collections::HashMap;

use maestro_cas::{Store, StoreOptions};
use maestro_core::depset::Order;
use maestro_core::graph::Target;
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, ArtifactId, ArtifactKind, Digest, DigestFunction,
    ExecutionHints, How, Item, Label, Node, Output, Prepared, RelPath,
};
use maestro_executor::records::Question;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A recorded action with its inputs in a store of its own.
pub(crate) struct Step {
    pub(crate) graph: ActionGraph,
    pub(crate) spec: ActionSpec,
    pub(crate) prepared: Prepared,
    pub(crate) store: Store,
    pub(crate) folder: TempDir,
}

struct Nodes(HashMap<ArtifactId, Node>);

impl Resolved for Nodes {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        self.0.get(&artifact).cloned()
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        None
    }
}

impl Step {
    pub(crate) fn new(request: Value, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("cache");
        let options = StoreOptions { root, function: DigestFunction::Blake3 };
        let store = Store::open(options).expect("an empty store opens");
        let mut graph = ActionGraph::default();
        let owner = graph.add_target(Target {
            label: Label::new("", "p", "plan").expect("valid"),
            rule: "llm_plan".into(),
            aspect: None,
            location: "p/maestro.star:1:1".into(),
            deps: vec![],
            files: vec![],
            groups: Vec::new(),
            executable: None,
            test: None,
            tags: vec![],
        });
        let mut nodes = HashMap::new();
        for (path, text) in files {
            let id = graph.source(RelPath::new(path).expect("normal"));
            let digest = store.put_bytes(text.as_bytes()).expect("stored");
            nodes.insert(id, Node::File { digest, executable: false });
        }
        let inputs: Vec<ArtifactId> = nodes.keys().copied().collect();
        let set = inputs.iter().map(|id| Item::Artifact(*id)).collect();
        let out = RelPath::new("maestro-out/shared/p/plan").expect("normal");
        let artifact = graph.declare_output(out, ArtifactKind::File, owner).expect("new");
        let spec = ActionSpec {
            owner,
            mnemonic: "LlmPlan".into(),
            progress: String::new(),
            class: ActionClass::Recorded,
            how: How::Native { kind: "llm".into(), semantics: 1, request },
            inputs: graph.sets.add(Order::Postorder, set, vec![]),
            toolchains: vec![],
            outputs: vec![Output { artifact, optional: false }],
            env: vec![],
            platform: vec![],
            timeout_ms: None,
            hints: ExecutionHints::default(),
        };
        let (function, sandbox) = (store.function(), SandboxProfile::Hermetic);
        let prepared = prepare(&graph, function, sandbox, &spec, &inputs, &Nodes(nodes));
        let prepared = prepared.expect("a key");
        Self { graph, spec, prepared, store, folder }
    }

    pub(crate) fn question(&self) -> Question {
        Question::of(&self.spec, &self.prepared, &self.store).expect("a well-formed request")
    }
}

/// A request for plain text.
pub(crate) fn request() -> Value {
    json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"text": "Be brief."}]},
            {"role": "user", "content": [{"text": "Read:\n"}, {"context": "p/in.txt"}]},
        ],
        "schema": null,
        "sampling": {"seed": 42, "temperature": 0, "max_tokens": 64},
        "step": "plan",
        "sample": 0,
    })
}
