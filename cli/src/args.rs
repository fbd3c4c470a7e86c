//! The command line: names, flags and their documentation. Parsing only; nothing happens here.
//!
//! Names, flags and exit codes are used by scripts: changing one is a breaking change.

pub mod budget;
mod conformance;
mod daemon;
mod lock;
mod lookback;
mod output;
mod policy;
mod remote;
mod repos;
pub mod runs;
mod serve;
mod template;
mod testing;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::conformance::{ConformanceArgs, ReportForm};
pub use self::daemon::{DaemonArgs, DaemonChoice, DaemonCommand};
pub use self::lock::{LockArgs, LockCommand};
pub use self::lookback::{ExplainArgs, ProfileArgs};
pub use self::output::OutputFormat;
pub use self::policy::{
    PolicyCommand, PolicyExplainArgs, PolicyLintArgs, PolicySchemaArgs, PolicyShowArgs,
    PolicyTestArgs,
};
pub use self::remote::{Header, RemoteDownload, RemoteFlags};
pub use self::repos::{FetchArgs, RepoCommand, VendorArgs};
pub use self::runs::RunArgs;
pub use self::serve::ServeArgs;
pub use self::template::{
    TemplateCommand, TemplateImportArgs, TemplateLintArgs, TemplateNewArgs, TemplateShowArgs,
};
pub use self::testing::{TestArgs, TestFlags, TestOutput};
pub use self::worker::WorkerArgs;

/// Builds what can be described: code, images, answers of models, releases.
#[derive(Parser, Debug)]
#[command(name = "maestro", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// The workspace [default: the nearest folder at or above this one with a `maestro.toml`,
    /// else the topmost with a `maestro.star`].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub workspace: Option<PathBuf>,
    /// The cache [env: MAESTRO_CACHE] [default: $XDG_CACHE_HOME/maestro].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub cache: Option<PathBuf>,
    /// Uses a folder of this machine in the place of repository `@NAME`; may be given again.
    #[arg(long, global = true, value_name = "NAME=PATH", help_heading = "Global options")]
    pub override_repo: Vec<String>,
    /// What standard output carries at the end: `text` or `json`; queries have further forms.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        value_parser = OutputFormat::parse,
        help_heading = "Global options"
    )]
    pub output: OutputFormat,
    /// Says more about what Maestro itself does; twice for debugging [env: MAESTRO_LOG].
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// What Maestro can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Builds targets.
    Build(BuildArgs),
    /// Builds targets and runs the tests among them.
    Test(TestArgs),
    /// Builds a target and runs it.
    Run(RunArgs),
    /// Shows a run: its steps, what waits, what was spent.
    Status(runs::StatusArgs),
    /// Prints the events of a run.
    Logs(runs::LogsArgs),
    /// Follows a run until it ends.
    Watch(runs::LogsArgs),
    /// Stops a run; steps of `on_cancel` still run.
    Cancel(runs::CancelArgs),
    /// Agrees to what a gate asks.
    Approve(runs::ApprovalArgs),
    /// Refuses what a gate asks.
    Reject(runs::ApprovalArgs),
    /// Takes an approval back, before anything was done on it.
    Revoke(runs::ApprovalArgs),
    /// Has a run that ended go on: with what did not succeed, or from a step.
    Retry(runs::RetryArgs),
    /// Begins a new run with the template and params of an earlier one.
    Replay(runs::ReplayArgs),
    /// Lists and shows runs, and settles what waits for a person.
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Shows what may be spent on calls, and what was.
    Budget(budget::BudgetArgs),
    /// Asks about targets, in the language of `bazel query`: deps(), rdeps(), somepath(), kind().
    Query(QueryArgs),
    /// Asks about targets in their configurations, as `build` would see them.
    Cquery(CqueryArgs),
    /// Asks about the actions that targets come to: command lines, inputs, outputs, keys.
    Aquery(AqueryArgs),
    /// Says why actions ran again the last time, back to the edit at the root of it.
    Explain(ExplainArgs),
    /// Says where the time of a build went, from the file of `--trace` or `--events`.
    Profile(ProfileArgs),
    /// Prints the reference of a `.star` file, or what an error code means.
    Docs(DocsArgs),
    /// Lays `.star` files out.
    Fmt(FmtArgs),
    /// Finds what should be written otherwise in `.star` files.
    Lint(LintArgs),
    /// Looks after pipelines: checks, shows, lists, begins and imports them.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Keeps `maestro.lock`, the record of the outside world.
    Lock(LockArgs),
    /// Downloads what targets need, so that they build without a network.
    Fetch(FetchArgs),
    /// Keeps what targets download in `vendor/maestro`.
    Vendor(VendorArgs),
    /// Looks after the other repositories of `maestro.toml`.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Removes `maestro-out`.
    Clean(CleanArgs),
    /// Watches the workspace, so that builds with `--daemon` need not look at every file.
    Daemon(DaemonArgs),
    /// Looks after the cache.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Serves a remote cache and remote execution to Bazel and other clients, until SIGTERM.
    Serve(ServeArgs),
    /// Runs the actions that a server gives it, until SIGTERM.
    Worker(WorkerArgs),
    /// Checks how a server of REAPI does on each line of the protocol; exits with 1 where it fails.
    Conformance(ConformanceArgs),
    /// Looks after policies: what may run, what may leave, who may approve.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Checks this machine and says what to install.
    Doctor(DoctorArgs),
    /// Prints where an artifact came from, as an in-toto statement with SLSA provenance.
    Provenance(ProvenanceArgs),
    /// Runs an action graph from a JSON file.
    #[command(hide = true)]
    Exec(ExecArgs),
}

