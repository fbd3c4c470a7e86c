//! `uses: //label` and `uses: test` in a pipeline: builds and tests targets as `maestro build` and
//! `maestro test` do.
//!
//! What is done already is found in this process, as a build finds it that has nothing to do.
//! Anything else is a build of its own process, with its own signals, its own lock of the workspace
//! and its own console; the run waits for it, stops it, and takes its outputs from what it prints.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use clap::Parser;
use maestro_core::run::{Amount, Failure, FailureClass, Success};
use maestro_executor::step::{Stop, WorkFailure, Worker};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::args::{self, Cli};
use crate::commands::build::request;
use crate::config::Config;
use crate::null_build::{Look, look};
use crate::report::Summary;

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
        let line = self.command_line(verb, &labels);
        let looked = line.clone();
        let done = tokio::task::spawn_blocking(move || up_to_date(&looked)).await;
        if let Some(summary) = done.unwrap_or_default() {
            return Ok(success(&json!(summary)));
        }
        let mut command = Command::new(&self.program);
        command
            .args(&line[1..])
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
            return Ok(success(&serde_json::from_slice(&output.stdout).unwrap_or_default()));
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

impl BuildTarget {
    /// What a user would type.
    fn command_line(&self, verb: &str, labels: &[String]) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![self.program.clone().into(), verb.into()];
        line.extend(["--output", "json", "--workspace"].map(OsString::from));
        line.push(self.workspace.clone().into());
        line.extend(["--cache".into(), self.cache.clone().into()]);
        line.extend(labels.iter().map(OsString::from));
        line
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

/// What a command reports if nothing is left to do; whatever is wrong, the command itself will say.
fn up_to_date(line: &[OsString]) -> Option<Summary> {
    let Cli { global, command } = Cli::try_parse_from(line).ok()?;
    let (build, verb, tests) = match command {
        args::Command::Build(build) => (build, "build", None),
        args::Command::Test(test) => (test.build, "test", Some(test.flags)),
        _ => return None,
    };
    let config = Config::load(&global).ok()?.with_daemon(build.daemon);
    let config = Config { package: String::new(), ..config }; // the command stands in the root
    let request = request(&config, &build, verb, tests).ok()?;
    match look(&config, &request, true) {
        Look::Done(remembered) => Some(remembered.summary),
        Look::ToDo(_) => None,
    }
}

/// The outputs of a target, from what `build --output json` prints.
fn success(report: &Value) -> Success {
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
