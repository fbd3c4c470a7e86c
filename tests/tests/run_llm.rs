//! Pipelines that ask a model, on the built binary, through a real litellm proxy.
//!
//! Needs the proxy: `cargo xtask peer` installs it and prints the variable that names it.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use maestro_tests::guide::{follow, steps};
use maestro_tests::scene::Scene;
use maestro_tests::{Workspace, poll};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOW: &str = "run `cargo xtask peer` and set MAESTRO_LITELLM, or run `cargo xtask test`";
/// Longest time until the proxy answers; it loads a large program.
const START: Duration = Duration::from_secs(180);
const KEY: &str = "sk-of-this-test-0123456789abcdef";
/// The proxy's start, without the script that names its own place.
const PROGRAM: &str = "from litellm import run_server; run_server()";

/// A litellm proxy that has an answer ready, at 2.50 and 10 dollars a million tokens.
struct Proxy {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Proxy {
    fn start() -> Self {
        let modules = std::env::var_os("MAESTRO_LITELLM").unwrap_or_else(|| panic!("{HOW}"));
        let folder = TempDir::new().expect("a folder");
        let config = json!({
            "model_list": [{
                "model_name": "gpt-4o",
                "litellm_params": {
                    "model": "openai/gpt-4o-2024-08-06", "api_key": "none",
                    "mock_response": "Test the parser and the server on Linux.",
                },
                "model_info": {
                    "input_cost_per_token": 0.0000025, "output_cost_per_token": 0.00001,
                },
            }],
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"telemetry": false},
        });
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config.to_string()).expect("JSON is YAML");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let child = Command::new("python3")
            .args(["-c", PROGRAM, "--host", "127.0.0.1", "--telemetry", "False", "--port"])
            .arg(port.to_string())
            .arg("--config")
            .arg(&file)
            .env("PYTHONPATH", modules)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let proxy = Self { child, port, _folder: folder };
        let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(poll(START, up), "the proxy does not start");
        proxy
    }
}

impl Proxy {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A workspace with one pipeline, and maybe who is asked.
struct Asking<'a> {
    scene: Scene,
    proxy: Option<&'a Proxy>,
}

const DEFAULTS: &str = r#"[defaults]
llm.model = "gpt-4o"
llm.generate.prompt = "Write the change as a patch."
cd.via = "gitops"
cd.repository = "../environments.git"
cd.path = "apps/intelgraph.yaml"
cd.traffic = "http://127.0.0.1:2019/weights"
"#;

impl<'a> Asking<'a> {
    fn new(proxy: &'a Proxy, template: &str) -> Self {
        let scene = Scene::new(template);
        std::fs::write(scene.path("maestro.toml"), DEFAULTS).expect("written");
        std::fs::write(scene.path("maestro.star"), "").expect("written");
        Self { scene, proxy: Some(proxy) }
    }

    fn run(&self, cache: &str, arguments: &[&str]) -> Output {
        let mut command = self.scene.command(arguments);
        command
            .env("MAESTRO_CACHE", self.scene.path(cache))
            .env_remove("MAESTRO_LLM_ENDPOINT")
            .env_remove("MAESTRO_LLM_API_KEY");
        if let Some(proxy) = self.proxy {
            command.env("MAESTRO_LLM_ENDPOINT", proxy.url());
            command.env("MAESTRO_LLM_API_KEY", KEY);
        }
        command.output().expect("it runs")
    }

    /// The template's run, as JSON.
    fn begin(&self, cache: &str, more: &[&str]) -> Value {
        let arguments =
            [&["run", "--template", "release.pipeline.yaml", "--output", "json"], more].concat();
        let output = self.run(cache, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
    }
}

/// The step of a run that has an id.
fn step<'a>(run: &'a Value, id: &str) -> &'a Value {
    let steps = run["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["id"] == id).unwrap_or_else(|| panic!("no {id} in {run}"))
}

fn verdict<'a>(run: &'a Value, id: &str) -> &'a str {
    step(run, id)["verdict"].as_str().unwrap_or_default()
}

fn text(step: &Value) -> String {
    step["tasks"].to_string()
}