/// What targets are built for.
#[derive(Args, Debug, Clone, Default)]
pub struct ConfigurationOptions {
    /// Sets a param: `//pkg:name=value`, or `name=value` for one of `[params]` in `maestro.toml`
    /// or of the root package. May be repeated; the last value of a param counts.
    #[arg(long = "param", value_name = "PARAM=VALUE")]
    pub params: Vec<String>,
    /// The platform that targets are built for [default: this machine].
    #[arg(long, value_name = "LABEL")]
    pub platform: Option<String>,
    /// Takes a profile, `[config.NAME]` of `maestro.toml`. May be repeated; later ones win over
    /// earlier ones, and flags over all.
    #[arg(long = "config", value_name = "NAME")]
    pub profiles: Vec<String>,
    /// Puts aspects on what is asked for: `//package:file.star%name`, with commas between them.
    /// May be repeated; later ones see earlier ones where they ask for it.
    #[arg(long, value_name = "ASPECTS", value_delimiter = ',')]
    pub aspects: Vec<String>,
}

/// Flags of everything that builds.
#[derive(Args, Debug, Clone)]
pub struct BuildOptions {
    /// What to build for.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
    /// How many commands run at once [default: the number of processors].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Goes on with independent actions after a failure.
    #[arg(short, long)]
    pub keep_going: bool,
    /// Takes recorded results from `maestro.lock` alone [default where CI=true].
    #[arg(long)]
    pub locked: bool,
    /// How commands are confined.
    #[arg(long, value_name = "PROFILE", default_value = "hermetic")]
    pub sandbox: SandboxChoice,
    /// Goes on with a step's last record where its input changed; the outputs are marked stale.
    #[arg(long, value_name = "WHAT", default_value = "deny", conflicts_with = "locked")]
    pub stale_records: StaleRecords,
    /// Never uses the network, not even for pinned downloads.
    #[arg(long)]
    pub offline: bool,
    /// Writes every event as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Writes a Chrome trace of the build.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// What is shared.
    #[command(flatten)]
    pub remote: RemoteFlags,
}

