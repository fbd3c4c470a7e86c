//! Labels and the patterns that name several of them.
//!
//! `//pkg:name` is a target of this workspace, `@repo//pkg:name` one of another repository;
//! `//pkg` is short for `//pkg:<last segment of pkg>`, `@repo` for `@repo//:repo`, `:name` is
//! relative to a package.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The full name of a target or of a source file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The repository, empty for the main one.
    pub repo: Arc<str>,
    /// The package: path of its folder below the repository's root, empty for the root.
    pub package: Arc<str>,
    /// The name inside the package; may hold `/`.
    pub name: Arc<str>,
}

/// Why a text is no label or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {why}")]
pub struct LabelError {
    /// The offending text, escaped.
    pub text: String,
    /// `label` or `target pattern`.
    pub what: &'static str,
    /// The reason.
    pub why: &'static str,
}

fn label_error(text: &str, why: &'static str) -> LabelError {
    LabelError { text: text.escape_default().to_string(), what: "label", why }
}

/// The parts of a label where they stand.
#[derive(Clone, Copy)]
struct Parts<'t> {
    repo: &'t str,
    package: &'t str,
    name: &'t str,
}

impl<'t> Parts<'t> {
    /// Splits a text as it stands in a build file of package `package` of `repo`.
    fn split(text: &'t str, repo: &'t str, package: &'t str) -> Result<Self, &'static str> {
        let (repo, rest) = match text.strip_prefix('@') {
            Some(rest) => match rest.split_once("//") {
                Some(parts) => parts,
                // `@repo` is short for `@repo//:repo`.
                None => return Ok(Self { repo: rest, package: "", name: rest }),
            },
            None => match text.strip_prefix("//") {
                Some(rest) => (repo, rest),
                None => {
                    let name = text.strip_prefix(':').unwrap_or(text);
                    if name.contains(':') {
                        return Err("a label with a package starts with `//`");
                    }
                    return Ok(Self { repo, package, name });
                }
            },
        };
        let (package, name) = match rest.split_once(':') {
            Some((package, name)) => (package, name),
            None => (rest, rest.rsplit('/').next().unwrap_or(rest)),
        };
        Ok(Self { repo, package, name })
    }

    fn checked(self) -> Result<Self, &'static str> {
        check_repo(self.repo).and(check_package(self.package)).and(check_name(self.name))?;
        Ok(self)
    }
}

impl Label {
    /// Builds a label from checked parts.
    pub fn new(repo: &str, package: &str, name: &str) -> Result<Self, LabelError> {
        let text = || format!("@{repo}//{package}:{name}");
        check_repo(repo).and(check_package(package)).and(check_name(name)).map_err(|why| {
            LabelError { text: text().escape_default().to_string(), what: "label", why }
        })?;
        Ok(Self { repo: repo.into(), package: package.into(), name: name.into() })
    }

    /// The label of a name in package `package` of `repo`, which it shares.
    pub fn named(repo: &Arc<str>, package: &Arc<str>, name: &str) -> Result<Self, LabelError> {
        Self::sharing(Parts { repo, package, name }, repo, package)
            .map_err(|why| label_error(name, why))
    }

    /// Parses `text` as it stands in a build file of package `package` of `repo`, whose names the
    /// label shares where they are its own.
    pub fn parse_in(text: &str, repo: &Arc<str>, package: &Arc<str>) -> Result<Self, LabelError> {
        Parts::split(text, repo, package)
            .and_then(|parts| Self::sharing(parts, repo, package))
            .map_err(|why| label_error(text, why))
    }

    /// Parses `text` as it stands in a build file of package `package` of `repo`.
    pub fn parse(text: &str, repo: &str, package: &str) -> Result<Self, LabelError> {
        Parts::split(text, repo, package)
            .and_then(|parts| {
                let Parts { repo, package, name } = parts.checked()?;
                Ok(Self { repo: repo.into(), package: package.into(), name: name.into() })
            })
            .map_err(|why| label_error(text, why))
    }

    fn sharing(
        parts: Parts<'_>,
        repo: &Arc<str>,
        package: &Arc<str>,
    ) -> Result<Self, &'static str> {
        let shared =
            |text: &str, own: &Arc<str>| if text == &**own { own.clone() } else { text.into() };
        let parts = parts.checked()?;
        Ok(Self {
            repo: shared(parts.repo, repo),
            package: shared(parts.package, package),
            name: parts.name.into(),
        })
    }

    /// The folder of the package in outputs: `pkg`, or `external/repo/pkg` for other repositories.
    pub fn package_dir(&self) -> String {
        package_dir(&self.repo, &self.package)
    }

    /// Whether the label lies in the main repository.
    pub fn is_main(&self) -> bool {
        self.repo.is_empty()
    }
}

/// The execution path prefix of a package: see [`Label::package_dir`].
pub fn package_dir(repo: &str, package: &str) -> String {
    match (repo.is_empty(), package.is_empty()) {
        (true, _) => package.to_owned(),
        (false, true) => format!("external/{repo}"),
        (false, false) => format!("external/{repo}/{package}"),
    }
}

fn check_repo(repo: &str) -> Result<(), &'static str> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if repo.chars().all(ok) { Ok(()) } else { Err("a repository name has an odd character") }
}

