//! Everything that was found in a pipeline: errors, warnings and notes, with what mends them.
//!
//! Reading goes on after an error, so that all errors of a file are told at once. What could not
//! be read is left out of the model, which is therefore never handed out along with errors.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use maestro_core::event::Severity;

use super::limits::FINDINGS_MAX;
use super::source::{Sources, Span};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError, nearest};

/// A change of a file that mends a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The bytes that are replaced.
    pub range: Range<usize>,
    /// What takes their place.
    pub text: String,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What is wrong and where.
    pub diagnostic: Diagnostic,
    /// What mends it, where a machine can tell.
    pub fix: Option<Fix>,
}

/// A finding that is being described.
pub(crate) struct Draft {
    error: RuleError,
    severity: Severity,
    span: Span,
    related: Vec<(Span, String)>,
    fix: Option<(Span, String)>,
}

impl Draft {
    pub(crate) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.error.hints.push(hint.into());
        self
    }

    pub(crate) fn hint_opt(&mut self, hint: Option<String>) -> &mut Self {
        self.error.hints.extend(hint);
        self
    }

    /// Another place that belongs to it.
    pub(crate) fn see(&mut self, span: Span, what: impl Into<String>) -> &mut Self {
        self.related.push((span, what.into()));
        self
    }

    pub(crate) fn fix(&mut self, span: Span, text: impl Into<String>) -> &mut Self {
        self.fix = Some((span, text.into()));
        self
    }

    /// `did you mean`, with the change that says so; else the list of what there is.
    pub(crate) fn suggest<'a>(
        &mut self,
        written: &str,
        span: Span,
        known: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        let known: Vec<&str> = known.into_iter().collect();
        if let Some(best) = nearest(written, known.iter().copied()) {
            self.fix(span, best);
        }
        self.resembles(written, known)
    }

    /// As [`Self::suggest`], where no text can simply take the place of the other.
    pub(crate) fn resembles<'a>(
        &mut self,
        written: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        let mut known: Vec<&str> = known.into_iter().collect();
        if let Some(best) = nearest(written, known.iter().copied()) {
            return self.hint(format!("did you mean `{best}`?"));
        }
        known.sort_unstable();
        match known.len() {
            0 => self.hint("there is none here"),
            1..=40 => self.hint(format!("there is `{}`", known.join("`, `"))),
            n => self.hint(format!("there are {n} of them, none with a similar name")),
        }
    }
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Report {
    drafts: Vec<Draft>,
    /// Names of steps that could not be read: others may name them without a further error.
    pub(crate) unread: BTreeSet<String>,
}

impl Report {
    fn push(&mut self, code: Code, severity: Severity, span: Span, message: String) -> &mut Draft {
        let error = RuleError::new(code, message);
        self.drafts.push(Draft { error, severity, span, related: Vec::new(), fix: None });
        self.drafts.last_mut().expect("it was just pushed")
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Draft {
        self.push(code, Severity::Error, span, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Draft {
        self.push(code, Severity::Warning, span, message.into())
    }

    pub(crate) fn note(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Draft {
        self.push(code, Severity::Info, span, message.into())
    }

    /// How many errors there are.
    pub(crate) fn errors(&self) -> usize {
        self.drafts.iter().filter(|draft| draft.severity == Severity::Error).count()
    }

    /// Whether it is useless to look for more.
    pub(crate) fn is_full(&self) -> bool {
        self.drafts.len() > FINDINGS_MAX
    }

    /// Findings in the order of their places; each place and sentence once.
    pub(crate) fn finish(mut self, sources: &Sources) -> Vec<Finding> {
        self.drafts.sort_by_key(|draft| (draft.span, draft.error.code));
        self.drafts.dedup_by(|a, b| a.span == b.span && a.error.message == b.error.message);
        let dropped = self.drafts.len().saturating_sub(FINDINGS_MAX);
        self.drafts.truncate(FINDINGS_MAX);
        let mut findings: Vec<Finding> =
            self.drafts.into_iter().map(|draft| finding(draft, sources)).collect();
        if let Some(last) = findings.last_mut().filter(|_| dropped > 0) {
            last.diagnostic.hints.push(format!("{dropped} further findings are not shown"));
        }
        findings
    }
}

fn finding(draft: Draft, sources: &Sources) -> Finding {
    let Draft { error, severity, span, related, fix } = draft;
    let mut diagnostic = Diagnostic::in_line(error, sources.location(span), sources.line_of(span));
    diagnostic.severity = severity;
    diagnostic.trace = related
        .into_iter()
        .map(|(place, what)| format!("{}: {what}", sources.location(place)))
        .collect();
    let fix = fix.and_then(|(span, text)| {
        let file = sources.file(span.file)?.name.clone();
        Some(Fix { file, range: span.range(), text })
    });
    Finding { diagnostic, fix }
}

/// The text with the changes of all findings about it made; later ones that overlap are left out.
pub fn apply_fixes(file: &str, text: &str, findings: &[Finding]) -> Option<String> {
    let mut fixes: Vec<&Fix> =
        findings.iter().filter_map(|f| f.fix.as_ref()).filter(|fix| &*fix.file == file).collect();
    fixes.sort_by_key(|fix| (fix.range.start, fix.range.end));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let mut made = false;
    for fix in fixes {
        let before = (fix.range.start >= at).then(|| text.get(at..fix.range.start)).flatten();
        let Some(before) = before.filter(|_| text.get(fix.range.clone()).is_some()) else {
            continue;
        };
        out.push_str(before);
        out.push_str(&fix.text);
        (at, made) = (fix.range.end, true);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    made.then_some(out)
}
