//! Live calls on a user's demand: asks, checks, stages, and writes the lock at the end.
//!
//! An [`Updater`] is a [`Runner`] that the engine meets only where a lookup missed and only in
//! commands that may call out. It knows nothing of HTTP: [`Live`] is implemented elsewhere.
//! Invariants. One record key is asked at most once in an invocation, also when the engine runs
//! the action again, and what it can cost is reserved before. Nothing is staged that was not
//! checked. What failed leaves no trace.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::civil::Date;
use maestro_cas::Store;
use maestro_core::run::{Amount, Cap, Notice};
use maestro_core::{FailureKind, How, Label, TargetPattern, limits};

use super::disk::{LockError, Writer};
use super::lock::{ModelPin, Record, RecordKey, UNSIGNED};
use super::miss::{FindError, Miss, MissReason, short};
use super::request::{Question, QuestionError};
use super::spending::Spending;
use super::{Records, answer, hold, memory, store_answer};
use crate::ledger::{Ledger, Settlement};
use crate::runner::{Cancel, Job, Outcome, RunError, Runner};

/// What a model's name stands for, as the endpoint tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedModel {
    /// The pin that would describe it; its `source` and prices are empty.
    pub pin: ModelPin,
}

/// What the outside world answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveAnswer {
    /// The answer as it came.
    pub text: String,
    /// Why it ended.
    pub finish_reason: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// What it cost.
    pub cost_usd_micros: u64,
}

/// Why a live call gave no answer. Never stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LiveError {
    /// One sentence without a final period.
    pub message: String,
    /// What can be done.
    pub hints: Vec<String>,
    /// Whose fault it is; the far side counts as the environment.
    pub kind: FailureKind,
    /// Whether the invocation was cancelled.
    pub cancelled: bool,
    /// Whether the question may have been asked, and so have cost something.
    pub asked: bool,
}

/// Asks the outside world.
pub trait Live: Send + Sync {
    /// Whether this client asks questions of a kind.
    fn handles(&self, kind: &str) -> bool;

    /// What a model's name stands for at the far side; `None` if it does not tell.
    fn identify(&self, model: &str, cancel: &Cancel) -> Result<Option<ObservedModel>, LiveError>;

