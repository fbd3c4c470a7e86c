//! How a driver begins what is due, and takes in what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use maestro_core::run::event::Success;
use maestro_core::run::{
    Amount, Command, Failure, FailureClass, Notice, Repeat, StepIndex, StepPlan, TaskId,
    TaskStatus, stale_approval,
};
use maestro_executor::step::{Effect, Reach, Reply, Stop, WorkFailure, Worker};
use maestro_executor::storage::StorageError;

use super::{DriveError, Driver};
use crate::checkpoint::Point;
use crate::journal::JournalError;
use crate::script::Expansion;

/// What a task that was under way came to.
pub enum Done {
    /// It is known what work may cost, so that it can begin.
    Bound(TaskId, Prepared, Result<Option<Amount>, Failure>),
    /// Pure or recorded work, and what its end says of the tenant's budget.
    Work(TaskId, Result<Success, WorkFailure>, Vec<Notice>),
    /// The end of work that the tenant's ledger could not write down.
    Unbooked(StorageError),
    /// An effect.
    Reply(TaskId, Reply),
    /// Only a person can find out about an effect.
    Park(TaskId, String),
    /// The journal has a later epoch: nothing was sent.
    Fenced(JournalError),
}

/// Work with its inputs.
pub struct Prepared {
    worker: Arc<dyn Worker>,
    inputs: serde_json::Value,
    reach: Reach,
}

impl Driver {
    pub(super) async fn expand(&mut self, step: StepIndex) -> Result<(), DriveError> {
        let command = match self.script.expand(&self.state, step) {
            Ok(Expansion::Skip) => Command::Skip { step },
            Ok(Expansion::Items(items)) => Command::Expand { step, items },
            Err(failure) => Command::FailStep { step, failure },
        };
        match self.act(command).await {
            Err(DriveError::Refused { refusal, .. }) => {
                let failure = Failure::new(FailureClass::User, refusal.to_string());
                self.act(Command::FailStep { step, failure }).await
            }
            other => other,
        }
    }

    fn plan_of(&self, task: TaskId) -> Result<&StepPlan, Failure> {
        let missing = || Failure::new(FailureClass::User, "the plan has no such step");
        self.state.plan().step(task.step).ok_or_else(missing)
    }

    pub(super) fn inputs(&self, task: TaskId) -> Result<serde_json::Value, Failure> {
        self.script.inputs(&self.state, task)
    }

    async fn fail(&mut self, task: TaskId, failure: Failure) -> Result<(), DriveError> {
        self.act(Command::Fail { task, failure, spent: Amount::ZERO }).await
    }

