//! The service that workers connect to: who is there, what they are given, what they report.
//!
//! A worker is believed what its command did, and nothing else: a report counts only under a lease
//! that is alive, and only if every blob that it names is there. One that lies about its outputs is
//! at fault, and the action is run by another.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use futures_util::Stream;
use maestro_cas::Depot;
use maestro_cas::depot::Space;
use maestro_core::limits;
use maestro_core::scheduler::{Action, Gpu, LeaseId, Offer};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Need;
use super::action_cache;
use super::contents::has;
use super::context::{Context, absent, status, whole};
use super::dispatch::{Connection, Dispatch};
use crate::names;
use crate::protos::worker::workers_server::Workers;
use crate::protos::worker::{
    FromWorker, Join, ToWorker, finished::Outcome, from_worker::Message as From,
};

/// The service.
#[derive(Clone)]
pub(super) struct Pool {
    pub(super) context: Context,
    pub(super) dispatch: Arc<Dispatch>,
}

/// Why the stream of a worker ends.
const REPLACED: &str = "the server stops, or the worker has another stream, or reads too slowly";
/// Messages to a worker that wait to be sent.
const MESSAGES_AHEAD: usize = 16;

#[tonic::async_trait]
impl Workers for Pool {
    type WorkStream = Pin<Box<dyn Stream<Item = Result<ToWorker, Status>> + Send>>;

    async fn work(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let (_, extensions, mut stream) = request.into_parts();
        self.context.check(&extensions, "", Need::Work)?;
        let Some(FromWorker { message: Some(From::Join(join)) }) = stream.message().await? else {
            return Err(Status::invalid_argument("the first message is not `Join`"));
        };
        let connection = self.join(join)?;
        let (sender, messages) = mpsc::channel(MESSAGES_AHEAD);
        tokio::spawn(self.clone().serve(connection, stream, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

impl Pool {
    fn join(&self, join: Join) -> Result<Connection, Status> {
        if join.process.is_empty() || join.process.len() > limits::NAME_BYTES_MAX {
            return Err(Status::invalid_argument("`process` is empty or too long"));
        }
        let mut properties: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for property in join.properties {
            properties.entry(property.name).or_default().insert(property.value);
        }
        let gpu =
            |gpu: crate::protos::worker::Gpu| Gpu { model: gpu.model, vram_bytes: gpu.vram_bytes };
        let offer = Offer {
            properties,
            cpu_milli: join.cpu_milli,
            memory_bytes: join.memory_bytes,
            gpus: join.gpus.into_iter().map(gpu).collect(),
        };
        let holds = leases(join.leases)?;
        tracing::info!(name = join.name, process = join.process, "a worker is there");
        Ok(self.dispatch.join(&join.process, offer, join.models.into_iter().collect(), holds))
    }

    /// Passes messages on, both ways, until one side ends the stream.
    async fn serve(
        self,
        mut connection: Connection,
        mut stream: Streaming<FromWorker>,
        sender: mpsc::Sender<Result<ToWorker, Status>>,
    ) {
        let end = loop {
            tokio::select! {
                message = connection.messages.recv() => {
                    let Some(message) = message else { break Err(Status::aborted(REPLACED)) };
                    if sender.send(Ok(message)).await.is_err() {
                        break Ok(false);
                    }
                }
                message = stream.message() => match message {
                    Ok(Some(FromWorker { message })) => {
                        if let Err(status) = self.take(&connection, message).await {
                            break Err(status);
                        }
                    }
                    Ok(None) => break Ok(true),
                    Err(_) => break Ok(false),
                },
            }
        };
        let for_good = match end {
            Ok(for_good) => for_good,
            Err(status) => {
                let _ = sender.send(Err(status)).await;
                false
            }
        };
        self.dispatch.disconnected(&connection, for_good);
    }

    async fn take(&self, connection: &Connection, message: Option<From>) -> Result<(), Status> {
        let worker = connection.worker;
        match message {
            Some(From::Heartbeat(beat)) => {
                let models = beat.models.into_iter().collect();
                self.dispatch.heartbeat(worker, leases(beat.leases)?, models);
            }
            Some(From::Drain(_)) => self.dispatch.drain(worker),
            Some(From::Finished(finished)) => {
                let lease = LeaseId(finished.lease);
                if let Some(action) = self.dispatch.held_by(worker, lease) {
                    let response = self.judge(action, finished.outcome).await;
                    self.dispatch.finished(worker, lease, response.map(Arc::new));
                }
                self.dispatch.taken(worker, lease);
            }
            Some(From::Join(_)) => {
                return Err(Status::invalid_argument("`Join` is the first message, and no other"));
            }
            // From a worker that knows more than this server.
            None => {}
        }
        Ok(())
    }

    /// The response of a worker, if it is one; its result is in the action cache then.
    async fn judge(
        &self,
        action: Action,
        outcome: Option<Outcome>,
    ) -> Option<reapi::ExecuteResponse> {
        let digest = action.digest;
        let response = match outcome {
            Some(Outcome::Response(bytes)) => reapi::ExecuteResponse::decode(bytes.as_slice())
                .map_err(|error| Status::invalid_argument(error.to_string())),
            Some(Outcome::Fault(why)) => Err(Status::unavailable(why)),
            None => Err(Status::invalid_argument("the report says nothing")),
        };
        let keep = |response| {
            self.context.blocking(move |depot| {
                let space = depot.make_space(&action.instance).map_err(|error| status(&error))?;
                keep(depot, space, &action, response)
            })
        };
        let kept = match response {
            Ok(response) => keep(response).await,
            Err(status) => Err(status),
        };
        let refused = |status: Status| {
            tracing::warn!(%digest, why = status.message(), "an action could not be run");
        };
        kept.map_err(refused).ok()
    }
}

/// Checks a response, and stores its result where it may be kept.
fn keep(
    depot: &Depot,
    space: Space,
    action: &Action,
    mut response: reapi::ExecuteResponse,
) -> Result<reapi::ExecuteResponse, Status> {
    let Some(result) = response.result.take() else { return Ok(response) };
    let is_success = response.status.as_ref().is_none_or(|status| status.code == 0);
    let digest = &action.digest;
    let bytes = whole(depot, space, digest, limits::MESSAGE_BYTES_MAX);
    let bytes = bytes.map_err(|error| status(&error))?;
    let message = reapi::Action::decode(bytes.as_slice());
    let is_cacheable = message.is_ok_and(|action| !action.do_not_cache);
    response.result = Some(if is_success && is_cacheable && result.exit_code == 0 {
        action_cache::store(depot, space, digest, result)?
    } else {
        let mut read = |digest: &_| whole(depot, space, digest, limits::MESSAGE_BYTES_MAX);
        let names = names::of_result(digest.function, &result, &mut read)?;
        match names.iter().find(|name| !has(depot, Some(space), name)) {
            Some(name) => return Err(absent(name)),
            None => result,
        }
    });
    Ok(response)
}

fn leases(leases: Vec<u64>) -> Result<BTreeSet<LeaseId>, Status> {
    let limit = limits::WORKER_LEASES_MAX;
    if leases.len() > limit {
        let text = format!("a worker holds up to {limit} leases");
        return Err(Status::invalid_argument(text));
    }
    Ok(leases.into_iter().map(LeaseId).collect())
}

#[cfg(test)]
mod tests;
