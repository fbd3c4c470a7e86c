//! `maestro template lint`: what is wrong with pipelines, as text, JSON or SARIF.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::event::Severity;
use maestro_rules::error_pages;
use maestro_rules::pipeline::{Checked, Defaults, Finding, apply_fixes};
use serde_json::{Value, json};

use crate::args::{Global, OutputFormat, TemplateLintArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::pipelines;
use crate::runs::registry::cannot_run;
use crate::sarif;
use crate::star_files::{FoundFile, replace};

/// Most rounds of mending: what a wrong key hid is seen once the key is right.
const FIX_ROUNDS_MAX: usize = 8;

/// Runs the command. Ends with 1 where errors or warnings are left; notes stop nothing.
pub fn lint(global: &Global, args: &TemplateLintArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let defaults = pipelines::defaults(&config)?;
    let files = pipelines::find(&config, &args.paths)?;
    if files.is_empty() {
        return Err(Failure::input("there is no `*.pipeline.yaml` here")
            .hint("`maestro template new` writes one")
            .into());
    }
    let (mut findings, mut fixed) = (Vec::new(), Vec::new());
    for file in &files {
        let mut checked = pipelines::load(&config, file, &defaults)?;
        if args.fix && mend(&config, file, &defaults, &mut checked)? {
            fixed.push(file.name.clone());
        }
        checked.note_steps(&cannot_run);
        findings.append(&mut checked.findings);
    }
    report(global, args, &files, &findings, &fixed)?;
    let notes = |found: &Finding| found.diagnostic.severity == Severity::Info;
    Ok(ExitCode::from(u8::from(!findings.iter().all(notes))))
}

/// Mends a file as far as it goes; whether anything changed.
fn mend(
    config: &Config,
    file: &FoundFile,
    defaults: &Defaults,
    checked: &mut Checked,
) -> Result<bool> {
    let before = pipelines::read(&file.path, &file.name)?;
    let mut text = before.clone();
    for _ in 0..FIX_ROUNDS_MAX {
        let Some(better) = apply_fixes(&file.name, &text, &checked.findings) else { break };
        text = better;
        *checked = pipelines::check(config, &file.name, &text, defaults);
    }
    if text != before {
        replace(&file.path, &text)?;
    }
    Ok(text != before)
}

fn report(
    global: &Global,
    args: &TemplateLintArgs,
    files: &[FoundFile],
    findings: &[Finding],
    fixed: &[String],
) -> Result<()> {
    if args.sarif || global.output == OutputFormat::Sarif {
        let pairs = findings.iter().map(|found| (&found.diagnostic, found.fix.as_ref()));
        println!(
            "{}",
            serde_json::to_string_pretty(&sarif::log("maestro template lint", &rules(), pairs))?
        );
        return Ok(());
    }
    if global.output == OutputFormat::Json {
        let findings: Vec<Value> = findings.iter().map(object).collect();
        println!("{}", json!({"findings": findings, "fixed": fixed}));
        return Ok(());
    }
    for found in findings {
        println!("{}\n", found.diagnostic);
    }
    for file in fixed {
        eprintln!("mended {file}");
    }
    let count = |severity: Severity| {
        findings.iter().filter(|found| found.diagnostic.severity == severity).count()
    };
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let files = plural(files.len(), "pipeline");
    match (count(Severity::Error), count(Severity::Warning), count(Severity::Info)) {
        (0, 0, 0) => eprintln!("{files}: nothing to mend"),
        (0, 0, notes) => eprintln!("{files}: nothing to mend, {}", plural(notes, "note")),
        (errors, warnings, _) => {
            let mendable = findings.iter().filter(|found| found.fix.is_some()).count();
            eprintln!("{files}: {}, {}", plural(errors, "error"), plural(warnings, "warning"));
            if mendable > 0 && !args.fix {
                eprintln!("hint: `--fix` mends {mendable} of them");
            }
        }
    }
    Ok(())
}

/// What the codes of pipelines mean.
fn rules() -> Vec<sarif::Rule> {
    let pages = error_pages().into_iter().filter(|(code, _)| code.starts_with("MAE06"));
    pages
        .map(|(id, page)| {
            let title = page.lines().next().unwrap_or_default();
            let about = title.trim_start_matches(&format!("# {id}: ")).to_owned();
            let help = page.lines().last().unwrap_or_default().to_owned();
            sarif::Rule { id, name: None, about, help }
        })
        .collect()
}

fn object(found: &Finding) -> Value {
    let finding = &found.diagnostic;
    let place = finding.location.as_ref();
    json!({
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "file": place.map(|p| p.file.to_string()),
        "line": place.map(|p| p.line),
        "column": place.map(|p| p.column),
        "end_line": place.map(|p| p.end_line),
        "end_column": place.map(|p| p.end_column),
        "related": finding.trace,
        "hints": finding.hints,
        "fix": found.fix.as_ref().map(|fix| {
            json!({"start": fix.range.start, "end": fix.range.end, "text": fix.text})
        }),
    })
}