    /// Begins work, having found out what it may cost. Whoever knows the price may be far away, so
    /// the driver goes on with other things meanwhile.
    pub(super) async fn execute(&mut self, task: TaskId) -> Result<(), DriveError> {
        let prepared = self.inputs(task).and_then(|inputs| {
            let worker = self.registry.find_worker(&self.plan_of(task)?.uses)?.clone();
            let reach = worker.reach(&inputs)?;
            Ok(Prepared { worker, inputs, reach })
        });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return self.fail(task, failure).await,
        };
        if !prepared.worker.costs() {
            return self.begin(task, prepared, None).await;
        }
        // Not even the price is asked for on behalf of a step that may not start.
        if self.may_start(task, &prepared.inputs, prepared.reach.clone()).await?.is_none() {
            return Ok(());
        }
        let (cancel, times) = self.admit(task);
        let handle = self.tasks.spawn(async move {
            let bound = bounded(times, &cancel, prepared.worker.bound(&prepared.inputs)).await;
            let bound = match bound {
                Ok((bound, late)) => bound.map_err(|failure| timed(failure, late, times)),
                Err(late) => Err(late.failure(times)),
            };
            Done::Bound(task, prepared, bound)
        });
        self.names.insert(handle.id(), task);
        Ok(())
    }

    /// Begins work, if policy allows it and its budgets have room.
    async fn begin(
        &mut self,
        task: TaskId,
        Prepared { worker, inputs, reach }: Prepared,
        reserve: Option<Amount>,
    ) -> Result<(), DriveError> {
        let purse = match self.reserve(task, reserve).await? {
            Ok(purse) => purse,
            Err(failure) => return self.fail(task, failure).await,
        };
        if let Some(ruling) = self.may_start(task, &inputs, reach).await? {
            let begin = Some(Box::new(Command::Begin { task, reserve }));
            self.act_on_this(Command::Ruled { rulings: vec![ruling], then: begin }).await?;
        }
        if !self.is(task, |status| matches!(status, TaskStatus::Running)) {
            return match purse {
                Some(purse) => Ok(purse.give_back().await?),
                None => Ok(()),
            };
        }
        let (cancel, times) = self.admit(task);
        let reserved = reserve.unwrap_or_default();
        let handle = self.tasks.spawn(async move {
            let work = worker.run(&inputs, reserved, &cancel);
            let result = match bounded(times, &cancel, work).await {
                Ok((result, late)) => result.map_err(|WorkFailure { failure, spent }| {
                    WorkFailure { failure: timed(failure, late, times), spent }
                }),
                Err(late) => Err(unseen(late.failure(times))),
            };
            // Before the journal: what it does not know of is settled by whoever goes on.
            let settled = match &purse {
                Some(purse) => purse.settle(result.as_ref().map(|success| success.spent)).await,
                None => Ok(Vec::new()),
            };
            match settled {
                Ok(notices) => Done::Work(task, result, notices),
                Err(error) => Done::Unbooked(error),
            }
        });
        self.names.insert(handle.id(), task);
        Ok(())
    }

    pub(super) async fn send(&mut self, task: TaskId) -> Result<(), DriveError> {
        let prepared = self.inputs(task).and_then(|inputs| {
            let effect = self.registry.find_effect(&self.plan_of(task)?.uses)?.clone();
            let reach = effect.reach(&inputs)?;
            Ok((inputs, effect, reach))
        });
        let (inputs, effect, reach) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return self.fail(task, failure).await,
        };
        let Some(start) = self.may_start(task, &inputs, reach).await? else {
            return Ok(());
        };
        let request = match effect.render(&inputs) {
            Ok(request) => request,
            Err(failure) => return self.fail(task, failure).await,
        };
        if stale_approval(&self.state, task.step, &request, self.clock.now_ms()).is_some() {
            // Its gate asks again; policy is asked once it has let pass.
            let void = Some(Box::new(Command::VoidStale { task, request }));
            return self.act_on_this(Command::Ruled { rulings: vec![start], then: void }).await;
        }
        let Some((decision, past)) = self.may_send(task, &inputs, (&request, &start)).await? else {
            return Ok(());
        };
        let decision = Some(serde_json::json!(decision));
        let intend = Some(Box::new(Command::Intend { task, request, past, decision }));
        self.act_on_this(Command::Ruled { rulings: vec![start], then: intend }).await?;
        let fresh =
            |status: &TaskStatus| matches!(status, TaskStatus::Intended(intent) if intent.fresh);
        if self.is(task, fresh) {
            self.dispatch(task, effect, |effect, intent, cancel| async move {
                effect.send(&intent.request, &intent.key, &cancel).await
            });
        }
        Ok(())
    }

    pub(super) async fn ask(&mut self, task: TaskId) -> Result<(), DriveError> {
        let mut requests = BTreeMap::new();
        for step in self.state.effects_behind(task.step) {
            let first = TaskId::first(step);
            let known = self.plan_of(first).is_ok_and(|plan| plan.repeat == Repeat::Once);
            let rendered = self.inputs(first).and_then(|inputs| {
                self.registry.find_effect(&self.plan_of(first)?.uses)?.render(&inputs)
            });
            if let (true, Ok(request)) = (known, rendered) {
                requests.insert(step, request);
            }
        }
        let now_ms = self.clock.now_ms();
        let request = self.script.approval(&self.state, task, &requests, now_ms);
        self.act(Command::Ask { task, request }).await
    }

    fn is(&self, task: TaskId, wanted: impl Fn(&TaskStatus) -> bool) -> bool {
        self.state.tasks.get(&task).is_some_and(|state| wanted(&state.status))
    }

    /// Notes that a task is under way, and gives it the means to be stopped.
    pub(super) fn admit(&mut self, task: TaskId) -> (Stop, Times) {
        let cancel = Stop::new();
        if self.state.cancelled.is_some() {
            cancel.cancel();
        }
        self.busy.insert(task, cancel.clone());
        let timeout_ms = self.plan_of(task).ok().and_then(|plan| plan.timeout_ms);
        let times =
            Times { timeout: timeout_ms.map(Duration::from_millis), grace: self.options.grace };
        (cancel, times)
    }

    /// Sends an effect in the background, if this process still drives the run.
    pub(super) fn dispatch<F, Fut>(&mut self, task: TaskId, effect: Arc<dyn Effect>, send: F)
    where
        F: FnOnce(Arc<dyn Effect>, maestro_core::run::Intent, Stop) -> Fut + Send + 'static,
        Fut: Future<Output = Reply> + Send,
    {
        let Some(TaskStatus::Intended(intent)) =
            self.state.tasks.get(&task).map(|state| state.status.clone())
        else {
            return;
        };
        let (cancel, times) = self.admit(task);
        let (journal, run, own) =
            (self.journal.clone(), self.state.created.run.clone(), self.epoch);
        let (checkpoints, name) = (self.checkpoints.clone(), self.state.name(task));
        let handle = self.tasks.spawn(async move {
            match journal.last(&run).await {
                Ok((_, epoch)) if epoch > own => {
                    return Done::Fenced(JournalError::Fenced { run, epoch, own });
                }
                Ok(_) => {}
                Err(error) => return Done::Fenced(error),
            }
            checkpoints.reached(Point::BeforeSend, &name);
            let sent = send(effect, *intent, cancel.clone());
            let reply = match bounded(times, &cancel, sent).await {
                Ok((Reply::Refused(failure), late)) => Reply::Refused(timed(failure, late, times)),
                Ok((Reply::Unclear(failure), late)) => Reply::Unclear(timed(failure, late, times)),
                Ok((done, _)) => done,
                Err(late) => Reply::Unclear(late.failure(times)),
            };
            checkpoints.reached(Point::AfterReceive, &name);
            Done::Reply(task, reply)
        });
        self.names.insert(handle.id(), task);
    }

    /// What a task came to that ended without an answer: it panicked.
    pub(super) fn lost(&self, task: TaskId, error: &tokio::task::JoinError) -> Done {
        let message = format!("internal error: it ended without an answer: {error}");
        let failure = Failure::new(FailureClass::Infrastructure, message);
        match self.state.far_side(task) {
            Some(_) => Done::Reply(task, Reply::Unclear(failure)),
            None => Done::Work(task, Err(unseen(failure)), Vec::new()),
        }
    }

    pub(super) async fn finish(&mut self, mut done: Done) -> Result<(), DriveError> {
        if let Done::Work(_, _, notices) = &mut done {
            let notices = std::mem::take(notices);
            self.tell(notices).await?;
        }
        let (task, command) = match done {
            Done::Fenced(error) => return Err(error.into()),
            Done::Unbooked(error) => return Err(error.into()),
            Done::Bound(task, prepared, bound) => {
                self.busy.remove(&task);
                return match bound {
                    Ok(reserve) => self.begin(task, prepared, reserve).await,
                    Err(failure) => self.fail(task, failure).await,
                };
            }
            Done::Work(task, Ok(success), _) | Done::Reply(task, Reply::Done(success)) => {
                let spent = success.spent;
                let command = match self.script.finish(&self.state, task, success) {
                    Ok((success, done)) => Command::Succeed { task, success, done },
                    Err(failure) => Command::Fail { task, failure, spent },
                };
                (task, command)
            }
            Done::Work(task, Err(WorkFailure { failure, spent }), _) => {
                let spent = spent.unwrap_or_else(|| self.state.ledger.reserved(task));
                (task, Command::Fail { task, failure, spent })
            }
            Done::Reply(task, Reply::Refused(failure)) => {
                (task, Command::Fail { task, failure, spent: Amount::ZERO })
            }
            Done::Reply(task, Reply::Unclear(failure)) => {
                (task, Command::Unsettle { task, failure })
            }
            Done::Park(task, why) => (task, Command::Park { task, why }),
        };
        self.busy.remove(&task);
        self.act(command).await
    }
}

