//! `maestro docs WHAT`: the reference of a `.star` file, of the language, of the steps of
//! pipelines, or of an error code.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::Label;
use maestro_rules::pipeline::steps_page;
use maestro_rules::{error_pages, language_page, reference};
use serde_json::json;

use crate::args::{DocsArgs, Global, OutputFormat};
use crate::config::Config;
use crate::exit::Failure;
use crate::repos;

/// Runs the command.
pub fn docs(global: &Global, args: &DocsArgs) -> Result<ExitCode> {
    let json = global.output == OutputFormat::Json;
    if args.what.starts_with("MAE") {
        return code(&args.what, json);
    }
    if args.what == "language" {
        match json {
            true => println!("{}", json!({"page": language_page()})),
            false => print!("{}", language_page()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.what == "steps" {
        match json {
            true => println!("{}", json!({"page": steps_page()})),
            false => print!("{}", steps_page()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(global)?;
    let label = file_label(&config, &args.what)?;
    let host = repos::unlocked_host(&config)?;
    match reference(&host, &label) {
        Ok(found) if json => println!("{}", serde_json::to_string(&found)?),
        Ok(found) => print!("{}", found.to_markdown()),
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}");
            }
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn code(code: &str, json: bool) -> Result<ExitCode> {
    let pages = || error_pages().into_iter().chain(maestro_policy::error_pages());
    let Some((_, page)) = pages().find(|(own, _)| *own == code) else {
        let known: Vec<&str> = pages().map(|(code, _)| code).collect();
        return Err(Failure::input(format!("there is no code `{code}`"))
            .hint(format!("the codes are {}", known.join(", ")))
            .into());
    };
    match json {
        true => println!("{}", json!({"code": code, "page": page})),
        false => print!("{page}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The label of a file that is given as a label or as a path.
fn file_label(config: &Config, text: &str) -> Result<Label> {
    let is_label = text.starts_with([':', '/', '@']);
    let text = match (is_label, text.rsplit_once('/')) {
        (true, _) => text.to_owned(),
        (false, Some((folder, name))) => match config.package.is_empty() {
            true => format!("//{folder}:{name}"),
            false => format!("//{}/{folder}:{name}", config.package),
        },
        (false, None) => format!(":{text}"),
    };
    let label =
        Label::parse(&text, "", &config.package).map_err(|e| Failure::input(e.to_string()))?;
    match label.name.ends_with(".star") {
        true => Ok(label),
        false => Err(Failure::input(format!("`{text}` names no `.star` file"))
            .hint("name one such as `@maestro//rules:cc.star`, `//tools:shout.star` or MAE0121")
            .into()),
    }
}
