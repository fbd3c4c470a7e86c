//! Between the scheduler, which decides, and the streams of clients and workers.
//!
//! One lock around the [`Scheduler`] and the channels to whoever waits. Nothing blocks under it, so
//! a command and the telling of what was decided are one step: clients and workers see decisions
//! in the order in which they were made.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::scheduler::{
    Action, Assignment, Command, Decision, Ending, LeaseId, Offer, OperationId, Outcome, Rejection,
    Scheduler, Stage, Submission, WorkerId,
};
use tokio::sync::{mpsc, watch};

use crate::convert::{function_value, wire_digest};
use crate::protos::worker::{self, to_worker::Message};

/// How often the scheduler is told that time has passed.
const TICK: Duration = Duration::from_millis(250);
/// How long the end of an operation can be asked for.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many such ends are kept at most.
const REMEMBERED_MAX: usize = 10_000;
/// How many messages may wait for a worker; the stream of one that reads slower is given up.
const WORKER_MESSAGES_MAX: usize = 4_096;
/// How far leases of two runs of the server are apart: those of a millisecond.
const LEASES_EACH_MS: u32 = 20;

/// What a client is told of an operation.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// It has not ended.
    Stage(Stage),
    /// It has, with the worker's response.
    Response(Arc<reapi::ExecuteResponse>),
    /// It has, without one.
    Ended(Ending),
}

/// An operation that a client waits for.
#[derive(Clone)]
pub(super) struct Operation {
    id: OperationId,
    /// How clients call it.
    pub(super) name: String,
    /// What is run.
    pub(super) action: Action,
    /// When it was queued, in milliseconds since 1970.
    pub(super) queued_unix_ms: u64,
    /// Where it is.
    pub(super) progress: watch::Receiver<Progress>,
}

/// A worker whose stream is open.
pub(super) struct Connection {
    pub(super) worker: WorkerId,
    /// Which of the streams of the worker this is.
    number: u64,
    pub(super) messages: mpsc::Receiver<worker::ToWorker>,
}

/// The scheduler and who waits for it.
pub(super) struct Dispatch {
    state: Mutex<State>,
    began: Instant,
}

struct State {
    scheduler: Scheduler,
    operations: HashMap<OperationId, Known>,
    by_name: HashMap<String, OperationId>,
    /// Operations that have ended, the first first.
    ended: VecDeque<(Instant, OperationId)>,
    /// Workers, also those whose stream is broken and who may come back.
    workers: HashMap<WorkerId, Stream>,
    by_process: HashMap<String, WorkerId>,
    leases: HashMap<LeaseId, Lease>,
    next: u64,
}

struct Known {
    operation: Operation,
    sender: watch::Sender<Progress>,
}

struct Stream {
    process: String,
    number: u64,
    sender: mpsc::Sender<worker::ToWorker>,
}

/// What has to be known of a lease when its worker reports.
struct Lease {
    worker: WorkerId,
    action: Action,
}

impl Dispatch {
    pub(super) fn new() -> Arc<Self> {
        // Whatever leases were given before a restart, these are greater.
        let first = unix_ms() << LEASES_EACH_MS;
        Arc::new(Self {
            state: Mutex::new(State {
                scheduler: Scheduler::new(first),
                operations: HashMap::new(),
                by_name: HashMap::new(),
                ended: VecDeque::new(),
                workers: HashMap::new(),
                by_process: HashMap::new(),
                leases: HashMap::new(),
                next: 1,
            }),
            began: Instant::now(),
        })
    }

    /// Tells the scheduler the time, until `stop`; then lets everybody go, who will come back to
    /// the next server.
    pub(super) async fn tick(self: Arc<Self>, stop: tokio_util::sync::CancellationToken) {
        while tokio::time::timeout(TICK, stop.cancelled()).await.is_err() {
            self.apply(&mut self.lock(), Command::Tick, None);
            self.lock().forget();
        }
        let mut state = self.lock();
        state.workers.clear();
        state.operations.clear();
    }

