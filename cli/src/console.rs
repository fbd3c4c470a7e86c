//! The human view of a build, on standard error: one calm status line on a terminal, a plain line
//! now and then elsewhere. Results are not its business; they go to standard output at the end.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use maestro_core::event::{ActionCounts, Event, Outcome, Severity, TestStatus};

/// How often the status line is drawn again.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a plain line tells of progress.
const PLAIN: Duration = Duration::from_secs(5);

/// Draws the state of a build.
pub struct Console {
    terminal: bool,
    color: bool,
    quiet: bool,
    started: Instant,
    drawn: Instant,
    shown: bool,
    phase: &'static str,
    counts: ActionCounts,
    running: BTreeMap<u32, (String, Instant)>,
    toolchains: Vec<(String, Instant)>,
    saved_usd_micros: u64,
    without_test_logs: bool,
}

impl Console {
    /// A console on standard error. `quiet` shows failures only.
    pub fn new(quiet: bool, no_color: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let now = Instant::now();
        Self {
            terminal,
            color: terminal && !no_color,
            quiet,
            started: now,
            drawn: now,
            shown: false,
            phase: "loading",
            counts: ActionCounts::default(),
            running: BTreeMap::new(),
            toolchains: Vec::new(),
            saved_usd_micros: 0,
            without_test_logs: false,
        }
    }

