//! Arguments of `lock`.

use clap::{Args, Subcommand};

use super::BuildOptions;

/// Arguments of `lock`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LockArgs {
    /// `lock accept`.
    #[command(subcommand)]
    pub command: Option<LockCommand>,
    /// Makes the live calls of the named targets and writes what came back.
    #[arg(long, conflicts_with_all = ["check", "prune"])]
    pub update: bool,
    /// Finds stale, orphaned and damaged entries; changes nothing. For CI.
    #[arg(long, conflicts_with = "prune")]
    pub check: bool,
    /// With `--update`: writes down what this run has asked; makes no call.
    #[arg(long, value_name = "RUN", requires = "update", conflicts_with_all = ["patterns", "budget"])]
    pub from_run: Option<String>,
    /// Drops entries that no target uses.
    #[arg(long)]
    pub prune: bool,
    /// Targets [default: all].
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Where models answer: the base URL of an OpenAI-compatible API [env: MAESTRO_LLM_ENDPOINT].
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// What tokens cost where the endpoint does not tell: micro-dollars per million of input and
    /// of output.
    #[arg(long, value_name = "IN,OUT")]
    pub price: Option<String>,
    /// Most that is spent: what a call can cost is reserved before it is made.
    #[arg(long, value_name = "AMOUNTusd")]
    pub budget: Option<String>,
    /// How to build what recorded steps need.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// Subcommands of `lock`.
#[derive(Subcommand, Debug)]
pub enum LockCommand {
    /// Admits an answer that was edited by hand; it is marked as edited from then on.
    Accept {
        /// The target.
        #[arg(value_name = "LABEL")]
        label: String,
    },
}
