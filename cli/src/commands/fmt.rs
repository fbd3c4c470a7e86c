//! `maestro fmt`: lays `.star` files out, or says which are not.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_core::limits::BUILD_FILE_BYTES_MAX;
use maestro_rules::{FileKind, format};
use serde_json::json;

use crate::args::{FmtArgs, Global, OutputFormat};
use crate::config::Config;
use crate::diff::unified;
use crate::exit::Failure;
use crate::star_files::{StarFile, find, replace};

/// What became of the files.
#[derive(Default)]
struct Outcome {
    changed: Vec<String>,
    failed: Vec<String>,
    unchanged: usize,
}

/// Runs the command.
pub fn fmt(global: &Global, args: &FmtArgs) -> Result<ExitCode> {
    if args.paths.iter().any(|path| path.as_os_str() == "-") {
        return standard_input(args);
    }
    let config = Config::load(global)?;
    let files = find(&config.workspace, &args.paths)?;
    let mut outcome = Outcome::default();
    for file in &files {
        one(file, args, &mut outcome, global.output)?;
    }
    conclude(global, args, &outcome)
}

fn one(file: &StarFile, args: &FmtArgs, outcome: &mut Outcome, output: OutputFormat) -> Result<()> {
    let bytes = std::fs::read(&file.path)
        .with_context(|| format!("cannot read `{}`", file.path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else {
        eprintln!("error: `{}` is not UTF-8", file.name);
        outcome.failed.push(file.name.clone());
        return Ok(());
    };
    let laid_out = match format(&file.name, &text, FileKind::of(&file.name)) {
        Ok(laid_out) => laid_out,
        Err(diagnostic) => {
            eprintln!("{diagnostic}");
            outcome.failed.push(file.name.clone());
            return Ok(());
        }
    };
    if laid_out == text {
        outcome.unchanged += 1;
        return Ok(());
    }
    if !args.check && !args.diff {
        replace(&file.path, &laid_out)?;
    }
    if output == OutputFormat::Text {
        match args.diff {
            true => print!("{}", unified(&file.name, &text, &laid_out)),
            false => println!("{}", file.name),
        }
    }
    outcome.changed.push(file.name.clone());
    Ok(())
}

fn conclude(global: &Global, args: &FmtArgs, outcome: &Outcome) -> Result<ExitCode> {
    let dry = args.check || args.diff;
    if global.output == OutputFormat::Json {
        let object = json!({
            "changed": outcome.changed,
            "failed": outcome.failed,
            "unchanged": outcome.unchanged,
            "written": !dry,
        });
        println!("{object}");
    } else {
        let (count, verb) = (outcome.changed.len(), if dry { "would be" } else { "were" });
        if count > 0 {
            eprintln!("{} {verb} laid out anew", files(count));
        }
        if count == 0 && outcome.failed.is_empty() {
            eprintln!("{} laid out already", files(outcome.unchanged));
        }
    }
    if args.check && !outcome.changed.is_empty() {
        eprintln!("hint: `maestro fmt` writes them; `maestro fmt --diff` shows what would change");
    }
    Ok(match (outcome.failed.is_empty(), dry && !outcome.changed.is_empty()) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::from(1),
        (true, false) => ExitCode::SUCCESS,
    })
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// From standard input to standard output, for editors.
fn standard_input(args: &FmtArgs) -> Result<ExitCode> {
    if args.paths.len() > 1 {
        return Err(Failure::input("`-` stands for standard input and comes alone").into());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(BUILD_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    let name = args.stdin_path.as_deref().unwrap_or("stdin.star");
    match format(name, &text, FileKind::of(name)) {
        Ok(laid_out) => {
            match args.diff {
                true => print!("{}", unified(name, &text, &laid_out)),
                false if args.check => {}
                false => print!("{laid_out}"),
            }
            let differs = (args.check || args.diff) && laid_out != text;
            Ok(ExitCode::from(u8::from(differs)))
        }
        Err(diagnostic) => {
            eprintln!("{diagnostic}");
            Ok(ExitCode::from(2))
        }
    }
}
