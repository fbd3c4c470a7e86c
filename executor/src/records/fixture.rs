//! A workspace in a temporary folder, recorded steps in it, and an outside world that answers from
//! a list. For tests alone.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::{Arc, Mutex};

use jiff::civil::{Date, date};
use maestro_cas::{Store, StoreOptions};
use maestro_core::depset::Order;
use maestro_core::graph::Target;
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::run::{Amount, Cap};
use maestro_core::tenant::TenantName;
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, ArtifactId, ArtifactKind, Digest, DigestFunction,
    ExecutionHints, How, Item, Label, Node, Output, Prepared, RelPath, TargetPattern,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::ledger::Unkept;
use crate::runner::{Cancel, Job, RunError, Runner};

pub(super) const TODAY: Date = date(2026, 11, 23);
pub(super) const OUT: &str = "maestro-out/shared/p/plan.json";

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) store: Store,
}

pub(super) struct Step {
    pub(super) graph: ActionGraph,
    pub(super) spec: ActionSpec,
    pub(super) prepared: Prepared,
    pub(super) label: Label,
}

pub(super) struct Nodes(HashMap<ArtifactId, Node>);

impl Resolved for Nodes {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        self.0.get(&artifact).cloned()
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        None
    }
}

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("cache");
        let options = StoreOptions { root, function: DigestFunction::Blake3 };
        fs::create_dir(folder.path().join("ws")).expect("fresh");
        let store = Store::open(options).expect("an empty store opens");
        Self { folder, store }
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("ws")
    }

    pub(super) fn records(&self) -> Records {
        Records::load(&self.root()).expect("a lock that parses")
    }

    pub(super) fn lock_text(&self) -> String {
        fs::read_to_string(self.root().join(LOCK_FILE)).expect("a lock")
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
        fs::write(path, text).expect("writable");
    }

    /// A recorded step of `//p:NAME` that reads `files`.
    pub(super) fn step(&self, name: &str, request: Value, files: &[(&str, &str)]) -> Step {
        let mut graph = ActionGraph::default();
        let label = Label::new("", "p", name).expect("valid");
        let owner = graph.add_target(Target {
            label: label.clone(),
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
            let digest = self.store.put_bytes(text.as_bytes()).expect("stored");
            nodes.insert(id, Node::File { digest, executable: false });
        }
        let inputs: Vec<ArtifactId> = nodes.keys().copied().collect();
        let out = RelPath::new(OUT).expect("normal");
        let artifact = graph.declare_output(out, ArtifactKind::File, owner).expect("new");
        let set = inputs.iter().map(|id| Item::Artifact(*id)).collect();
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
        let function = self.store.function();
        let nodes = Nodes(nodes);
        let prepared = prepare(&graph, function, SandboxProfile::Hermetic, &spec, &inputs, &nodes)
            .expect("a key");
        Step { graph, spec, prepared, label }
    }

    pub(super) fn plan(&self, patch: &str) -> Step {
        self.step("plan", request(), &[("p/changes.patch", patch)])
    }

    pub(super) fn find(
        &self,
        records: &Records,
        step: &Step,
        reach: Reach,
    ) -> Result<Found, FindError> {
        let Step { label, spec, prepared, .. } = step;
        records.find(&RecordLookup { label, spec, prepared }, &self.store, reach)
    }

    pub(super) fn answer(&self, records: &Records, step: &Step) -> Result<String, String> {
        let found = self.find(records, step, Reach::Lock).map_err(|e| e.sentence())?;
        let digest = found.result.output_files.first().expect("one output").digest;
        let bytes = self.store.read(&digest).expect("in the store");
        Ok(String::from_utf8(bytes).expect("text"))
    }

    pub(super) fn updater(&self, script: &Arc<Script>, targets: &[&str]) -> Updater {
        let parse = |t: &&str| TargetPattern::parse(t, "").expect("valid");
        let targets: Vec<TargetPattern> = targets.iter().map(parse).collect();
        let records = Arc::new(self.records().refreshing(targets.clone()));
        let tenant = TenantName::new("test").expect("a name");
        let options =
            UpdateOptions { targets, date: TODAY, cap: Cap::default(), holder: String::new() };
        Updater::new(records, script.clone(), Arc::new(Unkept(tenant)), options)
    }

    pub(super) fn run(&self, updater: &Updater, step: &Step) -> Result<u64, RunError> {
        let outcome = updater.run(&Job {
            graph: &step.graph,
            spec: &step.spec,
            files: &[],
            prepared: &step.prepared,
            store: &self.store,
            slot: 0,
            toolchains: &[],
            cancel: &Cancel::default(),
        })?;
        Ok(outcome.cost_usd_micros)
    }

    /// Records one answer to each step.
    pub(super) fn record(&self, steps: &[&Step], answers: &[&str]) -> UpdateReport {
        let script = Script::new(answers);
        let updater = self.updater(&script, &[]);
        for step in steps {
            self.run(&updater, step).expect("an answer");
        }
        updater.finish().expect("the lock is written")
    }
}

pub(super) fn request() -> Value {
    json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"text": "Plan."}]},
            {"role": "user", "content": [{"text": "Patch:\n"}, {"context": "p/changes.patch"}]},
        ],
        "schema": {
            "type": "object",
            "properties": {"tests": {"type": "array", "items": {"type": "string"}}},
            "required": ["tests"],
            "additionalProperties": false,
        },
        "sampling": {"seed": 42, "temperature": 0, "max_tokens": 64},
        "step": "plan",
        "sample": 0,
    })
}

/// Answers from a list; the last one is not repeated.
pub(super) struct Script {
    answers: Mutex<VecDeque<String>>,
    calls: Mutex<u32>,
    identity: Option<&'static str>,
}

impl Script {
    pub(super) fn new(answers: &[&str]) -> Arc<Self> {
        let answers = answers.iter().map(|a| (*a).to_owned()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers),
            calls: Mutex::default(),
            identity: Some("name:m-2026-01-01"),
        })
    }

    pub(super) fn calls(&self) -> u32 {
        *hold(&self.calls)
    }
}

impl Live for Script {
    fn handles(&self, kind: &str) -> bool {
        kind == "llm"
    }

    fn identify(&self, _: &str, _: &Cancel) -> Result<Option<ObservedModel>, LiveError> {
        let name = self.identity.and_then(|id| id.strip_prefix("name:")).map(str::to_owned);
        Ok(Some(ObservedModel { pin: ModelPin { name, ..ModelPin::default() } }))
    }

    fn bound(&self, _: &Question, _: &ModelPin, _: &Cancel) -> Result<Amount, LiveError> {
        Ok(Amount { usd_micros: 10, tokens: 20 })
    }

    fn ask(&self, _: &Question, _: &ModelPin, _: &Cancel) -> Result<LiveAnswer, LiveError> {
        *hold(&self.calls) += 1;
        let text = hold(&self.answers).pop_front().ok_or_else(|| LiveError {
            message: "the script is over".into(),
            hints: vec![],
            kind: maestro_core::FailureKind::Environment,
            cancelled: false,
            asked: false,
        })?;
        Ok(LiveAnswer {
            text,
            finish_reason: "stop".into(),
            prompt_tokens: 10,
            completion_tokens: 5,
            cost_usd_micros: 7,
        })
    }
}
