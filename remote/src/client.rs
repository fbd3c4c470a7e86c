//! The client of a remote cache: finds results that others left, fetches their blobs when somebody
//! reads them, and leaves what was run here.
//!
//! | module | what it owns |
//! |---|---|
//! | `link` | the connection, headers, patience, what is tried again |
//! | `backoff` | when to try again, and when to leave a server alone; pure |
//! | `abilities` | what the server says that it can do |
//! | `lookup` | finding results |
//! | `execute` | actions that the server's workers run |
//! | `fetch` | blobs that come |
//! | `send` | blobs that go |
//! | `leaving` | results that go, in the background |
//! | `results`, `trees` | what results and trees look like on the wire |
//!
//! Nothing that comes is trusted: a blob is hashed before it is stored, a result is used only if it
//! is one that this build could have made, and a directory only if it is canonical.
//!
//! A cache is a help, not a need: one that does not answer is left alone for a while, the user is
//! told once, and the build goes on; unless the user said that it must not.

mod abilities;
mod backoff;
mod execute;
mod fetch;
mod leaving;
pub(crate) mod link;
mod lookup;
mod results;
pub(crate) mod send;
pub(crate) mod trees;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maestro_cas::{Store, StoreError};
use maestro_core::key::Prepared;
use maestro_core::wire::ActionResult;
use maestro_core::{ActionKey, Digest, limits};
use maestro_executor::remote_cache::{Errand, Executed, RemoteCache, RemoteError};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use abilities::Abilities;
use link::{CallError, Link};

/// Which cache, and how it is used.
#[derive(Clone)]
pub struct ClientOptions {
    /// Where it is: `grpc://HOST:PORT`, or `grpcs://HOST:PORT` for an encrypted connection.
    pub url: String,
    /// The instance of the server; empty where it has but one.
    pub instance: String,
    /// What every call carries besides, such as a token; by name.
    pub headers: Vec<(String, String)>,
    /// Who is believed, and who we are.
    pub tls: TlsOptions,
    /// How long the server may be silent.
    pub silence: Duration,
    /// Whether what is run here is left for others.
    pub upload: bool,
    /// Whether actions are run there, where they may be.
    pub execute: bool,
    /// Which blobs of results are brought here.
    pub download: Download,
    /// Whether blobs travel compressed where the server can.
    pub compress: bool,
    /// Whether a build fails that cannot reach it.
    pub required: bool,
    /// The version of Maestro.
    pub version: String,
    /// The id of the invocation.
    pub invocation_id: String,
}

/// Which blobs of results that are found are brought into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Download {
    /// Those that somebody reads.
    WhatIsRead,
    /// All.
    All,
}

