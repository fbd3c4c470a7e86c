//! Which crate may know which, and how crates are declared.
//!
//! The table below is the layering of docs/ARCHITECTURE.md; an edge that it does not name is
//! forbidden, for development dependencies too.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use super::tree::SourceFile;
use crate::process;

/// Folder of a crate → Maestro crates that it may depend on. `integrations/*` have one row.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("cas", &["core"]),
    ("rules", &["core"]),
    ("policy", &["core"]),
    ("executor", &["cas", "core"]),
    ("remote", &["executor", "cas", "core"]),
    ("integrations/*", &["executor", "cas", "core"]),
    ("runs", &["executor", "rules", "cas", "policy", "core"]),
    ("server", &["runs", "remote", "executor", "rules", "cas", "policy", "core"]),
    (
        "cli",
        &[
            "server",
            "runs",
            "remote",
            "executor",
            "rules",
            "cas",
            "policy",
            "core",
            "integrations/*",
        ],
    ),
    ("xtask", &[]),
    ("bench", &[]),
    ("tests", &["server", "runs", "remote", "executor", "rules", "cas", "policy", "core"]),
];

/// Foreign crate → folders that may use it. What is not listed may be used by all.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("anyhow", &["cli", "xtask", "bench", "tests"], "libraries have typed errors"),
    ("clap", &["cli"], "only cli reads arguments"),
    ("tracing-subscriber", &["cli"], "only cli prints"),
    ("starlark", &["rules"], "the build language stays in one crate"),
    ("rusqlite", &["runs"], "the journal stays in one module"),
    ("regorus", &["policy"], "Rego stays in one crate"),
    ("rocksdb", &["cas"], "the index stays in one module"),
    ("prost", &["remote", "tests"], "wire types stay in one crate"),
    ("tonic", &["remote", "tests"], "wire types stay in one crate"),
    ("bazel-remote-apis", &["remote", "tests"], "wire types stay in one crate"),
    (
        "tokio",
        &["cli", "executor", "remote", "runs", "server", "integrations/*", "tests"],
        "core, cas, rules and policy are not async",
    ),
];

const MEND_EDGE: &str = "define a trait in the lower crate, implement it above, wire it in cli; \
                         the table is in xtask/src/tidy/edges.rs";

/// Checks the manifests of all crates and of the workspace.
pub(super) fn check(root: &Path, files: &[SourceFile]) -> Result<Vec<Finding>> {
    let text = process::output(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"]),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let mut findings = Vec::new();
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    for package in packages {
        let manifest = package["manifest_path"].as_str().context("no manifest path")?;
        let folder = Path::new(manifest)
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok())
            .and_then(Path::to_str)
            .context("a package lies outside the repository")?;
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        let mut edges = Vec::new();
        for dependency in dependencies {
            let name = dependency["name"].as_str().context("a dependency without a name")?;
            let target = dependency["path"].as_str().map(|path| {
                let path = Path::new(path);
                path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
            });
            edges.push((name.to_owned(), target));
        }
        findings.extend(crate_findings(folder, &edges));
    }
    for file in files.iter().filter(|file| file.has_suffix("Cargo.toml")) {
        findings.extend(manifest_findings(file));
    }
    Ok(findings)
}

/// What is wrong with the dependencies of the crate in `folder`: names, with folders if ours.
fn crate_findings(folder: &str, edges: &[(String, Option<String>)]) -> Vec<Finding> {
    let finding = |message: String, mend| Finding {
        file: format!("{folder}/Cargo.toml"),
        line: 1,
        message,
        mend,
    };
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == row(folder)) else {
        return vec![finding(
            format!("the crate `{folder}` has no row in the table of edges"),
            "decide on its layer and add it to xtask/src/tidy/edges.rs and docs/ARCHITECTURE.md",
        )];
    };
    let mut findings = Vec::new();
    for (name, target) in edges {
        match target {
            Some(target) if !allowed.contains(&row(target)) => findings
                .push(finding(format!("`{folder}` may not depend on `{target}`"), MEND_EDGE)),
            Some(_) => {}
            None => {
                let confined = CONFINED.iter().find(|(confined, ..)| confined == name);
                if let Some((_, folders, why)) = confined
                    && !folders.contains(&row(folder))
                {
                    let message = format!("`{folder}` may not use `{name}`: {why}");
                    findings.push(finding(message, "use it where it is at home, behind a trait"));
                }
            }
        }
    }
    findings
}

