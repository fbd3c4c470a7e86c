//! What a client asks and what a daemon answers: one question and one answer a connection, each a
//! length and that many bytes of JSON, both bounded.
//!
//! A daemon of another build of Maestro is not talked to but replaced, so that the messages need
//! no versions of their own: the build stands in the first field of a question.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use maestro_cas::StatSignature;
use maestro_executor::workspace::snapshot::Changes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest message, in bytes. A client with more to ask does without.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that are set aside before anything came.
const BUFFER_BYTES: usize = 64 * 1024;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// Tells the client's build of Maestro from any other.
    pub build: String,
    /// How the client sees the file system.
    pub view: View,
    /// What it wants.
    pub what: What,
}

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
pub enum What {
    /// What changed since the snapshot of these options was written.
    Changes(Vec<String>),
    /// That the daemon be ready for that question; the answer says nothing.
    Watch(Vec<String>),
    /// How the daemon is.
    Status,
}

/// What decides which files a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The mount namespace.
    mounts: (u64, u64),
    /// The root folder.
    root: (u64, u64),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What changed.
    Told(Told),
    /// The daemon cannot say now.
    Unknown(String),
    /// It cannot say, for a reason that lasts; said once.
    Unable(String),
    /// The daemon is of another build of Maestro.
    OtherBuild,
    /// How it is.
    Status(Status),
}

/// What changed since a snapshot was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// The identity of the snapshot that this is about.
    pub head: StatSignature,
    /// What is no longer as it was.
    pub changes: Changes,
    /// What the snapshot remembers for the report, where nothing is left to do.
    pub done: Option<String>,
    /// What the user should know; said once.
    pub note: Option<String>,
}

/// How a daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// How long it runs, in seconds.
    pub uptime_s: u64,
    /// After how many seconds without a question it ends.
    pub idle_timeout_s: u64,
    /// Questions that were answered.
    pub questions: u64,
    /// Requests whose snapshots are kept ready.
    pub requests: usize,
    /// Folders that the kernel watches, those of each request by themselves.
    pub folders_watched: usize,
    /// Folders of which the kernel does not tell, so that their files are looked at each time.
    pub folders_untold: usize,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
}

impl View {
    /// That of this process.
    pub fn of_this_process() -> io::Result<Self> {
        let id = |path: &str| {
            let stat = rustix::fs::stat(path)?;
            Ok::<_, io::Error>((stat.st_dev, stat.st_ino))
        };
        Ok(Self { mounts: id("/proc/self/ns/mnt")?, root: id("/")? })
    }
}

/// A connection that is given up at a certain time, however slowly the other side goes on.
#[derive(Debug)]
pub struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    /// A connection that is given up after `wait`.
    pub fn new(stream: UnixStream, wait: Duration) -> Self {
        Self { stream, until: Instant::now() + wait }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let length = u32::try_from(bytes.len()).ok();
        let length = length.filter(|_| bytes.len() <= MESSAGE_BYTES_MAX).ok_or_else(too_long)?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(bytes);
        self.write_all(&frame)
    }

    /// Receives a message.
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(too_long());
        }
        let mut bytes = Vec::with_capacity(length.min(BUFFER_BYTES));
        self.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the message is too long")
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Timed) {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        (one, Timed::new(other, Duration::from_secs(10)))
    }

    #[test]
    fn messages_come_back_as_they_were_sent() {
        let (one, mut other) = pair();
        let mut one = Timed::new(one, Duration::from_secs(10));
        one.send(&Answer::Unknown("why".to_owned())).expect("sent");
        let answer: Answer = other.receive().expect("received");
        assert!(matches!(answer, Answer::Unknown(why) if why == "why"));
    }

    #[test]
    fn garbage_is_an_error_and_takes_no_memory() {
        let check = |bytes: &[u8], expect: io::ErrorKind| {
            let (mut one, mut other) = pair();
            one.write_all(bytes).expect("sent");
            drop(one);
            let error = other.receive::<Answer>().expect_err("garbage");
            assert_eq!(error.kind(), expect, "{bytes:?}");
        };
        check(b"", io::ErrorKind::UnexpectedEof);
        check(b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData);
        check(&[255; 64], io::ErrorKind::InvalidData);
        check(&[0, 0, 255, 0, b'{'], io::ErrorKind::UnexpectedEof);
        check(&[2, 0, 0, 0, b'{', b'}'], io::ErrorKind::InvalidData);
    }

    #[test]
    fn whoever_says_nothing_is_given_up() {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        let mut other = Timed::new(other, Duration::from_millis(1));
        let error = other.receive::<Answer>().expect_err("nothing comes");
        let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&error.kind()), "{error}");
        drop(one);
    }
}
