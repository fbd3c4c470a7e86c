//! What files are called, how they begin, and words that do not belong into them.

use super::Finding;
use super::tree::SourceFile;

/// Module names that say nothing.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "common", "helpers", "types"];

/// Pieces of text that do not belong into the repository, each cut in two so that this table does
/// not find itself, with the reason.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("TO", "DO", "open work stands in docs/roadmap.md"),
    ("FIX", "ME", "open work stands in docs/roadmap.md"),
    ("/wo", "rk/main", "no path of one machine"),
    ("/wo", "rk/shared", "no path of one machine"),
    ("/tmp/", "briefs", "no path of one machine"),
    ("/tmp/", "h-", "no path of one machine"),
    ("/ro", "ot/.", "no path of one machine"),
    ("crates", ".io/", "the registry is the user's choice"),
    ("pypi", ".org", "the registry is the user's choice"),
    ("npmjs", ".org", "the registry is the user's choice"),
];

/// Endings of files that other programs write: their hosts and words are not ours.
const GENERATED: [&str; 3] = [".lock", "package-lock.json", ".svg"];

/// Checks names, first lines and words of all files.
pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.has_suffix(".rs") {
            findings.extend(rust_findings(file));
        }
        if !GENERATED.iter().any(|suffix| file.has_suffix(suffix)) {
            findings.extend(word_findings(file));
        }
    }
    findings
}

fn rust_findings(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |message: String, mend| {
        findings.push(Finding { file: file.path.clone(), line: 1, message, mend });
    };
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    if name == "mod.rs" {
        report(
            "`mod.rs` says nothing about itself".into(),
            "name it `FOLDER.rs`, beside the folder",
        );
    }
    let stem = name.trim_end_matches(".rs");
    let folders = file.path.split('/').rev().skip(1);
    for part in folders.chain([stem]).filter(|part| EMPTY_NAMES.contains(part)) {
        report(format!("`{part}` does not say what it holds"), "name it after the noun inside");
    }
    if !file.text.starts_with("//!") {
        report("the file does not say what it is".into(), "begin with `//!`: what it is, what not");
    }
    findings
}

fn word_findings(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for (head, tail, why) in FORBIDDEN {
            let word = format!("{head}{tail}");
            if line.contains(&word) {
                findings.push(Finding {
                    file: file.path.clone(),
                    line: number,
                    message: format!("`{word}` does not belong here"),
                    mend: why,
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_are_checked() {
        let check = |path: &str, text: &str, expect: &[&str]| {
            let files = [SourceFile { path: path.into(), text: text.into() }];
            let found: Vec<String> =
                super::check(&files).into_iter().map(|finding| finding.message).collect();
            assert_eq!(found, expect, "{path}");
        };
        check("core/src/label.rs", "//! Labels.\n", &[]);
        check("core/src/label.rs", "use x;\n", &["the file does not say what it is"]);
        check("core/src/a/mod.rs", "//! A.\n", &["`mod.rs` says nothing about itself"]);
        check("core/src/util.rs", "//! A.\n", &["`util` does not say what it holds"]);
        check("core/src/common/a.rs", "//! A.\n", &["`common` does not say what it holds"]);
        let word = ["TO", "DO"].concat();
        check("a.md", &word, &[&format!("`{word}` does not belong here")]);
        check("Cargo.lock", &["crates", ".io/"].concat(), &[]);
    }
}
