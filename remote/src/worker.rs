//! A worker: connects to a server, runs the actions that it is given, says what came of them.
//!
//! | module | what it owns |
//! |---|---|
//! | `session` | one stream to the server: what is said, and when |
//! | `bench` | what actions are run with: stores, runners, job slots, what is collected |
//! | `assignment` | one action, from its digest to its report |
//! | `reply` | what a command was asked to make, and the response |
//!
//! What runs outlives a stream that breaks: the worker comes back, names the leases that it holds,
//! and is told which of them still count.

mod assignment;
mod bench;
mod reply;
mod session;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maestro_cas::StoreError;
use maestro_core::scheduler::Gpu;
use maestro_executor::runner::Cancel;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::client::{ClientOptions, OptionsError};
use crate::protos::worker as wire;
use bench::Bench;

/// How long a worker waits at least, and at most, before it connects again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Who a worker is, what it offers, and where it works.
pub struct WorkerOptions {
    /// The server. Its instance and its promises to builds are of no account.
    pub server: ClientOptions,
    /// A name for people.
    pub name: String,
    /// Where blobs and the folders of actions lie.
    pub data: PathBuf,
    /// Bytes that may lie there.
    pub bytes_max: u64,
    /// The program that serves as spawn server.
    pub program: PathBuf,
    /// Folders of this machine that actions see which bring no toolchains.
    pub host: Vec<PathBuf>,
    /// What actions can ask for, by name and value.
    pub properties: Vec<(String, String)>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Devices.
    pub gpus: Vec<Gpu>,
    /// Language models that are loaded.
    pub models: Vec<String>,
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The server cannot be reached that way.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Blobs cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is there, and does not want this worker.
    #[error("the server refuses this worker: {why}")]
    Refused {
        /// What it says.
        why: String,
    },
}

/// What became of a lease here.
enum Held {
    /// It runs.
    Running(Cancel),
    /// It has ended; the server does not know yet.
    Ended(wire::Finished),
}

/// A worker.
pub struct Worker {
    options: WorkerOptions,
    /// A name that no other process ever has.
    process: String,
    bench: Bench,
    held: Mutex<HashMap<u64, Held>>,
    /// Something has ended.
    ended: Notify,
}

/// What a worker tells whoever started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is connected.
    Connected,
    /// It is not, for this reason, and tries again.
    Disconnected(String),
}

impl Worker {
    /// Opens the stores. Must be called in a runtime of several threads.
    pub fn open(options: WorkerOptions) -> Result<Arc<Self>, WorkerError> {
        let bench = Bench::open(&options)?;
        let process = uuid::Uuid::now_v7().to_string();
        let (held, ended) = (Mutex::default(), Notify::new());
        Ok(Arc::new(Self { options, process, bench, held, ended }))
    }

    /// Works until `drain` is asked for and nothing is left to do.
    pub async fn run(
        self: &Arc<Self>,
        drain: CancellationToken,
        mut tell: impl FnMut(News),
    ) -> Result<(), WorkerError> {
        let upkeep = tokio::spawn(Arc::clone(self).keep_up());
        let mut pause = PAUSES.0;
        let end = loop {
            match session::run(self, &drain, &mut || tell(News::Connected)).await {
                session::End::Drained => break Ok(()),
                session::End::Refused(why) => break Err(WorkerError::Refused { why }),
                session::End::Dismissed => self.stop_all(),
                session::End::Broken { why, was_open } => {
                    if was_open {
                        pause = PAUSES.0;
                    }
                    tell(News::Disconnected(why));
                }
            }
            // A worker that is to go and cannot say so has nobody to work for.
            if drain.is_cancelled() && lock(&self.held).is_empty() {
                break Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        };
        upkeep.abort();
        self.stop_all();
        end
    }

    /// Begins with an assignment, unless it was begun before.
    fn begin(self: &Arc<Self>, assign: wire::Assign) {
        let cancel = Cancel::default();
        {
            let mut held = lock(&self.held);
            if held.contains_key(&assign.lease) {
                return;
            }
            held.insert(assign.lease, Held::Running(cancel.clone()));
        }
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            let lease = assign.lease;
            let outcome = worker.bench.run(&worker.options, assign, cancel).await;
            let mut held = lock(&worker.held);
            match outcome {
                Some(outcome) if held.contains_key(&lease) => {
                    let report = wire::Finished { lease, outcome: Some(outcome) };
                    held.insert(lease, Held::Ended(report));
                }
                _ => {
                    held.remove(&lease);
                }
            }
            worker.ended.notify_one();
        });
    }

    /// Stops what runs for a lease, and forgets it.
    fn revoke(&self, lease: u64) {
        if let Some(Held::Running(cancel)) = lock(&self.held).remove(&lease) {
            cancel.cancel();
        }
    }

    fn stop_all(&self) {
        for (_, held) in lock(&self.held).drain() {
            if let Held::Running(cancel) = held {
                cancel.cancel();
            }
        }
    }

    fn leases(&self) -> Vec<u64> {
        lock(&self.held).keys().copied().collect()
    }

    async fn keep_up(self: Arc<Self>) {
        loop {
            tokio::time::sleep(bench::COLLECTED_EVERY).await;
            let worker = Arc::clone(&self);
            let bytes_max = self.options.bytes_max;
            let _ = tokio::task::spawn_blocking(move || worker.bench.collect(bytes_max)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
