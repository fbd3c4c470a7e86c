//! `maestro template`: looks after pipelines. Running them is another command.

mod import;
mod lint;
mod new;

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::event::Severity;
use maestro_rules::pipeline::{Checked, Pipeline, STARTERS, schema};
use serde_json::json;

use crate::args::{Global, OutputFormat, TemplateCommand, TemplateShowArgs};
use crate::config::Config;
use crate::pipelines;

/// Runs the command.
pub fn template(global: &Global, command: &TemplateCommand) -> Result<ExitCode> {
    match command {
        TemplateCommand::Lint(args) => lint::lint(global, args),
        TemplateCommand::Show(args) => show(global, args),
        TemplateCommand::List => list(global),
        TemplateCommand::Schema => {
            print!("{}", schema());
            Ok(ExitCode::SUCCESS)
        }
        TemplateCommand::New(args) => new::new(global, args),
        TemplateCommand::Import(args) => import::import(global, args),
    }
}

fn show(global: &Global, args: &TemplateShowArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let file = pipelines::resolve(&config, &args.template)?;
    let checked = pipelines::load(&config, &file, &pipelines::defaults(&config)?)?;
    let Some(pipeline) = told(&checked) else { return Ok(ExitCode::from(2)) };
    match (args.graph, global.output) {
        (_, OutputFormat::Json) => println!("{:#}", pipeline.to_json()),
        (true, _) => print!("{}", pipeline.graph(args.format.into())),
        (false, _) => print!("{}", pipeline.overview()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The pipeline; where there is none, what is wrong with it was told.
fn told(checked: &Checked) -> Option<&Pipeline> {
    for found in &checked.findings {
        if found.diagnostic.severity != Severity::Info {
            eprintln!("{}\n", found.diagnostic);
        }
    }
    checked.pipeline.as_ref()
}

fn list(global: &Global) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let mut found = Vec::new();
    for file in pipelines::find(&config, &[])? {
        let checked = pipelines::load(&config, &file, &pipelines::defaults(&config)?)?;
        let template = checked.pipeline.as_ref().map(|pipeline| &pipeline.template);
        found.push(json!({
            "file": file.name,
            "name": template.map(|template| template.name.value.clone()),
            "description": template.map(|template| template.description.clone()),
            "errors": checked.findings.iter().filter(|f| f.diagnostic.severity == Severity::Error).count(),
        }));
    }
    if global.output == OutputFormat::Json {
        let starters = STARTERS.iter().map(|starter| {
            let questions = starter.questions.iter().map(|question| {
                json!({"key": question.key, "ask": question.ask, "default": question.default})
            });
            let questions: Vec<_> = questions.collect();
            json!({"name": starter.name, "about": starter.about, "questions": questions})
        });
        let starters: Vec<_> = starters.collect();
        println!("{}", json!({"templates": found, "starters": starters}));
        return Ok(ExitCode::SUCCESS);
    }
    for one in &found {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        match one["name"].as_str() {
            Some(name) if text("description").is_empty() => println!("{name}  ({})", text("file")),
            Some(name) => println!("{name}  {} ({})", text("description"), text("file")),
            None => println!("{}  has errors, see `maestro template lint`", text("file")),
        }
    }
    if found.is_empty() {
        println!("no `*.pipeline.yaml` yet");
    }
    println!("\nto begin with, by `maestro template new NAME --starter STARTER`:");
    for starter in STARTERS {
        println!("  {:<18} {}", starter.name, starter.about);
    }
    Ok(ExitCode::SUCCESS)
}
