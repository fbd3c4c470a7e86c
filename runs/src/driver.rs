//! Makes runs advance: asks the fold what is to be done, does it, and journals what came of it.
//!
//! One driver drives one run. It holds the state of its run and appends each event before anybody
//! acts on it; what the fold says is all that it goes by, so a driver that takes over where
//! another one died does the same as that one would have done.
//!
//! # The order of things
//!
//! | to do | first | then | at last |
//! |---|---|---|---|
//! | work | policy is asked, `task-began` is appended | the worker runs | `task-succeeded` or `task-failed` |
//! | work that costs | the tenant's ledger reserves; as above | the worker runs | the ledger settles; as above |
//! | an effect | policy is asked, `effect-intended` is appended and synced | epoch is read once more, request sent | its outcome, synced |
//! | an effect after a crash | policy is asked | the far side is asked, or the same bytes are sent again | its outcome, synced |
//!
//! # Others write too
//!
//! People approve and cancel from other processes. Where that makes an append come too late
//! ([`JournalError::Behind`]), the driver reads what is new and decides again. It also looks
//! whenever the journal says that something changed.

mod perform;
mod rule;
mod settle;
mod spend;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use maestro_core::limits::RUN_GRACE_MS;
use maestro_core::policy::{DecisionPoint, Policy};
use maestro_core::run::{
    Agenda, Command, Entry, Event, Owner, Principal, Refusal, Ruling, RunCreated, RunId, RunState,
    RunStatus, StepIndex, TaskId, Work, create, decide,
};
use maestro_executor::ledger::Ledger;
use maestro_executor::step::{Registry, Stop};
use maestro_executor::storage::StorageError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checkpoint::Checkpoints;
use crate::journal::{self, Append, Journal, JournalError};
use crate::policy::Project;
use crate::script::Script;
use perform::Done;

/// The time, as milliseconds since 1970.
pub trait Clock: Send + Sync {
    /// Now.
    fn now_ms(&self) -> u64;
}

/// What a driver needs to know.
#[derive(Clone)]
pub struct DriverOptions {
    /// Most tasks of the run that are under way at once.
    pub parallel: usize,
    /// How long work may take to stop after it was cancelled.
    pub grace: Duration,
    /// Whether the driver ends when the run waits for approval.
    pub leave_when_waiting: bool,
}

impl Default for DriverOptions {
    fn default() -> Self {
        let grace = Duration::from_millis(RUN_GRACE_MS);
        Self { parallel: 8, grace, leave_when_waiting: false }
    }
}

/// Why a run is no longer driven, though it has not ended.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The journal failed, or another process drives the run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A command of the driver was refused: a bug.
    #[error("internal error: the driver of run `{run}` was refused: {refusal}")]
    Refused {
        /// Which run.
        run: RunId,
        /// Why.
        refusal: Refusal,
    },
    /// The ledger of the tenant failed. Nothing was asked that it did not grant.
    #[error(transparent)]
    Ledger(#[from] StorageError),
    /// Policy broke down. Nothing was done on it.
    #[error("policy did not answer at `{}`: {why}", point.name())]
    Unanswered {
        /// Where it was asked.
        point: DecisionPoint,
        /// Why not.
        why: String,
    },
}

/// Drives one run.
pub struct Driver {
    journal: Arc<dyn Journal>,
    script: Arc<dyn Script>,
    registry: Registry,
    policy: Arc<dyn Policy>,
    project: Arc<Project>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    checkpoints: Arc<dyn Checkpoints>,
    options: DriverOptions,
    state: RunState,
    epoch: u64,
    busy: BTreeMap<TaskId, Stop>,
    tasks: JoinSet<Done>,
    /// Which task each of `tasks` is about, for those that end without saying so.
    names: BTreeMap<tokio::task::Id, TaskId>,
    changes: watch::Receiver<u64>,
    kept: u64,
}

