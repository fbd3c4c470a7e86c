//! The build log: what each action of a workspace was made of, the last time and the time before.
//!
//! An append-only file of framed records. An action is known by its *identity*, the path of its
//! first output. Only deltas are appended: an action whose key, outputs and verdict are those of
//! its last record leaves no trace, so a build that changes nothing writes nothing.
//!
//! Loading indexes the frames and decodes no record; a record is decoded when somebody asks for
//! it. A frame of an action starts with what the index needs.
//! One process appends (it holds the workspace's lock); others may read at any time and see a
//! prefix of the records.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use maestro_core::event::{ActionCounts, Outcome};
use maestro_core::{ActionClass, ActionKey, Digest, FailureKind, KeyParts, Label};
use serde::{Deserialize, Serialize};

use super::framed_log::{FramedLog, Frames};
use super::sealed_file::Format;

const FILE: &str = "build-log";
const FORMAT: Format = Format { magic: *b"MAEBLOG\0", version: 3 };
/// The log is rewritten when it is this many times larger than what counts in it.
const COMPACT_RATIO: u64 = 2;
/// Logs smaller than this are left as they are, in bytes.
const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// Most invocations that are kept when the log is rewritten.
const INVOCATIONS_MAX: usize = 256;

/// Why the build log was not read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot access the build log `{}`", .path.display())]
pub struct BuildLogError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl BuildLogError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        FailureKind::Environment
    }
}

/// What is known of one action after one build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The path of its first output: who it is from one build to the next.
    pub identity: String,
    /// The target that declared it.
    pub label: Label,
    /// What kind of action it is, for people.
    pub mnemonic: String,
    /// How its result may be reused.
    pub class: ActionClass,
    /// Its cache key.
    pub key: ActionKey,
    /// What the key was made of.
    pub parts: KeyParts,
    /// What it made; empty if it failed.
    pub outputs: Vec<RecordedOutput>,
    /// How it ended.
    pub outcome: Outcome,
    /// The build that this happened in.
    pub invocation_id: String,
    /// When it began, in milliseconds since 1970.
    pub start_unix_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Processor time in milliseconds, where known.
    pub cpu_ms: u64,
    /// Largest resident memory in bytes, where known.
    pub memory_bytes: u64,
    /// What it cost in that build, in micro-dollars.
    pub cost_usd_micros: u64,
    /// Who ran it: the worker named by the result.
    pub worker: String,
    /// The record that its result came from, if it is a recorded action.
    pub record: Option<RecordRef>,
}

/// One output of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedOutput {
    /// The execution path.
    pub path: String,
    /// The content, or the root directory of a tree.
    pub digest: Digest,
    /// Whether it is a tree.
    pub tree: bool,
    /// The execute bit of a file.
    pub executable: bool,
}

/// Where the result of a recorded action came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRef {
    /// The record key.
    pub key: Digest,
    /// The model's name or the page's address, as asked for.
    pub subject: String,
    /// What answered: the pinned identity, such as the SHA-256 of a model's file.
    pub identity: Option<String>,
    /// Whether the answer is as its recorder signed it.
    pub attested: bool,
    /// Whether it answers an older input than the one it was used for.
    pub stale: bool,
}

/// One build as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvocationRecord {
    /// A UUID v7.
    pub id: String,
    /// `build`, `test`, ….
    pub command: String,
    /// The patterns asked for.
    pub patterns: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub start_unix_ms: u64,
    /// When it ended.
    pub end_unix_ms: u64,
    /// The process's exit code.
    pub exit_code: u8,
    /// Actions by outcome.
    pub counts: ActionCounts,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What happened to an action.
    Action(ActionRecord),
    /// What a build did; comes after its actions.
    Invocation(InvocationRecord),
}

/// What stands before an action's record in its frame.
#[derive(Debug, Serialize, Deserialize)]
enum Head {
    Action { identity: String, invocation_id: String, fingerprint: [u8; 16] },
    Invocation,
}

