//! Puts the statements of a body into an order in which variables are bound before they are read.
//!
//! Rego's statements have no order; the walk has one.

use std::collections::{BTreeSet, HashMap};

use crate::syntax::{
    AssignOp, Expr, ExprRef, Literal, LiteralStmt, Query, children, inner_query, variable,
};

/// The statements of a query, binders before readers where that is possible.
///
/// Each is taken once its names are bound, first the one that is written first. Every name is
/// counted down once for each statement that binds it, so the time grows with the length of the
/// text and not with a power of it.
pub(super) fn ordered(query: &Query) -> Vec<&LiteralStmt> {
    let bound: Vec<BTreeSet<&str>> = query.stmts.iter().map(binds).collect();
    let mut binders: HashMap<&str, usize> = HashMap::new();
    for name in bound.iter().flatten() {
        *binders.entry(name).or_default() += 1;
    }
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut waits = Vec::with_capacity(query.stmts.len());
    for (number, statement) in query.stmts.iter().enumerate() {
        let names = reads(statement).into_iter().filter(|name| binders.contains_key(name));
        let names: Vec<&str> = names.collect();
        waits.push(names.len());
        names.into_iter().for_each(|name| readers.entry(name).or_default().push(number));
    }
    let mut left: BTreeSet<usize> = (0..query.stmts.len()).collect();
    let mut ready: BTreeSet<usize> = left.iter().copied().filter(|n| waits[*n] == 0).collect();
    let mut order = Vec::with_capacity(left.len());
    // A circle of readers is left in the order in which it is written.
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(&next);
        order.push(&query.stmts[next]);
        for name in &bound[next] {
            let count = binders.entry(name).or_default();
            *count = count.saturating_sub(1);
            let freed = if *count == 0 { readers.remove(name) } else { None };
            for reader in freed.into_iter().flatten() {
                waits[reader] -= 1;
                if waits[reader] == 0 && left.contains(&reader) {
                    ready.insert(reader);
                }
            }
        }
    }
    order
}

/// The variables that a statement surely binds.
fn binds(statement: &LiteralStmt) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    match &statement.literal {
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|pattern| pattern_names(pattern, &mut names));
        }
        Literal::Expr { expr, .. } => {
            if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                pattern_names(lhs, &mut names);
            }
        }
        Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
    }
    names
}

fn pattern_names<'a>(pattern: &'a ExprRef, names: &mut BTreeSet<&'a str>) {
    match pattern.as_ref() {
        Expr::Var { .. } => names.extend(variable(pattern).filter(|name| *name != "_")),
        Expr::Array { items, .. } => items.iter().for_each(|item| pattern_names(item, names)),
        Expr::Object { fields, .. } => {
            fields.iter().for_each(|(_, _, value)| pattern_names(value, names));
        }
        _ => {}
    }
}

/// The variables that a statement mentions.
fn reads(statement: &LiteralStmt) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    statement_names(statement, &mut names);
    for own in binds(statement) {
        names.remove(own);
    }
    names
}

fn statement_names<'a>(statement: &'a LiteralStmt, names: &mut BTreeSet<&'a str>) {
    match &statement.literal {
        Literal::SomeVars { .. } => {}
        Literal::SomeIn { key, value, collection, .. } => {
            key.iter().chain([value, collection]).for_each(|expr| expr_names(expr, names));
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expr_names(expr, names),
        Literal::Every { domain, query, .. } => {
            expr_names(domain, names);
            query.stmts.iter().for_each(|inner| statement_names(inner, names));
        }
    }
    for modifier in &statement.with_mods {
        expr_names(&modifier.r#as, names);
    }
}

fn expr_names<'a>(expr: &'a ExprRef, names: &mut BTreeSet<&'a str>) {
    names.extend(variable(expr));
    children(expr).into_iter().for_each(|child| expr_names(child, names));
    if let Some(query) = inner_query(expr) {
        query.stmts.iter().for_each(|inner| statement_names(inner, names));
    }
}
