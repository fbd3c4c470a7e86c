//! Where events go: the console, a file of JSON lines, a Chrome trace.
//!
//! [`Fanout`] hands events to one thread through a bounded queue and never blocks the build;
//! what does not fit is counted and reported at the end.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use maestro_core::event::{Event, EventSink, Outcome};
use maestro_core::limits;

use crate::console::Console;

/// A consumer of events, on the thread of the fan-out.
trait Sink: Send {
    fn take(&mut self, event: &Event) -> std::io::Result<()>;
    /// Called when nothing came for a while.
    fn idle(&mut self) {}
    fn finish(&mut self) -> std::io::Result<()>;
}

/// Sends events to every sink.
pub struct Fanout {
    sender: Option<SyncSender<Box<Event>>>,
    thread: Option<JoinHandle<Vec<String>>>,
    dropped: AtomicU64,
}

impl Fanout {
    /// Opens the sinks and starts the thread.
    pub fn start(console: Console, events: Option<&Path>, trace: Option<&Path>) -> Result<Self> {
        let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(ConsoleSink(console))];
        if let Some(path) = events {
            sinks.push(Box::new(JsonLines::create(path)?));
        }
        if let Some(path) = trace {
            sinks.push(Box::new(ChromeTrace::create(path)?));
        }
        // The queue is laid out in full before the first event, so its places are small.
        let (sender, receiver) = sync_channel(limits::EVENT_QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("events".into())
            .spawn(move || drain(&receiver, sinks))
            .context("cannot start a thread")?;
        Ok(Self { sender: Some(sender), thread: Some(thread), dropped: AtomicU64::new(0) })
    }

    /// Waits until everything is written; returns what went wrong on the way.
    pub fn finish(mut self) -> Vec<String> {
        self.sender = None;
        let mut problems =
            self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            problems.push(format!("{dropped} events were dropped because a sink was too slow"));
        }
        problems
    }
}

impl EventSink for Fanout {
    fn emit(&self, event: Event) {
        if let Some(sender) = &self.sender
            && sender.try_send(Box::new(event)).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn drain(receiver: &Receiver<Box<Event>>, mut sinks: Vec<Box<dyn Sink>>) -> Vec<String> {
    let mut problems = Vec::new();
    let tick = std::time::Duration::from_millis(100);
    loop {
        match receiver.recv_timeout(tick) {
            Ok(event) => sinks.retain_mut(|sink| match sink.take(&event) {
                Ok(()) => true,
                Err(error) => {
                    problems.push(format!("cannot write events: {error}"));
                    false
                }
            }),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                sinks.iter_mut().for_each(|sink| sink.idle());
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    for mut sink in sinks {
        if let Err(error) = sink.finish() {
            problems.push(format!("cannot write events: {error}"));
        }
    }
    problems
}

struct ConsoleSink(Console);

impl Sink for ConsoleSink {
    fn take(&mut self, event: &Event) -> std::io::Result<()> {
        self.0.take(event);
        Ok(())
    }

    fn idle(&mut self) {
        self.0.refresh();
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.0.clear();
        Ok(())
    }
}

/// One event a line.
struct JsonLines(BufWriter<File>);

impl JsonLines {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(BufWriter::new(create(path)?)))
    }
}

impl Sink for JsonLines {
    fn take(&mut self, event: &Event) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.write_all(b"\n")
    }

    fn idle(&mut self) {
        let _ = self.0.flush(); // a real error comes again with the next event
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The trace event format that chrome://tracing and Perfetto read (JSON array form, complete
/// events, microseconds).
struct ChromeTrace {
    out: BufWriter<File>,
    first: bool,
}

impl ChromeTrace {
    fn create(path: &Path) -> Result<Self> {
        let mut out = BufWriter::new(create(path)?);
        out.write_all(b"[").with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { out, first: true })
    }

    fn event(&mut self, value: &serde_json::Value) -> std::io::Result<()> {
        self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        serde_json::to_writer(&mut self.out, value)?;
        Ok(())
    }
}

impl Sink for ChromeTrace {
    fn take(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::InvocationStarted { command, patterns, .. } => {
                let name = format!("maestro {command} {}", patterns.join(" "));
                self.event(&serde_json::json!({
                    "ph": "M", "pid": 1, "name": "process_name", "args": {"name": name},
                }))
            }
            Event::Analyzed { at_ms, packages, targets } => self.event(&serde_json::json!({
                "ph": "X", "pid": 1, "tid": 0, "ts": 0, "dur": at_ms * 1000,
                "name": "load and analyze", "cat": "phase",
                "args": {"packages": packages, "targets": targets},
            })),
            Event::ActionFinished {
                action,
                label,
                mnemonic,
                outcome,
                start_ms,
                at_ms,
                slot,
                key,
                needs,
                ..
            } if *outcome != Outcome::Skipped => self.event(&serde_json::json!({
                "ph": "X", "pid": 1, "tid": slot.map_or(0, |s| s + 1),
                "ts": start_ms * 1000, "dur": (at_ms - start_ms).max(1) * 1000,
                "name": format!("{mnemonic} {label}"), "cat": mnemonic,
                "args": {"outcome": outcome, "key": key, "action": action, "needs": needs},
            })),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.out.write_all(b"\n]\n")?;
        self.out.flush()
    }
}

fn create(path: &Path) -> Result<File> {
    let shown: PathBuf = path.to_owned();
    File::create(path).with_context(|| format!("cannot create `{}`", shown.display()))
}
