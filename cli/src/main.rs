//! The `maestro` binary: arguments, configuration, wiring, printing, exit codes.
//!
//! The only crate that prints, exits, or reads the environment. What it wires together: the front
//! end (`maestro-rules`), the store (`maestro-cas`), the engine with its runners
//! (`maestro-executor`) and the integrations.

mod allocator;
mod args;
mod budget;
mod commands;
mod config;
mod console;
mod counts;
mod daemon;
mod diff;
mod downloads;
mod evaluation;
mod exit;
mod increment;
mod invocation;
mod load;
mod markup;
mod memory;
mod null_build;
mod output_groups;
mod pipelines;
mod policies;
mod profile;
mod profiles;
mod remote;
mod report;
mod repos;
mod request;
mod runners;
mod runs;
mod sarif;
mod signals;
mod sinks;
mod star_files;
mod test_logs;
mod testing;
mod verdicts;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use maestro_executor::sandbox::{SERVER_ARGUMENT, spawn_server_main};

use args::{Cli, Command, OutputFormat, TemplateCommand};
use commands::runs::AtGate;

/// The exit code of a program that SIGPIPE ended, as a shell tells it.
const BROKEN_PIPE: u8 = 128 + 13;

#[global_allocator]
static ALLOCATOR: allocator::Bounded = allocator::Bounded;

fn main() -> ExitCode {
    // The spawn server is this same binary; it must start small and single-threaded.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == SERVER_ARGUMENT) {
        spawn_server_main();
    }
    std::panic::set_hook(Box::new(|panic| {
        // Whoever read our output has read enough, as `head` does: no fault of ours.
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(i32::from(BROKEN_PIPE));
        }
        eprintln!("error: internal error: {panic}");
        eprintln!("hint: this is a bug in Maestro; please report it with the lines above");
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    start_log(cli.global.verbose);
    let outcome = std::panic::catch_unwind(|| dispatch(&cli));
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) if is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Ok(Err(error)) => exit::report(&error),
        Err(_) => ExitCode::from(maestro_core::FailureKind::Internal.exit_code()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>()?;
        Some(error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.chain().any(|cause| io(cause) == Some(true))
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    if let Some(form) = global.output.query_form()
        && !matches!(cli.command, Command::Query(_) | Command::Cquery(_) | Command::Aquery(_))
    {
        return Err(exit::Failure::input(format!("`--output {form}` is a form of queries only"))
            .hint("other commands write `text` or `json`")
            .into());
    }
    let lints = matches!(cli.command, Command::Template(TemplateCommand::Lint(_)));
    if global.output == OutputFormat::Sarif && !lints {
        return Err(exit::Failure::input("`--output sarif` is a form of `template lint` only")
            .hint("other commands write `text` or `json`")
            .into());
    }
    match &cli.command {
        Command::Build(args) => commands::build::build(global, args),
        Command::Test(args) => commands::build::test(global, args),
        Command::Run(args) => commands::run::run(global, args),
        Command::Status(args) => commands::runs::status(global, args),
        Command::Logs(args) => commands::runs::logs(global, args, false),
        Command::Watch(args) => commands::runs::logs(global, args, true),
        Command::Cancel(args) => commands::runs::cancel(args),
        Command::Approve(args) => commands::runs::at_gate(args, AtGate::Approve),
        Command::Reject(args) => commands::runs::at_gate(args, AtGate::Reject),
        Command::Revoke(args) => commands::runs::at_gate(args, AtGate::Revoke),
        Command::Retry(args) => commands::runs::retry(global, args),
        Command::Replay(args) => commands::runs::replay(global, args),
        Command::Runs(command) => commands::runs::runs(global, command),
        Command::Budget(args) => commands::budget::budget(global, args),
        Command::Query(args) => commands::query::query(global, args),
        Command::Cquery(args) => commands::query::cquery(global, args),
        Command::Aquery(args) => commands::query::aquery(global, args),
        Command::Explain(args) => commands::explain::explain(global, args),
        Command::Profile(args) => commands::profile::profile(global, args),
        Command::Docs(args) => commands::docs::docs(global, args),
        Command::Fmt(args) => commands::fmt::fmt(global, args),
        Command::Lint(args) => commands::lint::run(global, args),
        Command::Template(command) => commands::template::template(global, command),
        Command::Lock(args) => commands::lock::lock(global, args),
        Command::Fetch(args) => commands::fetch::fetch(global, args),
        Command::Vendor(args) => commands::vendor::vendor(global, args),
        Command::Repo(command) => commands::repo::repo(global, command),
        Command::Clean(args) => commands::clean::clean(global, args),
        Command::Daemon(args) => commands::daemon::daemon(global, args),
        Command::Cache(command) => commands::cache::cache(global, command),
        Command::Serve(args) => commands::serve::serve(args),
        Command::Worker(args) => commands::worker::worker(args),
        Command::Conformance(args) => commands::conformance::conformance(args),
        Command::Policy(command) => commands::policy::policy(global, command),
        Command::Doctor(args) => commands::doctor::doctor(global, args),
        Command::Provenance(args) => commands::provenance::provenance(global, args),
        Command::Exec(args) => commands::exec::exec(global, args),
    }
}

/// Diagnostics of Maestro itself, on standard error; silent unless asked for.
fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let chosen = config::non_empty("MAESTRO_LOG");
    let filter = match (chosen, verbose) {
        (Some(directives), _) => EnvFilter::try_new(directives).ok(),
        (None, 0) => return,
        (None, 1) => EnvFilter::try_new("maestro=info").ok(),
        (None, _) => EnvFilter::try_new("debug").ok(),
    };
    let filter = filter.unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
