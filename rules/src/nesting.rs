//! Refuses texts that nest so deeply that reading them would overflow the stack.
//!
//! The parser, the compiler and the destructors of its trees recurse over expressions. This
//! scanner bounds how deep they can get, before the parser sees the text: open brackets, plus the
//! operators that chain inside each of them, plus the indentation. It knows strings and comments
//! and nothing else, so it can only be too strict, and real files are far below the bound.

use crate::error::{Code, RuleError};

/// Deepest nesting of expressions and statements.
pub(crate) const DEPTH_MAX: usize = 1_500;

/// Checks a text; the error names the line where the bound is passed.
pub(crate) fn check(text: &str) -> Result<(), RuleError> {
    let mut scan = Scan { rest: text, line: 1, open: vec![0], sum: 0, branches: 0, indent: 0 };
    scan.start_of_line();
    while scan.step() {
        if scan.sum + scan.open.len() + scan.branches + scan.indent > DEPTH_MAX {
            let message = format!("line {} nests deeper than {DEPTH_MAX}", scan.line);
            return Err(RuleError::new(Code::Limit, message)
                .hint("split the expression into several statements"));
        }
    }
    Ok(())
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    /// For each open bracket, the operators since it or since its last comma.
    open: Vec<usize>,
    /// The sum of `open`.
    sum: usize,
    /// Branches of one `if` in a row, which nest.
    branches: usize,
    indent: usize,
}

impl Scan<'_> {
    /// Consumes one token; whether there was one.
    fn step(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else { return false };
        match c {
            '\n' => {
                self.take(1);
                self.line += 1;
                if self.open.len() == 1 {
                    self.reset();
                    self.start_of_line();
                }
            }
            '#' => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.take(end);
            }
            '\\' if self.rest.starts_with("\\\n") => {
                self.line += 1;
                self.take(2);
            }
            '"' | '\'' => self.string(c),
            '(' | '[' | '{' => {
                self.operator(); // a call or an index chains, too
                self.open.push(0);
                self.take(1);
            }
            ')' | ']' | '}' => {
                if self.open.len() > 1 {
                    self.sum -= self.open.pop().unwrap_or(0);
                }
                self.take(1);
            }
            ',' | ';' => {
                self.reset();
                self.take(1);
            }
            c if c.is_alphanumeric() || c == '_' => self.word(),
            ' ' | '\t' | '\r' => self.take(1),
            _ => {
                self.operator();
                self.take(c.len_utf8());
            }
        }
        true
    }

    fn operator(&mut self) {
        if let Some(count) = self.open.last_mut() {
            *count += 1;
            self.sum += 1;
        }
    }

    fn reset(&mut self) {
        if let Some(count) = self.open.last_mut() {
            self.sum -= *count;
            *count = 0;
        }
    }

    fn word(&mut self) {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let word = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
        if matches!(word, "not" | "and" | "or" | "in" | "if" | "else" | "lambda" | "for") {
            self.operator();
        }
        self.take(word.len());
    }

    fn start_of_line(&mut self) {
        let content = self.rest.trim_start_matches([' ', '\t']);
        if content.starts_with(['\n', '#', '\r']) || content.is_empty() {
            return;
        }
        self.indent = self.rest.len() - content.len();
        if content.starts_with("elif") {
            self.branches += 1;
        } else if self.indent == 0 {
            self.branches = 0;
        }
    }

    /// A string, raw or not: a backslash hides the next character in both.
    fn string(&mut self, quote: char) {
        let triple: String = [quote; 3].iter().collect();
        let long = self.rest.starts_with(&triple);
        self.take(if long { 3 } else { 1 });
        while let Some(c) = self.rest.chars().next() {
            if c == '\\' {
                let hidden = self.rest.chars().nth(1);
                self.line += usize::from(hidden == Some('\n'));
                self.take(1 + hidden.map_or(0, char::len_utf8));
            } else if long && self.rest.starts_with(&triple) {
                self.take(3);
                return;
            } else if !long && (c == quote || c == '\n') {
                // An unterminated string ends with its line; the parser reports it.
                self.take(usize::from(c == quote));
                return;
            } else {
                self.line += usize::from(c == '\n');
                self.take(c.len_utf8());
            }
        }
    }

    fn take(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_shapes_pass_and_towers_do_not() {
        let deep = DEPTH_MAX + 1;
        let passes = |text: &str| check(text).is_ok();
        assert!(passes("x = [\n    f(a, b[1]),  # comment ((((\n]\n"));
        assert!(passes(&format!("x = [{}]\n", "\"a\", ".repeat(100_000))));
        assert!(passes(&"x = 1 + 2\n".repeat(100_000)));
        assert!(passes(&format!("x = \"{}\"\n", "(".repeat(deep))));
        assert!(passes(&format!("x = '''{}'''\n", "(\n".repeat(deep))));
        assert!(passes(&format!("{}\n", "# (".repeat(deep))));
        assert!(!passes(&"(".repeat(deep)));
        assert!(!passes(&format!("x = {}1", "-".repeat(deep))));
        assert!(!passes(&format!("x = {}1", "not ".repeat(deep))));
        assert!(!passes(&format!("x = 1{}", " + 1".repeat(deep))));
        assert!(!passes(&format!("x = f{}", "()".repeat(deep))));
        assert!(!passes(&format!("x = a{}", ".a".repeat(deep))));
        assert!(!passes(&format!("x = {}1", "lambda: ".repeat(deep))));
        assert!(!passes(&format!("if 1:\n  x\n{}", "elif 1:\n  x\n".repeat(deep))));
    }

    #[test]
    fn every_prefix_of_odd_text_is_scanned() {
        let text = "x = r'\\'\" \\\n\"\"\"é\\\n''' ] ) } { [ ( ü \\";
        for (end, _) in text.char_indices() {
            let _ = check(&text[..end]);
        }
        assert!(check(text).is_ok());
    }
}
