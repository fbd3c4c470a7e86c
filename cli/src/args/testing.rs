//! The flags of `maestro test`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::BuildArgs;

/// Arguments of `test`.
#[derive(Args, Debug, Clone)]
pub struct TestArgs {
    /// What to build and how.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Which tests run, and how.
    #[command(flatten)]
    pub flags: TestFlags,
}

/// Flags of `test`.
#[derive(Args, Debug, Clone)]
pub struct TestFlags {
    /// Which of its cases a test runs; it reads this from TESTBRIDGE_TEST_ONLY.
    #[arg(long, value_name = "TEXT", help_heading = "Tests")]
    pub test_filter: Option<String>,
    /// An argument for each test, after those of its rule; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true, help_heading = "Tests")]
    pub test_arg: Vec<String>,
    /// An environment variable for each test; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Tests")]
    pub test_env: Vec<String>,
    /// How often each test runs; every run counts.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000),
        help_heading = "Tests"
    )]
    pub runs_per_test: u32,
    /// Runs tests with one of these tags; `-TAG` leaves out those that have it.
    #[arg(
        long,
        value_name = "TAGS",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Tests"
    )]
    pub test_tag_filters: Vec<String>,
    /// Runs tests of one of these sizes; `-SIZE` leaves them out.
    #[arg(
        long,
        value_name = "SIZES",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Tests"
    )]
    pub test_size_filters: Vec<String>,
    /// Whose logs are shown.
    #[arg(long, value_name = "WHICH", default_value = "errors", help_heading = "Tests")]
    pub test_output: TestOutput,
    /// Writes the results of all tests as JUnit's XML.
    #[arg(long, value_name = "FILE", help_heading = "Tests")]
    pub junit: Option<PathBuf>,
    /// Has tests write coverage to COVERAGE_OUTPUT_FILE, and puts all of it into one lcov trace.
    #[arg(long, value_name = "FILE", help_heading = "Tests")]
    pub coverage: Option<PathBuf>,
}

/// Whose logs `test` shows.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestOutput {
    /// Nobody's: verdicts only.
    Summary,
    /// Those of tests that do not pass.
    Errors,
    /// Everybody's.
    All,
}
