//! For tests: runs native steps as the engine does, over a store of its own.

use std::collections::HashMap;

use maestro_cas::{Store, StoreOptions};
use maestro_core::graph::Target;
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::merkle::{Node, merkle};
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, ArtifactId, ArtifactKind, Digest, DigestFunction,
    ExecutionHints, How, Item, Label, Output, Prepared, RelPath,
};
use serde_json::Value;

use super::{KINDS, Made, NativeRunner};
use crate::runner::{Cancel, Job, RunError, Runner};

/// Something in a tree of a test.
#[derive(Clone, Copy, Debug)]
pub(super) enum Thing<'a> {
    File(&'a [u8]),
    Program(&'a [u8]),
    Link(&'a str),
}

/// A store and the inputs of an action.
pub(super) struct Fixture {
    _folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) cancel: Cancel,
    nodes: Vec<(String, Node)>,
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

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(DigestFunction::Blake3)
    }

    /// A fixture whose store computes digests with `function`.
    pub(super) fn with(function: DigestFunction) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = StoreOptions { root: folder.path().join("cache"), function };
        let store = Store::open(options).expect("a fresh store");
        Self { _folder: folder, store, cancel: Cancel::default(), nodes: Vec::new() }
    }

    /// Adds a file as an input.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8], executable: bool) {
        let digest = self.store.put_bytes(bytes).expect("stored");
        self.nodes.push((path.to_owned(), Node::File { digest, executable }));
    }

    /// Adds a tree as an input.
    pub(super) fn tree(&mut self, path: &str, things: &[(&str, Thing<'_>)]) {
        let root = self.root(things);
        self.nodes.push((path.to_owned(), Node::Tree { root }));
    }

    /// Adds an input that is there already, such as an earlier output.
    pub(super) fn made(&mut self, path: &str, made: Made) {
        let node = match made {
            Made::File { digest, executable } => Node::File { digest, executable },
            Made::Tree { root } => Node::Tree { root },
        };
        self.nodes.push((path.to_owned(), node));
    }

    /// Takes an input away again.
    pub(super) fn forget(&mut self, path: &str) {
        self.nodes.retain(|(name, _)| name != path);
    }

    fn root(&self, things: &[(&str, Thing<'_>)]) -> Digest {
        let node = |thing: &Thing<'_>| match thing {
            Thing::File(bytes) | Thing::Program(bytes) => Node::File {
                digest: self.store.put_bytes(bytes).expect("stored"),
                executable: matches!(thing, Thing::Program(_)),
            },
            Thing::Link(target) => Node::Symlink { target: (*target).to_owned() },
        };
        let path = |text: &str| RelPath::new(text).expect("a normal path");
        let entries = things.iter().map(|(text, thing)| (path(text), node(thing))).collect();
        let tree = merkle(self.store.function(), entries).expect("no clash");
        for (digest, bytes) in &tree.directories {
            self.store.put_known(digest, bytes).expect("stored");
        }
        tree.root
    }

    /// Runs one action with all inputs.
    pub(super) fn run(&self, kind: &str, request: Value) -> Result<Made, RunError> {
        let output = match kind {
            "tree" | "oci-image" | "unpack" | "npm-package" | "wheel" => ArtifactKind::Tree,
            _ => ArtifactKind::File,
        };
        self.run_to(kind, request, output)
    }

    /// Runs one action whose output is declared as `output`.
    pub(super) fn run_to(
        &self,
        kind: &str,
        request: Value,
        output: ArtifactKind,
    ) -> Result<Made, RunError> {
        let semantics = KINDS.iter().find(|k| k.name == kind).map_or(0, |k| k.semantics);
        let how = How::Native { kind: kind.to_owned(), semantics, request };
        let (graph, prepared) = self.prepare(how, output);
        let job = Job {
            graph: &graph,
            spec: &graph.action(maestro_core::ActionId::from_index(0)),
            files: &[],
            prepared: &prepared,
            store: &self.store,
            slot: 0,
            toolchains: &[],
            cancel: &self.cancel,
        };
        assert!(NativeRunner.handles(&job.spec.how));
        let result = NativeRunner.run(&job)?.result;
        match (result.output_files.as_slice(), result.output_directories.as_slice()) {
            ([file], []) => {
                assert_eq!(file.path, "maestro-out/out");
                Ok(Made::File { digest: file.digest, executable: file.is_executable })
            }
            ([], [tree]) => Ok(Made::Tree { root: tree.root_directory_digest }),
            other => panic!("one output is expected: {other:?}"),
        }
    }

    fn prepare(&self, how: How, output: ArtifactKind) -> (ActionGraph, Prepared) {
        let mut graph = ActionGraph::default();
        let owner = graph.add_target(Target {
            label: Label::parse("//p:t", "", "").expect("a label"),
            rule: "rule".into(),
            aspect: None,
            location: "maestro.star:1:1".to_owned(),
            deps: Vec::new(),
            files: Vec::new(),
            groups: Vec::new(),
            executable: None,
            test: None,
            tags: Vec::new(),
        });
        let mut nodes = HashMap::new();
        for (path, node) in &self.nodes {
            let id = graph.source(RelPath::new(path).expect("a normal path"));
            nodes.insert(id, node.clone());
        }
        let inputs: Vec<ArtifactId> = nodes.keys().copied().collect();
        let items = inputs.iter().copied().map(Item::Artifact).collect();
        let set = graph.sets.add(Default::default(), items, Vec::new());
        let path = RelPath::new("maestro-out/out").expect("a normal path");
        let artifact = graph.declare_output(path, output, owner).expect("the only output");
        let spec = ActionSpec {
            owner,
            mnemonic: "Test".to_owned(),
            progress: String::new(),
            class: ActionClass::Pure,
            how,
            inputs: set,
            toolchains: Vec::new(),
            outputs: vec![Output { artifact, optional: false }],
            env: Vec::new(),
            platform: Vec::new(),
            timeout_ms: None,
            hints: ExecutionHints::default(),
        };
        let function = self.store.function();
        let sandbox = SandboxProfile::default();
        let prepared = prepare(&graph, function, sandbox, &spec, &inputs, &Nodes(nodes));
        let prepared = prepared.expect("inputs exist");
        graph.add_action(spec).expect("its output is its own");
        (graph, prepared)
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, made: Made) -> Vec<u8> {
        let Made::File { digest, .. } = made else { panic!("a file is expected: {made:?}") };
        self.store.read(&digest).expect("in the store")
    }

    /// A tree as text, one line a file (`*` marks programs), link or empty folder.
    pub(super) fn listing(&self, made: Made) -> String {
        let Made::Tree { root } = made else { panic!("a tree is expected: {made:?}") };
        let mut out = String::new();
        for entry in self.store.tree_files(&root).expect("in the store") {
            let text = match entry.node {
                Node::File { digest, executable } => {
                    let bytes = self.store.read(&digest).expect("in the store");
                    let mark = if executable { "*" } else { "" };
                    format!("{mark} {}", String::from_utf8_lossy(&bytes))
                }
                Node::Symlink { target } => format!(" -> {target}"),
                Node::Tree { .. } => "/".to_owned(),
            };
            out.push_str(&format!("{}{text}\n", entry.path));
        }
        out
    }
}
