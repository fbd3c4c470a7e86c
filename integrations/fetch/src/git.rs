//! Commits of Git repositories: places `git+URL#COMMIT`, each one file, `git archive` of a commit.
//!
//! A commit is named by SHA-1, which does not decide here: the file has a pinned SHA-256 of its
//! own. It holds the commit's files alone, without history, submodules, and what `.gitattributes`
//! marks `export-ignore`. The git client does the work, with the user's own configuration.

use std::fmt;
use std::fs::File;
use std::process::Command;

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_executor::runner::Cancel;
use reqwest::Url;

use crate::client::{Call, Scratch};
use crate::intake::Intake;
use crate::request::Download;
use crate::{FetchError, FetchOptions};

/// What such places begin with.
pub(crate) const SCHEME: &str = "git+";
/// The protocols that are spoken; others of Git's run programs.
const PROTOCOLS: [&str; 4] = ["file", "http", "https", "ssh"];
/// A commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    remote: Url,
    /// 40 or 64 hex digits.
    id: String,
}

impl Commit {
    /// Reads `URL#COMMIT`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (remote, id) = text.split_once('#')?;
        let remote = Url::parse(remote).ok()?;
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let named = matches!(id.len(), 40 | 64) && id.chars().all(digit);
        let spoken = PROTOCOLS.contains(&remote.scheme()) && remote.password().is_none();
        (named && spoken).then(|| Self { remote, id: id.to_owned() })
    }

    /// Fetches the commit and makes its archive.
    pub(crate) fn take(
        &self,
        download: &Download,
        options: &FetchOptions,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Digest, FetchError> {
        if options.offline && self.remote.scheme() != "file" {
            return Err(FetchError::Offline { url: self.to_string() });
        }
        let scratch = Scratch::new(store)?;
        let place = self.to_string();
        let call = Call { client: "git", what: &place };
        let git = |arguments: &[&str]| {
            let mut command = Command::new(&options.git);
            command
                .current_dir(scratch.path())
                .args(["-c", "transfer.fsckObjects=true", "-c", "tar.umask=0022"])
                .args(arguments)
                .env("GIT_TERMINAL_PROMPT", "0")
                .env("GIT_ALLOW_PROTOCOL", PROTOCOLS.join(":"))
                .env("GIT_DIR", scratch.path().join("repository"));
            command
        };
        call.run(git(&["init", "--quiet", "--bare", "--template="]).env("LC_ALL", "C"), cancel)?;
        let remote = self.remote.as_str();
        let one = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", remote, &self.id];
        if let Err(first) = call.run(&mut git(&one), cancel) {
            if matches!(first, FetchError::Cancelled | FetchError::ClientProgram { .. }) {
                return Err(first);
            }
            // Some servers hand out branches and tags only.
            let all = ["fetch", "--quiet", "--", remote, "+refs/*:refs/all/*"];
            call.run(&mut git(&all), cancel).map_err(|_| first)?;
        }
        let archive = scratch.path().join("archive");
        let failure = |source| FetchError::ClientFile { path: archive.clone(), source };
        let out = File::create_new(&archive).map_err(failure)?;
        call.run(git(&["archive", "--format=tar", &self.id]).stdout(out), cancel)?;
        let intake = Intake::new(&download.pin, download.bytes_max, &place, store)?;
        intake.take(File::open(&archive).map_err(failure)?, &archive, cancel)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}#{}", self.remote, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_of_known_protocols_are_places() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let check = |text: &str, good: bool| {
            assert_eq!(Commit::parse(text).is_some(), good, "{text}");
        };
        check(&format!("https://h.example/a.git#{id}"), true);
        check(&format!("file:///srv/a#{id}"), true);
        check(&format!("ssh://git@h.example/a.git#{id}"), true);
        check("https://h.example/a.git#main", false);
        check("https://h.example/a.git", false);
        check(&format!("https://h.example/a.git#{}", id.to_uppercase()), false);
        check(&format!("https://me:pw@h.example/a.git#{id}"), false);
        check(&format!("ext::sh -c evil#{id}"), false);
        check(&format!("--upload-pack=evil#{id}"), false);
        check(&format!("/srv/a#{id}"), false);
    }
}
