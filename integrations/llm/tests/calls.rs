//! The client against servers that behave in every way that servers do.
//!
//! Each server is a thread with a list of replies, one for each connection to the chat route;
//! descriptions of models are answered from constants. Nothing leaves the loopback interface.

#[path = "support/server.rs"]
mod server;
#[path = "support/step.rs"]
mod step;

use std::time::Duration;

use maestro_executor::records::{Live, LiveAnswer, LiveError, ModelPin, Question};
use maestro_executor::runner::Cancel;
use maestro_llm::{LlmClient, LlmOptions, Price};
use serde_json::{Value, json};
use server::{Reply, Server};
use step::{Step, request};

const FREE: Price = Price::LOCAL;

fn client(server: &Server) -> LlmClient {
    let mut options = LlmOptions::new(server.url());
    options.price = Some(FREE);
    options.backoff = Duration::from_millis(1);
    options.api_key = Some("secret-key".into());
    LlmClient::new(options).expect("a loopback endpoint")
}

fn pin() -> ModelPin {
    ModelPin { name: Some("m-2026-01-01".into()), ..ModelPin::default() }
}

fn ask(server: &Server, request: Value) -> Result<LiveAnswer, LiveError> {
    let step = Step::new(request, &[("p/in.txt", "the context")]);
    client(server).ask(&step.question(), &pin(), &Cancel::default())
}

fn chunk(content: &str, finish: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": {"content": content}, "finish_reason": finish});
    format!("data: {}\n\n", json!({"id": "1", "model": "m", "choices": [choice]}))
}

fn usage(prompt: u64, completion: u64) -> String {
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion});
    format!("data: {}\n\ndata: [DONE]\n\n", json!({"choices": [], "usage": usage}))
}

fn good() -> String {
    format!("{}{}{}", chunk("Grüße ", None), chunk("aus Köln", Some("stop")), usage(12, 4))
}

#[test]
fn an_answer_is_the_same_in_every_cut() {
    for cut in [1, 2, 3, 7, 4096] {
        let server = Server::start(vec![Reply::stream(&good()).cut(cut)]);
        let answer = ask(&server, request()).expect("a whole answer");
        let expect = LiveAnswer {
            text: "Grüße aus Köln".into(),
            finish_reason: "stop".into(),
            prompt_tokens: 12,
            completion_tokens: 4,
            cost_usd_micros: 0,
        };
        assert_eq!(answer, expect, "cut at {cut}");
    }
}