/// What a driver works with.
#[derive(Clone)]
pub struct Tools {
    /// Where events are kept.
    pub journal: Arc<dyn Journal>,
    /// Who does what.
    pub registry: Registry,
    /// Who is asked before anything is done.
    pub policy: Arc<dyn Policy>,
    /// What policies know of the project.
    pub project: Arc<Project>,
    /// Who pays for calls.
    pub ledger: Arc<dyn Ledger>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who is told of the points where a test may kill.
    pub checkpoints: Arc<dyn Checkpoints>,
}

/// Events after which a fold is kept; from there on whenever they have grown by half, so that all
/// folds together cost no more than a constant times the journal.
const SNAPSHOT_EVENTS: u64 = 1_000;
/// How long a driver sleeps when nothing happens.
const SLEEP: Duration = Duration::from_secs(5);

/// The state of a run that nobody has written down yet: what policy is asked about.
pub fn proposed(created: RunCreated, now_ms: u64) -> Result<RunState, DriveError> {
    let run = created.run.clone();
    let refused = |refusal| DriveError::Refused { run: run.clone(), refusal };
    let events = create(created).map_err(refused)?;
    let event = events.into_iter().next().ok_or_else(|| refused(Refusal::NotEnded))?;
    let entry = Entry { sequence: 1, epoch: 0, at_ms: now_ms, event };
    let fold = |source| JournalError::Fold { run: run.clone(), source };
    Ok(RunState::begin(&entry).map_err(fold)?)
}

/// Writes the first events of a run: what it is, and what policy said to it.
pub async fn begin(
    journal: &dyn Journal,
    created: RunCreated,
    rulings: Vec<Ruling>,
    now_ms: u64,
) -> Result<RunState, DriveError> {
    let run = created.run.clone();
    let mut state = proposed(created.clone(), now_ms)?;
    let said = rulings.into_iter().map(|ruling| Event::PolicyDecided(Box::new(ruling)));
    let said: Vec<Event> = said.collect();
    fold(&mut state, &said, now_ms)?;
    let first = Event::RunCreated(Box::new(created));
    let (events, status) = ([vec![first], said].concat(), state.status());
    let by_driver = false;
    journal
        .append(Append { run, after: 0, epoch: 0, at_ms: now_ms, events, status, by_driver })
        .await?;
    Ok(state)
}

