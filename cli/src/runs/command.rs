//! `run.command`: a command that acts on the world.
//!
//! It gets the environment that the template gives it and nothing else but `PATH` and `HOME`, and
//! the key of the effect as `MAESTRO_IDEMPOTENCY_KEY`. Its exit code decides: 0 is done, anything
//! else is a failure of the step. Where it was killed or could not be waited for, nobody knows.
//!
//! What a Maestro that was killed has left of it is ended before it is asked about or run again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use maestro_core::record::canonical_json;
use maestro_core::run::{Failure, FailureClass, Success};
use maestro_executor::leftovers::{KEY_VARIABLE, end_leftovers};
use maestro_executor::process_group::ProcessGroup;
use maestro_executor::step::{Effect, Found, Reply, Stop};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Largest output that becomes an output of the step, in bytes.
const STDOUT_BYTES_MAX: u64 = 64 * 1024;

/// Runs commands in a workspace.
pub struct RunCommand {
    /// The workspace's root.
    pub workspace: PathBuf,
    /// `PATH` and `HOME` of whoever runs Maestro.
    pub environment: BTreeMap<String, String>,
}

/// The exact request, as it stands in the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: Vec<String>,
    directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    query: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
}

enum Ran {
    Exited(i32, Vec<u8>, Vec<u8>),
    NotStarted(String),
    Lost(String),
}

#[async_trait]
impl Effect for RunCommand {
    fn render(&self, inputs: &Value) -> Result<String, Failure> {
        let texts = |name: &str| -> Vec<String> {
            let items = inputs.get(name).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| Some(item.as_str()?.to_owned())).collect()
        };
        let text = |name: &str| inputs.get(name).and_then(Value::as_str).map(str::to_owned);
        let env = inputs.get("$env").and_then(Value::as_object).into_iter().flatten();
        let request = Request {
            command: texts("command"),
            directory: text("directory").unwrap_or_else(|| ".".to_owned()),
            stdin: text("stdin"),
            query: texts("query"),
            env: env.map(|(name, value)| (name.clone(), word(value))).collect(),
        };
        if request.command.is_empty() {
            return Err(Failure::new(FailureClass::User, "`command` names no program"));
        }
        let path = request.directory.as_str();
        if path != "." && maestro_core::RelPath::new(path).is_err() {
            let message = format!("`directory` `{path}` is not below the workspace");
            return Err(Failure::new(FailureClass::User, message));
        }
        let value = serde_json::to_value(&request).unwrap_or_default();
        let bytes = canonical_json(&value)
            .map_err(|error| Failure::new(FailureClass::User, error.to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn send(&self, request: &str, key: &str, stop: &Stop) -> Reply {
        let request: Request = match serde_json::from_str(request) {
            Ok(request) => request,
            Err(error) => return Reply::Refused(unreadable(&error)),
        };
        match self.run(&request.command, &request, key, stop).await {
            Ran::Exited(0, stdout, _) => Reply::Done(success(&stdout)),
            Ran::Exited(code, _, stderr) => {
                let tail = String::from_utf8_lossy(&stderr);
                let last = tail.trim_end().lines().last().unwrap_or("it printed no error");
                let message = format!("`{}` ended with {code}: {last}", request.command[0]);
                Reply::Refused(Failure::new(FailureClass::User, message))
            }
            Ran::NotStarted(why) => {
                let message = format!("cannot run `{}`: {why}", request.command[0]);
                Reply::Refused(Failure::new(FailureClass::User, message))
            }
            Ran::Lost(why) => Reply::Unclear(Failure::new(FailureClass::Infrastructure, why)),
        }
    }

    async fn find(&self, request: &str, key: &str, stop: &Stop) -> Found {
        let request: Request = match serde_json::from_str(request) {
            Ok(request) => request,
            Err(error) => return Found::Unclear(unreadable(&error).message),
        };
        if request.query.is_empty() {
            return Found::Unclear("it has no `query`".to_owned());
        }
        match self.run(&request.query, &request, key, stop).await {
            Ran::Exited(0, stdout, _) => Found::Done(success(&stdout)),
            Ran::Exited(1, ..) => Found::NotDone,
            Ran::Exited(code, ..) => Found::Unclear(format!("its query ended with {code}")),
            Ran::NotStarted(why) | Ran::Lost(why) => Found::Unclear(why),
        }
    }
}

impl RunCommand {
    async fn run(&self, argv: &[String], request: &Request, key: &str, stop: &Stop) -> Ran {
        let Some((program, arguments)) = argv.split_first() else {
            return Ran::NotStarted("it is empty".to_owned());
        };
        end_leftovers(key).await;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.workspace.join(&request.directory))
            .env_clear()
            .envs(&self.environment)
            .envs(&request.env)
            .env(KEY_VARIABLE, key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ran::NotStarted(error.to_string()),
        };
        let mut group = ProcessGroup::of(child.id());
        let text = request.stdin.clone().unwrap_or_default();
        tokio::select! {
            ran = finish(child, text) => {
                group.release();
                ran
            }
            () = stop.cancelled() => Ran::Lost("it was stopped before it ended".to_owned()),
        }
    }
}

/// Feeds a program and waits for it, keeping the beginning of what it prints.
async fn finish(mut child: Child, stdin: String) -> Ran {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut input) = input {
            // A program that does not read to the end is free to do so.
            let _ = input.write_all(stdin.as_bytes()).await;
        }
    };
    let (_, stdout, stderr, status) =
        tokio::join!(feed, bounded(output), bounded(errors), child.wait());
    match status {
        Ok(status) => match status.code() {
            Some(code) => Ran::Exited(code, stdout, stderr),
            None => Ran::Lost(format!("it was ended by a signal: {status}")),
        },
        Err(error) => Ran::Lost(error.to_string()),
    }
}

async fn bounded(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(STDOUT_BYTES_MAX).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

fn success(stdout: &[u8]) -> Success {
    let text = String::from_utf8_lossy(stdout).into_owned();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    let outputs = [
        ("stdout".to_owned(), Value::String(text)),
        ("json".to_owned(), json),
        ("exit_code".to_owned(), 0.into()),
    ];
    Success { outputs: outputs.into(), ..Success::default() }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(FailureClass::User, format!("the request cannot be read: {error}"))
}
