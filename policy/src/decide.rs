//! Decisions: every policy of a decision point is asked, and each must agree.
//!
//! A policy is a package at or below `maestro.POINT`. Its `deny` is a set of reasons; its `allow`,
//! if it has one, must be true. Packages do not see each other's rules, so that none can widen what
//! another forbids. Whatever else happens (no value, a value of another kind, an error, too little
//! time) is a denial.

use std::collections::BTreeSet;

use maestro_core::DigestFunction;
use maestro_core::limits::{
    POLICY_DECISION_MS_MAX, POLICY_INPUT_BYTES_MAX, POLICY_REASON_BYTES_MAX, POLICY_REASONS_MAX,
    RUN_APPROVALS_MAX,
};
use maestro_core::policy::{Decision, DecisionPoint, Input, Policy, Reason, Verdict, failure};
use maestro_core::record::canonical_json;
use regorus::Value;

use crate::engine::{Deadline, Engine, EvaluationError, on_own_stack};
use crate::index::{ALLOW, DENY};
use crate::policies::{Entry, Policies};

/// The code of a reason that has none of its own.
const NO_CODE: &str = "denied";

impl Policy for Policies {
    fn decide(&self, input: &Input) -> Decision {
        self.decide_within(input, POLICY_DECISION_MS_MAX)
    }
}

impl Policies {
    /// As [`Policy::decide`], with another time limit, in milliseconds.
    pub fn decide_within(&self, input: &Input, limit_ms: u64) -> Decision {
        let point = input.point();
        let reasons = on_own_stack(|| self.reasons(input, Deadline::in_ms(limit_ms)));
        let crashed = || [Reason::new(failure::ERROR, "the evaluator broke down")].into();
        let verdict = verdict(reasons.unwrap_or_else(crashed));
        // An input without a canonical form was denied; its digest is that of nothing.
        let input = input.digest().unwrap_or_else(|_| DigestFunction::Sha256.digest(b""));
        Decision { point, verdict, policy: self.digest(), input }
    }

    fn reasons(&self, input: &Input, deadline: Deadline) -> BTreeSet<Reason> {
        let point = input.point();
        let document = match document(input) {
            Ok(document) => document,
            Err(reason) => return [reason].into(),
        };
        let mut engine = self.engine();
        if let Err(error) = engine.set_input(&document) {
            return [failed("input", &error)].into();
        }
        let mut reasons = BTreeSet::new();
        let mut asked = false;
        for entry in self.entries(point) {
            asked = true;
            reasons.extend(ask(&mut engine, entry, deadline));
        }
        if !asked {
            let message = format!("no policy says anything about `{}`", point.name());
            reasons.insert(Reason::new(failure::UNDEFINED, message));
        }
        reasons
    }
}

/// The input as canonical JSON, if it has a form and a size that a policy can take.
pub(crate) fn document(input: &Input) -> Result<String, Reason> {
    let bad = |why: String| Reason::new(failure::INPUT, why);
    let document = input.document().map_err(|error| bad(error.to_string()))?;
    let bytes = canonical_json(&document).map_err(|error| bad(error.to_string()))?;
    if bytes.len() > POLICY_INPUT_BYTES_MAX {
        let size = bytes.len();
        let why = format!("the input has {size} bytes, the limit is {POLICY_INPUT_BYTES_MAX}");
        return Err(bad(why));
    }
    String::from_utf8(bytes).map_err(|error| bad(error.to_string()))
}

fn verdict(reasons: BTreeSet<Reason>) -> Verdict {
    match reasons.is_empty() {
        true => Verdict::Allow,
        false => Verdict::Deny { reasons: reasons.into_iter().take(POLICY_REASONS_MAX).collect() },
    }
}

/// Why one policy denies; empty if it does not.
fn ask(engine: &mut Engine, entry: &Entry, deadline: Deadline) -> BTreeSet<Reason> {
    let mut reasons = BTreeSet::new();
    let package = entry.package.join(".");
    if entry.has_deny {
        match engine.rule(&entry.rule(DENY), deadline) {
            Ok(Value::Set(items)) => reasons.extend(items.iter().map(reason)),
            Ok(other) => {
                reasons.insert(malformed(&package, DENY, &other));
            }
            Err(error) => {
                reasons.insert(failed(&package, &error));
            }
        }
    }
    if entry.has_allow {
        match engine.rule(&entry.rule(ALLOW), deadline) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) if !reasons.is_empty() => {}
            Ok(Value::Bool(false)) => {
                let message = format!("`{package}` does not allow it");
                reasons.insert(Reason::new(failure::NOT_ALLOWED, message));
            }
            Ok(Value::Undefined) if !reasons.is_empty() => {}
            Ok(Value::Undefined) => {
                let message = format!("`{package}.{ALLOW}` has no value");
                reasons.insert(Reason::new(failure::UNDEFINED, message));
            }
            Ok(other) => {
                reasons.insert(malformed(&package, ALLOW, &other));
            }
            Err(error) => {
                reasons.insert(failed(&package, &error));
            }
        }
    }
    reasons
}

/// The reason that an element of `deny` is: `{"code": …, "msg": …}`, or a text as in conftest.
/// Anything else denies as well, and says so.
pub(crate) fn reason(item: &Value) -> Reason {
    let field = |name: &str| {
        let field = item.as_object().ok()?.get(&Value::from(name))?;
        field.as_string().ok().map(|text| text.as_ref())
    };
    let reason = match (item.as_string(), field("code"), field("msg")) {
        (Ok(message), ..) => Reason::new(NO_CODE, bounded(message)),
        (_, code, Some(message)) => Reason::new(bounded(code.unwrap_or(NO_CODE)), bounded(message)),
        (_, Some(code), None) => Reason::new(bounded(code), bounded(code)),
        (_, None, None) => {
            let message = format!("a rule denies, with a reason of another kind: {item}");
            return Reason::new(failure::MALFORMED, bounded(&message));
        }
    };
    Reason { approvals: approvals(item), ..reason }
}

/// How many approvals make a reason go away. Anything but a small number above zero is none: then
/// nothing makes it go away.
fn approvals(item: &Value) -> Option<u32> {
    let count = item.as_object().ok()?.get(&Value::from("approvals"))?.as_u32().ok()?;
    (1..=RUN_APPROVALS_MAX).contains(&count).then_some(count)
}

/// A text that is fit to be shown: no longer than the limit, and without control characters.
fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(POLICY_REASON_BYTES_MAX);
    let shown = text.get(..end).unwrap_or_default();
    let mut kept: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        kept.push('…');
    }
    kept
}

fn malformed(package: &str, name: &str, value: &Value) -> Reason {
    let message = format!("`{package}.{name}` is of the wrong kind: {value}");
    Reason::new(failure::MALFORMED, bounded(&message))
}

fn failed(package: &str, error: &EvaluationError) -> Reason {
    match error {
        EvaluationError::Timeout => {
            Reason::new(failure::TIMEOUT, format!("`{package}` took too long to decide"))
        }
        EvaluationError::Failed(why) => {
            Reason::new(failure::ERROR, bounded(&format!("`{package}` failed: {why}")))
        }
    }
}

/// The entries of a point.
impl Policies {
    pub(crate) fn entries(&self, point: DecisionPoint) -> impl Iterator<Item = &Entry> {
        self.all_entries().iter().filter(move |entry| entry.point == point)
    }
}