/// How a connection is encrypted.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// The certificate of the authority that is believed instead of the system's, in PEM.
    pub authority: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and keys are secrets.
        let Self { url, instance, upload, required, .. } = self;
        f.debug_struct("ClientOptions")
            .field("url", url)
            .field("instance", instance)
            .field("upload", upload)
            .field("required", required)
            .finish_non_exhaustive()
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The address is none.
    #[error("`{url}` is not the address of a remote cache: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A header cannot be sent.
    #[error("the header `{name}` has a name or a value that cannot be sent")]
    Header {
        /// Its name. Its value may be a secret.
        name: String,
    },
    /// The instance is none.
    #[error(transparent)]
    Instance(#[from] crate::resource::InstanceError),
    /// The certificates cannot be used.
    #[error("the certificates for the remote cache cannot be used")]
    Certificates(#[source] tonic::transport::Error),
    /// No threads can be had.
    #[error("cannot start the threads of the remote cache")]
    Threads(#[source] std::io::Error),
}

/// What a client did for a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of blobs that came, unpacked.
    pub fetched_bytes: u64,
    /// Bytes of blobs that went, unpacked.
    pub sent_bytes: u64,
    /// Results that were left for others.
    pub left_results: u64,
    /// Results that could not be left.
    pub lost_results: u64,
}

/// A remote cache. Used by many threads at once.
pub struct Client {
    shared: Arc<Shared>,
    /// Where the calls run; ended without waiting for them.
    runtime: Option<Runtime>,
}

/// What all calls have in common.
pub(crate) struct Shared {
    options: ClientOptions,
    store: Store,
    link: Link,
    abilities: OnceCell<Abilities>,
    /// Nothing is asked any more: the server is not one for us.
    off: AtomicBool,
    /// It has nobody who runs actions.
    no_workers: AtomicBool,
    news: Mutex<Vec<String>>,
    /// What the server is known to have.
    present: Mutex<HashSet<Digest>>,
    /// Trees of which it is known to have everything, by their roots.
    whole: Mutex<HashSet<Digest>>,
    /// Held while trees go: of many actions with one toolchain, one sends it.
    tree_lane: tokio::sync::Mutex<()>,
    /// What it was found not to have although a result of it says so.
    gone: Mutex<HashSet<Digest>>,
    /// Results that were found, to be kept once their blobs are here.
    found: Mutex<Vec<(ActionKey, ActionResult)>>,
    leaving: TaskTracker,
    /// How many results are on their way at once.
    lanes: Semaphore,
    fetched_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    left_results: AtomicU64,
    lost_results: AtomicU64,
}

/// Why something was not done.
pub(crate) enum Trouble {
    /// The server.
    Call(CallError),
    /// The server does not do what we need.
    Unfit(String),
    /// Our own store.
    Store(StoreError),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Client {
    /// A client over a store. Connects when it is first asked something.
    pub fn new(options: ClientOptions, store: &Store) -> Result<Self, OptionsError> {
        crate::resource::check_instance(&options.instance)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("remote-cache")
            .enable_all()
            .build()
            .map_err(OptionsError::Threads)?;
        let shared = {
            let _entered = runtime.enter();
            Shared::new(options, store)?
        };
        Ok(Self { shared: Arc::new(shared), runtime: Some(runtime) })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.shared.options.url
    }

    /// How many results are still on their way.
    pub fn pending(&self) -> usize {
        self.shared.leaving.len()
    }

    /// Waits until all results are left, for at most so long; says whether they are.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.leaving.close();
        let Some(runtime) = &self.runtime else { return true };
        let all = async { tokio::time::timeout(patience, self.shared.leaving.wait()).await };
        runtime.block_on(all).is_ok()
    }

    /// Keeps the results that were found in the store, where all that they name is there by now.
    pub fn keep_found(&self) -> Result<(), StoreError> {
        for (key, result) in std::mem::take(&mut *lock(&self.shared.found)) {
            match self.shared.store.put_action_result(&key, &result) {
                Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {}
                kept => kept?,
            }
        }
        Ok(())
    }

    /// What was done so far.
    pub fn traffic(&self) -> Traffic {
        let Shared { fetched_bytes, sent_bytes, left_results, lost_results, .. } = &*self.shared;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            fetched_bytes: get(fetched_bytes),
            sent_bytes: get(sent_bytes),
            left_results: get(left_results),
            lost_results: get(lost_results),
        }
    }

    fn block_on<T>(&self, call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => Err(CallError::Off.into()),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl RemoteCache for Client {
    fn find(&self, key: &ActionKey) -> Result<Option<ActionResult>, RemoteError> {
        let found = self.block_on(self.shared.find(key));
        Ok(self.shared.judge(found)?.flatten())
    }

    fn used(&self, key: &ActionKey, result: &ActionResult) {
        lock(&self.shared.found).push((*key, result.clone()));
    }

    fn fetch(&self, digests: &[Digest]) -> Result<Vec<Digest>, RemoteError> {
        let lost = self.block_on(self.shared.fetch(digests));
        let Some(lost) = self.shared.judge(lost)? else { return Ok(digests.to_vec()) };
        // The server answered: a result that names these is of no use.
        lock(&self.shared.gone).extend(lost.iter().copied());
        Ok(lost)
    }

    fn leave(&self, prepared: &Prepared, result: &ActionResult) {
        if let Some(runtime) = &self.runtime
            && self.shared.options.upload
            && !self.shared.is_off()
        {
            let (shared, left) = (self.shared.clone(), leaving::Left::new(prepared, result));
            self.shared.leaving.spawn_on(shared.leave(left), runtime.handle());
        }
    }

    fn execute(&self, errand: &Errand<'_>) -> Result<Option<Executed>, RemoteError> {
        let shared = &self.shared;
        if !shared.options.execute || shared.no_workers.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.block_on(shared.execute(errand)) {
            Err(Trouble::Call(CallError::Refused(status)))
                if status.code() == Code::FailedPrecondition =>
            {
                shared.without_workers(&status)
            }
            executed => shared.judge(executed),
        }
    }

    fn news(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.news))
    }

    fn callers(&self) -> usize {
        if self.shared.options.execute { EXECUTORS } else { CALLERS }
    }
}

