//! An upload: messages come, are gathered, and written while the next ones come.
//!
//! | size | where content is meanwhile |
//! |---|---|
//! | up to `PACKED_BLOB_BYTES_MAX` | in memory; in a file where the stream broke |
//! | above | in a file from the first piece on |
//!
//! An upload ends early, without an error, as soon as somebody else has stored the blob. One upload
//! has one stream at a time: a later one, of a client whose connection broke without the server
//! having noticed, takes the place of the earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bazel_remote_apis::google::bytestream::WriteRequest;
use maestro_cas::depot::{Space, Upload};
use maestro_cas::{Depot, StoreError};
use maestro_core::{Digest, limits};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::order::{Order, OrderError, Start};
use crate::compression::Unpacker;
use crate::resource::{Encoding, Resource};
use crate::server::context::{Context, status};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 1024 * 1024;

/// The next message, from a peer that is not silent for too long.
pub(super) async fn next(
    stream: &mut Streaming<WriteRequest>,
) -> Result<Option<WriteRequest>, Status> {
    let silence = Duration::from_millis(limits::STREAM_SILENCE_MS_MAX);
    match tokio::time::timeout(silence, stream.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!("nothing came for {silence:?}"))),
    }
}

/// Who writes to which upload.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Place>>>);

struct Place {
    /// Tells the one that has the turn to leave.
    leave: CancellationToken,
    /// How many have it or wait for it.
    users: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The right to write to an upload.
struct Turn {
    turns: Turns,
    name: String,
    leave: CancellationToken,
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    /// Takes the turn from whoever has it.
    async fn take(&self, name: &str) -> Turn {
        let leave = CancellationToken::new();
        let turn = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let place = places.entry(name.to_owned()).or_insert_with(|| Place {
                leave: CancellationToken::new(),
                users: 0,
                turn: Arc::default(),
            });
            place.users += 1;
            std::mem::replace(&mut place.leave, leave.clone()).cancel();
            Arc::clone(&place.turn)
        };
        let waiting = Waiting { turns: self.clone(), name: name.to_owned() };
        let guard = turn.lock_owned().await;
        std::mem::forget(waiting);
        Turn { turns: self.clone(), name: name.to_owned(), leave, _guard: guard }
    }

    /// Has the stream that writes to an upload, if there is one, write what came and leave, so that
    /// the length that is told next stays.
    pub(super) async fn settle(&self, name: &str) {
        let known = {
            let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.contains_key(name)
        };
        if known {
            drop(self.take(name).await);
        }
    }

    fn leave(&self, name: &str) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(name) {
            place.users -= 1;
            if place.users == 0 {
                places.remove(name);
            }
        }
    }
}

/// Counts who waits for a turn, also where the wait is given up.
struct Waiting {
    turns: Turns,
    name: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.leave(&self.name);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.leave(&self.name);
    }
}

/// What an upload is about.
pub(super) struct Writing<'a> {
    pub(super) context: &'a Context,
    pub(super) space: Space,
    pub(super) resource: &'a Resource,
    pub(super) name: String,
}

/// How the messages ended.
enum End {
    /// With the last one.
    Finished,
    /// Before the last one; the peer may go on later.
    Left,
    /// Somebody else has stored the blob meanwhile.
    Stored,
}