/// Applies a person's command to a run that another process may be driving.
///
/// Where the journal grew meanwhile, it is decided again on what there is.
pub async fn command(
    journal: &dyn Journal,
    run: &RunId,
    clock: &dyn Clock,
    wish: impl Fn(&RunState) -> Result<Command, Refusal>,
) -> Result<Result<RunState, Refusal>, JournalError> {
    let mut state = journal::load(journal, run).await?;
    loop {
        let now_ms = clock.now_ms();
        let decided = wish(&state).and_then(|command| decide(&state, command, now_ms));
        let events = match decided {
            Ok(events) if events.is_empty() => return Ok(Ok(state)),
            Ok(events) => events,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (after, epoch) = (state.sequence, state.epoch);
        let mut next = state.clone();
        fold(&mut next, &events, now_ms)?;
        let (run, status) = (run.clone(), next.status());
        let by_driver = false;
        let append = Append { run, after, epoch, at_ms: now_ms, events, status, by_driver };
        match journal.append(append).await {
            Ok(_) => return Ok(Ok(next)),
            Err(JournalError::Behind { .. } | JournalError::Fenced { .. }) => {
                state = journal::catch_up(journal, state).await?;
            }
            Err(other) => return Err(other),
        }
    }
}

/// Applies events that are about to be appended.
fn fold(state: &mut RunState, events: &[Event], at_ms: u64) -> Result<(), JournalError> {
    for event in events {
        let owned = u64::from(matches!(event, Event::Owned { .. }));
        let (sequence, epoch) = (state.sequence + 1, state.epoch + owned);
        let entry = Entry { sequence, epoch, at_ms, event: event.clone() };
        let run = state.created.run.clone();
        state.apply(&entry).map_err(|source| JournalError::Fold { run, source })?;
    }
    Ok(())
}

impl Driver {
    /// Becomes the owner of a run. The caller holds its lease.
    pub async fn own(
        tools: Tools,
        script: Arc<dyn Script>,
        options: DriverOptions,
        state: RunState,
        (owner, take_over): (Owner, bool),
    ) -> Result<Self, DriveError> {
        let Tools { journal, registry, policy, project, ledger, clock, checkpoints } = tools;
        let epoch = state.epoch;
        let (kept, changes) = (state.sequence, journal.changes());
        let (busy, tasks, names) = (BTreeMap::new(), JoinSet::new(), BTreeMap::new());
        let mut driver = Self {
            journal,
            script,
            registry,
            policy,
            project,
            ledger,
            clock,
            checkpoints,
            options,
            state,
            epoch,
            busy,
            tasks,
            names,
            changes,
            kept,
        };
        loop {
            let command = Command::Own { owner: owner.clone(), take_over };
            driver.epoch = driver.state.epoch + 1;
            match driver.try_append(command).await {
                Err(DriveError::Journal(
                    JournalError::Behind { .. } | JournalError::Fenced { .. },
                )) => driver.reload().await?,
                other => {
                    other?;
                    driver.settle_what_was_left().await?;
                    return Ok(driver);
                }
            }
        }
    }

    /// Drives the run until it ends, or is parked: finding out about an effect takes people longer
    /// than a process should wait. Where it waits for approval the options say whether to leave.
    pub async fn drive(mut self) -> Result<RunState, DriveError> {
        loop {
            self.start_what_is_due().await?;
            let status = self.state.status();
            let idle = self.tasks.is_empty();
            let leave = match status {
                RunStatus::Waiting => self.options.leave_when_waiting && self.only_people_help(),
                RunStatus::Parked => self.only_people_help(),
                other => other.is_end(),
            };
            if idle && leave {
                return Ok(self.state);
            }
            self.wait().await?;
        }
    }

    /// Nothing that time alone brings.
    fn only_people_help(&self) -> bool {
        let now_ms = self.clock.now_ms();
        let agenda = self.agenda(now_ms);
        let timed = self
            .state
            .tasks
            .values()
            .any(|task| matches!(task.status, maestro_core::run::TaskStatus::Backoff { .. }));
        agenda.work.is_empty() && !timed
    }

    /// The next thing to do: what this driver is not busy with, as far as it may have more under
    /// way.
    fn agenda(&self, now_ms: u64) -> Agenda {
        let none_free = self.tasks.len() >= self.options.parallel;
        let under_way = |step: StepIndex| {
            let tasks = TaskId::first(step)..=TaskId { step, item: u32::MAX, round: u32::MAX };
            self.busy.range(tasks).count()
        };
        let full = |step: StepIndex| {
            let parallel = self.state.plan().step(step).map_or(0, |plan| plan.parallel as usize);
            none_free || (parallel > 0 && under_way(step) >= parallel)
        };
        self.state.agenda(now_ms, 1, |task| none_free || self.busy.contains_key(&task), full)
    }

    async fn start_what_is_due(&mut self) -> Result<(), DriveError> {
        loop {
            match self.agenda(self.clock.now_ms()).work.first() {
                Some(work) => self.start(*work).await?,
                None => return Ok(()),
            }
        }
    }

    async fn start(&mut self, work: Work) -> Result<(), DriveError> {
        match work {
            Work::Expand(step) => self.expand(step).await,
            Work::Execute(task) => self.execute(task).await,
            Work::Send(task) => self.send(task).await,
            Work::Settle(task) => self.settle(task).await,
            Work::Ask(task) => self.ask(task).await,
            Work::Expire(task) => self.act(Command::Expire { task }).await,
            Work::TimeUp => self.time_up().await,
            Work::End => self.act(Command::End).await,
        }
    }

    /// Cancels a run that has taken its time.
    async fn time_up(&mut self) -> Result<(), DriveError> {
        let limit = self.state.plan().timeout_ms.unwrap_or_default();
        let by =
            Principal { name: "maestro".to_owned(), issuer: "clock".to_owned(), roles: Vec::new() };
        let reason = format!("the run took longer than {limit} ms");
        self.act(Command::Cancel { by, reason }).await?;
        self.busy.values().for_each(Stop::cancel);
        Ok(())
    }

    /// Waits for whatever comes first: work that ends, a time, a change of the journal.
    async fn wait(&mut self) -> Result<(), DriveError> {
        let now_ms = self.clock.now_ms();
        let agenda = self.agenda(now_ms);
        let until = agenda.wake_at_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
        let until = until.unwrap_or(SLEEP).min(SLEEP);
        let done = tokio::select! {
            Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => Some(done),
            _ = self.changes.changed() => None,
            () = tokio::time::sleep(until) => None,
        };
        match done {
            Some(Ok((id, done))) => {
                self.names.remove(&id);
                self.finish(done).await?;
            }
            Some(Err(error)) => match self.names.remove(&error.id()) {
                Some(task) => self.finish(self.lost(task, &error)).await?,
                None => tracing::error!(%error, "a task of a run ended without an answer"),
            },
            None => self.look().await?,
        }
        Ok(())
    }

    /// Reads what others have appended.
    async fn look(&mut self) -> Result<(), DriveError> {
        let (last, epoch) = self.journal.last(&self.state.created.run).await?;
        if epoch > self.epoch {
            let run = self.state.created.run.clone();
            return Err(JournalError::Fenced { run, epoch, own: self.epoch }.into());
        }
        if last > self.state.sequence {
            self.reload().await?;
        }
        Ok(())
    }

    /// Takes the state from the journal, and passes on what others asked for.
    async fn reload(&mut self) -> Result<(), DriveError> {
        self.state = journal::load(&*self.journal, &self.state.created.run).await?;
        if self.state.cancelled.is_some() {
            for cancel in self.busy.values() {
                cancel.cancel();
            }
        }
        Ok(())
    }

    /// Decides and appends; decides again where others were faster.
    async fn act(&mut self, command: Command) -> Result<(), DriveError> {
        loop {
            match self.try_append(command.clone()).await {
                Err(DriveError::Journal(JournalError::Behind { .. })) => self.reload().await?,
                other => return other,
            }
        }
    }

    /// One try. The state is ahead of the journal while the append is under way, and is read anew
    /// if it fails.
    async fn try_append(&mut self, command: Command) -> Result<(), DriveError> {
        let now_ms = self.clock.now_ms();
        let after = self.state.sequence;
        let events = match decide(&self.state, command, now_ms) {
            Ok(events) if events.is_empty() => return Ok(()),
            Ok(events) => events,
            Err(refusal) => return self.refused(refusal),
        };
        fold(&mut self.state, &events, now_ms)?;
        let append = Append {
            run: self.state.created.run.clone(),
            after,
            epoch: self.epoch,
            at_ms: now_ms,
            events,
            status: self.state.status(),
            by_driver: true,
        };
        self.journal.append(append).await?;
        self.keep_snapshot().await
    }

    /// What somebody else did meanwhile made the report pointless; anything else is a bug.
    fn refused(&self, refusal: Refusal) -> Result<(), DriveError> {
        match refusal {
            Refusal::Ended | Refusal::State { .. } => {
                tracing::debug!(%refusal, "the run went on without this report");
                Ok(())
            }
            refusal => Err(DriveError::Refused { run: self.state.created.run.clone(), refusal }),
        }
    }

    async fn keep_snapshot(&mut self) -> Result<(), DriveError> {
        let since = self.state.sequence.saturating_sub(self.kept);
        if since >= SNAPSHOT_EVENTS.max(self.kept / 2) {
            self.journal.keep_snapshot(&self.state).await?;
            self.kept = self.state.sequence;
        }
        Ok(())
    }
}
