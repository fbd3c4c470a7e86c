//! Records: how a recorded action finds its result, and why it does not.
//!
//! A recorded action is one whose result comes from outside: a model's answer, later a page.
//! Its result is *found*, by a record key, never computed: first in `maestro.lock`, then in the
//! cache. Nothing in this module calls the outside world; [`update`] does, through a trait that
//! others implement, and only when a user asked for it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`request`] | the action's request read, its context hashed, its record key |
//! | [`answer`] | the stored form of an answer, and whether it fits its schema |
//! | [`lock`] | the lock as a value: parse and print |
//! | [`disk`] | the lock's files: read, and changed together |
//! | [`miss`] | why nothing was found, and what mends it |
//! | [`memory`] | answers that the cache remembers beyond the lock |
//! | [`update`] | live calls, staged and then written into the lock |
//! | [`answers`] | the same for the steps of runs, which write no lock |
//! | [`upkeep`] | check, prune, accept |
//!
//! Invariants. An answer is checked against its digest and the asking action's schema on *every*
//! use. A record whose metadata contradicts its key is refused. What is found never depends on
//! the clock. The format is fixed in `docs/design/lock.md`.

pub mod answer;
pub mod answers;
pub mod disk;
pub mod lock;
pub mod memory;
pub mod miss;
pub mod request;
mod spending;
pub mod update;
pub mod upkeep;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use maestro_cas::{Store, StoreError};
use maestro_core::wire::{ActionResult, OutputFile};
use maestro_core::{ActionSpec, Digest, DigestFunction, Label, Prepared, TargetPattern};
use serde::{Deserialize, Serialize};

pub use answer::AnswerError;
pub use answers::{Answers, Given, PromoteError, promote};
pub use disk::LockError;
pub use lock::{CONTENT_DIR, ContextFile, LOCK_FILE, Lock, ModelPin, Record, RecordKey, Sha256};
pub use miss::{ContextChange, FindError, Miss, MissReason};
pub use request::{LlmRequest, Question, QuestionError};
pub use update::{
    Live, LiveAnswer, LiveError, ObservedModel, UpdateOptions, UpdateReport, Updater,
};
pub use upkeep::{CheckOptions, CheckReport, accept, prune};

/// How far a lookup goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The lock alone: `--locked`.
    Lock,
    /// The lock, then what this cache remembers.
    #[default]
    Cache,
    /// As [`Reach::Cache`], then the last record of the same step: `--stale-records=allow`.
    Stale,
}

/// A recorded action whose inputs are known and in the store.
#[derive(Clone, Copy)]
pub struct RecordLookup<'a> {
    /// The target that owns the action.
    pub label: &'a Label,
    /// The action.
    pub spec: &'a ActionSpec,
    /// Its key and input tree.
    pub prepared: &'a Prepared,
}

/// Where a result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundIn {
    /// In `maestro.lock`.
    Lock,
    /// In the cache, from an earlier call on this machine.
    Cache,
    /// In `maestro.lock`, but it answers another input.
    Stale,
}

/// The record that a result came from, as the build log and provenance keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordUse {
    /// Where it was found.
    pub found_in: FoundIn,
    /// The record itself.
    pub record: Record,
}

/// A result that was found. Its blob is in the store.
#[derive(Clone, Debug)]
pub struct Found {
    /// The result of the action.
    pub result: ActionResult,
    /// The record behind it.
    pub record: RecordUse,
    /// What a live call would have cost, as far as the record tells.
    pub saved_usd_micros: u64,
}

/// One lookup of this invocation.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The target that asked.
    pub label: Label,
    /// The step's path.
    pub step: String,
    /// The sample.
    pub sample: u32,
    /// The record key, where the model is pinned.
    pub key: Option<RecordKey>,
    /// Why the lock did not answer; `None` where it did.
    pub missed: Option<MissReason>,
}

/// The records of a workspace, as one invocation sees them.
#[derive(Debug)]
pub struct Records {
    root: PathBuf,
    lock: Lock,
    by_key: HashMap<RecordKey, usize>,
    /// Present in an update: the targets whose steps are asked again.
    refresh: Option<Vec<TargetPattern>>,
    asked: Mutex<Vec<Asked>>,
    content_files: Mutex<BTreeSet<String>>,
}