impl Writing<'_> {
    /// Takes all messages, and gives the size to tell the client.
    pub(super) async fn run(
        self,
        turns: &Turns,
        first: WriteRequest,
        stream: &mut Streaming<WriteRequest>,
    ) -> Result<i64, Status> {
        let digest = self.resource.digest;
        if self.is_stored() {
            return Ok(self.early_size());
        }
        let turn = turns.take(&self.name).await;
        let begun = self.begin(&first).await?;
        let (mut order, mut sink) = begun;
        let mut gathered = vec![first.data];
        let end = self.messages(&turn, &mut order, stream, &mut sink, &mut gathered).await;
        sink.write(gathered);
        match end {
            Ok(End::Finished) => {
                let content = sink.content().await?;
                let space = self.space;
                self.context.blocking(move |depot| content.finish(depot, space)).await?;
                Ok(match self.resource.encoding {
                    Encoding::Identity => digest.size as i64,
                    Encoding::Zstd => order.sent() as i64,
                })
            }
            Ok(End::Stored) => {
                if let Ok(content) = sink.content().await {
                    let discard = move |depot: &Depot| {
                        content.discard(depot);
                        Ok(())
                    };
                    self.context.blocking(discard).await?;
                }
                Ok(self.early_size())
            }
            Ok(End::Left) => Ok(self.keep(sink).await? as i64),
            Err(status) => {
                self.keep(sink).await?;
                Err(status)
            }
        }
    }

    fn is_stored(&self) -> bool {
        self.context.depot.has(self.space, &self.resource.digest)
    }

    /// What a client is told whose upload ended early.
    fn early_size(&self) -> i64 {
        match self.resource.encoding {
            Encoding::Identity => self.resource.digest.size as i64,
            Encoding::Zstd => -1,
        }
    }

    async fn begin(&self, first: &WriteRequest) -> Result<(Order, Sink), Status> {
        let (name, digest) = (self.name.clone(), self.resource.digest);
        let (first_offset, data) = (first.write_offset, first.data.len());
        let small = digest.size <= limits::PACKED_BLOB_BYTES_MAX as u64;
        // Most uploads are small, and one message: they never touch a file.
        let whole = small && first.finish_write && first_offset == 0 && data > 0;
        let committed = if whole {
            0
        } else {
            let length =
                move |depot: &Depot| depot.upload_length(&name).map_err(|error| status(&error));
            self.context.blocking(length).await?
        };
        let (order, start) = Order::begin(first, committed).map_err(|error| refused(&error))?;
        let name = self.name.clone();
        let content = if small && (committed == 0 || start == Start::Anew) {
            Content::Memory { digest, bytes: Vec::new(), name }
        } else {
            let open = move |depot: &Depot| {
                let upload = depot.upload(&name, &digest);
                let mut upload = upload.map_err(|error| status(&error))?;
                if start == Start::Anew {
                    upload.restart(depot).map_err(|error| status(&error))?;
                }
                Ok(Content::File(Box::new(upload)))
            };
            self.context.blocking(open).await?
        };
        let unpacker = match self.resource.encoding {
            Encoding::Identity => None,
            Encoding::Zstd => Some(Unpacker::new(digest.size - content.length().min(digest.size))?),
        };
        Ok((order, Sink::new(self.context.clone(), content, unpacker)))
    }

    async fn messages(
        &self,
        turn: &Turn,
        order: &mut Order,
        stream: &mut Streaming<WriteRequest>,
        sink: &mut Sink,
        gathered: &mut Vec<Vec<u8>>,
    ) -> Result<End, Status> {
        let mut bytes: usize = gathered.iter().map(Vec::len).sum();
        while !order.ended() {
            let message = tokio::select! {
                message = next(stream) => message?,
                () = turn.leave.cancelled() => {
                    return Err(Status::aborted("another stream goes on with this upload"));
                }
            };
            let Some(message) = message else { return Ok(End::Left) };
            order.accept(&message).map_err(|error| refused(&error))?;
            bytes += message.data.len();
            gathered.push(message.data);
            if bytes >= GATHERED_BYTES {
                sink.settle().await?;
                sink.write(std::mem::take(gathered));
                bytes = 0;
                if self.is_stored() {
                    return Ok(End::Stored);
                }
            }
        }
        if next(stream).await?.is_some() {
            return Err(refused(&OrderError::AfterEnd));
        }
        Ok(if self.is_stored() { End::Stored } else { End::Finished })
    }

    /// Keeps what came for a stream that goes on; says how much that is.
    async fn keep(&self, sink: Sink) -> Result<u64, Status> {
        match sink.content().await {
            Ok(content) => self.context.blocking(move |depot| content.keep(depot)).await,
            // What came is wrong, and was forgotten.
            Err(_) => Ok(0),
        }
    }
}

