//! `maestro policy explain`: a decision with the rules behind it.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::limits::POLICY_INPUT_BYTES_MAX;
use maestro_core::policy::{DecisionPoint, Input};
use maestro_policy::{Explanation, Policies, RuleResult, RuleTrace};
use serde_json::{Value, json};

use super::point;
use crate::args::{Global, OutputFormat, PolicyExplainArgs};
use crate::exit::Failure;
use crate::policies::failed;

/// Runs the command.
pub fn explain(global: &Global, args: &PolicyExplainArgs) -> Result<ExitCode> {
    let point = point(&args.point)?;
    let input = read(point, args)?;
    let chosen = super::chosen(global, &args.paths, false)?;
    let policies = Policies::load(&chosen.all).map_err(failed)?;
    let explanation = policies.explain(&input);
    match global.output {
        OutputFormat::Json => println!("{}", object(&explanation)?),
        _ => print(&explanation),
    }
    Ok(ExitCode::from(u8::from(!explanation.decision.is_allowed())))
}

fn read(point: DecisionPoint, args: &PolicyExplainArgs) -> Result<Input> {
    let name = args.input.display();
    let mut text = String::new();
    let limit = POLICY_INPUT_BYTES_MAX as u64 + 1;
    let read = match args.input.as_os_str() == "-" {
        true => std::io::stdin().take(limit).read_to_string(&mut text),
        false => {
            File::open(&args.input).and_then(|file| file.take(limit).read_to_string(&mut text))
        }
    };
    let read = read.with_context(|| format!("cannot read `{name}`"));
    let size = read.map_err(|error| Failure::input(format!("{error:#}")))?;
    if size > POLICY_INPUT_BYTES_MAX {
        let message = format!("`{name}` is larger than {POLICY_INPUT_BYTES_MAX} bytes");
        return Err(Failure::input(message).into());
    }
    let value: Result<Value, _> = serde_json::from_str(&text);
    let input = value.and_then(|value| point.read(value));
    let wrong = |error: serde_json::Error| {
        let point = point.name();
        Failure::input(format!("`{name}` is no input of `{point}`: {error}"))
            .hint(format!("`maestro policy schema {point}` prints what it looks like"))
    };
    Ok(input.map_err(wrong)?)
}

fn print(explanation: &Explanation) {
    let Explanation { decision, rules, prints } = explanation;
    let verdict = if decision.is_allowed() { "allow" } else { "deny" };
    println!("{}: {verdict}", decision.point.name());
    for reason in decision.reasons() {
        println!("  {}: {}", reason.code, reason.message);
    }
    println!("rules");
    for rule in rules {
        println!("  {}  {}: {}", rule.place, rule.name, said(rule));
    }
    if !prints.is_empty() {
        println!("printed");
        prints.iter().for_each(|text| println!("  {text}"));
    }
    println!("policy {}", decision.policy);
    println!("input  {}", decision.input);
}

fn said(rule: &RuleTrace) -> String {
    match &rule.result {
        RuleResult::Denied(reasons) => {
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            format!("denies, {}", codes.join(", "))
        }
        RuleResult::Allowed => "allows".to_owned(),
        RuleResult::Silent => "does not apply".to_owned(),
        RuleResult::Failed(why) => format!("failed: {why}"),
    }
}

fn object(explanation: &Explanation) -> Result<Value> {
    let rule = |rule: &RuleTrace| {
        let (result, reasons, error) = match &rule.result {
            RuleResult::Denied(reasons) => ("denied", reasons.as_slice(), None),
            RuleResult::Allowed => ("allowed", &[][..], None),
            RuleResult::Silent => ("silent", &[][..], None),
            RuleResult::Failed(why) => ("failed", &[][..], Some(why)),
        };
        json!({
            "rule": rule.name,
            "file": rule.place.file,
            "line": rule.place.line,
            "column": rule.place.column,
            "result": result,
            "reasons": reasons,
            "error": error,
        })
    };
    Ok(json!({
        "decision": serde_json::to_value(&explanation.decision)?,
        "rules": explanation.rules.iter().map(rule).collect::<Vec<_>>(),
        "prints": explanation.prints,
    }))
}
