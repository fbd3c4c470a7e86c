//! `cargo xtask test` and `cargo xtask bless`: everything that must hold before a change is kept.
//!
//! One road on every machine: set up, build, lint, run all tests with `cargo test`, and tell the
//! demo's story with the binary of the tests.
//! The last line is `N passed, N failed`; the lints and the demo count as one test each.
//! Tests that need another user drop to it by themselves when the suite runs as root.

use std::process::ExitCode;

use anyhow::Result;

use crate::demo;
use crate::machine::{self, Purpose};
use crate::packages;
use crate::peer;
use crate::process;
use crate::project::Project;

/// What tests do with golden files that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Golden {
    /// Fail and show the difference.
    Compare,
    /// Rewrite them, for a person to review.
    Rewrite,
}

/// Tests counted so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Variables that change what Maestro does; tests set those that they mean.
pub(crate) const USER_SETTINGS: [&str; 5] =
    ["CI", "MAESTRO_CACHE", "MAESTRO_LLM_API_KEY", "MAESTRO_LLM_ENDPOINT", "MAESTRO_LOG"];

/// Runs the whole suite.
pub(crate) fn run(project: &Project, golden: Golden) -> Result<ExitCode> {
    machine::install(Purpose::Test)?;
    // Maestro builds itself out of cargo's downloads, those for other systems included.
    process::run(project.cargo().args(["fetch", "--locked"]))?;
    packages::download(project)?;
    let binary = project.build_tests()?;
    let peer = peer::prepare(project)?;
    let (caddy, litellm) = (peer::caddy(project)?, peer::litellm(project)?);
    let buildbox = peer::buildbox(project)?;
    let mut tally = Tally::default();

    let mut clippy = project.cargo();
    clippy.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    tally.add(process::run(&mut clippy).is_ok());

    let mut tests = project.cargo();
    tests
        .args(["test", "--locked", "--workspace", "--no-fail-fast"])
        .env("MAESTRO_BIN", &binary)
        .env("MAESTRO_MODEL_PEER", &peer.folder)
        .env("MAESTRO_MODEL", &peer.model)
        .env("MAESTRO_CADDY", &caddy)
        .env("MAESTRO_LITELLM", &litellm)
        .env("MAESTRO_BUILDBOX", &buildbox)
        .env("PATH", &peer.path);
    for name in USER_SETTINGS {
        tests.env_remove(name);
    }
    if golden == Golden::Rewrite {
        tests.env("MAESTRO_BLESS", "1");
    }
    let mut in_tests = Tally::default();
    let success = process::watch(&mut tests, |line| in_tests.read(line))?;
    if !success && in_tests.failed == 0 {
        // It did not compile, or a test program died before it could count.
        in_tests.failed = 1;
    }
    tally.passed += in_tests.passed;
    tally.failed += in_tests.failed;

    let demo = demo::tell(project, &binary);
    if let Err(error) = &demo {
        eprintln!("error: {error:#}");
    }
    tally.add(demo.is_ok());

    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tally {
    fn add(&mut self, passed: bool) {
        if passed { self.passed += 1 } else { self.failed += 1 }
    }

    /// Reads a line such as `test result: ok. 12 passed; 1 failed; 0 ignored; …`.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out",
            "test prints::test result: ok. 9 passed",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 14, failed: 3 });
    }
}
