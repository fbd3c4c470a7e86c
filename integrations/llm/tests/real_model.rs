//! A real model answers, the answer is recorded, and the record replays without the model.
//!
//! Needs the model peer: third_party/model-peer/README.md says how to install it, and
//! `cargo xtask test` does so and sets both variables.

#[path = "support/step.rs"]
mod step;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::date;
use maestro_core::DigestFunction;
use maestro_core::run::Cap;
use maestro_core::tenant::TenantName;
use maestro_executor::ledger::Unkept;
use maestro_executor::records::{
    LOCK_FILE, Live, LlmRequest, Reach, RecordLookup, Records, UpdateOptions, Updater,
};
use maestro_executor::runner::{Cancel, Job, Runner};
use maestro_llm::{LlmClient, LlmOptions};
use serde_json::{Value, json};
use step::Step;

const MODEL: &str = "smollm2-135m-instruct";
const HOW: &str = "install the model peer as third_party/model-peer/README.md says and set \
                   MAESTRO_MODEL_PEER and MAESTRO_MODEL, or run `cargo xtask test`";

/// The peer's process; its standard input is the pipe that keeps it alive.
struct Peer {
    child: Child,
    port: u16,
    told: Value,
}

impl Peer {
    fn start() -> Self {
        let modules = variable("MAESTRO_MODEL_PEER").join("node_modules");
        assert!(modules.is_dir(), "`{}` is not there: {HOW}", modules.display());
        let server =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party/model-peer/server.mjs");
        let mut child = Command::new("node")
            .arg(server)
            .arg("--modules")
            .arg(modules)
            .arg("--model")
            .arg(variable("MAESTRO_MODEL"))
            .args(["--alias", MODEL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("node does not start ({e}): {HOW}"));
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the peer's first line");
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("the peer did not start ({e}): {HOW}"));
        let port = told["port"].as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
        Self { child, port, told }
    }

    fn client(&self) -> LlmClient {
        let mut options = LlmOptions::new(format!("http://127.0.0.1:{}", self.port));
        options.timeout = Duration::from_secs(540);
        LlmClient::new(options).expect("a loopback endpoint")
    }

    fn token_count(&self, body: &Value) -> u64 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("http://127.0.0.1:{}/tokenize", self.port);
        let reply: Value = runtime.block_on(async {
            let response = reqwest::Client::new().post(url).json(body).send().await;
            response.expect("the peer answers").json().await.expect("JSON")
        });
        reply["count"].as_u64().expect("a count")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // the peer ends with its input
        self.child.wait().expect("the peer is ours");
    }
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: {HOW}")).into()
}

/// A request to answer a question that stands in `p/question.txt`.
fn request(schema: Value, max_tokens: u64) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"context": "p/question.txt"}]}],
        "schema": schema,
        "sampling": {"seed": 42, "temperature": 0, "max_tokens": max_tokens},
        "step": "plan",
        "sample": 0,
    })
}

fn job<'a>(step: &'a Step, cancel: &'a Cancel) -> Job<'a> {
    Job {
        graph: &step.graph,
        spec: &step.spec,
        files: &[],
        prepared: &step.prepared,
        store: &step.store,
        slot: 0,
        toolchains: &[],
        cancel,
    }
}

/// Records the answer to a step in a new workspace; returns the workspace.
fn record(peer: &Peer, step: &Step) -> PathBuf {
    let root = step.folder.path().join("workspace");
    std::fs::create_dir(&root).expect("fresh");
    let records = Arc::new(Records::load(&root).expect("no lock yet"));
    let options = UpdateOptions {
        targets: vec![],
        date: date(2026, 11, 23),
        cap: Cap::default(),
        holder: "test".to_owned(),
    };
    let ledger = Arc::new(Unkept(TenantName::new("test").expect("a name")));
    let updater = Updater::new(records, Arc::new(peer.client()), ledger, options);
    updater.run(&job(step, &Cancel::default())).expect("an answer");
    let report = updater.finish().expect("the lock is written");
    assert_eq!((report.recorded.len(), report.cost_usd_micros), (1, 0));
    root
}

