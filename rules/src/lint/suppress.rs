//! Comments that silence findings.

use std::collections::HashMap;

use super::lint_of;
use crate::diagnostic::Diagnostic;
use crate::format::lexer::{Kind, tokenize};

const MARK: &str = "maestro-lint:";

/// What a file silences.
pub(super) struct Silenced {
    /// Names and codes by line, from 1.
    lines: HashMap<usize, Vec<String>>,
    file: Vec<String>,
}

impl Silenced {
    /// Reads the comments of a file.
    pub(super) fn read(text: &str) -> Self {
        let mut silenced = Self { lines: HashMap::new(), file: Vec::new() };
        let mut waiting: Vec<String> = Vec::new();
        let mut code_line = None;
        for token in tokenize(text) {
            if token.kind != Kind::Comment {
                if token.kind != Kind::Newline && !waiting.is_empty() {
                    let line = silenced.lines.entry(token.line + 1).or_default();
                    line.append(&mut waiting);
                }
                code_line = Some(token.end_line);
                continue;
            }
            let comment = token.text.trim_start_matches('#').trim();
            let Some(words) = comment.strip_prefix(MARK).map(str::trim) else { continue };
            let list = |text: &str| -> Vec<String> {
                text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
            };
            if let Some(names) = words.strip_prefix("disable-file=") {
                silenced.file.extend(list(names));
            } else if let Some(names) = words.strip_prefix("disable=") {
                match code_line == Some(token.line) {
                    true => silenced.lines.entry(token.line + 1).or_default().extend(list(names)),
                    false => waiting.extend(list(names)),
                }
            }
        }
        silenced
    }

    /// Whether a finding is silenced.
    pub(super) fn covers(&self, finding: &Diagnostic) -> bool {
        let Some(lint) = lint_of(finding.code) else { return false };
        let named = |names: &[String]| {
            names.iter().any(|name| name == lint.name || name == lint.code || name == "all")
        };
        let Some(location) = &finding.location else { return named(&self.file) };
        let line = |line: u32| self.lines.get(&(line as usize)).is_some_and(|names| named(names));
        named(&self.file) || line(location.line) || line(location.end_line)
    }
}
