//! The build systems, each behind the same few verbs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Actions that run at once, for every tool.
const JOBS: &str = "2";

/// Which build system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Maestro,
    Ninja,
    Bazel,
}

impl Kind {
    /// The kind of that name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Maestro, Self::Ninja, Self::Bazel].into_iter().find(|kind| kind.name() == text)
    }

    /// The name of its program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Maestro => "maestro",
            Self::Ninja => "ninja",
            Self::Bazel => "bazel",
        }
    }
}

/// A build system with a workspace of its own.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Which one.
    pub(crate) kind: Kind,
    /// Its workspace.
    pub(crate) workspace: PathBuf,
    program: PathBuf,
    /// Its cache, and what else it keeps outside the workspace.
    state: PathBuf,
    /// Where former states wait for their removal.
    aside: PathBuf,
    log: PathBuf,
}

/// One timed build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Wall time in milliseconds, start of the program included.
    pub(crate) ms: f64,
    /// Actions that ran, where the tool says so in a form meant for programs.
    pub(crate) executed: Option<u64>,
}

impl Tool {
    /// A tool that works below `work`; `maestro` is the program to measure.
    pub(crate) fn new(kind: Kind, maestro: &Path, work: &Path) -> Self {
        let program = match kind {
            Kind::Maestro => maestro.to_path_buf(),
            _ => PathBuf::from(kind.name()),
        };
        Self {
            kind,
            workspace: work.join(kind.name()),
            program,
            state: work.join(format!("{}-state", kind.name())),
            aside: work.join(format!("{}-aside", kind.name())),
            log: work.join(format!("{}.log", kind.name())),
        }
    }

    /// Builds everything.
    pub(crate) fn build(&self) -> Result<Timing> {
        let mut command = self.command();
        match self.kind {
            Kind::Maestro => command
                .args(["build", "--jobs", JOBS, "--output", "json", "--cache"])
                .arg(&self.state)
                .arg("//..."),
            Kind::Ninja => command.args(["-j", JOBS, "--quiet"]),
            Kind::Bazel => command
                .args(["build", "//...", "--jobs", JOBS, "--symlink_prefix=/"])
                .args(["--noshow_progress", "--ui_event_filters=-info"])
                // Debian switches debugging on, which keeps every sandbox and costs time.
                .arg("--nosandbox_debug")
                .arg(format!("--disk_cache={}", self.state.join("disk").display())),
        };
        let start = Instant::now();
        let stdout = self.finish(&mut command)?;
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        let executed = match self.kind {
            Kind::Maestro => Some(executed(&stdout)?),
            _ => None,
        };
        Ok(Timing { ms, executed })
    }

    /// Removes outputs, and what the tool knows about them; caches stay.
    pub(crate) fn clean(&self) -> Result<()> {
        let mut command = self.command();
        match self.kind {
            Kind::Maestro => command.arg("clean").arg("--cache").arg(&self.state),
            Kind::Bazel => command.arg("clean"),
            Kind::Ninja => {
                remove(&self.workspace.join("out"))?;
                remove(&self.workspace.join(".ninja_log"))?;
                return remove(&self.workspace.join(".ninja_deps"));
            }
        };
        self.finish(&mut command).map(drop)
    }

    /// Puts outputs and caches out of reach. Bazel's server runs from here on, which is to its
    /// advantage.
    pub(crate) fn forget(&self) -> Result<()> {
        match self.kind {
            Kind::Maestro => {
                self.put_aside(&self.workspace.join("maestro-out"))?;
                self.put_aside(&self.state)
            }
            Kind::Ninja => {
                self.put_aside(&self.workspace.join("out"))?;
                self.clean()
            }
            Kind::Bazel => {
                self.clean()?;
                self.put_aside(&self.state.join("disk"))
            }
        }
    }

    /// Moves a folder away instead of removing it. Ext4 does not use inodes again that were freed
    /// in the last minutes, and searches long where there are many: a build right after a large
    /// removal would pay for that.
    fn put_aside(&self, folder: &Path) -> Result<()> {
        if folder.symlink_metadata().is_err() {
            return Ok(());
        }
        let all = |path: &Path| format!("cannot move things to {}", path.display());
        std::fs::create_dir_all(&self.aside).with_context(|| all(&self.aside))?;
        let number = std::fs::read_dir(&self.aside).with_context(|| all(&self.aside))?.count();
        let to = self.aside.join(number.to_string());
        std::fs::rename(folder, &to).with_context(|| all(&to))
    }

    /// How many outputs lie where they should.
    pub(crate) fn outputs(&self) -> Result<usize> {
        let folder = match self.kind {
            Kind::Maestro => self.workspace.join("maestro-out"),
            Kind::Ninja => self.workspace.join("out"),
            Kind::Bazel => {
                let mut command = self.command();
                PathBuf::from(self.finish(command.args(["info", "bazel-bin"]))?.trim())
            }
        };
        count(&folder)
    }

    /// Ends what runs in the background.
    pub(crate) fn stop(&self) -> Result<()> {
        if self.kind == Kind::Bazel {
            self.finish(self.command().arg("shutdown"))?;
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.workspace).stdin(Stdio::null());
        if self.kind == Kind::Bazel {
            command.arg(format!("--output_user_root={}", self.state.join("root").display()));
            // Without this its server outlives a harness that was killed by hours.
            command.args(["--max_idle_secs=600", "--nohome_rc"]);
        }
        command
    }

    /// Runs a command with its messages in a file, and shows their end when it fails.
    fn finish(&self, command: &mut Command) -> Result<String> {
        let log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let output = command
            .stderr(log)
            .stdout(Stdio::piped())
            .output()
            .with_context(|| format!("cannot run `{}`", self.program.display()))?;
        if !output.status.success() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(20).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            bail!("`{}` failed: {}\n{}", self.kind.name(), output.status, end.join("\n"));
        }
        String::from_utf8(output.stdout).context("the output is not UTF-8")
    }
}

/// The number of executed actions in the last line of Maestro's JSON output.
fn executed(stdout: &str) -> Result<u64> {
    let last = stdout.lines().next_back().context("maestro printed nothing")?;
    let summary: Value = serde_json::from_str(last).context("maestro's last line is not JSON")?;
    let executed = summary.pointer("/actions/executed").and_then(Value::as_u64);
    executed.context("maestro's summary has no `actions.executed`")
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// Files named `*.sum` below `folder`.
fn count(folder: &Path) -> Result<usize> {
    let mut found = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "sum") {
                found += 1;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_how_many_actions_ran() {
        let summary = r#"{"success":true,"actions":{"total":9,"executed":4}}"#;
        assert_eq!(executed(&format!("{{}}\n{summary}\n")).expect("a summary"), 4);
        for bad in ["", "text", "{}"] {
            assert!(executed(bad).is_err(), "{bad}");
        }
    }
}
