//! `maestro repo`: the other repositories of `maestro.toml`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_executor::runner::Cancel;

use crate::args::{Global, RepoCommand};
use crate::config::{Config, PROJECT_FILE};
use crate::exit::{Failure, chain};
use crate::invocation::open_store;
use crate::runners::fetch_runner;

/// Runs the command.
pub fn repo(global: &Global, command: &RepoCommand) -> Result<ExitCode> {
    let config = Config::load(global)?;
    match command {
        RepoCommand::List => list(&config),
        RepoCommand::Pin { name } => pin(&config, name),
    }
}

fn list(config: &Config) -> Result<ExitCode> {
    let mut names: Vec<&String> =
        config.project.repos.keys().chain(config.overrides.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let from = match (config.overrides.get(name), config.project.repos.get(name)) {
            (Some(path), _) => format!("{} (override)", path.display()),
            (None, Some(spec)) => spec.place(),
            (None, None) => continue,
        };
        println!("@{name}  {from}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the digest of what a repository's URL gives now into the project file.
fn pin(config: &Config, name: &str) -> Result<ExitCode> {
    let spec = config.project.repos.get(name).ok_or_else(|| {
        Failure::input(format!("`{PROJECT_FILE}` declares no repository `@{name}`"))
            .hint("`maestro repo list` lists them")
    })?;
    let urls = spec.urls(name)?;
    let Some(url) = urls.first() else {
        return Err(Failure::input(format!("repository `@{name}` is not downloaded"))
            .hint("only archives and Git repositories are pinned")
            .into());
    };
    let store = open_store(config)?;
    let cancel = Cancel::default();
    crate::signals::cancel_on_interrupt(&cancel)?;
    let sha256 = fetch_runner(config, false)
        .sha256_of(url, &store, &cancel)
        .map_err(|error| Failure::new(error.kind(), chain(&error)))?;
    if spec.sha256.as_ref() == Some(&sha256) {
        println!("@{name} is pinned already: {sha256}");
        return Ok(ExitCode::SUCCESS);
    }
    let path = config.workspace.join(PROJECT_FILE);
    let text = read(&path)?;
    let Some(changed) = with_pin(&text, name, &sha256) else {
        println!("add to `[repos.{name}]` of {PROJECT_FILE}:\n\nsha256 = \"{sha256}\"");
        return Ok(ExitCode::SUCCESS);
    };
    let temp = path.with_extension("toml.new");
    std::fs::write(&temp, changed)
        .and_then(|()| std::fs::rename(&temp, &path))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    println!("@{name} is pinned to {sha256}");
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// The project file with another digest, its comments and order kept; `None` where the
/// declaration is no table of its own.
fn with_pin(text: &str, name: &str, sha256: &str) -> Option<String> {
    let header = |line: &str| line.trim_start().starts_with('[');
    let mut lines: Vec<&str> = text.lines().collect();
    let names = [format!("[repos.{name}]"), format!("[repos.\"{name}\"]")];
    let start = lines.iter().position(|line| names.iter().any(|name| line.trim() == name))?;
    let end = lines.iter().skip(start + 1).position(|line| header(line));
    let end = end.map_or(lines.len(), |offset| start + 1 + offset);
    let pin = format!("sha256 = \"{sha256}\"");
    let is_key = |line: &&str, key: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let body = lines.get(start + 1..end)?;
    if body.iter().any(|line| is_key(line, "integrity")) {
        return None; // two pins would contradict each other
    }
    match body.iter().position(|line| is_key(line, "sha256")) {
        Some(offset) => *lines.get_mut(start + 1 + offset)? = &pin,
        None => {
            let last = body.iter().rposition(|line| !line.trim().is_empty());
            lines.insert(start + 1 + last.map_or(0, |last| last + 1), &pin);
        }
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_written_where_they_belong() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(with_pin(text, "a", "00").as_deref(), expect, "{text}");
        };
        check(
            "jobs = 1\n\n[repos.a] \nurl = \"u\" # why\n\n[repos.b]\nurl = \"v\"\n",
            Some(
                "jobs = 1\n\n[repos.a] \nurl = \"u\" # why\nsha256 = \"00\"\n\n[repos.b]\n\
                 url = \"v\"\n",
            ),
        );
        check(
            "[repos.a]\nsha256 = \"11\"\nurl = \"u\"\n",
            Some("[repos.a]\nsha256 = \"00\"\nurl = \"u\"\n"),
        );
        check("[repos.a]", Some("[repos.a]\nsha256 = \"00\"\n"));
        check("[repos.a]\nintegrity = \"x\"\n", None);
        check("[repos]\na = { url = \"u\" }\n", None);
    }
}
