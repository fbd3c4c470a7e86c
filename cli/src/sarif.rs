//! Findings in SARIF 2.1.0, which code hosts show beside the lines of a change.

use maestro_core::event::Severity;
use maestro_rules::Diagnostic;
use maestro_rules::pipeline::Fix;
use serde_json::{Value, json};

/// A kind of finding.
pub struct Rule {
    /// Its code.
    pub id: &'static str,
    /// Its name, where it has one.
    pub name: Option<&'static str>,
    /// What it finds.
    pub about: String,
    /// What to do.
    pub help: String,
}

/// The log of one run of a tool.
pub fn log<'a>(
    tool: &str,
    rules: &[Rule],
    findings: impl IntoIterator<Item = (&'a Diagnostic, Option<&'a Fix>)>,
) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let mut described = json!({
                "id": rule.id,
                "shortDescription": {"text": rule.about},
                "help": {"text": rule.help},
            });
            if let Some(name) = rule.name {
                described["name"] = name.into();
            }
            described
        })
        .collect();
    let results: Vec<Value> = findings.into_iter().map(|(found, fix)| result(found, fix)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": tool,
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(finding: &Diagnostic, fix: Option<&Fix>) -> Value {
    let level = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    let places: Vec<Value> = finding
        .location
        .iter()
        .map(|place| {
            json!({"physicalLocation": {
                "artifactLocation": {"uri": place.file.to_string()},
                "region": {
                    "startLine": place.line,
                    "startColumn": place.column,
                    "endLine": place.end_line,
                    "endColumn": place.end_column,
                },
            }})
        })
        .collect();
    let mut result = json!({
        "ruleId": finding.code,
        "level": level,
        "message": {"text": finding.message},
        "locations": places,
    });
    if let Some(fix) = fix {
        result["fixes"] = json!([{"artifactChanges": [{
            "artifactLocation": {"uri": fix.file.to_string()},
            "replacements": [{
                "deletedRegion": {"byteOffset": fix.range.start, "byteLength": fix.range.len()},
                "insertedContent": {"text": fix.text},
            }],
        }]}]);
    }
    result
}
