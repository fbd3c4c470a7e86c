//! From an answer to the outputs of a step, and the file that it becomes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use maestro_core::RelPath;
use maestro_core::run::Failure;
use maestro_executor::records::Given;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::request::Inputs;
use super::{Kind, infrastructure, user};
use crate::error::excerpt;

/// Where files of runs lie below a workspace.
const FOLDER: &str = "maestro-out/runs";

/// A schema that lies in a file of the workspace.
pub(super) fn read_schema(workspace: &Path, path: &str) -> Result<Value, Failure> {
    let bad = |why: String| user(format!("the schema `{path}` cannot be used: {why}"));
    let full = inside(workspace, path).map_err(bad)?;
    let text = std::fs::read_to_string(full).map_err(|error| bad(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
}

/// Where a path of the workspace is. No part of it may be a link, which could lead out of it.
fn inside(workspace: &Path, path: &str) -> Result<PathBuf, String> {
    let below = RelPath::new(path).map_err(|error| error.to_string())?;
    let mut full = workspace.to_owned();
    for name in below.as_str().split('/') {
        full.push(name);
        if full.is_symlink() {
            return Err(format!("`{}` is a link", full.display()));
        }
    }
    Ok(full)
}

/// The outputs of a step, by their names.
pub(super) fn outputs(
    kind: Kind,
    inputs: &Inputs,
    given: &Given,
) -> Result<BTreeMap<String, Value>, Failure> {
    let record = &given.record;
    let text = String::from_utf8_lossy(&given.bytes).into_owned();
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let model = record.identity.strip_prefix("name:").unwrap_or(&record.model);
    let tokens = record.prompt_tokens.saturating_add(record.completion_tokens);
    let mut outputs =
        BTreeMap::from([("model".into(), json!(model)), ("tokens".into(), json!(tokens))]);
    if kind == Kind::Review {
        let reasons = value["reasons"].as_str().unwrap_or_default().trim();
        if inputs.require && value["verdict"] != "approve" {
            let verdict = value["verdict"].as_str().unwrap_or_default();
            return Err(user(format!("the verdict is `{verdict}`: {}", excerpt(reasons))));
        }
        outputs.insert("verdict".into(), value["verdict"].clone());
        outputs.insert("text".into(), reasons.into());
        outputs.insert("json".into(), value);
        return Ok(outputs);
    }
    outputs.insert("text".into(), text.trim_end_matches('\n').into());
    // Only what was asked for as a value is one.
    let asked = inputs.has_schema();
    outputs.insert("json".into(), if asked { value } else { Value::Null });
    Ok(outputs)
}

/// Whether the file that an answer becomes is one: a patch must apply to the workspace.
pub(super) async fn check(workspace: &Path, output: &str, bytes: &[u8]) -> Result<(), Failure> {
    if !output.ends_with(".patch") && !output.ends_with(".diff") {
        return Ok(());
    }
    let mut git = tokio::process::Command::new("git");
    git.args(["apply", "--check", "-"])
        .current_dir(workspace)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |error: std::io::Error| infrastructure(format!("cannot run `git`: {error}"));
    let mut child = git.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Git that ends before it has read all says why.
        let _ = stdin.write_all(bytes).await;
    }
    let told = child.wait_with_output().await.map_err(failed)?;
    match told.status.success() {
        true => Ok(()),
        false => {
            let why = excerpt(&String::from_utf8_lossy(&told.stderr));
            Err(user(format!("the patch that the model wrote does not apply: {why}")))
        }
    }
}

/// Writes the file that an answer becomes; returns its path below the workspace.
pub(super) fn write(workspace: &Path, inputs: &Inputs, bytes: &[u8]) -> Result<String, Failure> {
    let task: String =
        inputs.task.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let path = format!("{FOLDER}/{}/{task}/{}", inputs.run, inputs.output);
    let full = inside(workspace, &path)
        .map_err(|why| user(format!("`output` is no path of a file: {why}")))?;
    let write = || {
        std::fs::create_dir_all(full.parent().unwrap_or(workspace))?;
        // Whole or not at all, also for those who read meanwhile.
        let part = full.with_extension("part");
        std::fs::write(&part, bytes)?;
        std::fs::rename(&part, &full)
    };
    write().map_err(|error| infrastructure(format!("cannot write `{path}`: {error}")))?;
    Ok(path)
}
