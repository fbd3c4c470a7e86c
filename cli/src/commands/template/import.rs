//! `maestro template import`: translates the dialect of `.maestro/pipeline.yaml`.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::event::Severity;
use maestro_rules::pipeline;
use serde_json::{Value, json};

use super::new::write_new;
use crate::args::{Global, OutputFormat, TemplateImportArgs};
use crate::pipelines;

/// Runs the command. What could not be translated is told on standard error; ends with 1 where
/// that changes what the pipeline does, and with 2 where there is none.
pub fn import(global: &Global, args: &TemplateImportArgs) -> Result<ExitCode> {
    let name = args.file.display().to_string();
    let text = pipelines::read(&args.file, &name)?;
    let imported = pipeline::import(&name, &text, "imported");
    if global.output == OutputFormat::Json {
        let findings: Vec<Value> = imported
            .findings
            .iter()
            .map(|found| {
                let place = found.diagnostic.location.as_ref();
                json!({
                    "code": found.diagnostic.code,
                    "severity": found.diagnostic.severity,
                    "message": found.diagnostic.message,
                    "line": place.map(|p| p.line),
                    "column": place.map(|p| p.column),
                    "hints": found.diagnostic.hints,
                })
            })
            .collect();
        println!("{}", json!({"text": imported.text, "findings": findings}));
    } else {
        for found in &imported.findings {
            eprintln!("{}\n", found.diagnostic);
        }
    }
    let Some(text) = &imported.text else { return Ok(ExitCode::from(2)) };
    match &args.out {
        Some(path) => {
            write_new(path, text)?;
            eprintln!("wrote {}", path.display());
        }
        None if global.output == OutputFormat::Json => {}
        None => print!("{text}"),
    }
    let error = imported.findings.iter().any(|f| f.diagnostic.severity == Severity::Error);
    Ok(ExitCode::from(u8::from(error)))
}
