//! Runs `maestro` as a user does, and reads what it says in the forms meant for programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process;
use crate::suite::USER_SETTINGS;

/// The program, with a workspace and a cache.
#[derive(Debug)]
pub(super) struct Maestro {
    program: PathBuf,
    workspace: PathBuf,
    cache: PathBuf,
    /// Whether commands are confined; `doctor` finds out.
    sandboxed: bool,
}

/// What a successful build said about itself.
#[derive(Debug)]
pub(super) struct Built {
    summary: Value,
    events: Vec<Value>,
}

impl Maestro {
    pub(super) fn new(program: PathBuf, workspace: PathBuf, cache: PathBuf) -> Self {
        Self { program, workspace, cache, sandboxed: true }
    }

    /// Asks Maestro to check the machine. Says whether sandboxes are permitted, and fails on
    /// anything else that is wrong.
    pub(super) fn doctor(&mut self) -> Result<bool> {
        let mut command = self.command("doctor");
        let shown = command.stderr(Stdio::inherit()).output();
        let shown = shown.context("cannot run `maestro doctor`")?;
        println!("{}", String::from_utf8_lossy(&shown.stdout));
        let mut command = self.command("doctor");
        let output =
            command.args(["--output", "json"]).output().context("cannot run `maestro doctor`")?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .context("`maestro doctor` printed something that is not JSON")?;
        let checks = report["checks"].as_array().context("`maestro doctor` names no checks")?;
        for check in checks.iter().filter(|check| check["ok"] == false) {
            match check["name"].as_str() {
                Some("sandbox") => self.sandboxed = false,
                name => bail!("`maestro doctor`: {}: {}", name.unwrap_or("?"), check["found"]),
            }
        }
        Ok(self.sandboxed)
    }

    /// Builds a target, which must succeed.
    pub(super) fn build(&self, target: &str) -> Result<Built> {
        let events = self.cache.with_file_name("events.json");
        let _ = std::fs::remove_file(&events);
        let mut command = self.command("build");
        command.args(["--output", "json", "--events"]).arg(&events);
        self.confine(&mut command);
        command.arg(target);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run `{}`", process::line(&command)))?;
        ensure!(output.status.success(), "`{}`: {}", process::line(&command), output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().next_back().context("the build printed nothing")?;
        let summary = serde_json::from_str(last).context("the summary is not JSON")?;
        // A build that sees at once that nothing changed has no events.
        let lines = std::fs::read_to_string(&events).unwrap_or_default();
        let events = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let built = Built { summary, events: events.context("an event is not JSON")? };
        ensure!(built.summary["success"] == true, "the build says that it failed");
        Ok(built)
    }

    /// Builds a target, which must fail: the exit code and what it told the user.
    pub(super) fn failing_build(&self, target: &str) -> Result<(i32, String)> {
        let mut command = self.command("build");
        self.confine(&mut command);
        command.arg(target);
        let output = command.output().context("cannot run `maestro build`")?;
        ensure!(!output.status.success(), "the build succeeded, expected it to stop");
        let code = output.status.code().context("the build was killed")?;
        Ok((code, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Why actions ran in the last build.
    pub(super) fn explain(&self, target: &str) -> Result<String> {
        process::output(self.command("explain").arg(target))
    }

    /// Writes the provenance of a target.
    pub(super) fn provenance(&self, target: &str, file: &Path) -> Result<()> {
        process::output(self.command("provenance").arg("--out").arg(file).arg(target)).map(drop)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.workspace)
            .stdin(Stdio::null())
            .arg(name)
            .arg("--workspace")
            .arg(&self.workspace)
            .arg("--cache")
            .arg(&self.cache);
        for name in USER_SETTINGS {
            command.env_remove(name);
        }
        command
    }

    fn confine(&self, command: &mut Command) {
        if !self.sandboxed {
            command.arg("--sandbox=none");
        }
    }
}

impl Built {
    /// All actions that the target needs.
    pub(super) fn total(&self) -> u64 {
        self.count("total")
    }

    /// Actions that ran.
    pub(super) fn executed(&self) -> u64 {
        self.count("executed")
    }

    /// Actions whose result came from `maestro.lock`.
    pub(super) fn locked(&self) -> u64 {
        self.count("locked")
    }

    fn count(&self, outcome: &str) -> u64 {
        let count = self.summary.pointer(&format!("/actions/{outcome}"));
        count.and_then(Value::as_u64).unwrap_or(0)
    }

    /// What live calls cost, in micro-dollars.
    pub(super) fn cost_usd_micros(&self) -> Result<u64> {
        self.summary["cost_usd_micros"].as_u64().context("the summary names no cost")
    }

    /// The time that the build took, for people.
    pub(super) fn time(&self) -> String {
        match self.summary["wall_ms"].as_u64() {
            Some(ms) if ms < 1_000 => format!("{ms} ms"),
            Some(ms) => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
            None => "unknown time".to_owned(),
        }
    }

    /// Paths of the outputs; of a large release, the first ones.
    pub(super) fn outputs(&self) -> Result<Vec<String>> {
        const SHOWN: usize = 12;
        let targets = self.summary["targets"].as_array().context("no targets in the summary")?;
        let outputs: Vec<&Value> =
            targets.iter().filter_map(|target| target["outputs"].as_array()).flatten().collect();
        let describe = |output: &&Value| {
            let path = output["path"].as_str().unwrap_or("?");
            format!("{path} ({} bytes)", output["size"])
        };
        let mut lines: Vec<String> = outputs.iter().take(SHOWN).map(describe).collect();
        if outputs.len() > SHOWN {
            lines.push(format!("and {} more", outputs.len() - SHOWN));
        }
        Ok(lines)
    }

    /// Mnemonics and owners of the actions that ran, in the order in which they ended.
    pub(super) fn ran(&self) -> Result<Vec<(String, String)>> {
        let finished = self
            .events
            .iter()
            .filter(|event| event["event"] == "action-finished" && event["outcome"] == "executed");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        finished
            .map(|event| Some((text(&event["mnemonic"])?, text(&event["label"])?)))
            .collect::<Option<_>>()
            .context("an event has no mnemonic or label")
    }

    /// How many actions of a mnemonic ran.
    pub(super) fn executed_of(&self, mnemonic: &str) -> Result<usize> {
        Ok(self.ran()?.iter().filter(|(found, _)| found == mnemonic).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn builds_are_read_from_summary_and_events() {
        let finished = |mnemonic: &str, outcome: &str| {
            json!({"event": "action-finished", "mnemonic": mnemonic, "label": "//a:b",
                   "outcome": outcome})
        };
        let outputs: Vec<Value> =
            (0..14).map(|n| json!({"path": format!("out/{n}"), "size": n})).collect();
        let built = Built {
            summary: json!({
                "actions": {"total": 9, "executed": 2, "locked": 1},
                "wall_ms": 1_250,
                "cost_usd_micros": 0,
                "targets": [{"label": "//a:b", "outputs": outputs}],
            }),
            events: vec![
                json!({"event": "planned"}),
                finished("CppCompile", "cached"),
                finished("CppCompile", "executed"),
                finished("CppLink", "executed"),
            ],
        };
        assert_eq!((built.total(), built.executed(), built.locked()), (9, 2, 1));
        assert_eq!(built.time(), "1.2 s");
        assert_eq!(built.executed_of("CppCompile").expect("well-formed"), 1);
        let lines = built.outputs().expect("there are outputs");
        assert_eq!(lines.len(), 13);
        assert_eq!(lines.last().map(String::as_str), Some("and 2 more"));
    }
}