/// Work whose end nobody saw.
fn unseen(failure: Failure) -> WorkFailure {
    WorkFailure { failure, spent: None }
}

/// How long something may take.
#[derive(Clone, Copy)]
pub struct Times {
    timeout: Option<Duration>,
    grace: Duration,
}

/// Why something was stopped before it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Late {
    Timeout,
    Cancelled,
}

impl Late {
    /// The failure of what did not stop either.
    fn failure(self, times: Times) -> Failure {
        let grace = times.grace.as_millis();
        match self {
            Self::Timeout => {
                let limit = times.timeout.unwrap_or_default().as_millis();
                let message = format!("it took longer than {limit} ms, and {grace} ms to stop");
                Failure::new(FailureClass::Timeout, message)
            }
            Self::Cancelled => {
                let message = format!("it did not stop within {grace} ms of being cancelled");
                Failure::new(FailureClass::Cancelled, message)
            }
        }
    }
}

/// Waits for `work`. When its time is over, or the run is cancelled, it is told to stop and has
/// the grace to do so: a rollout that is being taken back is not left half way.
async fn bounded<T>(
    times: Times,
    cancel: &Stop,
    work: impl Future<Output = T>,
) -> Result<(T, Option<Late>), Late> {
    tokio::pin!(work);
    let timeout = async {
        match times.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let late = tokio::select! {
        result = &mut work => return Ok((result, None)),
        () = timeout => Late::Timeout,
        () = cancel.cancelled() => Late::Cancelled,
    };
    cancel.cancel();
    match tokio::time::timeout(times.grace, work).await {
        Ok(result) => Ok((result, Some(late))),
        Err(_) => Err(late),
    }
}

/// What something says that was stopped because its time was over: it knows of the stop alone.
fn timed(failure: Failure, late: Option<Late>, times: Times) -> Failure {
    match (failure.class, late) {
        (FailureClass::Cancelled, Some(Late::Timeout)) => {
            let limit = times.timeout.unwrap_or_default().as_millis();
            let message = format!("it took longer than {limit} ms: {}", failure.message);
            Failure { class: FailureClass::Timeout, message, ..failure }
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_stopped_has_time_to_stop() {
        let ms = Duration::from_millis;
        let times = Times { timeout: Some(ms(1)), grace: Duration::from_secs(60) };
        let stop = Stop::new();
        let orderly = async {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            7
        };
        assert!(matches!(bounded(times, &stop, orderly).await, Ok((7, Some(Late::Timeout)))));
        let stop = Stop::new();
        stop.cancel();
        let times = Times { timeout: None, grace: ms(1) };
        let deaf = std::future::pending::<()>();
        assert!(matches!(bounded(times, &stop, deaf).await, Err(Late::Cancelled)));
        let stop = Stop::new();
        let ended = bounded(times, &stop, async { 7 }).await;
        assert!(matches!(ended, Ok((7, None))));
        assert!(!stop.is_cancelled());
    }
}
