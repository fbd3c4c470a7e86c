//! Webhooks at a server that answers, refuses, breaks off, and tries to harm.

#[path = "support/server.rs"]
mod server;

use std::net::TcpListener;
use std::sync::Arc;

use maestro_core::run::FailureClass;
use maestro_deliver::{Secret, SecretError, Secrets, Webhook};
use maestro_executor::step::{Effect as _, Reply, Stop};
use serde_json::{Value, json};
use server::{Say, Server};

const KEY: &str = "00ff";

struct OneSecret;

impl Secrets for OneSecret {
    fn get(&self, name: &str) -> Result<Secret, SecretError> {
        match name {
            "token" => Ok(Secret::new("It's a Secret to Everybody\n")),
            _ => Err(SecretError::Missing { name: name.into(), hint: "tests have one".into() }),
        }
    }
}

fn webhook() -> Webhook {
    Webhook::new(Arc::new(OneSecret)).expect("a client")
}

fn inputs(url: &str, changes: Value) -> Value {
    let mut inputs = json!({"url": url, "method": "POST", "timeout": "10s"});
    for (name, value) in changes.as_object().expect("an object") {
        inputs[name] = value.clone();
    }
    inputs
}

async fn send(url: &str, changes: Value) -> Reply {
    let webhook = webhook();
    let request = webhook.render(&inputs(url, changes)).expect("a request");
    webhook.send(&request, KEY, &Stop::new()).await
}

/// The sort of a reply, the class of its failure, how long it asks to wait, and its words.
fn sort(reply: &Reply) -> (&'static str, Option<FailureClass>, Option<u64>, String) {
    match reply {
        Reply::Done(_) => ("done", None, None, String::new()),
        Reply::Refused(f) => ("refused", Some(f.class), f.retry_after_ms, f.message.clone()),
        Reply::Unclear(f) => ("unclear", Some(f.class), f.retry_after_ms, f.message.clone()),
    }
}