#[derive(Clone, Debug)]
struct Slot {
    current: Range<usize>,
    previous: Option<Range<usize>>,
    fingerprint: [u8; 16],
    invocation_id: String,
}

/// What an append did.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// How many entries were news.
    pub entries: usize,
    /// How long the log is now, to be given to [`append_news`] later.
    pub bytes: u64,
}

/// The log of one workspace.
#[derive(Debug)]
pub struct BuildLog {
    path: PathBuf,
    log: FramedLog,
    frames: Frames,
    actions: HashMap<String, Slot>,
    invocations: Vec<Range<usize>>,
}

impl BuildLog {
    /// Reads the log in `state_dir`. What is cut off or damaged, and all after it, does not count.
    pub fn open(state_dir: &Path) -> Result<Self, BuildLogError> {
        let path = state_dir.join(FILE);
        let (log, frames) = FramedLog::open(&path, FORMAT)
            .map_err(|source| BuildLogError { path: path.clone(), source })?;
        let ranges = frames.ranges().to_vec();
        let mut this = Self { path, log, frames, actions: HashMap::new(), invocations: Vec::new() };
        for range in ranges {
            this.index(range);
        }
        Ok(this)
    }

    /// Appends what differs from the last record of the same action, and every invocation; returns
    /// how many entries were written. Entries are taken one by one, since those of a large build
    /// fill much memory; what was appended is seen by who opens the log after that.
    pub fn append(
        mut self,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Appended, BuildLogError> {
        let (mut newest, mut written) = (HashMap::new(), 0);
        let Self { path, log, actions, .. } = &mut self;
        let payloads = entries.into_iter().filter_map(|entry| {
            let payload = match entry {
                Entry::Action(record) => {
                    let fingerprint = fingerprint(&record);
                    let identity = record.identity.as_str();
                    let last = newest
                        .get(identity)
                        .or_else(|| actions.get(identity).map(|slot| &slot.fingerprint));
                    if last == Some(&fingerprint) {
                        return None;
                    }
                    newest.insert(record.identity.clone(), fingerprint);
                    encode_action(&record, fingerprint)
                }
                Entry::Invocation(record) => encode(&Head::Invocation, &record),
            };
            written += 1;
            Some(payload)
        });
        let before = log.bytes();
        log.append(payloads).map_err(|source| BuildLogError { path: path.clone(), source })?;
        if before > 0 && log.bytes() >= COMPACT_BYTES_MIN {
            let state_dir = path.parent().map(Path::to_owned).unwrap_or_default();
            self = Self::open(&state_dir)?;
            self.compact_if_bloated()?;
        }
        Ok(Appended { entries: written, bytes: self.log.bytes() })
    }

    /// What is known of an action now.
    pub fn current(&self, identity: &str) -> Option<ActionRecord> {
        self.decode_action(&self.actions.get(identity)?.current)
    }

    /// What was known of an action before its last change.
    pub fn previous(&self, identity: &str) -> Option<ActionRecord> {
        self.decode_action(self.actions.get(identity)?.previous.as_ref()?)
    }

    /// The build in which an action last changed, without decoding its record.
    pub fn last_change(&self, identity: &str) -> Option<&str> {
        self.actions.get(identity).map(|slot| slot.invocation_id.as_str())
    }

    /// The identities of all actions, in the order of their last change.
    pub fn identities(&self) -> Vec<&str> {
        let mut found: Vec<(usize, &str)> = self
            .actions
            .iter()
            .map(|(identity, slot)| (slot.current.start, identity.as_str()))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, identity)| identity).collect()
    }

    /// The current records of all actions, in the order of their last change.
    pub fn records(&self) -> impl Iterator<Item = ActionRecord> + '_ {
        self.identities().into_iter().filter_map(|identity| self.current(identity))
    }

    /// The builds that are still in the log, oldest first.
    pub fn invocations(&self) -> impl DoubleEndedIterator<Item = InvocationRecord> + '_ {
        self.invocations.iter().filter_map(|range| {
            let (_, rest) = postcard::take_from_bytes::<Head>(self.frames.get(range)).ok()?;
            postcard::from_bytes(rest).ok()
        })
    }

    fn index(&mut self, range: Range<usize>) {
        // A record of a shape that this version does not know is passed over.
        let Ok((head, _)) = postcard::take_from_bytes::<Head>(self.frames.get(&range)) else {
            return;
        };
        match head {
            Head::Invocation => self.invocations.push(range),
            Head::Action { identity, invocation_id, fingerprint } => {
                let previous = self.actions.get(&identity).map(|slot| slot.current.clone());
                let slot = Slot { current: range, previous, fingerprint, invocation_id };
                self.actions.insert(identity, slot);
            }
        }
    }

    fn decode_action(&self, range: &Range<usize>) -> Option<ActionRecord> {
        let (_, rest) = postcard::take_from_bytes::<Head>(self.frames.get(range)).ok()?;
        postcard::from_bytes(rest).ok()
    }

    /// Rewrites the log when most of it is no longer reachable.
    fn compact_if_bloated(&mut self) -> Result<(), BuildLogError> {
        let surplus = self.invocations.len().saturating_sub(INVOCATIONS_MAX);
        let mut live: Vec<Range<usize>> = self.invocations.iter().skip(surplus).cloned().collect();
        for slot in self.actions.values() {
            live.push(slot.current.clone());
            live.extend(slot.previous.clone());
        }
        let bytes: u64 = live.iter().map(|range| range.len() as u64).sum();
        if self.log.bytes() <= bytes * COMPACT_RATIO {
            return Ok(());
        }
        live.sort_unstable_by_key(|range| range.start);
        self.log
            .rewrite(live.iter().map(|range| self.frames.get(range)))
            .map_err(|source| BuildLogError { path: self.path.clone(), source })
    }
}

