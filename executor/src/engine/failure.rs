//! What a failed action looks like to the user: message, log, command, advice.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use maestro_cas::Store;
use maestro_core::event::Event;
use maestro_core::key::{Prepared, shell_quote};
use maestro_core::{ActionSpec, Digest, How, RelPath};

use super::Engine;
use super::work::WorkError;
use crate::runner::RunError;

/// How many bytes of a log are read to be shown.
const TAIL_BYTES: u64 = 16 * 1024;
/// How many lines of a log are shown.
const TAIL_LINES: usize = 40;
/// How many bytes of a command line are shown; the log has it whole.
const COMMAND_BYTES: usize = 2000;

/// What failed.
pub(super) struct Failed<'a> {
    /// Its number in events.
    pub(super) number: u32,
    /// What it is.
    pub(super) spec: &'a ActionSpec,
    /// The file that it was for, where it is a part of a map.
    pub(super) file: Option<&'a RelPath>,
}

/// Makes the event that tells of a failure, and the log file that it names.
pub(super) fn describe(engine: &Engine<'_>, failed: &Failed<'_>, error: &WorkError) -> Event {
    let Failed { number, spec, file } = failed;
    let target = engine.graph.target(spec.owner);
    let prepared = match error {
        WorkError::Command { prepared, .. } => Some(prepared.as_ref()),
        _ => None,
    };
    let logs = match error {
        WorkError::Run(error) | WorkError::Command { error, .. } => failure_logs(error),
        _ => Vec::new(),
    };
    let (log, _) = read_tail(engine.store, &logs);
    let command = match &spec.how {
        How::Command { .. } => prepared.map(command_line),
        How::Native { .. } | How::Params { .. } | How::Map(_) => None,
    };
    let log_path = prepared
        .filter(|_| command.is_some())
        .and_then(|prepared| write_log(engine, prepared, command.as_deref()?, &logs));
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let text = source.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = source.source();
    }
    if let Some(file) = file {
        message = format!("for `{file}`: {message}");
    }
    Event::ActionFailed {
        action: *number,
        label: target.label.clone(),
        aspect: target.aspect.as_deref().map(str::to_owned),
        mnemonic: spec.mnemonic.clone(),
        location: target.location.clone(),
        message,
        hints: error.hints(),
        log,
        command: command.map(|command| shorten(&command)),
        log_path: log_path.map(|path| path.display().to_string()),
    }
}

/// The last lines of some logs, one after the other, and whether earlier ones were left out.
pub(super) fn read_tail(store: &Store, logs: &[Digest]) -> (String, bool) {
    let mut text = String::new();
    let mut truncated = false;
    for digest in logs {
        let Ok(mut file) = store.open_blob(digest) else { continue };
        let skip = digest.size.saturating_sub(TAIL_BYTES);
        truncated |= skip > 0;
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(skip)).and_then(|_| file.read_to_end(&mut bytes)).is_ok() {
            text.push_str(&String::from_utf8_lossy(&bytes));
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    truncated |= first > 0;
    (lines.get(first..).unwrap_or_default().join("\n"), truncated)
}

/// The command line as a shell would take it, with its environment.
fn command_line(prepared: &Prepared) -> String {
    let env = prepared.parts.environment.iter();
    let words = env
        .map(|(name, value)| format!("{name}={}", shell_quote(value)))
        .chain(prepared.parts.arguments.iter().map(|argument| shell_quote(argument)));
    format!("env -i {}", words.collect::<Vec<_>>().join(" "))
}

fn shorten(command: &str) -> String {
    match command.char_indices().nth(COMMAND_BYTES) {
        Some((end, _)) => format!("{} …", command.get(..end).unwrap_or(command)),
        None => command.to_owned(),
    }
}

fn failure_logs(error: &RunError) -> Vec<Digest> {
    match error {
        RunError::Failed { stdout, stderr, .. } | RunError::Timeout { stdout, stderr, .. } => {
            stdout.iter().chain(stderr).copied().collect()
        }
        _ => Vec::new(),
    }
}

/// Writes command and whole log to a file; where that fails the user still has the tail.
fn write_log(
    engine: &Engine<'_>,
    prepared: &Prepared,
    command: &str,
    logs: &[Digest],
) -> Option<PathBuf> {
    let dir = &engine.options.log_dir;
    std::fs::create_dir_all(dir).ok()?;
    let path = dir.join(format!("{}.log", prepared.key.0.short()));
    let mut file = std::fs::File::create(&path).ok()?;
    writeln!(file, "# {command}").ok()?;
    for digest in logs {
        let mut blob = engine.store.open_blob(digest).ok()?;
        std::io::copy(&mut blob, &mut file).ok()?;
    }
    Some(path)
}
