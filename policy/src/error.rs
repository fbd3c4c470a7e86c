//! What is wrong with a policy: a code, a sentence, a place, advice.

use std::fmt;
use std::sync::Arc;

use maestro_core::FailureKind;

maestro_core::error_codes! {
    /// Policies are missing, too large, not UTF-8, or cannot be read.
    ///
    /// Fix: check the path; policies are regular files that end in `.rego`, and data stands in
    /// files called `data.json`. Links inside a folder are not followed: name what they point to.
    /// A folder without policies guards nothing: name another one, or none.
    File = "MAE0700",
    /// The text is not Rego.
    ///
    /// Fix: look at the marked place. Policies are written in Rego v1: bodies begin with `if`, and
    /// sets with `contains`.
    Syntax = "MAE0701",
    /// A file of data is not JSON, or two of them contradict each other.
    ///
    /// Fix: data is an object; a key has one value over all files. `maestro` is reserved.
    Data = "MAE0702",
    /// A policy reads a part of `input` that does not exist at its decision point.
    ///
    /// Fix: `maestro policy schema POINT` prints what there is; the hint names the nearest field.
    Path = "MAE0703",
    /// A policy belongs to no decision point.
    ///
    /// Fix: a policy's package is `maestro.POINT`, or lies below it, as `maestro.effect.release`
    /// does. What several policies share stands in a package outside of `maestro`.
    Point = "MAE0704",
    /// A policy could never deny anything.
    ///
    /// Fix: write `deny contains {"code": …, "msg": …} if …`, or an `allow` that has a condition.
    /// A policy that is never false guards nothing, however long it is. A `deny` in a file of tests
    /// is not asked: move it to a file whose name does not end in `_test.rego`.
    Toothless = "MAE0705",
    /// `deny` or `allow` has the wrong form.
    ///
    /// Fix: `deny` is a set that grows by `deny contains {"code": …, "msg": …} if …`; `allow` is a
    /// boolean. Neither takes arguments.
    Form = "MAE0706",
    /// A policy calls a function that there is not, or that would make its answer depend on more
    /// than its input.
    ///
    /// Fix: time comes as `input.now`; there is no network, no chance and no environment. The hint
    /// names the nearest function that there is.
    Function = "MAE0707",
    /// A policy reads data that no file has.
    ///
    /// Fix: check the path; a file `limits/data.json` is `data.limits`.
    NoData = "MAE0708",
    /// `input` or `data` is hidden by a variable, or replaced outside of a test.
    ///
    /// Fix: give the variable another name; `with input as …` belongs into files that end in
    /// `_test.rego`.
    Shadow = "MAE0709",
    /// Rules need each other in a circle, too deeply, or in too many ways, or one step of them
    /// takes too much memory.
    ///
    /// Fix: rules may not recurse; use a comprehension or `every` over a list. No list or text has
    /// to have a billion parts.
    Recursion = "MAE0710",
    /// A policy cannot be evaluated at all.
    ///
    /// Fix: the message is that of the evaluator; a variable that nothing binds is the usual cause.
    Evaluation = "MAE0711",
    /// Nothing uses a rule.
    ///
    /// Fix: remove it, or read it from a `deny` or an `allow`; a misspelt name looks like this.
    Unused = "MAE0750",
    /// Nothing uses an import.
    ///
    /// Fix: remove it, or read what it names.
    UnusedImport = "MAE0751",
    /// A `deny` looks at one state of a fact, and no rule of its package at the others.
    ///
    /// Fix: where a field is undefined, a rule says nothing, and so does not deny. Add a rule for
    /// the other states, such as `deny contains … if input.scan.state != "done"`.
    Uncovered = "MAE0752",
    /// A reason to deny has no code.
    ///
    /// Fix: write `{"code": "…", "msg": "…"}`; scripts match codes, and people read messages.
    NoCode = "MAE0753",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a policy file; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Place {
    /// The file, as the policy was given.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One problem of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of problem it is.
    pub code: Code,
    /// One sentence, without a final period.
    pub message: String,
    /// Where, if there is one place.
    pub place: Option<Place>,
    /// The line with a caret below the place; empty where there is none.
    pub snippet: String,
    /// What can be done, one line each.
    pub hints: Vec<String>,
    /// Whose fault it is.
    pub kind: FailureKind,
}

impl Finding {
    /// A problem of what the user wrote, so far without a place.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: None,
            snippet: String::new(),
            hints: Vec::new(),
            kind: FailureKind::Input,
        }
    }

    /// Adds advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds advice where there is some.
    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Whether it keeps a policy from being loaded; else it is a remark of `policy lint`.
    pub fn is_error(&self) -> bool {
        self.code < Code::Unused
    }

    /// What decides the order in which findings are told.
    pub(crate) fn order(&self) -> (Option<Place>, Code, String) {
        (self.place.clone(), self.code, self.message.clone())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_error() { "error" } else { "warning" };
        write!(f, "{severity}[{}]: ", self.code)?;
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

/// The policies do not load.
#[derive(Debug, thiserror::Error)]
#[error("the policy does not load: {}", .0.first().map_or("", |finding| &finding.message))]
pub struct LoadError(
    /// What is wrong, in the order of files and lines; at least one.
    pub Vec<Finding>,
);

/// Puts findings in order, each once.
pub(crate) fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(Finding::order);
    findings.dedup();
    findings
}

/// The name among `names` that is meant most likely.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let near = names.into_iter().map(|other| (distance(other), other));
    let (distance, other) = near.min()?;
    (distance <= 1 + name.chars().count() / 4).then_some(other)
}

/// The hint that names `nearest`.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(name, names).map(|other| format!("did you mean `{other}`?"))
}
