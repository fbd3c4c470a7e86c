//! What a tenant may spend, and the backup of what its runs did, on the built binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maestro_tests::scene::{Scene, text};
use serde_json::{Value, json};

/// Answers as an OpenAI-compatible gateway does, at 2.50 and 10 dollars a million tokens.
struct Model {
    url: String,
    /// How many tokens an answer has.
    tokens: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
}

impl Model {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (tokens, calls) = (Arc::new(AtomicU64::new(50)), Arc::new(AtomicU64::new(0)));
        let shared = (tokens.clone(), calls.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is no concern of the server.
                let _ = answer(stream, &shared);
            }
        });
        Self { url: format!("http://{address}"), tokens, calls }
    }
}

fn answer(
    mut stream: TcpStream,
    (tokens, calls): &(Arc<AtomicU64>, Arc<AtomicU64>),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().expect("a length");
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let body = match request.split(' ').nth(1) {
        Some(path) if path.ends_with("/models") => json!({"data": [{"id": "m"}]}),
        Some(path) if path.ends_with("/model/info") => json!({"data": [{
            "model_name": "m", "litellm_params": {"model": "openai/m-2026-01-01"},
            "model_info": {
                "id": "x", "input_cost_per_token": 0.0000025, "output_cost_per_token": 0.00001,
            },
        }]}),
        _ => {
            calls.fetch_add(1, Ordering::SeqCst);
            let answered = tokens.load(Ordering::SeqCst);
            json!({
                "model": "m",
                "choices": [{
                    "index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "Test the parser."},
                }],
                "usage": {"prompt_tokens": 10, "completion_tokens": answered},
            })
        }
    };
    let body = body.to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")
}

const ASK: &str = r#"name: release
params:
  word: { type: string, default: none }
steps:
  - id: ask
    uses: llm.plan
    with: { prompt: "What about ${{ params.word }}?", max_output_tokens: 200 }
"#;

const PLAN: &str = r#"load("@maestro//rules:llm.star", "llm_generate")

llm_generate(name = "plan", model = "m", prompt = "Plan.", max_tokens = 200)
"#;

/// A workspace that asks, in the tenant `shop`, with these further lines in `[budget]`.
fn scene(budget: &str) -> Scene {
    let scene = Scene::new(ASK);
    let config = format!("[defaults]\nllm.model = \"m\"\n[budget]\ntenant = \"shop\"\n{budget}\n");
    std::fs::write(scene.path("maestro.toml"), config).expect("written");
    std::fs::write(scene.path("maestro.star"), PLAN).expect("written");
    scene
}

/// Runs a command with a model to ask; its exit code and all that it printed.
fn run(scene: &Scene, model: &Model, state: &Scene, arguments: &[&str]) -> (i32, String) {
    let mut command = scene.command(arguments);
    command
        .env("MAESTRO_STATE", state.path("state"))
        .env("MAESTRO_LLM_ENDPOINT", &model.url)
        .env_remove("MAESTRO_LLM_API_KEY")
        .env("XDG_CONFIG_HOME", state.path("config"));
    let output = command.output().expect("it runs");
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().expect("it ended by itself"), told)
}

fn ask(scene: &Scene, model: &Model, word: &str) -> (i32, String) {
    let word = format!("word={word}");
    run(scene, model, scene, &["run", "--template", "release", "--param", &word])
}

fn budget(scene: &Scene, model: &Model) -> Value {
    let (code, told) = run(scene, model, scene, &["budget", "--output", "json"]);
    assert_eq!(code, 0, "{told}");
    serde_json::from_str(&told).expect("JSON")
}

