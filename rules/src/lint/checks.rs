//! Checks of what is particular to build files.

use std::collections::HashSet;
use std::sync::OnceLock;

use maestro_core::event::Severity;
use starlark::codemap::Span;
use starlark::environment::Globals;
use starlark_syntax::syntax::ast::{
    ArgumentP, AssignTargetP, AstExpr, AstNoPayload, AstStmt, BinOp, CallArgsP, ExprP, StmtP,
};

use super::loaded::{
    Documents, call, deprecation, docstring, identifier, named, string, top_level,
};
use super::{Found, names as defined_by_language};
use crate::format::FileKind;

/// Runs every check.
pub(super) fn check(found: &mut Found<'_>, kind: FileKind, loaded: &Documents) {
    let module = found.module;
    let statements = top_level(module.statement());
    loads(found, &statements);
    if kind == FileKind::Library {
        documentation(found, &statements);
    } else {
        targets(found, &statements, loaded);
    }
    for statement in &statements {
        names(found, statement, true);
        growth(found, statement, false);
        expressions(found, statement, loaded);
    }
}

impl Found<'_> {
    fn warn(&mut self, name: &str, message: String, span: Span) {
        let place = self.module.file_span(span);
        self.push(name, Severity::Warning, message, &place);
    }
}

fn loads(found: &mut Found<'_>, statements: &[&AstStmt]) {
    let mut seen: Vec<&str> = Vec::new();
    let mut previous: Option<&str> = None;
    for statement in statements {
        let StmtP::Load(load) = &statement.node else {
            previous = None;
            continue;
        };
        let file = load.module.node.as_str();
        if seen.contains(&file) {
            let message = format!("`{file}` is loaded twice");
            found.warn("duplicate-load", message, load.module.span);
        }
        seen.push(file);
        if let Some(before) = previous.filter(|before| load_key(before) > load_key(file)) {
            let message = format!("the load of `{file}` belongs before that of `{before}`");
            found.warn("unsorted-loads", message, load.module.span);
        }
        previous = Some(file);
    }
}

fn load_key(file: &str) -> (u8, &str) {
    match file.as_bytes().first() {
        Some(b'@') => (0, file),
        Some(b'/') => (1, file),
        _ => (2, file),
    }
}

fn documentation(found: &mut Found<'_>, statements: &[&AstStmt]) {
    let file_doc = match statements.first().map(|first| &first.node) {
        Some(StmtP::Expression(expr)) => string(expr).is_some(),
        _ => false,
    };
    if let (false, Some(first)) = (file_doc, statements.first()) {
        found.warn("missing-docs", "the file has no docstring".to_owned(), first.span);
    }
    for statement in statements {
        match &statement.node {
            StmtP::Def(def)
                if !def.name.ident.starts_with('_') && docstring(&def.body).is_none() =>
            {
                let message = format!("function `{}` has no docstring", def.name.ident);
                found.warn("missing-docs", message, def.name.span);
            }
            StmtP::Assign(assign) => {
                let AssignTargetP::Identifier(name) = &assign.lhs.node else { continue };
                let Some((callee, args)) = call(&assign.rhs) else { continue };
                let Some(what @ ("rule" | "provider" | "aspect" | "macro")) = identifier(callee)
                else {
                    continue;
                };
                let private = name.ident.starts_with('_');
                if !private && undocumented(args) {
                    let message = format!("{what} `{}` has no `doc`", name.ident);
                    found.warn("missing-docs", message, name.span);
                }
            }
            _ => {}
        }
    }
}

/// Whether a call has no `doc`, or an empty one.
fn undocumented(args: &CallArgsP<AstNoPayload>) -> bool {
    let spread = args.args.iter().any(|arg| matches!(arg.node, ArgumentP::KwArgs(_)));
    let doc = named(args, "doc");
    let positional = args.args.iter().any(|arg| match &arg.node {
        ArgumentP::Positional(value) => string(value).is_some(),
        _ => false,
    });
    !spread && !positional && doc.is_none_or(|doc| string(doc).is_some_and(str::is_empty))
}

/// Calls at the top level of a package file.
fn targets(found: &mut Found<'_>, statements: &[&AstStmt], loaded: &Documents) {
    for statement in statements {
        let StmtP::Expression(expr) = &statement.node else { continue };
        let Some((callee, args)) = call(expr) else { continue };
        let Some(name) = identifier(callee) else { continue };
        if loaded.get(name).is_none() && defined_by_language().contains(name) {
            continue;
        }
        for argument in &args.args {
            if let ArgumentP::Positional(value) = &argument.node {
                let message = format!("`{name}` is called with an argument that has no name");
                found.warn("positional-argument", message, value.span);
            }
        }
    }
}

/// Names that hide those of the language. Inside functions those of build files are free, since
/// `config` and `package` are good names for what functions hold; parameters may have any name.
fn names(found: &mut Found<'_>, statement: &AstStmt, top: bool) {
    let taken = if top { defined_by_language() } else { standard_names() };
    let mut check = |name: &str, span: Span| {
        if taken.contains(name) {
            let message = format!("`{name}` hides what the language calls so");
            found.warn("shadowed-builtin", message, span);
        }
    };
    match &statement.node {
        StmtP::Def(def) => check(&def.name.ident, def.name.span),
        StmtP::Assign(assign) => {
            assign.lhs.visit_lvalue(|name| check(&name.ident, name.span));
        }
        StmtP::For(each) => each.var.visit_lvalue(|name| check(&name.ident, name.span)),
        StmtP::Load(load) => {
            for argument in &load.args {
                check(&argument.local.ident, argument.local.span);
            }
        }
        _ => {}
    }
    let top = top && !matches!(statement.node, StmtP::Def(_));
    statement.node.visit_stmt(|inner| names(found, inner, top));
}