/// What happens where a recorded step's input changed.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleRecords {
    /// The build stops and says what changed.
    Deny,
    /// The last record of the step is used.
    Allow,
}

/// How commands are confined.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxChoice {
    /// In namespaces of their own, without the host's files and network.
    Hermetic,
    /// Not at all. The results have keys of their own and never leave this machine.
    None,
}

/// Arguments of `build` and `test`.
#[derive(Args, Debug, Clone)]
pub struct BuildArgs {
    /// Labels and patterns: `//pkg:name`, `//pkg:all`, `//pkg/...`; after `--`, `-//pkg/...` leaves
    /// out.
    #[arg(required = true, value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Which groups of outputs are made: `NAME` instead of the default ones, `+NAME` besides,
    /// `-NAME` not; `default` is what a target makes where nothing is said.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', allow_hyphen_values = true)]
    pub output_groups: Vec<String>,
    /// Builds again whenever something in the workspace changes, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// Whether a daemon is asked.
    #[command(flatten)]
    pub daemon: DaemonChoice,
    /// How to build.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// Arguments of `query`.
#[derive(Args, Debug)]
#[command(after_help = QUERY_HELP)]
pub struct QueryArgs {
    /// The question.
    #[command(flatten)]
    pub question: Question,
    /// The patterns, with commas between them, that `allrdeps` looks through [default: //...].
    #[arg(long, alias = "universe_scope", value_name = "PATTERNS", value_delimiter = ',')]
    pub universe_scope: Vec<String>,
    /// How targets are shown.
    #[command(flatten)]
    pub layout: TargetLayout,
}

/// Arguments of `cquery`.
#[derive(Args, Debug)]
#[command(after_help = CQUERY_HELP)]
pub struct CqueryArgs {
    /// The question.
    #[command(flatten)]
    pub question: Question,
    /// What targets are configured for.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
    /// How targets are shown.
    #[command(flatten)]
    pub layout: TargetLayout,
}

/// Arguments of `aquery`.
#[derive(Args, Debug)]
#[command(after_help = AQUERY_HELP)]
pub struct AqueryArgs {
    /// The question.
    #[command(flatten)]
    pub question: Question,
    /// What targets are configured for.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
}

/// What a query asks.
#[derive(Args, Debug)]
pub struct Question {
    /// The expression, such as `deps(//app:server)` or `kind("cc_.*", //...)`.
    #[arg(value_name = "EXPRESSION", required_unless_present = "query_file")]
    pub expression: Option<String>,
    /// Reads the expression from a file.
    #[arg(long, alias = "query_file", value_name = "FILE", conflicts_with = "expression")]
    pub query_file: Option<PathBuf>,
    /// Leaves out dependencies that targets do not name themselves, such as toolchains.
    #[arg(long, visible_alias = "noimplicit_deps")]
    pub no_implicit_deps: bool,
}

/// How the targets of an answer are shown.
#[derive(Args, Debug)]
pub struct TargetLayout {
    /// Prints the rule of each target before its label; short for `--output label_kind`.
    #[arg(long)]
    pub label_kind: bool,
    /// The order of the targets.
    #[arg(long, alias = "order_output", value_name = "ORDER", default_value = "auto")]
    pub order_output: OrderOutput,
    /// Draws every target of `--output graph` alone, not those with the same neighbours as one.
    #[arg(long, visible_alias = "nograph:factored")]
    pub no_graph_factored: bool,
    /// Longest label of a node of `--output graph`, in bytes; 0 is no limit.
    #[arg(long, alias = "graph:node_limit", value_name = "BYTES", default_value_t = 512)]
    pub graph_node_limit: usize,
    /// Ends lines with a zero byte.
    #[arg(long, visible_alias = "line_terminator_null")]
    pub null: bool,
}

/// What `query --help` ends with.
const QUERY_HELP: &str = "\
Forms of `--output`: text (label), label_kind, location, build, package, minrank, maxrank, graph,
json, jsonl, proto, streamed_proto, jsonproto, streamed_jsonproto.
The language is described in docs/concepts/queries.md.";

/// What `cquery --help` ends with.
const CQUERY_HELP: &str = "\
Forms of `--output`: those of `query`, and files, which lists what the targets make.
The language is described in docs/concepts/queries.md.";

/// What `aquery --help` ends with.
const AQUERY_HELP: &str = "\
Forms of `--output`: text, json, jsonl, proto, jsonproto.
Around everything else stand mnemonic(), inputs() and outputs(), which choose actions.";
/// The order of an answer.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderOutput {
    /// By label; `somepath` from its start.
    Auto,
    /// By label.
    No,
    /// Each target before what it depends on.
    Deps,
    /// As `deps`, targets that are independent of each other by label.
    Full,
}

