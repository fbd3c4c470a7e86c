//! What the files that a file loads say about themselves: documentation, read from their text.

use std::collections::HashMap;

use maestro_core::Label;
use maestro_core::host::Host;
use starlark::syntax::AstModule;
use starlark_syntax::syntax::ast::{
    ArgumentP, AssignTargetP, AstExpr, AstLiteral, AstNoPayload, AstStmt, CallArgsP, ExprP, StmtP,
};

use crate::format::parse;
use crate::globals::load_label;
use crate::load::file::{display, read};

/// Documentation of loaded names, under the names that they have in the loading file.
#[derive(Default)]
pub(super) struct Documents {
    by_name: HashMap<String, Document>,
}

/// Documentation of one name.
#[derive(Clone, Default)]
pub(super) struct Document {
    /// Its docstring or `doc`.
    pub(super) text: String,
    /// The `doc` of each attribute, for rules.
    pub(super) attrs: HashMap<String, String>,
}

impl Documents {
    /// Reads the files that `module` loads; those that cannot be read document nothing.
    pub(super) fn read(host: &dyn Host, file: &Label, module: &AstModule) -> Self {
        let mut documents = Self::default();
        for load in module.loads() {
            let Some(defined) = load_label(load.module_id, file)
                .ok()
                .and_then(|label| Some((display(&label), read(host, &label).ok()??)))
                .and_then(|(name, text)| parse(&name, &text).ok())
                .map(|loaded| defined(&loaded))
            else {
                continue;
            };
            for (local, their) in load.symbols {
                if let Some(document) = defined.get(their) {
                    documents.by_name.insert(local.to_owned(), document.clone());
                }
            }
        }
        documents
    }

    /// What is known of a loaded name.
    pub(super) fn get(&self, name: &str) -> Option<&Document> {
        self.by_name.get(name)
    }
}

impl Document {
    /// The reason why it should not be used, from the paragraph `Deprecated: …`.
    pub(super) fn deprecated(&self) -> Option<&str> {
        deprecation(&self.text)
    }
}

/// The text behind `Deprecated:` at the start of a line.
pub(super) fn deprecation(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("Deprecated:").map(str::trim))
}

/// The documentation of the names that a file defines.
fn defined(module: &AstModule) -> HashMap<String, Document> {
    let mut found = HashMap::new();
    for statement in top_level(module.statement()) {
        match &statement.node {
            StmtP::Def(def) => {
                let text = docstring(&def.body).unwrap_or_default().to_owned();
                found.insert(def.name.ident.clone(), Document { text, attrs: HashMap::new() });
            }
            StmtP::Assign(assign) => {
                let AssignTargetP::Identifier(name) = &assign.lhs.node else { continue };
                let Some((_, args)) = call(&assign.rhs) else { continue };
                let text = named(args, "doc").and_then(string).unwrap_or_default().to_owned();
                let attrs = named(args, "attrs").map(attribute_docs).unwrap_or_default();
                found.insert(name.ident.clone(), Document { text, attrs });
            }
            _ => {}
        }
    }
    found
}

/// `doc` of each attribute of a literal dict, also of dicts joined with `|`.
fn attribute_docs(attrs: &AstExpr) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut waiting = vec![attrs];
    while let Some(expr) = waiting.pop() {
        match &expr.node {
            ExprP::Op(left, _, right) => waiting.extend([left.as_ref(), right.as_ref()]),
            ExprP::Dict(entries) => {
                for (name, value) in entries {
                    let doc = call(value).and_then(|(_, args)| named(args, "doc")).and_then(string);
                    if let (Some(name), Some(doc)) = (string(name), doc) {
                        found.insert(name.to_owned(), doc.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The statements of a file that are not inside others.
pub(crate) fn top_level(statement: &AstStmt) -> Vec<&AstStmt> {
    match &statement.node {
        StmtP::Statements(all) => all.iter().flat_map(top_level).collect(),
        _ => vec![statement],
    }
}

/// The docstring of a body.
pub(super) fn docstring(body: &AstStmt) -> Option<&str> {
    match &top_level(body).first()?.node {
        StmtP::Expression(expr) => string(expr),
        _ => None,
    }
}

/// The callee and the arguments of a call.
pub(crate) fn call(expr: &AstExpr) -> Option<(&AstExpr, &CallArgsP<AstNoPayload>)> {
    match &expr.node {
        ExprP::Call(callee, args) => Some((callee, args)),
        _ => None,
    }
}

/// The value of a named argument.
pub(crate) fn named<'a>(args: &'a CallArgsP<AstNoPayload>, name: &str) -> Option<&'a AstExpr> {
    args.args.iter().find_map(|argument| match &argument.node {
        ArgumentP::Named(own, value) if own.node == name => Some(value),
        _ => None,
    })
}

/// The text of a literal string.
pub(crate) fn string(expr: &AstExpr) -> Option<&str> {
    match &expr.node {
        ExprP::Literal(AstLiteral::String(text)) => Some(&text.node),
        _ => None,
    }
}

/// The name of a plain name.
pub(super) fn identifier(expr: &AstExpr) -> Option<&str> {
    match &expr.node {
        ExprP::Identifier(name) => Some(&name.ident),
        _ => None,
    }
}
