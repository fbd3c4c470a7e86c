//! Finds effects that policy denies because a guard before them was skipped.
//!
//! Gates, scans and signatures guard every effect behind them, at any distance, and one that did
//! not run holds for nothing: the built-in policy denies the effect. So what skips a guard has to
//! skip the effects behind it as well, and lint says so where it cannot see that it does.

use std::collections::BTreeSet;

use super::whole::is_guard;
use crate::error::Code;
use crate::pipeline::Edge;
use crate::pipeline::definitions::GATE;
use crate::pipeline::expression::{Expr, ExprKind, Operator, Value};
use crate::pipeline::report::Report;
use crate::pipeline::template::Step;

/// Warns of effects behind guards that may be skipped without them.
pub(crate) fn skipped_guards(steps: &[Step], edges: &[Edge], report: &mut Report) {
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for edge in edges {
        after[edge.from.index()].push(edge.to.index());
    }
    let mut told = BTreeSet::new();
    let guards = steps.iter().enumerate().filter(|(_, step)| is_guard(step));
    for (at, guard) in guards {
        let asked = parts(guard.condition.as_ref());
        if asked.is_empty() {
            continue;
        }
        for behind in reached(at, &after) {
            let effect = &steps[behind];
            let acts = effect.uses.is_effect() && effect.uses.name() != GATE;
            if acts && !implies(effect, &asked) && told.insert(behind) {
                warn(effect, guard, report);
            }
        }
    }
}

fn warn(effect: &Step, guard: &Step, report: &mut Report) {
    let (name, guard_name) = (&effect.id.value, &guard.id.value);
    let message = format!("`{name}` is denied by policy where `{guard_name}` before it is skipped");
    let span = guard.condition.as_ref().map_or(guard.id.span, |condition| condition.span);
    report
        .warning(Code::PipelineGuard, effect.id.span, message)
        .see(span, format!("when `{guard_name}` runs"))
        .hint(format!("skip both together: what the `if` of `{guard_name}` says, say here as well"))
        .hint("or let `needs` order it so that it does not come behind");
}

/// All steps that follow one, at any distance, in order.
fn reached(from: usize, after: &[Vec<usize>]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(after[at].iter().copied().filter(|next| found.insert(*next)));
    }
    found
}

/// Whether a step runs only where all of some conditions hold, as far as can be seen.
fn implies(step: &Step, asked: &[&Expr]) -> bool {
    let own = parts(step.condition.as_ref());
    asked.iter().all(|asked| own.iter().any(|own| own.says_same(asked)))
}

/// What a condition asks for, each part of `&&` by itself; nothing where it always holds.
fn parts(condition: Option<&Expr>) -> Vec<&Expr> {
    let (mut found, mut open) = (Vec::new(), Vec::from_iter(condition));
    while let Some(part) = open.pop() {
        match &part.kind {
            ExprKind::Binary(Operator::And, left, right) => open.extend([&**left, &**right]),
            ExprKind::Literal(Value::Bool(true)) => {}
            _ => found.push(part),
        }
    }
    found
}
