//! Tests of policies: rules called `test_…`, as OPA runs them.
//!
//! A test passes if its value is true. One whose name begins with `todo_test_` is left out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use maestro_core::limits::POLICY_TEST_MS_MAX;
use regorus::Value;

use crate::engine::{Deadline, Engine, EvaluationError, on_own_stack};
use crate::error::{LoadError, Place};
use crate::index::{Index, SKIPPED_PREFIX, TEST_PREFIX};
use crate::policies::{Analyzed, analyzed};
use crate::sources::Sources;
use crate::syntax::place;

/// What came of all tests.
#[derive(Clone, Debug, Default)]
pub struct TestReport {
    /// Each test, by file and line.
    pub tests: Vec<TestResult>,
    /// Each file without tests and the lines that were evaluated, if that was asked for.
    pub coverage: Vec<Coverage>,
}

/// What came of one test.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// Its path, such as `data.maestro.effect.test_x`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What came of it.
    pub outcome: TestOutcome,
    /// How long it took.
    pub duration: Duration,
    /// What `print` said in it.
    pub prints: Vec<String>,
}

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestOutcome {
    /// Its value is true.
    Passed,
    /// Its value is something else, or it has none.
    Failed,
    /// It has no value because of an error.
    Broken(String),
    /// It was left out.
    Skipped,
}

/// The lines of a file that tests evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The file.
    pub file: String,
    /// Lines that were evaluated.
    pub covered: BTreeSet<u32>,
    /// Lines that were not.
    pub not_covered: BTreeSet<u32>,
}

impl Coverage {
    /// The share of lines that were evaluated, in percent; 100 where there is none to evaluate.
    pub fn percent(&self) -> f64 {
        let (covered, all) = (self.covered.len(), self.covered.len() + self.not_covered.len());
        if all == 0 { 100.0 } else { 100.0 * covered as f64 / all as f64 }
    }
}

impl TestReport {
    /// How many tests came to an outcome.
    pub fn count(&self, outcome: impl Fn(&TestOutcome) -> bool) -> usize {
        self.tests.iter().filter(|test| outcome(&test.outcome)).count()
    }
}

/// Which tests to run, and what to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestOptions<'a> {
    /// Only tests whose path contains this text.
    pub filter: Option<&'a str>,
    /// Whether lines are counted.
    pub coverage: bool,
}

/// Runs the tests among some policies; these need not be able to decide anything.
pub fn test(sources: &Sources, options: TestOptions<'_>) -> Result<TestReport, LoadError> {
    let Analyzed { engine, index, errors, .. } = analyzed(sources)?;
    if !errors.is_empty() {
        return Err(LoadError(errors));
    }
    let run = || run(engine.clone(), &index, options);
    Ok(on_own_stack(run).unwrap_or_default())
}

fn run(mut engine: Engine, index: &Index, options: TestOptions<'_>) -> TestReport {
    if options.coverage {
        engine.count_lines();
    }
    let mut report = TestReport::default();
    for (name, place) in tests(index) {
        if options.filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let begin = Instant::now();
        let outcome = one(&mut engine, &name);
        let (duration, prints) = (begin.elapsed(), engine.prints());
        report.tests.push(TestResult { name, place, outcome, duration, prints });
    }
    let lines = if options.coverage { engine.lines() } else { Vec::new() };
    report.coverage = lines
        .into_iter()
        .filter(|file| !file.path.ends_with("_test.rego"))
        .map(|file| Coverage {
            file: file.path,
            covered: file.covered,
            not_covered: file.not_covered,
        })
        .collect();
    report.coverage.sort_by(|left, right| left.file.cmp(&right.file));
    report
}

/// The path and place of each test; rules that share a path are one test.
fn tests(index: &Index) -> Vec<(String, Place)> {
    let mut seen = BTreeSet::new();
    let mut tests = Vec::new();
    for rule in &index.rules {
        let is_test =
            rule.name().starts_with(TEST_PREFIX) || rule.name().starts_with(SKIPPED_PREFIX);
        let name = format!("data.{}", rule.path.join("."));
        if is_test && seen.insert(name.clone()) {
            tests.push((name, place(rule.span())));
        }
    }
    tests.sort_by(|left, right| left.1.cmp(&right.1));
    tests
}

fn one(engine: &mut Engine, name: &str) -> TestOutcome {
    if name.rsplit('.').next().is_some_and(|last| last.starts_with(SKIPPED_PREFIX)) {
        return TestOutcome::Skipped;
    }
    match engine.rule(name, Deadline::in_ms(POLICY_TEST_MS_MAX)) {
        Ok(Value::Bool(true)) => TestOutcome::Passed,
        Ok(_) => TestOutcome::Failed,
        Err(EvaluationError::Timeout) => {
            TestOutcome::Broken(format!("took longer than {POLICY_TEST_MS_MAX} ms"))
        }
        Err(EvaluationError::Failed(why)) => TestOutcome::Broken(why),
    }
}
