//! Calls of git on a repository of their own, without a working tree.
//!
//! Nothing is ever checked out: commits are made from trees and blobs. So no file of a repository
//! is written anywhere, symbolic links lead nowhere, and neither hooks, filters nor attributes run.
//! Git sees the variables that it is handed and no configuration of user or system. A token goes
//! through the environment, which other users cannot read, and to the named server alone.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use maestro_core::run::Failure;
use maestro_executor::process_group::ProcessGroup;
use maestro_executor::step::Stop;
use reqwest::Url;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::DeliverOptions;
use crate::failures::{cancelled, excerpt, hinted, infrastructure, user};
use crate::inputs::{has_credentials, shown_url};
use crate::secrets::Secret;

/// Longest time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Longest output of one call that is read, in bytes.
const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest messages of one call that are kept, in bytes.
const MESSAGES_BYTES_MAX: u64 = 16 * 1024;
/// The protocols that are spoken; others of Git's run programs.
const PROTOCOLS: [&str; 4] = ["file", "http", "https", "ssh"];
/// Where the branch of the far side is kept.
pub(super) const TIP: &str = "refs/remotes/origin/tip";

/// A private repository with one branch of a remote one.
pub(super) struct Git {
    folder: TempDir,
    program: OsString,
    variables: Vec<(OsString, OsString)>,
    branch: String,
}

/// Why a call did not give what it should.
#[derive(Debug)]
pub(super) enum GitError {
    /// Git ended with a status other than 0.
    Failed(String),
    /// Git cannot be run, or did not end in time.
    Broken(String),
    /// The run was cancelled.
    Stopped,
}

impl GitError {
    /// The failure, where `what` did not succeed.
    pub(super) fn failure(self, what: &str) -> Failure {
        match self {
            Self::Failed(why) | Self::Broken(why) => infrastructure(format!("{what}: {why}")),
            Self::Stopped => cancelled(format!("{what}: the run was cancelled")),
        }
    }
}

impl Git {
    /// Makes the private repository. The remote one is not asked for anything yet.
    pub(super) async fn open(
        options: &DeliverOptions,
        repository: &str,
        branch: &str,
        auth: Option<&Secret>,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        check_branch(branch)?;
        let url = remote(repository, &options.folder)?;
        let folder = tempfile::Builder::new().prefix("git-").tempdir_in(&options.scratch).map_err(
            |error| {
                let folder = options.scratch.display();
                infrastructure(format!("cannot make a folder in `{folder}`: {error}"))
            },
        )?;
        let git = Self {
            variables: variables(options, &folder, &url, auth)?,
            folder,
            program: options.git.clone().into(),
            branch: branch.to_owned(),
        };
        let cannot = "cannot make a repository";
        let init = ["init", "--quiet", "--bare", "--template=", "--initial-branch=unused"];
        git.call(&init, stop).await.map_err(|error| error.failure(cannot))?;
        let set = ["config", "remote.origin.url", url.as_str()];
        git.call(&set, stop).await.map_err(|error| error.failure(cannot))?;
        Ok(git)
    }

    /// Brings the branch, its commits and trees; answers with its newest commit.
    pub(super) async fn fetch(&self, stop: &Stop) -> Result<String, GitError> {
        let spec = format!("+refs/heads/{}:{TIP}", self.branch);
        let fetch =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none"];
        self.call(&[&fetch[..], &["origin", &spec]].concat(), stop).await?;
        self.line(&["rev-parse", "--verify", "--quiet", TIP], stop).await
    }

    /// The refspec by which a commit becomes the newest of the branch.
    pub(super) fn to_branch(&self, commit: &str) -> String {
        format!("{commit}:refs/heads/{}", self.branch)
    }

    /// Pushes a refspec; refused if a branch has moved away from the commit's parent.
    pub(super) async fn push(&self, spec: &str, stop: &Stop) -> Result<(), GitError> {
        let push = ["push", "--quiet", "--no-verify", "--recurse-submodules=no", "origin", spec];
        self.call(&push, stop).await.map(drop)
    }

