//! The ledger of GitOps: commits on a branch of a Git repository, found by their trailers.
//!
//! A push is the compare-and-swap: the far side refuses it if the branch has moved, and then the
//! commit is made again on what is there. Whether a push that broke off was heard is read from the
//! branch, never guessed from messages.
//!
//! That it ended well is a ref of its own, `refs/maestro/KEY`: the branch stays free of commits
//! that change nothing. A rollout that neither moves traffic nor is watched has ended with its
//! commit.

use async_trait::async_trait;
use maestro_core::run::Failure;
use maestro_executor::step::Stop;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::edit;
use super::git::{Git, GitError, TIP};
use super::ledger::{Begun, Entry, Ledger, RolledBack, Trouble};
use crate::failures::{excerpt, hinted, infrastructure, user};

/// How often a push is tried while others push to the same branch.
const PUSHES_MAX: u32 = 20;
/// Largest file that is edited, in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most values that are set at once.
pub(super) const EDITS_MAX: usize = 64;

/// What is set in the repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    /// The file.
    pub(super) path: String,
    /// Paths of values and what they become; none where the whole file becomes the subject.
    pub(super) values: Vec<(String, Value)>,
}

/// A branch in which a rollout is noted.
pub(super) struct Repository<'a> {
    pub(super) git: Git,
    pub(super) key: &'a str,
    pub(super) env: &'a str,
    pub(super) subject: &'a str,
    pub(super) change: &'a Change,
    /// Whether more follows the commit: steps of traffic, or a watch.
    pub(super) goes_on: bool,
}

/// A commit that a trailer names.
struct Marked {
    commit: String,
    parent: String,
    key: String,
    reverts: String,
    former: String,
    reason: String,
}

/// What a commit is to say.
#[derive(Clone, Copy)]
enum Note<'a> {
    Begin { former: Option<&'a Value> },
    Revert { begun: &'a Begun, why: &'a str },
}

fn unclear(error: GitError) -> Trouble {
    Trouble::Unclear(error.failure("the repository cannot be reached"))
}

fn broken(error: GitError) -> Trouble {
    Trouble::Refused(error.failure("the commit cannot be made"))
}

/// What cannot be told of a rollout that began.
fn uncertain(trouble: Trouble) -> Trouble {
    Trouble::Unclear(trouble.failure())
}

#[async_trait]
impl Ledger for Repository<'_> {
    async fn look(&self, stop: &Stop) -> Result<Entry, Trouble> {
        self.git.fetch(stop).await.map_err(unclear)?;
        self.read(stop).await.map_err(unclear)
    }

    async fn begin(&self, former: Option<&Value>, stop: &Stop) -> Result<Begun, Trouble> {
        match self.publish(Note::Begin { former }, stop).await? {
            Entry::Begun(begun) | Entry::Finished(begun) => Ok(begun),
            _ => Err(Trouble::Unclear(infrastructure("it was rolled back meanwhile"))),
        }
    }

    async fn ready(&self, begun: Begun, stop: &Stop) -> Result<Begun, Trouble> {
        let (_, text) = self.file(TIP, stop).await.map_err(uncertain)?;
        if text.is_some() && self.changed(text.clone()).map_err(uncertain)? == text {
            return Ok(begun);
        }
        let path = excerpt(&self.change.path);
        let failure = user(format!("`{path}` no longer says what this rollout set"));
        let hint = "others changed it since; roll out again, or put it back";
        Err(Trouble::Unclear(hinted(failure, hint)))
    }

    async fn roll_back(
        &self,
        begun: &Begun,
        why: &str,
        stop: &Stop,
    ) -> Result<RolledBack, Trouble> {
        match self.publish(Note::Revert { begun, why }, stop).await? {
            Entry::RolledBack(rolled_back) => Ok(rolled_back),
            _ => Err(Trouble::Unclear(infrastructure("the revert is not on the branch"))),
        }
    }

    async fn finish(&self, begun: &Begun, stop: &Stop) -> Result<(), Trouble> {
        if !self.goes_on {
            return Ok(());
        }
        let spec = format!("{}:{}", begun.revision, self.mark());
        match self.git.push(&spec, stop).await {
            Ok(()) => Ok(()),
            // An answer that was lost is looked for.
            Err(error) if !self.is_marked(stop).await.map_err(unclear)? => {
                let failure = error.failure("it is deployed, and the repository does not note it");
                let hint = format!("the credentials have to be able to push `{}`", self.mark());
                Err(Trouble::Unclear(hinted(failure, hint)))
            }
            Err(_) => Ok(()),
        }
    }
}

impl Note<'_> {
    /// Whether the branch has it.
    fn is_in(self, entry: &Entry) -> bool {
        match self {
            Self::Begin { .. } => *entry != Entry::Absent,
            Self::Revert { .. } => matches!(entry, Entry::RolledBack(..)),
        }
    }
}

