//! Whether a policy can deny anything at all.
//!
//! A policy is a package at or below `maestro.POINT`. It can deny if it has
//! - a `deny` that grows (`deny contains …`) by a rule whose body is not plainly false, or
//! - an `allow` that is not plainly true.
//!
//! A policy that cannot is refused, and so is a module of which no rule is read, directly or not,
//! by a `deny` or an `allow`: it looks as if it guarded something, and guards nothing. So does a
//! `deny` or an `allow` in a file of tests.

use std::collections::BTreeSet;

use crate::check::Checked;
use crate::error::{Code, Finding, did_you_mean};
use crate::index::{ALLOW, DENY, Index, RuleEntry, RuleId, TEST_PREFIX, point_of};
use crate::syntax::{Expr, ExprRef, Literal, Query, Rule, RuleBody, RuleHead, at, is_function};

/// What is wrong with the policies of an index.
pub(crate) fn check(index: &Index, checked: &Checked) -> Vec<Finding> {
    let mut findings = Vec::new();
    let policies = index.policies();
    for package in policies.keys() {
        let deny = entries(index, package, DENY);
        let allow = entries(index, package, ALLOW);
        let malformed = forms(index, &deny, &allow);
        let can_deny = deny.iter().any(|id| deny_can_fire(index, *id))
            || (!allow.is_empty() && allow_can_fail(index, &allow));
        if malformed.is_empty() && !can_deny {
            findings.push(toothless(index, package, !deny.is_empty() || !allow.is_empty()));
        }
        findings.extend(malformed);
    }
    let reached = reached(index, checked, &policies.keys().cloned().collect::<Vec<_>>());
    for (number, module) in index.modules.iter().enumerate() {
        let mut own = index.rules.iter().enumerate().filter(|(_, rule)| rule.module == number);
        let has_policy = policies.contains_key(&module.package);
        let complained = has_policy && findings.iter().any(|f| f.code == Code::Toothless);
        if !module.is_test && !complained && !own.any(|(id, _)| reached.contains(&id)) {
            let span = module.ast.package.refr.span();
            let file = span.source.get_path();
            let message =
                format!("`{file}` can deny nothing: no `deny` or `allow` reads its rules");
            let hint = match has_policy {
                true => "give it a `deny` or an `allow`",
                false => "policies stand in packages such as `maestro.effect.release`",
            };
            findings.push(at(span, Finding::new(Code::Toothless, message).hint(hint)));
        }
    }
    findings
}

/// What files of tests would decide if they took part: it looks like a policy, and is none.
pub(crate) fn in_tests(index: &Index) -> Vec<Finding> {
    let is_entry = |rule: &&RuleEntry| {
        let module = index.modules.get(rule.module);
        module.is_some_and(|module| module.is_test && point_of(&module.package).is_some())
            && [DENY, ALLOW].contains(&rule.name())
    };
    let tell = |rule: &RuleEntry| {
        let (name, span) = (rule.name(), rule.span());
        let file = span.source.get_path();
        let message = format!("`{file}` is a file of tests, so its `{name}` is never asked");
        let finding = Finding::new(Code::Toothless, message)
            .hint("a policy stands in a file whose name does not end in `_test.rego`")
            .hint("a rule that serves tests alone takes another name");
        at(span, finding)
    };
    index.rules.iter().filter(is_entry).map(tell).collect()
}

/// The rules that a `deny` or an `allow` of some packages reads, with these.
pub(crate) fn reached(
    index: &Index,
    checked: &Checked,
    packages: &[Vec<String>],
) -> BTreeSet<RuleId> {
    let starts = packages.iter().flat_map(|package| {
        [DENY, ALLOW].into_iter().flat_map(move |name| entries(index, package, name))
    });
    closure(starts.collect(), &checked.uses)
}

/// Rules and all that they read.
pub(crate) fn closure(starts: Vec<RuleId>, uses: &[BTreeSet<RuleId>]) -> BTreeSet<RuleId> {
    let (mut reached, mut waiting) = (BTreeSet::new(), starts);
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(uses.get(id).into_iter().flatten());
        }
    }
    reached
}

/// The rules of a name in a package, in modules without tests.
pub(crate) fn entries(index: &Index, package: &[String], name: &str) -> Vec<RuleId> {
    let path: Vec<String> = package.iter().cloned().chain([name.to_owned()]).collect();
    let deciding = |id: &RuleId| {
        let module = index.rules.get(*id).and_then(|rule| index.modules.get(rule.module));
        module.is_some_and(|module| !module.is_test)
    };
    index.at(&path).iter().copied().filter(deciding).collect()
}

