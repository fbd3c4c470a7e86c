//! What actions are run with: a store and a runner for each digest function, job slots, and the way
//! to the blobs of each instance.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maestro_cas::Lease;
use maestro_cas::{GcOptions, Store, StoreError, StoreOptions};
use maestro_core::DigestFunction;
use maestro_core::key::SandboxProfile;
use maestro_executor::command::{CommandOptions, CommandRunner};
use maestro_executor::runner::Cancel;
use prost::Message as _;

use super::assignment::{Assignment, Failure};
use super::{WorkerError, WorkerOptions, lock};
use crate::client::link::Link;
use crate::client::{ClientOptions, Shared};
use crate::convert;
use crate::protos::worker::{Assign, finished::Outcome};

/// How often what lies there is brought below its bound.
pub(super) const COLLECTED_EVERY: Duration = Duration::from_secs(60);
/// How long actions share a lease on the store; what one of them uses stays as long.
const LEASE_SHARED: Duration = Duration::from_secs(60);
/// Most instances whose connections are kept.
const INSTANCES_MAX: usize = 64;

/// What actions are run with.
pub(super) struct Bench {
    server: ClientOptions,
    link: Link,
    places: [Place; 2],
    /// Connections by instance and digest function.
    blobs: Mutex<HashMap<(String, DigestFunction), Arc<Shared>>>,
    slots: Mutex<Slots>,
}

/// A store with what runs commands over it.
struct Place {
    function: DigestFunction,
    store: Store,
    runner: Arc<CommandRunner>,
    lease: Mutex<Option<(Instant, Arc<Lease>)>>,
}

/// Numbers of job slots.
#[derive(Default)]
struct Slots {
    free: BTreeSet<u32>,
    made: u32,
}

impl Bench {
    pub(super) fn open(options: &WorkerOptions) -> Result<Self, WorkerError> {
        Ok(Self {
            server: options.server.clone(),
            link: Link::new(&options.server)?,
            places: [
                Place::open(options, DigestFunction::Sha256, "sha256")?,
                Place::open(options, DigestFunction::Blake3, "blake3")?,
            ],
            blobs: Mutex::default(),
            slots: Mutex::default(),
        })
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Runs an assignment; `None` where nobody wants to know any more.
    pub(super) async fn run(
        &self,
        options: &WorkerOptions,
        assign: Assign,
        cancel: Cancel,
    ) -> Option<Outcome> {
        let slot = lock(&self.slots).take();
        let done = match self.assignment(options, &assign, slot, cancel) {
            Ok((assignment, lease)) => {
                let done = assignment.run().await;
                drop(lease);
                done
            }
            Err(failure) => Err(failure),
        };
        lock(&self.slots).free.insert(slot);
        match done {
            Ok(response) => Some(Outcome::Response(response.encode_to_vec())),
            Err(Failure::Refused(status)) => {
                use bazel_remote_apis::build::bazel::remote::execution::v2::ExecuteResponse;
                let response = ExecuteResponse { status: Some(status), ..Default::default() };
                Some(Outcome::Response(response.encode_to_vec()))
            }
            Err(Failure::Fault(why)) => {
                tracing::warn!(why, action = assign.action_hash, "an action could not be run");
                Some(Outcome::Fault(why))
            }
            Err(Failure::Cancelled) => None,
        }
    }

    fn assignment(
        &self,
        options: &WorkerOptions,
        assign: &Assign,
        slot: u32,
        cancel: Cancel,
    ) -> Result<(Assignment, Arc<Lease>), Failure> {
        let odd = |error: convert::ConvertError| Failure::Fault(error.to_string());
        let function = convert::function(assign.digest_function).map_err(odd)?;
        let (hash, size_bytes) = (assign.action_hash.clone(), assign.action_size_bytes);
        let wire =
            bazel_remote_apis::build::bazel::remote::execution::v2::Digest { hash, size_bytes };
        let action = convert::digest(function, &wire).map_err(odd)?;
        let place = self.places.iter().find(|place| place.function == function);
        let place = place.ok_or_else(|| Failure::Fault("no store".to_owned()))?;
        let lease = place.lease()?;
        let assignment = Assignment {
            action,
            blobs: self.blobs(&assign.instance_name, place)?,
            store: place.store.clone(),
            runner: Arc::clone(&place.runner),
            slot,
            cancel,
            worker: options.name.clone(),
        };
        Ok((assignment, lease))
    }

    /// The way to the blobs of an instance.
    fn blobs(&self, instance: &str, place: &Place) -> Result<Arc<Shared>, Failure> {
        let mut known = lock(&self.blobs);
        let key = (instance.to_owned(), place.function);
        if let Some(blobs) = known.get(&key) {
            return Ok(Arc::clone(blobs));
        }
        if known.len() >= INSTANCES_MAX {
            known.clear();
        }
        let options = ClientOptions { instance: instance.to_owned(), ..self.server.clone() };
        let blobs = Shared::new(options, &place.store);
        let blobs = Arc::new(blobs.map_err(|error| Failure::Fault(error.to_string()))?);
        known.insert(key, Arc::clone(&blobs));
        Ok(blobs)
    }

    /// Brings what lies in the stores below a bound, half for each at worst.
    pub(super) fn collect(&self, bytes_max: u64) {
        for place in &self.places {
            place.lease_anew();
            let options = GcOptions { bytes_max: Some(bytes_max / 2), ..GcOptions::default() };
            match place.store.gc(options) {
                Ok(report) if report.bytes_removed > 0 => {
                    tracing::info!(bytes = report.bytes_removed, "blobs were let go");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "blobs cannot be let go"),
            }
        }
    }
}

impl Place {
    fn open(
        options: &WorkerOptions,
        function: DigestFunction,
        name: &str,
    ) -> Result<Self, StoreError> {
        let root: PathBuf = options.data.join(name);
        let store = Store::open(StoreOptions { root, function })?;
        let cores = usize::try_from(options.cpu_milli.div_ceil(1_000)).unwrap_or(1);
        let runner = CommandRunner::new(
            &store,
            CommandOptions {
                program: options.program.clone(),
                slots: cores,
                profile: SandboxProfile::Hermetic,
                host: options.host.clone(),
                workspace: None,
            },
        );
        Ok(Self { function, store, runner: Arc::new(runner), lease: Mutex::default() })
    }

    /// A lease that keeps what an action uses.
    fn lease(&self) -> Result<Arc<Lease>, Failure> {
        let mut shared = lock(&self.lease);
        if let Some((since, lease)) = &*shared
            && since.elapsed() < LEASE_SHARED
        {
            return Ok(Arc::clone(lease));
        }
        let lease = Arc::new(self.store.lease()?);
        *shared = Some((Instant::now(), Arc::clone(&lease)));
        Ok(lease)
    }

    /// Keeps nothing longer than the actions that run.
    fn lease_anew(&self) {
        *lock(&self.lease) = None;
    }
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.made += 1;
            self.made - 1
        })
    }
}
