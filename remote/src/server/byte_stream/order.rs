//! The order of the messages of an upload: names, offsets and the end. Pure.
//!
//! The first message says from where on content comes; that is a place in the content, also where
//! it travels compressed. From then on offsets count the bytes that travelled.

use bazel_remote_apis::google::bytestream::WriteRequest;

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderError {
    /// A later message names another resource.
    #[error("the message names another resource than the first one")]
    Name,
    /// The offset is another than what came so far.
    #[error("the message is for offset {found}, and {expected} comes next")]
    Offset {
        /// What comes next.
        expected: u64,
        /// What the message says.
        found: i64,
    },
    /// A message follows the one that said that it is the last.
    #[error("a message follows the one with `finish_write`")]
    AfterEnd,
}

/// Where an upload stands.
#[derive(Debug)]
pub(super) struct Order {
    name: String,
    next: u64,
    ended: bool,
}

/// From where on an upload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// From what came before on.
    Resumed,
    /// From the beginning; what came before is forgotten.
    Anew,
}

impl Order {
    /// Takes the first message, where so many bytes came before.
    pub(super) fn begin(first: &WriteRequest, committed: u64) -> Result<(Self, Start), OrderError> {
        let offset = u64::try_from(first.write_offset).ok();
        let start = match offset {
            Some(offset) if offset == committed => Start::Resumed,
            Some(0) => Start::Anew,
            _ => {
                let found = first.write_offset;
                return Err(OrderError::Offset { expected: committed, found });
            }
        };
        let next = match start {
            Start::Resumed => committed,
            Start::Anew => 0,
        };
        let next = next + first.data.len() as u64;
        Ok((Self { name: first.resource_name.clone(), next, ended: first.finish_write }, start))
    }

    /// Takes a later message.
    pub(super) fn accept(&mut self, message: &WriteRequest) -> Result<(), OrderError> {
        if self.ended {
            return Err(OrderError::AfterEnd);
        }
        if !message.resource_name.is_empty() && message.resource_name != self.name {
            return Err(OrderError::Name);
        }
        if u64::try_from(message.write_offset) != Ok(self.next) {
            return Err(OrderError::Offset { expected: self.next, found: message.write_offset });
        }
        self.next += message.data.len() as u64;
        self.ended = message.finish_write;
        Ok(())
    }

    /// Where the first message began, and all bytes that came from there on.
    pub(super) fn sent(&self) -> u64 {
        self.next
    }

    /// Whether the last message was taken.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, write_offset: i64, bytes: usize, finish_write: bool) -> WriteRequest {
        let data = vec![0; bytes];
        WriteRequest { resource_name: name.into(), write_offset, finish_write, data }
    }

    #[test]
    fn uploads_begin_where_they_were_or_anew() {
        let check = |committed: u64, offset: i64, expect: Result<(Start, u64), u64>| {
            let begun = Order::begin(&message("r", offset, 5, false), committed);
            let begun = begun.map(|(order, start)| (start, order.next));
            let expect = expect.map_err(|expected| OrderError::Offset { expected, found: offset });
            assert_eq!(begun, expect, "{committed} {offset}");
        };
        check(0, 0, Ok((Start::Resumed, 5)));
        check(10, 10, Ok((Start::Resumed, 15)));
        check(10, 0, Ok((Start::Anew, 5)));
        check(10, 9, Err(10));
        check(10, 11, Err(10));
        check(0, 1, Err(0));
        check(0, -1, Err(0));
    }

    #[test]
    fn later_messages_follow_without_a_gap() {
        let check = |later: WriteRequest, expect: Result<(), OrderError>| {
            let (mut order, _) = Order::begin(&message("r", 0, 5, false), 0).expect("it begins");
            assert_eq!(order.accept(&later), expect);
        };
        check(message("r", 5, 1, false), Ok(()));
        check(message("", 5, 0, true), Ok(()));
        check(message("s", 5, 1, false), Err(OrderError::Name));
        check(message("", 0, 1, false), Err(OrderError::Offset { expected: 5, found: 0 }));
        check(message("", 6, 1, false), Err(OrderError::Offset { expected: 5, found: 6 }));
        check(message("", -5, 1, false), Err(OrderError::Offset { expected: 5, found: -5 }));
        let (mut order, _) = Order::begin(&message("r", 0, 5, true), 0).expect("it begins");
        assert!(order.ended());
        assert_eq!(order.accept(&message("", 5, 0, true)), Err(OrderError::AfterEnd));
    }
}