#[tokio::test]
async fn a_message_is_signed_and_carries_its_key() {
    let server = Server::start(|_| Say::status(204));
    let changes = json!({
        "body": "Hello, World!", "secret": "token", "headers": {"X-Team": "web"},
    });
    let Reply::Done(success) = send(&server.url, changes).await else { panic!("not done") };
    assert_eq!(json!(success.outputs), json!({"status_code": 204}));
    let seen = server.seen().pop().expect("a request");
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((seen.method.as_str(), seen.body.as_str()), ("POST", "Hello, World!"));
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(header("x-maestro-signature-256"), Some(signature));
    assert_eq!(header("idempotency-key"), Some(KEY));
    assert_eq!(header("x-maestro-delivery"), Some(KEY));
    assert_eq!(header("x-team"), Some("web"));
    assert_eq!(header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(header("user-agent").is_some_and(|agent| agent.starts_with("maestro/")));
}

#[test]
fn a_request_is_the_same_text_each_time_and_has_no_secret() {
    let changes = json!({"body": {"b": 1, "a": [2]}, "secret": "token"});
    let request = webhook().render(&inputs("https://h.example/x", changes)).expect("a request");
    assert_eq!(
        request,
        r#"{"effect":"notify.webhook","request":{"body":"{\"a\":[2],\"b\":1}","headers":{"content-type":"application/json"},"method":"POST","secret":"token","timeout_ms":10000,"url":"https://h.example/x"},"version":1}"#
    );
}

#[tokio::test]
async fn each_answer_means_one_thing() {
    use FailureClass::{Infrastructure, RateLimit, User};
    let server = Server::start(|seen| {
        let status = seen.path.trim_start_matches('/').parse().expect("a status");
        let headers = vec!["Retry-After: 7".into(), "Location: http://127.0.0.1:1/x".into()];
        Say::Answer(status, headers, "why\r\nnot".into())
    });
    let check = async |status: u16, expected: &str, class: Option<FailureClass>| {
        let reply = send(&format!("{}/{status}", server.url), json!({})).await;
        let (is, is_class, wait, words) = sort(&reply);
        assert_eq!((is, is_class), (expected, class), "{status}");
        if class.is_some() {
            assert_eq!(wait, Some(7_000), "{status}");
            assert!(words.ends_with(&format!("(status {status}: why not)")), "{words}");
        }
    };
    for status in [200, 202, 299] {
        check(status, "done", None).await;
    }
    for status in [301, 302, 307, 400, 401, 404, 413, 422] {
        check(status, "refused", Some(User)).await;
    }
    check(408, "refused", Some(Infrastructure)).await;
    check(425, "refused", Some(RateLimit)).await;
    check(429, "refused", Some(RateLimit)).await;
    for status in [409, 500, 502, 503, 504] {
        check(status, "unclear", Some(Infrastructure)).await;
    }
    let wanted = 3 + 8 + 3 + 5;
    assert_eq!(server.seen().len(), wanted, "no redirect was followed");
}

#[tokio::test]
async fn what_may_have_been_heard_is_unclear_and_what_was_not_is_refused() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let reply = send(&format!("http://{closed}"), json!({})).await;
    assert_eq!(sort(&reply).0, "refused", "{reply:?}");
    let reply = send("http://no-such-host.invalid", json!({})).await;
    assert_eq!(sort(&reply).0, "refused", "{reply:?}");
    let server = Server::start(|seen| if seen.path == "/drop" { Say::Drop } else { Say::Hang });
    let reply = send(&format!("{}/drop", server.url), json!({})).await;
    assert_eq!(sort(&reply).0, "unclear", "{reply:?}");
    let reply = send(&format!("{}/hang", server.url), json!({"timeout": "300ms"})).await;
    let (is, _, _, words) = sort(&reply);
    assert_eq!(is, "unclear");
    assert!(words.contains("longer than 300 ms"), "{words}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_and_its_status_counts() {
    let server = Server::start(|_| Say::Endless);
    assert_eq!(sort(&send(&server.url, json!({})).await).0, "done");
}

#[tokio::test]
async fn a_cancelled_call_ends_at_once_and_says_whether_it_was_made() {
    let server = Server::start(|_| Say::Hang);
    let webhook = webhook();
    let request = webhook.render(&inputs(&server.url, json!({}))).expect("a request");
    let stop = Stop::new();
    let call = webhook.send(&request, KEY, &stop);
    let cancel = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (reply, ()) = tokio::join!(call, cancel);
    assert_eq!((sort(&reply).0, sort(&reply).1), ("unclear", Some(FailureClass::Cancelled)));
    let reply = webhook.send(&request, KEY, &stop).await;
    assert_eq!((sort(&reply).0, sort(&reply).1), ("refused", Some(FailureClass::Cancelled)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_secret_that_is_missing_is_said_before_anything_is_sent() {
    let server = Server::start(|_| Say::status(200));
    let reply = send(&server.url, json!({"secret": "other"})).await;
    assert_eq!(sort(&reply).3, "there is no secret `other`; tests have one");
    assert!(server.seen().is_empty());
}

#[test]
fn hostile_inputs_are_refused() {
    let check = |changes: Value, part: &str| {
        let failure = webhook().render(&inputs("http://h.example/", changes)).expect_err("refused");
        assert!(failure.message.contains(part), "{}", failure.message);
    };
    check(json!({"headers": {"X-A": "b\r\nX-Admin: 1"}}), "line breaks");
    check(json!({"headers": {"X-A\r\nX-B": "c"}}), "characters");
    check(json!({"headers": {"Host": "elsewhere"}}), "set by Maestro itself");
    check(json!({"headers": {"Idempotency-Key": "1"}}), "set by Maestro itself");
    check(json!({"headers": {"X-Maestro-Signature-256": "1"}}), "set by Maestro itself");
    check(json!({"url": "file:///etc/passwd"}), "only `http` and `https`");
    check(json!({"url": "http://me:pw@h.example/"}), "credentials");
    check(json!({"method": "DELETE"}), "do not fit");
    check(json!({"timeout": "0s"}), "`timeout`");
    check(json!({"timeout": "9000d"}), "`timeout`");
    check(json!({"body": "x".repeat(2 * 1024 * 1024)}), "makes a request of");
}
