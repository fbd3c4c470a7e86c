//! Failures by class, and texts of others made fit to print.

use maestro_core::failure;
use maestro_core::run::{Failure, FailureClass};

/// The longest part of another's text that a message shows, in characters.
const EXCERPT_CHARS_MAX: usize = 300;

/// What the template or the project says is wrong.
pub(crate) fn user(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::User, message)
}

/// A machine or a network failed.
pub(crate) fn infrastructure(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Infrastructure, message)
}

/// Somebody cancelled the run.
pub(crate) fn cancelled(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Cancelled, message)
}

/// The failure with advice.
pub(crate) fn hinted(mut failure: Failure, hint: impl Into<String>) -> Failure {
    failure.hints.push(hint.into());
    failure
}

/// The beginning of a foreign text on one line, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let words = text.chars().take(4 * EXCERPT_CHARS_MAX).map(clean).collect::<String>();
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    excerpt(&failure::chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_short_line() {
        assert_eq!(excerpt("a\r\n  b\u{1b}[31mc"), "a b [31mc");
        assert_eq!(excerpt(&"ä".repeat(1_000)).chars().count(), EXCERPT_CHARS_MAX + 1);
    }
}
