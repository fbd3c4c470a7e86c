//! `maestro provenance LABEL`: where an artifact came from, from the build log.
//!
//! The statement lies beside the outputs, never in them: it holds times, which outputs must not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use maestro_core::{Digest, TargetId};
use maestro_executor::provenance::walk::Walk;
use maestro_executor::provenance::{GitCommit, statement};
use maestro_executor::records::Records;
use maestro_executor::workspace;
use maestro_executor::workspace::toolchain::ToolchainList;

use crate::args::{ConfigurationOptions, Global, ProvenanceArgs};
use crate::config::Config;
use crate::exit::{Failure, chain};
use crate::invocation::open_store;
use crate::repos;

/// Runs the command.
pub fn provenance(global: &Global, args: &ProvenanceArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let outputs = outputs_of(&config, &args.label, &args.configuration)?;
    let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
    let log = crate::memory::open_log(&state_dir)?;
    if outputs.iter().all(|output| log.current(output).is_none()) {
        return Err(Failure::input(format!("nothing is known of `{}`", args.label))
            .hint(format!("`maestro build {}` builds it", args.label))
            .into());
    }
    let store = open_store(&config)?;
    let _lease = store.lease()?;
    let records = Records::load(&config.workspace)
        .map_err(|e| Failure::new(e.kind(), chain(&e)).hints(e.hints()))?;
    let walk = Walk {
        actions: &log.records().collect::<Vec<_>>(),
        invocations: &log.invocations().collect::<Vec<_>>(),
        lock: records.lock(),
        store: &store,
        packages: &toolchain_packages(&config.cache),
    };
    let mut build = walk.build(&outputs)?;
    build.label.clone_from(&args.label);
    build.version = env!("CARGO_PKG_VERSION").to_owned();
    build.git = commit(&config.workspace);
    let text = format!("{}\n", serde_json::to_string_pretty(&statement(&build))?);
    let path = match (&args.out, outputs.first()) {
        (Some(path), _) => path.clone(),
        (None, Some(first)) => config.workspace.join(format!("{first}.provenance.json")),
        (None, None) => return Err(Failure::input("the target has no outputs").into()),
    };
    write(&path, &text)?;
    print!("{text}");
    eprintln!("written to `{}`", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The execution paths of a target's files.
fn outputs_of(config: &Config, label: &str, options: &ConfigurationOptions) -> Result<Vec<String>> {
    let host = repos::unlocked_host(config)?;
    let configuration = crate::profiles::configuration(config, options)?;
    let loaded = crate::load::load(config, &host, &[label.to_owned()], configuration)?;
    let is_target = |id: &&TargetId| loaded.graph.target(**id).aspect.is_none();
    let targets: Vec<&TargetId> = loaded.requested.iter().filter(is_target).collect();
    let [target] = targets.as_slice() else {
        return Err(Failure::input(format!("`{label}` does not name one target")).into());
    };
    let files = loaded.graph.target(**target).files.iter();
    let made = files.filter(|id| loaded.graph.producer(**id).is_some());
    Ok(made.map(|id| loaded.graph.artifact(*id).path.to_string()).collect())
}

/// Names and versions of the packages of every toolchain that this cache holds, by tree.
fn toolchain_packages(cache: &Path) -> BTreeMap<Digest, Vec<(String, String)>> {
    let Ok(entries) = std::fs::read_dir(cache.join("toolchains")) else { return BTreeMap::new() };
    let lists = entries.filter_map(|entry| ToolchainList::open(&entry.ok()?.path()).ok()?);
    lists.map(|list| (list.root(), list.packages())).collect()
}

/// The commit of the workspace, where it is under Git and Git is at hand.
fn commit(workspace: &Path) -> Option<GitCommit> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--", "."]).is_none_or(|text| !text.is_empty());
    Some(GitCommit {
        repository: git(&["remote", "get-url", "origin"]).map(|url| without_credentials(&url)),
        commit,
        dirty,
    })
}

/// An address without what stands before the host's `@`.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((_, host)) => format!("{scheme}://{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut temp = PathBuf::from(path).into_os_string();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    std::fs::write(&temp, text).with_context(|| format!("cannot write `{}`", temp.display()))?;
    std::fs::rename(&temp, path).with_context(|| format!("cannot write `{}`", path.display()))
}
