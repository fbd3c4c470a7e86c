//! Libraries do not print, and read neither environment nor arguments: that is for cli.
//!
//! Only code counts: comments, strings and test modules may say what they like.

use super::Finding;
use super::rust;
use super::tree::SourceFile;

/// Folders whose `src/` is not a library.
const PROGRAMS: [&str; 4] = ["cli/", "xtask/", "bench/", "tests/"];

/// Calls, the reason against them, and what to do instead.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("println!", "a library does not print", "return the text, or use `tracing`"),
    ("print!", "a library does not print", "return the text, or use `tracing`"),
    ("env::var", "a library does not read the environment", "take an option, which cli fills"),
    ("env::args", "a library does not read arguments", "take an option, which cli fills"),
];

/// Checks the library code of all crates.
pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let library = |file: &&SourceFile| {
        let program = PROGRAMS.iter().any(|folder| file.path.starts_with(folder))
            || file.path.ends_with("/main.rs")
            || file.path.contains("/src/bin/");
        file.has_suffix(".rs") && file.path.contains("/src/") && !program
    };
    files.iter().filter(library).flat_map(file_findings).collect()
}

fn file_findings(file: &SourceFile) -> Vec<Finding> {
    let masked = rust::mask(&file.text);
    let mut findings = Vec::new();
    for (index, line) in masked.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let found = FORBIDDEN.iter().find(|(call, ..)| line.contains(call));
        if let Some((call, why, mend)) = found {
            let message = format!("`{call}`: {why}");
            findings.push(Finding { file: file.path.clone(), line: index + 1, message, mend });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_and_programs_need_not_be() {
        let check = |path: &str, text: &str, expect: &[usize]| {
            let files = [SourceFile { path: path.into(), text: text.into() }];
            let lines: Vec<usize> = super::check(&files).iter().map(|f| f.line).collect();
            assert_eq!(lines, expect, "{path}: {text}");
        };
        check("core/src/a.rs", "//! A.\nfn a() { println!(\"x\") }\n", &[2]);
        check("core/src/a.rs", "// println!()\nfn a() { b(\"println!\") }\n", &[]);
        check("cas/src/a.rs", "let a = std::env::var_os(\"X\");", &[1]);
        check("cas/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { println!() } }", &[]);
        check("cli/src/a.rs", "println!()", &[]);
        check("cas/tests/a.rs", "println!()", &[]);
    }
}
