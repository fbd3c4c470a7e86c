//! A set of policies: loaded from text, checked, ready to decide.

use maestro_core::Digest;
use maestro_core::policy::DecisionPoint;

use crate::check::{self, Checked};
use crate::engine::{Engine, on_own_stack};
use crate::error::{Code, Finding, LoadError, sorted};
use crate::index::{ALLOW, DENY, Index};
use crate::lint as remarks;
use crate::sources::{SourceFile, Sources};
use crate::teeth::{self, entries};

/// Policies that are loaded. Copies share nothing that changes; decisions may run at once.
pub struct Policies {
    engine: Engine,
    digest: Digest,
    entries: Vec<Entry>,
}

/// A package that decides.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The package, without `data`.
    pub package: Vec<String>,
    /// What it decides.
    pub point: DecisionPoint,
    /// Whether it names reasons.
    pub has_deny: bool,
    /// Whether it has to allow.
    pub has_allow: bool,
}

impl Entry {
    /// The path of a rule of the package, as the evaluator wants it.
    pub fn rule(&self, name: &str) -> String {
        format!("data.{}.{name}", self.package.join("."))
    }
}

/// Modules that were parsed and checked.
pub(crate) struct Analyzed {
    /// With the modules in it, prepared if there are no errors.
    pub engine: Engine,
    /// The modules.
    pub index: Index,
    /// What a walk over them found.
    pub checked: Checked,
    /// All errors, in order.
    pub errors: Vec<Finding>,
}

impl Policies {
    /// Loads policies. Files of tests are read for what would decide if it stood elsewhere, and
    /// take no part.
    pub fn load(sources: &Sources) -> Result<Self, LoadError> {
        let digest = sources.digest();
        let (mut deciding, mut tests) = (sources.clone(), sources.clone());
        deciding.modules.retain(|module| !module.is_test());
        tests.modules.retain(SourceFile::is_test);
        let Analyzed { engine, index, mut errors, .. } = analyzed(&deciding)?;
        errors.extend(on_own_stack(|| misplaced(&tests)).ok_or_else(crashed)?);
        match errors.is_empty() {
            true => Ok(Self { engine, digest, entries: entries_of(&index) }),
            false => Err(LoadError(sorted(errors))),
        }
    }

    /// SHA-256 of what decides, see [`Sources::digest`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A copy of the evaluator.
    pub(crate) fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// All packages that decide.
    pub(crate) fn all_entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Everything that is wrong with policies and their tests, errors and remarks.
pub fn lint(sources: &Sources) -> Vec<Finding> {
    match analyzed(sources) {
        Ok(Analyzed { index, checked, errors, .. }) => {
            let parsed = errors.iter().all(|error| error.code != Code::Syntax);
            let remarks = if parsed { remarks::lint(&index, &checked) } else { Vec::new() };
            sorted(errors.into_iter().chain(remarks).collect())
        }
        Err(LoadError(findings)) => findings,
    }
}

/// Parses and checks modules, on a stack that is large enough.
pub(crate) fn analyzed(sources: &Sources) -> Result<Analyzed, LoadError> {
    on_own_stack(|| analyze(sources)).ok_or_else(crashed)
}

fn crashed() -> LoadError {
    LoadError(vec![Finding::new(Code::Evaluation, "the evaluator broke down")])
}

/// What is wrong with files of tests as far as decisions go. One that does not parse may hold
/// anything, so it is wrong as well.
fn misplaced(tests: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut engine = Engine::parse(tests, &mut findings);
    let index = Index::of(&engine.modules(), &mut findings);
    findings.extend(teeth::in_tests(&index));
    findings
}

fn analyze(sources: &Sources) -> Analyzed {
    let mut errors = Vec::new();
    let mut engine = Engine::parse(sources, &mut errors);
    let parsed = errors.is_empty();
    let index = Index::of(&engine.modules(), &mut errors);
    let checked = check::check(&index, &sources.data);
    errors.extend(checked.findings.iter().cloned());
    errors.extend(teeth::in_tests(&index));
    if parsed {
        errors.extend(teeth::check(&index, &checked));
    }
    if errors.is_empty()
        && let Err(finding) = engine.prepare()
    {
        errors.push(finding);
    }
    Analyzed { engine, index, checked, errors: sorted(errors) }
}

fn entries_of(index: &Index) -> Vec<Entry> {
    let policies = index.policies().into_iter();
    let entry = |(package, point): (Vec<String>, DecisionPoint)| {
        let has = |name| !entries(index, &package, name).is_empty();
        let (has_deny, has_allow) = (has(DENY), has(ALLOW));
        Entry { package, point, has_deny, has_allow }
    };
    policies.map(entry).collect()
}
