//! Arguments of `template` and its subcommands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use maestro_rules::pipeline::GraphForm;

/// Subcommands of `template`.
#[derive(Subcommand, Debug)]
pub enum TemplateCommand {
    /// Finds what is wrong with pipelines, and mends some of it.
    Lint(TemplateLintArgs),
    /// Shows a pipeline: what follows what and why, and what was bound.
    Show(TemplateShowArgs),
    /// Lists the pipelines of the workspace, and those to begin with.
    List,
    /// Prints the JSON Schema of pipelines, for editors.
    Schema,
    /// Writes a pipeline to begin with; asks what it must know, where there is a terminal.
    New(TemplateNewArgs),
    /// Translates a pipeline of the dialect of `.maestro/pipeline.yaml`.
    Import(TemplateImportArgs),
}

/// Arguments of `template lint`.
#[derive(Args, Debug)]
pub struct TemplateLintArgs {
    /// Files, folders and patterns such as `//app/...` [default: the workspace].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Mends what a machine can mend: names that are misspelt, missing quotes and brackets.
    #[arg(long)]
    pub fix: bool,
    /// Prints SARIF 2.1.0, for code hosts; so does `--output sarif`.
    #[arg(long)]
    pub sarif: bool,
}

/// Arguments of `template show`.
#[derive(Args, Debug)]
pub struct TemplateShowArgs {
    /// The name of a pipeline of the workspace, or a file.
    #[arg(value_name = "NAME|FILE")]
    pub template: String,
    /// Shows only what follows what.
    #[arg(long)]
    pub graph: bool,
    /// The form of the graph.
    #[arg(long, value_name = "FORM", requires = "graph", default_value = "text")]
    pub format: GraphFormat,
}

/// The form of a graph.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphFormat {
    /// Lines for people.
    Text,
    /// For Graphviz.
    Dot,
    /// A picture.
    Svg,
    /// For programs.
    Json,
}

impl From<GraphFormat> for GraphForm {
    fn from(format: GraphFormat) -> Self {
        match format {
            GraphFormat::Text => Self::Text,
            GraphFormat::Dot => Self::Dot,
            GraphFormat::Svg => Self::Svg,
            GraphFormat::Json => Self::Json,
        }
    }
}

/// Arguments of `template new`.
#[derive(Args, Debug)]
pub struct TemplateNewArgs {
    /// The name of the pipeline, and of its file `NAME.pipeline.yaml`.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// What to begin with; `maestro template list` lists them.
    #[arg(long, value_name = "STARTER")]
    pub starter: Option<String>,
    /// An answer to a question of the starter; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub answers: Vec<String>,
    /// Asks nothing: what is not said has its default.
    #[arg(long)]
    pub yes: bool,
    /// The file [default: NAME.pipeline.yaml in this folder].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `template import`.
#[derive(Args, Debug)]
pub struct TemplateImportArgs {
    /// The file, such as `.maestro/pipeline.yaml`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the pipeline is written [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
