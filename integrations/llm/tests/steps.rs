//! The steps of pipelines that ask a model, against a server whose every byte the test decides.

#[path = "support/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::date;
use maestro_cas::{Store, StoreOptions};
use maestro_core::DigestFunction;
use maestro_core::run::event::Success;
use maestro_core::run::{Amount, Failure, FailureClass};
use maestro_executor::records::{Answers, Records, promote};
use maestro_executor::step::{Registry, Stop, WorkFailure, Worker};
use maestro_llm::steps::{ContextFiles, LlmSteps, RECORD, register};
use maestro_llm::{LlmClient, LlmOptions};
use serde_json::{Value, json};
use server::{Reply, Server};
use tempfile::TempDir;

/// More than any of these steps takes.
const MUCH: Amount = Amount { usd_micros: 1_000_000, tokens: 1_000_000 };

/// A workspace with its cache, and who is asked.
struct Scene {
    folder: TempDir,
    server: Server,
}

struct NoFiles;

impl ContextFiles for NoFiles {
    fn read(&self, globs: &[String]) -> Result<Vec<(String, String)>, Failure> {
        Ok(globs.iter().map(|glob| (glob.clone(), format!("text of {glob}"))).collect())
    }
}

fn answer(text: &str) -> Reply {
    Reply::json(
        &json!({
            "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        })
        .to_string(),
    )
}

impl Scene {
    /// A server that gives these replies for models at 1 and 10 micro-dollars a token.
    fn new(replies: Vec<Reply>) -> Self {
        let model = |name: &str| {
            json!({
                "model_name": name,
                "litellm_params": {"model": format!("openai/{name}-2026-01-01")},
                "model_info": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-5},
            })
        };
        let info = json!({"data": [model("m"), model("spare")]});
        let server = Server::start(replies).info(info);
        Self { folder: TempDir::new().expect("a folder"), server }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> Store {
        let root = self.path().join("cache");
        Store::open(StoreOptions { root, function: DigestFunction::Blake3 }).expect("a store")
    }

    fn worker(&self, uses: &str, online: bool) -> Arc<dyn Worker> {
        let mut options = LlmOptions::new(self.server.url());
        (options.attempts, options.timeout) = (1, Duration::from_secs(20));
        let records = Records::load(self.path()).expect("a lock or none");
        let steps = LlmSteps {
            client: online.then(|| LlmClient::new(options).expect("a loopback endpoint")),
            answers: Answers::new(records, self.store(), || date(2026, 1, 2)),
            files: Box::new(NoFiles),
            workspace: self.path().to_owned(),
        };
        register(Registry::default(), steps).find_worker(uses).expect("registered").clone()
    }

    /// What a step may cost, and what it came to.
    async fn step(&self, uses: &str, changes: Value) -> (Bound, Result<Success, WorkFailure>) {
        let (worker, inputs) = (self.worker(uses, true), inputs(changes));
        let bound = worker.bound(&inputs).await;
        let reserved = bound.clone().ok().flatten().unwrap_or_default();
        (bound, worker.run(&inputs, reserved, &Stop::new()).await)
    }

    fn calls(&self) -> Vec<Value> {
        let calls = self.server.requests().into_iter();
        calls.map(|(_, body)| serde_json::from_str(&body).expect("JSON")).collect()
    }
}

type Bound = Result<Option<Amount>, Failure>;

fn inputs(changes: Value) -> Value {
    let mut inputs = json!({
        "$label": "//:t.ask", "$task": "ask", "$run": "r1",
        "model": "m", "prompt": "0123456789", "max_output_tokens": 50, "system": null,
    });
    for (name, value) in changes.as_object().expect("an object") {
        inputs[name] = value.clone();
    }
    inputs
}

fn failed(result: Result<Success, WorkFailure>) -> (FailureClass, String, Option<Amount>) {
    let WorkFailure { failure, spent } = result.expect_err("it fails");
    (failure.class, failure.message, spent)
}

#[tokio::test]
async fn an_answer_is_paid_for_once_and_written_down_on_demand() {
    let scene = Scene::new(vec![answer("Test all.")]);
    let (bound, first) = scene.step("llm.plan", json!({})).await;
    // 10 bytes and the framing of a message, and the longest answer.
    let most = Amount { usd_micros: 42 + 500, tokens: 92 };
    assert_eq!(bound, Ok(Some(most)));
    let first = first.expect("an answer");
    assert_eq!(first.spent, Amount { usd_micros: 200, tokens: 110 });
    let outputs = json!({
        "text": "Test all.", "json": null, "model": "m-2026-01-01", "tokens": 110,
    });
    assert_eq!(json!(first.outputs), outputs);

    let (bound, second) = scene.step("llm.plan", json!({})).await;
    assert_eq!(bound, Ok(None), "what is there costs nothing");
    let second = second.expect("the same");
    assert_eq!((second.cached, second.spent), (true, Amount::ZERO));
    assert_eq!((scene.calls().len(), &second.outputs), (1, &first.outputs));

    let record = first.artifacts[RECORD].parse().expect("a digest");
    let report = promote(scene.path(), &scene.store(), &[record]).expect("written");
    assert!(report.changed);
    std::fs::remove_dir_all(scene.path().join("cache")).expect("ours");
    let offline = scene.worker("llm.plan", false);
    let from_lock =
        offline.run(&inputs(json!({})), Amount::ZERO, &Stop::new()).await.expect("recorded");
    assert_eq!(from_lock.outputs, first.outputs);
    let other = inputs(json!({"prompt": "another"}));
    let (class, message, _) = failed(offline.run(&other, MUCH, &Stop::new()).await);
    assert_eq!(class, FailureClass::User);
    assert_eq!(message, "there is no recorded answer, and no endpoint to ask");
}

#[tokio::test]
async fn an_answer_too_long_for_the_lock_is_asked_for_where_it_is_not() {
    let long = "long ".repeat(20_000);
    let scene = Scene::new(vec![answer(&long), answer(&long)]);
    let first = scene.step("llm.plan", json!({})).await.1.expect("an answer");
    let record = first.artifacts[RECORD].parse().expect("a digest");
    promote(scene.path(), &scene.store(), &[record]).expect("written");
    for (calls, cached) in [(1, true), (2, false), (2, true)] {
        if !cached {
            std::fs::remove_dir_all(scene.path().join("cache")).expect("ours");
        }
        let told = scene.step("llm.plan", json!({})).await.1.expect("an answer");
        assert_eq!((scene.calls().len(), told.cached), (calls, cached));
    }
}

#[tokio::test]
async fn what_stands_in_the_prompt_is_in_the_key() {
    let scene = Scene::new(vec![answer("1"), answer("2"), answer("3")]);
    let from = |text: &str| {
        json!({
            "context_from": [
                {"step": "plan", "status": "succeeded", "outputs": {"text": text, "tokens": 7}},
                {"step": "scan", "outputs": {"level": "high"}},
            ],
            "context_files": ["a.md"], "system": "Be brief.",
        })
    };
    for (text, expect) in [("x", "1"), ("y", "2"), ("x", "1")] {
        let (_, told) = scene.step("llm.plan", from(text)).await;
        assert_eq!(told.expect("an answer").outputs["text"], expect, "{text}");
    }
    let messages = &scene.calls()[0]["messages"];
    assert_eq!(messages[0]["content"], "Be brief.");
    let prompt = "0123456789\n\n## plan\n\nx\n\n## scan\n\n{\n  \"level\": \"high\"\n}\
                  \n\n## a.md\n\ntext of a.md";
    assert_eq!(messages[1]["content"], prompt);
}

#[tokio::test]
async fn budgets_of_tokens_bound_prompt_and_answer() {
    let check = async |changes: Value, expect: Result<u64, &str>| {
        let scene = Scene::new(vec![answer("fine")]);
        let (bound, told) = scene.step("llm.plan", changes.clone()).await;
        match expect {
            Ok(tokens) => {
                told.expect("an answer");
                assert_eq!(scene.calls()[0]["max_tokens"], tokens, "{changes}");
            }
            Err(part) => {
                let failure = bound.expect_err("no room");
                assert_eq!(failure.class, FailureClass::Budget);
                assert!(failure.message.contains(part), "{}", failure.message);
                assert!(scene.calls().is_empty(), "{changes}");
            }
        }
    };
    check(json!({"budget_tokens": 100}), Ok(50)).await;
    check(json!({"budget_tokens": 92}), Ok(50)).await;
    check(json!({"budget_tokens": 91}), Err("the prompt may have 42 tokens and the answer 50"))
        .await;
    check(json!({"max_output_tokens": null}), Ok(4096)).await;
    check(json!({"max_output_tokens": null, "budget_tokens": 100}), Ok(58)).await;
    check(json!({"max_output_tokens": null, "budget_tokens": 42}), Err("the budget is 42")).await;
}

#[tokio::test]
async fn another_model_answers_where_the_first_is_down_and_what_nobody_saw_is_paid() {
    let down = || Reply::status(503, "", "{}");
    let broken = || Reply::stream("data: {\"choices\": []}\n\n");
    let spare = json!({"fallbacks": ["spare"]});
    let most = Amount { usd_micros: 542, tokens: 92 };
    let used = Amount { usd_micros: 200, tokens: 110 };
    let both = |a: Amount, b: Amount| Amount {
        usd_micros: a.usd_micros + b.usd_micros,
        tokens: a.tokens + b.tokens,
    };
    let check = async |replies: Vec<Reply>, expect: Result<Amount, (FailureClass, Amount)>| {
        let scene = Scene::new(replies);
        let (bound, told) = scene.step("llm.plan", spare.clone()).await;
        assert_eq!(bound, Ok(Some(both(most, most))));
        match expect {
            Ok(spent) => {
                let told = told.expect("the spare one answers");
                assert_eq!(
                    (told.spent, &told.outputs["model"]),
                    (spent, &json!("spare-2026-01-01"))
                );
            }
            Err((class, spent)) => {
                let (is, message, paid) = failed(told);
                assert_eq!((is, paid), (class, Some(spent)), "{message}");
            }
        }
    };
    check(vec![down(), answer("spare")], Ok(used)).await;
    check(vec![broken(), answer("spare")], Ok(both(most, used))).await;
    check(vec![down(), down()], Err((FailureClass::Infrastructure, Amount::ZERO))).await;
    check(vec![broken(), broken()], Err((FailureClass::Infrastructure, both(most, most)))).await;
    // What is wrong with the question is wrong for every model.
    let wrong = Reply::status(400, "", "{}");
    check(vec![wrong, answer("never")], Err((FailureClass::User, Amount::ZERO))).await;
    let slow_down = || Reply::status(429, "Retry-After: 7", "{}");
    let scene = Scene::new(vec![slow_down()]);
    let (_, told) = scene.step("llm.plan", json!({})).await;
    let failure = told.expect_err("no spare one").failure;
    assert_eq!((failure.class, failure.retry_after_ms), (FailureClass::RateLimit, Some(7000)));
}

#[tokio::test]
async fn a_patch_that_does_not_apply_is_paid_for_and_not_remembered() {
    let patch = |line: &str| format!("--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-{line}\n+new\n");
    let scene = Scene::new(vec![answer(&patch("other")), answer(&patch("old"))]);
    std::fs::write(scene.path().join("a.txt"), "old\n").expect("written");
    let ask = json!({"output": "diff.patch"});
    let (class, message, spent) = failed(scene.step("llm.generate", ask.clone()).await.1);
    assert_eq!(class, FailureClass::User);
    assert!(message.starts_with("the patch that the model wrote does not apply"), "{message}");
    assert_eq!(spent, Some(Amount { usd_micros: 200, tokens: 110 }));
    let told = scene.step("llm.generate", ask.clone()).await.1.expect("this one applies");
    assert_eq!(told.outputs["file"], "maestro-out/runs/r1/ask/diff.patch");
    let written = std::fs::read_to_string(scene.path().join("maestro-out/runs/r1/ask/diff.patch"));
    assert_eq!(written.expect("it is there"), patch("old"));
    for output in ["../x", "/etc/x", "a/../../x", ""] {
        let scene = Scene::new(Vec::new());
        let (bound, _) = scene.step("llm.generate", json!({"output": output})).await;
        let failure = bound.expect_err("no path");
        assert!(failure.message.contains("`output` is no path of a file"), "{output}");
        assert!(scene.calls().is_empty());
    }
}

#[tokio::test]
async fn a_review_decides() {
    let verdict = |verdict: &str| {
        let answer = json!({
            "verdict": verdict, "reasons": "Because.", "criteria": {"safe": "yes"},
        });
        self::answer(&answer.to_string())
    };
    let ask = json!({"criteria": {"safe": "Is it safe?"}, "require": true});
    let scene = Scene::new(vec![verdict("approve")]);
    let told = scene.step("llm.review", ask.clone()).await.1.expect("approved");
    assert_eq!(
        (&told.outputs["verdict"], &told.outputs["text"]),
        (&json!("approve"), &json!("Because."))
    );
    let format = &scene.calls()[0]["response_format"]["json_schema"]["schema"];
    assert_eq!(format["properties"]["criteria"]["required"], json!(["safe"]));
    let scene = Scene::new(vec![verdict("reject")]);
    let (class, message, _) = failed(scene.step("llm.review", ask.clone()).await.1);
    assert_eq!(
        (class, message.as_str()),
        (FailureClass::User, "the verdict is `reject`: Because.")
    );
    let scene = Scene::new(vec![answer("I like it")]);
    let (_, message, _) = failed(scene.step("llm.review", ask).await.1);
    assert!(message.contains("the answer is not JSON"), "{message}");
}

#[tokio::test]
async fn a_call_that_is_cancelled_counts_as_all_that_it_may_cost() {
    let scene = Scene::new(vec![Reply::silence()]);
    let (worker, inputs, stop) = (scene.worker("llm.plan", true), inputs(json!({})), Stop::new());
    let cancel = async {
        while scene.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (told, ()) = tokio::join!(worker.run(&inputs, MUCH, &stop), cancel);
    let (class, _, spent) = failed(told);
    assert_eq!((class, spent), (FailureClass::Cancelled, None));
}

#[tokio::test]
async fn who_asks_the_same_pays_once() {
    let scene = Scene::new(vec![answer("once")]);
    let (worker, inputs, stop) = (scene.worker("llm.plan", true), inputs(json!({})), Stop::new());
    let run = || worker.run(&inputs, MUCH, &stop);
    let (first, second, third) = tokio::join!(run(), run(), run());
    let all = [first, second, third].map(|told| told.expect("an answer"));
    let paid: u64 = all.iter().map(|success| success.spent.usd_micros).sum();
    assert_eq!((scene.calls().len(), paid), (1, 200));
    assert!(all.iter().all(|success| success.outputs["text"] == "once"));
}

#[tokio::test]
async fn what_was_not_reserved_is_not_asked() {
    // A record that was there when the budget was asked may be gone when the step runs.
    let scene = Scene::new(vec![answer("never")]);
    let worker = scene.worker("llm.plan", true);
    for reserved in [Amount::ZERO, Amount { usd_micros: 1_000_000, tokens: 91 }] {
        let told = worker.run(&inputs(json!({})), reserved, &Stop::new()).await;
        let (class, message, spent) = failed(told);
        assert_eq!((class, spent), (FailureClass::Infrastructure, Some(Amount::ZERO)));
        assert_eq!(message, "what it takes to ask has changed since it was reserved");
    }
    assert!(scene.calls().is_empty());
}

#[tokio::test]
async fn links_lead_nowhere() {
    let scene = Scene::new(vec![answer("text")]);
    let outside = TempDir::new().expect("a folder");
    std::fs::write(outside.path().join("schema.json"), "{}").expect("written");
    let link = |name: &str| {
        std::os::unix::fs::symlink(outside.path(), scene.path().join(name)).expect("a link");
    };
    link("elsewhere");
    let (bound, _) = scene.step("llm.plan", json!({"schema": "elsewhere/schema.json"})).await;
    assert!(bound.expect_err("a link").message.ends_with("/elsewhere` is a link"));
    link("maestro-out");
    let (_, told) = scene.step("llm.generate", json!({"output": "a.md"})).await;
    assert!(failed(told).1.ends_with("/maestro-out` is a link"));
    assert!(!outside.path().join("runs").exists());
}
