//! What should be written otherwise in a policy that loads.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Checked, PartialRead};
use crate::error::{Code, Finding, sorted};
use crate::index::{ALLOW, DENY, Index, RuleId, SKIPPED_PREFIX, TEST_PREFIX};
use crate::shape::ShapeId;
use crate::syntax::{Expr, Rule, RuleHead, at, text};
use crate::teeth::{closure, entries, reached};

/// All remarks.
pub(crate) fn lint(index: &Index, checked: &Checked) -> Vec<Finding> {
    let mut findings = unused(index, checked);
    findings.extend(unused_imports(index, checked));
    findings.extend(uncovered(index, checked));
    findings.extend(without_code(index));
    sorted(findings)
}

/// Rules that neither a decision nor a test reads.
fn unused(index: &Index, checked: &Checked) -> Vec<Finding> {
    let packages: Vec<_> = index.policies().into_keys().collect();
    let mut used = reached(index, checked, &packages);
    let tests = index.rules.iter().enumerate().filter(|(_, rule)| {
        rule.name().starts_with(TEST_PREFIX) || rule.name().starts_with(SKIPPED_PREFIX)
    });
    used.extend(closure(tests.map(|(id, _)| id).collect(), &checked.uses));
    // Rules of one path are one thing: a default is read with the rule that it belongs to.
    let used: BTreeSet<&Vec<String>> =
        used.iter().filter_map(|id| index.rules.get(*id)).map(|rule| &rule.path).collect();
    let left = index.rules.iter().filter(|rule| !used.contains(&rule.path));
    let report = left.map(|rule| {
        let finding = Finding::new(Code::Unused, format!("nothing uses `{}`", rule.name()));
        at(rule.span(), finding)
    });
    report.collect()
}

fn unused_imports(index: &Index, checked: &Checked) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, module) in index.modules.iter().enumerate() {
        for (name, import) in &module.imports {
            if !checked.used_imports.contains(&(number, name.clone())) {
                let message = format!("nothing uses the import `{name}`");
                findings.push(at(&import.span, Finding::new(Code::UnusedImport, message)));
            }
        }
    }
    findings
}

/// Reads of a field that some states of a fact do not have, where no rule of the package asks for
/// these states. What is undefined does not hold, so there a `deny` says nothing; and what is
/// behind a `not` holds, so there an `allow` says yes. Where asking for some states is not enough,
/// the schema says so ([`maestro_core::policy::EVERY_STATE`]).
fn uncovered(index: &Index, checked: &Checked) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in index.policies().keys() {
        for (name, denies) in [(DENY, true), (ALLOW, false)] {
            let reached = signed_closure(entries(index, package, name), &checked.signed_uses);
            let signs =
                |rule: RuleId| [false, true].map(|sign| (sign, reached.contains(&(rule, sign))));
            // Whether what holds leads to a no: in a `deny`, or behind a `not` of an `allow`.
            let says_no = |behind_not: bool| denies != behind_not;
            let mut covered: BTreeMap<ShapeId, BTreeSet<&String>> = BTreeMap::new();
            for test in &checked.state_tests {
                for (sign, _) in signs(test.rule).into_iter().filter(|(_, is_reached)| *is_reached)
                {
                    let states = if says_no(sign) { &test.states } else { &test.others };
                    covered.entry(test.fact).or_default().extend(states);
                }
            }
            for read in &checked.partial_reads {
                let mut reached =
                    signs(read.rule).into_iter().filter(|(_, is_reached)| *is_reached);
                if !reached.any(|(sign, _)| says_no(sign != read.negated)) {
                    continue;
                }
                // A rule about pushes is about pushes; a scan that did not run is about everything.
                let asked = covered.get(&read.fact);
                if !read.strict && asked.is_some() {
                    continue;
                }
                let is_left = |word: &&String| asked.is_none_or(|asked| !asked.contains(word));
                let left: Vec<&String> = read.missing.iter().filter(is_left).collect();
                if !left.is_empty() {
                    findings.push(at(&read.span, blind(read, &left)));
                }
            }
        }
    }
    findings
}

/// Rules and all that they read, each with whether an odd number of `not` lies between.
fn signed_closure(
    starts: Vec<RuleId>,
    uses: &[BTreeSet<(RuleId, bool)>],
) -> BTreeSet<(RuleId, bool)> {
    let mut waiting: Vec<(RuleId, bool)> = starts.into_iter().map(|id| (id, false)).collect();
    let mut reached = BTreeSet::new();
    while let Some((id, sign)) = waiting.pop() {
        if reached.insert((id, sign)) {
            let read = uses.get(id).into_iter().flatten();
            waiting.extend(read.map(|(rule, negated)| (*rule, sign != *negated)));
        }
    }
    reached
}

fn blind(read: &PartialRead, left: &[&String]) -> Finding {
    let PartialRead { path, tag, .. } = read;
    let words: Vec<String> = left.iter().map(|word| format!("`{word}`")).collect();
    let message =
        format!("the policy denies nothing where `{path}.{tag}` is {}", words.join(" or "));
    let hint = match left {
        [only] => format!("add a rule such as `deny contains … if {path}.{tag} == \"{only}\"`"),
        _ => {
            let list: Vec<String> = left.iter().map(|word| format!("\"{word}\"")).collect();
            format!(
                "add a rule such as `deny contains … if {path}.{tag} in {{{}}}`",
                list.join(", ")
            )
        }
    };
    Finding::new(Code::Uncovered, message).hint(hint)
}

/// Reasons that are texts or objects without a code.
fn without_code(index: &Index) -> Vec<Finding> {
    let policies = index.policies();
    let mut findings = Vec::new();
    for rule in &index.rules {
        let module = index.modules.get(rule.module);
        let decides = module.is_some_and(|m| !m.is_test && policies.contains_key(&m.package));
        let Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } = rule.ast.as_ref()
        else {
            continue;
        };
        let codeless = match key.as_ref() {
            Expr::Object { fields, .. } => {
                !fields.iter().any(|(_, name, _)| text(name) == Some("code"))
            }
            Expr::String { .. } | Expr::RawString { .. } => true,
            Expr::Call { fcn, .. } => matches!(fcn.span().text(), "sprintf" | "concat"),
            _ => false,
        };
        if decides && rule.name() == DENY && codeless {
            findings.push(at(key.span(), Finding::new(Code::NoCode, "the reason has no code")));
        }
    }
    findings
}
