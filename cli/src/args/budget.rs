//! The flags of `budget`.

use clap::{Args, Subcommand};

/// Arguments of `budget`.
#[derive(Args, Debug)]
pub struct BudgetArgs {
    /// What to do; shows what may be spent and what was, where it is absent.
    #[command(subcommand)]
    pub command: Option<BudgetCommand>,
}

/// What can be done about a budget.
#[derive(Subcommand, Debug)]
pub enum BudgetCommand {
    /// Closes the breaker, so that calls are made again.
    Reset {
        /// Why it may be; it stands in the ledger's history with your name.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Prints what was reserved and spent, and when the breaker opened and closed.
    History {
        /// Most entries, the newest ones.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
}
