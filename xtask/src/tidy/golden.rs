//! Golden cases are whole: a folder `tests/golden/AREA/CASE` that a person can run by hand.
//!
//! An area that has a `maestro.star` of its own is a workspace, not a set of cases.

use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// Files without which a case cannot be run or judged.
const FILES: [&str; 3] = ["cmd", "stdout", "stderr"];
/// What else may stand in a case: its inputs, the files it must make, its story.
const OTHERS: [&str; 3] = ["in", "out", "README.md"];

/// Checks the files of every case.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let golden = root.join("tests/golden");
    let mut findings = Vec::new();
    for area in names(&golden)? {
        let folder = golden.join(&area);
        if !folder.is_dir() || folder.join("maestro.star").exists() {
            continue;
        }
        for case in names(&folder)? {
            if folder.join(&case).is_dir() {
                let place = format!("tests/golden/{area}/{case}");
                findings.extend(case_findings(&place, &names(&folder.join(&case))?));
            }
        }
    }
    Ok(findings)
}

fn case_findings(place: &str, names: &[String]) -> Vec<Finding> {
    let finding =
        |message: String, mend| Finding { file: place.to_owned(), line: 1, message, mend };
    let missing = FILES.iter().filter(|file| !names.iter().any(|name| name == *file));
    let strange = names.iter().filter(|name| {
        let name = name.as_str();
        !FILES.contains(&name) && !OTHERS.contains(&name)
    });
    let missing = missing.map(|file| {
        finding(format!("the case has no `{file}`"), "write `cmd`, then run `cargo xtask bless`")
    });
    let strange = strange.map(|name| {
        finding(format!("`{name}` is no part of a case"), "inputs go to `in/`, results to `out/`")
    });
    missing.chain(strange).collect()
}

/// The names in a folder, sorted; none if it does not exist.
fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_their_files() {
        let check = |names: &[&str], expect: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found: Vec<String> =
                case_findings("x", &names).into_iter().map(|finding| finding.message).collect();
            assert_eq!(found, expect);
        };
        check(&["cmd", "in", "stderr", "stdout"], &[]);
        check(&["cmd", "stdout"], &["the case has no `stderr`"]);
        check(&["cmd", "stderr", "stdout", "x"], &["`x` is no part of a case"]);
    }
}
