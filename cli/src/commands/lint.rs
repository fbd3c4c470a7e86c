//! `maestro lint`: what should be written otherwise in `.star` files, and mends what can be.

use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::event::Severity;
use maestro_rules::{Diagnostic, LINTS, fix, lint, lint_of};
use serde_json::{Value, json};

use crate::args::{Global, LintArgs, OutputFormat};
use crate::config::Config;
use crate::repos;
use crate::star_files::{StarFile, find, replace};

/// Runs the command.
pub fn run(global: &Global, args: &LintArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let files = find(&config.workspace, &args.paths)?;
    let host = repos::unlocked_host(&config)?;
    let (mut findings, mut fixed, mut failed) = (Vec::new(), Vec::new(), 0_usize);
    for file in &files {
        let result = read(file).and_then(|text| {
            let mut text = text;
            if args.fix {
                let better = fix(&host, &file.name, &text).map_err(Box::new)?;
                if better != text {
                    replace(&file.path, &better)?;
                    fixed.push(file.name.clone());
                    text = better;
                }
            }
            Ok(lint(&host, &file.name, &text).map_err(Box::new)?)
        });
        match result {
            Ok(found) => findings.extend(found),
            Err(error) => {
                failed += 1;
                match error.downcast_ref::<Box<Diagnostic>>() {
                    Some(diagnostic) => eprintln!("{diagnostic}"),
                    None => eprintln!("error: {error:#}"),
                }
            }
        }
    }
    report(global, args, &findings, &fixed)?;
    Ok(match (failed, findings.is_empty()) {
        (1.., _) => ExitCode::from(2),
        (0, false) => ExitCode::from(1),
        (0, true) => ExitCode::SUCCESS,
    })
}

fn read(file: &StarFile) -> Result<String> {
    std::fs::read_to_string(&file.path).with_context(|| format!("cannot read `{}`", file.name))
}

fn report(
    global: &Global,
    args: &LintArgs,
    findings: &[Diagnostic],
    fixed: &[String],
) -> Result<()> {
    if args.sarif {
        println!("{}", serde_json::to_string_pretty(&sarif(findings))?);
    } else if global.output == OutputFormat::Json {
        let findings: Vec<Value> = findings.iter().map(object).collect();
        println!("{}", json!({"findings": findings, "fixed": fixed}));
    } else {
        for finding in findings {
            println!("{finding}\n");
        }
        for file in fixed {
            eprintln!("mended {file}");
        }
        if findings.is_empty() {
            eprintln!("nothing to mend");
        } else {
            let count = findings.len();
            eprintln!("{count} {}", if count == 1 { "finding" } else { "findings" });
        }
    }
    Ok(())
}

fn object(finding: &Diagnostic) -> Value {
    let place = finding.location.as_ref();
    json!({
        "code": finding.code,
        "name": lint_of(finding.code).map(|lint| lint.name),
        "severity": finding.severity,
        "message": finding.message,
        "file": place.map(|p| p.file.to_string()),
        "line": place.map(|p| p.line),
        "column": place.map(|p| p.column),
        "end_line": place.map(|p| p.end_line),
        "end_column": place.map(|p| p.end_column),
        "hints": finding.hints,
    })
}

/// SARIF 2.1.0, which code hosts show beside the lines of a change.
fn sarif(findings: &[Diagnostic]) -> Value {
    let rules: Vec<Value> = LINTS
        .iter()
        .map(|lint| {
            json!({
                "id": lint.code,
                "name": lint.name,
                "shortDescription": {"text": lint.about},
                "help": {"text": lint.advice},
            })
        })
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
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
            json!({
                "ruleId": finding.code,
                "level": level,
                "message": {"text": finding.message},
                "locations": places,
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "maestro lint",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}