    /// The most that asking can cost.
    fn bound(
        &self,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<Amount, LiveError>;

    /// Asks. The client checks that who answers is who the pin names, before and after, and that
    /// the price is known before it asks.
    fn ask(
        &self,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<LiveAnswer, LiveError>;
}

/// What an update may do. Which steps are asked again although they are recorded is decided by
/// [`Records::refreshing`], which every update calls.
#[derive(Clone, Debug)]
pub struct UpdateOptions {
    /// The targets that may be asked at all; every one where empty.
    pub targets: Vec<TargetPattern>,
    /// Today, UTC.
    pub date: Date,
    /// Most that the invocation may spend.
    pub cap: Cap,
    /// The name of the invocation in the ledger, which no other one has.
    pub holder: String,
}

/// What an update did.
#[derive(Clone, Debug, Default)]
pub struct UpdateReport {
    /// Records written, in the order of the answers.
    pub recorded: Vec<Record>,
    /// Models pinned, by name.
    pub pinned: Vec<(String, ModelPin)>,
    /// What was spent, in micro-dollars.
    pub cost_usd_micros: u64,
    /// Whether the lock's files changed.
    pub changed: bool,
}

/// Runs recorded actions by asking.
pub struct Updater {
    records: Arc<Records>,
    live: Arc<dyn Live>,
    options: UpdateOptions,
    pins: Mutex<BTreeMap<String, ModelPin>>,
    calls: Mutex<HashMap<RecordKey, Arc<Call>>>,
    staged: Mutex<Vec<Staged>>,
    spending: Spending,
}

/// One call: whoever holds it makes it, the others wait for what it brings.
type Call = Mutex<Option<Arc<Answered>>>;

/// An answer that passed every check.
struct Answered {
    answer: LiveAnswer,
    bytes: Vec<u8>,
}

/// What is going to be written.
pub(super) struct Staged {
    pub(super) record: Record,
    pub(super) bytes: Vec<u8>,
}

impl Updater {
    /// An updater of these records.
    pub fn new(
        records: Arc<Records>,
        live: Arc<dyn Live>,
        ledger: Arc<dyn Ledger>,
        options: UpdateOptions,
    ) -> Self {
        let spending = Spending::new(ledger, options.holder.clone(), options.cap);
        Self {
            records,
            live,
            options,
            pins: Mutex::default(),
            calls: Mutex::default(),
            staged: Mutex::default(),
            spending,
        }
    }

    /// Writes what was recorded: answers first, the lock last. What other processes wrote to the
    /// lock meanwhile stays.
    pub fn finish(&self) -> Result<UpdateReport, LockError> {
        let staged = hold(&self.staged);
        let pins = hold(&self.pins);
        let mut report = match staged.is_empty() {
            true => UpdateReport::default(),
            false => write(self.records.root(), &staged, &pins)?,
        };
        report.cost_usd_micros = self.spending.end().0.usd_micros;
        Ok(report)
    }

    /// What people are to be told of the budgets, each once.
    pub fn notices(&self) -> Vec<Notice> {
        self.spending.end().1
    }

    fn may_ask(&self, label: &Label) -> bool {
        let targets = &self.options.targets;
        targets.is_empty() || targets.iter().any(|pattern| pattern.matches(label))
    }

    /// The pin of a model: the lock's, or the one that the far side tells now.
    fn pin(&self, model: &str, cancel: &Cancel) -> Result<ModelPin, RunError> {
        if let Some(pin) = self.records.lock().models.get(model) {
            return Ok(pin.clone());
        }
        let mut pins = hold(&self.pins);
        if let Some(pin) = pins.get(model) {
            return Ok(pin.clone());
        }
        let observed = self.live.identify(model, cancel).map_err(live_error)?;
        let Some(ObservedModel { pin }) = observed.filter(|o| o.pin.identity().is_some()) else {
            return Err(RunError::Refused {
                message: format!("the endpoint does not tell which model `{model}` is"),
                hints: vec![format!(
                    "add `[models.\"{model}\"]` with `name = \"<the provider's dated name>\"` or \
                     `sha256 = \"<hash of the weights>\"` to maestro.lock"
                )],
            });
        };
        pins.insert(model.to_owned(), pin.clone());
        Ok(pin)
    }

    /// Asks once per record key, however often and from wherever it is called.
    fn answered(
        &self,
        key: RecordKey,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<Arc<Answered>, RunError> {
        let slot = hold(&self.calls).entry(key).or_default().clone();
        let mut slot = hold(&slot);
        if let Some(answered) = slot.as_ref() {
            return Ok(answered.clone());
        }
        let answer = self.paid(key, question, pin, cancel)?;
        let schema = question.request.schema.as_ref();
        let bytes = answer::normalise(&answer.text, schema).map_err(|e| RunError::Refused {
            message: format!("the model's answer cannot be recorded: {e}"),
            hints: vec![
                "nothing was recorded; a larger `max_tokens`, another seed or a simpler schema \
                 may help"
                    .to_owned(),
            ],
        })?;
        let answered = Arc::new(Answered { answer, bytes });
        *slot = Some(answered.clone());
        Ok(answered)
    }

    /// Asks, for no more than was reserved.
    fn paid(
        &self,
        key: RecordKey,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<LiveAnswer, RunError> {
        let bound = self.live.bound(question, pin, cancel).map_err(live_error)?;
        let claim = self.spending.reserve(key.to_string(), bound)?;
        let asked = self.live.ask(question, pin, cancel);
        let end = match &asked {
            Ok(answer) => Settlement::Cost(Amount {
                usd_micros: answer.cost_usd_micros,
                tokens: answer.prompt_tokens.saturating_add(answer.completion_tokens),
            }),
            Err(error) if error.asked => Settlement::Unseen,
            Err(_) => Settlement::Unasked,
        };
        self.spending.settle(&claim, bound, end)?;
        asked.map_err(live_error)
    }

    fn stage(&self, record: Record, bytes: &[u8], store: &Store) -> Result<(), RunError> {
        let Record { label, step, sample, key, .. } = &record;
        let mut staged = hold(&self.staged);
        let other = |old: &Staged| old.record.is_of(label, step, *sample) && old.record.key != *key;
        if staged.iter().any(other) {
            return Err(RunError::Refused {
                message: format!("two actions of `{label}` record step `{step}`, sample {sample}"),
                hints: vec!["give each of them a `step` of its own".to_owned()],
            });
        }
        if record.content_file.is_none() {
            // What does not stand in the lock stays in the store under the lock's own digest.
            let put = store.put_known(&record.content, bytes);
            put.map_err(|source| FindError::Store { source })?;
        }
        staged.retain(|old| !old.record.is_of(label, step, *sample));
        staged.push(Staged { record, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Stages what this machine's cache remembers, unless the user asked for a new answer: it was
    /// paid for once.
    fn promote(
        &self,
        label: &Label,
        question: &Question,
        identity: &str,
        store: &Store,
    ) -> Result<Option<Outcome>, RunError> {
        if self.records.refreshes(label) {
            return Ok(None);
        }
        let Some((record, bytes)) = memory::recall(store, question, identity)? else {
            return Ok(None);
        };
        if answer::check(&bytes, question.request.schema.as_ref()).is_err() {
            return Ok(None);
        }
        let record = Record {
            label: label.clone(),
            step: question.request.step.clone(),
            context: question.context.clone(),
            ..record
        };
        self.stage(record, &bytes, store)?;
        let result = store_answer(store, &question.output, &bytes)?;
        Ok(Some(Outcome { result, cpu_ms: 0, memory_bytes: 0, cost_usd_micros: 0 }))
    }

    fn ask(&self, label: &Label, job: &Job<'_>) -> Result<Outcome, RunError> {
        let question = Question::of(job.spec, job.prepared, job.store).map_err(FindError::from)?;
        if !self.may_ask(label) {
            let miss = Miss::new(label, &question, MissReason::NeverRecorded);
            return Err(RunError::Refused {
                message: format!("{miss}, and this update does not name it"),
                hints: vec![format!("name `{label}` too")],
            });
        }
        let pin = self.pin(&question.request.model, job.cancel)?;
        let identity = pin.identity().unwrap_or_default();
        let key = question.key(&identity).map_err(FindError::from)?;
        if let Some(outcome) = self.promote(label, &question, &identity, job.store)? {
            return Ok(outcome);
        }
        tracing::info!(%label, step = question.request.step, key = short(key), "asking");
        let answered = self.answered(key, &question, &pin, job.cancel)?;
        let Answered { answer, bytes } = &*answered;
        let asked = Asked { question: &question, identity: &identity, answer, bytes };
        let record = asked.record(label, key, self.options.date);
        memory::remember(job.store, &question, &record, &answered.bytes)?;
        let cost_usd_micros = record.cost_usd_micros;
        self.stage(record, &answered.bytes, job.store)?;
        let result = store_answer(job.store, &question.output, &answered.bytes)?;
        Ok(Outcome { result, cpu_ms: 0, memory_bytes: 0, cost_usd_micros })
    }
}

/// Writes answers and the lock, answers first. What other processes wrote meanwhile stays.
pub(super) fn write(
    root: &Path,
    staged: &[Staged],
    pins: &BTreeMap<String, ModelPin>,
) -> Result<UpdateReport, LockError> {
    let contents: Vec<(String, Vec<u8>)> = staged
        .iter()
        .filter_map(|s| Some((s.record.content_file.clone()?, s.bytes.clone())))
        .collect();
    let writer = Writer::acquire(root)?;
    let written = writer.change(&contents, |lock| {
        for (name, pin) in pins.iter() {
            lock.models.entry(name.clone()).or_insert_with(|| pin.clone());
        }
        for Staged { record, .. } in staged.iter() {
            let same = |old: &Record| {
                old.key == record.key || old.is_of(&record.label, &record.step, record.sample)
            };
            // A refreshed answer is the answer of everyone who asks the same.
            let others: Vec<Record> = lock
                .records
                .iter()
                .filter(|old| {
                    old.key == record.key && !old.is_of(&record.label, &record.step, record.sample)
                })
                .map(|old| Record {
                    label: old.label.clone(),
                    step: old.step.clone(),
                    ..record.clone()
                })
                .collect();
            lock.records.retain(|old| !same(old));
            lock.records.extend(others);
            lock.records.push(record.clone());
        }
    })?;
    Ok(UpdateReport {
        recorded: staged.iter().map(|s| s.record.clone()).collect(),
        pinned: pins.iter().map(|(name, pin)| (name.clone(), pin.clone())).collect(),
        cost_usd_micros: 0,
        changed: written.lock || !written.contents.is_empty(),
    })
}

/// A question with its answer, which passed every check.
pub(super) struct Asked<'a> {
    pub(super) question: &'a Question,
    pub(super) identity: &'a str,
    pub(super) answer: &'a LiveAnswer,
    /// The answer in the form in which it is stored.
    pub(super) bytes: &'a [u8],
}

impl Asked<'_> {
    /// The record of the answer.
    pub(super) fn record(&self, label: &Label, key: RecordKey, date: Date) -> Record {
        let Self { question, identity, answer, bytes } = *self;
        let content = maestro_core::DigestFunction::Sha256.digest(bytes);
        let short = bytes.len() <= limits::LOCK_TEXT_BYTES_MAX;
        let extension = if question.request.schema.is_some() { "json" } else { "txt" };
        Record {
            label: label.clone(),
            step: question.request.step.clone(),
            sample: question.request.sample,
            key,
            kind: question.kind.clone(),
            model: question.request.model.clone(),
            identity: identity.to_owned(),
            seed: question.request.sampling.seed,
            prompt_tokens: answer.prompt_tokens,
            completion_tokens: answer.completion_tokens,
            finish_reason: answer.finish_reason.clone(),
            cost_usd_micros: answer.cost_usd_micros,
            date,
            content,
            content_file: short.then(|| format!("{}.{extension}", key.prefix())),
            context: question.context.clone(),
            recorder: UNSIGNED.to_owned(),
            signature: None,
            edited: false,
        }
    }
}

impl Runner for Updater {
    fn handles(&self, how: &How) -> bool {
        matches!(how, How::Native { kind, .. } if self.live.handles(kind))
    }

    fn run(&self, job: &Job<'_>) -> Result<Outcome, RunError> {
        let label = job.graph.target(job.spec.owner).label.clone();
        self.ask(&label, job)
    }
}

impl From<QuestionError> for RunError {
    fn from(error: QuestionError) -> Self {
        FindError::from(error).into()
    }
}

fn live_error(error: LiveError) -> RunError {
    let LiveError { message, hints, kind, cancelled, asked: _ } = error;
    match kind {
        _ if cancelled => RunError::Cancelled,
        FailureKind::Input => RunError::Refused { message, hints },
        FailureKind::Internal => RunError::Internal { message },
        FailureKind::Build | FailureKind::Environment => RunError::Machine { message, hints },
    }
}