    /// Takes one event.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Analyzed { .. } => self.phase = "planning",
            Event::Reevaluated { .. } => {}
            Event::Planned { actions, .. } => {
                self.phase = "building";
                self.counts = ActionCounts { total: *actions, ..ActionCounts::default() };
                self.running.clear();
            }
            Event::Mapped { parts, .. } => self.counts.total += parts,
            Event::ToolchainStarted { name } => {
                let text = format!("Preparing toolchain {name}");
                self.toolchains.push((text, Instant::now()));
            }
            Event::ToolchainFinished { .. } => {
                self.toolchains.pop(); // one at a time: the engine holds a lock over it
            }
            Event::ActionStarted { action, label, mnemonic, progress, .. } => {
                let text = if progress.is_empty() {
                    format!("{mnemonic} {label}")
                } else {
                    progress.clone()
                };
                self.running.insert(*action, (text, Instant::now()));
            }
            Event::ActionFinished { action, outcome, saved_usd_micros, .. } => {
                self.running.remove(action);
                self.counts.add(*outcome);
                self.saved_usd_micros += saved_usd_micros;
            }
            Event::ActionLog { label, text, .. } => {
                let head = self.paint("1", &format!("{label}:"));
                self.line(&format!("{head}\n{}", text.trim_end()));
            }
            Event::Message { severity, text } => {
                let head = match severity {
                    Severity::Info => self.paint("36", "info:"),
                    Severity::Warning => self.paint("33", "warning:"),
                    Severity::Error => self.paint("31;1", "error:"),
                };
                self.line(&format!("{head} {text}"));
            }
            Event::ActionFailed { .. } => self.failure(event),
            Event::TestFinished { label, status, cached, duration_ms, .. } => {
                self.test(&label.to_string(), *status, *cached, *duration_ms);
            }
            Event::InvocationStarted { .. }
            | Event::InvocationFinished { .. }
            | Event::TestResult { .. } => {}
        }
        self.refresh();
    }

    /// Says nothing of what failed tests wrote.
    pub fn hide_test_logs(&mut self, hide: bool) {
        self.without_test_logs = hide;
    }

    /// Draws the status again if it is time.
    pub fn refresh(&mut self) {
        if self.quiet {
            return;
        }
        let interval = if self.terminal { REDRAW } else { PLAIN };
        if self.drawn.elapsed() < interval {
            return;
        }
        self.drawn = Instant::now();
        let status = self.status();
        let mut err = std::io::stderr().lock();
        if self.terminal {
            let width = terminal_width();
            let cut: String = status.chars().take(width.saturating_sub(1)).collect();
            let _ = write!(err, "\r\x1b[2K{cut}");
            let _ = err.flush();
            self.shown = true;
        } else {
            let _ = writeln!(err, "{status}");
        }
    }

    /// Removes the status line.
    pub fn clear(&mut self) {
        if self.shown {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K");
            let _ = err.flush();
            self.shown = false;
        }
    }

    fn status(&self) -> String {
        let elapsed = seconds(self.started.elapsed());
        if self.counts.total == 0 {
            return format!("{} ({elapsed})", self.phase);
        }
        let ActionCounts { total, executed, cached, locked, failed, .. } = self.counts;
        let done = executed + cached + locked + failed;
        let mut out = format!("[{done}/{total}] {elapsed}");
        for (count, what) in [(cached, "cached"), (locked, "from lock"), (failed, "failed")] {
            if count > 0 {
                out.push_str(&format!(", {count} {what}"));
            }
        }
        let mut running: Vec<&(String, Instant)> =
            self.running.values().chain(&self.toolchains).collect();
        running.sort_by_key(|(_, since)| *since);
        let more = running.len().saturating_sub(2);
        for (text, since) in running.iter().take(2) {
            out.push_str(&format!(" | {text} {}", seconds(since.elapsed())));
        }
        if more > 0 {
            out.push_str(&format!(" | and {more} more"));
        }
        out
    }

    fn failure(&mut self, event: &Event) {
        let Event::ActionFailed {
            label,
            aspect,
            mnemonic,
            location,
            message,
            hints,
            log,
            command,
            log_path,
            ..
        } = event
        else {
            return;
        };
        let head = self.paint("31;1", "error:");
        let (by, flag) = match aspect {
            None => (String::new(), String::new()),
            Some(aspect) => (format!(" by aspect {aspect}"), format!(" --aspects={aspect}")),
        };
        let mut text = format!("{head} {mnemonic} of {label}{by}: {message}\n  --> {location}");
        let hidden = self.without_test_logs && mnemonic == "Test";
        if !log.is_empty() && !hidden {
            text.push_str(&format!("\n{log}"));
        }
        if let Some(path) = log_path {
            text.push_str(&format!("\nfull log: {path}"));
        }
        if let Some(command) = command {
            text.push_str(&format!("\ncommand: {command}"));
            let verb = if mnemonic == "Test" { "test" } else { "build" };
            text.push_str(&format!("\nto run it again: maestro {verb} {label}{flag}"));
        }
        for hint in hints {
            text.push_str(&format!("\n{} {hint}", self.paint("36", "hint:")));
        }
        self.line(&text);
    }

    fn test(&mut self, label: &str, status: TestStatus, cached: bool, duration_ms: u64) {
        let (word, color) = match status {
            TestStatus::Passed => ("PASSED", "32"),
            TestStatus::Flaky => ("FLAKY", "33"),
            TestStatus::Failed => ("FAILED", "31;1"),
            TestStatus::Timeout => ("TIMEOUT", "31;1"),
            TestStatus::NotBuilt => ("NOT BUILT", "33"),
        };
        let word = self.paint(color, word);
        let how = match (status, cached) {
            (TestStatus::NotBuilt, _) => String::new(),
            (_, true) => " (cached)".to_owned(),
            (_, false) => format!(" in {}", seconds(Duration::from_millis(duration_ms))),
        };
        self.line(&format!("{label:<60} {word}{how}"));
    }

    /// Prints a line above the status.
    fn line(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A duration for people: `0.42 s`, `12.3 s`, `3 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    match s {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.1} s"),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// Counts for people: `34 actions: 30 executed, 2 cached, 2 from lock`.
pub fn counts_text(counts: &ActionCounts) -> String {
    let mut parts = Vec::new();
    for (outcome, word) in [
        (Outcome::Executed, "executed"),
        (Outcome::Cached, "cached"),
        (Outcome::Remote, "from remote cache"),
        (Outcome::Locked, "from lock"),
        (Outcome::Failed, "failed"),
        (Outcome::Skipped, "skipped"),
    ] {
        let count = counts.get(outcome);
        if count > 0 || outcome == Outcome::Executed {
            parts.push(format!("{count} {word}"));
        }
    }
    let plural = if counts.total == 1 { "action" } else { "actions" };
    format!("{} {plural}: {}", counts.total, parts.join(", "))
}

/// Dollars for people, from micro-dollars.
pub fn dollars(usd_micros: u64) -> String {
    format!("${}.{:06}", usd_micros / 1_000_000, usd_micros % 1_000_000)
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|width| *width > 0)
        .unwrap_or(100)
}
