//! One stream to the server, from `Join` until it breaks or the worker may go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use maestro_core::limits;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{Held, Worker, lock};
use crate::client::link;
use crate::protos::worker::workers_client::WorkersClient;
use crate::protos::worker::{
    Drain, Finished, FromWorker, Gpu, Heartbeat, Join, Property, from_worker::Message as From,
    to_worker::Message as To,
};

/// How a stream ended.
pub(super) enum End {
    /// The worker may go.
    Drained,
    /// The server does not know the worker any more.
    Dismissed,
    /// The server does not want it.
    Refused(String),
    /// Anything else; it is worth trying again.
    Broken {
        /// For people.
        why: String,
        /// Whether the server had answered.
        was_open: bool,
    },
}

/// Messages that wait to be sent.
const MESSAGES_AHEAD: usize = 64;

/// Connects, and works until the stream ends.
pub(super) async fn run(
    worker: &Arc<Worker>,
    drain: &CancellationToken,
    connected: &mut impl FnMut(),
) -> End {
    let (sender, messages) = mpsc::channel(MESSAGES_AHEAD);
    let say = |message: From| sender.send(FromWorker { message: Some(message) });
    if say(From::Join(worker.join())).await.is_err() {
        return End::Broken { why: "the stream did not open".to_owned(), was_open: false };
    }
    let link = worker.bench.link();
    let mut client =
        WorkersClient::new(link.wire()).max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX);
    let opened = link.in_time(client.work(ReceiverStream::new(messages))).await;
    let mut stream = match opened {
        Ok(answer) => answer.into_inner(),
        Err(status) => return broken(&status, false),
    };
    connected();
    let mut beats = tokio::time::interval(Duration::from_millis(limits::HEARTBEAT_MS));
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut told, mut is_draining) = (HashSet::new(), false);
    loop {
        for report in worker.reports(&mut told) {
            if say(From::Finished(report)).await.is_err() {
                break;
            }
        }
        let said = tokio::select! {
            message = stream.message() => match message {
                Ok(Some(message)) => match worker.hear(message.message, &mut told) {
                    Some(end) => return end,
                    None => Ok(()),
                },
                Ok(None) => {
                    return End::Broken { why: "the server ended the stream".to_owned(), was_open: true };
                }
                Err(status) => return broken(&status, true),
            },
            _ = beats.tick() => say(From::Heartbeat(worker.heartbeat())).await,
            () = worker.ended.notified() => Ok(()),
            () = drain.cancelled(), if !is_draining => {
                is_draining = true;
                say(From::Drain(Drain {})).await
            }
        };
        // The stream says why it takes nothing any more.
        if said.is_err() {
            match stream.message().await {
                Err(status) => return broken(&status, true),
                Ok(_) => continue,
            }
        }
    }
}

fn broken(status: &Status, was_open: bool) -> End {
    let why = link::text(status);
    let for_good = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    );
    if for_good { End::Refused(why) } else { End::Broken { why, was_open } }
}

impl Worker {
    fn join(&self) -> Join {
        let options = &self.options;
        let property = |(name, value): &(String, String)| Property {
            name: name.clone(),
            value: value.clone(),
        };
        let gpu = |gpu: &maestro_core::scheduler::Gpu| Gpu {
            model: gpu.model.clone(),
            vram_bytes: gpu.vram_bytes,
        };
        Join {
            process: self.process.clone(),
            name: options.name.clone(),
            properties: options.properties.iter().map(property).collect(),
            cpu_milli: options.cpu_milli,
            memory_bytes: options.memory_bytes,
            gpus: options.gpus.iter().map(gpu).collect(),
            models: options.models.clone(),
            leases: self.leases(),
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat { leases: self.leases(), models: self.options.models.clone() }
    }

    /// Reports that were not yet sent on this stream.
    fn reports(&self, told: &mut HashSet<u64>) -> Vec<Finished> {
        let held = lock(&self.held);
        let ended = held.values().filter_map(|held| match held {
            Held::Ended(report) if told.insert(report.lease) => Some(report.clone()),
            _ => None,
        });
        ended.collect()
    }

    /// Does what the server says.
    fn hear(self: &Arc<Self>, message: Option<To>, told: &mut HashSet<u64>) -> Option<End> {
        match message {
            Some(To::Assign(assign)) => self.begin(assign),
            Some(To::Revoke(revoke)) => self.revoke(revoke.lease),
            Some(To::Taken(taken)) => {
                lock(&self.held).remove(&taken.lease);
                told.remove(&taken.lease);
            }
            Some(To::Dismiss(_)) => return Some(End::Dismissed),
            Some(To::Drained(_)) => return Some(End::Drained),
            // From a server that knows more than this worker.
            None => {}
        }
        None
    }
}
