//! Explanations as lines of text.

use std::fmt;

use maestro_core::ActionClass;
use maestro_core::event::Outcome;

use super::{Cause, Edit, Explanation, Root, Why};
use crate::baselines::Entry;

/// Most causes that a line shows.
const RENDERED_CAUSES_MAX: usize = 3;

/// The path of an output as people know it: without the folder of all outputs.
fn for_people(path: &str) -> &str {
    let below = path.strip_prefix("maestro-out/").and_then(|rest| rest.split_once('/'));
    below.map_or(path, |(_, rest)| rest)
}

impl Explanation {
    /// One line of text: the action, what became of it, and why. Names that came with the cache
    /// are shown without what would move a terminal.
    pub fn render(&self) -> String {
        self.line().chars().flat_map(escape_control).collect()
    }

    fn line(&self) -> String {
        let Self { identity, label: _, mnemonic, outcome, why, baseline } = self;
        let verb = match (why, outcome) {
            (Why::New, Outcome::Executed) => "ran for the first time",
            (Why::New, Outcome::Cached) => "is new here, its result was cached",
            (Why::New, Outcome::Remote) => "is new here, its result was in the remote cache",
            (Why::New, Outcome::Locked) => "is new here, its result is in maestro.lock",
            (Why::NeverRun | Why::Lost | Why::NotCached { .. }, _) => "was not cached",
            (_, Outcome::Executed) if baseline.is_some() => "was not cached",
            (_, Outcome::Executed) => "re-ran",
            (_, Outcome::Cached) => "has another key, its result was cached",
            (_, Outcome::Remote) => "has another key, its result was in the remote cache",
            (_, Outcome::Locked) => "has another key, its result is in maestro.lock",
            (_, Outcome::Failed) => "failed",
            (_, Outcome::Skipped) => "was skipped",
        };
        let line = format!("{}  {mnemonic} {verb}", for_people(identity));
        let because = match why {
            Why::New => return line,
            Why::SameKey { failed_before: true } => "it failed the last time".to_owned(),
            Why::SameKey { failed_before: false } => "nothing that it reads changed".to_owned(),
            Why::NeverRun => "no run of it is known to this cache".to_owned(),
            Why::Lost => "its result was in the cache, and is gone".to_owned(),
            Why::NotCached { class: ActionClass::Recorded } => {
                "its results are kept in maestro.lock".to_owned()
            }
            Why::NotCached { .. } => "its results are never kept".to_owned(),
            Why::Changed { causes, more } => list(causes, *more),
        };
        match baseline {
            Some(run) => format!("{line}: {because}; nearest run: {}", when(run)),
            None => format!("{line}: {because}"),
        }
    }
}

/// The first causes, and how many there are besides.
fn list(causes: &[Cause], more: usize) -> String {
    let shown = causes.iter().take(RENDERED_CAUSES_MAX).map(Cause::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match more + causes.len().saturating_sub(RENDERED_CAUSES_MAX) {
        0 => shown,
        count => format!("{shown}, and {count} more"),
    }
}

/// When a run was, and in which build; times are those of the run's own machine.
fn when(run: &Entry) -> String {
    let milliseconds = i64::try_from(run.unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or_default();
    let time = time.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("{time}, build {}", run.invocation_id)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        match self.through.as_slice() {
            [] => Ok(()),
            [only] => write!(f, " (through {})", for_people(only)),
            [first, .., last] => {
                write!(f, " (through {} … {})", for_people(first), for_people(last))
            }
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { path, edit, content: _, lines: None } => write!(f, "{path} {edit}"),
            Self::Source { path, edit, content: _, lines: Some(lines) } => {
                write!(f, "{path}:{lines} {edit}")
            }
            Self::Dependency { path, edit: Edit::Removed } => {
                write!(f, "{} is no longer an input", for_people(path))
            }
            Self::Dependency { path, .. } => {
                write!(f, "{} is a new input", for_people(path))
            }
            Self::Toolchain { name, edit, content: _, files } => {
                write!(f, "toolchain {name} {edit}")?;
                match files.as_slice() {
                    [] => Ok(()),
                    files => write!(f, " in {}", files.join(", ")),
                }
            }
            Self::CommandLine { old, new } => {
                changed(f, "the command line", old.as_deref(), new.as_deref())
            }
            Self::Parameters => f.write_str("its parameters changed"),
            Self::Environment { name, old, new } => {
                changed(f, &format!("environment variable {name}"), old.as_deref(), new.as_deref())
            }
            Self::Platform { name, old, new } => {
                changed(f, &format!("platform property {name}"), old.as_deref(), new.as_deref())
            }
            Self::Outputs => f.write_str("its declared outputs changed"),
            Self::Timeout => f.write_str("its time limit changed"),
            Self::Definition { old, new } => {
                changed(f, "its definition", Some(old.as_str()), Some(new.as_str()))
            }
            Self::Semantics { old, new } => {
                let what = "Maestro's way to make it";
                changed(f, what, old.as_deref(), new.as_deref())
            }
            Self::Unstable { identity } => {
                write!(f, "{} was made again with other bytes", for_people(identity))
            }
            Self::Unknown { path } => write!(f, "{} changed", for_people(path)),
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "was added",
            Self::Removed => "was removed",
            Self::Changed => "changed",
        })
    }
}

/// Says that something changed, from what to what where both are known.
fn changed(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> fmt::Result {
    match (old, new) {
        (Some(old), Some(new)) => {
            let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
            write!(f, "{what} changed (`{}` to `{}`)", brief(old, same), brief(new, same))
        }
        _ => write!(f, "{what} changed"),
    }
}

/// The part of a text around a place, on one line.
fn brief(text: &str, place: usize) -> String {
    const CHARS_MAX: usize = 60;
    const CHARS_BEFORE: usize = 20;
    let skipped = place.saturating_sub(CHARS_BEFORE);
    let mut out = if skipped > 0 { "…".to_owned() } else { String::new() };
    out.extend(text.chars().skip(skipped).take(CHARS_MAX));
    if text.chars().nth(skipped + CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

fn escape_control(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