/// The names of plain Starlark.
fn standard_names() -> &'static HashSet<String> {
    static NAMES: OnceLock<HashSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| Globals::standard().names().map(|name| name.as_str().to_owned()).collect())
}

/// `x = x + …` and `x = depset(…, transitive = [x])` inside loops.
fn growth(found: &mut Found<'_>, statement: &AstStmt, in_loop: bool) {
    if let (true, StmtP::Assign(assign)) = (in_loop, &statement.node)
        && let AssignTargetP::Identifier(name) = &assign.lhs.node
    {
        let grows = leftmost_addend(&assign.rhs) == Some(&name.ident);
        let nests = call(&assign.rhs).is_some_and(|(callee, args)| {
            identifier(callee) == Some("depset")
                && named(args, "transitive").is_some_and(|list| mentions(list, &name.ident))
        });
        if grows {
            let message = format!("`{0} = {0} + …` copies `{0}` on every round", name.ident);
            found.warn("growth-in-loop", message, statement.span);
        } else if nests {
            let message = format!("depset `{}` gets one level deeper on every round", name.ident);
            found.warn("growth-in-loop", message, statement.span);
        }
    }
    let in_loop = match &statement.node {
        StmtP::For(_) => true,
        StmtP::Def(_) => false,
        _ => in_loop,
    };
    statement.node.visit_stmt(|inner| growth(found, inner, in_loop));
}

fn leftmost_addend(expr: &AstExpr) -> Option<&str> {
    let mut left = match &expr.node {
        ExprP::Op(left, BinOp::Add, _) => left,
        _ => return None,
    };
    while let ExprP::Op(further, BinOp::Add, _) = &left.node {
        left = further;
    }
    identifier(left)
}

fn mentions(expr: &AstExpr, name: &str) -> bool {
    let mut found = identifier(expr) == Some(name);
    expr.node.visit_expr(|inner| found = found || mentions(inner, name));
    found
}

/// Checks of calls, wherever they stand.
fn expressions(found: &mut Found<'_>, statement: &AstStmt, loaded: &Documents) {
    let mut all: Vec<&AstExpr> = Vec::new();
    statement.node.visit_expr(|expr| all.push(expr));
    while let Some(expr) = all.pop() {
        expr.node.visit_expr(|inner| all.push(inner));
        if let ExprP::Dict(entries) = &expr.node {
            attributes(found, entries);
        }
        let Some((callee, args)) = call(expr) else { continue };
        match (&callee.node, identifier(callee)) {
            (_, Some("glob")) => glob(found, args),
            (ExprP::Dot(of, name), _)
                if name.node == "glob" && identifier(of) == Some("native") =>
            {
                glob(found, args);
            }
            (_, Some(name)) => deprecated(found, name, callee.span, args, loaded),
            _ => {}
        }
    }
}

/// Attributes of a literal dict that say nothing about themselves.
fn attributes(found: &mut Found<'_>, entries: &[(AstExpr, AstExpr)]) {
    for (key, value) in entries {
        let (Some(name), Some((callee, args))) = (string(key), call(value)) else { continue };
        let ExprP::Dot(of, _) = &callee.node else { continue };
        let attribute = identifier(of) == Some("attr");
        if attribute && !name.starts_with('_') && undocumented(args) {
            found.warn("missing-docs", format!("attribute `{name}` has no `doc`"), key.span);
        }
    }
}

fn glob(found: &mut Found<'_>, args: &CallArgsP<AstNoPayload>) {
    let include = args.args.iter().find_map(|argument| match &argument.node {
        ArgumentP::Positional(value) => Some(value),
        ArgumentP::Named(name, value) if name.node == "include" => Some(value),
        _ => None,
    });
    let Some(ExprP::List(patterns)) = include.map(|list| &list.node) else { return };
    for pattern in patterns {
        if let Some(text @ ("**" | "**/*")) = string(pattern) {
            let message = format!("`{text}` takes every file of the package");
            found.warn("wide-glob", message, pattern.span);
        }
    }
}

fn deprecated(
    found: &mut Found<'_>,
    name: &str,
    span: Span,
    args: &CallArgsP<AstNoPayload>,
    loaded: &Documents,
) {
    let Some(document) = loaded.get(name) else { return };
    if let Some(why) = document.deprecated() {
        let message = format!("`{name}` is deprecated: {}", why.trim_end_matches('.'));
        found.warn("deprecated", message, span);
    }
    for argument in &args.args {
        let ArgumentP::Named(attribute, _) = &argument.node else { continue };
        let doc = document.attrs.get(&attribute.node);
        if let Some(why) = doc.and_then(|doc| deprecation(doc)) {
            let why = why.trim_end_matches('.');
            let message =
                format!("attribute `{}` of `{name}` is deprecated: {why}", attribute.node);
            found.warn("deprecated", message, attribute.span);
        }
    }
}
