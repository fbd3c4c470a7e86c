//! What a client and its spawn server say to each other, and how it is framed.
//!
//! One conversation: [`Boot`] is answered by [`BootReply`]; then each [`Request`] by one
//! [`Reply`]. While an action runs, any further byte from the client means "kill it"; the end of
//! the stream means "kill it and go". A frame is a little-endian `u32` length and a postcard
//! payload. Both ends are the same program, so the format carries no version.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use maestro_core::limits;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest frame, in bytes: two logs of an action at their limit, or a very long command line.
const FRAME_BYTES_MAX: usize = 2 * limits::ACTION_LOG_BYTES_MAX as usize + (16 << 20);

/// The byte that asks a server to kill the running action.
pub(crate) const KILL: u8 = b'k';

/// How to set up a server; the first message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// Whether actions are sandboxed; otherwise they run on the host as they are.
    pub(crate) hermetic: bool,
    /// The folder that holds toolchains and input trees.
    pub(crate) cache: Vec<u8>,
    /// The folder that holds the folders of actions.
    pub(crate) scratch: Vec<u8>,
    /// Folders of the host that actions may see which ask for it.
    pub(crate) host: Vec<Vec<u8>>,
    /// Which of the dedicated users to become, where the server is privileged.
    pub(crate) slot: u32,
}

/// The answer to [`Boot`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum BootReply {
    /// Actions can be run.
    Ready(Abilities),
    /// They cannot.
    Failed(StepFailure),
}

/// What a server found that it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Abilities {
    /// The dedicated user that actions run as; `None` if they run as the user who builds.
    pub(crate) user: Option<u32>,
    /// Whether inputs appear to belong to the user inside even where they belong to root on disk.
    pub(crate) idmapped: bool,
    /// Whether [`Layer::Memory`] works here.
    pub(crate) memory_layer: bool,
}

/// A step that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepFailure {
    /// What was tried, such as "mount the input tree".
    pub(crate) step: String,
    /// The error number of the system call.
    pub(crate) errno: i32,
}

/// One action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The command line; the program is its first word.
    pub(crate) argv: Vec<Vec<u8>>,
    /// The whole environment, as `NAME=value`.
    pub(crate) env: Vec<Vec<u8>>,
    /// Where it starts, below the execution root; empty for the root itself.
    pub(crate) directory: String,
    /// Root folders of toolchains below the cache folder, most important first.
    pub(crate) toolchains: Vec<String>,
    /// Whether it sees the folders of [`Boot::host`].
    pub(crate) sees_host: bool,
    /// The action's folder below the scratch folder, with its inputs in `in`.
    pub(crate) folder: String,
    /// Where what the action writes goes.
    pub(crate) layer: Layer,
    /// Folders to be made in the writable layer, each after the one that it is in.
    pub(crate) folders: Vec<String>,
    /// Trees to be seen read-only: (folder below the cache folder, path below the execution root).
    pub(crate) trees: Vec<(String, String)>,
    /// Whether the network namespace must be one that no action has used before.
    pub(crate) fresh_network: bool,
    /// The time limit in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Sets everything up and starts no program.
    pub(crate) probe: bool,
}

/// Where what an action writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layer {
    /// Memory, of which the client gets a descriptor afterwards. An action that writes more than
    /// a bound is ended with [`End::Spilled`], to be run again on disk.
    Memory,
    /// The folders `up` and `work` of the action's folder.
    Disk,
}

/// How an action ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The end itself.
    pub(crate) end: End,
    /// Standard output.
    pub(crate) stdout: Log,
    /// Standard error.
    pub(crate) stderr: Log,
    /// Wall time in milliseconds.
    pub(crate) wall_ms: u64,
    /// Processor time in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Largest resident set of one process, in bytes.
    pub(crate) memory_bytes: u64,
}

/// The end of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// The program ended; a status word of `wait(2)`.
    Status(i32),
    /// The program could not be started.
    NotStarted(i32),
    /// The sandbox could not be made.
    SetUp(StepFailure),
    /// The time limit passed.
    TimedOut,
    /// The client asked for it.
    Killed,
    /// It wrote too much for [`Layer::Memory`].
    Spilled,
    /// The sandbox's first process died without a word; something outside killed it.
    Lost,
}

/// What an action wrote to one of its streams: all of it, or its head and tail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    /// The beginning.
    #[serde(with = "bytes")]
    pub(crate) head: Vec<u8>,
    /// How many bytes are left out after it.
    pub(crate) omitted: u64,
    /// The end.
    #[serde(with = "bytes")]
    pub(crate) tail: Vec<u8>,
}

/// Writes one frame.
pub(crate) fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&frame(message)?)
}

/// Writes one frame, and hands a descriptor over with it.
pub(crate) fn send_with<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let frame = frame(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.into_iter().collect::<Vec<_>>();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("a descriptor does not fit its message"));
    }
    // A descriptor travels with the first byte, whatever part of the frame is sent at once.
    let bytes = [io::IoSlice::new(&frame)];
    let sent = retry_on_intr(|| sendmsg(&*stream, &bytes, &mut control, SendFlags::NOSIGNAL))?;
    stream.write_all(frame.get(sent..).unwrap_or_default())
}

/// Reads one frame, and takes the descriptor that came with it, if one did.
pub(crate) fn receive_with<T: DeserializeOwned>(
    stream: &mut UnixStream,
) -> io::Result<(T, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0u8; 1];
    let mut bytes = [io::IoSliceMut::new(&mut first)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| recvmsg(&*stream, &mut bytes, &mut control, flags))?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((receive(&mut first.as_slice().chain(stream))?, descriptor))
}

fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let payload = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if payload.len() > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(payload.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Reads one frame.
pub(crate) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut payload = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut payload)?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Names the step at which a system call failed.
pub(crate) trait AtStep<T> {
    /// Turns the error into a [`StepFailure`].
    fn at(self, step: &str) -> Result<T, StepFailure>;
}

impl<T, E: Into<io::Error>> AtStep<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, StepFailure> {
        self.map_err(|error| {
            let errno = error.into().raw_os_error().unwrap_or(libc::EIO);
            StepFailure { step: step.to_owned(), errno }
        })
    }
}

impl Log {
    /// The bytes to keep, with a note where something was left out.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut out = self.head;
        if self.omitted > 0 {
            out.extend_from_slice(format!("\n[… {} bytes omitted …]\n", self.omitted).as_bytes());
        }
        out.extend_from_slice(&self.tail);
        out
    }
}

/// Long byte strings as one piece instead of a sequence of numbers.
mod bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_bytes(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_are_bounded() {
        let failure = StepFailure { step: "mount".to_owned(), errno: 1 };
        let mut wire = Vec::new();
        send(&mut wire, &failure).expect("a vector takes all");
        assert_eq!(receive::<StepFailure>(&mut wire.as_slice()).expect("whole"), failure);
        for cut in 0..wire.len() {
            let torn = wire.get(..cut).expect("a prefix");
            assert!(receive::<StepFailure>(&mut &*torn).is_err(), "cut at {cut}");
        }
        let huge = u32::MAX.to_le_bytes();
        let error = receive::<StepFailure>(&mut huge.as_slice()).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_log_says_what_it_left_out() {
        let whole = Log { head: b"a".to_vec(), ..Log::default() };
        assert_eq!(whole.into_bytes(), b"a");
        let cut = Log { head: b"a".to_vec(), omitted: 5, tail: b"z".to_vec() };
        assert_eq!(String::from_utf8_lossy(&cut.into_bytes()), "a\n[… 5 bytes omitted …]\nz");
    }
}
