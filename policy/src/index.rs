//! The modules of a policy by package, and their rules by path.

use std::collections::{BTreeMap, BTreeSet};

use maestro_core::policy::DecisionPoint;

use crate::error::{Code, Finding, did_you_mean};
use crate::syntax::{Module, Ref, Rule, Span, at, head_reference, reference};

/// The root package of decision points.
pub(crate) const ROOT: &str = "maestro";
/// The rule that names reasons to deny.
pub(crate) const DENY: &str = "deny";
/// The rule that says whether something is allowed.
pub(crate) const ALLOW: &str = "allow";
/// How the names of tests begin.
pub(crate) const TEST_PREFIX: &str = "test_";
/// How the names of tests begin that are left out.
pub(crate) const SKIPPED_PREFIX: &str = "todo_test_";

/// A module with what its head says.
pub(crate) struct ModuleEntry {
    /// The tree.
    pub ast: Ref<Module>,
    /// Its package, without `data`.
    pub package: Vec<String>,
    /// Names that stand for other paths, with the path from `data` or `input`.
    pub imports: BTreeMap<String, Import>,
    /// Whether it holds tests.
    pub is_test: bool,
}

/// An import.
pub(crate) struct Import {
    /// The path, which starts with `data` or `input`.
    pub path: Vec<String>,
    /// Where it stands.
    pub span: Span,
}

/// The number of a rule.
pub(crate) type RuleId = usize;

/// A rule; several may share a path.
pub(crate) struct RuleEntry {
    /// The number of its module.
    pub module: usize,
    /// The package and the names of the head, up to the first that is no name.
    pub path: Vec<String>,
    /// Whether more follows in the head, so that the rule makes an object.
    pub is_partial_object: bool,
    /// The tree.
    pub ast: Ref<Rule>,
}

impl RuleEntry {
    /// The last name of its path.
    pub fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// Where its head stands.
    pub fn span(&self) -> &Span {
        head_reference(&self.ast).span()
    }
}

/// Everything that was parsed.
#[derive(Default)]
pub(crate) struct Index {
    /// Modules, in the order of their names.
    pub modules: Vec<ModuleEntry>,
    /// Rules, in the order of modules and lines.
    pub rules: Vec<RuleEntry>,
    by_path: BTreeMap<Vec<String>, Vec<RuleId>>,
}

impl Index {
    /// Indexes parsed modules; `tests` are the names of test files.
    pub fn of(modules: &[Ref<Module>], findings: &mut Vec<Finding>) -> Self {
        let mut index = Self::default();
        for ast in modules {
            let module = entry(ast, findings);
            let number = index.modules.len();
            for rule in &ast.policy {
                let head = reference(head_reference(rule));
                let names = head.names();
                let mut path = module.package.clone();
                path.extend(names.iter().map(|name| (*name).to_owned()));
                let is_partial_object = names.len() < head.steps.len() + 1;
                index.by_path.entry(path.clone()).or_default().push(index.rules.len());
                let ast = rule.clone();
                index.rules.push(RuleEntry { module: number, path, is_partial_object, ast });
            }
            index.modules.push(module);
        }
        index
    }

    /// The rules of exactly this path.
    pub fn at(&self, path: &[String]) -> &[RuleId] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    /// The rules below this path.
    pub fn below(&self, path: &[String]) -> impl Iterator<Item = RuleId> {
        let within = self.by_path.range(path.to_vec()..);
        within.take_while(move |(key, _)| key.starts_with(path)).flat_map(|(_, ids)| ids).copied()
    }

    /// The longest beginning of `path` that is a rule, with its rules.
    pub fn longest(&self, path: &[String]) -> Option<(usize, &[RuleId])> {
        (1..=path.len()).rev().find_map(|length| {
            let rules = self.at(path.get(..length)?);
            (!rules.is_empty()).then_some((length, rules))
        })
    }

    /// The names that stand directly below a path.
    pub fn names_below(&self, path: &[String]) -> BTreeSet<&str> {
        let within = self.by_path.range(path.to_vec()..);
        let keys = within.map(|(key, _)| key).take_while(|key| key.starts_with(path));
        keys.filter_map(|key| key.get(path.len()).map(String::as_str)).collect()
    }

    /// The packages of modules without tests that decide something, each with its point.
    pub fn policies(&self) -> BTreeMap<Vec<String>, DecisionPoint> {
        let deciding = self.modules.iter().filter(|module| !module.is_test);
        deciding.filter_map(|m| Some((m.package.clone(), point_of(&m.package)?))).collect()
    }
}

/// The decision point of a package.
pub(crate) fn point_of(package: &[String]) -> Option<DecisionPoint> {
    match package {
        [root, point, ..] if root == ROOT => DecisionPoint::parse(point),
        _ => None,
    }
}

fn entry(ast: &Ref<Module>, findings: &mut Vec<Finding>) -> ModuleEntry {
    let head = reference(&ast.package.refr);
    let package: Vec<String> = head.names().into_iter().map(str::to_owned).collect();
    let span = ast.package.refr.span();
    let is_test = span.source.get_path().ends_with("_test.rego");
    if package.first().is_some_and(|root| root == ROOT) && point_of(&package).is_none() {
        findings.push(at(span, unknown_point(&package)));
    }
    let mut imports = BTreeMap::new();
    for import in &ast.imports {
        let path: Vec<String> =
            reference(&import.refr).names().into_iter().map(str::to_owned).collect();
        let alias = import.r#as.as_ref().map(Span::text);
        let name = alias.or(path.last().map(String::as_str)).unwrap_or_default().to_owned();
        if matches!(path.first().map(String::as_str), Some("data" | "input")) {
            let span = import.refr.span().clone();
            imports.insert(name, Import { path, span });
        }
    }
    ModuleEntry { ast: ast.clone(), package, imports, is_test }
}

fn unknown_point(package: &[String]) -> Finding {
    let names = || DecisionPoint::ALL.iter().map(|point| point.name());
    let known: Vec<String> = names().map(|name| format!("`{ROOT}.{name}`")).collect();
    let name = package.get(1).map_or("", String::as_str);
    let message = format!("there is no decision point `{}`", package.join("."));
    Finding::new(Code::Point, message)
        .hints(did_you_mean(name, names()))
        .hint(format!("the points are {}", known.join(", ")))
}
