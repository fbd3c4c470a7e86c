//! Errors of the build language before they have a place: a code, a sentence, advice.
//!
//! Native functions return [`RuleError`]; the interpreter adds the span of the call, and
//! [`crate::diagnostic`] turns both into a [`crate::Diagnostic`].

use std::fmt;

use maestro_core::FailureKind;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The stable code of a kind of error, such as `MAE0121`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// The text is not Starlark.
    Syntax = "MAE0100",
    /// Evaluation failed: a wrong type, an unknown name, a failed call.
    Evaluation = "MAE0101",
    /// A file called `fail`.
    Fail = "MAE0102",
    /// A file took too many steps, too much memory, or nested too deeply.
    Limit = "MAE0103",
    /// A file is missing, too large, not UTF-8, or cannot be read.
    File = "MAE0104",
    /// Files load each other in a circle.
    LoadCycle = "MAE0105",
    /// A file may not be loaded from here.
    LoadVisibility = "MAE0106",
    /// Two targets of a package have the same name.
    DuplicateTarget = "MAE0107",
    /// An attribute is unknown, missing, or has a wrong value.
    Attribute = "MAE0110",
    /// A text is no label, or no pattern.
    Label = "MAE0111",
    /// A glob is malformed or matches nothing.
    Glob = "MAE0112",
    /// There is no such package.
    NoPackage = "MAE0120",
    /// There is no such target or file.
    NoTarget = "MAE0121",
    /// A target may not be used from here.
    Visibility = "MAE0122",
    /// Targets depend on each other in a circle.
    TargetCycle = "MAE0123",
    /// A dependency is of the wrong kind.
    Dependency = "MAE0125",
    /// A target is no longer to be used.
    Deprecated = "MAE0126",
    /// A rule's implementation returned something wrong.
    Implementation = "MAE0130",
    /// An action is declared wrongly.
    Action = "MAE0131",
    /// A download has no digest.
    Unpinned = "MAE0132",
    /// A query is malformed.
    Query = "MAE0140",
    /// A param is unknown, is none, or cannot have that value.
    Param = "MAE0150",
    /// No branch of a `select` holds.
    NoMatch = "MAE0151",
    /// Several branches of a `select` hold.
    Ambiguous = "MAE0152",
    /// A target cannot be built for the target platform.
    Incompatible = "MAE0153",
    /// A bug in Maestro.
    Internal = "MAE0199",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of the build language that has no place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleError {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hints: Vec<String>,
    pub(crate) kind: FailureKind,
}

impl RuleError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let kind = match code {
            Code::Internal => FailureKind::Internal,
            _ => FailureKind::Input,
        };
        Self { code, message: message.into(), hints: Vec::new(), kind }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn hint_opt(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub(crate) fn environment(mut self) -> Self {
        self.kind = FailureKind::Environment;
        self
    }

    /// As an error of the interpreter, which adds where it happened.
    pub(crate) fn raise<T>(self) -> starlark::Result<T> {
        Err(self.into())
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuleError {}

impl From<RuleError> for starlark::Error {
    fn from(error: RuleError) -> Self {
        Self::new_other(error)
    }
}

/// `did you mean …?` for the candidate that is nearest to `text`, if one is near enough.
pub(crate) fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(text, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// The candidate nearest to `text`; ties go to the one that sorts first.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let bound = text.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        .filter(|c| c.len().abs_diff(text.len()) <= bound * 4)
        .map(|c| (strsim::osa_distance(text, c), c))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, best)| best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["srcs", "hdrs", "deps", "name"];
        assert_eq!(nearest("src", names), Some("srcs"));
        assert_eq!(nearest("dpes", names), Some("deps"));
        assert_eq!(nearest("linkopts", names), None);
        assert_eq!(did_you_mean("nam", names).as_deref(), Some("did you mean `name`?"));
    }

    #[test]
    fn every_code_is_in_the_reference() {
        let page = include_str!("../../docs/reference/rules.md");
        for code in Code::ALL {
            assert!(page.contains(&format!("| {code} |")), "{code} is not in the reference");
        }
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }
}
