//! Baselines: what cached results were made of, found by who their action is.
//!
//! A key that is not in the cache says nothing of keys that are almost the same. So whoever runs an
//! action also leaves, under its [`Identity`], the way back from there to its key; then "why was
//! this not cached?" has an answer on any machine that sees the same cache: the difference to the
//! nearest of those keys. The last [`limits::BASELINES_MAX`] are kept of each identity.
//!
//! | what | where | content |
//! |---|---|---|
//! | record | `ac/`, under the digest of the identity | an `ActionResult` that names blobs, [`Entry`] |
//! | action, command | `cas/` | the messages that the key was made of; every run stores them |
//! | pack | `cas/` | a REAPI `Tree`: the directories of the inputs of some hundred actions |
//!
//! A record has the form of a result, so that collection keeps what it names, and so that a remote
//! cache can carry it. Directories that many actions share stand once in a pack, which is one blob
//! and not thousands. Files of the inputs are known by digest alone, and may be gone.
//!
//! Nothing relies on baselines: two processes may write a record at the same time, of which one
//! wins, and what cannot be read is as if it had never been.

mod read;

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use maestro_cas::{Store, StoreError};
use maestro_core::key::Prepared;
use maestro_core::wire::{ActionResult, OutputFile, Tree};
use maestro_core::{ActionKey, Digest, DigestFunction, limits};
use serde::Serialize;

pub use self::read::Baselines;

/// Tells records from the results of actions, and one form of them from the next.
const SCHEME: &str = "maestro-baselines/1";
/// The longest id of an invocation that is believed, in bytes.
const INVOCATION_BYTES_MAX: usize = 64;

/// Who an action is from one build, and from one machine, to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What kind of action it is.
    pub mnemonic: String,
    /// The path of its first output.
    pub path: String,
}

impl Identity {
    /// Where its record lies. No action has such a key, since this is no `Action` message.
    fn record_key(&self, function: DigestFunction) -> ActionKey {
        let Self { mnemonic, path } = self;
        ActionKey(function.digest(format!("{SCHEME}\n{mnemonic}\n{path}").as_bytes()))
    }
}

/// A run whose result went into the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it ended, in milliseconds since 1970, by the clock of its machine.
    pub unix_ms: u64,
    /// The build that it happened in.
    pub invocation_id: String,
    /// The key, which is also the digest of the `Action` message.
    pub key: ActionKey,
    /// The `Command` message.
    #[serde(skip)]
    pub command: Digest,
    /// The pack with the directories of its inputs.
    #[serde(skip)]
    pub inputs: Digest,
}

/// The build that leaves baselines.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its id.
    pub invocation_id: String,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
}

/// Gathers what a build ran, and has a thread store it by the hundred: nobody waits for a record.
pub struct Writer {
    store: Store,
    build: Build,
    batch: Mutex<Batch>,
    keeper: Mutex<Option<Keeper>>,
}

/// The thread that stores, and the way to it. It is there from the first full batch on.
struct Keeper {
    batches: SyncSender<Batch>,
    thread: JoinHandle<Result<(), StoreError>>,
}

#[derive(Default)]
struct Batch {
    directories: BTreeMap<Digest, Vec<u8>>,
    bytes: usize,
    runs: Vec<(Identity, Entry)>,
}

impl Writer {
    /// A writer with nothing gathered.
    pub fn new(store: &Store, build: &Build) -> Self {
        let (store, build) = (store.clone(), build.clone());
        Self { store, build, batch: Mutex::default(), keeper: Mutex::default() }
    }

