//! What is wrong with a build file, and where: the one shape in which errors leave this crate.

use std::fmt;
use std::sync::Arc;

use maestro_core::FailureKind;
use maestro_core::event::Severity;
use starlark::ErrorKind;
use starlark::codemap::FileSpan;

use crate::error::{Code, RuleError};

/// A stretch of a build file; lines and columns count from 1, `end` is exclusive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file, below the workspace, or `@maestro//…` for the built-in library.
    pub file: Arc<str>,
    /// First line.
    pub line: u32,
    /// First column, in characters.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// The column after the last one.
    pub end_column: u32,
}

impl Location {
    /// The place that a span of the interpreter covers.
    pub(crate) fn of(span: &FileSpan) -> Self {
        let resolved = span.resolve_span();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
        Self {
            file: span.filename().into(),
            line: number(resolved.begin.line),
            column: number(resolved.begin.column),
            end_line: number(resolved.end.line),
            end_column: number(resolved.end.column),
        }
    }

    /// The start of a file.
    pub(crate) fn start_of(file: &str) -> Self {
        Self { file: file.into(), line: 1, column: 1, end_line: 1, end_column: 1 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One problem, or one remark, about the build files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code, such as `MAE0121`; see `docs/reference/rules.md`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence without a final period; further lines only for lists such as cycles.
    pub message: String,
    /// Where, if there is one place.
    pub location: Option<Location>,
    /// The source line and a line of carets below it, rendered; empty where there is no place.
    pub snippet: String,
    /// How the evaluation got there: calls, outermost first, each as `file:line:column in name`.
    pub trace: Vec<String>,
    /// What can be done, one line each.
    pub hints: Vec<String>,
    /// Whose fault it is.
    pub kind: FailureKind,
}

impl Diagnostic {
    pub(crate) fn of(error: RuleError, location: Option<Location>) -> Self {
        let RuleError { code, message, hints, kind } = error;
        Self {
            code: code.as_str(),
            severity: Severity::Error,
            message,
            location,
            snippet: String::new(),
            trace: Vec::new(),
            hints,
            kind,
        }
    }

    /// An error with the line that it speaks about.
    pub(crate) fn at(error: RuleError, span: &FileSpan) -> Self {
        let mut diagnostic = Self::of(error, Some(Location::of(span)));
        diagnostic.snippet = snippet(span);
        diagnostic
    }

    /// An error at a place of a text whose line is at hand.
    pub(crate) fn in_line(error: RuleError, place: Location, line: &str) -> Self {
        let snippet = marked_line(&place, line);
        Self { snippet, ..Self::of(error, Some(place)) }
    }

    /// The same as a warning, which stops nothing.
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// A remark of `print`.
    pub(crate) fn info(message: String, location: Option<Location>) -> Self {
        let mut diagnostic = Self::of(RuleError::new(Code::Evaluation, message), location);
        diagnostic.severity = Severity::Info;
        diagnostic
    }

    /// An error of the interpreter.
    pub(crate) fn from_starlark(error: &starlark::Error, fallback: Option<&FileSpan>) -> Self {
        let mut diagnostic = match error.span().or(fallback) {
            Some(span) => Self::at(classify(error), span),
            None => Self::of(classify(error), None),
        };
        let frames = &error.call_stack().frames;
        if frames.len() > 1 {
            let mut caller = "the file";
            for frame in frames {
                let place = frame.location.as_ref().map(Location::of);
                // The innermost call is what the diagnostic points at already.
                if let Some(place) = place.filter(|p| Some(p) != diagnostic.location.as_ref()) {
                    diagnostic.trace.push(format!("{place} in {caller}"));
                }
                caller = &frame.name;
            }
        }
        diagnostic
    }
}

/// Separates what went wrong from where it did.
fn classify(error: &starlark::Error) -> RuleError {
    let (code, inner) = match error.kind() {
        ErrorKind::Fail(inner) => (Code::Fail, inner),
        ErrorKind::StackOverflow(inner) => {
            return RuleError::new(Code::Limit, "calls nest too deeply")
                .hint(inner.to_string())
                .hint("recursion has no bound here; use a loop");
        }
        ErrorKind::Parser(inner) => (Code::Syntax, inner),
        ErrorKind::Internal(inner) => (Code::Internal, inner),
        ErrorKind::Value(inner)
        | ErrorKind::Function(inner)
        | ErrorKind::Scope(inner)
        | ErrorKind::Freeze(inner)
        | ErrorKind::Native(inner)
        | ErrorKind::Other(inner) => (Code::Evaluation, inner),
        _ => return RuleError::new(Code::Evaluation, error.without_diagnostic().to_string()),
    };
    if let Some(own) = inner.downcast_ref::<RuleError>() {
        return own.clone();
    }
    let text = error.without_diagnostic().to_string();
    let text = text.trim_end();
    let limit = ["Heap memory limit", "Execution duration limit"];
    let limited = limit.iter().any(|start| text.starts_with(start));
    if let Some(message) = text.strip_prefix("fail: ").filter(|_| code == Code::Fail) {
        return RuleError::new(code, message);
    }
    let first = text.lines().next().unwrap_or_default().trim_end_matches(['.', ':']);
    RuleError::new(if limited { Code::Limit } else { code }, sentence(first))
}

/// The interpreter's sentences in our voice: the first letter is small unless it is a name.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            let rest: String = text.chars().skip(1).collect();
            format!("{}{rest}", first.to_lowercase())
        }
        _ => text.to_owned(),
    }
}

/// The first line of a span with carets below it.
fn snippet(span: &FileSpan) -> String {
    let line = span.file.source_line(span.resolve_span().begin.line);
    marked_line(&Location::of(span), line)
}

/// A line with carets below the part of it that a place covers.
fn marked_line(place: &Location, line: &str) -> String {
    let line: String = line.chars().take(SNIPPET_COLUMNS_MAX).map(printable).collect();
    let width = line.chars().count();
    let start = (place.column.saturating_sub(1) as usize).min(width);
    let end = match place.end_line == place.line {
        true => (place.end_column.saturating_sub(1) as usize).min(width),
        false => width,
    };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let carets = "^".repeat(end.saturating_sub(start).max(1));
    format!("{margin} |\n{number} | {line}\n{margin} | {}{carets}", " ".repeat(start))
}

/// Longest part of a source line that a snippet shows, in characters.
const SNIPPET_COLUMNS_MAX: usize = 160;

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity {
            Severity::Error => write!(f, "error[{}]: ", self.code)?,
            Severity::Warning => write!(f, "warning[{}]: ", self.code)?,
            Severity::Info => write!(f, "info: ")?,
        }
        f.write_str(&self.message)?;
        if let Some(location) = &self.location {
            write!(f, "\n --> {location}")?;
        }
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        for call in &self.trace {
            write!(f, "\n  from {call}")?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