    /// Submits an action; the operation is attached. Says why where it is refused at once.
    pub(super) fn submit(
        &self,
        prepare: impl FnOnce(OperationId) -> Submission,
    ) -> Result<Operation, Rejection> {
        let mut state = self.lock();
        let id = OperationId(state.number());
        let submission = prepare(id);
        let (sender, progress) = watch::channel(Progress::Stage(Stage::Queued));
        let name = format!("operations/{}", uuid::Uuid::now_v7());
        let action = submission.action.clone();
        let queued_unix_ms = unix_ms();
        let operation = Operation { id, name: name.clone(), action, queued_unix_ms, progress };
        let known = Known { operation: operation.clone(), sender };
        state.operations.insert(id, known);
        state.by_name.insert(name.clone(), id);
        self.apply(&mut state, Command::Submit(submission), None);
        let refused = match &*operation.progress.borrow() {
            Progress::Ended(Ending::Rejected(rejection)) => Some(rejection.clone()),
            _ => None,
        };
        match refused {
            Some(rejection) => {
                state.operations.remove(&id);
                state.by_name.remove(&name);
                Err(rejection)
            }
            None => Ok(operation),
        }
    }

    /// An operation by its name.
    pub(super) fn find(&self, name: &str) -> Option<Operation> {
        let state = self.lock();
        let known = state.operations.get(state.by_name.get(name)?)?;
        Some(known.operation.clone())
    }

    /// A client waits for an operation once more.
    pub(super) fn attach(&self, operation: &Operation) {
        self.apply(&mut self.lock(), Command::Attach(operation.id), None);
    }

    /// A client does not wait any longer.
    pub(super) fn detach(&self, operation: &Operation) {
        self.apply(&mut self.lock(), Command::Detach(operation.id), None);
    }

    /// A worker is there, for the first time or once more.
    pub(super) fn join(
        &self,
        process: &str,
        offer: Offer,
        models: BTreeSet<String>,
        holds: BTreeSet<LeaseId>,
    ) -> Connection {
        let mut state = self.lock();
        let fresh = state.number();
        let worker = *state.by_process.entry(process.to_owned()).or_insert(WorkerId(fresh));
        let (sender, messages) = mpsc::channel(WORKER_MESSAGES_MAX);
        let number = state.number();
        let stream = Stream { process: process.to_owned(), number, sender };
        state.workers.insert(worker, stream);
        self.apply(&mut state, Command::Join { worker, offer, models, holds }, None);
        Connection { worker, number, messages }
    }

    /// A worker is alive.
    pub(super) fn heartbeat(
        &self,
        worker: WorkerId,
        holds: BTreeSet<LeaseId>,
        models: BTreeSet<String>,
    ) {
        self.apply(&mut self.lock(), Command::Heartbeat { worker, holds, models }, None);
    }

    /// A worker takes no more.
    pub(super) fn drain(&self, worker: WorkerId) {
        self.apply(&mut self.lock(), Command::Drain(worker), None);
    }

    /// The stream of a worker ended. One that may go for good goes; others may come back until the
    /// scheduler counts them as lost.
    pub(super) fn disconnected(&self, connection: &Connection, for_good: bool) {
        let mut state = self.lock();
        let worker = connection.worker;
        let stream = state.workers.get(&worker);
        if stream.is_none_or(|stream| stream.number != connection.number) {
            return;
        }
        if for_good {
            self.apply(&mut state, Command::Leave(worker), None);
            if let Some(stream) = state.workers.remove(&worker) {
                state.by_process.remove(&stream.process);
            }
        }
    }

    /// The action of a lease that a worker holds; `None` where what it says of it counts for
    /// nothing.
    pub(super) fn held_by(&self, worker: WorkerId, lease: LeaseId) -> Option<Action> {
        let state = self.lock();
        let known = state.leases.get(&lease).filter(|known| known.worker == worker)?;
        state.scheduler.has_lease(lease).then(|| known.action.clone())
    }

