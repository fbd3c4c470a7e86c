//! `maestro template new`: writes a pipeline to begin with, and asks what it must know.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_rules::pipeline::{Defaults, STARTERS, Starter};

use crate::args::{Global, TemplateNewArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::pipelines;

/// Runs the command.
pub fn new(global: &Global, args: &TemplateNewArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let asks = !args.yes && std::io::stdin().is_terminal();
    let starter = starter(args, asks)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None if asks => ask("What is the pipeline called?", starter.name)?,
        None => starter.name.to_owned(),
    };
    let mut answers = given(args, starter)?;
    for question in starter.questions {
        if !answers.contains_key(question.key) {
            let answer = if asks {
                ask(question.ask, question.default)?
            } else {
                question.default.to_owned()
            };
            answers.insert(question.key.to_owned(), answer);
        }
    }
    let text = starter.filled(&name, &|question| {
        answers.get(question.key).map_or(question.default, String::as_str).to_owned()
    });
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.pipeline.yaml")));
    let shown = path.display().to_string();
    let checked = pipelines::check(&config, &shown, &text, &Defaults::new());
    if checked.has_errors() {
        for found in &checked.findings {
            eprintln!("{}\n", found.diagnostic);
        }
        return Err(Failure::input("the answers make no pipeline")
            .hint("nothing was written")
            .into());
    }
    write_new(&path, &text)?;
    eprintln!("wrote {shown}; `maestro template show {shown}` shows what it does");
    Ok(ExitCode::SUCCESS)
}

fn starter(args: &TemplateNewArgs, asks: bool) -> Result<&'static Starter> {
    let names = || STARTERS.iter().map(|starter| starter.name).collect::<Vec<_>>().join("`, `");
    let first = STARTERS.first().map_or("", |starter| starter.name);
    let name = match &args.starter {
        Some(name) => name.clone(),
        None if asks => {
            for starter in STARTERS {
                eprintln!("  {:<18} {}", starter.name, starter.about);
            }
            ask("What does it begin with?", first)?
        }
        None => {
            return Err(Failure::input("it is not said what to begin with")
                .hint(format!("`--starter` takes one of `{}`", names()))
                .into());
        }
    };
    Starter::find(&name).ok_or_else(|| {
        Failure::input(format!("there is no starter `{name}`"))
            .hint(format!("there is `{}`", names()))
            .into()
    })
}

/// Answers of the command line.
fn given(args: &TemplateNewArgs, starter: &Starter) -> Result<BTreeMap<String, String>> {
    let mut answers = BTreeMap::new();
    let known: Vec<&str> = starter.questions.iter().map(|question| question.key).collect();
    for text in &args.answers {
        match text.split_once('=') {
            Some((key, value)) if known.contains(&key) => {
                answers.insert(key.to_owned(), value.to_owned());
            }
            _ => {
                return Err(Failure::input(format!(
                    "`{text}` answers nothing of `{}`",
                    starter.name
                ))
                .hint(format!("it asks for `{}`", known.join("`, `")))
                .into());
            }
        }
    }
    Ok(answers)
}

/// Asks on the terminal; an empty line is the default.
fn ask(question: &str, default: &str) -> Result<String> {
    eprint!("{question} [{default}] ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
    let answer = line.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => anyhow::Error::from(
            Failure::input(format!("`{}` is there already", path.display()))
                .hint("`--out FILE` names another file"),
        ),
        _ => anyhow::Error::from(error).context(format!("cannot write `{}`", path.display())),
    })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))
}