    /// Takes note of a run, `end_ms` after the build began, whose result and messages are in the
    /// store. Actions with enormous inputs are left out.
    pub fn note(&self, identity: Identity, prepared: &Prepared, end_ms: u64) {
        let directories = &prepared.tree.directories;
        let bytes: usize = directories.iter().map(|(_, bytes)| bytes.len()).sum();
        if bytes > limits::BASELINE_ACTION_BYTES_MAX {
            tracing::debug!(path = identity.path, bytes, "too many inputs for a baseline");
            return;
        }
        let entry = Entry {
            unix_ms: self.build.started_unix_ms + end_ms,
            invocation_id: self.build.invocation_id.clone(),
            key: prepared.key,
            command: prepared.command,
            inputs: prepared.tree.root, // until there is a pack
        };
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, bytes) in directories {
            if !batch.directories.contains_key(digest) {
                batch.bytes += bytes.len();
                batch.directories.insert(*digest, bytes.clone());
            }
        }
        batch.runs.push((identity, entry));
        if batch.bytes < limits::BASELINE_PACK_BYTES
            && batch.runs.len() < limits::BASELINE_PACK_ACTIONS
        {
            return;
        }
        let full = std::mem::take(&mut *batch);
        drop(batch);
        self.hand_over(full);
    }

    /// Stores what is gathered still, and waits until all is stored. Says what went wrong on the
    /// way; the batches after that were not stored.
    pub fn finish(&self) -> Result<(), StoreError> {
        let rest = std::mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner));
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Keeper { batches, thread }) = keeper else {
            return keep(&self.store, rest);
        };
        let _ = batches.send(rest); // the thread ended early only on an error, which it tells
        drop(batches);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Gives a batch to the thread; waits where that is behind by more than one.
    fn hand_over(&self, batch: Batch) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_none() {
            *keeper = Keeper::start(self.store.clone());
        }
        let refused = match &*keeper {
            // Its error is told at the end.
            Some(keeper) => keeper.batches.send(batch).is_err(),
            None => true,
        };
        if refused {
            tracing::debug!("a batch of baselines is not stored");
        }
    }
}

impl Keeper {
    /// Starts the thread; `None` where there can be no more threads.
    fn start(store: Store) -> Option<Self> {
        let (batches, received) = sync_channel(1);
        let work = move || received.iter().try_for_each(|batch| keep(&store, batch));
        let thread = std::thread::Builder::new().name("baselines".to_owned()).spawn(work).ok()?;
        Some(Self { batches, thread })
    }
}

/// Stores a batch: the pack, and the record of each run.
fn keep(store: &Store, batch: Batch) -> Result<(), StoreError> {
    let Batch { directories, bytes: _, runs } = batch;
    if runs.is_empty() {
        return Ok(());
    }
    let pack = store.put_bytes(&Tree::encode_parts(&[], directories.values()))?;
    for (identity, entry) in runs {
        let key = identity.record_key(store.function());
        let mut entries = read::entries_as_stored(store, &key)?;
        add(&mut entries, Entry { inputs: pack, ..entry });
        put_record(store, &key, entries)?;
    }
    Ok(())
}

/// Stores a record; runs of which collection took something are left out.
fn put_record(store: &Store, key: &ActionKey, mut entries: Vec<Entry>) -> Result<(), StoreError> {
    while !entries.is_empty() {
        match store.put_action_result(key, &record(&entries)) {
            Err(StoreError::Missing { digest }) => {
                let names = |entry: &Entry| [entry.key.0, entry.command, entry.inputs];
                entries.retain(|entry| !names(entry).contains(&digest));
            }
            stored => return stored,
        }
    }
    Ok(())
}

/// Adds a run to those before it, oldest first. Of the same key, two runs are enough to know that
/// its result was lost in between.
fn add(entries: &mut Vec<Entry>, new: Entry) {
    let same = entries.iter().filter(|entry| entry.key == new.key).count();
    if same > 1
        && let Some(first) = entries.iter().position(|entry| entry.key == new.key)
    {
        entries.remove(first);
    }
    entries.push(new);
    let surplus = entries.len().saturating_sub(limits::BASELINES_MAX);
    entries.drain(..surplus);
}

/// The form in which runs are stored.
fn record(entries: &[Entry]) -> ActionResult {
    let files = entries.iter().flat_map(|entry| {
        let Entry { unix_ms, invocation_id, key, command, inputs } = entry;
        [("action", key.0), ("command", *command), ("inputs", *inputs)].map(|(name, digest)| {
            let path = format!("{unix_ms:013}/{invocation_id}/{name}");
            OutputFile { path, digest, is_executable: false }
        })
    });
    let mut output_files: Vec<OutputFile> = files.collect();
    output_files.sort_by(|a, b| a.path.cmp(&b.path));
    ActionResult { output_files, worker: SCHEME.to_owned(), ..ActionResult::default() }
}

#[cfg(test)]
mod tests;