/// Arguments of `docs`.
#[derive(Args, Debug)]
pub struct DocsArgs {
    /// A file such as `@maestro//rules:cc.star` or `tools/shout.star`, a code such as MAE0121,
    /// `language`: what every file sees, and what implementations are given, or `steps`: what
    /// pipelines can do.
    #[arg(value_name = "WHAT")]
    pub what: String,
}

/// Arguments of `fmt`.
#[derive(Args, Debug)]
pub struct FmtArgs {
    /// Files, folders and patterns such as `//app/...` [default: the workspace]; `-` reads
    /// standard input.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Writes nothing; names the files that would change, and exits with 1 if there are any.
    #[arg(long)]
    pub check: bool,
    /// Writes nothing; shows what would change, and exits with 1 if anything would.
    #[arg(long)]
    pub diff: bool,
    /// What the text of standard input is called; a `maestro.star` declares targets.
    #[arg(long, value_name = "PATH")]
    pub stdin_path: Option<String>,
}

/// Arguments of `lint`.
#[derive(Args, Debug)]
pub struct LintArgs {
    /// Files, folders and patterns such as `//app/...` [default: the workspace].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Evaluates the packages and finds dependencies of C and C++ targets that none of their files
    /// uses, too.
    #[arg(long)]
    pub deps: bool,
    /// Removes loads and dependencies that nothing uses, and lays the files out.
    #[arg(long)]
    pub fix: bool,
    /// Prints SARIF 2.1.0, for code hosts.
    #[arg(long)]
    pub sarif: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Says which toolchains a target gets, which others there are, and why not those.
    #[arg(long, value_name = "LABEL")]
    pub toolchains: Option<String>,
    /// What the target is built for.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
}

/// Arguments of `clean`.
#[derive(Args, Debug)]
pub struct CleanArgs {
    /// Also forgets what is known of this workspace: snapshots, hashes of sources, the build log.
    #[arg(long)]
    pub expunge: bool,
}

/// Subcommands of `cache`.
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// Counts blobs, results and bytes.
    Stats,
    /// Removes what was used longest ago until the cache fits.
    Gc {
        /// How large the cache may stay, such as `10G` or `512M`.
        #[arg(long, value_name = "SIZE", default_value = "20G")]
        max_size: String,
        /// Removes whatever was not used for so many days, too.
        #[arg(long, value_name = "DAYS")]
        max_age_days: Option<u32>,
    },
    /// Hashes every blob and checks every result.
    Verify {
        /// Quarantines what is damaged and rebuilds the index.
        #[arg(long)]
        repair: bool,
    },
}

/// Arguments of `provenance`.
#[derive(Args, Debug)]
pub struct ProvenanceArgs {
    /// The target.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// Where to write it [default: beside the target's first output, as `NAME.provenance.json`].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// What it was built for.
    #[command(flatten)]
    pub configuration: ConfigurationOptions,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// The graph: see docs/design/exec-graph.md.
    #[arg(value_name = "GRAPH.json")]
    pub graph: PathBuf,
    /// How to build.
    #[command(flatten)]
    pub options: BuildOptions,
}
