//! The flags of pipelines and of the commands about their runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{BuildOptions, DaemonChoice};

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The target.
    #[arg(value_name = "LABEL", required_unless_present_any = ["template", "resume"])]
    pub target: Option<String>,
    /// Pipelines.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Arguments for the program.
    #[arg(last = true, value_name = "ARG")]
    pub arguments: Vec<String>,
    /// Whether a daemon is asked.
    #[command(flatten)]
    pub daemon: DaemonChoice,
    /// How to build.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// The flags of `run` that are about pipelines.
#[derive(Args, Debug, Default)]
pub struct PipelineArgs {
    /// Runs a pipeline: a file, or the name of one, `NAME.pipeline.yaml`, in the workspace.
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["target", "resume"])]
    pub template: Option<String>,
    /// Takes the workspace out of a Git repository, rather than from here.
    #[arg(long, value_name = "URL", requires = "template", conflicts_with = "workspace")]
    pub source: Option<String>,
    /// The branch, tag or commit of `--source` [default: its default branch].
    #[arg(long, value_name = "REF", requires = "source")]
    pub r#ref: Option<String>,
    /// Goes on with a run where it was.
    #[arg(long, value_name = "RUN", conflicts_with = "target")]
    pub resume: Option<String>,
    /// Resumes a run though a process that is stopped still holds it; that process writes nothing
    /// more.
    #[arg(long, requires = "resume")]
    pub take_over: bool,
    /// What the run may spend, such as `5usd`.
    #[arg(long, value_name = "AMOUNT", requires = "template")]
    pub budget: Option<String>,
    /// Starts the run, prints its name, and leaves it to a process of its own.
    #[arg(long, requires = "template")]
    pub detach: bool,
    /// Ends when the run waits for people, rather than waiting with it.
    #[arg(long)]
    pub no_wait: bool,
}

/// A run, by its name.
#[derive(Args, Debug)]
pub struct RunName {
    /// The run, or the end of its name if no other one ends so.
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The run [default: the last one].
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
}

/// Arguments of `logs` and `watch`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The run.
    #[command(flatten)]
    pub run: RunName,
    /// Only what concerns this step.
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// Goes on until the run ends.
    #[arg(short, long)]
    pub follow: bool,
}

/// Arguments of `approve`, `reject` and `revoke`.
#[derive(Args, Debug)]
pub struct ApprovalArgs {
    /// The run.
    #[command(flatten)]
    pub run: RunName,
    /// The gate [default: the only one that waits].
    #[arg(long, value_name = "STEP")]
    pub gate: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// The subject that was seen, as `status` shows it; approving fails if it has changed.
    #[arg(long, value_name = "DIGEST")]
    pub subject: Option<String>,
}

/// Arguments of `cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// The run.
    #[command(flatten)]
    pub run: RunName,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Arguments of `retry`.
#[derive(Args, Debug)]
pub struct RetryArgs {
    /// The run, which has ended.
    #[command(flatten)]
    pub run: RunName,
    /// Runs this step and all after it again [default: what did not succeed].
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Replaces the inputs of a step: `STEP={"field": …}`, as JSON.
    #[arg(long = "with", value_name = "STEP=JSON")]
    pub inputs: Vec<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Ends when the run waits for people, rather than waiting with it.
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The run whose template and params are run once more, as a new run.
    #[command(flatten)]
    pub run: RunName,
    /// Ends when the run waits for people, rather than waiting with it.
    #[arg(long)]
    pub no_wait: bool,
}

/// Subcommands of `runs`.
#[derive(Subcommand, Debug)]
pub enum RunsCommand {
    /// Lists runs, the newest first.
    List {
        /// Most of them.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Shows a run: its steps, what waits, what was spent.
    Show(RunName),
    /// Says what became of an effect that waits for a person.
    Resolve {
        /// The run.
        #[command(flatten)]
        run: RunName,
        /// The step.
        #[arg(long, value_name = "STEP")]
        step: String,
        /// It was done.
        #[arg(long, conflicts_with_all = ["redo", "give_up"], required_unless_present_any = ["redo", "give_up"])]
        applied: bool,
        /// It was not done, and is done now, as a new generation.
        #[arg(long, conflicts_with = "give_up")]
        redo: bool,
        /// It was not done, and will not be.
        #[arg(long)]
        give_up: bool,
        /// Outputs of the step, as a JSON object.
        #[arg(long, value_name = "JSON", requires = "applied")]
        outputs: Option<String>,
        /// How you know.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Looks after steps that failed for good or wait for a person: the dead-letter queue.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Copies the journal of all runs to a file, while runs go on.
    Backup {
        /// The file; a backup that is there is replaced once the new one is whole.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Puts a backup in the place of a damaged journal, which is kept, and says what is lost.
    Restore {
        /// The backup.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `runs dlq …`.
#[derive(Subcommand, Debug)]
pub enum DlqCommand {
    /// Lists them, those of the newest run first.
    List(DlqFilter),
    /// Shows those of a run: causes, attempts, and what can be done.
    Show(RunName),
    /// Has their runs go on with what did not succeed.
    Replay {
        /// Which.
        #[command(flatten)]
        choice: DlqChoice,
        /// Inputs that replace those of the template, as a JSON object; may be given again.
        #[arg(long = "with", value_name = "STEP=JSON")]
        inputs: Vec<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Takes runs that failed off the queue; they stay failed, and stay readable.
    Drop {
        /// Which.
        #[command(flatten)]
        choice: DlqChoice,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Which runs of the queue.
#[derive(Args, Debug)]
pub struct DlqChoice {
    /// These, by their names.
    #[arg(value_name = "RUN", required_unless_present_any = ["all", "class", "template", "step"])]
    pub runs: Vec<String>,
    /// All that the other flags leave.
    #[arg(long, conflicts_with = "runs")]
    pub all: bool,
    /// Those that fit.
    #[command(flatten)]
    pub filter: DlqFilter,
}

/// What letters have to be like.
#[derive(Args, Debug)]
pub struct DlqFilter {
    /// Failed in this way: `user`, `infrastructure`, `rate-limit`, `budget`, `policy`, `timeout`.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Of runs of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Of this step.
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// Most runs that are looked at, the newest first.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}