/// What is wrong with the forms of `deny` and `allow`.
fn forms(index: &Index, deny: &[RuleId], allow: &[RuleId]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (ids, name) in [(deny, DENY), (allow, ALLOW)] {
        for entry in ids.iter().filter_map(|id| index.rules.get(*id)) {
            let is_set = matches!(*entry.ast, Rule::Spec { head: RuleHead::Set { .. }, .. });
            let fits = is_set == (name == DENY)
                && !is_function(&entry.ast)
                && !entry.is_partial_object
                && (name == DENY || constant(&entry.ast).is_none_or(|value| value.is_some()));
            if !fits {
                let (is, hint) = match name == DENY {
                    true => ("a set", "write `deny contains {\"code\": …, \"msg\": …} if …`"),
                    false => ("a boolean", "write `allow if …`"),
                };
                let message = format!("`{name}` is not {is}");
                findings.push(at(entry.span(), Finding::new(Code::Form, message).hint(hint)));
            }
        }
    }
    findings
}

/// The value of a rule that is written out: `Some(None)` if it is no boolean.
fn constant(rule: &Rule) -> Option<Option<bool>> {
    let value = match rule {
        Rule::Default { value, .. } => value,
        Rule::Spec { head: RuleHead::Compr { assign, .. }, .. } => match assign {
            Some(assign) => &assign.value,
            None => return Some(Some(true)),
        },
        Rule::Spec { .. } => return None,
    };
    match value.as_ref() {
        Expr::Bool { value, .. } => Some(value.as_bool().ok().copied()),
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Null { .. }
        | Expr::Array { .. }
        | Expr::Set { .. }
        | Expr::Object { .. } => Some(None),
        _ => None,
    }
}

fn deny_can_fire(index: &Index, id: RuleId) -> bool {
    match index.rules.get(id).map(|rule| rule.ast.as_ref()) {
        Some(Rule::Spec { bodies, .. }) => {
            bodies.is_empty() || bodies.iter().any(|body| !is_never(&body.query))
        }
        _ => false,
    }
}

/// Whether a body has a statement that is plainly false.
fn is_never(query: &Query) -> bool {
    let is_bool = |expr: &ExprRef, want: bool| match expr.as_ref() {
        Expr::Bool { value, .. } => value.as_bool().is_ok_and(|value| *value == want),
        _ => false,
    };
    query.stmts.iter().any(|statement| match &statement.literal {
        Literal::Expr { expr, .. } => is_bool(expr, false),
        Literal::NotExpr { expr, .. } => is_bool(expr, true),
        _ => false,
    })
}

/// Whether a body is plainly true.
fn is_always(body: &RuleBody) -> bool {
    body.query.stmts.iter().all(|statement| match &statement.literal {
        Literal::Expr { expr, .. } => match expr.as_ref() {
            Expr::Bool { value, .. } => value.as_bool().is_ok_and(|value| *value),
            _ => false,
        },
        _ => false,
    })
}

fn allow_can_fail(index: &Index, ids: &[RuleId]) -> bool {
    let rules = || ids.iter().filter_map(|id| index.rules.get(*id)).map(|rule| rule.ast.as_ref());
    let always_true = rules().any(|rule| match rule {
        Rule::Default { .. } => constant(rule) == Some(Some(true)),
        Rule::Spec { bodies, .. } => {
            constant(rule) == Some(Some(true)) && bodies.iter().all(is_always)
        }
    });
    let may_be_false =
        rules().any(|rule| matches!(rule, Rule::Spec { .. }) && constant(rule) != Some(Some(true)));
    !always_true || may_be_false
}

fn toothless(index: &Index, package: &[String], has_entry: bool) -> Finding {
    let name = package.join(".");
    let module = index.modules.iter().find(|module| module.package == package && !module.is_test);
    let names = index.names_below(package);
    let finding = match has_entry {
        true => Finding::new(Code::Toothless, format!("the policy `{name}` can deny nothing"))
            .hint("its `deny` is always empty, or its `allow` always true"),
        false => {
            let near = names.iter().copied().find(|name| {
                !name.starts_with(TEST_PREFIX) && did_you_mean(name, [DENY, ALLOW]).is_some()
            });
            let message = format!("the policy `{name}` has neither `deny` nor `allow`");
            let rename = near.map(|near| format!("is `{near}` meant to be one of them?"));
            Finding::new(Code::Toothless, message)
                .hints(rename)
                .hint("write `deny contains {\"code\": …, \"msg\": …} if …`")
                .hint("what policies share stands in a package outside of `maestro`")
        }
    };
    match module {
        Some(module) => at(module.ast.package.refr.span(), finding),
        None => finding,
    }
}