#[test]
fn runs_and_updates_of_a_tenant_share_its_caps() {
    let model = Model::start();
    // A call reserves 0.0021 dollars, and costs 0.000525.
    let shop = scene("day = { usd = 0.0035, soft-usd = 0.0024 }");
    let (code, told) = ask(&shop, &model, "one");
    assert!(code == 0 && !told.contains("warning"), "{told}");
    let (code, told) = ask(&shop, &model, "two");
    assert_eq!((code, told.matches("warning: the soft budget of tenant `shop`").count()), (0, 1));
    let (code, _) = ask(&shop, &model, "one");
    assert_eq!((code, model.calls.load(Ordering::SeqCst)), (0, 2), "the cache costs nothing");
    assert_eq!(ask(&shop, &model, "three").0, 0);
    let (code, told) = ask(&shop, &model, "four");
    assert_eq!((code, model.calls.load(Ordering::SeqCst)), (12, 3), "{told}");
    let room = "leaves no room: 0.001575 of 0.0035 USD spent, 0.00 reserved, 0.0021";
    assert!(told.contains(room) && told.contains("00:00 UTC"), "{told}");
    let day = &budget(&shop, &model)["periods"][0];
    assert_eq!(day["settled"], json!({"usd_micros": 1575, "tokens": 180}));
    assert_eq!(day["reserved"]["usd_micros"], 0);

    // Another project of the tenant, on the same machine; an update, not a run.
    // It may try four times, and reserves 0.008372 dollars, which fits but for what was spent.
    let other = scene("day = { usd = 0.0095 }");
    let (code, told) = run(&other, &model, &shop, &["lock", "--update", "//:plan"]);
    assert!(code == 2 && told.contains("0.008372 asked; it opens again at"), "{code} {told}");
    assert_eq!(model.calls.load(Ordering::SeqCst), 3);
    // What the user of the machine says counts more than what the project does.
    let config = shop.path("config/maestro");
    std::fs::create_dir_all(&config).expect("made");
    let own = "[budget]\ntenant = \"shop\"\nday = { usd = \"1usd\" }\n";
    std::fs::write(config.join("config.toml"), own).expect("written");
    let (code, told) = run(&other, &model, &shop, &["lock", "--update", "//:plan"]);
    assert_eq!((code, model.calls.load(Ordering::SeqCst)), (0, 4), "{told}");
    let day = &budget(&shop, &model)["periods"][0];
    assert_eq!(day["settled"]["usd_micros"], 2100);
    let update = ["lock", "--update", "//:plan", "--budget", "0.000001usd"];
    let (code, told) = run(&other, &model, &shop, &update);
    assert!(code == 2 && told.contains("the budget of this update leaves no room"), "{told}");
    assert_eq!(model.calls.load(Ordering::SeqCst), 4, "nothing is asked beyond `--budget`");
}

#[test]
fn an_overrun_stops_all_runs_until_a_person_closes_the_breaker() {
    let model = Model::start();
    let shop = scene("");
    model.tokens.store(5_000, Ordering::SeqCst);
    let (code, told) = ask(&shop, &model, "one");
    assert!(code == 0 && told.contains("warning: the breaker of tenant `shop` is open"), "{told}");
    model.tokens.store(50, Ordering::SeqCst);
    let (code, told) = ask(&shop, &model, "two");
    assert!(code == 12 && told.contains("it stays open until somebody closes it"), "{told}");
    assert_eq!(budget(&shop, &model)["breaker"]["cause"]["type"], "overrun");
    let reset = |reason: &str| run(&shop, &model, &shop, &["budget", "reset", "--reason", reason]);
    assert_eq!(reset(" ").0, 2);
    assert_eq!(reset("the price was old").0, 0);
    assert_eq!(ask(&shop, &model, "two").0, 0);
    let (_, told) = run(&shop, &model, &shop, &["budget", "history"]);
    assert!(told.contains("closed the breaker: the price was old"), "{told}");
}

const HELLO: &str = r#"name: release
steps:
  - { id: hello, uses: run.command, with: { command: [echo, hello], repeatable: true } }
"#;

#[test]
fn a_damaged_journal_is_refused_and_restored() {
    let scene = Scene::new(HELLO);
    let begin = ["run", "--template", "release"];
    scene.must(0, &begin);
    assert!(!scene.path("state/backups/runs.db").exists(), "there was nothing to keep");
    scene.must(0, &begin);
    assert!(scene.path("state/backups/runs.db").exists(), "the first run is kept");
    let told = scene.must(0, &["runs", "backup", "copy.db"]);
    assert!(told.starts_with("copy.db: 2 runs with "), "{told}");
    scene.must(0, &begin);
    let runs = scene.must(0, &["runs", "list"]);
    let newest = runs.split(' ').next().expect("a run");
    // A journal that is sound shows all that the backup does not have.
    let told = scene.must(0, &["runs", "restore", "copy.db"]);
    assert!(told.starts_with("restored 2 runs with "), "{told}");
    assert!(told.contains(&format!("lost: run {newest}, with ")), "{told}");
    // One that is none says how to mend it.
    std::fs::write(scene.path("state/runs.db"), "x".repeat(10_000)).expect("written");
    for arguments in [&begin as &[&str], &["runs", "list"]] {
        let told = scene.must(3, arguments);
        assert!(told.contains("file is not a database"), "{told}");
        assert!(told.contains("hint: `maestro runs restore "), "{told}");
    }
    scene.must(3, &["runs", "restore", "release.pipeline.yaml"]);
    let told = scene.must(0, &["runs", "restore", "copy.db"]);
    assert!(told.contains("what was lost beyond that is not known"), "{told}");
    assert_eq!(scene.must(0, &["runs", "list"]).lines().count(), 2);
    scene.must(0, &begin);
}
