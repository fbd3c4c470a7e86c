//! Collects what an action writes to one of its streams, in bounded memory.
//!
//! The first half of the limit and the last half are kept; what lies between is only counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use super::protocol::Log;

/// Most reads of one stream before the other events of a server get their turn.
const READS_MAX: usize = 64;

/// The reading end of a stream, and what has come through it.
pub(super) struct Pump {
    pipe: Option<OwnedFd>,
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted: u64,
}

impl Pump {
    /// Collects from `pipe`, which must not block, up to `limit` bytes.
    pub(super) fn new(pipe: OwnedFd, limit: usize) -> Self {
        let (head, tail) = (Vec::new(), VecDeque::new());
        Self { pipe: Some(pipe), half: limit / 2, head, tail, omitted: 0 }
    }

    /// What to poll, until the stream has ended.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there now, in a bounded number of reads: whoever writes without end must not
    /// keep the caller from looking at its clock.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0u8; 16 * 1024];
        for _ in 0..READS_MAX {
            let Some(pipe) = &self.pipe else { return Ok(()) };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.keep(buffer.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes everything up to the end of the stream; for when no writer is left.
    pub(super) fn drain_to_end(&mut self) -> io::Result<()> {
        while let Some(pipe) = &self.pipe {
            let mut ready = [PollFd::new(pipe, PollFlags::IN)];
            retry_on_intr(|| poll(&mut ready, None))?;
            self.drain()?;
        }
        Ok(())
    }

    /// Ends the collection.
    pub(super) fn finish(self) -> Log {
        Log { head: self.head, omitted: self.omitted, tail: self.tail.into() }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.half - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
        self.omitted += excess as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_head_and_tail() {
        let check = |limit: usize, writes: &[&str], expect: (&str, u64, &str)| {
            let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
            rustix::io::ioctl_fionbio(&reader, true).expect("not blocking");
            let mut pump = Pump::new(reader, limit);
            for text in writes {
                rustix::io::write(&writer, text.as_bytes()).expect("fits a pipe");
                pump.drain().expect("readable");
                assert!(pump.fd().is_some());
            }
            drop(writer);
            pump.drain().expect("readable");
            assert!(pump.fd().is_none(), "the end was seen");
            let (head, omitted, tail) = expect;
            let (head, tail) = (head.as_bytes().to_vec(), tail.as_bytes().to_vec());
            assert_eq!(pump.finish(), Log { head, omitted, tail });
        };
        check(8, &[], ("", 0, ""));
        check(8, &["abcd"], ("abcd", 0, ""));
        check(8, &["abc", "defgh"], ("abcd", 0, "efgh"));
        check(8, &["abcdefghi"], ("abcd", 1, "fghi"));
        check(8, &["abcdefgh", "ijklmnop"], ("abcd", 8, "mnop"));
    }
}
