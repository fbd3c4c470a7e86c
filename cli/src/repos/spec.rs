//! What `maestro.toml` says of other repositories, and the build file that each becomes.
//!
//! A repository is the tree that a rule of the library makes, so that downloads, archives and
//! patches behave here exactly as in build files. A repository that no digest pins has no rule:
//! it is refused before anything is asked from a network.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::PROJECT_FILE;
use crate::exit::Failure;

/// One `[repos.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RepoSpec {
    /// Where an archive is.
    pub url: Option<String>,
    /// Where an archive is, in order of preference.
    #[serde(default)]
    pub urls: Vec<String>,
    /// A Git repository, of which a commit is archived.
    pub git: Option<String>,
    /// The commit, in full.
    pub commit: Option<String>,
    /// The digest of the archive, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// The digest of the archive as `sha256-BASE64`.
    pub integrity: Option<String>,
    /// An archive that lies in the workspace, as a label of a file.
    pub archive: Option<String>,
    /// The format of the archive, where its first bytes do not tell.
    #[serde(rename = "type")]
    pub format: Option<String>,
    /// Folders at the front of every path that are left out.
    #[serde(alias = "strip_prefix")]
    pub strip_prefix: Option<String>,
    /// A folder of this machine, from the root of the workspace.
    pub path: Option<PathBuf>,
}

/// Where the content of a repository comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A folder.
    Folder(PathBuf),
    /// The tree that target `//:NAME` of this build file makes.
    Rule(String),
}

impl RepoSpec {
    /// Checks the declaration of repository `name`.
    pub fn origin(&self, name: &str) -> Result<Origin, Failure> {
        let Self { url, urls, git, archive, path, sha256, integrity, .. } = self;
        let remote = url.is_some() || !urls.is_empty();
        let kinds = [path.is_some(), archive.is_some(), git.is_some(), remote];
        if kinds.iter().filter(|given| **given).count() != 1 {
            return Err(bad(name, "says none or several of `url`, `git`, `archive` and `path`")
                .hint("a repository comes from one place; mirrors of an archive go into `urls`"));
        }
        if let Some(path) = path {
            return match self.archive_keys().first() {
                None => Ok(Origin::Folder(path.clone())),
                Some(key) => Err(bad(name, &format!("has `path` and `{key}`"))
                    .hint(format!("a folder is used as it is; remove `{key}`"))),
            };
        }
        if let Some(label) = archive {
            let Some(file) = self.archive_file() else {
                return Err(bad(name, &format!("has an `archive` `{label}` that is no label"))
                    .hint("write `//folder:file`, a file of this workspace"));
            };
            if sha256.is_some() || integrity.is_some() {
                return Err(bad(name, "pins an archive of the workspace by digest")
                    .hint("remove the digest: the file is a source like any other"));
            }
            return Ok(Origin::Rule(self.rule("local_archive", name, "src", &text(&file))));
        }
        if sha256.is_none() && integrity.is_none() {
            return Err(bad(name, "is not pinned: it has neither `sha256` nor `integrity`").hint(
                format!(
                    "`maestro repo pin {name}` downloads it once and writes its digest into \
                     `{PROJECT_FILE}`"
                ),
            ));
        }
        let urls: Vec<String> = self.urls(name)?.iter().map(|url| text(url)).collect();
        let urls = format!("[{}]", urls.join(", "));
        Ok(Origin::Rule(self.rule("http_archive", name, "urls", &urls)))
    }

    /// The file of the workspace that is the archive, where there is one.
    pub fn archive_file(&self) -> Option<String> {
        let rest = self.archive.as_ref()?.strip_prefix("//")?;
        let file = match rest.split_once(':') {
            Some(("", file)) => file.to_owned(),
            Some((folder, file)) => format!("{folder}/{file}"),
            None => rest.to_owned(),
        };
        maestro_core::RelPath::new(&file).is_ok().then_some(file)
    }

    /// Where the archive is fetched from, in order of preference; none for what is not fetched.
    pub fn urls(&self, name: &str) -> Result<Vec<String>, Failure> {
        match (&self.git, &self.commit) {
            (Some(git), Some(commit)) => Ok(vec![format!("git+{git}#{commit}")]),
            (Some(_), None) => Err(bad(name, "has `git` without `commit`")
                .hint("name the commit in full: branches and tags move")),
            (None, Some(_)) => {
                Err(bad(name, "has `commit` without `git`").hint("say where the commit is"))
            }
            (None, None) => Ok(self.url.iter().chain(&self.urls).cloned().collect()),
        }
    }

