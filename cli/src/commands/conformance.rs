//! `maestro conformance ENDPOINT`: how a server does on each line of REAPI.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use maestro_remote::conformance::{self, Area, Check, ConnectError, LINES, Line, Report, Target};
use serde_json::{Value, json};

use super::serve::read_pem;
use crate::args::{ConformanceArgs, ReportForm};
use crate::exit::{Failure, chain};

/// The version of the JSON report; another one where a field changes its meaning.
const REPORT_VERSION: u32 = 1;
/// Kinds of verdicts, in the order in which they are counted.
const KINDS: [&str; 4] = ["passed", "policy", "not-offered", "failed"];

/// Runs the command.
pub fn conformance(args: &ConformanceArgs) -> Result<ExitCode> {
    check_ids(&args.only)?;
    let target = Target {
        endpoint: args.endpoint.clone(),
        instance: args.instance.clone(),
        headers: pairs("--remote-header", &args.remote_header)?,
        tls_ca: args.tls_ca.as_deref().map(read_pem).transpose()?,
        platform: pairs("--platform", &args.platform)?,
    };
    let wanted = |line: &Line| args.only.is_empty() || args.only.iter().any(|id| stands(id, line));
    let mut area = None;
    let each = |check: &Check| {
        if args.report == ReportForm::Text {
            print_check(check, &mut area);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime.block_on(conformance::run(target, wanted, each)).map_err(failure)?;
    match args.report {
        ReportForm::Text => println!("\n{}", summary(&report)),
        ReportForm::Json => println!("{}", serde_json::to_string_pretty(&to_json(&report))?),
    }
    Ok(if report.count("failed") == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn failure(error: ConnectError) -> anyhow::Error {
    let text = chain(&error);
    match error {
        ConnectError::Target(_) => Failure::input(text)
            .hint("a server on this machine is, for example, `grpc://127.0.0.1:8980`")
            .into(),
        ConnectError::Unreachable { .. } | ConnectError::Silent { .. } => {
            Failure::environment(text).into()
        }
    }
}

/// Whether an id of the command line stands for a line.
fn stands(id: &str, line: &Line) -> bool {
    line.id == id || (id.len() == 1 && line.id.starts_with(id))
}

fn check_ids(ids: &[String]) -> Result<()> {
    for id in ids {
        if !LINES.iter().any(|line| stands(id, line)) {
            let known: Vec<&str> = LINES.iter().map(|line| line.id).collect();
            return Err(Failure::input(format!("`{id}` is not the id of a line"))
                .hint(format!("there are {}", known.join(", ")))
                .into());
        }
    }
    Ok(())
}

fn pairs(flag: &str, texts: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    let fail = |text| Failure::input(format!("`{flag}={text}` is not `{flag}=NAME=VALUE`")).into();
    texts.iter().map(|text| pair(text).ok_or_else(|| fail(text))).collect()
}

fn print_check(check: &Check, area: &mut Option<Area>) {
    let Check { line, verdict } = check;
    if *area != Some(line.area) {
        let gap = if area.is_some() { "\n" } else { "" };
        println!("{gap}{}", line.area.title());
        *area = Some(line.area);
    }
    println!("  {}  {:<11}  {}", line.id, verdict.kind(), line.title);
    if !verdict.detail().is_empty() {
        println!("{:20}{}", "", verdict.detail());
    }
}

fn summary(report: &Report) -> String {
    let counts = KINDS.map(|kind| format!("{} {kind}", report.count(kind))).join(", ");
    let functions: Vec<&str> = report.functions.iter().map(|one| one.name()).collect();
    format!("{counts}; REAPI {} with {}", report.versions, functions.join(" and "))
}

fn to_json(report: &Report) -> Value {
    let counts = KINDS.map(|kind| (kind.to_owned(), json!(report.count(kind))));
    let check = |check: &Check| {
        json!({
            "id": check.line.id,
            "area": check.line.area.title(),
            "title": check.line.title,
            "verdict": check.verdict.kind(),
            "detail": check.verdict.detail(),
        })
    };
    let functions: Vec<&str> = report.functions.iter().map(|function| function.name()).collect();
    json!({
        "version": REPORT_VERSION,
        "endpoint": report.endpoint,
        "api_versions": report.versions,
        "digest_functions": functions,
        "counts": Value::Object(counts.into_iter().collect()),
        "checks": report.checks.iter().map(check).collect::<Vec<_>>(),
    })
}