fn refused(error: &OrderError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Where content goes.
enum Content {
    Memory { digest: Digest, bytes: Vec<u8>, name: String },
    File(Box<Upload>),
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::Memory { bytes, .. } => bytes.len() as u64,
            Self::File(upload) => upload.length(),
        }
    }

    fn append(&mut self, depot: &Depot, piece: &[u8]) -> Result<(), Status> {
        match self {
            Self::File(upload) => {
                upload.append(depot, piece).map_err(|error| append_status(&error))
            }
            Self::Memory { digest, bytes, .. } => {
                let size = (bytes.len() + piece.len()) as u64;
                if size > digest.size {
                    let (what, limit) = ("content of a blob", digest.size);
                    return Err(append_status(&StoreError::TooLarge { what, size, limit }));
                }
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    fn finish(self, depot: &Depot, space: Space) -> Result<(), Status> {
        match self {
            Self::File(upload) => upload.finish(depot, space).map_err(|error| status(&error)),
            Self::Memory { digest, bytes, .. } => {
                let found = digest.function.digest(&bytes);
                if found != digest {
                    return Err(status(&StoreError::Mismatch { expected: digest, found }));
                }
                depot.put(space, &[(digest, &bytes)]).map_err(|error| status(&error))
            }
        }
    }

    fn keep(self, depot: &Depot) -> Result<u64, Status> {
        let length = self.length();
        if let Self::Memory { digest, bytes, name } = self
            && !bytes.is_empty()
        {
            let upload = depot.upload(&name, &digest).and_then(|mut upload| {
                upload.restart(depot)?;
                upload.append(depot, &bytes)
            });
            upload.map_err(|error| status(&error))?;
        }
        Ok(length)
    }

    fn discard(self, depot: &Depot) {
        if let Self::File(upload) = self {
            upload.discard(depot);
        }
    }
}

/// More content than announced is the client's fault, not a lack of room.
fn append_status(error: &StoreError) -> Status {
    match error {
        StoreError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        other => status(other),
    }
}

/// Content with what unpacks it, and the write that is under way.
struct Sink {
    context: Context,
    state: State,
}

type Written = Result<(Content, Option<Unpacker>), Status>;

enum State {
    Idle(Content, Option<Unpacker>),
    Busy(JoinHandle<Written>),
    Failed(Status),
}

impl Sink {
    fn new(context: Context, content: Content, unpacker: Option<Unpacker>) -> Self {
        Self { context, state: State::Idle(content, unpacker) }
    }

    /// Begins to write. Where a write is under way, this one follows it.
    fn write(&mut self, pieces: Vec<Vec<u8>>) {
        let busy = State::Failed(Status::internal("a write began and did not go on"));
        let before = std::mem::replace(&mut self.state, busy);
        let depot = Arc::clone(&self.context.depot);
        self.state = match before {
            State::Failed(status) => State::Failed(status),
            State::Idle(content, unpacker) => State::Busy(tokio::task::spawn_blocking(move || {
                write(&depot, content, unpacker, &pieces)
            })),
            State::Busy(earlier) => State::Busy(tokio::spawn(async move {
                let (content, unpacker) = joined(earlier).await?;
                let work = move || write(&depot, content, unpacker, &pieces);
                joined(tokio::task::spawn_blocking(work)).await
            })),
        };
    }

    /// Waits for the write that is under way.
    async fn settle(&mut self) -> Result<(), Status> {
        let idle = State::Failed(Status::internal("a write began and did not go on"));
        self.state = match std::mem::replace(&mut self.state, idle) {
            State::Busy(writing) => match joined(writing).await {
                Ok((content, unpacker)) => State::Idle(content, unpacker),
                Err(status) => State::Failed(status),
            },
            other => other,
        };
        match &self.state {
            State::Failed(status) => Err(status.clone()),
            _ => Ok(()),
        }
    }

    /// The content, when everything is written and the last frame has ended.
    async fn content(mut self) -> Result<Content, Status> {
        self.settle().await?;
        match self.state {
            State::Idle(content, None) => Ok(content),
            State::Idle(content, Some(unpacker)) => {
                unpacker.finish()?;
                Ok(content)
            }
            State::Busy(_) | State::Failed(_) => Err(Status::internal("a write did not end")),
        }
    }
}

async fn joined(writing: JoinHandle<Written>) -> Written {
    writing.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a write ended in a panic");
        Err(Status::internal("the call failed; the server's log says why"))
    })
}

/// Writes pieces; forgets the upload where they cannot be what was announced.
fn write(
    depot: &Depot,
    mut content: Content,
    mut unpacker: Option<Unpacker>,
    pieces: &[Vec<u8>],
) -> Written {
    let result = pieces.iter().try_for_each(|piece| match &mut unpacker {
        None => content.append(depot, piece),
        Some(unpacker) => unpacker.unpack(piece, |piece| content.append(depot, piece)),
    });
    match result {
        Ok(()) => Ok((content, unpacker)),
        Err(status) => {
            if status.code() == tonic::Code::InvalidArgument {
                content.discard(depot);
            }
            Err(status)
        }
    }
}
