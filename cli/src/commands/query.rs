//! `maestro query`, `cquery` and `aquery`: ask about targets and actions, without building
//! anything. They read the workspace alone and take no lock.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::limits::QUERY_BYTES_MAX;
use maestro_rules::{ActionForm, EdgeFilter, OutputOptions, QueryForm, QueryOptions, QueryOrder};

use crate::args::{
    AqueryArgs, ConfigurationOptions, CqueryArgs, Global, OrderOutput, OutputFormat, QueryArgs,
    Question, TargetLayout,
};
use crate::config::Config;
use crate::evaluation::KnownPackages;
use crate::exit::Failure;
use crate::load::{answered, print_remarks};
use crate::repos;

/// Answers a question about targets.
pub fn query(global: &Global, args: &QueryArgs) -> Result<ExitCode> {
    let layout = output_options(global.output, &args.layout)?;
    asked(global, &args.question, None, |mut options| {
        options.universe.clone_from(&args.universe_scope);
        let answer = answered(maestro_rules::query(options))?;
        print_remarks(&answer.remarks);
        let done = printed(|out| answer.write(&layout, out));
        // Here and below: the program ends, and the system takes a large graph back faster than
        // its parts go.
        std::mem::forget(answer);
        done
    })
}

/// Answers a question about configured targets.
pub fn cquery(global: &Global, args: &CqueryArgs) -> Result<ExitCode> {
    if global.output == OutputFormat::Files {
        return asked(global, &args.question, Some(&args.configuration), |options| {
            let files = answered(maestro_rules::cquery_files(options))?;
            printed(|out| files.iter().try_for_each(|file| writeln!(out, "{file}")))
        });
    }
    let layout = output_options(global.output, &args.layout)?;
    asked(global, &args.question, Some(&args.configuration), |options| {
        let answer = answered(maestro_rules::cquery(options))?;
        print_remarks(&answer.remarks);
        let done = printed(|out| answer.write(&layout, out));
        std::mem::forget(answer);
        done
    })
}

/// Answers a question about actions.
pub fn aquery(global: &Global, args: &AqueryArgs) -> Result<ExitCode> {
    let form = match global.output {
        OutputFormat::Text => ActionForm::Text,
        OutputFormat::Json => ActionForm::Json,
        OutputFormat::Query(QueryForm::Jsonl) => ActionForm::Jsonl,
        OutputFormat::Query(QueryForm::Proto) => ActionForm::Proto,
        OutputFormat::Query(QueryForm::JsonProto) => ActionForm::JsonProto,
        other => {
            let name = other.query_form().unwrap_or_default();
            return Err(Failure::input(format!("`aquery` has no form `{name}`"))
                .hint("its forms are: text, json, jsonl, proto, jsonproto")
                .into());
        }
    };
    asked(global, &args.question, Some(&args.configuration), |options| {
        let answer = answered(maestro_rules::aquery(options))?;
        print_remarks(&answer.remarks);
        let facts = answered(answer.facts())?;
        let done = printed(|out| answer.write(form, &facts, out));
        std::mem::forget((answer, facts));
        done
    })
}

/// Opens the workspace and asks.
fn asked(
    global: &Global,
    question: &Question,
    configuration: Option<&ConfigurationOptions>,
    ask: impl FnOnce(QueryOptions<'_>) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let host = repos::unlocked_host(&config)?;
    let configuration = configuration.map(|flags| crate::profiles::configuration(&config, flags));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = KnownPackages::of(&config);
    ask(QueryOptions {
        package: &config.package,
        edges: EdgeFilter { implicit: !question.no_implicit_deps },
        configuration: configuration.transpose()?.unwrap_or_default(),
        memory: Some(&memory),
        ..QueryOptions::new(&host, &expression(question)?, threads)
    })
}

/// Writes an answer to standard output.
fn printed(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    match written {
        // Who reads only the first lines is content with them.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("cannot write the answer").map(|()| ExitCode::SUCCESS),
    }
}

/// The expression, from the command line or from a file.
fn expression(question: &Question) -> Result<Cow<'_, str>> {
    if let Some(expression) = &question.expression {
        return Ok(Cow::Borrowed(expression));
    }
    let Some(path) = &question.query_file else {
        return Err(Failure::input("there is no query").into());
    };
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if size > QUERY_BYTES_MAX as u64 {
        let message = format!("`{}` is longer than {QUERY_BYTES_MAX} bytes", path.display());
        return Err(Failure::input(message).into());
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(error) => {
            let message = format!("cannot read the query `{}`: {error}", path.display());
            Err(Failure::input(message).into())
        }
    }
}

fn output_options(format: OutputFormat, layout: &TargetLayout) -> Result<OutputOptions> {
    let form = match format {
        OutputFormat::Text if layout.label_kind => QueryForm::LabelKind,
        OutputFormat::Text => QueryForm::Label,
        OutputFormat::Json => QueryForm::Json,
        OutputFormat::Query(form) => form,
        // SARIF was refused before any command began.
        OutputFormat::Files | OutputFormat::Sarif => {
            return Err(Failure::input("`--output files` is a form of `cquery` only").into());
        }
    };
    if layout.label_kind && form != QueryForm::LabelKind {
        return Err(Failure::input("`--label-kind` and `--output` contradict each other").into());
    }
    Ok(OutputOptions {
        order: match layout.order_output {
            OrderOutput::Auto => QueryOrder::Auto,
            OrderOutput::No => QueryOrder::Label,
            OrderOutput::Deps | OrderOutput::Full => QueryOrder::Deps,
        },
        factored: !layout.no_graph_factored,
        node_limit: layout.graph_node_limit,
        null: layout.null,
        ..OutputOptions::new(form)
    })
}
