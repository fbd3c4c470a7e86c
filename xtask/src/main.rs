//! `cargo xtask`: everything that is done with this repository besides editing it.
//!
//! It is not part of Maestro: it depends on no Maestro crate, and what it knows of the program it
//! learns from the command line, as users do.
//! It has few dependencies, so that it builds on a machine where nothing is installed yet.

mod bench;
mod crates;
mod demo;
mod machine;
mod packages;
mod peer;
mod process;
mod project;
mod suite;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::project::Project;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo      install what the demo needs, build Maestro, build Intelgraph with it four times
            [--maestro PROGRAM]: use this binary
  test      install what the tests need and run the whole suite
  peer      install the model and the proxy of tests, and print the variables that name them
  setup     install what building, testing and benchmarking need
  crates    write the list of crates from which Maestro builds its own core
  tidy      check the rules of the house: crate edges, sizes, names, links, layout of the code
  bless     run the suite and rewrite the golden files that differ
  bench     compare Maestro with ninja and Bazel, write docs/performance.md
            [--size N,..] [--runs N] [--out FILE] [--maestro PROGRAM]
  help      print this

The environment variable CARGO_TARGET_DIR says where things are built; the default is
$HOME/.cache/maestro-build/target.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    if !rest.is_empty() && !matches!(command.as_str(), "bench" | "demo") {
        bail!("`{command}` takes no arguments, see `cargo xtask help`");
    }
    let project = Project::find()?;
    match command.as_str() {
        "demo" => demo::run(&project, rest),
        "test" => suite::run(&project, suite::Golden::Compare),
        "bless" => suite::run(&project, suite::Golden::Rewrite),
        "setup" => {
            machine::install(machine::Purpose::Everything)?;
            Ok(ExitCode::SUCCESS)
        }
        "peer" => {
            machine::install(machine::Purpose::Test)?;
            let peer = peer::prepare(&project)?;
            println!("export MAESTRO_MODEL_PEER={}", peer.folder.display());
            println!("export MAESTRO_MODEL={}", peer.model.display());
            println!("export MAESTRO_CADDY={}", peer::caddy(&project)?.display());
            println!("export MAESTRO_LITELLM={}", peer::litellm(&project)?.display());
            println!("export MAESTRO_BUILDBOX={}", peer::buildbox(&project)?.display());
            println!("export PATH={}", peer.path.to_string_lossy());
            Ok(ExitCode::SUCCESS)
        }
        "crates" => {
            crates::write(&project)?;
            Ok(ExitCode::SUCCESS)
        }
        "tidy" => tidy::run(&project),
        "bench" => bench::run(&project, rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("`{other}` is not a command, see `cargo xtask help`"),
    }
}
