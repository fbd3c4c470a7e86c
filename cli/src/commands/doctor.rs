//! `maestro doctor`: checks this machine and says what to install or change.

mod file_system;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_cas::{Store, StoreOptions};
use maestro_core::DigestFunction;
use maestro_executor::sandbox;
use maestro_rules::{GroupToolchains, ToolchainChoice, Verdict};
use serde::Serialize;

use crate::args::{DoctorArgs, Global, OutputFormat};
use crate::config::{Config, cache_dir};
use crate::exit::chain;
use crate::repos;
use file_system::Weak;

/// One thing that was looked at.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found, one sentence.
    found: String,
    /// What to do where it is not well.
    hints: Vec<String>,
}

/// Least free space of the cache's disk that is not worth a word, in bytes.
const FREE_BYTES_WANTED: u64 = 5 << 30;

/// Runs the command. Exit code 3 where something must be mended.
pub fn doctor(global: &Global, args: &DoctorArgs) -> Result<ExitCode> {
    if let Some(label) = &args.toolchains {
        return explain_toolchains(global, label, args);
    }
    let cache = cache_dir(global)?;
    let options = StoreOptions { root: cache.clone(), function: DigestFunction::Blake3 };
    let store = Store::open(options)?;
    let mut checks = vec![namespaces(&store)?, disk(&cache)];
    checks.extend(Config::load(global).ok().map(|config| workspace(&config.workspace)));
    checks.extend(toolchains(&store));
    let ok = checks.iter().all(|check| check.ok);
    if global.output == OutputFormat::Json {
        println!("{}", serde_json::json!({"ok": ok, "checks": checks}));
    } else {
        for check in &checks {
            println!("{:<4} {}: {}", if check.ok { "ok" } else { "BAD" }, check.name, check.found);
            for hint in &check.hints {
                println!("     hint: {hint}");
            }
        }
    }
    Ok(ExitCode::from(if ok { 0 } else { 3 }))
}

/// Says which toolchains a target gets, and why.
fn explain_toolchains(global: &Global, label: &str, args: &DoctorArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let host = repos::unlocked_host(&config)?;
    let configuration = crate::profiles::configuration(&config, &args.configuration)?;
    let found = crate::load::resolve_toolchains(&config, &host, label, configuration)?;
    if global.output == OutputFormat::Json {
        println!("{}", json_of(&found));
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        println!("`{label}` needs no toolchain by type");
    }
    for GroupToolchains { target, group, resolution } in &found {
        let group = group.iter().map(|name| format!(", execution group `{name}`"));
        let group: String = group.collect();
        println!("{target}{group}, with actions on {}", resolution.execution_platform);
        for choice in &resolution.choices {
            let taken = choice.implementation.as_ref();
            let taken = taken.map_or_else(|| "none".to_owned(), ToString::to_string);
            println!("  {} -> {taken}", choice.ty);
            for (candidate, place, verdict) in &choice.candidates {
                println!("    {candidate} ({place}) {verdict}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json_of(found: &[GroupToolchains]) -> serde_json::Value {
    let choice = |choice: &ToolchainChoice| {
        let candidates = choice.candidates.iter().map(|(label, place, verdict)| {
            let (taken, reason) = (*verdict == Verdict::Taken, verdict.to_string());
            serde_json::json!({"toolchain": label, "location": place, "taken": taken, "reason": reason})
        });
        serde_json::json!({
            "type": choice.ty,
            "mandatory": choice.mandatory,
            "implementation": choice.implementation,
            "candidates": candidates.collect::<Vec<_>>(),
        })
    };
    let target = |GroupToolchains { target, group, resolution }: &GroupToolchains| {
        serde_json::json!({
            "target": target,
            "exec_group": group,
            "execution_platform": resolution.execution_platform,
            "execution_properties": resolution.properties.iter().cloned().collect::<BTreeMap<_, _>>(),
            "toolchains": resolution.choices.iter().map(choice).collect::<Vec<_>>(),
        })
    };
    found.iter().map(target).collect()
}

fn namespaces(store: &Store) -> Result<Check> {
    let name = "sandbox";
    let program = std::env::current_exe().context("cannot find Maestro's own program")?;
    Ok(match sandbox::probe(&program, &store.scratch_dir()) {
        Ok(found) => Check { name, ok: true, found: found.to_string(), hints: Vec::new() },
        Err(error) => Check { name, ok: false, found: chain(&error), hints: error.hints() },
    })
}

fn disk(cache: &Path) -> Check {
    let name = "cache";
    let existing = cache.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(existing).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
    match (free, writable) {
        (Ok(free), Ok(())) => {
            let enough = free >= FREE_BYTES_WANTED;
            let hint = "a build may fill the disk; `maestro cache gc` makes room";
            Check {
                name,
                ok: true,
                found: format!(
                    "`{}`, {:.1} GiB free",
                    cache.display(),
                    free as f64 / f64::powi(2.0, 30)
                ),
                hints: if enough { Vec::new() } else { vec![hint.into()] },
            }
        }
        (Err(error), _) | (_, Err(error)) => Check {
            name,
            ok: false,
            found: format!("cannot write below `{}`: {error}", existing.display()),
            hints: vec!["name another folder with `--cache DIR` or `MAESTRO_CACHE`".into()],
        },
    }
}

/// A weak file system is no error: what is not known for sure is read again.
fn workspace(root: &Path) -> Check {
    let (found, hints) = match file_system::weak(root) {
        None => (format!("`{}`", root.display()), Vec::new()),
        Some(Weak { name, lack }) => (
            format!("`{}` lies on {name}, where {lack}", root.display()),
            vec![
                "files with odd time stamps are read again by every build; a local disk is faster"
                    .into(),
            ],
        ),
    };
    Check { name: "workspace", ok: true, found, hints }
}

/// The toolchains that ship with the rules: are their packages installed?
fn toolchains(store: &Store) -> Vec<Check> {
    let name = "toolchain";
    let loaded = match crate::load::builtin_toolchains() {
        Ok(loaded) => loaded,
        Err(error) => {
            return vec![Check { name, ok: false, found: error.to_string(), hints: Vec::new() }];
        }
    };
    let check = |toolchain: &maestro_core::Toolchain| {
        let missing = crate::runners::missing_packages(store, toolchain);
        match missing {
            Ok(missing) if missing.is_empty() => Check {
                name,
                ok: true,
                found: format!("`{}` is installed", toolchain.name),
                hints: Vec::new(),
            },
            Ok(missing) => Check {
                name,
                ok: false,
                found: format!("`{}` lacks {}", toolchain.name, missing.join(", ")),
                hints: vec![format!("apt-get install {}", missing.join(" "))],
            },
            Err(error) => Check { name, ok: false, found: chain(&error), hints: Vec::new() },
        }
    };
    loaded.graph.toolchains().map(check).collect()
}