#[test]
fn the_request_is_what_was_keyed() {
    let server = Server::start(vec![Reply::stream(&good())]);
    let mut asked = request();
    asked["schema"] = json!({"type": "object"});
    ask(&server, asked).expect("a whole answer");
    let seen = server.requests();
    let [(head, body)] = seen.as_slice() else { panic!("one call, not {}", seen.len()) };
    assert!(head.contains("authorization: Bearer secret-key"), "{head}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["messages"][1]["content"], "Read:\nthe context");
    let expect = json!({"model": "m", "seed": 42, "temperature": 0, "max_tokens": 64,
        "stream": true, "stream_options": {"include_usage": true},
        "response_format": {"type": "json_schema", "json_schema":
            {"name": "answer", "strict": true, "schema": {"type": "object"}}}});
    for (name, value) in expect.as_object().expect("an object") {
        assert_eq!(body.get(name), Some(value), "{name}");
    }
    assert!(body.get("step").is_none() && body.get("sample").is_none());
}

#[test]
fn passing_trouble_is_tried_again() {
    let trouble = || {
        let cut_off = Reply::stream(&chunk("half an ans", None));
        let failed = Reply::stream(&format!(
            "{}data: {}\n\n",
            chunk("half", None),
            json!({"error": {"message": "out of memory", "type": "server_error"}})
        ));
        let busy = Reply::status(429, "Retry-After: 0", r#"{"error":{"message":"slow down"}}"#);
        [("cut off", cut_off), ("failed", failed), ("busy", busy), ("closed", Reply::close())]
    };
    for (name, reply) in trouble() {
        let server = Server::start(vec![reply, Reply::stream(&good())]);
        assert_eq!(ask(&server, request()).expect(name).text, "Grüße aus Köln", "{name}");
        assert_eq!(server.requests().len(), 2, "{name}");
    }
    let down = || Reply::status(503, "", "<html>down</html>");
    let server = Server::start(vec![down(), down(), down(), down(), Reply::stream(&good())]);
    let error = ask(&server, request()).expect_err("four attempts");
    assert!(error.message.contains("answered 503: <html>down</html>"), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn an_attempt_that_may_have_been_charged_is_told() {
    let check = |replies: Vec<Reply>, asked: bool| {
        let server = Server::start(replies);
        let error = ask(&server, request()).expect_err("no answer");
        assert_eq!(error.asked, asked, "{error}");
    };
    let refused = || Reply::status(401, "", r#"{"error":{"message":"wrong key"}}"#);
    let down = || Reply::status(503, "", "down");
    check(vec![refused()], false);
    check(vec![down(), down(), down(), down()], false);
    check(vec![Reply::close(), refused()], true);
    check(vec![Reply::stream(&chunk("half", None)), down(), refused()], true);
    check(vec![Reply::stream(&format!("{}{}", chunk("x", Some("length")), usage(1, 64)))], true);
}

#[test]
fn a_call_is_bounded_by_its_prompt_its_answer_and_its_attempts() {
    let server = Server::start(Vec::new());
    let mut options = LlmOptions::new(server.url());
    let (input_usd_micros_per_mtok, output_usd_micros_per_mtok) = (1_000_000, 2_000_000);
    options.price = Some(Price { input_usd_micros_per_mtok, output_usd_micros_per_mtok });
    let attempts = u64::from(options.attempts);
    let client = LlmClient::new(options).expect("a loopback endpoint");
    let step = Step::new(request(), &[("p/in.txt", "the context")]);
    let question = step.question();
    let bound = client.bound(&question, &pin(), &Cancel::default()).expect("it is known");
    let messages = question.messages();
    let bytes: usize = messages.iter().map(|(_, text)| text.len()).sum();
    let (prompt, answer) = ((bytes + 32 * messages.len()) as u64, 64);
    assert!(bytes > "the context".len(), "the context is a part of the prompt");
    assert_eq!(bound.tokens, attempts * (prompt + answer));
    assert_eq!(bound.usd_micros, attempts * (prompt + 2 * answer));
}

#[test]
fn what_is_no_answer_is_an_error_at_once() {
    let check = |reply: Reply, expect: &str| {
        let server = Server::start(vec![reply, Reply::stream(&good())]);
        let error = ask(&server, request()).expect_err(expect);
        assert!(error.message.contains(expect), "{error}\ndoes not say\n{expect}");
        assert_eq!(server.requests().len(), 1, "{expect}");
    };
    let stream = |parts: &[String]| Reply::stream(&parts.concat());
    check(
        stream(&[chunk("too lo", Some("length")), usage(1, 64)]),
        "was cut off after 64 tokens (`max_tokens` is 64)",
    );
    check(stream(&[chunk("", Some("content_filter")), usage(1, 0)]), "refused to answer");
    check(stream(&[chunk(" \n", Some("stop")), usage(1, 1)]), "gave an empty answer");
    check(stream(&[chunk("a", Some("tool_calls")), usage(1, 1)]), "ended with `tool_calls`");
    check(stream(&[chunk("a", Some("stop"))]), "does not count tokens");
    check(Reply::stream("data: {\"choices\": [}\n\n"), "does not answer as a chat API does");
    check(Reply::stream("data: \u{1b}[31mred\n\n"), "in ` [31mred`");
    check(
        Reply::status(400, "", r#"{"error":{"message":"no such model"}}"#),
        "answered 400: no such model",
    );
    check(
        Reply::status(429, "", r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#),
        "answered 429: pay",
    );
    check(Reply::status(302, "Location: http://127.0.0.1:9/", ""), "answered 302");
    let refusal = json!({"choices": [{"index": 0, "delta": {"refusal": "I cannot"},
        "finish_reason": "stop"}]});
    check(Reply::stream(&format!("data: {refusal}\n\n{}", usage(1, 1))), "refused to answer: I c");
}

#[test]
fn a_server_that_does_not_stream_is_understood() {
    let body = json!({"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "whole"}}]});
    let server = Server::start(vec![Reply::json(&body.to_string())]);
    assert_eq!(ask(&server, request()).expect("whole").text, "whole");
}

#[test]
fn an_older_form_of_schemas_is_tried() {
    let refused = r#"{"error":{"message":"unknown response_format type json_schema"}}"#;
    let server = Server::start(vec![Reply::status(400, "", refused), Reply::stream(&good())]);
    let mut asked = request();
    asked["schema"] = json!({"type": "object"});
    ask(&server, asked).expect("the second form");
    let seen = server.requests();
    let body: Value = serde_json::from_str(&seen[1].1).expect("JSON");
    let expect = json!({"type": "json_object", "schema": {"type": "object"}});
    assert_eq!(body["response_format"], expect);
}

#[test]
fn floods_are_bounded() {
    let line = Reply::endless(b"data: ", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    let server = Server::start(vec![line]);
    let error = ask(&server, request()).expect_err("a line without end");
    assert!(error.message.contains("more than"), "{error}");
    let piece = chunk(&"x".repeat(100_000), None);
    let server = Server::start(vec![Reply::endless(b"", piece.as_bytes())]);
    let error = ask(&server, request()).expect_err("an answer without end");
    assert!(error.message.contains("the answer of `m` has more than 4194304 bytes"), "{error}");
}

#[test]
fn waits_end() {
    let step = Step::new(request(), &[("p/in.txt", "x")]);
    let server = Server::start(vec![Reply::silence()]);
    let mut options = LlmOptions::new(server.url());
    options.price = Some(FREE);
    options.timeout = Duration::from_millis(300);
    let slow = LlmClient::new(options).expect("a loopback endpoint");
    let error = slow.ask(&step.question(), &pin(), &Cancel::default()).expect_err("silence");
    assert!(error.message.contains("gave no answer within"), "{error}");
    let server = Server::start(vec![Reply::silence()]);
    let cancel = Cancel::default();
    cancel.cancel();
    let error = client(&server).ask(&step.question(), &pin(), &cancel).expect_err("cancelled");
    assert!(error.cancelled);
}

#[test]
fn nothing_is_asked_while_its_price_is_unknown() {
    let step = Step::new(request(), &[("p/in.txt", "x")]);
    let ask = |server: &Server, pin: &ModelPin| {
        let client = LlmClient::new(LlmOptions::new(server.url())).expect("an endpoint");
        client.ask(&step.question(), pin, &Cancel::default())
    };
    let server = Server::start(vec![Reply::stream(&good())]);
    let error = ask(&server, &pin()).expect_err("no price");
    assert!(error.message.contains("the price of `m` at"), "{error}");
    assert!(error.hints[0].contains("--price"), "{:?}", error.hints);
    assert_eq!(server.requests().len(), 0);

    let priced = ModelPin {
        price_input_usd_micros_per_mtok: Some(1_000_000),
        price_output_usd_micros_per_mtok: Some(2_000_000),
        ..pin()
    };
    assert_eq!(ask(&server, &priced).expect("priced").cost_usd_micros, 12 + 2 * 4);

    let info = json!({"data": [{"model_name": "m",
        "litellm_params": {"model": "openai/m-2026-01-01"},
        "model_info": {"input_cost_per_token": 2e-6, "output_cost_per_token": 3e-6}}]});
    let server = Server::start(vec![Reply::stream(&good())]).info(info);
    assert_eq!(ask(&server, &pin()).expect("the gateway tells").cost_usd_micros, 24 + 12);

    let told = json!({"choices": [], "usage":
        {"prompt_tokens": 1, "completion_tokens": 1, "cost": 1.35e-5}});
    let stream = format!("{}data: {told}\n\ndata: [DONE]\n\n", chunk("a", Some("stop")));
    let server = Server::start(vec![Reply::stream(&stream)]);
    assert_eq!(ask(&server, &priced).expect("told").cost_usd_micros, 14);
}

#[test]
fn another_model_than_the_pinned_one_is_refused() {
    let step = Step::new(request(), &[("p/in.txt", "x")]);
    let weights = |hash: &str| json!({"data": [{"id": "m", "meta": {"sha256": hash}}]});
    let (ours, theirs) = ("ab".repeat(32), "cd".repeat(32));
    let pinned = ModelPin { sha256: Some(ours.parse().expect("a hash")), ..ModelPin::default() };
    let asks = |server: &Server, pin: &ModelPin, question: &Question| {
        client(server).ask(question, pin, &Cancel::default()).map_err(|e| e.message)
    };
    let server = Server::start(vec![Reply::stream(&good())]).models(weights(&theirs));
    let error = asks(&server, &pinned, &step.question()).expect_err("other weights");
    assert!(error.contains("`m` is pinned to `sha256:abab"), "{error}");
    assert_eq!(server.requests().len(), 0, "refused before the call");

    let server = Server::start(vec![Reply::stream(&good())])
        .models(weights(&ours))
        .models_after_call(weights(&theirs));
    let error = asks(&server, &pinned, &step.question()).expect_err("changed meanwhile");
    assert!(error.contains("but `sha256:cdcd"), "{error}");

    let stamped = good().replace("\"model\":\"m\"", "\"model\":\"m-2025-12-31\"");
    let server = Server::start(vec![Reply::stream(&stamped)]);
    let error = asks(&server, &pin(), &step.question()).expect_err("another snapshot");
    assert!(error.contains("but `name:m-2025-12-31` answers"), "{error}");

    let local = Server::start(vec![Reply::stream(&good())]).models(weights(&ours));
    let free = LlmClient::new(LlmOptions::new(local.url())).expect("an endpoint");
    let answer = free.ask(&step.question(), &pinned, &Cancel::default()).expect("local is free");
    assert_eq!(answer.cost_usd_micros, 0);
    let seen = free.identify("m", &Cancel::default()).expect("told").expect("has weights");
    assert_eq!(seen.pin.identity(), Some(format!("sha256:{ours}")));
}