impl Repository<'_> {
    /// Puts a commit on the branch, wherever the branch is by then, unless it is there already;
    /// answers with what the branch says afterwards.
    async fn publish(&self, note: Note<'_>, stop: &Stop) -> Result<Entry, Trouble> {
        let mut refused: Option<(String, GitError)> = None;
        for _ in 0..PUSHES_MAX {
            let tip = self.git.fetch(stop).await.map_err(unclear)?;
            let entry = self.read(stop).await.map_err(unclear)?;
            if note.is_in(&entry) {
                return Ok(entry);
            }
            if let Some((_, error)) = refused.take_if(|(before, _)| *before == tip) {
                return Err(Trouble::Refused(denied(error)));
            }
            let tree = match note {
                Note::Begin { .. } => self.edited(&tip, stop).await?,
                Note::Revert { begun, .. } => self.reverted(&tip, &begun.revision, stop).await?,
            };
            let message = self.message(note);
            let make = ["commit-tree", &tree, "-p", &tip, "-F", "-"];
            let commit = self.git.feed(&make, message.as_bytes(), stop).await.map_err(broken)?;
            let commit = String::from_utf8_lossy(&commit).trim().to_owned();
            match self.git.push(&self.git.to_branch(&commit), stop).await {
                Err(GitError::Stopped) => return Err(unclear(GitError::Stopped)),
                Err(error) => refused = Some((tip, error)),
                // It is read back, by the next fetch.
                Ok(()) => refused = None,
            }
        }
        let why = format!("others pushed to the branch {PUSHES_MAX} times in between");
        Err(Trouble::Refused(infrastructure(why)))
    }

    fn message(&self, note: Note<'_>) -> String {
        let (subject, env) = (one_line(self.subject, 200), one_line(self.env, 80));
        let title = format!("Roll out {subject} to {env}");
        match note {
            Note::Begin { former } => {
                let former = former.map(|raw| format!("Maestro-Former: {raw}\n"));
                let former = former.unwrap_or_default();
                let key = self.key;
                format!("{title}\n\nMaestro-Env: {env}\n{former}Maestro-Key: {key}\n")
            }
            Note::Revert { begun, why } => format!(
                "Revert \"{title}\"\n\nThis reverts commit {}.\n\n\
                 Maestro-Env: {env}\nMaestro-Reason: {}\nMaestro-Reverts: {}\n",
                begun.revision,
                one_line(why, 1_000),
                self.key,
            ),
        }
    }

    async fn read(&self, stop: &Stop) -> Result<Entry, GitError> {
        let marked = self.marked(stop).await?;
        let Some(first) = marked.iter().find(|marked| marked.key == self.key) else {
            return Ok(Entry::Absent);
        };
        let begun = Begun {
            revision: first.commit.clone(),
            previous: first.parent.clone(),
            former: serde_json::from_str(&first.former).ok(),
        };
        let back = marked.iter().find(|marked| marked.reverts == self.key);
        Ok(match back {
            Some(back) => Entry::RolledBack(RolledBack {
                begun,
                why: back.reason.clone(),
                revision: back.commit.clone(),
            }),
            None if !self.goes_on || self.is_marked(stop).await? => Entry::Finished(begun),
            None => Entry::Begun(begun),
        })
    }

    /// The ref that says that the rollout ended well.
    fn mark(&self) -> String {
        // A key may hold colons, which end the name of a ref.
        format!("refs/maestro/{}", self.key.replace(':', "-"))
    }

    async fn is_marked(&self, stop: &Stop) -> Result<bool, GitError> {
        let mark = self.mark();
        let found = self.git.line(&["ls-remote", "--refs", "origin", &mark], stop).await?;
        Ok(found.split_whitespace().nth(1) == Some(&mark))
    }

    /// The commits of the branch whose messages name the key.
    async fn marked(&self, stop: &Stop) -> Result<Vec<Marked>, GitError> {
        let trailer =
            |name: &str| format!("%(trailers:key={name},valueonly,unfold,separator=%x20)");
        let names = ["Maestro-Key", "Maestro-Reverts", "Maestro-Former", "Maestro-Reason"];
        let fields: Vec<String> = names.iter().map(|name| trailer(name)).collect();
        let format = format!("--format=%H%x1f%P%x1f{}%x1e", fields.join("%x1f"));
        let grep = format!("--grep={}", self.key);
        let log = ["log", "--fixed-strings", &grep, "--max-count=100", &format, TIP, "--"];
        let output = self.git.call(&log, stop).await?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.split('\u{1e}').filter_map(read_marked).collect())
    }

    /// The tree of `tip` with the change in it.
    async fn edited(&self, tip: &str, stop: &Stop) -> Result<String, Trouble> {
        let path = &self.change.path;
        let (mode, text) = self.file(tip, stop).await?;
        let new = self.changed(text)?.ok_or_else(|| Trouble::Refused(self.no_file()))?;
        let hash = ["hash-object", "-w", "--stdin", "--no-filters"];
        let blob = self.git.feed(&hash, new.as_bytes(), stop).await.map_err(broken)?;
        let blob = String::from_utf8_lossy(&blob).trim().to_owned();
        let entry = format!("{mode},{blob},{path}");
        self.git.call(&["read-tree", tip], stop).await.map_err(broken)?;
        let update = ["update-index", "--add", "--cacheinfo", &entry];
        self.git.call(&update, stop).await.map_err(broken)?;
        self.git.line(&["write-tree", "--missing-ok"], stop).await.map_err(broken)
    }

    /// The text of the file with the change in it; `None` where there has to be a file and is none.
    fn changed(&self, text: Option<String>) -> Result<Option<String>, Trouble> {
        let Change { path, values } = self.change;
        if values.is_empty() {
            return Ok(Some(format!("{}\n", self.subject)));
        }
        let Some(mut text) = text else { return Ok(None) };
        for (name, value) in values {
            text = edit::set(&text, path, name, value).map_err(Trouble::Refused)?;
        }
        Ok(Some(text))
    }

    /// Mode and text of the file; text is `None` where there is no such file.
    async fn file(&self, tip: &str, stop: &Stop) -> Result<(String, Option<String>), Trouble> {
        let path = &self.change.path;
        let mut parents = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        let wrong = |what: &str| Trouble::Refused(user(format!("`{}` {what}", excerpt(path))));
        loop {
            let part = parents.next();
            let entry = self.entry(tip, part.unwrap_or(path), stop).await.map_err(broken)?;
            match (part, entry.as_ref().map(|(mode, size)| (mode.as_str(), *size))) {
                (Some(_), None | Some(("040000", _))) => {}
                (_, Some(("120000", _))) => return Err(wrong("is or passes a symbolic link")),
                (Some(_), Some(_)) => return Err(wrong("passes what is no folder")),
                (None, None) => return Ok(("100644".into(), None)),
                (None, Some((mode @ ("100644" | "100755"), size))) => {
                    if size > FILE_BYTES_MAX {
                        return Err(wrong("is too large to be edited"));
                    }
                    let show = ["cat-file", "blob", &format!("{tip}:{path}")];
                    let bytes = self.git.call(&show, stop).await.map_err(broken)?;
                    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))?;
                    return Ok((mode.to_owned(), Some(text)));
                }
                (None, Some(_)) => return Err(wrong("is no file")),
            }
        }
    }

    /// Mode and size of what a path names.
    async fn entry(
        &self,
        tip: &str,
        path: &str,
        stop: &Stop,
    ) -> Result<Option<(String, usize)>, GitError> {
        let line = self.git.line(&["ls-tree", "--long", tip, "--", path], stop).await?;
        let mut words = line.split_whitespace();
        let (mode, size) = (words.next(), words.nth(2));
        Ok(mode.zip(size).map(|(mode, size)| (mode.to_owned(), size.parse().unwrap_or(0))))
    }

    /// The tree of `tip` without what `commit` changed.
    async fn reverted(&self, tip: &str, commit: &str, stop: &Stop) -> Result<String, Trouble> {
        let tree = format!("{commit}^^{{tree}}");
        let back = ["commit-tree", &tree, "-p", commit, "-m", "back"];
        let back = self.git.line(&back, stop).await.map_err(broken)?;
        match self.git.line(&["merge-tree", "--write-tree", tip, &back], stop).await {
            Ok(tree) => Ok(tree),
            Err(GitError::Failed(why)) if why.is_empty() => {
                let path = excerpt(&self.change.path);
                let failure = user(format!("`{path}` was changed since, in the same place"));
                Err(Trouble::Refused(hinted(failure, format!("revert commit {commit} by hand"))))
            }
            Err(error) => Err(broken(error)),
        }
    }

    fn no_file(&self) -> Failure {
        let path = excerpt(&self.change.path);
        hinted(user(format!("the branch has no file `{path}`")), "commit it once, with any version")
    }
}

fn denied(error: GitError) -> Failure {
    let failure = error.failure("the repository does not take the commit");
    hinted(failure, "may the credentials push to the branch, and do its rules allow it?")
}

fn read_marked(record: &str) -> Option<Marked> {
    let mut fields = record.trim_start_matches('\n').split('\u{1f}').map(|f| f.trim().to_owned());
    let mut next = || fields.next();
    let (commit, parents, key, reverts, former, reason) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    let parent = parents.split(' ').next().unwrap_or_default().to_owned();
    Some(Marked { commit, parent, key, reverts, former, reason })
}

/// A text that cannot begin a line of its own in a message, nor pass for a trailer.
fn one_line(text: &str, chars: usize) -> String {
    excerpt(text).chars().take(chars).collect()
}
