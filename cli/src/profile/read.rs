//! Reads what `--trace` (a Chrome trace) and `--events` (JSON lines) write.

use std::collections::HashMap;

use maestro_core::event::{Event, Outcome};
use serde_json::Value;

use super::{Action, Build};

/// Why a file is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is neither of the two forms.
    #[error("it is neither a trace nor a file of events: {0}")]
    Form(#[source] serde_json::Error),
    /// A line of events cannot be read.
    #[error("line {line} is no event: {source}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It has no action.
    #[error("it names no action")]
    Empty,
}

/// Reads either form.
pub fn read(text: &str) -> Result<Build, ReadError> {
    let build = match text.trim_start().starts_with('[') {
        true => trace(text)?,
        false => events(text)?,
    };
    if build.actions.is_empty() {
        return Err(ReadError::Empty);
    }
    Ok(build)
}

/// Collects actions; one that ran again counts as it ended last.
#[derive(Default)]
struct Collector {
    build: Build,
    index: HashMap<u32, usize>,
}

impl Collector {
    fn action(&mut self, action: Action) {
        self.build.wall_ms = self.build.wall_ms.max(action.end_ms);
        match self.index.get(&action.id).and_then(|at| self.build.actions.get_mut(*at)) {
            Some(known) => *known = action,
            None => {
                self.index.insert(action.id, self.build.actions.len());
                self.build.actions.push(action);
            }
        }
    }
}

fn events(text: &str) -> Result<Build, ReadError> {
    let mut collector = Collector::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(line)
            .map_err(|source| ReadError::Line { line: index + 1, source })?;
        // Events of a later version are passed over.
        let Ok(event) = serde_json::from_value::<Event>(value) else { continue };
        match event {
            Event::InvocationStarted { command, patterns, .. } => {
                collector.build.request = format!("{command} {}", patterns.join(" "));
            }
            Event::Analyzed { at_ms, .. } => collector.build.analyzed_ms = at_ms,
            Event::ActionFinished {
                action,
                label,
                mnemonic,
                outcome,
                start_ms,
                at_ms,
                needs,
                ..
            } if outcome != Outcome::Skipped => collector.action(Action {
                id: action,
                label: label.to_string(),
                mnemonic,
                outcome,
                start_ms,
                end_ms: at_ms,
                needs,
            }),
            Event::InvocationFinished { wall_ms, .. } => {
                collector.build.wall_ms = collector.build.wall_ms.max(wall_ms);
            }
            _ => {}
        }
    }
    Ok(collector.build)
}

fn trace(text: &str) -> Result<Build, ReadError> {
    // A build that was killed leaves the array open.
    let text = text.trim_end();
    let closed = match text.ends_with(']') {
        true => text.to_owned(),
        false => format!("{}\n]", text.trim_end_matches(',')),
    };
    let entries: Vec<Value> = serde_json::from_str(&closed).map_err(ReadError::Form)?;
    let mut collector = Collector::default();
    for (index, entry) in entries.iter().enumerate() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| entry.get(name).and_then(Value::as_u64).unwrap_or(0);
        let args = entry.get("args");
        let end_ms = number("ts").saturating_add(number("dur")) / 1000;
        match (text("ph"), text("cat")) {
            ("M", _) if text("name") == "process_name" => {
                let name = args.and_then(|args| args.get("name")).and_then(Value::as_str);
                let name = name.unwrap_or_default();
                collector.build.request = name.strip_prefix("maestro ").unwrap_or(name).to_owned();
            }
            ("X", "phase") => collector.build.analyzed_ms = end_ms,
            ("X", mnemonic) => {
                let argument = |name: &str| args.and_then(|args| args.get(name)).cloned();
                let outcome = argument("outcome").and_then(|o| serde_json::from_value(o).ok());
                let id = argument("action").and_then(|id| serde_json::from_value(id).ok());
                let needs = argument("needs").and_then(|list| serde_json::from_value(list).ok());
                let name = text("name");
                collector.action(Action {
                    id: id.unwrap_or_else(|| u32::try_from(index).unwrap_or(u32::MAX)),
                    label: name.strip_prefix(mnemonic).unwrap_or(name).trim().to_owned(),
                    mnemonic: mnemonic.to_owned(),
                    outcome: outcome.unwrap_or(Outcome::Executed),
                    start_ms: number("ts") / 1000,
                    end_ms,
                    needs: needs.unwrap_or_default(),
                });
            }
            _ => {}
        }
    }
    Ok(collector.build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let events = r#"{"event":"invocation-started","invocation_id":"i","command":"build","patterns":["//a"],"version":"0","unix_ms":1}
{"event":"analyzed","packages":1,"targets":2,"at_ms":10}
{"event":"of-a-later-version"}
{"event":"action-finished","action":1,"label":"//a:b","mnemonic":"Cc","class":"pure","outcome":"executed","key":null,"start_ms":12,"at_ms":30,"slot":0,"cost_usd_micros":0,"saved_usd_micros":0,"needs":[0]}
"#;
        let trace = r#"[
{"ph":"M","pid":1,"name":"process_name","args":{"name":"maestro build //a"}},
{"ph":"X","pid":1,"tid":0,"ts":0,"dur":10000,"name":"load and analyze","cat":"phase","args":{}},
{"ph":"X","pid":1,"tid":1,"ts":12000,"dur":18000,"name":"Cc //a:b","cat":"Cc","args":{"outcome":"executed","action":1,"needs":[0]}},"#;
        let build = read(events).expect("events");
        assert_eq!(build, read(trace).expect("a trace that was cut short"));
        assert_eq!(
            (build.request.as_str(), build.analyzed_ms, build.wall_ms),
            ("build //a", 10, 30)
        );
        assert_eq!(build.actions[0].needs, [0]);
    }

    #[test]
    fn other_files_are_refused() {
        for (text, message) in [
            ("", "it names no action"),
            ("{}\n{\n", "line 2 is no event"),
            ("[1, {", "it is neither"),
            ("hello", "line 1 is no event"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }
}
