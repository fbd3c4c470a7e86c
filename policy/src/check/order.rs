//! Puts the statements of a body into an order in which variables are bound before they are read.
//!
//! Rego's statements have no order; the walk has one.

use std::collections::BTreeSet;

use crate::syntax::{
    AssignOp, Expr, ExprRef, Literal, LiteralStmt, Query, children, inner_query, variable,
};

/// The statements of a query, binders before readers where that is possible.
pub(super) fn ordered(query: &Query) -> Vec<&LiteralStmt> {
    let bound: Vec<BTreeSet<&str>> = query.stmts.iter().map(binds).collect();
    let read: Vec<BTreeSet<&str>> = query.stmts.iter().map(reads).collect();
    let mut left: Vec<usize> = (0..query.stmts.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_ready = |candidate: &usize| {
            let needs = read.get(*candidate);
            let others = left.iter().filter(|other| *other != candidate);
            let waiting = others.filter_map(|other| bound.get(*other));
            needs.is_none_or(|needs| waiting.flatten().all(|name| !needs.contains(name)))
        };
        // A circle of readers is left in the order in which it is written.
        let next = left.iter().position(is_ready).unwrap_or(0);
        order.push(left.remove(next));
    }
    order.into_iter().filter_map(|number| query.stmts.get(number)).collect()
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