impl Shared {
    /// Must be called in a runtime.
    pub(crate) fn new(options: ClientOptions, store: &Store) -> Result<Self, OptionsError> {
        let link = Link::new(&options)?;
        Ok(Self {
            options,
            store: store.clone(),
            link,
            abilities: OnceCell::new(),
            off: AtomicBool::new(false),
            no_workers: AtomicBool::new(false),
            news: Mutex::default(),
            present: Mutex::default(),
            whole: Mutex::default(),
            tree_lane: tokio::sync::Mutex::default(),
            gone: Mutex::default(),
            found: Mutex::default(),
            leaving: TaskTracker::new(),
            lanes: Semaphore::new(LANES),
            fetched_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            left_results: AtomicU64::new(0),
            lost_results: AtomicU64::new(0),
        })
    }

    fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Turns what went wrong into what the build does about it: nothing, where it may go on.
    fn judge<T>(&self, done: Result<T, Trouble>) -> Result<Option<T>, RemoteError> {
        let url = &self.options.url;
        let (message, is_news) = match done {
            Ok(done) => return Ok(Some(done)),
            Err(Trouble::Store(error)) => return Err(error.into()),
            Err(Trouble::Call(CallError::Off)) => {
                (format!("the remote cache `{url}` is not used any more"), false)
            }
            Err(Trouble::Call(CallError::Lost { status, is_news })) => {
                let why = link::text(&status);
                (format!("the remote cache `{url}` does not answer: {why}"), is_news)
            }
            Err(Trouble::Call(CallError::Refused(status))) => self.refusal(&status),
            Err(Trouble::Unfit(why)) => {
                let was_off = self.off.swap(true, Ordering::Relaxed);
                (format!("the remote cache `{url}` cannot be used: {why}"), !was_off)
            }
        };
        if self.options.required {
            let hint = "without `--remote-required` the build goes on without it".to_owned();
            return Err(RemoteError::Lost { message, hints: vec![hint] });
        }
        if is_news {
            lock(&self.news).push(format!("{message}; the build goes on without it"));
        }
        Ok(None)
    }

    /// The server has nobody to run actions: the rest of the build runs here.
    fn without_workers<T>(&self, status: &Status) -> Result<Option<T>, RemoteError> {
        let url = &self.options.url;
        let message = format!("actions cannot run at `{url}`: {}", link::text(status));
        if self.options.required {
            let hint = "without `--remote-required` they run here".to_owned();
            return Err(RemoteError::Lost { message, hints: vec![hint] });
        }
        if !self.no_workers.swap(true, Ordering::Relaxed) {
            lock(&self.news).push(format!("{message}; they run here"));
        }
        Ok(None)
    }

    /// Whoever is refused for who they are need not ask again.
    fn refusal(&self, status: &Status) -> (String, bool) {
        let url = &self.options.url;
        let why = link::text(status);
        let for_good = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
        );
        let was_off = for_good && self.off.swap(true, Ordering::Relaxed);
        (format!("the remote cache `{url}` refuses a call: {why}"), !was_off)
    }

    /// The capabilities of the server, asked for once.
    async fn abilities(&self) -> Result<&Abilities, Trouble> {
        if self.is_off() {
            return Err(CallError::Off.into());
        }
        self.abilities.get_or_try_init(|| self.ask_abilities()).await
    }

    /// Asks the server anew what it has: it may have let go of something since.
    pub(crate) fn forget_present(&self) {
        lock(&self.present).clear();
        lock(&self.whole).clear();
    }

    fn note_present(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut present = lock(&self.present);
        present.extend(digests);
        if present.len() > limits::REMOTE_PRESENT_MAX {
            present.clear();
        }
    }
}

/// Threads on which calls run; they wait most of the time.
const RUNTIME_THREADS: usize = 2;
/// How many results are left at once.
const LANES: usize = 8;
/// How many threads look results up beside those that run actions.
const CALLERS: usize = 16;
/// As above, where they also wait for actions that run there.
const EXECUTORS: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