#[test]
fn the_sample_runs_up_to_what_is_not_built_and_its_plan_is_recorded() {
    let proxy = Proxy::start();
    let sample = include_str!("../../docs/examples/intelgraph-build.pipeline.yaml");
    let mut scene = Asking::new(&proxy, sample);
    let run = scene.begin("cache", &["--budget", "5usd"]);
    assert_eq!((&run["status"], verdict(&run, "plan")), (&json!("failed"), "succeeded"));
    let said = "this Maestro cannot run steps of `web.scrape` yet";
    assert!(text(step(&run, "scrape-docs")).contains(said), "{run}");
    let spent = run["spent"]["usd_micros"].as_u64().expect("money");
    assert!(spent > 0, "{run}");

    let again = scene.begin("cache", &["--budget", "5usd"]);
    assert_eq!(again["spent"]["usd_micros"], 0, "the cache remembers what was paid for");

    let name = run["run"].as_str().expect("a name");
    let update = scene.run("cache", &["lock", "--update", "--from-run", name]);
    let told = String::from_utf8_lossy(&update.stderr).into_owned();
    assert!(told.starts_with("recorded //:intelgraph-build.plan (plan): "), "{told}");

    scene.proxy = None;
    let offline = scene.begin("another-cache", &[]);
    assert_eq!(verdict(&offline, "plan"), "succeeded");
    let outputs = |run: &Value| step(run, "plan")["tasks"][0]["outputs"].clone();
    assert_eq!(outputs(&offline), outputs(&run));
    let built = scene.run("a-third-cache", &["build", "//:intelgraph-build.plan"]);
    let told = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(built.status.success() && told.contains("  text: "), "{built:?}");
    let pruned = scene.run("cache", &["lock", "--prune"]);
    assert!(pruned.status.success());
    let lock = std::fs::read_to_string(scene.scene.path("maestro.lock")).expect("there");
    assert!(lock.contains("//:intelgraph-build.plan"), "runs use it, so it is no orphan: {lock}");
}

#[test]
fn a_budget_bounds_what_a_run_spends() {
    let proxy = Proxy::start();
    let ws = Workspace::new()
        .with_env("MAESTRO_LLM_ENDPOINT", &proxy.url())
        .with_env("MAESTRO_LLM_API_KEY", KEY);
    let runs = follow(&ws, &steps("budget-a-pipeline.md"));
    assert_eq!(runs.len(), 15, "commands");
    let denied = "0.00 of 0.001 USD spent, 0.00 reserved, 0.002183 asked";
    assert!(runs.iter().any(|run| run.stdout.contains(denied)), "as the guide shows it");
}

#[test]
fn no_instant_sees_more_spent_than_the_cap() {
    let template = r#"
name: t
steps:
  - id: list
    uses: run.command
    with: { command: [sh, -c, "seq -s, 1 40 | sed 's/.*/[&]/'"], repeatable: true }
  - id: ask
    uses: llm.plan
    foreach: ${{ steps.list.outputs.json }}
    max: 40
    continue_on_error: true
    with: { prompt: "Case ${{ item }}", max_output_tokens: 100 }
"#;
    let proxy = Proxy::start();
    let scene = Asking::new(&proxy, template);
    // One call reserves about 1.1 thousandths of a dollar, and costs a tenth of that.
    let run = scene.begin("cache", &["--budget", "0.004usd"]);
    let spent = run["spent"]["usd_micros"].as_u64().expect("money");
    assert!(spent > 0 && spent <= 4000, "{run}");
    let tasks = text(step(&run, "ask"));
    assert!(tasks.contains("the budget of the run leaves no room: "), "{tasks}");

    let name = run["run"].as_str().expect("a name");
    let journal = scene.run("cache", &["logs", name, "--output", "json"]);
    let journal = String::from_utf8_lossy(&journal.stdout).into_owned();
    let (mut reserved, mut settled, mut most) = (std::collections::BTreeMap::new(), 0, 0);
    for line in journal.lines() {
        let entry: Value = serde_json::from_str(line).expect("an entry a line");
        let event = &entry["event"];
        let task = event["task"].to_string();
        if let Some(amount) = event["reserved"]["usd_micros"].as_u64() {
            reserved.insert(task, amount);
        } else if reserved.remove(&task).is_some() {
            settled += event["success"]["spent"]["usd_micros"].as_u64().unwrap_or(0)
                + event["spent"]["usd_micros"].as_u64().unwrap_or(0);
        }
        most = most.max(settled + reserved.values().sum::<u64>());
    }
    assert!(most > 1000 && most <= 4000, "{most}");
    assert_eq!(settled, spent);
}
