//! Everything that was found in a pipeline: errors, warnings and notes, with what mends them.
//!
//! Reading goes on after an error, so that all errors of a file are told at once. What could not
//! be read is left out of the model, which is therefore never handed out along with errors.
//!
//! Each place and sentence is told once. Of each severity so many are told, and no more are
//! described: notes never take the place of an error, and only errors make it useless to look for
//! more.

use std::collections::{BTreeSet, HashSet};
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
    /// Whether it is beyond what is told, so that nothing need be looked up for it.
    untold: bool,
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
        if self.untold {
            return self;
        }
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
        if self.untold {
            return self;
        }
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
    /// The last finding that is not told.
    spare: Option<Draft>,
    /// What was told, and where.
    said: HashSet<(Span, String)>,
    errors: Tally,
    warnings: Tally,
    notes: Tally,
    /// Names of steps that could not be read: others may name them without a further error.
    pub(crate) unread: BTreeSet<String>,
    /// Places that stand for others as well, by an alias, an include or a default: what mends one
    /// may spoil the other, or belongs elsewhere.
    pub(crate) shared: BTreeSet<Span>,
}

/// How many findings there are of one severity.
#[derive(Default)]
struct Tally {
    /// Every time that one was found.
    found: usize,
    told: usize,
    /// Whether there are others than those that are told.
    more: bool,
}

impl Report {
    fn push(&mut self, code: Code, severity: Severity, span: Span, message: String) -> &mut Draft {
        let tally = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
            Severity::Info => &mut self.notes,
        };
        tally.found += 1;
        let sentence = (span, message.clone());
        let again = self.said.contains(&sentence);
        let untold = again || tally.told == FINDINGS_MAX;
        if untold {
            tally.more |= !again;
        } else {
            tally.told += 1;
            self.said.insert(sentence);
        }
        let error = RuleError::new(code, message);
        let draft = Draft { error, severity, span, related: Vec::new(), fix: None, untold };
        if untold {
            return self.spare.insert(draft);
        }
        self.drafts.push(draft);
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

    /// How many errors were found, those among them that were found before.
    pub(crate) fn errors(&self) -> usize {
        self.errors.found
    }

    /// Whether it is useless to look for more: there are more errors than are told.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.more
    }

    /// Findings in the order of their places.
    pub(crate) fn finish(mut self, sources: &Sources) -> Vec<Finding> {
        self.drafts.sort_by_key(|draft| (draft.span, draft.error.code));
        let shared = &self.shared;
        let mut findings: Vec<Finding> =
            self.drafts.into_iter().map(|draft| finding(draft, shared, sources)).collect();
        let tallies = [(self.errors, "errors"), (self.warnings, "warnings"), (self.notes, "notes")];
        for (_, what) in tallies.into_iter().filter(|(tally, _)| tally.more) {
            let hint = format!("there are further {what}; {FINDINGS_MAX} are shown");
            findings
                .last_mut()
                .into_iter()
                .for_each(|last| last.diagnostic.hints.push(hint.clone()));
        }
        findings
    }
}

fn finding(draft: Draft, shared: &BTreeSet<Span>, sources: &Sources) -> Finding {
    let Draft { error, severity, span, related, fix, untold: _ } = draft;
    let mut diagnostic = Diagnostic::in_line(error, sources.location(span), sources.line_of(span));
    diagnostic.severity = severity;
    diagnostic.trace = related
        .into_iter()
        .map(|(place, what)| format!("{}: {what}", sources.location(place)))
        .collect();
    let is_shared = |span: Span| shared.iter().any(|place| place.covers(span));
    let fix = fix.filter(|(span, _)| !is_shared(*span)).and_then(|(span, text)| {
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
