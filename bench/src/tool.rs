//! The build systems, each behind the same few verbs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Actions that run at once, for every tool.
const JOBS: &str = "2";

/// How often the memory of a process is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

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
    /// The largest memory of the process itself, its children left out, where it was watched.
    pub(crate) peak_kib: Option<u64>,
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
        self.build_as(false)
    }

    /// Builds everything and watches how much memory the process takes.
    pub(crate) fn build_watched(&self) -> Result<Timing> {
        self.build_as(true)
    }

    fn build_as(&self, watched: bool) -> Result<Timing> {
        let mut command = self.command();
        match self.kind {
            Kind::Maestro => {
                command.args(["build", "--jobs", JOBS, "--cache"]).arg(&self.state).arg("//...")
            }
            Kind::Ninja => command.args(["-j", JOBS, "--quiet"]),
            Kind::Bazel => command
                .args(["build", "//...", "--jobs", JOBS, "--symlink_prefix=/"])
                .args(["--noshow_progress", "--ui_event_filters=-info"])
                // Debian switches debugging on, which keeps every sandbox and costs time.
                .arg("--nosandbox_debug")
                .arg(format!("--disk_cache={}", self.state.join("disk").display())),
        };
        let start = Instant::now();
        let peak_kib = match watched {
            true => self.finish_watched(&mut command)?.1,
            false => self.finish(&mut command).map(|_| None)?,
        };
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        let executed = match self.kind {
            Kind::Maestro => Some(executed(&self.said()?)?),
            _ => None,
        };
        Ok(Timing { ms, executed, peak_kib })
    }

    /// Has Maestro build what is built, with its daemon; in milliseconds.
    pub(crate) fn ask_daemon(&self) -> Result<f64> {
        let mut command = self.command();
        command.args(["build", "--jobs", JOBS, "--daemon", "--cache"]).arg(&self.state);
        let (ms, _) = self.timed(command.arg("//..."))?;
        let said = self.said()?;
        if !said.contains("up to date: ") {
            bail!("a null build with the daemon did something: {said}");
        }
        Ok(ms)
    }

    /// What the tool wrote on standard error.
    fn said(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("the log cannot be read")
    }

    /// Ends Maestro's daemon.
    pub(crate) fn stop_daemon(&self) -> Result<()> {
        let mut command = self.command();
        command.args(["daemon", "stop", "--cache"]).arg(&self.state);
        self.finish(&mut command).map(drop)
    }

    /// Reads and analyzes every package, and runs nothing; in milliseconds. Bazel's server is
    /// started before, and knows nothing yet.
    pub(crate) fn load(&self) -> Result<f64> {
        if self.kind == Kind::Bazel {
            self.stop()?;
            self.finish(self.command().args(["info", "release"]))?;
        }
        let mut command = self.command();
        match self.kind {
            Kind::Maestro => command.args(["aquery", "mnemonic(\"none\", //...)"]),
            Kind::Bazel => command.args(["build", "--nobuild", "--noshow_progress", "//..."]),
            Kind::Ninja => command.args(["-n", "--quiet"]),
        };
        self.timed(&mut command).map(|(ms, _)| ms)
    }

    /// Asks Maestro a query; the time in milliseconds, and how many lines it answers.
    pub(crate) fn query(&self, expression: &str) -> Result<(f64, usize)> {
        let mut command = self.command();
        command.args(["query", expression, "--cache"]).arg(&self.state);
        let (ms, answer) = self.timed(&mut command)?;
        Ok((ms, answer.lines().count()))
    }

    fn timed(&self, command: &mut Command) -> Result<(f64, String)> {
        let start = Instant::now();
        let stdout = self.finish(command)?;
        Ok((start.elapsed().as_secs_f64() * 1000.0, stdout))
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

    /// Has Maestro build one target; ninja and Bazel need no such preparation.
    pub(crate) fn prepare(&self, target: &str) -> Result<()> {
        if self.kind != Kind::Maestro {
            return Ok(());
        }
        let mut command = self.command();
        command.arg("build").arg("--cache").arg(&self.state).arg(target);
        self.finish(&mut command).map(drop)
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
        let child = self.start(command)?;
        self.outcome(child.wait_with_output()?)
    }

    /// As [`Self::finish`], with the largest memory that the process had.
    fn finish_watched(&self, command: &mut Command) -> Result<(String, Option<u64>)> {
        let child = self.start(command)?;
        let process = child.id();
        let done = AtomicBool::new(false);
        let (output, peak) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(process, &done));
            let output = child.wait_with_output();
            done.store(true, Ordering::Relaxed);
            (output, watch.join().unwrap_or_default())
        });
        Ok((self.outcome(output?)?, peak))
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        let log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        command
            .stderr(log)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.program.display()))
    }

    fn outcome(&self, output: Output) -> Result<String> {
        if !output.status.success() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(20).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            bail!("`{}` failed: {}\n{}", self.kind.name(), output.status, end.join("\n"));
        }
        String::from_utf8(output.stdout).context("the output is not UTF-8")
    }
}

/// Looks at the high-water mark of a process until it is gone. The kernel keeps the mark, so that
/// only what is taken in the last moments can be missed.
fn watch(process: u32, done: &AtomicBool) -> Option<u64> {
    let mut peak = None;
    while !done.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        peak = peak.max(high_water_kib(&status));
        std::thread::sleep(WATCH_INTERVAL);
    }
    peak
}

/// The line `VmHWM:   12345 kB`.
fn high_water_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The number of executed actions in the last line that Maestro writes for people, such as
/// `built: 9 targets, 9 actions: 4 executed, 5 cached in 0.12 s`.
fn executed(said: &str) -> Result<u64> {
    let last = said.lines().next_back().context("maestro printed nothing")?;
    let before = last.split_once(" executed").context("maestro does not say what it executed")?.0;
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().with_context(|| format!("`{number}` is no number of actions"))
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
    fn the_high_water_mark_is_a_line_of_the_status() {
        assert_eq!(high_water_kib("Name:\tx\nVmHWM:\t  5120 kB\nVmRSS:\t 4 kB\n"), Some(5120));
        for bad in ["", "VmHWM:", "VmHWM: many kB", "VmRSS: 4 kB"] {
            assert_eq!(high_water_kib(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_line_says_how_many_actions_ran() {
        let check = |said: &str, expect: u64| assert_eq!(executed(said).expect("said"), expect);
        check("built: 9 targets, 9 actions: 4 executed, 5 cached in 0.12 s\n", 4);
        check("warning: x\nup to date: 1 target, 1 action: 0 executed, 1 cached in 0.01 s", 0);
        for bad in ["", "text", "built: 9 targets, many executed"] {
            assert!(executed(bad).is_err(), "{bad}");
        }
    }
}
