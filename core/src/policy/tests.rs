//! The port fails closed, and what is asked has one digest.

use serde_json::{Value, json};

use super::*;

fn question() -> Value {
    json!({
        "now": "2026-11-23T12:00:00Z",
        "run": {
            "id": "r1",
            "template": "release",
            "template_digest": DigestFunction::Sha256.digest(b"template").to_string(),
            "project": "intelgraph",
            "params": {"env": "prod", "dry": false, "replicas": 3, "regions": ["eu"]},
        },
        "initiator": {
            "id": "ada", "identity": {"kind": "local", "user": "ada"}, "roles": ["developer"],
        },
        "trigger": {"kind": "pull_request", "number": 7, "from_fork": true},
        "source": {"state": "commit", "commit": "c0ffee", "refs": ["main"]},
        "environment": {"tier": "production", "name": "prod"},
        "budget": {"state": "unlimited"},
    })
}

#[test]
fn an_input_round_trips_and_its_digest_covers_the_point() {
    let input = DecisionPoint::RunStart.read(question()).expect("it is complete");
    assert_eq!(input.point(), DecisionPoint::RunStart);
    assert_eq!(input.document().expect("JSON"), question());
    let digest = input.digest().expect("canonical");
    let mut other = question();
    other["budget"] = json!({"state": "limited", "micro_usd": 5_000_000, "tokens": 20_000});
    let other = DecisionPoint::RunStart.read(other).expect("it is complete");
    assert_ne!(digest, other.digest().expect("canonical"));
    assert_eq!(digest, input.digest().expect("canonical"));
}

#[test]
fn what_is_missing_or_unknown_is_an_error() {
    let check = |change: &dyn Fn(&mut Value), expect: &str| {
        let mut value = question();
        change(&mut value);
        let error = DecisionPoint::RunStart.read(value).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&|value| drop(value.as_object_mut().expect("object").remove("budget")), "`budget`");
    check(&|value| value["extra"] = json!(1), "`extra`");
    check(&|value| value["run"]["extra"] = json!(1), "`extra`");
    check(&|value| value["trigger"] = json!({"kind": "magic"}), "`magic`");
    check(&|value| value["trigger"] = json!({"kind": "push"}), "`branch`");
    check(&|value| value["budget"] = json!({"state": "unlimited", "tokens": 1}), "`tokens`");
    check(&|value| value["now"] = json!("today"), "`today`");
    check(&|value| value["environment"] = Value::Null, "null");
    assert!(DecisionPoint::Effect.read(question()).is_err());
}

#[test]
fn every_point_has_a_name_a_sentence_and_a_closed_schema() {
    for point in DecisionPoint::ALL {
        assert_eq!(DecisionPoint::parse(point.name()), Some(*point));
        assert!(point.about().ends_with('.'), "{}", point.about());
        let schema = point.schema();
        assert_eq!(schema["additionalProperties"], json!(false), "{}", point.name());
        let properties = schema["properties"].as_object().expect("an object");
        let required = schema["required"].as_array().expect("a list");
        assert_eq!(properties.len(), required.len(), "a field of `{}` is optional", point.name());
    }
}

#[test]
fn a_decision_in_a_journal_reads_back() {
    let digest = DigestFunction::Sha256.digest(b"x");
    let deny = Verdict::Deny { reasons: vec![Reason::new("code", "because")] };
    for verdict in [Verdict::Allow, deny] {
        let decision =
            Decision { point: DecisionPoint::Effect, verdict, policy: digest, input: digest };
        let text = serde_json::to_string(&decision).expect("JSON");
        assert_eq!(serde_json::from_str::<Decision>(&text).expect("a decision"), decision);
    }
    let broken =
        json!({"point": "effect", "verdict": "perhaps", "policy": digest, "input": digest});
    assert!(serde_json::from_value::<Decision>(broken).is_err());
    let empty = json!({
        "point": "effect", "verdict": "deny", "reasons": [], "policy": digest, "input": digest,
    });
    let empty: Decision = serde_json::from_value(empty).expect("a decision");
    assert!(!empty.is_allowed(), "a denial without reasons is one");
}
