//! `uses: //label` in a pipeline: builds a target as `maestro build` does, by calling it.
//!
//! A build of its own process has its own signals, its own lock of the workspace and its own
//! console; the run waits for it, stops it, and takes its outputs from what it prints.

use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use maestro_core::run::{Failure, FailureClass, Success};
use maestro_executor::step::{Stop, WorkFailure, Worker};
use serde_json::{Value, json};
use tokio::process::Command;

/// Builds targets of a workspace.
pub struct BuildTarget {
    /// This program.
    pub program: PathBuf,
    /// The workspace's root.
    pub workspace: PathBuf,
    /// The cache.
    pub cache: PathBuf,
}

#[async_trait]
impl Worker for BuildTarget {
    async fn run(&self, inputs: &Value, stop: &Stop) -> Result<Success, WorkFailure> {
        let label = inputs.get("label").and_then(Value::as_str).unwrap_or_default();
        let mut command = Command::new(&self.program);
        command
            .args(["build", "--output", "json"])
            .arg("--workspace")
            .arg(&self.workspace)
            .arg("--cache")
            .arg(&self.cache)
            .arg(label)
            .current_dir(&self.workspace)
            .env_remove("MAESTRO_CHECKPOINTS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            let message = format!("cannot run `{}`: {error}", self.program.display());
            Failure::new(FailureClass::Infrastructure, message)
        })?;
        let pid = child.id();
        let ended = child.wait_with_output();
        tokio::pin!(ended);
        let output = tokio::select! {
            output = &mut ended => output,
            () = stop.cancelled() => {
                interrupt(pid);
                let _ = ended.await;
                return Err(Failure::new(FailureClass::Cancelled, "the build was stopped").into());
            }
        };
        let output = output
            .map_err(|error| Failure::new(FailureClass::Infrastructure, error.to_string()))?;
        if output.status.success() {
            return Ok(success(&output.stdout));
        }
        let class = match output.status.code() {
            Some(1 | 2) => FailureClass::User,
            _ => FailureClass::Infrastructure,
        };
        let text = String::from_utf8_lossy(&output.stderr);
        let error = text.lines().find(|line| line.starts_with("error")).unwrap_or("it failed");
        let message = format!("building `{label}`: {}", error.trim_start_matches("error: "));
        let hints = vec![format!("`maestro build {label}` shows all of it")];
        Err(Failure { hints, ..Failure::new(class, message) }.into())
    }
}

/// Asks a build to end in order.
fn interrupt(pid: Option<u32>) {
    let pid = pid.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// The outputs of a target, from what `build --output json` printed.
fn success(stdout: &[u8]) -> Success {
    let report: Value = serde_json::from_slice(stdout).unwrap_or_default();
    let mut files = Vec::new();
    let mut digests = Vec::new();
    for file in report["targets"].as_array().into_iter().flatten().flat_map(outputs_of) {
        files.push(file["path"].clone());
        digests.push(file["digest"].clone());
    }
    let digest = maestro_core::run::request_digest(&Value::Array(digests).to_string());
    let outputs = [("files".to_owned(), json!(files)), ("digest".to_owned(), digest.into())];
    Success { outputs: outputs.into(), cached: report["executed"] == 0, ..Success::default() }
}

fn outputs_of(target: &Value) -> impl Iterator<Item = &Value> {
    target["outputs"].as_array().into_iter().flatten()
}