fn check_package(package: &str) -> Result<(), &'static str> {
    if package.is_empty() {
        return Ok(());
    }
    if package.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err("a package is a normal path without leading or trailing `/`");
    }
    let odd = |c: char| c.is_control() || matches!(c, ':' | '\\' | '*' | '"' | '\'');
    if package.contains(odd) {
        return Err("a package name has an odd character");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the target name is empty");
    }
    if name.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err("a target name is a normal path without leading or trailing `/`");
    }
    if name.contains(|c: char| c.is_control() || matches!(c, ':' | '\\')) {
        return Err("a target name has an odd character");
    }
    Ok(())
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.repo.is_empty() {
            write!(f, "@{}", self.repo)?;
        }
        write!(f, "//{}:{}", self.package, self.name)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text, "", "").map_err(serde::de::Error::custom)
    }
}

/// What a command line names: one target, the targets of a package, or those below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPattern {
    /// `//pkg:name`, `//pkg`, `:name`.
    Single(Label),
    /// `//pkg:all` or `//pkg:*`: every target of one package.
    Package {
        /// The repository, empty for the main one.
        repo: String,
        /// The package.
        package: String,
    },
    /// `//pkg/...` or `//...`: every target of every package at or below a folder.
    Recursive {
        /// The repository, empty for the main one.
        repo: String,
        /// The folder, empty for the root.
        package: String,
    },
}

impl TargetPattern {
    /// Parses a pattern; relative ones start at the package `package` of the main repository.
    pub fn parse(text: &str, package: &str) -> Result<Self, LabelError> {
        let error = |why| LabelError {
            text: text.escape_default().to_string(),
            what: "target pattern",
            why,
        };
        let (repo, rest, absolute) = match text.strip_prefix('@') {
            Some(rest) => match rest.split_once("//") {
                Some((repo, rest)) => (repo, rest, true),
                None => {
                    let label = Label::parse(text, "", "").map_err(|e| error(e.why))?;
                    return Ok(Self::Single(label));
                }
            },
            None => match text.strip_prefix("//") {
                Some(rest) => ("", rest, true),
                None => ("", text, false),
            },
        };
        let join = |tail: &str| match (absolute || package.is_empty(), tail.is_empty()) {
            (true, _) => tail.to_owned(),
            (false, true) => package.to_owned(),
            (false, false) => format!("{package}/{tail}"),
        };
        if rest == "..." || rest.ends_with("/...") {
            let folder = join(rest.trim_end_matches("...").trim_end_matches('/'));
            check_repo(repo).and(check_package(&folder)).map_err(error)?;
            return Ok(Self::Recursive { repo: repo.to_owned(), package: folder });
        }
        if let Some((folder, "all" | "*")) = rest.split_once(':') {
            let folder = join(folder);
            check_repo(repo).and(check_package(&folder)).map_err(error)?;
            return Ok(Self::Package { repo: repo.to_owned(), package: folder });
        }
        let label = match (absolute, rest.split_once(':')) {
            (true, _) => Label::parse(text, "", "").map_err(|e| error(e.why))?,
            (false, Some((folder, name))) => {
                Label::new("", &join(folder), name).map_err(|e| error(e.why))?
            }
            (false, None) if rest.contains('/') => {
                Label::parse(&format!("//{}", join(rest)), "", "").map_err(|e| error(e.why))?
            }
            (false, None) => Label::new("", package, rest).map_err(|e| error(e.why))?,
        };
        Ok(Self::Single(label))
    }

    /// Whether `label` is one of the targets that the pattern names.
    pub fn matches(&self, label: &Label) -> bool {
        match self {
            Self::Single(single) => single == label,
            Self::Package { repo, package } => *label.repo == **repo && *label.package == **package,
            Self::Recursive { repo, package } => {
                *label.repo == **repo
                    && (package.is_empty()
                        || label
                            .package
                            .strip_prefix(package.as_str())
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            }
        }
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |repo: &str| if repo.is_empty() { String::new() } else { format!("@{repo}") };
        match self {
            Self::Single(label) => label.fmt(f),
            Self::Package { repo, package } => write!(f, "{}//{package}:all", at(repo)),
            Self::Recursive { repo, package } if package.is_empty() => {
                write!(f, "{}//...", at(repo))
            }
            Self::Recursive { repo, package } => write!(f, "{}//{package}/...", at(repo)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_parse_and_print() {
        let check = |text: &str, expect: &str| {
            let label = Label::parse(text, "", "here").expect(text);
            assert_eq!(label.to_string(), expect, "{text}");
        };
        check("//a/b:c", "//a/b:c");
        check("//a/b", "//a/b:b");
        check(":x", "//here:x");
        check("x/y.c", "//here:x/y.c");
        check("@maestro//rules:cc.star", "@maestro//rules:cc.star");
        check("@r", "@r//:r");
        for bad in ["", "//", "//a:", "a:b", "//a//b", "//a:../b", "@", "//a/:b", "//a:b\n"] {
            assert!(Label::parse(bad, "", "here").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_match() {
        let label = Label::parse("//a/b:c", "", "").expect("valid");
        for yes in ["//a/b:c", "//a/b:all", "//a/b:*", "//a/...", "//...", "//a/b/..."] {
            assert!(TargetPattern::parse(yes, "").expect(yes).matches(&label), "{yes}");
        }
        for no in ["//a:c", "//a:all", "//a/bc/...", "@x//...", "//a/b:d"] {
            assert!(!TargetPattern::parse(no, "").expect(no).matches(&label), "{no}");
        }
        let relative = TargetPattern::parse("b:c", "a").expect("valid");
        assert!(relative.matches(&label));
        assert_eq!(TargetPattern::parse("...", "a").expect("valid").to_string(), "//a/...");
    }
}
