//! The functions of the query language: their names, what they take, and which query knows them.

use super::Phase;

/// What a function does; the names are Bazel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Function {
    AllPaths,
    AllRdeps,
    Attr,
    BuildFiles,
    Config,
    Deps,
    Filter,
    Inputs,
    Kind,
    Labels,
    LoadFiles,
    Mnemonic,
    Outputs,
    Rdeps,
    SamePackageDirectRdeps,
    Siblings,
    Some,
    SomePath,
    Tests,
    Visible,
}

/// What stands at one place of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// An expression.
    Set,
    /// A word: a regular expression, the name of an attribute.
    Word,
    /// A number.
    Number,
}

/// How a function is called.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) function: Function,
    pub(super) name: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// How many of the parameters must be given.
    pub(super) required: usize,
    /// The call in a message.
    pub(super) usage: &'static str,
    phases: &'static [Phase],
}

impl Signature {
    /// Whether a query of this phase knows the function.
    pub(super) fn known_in(&self, phase: Phase) -> bool {
        self.phases.contains(&phase)
    }
}

const ALL: &[Phase] = &[Phase::Loading, Phase::Configured, Phase::Actions];
const LOADING: &[Phase] = &[Phase::Loading];
const CONFIGURED: &[Phase] = &[Phase::Configured, Phase::Actions];
const ACTIONS: &[Phase] = &[Phase::Actions];

/// Every function, by name.
pub(super) const SIGNATURES: &[Signature] = {
    use Parameter::{Number, Set, Word};
    const fn row(
        function: Function,
        usage: &'static str,
        name: &'static str,
        parameters: &'static [Parameter],
        required: usize,
        phases: &'static [Phase],
    ) -> Signature {
        Signature { function, name, parameters, required, usage, phases }
    }
    &[
        row(Function::AllPaths, "allpaths(from, to)", "allpaths", &[Set, Set], 2, ALL),
        row(Function::AllRdeps, "allrdeps(of[, depth])", "allrdeps", &[Set, Number], 1, LOADING),
        row(Function::Attr, "attr(name, pattern, of)", "attr", &[Word, Word, Set], 3, ALL),
        row(Function::BuildFiles, "buildfiles(of)", "buildfiles", &[Set], 1, LOADING),
        row(Function::Config, "config(of, name)", "config", &[Set, Word], 2, CONFIGURED),
        row(Function::Deps, "deps(of[, depth])", "deps", &[Set, Number], 1, ALL),
        row(Function::Filter, "filter(pattern, of)", "filter", &[Word, Set], 2, ALL),
        row(Function::Inputs, "inputs(pattern, of)", "inputs", &[Word, Set], 2, ACTIONS),
        row(Function::Kind, "kind(pattern, of)", "kind", &[Word, Set], 2, ALL),
        row(Function::Labels, "labels(attribute, of)", "labels", &[Word, Set], 2, ALL),
        row(Function::LoadFiles, "loadfiles(of)", "loadfiles", &[Set], 1, LOADING),
        row(Function::Mnemonic, "mnemonic(pattern, of)", "mnemonic", &[Word, Set], 2, ACTIONS),
        row(Function::Outputs, "outputs(pattern, of)", "outputs", &[Word, Set], 2, ACTIONS),
        row(Function::Rdeps, "rdeps(within, of[, depth])", "rdeps", &[Set, Set, Number], 2, ALL),
        row(
            Function::SamePackageDirectRdeps,
            "same_pkg_direct_rdeps(of)",
            "same_pkg_direct_rdeps",
            &[Set],
            1,
            LOADING,
        ),
        row(Function::Siblings, "siblings(of)", "siblings", &[Set], 1, LOADING),
        row(Function::Some, "some(of[, count])", "some", &[Set, Number], 1, ALL),
        row(Function::SomePath, "somepath(from, to)", "somepath", &[Set, Set], 2, ALL),
        row(Function::Tests, "tests(of)", "tests", &[Set], 1, ALL),
        row(Function::Visible, "visible(to, of)", "visible", &[Set, Set], 2, LOADING),
    ]
};

impl Function {
    /// Whether an argument's dependencies must be known, not only its targets.
    pub(super) fn walks(self) -> bool {
        match self {
            Self::AllPaths
            | Self::AllRdeps
            | Self::Deps
            | Self::Labels
            | Self::Rdeps
            | Self::SomePath => true,
            Self::Attr
            | Self::BuildFiles
            | Self::Config
            | Self::Filter
            | Self::Inputs
            | Self::Kind
            | Self::LoadFiles
            | Self::Mnemonic
            | Self::Outputs
            | Self::SamePackageDirectRdeps
            | Self::Siblings
            | Self::Some
            | Self::Tests
            | Self::Visible => false,
        }
    }
}