    /// Where it comes from, for people.
    pub fn place(&self) -> String {
        let Self { url, urls, git, commit, archive, path, .. } = self;
        let path = path.as_ref().map(|path| path.display().to_string());
        let git = git.as_ref().map(|git| match commit {
            Some(commit) => format!("{git} at {commit}"),
            None => git.clone(),
        });
        let first =
            url.clone().or_else(|| urls.first().cloned()).or(git).or_else(|| archive.clone());
        first.or(path).unwrap_or_default()
    }

    /// The keys that only archives have, as far as they are given.
    fn archive_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("sha256", self.sha256.is_some()),
            ("integrity", self.integrity.is_some()),
            ("type", self.format.is_some()),
            ("strip-prefix", self.strip_prefix.is_some()),
            ("commit", self.commit.is_some()),
        ];
        keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }

    fn rule(&self, rule: &str, name: &str, place: &str, value: &str) -> String {
        let file = if rule == "local_archive" { "repositories" } else { "http" };
        let mut out = format!("load(\"@maestro//rules:{file}.star\", \"{rule}\")\n{rule}(\n");
        let mut line = |key: &str, value: &str| out.push_str(&format!("    {key} = {value},\n"));
        line("name", &text(name));
        line(place, value);
        let optional = [
            ("sha256", &self.sha256),
            ("integrity", &self.integrity),
            ("type", &self.format),
            ("strip_prefix", &self.strip_prefix),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                line(key, &text(value));
            }
        }
        out.push_str(")\n");
        out
    }
}

fn bad(name: &str, what: &str) -> Failure {
    Failure::input(format!("repository `@{name}` of `{PROJECT_FILE}` {what}"))
}

/// A text as Starlark writes it: JSON's escapes mean the same there.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> RepoSpec {
        toml::from_str(toml).expect("valid")
    }

    #[test]
    fn declarations_become_rules() {
        let spec = parse("url = \"https://h/a\\\"b\"\nsha256 = \"00\"\nstrip-prefix = \"a-1\"\n");
        let Ok(Origin::Rule(text)) = spec.origin("a") else { panic!("it is a rule") };
        assert_eq!(
            text,
            "load(\"@maestro//rules:http.star\", \"http_archive\")\nhttp_archive(\n    name = \"a\",\n    \
             urls = [\"https://h/a\\\"b\"],\n    sha256 = \"00\",\n    strip_prefix = \"a-1\",\n)\n"
        );
        let Ok(Origin::Rule(text)) = parse("archive = \"//x/y:z.tgz\"").origin("a") else {
            panic!("it is a rule")
        };
        assert!(text.contains("    src = \"x/y/z.tgz\",\n"), "{text}");
        let folder = parse("path = \"../b\"").origin("b").expect("valid");
        assert_eq!(folder, Origin::Folder("../b".into()));
    }

    #[test]
    fn wrong_declarations_say_what_is_wrong() {
        let check = |toml: &str, expect: &str| {
            let error = parse(toml).origin("r").expect_err(expect);
            assert_eq!(error.message, format!("repository `@r` of `maestro.toml` {expect}"));
            assert!(!error.hints.is_empty());
        };
        check("", "says none or several of `url`, `git`, `archive` and `path`");
        check(
            "url = \"https://h/a\"\npath = \"a\"",
            "says none or several of `url`, `git`, `archive` and `path`",
        );
        check("url = \"https://h/a\"", "is not pinned: it has neither `sha256` nor `integrity`");
        check("path = \"a\"\nsha256 = \"00\"", "has `path` and `sha256`");
        check("git = \"https://h/a\"\nsha256 = \"00\"", "has `git` without `commit`");
        check(
            "git = \"https://h/a\"\ncommit = \"00\"",
            "is not pinned: it has neither `sha256` nor `integrity`",
        );
        check("archive = \"x.tgz\"", "has an `archive` `x.tgz` that is no label");
        check("archive = \"//:../x\"", "has an `archive` `//:../x` that is no label");
        check("archive = \"//:x\"\nsha256 = \"00\"", "pins an archive of the workspace by digest");
    }
}
