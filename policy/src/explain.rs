//! Why a decision is as it is: which rules gave which reasons.

use maestro_core::limits::POLICY_DECISION_MS_MAX;
use maestro_core::policy::{Decision, Input, Policy as _, Reason};
use regorus::Value;

use crate::decide::{document, reason};
use crate::engine::{Deadline, Engine, on_own_stack};
use crate::error::Place;
use crate::index::{ALLOW, DENY, Index, RuleId};
use crate::policies::{Entry, Policies};
use crate::syntax::place;
use crate::teeth::entries;

/// A decision with the rules behind it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// Every `deny` and `allow` rule that was asked, by package, file and line.
    pub rules: Vec<RuleTrace>,
    /// What `print` said.
    pub prints: Vec<String>,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    /// Its path, such as `maestro.effect.release.deny`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What it said.
    pub result: RuleResult,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleResult {
    /// A `deny` that gave these reasons.
    Denied(Vec<Reason>),
    /// An `allow` that is true.
    Allowed,
    /// Its body does not hold.
    Silent,
    /// It could not be evaluated, with the reason.
    Failed(String),
}

impl Policies {
    /// Decides, and says which rules did.
    pub fn explain(&self, input: &Input) -> Explanation {
        let decision = self.decide(input);
        let traced = on_own_stack(|| self.trace(input)).unwrap_or_default();
        Explanation { decision, rules: traced.0, prints: traced.1 }
    }

    fn trace(&self, input: &Input) -> (Vec<RuleTrace>, Vec<String>) {
        let mut engine = self.engine();
        let index = Index::of(&engine.modules(), &mut Vec::new());
        let ready = document(input).is_ok_and(|document| engine.set_input(&document).is_ok());
        let mut traces = Vec::new();
        if ready {
            for entry in self.entries(input.point()) {
                for name in [DENY, ALLOW] {
                    let mut rules = entries(&index, &entry.package, name);
                    rules.sort_by_key(|id| index.rules.get(*id).map(|rule| place(rule.span())));
                    let asked = rules.into_iter();
                    traces.extend(asked.filter_map(|id| trace(&mut engine, &index, entry, id)));
                }
            }
        }
        (traces, engine.prints())
    }
}

/// What one rule says by itself; defaults say nothing by themselves.
fn trace(engine: &mut Engine, index: &Index, entry: &Entry, id: RuleId) -> Option<RuleTrace> {
    let rule = index.rules.get(id)?;
    let module = index.modules.get(rule.module)?;
    if matches!(*rule.ast, crate::syntax::Rule::Default { .. }) {
        return None;
    }
    let path: Vec<String> = entry.package.iter().cloned().chain([rule.name().to_owned()]).collect();
    let deadline = Deadline::in_ms(POLICY_DECISION_MS_MAX);
    let result = match engine.single_rule(&module.ast, &rule.ast, &path, deadline) {
        Ok(Value::Set(items)) if items.is_empty() => RuleResult::Silent,
        Ok(Value::Set(items)) => RuleResult::Denied(items.iter().map(reason).collect()),
        Ok(Value::Bool(true)) => RuleResult::Allowed,
        Ok(_) => RuleResult::Silent,
        Err(error) => RuleResult::Failed(error.to_string()),
    };
    Some(RuleTrace { name: path.join("."), place: place(rule.span()), result })
}