/// Appends entries that are all news to a log that is known to be `end` bytes long, without
/// reading it. Returns its new length, or `None` where it is not the log that is meant.
pub fn append_news(
    state_dir: &Path,
    end: u64,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<Option<u64>, BuildLogError> {
    let path = state_dir.join(FILE);
    let fail = |source| BuildLogError { path: path.clone(), source };
    let Some(mut log) = FramedLog::at_end(&path, FORMAT, end).map_err(fail)? else {
        return Ok(None);
    };
    let payloads = entries.into_iter().map(|entry| match entry {
        Entry::Action(record) => encode_action(&record, fingerprint(&record)),
        Entry::Invocation(record) => encode(&Head::Invocation, &record),
    });
    log.append(payloads).map_err(fail)?;
    Ok(Some(log.bytes()))
}

/// What two records of an action must share for the second to be no news.
fn fingerprint(record: &ActionRecord) -> [u8; 16] {
    // Exhaustive on purpose: a new field must be judged.
    let ActionRecord {
        identity: _, // the same by construction
        label,
        mnemonic,
        class,
        key,
        parts: _, // what the key is made of; names that do not count are not news
        outputs,
        outcome,
        invocation_id: _,
        start_unix_ms: _,
        duration_ms: _,
        cpu_ms: _,
        memory_bytes: _,
        cost_usd_micros: _,
        worker: _,
        record: reference,
    } = record;
    let failed = matches!(outcome, Outcome::Failed | Outcome::Skipped);
    let news = (label, mnemonic, class, key, outputs, failed, reference);
    let bytes = postcard::to_stdvec(&news).expect("plain data serializes");
    *blake3::hash(&bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn encode_action(record: &ActionRecord, fingerprint: [u8; 16]) -> Vec<u8> {
    let head = Head::Action {
        identity: record.identity.clone(),
        invocation_id: record.invocation_id.clone(),
        fingerprint,
    };
    encode(&head, record)
}

fn encode(head: &Head, record: &impl Serialize) -> Vec<u8> {
    let bytes = postcard::to_stdvec(head).expect("plain data serializes");
    postcard::to_extend(record, bytes).expect("plain data serializes")
}

#[cfg(test)]
pub(super) mod tests;