    /// A worker is done with a lease, with a response where there is one.
    pub(super) fn finished(
        &self,
        worker: WorkerId,
        lease: LeaseId,
        response: Option<Arc<reapi::ExecuteResponse>>,
    ) {
        let outcome = if response.is_some() { Outcome::Result } else { Outcome::Fault };
        let command = Command::Finished { worker, lease, outcome };
        self.apply(&mut self.lock(), command, response);
    }

    /// Has a worker know that its report has arrived.
    pub(super) fn taken(&self, worker: WorkerId, lease: LeaseId) {
        let taken = Message::Taken(worker::Taken { lease: lease.0 });
        self.lock().tell(worker, taken);
    }

    fn apply(
        &self,
        state: &mut State,
        command: Command,
        response: Option<Arc<reapi::ExecuteResponse>>,
    ) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for decision in state.scheduler.apply(command, now_ms) {
            state.pass_on(decision, response.as_ref());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn pass_on(&mut self, decision: Decision, response: Option<&Arc<reapi::ExecuteResponse>>) {
        match decision {
            Decision::Assigned(assignment) => self.assign(assignment),
            Decision::Revoked { lease, worker } => {
                self.leases.remove(&lease);
                self.tell(worker, Message::Revoke(worker::Revoke { lease: lease.0 }));
            }
            Decision::Dismissed { worker } => {
                self.tell(worker, Message::Dismiss(worker::Dismiss {}));
            }
            Decision::Drained { worker } => self.tell(worker, Message::Drained(worker::Drained {})),
            Decision::Staged { operation, stage } => {
                if let Some(known) = self.operations.get(&operation) {
                    known.sender.send_replace(Progress::Stage(stage));
                }
            }
            Decision::Ended { operation, ending } => {
                let Some(known) = self.operations.get(&operation) else { return };
                self.ended.push_back((Instant::now(), operation));
                known.sender.send_replace(match (ending, response) {
                    (Ending::Result(_), Some(response)) => Progress::Response(response.clone()),
                    (ending, _) => Progress::Ended(ending),
                });
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let Assignment { lease, worker, action, gpus, .. } = assignment;
        let wire = wire_digest(&action.digest);
        let message = worker::Assign {
            lease: lease.0,
            instance_name: action.instance.to_string(),
            digest_function: function_value(action.digest.function),
            action_hash: wire.hash,
            action_size_bytes: wire.size_bytes,
            gpus,
        };
        self.leases.insert(lease, Lease { worker, action });
        self.tell(worker, Message::Assign(message));
    }

    /// Tells a worker something. One whose stream is broken says when it comes back what it has.
    fn tell(&mut self, worker: WorkerId, message: Message) {
        let Some(stream) = self.workers.get_mut(&worker) else { return };
        let message = worker::ToWorker { message: Some(message) };
        if stream.sender.try_send(message).is_err() {
            // Whoever reads too slowly has to come back, and then says what it holds.
            stream.sender = mpsc::channel(1).0;
        }
    }

    /// Lets go of what nobody will ask for any more.
    fn forget(&mut self) {
        while let Some((since, id)) = self.ended.front().copied()
            && (since.elapsed() > REMEMBERED || self.ended.len() > REMEMBERED_MAX)
        {
            self.ended.pop_front();
            if let Some(known) = self.operations.remove(&id) {
                self.by_name.remove(&known.operation.name);
            }
        }
        let Self { leases, scheduler, workers, by_process, .. } = self;
        leases.retain(|lease, _| scheduler.has_lease(*lease));
        workers.retain(|worker, stream| {
            let stays = !stream.sender.is_closed() || scheduler.has_worker(*worker);
            if !stays {
                by_process.remove(&stream.process);
            }
            stays
        });
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
