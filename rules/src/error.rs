//! Errors of the build language before they have a place: a code, a sentence, advice.
//!
//! Native functions return [`RuleError`]; the interpreter adds the span of the call, and
//! [`crate::diagnostic`] turns both into a [`crate::Diagnostic`].

use std::fmt;

use maestro_core::FailureKind;

maestro_core::error_codes! {
    /// The text is not Starlark.
    ///
    /// Fix: look at the marked place and the line before it; an open bracket or quote often begins
    /// earlier. `maestro fmt` names the place, too.
    Syntax = "MAE0100",
    /// Evaluation failed: a wrong type, an unknown name, a failed call.
    ///
    /// Fix: read the message, then the calls below it, innermost last; the names that a type has
    /// are listed in the reference of the rules.
    Evaluation = "MAE0101",
    /// A file called `fail`.
    ///
    /// Fix: the text comes from the author of the rule or macro; the calls below it lead to the
    /// line of your package that is meant.
    Fail = "MAE0102",
    /// A file took too many steps, too much memory, or nested too deeply.
    ///
    /// Fix: make targets with a list comprehension instead of nested calls, split a huge file, and
    /// use a loop where a function calls itself.
    Limit = "MAE0103",
    /// A file is missing, too large, not UTF-8, or cannot be read.
    ///
    /// Fix: check the path against the folder; a relative load starts with `:` and at the package,
    /// not at the folder of the file.
    File = "MAE0104",
    /// Files load each other in a circle.
    ///
    /// Fix: move what both files need into a third one.
    LoadCycle = "MAE0105",
    /// A file may not be loaded from here.
    ///
    /// Fix: widen `visibility([…])` in the loaded file, or load a file that is meant for others.
    LoadVisibility = "MAE0106",
    /// Two targets of a package have the same name.
    ///
    /// Fix: rename one; names are shared by rules, macros and generated files of a package.
    DuplicateTarget = "MAE0107",
    /// An attribute is unknown, missing, or has a wrong value.
    ///
    /// Fix: the hint lists the attributes of the rule; `maestro docs` prints their types and
    /// meanings.
    Attribute = "MAE0110",
    /// A text is no label, or no pattern.
    ///
    /// Fix: write `//package:name`, `:name` or `@repository//package:name`; the name may be left
    /// out where it is the last part of the package.
    Label = "MAE0111",
    /// A glob is malformed or matches nothing.
    ///
    /// Fix: check the pattern against the folder; globs do not enter other packages. Say
    /// `allow_empty = True` where nothing may match.
    Glob = "MAE0112",
    /// There is no such package.
    ///
    /// Fix: a folder is a package only with a `maestro.star` of its own, which may be empty.
    NoPackage = "MAE0120",
    /// There is no such target or file.
    ///
    /// Fix: check the spelling; a file of another package must be named by its own package and
    /// exported there with `exports_files`.
    NoTarget = "MAE0121",
    /// A target may not be used from here.
    ///
    /// Fix: add the package to `visibility` of the target, or depend on a target that is public.
    Visibility = "MAE0122",
    /// Targets depend on each other in a circle.
    ///
    /// Fix: the message lists the circle; split the target that both directions need.
    TargetCycle = "MAE0123",
    /// A dependency is of the wrong kind.
    ///
    /// Fix: the message says what the attribute takes: a provider, a suffix, exactly one file, or a
    /// program.
    Dependency = "MAE0125",
    /// A target is no longer to be used.
    ///
    /// Fix: use what the message names. It is a warning and stops nothing.
    Deprecated = "MAE0126",
    /// A rule's implementation returned something wrong.
    ///
    /// Fix: return a list of providers, each once, with those that `provides` promises.
    Implementation = "MAE0130",
    /// An action is declared wrongly.
    ///
    /// Fix: declare each output once and in one action, name programs by a file or an absolute path
    /// of a toolchain, and keep to the values that the message lists.
    Action = "MAE0131",
    /// A download has no digest.
    ///
    /// Fix: give `sha256` or `integrity`; the message shows how to find the digest of what is there
    /// now.
    Unpinned = "MAE0132",
    /// There is no such repository, or it cannot be had.
    ///
    /// Fix: declare it in `maestro.toml` of the workspace, as the message shows, and pin it with
    /// `maestro repo pin NAME`; where it cannot be fetched, check its URL, or run `maestro fetch`
    /// while there is a network.
    Repository = "MAE0133",
    /// A query is malformed.
    ///
    /// Fix: quote the expression for the shell; functions and operators are listed in `maestro
    /// query --help`.
    Query = "MAE0140",
    /// A param is unknown, is none, or cannot have that value.
    ///
    /// Fix: the message lists the params or the values that exist.
    Param = "MAE0150",
    /// No branch of a `select` holds.
    ///
    /// Fix: add a branch, or `"//conditions:default"`.
    NoMatch = "MAE0151",
    /// Several branches of a `select` hold.
    ///
    /// Fix: make one branch say more than the other, or take one away; the message shows both.
    Ambiguous = "MAE0152",
    /// A target cannot be built for the target platform.
    ///
    /// Fix: build it for another platform with `--platform`, or leave it out with
    /// `target_compatible_with` in what needs it.
    Incompatible = "MAE0153",
    /// A transition is declared wrongly, or returned something wrong.
    ///
    /// Fix: return a dict with a value for each of its `outputs`, or several of them under names.
    Transition = "MAE0154",
    /// No toolchain fits.
    ///
    /// Fix: declare a `toolchain` that fits both platforms, and register it in `[workspace]` of
    /// `maestro.toml`; `maestro doctor --toolchains LABEL` lists what there is.
    Toolchain = "MAE0155",
    /// An aspect is declared wrongly, is not there, or does not fit where it is put.
    ///
    /// Fix: the message names the aspect, the target, and the way on which it got there; name one
    /// for `--aspects` as `//package:file.star%name`.
    Aspect = "MAE0160",
    /// A pipeline is not YAML.
    ///
    /// Fix: look at the marked place and the line before it; indentation is by spaces, and a text
    /// with `: ` or ` #` in it needs quotes. One file holds one pipeline.
    PipelineSyntax = "MAE0600",
    /// A pipeline is larger, deeper or longer than Maestro reads.
    ///
    /// Fix: write steps that differ only in a value once, with `foreach` or `matrix`, and put parts
    /// into files of their own with `include`.
    PipelineLimit = "MAE0601",
    /// A key, a step or a param stands twice.
    ///
    /// Fix: rename one, or take one away; the message shows both places.
    PipelineDuplicate = "MAE0602",
    /// A pipeline has a key that means nothing there.
    ///
    /// Fix: the hint lists the keys that there are; `maestro template lint --fix` mends what is
    /// only misspelt.
    PipelineField = "MAE0603",
    /// A value of a pipeline has the wrong type, or is out of range.
    ///
    /// Fix: the message says what is expected. `yes` and `on` are texts here, and a text that looks
    /// like a number needs quotes.
    PipelineType = "MAE0604",
    /// Something that a pipeline needs is not there.
    ///
    /// Fix: add the field that the message names.
    PipelineMissing = "MAE0605",
    /// A step uses something that does not exist.
    ///
    /// Fix: `uses` names a kind of step of the reference, or the label of a target.
    PipelineStep = "MAE0606",
    /// A pipeline names a step, a param or an output that does not exist.
    ///
    /// Fix: check the spelling; the hint lists what there is at that place.
    PipelineReference = "MAE0607",
    /// An expression is malformed, or its types do not fit.
    ///
    /// Fix: the reference of pipelines lists operators and functions; texts in expressions stand in
    /// single quotes.
    PipelineExpression = "MAE0608",
    /// Steps wait for each other.
    ///
    /// Fix: the message lists the circle; take one of its `needs` or references away.
    PipelineCycle = "MAE0609",
    /// What a step works on is not there, or is not the only one.
    ///
    /// Fix: name it, as the message shows; `maestro template show` prints what steps work on.
    PipelineBinding = "MAE0610",
    /// A loop has no bound.
    ///
    /// Fix: add `max`, the most rounds that you would wait for.
    PipelineUnbounded = "MAE0611",
    /// A param of a run is missing, unknown, or has a value that it cannot have.
    ///
    /// Fix: the message lists the params or the values that exist.
    PipelineParam = "MAE0612",
    /// A secret stands in a pipeline, or would get where it could be read.
    ///
    /// Fix: store the secret, and name it here; change it at its origin if it was ever committed.
    PipelineSecret = "MAE0613",
    /// An included pipeline cannot be had.
    ///
    /// Fix: check the path, which counts from the workspace's root; pipelines must not include each
    /// other in a circle.
    PipelineInclude = "MAE0614",
    /// An expression of a running pipeline came to nothing.
    ///
    /// Fix: the step that is named made no such output, or did not run; `default(…)` gives another
    /// value for that case.
    PipelineEvaluation = "MAE0615",
    /// A step leaves something to the project's defaults.
    ///
    /// Fix: write it into the step, or into `[defaults]` of `maestro.toml`, as the message shows.
    PipelineDefault = "MAE0616",
    /// A pipeline of another dialect says something that has no counterpart.
    ///
    /// Fix: the message says what to write instead; nothing is left out silently.
    PipelineImport = "MAE0617",
    /// A step is of a kind that this Maestro does not run yet.
    ///
    /// Fix: take the step out, or skip it with `if`, until it is there; all others run.
    PipelineUnbuilt = "MAE0618",
    /// An effect comes behind a gate, a scan or a signature that may be skipped without it.
    ///
    /// Fix: give the effect the `if` of what guards it, so that both are skipped together, or order
    /// it by `needs` so that it does not come behind; policy denies an effect whose guard was
    /// skipped.
    PipelineGuard = "MAE0619",
    /// A bug in Maestro.
    ///
    /// Fix: report it with the lines that were printed.
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
