//! `maestro lint`: what should be written otherwise in `.star` files, and mends what can be.

use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::host::Host;
use maestro_rules::{
    Diagnostic, FileKind, LINTS, UnusedDep, fix, lint, lint_of, unused_deps, without_deps,
};
use serde_json::{Value, json};

use crate::args::{Global, LintArgs, OutputFormat};
use crate::config::Config;
use crate::repos;
use crate::sarif;
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
    let unused = match args.deps && failed == 0 {
        true => deps(&files, &host),
        false => Ok(Vec::new()),
    };
    // What was found in the texts is told, also where a package cannot be evaluated.
    let evaluated = unused.and_then(|unused| {
        let left = match args.fix {
            true => mend(&files, unused, &mut fixed)?,
            false => unused.into_iter().map(|unused| unused.finding).collect(),
        };
        findings.extend(left);
        Ok(())
    });
    report(global, args, &findings, &fixed)?;
    evaluated?;
    Ok(match (failed, findings.is_empty()) {
        (1.., _) => ExitCode::from(2),
        (0, false) => ExitCode::from(1),
        (0, true) => ExitCode::SUCCESS,
    })
}

/// The dependencies that nothing uses in the packages among some files.
fn deps(files: &[StarFile], host: &dyn Host) -> Result<Vec<UnusedDep>> {
    let packages = files.iter().filter(|file| FileKind::of(&file.name) == FileKind::Package);
    let folder =
        |file: &StarFile| file.name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let folders: Vec<String> = packages.map(folder).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = unused_deps(host, &folders, threads);
    found.map_err(|list| {
        crate::load::failure(&list, "kept lint from looking at dependencies").into()
    })
}

/// Takes dependencies out of their files; what is left is returned.
fn mend(
    files: &[StarFile],
    unused: Vec<UnusedDep>,
    fixed: &mut Vec<String>,
) -> Result<Vec<Diagnostic>> {
    let (mendable, left): (Vec<UnusedDep>, Vec<UnusedDep>) =
        unused.into_iter().partition(UnusedDep::is_mendable);
    for file in files {
        let own: Vec<UnusedDep> =
            mendable.iter().filter(|unused| unused.file == file.name).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let better = without_deps(&file.name, &read(file)?, &own).map_err(Box::new)?;
        replace(&file.path, &better)?;
        if !fixed.contains(&file.name) {
            fixed.push(file.name.clone());
        }
    }
    Ok(left.into_iter().map(|unused| unused.finding).collect())
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
        let pairs = findings.iter().map(|finding| (finding, None));
        let log = sarif::log("maestro lint", &rules(), pairs);
        println!("{}", serde_json::to_string_pretty(&log)?);
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

/// What the linter looks for.
fn rules() -> Vec<sarif::Rule> {
    let rule = |lint: &'static maestro_rules::Lint| sarif::Rule {
        id: lint.code,
        name: Some(lint.name),
        about: lint.about.to_owned(),
        help: lint.advice.to_owned(),
    };
    LINTS.iter().map(rule).collect()
}