impl Records {
    /// Reads the lock of a workspace; a missing one is empty.
    pub fn load(workspace_root: &Path) -> Result<Self, LockError> {
        let (lock, _) = disk::read_lock(workspace_root)?;
        let by_key = lock.records.iter().enumerate().map(|(i, r)| (r.key, i)).collect();
        Ok(Self {
            root: workspace_root.to_owned(),
            lock,
            by_key,
            refresh: None,
            asked: Mutex::default(),
            content_files: Mutex::default(),
        })
    }

    /// Makes lookups those of an update: they reach no further than the lock, so that what only
    /// the cache remembers is written down too, and those of `targets` miss, so that their steps
    /// are asked again.
    pub fn refreshing(mut self, targets: Vec<TargetPattern>) -> Self {
        self.refresh = Some(targets);
        self
    }

    /// Whether the steps of a target are asked again whatever is recorded.
    pub fn refreshes(&self, label: &Label) -> bool {
        self.refresh.iter().flatten().any(|pattern| pattern.matches(label))
    }

    /// Whether the lock holds no record.
    pub fn is_empty(&self) -> bool {
        self.lock.records.is_empty()
    }

    /// The workspace's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock as it was read.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Every lookup so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        hold(&self.asked).clone()
    }

    /// Files below the workspace's root that lookups read: a later build that finds them
    /// unchanged finds the same records.
    pub fn files_read(&self) -> Vec<String> {
        let contents = hold(&self.content_files);
        let contents = contents.iter().map(|name| format!("{CONTENT_DIR}/{name}"));
        std::iter::once(LOCK_FILE.to_owned()).chain(contents).collect()
    }

    /// Finds the result of a recorded action.
    ///
    /// The engine does not ask the action cache for recorded actions: the action's key knows
    /// neither the model's identity nor when its pin changed. This method looks there itself.
    pub fn find(
        &self,
        lookup: &RecordLookup<'_>,
        store: &Store,
        reach: Reach,
    ) -> Result<Found, FindError> {
        let question = Question::of(lookup.spec, lookup.prepared, store)?;
        let searched = self.search(lookup.label, &question, store, reach);
        let missed = match &searched {
            Ok(found) if found.record.found_in == FoundIn::Lock => None,
            Ok(_) => Some(self.reason(lookup.label, &question)),
            Err(FindError::Miss(miss)) => Some(miss.reason.clone()),
            Err(_) => None,
        };
        hold(&self.asked).push(Asked {
            label: lookup.label.clone(),
            step: question.request.step.clone(),
            sample: question.request.sample,
            key: self.key_of(&question)?,
            missed,
        });
        searched
    }

    fn search(
        &self,
        label: &Label,
        question: &Question,
        store: &Store,
        reach: Reach,
    ) -> Result<Found, FindError> {
        let miss = |reason| FindError::Miss(Box::new(Miss::new(label, question, reason)));
        if self.refreshes(label) {
            return Err(miss(MissReason::Refresh));
        }
        let identity = self.identity(&question.request.model);
        let key = self.key_of(question)?;
        if let Some(record) = key.and_then(|key| self.by_key(key)) {
            self.check_metadata(record, question, identity.as_deref())?;
            return match self.content(record, store)? {
                Some(bytes) => self.found(record, bytes, question, store, FoundIn::Lock),
                None => Err(miss(MissReason::ContentGone { content: record.content })),
            };
        }
        if reach == Reach::Lock || self.refresh.is_some() {
            return Err(miss(self.reason(label, question)));
        }
        if let Some(identity) = &identity
            && let Some((record, bytes)) = memory::recall(store, question, identity)?
        {
            return self.found(&record, bytes, question, store, FoundIn::Cache);
        }
        if reach == Reach::Stale
            && let Some(record) = self.last(label, question)
            && let Some(bytes) = self.content(record, store)?
        {
            return self.found(record, bytes, question, store, FoundIn::Stale);
        }
        Err(miss(self.reason(label, question)))
    }

    /// Checks an answer against the schema of the action that asks, and stores it.
    fn found(
        &self,
        record: &Record,
        bytes: Vec<u8>,
        question: &Question,
        store: &Store,
        found_in: FoundIn,
    ) -> Result<Found, FindError> {
        answer::check(&bytes, question.request.schema.as_ref()).map_err(|source| {
            let (place, label) = (self.place(record), record.label.clone());
            FindError::Misfit { place, label, source: Box::new(source) }
        })?;
        let result = store_answer(store, &question.output, &bytes)?;
        let record = RecordUse { found_in, record: record.clone() };
        let saved_usd_micros = record.record.cost_usd_micros;
        Ok(Found { result, record, saved_usd_micros })
    }

    /// The bytes of a record's answer, checked against its digest; `None` if they are neither in
    /// the lock's folder by intention nor in the store.
    fn content(&self, record: &Record, store: &Store) -> Result<Option<Vec<u8>>, FindError> {
        let Some(name) = &record.content_file else {
            return match store.read(&record.content) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => Ok(None),
                Err(source) => Err(FindError::Store { source }),
            };
        };
        hold(&self.content_files).insert(name.clone());
        let file = format!("{CONTENT_DIR}/{name}");
        let label = record.label.clone();
        let Some(bytes) = disk::read_content(&self.root, name)? else {
            return Err(FindError::ContentMissing { file, label });
        };
        if DigestFunction::Sha256.digest(&bytes) != record.content {
            return Err(FindError::ContentEdited { file, label });
        }
        Ok(Some(bytes))
    }

    fn check_metadata(
        &self,
        record: &Record,
        question: &Question,
        identity: Option<&str>,
    ) -> Result<(), FindError> {
        let same = [
            ("model", record.model == question.request.model),
            ("identity", Some(record.identity.as_str()) == identity),
            ("kind", record.kind == question.kind),
            ("seed", record.seed == question.request.sampling.seed),
        ];
        match same.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((field, _)) => Err(FindError::Contradiction {
                field,
                label: record.label.clone(),
                step: record.step.clone(),
            }),
        }
    }

    fn place(&self, record: &Record) -> String {
        match &record.content_file {
            Some(name) => format!("{CONTENT_DIR}/{name}"),
            None => record.content.to_string(),
        }
    }

    fn identity(&self, model: &str) -> Option<String> {
        self.lock.models.get(model)?.identity()
    }

    fn key_of(&self, question: &Question) -> Result<Option<RecordKey>, QuestionError> {
        self.identity(&question.request.model).map(|id| question.key(&id)).transpose()
    }

    fn by_key(&self, key: RecordKey) -> Option<&Record> {
        self.lock.records.get(*self.by_key.get(&key)?)
    }

    /// The newest record of the same step.
    fn last(&self, label: &Label, question: &Question) -> Option<&Record> {
        let LlmRequest { step, sample, .. } = &question.request;
        let of_step = self.lock.records.iter().filter(|r| r.is_of(label, step, *sample));
        of_step.max_by_key(|record| (record.date, record.key))
    }

    fn reason(&self, label: &Label, question: &Question) -> MissReason {
        if let Some(model) = self.unpinned(question) {
            return MissReason::Unpinned { model };
        }
        let identity = self.identity(&question.request.model).unwrap_or_default();
        miss::compare(self.last(label, question), question, &identity)
    }

    fn unpinned(&self, question: &Question) -> Option<String> {
        let model = &question.request.model;
        (!self.lock.models.contains_key(model)).then(|| model.clone())
    }
}

/// Puts an answer into the store and makes the result of its action.
fn store_answer(store: &Store, output: &str, bytes: &[u8]) -> Result<ActionResult, FindError> {
    let digest: Digest = store.put_bytes(bytes).map_err(|source| FindError::Store { source })?;
    Ok(ActionResult {
        output_files: vec![OutputFile { path: output.to_owned(), digest, is_executable: false }],
        worker: "record".to_owned(),
        ..ActionResult::default()
    })
}

/// No invariant spans two statements under these mutexes, so a panic elsewhere spoils nothing.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
