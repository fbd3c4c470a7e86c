//! `maestro fmt`: the one layout of `.star` files, that of buildifier.
//!
//! What changes: spaces, line breaks, indentation, commas after last elements, quotes, and the
//! order of what means the same in any order. What never changes: comments, the text of strings,
//! names, and everything that the interpreter would see differently. The syntax trees of the text
//! before and after are compared each time; a text that does not parse, or whose tree would
//! change, is left alone.

pub(crate) mod lexer;
mod order;
mod printer;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashSet;

use maestro_core::limits::BUILD_FILE_BYTES_MAX;
use starlark::syntax::AstModule;

use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError};
use crate::load::file::dialect;
use crate::nesting;
use crate::on_large_stack;
use crate::scope::PACKAGE_FILE;

/// What a `.star` file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A `maestro.star`, which declares targets.
    Package,
    /// Any other file, which defines rules, functions and values.
    Library,
}

impl FileKind {
    /// The kind of the file at `path`.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name == PACKAGE_FILE { Self::Package } else { Self::Library }
    }
}

/// Lays out the text of a `.star` file; `path` is for messages.
///
/// A text that comes out equal is laid out already. The result of a result is the same text.
pub fn format(path: &str, text: &str, kind: FileKind) -> Result<String, Diagnostic> {
    on_large_stack(|| format_here(path, text, kind))
}

fn format_here(path: &str, text: &str, kind: FileKind) -> Result<String, Diagnostic> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let before = parse(path, text)?;
    let mut rows = tree::rows(&lexer::tokenize(text));
    let plain = printer::print(&rows, kind);
    order::sort(&mut rows, kind);
    let sorted = printer::print(&rows, kind);
    if !same_tree(&before, path, &plain) || !same_tokens(&plain, &sorted) {
        return Err(internal(path));
    }
    // Sorting moves comments and line breaks, so the result must read as it was written.
    let mut again = tree::rows(&lexer::tokenize(&sorted));
    order::sort(&mut again, kind);
    match printer::print(&again, kind) == sorted {
        true => Ok(sorted),
        false => Err(internal(path)),
    }
}

/// The text without the loaded `names`; a `load` that is left without names goes, too. What has a
/// comment of its own stays.
pub(crate) fn without_loads(text: &str, kind: FileKind, names: &HashSet<&str>) -> String {
    let mut rows = tree::rows(&lexer::tokenize(text));
    rows.retain_mut(|row| order::keep_loaded(row, |name| !names.contains(name)));
    printer::print(&rows, kind)
}

/// Parses a text that is to be looked at, not evaluated.
pub(crate) fn parse(path: &str, text: &str) -> Result<AstModule, Diagnostic> {
    let at_start = |error| Diagnostic::of(error, Some(Location::start_of(path)));
    if text.len() as u64 > BUILD_FILE_BYTES_MAX {
        let size = text.len();
        let message = format!("`{path}` has {size} bytes, the limit is {BUILD_FILE_BYTES_MAX}");
        return Err(at_start(RuleError::new(Code::Limit, message)));
    }
    nesting::check(text).map_err(at_start)?;
    AstModule::parse(path, text.to_owned(), &dialect())
        .map_err(|error| Diagnostic::from_starlark(&error, None))
}

fn internal(path: &str) -> Diagnostic {
    let message = format!("`{path}` cannot be laid out without a change of its meaning");
    let error =
        RuleError::new(Code::Internal, message).hint("the file is left as it is; please report it");
    Diagnostic::of(error, Some(Location::start_of(path)))
}

/// Whether `after` means what `before` means.
fn same_tree(before: &AstModule, path: &str, after: &str) -> bool {
    match parse(path, after) {
        Ok(after) => before.statement().to_string() == after.statement().to_string(),
        Err(_) => false,
    }
}

/// Whether two texts consist of the same tokens in some order, commas apart.
fn same_tokens(left: &str, right: &str) -> bool {
    let tokens = |text: &str| {
        let all = lexer::tokenize(text);
        let mut texts: Vec<String> = all
            .iter()
            .filter(|token| token.text != "," && token.kind != lexer::Kind::Newline)
            .map(|token| token.text.to_owned())
            .collect();
        texts.sort_unstable();
        texts
    };
    tokens(left) == tokens(right)
}
