//! Links in the documentation, and pages that code names, must lead somewhere.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use super::tree::SourceFile;

const MEND: &str = "write the page, or name the one that exists";

/// Pages that a command writes; a checkout may lack them.
const GENERATED: [&str; 1] = ["docs/performance.md"];

/// Checks links of Markdown pages, `docs/….md` in all other files, and paths that comments and
/// pages name from the root on: `core/src/key.rs`.
pub(super) fn check(root: &Path, files: &[SourceFile]) -> Vec<Finding> {
    let tops: BTreeSet<&str> =
        files.iter().filter_map(|file| Some(file.path.split_once('/')?.0)).collect();
    let mut findings = Vec::new();
    for file in files {
        let mut found = if file.has_suffix(".md") { targets(file) } else { mentions(file) };
        found.extend(paths(file, &tops));
        for (line, target) in found {
            if let Some(message) = problem(root, files, &file.path, &target) {
                findings.push(Finding { file: file.path.clone(), line, message, mend: MEND });
            }
        }
    }
    findings
}

/// Paths of source files below one of the folders `tops`: in comments of Rust, in code of pages.
fn paths(file: &SourceFile, tops: &BTreeSet<&str>) -> Vec<(usize, String)> {
    let (rust, page) = (file.has_suffix(".rs"), file.has_suffix(".md"));
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        let text: String = match (rust, page) {
            (true, _) if line.trim_start().starts_with("//") => line.to_owned(),
            (_, true) => line.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(" "),
            _ => continue,
        };
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c)) {
            let path = word.trim_end_matches('.');
            let below = path.split_once('/').is_some_and(|(top, _)| tops.contains(top));
            if below && [".rs", ".star"].iter().any(|suffix| path.ends_with(suffix)) {
                found.push((number, format!("/{path}")));
            }
        }
    }
    found
}

/// The targets of `[text](target)` outside code.
fn targets(file: &SourceFile) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece stands between back quotes.
        let prose: String = line.split('`').step_by(2).collect();
        for piece in prose.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// Pages that comments and messages name: `docs/design/store.md`.
fn mentions(file: &SourceFile) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        for (at, _) in line.match_indices("docs/") {
            let before = line.get(..at).and_then(|head| head.chars().next_back());
            if before.is_some_and(|c| c.is_alphanumeric() || "/.-_".contains(c)) {
                continue;
            }
            let rest = line.get(at..).unwrap_or_default();
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/.-_".contains(c));
            let page = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            let page = page.trim_end_matches(['.', '-']);
            if page.ends_with(".md") {
                found.push((number, format!("/{page}")));
            }
        }
    }
    found
}

/// What is wrong with a target; an absolute one starts at the root of the repository.
fn problem(root: &Path, files: &[SourceFile], from: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let page = if path.is_empty() { from.to_owned() } else { resolve(from, path)? };
    if !root.join(&page).exists() && !GENERATED.contains(&page.as_str()) {
        return Some(format!("`{target}` does not exist"));
    }
    let anchor = anchor?;
    let text = files.iter().find(|file| file.path == page).map(|file| file.text.as_str())?;
    let known = anchors(text).contains(anchor);
    (!known).then(|| format!("`{page}` has no heading `#{anchor}`"))
}

/// The path below the root that `path` means in the file `from`.
fn resolve(from: &str, path: &str) -> Option<String> {
    if let Some(absolute) = path.strip_prefix('/') {
        return Some(absolute.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchors of the headings of a page, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_somewhere() {
        let folder = std::env::temp_dir().join(format!("tidy-links-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("docs")).expect("a temp folder");
        let page = "# One title: `x`\n";
        std::fs::write(folder.join("docs/STYLE.md"), page).expect("a temp file");
        let check = |path: &str, text: &str, expect: &[&str]| {
            let files = [
                SourceFile { path: "docs/STYLE.md".into(), text: page.into() },
                SourceFile { path: path.into(), text: text.into() },
            ];
            let found: Vec<String> =
                super::check(&folder, &files).into_iter().map(|finding| finding.message).collect();
            assert_eq!(found, expect, "{text}");
        };
        check(
            "docs/glossary.md",
            "[a](STYLE.md) [a](../docs/STYLE.md#one-title-x) [w](https://x.y/z)",
            &[],
        );
        check("docs/glossary.md", "[a](c.md)", &["`c.md` does not exist"]);
        check("docs/glossary.md", "`[a](c.md)`\n```\n[a](c.md)\n```\n", &[]);
        check("docs/glossary.md", "[a](STYLE.md#two)", &["`docs/STYLE.md` has no heading `#two`"]);
        check("x.rs", "//! See docs/STYLE.md.", &[]);
        // Put together, so that this file names no page that does not exist.
        let page = ["docs", "/c.md"].concat();
        let message = format!("`/{page}` does not exist");
        check("x.rs", &format!("//! See {page}."), &[&message]);
        // A path below a folder that exists, in comments and pages but not in code.
        check("docs/x.rs", "// as docs/key.rs does", &["`/docs/key.rs` does not exist"]);
        check("docs/x.rs", "let a = \"docs/key.rs\"; // or x/key.rs", &[]);
        check("docs/glossary.md", "see `docs/key.rs`", &["`/docs/key.rs` does not exist"]);
        std::fs::remove_dir_all(&folder).expect("the temp folder goes away");
    }
}
