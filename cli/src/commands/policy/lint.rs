//! `maestro policy lint`: errors and remarks, as text or JSON.

use std::process::ExitCode;

use anyhow::Result;
use maestro_policy::Finding;
use serde_json::{Value, json};

use crate::args::{Global, OutputFormat, PolicyLintArgs};

/// Runs the command.
pub fn lint(global: &Global, args: &PolicyLintArgs) -> Result<ExitCode> {
    let chosen = super::chosen(global, &args.paths, true)?;
    let mut findings = maestro_policy::lint(&chosen.all);
    findings.retain(|finding| super::is_own(&chosen, finding));
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    match global.output {
        OutputFormat::Json => {
            let findings: Vec<Value> = findings.iter().map(object).collect();
            println!("{}", json!({"findings": findings}));
        }
        _ => {
            findings.iter().for_each(|finding| println!("{finding}"));
            let files = chosen.own.modules.len();
            let files = if files == 1 { "1 file".into() } else { format!("{files} files") };
            eprintln!("{files}, {errors} errors, {} warnings", findings.len() - errors);
        }
    }
    Ok(match (errors, findings.is_empty()) {
        (1.., _) => ExitCode::from(2),
        (0, false) => ExitCode::from(1),
        (0, true) => ExitCode::SUCCESS,
    })
}

fn object(finding: &Finding) -> Value {
    let place = finding.place.as_ref();
    json!({
        "code": finding.code.as_str(),
        "severity": if finding.is_error() { "error" } else { "warning" },
        "message": finding.message,
        "file": place.map(|place| &place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "hints": finding.hints,
    })
}