fn replay(step: &Step, root: &Path) -> (Vec<u8>, maestro_executor::records::Record) {
    let records = Records::load(root).expect("the lock parses");
    let label = step.graph.target(step.spec.owner).label.clone();
    let lookup = RecordLookup { label: &label, spec: &step.spec, prepared: &step.prepared };
    let found = records.find(&lookup, &step.store, Reach::Lock).expect("recorded");
    let digest = found.result.output_files.first().expect("one output").digest;
    (step.store.read(&digest).expect("in the store"), found.record.record)
}

fn messages(step: &Step) -> Value {
    let messages = step.question().messages().into_iter();
    messages.map(|(role, text)| json!({"role": role.name(), "content": text})).collect()
}

#[test]
fn an_answer_of_a_real_model_replays_and_its_tokens_are_counted_right() {
    let peer = Peer::start();
    let weights = std::fs::read(variable("MAESTRO_MODEL")).expect("the model file");
    let hash = DigestFunction::Sha256.digest(&weights).hex();
    assert_eq!(peer.told["sha256"], json!(hash));

    let question = [("p/question.txt", "What is the capital of France?")];
    let step = Step::new(request(Value::Null, 48), &question);
    let root = record(&peer, &step);
    let (answer, kept) = replay(&step, &root);
    let text = String::from_utf8(answer).expect("text");
    assert!(!text.trim().is_empty());
    assert_eq!(kept.identity, format!("sha256:{hash}"));
    let lock = std::fs::read_to_string(root.join(LOCK_FILE)).expect("written");
    assert!(lock.contains(&format!("sha256 = \"{hash}\"\nsize = {}\n", weights.len())), "{lock}");

    let prompt = peer.token_count(&json!({"messages": messages(&step)}));
    assert_eq!(kept.prompt_tokens, prompt);
    let counted = peer.token_count(&json!({"content": text.trim_end()}));
    assert_eq!(kept.completion_tokens, counted);

    let schema = json!({
        "type": "object",
        "properties": {"component": {"enum": ["kernel", "service", "web"]}},
        "required": ["component"],
        "additionalProperties": false,
    });
    let question = [("p/question.txt", "The shortest path changed. Which component is it?\n")];
    let step = Step::new(request(schema, 48), &question);
    let root = record(&peer, &step);
    let (answer, kept) = replay(&step, &root);
    let value: Value = serde_json::from_slice(&answer).expect("JSON that fits the schema");
    assert!(value["component"].is_string(), "{value}");
    // Tokens under a grammar are not those of the finished text: ask again to count them again.
    let again = peer
        .client()
        .ask(&step.question(), &pin_of(&root), &Cancel::default())
        .expect("the same answer");
    assert_eq!(kept.prompt_tokens, peer.token_count(&json!({"messages": messages(&step)})));
    assert_eq!(kept.completion_tokens, again.completion_tokens);
}

fn pin_of(root: &Path) -> maestro_executor::records::ModelPin {
    let records = Records::load(root).expect("the lock parses");
    records.lock().models.get(MODEL).cloned().expect("pinned by the update")
}

#[test]
fn a_real_answer_that_is_cut_off_is_not_recorded() {
    let peer = Peer::start();
    let step = Step::new(request(Value::Null, 2), &[("p/question.txt", "Who are you?")]);
    let LlmRequest { sampling, .. } = step.question().request;
    assert_eq!(sampling.max_tokens, 2);
    let pin =
        peer.client().identify(MODEL, &Cancel::default()).expect("told").expect("weights").pin;
    let error = peer.client().ask(&step.question(), &pin, &Cancel::default()).expect_err("cut off");
    assert!(error.message.contains("was cut off after 2 tokens (`max_tokens` is 2)"), "{error}");
}