    /// Runs git; answers with its output.
    pub(super) async fn call(&self, args: &[&str], stop: &Stop) -> Result<Vec<u8>, GitError> {
        self.feed(args, &[], stop).await
    }

    /// Runs git; answers with its output as one line.
    pub(super) async fn line(&self, args: &[&str], stop: &Stop) -> Result<String, GitError> {
        let output = self.call(args, stop).await?;
        Ok(String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned())
    }

    /// Runs git with something to read.
    pub(super) async fn feed(
        &self,
        args: &[&str],
        input: &[u8],
        stop: &Stop,
    ) -> Result<Vec<u8>, GitError> {
        let broken = |error: std::io::Error| GitError::Broken(error.to_string());
        let mut child = Command::new(&self.program)
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let program = self.program.to_string_lossy();
                GitError::Broken(format!("`{program}` does not start: {error}"))
            })?;
        // Its transports end with it, however this function is left.
        let mut group = ProcessGroup::of(child.id());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) = pipes else {
            return Err(GitError::Broken("git has no pipes".into()));
        };
        let work = async {
            let write = async move {
                // Git that ends early says why.
                let _ = stdin.write_all(input).await;
            };
            let read = async {
                let mut output = Vec::new();
                stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut output).await.map(|_| output)
            };
            let listen = async {
                let mut kept = Vec::new();
                let _ = (&mut stderr).take(MESSAGES_BYTES_MAX).read_to_end(&mut kept).await;
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                kept
            };
            let ((), output, messages) = tokio::join!(write, read, listen);
            (output, messages, child.wait().await)
        };
        let (output, messages, status) = tokio::select! {
            ended = tokio::time::timeout(CALL_TIMEOUT, work) => ended.map_err(|_| {
                GitError::Broken(format!("git took longer than {} s", CALL_TIMEOUT.as_secs()))
            })?,
            () = stop.cancelled() => return Err(GitError::Stopped),
        };
        group.release();
        let output = output.map_err(broken)?;
        if output.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(GitError::Broken("git wrote more than is read".into()));
        }
        if !status.map_err(broken)?.success() {
            return Err(GitError::Failed(excerpt(&String::from_utf8_lossy(&messages))));
        }
        Ok(output)
    }
}

fn variables(
    options: &DeliverOptions,
    folder: &TempDir,
    url: &Url,
    auth: Option<&Secret>,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut variables = options.environment.clone();
    let mut set = |name: &str, value: OsString| variables.push((name.into(), value));
    set("GIT_DIR", folder.path().into());
    set("GIT_CONFIG_NOSYSTEM", "1".into());
    set("GIT_CONFIG_GLOBAL", "/dev/null".into());
    set("GIT_TERMINAL_PROMPT", "0".into());
    set("GIT_LITERAL_PATHSPECS", "1".into());
    set("GIT_NO_REPLACE_OBJECTS", "1".into());
    set("GIT_ALLOW_PROTOCOL", PROTOCOLS.join(":").into());
    set("LC_ALL", "C".into());
    for who in ["AUTHOR", "COMMITTER"] {
        set(&format!("GIT_{who}_NAME"), options.author.clone().into());
        set(&format!("GIT_{who}_EMAIL"), options.email.clone().into());
    }
    let mut config = vec![
        ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
        ("gc.auto".to_owned(), "0".to_owned()),
        ("maintenance.auto".to_owned(), "false".to_owned()),
        ("http.followRedirects".to_owned(), "false".to_owned()),
        ("transfer.fsckObjects".to_owned(), "true".to_owned()),
    ];
    if let Some(secret) = auth {
        config.push((format!("http.{url}.extraHeader"), authorization(url, secret)?));
    }
    set("GIT_CONFIG_COUNT", config.len().to_string().into());
    for (index, (name, value)) in config.into_iter().enumerate() {
        set(&format!("GIT_CONFIG_KEY_{index}"), name.into());
        set(&format!("GIT_CONFIG_VALUE_{index}"), value.into());
    }
    Ok(variables)
}