/// The row of a crate in the table: all integrations share one.
fn row(folder: &str) -> &str {
    if folder.starts_with("integrations/") { "integrations/*" } else { folder }
}

/// What is wrong with the text of a manifest.
fn manifest_findings(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut lints = false;
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.split(']').next().unwrap_or(line).trim_start_matches('[');
            lints |= section == "lints" || section == "workspace.lints.rust";
            continue;
        }
        if line.is_empty() || line.starts_with('#') || !line.contains('=') {
            continue;
        }
        let mut report = |message: String, mend| {
            findings.push(Finding { file: file.path.clone(), line: number, message, mend });
        };
        let name = line.split(['=', '.', ' ']).next().unwrap_or(line);
        if section == "workspace.dependencies" {
            if !line.contains("path =") && !line.contains(" # ") {
                report(
                    format!("the dependency `{name}` has no reason"),
                    "end the line with `# why it is here`",
                );
            }
        } else if section.ends_with("dependencies") && !line.contains("workspace = true") {
            report(
                format!("the version of `{name}` is not the workspace's"),
                "declare it in [workspace.dependencies] and write `NAME.workspace = true`",
            );
        }
    }
    if !lints {
        findings.push(Finding {
            file: file.path.clone(),
            line: 1,
            message: "the crate does not take the lints of the workspace".to_owned(),
            mend: "add `[lints]` with `workspace = true`",
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_edges_of_the_table_are_allowed() {
        let check = |folder: &str, name: &str, target: Option<&str>, allowed: bool| {
            let edges = [(name.to_owned(), target.map(str::to_owned))];
            let findings = crate_findings(folder, &edges);
            assert_eq!(findings.is_empty(), allowed, "{folder} -> {name}: {findings:?}");
        };
        check("cas", "maestro-core", Some("core"), true);
        check("core", "maestro-cas", Some("cas"), false);
        check("rules", "maestro-executor", Some("executor"), false);
        check("integrations/llm", "maestro-executor", Some("executor"), true);
        check("integrations/llm", "maestro-fetch", Some("integrations/fetch"), false);
        check("cli", "maestro-fetch", Some("integrations/fetch"), true);
        check("executor", "maestro-fetch", Some("integrations/fetch"), false);
        check("xtask", "maestro-core", Some("core"), false);
        check("cas", "anyhow", None, false);
        check("xtask", "anyhow", None, true);
        check("executor", "rocksdb", None, false);
        check("somewhere", "serde", None, false);
    }

    #[test]
    fn manifests_give_reasons_and_share_versions() {
        let check = |text: &str, expect: &[&str]| {
            let file = SourceFile { path: "x/Cargo.toml".into(), text: text.into() };
            let found: Vec<String> =
                manifest_findings(&file).into_iter().map(|finding| finding.message).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("[dependencies]\nserde.workspace = true\n[lints]\nworkspace = true\n", &[]);
        check(
            "[dependencies]\nserde = \"1\"\n[lints]\nworkspace = true\n",
            &["the version of `serde` is not the workspace's"],
        );
        check(
            "[workspace.dependencies]\nserde = \"1\"\ntoml = \"1\" # locks\n[lints]\n",
            &["the dependency `serde` has no reason"],
        );
        check("[package]\nname = \"x\"\n", &["the crate does not take the lints of the workspace"]);
    }
}
