//! `uses: //label` and `uses: test` in a pipeline: builds and tests targets as `maestro build` and
//! `maestro test` do, by calling them.
//!
//! A build of its own process has its own signals, its own lock of the workspace and its own
//! console; the run waits for it, stops it, and takes its outputs from what it prints.

use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use maestro_core::run::{Amount, Failure, FailureClass, Success};
use maestro_executor::step::{Stop, WorkFailure, Worker};
use serde_json::{Value, json};
use tokio::process::Command;

/// Builds and tests targets of a workspace.
#[derive(Clone)]
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
    async fn run(&self, inputs: &Value, _: Amount, stop: &Stop) -> Result<Success, WorkFailure> {
        let (verb, labels) = wanted(inputs)?;
        let mut command = Command::new(&self.program);
        command
            .args([verb, "--output", "json"])
            .arg("--workspace")
            .arg(&self.workspace)
            .arg("--cache")
            .arg(&self.cache)
            .args(&labels)
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
        let error = error.trim_start_matches("error: ");
        let command = format!("maestro {verb} {}", labels.join(" "));
        let message = format!("`{command}`: {error}");
        let hints = vec![format!("`{command}` shows all of it")];
        Err(Failure { hints, ..Failure::new(class, message) }.into())
    }
}

/// The command and what it is about: `label`, or `targets` to be tested.
fn wanted(inputs: &Value) -> Result<(&'static str, Vec<String>), Failure> {
    let user = |message: &str| Failure::new(FailureClass::User, message);
    if let Some(label) = inputs.get("label").and_then(Value::as_str) {
        return Ok(("build", vec![label.to_owned()]));
    }
    if inputs.get("cmd").is_some_and(|cmd| !cmd.is_null()) {
        let mut failure = user("this Maestro cannot run `cmd` of `test` yet");
        failure.hints = vec!["make it a test target, and name that in `targets`".to_owned()];
        return Err(failure);
    }
    let targets = inputs.get("targets").and_then(Value::as_array).into_iter().flatten();
    let targets: Vec<String> =
        targets.filter_map(|target| Some(target.as_str()?.to_owned())).collect();
    match targets.iter().find(|target| target.starts_with('-')) {
        Some(target) => Err(user(&format!("`{target}` is no label"))),
        None if targets.is_empty() => Err(user("`targets` names no test")),
        None => Ok(("test", targets)),
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
    Success {
        outputs: outputs.into(),
        cached: report["actions"]["executed"] == 0,
        ..Success::default()
    }
}

fn outputs_of(target: &Value) -> impl Iterator<Item = &Value> {
    target["outputs"].as_array().into_iter().flatten()
}
