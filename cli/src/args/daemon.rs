//! The command line of the daemon.

use clap::{Args, Subcommand};

/// Whether a daemon is asked.
#[derive(Args, Debug, Clone, Copy)]
pub struct DaemonChoice {
    /// Asks the workspace's daemon what changed, and starts one where none runs.
    #[arg(long, overrides_with = "no_daemon")]
    pub daemon: bool,
    /// Asks no daemon, also where the configuration says so.
    #[arg(long, overrides_with = "daemon")]
    pub no_daemon: bool,
}

impl DaemonChoice {
    /// What the flags say, if they say anything.
    pub fn flag(self) -> Option<bool> {
        match (self.daemon, self.no_daemon) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// Arguments of `daemon`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DaemonArgs {
    /// `daemon status`, `daemon stop`.
    #[command(subcommand)]
    pub command: Option<DaemonCommand>,
    /// Ends when no build asked for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3 * 60 * 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=366 * 24 * 60 * 60))]
    pub idle_timeout: u64,
    /// Returns as soon as the daemon runs.
    #[arg(long)]
    pub detach: bool,
    /// Is the daemon that `--detach` starts.
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub background: bool,
}

/// Subcommands of `daemon`.
#[derive(Subcommand, Debug)]
pub enum DaemonCommand {
    /// Says how the daemon is; exits with 1 where none runs.
    Status,
    /// Ends the daemon.
    Stop,
}
