//! Tests of the crate as a whole: what loads, what it decides, and what shipped policies do.

mod attacks;
mod decisions;
mod loading;
mod remarks;
mod shipped;

use maestro_core::policy::{DecisionPoint, Input};
use serde_json::{Value, json};

use crate::{LoadError, Policies, SourceFile, Sources};

/// Modules that are called `a.rego`, `b.rego` and so on.
fn sources(texts: &[&str]) -> Sources {
    let names = ('a'..='z').map(|letter| format!("{letter}.rego"));
    let modules = names.zip(texts).map(|(name, text)| SourceFile::new(&name, text));
    Sources { modules: modules.collect(), data: serde_json::Map::new() }
}

/// What is wrong with a module: codes, places and messages.
fn errors(text: &str) -> Vec<String> {
    told(Policies::load(&sources(&[text])).map(drop))
}

fn told(loaded: Result<(), LoadError>) -> Vec<String> {
    let LoadError(findings) = match loaded {
        Ok(()) => return Vec::new(),
        Err(error) => error,
    };
    let tell = |finding: &crate::Finding| {
        let place = finding.place.as_ref().map(|p| format!("{}:{}", p.line, p.column));
        format!("{} {} {}", finding.code, place.unwrap_or_default(), finding.message)
    };
    findings.iter().map(tell).collect()
}

/// Who did it.
fn person(id: &str, kind: &str) -> Value {
    let identity = match kind {
        "local" => json!({"kind": "local", "user": id}),
        _ => json!({"kind": "oidc", "issuer": "https://id.example.com", "subject": id}),
    };
    json!({"id": id, "identity": identity, "roles": ["release-manager"]})
}

fn digest(text: &str) -> String {
    maestro_core::DigestFunction::Sha256.digest(text.as_bytes()).to_string()
}

fn run() -> Value {
    json!({
        "id": "r1", "template": "release", "template_digest": digest("template"),
        "project": "intelgraph", "params": {"env": "prod"},
    })
}

/// A release to production with nothing wrong about it.
fn effect() -> Value {
    let approval = |id: &str| {
        json!({
            "gate": "go", "principal": person(id, "oidc"), "at": "2026-11-23T11:00:00Z",
            "state": "granted",
        })
    };
    let evidence =
        |kind: &str| json!({"kind": kind, "digest": digest(kind), "subject": digest("app")});
    let evidence = ["sbom", "provenance", "scan", "test_report"].map(evidence);
    json!({
        "now": "2026-11-23T12:00:00Z",
        "run": run(),
        "initiator": person("lin", "oidc"),
        "step": {"path": "push", "uses": "registry.push", "class": "effect"},
        "effect": {
            "request": digest("request"), "publishes": true, "far_side": "conditional",
            "generation": 0,
        },
        "environment": {"tier": "production", "name": "prod"},
        "checks": [{"step": "scan", "kind": "scan", "outcome": "passed"}],
        "scan": {
            "state": "done", "finished_at": "2026-11-23T10:00:00Z",
            "findings": {"critical": 0, "high": 0, "medium": 2, "low": 9},
        },
        "artifacts": [{
            "name": "app", "digest": digest("app"),
            "signature": {"state": "signed", "signer": "ci"},
        }],
        "evidence": evidence,
        "records": [{"step": "plan", "state": "attested"}],
        "approvals": [approval("ada"), approval("bob")],
    })
}

/// An effect with some fields of the good one changed; paths are JSON pointers.
fn effect_with(changes: &[(&str, Value)]) -> Input {
    let mut value = effect();
    for (pointer, change) in changes {
        *value.pointer_mut(pointer).expect(pointer) = change.clone();
    }
    DecisionPoint::Effect.read(value).expect("an input")
}
