//! `cd.rollout`: brings a version to an environment, at once or in steps that a probe decides.
//!
//! | module | what it owns |
//! |---|---|
//! | `inputs` | the fields of the step, what must hold between them, and the request |
//! | `drive` | how a rollout goes on from wherever it stands |
//! | `ledger` | the far side that remembers that it began and how it ended |
//! | `repository` | the ledger of GitOps: commits with trailers |
//! | `gate` | the ledger of an HTTP deployment gate |
//! | `git` | calls of git without a working tree |
//! | `edit` | changes of single values in YAML and JSON |
//! | `traffic` | the proxy that splits traffic, in two dialects |
//! | `probe` | who is asked whether all is well, and what counts as bad |
//!
//! Sending begins a rollout; asking for one that began goes on with it, since its far side is all
//! that there is to know. A rollout that is cancelled stays at the weight that it has reached, and
//! says so; one that was rolled back is refused, with what the probe said.

mod drive;
mod edit;
mod gate;
mod git;
mod inputs;
mod ledger;
mod probe;
mod repository;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maestro_core::run::Failure;
use maestro_core::run::event::Success;
use maestro_executor::leftovers::end_leftovers;
use maestro_executor::step::{Effect, Found, Reach, Reply, Stop};
use reqwest::Client;
use serde_json::Value;

use crate::inputs::{check_key, http_url, restore, store};
use crate::secrets::{self, Secrets};
use crate::{DeliverError, DeliverOptions, http};
use drive::{Drive, Outcome};
use gate::Gate;
use git::Git;
use inputs::{Request, Via};
use ledger::{Entry, Ledger, Trouble};
use repository::Repository;
use traffic::Traffic;

/// What steps call it.
pub const USES: &str = "cd.rollout";

/// How long the ledger may still be asked, once the run is cancelled, how the rollout stands.
const LOOK_LAST: Duration = Duration::from_secs(12);

/// Rolls out.
pub struct Rollout {
    http: Client,
    options: DeliverOptions,
    secrets: Arc<dyn Secrets>,
}

/// What a call came to.
enum Ended {
    /// The far side knows nothing of it.
    Absent,
    Done(Success),
    Refused(Failure),
    Stands(Failure),
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done(success) => Self::Done(success),
            Outcome::Refused(failure) => Self::Refused(failure),
            Outcome::Stands(failure) => Self::Stands(failure),
        }
    }
}

impl Rollout {
    /// One that takes credentials from `secrets`.
    pub fn new(options: DeliverOptions, secrets: Arc<dyn Secrets>) -> Result<Self, DeliverError> {
        Ok(Self { http: http::client()?, options, secrets })
    }

    /// The far side that remembers this rollout.
    async fn ledger<'a>(
        &'a self,
        request: &'a Request,
        key: &'a str,
        stop: &Stop,
    ) -> Result<Box<dyn Ledger + 'a>, Failure> {
        check_key(key)?;
        Ok(match &request.via {
            Via::Gitops { repository, branch, change, auth } => {
                let auth = secrets::find(&*self.secrets, auth.as_deref())?;
                let git = Git::open(&self.options, repository, branch, auth.as_ref(), stop).await?;
                let (env, subject) = (&request.env, &request.subject);
                let goes_on = request.traffic.is_some() || request.watch.is_some();
                Box::new(Repository { git, key, env, subject, change, goes_on })
            }
            Via::Gate { url, auth, .. } => Box::new(Gate {
                http: &self.http,
                url: http_url("gate", url)?,
                key,
                auth: secrets::find(&*self.secrets, auth.as_deref())?,
                document: request.document(),
                moves_traffic: request.traffic.is_some(),
                watches: request.watch.is_some(),
            }),
        })
    }

    /// Goes on with what began, or begins if `begin` says so.
    async fn run(&self, request: &str, key: &str, begin: bool, stop: &Stop) -> Ended {
        // Until something is sent nothing is unclear, unless an earlier call sent it.
        let early = match begin {
            true => Ended::Refused,
            false => Ended::Stands,
        };
        let request: Request = match restore(USES, request) {
            Ok(request) => request,
            Err(failure) => return early(failure),
        };
        // A probe may have outlived the process that asked it.
        end_leftovers(key).await;
        // What is being taken back is found and ended, whoever has cancelled the run meanwhile.
        let (own, time) = match begin {
            true => (stop.clone(), Duration::ZERO),
            false => (Stop::new(), LOOK_LAST),
        };
        let looked = outlasting((stop, time), &own, async {
            let ledger = self.ledger(&request, key, &own).await?;
            let entry = ledger.look(&own).await;
            Ok((ledger, entry))
        });
        let (ledger, entry) = match looked.await {
            Ok(looked) => looked,
            Err(failure) => return early(failure),
        };
        let drive = Drive {
            ledger: &*ledger,
            traffic: request.traffic.as_ref().map(|target| Traffic {
                http: &self.http,
                proxy: target.proxy,
                url: &target.url,
            }),
            weights: &request.weights,
            watch: request.watch.as_ref(),
            automatic: request.automatic,
            env: &request.env,
            key,
            http: &self.http,
            options: &self.options,
        };
        let entry = match entry {
            Ok(Entry::Absent) if !begin => return Ended::Absent,
            Ok(Entry::Absent) => match drive.begin(stop).await {
                Ok(begun) => Entry::Begun(begun),
                Err(Trouble::Refused(failure)) => return Ended::Refused(failure),
                Err(Trouble::Unclear(failure)) => return Ended::Stands(failure),
            },
            Ok(entry) => entry,
            Err(trouble) => return early(trouble.failure()),
        };
        drive.go_on(entry, stop).await.into()
    }
}

/// Does work whose own stop comes that long after another one.
async fn outlasting<T>(
    (stop, time): (&Stop, Duration),
    own: &Stop,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(time).await;
    };
    tokio::select! {
        done = &mut work => return done,
        () = late => own.cancel(),
    }
    work.await
}

#[async_trait]
impl Effect for Rollout {
    fn render(&self, inputs: &Value) -> Result<String, Failure> {
        store(USES, Request::of(inputs, &self.options.folder)?)
    }

    fn reach(&self, inputs: &Value) -> Result<Reach, Failure> {
        Ok(Request::of(inputs, &self.options.folder)?.reach())
    }

    async fn send(&self, request: &str, key: &str, cancel: &Stop) -> Reply {
        match self.run(request, key, true, cancel).await {
            Ended::Done(success) => Reply::Done(success),
            Ended::Stands(failure) => Reply::Unclear(failure),
            Ended::Refused(failure) => Reply::Refused(failure),
            Ended::Absent => Reply::Refused(crate::failures::user("the far side lost the rollout")),
        }
    }

    async fn find(&self, request: &str, key: &str, cancel: &Stop) -> Found {
        match self.run(request, key, false, cancel).await {
            Ended::Done(success) => Found::Done(success),
            // Sending tells why, as often as it is asked: the far side has noted it.
            Ended::Absent | Ended::Refused(_) => Found::NotDone,
            Ended::Stands(failure) => Found::Unclear(failure.message),
        }
    }
}
