//! Pages of error codes, from the documentation of [`Code`] and from the table of lints.

use std::fmt::Write as _;

use crate::error::Code;
use crate::lint::LINTS;

/// The page of a code such as `MAE0121`, as Markdown; `None` if there is no such code.
pub fn error_page(code: &str) -> Option<String> {
    error_pages().into_iter().find(|(own, _)| *own == code).map(|(_, page)| page)
}

/// Every code with its page.
pub fn error_pages() -> Vec<(&'static str, String)> {
    let errors = Code::ALL.iter().map(|code| (code.as_str(), page(*code)));
    let lints = LINTS.iter().map(|lint| {
        let page = format!(
            "# {}: {}\n\nA finding of `maestro lint`, named `{}`.\n\n## What to do\n\n{}.\n\n\
             `# maestro-lint: disable={}` silences it on its line.\n",
            lint.code,
            lint.about.trim_end_matches('.'),
            lint.name,
            first_large(lint.advice),
            lint.name
        );
        (lint.code, page)
    });
    errors.chain(lints).collect()
}

fn page(code: Code) -> String {
    let documentation = code.documentation();
    let (about, fix) = documentation.split_once("Fix:").unwrap_or((documentation, ""));
    let about = joined(about);
    let mut page = format!("# {code}: {}\n", about.trim_end_matches('.'));
    if !fix.trim().is_empty() {
        let _ = write!(page, "\n## What to do\n\n{}\n", first_large(&joined(fix)));
    }
    page
}

/// The lines of a comment as one.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_large(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