/// The header for a secret `USER:PASSWORD`, or a token alone, which hosts take as a password.
fn authorization(url: &Url, secret: &Secret) -> Result<String, Failure> {
    if !matches!(url.scheme(), "http" | "https") {
        let failure = user(format!("`auth` means nothing to `{}`", url.scheme()));
        return Err(hinted(failure, "`ssh` takes the keys of your agent; leave `auth` out"));
    }
    let secret = secret.reveal();
    let pair = match secret.contains(&b':') {
        true => secret.to_vec(),
        false => [b"x-access-token:", secret].concat(),
    };
    Ok(format!("Authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

/// The URL of a repository; paths are relative to `folder`.
pub(super) fn remote(text: &str, folder: &Path) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        let failure = user(format!("`repository` is `{}`, {why}", shown_url(text)));
        hinted(failure, "write `https://HOST/PATH`, `ssh://USER@HOST/PATH`, or a path: `./PATH`")
    };
    if ["/", "./", "../"].iter().any(|start| text.starts_with(start)) {
        let path = std::path::absolute(folder.join(text)).map_err(|_| wrong("which is no path"))?;
        return Url::from_file_path(path).map_err(|()| wrong("which is no path"));
    }
    let url = Url::parse(text).map_err(|_| wrong("which is no URL"))?;
    if !PROTOCOLS.contains(&url.scheme()) {
        return Err(wrong("whose protocol is not spoken"));
    }
    if has_credentials(&url) {
        return Err(hinted(
            user("`repository` holds credentials"),
            "name a secret instead, as `auth`: they would stand in the journal",
        ));
    }
    // ssh takes a host that begins with a hyphen for an option; git refuses it as well.
    if url.host_str().is_some_and(|host| host.starts_with('-')) || url.username().starts_with('-') {
        return Err(wrong("whose host looks like an option"));
    }
    Ok(url)
}

/// Whether a text is the name of a branch (git-check-ref-format), and no option either.
pub(super) fn check_branch(name: &str) -> Result<(), Failure> {
    let part =
        |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let good = name.len() <= 200
        && name.split('/').all(part)
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name != "@";
    good.then_some(()).ok_or_else(|| user(format!("`{}` is no branch", excerpt(name))))
}

/// Whether a text is the path of a file in a repository.
pub(super) fn check_path(path: &str) -> Result<(), Failure> {
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git");
    let good = path.len() <= 1024 && path.split('/').all(part) && !path.contains(char::is_control);
    good.then_some(())
        .ok_or_else(|| user(format!("`{}` is no path of a file in a repository", excerpt(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for good in ["main", "release/1.2", "a-b_c", "ünï"] {
            assert!(check_branch(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "--upload-pack=evil",
            "-x",
            "a/-b",
            "a..b",
            "a b",
            "a:b",
            "a\nb",
            "@",
            "a@{1}",
            "/a",
            "a/",
            "a.lock",
            ".a",
            "a^",
            "a~1",
            "a*",
            "a\\b",
            "a.",
        ] {
            assert!(check_branch(bad).is_err(), "{bad:?}");
        }
        for good in ["a.yaml", "-a", "apps/prod/values.yaml", "a b"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", ".git/config", "a/.GIT/x", "a\nb"]
        {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        for good in ["https://h.example/a.git", "file:///srv/a", "ssh://git@h.example/a", "/a"] {
            assert!(remote(good, Path::new("/w")).is_ok(), "{good}");
        }
        for bad in [
            "srv/a",
            "--upload-pack=evil",
            "ext::sh -c evil",
            "https://a:b@h/c",
            "https://t0ken@h/c",
            "ssh://git:t0ken@h/c",
            "t0ken@h/c",
            "ftp://a:t0ken@h/c",
            "https://a:t0/ken@h:x/c",
            "ssh://-oProxy/x",
            "ssh://-a@h/x",
            "git@h:a",
        ] {
            let failure = remote(bad, Path::new("/w")).expect_err(bad);
            assert!(!failure.message.contains("t0"), "{bad:?}: {}", failure.message);
        }
        let local = remote("./a b.git", Path::new("/w")).map(|url| url.to_string());
        assert_eq!(local, Ok("file:///w/a%20b.git".to_owned()));
    }
}
