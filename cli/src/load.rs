//! Evaluates build files and shows what is wrong with them.

use anyhow::Result;
use maestro_core::event::Severity;
use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::{FailureKind, RelPath, TargetPattern};
use maestro_rules::{
    ConfigurationRequest, Diagnostic, GroupToolchains, LoadOptions, Loaded, Memory, Reloaded,
    Remember,
};

use crate::config::Config;
use crate::exit::Failure;

/// Loads and analyzes the targets that `patterns` name.
pub fn load(
    config: &Config,
    host: &dyn Host,
    patterns: &[String],
    configuration: ConfigurationRequest,
) -> Result<Loaded> {
    let reloaded = reload(config, host, patterns, configuration, None, Remember::Nothing)?;
    Ok(reloaded.loaded)
}

/// As [`load`], as far as what is asked for is not remembered.
pub fn reload(
    config: &Config,
    host: &dyn Host,
    patterns: &[String],
    configuration: ConfigurationRequest,
    memory: Option<Memory<'_>>,
    remember: Remember,
) -> Result<Reloaded> {
    let mut parsed = Vec::with_capacity(patterns.len());
    for text in patterns {
        let (negative, pattern) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        let pattern = TargetPattern::parse(pattern, &config.package)
            .map_err(|e| Failure::input(e.to_string()))?;
        parsed.push((negative, pattern));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = LoadOptions { configuration, ..LoadOptions::new(host, parsed, threads) };
    let reloaded = maestro_rules::reload(options, memory, remember)
        .map_err(|list| failure(&list, NOTHING_BUILT))?;
    print_remarks(&reloaded.loaded.remarks);
    Ok(reloaded)
}

/// What a query answers, or its problems, which are printed.
pub fn answered<T>(answer: std::result::Result<T, Vec<Diagnostic>>) -> Result<T> {
    Ok(answer.map_err(|list| failure(&list, "kept the query from an answer"))?)
}

/// Prints what files said while they were evaluated.
pub fn print_remarks(remarks: &[Diagnostic]) {
    for remark in remarks {
        eprintln!("{remark}");
    }
}

/// Says which toolchains the targets of a pattern get.
pub fn resolve_toolchains(
    config: &Config,
    host: &dyn Host,
    pattern: &str,
    configuration: ConfigurationRequest,
) -> Result<Vec<GroupToolchains>> {
    let pattern = TargetPattern::parse(pattern, &config.package)
        .map_err(|e| Failure::input(e.to_string()))?;
    let options =
        LoadOptions { configuration, ..LoadOptions::new(host, vec![(false, pattern)], 1) };
    Ok(maestro_rules::resolve_toolchains(&options).map_err(|list| failure(&list, NOTHING_BUILT))?)
}

/// The toolchains that ship with the rules, as targets of a graph of their own.
pub fn builtin_toolchains() -> Result<Loaded> {
    let pattern = TargetPattern::parse("@maestro//toolchains:all", "")
        .map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
    let options = LoadOptions::new(&NoFiles, vec![(false, pattern)], 1);
    Ok(maestro_rules::load(options).map_err(|list| failure(&list, NOTHING_BUILT))?)
}

/// A workspace in which there is nothing.
struct NoFiles;

impl Host for NoFiles {
    fn stat(&self, _path: &RelPath) -> std::result::Result<Option<FileType>, HostError> {
        Ok(None)
    }

    fn read(&self, _path: &RelPath) -> std::result::Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }

    fn list(&self, _dir: Option<&RelPath>) -> std::result::Result<Vec<DirEntry>, HostError> {
        Ok(Vec::new())
    }

    fn open_repository(&self, name: &str, _from: &str) -> std::result::Result<String, HostError> {
        let (name, from) = (name.to_owned(), String::new());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }
}

/// Prints every problem; the last line counts them and says what did not happen.
pub fn failure(list: &[Diagnostic], so: &str) -> Failure {
    for diagnostic in list {
        eprintln!("{diagnostic}\n");
    }
    let errors: Vec<&Diagnostic> = list.iter().filter(|d| d.severity == Severity::Error).collect();
    let worst = [FailureKind::Internal, FailureKind::Environment, FailureKind::Input];
    let kind = worst.into_iter().find(|kind| errors.iter().any(|d| d.kind == *kind));
    let plural = if errors.len() == 1 { "" } else { "s" };
    Failure::new(
        kind.unwrap_or(FailureKind::Input),
        format!("{} problem{plural} {so}", errors.len()),
    )
}

/// What a failure to load comes to.
const NOTHING_BUILT: &str = "in the build files; nothing was built";
