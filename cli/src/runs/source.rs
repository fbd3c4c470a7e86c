//! A product that is built from outside: its repository is fetched, and a run works on a copy of
//! one commit.
//!
//! The copy lies in the folder of the state, since a run that goes on needs it. A run that has
//! succeeded needs it no more; should somebody go on from one of its steps, it is fetched again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::exit::Failure;

/// Commits that are fetched: the one that is built, and the one before it, which tells what
/// changed.
const DEPTH: &str = "--depth=2";

/// One commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository.
    pub url: String,
    /// The branch that was asked for, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit.
    pub commit: String,
}

/// Fetches what `reference` means in a repository, its default branch where it is absent, into a
/// new folder of the state.
pub fn fetch(state: &State, url: &str, reference: Option<&str>) -> Result<(GitSource, PathBuf)> {
    check(url)?;
    let branch = match reference {
        Some(name) => is_branch(url, name)?.then(|| name.to_owned()),
        None => Some(default_branch(url)?),
    };
    // A tag may have the name of a branch.
    let wanted = match &branch {
        Some(branch) => format!("refs/heads/{branch}"),
        None => reference.unwrap_or("HEAD").to_owned(),
    };
    let folder = state.folder.join("workspaces").join(uuid::Uuid::now_v7().simple().to_string());
    let commit = copy(url, &wanted, branch.as_deref(), &folder)?;
    Ok((GitSource { url: url.to_owned(), branch, commit }, folder))
}

impl GitSource {
    /// Makes sure that the copy is there.
    pub fn restore(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            return Ok(());
        }
        let commit = copy(&self.url, &self.commit, self.branch.as_deref(), folder)?;
        match commit == self.commit {
            true => Ok(()),
            false => Err(Failure::environment(format!(
                "`{}` no longer gives commit {}",
                self.url, self.commit
            ))
            .into()),
        }
    }
}

/// Refuses what is no address, and what would stand in journals though it is a secret.
fn check(url: &str) -> Result<()> {
    if url.is_empty() || url.starts_with('-') || url.contains(char::is_control) {
        return Err(Failure::input(format!("`{}` is no repository", url.escape_debug())).into());
    }
    let after = url.split_once("://").map_or("", |(_, after)| after);
    let authority = after.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    // The user of SSH is no secret; that of HTTP is a token more often than not.
    if user.is_some_and(|user| url.starts_with("http") || user.contains(':')) {
        return Err(Failure::input("the URL of the repository holds a user or password")
            .hint("leave them to Git: `git config credential.helper` says who knows them")
            .into());
    }
    Ok(())
}

/// A copy of one commit in a new folder, whole or not at all. Says which commit it is.
fn copy(url: &str, wanted: &str, branch: Option<&str>, folder: &Path) -> Result<String> {
    let parent = folder.parent().context("the folder of the state has no parent")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot make `{}`", parent.display()))?;
    let part = folder.with_extension("part");
    discard(&part)?;
    let commit = fill(url, wanted, branch, &part);
    if commit.is_err() {
        discard(&part)?;
        return commit;
    }
    std::fs::rename(&part, folder)
        .with_context(|| format!("cannot make `{}`", folder.display()))?;
    commit
}

/// Removes a copy, if it is there.
pub fn discard(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove `{}`", folder.display())),
    }
}

fn fill(url: &str, wanted: &str, branch: Option<&str>, folder: &Path) -> Result<String> {
    let at = |arguments: &[&str]| git(Some(folder), arguments, url);
    git(None, &["init", "--quiet", &folder.to_string_lossy()], url)?;
    at(&["remote", "add", "origin", "--", url])?;
    // A server may refuse a bare commit; then all branches are fetched, which have it.
    let fetched = at(&["fetch", "--quiet", DEPTH, "--no-tags", "origin", wanted]);
    let commit = match fetched {
        Ok(_) => at(&["rev-parse", "FETCH_HEAD^{commit}"])?,
        Err(error) if is_commit(wanted) => {
            at(&["fetch", "--quiet", "--no-tags", "origin"]).map_err(|_| error)?;
            at(&["rev-parse", "--verify", &format!("{wanted}^{{commit}}")])?
        }
        Err(error) => return Err(error),
    };
    match branch {
        Some(branch) => at(&["checkout", "--quiet", "-B", branch, &commit])?,
        None => at(&["checkout", "--quiet", "--detach", &commit])?,
    };
    for tag in tags_of(url, &commit)? {
        at(&["update-ref", &tag, &commit])?;
    }
    Ok(commit)
}

/// The tags of a commit, as full names. All tags of a repository would bring all their commits.
fn tags_of(url: &str, commit: &str) -> Result<Vec<String>> {
    let listed = git(None, &["ls-remote", "--tags", "--", url], url)?;
    let of_it = listed.lines().filter_map(|line| {
        let (id, name) = line.split_once('\t')?;
        // What an annotated tag is about stands beside it, under this name.
        let name = name.strip_suffix("^{}").unwrap_or(name);
        (id == commit).then(|| name.to_owned())
    });
    Ok(of_it.collect())
}

fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_branch(url: &str, name: &str) -> Result<bool> {
    // What means something else to Git than a name, such as `from:to`.
    let is_odd = |c: char| c.is_control() || " :+*?[\\^~".contains(c);
    if name.is_empty() || name.starts_with('-') || name.contains(is_odd) {
        return Err(Failure::input(format!("`{}` names no commit", name.escape_debug())).into());
    }
    let found =
        git(None, &["ls-remote", "--heads", "--", url, &format!("refs/heads/{name}")], url)?;
    Ok(!found.is_empty())
}

fn default_branch(url: &str) -> Result<String> {
    let told = git(None, &["ls-remote", "--symref", "--", url, "HEAD"], url)?;
    let branch = told.lines().find_map(|line| {
        let (name, of) = line.strip_prefix("ref: refs/heads/")?.split_once('\t')?;
        (of == "HEAD").then(|| name.to_owned())
    });
    Ok(branch.ok_or_else(|| {
        Failure::input(format!("`{url}` does not say which branch is meant"))
            .hint("name one with `--ref`")
    })?)
}

/// What Git prints; its own error if it fails.
fn git(folder: Option<&Path>, arguments: &[&str], url: &str) -> Result<String> {
    let mut command = Command::new("git");
    if let Some(folder) = folder {
        command.arg("-C").arg(folder);
    }
    // Programs that a URL names are not run, and nobody is asked for a password.
    command
        .args(["-c", "protocol.ext.allow=never", "-c", "advice.detachedHead=false"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(std::process::Stdio::null());
    let output = command.output().context("cannot run `git`")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let why = told.lines().find_map(|line| line.strip_prefix("fatal: ")).unwrap_or("it failed");
    Err(Failure::environment(format!("cannot get `{url}`: {why}")).into())
}
