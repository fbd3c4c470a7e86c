//! How long files, functions and lines may be.
//!
//! What was longer when the limit came stands in `xtask/ratchet.txt`, with the length that it may
//! have. Such a line may be lowered or removed, and must be when the code got shorter.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Finding;
use super::rust;
use super::tree::SourceFile;

/// Lines of a Rust file.
const FILE_LINES: usize = 500;
/// Lines of a Rust file that no ratchet lifts.
const FILE_LINES_HARD: usize = 700;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Columns of a line of Rust.
const COLUMNS: usize = 100;
/// How far a ratchet may lie above the truth before it must be lowered.
const SLACK: usize = 30;

const RATCHET: &str = "xtask/ratchet.txt";

/// Checks all Rust files against the limits and the ratchet.
pub(super) fn check(files: &[SourceFile]) -> Result<Vec<Finding>> {
    let text = files.iter().find(|file| file.path == RATCHET).map_or("", |file| &file.text);
    let mut ratchet = Ratchet::parse(text)?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_suffix(".rs")) {
        findings.extend(file_findings(file, &mut ratchet));
    }
    findings.extend(ratchet.leftovers());
    Ok(findings)
}

fn file_findings(file: &SourceFile, ratchet: &mut Ratchet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line, message: String, mend| {
        findings.push(Finding { file: file.path.clone(), line, message, mend });
    };
    let lines = file.text.lines().count();
    let limit = ratchet.limit(&file.path, lines, FILE_LINES).min(FILE_LINES_HARD);
    if lines > limit {
        let message = format!("the file has {lines} lines, the limit is {limit}");
        report(limit + 1, message, "split it by noun: `foo.rs` beside `foo/`");
    }
    let masked = rust::mask(&file.text);
    for function in rust::functions(&masked) {
        let key = format!("{}::{}", file.path, function.name);
        let limit = ratchet.limit(&key, function.length, FUNCTION_LINES);
        if function.length > limit {
            let message = format!(
                "the function `{}` has {} lines, the limit is {limit}",
                function.name, function.length
            );
            report(function.line, message, "give its parts names");
        }
    }
    for ((number, line), masked) in file.lines().zip(masked.lines()) {
        // A message stays on one line, so that it can be searched for; addresses and rows of
        // tables cannot be broken.
        let within = masked.trim().is_empty() && !line.trim_start().starts_with("//");
        let message = within || (masked.contains('"') && code_columns(masked) <= COLUMNS);
        let table = line.trim_start().starts_with("//! |");
        let exempt = message || table || line.contains("https://");
        let columns = line.chars().count();
        if columns > COLUMNS && !exempt {
            let message = format!("the line has {columns} columns, the limit is {COLUMNS}");
            report(number, message, "break it");
        }
    }
    findings
}

/// Columns of a masked line without its blanks.
fn code_columns(masked: &str) -> usize {
    masked.split_whitespace().map(|word| word.len() + 1).sum()
}

/// Known exceptions: what, and how many lines it may have.
#[derive(Debug, Default)]
struct Ratchet {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Its line in the ratchet file.
    line: usize,
    /// Lines allowed.
    allowed: usize,
    /// The longest thing of that name that was met.
    actual: usize,
    /// The limit without the ratchet.
    limit: usize,
}

impl Ratchet {
    /// Reads lines `LINES WHAT`; `#` starts a comment.
    fn parse(text: &str) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let parsed = line.split_once(' ').and_then(|(count, what)| {
                let allowed = count.parse().ok()?;
                Some((what.trim().to_owned(), allowed))
            });
            let (what, allowed) =
                parsed.with_context(|| format!("{RATCHET}:{number}: expected `LINES WHAT`"))?;
            entries.insert(what, Entry { line: number, allowed, actual: 0, limit: 0 });
        }
        Ok(Self { entries })
    }

    /// How many lines `what` may have, given that it has `actual`.
    fn limit(&mut self, what: &str, actual: usize, limit: usize) -> usize {
        match self.entries.get_mut(what) {
            Some(entry) => {
                entry.actual = entry.actual.max(actual);
                entry.limit = limit;
                entry.allowed.max(limit)
            }
            None => limit,
        }
    }

    /// Entries that nothing needs any more, or not so high.
    fn leftovers(&self) -> Vec<Finding> {
        let loose =
            |entry: &Entry| entry.actual <= entry.limit || entry.allowed > entry.actual + SLACK;
        let findings = self.entries.iter().filter(|(_, entry)| loose(entry));
        findings
            .map(|(what, entry)| Finding {
                file: RATCHET.to_owned(),
                line: entry.line,
                message: format!("`{what}` has {} lines by now", entry.actual),
                mend: "lower the number, or remove the line when the limit is kept",
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ratchet: &str, text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
        let files = [file("a.rs", text), file(RATCHET, ratchet)];
        let findings = check(&files).expect("the ratchet is well formed");
        findings.into_iter().map(|f| format!("{}:{}: {}", f.file, f.line, f.message)).collect()
    }

    #[test]
    fn sizes_are_limited_and_the_ratchet_only_shrinks() {
        let long = format!("fn f() {{\n{}}}\n", "x();\n".repeat(80));
        let check = |ratchet: &str, text: &str, expect: &[&str]| {
            assert_eq!(found(ratchet, text), expect, "{ratchet}");
        };
        check("", "fn f() {}\n", &[]);
        check("", &long, &["a.rs:1: the function `f` has 82 lines, the limit is 70"]);
        check("82 a.rs::f", &long, &[]);
        check("81 a.rs::f", &long, &["a.rs:1: the function `f` has 82 lines, the limit is 81"]);
        check("150 a.rs::f", &long, &["xtask/ratchet.txt:1: `a.rs::f` has 82 lines by now"]);
        check("90 a.rs::g", "", &["xtask/ratchet.txt:1: `a.rs::g` has 0 lines by now"]);
        let many = "x();\n".repeat(600);
        check("", &many, &["a.rs:501: the file has 600 lines, the limit is 500"]);
        check("600 a.rs", &many, &[]);
        let most = "x();\n".repeat(800);
        check("800 a.rs", &most, &["a.rs:701: the file has 800 lines, the limit is 700"]);
    }

    #[test]
    fn long_lines_are_found_unless_they_hold_a_message() {
        let words = "word ".repeat(25);
        let check = |line: String, fine: bool| {
            assert_eq!(found("", &line).is_empty(), fine, "{line}");
        };
        check(format!("// {words}"), false);
        check(format!("    #[error(\"{words}\")]"), true);
        check(format!("let a = \"\n{words}\n\";"), true);
        check(format!("// see https://example.org/{}", "x".repeat(100)), true);
        check(format!("let {} = 1;", "x".repeat(100)), false);
    }
}
