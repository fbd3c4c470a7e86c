//! `maestro policy test`: as `opa test`, with its output.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use maestro_policy::{Coverage, TestOptions, TestOutcome, TestReport, TestResult};
use serde_json::{Value, json};

use crate::args::{Global, OutputFormat, PolicyTestArgs};
use crate::policies::failed;

/// Runs the command.
pub fn test(global: &Global, args: &PolicyTestArgs) -> Result<ExitCode> {
    let chosen = super::chosen(global, &args.paths, true)?;
    let options = TestOptions { filter: args.filter.as_deref(), coverage: args.coverage };
    let mut report = maestro_policy::test(&chosen.all, options).map_err(failed)?;
    let own = |file: &str| chosen.own.modules.iter().any(|module| *module.name == *file);
    report.coverage.retain(|coverage| own(&coverage.file));
    match global.output {
        OutputFormat::Json => println!("{}", object(&report)),
        _ => print(&report, global.verbose > 0),
    }
    let covered = percent(&report.coverage);
    let too_little = args.threshold.is_some_and(|threshold| covered < threshold);
    if too_little {
        let threshold = args.threshold.unwrap_or_default();
        eprintln!("error: {covered:.1} % of the lines were evaluated, {threshold:.1} % are wanted");
    }
    if report.tests.is_empty() {
        eprintln!("error: there are no tests");
        eprintln!("hint: a test is a rule such as `test_denies_x if …` in a file `…_test.rego`");
        return Ok(ExitCode::from(2));
    }
    let passed = report.tests.iter().all(|test| is_fine(&test.outcome));
    Ok(ExitCode::from(u8::from(!passed || too_little)))
}

fn is_fine(outcome: &TestOutcome) -> bool {
    matches!(outcome, TestOutcome::Passed | TestOutcome::Skipped)
}

fn print(report: &TestReport, all: bool) {
    let mut file = None;
    for test in report.tests.iter().filter(|test| all || !is_fine(&test.outcome)) {
        if file != Some(&test.place.file) {
            println!("{}:", test.place.file);
            file = Some(&test.place.file);
        }
        println!("{}: {}", test.name, line(test));
        for text in &test.prints {
            println!("  {text}");
        }
    }
    if file.is_some() {
        println!("{}", "-".repeat(80));
    }
    let all = report.tests.len();
    for (word, outcome) in [("PASS", 0), ("FAIL", 1), ("ERROR", 2), ("SKIPPED", 3)] {
        let count = report.count(|own| rank(own) == outcome);
        if count > 0 || outcome == 0 {
            println!("{word}: {count}/{all}");
        }
    }
    for coverage in &report.coverage {
        print_coverage(coverage);
    }
    if report.coverage.len() > 1 {
        println!("coverage: {:.1} %", percent(&report.coverage));
    }
}

fn rank(outcome: &TestOutcome) -> usize {
    match outcome {
        TestOutcome::Passed => 0,
        TestOutcome::Failed => 1,
        TestOutcome::Broken(_) => 2,
        TestOutcome::Skipped => 3,
    }
}

fn line(test: &TestResult) -> String {
    let took = duration(test.duration);
    match &test.outcome {
        TestOutcome::Passed => format!("PASS ({took})"),
        TestOutcome::Failed => format!("FAIL ({took}) at {}", test.place),
        TestOutcome::Broken(why) => format!("ERROR ({took})\n  {why}"),
        TestOutcome::Skipped => "SKIPPED".to_owned(),
    }
}

fn duration(duration: Duration) -> String {
    match duration.as_micros() {
        us @ 0..1000 => format!("{us} µs"),
        us => format!("{}.{} ms", us / 1000, us % 1000 / 100),
    }
}

fn print_coverage(coverage: &Coverage) {
    let left = ranges(coverage.not_covered.iter().copied());
    let left = if left.is_empty() { String::new() } else { format!("  not evaluated: {left}") };
    println!("{}: {:.1} %{left}", coverage.file, coverage.percent());
}

/// `1-3, 7` for 1, 2, 3 and 7.
fn ranges(lines: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    let show = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

fn percent(files: &[Coverage]) -> f64 {
    let whole = Coverage {
        file: String::new(),
        covered: numbered(files.iter().map(|file| file.covered.len())),
        not_covered: numbered(files.iter().map(|file| file.not_covered.len())),
    };
    whole.percent()
}

/// As many numbers as there are in all.
fn numbered(counts: impl Iterator<Item = usize>) -> std::collections::BTreeSet<u32> {
    (0..u32::try_from(counts.sum::<usize>()).unwrap_or(u32::MAX)).collect()
}

fn object(report: &TestReport) -> Value {
    let test = |test: &TestResult| {
        let (outcome, error) = match &test.outcome {
            TestOutcome::Passed => ("pass", None),
            TestOutcome::Failed => ("fail", None),
            TestOutcome::Broken(why) => ("error", Some(why)),
            TestOutcome::Skipped => ("skipped", None),
        };
        json!({
            "name": test.name,
            "file": test.place.file,
            "line": test.place.line,
            "outcome": outcome,
            "error": error,
            "duration_us": u64::try_from(test.duration.as_micros()).unwrap_or(u64::MAX),
            "prints": test.prints,
        })
    };
    let coverage = |file: &Coverage| {
        json!({
            "file": file.file,
            "percent": file.percent(),
            "covered": file.covered,
            "not_covered": file.not_covered,
        })
    };
    json!({
        "tests": report.tests.iter().map(test).collect::<Vec<_>>(),
        "coverage": report.coverage.iter().map(coverage).collect::<Vec<_>>(),
    })
}
