//! Arguments of `policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Subcommands of `policy`.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Runs the tests of policies: rules called `test_…`, as `opa test` does.
    Test(PolicyTestArgs),
    /// Decides a question from a file, and says which rules did; exits with 1 where they deny.
    Explain(PolicyExplainArgs),
    /// Finds what keeps policies from loading, and what should be written otherwise.
    Lint(PolicyLintArgs),
    /// Prints a policy that comes with Maestro, or lists them.
    Show(PolicyShowArgs),
    /// Prints the JSON Schema of what a decision point knows, or lists the points.
    Schema(PolicySchemaArgs),
}

/// Arguments of `policy test`.
#[derive(Args, Debug)]
pub struct PolicyTestArgs {
    /// Files and folders [default: `paths` of `[policy]` in `maestro.toml`].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Runs only tests whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Counts the lines of each file that tests evaluated.
    #[arg(long)]
    pub coverage: bool,
    /// Exits with 1 where less than so many percent of the lines were evaluated.
    #[arg(long, value_name = "PERCENT", requires = "coverage")]
    pub threshold: Option<f64>,
}

/// Arguments of `policy explain`.
#[derive(Args, Debug)]
pub struct PolicyExplainArgs {
    /// Files and folders [default: `paths` of `[policy]` in `maestro.toml`].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The question, as JSON; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The decision point: run_start, step_start, effect or approval.
    #[arg(long, value_name = "POINT")]
    pub point: String,
}

/// Arguments of `policy lint`.
#[derive(Args, Debug)]
pub struct PolicyLintArgs {
    /// Files and folders [default: `paths` of `[policy]` in `maestro.toml`].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Arguments of `policy show`.
#[derive(Args, Debug)]
pub struct PolicyShowArgs {
    /// The policy [default: lists them].
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Prints its tests.
    #[arg(long, requires = "name")]
    pub tests: bool,
    /// Prints an example of the data that the policies of the library read.
    #[arg(long, conflicts_with_all = ["name", "tests"])]
    pub data: bool,
}

/// Arguments of `policy schema`.
#[derive(Args, Debug)]
pub struct PolicySchemaArgs {
    /// The decision point [default: lists them].
    #[arg(value_name = "POINT")]
    pub point: Option<String>,
}
